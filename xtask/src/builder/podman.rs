//! Root's podman, which runs the builders that come as containers: images into its storage, and
//! containers that leave nothing behind, however they end.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use xshell::{Cmd, Shell, cmd};

use super::Order;
use super::left::{Brought, Left};
use crate::exec::interrupt::CleanUp;
use crate::exec::{self, ExecError};
use crate::hint::{WithHint, hinted};
use crate::oci::ImageName;
use crate::preflight::{Need, Source};
use crate::progress::{Progress, Step};

pub(super) const PODMAN: Need =
    Need { program: "podman", purpose: "runs builders of disks", from: Source::Debian("podman") };
pub(super) const SKOPEO: Need = Need {
    program: "skopeo",
    purpose: "brings an image from a layout into podman's storage",
    from: Source::Debian("skopeo"),
};
pub(super) const LOSETUP: Need = Need {
    program: "losetup",
    purpose: "lets go of the loop devices of an installation that failed",
    from: Source::Debian("mount"),
};

/// Where root's images are when podman cannot be asked. Source: containers-storage.conf(5).
pub(super) const DEFAULT_STORAGE: &str = "/var/lib/containers/storage";
/// How many of the last lines on standard output an error shows.
const LINES_KEPT: usize = 30;
/// How long a question may take that concerns this machine alone.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often sudo hears of us while a container runs: it forgets whoever has not used it for some
/// minutes (sudoers(5), `timestamp_timeout`), and then nothing could end the container any more.
const SUDO_INTERVAL: Duration = Duration::from_secs(60);
/// Runs a program, and makes what it wrote into a folder its owner's in any case. It is one call of
/// sudo, since the next one could ask for a password.
const THEN_OWNED: &str =
    r#"owner=$1 folder=$2; shift 2; "$@"; code=$?; chown --recursive "$owner" "$folder" || exit; exit $code"#;

/// How a program gets to be root's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Root,
    /// sudo, which asks for no password now.
    Sudo,
}

/// Root's podman.
pub(super) struct Podman {
    access: Access,
    /// Where its images are.
    pub(super) storage: PathBuf,
}

/// A container that does one thing and is gone.
pub(super) struct Container<'a> {
    /// So that it can be ended from outside.
    pub(super) name: &'a str,
    pub(super) image: &'a str,
    pub(super) namespaces: Namespaces,
    pub(super) mounts: Vec<Mount<'a>>,
    /// A disk that it attaches to a loop device of this machine's.
    pub(super) attaches: Option<&'a Path>,
    /// What the image's entry point gets.
    pub(super) command: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Namespaces {
    Own,
    /// The machine's processes and their shared memory.
    Host,
}

pub(super) struct Mount<'a> {
    pub(super) from: &'a Path,
    pub(super) to: &'static str,
    pub(super) mode: MountMode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MountMode {
    ReadOnly,
    ReadWrite,
}

/// What reads a program's standard output, and what sees each line of its standard error.
type Consume<'a> = &'a mut dyn FnMut(&mut dyn Read) -> io::Result<()>;
type OnLine<'a> = &'a mut (dyn FnMut(&str) + Send);

impl Access {
    /// Nothing where this user can be root only with a password, or not at all.
    pub(super) fn find() -> Option<Access> {
        if rustix::process::geteuid().is_root() {
            return Some(Access::Root);
        }
        let sh = Shell::new().ok()?;
        let answer = exec::ask(cmd!(sh, "sudo -n true"), "", PATIENCE).ok()?;
        answer.status.success().then_some(Access::Sudo)
    }

