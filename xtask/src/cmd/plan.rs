//! What `dist` would do, for `--dry-run`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;

use super::build::Made;
use crate::diff::{Delta, NamedLayer, delta};
use crate::oci::reference::with_tag;
use crate::oci::{Digest, Platform};
use crate::progress::human_bytes;
use crate::registry::Client;
use crate::release;
use crate::source::{Home, Source};
use crate::store::Store;

/// What `dist` would do, and what it would cost.
#[derive(Debug, Serialize)]
pub(super) struct Plan {
    reference: String,
    digest: Digest,
    /// What a host runs before, if anything: what the tag names now, or the release before it.
    previous: Option<PlannedPrevious>,
    layers: Vec<PlannedLayer>,
    /// Where it would be pushed.
    push: Option<String>,
    /// The tags of the disks that would be pushed with it, where they can be made.
    pub(super) disks: Vec<String>,
    /// The key that would sign all of it.
    pub(super) sign_key: Option<PathBuf>,
    /// Bytes that a host on the previous image downloads; on none, all of them.
    host_download: u64,
    /// Bytes of layers and configs that are ours.
    ours: u64,
}

#[derive(Debug, Serialize)]
struct PlannedPrevious {
    name: String,
    digest: Digest,
}

#[derive(Debug, Serialize)]
struct PlannedLayer {
    name: String,
    digest: Digest,
    size: u64,
    /// Whether the previous image has it.
    reused: bool,
}

/// What a host runs before it gets the new image.
pub(super) type Previous = Option<PreviousImage>;

pub(super) struct PreviousImage {
    name: String,
    digest: Digest,
    /// For one platform.
    layers: Vec<NamedLayer>,
}

impl Plan {
    pub(super) fn new(made: &Made, previous: Previous, push: bool) -> Plan {
        let layers: Vec<NamedLayer> = match made.composition.images.first() {
            Some(image) => image
                .layers
                .iter()
                .map(|layer| NamedLayer {
                    name: layer.origin.name().map(str::to_owned),
                    descriptor: layer.descriptor.clone(),
                })
                .collect(),
            None => Vec::new(),
        };
        let (previous, old) = match previous {
            Some(PreviousImage { name, digest, layers }) => (Some(PlannedPrevious { name, digest }), layers),
            None => (None, Vec::new()),
        };
        let delta: Delta = delta(&old, &layers);
        let is_kept = |layer: &NamedLayer| delta.kept.contains(layer);
        Plan {
            reference: made.target.to_string(),
            digest: made.composition.root.blob().digest(),
            previous,
            push: push.then(|| made.target.to_string()),
            disks: Vec::new(),
            sign_key: None,
            host_download: delta.download(),
            ours: made.composition.blobs().map(|(descriptor, _)| descriptor.size).sum(),
            layers: layers
                .iter()
                .map(|layer| PlannedLayer {
                    name: layer.name.clone().unwrap_or_else(|| "base".to_owned()),
                    digest: layer.descriptor.digest,
                    size: layer.descriptor.size,
                    reused: is_kept(layer),
                })
                .collect(),
        }
    }
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "image {} {}", self.reference, self.digest)?;
        for layer in &self.layers {
            let state = if layer.reused { "unchanged" } else { "new" };
            writeln!(
                f,
                "  {:<12} {:>9} {} {state}",
                layer.name,
                human_bytes(layer.size),
                layer.digest.short()
            )?;
        }
        match (&self.push, &self.previous) {
            (Some(target), Some(previous)) if previous.name == *target && previous.digest == self.digest => {
                writeln!(f, "push: nothing, {target} is this")?
            }
            (Some(target), _) => {
                writeln!(f, "push: to {target}, at most {} of ours", human_bytes(self.ours))?
            }
            (None, _) => writeln!(f, "push: no ('--push' sends it)")?,
        }
        if !self.disks.is_empty() {
            writeln!(f, "disks pushed with it, where they can be made: {}", self.disks.join(" "))?;
        }
        if let Some(key) = &self.sign_key {
            writeln!(f, "signed with {}", key.display())?;
        }
        let whom = self.previous.as_ref().map_or("no image yet", |previous| &previous.name);
        write!(f, "a host on {whom} downloads {}", human_bytes(self.host_download))
    }
}

/// What the tag names, or else the release before it.
pub(super) fn previous_in_registry(made: &Made, registry: &Client) -> Result<Previous> {
    let mut reference = made.target.clone();
    let mut document = registry.document(&reference)?;
    if document.is_none() {
        let tags = registry.tags(&reference)?;
        let Some(before) = release::before(&made.tag, &made.distro, &tags) else { return Ok(None) };
        reference = with_tag(&reference, before);
        document = registry.document(&reference)?;
    }
    let Some(document) = document else { return Ok(None) };
    let name = reference.to_string();
    previous(name, &Source { home: Home::Registry(reference), document }, made, registry).map(Some)
}

pub(super) fn previous_in_layout(made: &Made, layout: &Path, registry: &Client) -> Result<Previous> {
    if !layout.exists() {
        return Ok(None);
    }
    let store = Store::open(layout)?;
    if !store.tags()?.contains(&made.tag) {
        return Ok(None);
    }
    let document = store.document(Some(&made.tag))?;
    previous(made.tag.clone(), &Source { home: Home::Layout(store), document }, made, registry).map(Some)
}

fn previous(name: String, source: &Source, made: &Made, registry: &Client) -> Result<PreviousImage> {
    let platform = made.composition.images.first().map_or(Platform::host(), |image| image.platform);
    let digest = source.document.blob().digest();
    Ok(PreviousImage { name, digest, layers: source.layers(platform, registry)? })
}
