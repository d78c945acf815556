//! The command line, as typed commands. Nothing here touches a file or the network.

use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::{PossibleValue, Resettable};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::builder::{BUILDER_IMAGE, Builder};
use crate::deliver::BaseLayers;
use crate::disk::{DiskFormat, DiskName, DiskSize, Qcow2Compression, UnknownFormat};
use crate::oci::{Compression, ImageName, Platform, Reference, Timestamp};
use crate::registry::RegistryName;
use crate::vm::{Acceleration, Firmware};
use crate::workspace::DistroQuery;
use crate::workspace::settings::Repository;

/// Ships an operating system from this repository: Go apps in, a bootable, upgradable OCI image out.
///
/// Results go to standard output, progress to standard error.
/// Exit codes: 0 done, 1 failed, 2 wrong call, 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
pub(crate) struct Flags {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) common: Common,
}

impl Flags {
    /// This process's command line; a wrong one ends it, with code 2.
    pub(crate) fn read() -> Flags {
        let matches = command().get_matches();
        let flags = Flags::from_arg_matches(&matches).and_then(|flags| flags.checked(&matches));
        flags.unwrap_or_else(|error| error.exit())
    }

    /// Refuses what clap cannot tell: an option that would do nothing. In the environment it is
    /// there for other commands, so there it may be.
    fn checked(self, matches: &ArgMatches) -> Result<Flags, clap::Error> {
        let is_named =
            |arguments: &ArgMatches| arguments.value_source("image") == Some(ValueSource::CommandLine);
        match (&self.command, matches.subcommand()) {
            (Command::Base(base), Some((_, arguments))) if !base.push && is_named(arguments) => {
                let message = "'--image' says where '--push' sends the base: add '--push', or leave it out";
                Err(Flags::command().error(ErrorKind::MissingRequiredArgument, message))
            }
            _ => Ok(self),
        }
    }
}

/// What is parsed. An environment variable that is empty counts as one that is not set: that is
/// how CI systems pass on what was left out.
fn command() -> clap::Command {
    let is_empty = |arg: &Arg| {
        arg.get_env().is_some_and(|name| std::env::var_os(name).is_some_and(|value| value.is_empty()))
    };
    let without_empty = |arg: Arg| if is_empty(&arg) { arg.env(Resettable::Reset) } else { arg };
    Flags::command().mut_subcommands(|command| command.mut_args(without_empty))
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

#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Show warnings and errors only
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Install programs that are missing, instead of naming them
    #[arg(long, short, global = true)]
    pub(crate) yes: bool,
    /// Talk plain HTTP to this registry; may be repeated, and those on loopback need no flag
    #[arg(long, global = true, value_name = "HOST[:PORT]")]
    pub(crate) plain_http: Vec<RegistryName>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Everything: build the apps, compose the image, store it and its disks in target/dist, push it
    /// when asked
    #[command(after_help = "Examples:
  cargo xtask dist
  cargo xtask dist --dry-run --push
  cargo xtask dist --distro debian-13 --app-version v3 --push --image ghcr.io/me/os")]
    Dist(Dist),
    /// Make a distro's base image, in target/base, and push it when asked
    ///
    /// One with a Containerfile is built by podman or buildah, which takes some minutes and some
    /// gigabytes in the engine's store; debian-13 is made from packages, without an engine.
    /// Published, a base is what 'build' and 'dist' find by '--distro'. One that is not published is
    /// found in target/base, or named: '--base oci:target/base/centos-stream10'.
    /// 'rm -r target/base' removes it, 'podman image prune --all' the upstreams.
    ///
    /// With SOURCE_DATE_EPOCH set, and the same packages on the mirror, a Containerfile makes the
    /// same bytes each time; without it, the image has the time at which it was built.
    #[command(after_help = "Examples:
  cargo xtask base debian-13
  cargo xtask base centos-stream10 --force --push --image ghcr.io/me/os
  cargo xtask base centos-stream10 --from mirror.lan/centos-bootc:stream10
  cargo xtask base fedora-44 --update-pin")]
    Base(MakeBase),
    /// Compose the image alone: apps over a base's manifest, into a layout or a registry
    #[command(after_help = "Examples:
  cargo xtask build --to oci:out
  cargo xtask build --base quay.io/centos-bootc/centos-bootc:stream10 --to localhost:5000/os:dev
  cargo xtask build --platform linux/amd64,linux/arm64 --push")]
    Build(Build),
    /// Make an image, or a raw disk, into disks for hypervisors and clouds
    #[command(after_help = "Formats:
  raw    the disk as it is, sparse          vhd  Azure
  ami    the same, for AWS to import        gce  Google Compute Engine
  qcow2  QEMU, libvirt, OpenStack           ova  vSphere, VirtualBox: a machine with a VMDK
  vmdk   VMware                             iso  an installer, for a machine's own disk

Examples:
  cargo xtask disk qcow2
  cargo xtask disk ova vhd --from ghcr.io/me/os:debian-13-v1 --size '20 GiB'
  cargo xtask disk qcow2 --ssh-key ~/.ssh/id_ed25519.pub
  cargo xtask disk qcow2 ova vhd gce --from disk.raw --output out --name os-v1")]
    Disk(Disk),
    /// Put a disk into an image that 'podman pull' and KubeVirt take: into a layout or a registry
    #[command(after_help = "Examples:
  cargo xtask pack qcow2
  cargo xtask pack qcow2 raw --push --app-version v3 --image ghcr.io/me/os
  cargo xtask pack out/debian-13-v3.vmdk --to ghcr.io/me/os:debian-13-vmdk-v3")]
    Pack(Pack),
    /// Bring a packed disk back into a file, checked on the way
    #[command(after_help = "Examples:
  cargo xtask pull ghcr.io/me/os:debian-13-qcow2-v3
  cargo xtask pull oci:target/dist/oci:debian-13-raw-dev -o disk.raw")]
    Pull(Pull),
    /// Say what an image is, without its layers: a system or a packed disk, its size, where it came from
    Inspect(Inspect),
    /// List what a repository has: versions by distro, and the disks of each
    Tags(Tags),
    /// Say what a host downloads to go from one image to another
    #[command(after_help = "Examples:
  cargo xtask diff ghcr.io/me/os:debian-13-v1 ghcr.io/me/os:debian-13-v2
  cargo xtask diff ghcr.io/me/os:debian-13-v1 oci:target/dist/oci")]
    Diff(Diff),
    /// List the apps and distros of this repository
    List,
    /// Run the Go tests, the Rust tests, and the checks with real programs
    Test(Test),
    /// Boot a disk in QEMU
    #[command(subcommand)]
    Vm(Vm),
    /// Measure a push side by side with crane, disks with qemu-img and tar, or packing with buildah
    Bench(Bench),
    /// Say what works on this machine, and how to mend the rest
    Doctor,
    /// Print a shell's completions
    Completions { shell: clap_complete::Shell },
}

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
    /// The version that the image and its apps carry
    #[arg(long, env = "VERSION", value_name = "VERSION", value_parser = app_version)]
    pub(crate) app_version: Option<String>,
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
    /// Push the image alone, and none of its disks
    #[arg(long)]
    pub(crate) no_pack: bool,
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
    /// Push it to the project's repository as well, under <distro>-<format>-<version>
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

