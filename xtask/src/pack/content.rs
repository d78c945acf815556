//! A disk file as it is read: from its beginning to its end, its holes as zeros that cost nothing.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::error::PackError;

/// A file that was looked at: it is read again and again, and has to stay as it was.
#[derive(Clone, Debug)]
pub(crate) struct DiskFile {
    pub(crate) path: PathBuf,
    /// With its holes.
    pub(crate) size: u64,
    modified: SystemTime,
}

impl DiskFile {
    pub(crate) fn look(path: &Path) -> Result<DiskFile, PackError> {
        let metadata = std::fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(PackError::NotAFile);
        }
        if metadata.len() == 0 {
            return Err(PackError::Empty);
        }
        Ok(DiskFile { path: path.to_owned(), size: metadata.len(), modified: metadata.modified()? })
    }

    /// Opens it, if it is as it was.
    pub(super) fn open(&self) -> io::Result<Content> {
        let content = Content { file: File::open(&self.path)?, of: self.clone(), at: 0, extent: None };
        content.check()?;
        Ok(content)
    }
}

/// What is left of a file.
pub(super) struct Content {
    file: File,
    of: DiskFile,
    at: u64,
    /// What is at `at`, and where that ends.
    extent: Option<(Extent, u64)>,
}

#[derive(Clone, Copy)]
enum Extent {
    Data,
    Hole,
}

impl Content {
    fn check(&self) -> io::Result<()> {
        let metadata = self.file.metadata()?;
        let is_same = metadata.len() == self.of.size && metadata.modified()? == self.of.modified;
        if is_same { Ok(()) } else { Err(io::Error::other(PackError::Changed)) }
    }

    /// What is here, and where it ends.
    fn extent(&mut self) -> io::Result<(Extent, u64)> {
        match self.extent.filter(|(_, end)| self.at < *end) {
            Some(extent) => Ok(extent),
            None => Ok(*self.extent.insert(self.next_extent()?)),
        }
    }

    fn next_extent(&self) -> io::Result<(Extent, u64)> {
        let end = self.of.size;
        let find = |to| match seek(&self.file, to) {
            Ok(at) => Ok(at.min(end)),
            Err(Errno::NXIO) => Ok(end),
            Err(error) => Err(io::Error::from(error)),
        };
        match find(SeekFrom::Data(self.at)) {
            Ok(data) if data > self.at => Ok((Extent::Hole, data)),
            Ok(_) => Ok((Extent::Data, find(SeekFrom::Hole(self.at))?)),
            // Where a file system knows no holes.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                Ok((Extent::Data, end))
            }
            Err(error) => Err(error),
        }
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.of.size || buffer.is_empty() {
            // Whoever wrote to it in between changed what was read before.
            return self.check().map(|()| 0);
        }
        let (extent, end) = self.extent()?;
        let count = (end - self.at).min(buffer.len() as u64) as usize;
        let count = match extent {
            Extent::Hole => {
                buffer[..count].fill(0);
                count
            }
            Extent::Data => self.file.read_at(&mut buffer[..count], self.at)?,
        };
        if count == 0 {
            return Err(io::Error::other(PackError::Changed));
        }
        self.at += count as u64;
        Ok(count)
    }
}
