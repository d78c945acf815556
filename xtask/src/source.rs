//! Reads an image from wherever it is, a layout or a registry: manifests and configs, each
//! verified by its digest. Layers stay where they are.

use anyhow::{Context, Result, anyhow, bail};

use crate::diff::NamedLayer;
use crate::hint::WithHint;
use crate::oci::{Config, Descriptor, Document, ImageName, Manifest, Platform, Reference};
use crate::registry::Client;
use crate::store::Store;

/// An image that exists, and where it is.
pub(crate) struct Source {
    pub(crate) home: Home,
    pub(crate) document: Document,
}

/// Where an image's blobs are.
pub(crate) enum Home {
    Layout(Store),
    Registry(Reference),
}

impl Source {
    /// Finds the image that `name` names.
    pub(crate) fn open(name: &ImageName, registry: &Client) -> Result<Source> {
        let (home, document) = match name {
            ImageName::Layout { dir, tag } => {
                let store =
                    Store::open(dir).hint("name a folder that 'cargo xtask build' or skopeo has written")?;
                let document = store.document(tag.as_deref())?;
                (Home::Layout(store), document)
            }
            ImageName::Registry(reference) => {
                let document = registry
                    .document(reference)?
                    .ok_or_else(|| anyhow!("{reference} is not in its registry"))
                    .hint("check the name and the tag; a private repository needs 'podman login'")?;
                (Home::Registry(reference.clone()), document)
            }
        };
        Ok(Source { home, document })
    }

    /// The manifest for `platform`: the image itself, or the one that its index names.
    pub(crate) fn manifest(&self, platform: Platform, registry: &Client) -> Result<Manifest> {
        let index = match &self.document {
            Document::Manifest(manifest) => return Ok(manifest.clone()),
            Document::Index(index) => index,
        };
        let descriptor = index.select(platform).hint("choose others with '--platform'")?;
        let inner = match &self.home {
            Home::Layout(store) => store.document_at(descriptor)?,
            Home::Registry(reference) => registry.document_by_digest(reference, descriptor)?,
        };
        match inner {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(_) => bail!("{} is an index inside an index", descriptor.digest),
        }
    }

    /// The layers for `platform`, with the names of those that are ours.
    pub(crate) fn layers(&self, platform: Platform, registry: &Client) -> Result<Vec<NamedLayer>> {
        let manifest = self.manifest(platform, registry)?;
        let config = self.config(&manifest.config, registry)?;
        if config.platform() != Ok(platform) {
            return Err(anyhow!("it is for {}, not for {platform}", config.shown_platform()))
                .hint("choose another with '--platform'");
        }
        let names = config.layer_names(manifest.layers.len());
        Ok(names
            .into_iter()
            .zip(manifest.layers)
            .map(|(name, descriptor)| NamedLayer { name, descriptor })
            .collect())
    }

    /// The config that `descriptor` names.
    pub(crate) fn config(&self, descriptor: &Descriptor, registry: &Client) -> Result<Config> {
        match &self.home {
            Home::Layout(store) => store.config(descriptor),
            Home::Registry(reference) => registry.config(reference, descriptor),
        }
        .context("reading the config")
    }
}