#[derive(Debug, Subcommand)]
pub(crate) enum Vm {
    /// Boot it, say how to reach it, and let it run until Ctrl-C
    #[command(after_help = "Examples:
  cargo xtask vm run
  cargo xtask vm run out/os-v1.vmdk --firmware bios")]
    Run(VmMachine),
    /// Boot it, and check that it came up as it should: units, nginx, apps, tuning, read-only /usr
    #[command(after_help = "Examples:
  cargo xtask vm test
  cargo xtask vm test target/dist/disk/debian-13-v1.ova --firmware bios --json
  cargo xtask vm test --upgrade
  cargo xtask vm test os-v1.qcow2 --upgrade-to ghcr.io/me/os:debian-13-v2")]
    Test(VmTest),
}

#[derive(Debug, Args)]
pub(crate) struct VmMachine {
    /// A file that ends in .qcow2, .raw, .img, .vmdk, .vhd or .ova; it stays as it is
    /// [default: the qcow2 that 'dist' makes, made when it is not there]
    #[arg(conflicts_with_all = ["builder", "builder_image"])]
    pub(crate) disk: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = Firmware::Uefi)]
    pub(crate) firmware: Firmware,
    /// Who executes its instructions [default: /dev/kvm where it works]
    #[arg(long, value_enum)]
    pub(crate) acceleration: Option<Acceleration>,
    /// Its memory, in MiB
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(256..), value_name = "MIB")]
    pub(crate) memory: u32,
    #[command(flatten)]
    pub(crate) builder: DiskBuilder,
    #[command(flatten)]
    pub(crate) compose: Compose,
}

