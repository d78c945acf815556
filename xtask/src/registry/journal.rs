//! What a push writes down of its uploads, so that after a kill another process goes on with them.
//!
//! A file for each upload, which only its owner may read: a session's URL may be all that it takes
//! to write into it. Nothing depends on what is in it: the registry is asked, and checks the digest
//! of what comes together in the end.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::repository::Repository;
use crate::oci::{Descriptor, Digest};
use crate::progress::Progress;

/// Registries forget uploads that are older.
/// Source: docker's registry, `storage.maintenance.uploadpurging.age`, whose default this is.
const OLDEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// An entry is as long as its session's URL, and no server takes longer ones than this.
const LARGEST: u64 = 64 * 1024;

/// A folder of entries.
#[derive(Clone)]
pub(super) struct Journal {
    dir: Arc<Path>,
    progress: Progress,
}

/// The entry of one upload, which nobody else has while it lasts.
pub(super) struct Entry {
    file: File,
    path: PathBuf,
    blob: Descriptor,
    repository: Url,
    progress: Progress,
}

/// An upload that a registry has opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Upload {
    pub(super) session: Url,
    /// How many bytes it is known to have.
    pub(super) offset: u64,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Record {
    repository: String,
    digest: Digest,
    size: u64,
    session: String,
    offset: u64,
}

impl Journal {
    pub(super) fn new(dir: PathBuf, progress: Progress) -> Journal {
        Journal { dir: dir.into(), progress }
    }

    /// The entry of a blob on its way to a repository; None where another run has it, and where
    /// none can be written, which is said and harms nothing.
    pub(super) fn entry(&self, repository: &Repository, blob: &Descriptor) -> Option<Entry> {
        let name = Digest::of(format!("{} {}", repository.base(), blob.digest).as_bytes());
        let path = self.dir.join(format!("{}.json", name.hex()));
        match self.open(&path) {
            Ok(file) => Some(Entry {
                file: file?,
                path,
                blob: blob.clone(),
                repository: repository.base().clone(),
                progress: self.progress.clone(),
            }),
            Err(error) => {
                let path = path.display();
                self.progress.line(format!("{path}: {error}; after a kill, this upload would begin anew"));
                None
            }
        }
    }

    fn open(&self, path: &Path) -> io::Result<Option<File>> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        self.sweep()?;
        open(path, true)
    }

    /// Removes what no registry remembers.
    fn sweep(&self) -> io::Result<()> {
        for found in fs::read_dir(&self.dir)? {
            let path = found?.path();
            let is_old = |file: &File| -> io::Result<bool> {
                let age = file.metadata()?.modified()?.elapsed();
                Ok(age.is_ok_and(|age| age > OLDEST))
            };
            // One that is gone by now, or was never ours, is none that has to go.
            if let Ok(Some(file)) = open(&path, false)
                && is_old(&file)?
            {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

/// A file that is locked as long as it is open; None where another run has it.
fn open(path: &Path, create: bool) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(create).truncate(false).mode(0o600);
    // A name that leads elsewhere is not ours, and one that waits for a writer is no file.
    options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32);
    let file = options.open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl Entry {
    /// The upload that an earlier run has left.
    pub(super) fn recall(&self) -> Option<Upload> {
        match self.read() {
            Ok(upload) => upload,
            Err(why) => {
                self.progress.line(format!("ignoring {}: {why}", self.path.display()));
                None
            }
        }
    }

    fn read(&self) -> Result<Option<Upload>, String> {
        let mut text = Vec::new();
        let mut file = &self.file;
        let read = file.rewind().and_then(|()| file.take(LARGEST + 1).read_to_end(&mut text));
        read.map_err(|error| error.to_string())?;
        if text.is_empty() {
            return Ok(None);
        }
        if text.len() as u64 > LARGEST {
            return Err(format!("it has more than {LARGEST} bytes"));
        }
        let record: Record = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        let Record { repository, digest, size, session, offset } = record;
        if (repository.as_str(), digest, size) != (self.repository.as_str(), self.blob.digest, self.blob.size)
        {
            return Err("it is about another upload".to_owned());
        }
        let session = Url::parse(&session).map_err(|error| error.to_string())?;
        if !self.is_at_home(&session) {
            return Err(format!("its session is not at {}", self.repository.authority()));
        }
        if offset > size {
            return Err("it is ahead of its blob".to_owned());
        }
        Ok(Some(Upload { session, offset }))
    }

    /// Whether a session is where the repository is: no file decides where a blob is sent.
    fn is_at_home(&self, session: &Url) -> bool {
        session.origin() == self.repository.origin()
    }

    /// Writes down how far an upload is. One at another host is not kept.
    pub(super) fn note(&self, upload: &Upload) {
        if !self.is_at_home(&upload.session) {
            return self.forget();
        }
        let record = Record {
            repository: self.repository.to_string(),
            digest: self.blob.digest,
            size: self.blob.size,
            session: upload.session.to_string(),
            offset: upload.offset,
        };
        let mut file = &self.file;
        let written = serde_json::to_vec(&record).map_err(io::Error::from).and_then(|text| {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(&text)
        });
        self.say(written);
    }

    /// Nothing is left to go on with.
    pub(super) fn forget(&self) {
        self.say(match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        });
    }

    fn say(&self, outcome: io::Result<()>) {
        if let Err(error) = outcome {
            self.progress.line(format!("{}: {error}", self.path.display()));
        }
    }
}
