//! Apps over a base: the whole image, in memory, before anything is written or sent.

use std::collections::BTreeMap;
use std::thread;

use anyhow::{Context, Result};

use crate::base::ResolvedBase;
use crate::build::Binary;
use crate::layer::{self, content};
use crate::oci::append::{Provenance, index};
use crate::oci::{
    Compression, Descriptor, Digest, Document, Image, Layer, LayerWriter, MediaType, Origin, Platform,
    Timestamp, Verified, append,
};
use crate::workspace::Workspace;

/// An image for one platform or several, with every blob that is not the base's.
pub(crate) struct Composition {
    /// One a platform, in the order in which they were asked for.
    pub(crate) images: Vec<Image>,
    /// What a tag will name: the only image's manifest, or an index over all.
    pub(crate) root: Document,
    /// Our layers and the configs.
    blobs: BTreeMap<Digest, (Descriptor, Verified)>,
}

/// What is decided before composing.
pub(crate) struct Settings {
    pub(crate) compression: Compression,
    pub(crate) created: Option<Timestamp>,
    pub(crate) provenance: Provenance,
}

/// Puts the apps' layers, and the OS's, on top of `base` for each of its platforms.
pub(crate) fn compose(
    workspace: &Workspace,
    binaries: &[Binary],
    base: &ResolvedBase,
    settings: &Settings,
) -> Result<Composition> {
    let mut blobs = BTreeMap::new();
    let mut images = Vec::new();
    for base in &base.images {
        let layers = layers(workspace, binaries, base.platform, settings.compression)?;
        let finished: Vec<Layer> = layers.iter().map(|(layer, _)| layer.clone()).collect();
        let image = append(base, &finished, settings.created, &settings.provenance)?;
        blobs.insert(image.config.digest(), (image.config_descriptor(), image.config.clone()));
        blobs.extend(layers.into_iter().map(|(layer, blob)| {
            let descriptor = layer.descriptor().clone();
            (descriptor.digest, (descriptor, blob))
        }));
        images.push(image);
    }
    let (root, media_type) = match &images[..] {
        [image] => (image.manifest.clone(), MediaType::ImageManifest),
        _ => (index(&images, base.digest, &settings.provenance), MediaType::ImageIndex),
    };
    let root = Document::parse(root, Some(media_type.as_ref())).context("reading back what was composed")?;
    Ok(Composition { images, root, blobs })
}

impl Composition {
    /// Our layers and the configs, each once.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = (&Descriptor, &Verified)> {
        self.blobs.values().map(|(descriptor, blob)| (descriptor, blob))
    }

    /// Layers of the base, each once.
    pub(crate) fn base_layers(&self) -> Vec<&Descriptor> {
        let layers = self.images.iter().flat_map(|image| &image.layers);
        let of_base = layers.filter(|layer| layer.origin == Origin::Base).map(|layer| &layer.descriptor);
        of_base
            .map(|descriptor| (descriptor.digest, descriptor))
            .collect::<BTreeMap<_, _>>()
            .into_values()
            .collect()
    }

    /// The manifests, children before the index over them.
    pub(crate) fn manifests(&self) -> Vec<(Descriptor, &Verified)> {
        let mut manifests: Vec<_> =
            self.images.iter().map(|image| (image.descriptor(), &image.manifest)).collect();
        if let Document::Index(index) = &self.root {
            manifests.push((self.root.descriptor(), &index.blob));
        }
        manifests
    }
}

/// The layers for one platform.
fn layers<'a>(
    workspace: &'a Workspace,
    binaries: &'a [Binary],
    platform: Platform,
    compression: Compression,
) -> Result<Vec<(Layer, Verified)>> {
    let trees = content::trees(workspace, |app| {
        let built = |binary: &&Binary| binary.app == app.name && binary.platform == platform;
        let binary = binaries.iter().find(built);
        binary
            .map(|binary| &*binary.content)
            .with_context(|| format!("{} is not built for {platform}", app.name))
    })?;
    thread::scope(|scope| {
        let layer = |(name, tree): (&str, layer::Tree)| -> Result<(Layer, Verified)> {
            let tree = layer::check(tree).with_context(|| format!("composing the layer `{name}`"))?;
            let mut writer = LayerWriter::new(compression, Vec::new())?;
            tree.write_tar(&mut writer)?;
            let (layer, bytes) = writer.finish(name)?;
            Ok((layer, Verified::own(bytes)))
        };
        let handles: Vec<_> = trees.into_iter().map(|tree| scope.spawn(move || layer(tree))).collect();
        let join = |handle: thread::ScopedJoinHandle<'_, _>| {
            handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        handles.into_iter().map(join).collect()
    })
}