    pub(super) fn command<'a>(self, sh: &'a Shell, program: &str) -> Cmd<'a> {
        match self {
            Access::Root => cmd!(sh, "{program}"),
            Access::Sudo => cmd!(sh, "sudo -n {program}"),
        }
    }

    /// Does some work, however long it takes, after which this is no less root's than before.
    fn kept<T>(self, work: impl FnOnce() -> T) -> T {
        match self {
            Access::Root => work(),
            Access::Sudo => std::thread::scope(|scope| {
                let (working, done) = mpsc::channel::<()>();
                scope.spawn(move || {
                    let renew = || {
                        let sh = Shell::new().ok()?;
                        // Where it cannot be kept, what is written is kept all the same.
                        exec::run(cmd!(sh, "sudo -n --validate")).ok()
                    };
                    renew();
                    while done.recv_timeout(SUDO_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                        renew();
                    }
                });
                let result = work();
                drop(working);
                result
            }),
        }
    }

    /// podman with a command, after which what it wrote into `folder` is this user's.
    fn podman_into<'a>(self, sh: &'a Shell, folder: &Path) -> Cmd<'a> {
        match self {
            Access::Root => self.command(sh, PODMAN.program),
            Access::Sudo => {
                let (user, group) = owner();
                let command = self.command(sh, "sh").args(["-c", THEN_OWNED, "sh"]);
                command.arg(format!("{user}:{group}")).arg(folder).arg(PODMAN.program)
            }
        }
    }
}

impl Container<'_> {
    /// Of podman. `--stop-timeout`: what does not end by itself is ended while the user waits.
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> =
            ["run", "--rm", "--name", self.name, "--stop-timeout=2", "--pull=never", "--privileged"]
                .map(OsString::from)
                .to_vec();
        match self.namespaces {
            Namespaces::Own => {}
            Namespaces::Host => arguments.extend(["--pid=host", "--ipc=host"].map(OsString::from)),
        }
        arguments.extend(["--security-opt", "label=type:unconfined_t"].map(OsString::from));
        for Mount { from, to, mode } in &self.mounts {
            let mut volume = from.as_os_str().to_owned();
            volume.push(":");
            volume.push(to);
            match mode {
                MountMode::ReadOnly => volume.push(":ro"),
                MountMode::ReadWrite => {}
            }
            arguments.extend(["--volume".into(), volume]);
        }
        arguments.push(self.image.into());
        arguments.extend(self.command.iter().cloned());
        arguments
    }
}

impl Podman {
    pub(super) fn of_root() -> Result<Podman> {
        let access = Access::find().ok_or_else(|| anyhow!("podman has to run as root"));
        Podman::open(access.hint("run 'sudo -v' before, or all of it as root")?)
    }

    pub(super) fn open(access: Access) -> Result<Podman> {
        let sh = Shell::new()?;
        let format = "{{.Host.Security.Rootless}} {{.Store.GraphRoot}}";
        let info = exec::read(access.command(&sh, PODMAN.program).args(["info", "--format", format]))
            .map_err(|error| explain(error, &[]))?;
        match info.trim_end().split_once(' ') {
            Some(("false", storage)) => Ok(Podman { access, storage: storage.into() }),
            Some(_) | None => Err(anyhow!("podman works without root here: {}", info.trim_end()))
                .hint("unset CONTAINER_HOST and what else sends it elsewhere"),
        }
    }

