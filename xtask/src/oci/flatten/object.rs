//! Where ostree's repository has a file: who puts it there spares ostree to hash it, which GLib does at a
//! fraction of the speed.
//!
//! Source: ostree, src/libostree/ostree-core.c, `ostree_checksum_file_from_input`, `_ostree_file_header_new` and
//! `_ostree_loose_path`; GVariant specification, "Serialisation Format".

use std::collections::BTreeSet;
use std::io::{self, Write};

use super::entry::Metadata;
use crate::oci::Digest;
use crate::oci::digest::DigestWriter;

/// `S_IFREG`. Source: inode(7).
const REGULAR: u32 = 0o100_000;
/// How long the header is, without what aligns it to eight bytes: four numbers, the end of an empty string,
/// no attributes, and the offset of that end.
const HEADER_SIZE: u32 = 18;
const END_OF_TARGET: u8 = 17;

/// The files that are in a repository's folder of objects.
pub(super) struct Objects<'a> {
    folder: &'a str,
    there: BTreeSet<Digest>,
}

/// A file whose content is still written.
pub(super) type Object = DigestWriter<io::Sink>;

impl Objects<'_> {
    pub(super) fn new(folder: &str) -> Objects<'_> {
        Objects { folder, there: BTreeSet::new() }
    }

    /// A regular file; nothing for one with extended attributes, which ostree hashes sorted and framed.
    pub(super) fn begin(metadata: &Metadata) -> Option<Object> {
        let (Ok(uid), Ok(gid)) = (u32::try_from(metadata.uid), u32::try_from(metadata.gid)) else {
            return None;
        };
        if !metadata.attributes.is_empty() {
            return None;
        }
        let device = 0;
        let numbers = [HEADER_SIZE, 0, uid, gid, REGULAR | metadata.mode, device].map(u32::to_be_bytes);
        let mut object = DigestWriter::new(io::sink());
        object.write_all(numbers.as_flattened()).and_then(|()| object.write_all(&[0, END_OF_TARGET])).ok()?;
        Some(object)
    }

    /// Where it is, unless it is there already.
    pub(super) fn end(&mut self, object: Object) -> Option<String> {
        let (_, digest, _) = object.finish();
        let hex = digest.hex();
        let (start, rest) = hex.split_at(2);
        self.there.insert(digest).then(|| format!("{}/{start}/{rest}.file", self.folder))
    }
}
