//! A disk file to where its image goes, in one pass and without a copy of it anywhere else.

use std::io;
use std::path::Path;

use anyhow::{Context, Result};

use super::content::DiskFile;
use super::error::PackError;
use super::image::{Facts, FileName, Origin, PackedDisk, image};
use super::layer::{PackedLayer, Packing, Recipe};
use super::tar::FOLDER;
use crate::attest::{self, Build, BuildKind, Inventory, Named};
use crate::disk::DiskFormat;
use crate::hint::hinted;
use crate::oci::reference::repository;
use crate::oci::{Artifact, Config, Digest, Document, MediaType, Reference, Verified};
use crate::progress::{Progress, Step};
use crate::registry::{BlobSource, Client, Push, PushBlob, Pushed, Until};
use crate::store::{Completeness, Store};

/// A disk that is to be packed.
pub(crate) struct Order {
    recipe: Recipe,
    file: DiskFile,
    name: FileName,
    format: DiskFormat,
    virtual_size: u64,
    /// Of the file, where whoever wrote it has said so.
    sha256: Option<Digest>,
    origin: Origin,
}

/// What is said of a disk that is to be packed.
pub(crate) struct Description {
    pub(crate) name: FileName,
    pub(crate) format: DiskFormat,
    pub(crate) virtual_size: u64,
    pub(crate) sha256: Option<Digest>,
    pub(crate) origin: Origin,
}

/// A packed disk, and what came of bringing it to where it goes.
#[derive(Debug)]
pub(crate) struct Delivered<T> {
    pub(crate) disk: PackedDisk,
    /// The image's manifest.
    pub(crate) document: Document,
    pub(crate) outcome: T,
}

/// An image that was made, and is not where it goes yet.
struct Made {
    disk: PackedDisk,
    config: Config,
    document: Document,
}

impl Order {
    /// Refuses, before anything slow, what cannot be packed.
    pub(crate) fn new(file: DiskFile, packing: Packing, description: Description) -> Result<Order> {
        let Description { name, format, virtual_size, sha256, origin } = description;
        let recipe =
            Recipe::new(file.clone(), name.clone(), packing).map_err(|error| explained(error, &file.path))?;
        Ok(Order { recipe, file, name, format, virtual_size, sha256, origin })
    }

    /// Writes the image into `store` under `tag`; false where it was there.
    pub(crate) fn to_layout(&self, store: &Store, tag: &str, progress: &Progress) -> Result<Delivered<bool>> {
        // What is damaged is made again. What a layout says of a layer is no proof of what is in it:
        // the disk is read for that.
        let existing = store.document(Some(tag)).ok();
        if let Some(document) = existing
            && let Some(disk) = self.packed_before(&document, store)
            && store.holds(&disk.layer)?
        {
            let step = progress.bytes(format!("hashing {}", self.name), self.recipe.length());
            let layer = self.pass(&mut io::sink(), &step)?;
            if (&layer.descriptor, layer.diff_id) == (&disk.layer, disk.diff_id) {
                return Ok(Delivered { disk, document, outcome: false });
            }
        }
        let step = progress.bytes(format!("packing {}", self.name), self.recipe.length());
        let layer = store.put_new(|out| {
            let layer = self.pass(out, &step)?;
            Ok((layer.descriptor.clone(), layer))
        })?;
        let Made { disk, config, document } = self.made(&layer)?;
        store.put(&config.blob.descriptor(MediaType::ImageConfig), &config.blob)?;
        store.put(&document.descriptor(), document.blob())?;
        store.tag(tag, &document, &Completeness::Whole)?;
        Ok(Delivered { disk, document, outcome: true })
    }

    /// Sends the image to `target`, as far as `until`. Nothing is written to disk.
    ///
    /// The layer is made twice: once to learn its digest, once on its way. A PATCH without a
    /// digest would need one pass, and cost more than it saves: without a digest nothing tells that
    /// the registry has the layer, so each run would send gigabytes again; an upload that breaks off
    /// could not be taken up by another run, which cannot know that it is the same layer's; and a file that changes meanwhile would be found out at the
    /// end of the upload, not before it. The first pass runs at several hundred MB a second. What a
    /// registry says of an image that is there cannot stand in for it: its layer may be another's.
    pub(crate) fn to_registry(
        &self,
        (target, until): (&Reference, Until),
        registry: &Client,
        progress: &Progress,
    ) -> Result<Delivered<Pushed>> {
        let step = progress.bytes(format!("hashing {}", self.name), self.recipe.length());
        let layer = self.pass(&mut io::sink(), &step)?;
        let made = self.made(&layer)?;
        let source = BlobSource::File(Box::new(|| self.recipe.open()));
        let pushed = push(&made, source, (target, until), registry)
            .with_context(|| format!("sending {}", self.file.path.display()))?;
        Ok(Delivered { disk: made.disk, document: made.document, outcome: pushed })
    }

