//! The command line, as typed commands. Nothing here touches a file or the network.

// The comments are what '--help' says, where `<distro>` and `[:TAG]` stand for themselves.
#![allow(rustdoc::broken_intra_doc_links, rustdoc::invalid_html_tags)]

mod app;
mod archive;
mod bench;
mod disk;
mod image;
mod pack;
mod sign;
#[cfg(test)]
mod surface;
mod vm;

use std::path::PathBuf;

use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

pub(crate) use self::app::AddApp;
pub(crate) use self::archive::{Export, Import};
pub(crate) use self::bench::{Bench, Benched, Test};
pub(crate) use self::disk::{Disk, DiskBuilder, DiskSource};
pub(crate) use self::image::{Build, Compose, Deliver, Diff, Dist, MakeBase};
pub(crate) use self::pack::{Inspect, Pack, PackSource, Pull, Tags};
pub(crate) use self::sign::{Sign, Signing, Verify};
pub(crate) use self::vm::{Vm, VmMachine, VmTest};
use crate::oci::{ImageName, Reference};
use crate::registry::RegistryName;

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
        let is_named = |arguments: &ArgMatches, name: &str| {
            arguments.try_contains_id(name).is_ok()
                && arguments.value_source(name) == Some(ValueSource::CommandLine)
        };
        let refuse = |message: String| Err(Flags::command().error(ErrorKind::ArgumentConflict, message));
        match (&self.command, matches.subcommand()) {
            (Command::Base(base), Some((_, arguments))) if !base.push && is_named(arguments, "image") => {
                let message = "'--image' says where '--push' sends the base: add '--push', or leave it out";
                Err(Flags::command().error(ErrorKind::MissingRequiredArgument, message))
            }
            (Command::Pack(pack), Some((_, arguments))) => {
                let named = |names: &[&'static str]| {
                    names.iter().find(|name| is_named(arguments, name)).map(|name| name.replace('_', "-"))
                };
                let of_image = ["distro", "base", "app_version", "platform", "compression"];
                let of_format = ["base", "compression", "builder", "builder_image"];
                let is_file = |source: &PackSource| matches!(source, PackSource::File(_));
                if pack.from.is_some()
                    && let Some(name) = named(&of_image)
                {
                    refuse(format!("'--{name}' does nothing beside '--from': the image says it"))
                } else if pack.disks.iter().all(is_file)
                    && let Some(name) = named(&of_format)
                {
                    refuse(format!("'--{name}' does nothing for a file, which is packed as it is"))
                } else {
                    Ok(self)
                }
            }
            _ => Ok(self),
        }
    }
}

