//! Apps over a base: the whole image, in memory, before anything is written or sent.

use std::collections::BTreeMap;
use std::thread;

use anyhow::{Context, Result};

use crate::attest::buildinfo::BuildInfo;
use crate::attest::{self, Build, BuildKind, Inventory, LayerFiles, Named, Program};
use crate::base::ResolvedBase;
use crate::build::Binary;
use crate::layer::{self, Node, content};
use crate::oci::append::{Provenance, index};
use crate::oci::reference::repository;
use crate::oci::{
    Artifact, Compression, Descriptor, Digest, Document, Image, Layer, LayerWriter, Origin, Platform,
    Reference, Timestamp, Verified, append,
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
    /// One an image.
    contents: Vec<Contents>,
    base_name: Option<String>,
    provenance: Provenance,
}

/// What is in an image, beside what its documents say.
struct Contents {
    /// The base's image for the platform.
    base: Digest,
    created: Option<Timestamp>,
    layers: Vec<LayerFiles>,
    programs: Vec<Program>,
}

/// A layer of ours, its bytes, and the files in it.
type Written = (Layer, Verified, LayerFiles);

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
    let (mut images, mut contents) = (Vec::new(), Vec::new());
    for base in &base.images {
        let layers = layers(workspace, binaries, base.platform, settings.compression)?;
        let finished: Vec<Layer> = layers.iter().map(|(layer, ..)| layer.clone()).collect();
        let image = append(base, &finished, settings.created, &settings.provenance)?;
        blobs.insert(image.config.digest(), (image.config_descriptor(), image.config.clone()));
        let programs = binaries.iter().filter(|binary| binary.platform == base.platform).map(program);
        contents.push(Contents {
            base: base.manifest.blob.digest(),
            created: settings.created.or_else(|| base.config.created()),
            layers: layers.iter().map(|(.., files)| files.clone()).collect(),
            programs: programs.collect::<Result<_>>()?,
        });
        blobs.extend(layers.into_iter().map(|(layer, blob, _)| {
            let descriptor = layer.descriptor().clone();
            (descriptor.digest, (descriptor, blob))
        }));
        images.push(image);
    }
    let root = match &images[..] {
        [image] => image.manifest.clone(),
        [..] => index(&images, base.digest, &settings.provenance),
    };
    let root = Document::parse(root, None).context("reading back what was composed")?;
    let base_name = base.reference.as_ref().map(repository);
    let provenance = settings.provenance.clone();
    Ok(Composition { images, root, blobs, contents, base_name, provenance })
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

    /// What is attached to the images in the repository of `target`: to each that hosts boot, so not
    /// to an index over them.
    pub(crate) fn artifacts(&self, target: &Reference) -> Vec<Artifact> {
        let Provenance { version, revision, source, base_name: _ } = &self.provenance;
        let of_image = |(image, contents): (&Image, &Contents)| {
            let subject = image.descriptor();
            let named = Named { repository: Some(repository(target)), digest: subject.digest };
            let base = Named { repository: self.base_name.clone(), digest: contents.base };
            let inventory = Inventory::of_image(
                (&named, &base),
                (version.as_deref(), contents.created),
                &contents.layers,
                &contents.programs,
            );
            let build = Build {
                kind: BuildKind::Compose,
                source: source.as_deref(),
                revision: revision.as_deref(),
                platform: image.platform.to_string(),
            };
            attest::artifacts(&subject, &inventory, &build)
        };
        self.images.iter().zip(&self.contents).flat_map(of_image).collect()
    }
}

fn program(binary: &Binary) -> Result<Program> {
    let info = BuildInfo::read(&binary.content).with_context(|| format!("reading {}", binary.app))?;
    Ok(Program { app: binary.app.to_string(), path: binary.app.program(), info })
}

/// The layers for one platform.
fn layers<'a>(
    workspace: &'a Workspace,
    binaries: &'a [Binary],
    platform: Platform,
    compression: Compression,
) -> Result<Vec<Written>> {
    let trees = content::trees(workspace, |app| {
        let built = |binary: &&Binary| binary.app == app.name && binary.platform == platform;
        let binary = binaries.iter().find(built);
        binary
            .map(|binary| &*binary.content)
            .with_context(|| format!("{} is not built for {platform}", app.name))
    })?;
    thread::scope(|scope| {
        let layer = |(name, tree): (&str, layer::Tree)| -> Result<Written> {
            let files = files(&tree);
            let tree = layer::check(tree).with_context(|| format!("composing the layer `{name}`"))?;
            let mut writer = LayerWriter::new(compression, Vec::new())?;
            tree.write_tar(&mut writer)?;
            let (layer, bytes) = writer.finish(name)?;
            let files = LayerFiles { name: name.to_owned(), descriptor: layer.descriptor().clone(), files };
            Ok((layer, Verified::own(bytes), files))
        };
        let handles: Vec<_> = trees.into_iter().map(|tree| scope.spawn(move || layer(tree))).collect();
        let join = |handle: thread::ScopedJoinHandle<'_, _>| {
            handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        handles.into_iter().map(join).collect()
    })
}

/// The files in a layer, as a host sees them.
fn files(tree: &layer::Tree) -> Vec<(String, Digest)> {
    let file = |(path, node): (&layer::path::LayerPath, &Node)| match node {
        Node::File { content, .. } => Some((path.to_string(), Digest::of(content))),
        Node::Directory | Node::Symlink { .. } => None,
    };
    tree.nodes().filter_map(file).collect()
}
