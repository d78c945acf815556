//! `import`: what an archive has, into a registry.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};

use anyhow::{Context, Result};
use serde::Serialize;

use super::Session;
use super::export::ImageReport;
use super::versions::{TagChange, Tags};
use crate::archive::{Archive, ArchiveError, Entry};
use crate::flags::Import;
use crate::hint::{WithHint, hinted};
use crate::oci::config::{self, ConfigError};
use crate::oci::document::{self, DocumentError, oci_media_type};
use crate::oci::graph::{MAX_DOCUMENTS, Node, nodes};
use crate::oci::{Config, Descriptor, Digest, Document, MediaType, Reference};
use crate::progress::human_bytes;
use crate::registry::{BlobSource, Client, Push, PushBlob, Until, listed_by};
use crate::release::{self, Kind, Tag};
use crate::sign::Beside;
use crate::workspace::settings::Repository;

/// What was imported. Keys may be added, none renamed.
#[derive(Debug, Serialize)]
struct Report {
    repository: String,
    images: Vec<ImageReport>,
    /// The tag that moves to each release, where it moved to this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    latest: Option<String>,
}

/// What the archive holds, all of which is in it.
struct Contents {
    /// Each behind what it names.
    nodes: Vec<Node>,
    named: Vec<(String, Document)>,
}

/// What becomes of tags.
struct Changes {
    changes: Vec<(TagChange, Tags)>,
    /// What is added to something that is there.
    additions: Vec<(Reference, Document)>,
}

#[derive(Debug, thiserror::Error)]
enum ContentError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("its manifests have more than {}", human_bytes(MAX_DOCUMENTS))]
    TooMuch,
}

pub(crate) fn run(flags: &Import, session: &Session) -> Result<()> {
    let registry = session.registry()?;
    let reading = || format!("reading {}", flags.file.display());
    let damaged =
        "it is damaged or hostile, and nothing of it was used: export it again, and compare its SHA-256";
    let file = File::open(&flags.file)
        .with_context(reading)
        .hint("name a file that 'cargo xtask export' has written")?;
    let archive = Archive::open(file)
        .map_err(|error| match error {
            ArchiveError::Io(error) => error.into(),
            error => hinted(error, damaged),
        })
        .with_context(reading)?;
    let contents = Contents::read(&archive).hint(damaged).with_context(reading)?;
    registry.check_push(&flags.to.tagged(release::UNVERSIONED))?;
    let Changes { changes, additions } = changes(&contents, &flags.to, &registry, session)?;
    let step = session.progress.bytes(format!("checking {}", flags.file.display()), archive.size());
    archive.check(&|count| step.advance(count)).hint(damaged).with_context(reading)?;
    step.done(format!("{} is whole: {}", flags.file.display(), human_bytes(archive.size())));

    // Nothing has a tag before all of it is there.
    for node in &contents.nodes {
        send(node, &archive, &flags.to, &registry)?;
    }
    for (target, document) in &additions {
        add(target, document, &registry).with_context(|| format!("adding to {target}"))?;
    }
    for (change, tags) in &changes {
        change.carry_out(*tags, &registry)?;
    }
    let latest = latest(&contents, &flags.to, &registry)?;
    let images = contents
        .named
        .into_iter()
        .map(|(tag, document)| ImageReport { tag, digest: document.blob().digest() });
    let report = Report {
        repository: flags.to.to_string(),
        images: images.collect(),
        latest: latest.as_ref().map(Reference::to_string),
    };
    session.print(&report, || {
        let line = |image: &ImageReport| format!("{}  {}:{}\n", image.digest, report.repository, image.tag);
        report.images.iter().map(line).collect()
    })
}