#[derive(Debug, Args)]
pub(crate) struct VmTest {
    #[command(flatten)]
    pub(crate) machine: VmMachine,
    /// Upgrade it, look whether all is kept that should be, and roll it back
    ///
    /// What it is upgraded to is this workspace's image with every app at another version, and with
    /// a default in /etc that has changed.
    #[arg(long)]
    pub(crate) upgrade: bool,
    /// The same, to this image: oci:DIR[:TAG] or a registry reference
    #[arg(long, value_name = "IMAGE")]
    pub(crate) upgrade_to: Option<ImageName>,
    /// How many seconds a boot with its checks may take; emulation takes one to six minutes
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    pub(crate) deadline: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Test {
    /// Run only the Rust tests whose name contains this
    pub(crate) filter: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// What is measured
    #[arg(value_enum, default_value_t = Benched::Push)]
    pub(crate) what: Benched,
    /// How often each row is measured; the median is shown [default: 5 for push, 1 for others]
    #[arg(long, value_parser = runs)]
    pub(crate) runs: Option<usize>,
    /// Where the table goes as well, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Measure a build of this program from nothing as well, which takes minutes
    #[arg(long)]
    pub(crate) cold_build: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Benched {
    /// A push, beside crane's
    Push,
    /// Disks of all formats, beside qemu-img's and tar's
    Disk,
    /// Packed disks, beside buildah's
    Pack,
}

/// A median is of one run at least.
fn runs(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("there is no median of no runs".to_owned()),
        Ok(runs) => Ok(runs),
        Err(error) => Err(format!("{error}")),
    }
}

/// An image that an engine can pull.
fn registry_reference(text: &str) -> Result<Reference, String> {
    match text.parse() {
        Ok(ImageName::Registry(reference)) => Ok(reference),
        Ok(ImageName::Layout { .. }) => Err("an engine pulls it: name an image in a registry".to_owned()),
        Err(error) => Err(format!("{error}")),
    }
}

/// A version ends up in a tag, a label and a linker flag: it has a tag's form.
fn app_version(text: &str) -> Result<String, String> {
    if !crate::oci::reference::is_tag(text) {
        Err("a version has letters, digits, `_`, `.` and `-`, and does not start with `.` or `-`".to_owned())
    } else if crate::release::looks_like_disk(text) {
        Err("a version does not start with a disk's format: such tags are those of packed disks".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_consistent() {
        Flags::command().debug_assert();
    }

    #[test]
    fn help_of_dist() {
        let help = Flags::command().find_subcommand_mut("dist").unwrap().render_help().to_string();
        insta::assert_snapshot!(help, @"
        Everything: build the apps, compose the image, store it and its disks in target/dist, push it when asked

        Usage: dist [OPTIONS]

        Options:
              --distro <DISTRO>            The distro to build on [default: the one in Cargo.toml] [env: BASE_DISTRO=]
              --base <REF>                 Stand another image in for the distro's base: a registry reference, or oci:DIR[:TAG]
              --image <NAME>               The repository of the image, without a tag [default: the one in Cargo.toml] [env: IMAGE=]
              --app-version <VERSION>      The version that the image and its apps carry [env: VERSION=]
              --platform <OS/ARCH>         The platforms to build for; several make an index [default: this machine's]
              --compression <COMPRESSION>  How layers are compressed; hosts of 2024 and older read gzip alone [default: gzip] [possible values: gzip, zstd]
              --push                       Push the image to its repository as well, under <distro>-<version>
              --full                       Fetch the base's layers too, so that the layout is whole
              --no-disks                   Make none of the disks that Cargo.toml names
              --builder <BUILDER>          Who makes disks of the image [default: what the image says, or else image-builder] [possible values: ostree, image-builder, bootc]
              --builder-image <REF>        What 'image-builder' runs: bootc-image-builder's image, or that of image-builder [default: quay.io/centos-bootc/bootc-image-builder:latest]
              --ssh-key <FILE.pub>         Let the owner of this public key log in on the disks: the users of configs/builder/config.toml, or a user 'devops' who may become root
              --no-pack                    Push the image alone, and none of its disks
              --dry-run                    Show what would be stored and sent, and what a host would download
          -h, --help                       Print help (see more with '--help')

        Examples:
          cargo xtask dist
          cargo xtask dist --dry-run --push
          cargo xtask dist --distro debian-13 --app-version v3 --push --image ghcr.io/me/os
        ");
    }

    #[test]
    fn an_option_that_does_nothing_is_refused() {
        let check = |arguments: &str| {
            let matches = Flags::command().get_matches_from(arguments.split(' '));
            Flags::from_arg_matches(&matches).unwrap().checked(&matches).map(|_| ())
        };
        let error = check("xtask base debian-13 --image ghcr.io/o/n").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().starts_with("error: '--image' says where '--push' sends"), "{error}");
        check("xtask base debian-13 --push --image ghcr.io/o/n").unwrap();
        check("xtask build --image ghcr.io/o/n").unwrap();
    }

    #[test]
    fn plain_http_is_for_named_registries() {
        let parse =
            |text: &str| Flags::try_parse_from(["xtask", "list"].into_iter().chain(text.split_whitespace()));
        let flags = parse("--plain-http registry.lan:5000 --plain-http registry.lan").unwrap();
        assert_eq!(flags.common.plain_http.len(), 2);
        let error = parse("--plain-http http://registry.lan").unwrap_err().to_string();
        insta::assert_snapshot!(error.lines().next().unwrap(), @"error: invalid value 'http://registry.lan' for '--plain-http <HOST[:PORT]>': `http://registry.lan` is not how an image's name begins: write HOST or HOST:PORT");
        assert!(parse("--plain-http").is_err());
    }
}
