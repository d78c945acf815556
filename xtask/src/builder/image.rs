//! An image that a disk is made of, for this machine's platform. Its layers stay where they are until
//! they are fetched.

use std::fs::File;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow};

use crate::hint::{WithHint, hinted};
use crate::oci::annotation::VERSION;
use crate::oci::{Config, Descriptor, DiffId, Digest, Document, ImageName, Manifest, Platform, Timestamp};
use crate::progress::Progress;
use crate::registry::Client;
use crate::release::UNVERSIONED;
use crate::source::{Home, Source};
use crate::store::{Completeness, Store};

/// What contradicts itself was not made so.
pub(super) const DISTRUST: &str = "it is damaged or hostile: do not use it; if it is yours, make it again";

pub(crate) struct LocalImage {
    pub(super) name: ImageName,
    home: Home,
    /// The layout that has the layers of an image in a registry, once they are fetched.
    fetched: OnceLock<Store>,
    pub(crate) manifest: Manifest,
    config: Config,
    /// One for each layer.
    pub(super) diff_ids: Vec<DiffId>,
    /// What a host tells systems by; the manifest has annotations besides, which change nothing.
    pub(crate) config_digest: Digest,
    pub(crate) platform: Platform,
}

impl LocalImage {
    /// Reads what `name` names, without its layers.
    pub(crate) fn open(name: &ImageName, registry: &Client) -> Result<LocalImage> {
        let reading = || format!("reading {name}");
        let source = Source::open(name, registry).with_context(reading)?;
        let platform = Platform::host();
        let manifest = source.manifest(platform, registry).with_context(reading)?;
        let config = source.config(&manifest.config, registry).with_context(reading)?;
        if config.platform() != Ok(platform) {
            return Err(anyhow!("it is for {}", config.shown_platform()))
                .hint(format!("its programs make the disk, so only a machine of its own kind can; this one is {platform}"))
                .with_context(reading);
        }
        let diff_ids = config.diff_ids(manifest.layers.len()).hint(DISTRUST).with_context(reading)?;
        Ok(LocalImage {
            name: name.clone(),
            home: source.home,
            fetched: OnceLock::new(),
            config_digest: manifest.config.digest,
            manifest,
            config,
            diff_ids,
            platform,
        })
    }

    /// Fetches the layers of an image in a registry into the layout that `fetched` makes, once.
    pub(crate) fn fetch(
        &self,
        fetched: impl FnOnce() -> Result<Store>,
        registry: &Client,
        progress: &Progress,
    ) -> Result<()> {
        let Home::Registry(reference) = &self.home else { return Ok(()) };
        if self.fetched.get().is_some() {
            return Ok(());
        }
        let store = fetched()?;
        for layer in &self.manifest.layers {
            let step = progress.bytes(format!("fetching {}", layer.digest.short()), layer.size);
            store
                .put_with(layer, |out| registry.fetch(reference, layer, out, &step))
                .with_context(|| format!("fetching the layers of {reference}"))?;
        }
        store.put(&self.manifest.config, &self.config.blob)?;
        let document = Document::Manifest(self.manifest.clone());
        store.put(&document.descriptor(), document.blob())?;
        // The one that was fetched last is kept, for the next disk of it.
        store.tag("fetched", &document, &Completeness::Whole)?;
        store.keep_only("fetched")?;
        store.collect_garbage()?;
        self.fetched.set(store).map_err(|_| anyhow!("the layers of {reference} were fetched twice"))
    }

    /// Where it is.
    pub(super) fn home(&self) -> &Home {
        &self.home
    }

    /// The layout that has its layers.
    fn store(&self) -> Result<&Store> {
        match &self.home {
            Home::Layout(store) => Ok(store),
            Home::Registry(reference) => {
                self.fetched.get().ok_or_else(|| anyhow!("the layers of {reference} are not fetched"))
            }
        }
    }

    /// The image that has the layers which its layout lacks, where one says so; nothing where all
    /// of them are there, or in the image's registry.
    pub(super) fn layers_elsewhere(&self) -> Result<Option<String>> {
        let Home::Layout(store) = &self.home else { return Ok(None) };
        for layer in &self.manifest.layers {
            if store.has_part(layer)? {
                return Err(damaged(layer));
            }
            if !store.has(layer)? {
                return Ok(Some(store.layers_in(layer)?.unwrap_or_else(|| "another place".to_owned())));
            }
        }
        Ok(None)
    }

    /// What its layers take as they are transferred, in bytes.
    pub(super) fn packed_size(&self) -> u64 {
        self.manifest.layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add)
    }

    /// Whether a host that runs bootc boots it.
    pub(super) fn is_bootc(&self) -> bool {
        self.config.is_bootc()
    }

    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        self.config.label(name)
    }

    pub(super) fn version(&self) -> &str {
        self.label(VERSION).unwrap_or(UNVERSIONED)
    }

    /// The time that it holds.
    pub(super) fn created(&self) -> Option<Timestamp> {
        self.config.created()
    }

    /// The config or a layer, as it was packed.
    pub(crate) fn blob(&self, digest: Digest) -> Result<Option<File>> {
        let Manifest { config, layers, .. } = &self.manifest;
        let found = layers.iter().chain([config]).find(|blob| blob.digest == digest);
        found.map(|blob| self.store()?.open_blob(blob)).transpose()
    }

    /// Sees to it that all layers are there and undamaged.
    pub(crate) fn check(&self) -> Result<()> {
        let store = self.store()?;
        for layer in &self.manifest.layers {
            // Says where it is, if it is not there.
            store.open_blob(layer)?;
            if !store.holds(layer)? {
                return Err(damaged(layer));
            }
        }
        Ok(())
    }

    /// A layer, as it was packed; an error that says where it is, if it is not there.
    pub(super) fn layer(&self, layer: &Descriptor) -> Result<File> {
        self.store()?.open_blob(layer)
    }
}

pub(super) fn damaged(layer: &Descriptor) -> anyhow::Error {
    hinted(anyhow!("the layer {} is damaged", layer.digest), "remove the layout, and make the image again")
}
