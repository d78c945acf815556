//! What a builder in a container needs beside programs: root, loop devices, the image's layers, room.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::podman::{Access, DEFAULT_STORAGE, PODMAN, Podman};
use super::{Builder, Order};
use crate::disk::DiskFormat;
use crate::preflight::{self, Lack};
use crate::progress::human_bytes;

/// So many times as much room as its packed layers does a system take.
pub(super) const UNPACKED: u64 = 2;
const ROOM_REMEDY: &str = "free some space: 'sudo podman system prune' removes images that are not used";
/// What hands out loop devices.
const LOOP_CONTROL: &str = "/dev/loop-control";

/// Room that something will take.
pub(super) struct Claim {
    folder: PathBuf,
    /// The file system's number.
    device: u64,
    /// On the file system, in bytes.
    free: u64,
    bytes: u64,
}

/// All that is missing for a disk by root's podman. Only the machine is asked, but for an image whose
/// layers are not at hand: its registry as well.
pub(super) fn lacks(order: &Order<'_>) -> Result<Vec<Lack>> {
    let lack = |what: String, remedy: &str| Lack { what, remedy: remedy.to_owned() };
    let mut lacks = Vec::new();
    let access = Access::find();
    if access.is_none() {
        let what = format!("{} has to be root: it attaches and mounts disks", order.builder);
        lacks.push(lack(what, "run 'sudo -v' before it, or run it as root"));
    }
    if !Path::new(LOOP_CONTROL).exists() {
        lacks.push(lack(format!("there is no {LOOP_CONTROL}"), "run 'sudo modprobe loop'"));
    }
    for folder in [order.root, order.kept] {
        if folder.as_os_str().as_encoded_bytes().contains(&b':') {
            let what = format!("podman mounts no folder with a colon in its name: {}", folder.display());
            lacks.push(lack(what, "move the repository"));
        }
    }
    lacks.extend(lacking_layers(order)?);

    let is_there = preflight::find(&PODMAN, order.root).is_some();
    let podman = access.filter(|_| is_there).map(Podman::open).transpose()?;
    let has_image = podman.as_ref().map(|podman| podman.has(order)).transpose()?.unwrap_or_default();
    let storage = podman.map_or_else(|| DEFAULT_STORAGE.into(), |podman| podman.storage);
    lacks.extend(shortages(&claims(order, &storage, has_image)?, ROOM_REMEDY));
    Ok(lacks)
}

/// A layout without the base's layers does where the registry has the image.
fn lacking_layers(order: &Order<'_>) -> Result<Option<Lack>> {
    let Some(place) = order.image.layers_elsewhere()? else { return Ok(None) };
    let reference = order.upgrades_from;
    let why = match order.pushed_as() {
        Ok(Some(_)) => return Ok(None),
        Ok(None) => "has not got the image".to_owned(),
        Err(error) => format!("did not say whether it has the image ({error:#})"),
    };
    Ok(Some(Lack {
        what: format!("{} lacks layers, which are in {place}, and {reference} {why}", order.image.name),
        remedy: "make the image with '--full', or push it, so that podman can pull it".to_owned(),
    }))
}

/// What a disk and its formats take, and where.
fn claims(order: &Order<'_>, storage: &Path, has_image: bool) -> Result<Vec<Claim>> {
    let packed = order.image.packed_size();
    let content = packed.saturating_mul(UNPACKED);
    let image = if has_image { 0 } else { content };
    // osbuild has a tree of its own, in the container.
    let work = match order.builder {
        Builder::Osbuild => content,
        Builder::Bootc | Builder::Ostree => 0,
    };
    [(storage, image.saturating_add(work)), (order.kept, content), (order.output, outputs(order))]
        .into_iter()
        .map(|(folder, bytes)| Claim::new(folder, bytes))
        .collect()
}

/// What the formats that are asked for take, in bytes.
pub(super) fn outputs(order: &Order<'_>) -> u64 {
    let packed = order.image.packed_size();
    let content = packed.saturating_mul(UNPACKED);
    let of_format = |format: &DiskFormat| match format {
        DiskFormat::Raw | DiskFormat::Ami | DiskFormat::Vhd => content,
        DiskFormat::Qcow2 | DiskFormat::Vmdk | DiskFormat::Gce | DiskFormat::Ova | DiskFormat::Iso => packed,
    };
    order.formats.iter().map(of_format).fold(0, u64::saturating_add)
}

impl Claim {
    pub(super) fn new(folder: &Path, bytes: u64) -> Result<Claim> {
        // It may still have to be made.
        let folder = std::path::absolute(folder)?;
        let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
        let looking = || format!("looking at {}", there.display());
        let device = fs::metadata(there).with_context(looking)?.dev();
        let file_system = rustix::fs::statvfs(there).with_context(looking)?;
        let free = file_system.f_bavail.saturating_mul(file_system.f_frsize);
        Ok(Claim { folder, device, free, bytes })
    }
}

/// The file systems that have too little room for all claims on them.
pub(super) fn shortages(claims: &[Claim], remedy: &str) -> Vec<Lack> {
    let mut by_device: BTreeMap<u64, Vec<&Claim>> = BTreeMap::new();
    for claim in claims {
        by_device.entry(claim.device).or_default().push(claim);
    }
    let mut lacks = Vec::new();
    for claims in by_device.values() {
        let needed = claims.iter().map(|claim| claim.bytes).fold(0, u64::saturating_add);
        let Some(free) = claims.iter().map(|claim| claim.free).min().filter(|free| *free < needed) else {
            continue;
        };
        let folders: Vec<String> = claims.iter().map(|claim| claim.folder.display().to_string()).collect();
        lacks.push(Lack {
            what: format!(
                "{} are free for {}, and it takes about {}",
                human_bytes(free),
                folders.join(", "),
                human_bytes(needed)
            ),
            remedy: remedy.to_owned(),
        });
    }
    lacks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_on_one_file_system_add_up() {
        let claim = |folder: &str, device, free, bytes| Claim { folder: folder.into(), device, free, bytes };
        let check = |claims: &[Claim]| -> Vec<String> {
            shortages(claims, "").into_iter().map(|lack| lack.what).collect()
        };
        assert_eq!(check(&[claim("/a", 1, 5_000, 3_000), claim("/b", 2, 5_000, 3_000)]), [""; 0]);
        assert_eq!(
            check(&[claim("/a", 1, 5_000, 3_000), claim("/b", 1, 5_000, 3_000), claim("/c", 2, 1, 2)]),
            [
                "5.00 kB are free for /a, /b, and it takes about 6.00 kB",
                "1 B are free for /c, and it takes about 2 B"
            ]
        );
        assert_eq!(check(&[claim("/a", 1, 5_000, u64::MAX), claim("/b", 1, 5_000, 3_000)]).len(), 1);
    }
}
