//! An image whose layers are all at hand, for this machine's platform.

use std::fs::File;
use std::io::{self, Read};

use anyhow::{Context, Result, anyhow};
use serde_json::{Map, Value};

use crate::hint::{self, WithHint};
use crate::oci::base::label;
use crate::oci::{DOCKER_LAYER_GZIP, Digest, Document, ImageName, Manifest, MediaType, Platform, Timestamp};
use crate::progress::Progress;
use crate::registry::Client;
use crate::source::{Home, Source};
use crate::store::Store;

/// The version that a system says it has. Source: OCI image specification, annotations.md.
const VERSION: &str = "org.opencontainers.image.version";

pub(crate) struct LocalImage {
    store: Store,
    pub(crate) manifest: Manifest,
    config: Map<String, Value>,
    /// What a host tells systems by; the manifest has annotations besides, which change nothing.
    pub(crate) config_digest: Digest,
    pub(crate) platform: Platform,
}

impl LocalImage {
    /// Reads the image that `name` names. From a registry its layers are fetched into the layout
    /// that `fetched` makes.
    pub(crate) fn open(
        name: &ImageName,
        fetched: impl FnOnce() -> Result<Store>,
        registry: &Client,
        progress: &Progress,
    ) -> Result<LocalImage> {
        let reading = || format!("reading {name}");
        let source = Source::open(name, registry).with_context(reading)?;
        let platform = Platform::host();
        let manifest = source.manifest(platform, registry).with_context(reading)?;
        let config_blob = source.config(&manifest.config, registry).with_context(reading)?;
        let config: Map<String, Value> = serde_json::from_slice(config_blob.bytes())
            .context("reading the config")
            .with_context(reading)?;
        let text = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default();
        if Platform::from_oci(text("os"), text("architecture")) != Some(platform) {
            return Err(anyhow!("it is for {}/{}", text("os"), text("architecture")))
                .hint(format!("its programs make the disk, so only a machine of its own kind can; this one is {platform}"))
                .with_context(reading);
        }
        let store = match source.home {
            Home::Layout(store) => store,
            Home::Registry(reference) => {
                let store = fetched()?;
                for layer in &manifest.layers {
                    let step = progress.bytes(format!("fetching {}", layer.digest.short()), layer.size);
                    store
                        .put_with(layer, |out| registry.fetch(&reference, layer, out, &step))
                        .with_context(|| format!("fetching the layers of {reference}"))?;
                }
                store.put(&manifest.config, &config_blob)?;
                let document = Document::Manifest(manifest.clone());
                store.put(&document.descriptor(), document.blob())?;
                // The one that was fetched last is kept, for the next disk of it.
                store.tag("fetched", &document, &crate::store::Completeness::Whole)?;
                store.keep_only("fetched")?;
                store.collect_garbage()?;
                store
            }
        };
        Ok(LocalImage { store, config_digest: manifest.config.digest, manifest, config, platform })
    }

    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        label(&self.config, name)
    }

    pub(super) fn version(&self) -> &str {
        self.label(VERSION).unwrap_or("0")
    }

    /// The time that it holds.
    pub(super) fn created(&self) -> Option<Timestamp> {
        self.config.get("created").and_then(Value::as_str).and_then(Timestamp::from_rfc_3339)
    }

    pub(super) fn layer_count(&self) -> usize {
        self.manifest.layers.len()
    }

    /// Each layer's digest in hex, a colon, and its size out of `sizes`.
    pub(super) fn names(&self, sizes: &[u64]) -> String {
        let layers = self.manifest.layers.iter().zip(sizes);
        let names = layers.map(|(layer, size)| format!("{}:{size}", layer.digest.hex()));
        names.collect::<Vec<_>>().join(" ")
    }

    /// The config or a layer, as it was packed.
    pub(crate) fn blob(&self, digest: Digest) -> Result<Option<File>> {
        let Manifest { config, layers, .. } = &self.manifest;
        let found = layers.iter().chain([config]).find(|blob| blob.digest == digest);
        found.map(|blob| self.store.open_blob(blob)).transpose()
    }

    /// Sees to it that all layers are there and undamaged.
    pub(crate) fn check(&self) -> Result<()> {
        for layer in &self.manifest.layers {
            // Says where it is, if it is not there.
            self.store.open_blob(layer)?;
            if !self.store.holds(layer)? {
                return Err(anyhow!("the layer {} is damaged", layer.digest))
                    .hint("remove the layout, and make the image again");
            }
        }
        Ok(())
    }

    /// The tar of a layer.
    pub(super) fn layer(&self, number: usize) -> io::Result<Box<dyn Read + Send>> {
        let layer = self.manifest.layers.get(number).ok_or(io::ErrorKind::NotFound)?;
        let file = self.store.open_blob(layer).map_err(hint::into_io)?;
        match &layer.media_type {
            MediaType::ImageLayer => Ok(Box::new(file)),
            MediaType::ImageLayerZstd => Ok(Box::new(zstd::Decoder::new(file)?)),
            kind if *kind == MediaType::ImageLayerGzip || kind.as_ref() == DOCKER_LAYER_GZIP => {
                let file = io::BufReader::with_capacity(1 << 17, file);
                Ok(Box::new(io::BufReader::with_capacity(1 << 17, flate2::bufread::GzDecoder::new(file))))
            }
            kind => Err(io::Error::other(format!("{} is of type {kind}", layer.digest))),
        }
    }
}
