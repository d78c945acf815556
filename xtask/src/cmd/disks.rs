//! Disks of an image: its raw, and of that every format asked for that is not there already.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Session;
use super::disk::{self, OutputReport};
use crate::builder::{self, Builder, LocalImage, Order};
use crate::disk::{DiskFormat, DiskName, DiskSize, Options, Qcow2Compression};
use crate::hint::WithHint;
use crate::oci::{Digest, ImageName, Reference};
use crate::registry::Client;
use crate::store;

/// Changes when the same raw becomes other bytes in any format.
const PROCESS: &str = "1";

/// Disks of one image.
pub(super) struct Request<'a> {
    pub(super) name: &'a ImageName,
    pub(super) image: &'a LocalImage,
    pub(super) registry: &'a Client,
    pub(super) builder: Builder,
    pub(super) builder_image: &'a Reference,
    pub(super) size: DiskSize,
    pub(super) formats: &'a [DiskFormat],
    pub(super) options: &'a Options,
    /// Where the disks go.
    pub(super) folder: &'a Path,
}

/// What is known of a disk that was written.
#[derive(Debug, Deserialize, Serialize)]
struct Record {
    /// What it was made of.
    inputs: Digest,
    /// When its file was written, so that one that was touched since is made again.
    modified: u128,
    size: u64,
    virtual_size: u64,
    sha256: String,
}

/// Makes what is not there.
pub(super) fn make(request: &Request<'_>, session: &Session) -> Result<Vec<OutputReport>> {
    let Request { formats, options, folder, .. } = request;
    let (kept, fetched) = (session.cache("raw"), session.cache("fetched"));
    let order = Order {
        image: request.image,
        builder: request.builder,
        size: request.size.bytes(),
        name: &options.name,
        root: &session.root,
        kept: &kept,
        fetched: &fetched,
        registry: request.registry,
        builder_image: request.builder_image,
        upgrades_from: &upgrades_from(request.name, session)?,
        formats,
        output: folder,
    };
    let inputs = builder::inputs(&order)?;
    let template = match formats.contains(&DiskFormat::Ova) {
        true => fs::read(session.root.join(disk::TEMPLATE))
            .with_context(|| format!("reading {}", disk::TEMPLATE))?,
        false => Vec::new(),
    };
    let key = |format: DiskFormat| key(inputs, format, options, &template);

    let mut reports: Vec<Option<OutputReport>> =
        formats.iter().map(|format| request.recorded(*format, key(*format), session)).collect();
    let missing: Vec<DiskFormat> = formats
        .iter()
        .zip(&reports)
        .filter(|(_, report)| report.is_none())
        .map(|(format, _)| *format)
        .collect();
    if missing.is_empty() {
        return Ok(reports.into_iter().flatten().collect());
    }

    let order = Order { formats: &missing, ..order };
    let raw = builder::ensure(&order, &session.progress, |needs, lacks| session.ensure_all(needs, lacks))?;
    let written = disk::write(&raw.path, &missing, options, folder, session)?;
    for report in written.outputs {
        request.record(&report, key(report.format), session)?;
        let place = formats.iter().position(|format| *format == report.format);
        if let Some(slot) = place.and_then(|place| reports.get_mut(place)) {
            *slot = Some(report);
        }
    }
    Ok(reports.into_iter().flatten().collect())
}

/// Where a host that runs the image looks for its next version: the image's registry, or the
/// project's for an image that is in none yet.
fn upgrades_from(name: &ImageName, session: &Session) -> Result<Reference> {
    match name {
        ImageName::Registry(reference) => Ok(reference.clone()),
        ImageName::Layout { tag, .. } => {
            Ok(session.workspace()?.settings.image.tagged(tag.as_deref().unwrap_or("latest")))
        }
    }
}

/// What a disk is made of. What another format alone depends on does not count.
fn key(raw: Digest, format: DiskFormat, options: &Options, template: &[u8]) -> Digest {
    let own = match format {
        DiskFormat::Qcow2 => match options.qcow2_compression {
            Qcow2Compression::Zlib => "zlib".to_owned(),
            Qcow2Compression::Zstd => "zstd".to_owned(),
        },
        DiskFormat::Ova => Digest::of(template).to_string(),
        DiskFormat::Raw | DiskFormat::Ami | DiskFormat::Vmdk | DiskFormat::Vhd | DiskFormat::Gce => {
            String::new()
        }
    };
    let inputs = [PROCESS, &raw.to_string(), format.name(), &options.name.to_string(), &own];
    Digest::of(inputs.join("\n").as_bytes())
}

impl Request<'_> {
    fn path(&self, format: DiskFormat) -> PathBuf {
        self.folder.join(self.options.name.file(format))
    }

    /// The disk that was made of these inputs, if it is there as it was written.
    fn recorded(&self, format: DiskFormat, inputs: Digest, session: &Session) -> Option<OutputReport> {
        let path = self.path(format);
        let text = fs::read(record_path(&path, session)).ok()?;
        let record: Record = serde_json::from_slice(&text).ok()?;
        let (size, modified) = state(&path).ok()?;
        let is_it = record.inputs == inputs && record.size == size && record.modified == modified;
        is_it.then(|| OutputReport {
            format,
            path: session.shown(&path),
            size,
            virtual_size: record.virtual_size,
            sha256: record.sha256,
        })
    }

    fn record(&self, report: &OutputReport, inputs: Digest, session: &Session) -> Result<()> {
        let path = self.path(report.format);
        let (size, modified) = state(&path).with_context(|| format!("looking at {}", path.display()))?;
        let record = Record {
            inputs,
            modified,
            size,
            virtual_size: report.virtual_size,
            sha256: report.sha256.clone(),
        };
        let folder = session.cache("disks");
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        store::replace_file(&record_path(&path, session), &serde_json::to_vec(&record)?)
    }
}

/// Where it is written down what a disk is.
fn record_path(disk: &Path, session: &Session) -> PathBuf {
    let place = std::path::absolute(disk).unwrap_or_else(|_| disk.to_owned());
    let key = Digest::of(place.as_os_str().as_encoded_bytes());
    session.cache("disks").join(format!("{}.json", key.short()))
}

/// A file's size, and when it was written, in nanoseconds since 1970.
fn state(path: &Path) -> std::io::Result<(u64, u128)> {
    let metadata = fs::metadata(path)?;
    let modified = metadata.modified()?.duration_since(UNIX_EPOCH).map_err(std::io::Error::other)?;
    Ok((metadata.len(), modified.as_nanos()))
}

/// What the disks of an image are called when nobody says.
pub(super) fn name(image: &ImageName) -> Result<DiskName> {
    let text = match image {
        ImageName::Layout { tag: Some(tag), .. } => tag.clone(),
        ImageName::Layout { dir, tag: None } => {
            dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
        }
        ImageName::Registry(reference) => {
            let name = reference.repository().rsplit('/').next().unwrap_or_default();
            [Some(name), reference.tag()].into_iter().flatten().collect::<Vec<_>>().join("-")
        }
    };
    text.parse().hint("name the disk with '--name'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_called_as_its_image() {
        for (image, expected) in [
            ("oci:target/dist/oci:debian-13-v1", "debian-13-v1"),
            ("oci:some/folder", "folder"),
            ("ghcr.io/me/os:debian-13-v1", "os-debian-13-v1"),
        ] {
            assert_eq!(name(&image.parse().unwrap()).unwrap().to_string(), expected);
        }
    }
}
