//! `export`: a release, with all that belongs to it, as one file.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use serde_json::Value;

use super::{Session, disk};
use crate::archive::Writer;
use crate::flags::Export;
use crate::hint::WithHint;
use crate::oci::annotation::IMAGE_DIGEST;
use crate::oci::digest::DigestWriter;
use crate::oci::graph::{MAX_DOCUMENTS, Node, nodes};
use crate::oci::reference::with_tag;
use crate::oci::{Descriptor, Digest, Document, ImageName};
use crate::progress::{Step, counted, human_bytes};
use crate::registry::{Client, list_document, list_tag};
use crate::release::{Kind, Tag};
use crate::source::{Home, Source};
use crate::unfinished::Replace;

/// What is written at a time, in bytes.
const BUFFER: usize = 256 << 10;

/// The archive. Keys may be added, none renamed.
#[derive(Debug, Serialize)]
struct Report {
    path: PathBuf,
    size: u64,
    /// Of the file, in hex.
    sha256: String,
    images: Vec<ImageReport>,
}

#[derive(Debug, Serialize)]
pub(super) struct ImageReport {
    pub(super) tag: String,
    pub(super) digest: Digest,
}

/// A release, found and not fetched.
struct Release<'a> {
    home: Home,
    registry: &'a Client,
    /// What has a tag, the image first.
    named: Vec<(String, Descriptor)>,
    /// By their digests: manifests and indexes.
    documents: BTreeMap<Digest, Document>,
    /// Configs and layers.
    blobs: BTreeMap<Digest, Descriptor>,
}

pub(crate) fn run(flags: &Export, session: &Session) -> Result<()> {
    let registry = session.registry()?;
    let name = flags.image.clone().map_or_else(|| made_last(session), Ok)?;
    let reading = || format!("reading {name}");
    let release = Release::find(&name, &registry, session).with_context(reading)?;
    let path = match &flags.output {
        Some(path) => path.clone(),
        None => format!("{}.tar", release.tag()).into(),
    };
    let replace = if flags.force { Replace::Yes } else { Replace::No };
    if replace == Replace::No && path.symlink_metadata().is_ok() {
        return Err(anyhow!("{} is there", path.display()))
            .hint("name another file with '-o FILE', or add '--force' to replace it");
    }
    let (sha256, size) = release
        .write(&path, replace, session)
        .with_context(|| format!("exporting {name} into {}", path.display()))?;
    session.progress.line(format!(
        "{}: {} in {}",
        path.display(),
        human_bytes(size),
        counted(release.named.len(), "image")
    ));
    let images = release
        .named
        .iter()
        .map(|(tag, descriptor)| ImageReport { tag: tag.clone(), digest: descriptor.digest });
    let report = Report { path, size, sha256: sha256.hex(), images: images.collect() };
    // As sha256sum writes it, and checks it.
    session.print(&report, || format!("{}  {}", report.sha256, report.path.display()))
}

/// The image that dist.json tells of.
fn made_last(session: &Session) -> Result<ImageName> {
    let path = session.dist_dir().join("dist.json");
    let reading = || format!("reading {}", session.shown(&path).display());
    let bytes = fs::read(&path)
        .with_context(reading)
        .hint("make a release, 'cargo xtask dist', or name one that is in a registry")?;
    let report: Value = serde_json::from_slice(&bytes).with_context(reading)?;
    let tag = report.get("reference").and_then(Value::as_str).and_then(|name| name.rsplit(':').next());
    let tag = tag.ok_or_else(|| anyhow!("it names no image")).with_context(reading)?;
    Ok(ImageName::Layout { dir: session.dist_dir().join("oci"), tag: Some(tag.to_owned()) })
}

