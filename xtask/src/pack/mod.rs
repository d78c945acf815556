//! A disk file <-> a scratch image that brings it: one layer, a tar that holds `disk/NAME`.
//!
//! podman, containerd, KubeVirt's containerDisk and Kubernetes' image volumes all take the same
//! image. The same file gives the same bytes: nothing in them says when or where they were made.
//! `image`, `tar` and `gzip` are bytes in, bytes out; the others read or write the one file, and
//! `deliver` alone knows layouts and registries.

mod content;
mod deliver;
mod error;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
mod gzip;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
mod image;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
mod layer;
mod probe;
mod sparse;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
mod tar;
#[cfg(test)]
mod tests;
mod unpack;

pub(crate) use self::content::DiskFile;
pub(crate) use self::deliver::{Delivered, Description, Order, explained, from_layout};
pub(crate) use self::image::{AppImage, Facts, FileName, NotPacked, Origin, PackedDisk};
pub(crate) use self::layer::{Packing, Readers};
pub(crate) use self::probe::{format_of, virtual_size};
pub(crate) use self::unpack::{UnpackError, Unpacker};
