//! A composed image to where it goes: blobs first, the tag last.

use std::io::Read;

use anyhow::{Context, Result};

use crate::base::ResolvedBase;
use crate::compose::Composition;
use crate::hint;
use crate::oci::{Descriptor, Digest, Reference};
use crate::progress::Progress;
use crate::registry::{BlobSource, Client, Push, PushBlob, Pushed, Until};
use crate::source::Home;
use crate::store::{Change, Completeness, Store};

/// What is delivered, and who carries it.
#[derive(Clone, Copy)]
pub(crate) struct Delivery<'a> {
    pub(crate) composition: &'a Composition,
    pub(crate) base: &'a ResolvedBase,
    pub(crate) registry: &'a Client,
    pub(crate) progress: &'a Progress,
}

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

impl Delivery<'_> {
    /// Writes the image into `store` under `tag`.
    pub(crate) fn to_layout(self, store: &Store, tag: &str, base_layers: BaseLayers) -> Result<Stored> {
        let Delivery { composition, base, .. } = self;
        let mut written = Vec::new();
        let mut note = |descriptor: &Descriptor, change: Change| {
            if change == Change::Written {
                written.push(descriptor.digest);
            }
        };
        let mut completeness = Completeness::Whole;
        for layer in composition.base_layers() {
            if store.holds(layer)? {
                continue;
            }
            match (&base.home, base_layers) {
                (Home::Layout(from), BaseLayers::Fetch) => match from.layers_reference(layer)? {
                    Some(reference) if !from.has(layer)? => {
                        note(layer, self.fetch(store, &reference, layer)?);
                    }
                    Some(_) | None => note(layer, store.adopt(from, layer)?),
                },
                (Home::Layout(from), BaseLayers::AtHand) if from.has(layer)? => {
                    note(layer, store.adopt(from, layer)?);
                }
                (Home::Layout(from), BaseLayers::AtHand) => {
                    let place = from.layers_in(layer)?.unwrap_or_else(|| base.digest.to_string());
                    completeness = Completeness::LayersIn(place);
                }
                (Home::Registry(reference), BaseLayers::Fetch) => {
                    note(layer, self.fetch(store, reference, layer)?);
                }
                (Home::Registry(reference), BaseLayers::AtHand) => {
                    completeness = Completeness::LayersIn(format!("{reference} ({})", base.digest));
                }
            }
        }
        for (descriptor, blob) in composition.blobs() {
            note(descriptor, store.put(descriptor, blob)?);
        }
        for (descriptor, blob) in composition.manifests() {
            note(&descriptor, store.put(&descriptor, blob)?);
        }
        store.tag(tag, &composition.root, &completeness)?;
        Ok(Stored { completeness, written })
    }

    fn fetch(self, store: &Store, reference: &Reference, layer: &Descriptor) -> Result<Change> {
        let step = self.progress.bytes(format!("fetching {}", layer.digest.short()), layer.size);
        store
            .put_with(layer, |out| self.registry.fetch(reference, layer, out, &step))
            .with_context(|| format!("fetching the base's layers from {reference}"))
    }

    /// Sends the image to `target`, with what is attached to it.
    pub(crate) fn to_registry(self, target: &Reference, until: Until) -> Result<Pushed> {
        let Delivery { composition, base, .. } = self;
        let ours = composition.blobs().map(|(descriptor, blob)| PushBlob {
            descriptor: descriptor.clone(),
            source: BlobSource::Bytes(blob),
        });
        let of_base = composition.base_layers().into_iter().map(|descriptor| {
            let source = match &base.home {
                Home::Layout(store) => layout_source(store, descriptor)?,
                Home::Registry(reference) => BlobSource::Registry(reference.clone()),
            };
            Ok(PushBlob { descriptor: descriptor.clone(), source })
        });
        let of_base = of_base.collect::<Result<Vec<_>>>()?;
        self.registry.push(&Push {
            target: target.clone(),
            until,
            manifests: composition
                .manifests()
                .into_iter()
                .map(|(descriptor, blob)| (descriptor, blob.clone()))
                .collect(),
            blobs: of_base.into_iter().chain(ours).collect(),
            artifacts: composition.artifacts(target),
        })
    }
}

/// A blob of an image in a layout: from there, or from the registry that the layout says has it.
pub(crate) fn layout_source<'a>(store: &'a Store, descriptor: &'a Descriptor) -> Result<BlobSource<'a>> {
    if !store.has(descriptor)?
        && let Some(reference) = store.layers_reference(descriptor)?
    {
        return Ok(BlobSource::Registry(reference));
    }
    Ok(BlobSource::File(Box::new(move || {
        let file = store.open_blob(descriptor).map_err(hint::into_io)?;
        Ok(Box::new(file) as Box<dyn Read + Send>)
    })))
}
