//! File systems and partitions.

use super::read::{Notes, Section};

/// How a disk is divided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Storage {
    /// As its builder does it.
    #[default]
    Unsaid,
    /// With these besides, or larger.
    FileSystems(Vec<FileSystem>),
    /// As it is written here.
    Partitions(Partitions),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileSystem {
    pub(crate) mountpoint: String,
    /// In bytes.
    pub(crate) least: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Partitions {
    /// `gpt` or `dos`.
    pub(crate) table: Option<String>,
    /// Of the whole disk, in bytes.
    pub(crate) least: Option<u64>,
    pub(crate) partitions: Vec<Partition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    /// In bytes.
    pub(crate) least: u64,
    pub(crate) part_type: Option<String>,
    pub(crate) content: Content,
}

/// What is in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Plain(Volume),
    Lvm { name: Option<String>, volumes: Vec<LogicalVolume> },
    Btrfs(Vec<Subvolume>),
}

/// A file system, or swap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Volume {
    pub(crate) mountpoint: Option<String>,
    pub(crate) label: Option<String>,
    pub(crate) fs_type: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogicalVolume {
    pub(crate) name: Option<String>,
    pub(crate) least: u64,
    pub(crate) volume: Volume,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subvolume {
    pub(crate) name: String,
    pub(crate) mountpoint: String,
}

impl Storage {
    /// What all that is asked for takes together, in bytes. A builder has partitions of its own besides.
    pub(crate) fn least_size(&self) -> u64 {
        match self {
            Storage::Unsaid => 0,
            Storage::FileSystems(file_systems) => sum(file_systems.iter().map(|system| system.least)),
            Storage::Partitions(Partitions { least, partitions, .. }) => {
                sum(partitions.iter().map(Partition::least_size)).max(least.unwrap_or(0))
            }
        }
    }
}

impl Partition {
    fn least_size(&self) -> u64 {
        match &self.content {
            Content::Plain(_) | Content::Btrfs(_) => self.least,
            Content::Lvm { volumes, .. } => self.least.max(sum(volumes.iter().map(|volume| volume.least))),
        }
    }
}

fn sum(sizes: impl Iterator<Item = u64>) -> u64 {
    sizes.fold(0, u64::saturating_add)
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadMountpoint {
    #[error("`{0}` is not a mountpoint: it is an absolute path")]
    Form(String),
    #[error("bootc hosts cannot have `{path}` as a file system of its own: {reason}")]
    Forbidden { path: String, reason: &'static str },
}

impl BadMountpoint {
    fn hint(&self) -> String {
        match self {
            BadMountpoint::Form(_) => "write it as \"/var/lib/data\"".to_owned(),
            BadMountpoint::Forbidden { .. } => {
                "there can be '/', '/boot', and folders below /var, such as '/var/lib/data'".to_owned()
            }
        }
    }
}

/// Source: osbuild's policy for bootc images, and ostree, "Adapting existing mainstream distributions",
/// for what is a link.
fn mountpoint(text: &str) -> Result<String, BadMountpoint> {
    let parts: Vec<&str> = text.split('/').skip(1).collect();
    let is_part = |part: &&str| {
        !part.is_empty()
            && !matches!(*part, "." | "..")
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
    };
    if text == "/" {
        return Ok(text.to_owned());
    }
    if !text.starts_with('/') || !parts.iter().all(is_part) {
        return Err(BadMountpoint::Form(text.to_owned()));
    }
    let reason = match parts.as_slice() {
        ["boot"] => return Ok(text.to_owned()),
        ["boot", ..] => "the boot loader's partitions are the builder's",
        ["var"] => "ostree keeps it beside the deployments, and mounts it itself",
        ["var", "home" | "mnt" | "opt" | "roothome" | "srv" | "usrlocal", ..] => {
            "links at the top of the image point there"
        }
        ["var", "lock" | "mail" | "run", ..] => "it is a link",
        ["var", ..] => return Ok(text.to_owned()),
        ["home" | "mnt" | "opt" | "root" | "srv", ..] | ["usr", "local", ..] => "it is a link into /var",
        ["usr" | "bin" | "sbin" | "lib" | "lib64", ..] => "it is the image, which is read-only",
        ["etc", ..] => "it belongs to the deployment, and upgrades merge it",
        ["ostree" | "sysroot", ..] => "it is ostree's own",
        ["dev" | "proc" | "run" | "sys" | "tmp" | "media", ..] => "it is made at each boot",
        _ => "the image's top is read-only, and has no such folder",
    };
    Err(BadMountpoint::Forbidden { path: text.to_owned(), reason })
}

/// Source: osbuild, "Blueprint reference": bytes, or a number with one of these units.
fn size(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = match unit.trim() {
        "" | "B" => 1,
        "kB" => 1000,
        "KiB" => 1 << 10,
        "MB" => 1000_u64.pow(2),
        "MiB" => 1 << 20,
        "GB" => 1000_u64.pow(3),
        "GiB" => 1 << 30,
        "TB" => 1000_u64.pow(4),
        "TiB" => 1 << 40,
        _ => return None,
    };
    let bytes = number.parse::<u64>().ok()?.checked_mul(unit)?;
    // What the largest disk has, of any format.
    (1..=2 << 50).contains(&bytes).then_some(bytes)
}

pub(super) fn file_systems(sections: Vec<Section<'_>>, notes: &mut Notes<'_>) -> Vec<FileSystem> {
    let mut found: Vec<FileSystem> = Vec::new();
    for mut section in sections {
        let line = section.line;
        let mountpoint = mountpoint_of(&mut section, notes);
        if mountpoint.is_none() && !section.has("mountpoint") {
            notes.add(line, "a file system has no mountpoint", "add 'mountpoint = \"/\"'");
        }
        let least = least_of(&mut section, Presence::Required, notes);
        section.finish(notes, |_| None);
        let (Some(mountpoint), Some(least)) = (mountpoint, least) else { continue };
        if found.iter().any(|other| other.mountpoint == mountpoint) {
            notes.add(line, format!("there are two file systems for `{mountpoint}`"), "keep one of them");
        }
        found.push(FileSystem { mountpoint, least });
    }
    found
}

pub(super) fn partitions(mut section: Section<'_>, notes: &mut Notes<'_>) -> Partitions {
    let table = one_of(&mut section, "type", &["gpt", "dos"], notes);
    let least = least_of(&mut section, Presence::Optional, notes);
    let partitions = section
        .sections("partitions", notes)
        .into_iter()
        .filter_map(|section| partition(section, notes))
        .collect();
    section.finish(notes, |_| None);
    Partitions { table, least, partitions }
}

fn partition(mut section: Section<'_>, notes: &mut Notes<'_>) -> Option<Partition> {
    let kind = one_of(&mut section, "type", &["plain", "lvm", "btrfs"], notes);
    let least = least_of(&mut section, Presence::Required, notes);
    let part_type = owned(&mut section, "part_type", notes);
    let content = match kind.as_deref() {
        Some("lvm") => {
            let name = owned(&mut section, "name", notes);
            let sections = section.sections("logical_volumes", notes);
            let volumes = sections.into_iter().filter_map(|section| logical_volume(section, notes)).collect();
            Content::Lvm { name, volumes }
        }
        Some("btrfs") => {
            let sections = section.sections("subvolumes", notes);
            Content::Btrfs(sections.into_iter().filter_map(|section| subvolume(section, notes)).collect())
        }
        Some(_) | None => Content::Plain(volume(&mut section, notes)),
    };
    section.finish(notes, |_| None);
    Some(Partition { least: least?, part_type, content })
}

fn logical_volume(mut section: Section<'_>, notes: &mut Notes<'_>) -> Option<LogicalVolume> {
    let name = owned(&mut section, "name", notes);
    let least = least_of(&mut section, Presence::Required, notes);
    let volume = volume(&mut section, notes);
    section.finish(notes, |_| None);
    Some(LogicalVolume { name, least: least?, volume })
}

fn subvolume(mut section: Section<'_>, notes: &mut Notes<'_>) -> Option<Subvolume> {
    let (line, name) = (section.line, owned(&mut section, "name", notes));
    let mountpoint = mountpoint_of(&mut section, notes);
    let is_said = section.has("name") && section.has("mountpoint");
    section.finish(notes, |_| None);
    if !is_said {
        notes.add(
            line,
            "a subvolume has no name or no mountpoint",
            "add 'name = \"...\"' and 'mountpoint = \"/\"'",
        );
    }
    Some(Subvolume { name: name?, mountpoint: mountpoint? })
}

fn volume(section: &mut Section<'_>, notes: &mut Notes<'_>) -> Volume {
    let mountpoint = mountpoint_of(section, notes);
    let label = owned(section, "label", notes);
    let fs_type = one_of(section, "fs_type", &["ext4", "xfs", "btrfs", "vfat", "swap"], notes);
    let is_swap = fs_type.as_deref() == Some("swap");
    if is_swap == section.has("mountpoint") {
        let what = if is_swap { "swap has a mountpoint" } else { "a file system has no mountpoint" };
        notes.add(section.line, what, "swap has none, and all else has one");
    }
    Volume { mountpoint, label, fs_type }
}

enum Presence {
    Required,
    Optional,
}

fn least_of(section: &mut Section<'_>, presence: Presence, notes: &mut Notes<'_>) -> Option<u64> {
    match (section.size("minsize", notes), presence) {
        (Some((text, line)), _) => {
            let least = size(&text);
            if least.is_none() {
                notes.add(line, format!("`{text}` is not a size"), "write it as \"20 GiB\"");
            }
            least
        }
        (None, Presence::Required) if !section.has("minsize") => {
            notes.add(section.line, "it has no minsize", "add 'minsize = \"20 GiB\"'");
            None
        }
        (None, Presence::Required | Presence::Optional) => None,
    }
}

fn mountpoint_of(section: &mut Section<'_>, notes: &mut Notes<'_>) -> Option<String> {
    let text = section.string("mountpoint", notes)?;
    notes.check(text.line, mountpoint(text.value), BadMountpoint::hint)
}

fn owned(section: &mut Section<'_>, key: &'static str, notes: &mut Notes<'_>) -> Option<String> {
    section.string(key, notes).map(|text| text.value.to_owned())
}

fn one_of(
    section: &mut Section<'_>,
    key: &'static str,
    values: &[&str],
    notes: &mut Notes<'_>,
) -> Option<String> {
    let text = section.string(key, notes)?;
    if values.contains(&text.value) {
        return Some(text.value.to_owned());
    }
    notes.add(
        text.line,
        format!("'{key}' cannot be `{}`", text.value),
        format!("choose one of {}", values.join(", ")),
    );
    None
}
