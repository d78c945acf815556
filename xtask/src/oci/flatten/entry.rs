//! What an entry of a layer says.

use std::io::{self, Read, Seek};

use tar::EntryType;

use super::FlattenError;
use crate::oci::tar::attributes;

/// Marks the path that a layer takes away. Source: layer.md, "Whiteouts".
pub(super) const WHITEOUT: &str = ".wh.";
/// Takes away all that the layers below have in a directory. Source: layer.md, "Opaque Whiteout".
const OPAQUE: &str = ".wh..wh..opq";
/// Other names of AUFS's own, which mean nothing here. Source: storage, pkg/archive, `WhiteoutMetaPrefix`.
const AUFS: &str = ".wh..wh.";
/// Linux takes paths of 4 KiB, and extended attributes of 64 KiB for a file's inode in all.
/// Source: limits.h, `PATH_MAX`, `XATTR_LIST_MAX`; ext4, "Extended Attributes".
const LONGEST_EXTENSION: u64 = 1 << 20;

/// An entry of a layer, read.
pub(super) struct Entry {
    pub(super) number: usize,
    pub(super) path: String,
    pub(super) metadata: Metadata,
    pub(super) kind: Kind,
}

/// What an entry means for the layers below.
pub(super) enum Mark<'a> {
    /// It is no mark.
    None,
    /// It means nothing here.
    Nothing,
    /// All in this folder goes.
    Opaque(&'a str),
    /// This path goes.
    Whiteout(String),
}

pub(super) enum Kind {
    Directory,
    Symlink(String),
    HardLink(String),
    File(u64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    /// PAX keys and values.
    pub(super) attributes: Vec<(String, Vec<u8>)>,
}

/// A directory that no layer has an entry for.
pub(super) const IMPLICIT: Metadata = Metadata { mode: 0o755, uid: 0, gid: 0, attributes: Vec::new() };

pub(super) fn mark(layer: usize, path: &str) -> Result<Mark<'_>, FlattenError> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    if name == OPAQUE {
        return Ok(Mark::Opaque(folder));
    }
    if name.starts_with(AUFS) {
        return Ok(Mark::Nothing);
    }
    match name.strip_prefix(WHITEOUT) {
        None => Ok(Mark::None),
        Some("") => Err(FlattenError::BareWhiteout { layer, path: path.to_owned() }),
        Some(hidden) if folder.is_empty() => Ok(Mark::Whiteout(hidden.to_owned())),
        Some(hidden) => Ok(Mark::Whiteout(format!("{folder}/{hidden}"))),
    }
}

/// Refuses a long name and the like that are longer than any host takes: whoever reads the entry behind
/// them has them in memory.
pub(super) fn check_extensions(tar: impl Read + Seek) -> io::Result<()> {
    for entry in tar::Archive::new(tar).entries_with_seek()?.raw(true) {
        let entry = entry?;
        let is_extension = matches!(
            entry.header().entry_type(),
            EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader | EntryType::XGlobalHeader
        );
        if is_extension && entry.size() > LONGEST_EXTENSION {
            return Err(io::Error::other(format!("what precedes an entry has {} bytes", entry.size())));
        }
    }
    Ok(())
}

/// An entry's header; nothing for one that is about the archive itself.
pub(super) fn read(
    layer: usize,
    number: usize,
    path: String,
    entry: &mut tar::Entry<'_, impl Read>,
) -> Result<Option<Entry>, FlattenError> {
    let failed = |source| FlattenError::Read { layer, source };
    let link = |entry: &tar::Entry<'_, _>| -> Result<String, FlattenError> {
        let bytes = entry.link_name_bytes().unwrap_or_default();
        String::from_utf8(bytes.into_owned()).map_err(|_| FlattenError::NotUtf8 { layer, path: path.clone() })
    };
    let kind = match entry.header().entry_type() {
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink(link(entry)?),
        EntryType::Link => Kind::HardLink(self::path(layer, link(entry)?.as_bytes())?),
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File(entry.size()),
        EntryType::XGlobalHeader => return Ok(None),
        kind => return Err(FlattenError::Kind { layer, path, kind }),
    };
    let attributes = attributes(entry).map_err(failed)?;
    let header = entry.header();
    let metadata = Metadata {
        mode: header.mode().map_err(failed)? & 0o7777,
        uid: id(&header.as_old().uid, header.uid()).map_err(failed)?,
        gid: id(&header.as_old().gid, header.gid()).map_err(failed)?,
        attributes,
    };
    Ok(Some(Entry { number, path, metadata, kind }))
}

/// An owner; a field without a number is root's, as every other reader has it.
fn id(field: &[u8], number: io::Result<u64>) -> io::Result<u64> {
    if field.iter().all(|byte| matches!(byte, 0 | b' ')) { Ok(0) } else { number }
}

/// A path from the root, without slashes at its ends and without `.`; empty for the root itself.
pub(super) fn path(layer: usize, bytes: &[u8]) -> Result<String, FlattenError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| FlattenError::NotUtf8 { layer, path: String::from_utf8_lossy(bytes).into_owned() })?;
    let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err(FlattenError::Outside { layer, path: text.to_owned() });
    }
    Ok(parts.join("/"))
}
