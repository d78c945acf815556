//! Reading an archive that a stranger may have made: where its blobs are, and that each is what its
//! name says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileExt;

use serde_json::{Map, Value};

use super::{BLOBS, INDEX, LAYOUT};
use crate::oci::annotation::REF_NAME;
use crate::oci::digest::DigestWriter;
use crate::oci::document::MAX_SIZE;
use crate::oci::verified::VerifyError;
use crate::oci::{Descriptor, Digest, Verified};
use crate::read_at::ReadAt;
use crate::words::foreign;

/// The longest `oci-layout` that makes sense, in bytes.
const MAX_LAYOUT: u64 = 4096;
/// No release has nearly so many files.
const MAX_ENTRIES: usize = 100_000;
const BUFFER: usize = 256 << 10;

/// An archive whose parts are known. Blobs are read where they lie.
pub(crate) struct Archive {
    file: File,
    blobs: BTreeMap<Digest, Place>,
    /// What its index names.
    pub(crate) named: Vec<Entry>,
}

/// An image in the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) tag: String,
    pub(crate) descriptor: Descriptor,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u64,
    size: u64,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    #[error("it is no tar, or it is cut off")]
    Tar,
    #[error("`{0}` has no place in it")]
    Stray(String),
    #[error("`{0}` is in it twice")]
    Twice(String),
    #[error("it ends within `{0}`")]
    CutOff(String),
    #[error("it has no `{0}`")]
    Missing(&'static str),
    #[error("it has more than {MAX_ENTRIES} files")]
    TooMany,
    #[error("its `{0}` cannot be: {1}")]
    Content(&'static str, String),
    #[error("{0} is not in it")]
    NoBlob(Digest),
    #[error("a blob in it is not what its name says")]
    Blob(#[from] VerifyError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Archive {
    /// Finds out what is in it. Nothing is unpacked, and no blob is read yet.
    pub(crate) fn open(mut file: File) -> Result<Archive, ArchiveError> {
        file.rewind()?;
        let length = file.metadata()?.len();
        let mut blobs = BTreeMap::new();
        let (mut index, mut layout) = (None, None);
        let mut tar = tar::Archive::new(io::BufReader::new(&file));
        // What comes before an entry, such as a long name, is read into memory by whoever understands it;
        // nothing here has such a name.
        let entries = tar.entries_with_seek().map_err(of_tar)?.raw(true);
        for (number, entry) in entries.enumerate() {
            let entry = entry.map_err(of_tar)?;
            if number >= MAX_ENTRIES {
                return Err(ArchiveError::TooMany);
            }
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let shown = || foreign(&path);
            // Other writers put the folders in, and some a `./` before every name.
            let name = path.strip_prefix("./").unwrap_or(&path);
            let kind = entry.header().entry_type();
            if kind.is_dir() && ["", "blobs", "blobs/sha256"].contains(&name.trim_end_matches('/')) {
                continue;
            }
            let place = Place { offset: entry.raw_file_position(), size: entry.size() };
            if place.offset.checked_add(place.size).is_none_or(|end| end > length) {
                return Err(ArchiveError::CutOff(shown()));
            }
            let is_taken = match name {
                _ if !kind.is_file() => return Err(ArchiveError::Stray(shown())),
                INDEX => index.replace(place).is_some(),
                LAYOUT => layout.replace(place).is_some(),
                name => {
                    let hex = name.strip_prefix(BLOBS).map(|hex| format!("sha256:{hex}").parse());
                    let Some(Ok(digest)) = hex else { return Err(ArchiveError::Stray(shown())) };
                    blobs.insert(digest, place).is_some()
                }
            };
            if is_taken {
                return Err(ArchiveError::Twice(shown()));
            }
        }
        let layout = layout.ok_or(ArchiveError::Missing(LAYOUT))?;
        let index = index.ok_or(ArchiveError::Missing(INDEX))?;
        let mut archive = Archive { file, blobs, named: Vec::new() };
        let version = archive.object(LAYOUT, layout, MAX_LAYOUT)?;
        if version.get("imageLayoutVersion").and_then(Value::as_str) != Some("1.0.0") {
            return Err(ArchiveError::Content(LAYOUT, "it is not of version 1.0.0".to_owned()));
        }
        let index = archive.object(INDEX, index, MAX_SIZE)?;
        archive.named = named(&index)?;
        Ok(archive)
    }

    /// Reads every blob once. `on_read` hears of the bytes that went by.
    pub(crate) fn check(&self, on_read: &dyn Fn(u64)) -> Result<(), ArchiveError> {
        let mut buffer = vec![0; BUFFER];
        for (&digest, place) in &self.blobs {
            let mut hashed = DigestWriter::new(io::sink());
            let mut at = 0;
            while at < place.size {
                let wanted = usize::try_from(place.size - at).unwrap_or(BUFFER).min(BUFFER);
                self.file.read_exact_at(&mut buffer[..wanted], place.offset + at)?;
                io::Write::write_all(&mut hashed, &buffer[..wanted])?;
                at += wanted as u64;
                on_read(wanted as u64);
            }
            let found = hashed.finish().1;
            if found != digest {
                return Err(VerifyError::Digest { expected: digest, found }.into());
            }
        }
        Ok(())
    }

    /// What [`Archive::check`] reads, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.blobs.values().map(|place| place.size).fold(0, u64::saturating_add)
    }

    /// A blob of at most `cap` bytes, whole.
    pub(crate) fn read(&self, descriptor: &Descriptor, cap: u64) -> Result<Verified, ArchiveError> {
        let place = self.place(descriptor)?;
        if place.size > cap {
            let (digest, expected) = (descriptor.digest, cap);
            return Err(VerifyError::Size { digest, expected, found: place.size }.into());
        }
        let mut bytes = vec![0; usize::try_from(place.size).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, place.offset)?;
        Ok(Verified::check(bytes, descriptor)?)
    }

    /// Makes sure that a blob is there, with the size that it should have.
    pub(crate) fn has(&self, descriptor: &Descriptor) -> Result<(), ArchiveError> {
        self.place(descriptor).map(drop)
    }

    /// A blob's bytes, from the beginning.
    pub(crate) fn open_blob(
        &self,
        descriptor: &Descriptor,
    ) -> Result<impl Read + Send + use<>, ArchiveError> {
        let Place { offset, size } = self.place(descriptor)?;
        Ok(ReadAt::new(self.file.try_clone()?, offset).take(size))
    }

    fn place(&self, descriptor: &Descriptor) -> Result<Place, ArchiveError> {
        let digest = descriptor.digest;
        let place = *self.blobs.get(&digest).ok_or(ArchiveError::NoBlob(digest))?;
        match place.size == descriptor.size {
            true => Ok(place),
            false => {
                let (expected, found) = (descriptor.size, place.size);
                Err(VerifyError::Size { digest, expected, found }.into())
            }
        }
    }

    fn object(&self, name: &'static str, place: Place, cap: u64) -> Result<Map<String, Value>, ArchiveError> {
        if place.size > cap {
            return Err(ArchiveError::Content(name, format!("it has {} bytes", place.size)));
        }
        let mut bytes = vec![0; usize::try_from(place.size).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, place.offset)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| ArchiveError::Content(name, foreign(&error.to_string())))
    }
}

