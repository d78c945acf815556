//! An OCI layout as one tar, for machines without a network: written in one pass, and read by its
//! index without being unpacked.
//!
//! What skopeo calls `oci-archive`. `oci-layout` and `index.json` come first, so that a reader knows
//! what follows, then each blob under its digest. Nothing in it says who wrote it, or when.
//! Source: OCI image specification, image-layout.md.

mod read;
mod write;

pub(crate) use self::read::{Archive, ArchiveError, Entry};
pub(crate) use self::write::Writer;

/// The files of a layout. Source: OCI image specification, image-layout.md.
const LAYOUT: &str = "oci-layout";
const INDEX: &str = "index.json";
const BLOBS: &str = "blobs/sha256/";
const LAYOUT_CONTENT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

#[cfg(test)]
mod tests;
