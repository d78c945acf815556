//! Of packed disks, and of what a repository has.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use super::{Compose, DiskBuilder};
use crate::disk::{DiskFormat, UnknownFormat};
use crate::oci::{ImageName, Platform};
use crate::workspace::settings::Repository;

#[derive(Debug, Args)]
pub(crate) struct Pack {
    /// The disks: formats, which are made of the image where they are not there, or disk files
    #[arg(required = true, value_name = "FORMAT|FILE")]
    pub(crate) disks: Vec<PackSource>,
    /// The image that the disks are of [default: the one that 'dist' makes; for files, none]
    #[arg(long, value_name = "IMAGE")]
    pub(crate) from: Option<ImageName>,
    /// Where the packed disk goes: oci:DIR[:TAG] or a registry reference [default:
    /// oci:target/dist/oci, under <distro>-<format>-<version>]
    #[arg(long, value_name = "REF")]
    pub(crate) to: Option<ImageName>,
    /// Push it to the project's repository as well, under <distro>-<format>-<version>, and into the release of its image
    #[arg(long)]
    pub(crate) push: bool,
    /// Compress raw, ami and vhd with gzip, for readers that know no zstd
    #[arg(long)]
    pub(crate) gzip: bool,
    #[command(flatten)]
    pub(crate) builder: DiskBuilder,
    #[command(flatten)]
    pub(crate) compose: Compose,
}

/// A disk that is to be packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PackSource {
    Format(DiskFormat),
    File(PathBuf),
}

impl FromStr for PackSource {
    type Err = UnknownFormat;

    /// A file has a dot or a slash in its name, so that it does not matter whether it is there.
    fn from_str(text: &str) -> Result<PackSource, UnknownFormat> {
        match text.contains(['.', '/']) {
            true => Ok(PackSource::File(text.into())),
            false => text.parse().map(PackSource::Format),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// A packed disk: a registry reference, by tag or digest, or oci:DIR[:TAG]
    #[arg(value_name = "REF")]
    pub(crate) image: ImageName,
    /// The file or the folder that it goes to [default: its own name, here]
    #[arg(long, short, value_name = "FILE|DIR")]
    pub(crate) output: Option<PathBuf>,
    /// Replace another file that has the disk's own name; one that '-o' names is replaced anyway
    #[arg(long)]
    pub(crate) force: bool,
    /// Which one of an index it is [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<Platform>,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// A registry reference, by tag or digest, or oci:DIR[:TAG]
    #[arg(value_name = "REF")]
    pub(crate) image: ImageName,
    /// Which one of an index is shown [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<Platform>,
}

#[derive(Debug, Args)]
pub(crate) struct Tags {
    /// The repository, without a tag [default: the one in Cargo.toml]
    #[arg(env = "IMAGE")]
    pub(crate) image: Option<Repository>,
}