/// What is no tar is no text either: a reader's words for it quote the file.
fn of_tar(error: io::Error) -> ArchiveError {
    match error.raw_os_error() {
        Some(_) => ArchiveError::Io(error),
        None => ArchiveError::Tar,
    }
}

fn named(index: &Map<String, Value>) -> Result<Vec<Entry>, ArchiveError> {
    let wrong = |why: &str| ArchiveError::Content(INDEX, why.to_owned());
    let entries = index.get("manifests").and_then(Value::as_array);
    let entries = entries.ok_or_else(|| wrong("it has no list `manifests`"))?;
    let entry = |entry: &Value| -> Result<Entry, ArchiveError> {
        let tag = entry.get("annotations").and_then(|annotations| annotations.get(REF_NAME)?.as_str());
        let tag = tag.filter(|tag| crate::oci::reference::is_tag(tag));
        let tag = tag.ok_or_else(|| wrong("an image in it has no tag, or none that can be one"))?;
        let descriptor = serde_json::from_value(entry.clone());
        let descriptor =
            descriptor.map_err(|error| ArchiveError::Content(INDEX, foreign(&error.to_string())))?;
        Ok(Entry { tag: tag.to_owned(), descriptor })
    };
    let named = entries.iter().map(entry).collect::<Result<Vec<Entry>, _>>()?;
    if named.is_empty() {
        return Err(wrong("it names no image"));
    }
    let mut tags = BTreeSet::new();
    match named.iter().find(|entry| !tags.insert(&entry.tag)) {
        Some(Entry { tag, .. }) => Err(wrong(&format!("it names two images `{tag}`"))),
        None => Ok(named),
    }
}
