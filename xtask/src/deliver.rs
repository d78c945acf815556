//! A composed image to where it goes: blobs first, the tag last.

use anyhow::{Context, Result};

use crate::base::ResolvedBase;
use crate::compose::Composition;
use crate::oci::{Descriptor, Digest, Reference};
use crate::progress::Progress;
use crate::registry::{BlobSource, Client, Push, PushBlob, Pushed};
use crate::source::Home;
use crate::store::{Change, Completeness, Store};

/// Whether a layout gets layers that are in a registry only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BaseLayers {
    /// Fetch what is not at hand.
    Fetch,
    /// Take what is at hand; the layout says where the rest is.
    AtHand,
}

/// What came of writing an image into a layout.
pub(crate) struct Stored {
    pub(crate) completeness: Completeness,
    /// Blobs that had to be written.
    pub(crate) written: Vec<Digest>,
}

/// Writes the image into `store` under `tag`.
pub(crate) fn to_layout(
    store: &Store,
    tag: &str,
    composition: &Composition,
    base: &ResolvedBase,
    base_layers: BaseLayers,
    registry: &Client,
    progress: &Progress,
) -> Result<Stored> {
    let mut written = Vec::new();
    let mut note = |descriptor: &Descriptor, change: Change| {
        if change == Change::Written {
            written.push(descriptor.digest);
        }
    };
    let mut missing = false;
    for layer in composition.base_layers() {
        if store.has(layer)? {
            continue;
        }
        match (&base.home, base_layers) {
            (Home::Layout(from), _) if from.has(layer)? => note(layer, store.adopt(from, layer)?),
            (Home::Registry(reference), BaseLayers::Fetch) => {
                let step = progress.bytes(format!("fetching {}", layer.digest.short()), layer.size);
                note(layer, fetch(store, reference, layer, registry, &step)?);
            }
            (Home::Layout(_), _) | (Home::Registry(_), BaseLayers::AtHand) => missing = true,
        }
    }
    for (descriptor, blob) in composition.blobs() {
        note(descriptor, store.put(descriptor, blob)?);
    }
    for (descriptor, blob) in composition.manifests() {
        note(&descriptor, store.put(&descriptor, blob)?);
    }
    let completeness = match (missing, &base.reference) {
        (false, _) => Completeness::Whole,
        (true, Some(reference)) => Completeness::LayersIn(format!("{reference} ({})", base.digest)),
        (true, None) => Completeness::LayersIn(base.digest.to_string()),
    };
    store.tag(tag, &composition.root, &completeness)?;
    Ok(Stored { completeness, written })
}

fn fetch(
    store: &Store,
    reference: &Reference,
    layer: &Descriptor,
    registry: &Client,
    step: &crate::progress::Step,
) -> Result<Change> {
    store
        .put_with(layer, |out| registry.fetch(reference, layer, out, step).map_err(std::io::Error::other))
        .with_context(|| format!("fetching the base's layers from {reference}"))
}

/// Sends the image to `target`.
pub(crate) fn to_registry(
    registry: &Client,
    target: &Reference,
    composition: &Composition,
    base: &ResolvedBase,
) -> Result<Pushed> {
    let ours = composition.blobs().map(|(descriptor, blob)| PushBlob {
        descriptor: descriptor.clone(),
        source: BlobSource::Bytes(blob),
    });
    let of_base = composition.base_layers().into_iter().map(|descriptor| PushBlob {
        descriptor: descriptor.clone(),
        source: match &base.home {
            Home::Layout(store) => BlobSource::File(Box::new(move || {
                let file = store.open_blob(descriptor).map_err(std::io::Error::other)?;
                Ok(Box::new(file) as Box<dyn std::io::Read + Send>)
            })),
            Home::Registry(reference) => BlobSource::Registry(reference.clone()),
        },
    });
    registry.push(&Push {
        target: target.clone(),
        manifests: composition
            .manifests()
            .into_iter()
            .map(|(descriptor, blob)| (descriptor, blob.clone()))
            .collect(),
        blobs: of_base.chain(ours).collect(),
    })
}