    fn command<'a>(&self, sh: &'a Shell) -> Cmd<'a> {
        self.access.command(sh, PODMAN.program)
    }

    /// Whether `name` names the image of the order in the storage: its id is the config's digest.
    pub(super) fn has(&self, order: &Order<'_>) -> Result<bool> {
        let sh = Shell::new()?;
        let name = order.upgrades_from.to_string();
        let inspect = self.command(&sh).args(["image", "inspect", "--format", "{{.Id}}", &name]);
        let answer = exec::ask(inspect, "", PATIENCE)?;
        Ok(answer.status.success() && answer.stdout.trim_end() == order.image.config_digest.hex())
    }

    /// Whether anything in the storage has this name.
    fn has_name(&self, name: &str) -> Result<bool> {
        let sh = Shell::new()?;
        let inspect = self.command(&sh).args(["image", "inspect", "--format", "{{.Id}}", name]);
        Ok(exec::ask(inspect, "", PATIENCE)?.status.success())
    }

    /// Brings the image into the storage, under the name that a host upgrades from, for as long as what
    /// this returns is there; `folder` tells the next run of it. What was there before stays.
    pub(super) fn bring(&self, order: &Order<'_>, folder: &Path, progress: &Progress) -> Result<Brought> {
        if self.has(order)? {
            return Ok(Brought::nothing());
        }
        let sh = Shell::new()?;
        let target = order.upgrades_from.to_string();
        let mut pulled: Option<String> = None;
        let command = match &order.image.name {
            ImageName::Layout { .. } if order.image.layers_elsewhere()?.is_none() => {
                let (from, to) = (order.image.name.to_string(), format!("containers-storage:{target}"));
                self.access.command(&sh, SKOPEO.program).args(["copy", &from, &to])
            }
            ImageName::Layout { .. } | ImageName::Registry(_) => {
                let source = order.pushed_as()?.unwrap_or_else(|| order.upgrades_from.clone());
                pulled = Some(source.to_string()).filter(|source| *source != target);
                let source = source.to_string();
                let plain_http = order.registry.is_plain_http(order.upgrades_from)?;
                let tls_verify = plain_http.then_some("--tls-verify=false");
                self.command(&sh).arg("pull").args(tls_verify).arg(&source)
            }
        };
        let names: Vec<String> = [Some(target.clone()), pulled.clone()].into_iter().flatten().collect();
        let mut new = Vec::new();
        for name in names {
            if !self.has_name(&name)? {
                new.push(name);
            }
        }
        let brought = Brought::names(new, self.access, (folder, progress))?;
        let step = progress.step(format!("bringing {} into podman's storage", order.image.name));
        talk(command, &step, |command, consume, on_line| exec::stream(command, consume, on_line))
            .with_context(|| format!("bringing {} into podman's storage", order.image.name))?;
        if let Some(source) = &pulled {
            exec::read(self.command(&sh).args(["tag", source, &target]))?;
        }
        if !self.has(order)? {
            let error = anyhow!("{target} in podman's storage is not {}", order.image.name);
            return Err(hinted(error, "its tag has moved meanwhile: run the command again"));
        }
        step.done(format!("brought {target} into podman's storage"));
        Ok(brought)
    }

    /// What an image's entry point says to `arguments`. A newer image is fetched before.
    pub(super) fn ask(&self, image: &str, arguments: &[&str], step: &Step) -> Result<String> {
        let sh = Shell::new()?;
        let command = self.command(&sh).args(["run", "--rm", "--pull=newer", image]).args(arguments);
        let mut text = String::new();
        let read = |out: &mut dyn Read| out.read_to_string(&mut text).map(drop);
        exec::stream(command, read, |line| step.said(line)).map_err(|error| explain(error, &[]))?;
        Ok(text)
    }

    /// Runs a container to its end. Whatever becomes of it, it is gone afterwards, and what it wrote
    /// into `folder` is this user's.
    pub(super) fn run(
        &self,
        container: &Container<'_>,
        (folder, progress): (&Path, &Progress),
        step: &Step,
    ) -> Result<()> {
        let left = Left {
            access: self.access,
            container: container.name.to_owned(),
            folder: folder.to_owned(),
            disk: container.attaches.map(Path::to_owned),
        };
        left.mark()?;
        // Where a run was killed that wrote elsewhere.
        left.remove_container()?;
        let is_done = Arc::new(AtomicBool::new(false));
        let _clean_up = CleanUp::afterwards({
            let (left, is_done, progress) = (left.clone(), is_done.clone(), progress.clone());
            move || match is_done.load(Ordering::SeqCst) {
                true => left.release(&progress),
                false => left.clean_up(&progress),
            }
        });
        let sh = Shell::new()?;
        // No registry takes part, so a file of logins that is not there must not stop it.
        let command = self.access.podman_into(&sh, folder).args(container.arguments());
        let command = command.env_remove("REGISTRY_AUTH_FILE").env_remove("DOCKER_CONFIG");
        let run = |run, consume: Consume<'_>, on_line: OnLine<'_>| {
            // Where it fails, it is called again, and the clean-up says why.
            exec::stream_until(run, consume, on_line, || {
                left.remove_container().ok();
            })
        };
        self.access.kept(|| talk(command, step, run))?;
        is_done.store(true, Ordering::SeqCst);
        Ok(())
    }
}

