//! Of machines that a disk is booted in.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Compose, DiskBuilder};
use crate::oci::ImageName;
use crate::vm::{Acceleration, Firmware};

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
