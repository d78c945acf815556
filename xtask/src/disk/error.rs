//! What can go wrong when disks are written.

use std::io;

use super::DiskFormat;

#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    #[error("it is empty")]
    Empty,
    #[error("it has {size} bytes, and {format} takes {most} at most")]
    TooLarge { format: DiskFormat, size: u64, most: u64 },
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    #[error("it has changed while it was read")]
    Changed,
    #[error("it cannot be compressed")]
    Encode(#[source] io::Error),
    #[error("the {format} cannot be written")]
    Write { format: DiskFormat, source: io::Error },
}
