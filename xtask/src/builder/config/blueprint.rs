//! A `Config` as the blueprint that osbuild's builders read. It has no comments and one order, so that
//! the same config is the same text.

use serde::Serialize;

use super::storage::{Content, FileSystem, LogicalVolume, Partition, Partitions, Storage, Subvolume, Volume};
use super::{Config, Group, Installer, Iso, User};

impl Config {
    /// The blueprint, as TOML.
    pub(crate) fn blueprint(&self) -> Result<String, toml::ser::Error> {
        let (filesystem, disk) = match &self.storage {
            Storage::Unsaid => (Vec::new(), None),
            Storage::FileSystems(file_systems) => (file_systems.iter().map(filesystem).collect(), None),
            Storage::Partitions(partitions) => (Vec::new(), Some(disk(partitions))),
        };
        let append = self.kernel.to_string();
        toml::to_string(&Blueprint {
            customizations: Customizations {
                user: self.users.iter().map(user).collect(),
                group: self.groups.iter().map(group).collect(),
                filesystem,
                kernel: (!self.kernel.is_empty()).then_some(Kernel { append }),
                disk,
                installer: (self.installer != Installer::default()).then(|| installer(&self.installer)),
                iso: (self.iso != Iso::default()).then(|| iso(&self.iso)),
            },
        })
    }
}

#[derive(Serialize)]
struct Blueprint<'a> {
    customizations: Customizations<'a>,
}

#[derive(Serialize)]
struct Customizations<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    user: Vec<BlueprintUser<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    group: Vec<BlueprintGroup<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    filesystem: Vec<BlueprintFileSystem<'a>>,
    kernel: Option<Kernel>,
    disk: Option<Disk<'a>>,
    installer: Option<BlueprintInstaller<'a>>,
    iso: Option<BlueprintIso<'a>>,
}

#[derive(Serialize)]
struct BlueprintUser<'a> {
    name: &'a str,
    description: Option<&'a str>,
    password: Option<&'a str>,
    key: Option<String>,
    home: Option<&'a str>,
    shell: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    groups: &'a [String],
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Serialize)]
struct BlueprintGroup<'a> {
    name: &'a str,
    gid: Option<u32>,
}

#[derive(Serialize)]
struct Kernel {
    append: String,
}

#[derive(Serialize)]
struct BlueprintFileSystem<'a> {
    mountpoint: &'a str,
    minsize: u64,
}

#[derive(Serialize)]
struct Disk<'a> {
    r#type: Option<&'a str>,
    minsize: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    partitions: Vec<BlueprintPartition<'a>>,
}

#[derive(Serialize)]
struct BlueprintPartition<'a> {
    r#type: &'static str,
    minsize: u64,
    part_type: Option<&'a str>,
    name: Option<&'a str>,
    #[serde(flatten)]
    volume: Option<BlueprintVolume<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logical_volumes: Vec<BlueprintLogicalVolume<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subvolumes: Vec<BlueprintSubvolume<'a>>,
}

#[derive(Serialize)]
struct BlueprintVolume<'a> {
    mountpoint: Option<&'a str>,
    label: Option<&'a str>,
    fs_type: Option<&'a str>,
}

#[derive(Serialize)]
struct BlueprintLogicalVolume<'a> {
    name: Option<&'a str>,
    minsize: u64,
    #[serde(flatten)]
    volume: BlueprintVolume<'a>,
}

#[derive(Serialize)]
struct BlueprintSubvolume<'a> {
    name: &'a str,
    mountpoint: &'a str,
}

#[derive(Serialize)]
struct BlueprintInstaller<'a> {
    unattended: Option<bool>,
    #[serde(rename = "sudo-nopasswd", skip_serializing_if = "<[String]>::is_empty")]
    sudo_nopasswd: &'a [String],
    kickstart: Option<Kickstart<'a>>,
    modules: Option<Modules<'a>>,
}

#[derive(Serialize)]
struct Kickstart<'a> {
    contents: &'a str,
}

#[derive(Serialize)]
struct Modules<'a> {
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    enable: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    disable: &'a [String],
}

#[derive(Serialize)]
struct BlueprintIso<'a> {
    volume_id: Option<&'a str>,
    application_id: Option<&'a str>,
    publisher: Option<&'a str>,
}

fn user(user: &User) -> BlueprintUser<'_> {
    let keys: Vec<String> = user.keys.iter().map(ToString::to_string).collect();
    BlueprintUser {
        name: &user.name,
        description: user.description.as_deref(),
        password: user.password.as_deref(),
        key: (!keys.is_empty()).then(|| keys.join("\n")),
        home: user.home.as_deref(),
        shell: user.shell.as_deref(),
        groups: &user.groups,
        uid: user.uid,
        gid: user.gid,
    }
}

fn group(group: &Group) -> BlueprintGroup<'_> {
    BlueprintGroup { name: &group.name, gid: group.gid }
}

fn filesystem(file_system: &FileSystem) -> BlueprintFileSystem<'_> {
    BlueprintFileSystem { mountpoint: &file_system.mountpoint, minsize: file_system.least }
}

fn disk(partitions: &Partitions) -> Disk<'_> {
    Disk {
        r#type: partitions.table.as_deref(),
        minsize: partitions.least,
        partitions: partitions.partitions.iter().map(partition).collect(),
    }
}

fn partition(partition: &Partition) -> BlueprintPartition<'_> {
    let empty = BlueprintPartition {
        r#type: "plain",
        minsize: partition.least,
        part_type: partition.part_type.as_deref(),
        name: None,
        volume: None,
        logical_volumes: Vec::new(),
        subvolumes: Vec::new(),
    };
    match &partition.content {
        Content::Plain(plain) => BlueprintPartition { volume: Some(volume(plain)), ..empty },
        Content::Lvm { name, volumes } => BlueprintPartition {
            r#type: "lvm",
            name: name.as_deref(),
            logical_volumes: volumes.iter().map(logical_volume).collect(),
            ..empty
        },
        Content::Btrfs(subvolumes) => BlueprintPartition {
            r#type: "btrfs",
            subvolumes: subvolumes.iter().map(subvolume).collect(),
            ..empty
        },
    }
}

fn volume(volume: &Volume) -> BlueprintVolume<'_> {
    BlueprintVolume {
        mountpoint: volume.mountpoint.as_deref(),
        label: volume.label.as_deref(),
        fs_type: volume.fs_type.as_deref(),
    }
}

fn logical_volume(logical: &LogicalVolume) -> BlueprintLogicalVolume<'_> {
    BlueprintLogicalVolume {
        name: logical.name.as_deref(),
        minsize: logical.least,
        volume: volume(&logical.volume),
    }
}

fn subvolume(subvolume: &Subvolume) -> BlueprintSubvolume<'_> {
    BlueprintSubvolume { name: &subvolume.name, mountpoint: &subvolume.mountpoint }
}

fn installer(installer: &Installer) -> BlueprintInstaller<'_> {
    let (enable, disable) = (&installer.enable_modules[..], &installer.disable_modules[..]);
    BlueprintInstaller {
        unattended: installer.unattended.then_some(true),
        sudo_nopasswd: &installer.sudo_nopasswd,
        kickstart: installer.kickstart.as_deref().map(|contents| Kickstart { contents }),
        modules: (!enable.is_empty() || !disable.is_empty()).then_some(Modules { enable, disable }),
    }
}

fn iso(iso: &Iso) -> BlueprintIso<'_> {
    BlueprintIso {
        volume_id: iso.volume_id.as_deref(),
        application_id: iso.application_id.as_deref(),
        publisher: iso.publisher.as_deref(),
    }
}
