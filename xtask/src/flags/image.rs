//! Of images: what they are made of, and where they go.

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use super::{DiskBuilder, registry_reference};
use crate::deliver::BaseLayers;
use crate::oci::{Compression, ImageName, Platform, Reference, Timestamp};
use crate::release::AskedVersion;
use crate::workspace::DistroQuery;
use crate::workspace::settings::Repository;

/// What an image is made of; the same for `dist` and `build`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Compose {
    /// The distro to build on [default: the one in Cargo.toml]
    #[arg(long, env = "BASE_DISTRO")]
    pub(crate) distro: Option<DistroQuery>,
    /// Stand another image in for the distro's base: a registry reference, or oci:DIR[:TAG]
    #[arg(long, value_name = "REF")]
    pub(crate) base: Option<ImageName>,
    /// The repository of the image, without a tag [default: the one in Cargo.toml]
    #[arg(long, env = "IMAGE", value_name = "NAME")]
    pub(crate) image: Option<Repository>,
    /// The version that the image and its apps carry; 'next' is the number behind the registry's last
    /// one, 'git' the commit's tag
    #[arg(long, env = "VERSION", value_name = "VERSION")]
    pub(crate) app_version: Option<AskedVersion>,
    /// The platforms to build for; several make an index [default: this machine's]
    #[arg(long, value_delimiter = ',', value_name = "OS/ARCH")]
    pub(crate) platform: Vec<Platform>,
    /// How layers are compressed; hosts of 2024 and older read gzip alone
    #[arg(long, value_enum, default_value_t = Compression::Gzip)]
    pub(crate) compression: Compression,
    /// The only time in the image, in seconds since 1970 [default: the base's own]
    #[arg(long, env = "SOURCE_DATE_EPOCH", value_name = "SECONDS", hide = true)]
    pub(crate) source_date_epoch: Option<Timestamp>,
}

/// Where an image goes beside its layout, and what the layout gets.
#[derive(Debug, Default, Args)]
pub(crate) struct Deliver {
    /// Push the image to its repository as well, under <distro>-<version>
    #[arg(long)]
    pub(crate) push: bool,
    /// Fetch the base's layers too, so that the layout is whole
    #[arg(long)]
    full: bool,
}

impl Deliver {
    pub(crate) fn base_layers(&self) -> BaseLayers {
        if self.full { BaseLayers::Fetch } else { BaseLayers::AtHand }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Dist {
    #[command(flatten)]
    pub(crate) compose: Compose,
    #[command(flatten)]
    pub(crate) deliver: Deliver,
    /// Make none of the disks that Cargo.toml names
    #[arg(long)]
    pub(crate) no_disks: bool,
    #[command(flatten)]
    pub(crate) builder: DiskBuilder,
    /// Let the owner of this public key log in on the disks: the users of configs/builder/config.toml,
    /// or a user 'devops' who may become root
    #[arg(long, value_name = "FILE.pub", conflicts_with = "no_disks")]
    pub(crate) ssh_key: Option<PathBuf>,
    /// Write over disks that no run wrote, or that were changed since
    #[arg(long, conflicts_with = "no_disks")]
    pub(crate) force: bool,
    /// Push the image alone, and none of its disks
    #[arg(long)]
    pub(crate) no_pack: bool,
    /// Sign the image and its disks with this key, as 'sign' does, before they have a tag
    #[arg(long, value_name = "FILE", requires = "push")]
    pub(crate) sign_key: Option<PathBuf>,
    /// Show what would be stored and sent, and what a host would download
    ///
    /// The base is made and the apps are built for it, since their bytes decide. target/dist and
    /// the registry stay as they are.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Build {
    #[command(flatten)]
    pub(crate) compose: Compose,
    /// Where the image goes: oci:DIR[:TAG] or a registry reference [default: oci:target/dist/oci]
    #[arg(long, value_name = "REF")]
    pub(crate) to: Option<ImageName>,
    #[command(flatten)]
    pub(crate) deliver: Deliver,
}

#[derive(Debug, Args)]
pub(crate) struct MakeBase {
    /// [default: the one in Cargo.toml]
    #[arg(env = "BASE_DISTRO")]
    pub(crate) distro: Option<DistroQuery>,
    /// Stand another image in for the distro's upstream: a bootc image in a registry, by tag or digest
    #[arg(long, value_name = "REF", value_parser = registry_reference)]
    pub(crate) from: Option<Reference>,
    /// Push the base to the project's repository, as base-<distro> and base-<distro>-<day>
    ///
    /// A dated tag keeps what it names: a second base of a day is base-<distro>-<day>.1. Bases of
    /// several platforms share their tags, in an index; push them one after the other.
    #[arg(long)]
    pub(crate) push: bool,
    /// Write down what the upstream's tag names now, in distro.toml, and do nothing else
    #[arg(long, conflicts_with_all = ["from", "push", "force"])]
    pub(crate) update_pin: bool,
    /// Make it again although its inputs have not changed: packages may have, or it is damaged
    #[arg(long)]
    pub(crate) force: bool,
    /// The repository that '--push' sends it to, without a tag [default: the one in Cargo.toml]
    #[arg(long, env = "IMAGE", value_name = "NAME")]
    pub(crate) image: Option<Repository>,
    /// The time of the image and of its day's tag, in seconds since 1970 [default: the image's own]
    #[arg(long, env = "SOURCE_DATE_EPOCH", value_name = "SECONDS", hide = true)]
    pub(crate) source_date_epoch: Option<Timestamp>,
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// What the host has
    pub(crate) old: ImageName,
    /// What it is to have
    pub(crate) new: ImageName,
    /// The host's platform [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<Platform>,
}

impl ValueEnum for Compression {
    fn value_variants<'a>() -> &'a [Compression] {
        &[Compression::Gzip, Compression::Zstd]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        }))
    }
}
