//! A file that has no name until it is whole: whatever ends a run before, nothing is left of it.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use tempfile::NamedTempFile;

/// Everyone may read what was made.
const MODE: u32 = 0o644;

/// A file that is to become the one at `path`.
pub(crate) struct Unfinished {
    pub(crate) path: PathBuf,
    state: State,
}

enum State {
    /// The kernel forgets it with this process.
    Nameless(File),
    /// Where the file system cannot do that.
    Hidden(NamedTempFile),
}

impl Unfinished {
    /// An empty file in the folder of `path`. What a killed run left there goes; so only whoever
    /// holds a lock of that folder may call this.
    pub(crate) fn new(path: PathBuf) -> Result<Unfinished> {
        let state = State::new(&path).with_context(|| format!("writing {}", path.display()))?;
        Ok(Unfinished { path, state })
    }

    pub(crate) fn file(&self) -> &File {
        match &self.state {
            State::Nameless(file) => file,
            State::Hidden(file) => file.as_file(),
        }
    }

    /// Gives it its name, in place of a file that has it, once it is on disk.
    pub(crate) fn finish(self) -> Result<()> {
        let Unfinished { path, state } = self;
        state.finish(&path).with_context(|| format!("writing {}", path.display()))
    }
}

impl State {
    fn new(path: &Path) -> io::Result<State> {
        let (folder, temporary) = places(path)?;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(temporary.as_bytes()) {
                fs::remove_file(entry.path())?;
            }
        }
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::open(folder, flags, Mode::from_raw_mode(MODE)) {
            Ok(file) => Ok(State::Nameless(file.into())),
            // What file systems and kernels say that have no nameless files.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                let readable = PermissionsExt::from_mode(MODE);
                let builder =
                    tempfile::Builder::new().prefix(&temporary).permissions(readable).tempfile_in(folder);
                Ok(State::Hidden(builder?))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn finish(self, path: &Path) -> io::Result<()> {
        let (folder, temporary) = places(path)?;
        match self {
            State::Nameless(file) => {
                file.sync_all()?;
                // A link does not replace a file, and a rename wants a name to begin with.
                let hidden = folder.join(temporary + "new");
                let own = format!("/proc/self/fd/{}", file.as_raw_fd());
                rustix::fs::linkat(CWD, own, CWD, &hidden, AtFlags::SYMLINK_FOLLOW)?;
                fs::rename(&hidden, path)?;
            }
            State::Hidden(file) => {
                file.as_file().sync_all()?;
                file.persist(path)?;
            }
        }
        File::open(folder)?.sync_all()
    }
}

/// The folder of a file, and how the names of its unfinished ones begin.
fn places(path: &Path) -> io::Result<(&Path, String)> {
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) => Ok((folder, format!(".{}.", name.display()))),
        (_, _) => Err(io::ErrorKind::InvalidInput.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_is_replaced_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.raw");
        let names =
            || fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        fs::write(&path, "old").unwrap();
        fs::write(dir.path().join(".a.raw.x"), "of a run that was killed").unwrap();
        let given_up = Unfinished::new(path.clone()).unwrap();
        given_up.file().write_all(b"half").unwrap();
        assert_eq!(names(), ["a.raw"]);
        drop(given_up);
        let new = Unfinished::new(path.clone()).unwrap();
        new.file().write_all(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        new.finish().unwrap();
        assert_eq!((fs::read(&path).unwrap().as_slice(), names()), (&b"new"[..], vec!["a.raw".into()]));
        // Nor does it stay where a file system has no nameless files.
        let hidden = State::Hidden(tempfile::Builder::new().prefix(".a.raw.").tempfile_in(&dir).unwrap());
        let hidden = Unfinished { path: path.clone(), state: hidden };
        hidden.file().write_all(b"newer").unwrap();
        hidden.finish().unwrap();
        assert_eq!((fs::read(&path).unwrap().as_slice(), names()), (&b"newer"[..], vec!["a.raw".into()]));
    }
}
