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
    /// How large the disk is, at least, that is made of an image [default: the size in Cargo.toml, or 10 GiB]
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

impl FromStr for DiskSource {
    type Err = <ImageName as FromStr>::Err;

    /// A file is told from an image by its ending, so that it does not matter whether it is there.
    fn from_str(text: &str) -> Result<DiskSource, Self::Err> {
        if text.ends_with(".raw") || text.ends_with(".img") {
            Ok(DiskSource::Raw(text.into()))
        } else {
            text.parse().map(DiskSource::Image)
        }
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
