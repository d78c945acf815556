//! Of disks.

use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use super::{Compose, registry_reference};
use crate::builder::{BUILDER_IMAGE, Builder};
use crate::disk::{DiskFormat, DiskName, DiskSize, Qcow2Compression};
use crate::oci::{ImageName, Reference};

#[derive(Debug, Args)]
pub(crate) struct Disk {
    /// The formats to write, in one pass over the raw
    #[arg(required = true, value_name = "FORMAT")]
    pub(crate) formats: Vec<DiskFormat>,
    /// What the disk is made from: an image (oci:DIR[:TAG] or a registry reference), or a raw disk,
    /// whose name ends in .raw or .img [default: the image that 'dist' makes]
    #[arg(long, value_name = "IMAGE|FILE.raw")]
    pub(crate) from: Option<DiskSource>,
    /// How large the disk is, at least, that is made of an image [default: the size in Cargo.toml, or 4 GiB]
    #[arg(long, value_name = "N GiB")]
    pub(crate) size: Option<DiskSize>,
    #[command(flatten)]
    pub(crate) builder: DiskBuilder,
    /// Let the owner of this public key log in: the users of configs/builder/config.toml, or a user
    /// 'devops' who may become root
    #[arg(long, value_name = "FILE.pub")]
    pub(crate) ssh_key: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) compose: Compose,
    /// Where the disks go [default: target/dist/disk]
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// Write over files that this command did not write, or that were changed since
    #[arg(long)]
    pub(crate) force: bool,
    /// What the files and the OVA's machine are called [default: the image's tag, or the raw's name]
    #[arg(long)]
    pub(crate) name: Option<DiskName>,
    /// How qcow2 is compressed; QEMU before 5.1 (2020) reads zlib alone
    #[arg(long, value_enum, default_value_t = Qcow2Compression::Zstd)]
    pub(crate) qcow2_compression: Qcow2Compression,
}

#[derive(Debug, Args)]
pub(crate) struct DiskBuilder {
    /// Who makes disks of the image [default: what the image says, or else image-builder]
    #[arg(long, value_enum)]
    pub(crate) builder: Option<Builder>,
    /// What 'image-builder' runs: bootc-image-builder's image, or that of image-builder
    #[arg(long, value_name = "REF", default_value = BUILDER_IMAGE, value_parser = registry_reference)]
    pub(crate) builder_image: Reference,
}

/// What a disk is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DiskSource {
    Raw(PathBuf),
    Image(ImageName),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DiskSourceError {
    #[error(
        "`{0}` is a disk, but not a raw one: name the raw that it was made of, or make one of it, \
         'qemu-img convert -O raw {0} disk.raw'"
    )]
    NotRaw(String),
    #[error(transparent)]
    Image(#[from] <ImageName as FromStr>::Err),
}

impl FromStr for DiskSource {
    type Err = DiskSourceError;

    /// A file is told from an image by its ending, so that it does not matter whether it is there.
    fn from_str(text: &str) -> Result<DiskSource, DiskSourceError> {
        let ends_in = |endings: &[&str]| endings.iter().any(|ending| text.ends_with(ending));
        if ends_in(&[".raw", ".img"]) {
            return Ok(DiskSource::Raw(text.into()));
        }
        // As an image's name it would be looked for on the network; one with a tag can only be that.
        if !text.contains(':') && ends_in(&[".qcow2", ".vmdk", ".vhd"]) {
            return Err(DiskSourceError::NotRaw(text.to_owned()));
        }
        Ok(DiskSource::Image(text.parse()?))
    }
}

impl ValueEnum for Qcow2Compression {
    fn value_variants<'a>() -> &'a [Qcow2Compression] {
        &[Qcow2Compression::Zstd, Qcow2Compression::Zlib]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Qcow2Compression::Zlib => "zlib",
            Qcow2Compression::Zstd => "zstd",
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_no_images_name() {
        let raw: DiskSource = "out/disk.raw".parse().unwrap();
        assert_eq!(raw, DiskSource::Raw("out/disk.raw".into()));
        for image in ["localhost:5000/os:v1.qcow2", "oci:out:v1", "ghcr.io/o/os"] {
            assert!(matches!(image.parse(), Ok(DiskSource::Image(_))), "{image}");
        }
        let error = "target/dist/disk/os-v1.qcow2".parse::<DiskSource>().unwrap_err().to_string();
        assert_eq!(
            error,
            "`target/dist/disk/os-v1.qcow2` is a disk, but not a raw one: name the raw that it was made of, or \
             make one of it, 'qemu-img convert -O raw target/dist/disk/os-v1.qcow2 disk.raw'"
        );
    }
}