/// What is parsed. An environment variable that is empty counts as one that is not set: that is
/// how CI systems pass on what was left out.
// An argument's value may be in the environment: this is the edge where it is read.
#[allow(clippy::disallowed_methods)]
fn command() -> clap::Command {
    let is_empty = |arg: &Arg| {
        arg.get_env().is_some_and(|name| std::env::var_os(name).is_some_and(|value| value.is_empty()))
    };
    let without_empty = |arg: Arg| if is_empty(&arg) { arg.env(Resettable::Reset) } else { arg };
    Flags::command().mut_subcommands(|command| command.mut_args(without_empty))
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
    /// Write a release, with its base's layers, its disks and signatures, into one file
    ///
    /// The file is an OCI layout in a tar: 'skopeo copy oci-archive:FILE:TAG ...' and 'bootc switch
    /// --transport oci-archive FILE:TAG' read it. The same release makes the same bytes.
    #[command(after_help = "Examples:
  cargo xtask export ghcr.io/me/os:debian-13-v3 -o release.tar
  cargo xtask export")]
    Export(Export),
    /// Send what 'export' has written into a registry, checked before anything has a tag
    #[command(after_help = "Examples:
  cargo xtask import release.tar --to registry.lan:5000/os")]
    Import(Import),
    /// Say what an image is, without its layers: a system or a packed disk, its size, where it came from
    #[command(after_help = "Examples:
  cargo xtask inspect ghcr.io/me/os:debian-13-v1
  cargo xtask inspect oci:target/dist/oci --json")]
    Inspect(Inspect),
    /// Sign an image with a key of cosign's, so that 'cosign verify --key' and hosts accept it
    ///
    /// The signature goes beside the image, where cosign 2 leaves it: under the tag sha256-<hex>.sig. A
    /// tag is looked up once, and what it names then is signed. The key's password is taken from
    /// COSIGN_PASSWORD, or asked for.
    #[command(after_help = "Examples:
  cargo xtask sign --generate-key
  cargo xtask sign ghcr.io/me/os:debian-13-v1 --key cosign.key --recursive")]
    Sign(Sign),
    /// Check that an image is signed by a key, and print its digest
    #[command(after_help = "Examples:
  cargo xtask verify ghcr.io/me/os:debian-13-v1 --key cosign.pub
  cargo xtask verify mirror.lan/os:debian-13-v1 --key cosign.pub --signed-for ghcr.io/me/os")]
    Verify(Verify),
    /// List what a repository has: versions by distro, and the disks of each
    #[command(after_help = "Examples:
  cargo xtask tags
  cargo xtask tags ghcr.io/me/os --json")]
    Tags(Tags),
    /// Say what a host downloads to go from one image to another
    #[command(after_help = "Examples:
  cargo xtask diff ghcr.io/me/os:debian-13-v1 ghcr.io/me/os:debian-13-v2
  cargo xtask diff ghcr.io/me/os:debian-13-v1 oci:target/dist/oci")]
    Diff(Diff),
    /// Add an app: a Go program with its test, unit and route, all of it ready to be changed
    #[command(after_help = "Examples:
  cargo xtask new-app shop --dry-run
  cargo xtask new-app shop --port 8090 --route /store
  cargo xtask new-app thumbnails --cache")]
    NewApp(AddApp),
    /// List the apps and distros of this repository, and the formats of its disks
    #[command(after_help = "Examples:
  cargo xtask list
  cargo xtask list --json")]
    List,
    /// Run the Go tests, the Rust tests, and the checks with real programs
    #[command(after_help = "Examples:
  cargo xtask test --yes
  cargo xtask test workspace::")]
    Test(Test),
    /// Boot a disk in QEMU
    #[command(subcommand)]
    Vm(Vm),
    /// Measure a push side by side with crane, disks with qemu-img and tar, or packing with buildah
    #[command(after_help = "Examples:
  cargo xtask bench
  cargo xtask bench disk --runs 3 --output bench.json")]
    Bench(Bench),
    /// Say what works on this machine, and how to mend the rest
    #[command(after_help = "Examples:
  cargo xtask doctor
  cargo xtask doctor --json")]
    Doctor,
    /// Print a shell's completions
    #[command(after_help = "Examples:
  source <(cargo xtask completions bash)
  cargo xtask completions fish > ~/.config/fish/completions/cargo-xtask.fish")]
    Completions { shell: clap_complete::Shell },
    /// Write manual pages, one for each command
    #[command(after_help = "Examples:
  cargo xtask man ~/.local/share/man/man1
  man -l target/man/cargo-xtask-dist.1")]
    Man {
        /// The folder that they go to, which is made where it is missing
        dir: PathBuf,
    },
}

/// An image that an engine can pull.
fn registry_reference(text: &str) -> Result<Reference, String> {
    match text.parse() {
        Ok(ImageName::Registry(reference)) => Ok(reference),
        Ok(ImageName::Layout { .. }) => Err("an engine pulls it: name an image in a registry".to_owned()),
        Err(error) => Err(format!("{error}")),
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
              --app-version <VERSION>      The version that the image and its apps carry; 'next' is the number behind the registry's last one, 'git' the commit's tag [env: VERSION=]
              --platform <OS/ARCH>         The platforms to build for; several make an index [default: this machine's]
              --compression <COMPRESSION>  How layers are compressed; hosts of 2024 and older read gzip alone [default: gzip] [possible values: gzip, zstd]
              --push                       Push the image to its repository as well, under <distro>-<version>
              --full                       Fetch the base's layers too, so that the layout is whole
              --no-disks                   Make none of the disks that Cargo.toml names
              --builder <BUILDER>          Who makes disks of the image [default: what the image says, or else image-builder] [possible values: ostree, image-builder, bootc]
              --builder-image <REF>        What 'image-builder' runs: bootc-image-builder's image, or that of image-builder [default: quay.io/centos-bootc/bootc-image-builder:latest]
              --ssh-key <FILE.pub>         Let the owner of this public key log in on the disks: the users of configs/builder/config.toml, or a user 'devops' who may become root
              --force                      Write over disks that no run wrote, or that were changed since
              --no-pack                    Push the image alone, and none of its disks
              --sign-key <FILE>            Sign the image and its disks with this key, as 'sign' does, before they have a tag
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
        for (arguments, expected) in [
            ("pack qcow2 --from oci:x --app-version v1", "error: '--app-version' does nothing beside"),
            ("pack x.raw --from oci:x --platform linux/arm64", "error: '--platform' does nothing beside"),
            ("pack x.raw --builder bootc", "error: '--builder' does nothing for a file"),
        ] {
            let error = check(&format!("xtask {arguments}")).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().starts_with(expected), "{error}");
        }
        check("xtask pack x.raw --distro debian-13 --app-version v1 --platform linux/arm64").unwrap();
        check("xtask pack x.raw qcow2 --builder bootc").unwrap();
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
