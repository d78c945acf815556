//! A file that has no name until it is whole: whatever ends a run before, nothing is left of it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use tempfile::NamedTempFile;

/// Everyone may read what was made.
const MODE: u32 = 0o644;

/// Stands in the name of every file that is hidden until it is whole. Nobody else calls files so, so
/// what has such a name was left by a run that was killed.
const MARK: &str = "bootc-testboot-unfinished-";

/// Whether a file that is there is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replace {
    Yes,
    /// Nor is one that appears meanwhile.
    No,
}

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
        self.finish_as(Replace::Yes)
    }

    /// Gives it its name, once it is on disk.
    pub(crate) fn finish_as(self, replace: Replace) -> Result<()> {
        let Unfinished { path, state } = self;
        state.finish(&path, replace).with_context(|| format!("writing {}", path.display()))
    }
}

/// Sees to it that `path` holds `bytes`. It is not touched where it does; otherwise it is replaced
/// in one step, with the mode that it had, and is on disk afterwards. Only whoever holds the lock
/// of its folder, or of a layout beside it or around it, may call this.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let writing = || format!("writing {}", path.display());
    let new = Unfinished::new(path.to_owned())?;
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let permissions = match fs::metadata(path) {
        Ok(old) => old.permissions(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => PermissionsExt::from_mode(MODE),
        Err(error) => return Err(error).with_context(writing),
    };
    new.file().write_all(bytes).with_context(writing)?;
    // Not when it is made: the umask would take from it.
    new.file().set_permissions(permissions).with_context(writing)?;
    new.finish()
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

    fn finish(self, path: &Path, replace: Replace) -> io::Result<()> {
        let (folder, temporary) = places(path)?;
        match self {
            State::Nameless(file) => {
                file.sync_all()?;
                let own = format!("/proc/self/fd/{}", file.as_raw_fd());
                let link = |to: &Path| rustix::fs::linkat(CWD, &own, CWD, to, AtFlags::SYMLINK_FOLLOW);
                match replace {
                    Replace::No => link(path)?,
                    // A link does not replace a file, and a rename wants a name to begin with.
                    Replace::Yes => {
                        let hidden = folder.join(temporary + "new");
                        link(&hidden)?;
                        fs::rename(&hidden, path)?;
                    }
                }
            }
            State::Hidden(file) => {
                file.as_file().sync_all()?;
                match replace {
                    Replace::No => file.persist_noclobber(path)?,
                    Replace::Yes => file.persist(path)?,
                };
            }
        }
        File::open(folder)?.sync_all()
    }
}

/// The folder of a file, and how the names of its unfinished ones begin.
fn places(path: &Path) -> io::Result<(&Path, String)> {
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) => Ok((folder, format!(".{}.{MARK}", name.display()))),
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
        let names = || {
            let names = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name());
            names.filter(|name| name != ".a.raw.swp").collect::<Vec<_>>()
        };
        fs::write(&path, "old").unwrap();
        let left = format!(".a.raw.{MARK}x");
        fs::write(dir.path().join(left), "of a run that was killed").unwrap();
        // A user's own file is not ours to remove.
        fs::write(dir.path().join(".a.raw.swp"), "an editor's").unwrap();
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
        let hidden = State::Hidden(
            tempfile::Builder::new().prefix(&format!(".a.raw.{MARK}")).tempfile_in(&dir).unwrap(),
        );
        let hidden = Unfinished { path: path.clone(), state: hidden };
        hidden.file().write_all(b"newer").unwrap();
        hidden.finish().unwrap();
        assert_eq!((fs::read(&path).unwrap().as_slice(), names()), (&b"newer"[..], vec!["a.raw".into()]));
    }

    #[test]
    fn a_file_that_is_there_is_kept_where_it_has_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.raw");
        let hidden = || {
            let file = tempfile::Builder::new().prefix(&format!(".a.raw.{MARK}")).tempfile_in(&dir).unwrap();
            Unfinished { path: path.clone(), state: State::Hidden(file) }
        };
        let nameless = || Unfinished::new(path.clone()).unwrap();
        let both: [&dyn Fn() -> Unfinished; 2] = [&nameless, &hidden];
        for new in both {
            let new = new();
            fs::write(&path, "a user's").unwrap();
            let error = format!("{:#}", new.finish_as(Replace::No).unwrap_err());
            assert!(error.contains("File exists"), "{error}");
            assert_eq!(fs::read(&path).unwrap(), b"a user's");
            assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
            fs::remove_file(&path).unwrap();
        }
        for new in both {
            let new = new();
            new.file().write_all(b"new").unwrap();
            new.finish_as(Replace::No).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"new");
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_file_is_replaced_when_it_differs_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let names =
            || fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        replace_file(&path, b"old").unwrap();
        replace_file(&path, b"new").unwrap();
        assert_eq!((fs::read(&path).unwrap().as_slice(), names()), (&b"new"[..], vec!["a.json".into()]));
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(), 0o644);
        fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
        replace_file(&path, b"newer").unwrap();
        assert_eq!(mode(), 0o666);
        replace_file(&path, b"new").unwrap();
        let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap());
        let before = inode();
        replace_file(&path, b"new").unwrap();
        assert_eq!(inode(), before);
    }
}