    fn pass(&self, out: &mut dyn io::Write, step: &Step) -> Result<PackedLayer> {
        let layer = self.recipe.write(out, self.sha256, &|count| step.advance(count));
        layer.map_err(|error| explained(error, &self.file.path))
    }

    /// The packed disk that `document` is, if it is what comes of this order. Without knowing the
    /// file's digest, that cannot be told.
    fn packed_before(&self, document: &Document, store: &Store) -> Option<PackedDisk> {
        let Document::Manifest(manifest) = document else { return None };
        let facts = self.facts(self.sha256?);
        let config = store.config(&manifest.config).ok()?;
        let disk = PackedDisk::read(manifest, &config).ok()?;
        let is_it = disk.packing == self.recipe.packing() && disk.is_image_of(&facts, document);
        is_it.then_some(disk)
    }

    fn facts(&self, sha256: Digest) -> Facts {
        Facts {
            format: self.format,
            name: self.name.clone(),
            size: self.file.size,
            virtual_size: self.virtual_size,
            sha256,
            origin: self.origin.clone(),
        }
    }

    fn made(&self, layer: &PackedLayer) -> Result<Made> {
        let (manifest, config) = image(&self.facts(layer.sha256), layer);
        read_back(manifest, Config::parse(config)?)
    }
}

/// Sends a packed disk that is in a layout, under its digest. It gets no tag.
pub(crate) fn from_layout(store: &Store, tag: &str, target: &Reference, registry: &Client) -> Result<Pushed> {
    let document = store.document(Some(tag))?;
    let Document::Manifest(manifest) = &document else { anyhow::bail!("{tag} is an index") };
    let config = store.config(&manifest.config)?;
    let made = read_back(document.blob().clone(), config)?;
    let source = crate::deliver::layout_source(store, &made.disk.layer)?;
    push(&made, source, (target, Until::Stored), registry)
}

/// What was made, as whoever pulls it will read it.
fn read_back(manifest: Verified, config: Config) -> Result<Made> {
    let document = Document::parse(manifest, Some(MediaType::ImageManifest.as_ref()))
        .context("reading back what was packed")?;
    let Document::Manifest(parsed) = &document else { anyhow::bail!("what was packed is an index") };
    let disk = PackedDisk::read(parsed, &config).context("reading back what was packed")?;
    Ok(Made { disk, config, document })
}

fn push(
    made: &Made,
    layer: BlobSource<'_>,
    (target, until): (&Reference, Until),
    registry: &Client,
) -> Result<Pushed> {
    let Made { disk, config, document } = made;
    registry.push(&Push {
        target: target.clone(),
        until,
        manifests: vec![(document.descriptor(), document.blob().clone())],
        blobs: vec![
            PushBlob {
                descriptor: config.blob.descriptor(MediaType::ImageConfig),
                source: BlobSource::Bytes(&config.blob),
            },
            PushBlob { descriptor: disk.layer.clone(), source: layer },
        ],
        artifacts: artifacts(made, target),
    })
}

/// What is attached to a packed disk in the repository of `target`.
fn artifacts(made: &Made, target: &Reference) -> Vec<Artifact> {
    let facts = &made.disk.facts;
    let Origin { platform, created, version, source, revision, image, distro: _ } = &facts.origin;
    let subject = made.document.descriptor();
    let named = Named { repository: Some(repository(target)), digest: subject.digest };
    let file = attest::DiskFile { path: format!("/{FOLDER}{}", facts.name), digest: facts.sha256 };
    let system = image.as_ref().map(|image| {
        let reference: Option<Reference> = image.name.as_ref().and_then(|name| name.parse().ok());
        Named { repository: reference.as_ref().map(repository), digest: image.digest }
    });
    let times = (version.as_deref(), *created);
    let inventory = Inventory::of_disk(&named, times, &file, system.as_ref());
    let build = Build {
        kind: BuildKind::Pack,
        source: source.as_deref(),
        revision: revision.as_deref(),
        platform: platform.to_string(),
    };
    attest::artifacts(&subject, &inventory, &build)
}

/// An error with the file that it is about, and what to do.
pub(crate) fn explained(error: PackError, path: &Path) -> anyhow::Error {
    let context = format!("packing {}", path.display());
    match error.hint() {
        Some(hint) => hinted(error, hint).context(context),
        None => anyhow::Error::from(error).context(context),
    }
}