impl<'a> Release<'a> {
    /// Reads all documents of the image and of what has a tag of the same version, or about one of these.
    fn find(name: &ImageName, registry: &'a Client, session: &Session) -> Result<Release<'a>> {
        let Source { home, document } = Source::open(name, registry)?;
        let tags = match &home {
            Home::Layout(store) => store.tags()?,
            Home::Registry(reference) => registry.tags(reference)?,
        };
        let tag = match (name, &tags[..]) {
            (ImageName::Layout { tag: Some(tag), .. }, _) => tag.clone(),
            (ImageName::Layout { tag: None, .. }, [tag]) => tag.clone(),
            (ImageName::Layout { .. }, _) => {
                return Err(anyhow!("it has no tag")).hint("name one: 'oci:DIR:TAG'");
            }
            (ImageName::Registry(reference), _) => {
                let tag = reference.tag().ok_or_else(|| anyhow!("it is named by its digest"));
                tag.hint("name it by its tag, which the archive says, too")?.to_owned()
            }
        };
        let mut release =
            Release { home, registry, named: Vec::new(), documents: BTreeMap::new(), blobs: BTreeMap::new() };
        let image = document.blob().digest();
        release.add(tag.clone(), &document)?;
        if let Some(Tag { kind: Kind::System, distro, version }) = Tag::parse(&tag) {
            let belongs = |other: &&String| {
                let other =
                    Tag::parse(other).filter(|other| matches!(other.kind, Kind::Disk(_) | Kind::Release));
                other.is_some_and(|other| other.distro == distro && other.version == version)
            };
            for other in tags.iter().filter(belongs) {
                let document = release.read_tag(other)?;
                match is_of(&document, image) {
                    true => release.add(other.clone(), &document)?,
                    false => session.progress.warn(format!("{other} is of another image, and left out")),
                }
            }
        }
        if let ImageName::Registry(reference) = name {
            // Where the registry's API alone lists what is attached, the archive has the list under a tag: for
            // registries without that API, and for those with it no harm.
            let subjects: Vec<Digest> = release.documents.keys().copied().collect();
            for subject in subjects {
                let tag = list_tag(subject);
                if tags.contains(&tag) {
                    continue;
                }
                let attached = registry.referrers(reference, subject)?;
                if !attached.is_empty() {
                    release.add(tag, &list_document(&attached)?)?;
                }
            }
        }
        // A signature's tag begins as that of the list does. What is about a signature is of no use to a host.
        // Source: cosign, "Signature Spec"; OCI distribution specification, "Referrers Tag Schema".
        let about: Vec<String> = release.documents.keys().copied().map(list_tag).collect();
        for other in tags.iter().filter(|other| about.iter().any(|about| other.starts_with(about))) {
            let document = release.read_tag(other)?;
            release.add(other.clone(), &document)?;
        }
        Ok(release)
    }

    fn tag(&self) -> &str {
        self.named.first().map_or("release", |(tag, _)| tag)
    }

    fn read_tag(&self, tag: &str) -> Result<Document> {
        match &self.home {
            Home::Layout(store) => store.document(Some(tag)),
            Home::Registry(reference) => {
                let reference = with_tag(reference, tag);
                self.registry.document(&reference)?.ok_or_else(|| anyhow!("{reference} is gone"))
            }
        }
    }

    /// Takes in what `document` leads to.
    fn add(&mut self, tag: String, document: &Document) -> Result<()> {
        let root = document.descriptor();
        let mut documents = self.documents.values().map(|document| document.descriptor().size).sum::<u64>();
        let mut read = |descriptor: &Descriptor| -> Result<Document> {
            if descriptor.digest == root.digest {
                return Ok(document.clone());
            }
            documents = documents.saturating_add(descriptor.size);
            if documents > MAX_DOCUMENTS {
                let most = human_bytes(MAX_DOCUMENTS);
                return Err(anyhow!("its manifests have more than {most}"))
                    .hint("check that it is a release");
            }
            match &self.home {
                Home::Layout(store) => store.document_at(descriptor),
                Home::Registry(reference) => self.registry.document_by_digest(reference, descriptor),
            }
        };
        for Node { descriptor, document, blobs } in nodes(&root, &mut read)? {
            self.documents.insert(descriptor.digest, document);
            self.blobs.extend(blobs.into_iter().map(|blob| (blob.digest, blob)));
        }
        self.named.push((tag, root));
        Ok(())
    }

    /// Writes the archive, which has its name once it is whole. Gives its digest and size.
    fn write(&self, path: &Path, replace: Replace, session: &Session) -> Result<(Digest, u64)> {
        let (_lock, unfinished) = disk::begin_alone(path)?;
        let bytes = self.blobs.values().map(|blob| blob.size).fold(0, u64::saturating_add);
        let step = session.progress.bytes(format!("exporting {}", self.tag()), bytes);
        let out = BufWriter::with_capacity(BUFFER, DigestWriter::new(unfinished.file()));
        let mut archive = Writer::new(out, &self.named)?;
        for document in self.documents.values() {
            archive.blob(&document.descriptor(), |out| out.write_all(document.blob().bytes()))?;
        }
        // What is both is in it once.
        for blob in self.blobs.values().filter(|blob| !self.documents.contains_key(&blob.digest)) {
            archive.blob(blob, |out| self.copy(blob, out, &step))?;
        }
        let hashed = archive.finish()?.into_inner().map_err(|error| error.into_error())?;
        let (_, digest, size) = hashed.finish();
        unfinished.finish_as(replace)?;
        Ok((digest, size))
    }

    /// Copies a blob from wherever it is, and checks it on the way.
    fn copy(&self, blob: &Descriptor, out: &mut dyn Write, step: &Step) -> Result<()> {
        match &self.home {
            Home::Registry(reference) => self.registry.fetch(reference, blob, out, step),
            Home::Layout(store) => match store.layers_reference(blob)? {
                Some(reference) if !store.has(blob)? => self.registry.fetch(&reference, blob, out, step),
                Some(_) | None => store.copy(blob, out, &|count| step.advance(count)),
            },
        }
    }
}

/// Whether a disk or a release's manifest is of this image, as far as it says.
fn is_of(document: &Document, image: Digest) -> bool {
    let annotation = document.annotations().and_then(|all| Some(all.get(IMAGE_DIGEST)?.as_str()?.to_owned()));
    let subject = || {
        let json: Value = serde_json::from_slice(document.blob().bytes()).ok()?;
        Some(json.get("subject")?.get("digest")?.as_str()?.to_owned())
    };
    annotation.or_else(subject).is_none_or(|digest| digest == image.to_string())
}