impl Contents {
    /// Refuses an archive that lacks something, or has an image that contradicts itself.
    fn read(archive: &Archive) -> Result<Contents, ContentError> {
        let mut contents = Contents { nodes: Vec::new(), named: Vec::new() };
        let mut seen: BTreeSet<Digest> = BTreeSet::new();
        // A config that many manifests name is read once.
        let mut configs: BTreeSet<(Digest, usize)> = BTreeSet::new();
        let mut documents = 0;
        for Entry { tag, descriptor } in &archive.named {
            let mut read = |descriptor: &Descriptor| -> Result<Document, ContentError> {
                let blob = archive.read(descriptor, document::MAX_SIZE)?;
                documents += blob.bytes().len() as u64;
                if documents > MAX_DOCUMENTS {
                    return Err(ContentError::TooMuch);
                }
                Ok(Document::parse(blob, Some(descriptor.media_type.as_ref()))?)
            };
            for node in nodes(descriptor, &mut read)? {
                node.blobs.iter().try_for_each(|blob| archive.has(blob))?;
                if node.descriptor.digest == descriptor.digest {
                    contents.named.push((tag.clone(), node.document.clone()));
                }
                if let Document::Manifest(manifest) = &node.document
                    // As signatures have, too.
                    && oci_media_type(&manifest.config.media_type) == MediaType::ImageConfig
                    && configs.insert((manifest.config.digest, manifest.layers.len()))
                {
                    let config = Config::parse(archive.read(&manifest.config, config::MAX_SIZE)?)?;
                    config.diff_ids(manifest.layers.len())?;
                }
                if seen.insert(node.descriptor.digest) {
                    contents.nodes.push(node);
                }
            }
        }
        Ok(contents)
    }
}

/// What the tags are to name, the systems' last. What cannot be is refused before anything is sent.
fn changes(contents: &Contents, to: &Repository, registry: &Client, session: &Session) -> Result<Changes> {
    let mut named: Vec<_> =
        contents.named.iter().map(|(tag, document)| (Tag::parse(tag), tag, document)).collect();
    named.sort_by_key(|(parsed, ..)| parsed.as_ref().is_some_and(|tag| tag.kind == Kind::System));
    let (mut changes, mut additions) = (Vec::new(), Vec::new());
    for (parsed, tag, document) in named {
        let target = to.tagged(tag);
        let tags = match parsed.map(|tag| (tag.kind, tag.version)) {
            Some((Kind::System | Kind::Disk(_), version)) if version != release::UNVERSIONED => Tags::Stay,
            // A base's day.
            Some((Kind::Base, day)) if !day.is_empty() => Tags::Stay,
            Some(_) => Tags::Move,
            None => match registry.document(&target)? {
                Some(there) if there.blob().digest() != document.blob().digest() => {
                    if grows(tag, &there, document) {
                        additions.push((target, document.clone()));
                    } else {
                        session.progress.warn(format!("{target} is there, and stays as it is"));
                    }
                    continue;
                }
                Some(_) | None => Tags::Move,
            },
        };
        changes.push((TagChange::whole(target, document.clone(), tags, registry)?, tags));
    }
    Ok(Changes { changes, additions })
}

/// Whether what a tag names is added to: a list of what is attached to an image, or what others have
/// signed of it, which may be by other keys.
fn grows(tag: &str, there: &Document, ours: &Document) -> bool {
    match (there, ours) {
        (Document::Index(_), Document::Index(_)) => listed_by(tag).is_some(),
        // Source: cosign, "Signature Spec", "Tag-based Discovery", which attestations follow.
        (Document::Manifest(_), Document::Manifest(_)) => {
            tag.strip_suffix(".sig").or(tag.strip_suffix(".att")).is_some_and(|tag| listed_by(tag).is_some())
        }
        (Document::Index(_), Document::Manifest(_)) | (Document::Manifest(_), Document::Index(_)) => false,
    }
}

/// Adds what `document` has to what `target` names; all of it is there.
fn add(target: &Reference, document: &Document, registry: &Client) -> Result<()> {
    match (document, target.tag().and_then(listed_by)) {
        (Document::Index(list), Some(subject)) => registry.add_referrers(target, subject, list),
        (Document::Manifest(signatures), _) => Beside::merge(registry, target, signatures),
        (Document::Index(_), None) => Ok(()),
    }
}

/// Sends a document, and the blobs that it names, under its digest.
fn send(node: &Node, archive: &Archive, to: &Repository, registry: &Client) -> Result<()> {
    let digest = node.descriptor.digest;
    let blobs = node.blobs.iter().map(|blob| PushBlob {
        descriptor: blob.clone(),
        source: BlobSource::File(Box::new(move || {
            let blob = archive.open_blob(blob).map_err(io::Error::other)?;
            Ok(Box::new(blob) as Box<dyn Read + Send>)
        })),
    });
    registry
        .push(&Push {
            target: to.addressed(digest),
            until: Until::Stored,
            manifests: vec![(node.document.descriptor(), node.document.blob().clone())],
            artifacts: Vec::new(),
            blobs: blobs.collect(),
        })
        .with_context(|| format!("sending {digest} to {to}"))?;
    Ok(())
}

