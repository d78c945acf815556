//! Pushing an image with as few requests as its registry allows: what is known to be there is not
//! asked for, blobs go first, and the tag is moved last.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::StatusCode;

use super::auth::Scopes;
use super::error::{RegistryError, Result, Shown};
use super::journal::Journal;
use super::pull::{check_header, raw_document};
use super::referrers;
use super::repository::{RegistryName, Repository};
use super::tags::put_request;
use super::transport::Transport;
use super::upload::{Item, Open, Placed, Presence, Source, Uploader};
use crate::oci::{Artifact, Descriptor, Digest, Document, Reference, Verified};
use crate::progress::Progress;

/// Requests without a body that are under way at once.
const AT_ONCE: usize = 16;

/// What to send, worked out beforehand.
pub(crate) struct Push<'a> {
    /// With a tag, or with the digest of the last manifest.
    pub(crate) target: Reference,
    pub(crate) until: Until,
    /// An index's images first. The last one is what the target will name.
    pub(crate) manifests: Vec<(Descriptor, Verified)>,
    /// The configs and layers of all manifests.
    pub(crate) blobs: Vec<PushBlob<'a>>,
    /// What is attached to the images, before the target names them.
    pub(crate) artifacts: Vec<Artifact>,
}

/// How far a push goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// The last manifest is there under its digest. What the tag names stays, and only tells what
    /// need not be sent.
    Stored,
    /// The tag names it.
    Tagged,
}

pub(crate) struct PushBlob<'a> {
    pub(crate) descriptor: Descriptor,
    pub(crate) source: BlobSource<'a>,
}

pub(crate) enum BlobSource<'a> {
    Bytes(&'a Verified),
    File(Box<Open<'a>>),
    /// A base's layer that stays in its registry: mounted within one registry, and streamed from
    /// one to another, without ever being here.
    Registry(Reference),
}

/// What a push did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pushed {
    pub(crate) digest: Digest,
    pub(crate) requests: u64,
    /// Bodies alone.
    pub(crate) sent_bytes: u64,
    /// Blobs that were sent. The others were there, or were mounted.
    pub(crate) uploaded: BTreeSet<Digest>,
    pub(crate) mounted: usize,
    /// Referrers that were not there.
    pub(crate) attached: usize,
    /// The target named this image before, so nothing of it was sent.
    pub(crate) unchanged: bool,
}

/// What a push is made with, whatever it sends.
pub(super) struct Ways<'a> {
    /// Counts for this push alone.
    pub(super) transport: &'a Transport,
    pub(super) plain_http: &'a [RegistryName],
    pub(super) progress: &'a Progress,
    pub(super) journal: &'a Journal,
}

pub(super) async fn push(ways: &Ways<'_>, push: &Push<'_>) -> Result<Pushed> {
    let &Ways { transport, plain_http, progress, journal } = ways;
    let target = &Repository::new(&push.target, plain_http)?;
    let Some((top, _)) = push.manifests.last() else {
        return Err(RegistryError::NothingToPush(Shown::of(&push.target)));
    };
    let name = target_name(&push.target, top)?;
    let images = images(push)?;

    let existing = existing(transport, target, &name).await?;
    let unchanged = existing.as_ref().is_some_and(|existing| existing.digest == top.digest);
    let known = match existing.filter(|_| !unchanged).and_then(|existing| existing.document) {
        Some(document) => known(transport, target, &document, push.manifests.len()).await?,
        None => HashSet::new(),
    };
    let run = Run { push, target, name: &name, ways, known: &known };
    let uploader = Uploader::new(transport, target, progress, journal);
    let mut tally = Tally::default();
    match unchanged {
        // It may come from whoever attached nothing, or was interrupted.
        true => run.attach(&uploader, &mut tally).await?,
        false => run.carry_out(&uploader, &images, &mut tally).await?,
    }
    let traffic = transport.traffic();
    let Tally { uploaded, mounted, attached } = tally;
    Ok(Pushed {
        digest: top.digest,
        requests: traffic.requests(),
        sent_bytes: traffic.sent_bytes(),
        uploaded,
        mounted,
        attached,
        unchanged,
    })
}

/// What a target names now.
struct Existing {
    digest: Digest,
    /// None where it is something that is no image.
    document: Option<Document>,
}

/// An image among what is pushed.
struct PushImage<'a> {
    descriptor: &'a Descriptor,
    manifest: &'a Verified,
    /// Its config and layers.
    blobs: Vec<Digest>,
}

struct Run<'a> {
    push: &'a Push<'a>,
    target: &'a Repository,
    name: &'a str,
    ways: &'a Ways<'a>,
    /// Manifests and blobs that the repository has.
    known: &'a HashSet<Digest>,
}

#[derive(Default)]
struct Tally {
    uploaded: BTreeSet<Digest>,
    mounted: usize,
    attached: usize,
}

