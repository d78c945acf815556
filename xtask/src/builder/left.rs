//! What builders in containers leave on this machine, and how it goes: at the end of a run, or, where
//! that was killed, in the next one.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use xshell::Shell;

use super::bootc::DISK;
use super::podman::{Access, LOSETUP, PODMAN, owner};
use crate::exec;
use crate::exec::interrupt::CleanUp;
use crate::hint::{self, WithHint};
use crate::progress::Progress;

/// In a folder that root's podman writes to. It has a line for each name that its storage got for this run.
const MARK: &str = ".podman";

/// What a container leaves, unless it has ended well.
#[derive(Clone)]
pub(super) struct Left {
    pub(super) access: Access,
    pub(super) container: String,
    pub(super) folder: PathBuf,
    pub(super) disk: Option<PathBuf>,
}

/// Names that podman's storage has for this run, and no longer once this is dropped.
pub(super) struct Brought(#[expect(dead_code, reason = "what matters is its end")] Option<CleanUp>);

/// Removes what a run that was killed has left of a container that wrote into `folder`, and on the
/// machine; the folder itself is this user's then.
pub(super) fn sweep(container: &str, folder: &Path) -> Result<()> {
    let mark = folder.join(MARK);
    if !mark.exists() {
        return Ok(());
    }
    let names = fs::read_to_string(&mark).with_context(|| format!("reading {}", mark.display()))?;
    let access = Access::find().ok_or_else(|| anyhow!("only root can remove a container of root's podman"));
    let access = access.hint("run 'sudo -v' before, or all of it as root")?;
    let disk = Some(folder.join(DISK)).filter(|disk| disk.exists());
    let left = Left { access, container: container.to_owned(), folder: folder.to_owned(), disk };
    // The disk tells which loop devices are its own, so it goes last.
    left.remove_container()?;
    left.release_disk()?;
    left.own_folder()?;
    names.lines().try_for_each(|name| remove_image(access, name))
}

/// Says of what could not be put in order what it is, and how to do it by hand.
fn tell(done: Result<()>, progress: &Progress) {
    if let Err(error) = done {
        let hints: String = hint::hints(&error).map(|hint| format!("\nhint: {hint}")).collect();
        progress.warn(format!("what a builder has left is still there: {error:#}{hints}"));
    }
}

impl Left {
    /// Writes down that there will be something.
    pub(super) fn mark(&self) -> Result<()> {
        mark(&self.folder, &[])
    }

    /// Puts all of it in order, as far as that goes.
    pub(super) fn clean_up(&self, progress: &Progress) {
        for done in [self.remove_container(), self.own_folder(), self.release_disk()] {
            tell(done, progress);
        }
    }

    /// Puts in order what one that has ended well may have left. Whether that works or not, its disk is
    /// there.
    pub(super) fn release(&self, progress: &Progress) {
        tell(self.release_disk(), progress);
    }

    pub(super) fn remove_container(&self) -> Result<()> {
        let sh = Shell::new()?;
        let name = &self.container;
        let remove = self.access.command(&sh, PODMAN.program).args(["rm", "--force", "--ignore", name]);
        exec::clean_up(remove).map(drop).hint(format!("run 'sudo podman rm --force {name}'"))
    }

    /// Makes what the container wrote this user's own.
    fn own_folder(&self) -> Result<()> {
        match self.access {
            Access::Root => Ok(()),
            Access::Sudo => {
                let sh = Shell::new()?;
                let (user, group) = owner();
                let chown =
                    self.access.command(&sh, "chown").args(["--recursive", &format!("{user}:{group}")]);
                let hint = format!("run 'sudo rm -r {}'", self.folder.display());
                exec::clean_up(chown.arg(&self.folder)).map(drop).hint(hint)
            }
        }
    }

    /// Lets go of the loop devices that still have the disk, which the container has mounted.
    fn release_disk(&self) -> Result<()> {
        let Some(disk) = &self.disk else { return Ok(()) };
        let sh = Shell::new()?;
        let metadata = fs::metadata(disk).with_context(|| format!("looking at {}", disk.display()))?;
        let device = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
        let losetup = || self.access.command(&sh, LOSETUP.program);
        let list = ["--list", "--noheadings", "--output", "NAME,BACK-INO,BACK-MAJ:MIN"];
        let text = exec::clean_up(losetup().args(list))?;
        for name in loop_devices(&text, metadata.ino(), device) {
            let hint = format!("run 'sudo losetup --detach {name}'");
            exec::clean_up(losetup().args(["--detach", name])).hint(hint)?;
        }
        Ok(())
    }
}

impl Brought {
    /// What is needed was there before.
    pub(super) fn nothing() -> Brought {
        Brought(None)
    }

    /// These names will be there from now on, and were not before.
    pub(super) fn names(
        names: Vec<String>,
        access: Access,
        (folder, progress): (&Path, &Progress),
    ) -> Result<Brought> {
        mark(folder, &names)?;
        let progress = progress.clone();
        Ok(Brought(Some(CleanUp::afterwards(move || {
            names.iter().for_each(|name| tell(remove_image(access, name), &progress));
        }))))
    }
}

/// Leaves the mark for the next run, with `names` that it does not have yet.
fn mark(folder: &Path, names: &[String]) -> Result<()> {
    let path = folder.join(MARK);
    let write = || -> std::io::Result<()> {
        let mut lines = if path.exists() { fs::read_to_string(&path)? } else { String::new() };
        lines.extend(names.iter().map(|name| format!("{name}\n")));
        fs::write(&path, lines)
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// Takes a name from an image in podman's storage, and removes the image if it has no other.
fn remove_image(access: Access, name: &str) -> Result<()> {
    let sh = Shell::new()?;
    match exec::clean_up(access.command(&sh, PODMAN.program).args(["image", "rm", name])) {
        // It has not come that far. Source: containers/storage, ErrImageUnknown.
        Err(error) if error.to_string().contains("image not known") => Ok(()),
        removed => removed.map(drop).hint(format!("run 'sudo podman image rm {name}'")),
    }
}

/// The loop devices in `losetup`'s table whose file is this one.
fn loop_devices(table: &str, inode: u64, (major, minor): (u32, u32)) -> impl Iterator<Item = &str> {
    let file = [inode.to_string(), format!("{major}:{minor}")];
    table.lines().filter_map(move |line| {
        let mut fields = line.split_whitespace();
        let name = fields.next()?;
        fields.eq(file.iter().map(String::as_str)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_device_is_told_by_its_file() {
        let table = "/dev/loop0  12 254:0  \n/dev/loop1  12 254:1  \n/dev/loop2 \n/dev/loop10 12 254:0  \n";
        assert_eq!(loop_devices(table, 12, (254, 0)).collect::<Vec<_>>(), ["/dev/loop0", "/dev/loop10"]);
        assert_eq!(loop_devices(table, 1, (254, 0)).count(), 0);
    }
}