/// Moves each distro's `latest` to a release that is the last one.
fn latest(contents: &Contents, to: &Repository, registry: &Client) -> Result<Option<Reference>> {
    let mut moved = None;
    for (tag, document) in &contents.named {
        let Some(Tag { kind: Kind::System, distro, version }) = Tag::parse(tag) else { continue };
        let latest = to.tagged(&release::latest_tag(&distro));
        if release::is_latest(version, &distro, &registry.tags(&latest)?) {
            TagChange::whole(latest.clone(), document.clone(), Tags::Move, registry)?
                .carry_out(Tags::Move, registry)?;
            moved = Some(latest);
        }
    }
    Ok(moved)
}

#[cfg(test)]
mod tests {
    use std::io::Seek;

    use serde_json::json;

    use super::*;
    use crate::archive::Writer;
    use crate::oci::Verified;

    /// Manifests of 3 MB each, all of which are as they should be.
    #[test]
    fn more_manifests_than_fit_into_memory_are_refused() {
        let blob = Verified::own(br#"{"rootfs":{"diff_ids":[]}}"#.to_vec());
        let descriptor = blob.descriptor(MediaType::ImageConfig);
        let manifest = |number: usize| {
            let annotations = json!({"number": number.to_string(), "padding": "x".repeat(3 << 20)});
            let manifest = json!({
                "schemaVersion": 2, "config": descriptor, "layers": [], "annotations": annotations,
            });
            Verified::own(manifest.to_string().into_bytes())
        };
        let read = |count: usize| {
            let manifests: Vec<Verified> = (0..count).map(manifest).collect();
            let named = |(number, manifest): (usize, &Verified)| {
                (format!("t{number}"), manifest.descriptor(MediaType::ImageManifest))
            };
            let named: Vec<_> = manifests.iter().enumerate().map(named).collect();
            let mut writer = Writer::new(tempfile::tempfile().unwrap(), &named).unwrap();
            writer.blob(&descriptor, |out| out.write_all(blob.bytes())).unwrap();
            for ((_, descriptor), manifest) in named.iter().zip(&manifests) {
                writer.blob(descriptor, |out| out.write_all(manifest.bytes())).unwrap();
            }
            let mut file = writer.finish().unwrap();
            file.rewind().unwrap();
            Contents::read(&Archive::open(file).unwrap()).map(|contents| contents.named.len())
        };
        assert_eq!(read(3).unwrap(), 3);
        let error = read(24).unwrap_err().to_string();
        assert_eq!(error, "its manifests have more than 67.1 MB");
    }

    #[test]
    fn a_config_says_what_is_in_each_layer() {
        let layer = Verified::own(b"layer".to_vec());
        let read = |diff_ids: usize, kind: MediaType| {
            let config = json!({"rootfs": {"diff_ids": vec![layer.digest(); diff_ids]}});
            let config = Verified::own(config.to_string().into_bytes());
            let (config_is, layer_is) = (config.descriptor(kind), layer.descriptor(MediaType::ImageLayer));
            let manifest = json!({"schemaVersion": 2, "config": config_is, "layers": [layer_is]});
            let manifest = Verified::own(manifest.to_string().into_bytes());
            let manifest_is = manifest.descriptor(MediaType::ImageManifest);
            let named = [("t".to_owned(), manifest_is.clone())];
            let mut writer = Writer::new(tempfile::tempfile().unwrap(), &named).unwrap();
            for (is, blob) in [(&config_is, &config), (&layer_is, &layer), (&manifest_is, &manifest)] {
                writer.blob(is, |out| out.write_all(blob.bytes())).unwrap();
            }
            let mut file = writer.finish().unwrap();
            file.rewind().unwrap();
            match Contents::read(&Archive::open(file).unwrap()) {
                Ok(contents) => format!("{} nodes", contents.nodes.len()),
                Err(error) => error.to_string().replace(&config.digest().to_string(), "CONFIG"),
            }
        };
        assert_eq!(read(1, MediaType::ImageConfig), "1 nodes");
        for count in [0, 2] {
            let expected = format!("the config CONFIG is not valid: it has {count} diff ids for 1 layers");
            assert_eq!(read(count, MediaType::ImageConfig), expected);
        }
        // What is no image has no such list.
        assert_eq!(read(0, MediaType::EmptyJSON), "1 nodes");
    }
}
