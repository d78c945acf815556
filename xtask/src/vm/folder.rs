//! A folder for one machine at a time: its key, its disk, and what it wrote.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// How many machines may run at once in one workspace.
const MOST: usize = 32;
/// What outlives the machine, to be looked at.
const CONSOLE: &str = "console.log";
const LOG: &str = "qemu.log";

/// A folder that is this run's until it is dropped.
///
/// It has a number: the first that no other run has. So what a run that was killed has left, the next
/// one finds and removes.
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Takes a folder below `parent`, and empties it.
    pub(crate) fn take(parent: &Path) -> Result<Folder> {
        for number in 1..=MOST {
            let path = parent.join(number.to_string());
            let taking = || format!("taking the folder {}", path.display());
            fs::create_dir_all(&path).with_context(taking)?;
            let lock = File::open(&path).with_context(taking)?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(error).with_context(taking),
            }
            clear(&path, &[]).with_context(taking)?;
            return Ok(Folder { path, _lock: lock });
        }
        bail!("{MOST} machines run already, in {}", parent.display())
    }

    /// What the machine writes to its serial port.
    pub(crate) fn console(&self) -> PathBuf {
        self.path.join(CONSOLE)
    }

    /// What QEMU says.
    pub(super) fn log(&self) -> PathBuf {
        self.path.join(LOG)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays for some reason goes when the next run takes the folder.
        clear(&self.path, &[CONSOLE, LOG]).ok();
    }
}

fn clear(folder: &Path, kept: &[&str]) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if kept.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_runs_alone_and_is_swept() {
        let parent = tempfile::tempdir().unwrap();
        let one = Folder::take(parent.path()).unwrap();
        let other = Folder::take(parent.path()).unwrap();
        assert_eq!(other.path, parent.path().join("2"));
        fs::write(one.console(), "boots").unwrap();
        fs::create_dir(one.path.join("workspace")).unwrap();
        let path = one.path.clone();
        drop(one);
        assert!(path.join(CONSOLE).exists() && !path.join("workspace").exists());
        // As if it had been killed.
        fs::write(path.join("disk.qcow2"), "big").unwrap();
        let again = Folder::take(parent.path()).unwrap();
        assert_eq!(again.path, path);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    }
}