impl Tally {
    fn count(&mut self, placed: &[(Digest, Placed)]) {
        for &(digest, placed) in placed {
            match placed {
                Placed::Uploaded => {
                    self.uploaded.insert(digest);
                }
                Placed::Mounted => self.mounted += 1,
                Placed::Present => {}
            }
        }
    }
}

impl Run<'_> {
    async fn carry_out(
        &self,
        uploader: &Uploader<'_>,
        images: &[PushImage<'_>],
        tally: &mut Tally,
    ) -> Result<()> {
        let mut items = self.unknown(images)?;
        if items.iter().any(|item| matches!(item.source, Source::Elsewhere(_)))
            && let Some(missing) = self.missing(images).await?
        {
            items.retain(|item| missing.contains(&item.blob.digest));
            items.iter_mut().for_each(|item| item.presence = Presence::Missing);
        }
        tally.count(&self.place(uploader, &items).await?);

        let Some((top, children)) = self.push.manifests.split_last() else { return Ok(()) };
        for manifest in children.iter().filter(|(child, _)| !self.known.contains(&child.digest)) {
            self.put_manifest(uploader, &manifest.0.digest.to_string(), manifest, tally).await?;
        }
        let by_digest = top.0.digest.to_string();
        let is_by_digest = self.push.until == Until::Stored || self.name == by_digest;
        if is_by_digest || !self.push.artifacts.is_empty() {
            self.put_manifest(uploader, &by_digest, top, tally).await?;
            self.attach(uploader, tally).await?;
        }
        match is_by_digest {
            true => Ok(()),
            false => self.put_manifest(uploader, self.name, top, tally).await,
        }
    }

    /// Attaches the artifacts to the images, which are there.
    async fn attach(&self, uploader: &Uploader<'_>, tally: &mut Tally) -> Result<()> {
        let mut by_subject: BTreeMap<Digest, Vec<&Artifact>> = BTreeMap::new();
        for artifact in &self.push.artifacts {
            by_subject.entry(artifact.subject()).or_default().push(artifact);
        }
        for (subject, artifacts) in by_subject {
            tally.attached += referrers::attach(uploader, subject, &artifacts).await?;
        }
        Ok(())
    }

    /// The blobs that are not known to be in the repository.
    fn unknown(&self, images: &[PushImage<'_>]) -> Result<Vec<Item<'_>>> {
        let mut seen = HashSet::new();
        let mut items = Vec::new();
        let needed: HashSet<Digest> = images.iter().flat_map(|image| image.blobs.iter().copied()).collect();
        for blob in self.push.blobs.iter().filter(|blob| needed.contains(&blob.descriptor.digest)) {
            let digest = blob.descriptor.digest;
            if self.known.contains(&digest) || !seen.insert(digest) {
                continue;
            }
            let item = self.item(blob)?;
            // A layer of the base in its own repository is there.
            if !matches!(&item.source, Source::Elsewhere(source) if source == self.target) {
                items.push(item);
            }
        }
        Ok(items)
    }

    fn item<'a>(&self, blob: &'a PushBlob<'_>) -> Result<Item<'a>> {
        let source = match &blob.source {
            BlobSource::Bytes(bytes) => Source::Bytes(bytes),
            BlobSource::File(open) => Source::File(&**open),
            BlobSource::Registry(reference) => {
                Source::Elsewhere(Repository::new(reference, self.ways.plain_http)?)
            }
        };
        Ok(Item { blob: &blob.descriptor, source, presence: Presence::Unknown })
    }

    /// Which blobs the repository lacks, or None where the registry does not say.
    ///
    /// The question is the image itself, put under its digest before its blobs are there. A
    /// registry that checks manifests refuses it and names all that is missing, in one request for
    /// a base of any number of layers. One that takes it may have everything or may not look, so
    /// its answer says nothing. No tag names the image yet.
    async fn missing(&self, images: &[PushImage<'_>]) -> Result<Option<HashSet<Digest>>> {
        let mut missing = HashSet::new();
        for image in images.iter().filter(|image| !self.known.contains(&image.descriptor.digest)) {
            let name = image.descriptor.digest.to_string();
            if name == self.name {
                return Ok(None);
            }
            let request =
                put_request(self.target, &name, &image.descriptor.media_type, image.manifest.bytes());
            let mut response = self.ways.transport.send(&request).await?;
            if response.status().is_success() {
                return Ok(None);
            }
            let named = response.said().await.missing_blobs().unwrap_or_default();
            // A new image lacks its config and a layer at least: who names one blob stops there.
            if named.len() < 2 {
                return Ok(None);
            }
            missing.extend(named);
        }
        Ok(Some(missing))
    }

    async fn place<'i>(
        &self,
        uploader: &Uploader<'_>,
        items: &'i [Item<'i>],
    ) -> Result<Vec<(Digest, Placed)>> {
        let place = |item: &'i Item<'i>| async { Ok((item.blob.digest, uploader.place(item).await?)) };
        stream::iter(items).map(place).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Puts a manifest. Where the registry lacks blobs that it was believed to have, they are
    /// placed, and the manifest is put again.
    async fn put_manifest(
        &self,
        uploader: &Uploader<'_>,
        name: &str,
        (descriptor, manifest): &(Descriptor, Verified),
        tally: &mut Tally,
    ) -> Result<()> {
        let request = put_request(self.target, name, &descriptor.media_type, manifest.bytes());
        let mut placed = HashSet::new();
        loop {
            let mut response = self.ways.transport.send(&request).await?;
            if response.status() == StatusCode::CREATED {
                return check_header(&response, descriptor.digest);
            }
            let said = response.said().await;
            let Some(named) = said.missing_blobs() else { return Err(response.refused_with(said)) };
            // Not every registry says which; then it is any of them. Some name one at a time.
            let is_missing = |blob: &&PushBlob| named.is_empty() || named.contains(&blob.descriptor.digest);
            let missing = self.push.blobs.iter().filter(is_missing);
            let items: Vec<Item<'_>> = missing
                .filter(|blob| placed.insert(blob.descriptor.digest))
                .map(|blob| self.item(blob))
                .collect::<Result<_>>()?;
            if items.is_empty() {
                return Err(response.refused_with(said));
            }
            tally.count(&self.place(uploader, &items).await?);
        }
    }
}

/// The tag or digest that the last manifest is put under.
fn target_name(target: &Reference, top: &Descriptor) -> Result<String> {
    match target.digest() {
        Some(digest) if digest.parse() != Ok(top.digest) => {
            Err(RegistryError::OtherDigest { target: Shown::of(target), found: top.digest })
        }
        digest => Ok(target.tag().or(digest).map_or_else(|| top.digest.to_string(), str::to_owned)),
    }
}

/// The images among the manifests, all of whose blobs must be listed: no registry is relied on to
/// refuse an image with holes.
fn images<'a>(push: &'a Push<'_>) -> Result<Vec<PushImage<'a>>> {
    let listed: HashSet<Digest> = push.blobs.iter().map(|blob| blob.descriptor.digest).collect();
    let mut images = Vec::new();
    for (descriptor, manifest) in &push.manifests {
        let url = || Shown::of(&push.target);
        let document = Document::parse(manifest.clone(), Some(descriptor.media_type.as_ref()))
            .map_err(|source| RegistryError::Document { url: url(), source })?;
        if let Document::Manifest(parsed) = document {
            let blobs: Vec<Digest> = blobs(&parsed).collect();
            if let Some(&blob) = blobs.iter().find(|blob| !listed.contains(blob)) {
                return Err(RegistryError::Unlisted { manifest: descriptor.digest, blob });
            }
            images.push(PushImage { descriptor, manifest, blobs });
        }
    }
    Ok(images)
}

fn blobs(manifest: &crate::oci::Manifest) -> impl Iterator<Item = Digest> {
    std::iter::once(&manifest.config).chain(&manifest.layers).map(|blob| blob.digest)
}

/// What the target names now. Something unreadable is replaced like nothing at all, and so is
/// what may be written but not read.
async fn existing(transport: &Transport, target: &Repository, name: &str) -> Result<Option<Existing>> {
    match raw_document(transport, target, name, Scopes::push(target)).await {
        Ok(raw) => Ok(raw.map(|raw| Existing { digest: raw.blob.digest(), document: raw.parse().ok() })),
        Err(error) if error.is_denied() => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a repository has for certain, since `document` is in it. An index's images are asked for
/// as long as there are no more of them than are pushed.
async fn known(
    transport: &Transport,
    target: &Repository,
    document: &Document,
    manifests: usize,
) -> Result<HashSet<Digest>> {
    let index = match document {
        Document::Manifest(manifest) => return Ok(blobs(manifest).collect()),
        Document::Index(index) => index,
    };
    let mut known: HashSet<Digest> = index.manifests.iter().map(|(_, image)| image.digest).collect();
    if index.manifests.len() < manifests {
        let images = stream::iter(&index.manifests).map(|(_, image)| async {
            let name = image.digest.to_string();
            let raw = raw_document(transport, target, &name, Scopes::push(target)).await?;
            Ok::<_, RegistryError>(raw.and_then(|raw| raw.parse().ok()))
        });
        let images: Vec<Option<Document>> = images.buffer_unordered(AT_ONCE).try_collect().await?;
        for image in images.into_iter().flatten() {
            if let Document::Manifest(manifest) = image {
                known.extend(blobs(&manifest));
            }
        }
    }
    Ok(known)
}
