//! What builders cannot do of a config, said all at once.

use anyhow::{Result, anyhow};

use super::Builder;
use super::config::{Config, Installer, Iso, Storage};
use crate::hint::WithHint;

/// Of a builder that makes a disk, and not an installer.
pub(super) fn installer(config: &Config) -> Vec<String> {
    let mut cannot = Vec::new();
    if config.installer != Installer::default() {
        cannot.push("[customizations.installer]: what it makes is no installer".to_owned());
    }
    if config.iso != Iso::default() {
        cannot.push("[customizations.iso]: what it makes is no ISO".to_owned());
    }
    cannot
}

/// Of an installer, which divides the disk that it finds.
pub(super) fn storage(config: &Config) -> Vec<String> {
    let section = match &config.storage {
        Storage::Unsaid => return Vec::new(),
        Storage::FileSystems(_) => "[[customizations.filesystem]]",
        Storage::Partitions(_) => "[customizations.disk]",
    };
    vec![format!("{section}: an installer divides the disk that it finds, and a kickstart says how")]
}

/// Of a builder that makes its product of the image alone.
pub(super) fn all_but_the_kernel(config: &Config) -> Vec<String> {
    let users = config.users.iter().map(|user| {
        format!("the user `{}`, from config.toml or '--ssh-key': it takes users from the image", user.name)
    });
    let groups = config.groups.iter().map(|group| format!("the group `{}`: it makes no groups", group.name));
    let mut cannot: Vec<String> = users.chain(groups).collect();
    if config.installer != Installer::default() {
        cannot.push("[customizations.installer]: it takes its installer from the image".to_owned());
    }
    if config.iso != Iso::default() {
        cannot.push("[customizations.iso]: it takes the ISO's names from the image".to_owned());
    }
    cannot
}

/// Of a builder that divides the disk by itself, with one file system for the image.
pub(super) fn one_file_system(config: &Config) -> Vec<String> {
    match &config.storage {
        Storage::Unsaid => Vec::new(),
        Storage::FileSystems(file_systems) => {
            let others = file_systems.iter().filter(|file_system| file_system.mountpoint != "/");
            let refusal = |mountpoint| {
                format!("a file system for {mountpoint}: it makes one, for /, which a host grows")
            };
            others.map(|other| refusal(&other.mountpoint)).collect()
        }
        Storage::Partitions(partitions) => {
            let is_divided = !partitions.partitions.is_empty() || partitions.table.as_deref() == Some("dos");
            let refusal =
                "[customizations.disk] but for its minsize: it makes one file system, in a GPT of its own";
            is_divided.then(|| refusal.to_owned()).into_iter().collect()
        }
    }
}

/// How large a disk with one file system is, in bytes, on which everything is as large as `config`
/// wants it; `with_root` gives the size of a disk from that of the file system.
pub(super) fn size_with_one_file_system(config: &Config, with_root: fn(u64) -> u64) -> u64 {
    match &config.storage {
        Storage::Unsaid => 0,
        Storage::FileSystems(file_systems) => {
            let root = file_systems.iter().filter(|file_system| file_system.mountpoint == "/");
            root.map(|root| with_root(root.least)).max().unwrap_or(0)
        }
        Storage::Partitions(partitions) => partitions.least.unwrap_or(0).next_multiple_of(1 << 20),
    }
}

pub(super) fn refuse(builder: Builder, cannot: &[String]) -> Result<()> {
    if cannot.is_empty() {
        return Ok(());
    }
    let cannot = cannot.join("\n  ");
    Err(anyhow!("the builder '{builder}' cannot do what configs/builder asks for:\n  {cannot}"))
        .hint("remove it from configs/builder/config.toml, or name another builder with '--builder', where there is one")
}
