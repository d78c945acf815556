//! The OCI image model: bytes in, bytes out. Nothing here opens a file, or asks a clock, the
//! environment or the network.

pub(crate) mod annotation;
pub(crate) mod append;
pub(crate) mod artifact;
pub(crate) mod base;
pub(crate) mod config;
pub(crate) mod digest;
pub(crate) mod document;
pub(crate) mod flatten;
pub(crate) mod graph;
pub(crate) mod layer;
pub(crate) mod merge;
pub(crate) mod platform;
pub(crate) mod reference;
pub(crate) mod tar;
pub(crate) mod timestamp;
mod uuid;
pub(crate) mod verified;

pub(crate) use append::{Image, Origin, append};
pub(crate) use artifact::{Artifact, Attachment};
pub(crate) use base::Base;
pub(crate) use config::Config;
pub(crate) use digest::{DiffId, Digest};
pub(crate) use document::{Document, Manifest};
pub(crate) use layer::{Compression, Layer, LayerWriter};
pub(crate) use oci_spec::image::MediaType;
pub(crate) use platform::{Arch, Platform};
pub(crate) use reference::{ImageName, Reference};
pub(crate) use timestamp::Timestamp;
pub(crate) use uuid::Uuid;
pub(crate) use verified::{Descriptor, Verified};

/// Docker's names for the same documents and blobs.
/// Source: distribution/distribution, docs/content/spec/manifest-v2-2.md.
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub(crate) const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
