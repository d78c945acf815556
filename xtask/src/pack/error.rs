//! What can go wrong when a disk is packed.

use std::io;

use crate::oci::Digest;
use crate::progress::human_bytes;

#[derive(Debug, thiserror::Error)]
pub(crate) enum PackError {
    #[error("it is not a regular file")]
    NotAFile,
    #[error("it is empty")]
    Empty,
    #[error("it has changed while it was read")]
    Changed,
    #[error("it was made as {expected}, and is {found}")]
    OtherDigest { expected: Digest, found: Digest },
    #[error(
        "its layer has {size} bytes, and registries take {} at most",
        human_bytes(super::layer::LARGEST_LAYER)
    )]
    TooLarge { size: u64 },
    /// Compressed: how long it would have become is not known.
    #[error("its layer is larger than the {} that registries take", human_bytes(super::layer::LARGEST_LAYER))]
    TooLargeCompressed,
    #[error("it is no {format}: {why}")]
    Format { format: crate::disk::DiskFormat, why: &'static str },
    /// Not all of the disk is in the file.
    #[error("{0}")]
    Elsewhere(&'static str),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl PackError {
    /// What the user can do about it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            PackError::NotAFile => Some("copy it into a regular file first: 'cp --sparse=always'"),
            PackError::Empty => Some("give a file with a disk in it"),
            PackError::Changed => Some("stop the machine or the program that writes to it, and try again"),
            PackError::OtherDigest { .. } => {
                Some("remove it, and run the command again: something else has written to it")
            }
            PackError::TooLarge { .. } | PackError::TooLargeCompressed => Some(
                "put less on the disk, or pack another format of it: qcow2 is the smallest, and 'ls -l' shows \
                 how large it becomes",
            ),
            PackError::Format { .. } => Some(
                "name the file with the ending of its format: .qcow2, .raw, .ami.raw, .vmdk, .vhd, .ova, .tar.gz",
            ),
            PackError::Elsewhere(_) => {
                Some("put all of it into one file: 'qemu-img convert -O qcow2 -c OLD NEW', and pack that")
            }
            PackError::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                Some("name a disk that is there: 'cargo xtask disk' makes some")
            }
            PackError::Io(_) => None,
        }
    }
}