/// Who gets what a container writes.
pub(super) fn owner() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// Runs a program that talks for long, by `run`, and shows what it says.
fn talk<'c>(
    command: Cmd<'c>,
    step: &Step,
    run: impl FnOnce(Cmd<'c>, Consume<'_>, OnLine<'_>) -> Result<(), ExecError>,
) -> Result<()> {
    let mut said = Vec::new();
    let mut note = |line: &str| {
        step.said(line);
        if said.len() == LINES_KEPT {
            said.remove(0);
        }
        said.push(line.to_owned());
    };
    let mut consume = |out: &mut dyn Read| -> io::Result<()> {
        BufReader::new(out).split(b'\n').try_for_each(|line| {
            note(&crate::words::printable(&line?));
            Ok(())
        })
    };
    let done = run(command, &mut consume, &mut |line| step.said(line));
    done.map_err(|error| explain(error, &said))
}

/// The error of podman or of what ran in it, with what it said before on standard output.
fn explain(error: ExecError, said: &[String]) -> anyhow::Error {
    let ExecError::Failed { .. } = &error else { return error.into() };
    let mut text = error.to_string();
    if !said.is_empty() {
        let lines: String = said.iter().map(|line| format!("\n    {line}")).collect();
        text += &format!("\n  and before, on standard output{lines}");
    }
    let remedy = remedy(&text);
    hinted(anyhow!("{text}"), remedy)
}

/// What mends a failure that podman, osbuild or bootc describes like this. The words are those of
/// containers/image, containers/storage, the kernel's error numbers, and losetup.
fn remedy(text: &str) -> &'static str {
    let text = text.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["no space left on device"]) {
        "free some space: 'sudo podman system df' shows what images take, 'sudo podman system prune' removes what is unused"
    } else if says(&["unauthorized", "authentication required", ": denied"]) {
        "root's podman has logins of its own: run 'sudo podman login' for the registry"
    } else if says(&["manifest unknown", "name unknown", "image not known"]) {
        "check the image's name; '--builder-image' names another builder"
    } else if says(&["pinging container registry", "dial tcp", "i/o timeout"]) {
        "the registry has to be reachable: check the network, and run the command again"
    } else if says(&["graph driver", "graphdriver", "storage driver", "overlay is not supported"]) {
        "root's podman cannot use its storage: 'sudo podman info' says why, and containers-storage.conf(5) how to choose a driver, such as vfs"
    } else if says(&["database is locked", "layer not known", "readlink /var/lib/containers"]) {
        "podman's storage is damaged: 'sudo podman system check --repair' mends it (podman 5.2), 'sudo podman system reset' empties it"
    } else if says(&["loop device", "losetup", "/dev/loop"]) {
        "run 'sudo modprobe loop', and on the machine itself: a container has loop devices only if it is privileged"
    } else {
        "the lines above say which step failed; '--builder' chooses another way"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_hints() {
        for (text, expected) in [
            ("write /output/image/disk.raw: No space left on device", "free some space"),
            ("Error: initializing source: unauthorized: access denied", "sudo podman login"),
            ("lstat /root/.config: permission denied", "'--builder'"),
            ("Error: quay.io/a/b:c: image not known", "check the image's name"),
            ("pinging container registry quay.io: dial tcp: lookup quay.io", "reachable"),
            ("losetup: cannot find an unused loop device", "modprobe loop"),
            ("Error: prior storage driver overlay failed: driver not supported", "containers-storage.conf"),
            ("Error: layer not known", "podman system check"),
            ("something else", "--builder"),
        ] {
            assert!(remedy(text).contains(expected), "{text}: {}", remedy(text));
        }
    }
}
