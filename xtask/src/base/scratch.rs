//! What a build has on this machine beside its result: a folder in the layout, an image in the
//! engine's store, working containers there, programs in them. All of it carries one mark, by which
//! it is found and removed, whoever left it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::engine::{self, Engine};
use crate::progress::Progress;

/// How marks begin; what follows is chosen anew for each build.
const PREFIX: &str = "bootc-testboot-";
const RANDOM: usize = 12;

/// How long an engine may take to clean up once its step has ended.
const PATIENCE: Duration = Duration::from_secs(3);
const INTERVAL: Duration = Duration::from_millis(50);

/// Files that engines make for a container and mount into it. Of no other process they come from a
/// build's own folder.
const MOUNTED: [&str; 4] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/run/.containerenv"];

/// A build's folder. Only whoever holds the layout's lock may have one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scratch {
    pub(crate) dir: PathBuf,
    pub(crate) mark: String,
}

/// How a build ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The engine has tidied up, and left the image.
    Built,
    /// It may have left anything.
    Unknown,
}

impl Scratch {
    pub(crate) fn new(layout: &Path) -> Result<Scratch> {
        let making = || format!("making a folder in {}", layout.display());
        let dir =
            tempfile::Builder::new().prefix(&format!(".{PREFIX}")).rand_bytes(RANDOM).tempdir_in(layout);
        let scratch = Scratch::at(dir.with_context(making)?.keep()).with_context(making)?;
        fs::create_dir(scratch.temporary()).with_context(making)?;
        Ok(scratch)
    }

    /// Those that killed runs have left in the layout.
    pub(crate) fn left(layout: &Path) -> Result<Vec<Scratch>> {
        let listing = || format!("listing {}", layout.display());
        if !layout.exists() {
            return Ok(Vec::new());
        }
        let entries = fs::read_dir(layout).with_context(listing)?;
        let paths = entries.map(|entry| Ok(entry.with_context(listing)?.path()));
        paths.filter_map(|path| path.map(Scratch::at).transpose()).collect()
    }

    fn at(dir: PathBuf) -> Option<Scratch> {
        let mark = dir.file_name()?.to_str()?.strip_prefix('.')?;
        let random = mark.strip_prefix(PREFIX)?;
        let is_mark = random.len() == RANDOM && random.bytes().all(|byte| byte.is_ascii_alphanumeric());
        is_mark.then(|| Scratch { mark: mark.to_owned(), dir: dir.clone() })
    }

    /// What the build sees.
    pub(crate) fn context(&self) -> PathBuf {
        self.dir.join("context")
    }

    /// The engine's temporary files.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    /// Ends the programs of the build's steps. The engine sees its step fail, removes what it has
    /// made for it, and ends; told to end itself, it would leave all of that behind.
    pub(crate) fn end_steps(&self) {
        for process in processes() {
            if is_step(process, &self.mark) {
                // One that has ended by itself is as good.
                kill_process(process, Signal::KILL).ok();
            }
        }
    }

    /// Removes all that the build has left. Where something cannot be removed, the folder stays, so
    /// that the next run tries again.
    pub(crate) fn remove(&self, engine: Engine, end: End, progress: &Progress) {
        let removed = match end {
            End::Built => Ok(()),
            End::Unknown => self.remove_containers(engine),
        };
        let removed = removed.and_then(|()| engine.forget(&engine::image(&self.mark)));
        if let Err(error) = removed.and_then(|()| self.remove_folder()) {
            progress.warn(format!("what a build has left is still there: {error:#}"));
            progress.warn(format!("the next run tries again to remove it; '{}' shows it", engine.listing()));
        }
    }

    fn remove_containers(&self, engine: Engine) -> Result<()> {
        self.end_engine();
        self.end_steps();
        engine.forget_steps(&self.temporary());
        let containers = engine.working_containers(&self.mark)?;
        containers.iter().try_for_each(|container| engine.remove_container(container))
    }

    /// Ends an engine that a killed run has left working.
    fn end_engine(&self) {
        let working = || processes().filter(|&process| is_engine(process, &self.mark)).collect::<Vec<_>>();
        let end = Instant::now() + PATIENCE;
        while !working().is_empty() && Instant::now() < end {
            self.end_steps();
            std::thread::sleep(INTERVAL);
        }
        for process in working() {
            // It leads a group, in which its helpers are.
            kill_process_group(process, Signal::KILL).or_else(|_| kill_process(process, Signal::KILL)).ok();
        }
    }

    fn remove_folder(&self) -> Result<()> {
        let removing = || format!("removing {}", self.dir.display());
        // What is mounted below would be emptied, and is somebody's.
        let mounts = File::open("/proc/self/mountinfo").with_context(removing)?;
        for line in BufReader::new(mounts).lines() {
            let line = line.with_context(removing)?;
            if mount(&line).is_some_and(|(_, point)| point.contains(&self.mark)) {
                bail!("something is mounted in {}", self.dir.display());
            }
        }
        fs::remove_dir_all(&self.dir).with_context(removing)
    }
}

fn processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok().and_then(Pid::from_raw))
}

/// A file of a process, unless it has ended or is none of ours.
fn read(process: Pid, file: &str) -> Vec<u8> {
    fs::read(format!("/proc/{}/{file}", process.as_raw_nonzero())).unwrap_or_default()
}

fn is_engine(process: Pid, mark: &str) -> bool {
    let command = read(process, "cmdline");
    let tag = engine::tag_option(mark);
    command.split(|&byte| byte == 0).any(|argument| argument == tag.as_bytes())
}

/// Whether a process lives in a container of the build.
fn is_step(process: Pid, mark: &str) -> bool {
    let mounts = read(process, "mountinfo");
    let mounts = String::from_utf8_lossy(&mounts);
    mounts.lines().filter_map(mount).any(|(source, point)| MOUNTED.contains(&point) && source.contains(mark))
}

/// What is mounted, within its file system, and where. Source: proc_pid_mountinfo(5).
fn mount(line: &str) -> Option<(&str, &str)> {
    let mut fields = line.split(' ').skip(3);
    fields.next().zip(fields.next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_run_left_is_told_from_the_rest() {
        let layout = tempfile::tempdir().unwrap();
        for other in ["blobs", ".bootc-testboot-short", ".bootc-testboot-a/b", "bootc-testboot-abcdefghijkl"]
        {
            fs::create_dir_all(layout.path().join(other)).unwrap();
        }
        assert_eq!(Scratch::left(layout.path()).unwrap(), []);
        let scratch = Scratch::new(layout.path()).unwrap();
        assert_eq!(Scratch::left(layout.path()).unwrap(), [scratch]);
        assert_eq!(Scratch::left(&layout.path().join("nowhere")).unwrap(), []);
    }

    #[test]
    fn a_step_is_told_by_what_is_mounted_into_it() {
        let check = |line, expected| assert_eq!(mount(line), expected);
        check(
            "103 99 254:0 /w/tmp/buildah1/hosts /etc/hosts rw,relatime - ext4 /dev/vda rw",
            Some(("/w/tmp/buildah1/hosts", "/etc/hosts")),
        );
        check("103 99", None);
        let own = Pid::from_raw(std::process::id().try_into().unwrap()).unwrap();
        assert!(!is_step(own, "bootc-testboot-"));
        assert!(processes().any(|process| process == own));
    }
}
