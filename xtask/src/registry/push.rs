//! Pushing an image with as few requests as its registry allows: what is known to be there is not
//! asked for, blobs go first, and the tag is moved last.

use std::collections::HashSet;
use std::io::{self, Read};

use futures_util::{StreamExt, TryStreamExt, stream};
use oci_client::errors::OciErrorCode;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode};

use super::PlainHttp;
use super::auth::Scopes;
use super::error::{RegistryError, Result, Shown};
use super::pull::{check_header, exists, raw_document};
use super::repository::Repository;
use super::transport::{Payload, Request, Transport};
use super::upload::{Item, Placed, Source, Uploader};
use crate::oci::{Descriptor, Digest, Document, Reference, Verified};
use crate::progress::Progress;

/// Requests without a body that are under way at once.
const AT_ONCE: usize = 16;

/// Opens a blob's bytes from their beginning; called again where a transfer broke off.
pub(crate) type Open<'a> = dyn Fn() -> io::Result<Box<dyn Read + Send>> + Send + Sync + 'a;

/// What to send, worked out beforehand.
pub(crate) struct Push<'a> {
    /// With a tag, or with the digest of the last manifest.
    pub(crate) target: Reference,
    /// An index's images first. The last one is what the target will name.
    pub(crate) manifests: Vec<(Descriptor, Verified)>,
    /// The configs and layers of all manifests.
    pub(crate) blobs: Vec<PushBlob<'a>>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pushed {
    pub(crate) digest: Digest,
    pub(crate) requests: u64,
    /// Bodies alone.
    pub(crate) sent_bytes: u64,
    pub(crate) uploaded: usize,
    pub(crate) mounted: usize,
    /// Blobs that were there.
    pub(crate) skipped: usize,
    /// The target named this image before, so nothing was sent.
    pub(crate) unchanged: bool,
}

pub(super) async fn push(
    transport: &Transport,
    plain_http: PlainHttp,
    progress: &Progress,
    push: &Push<'_>,
) -> Result<Pushed> {
    let transport = &transport.counted();
    let target = &Repository::new(&push.target, plain_http)?;
    let Some((top, _)) = push.manifests.last() else {
        return Err(RegistryError::NothingToPush(Shown::of(&push.target)));
    };
    let name = target_name(&push.target, top)?;
    let images = images(push)?;

    let existing = existing(transport, target, &name).await?;
    let unchanged = existing.as_ref().is_some_and(|existing| existing.digest == top.digest);
    let mut tally = Tally::default();
    if !unchanged {
        let known = match existing {
            Some(Existing { document: Some(document), .. }) => {
                known(transport, target, &document, push.manifests.len()).await?
            }
            _ => HashSet::new(),
        };
        let run = Run { push, target, name: &name, transport, plain_http, progress, known: &known };
        tally = run.carry_out(&images).await?;
    }
    let traffic = transport.traffic();
    let Tally { uploaded, mounted, .. } = tally;
    let digests: HashSet<Digest> = push.blobs.iter().map(|blob| blob.descriptor.digest).collect();
    Ok(Pushed {
        digest: top.digest,
        requests: traffic.requests(),
        sent_bytes: traffic.sent_bytes(),
        uploaded,
        mounted,
        skipped: digests.len().saturating_sub(uploaded + mounted),
        unchanged,
    })
}

/// What a target names now.
struct Existing {
    digest: Digest,
    /// None where it is something that is no image.
    document: Option<Document>,
}

struct Run<'a> {
    push: &'a Push<'a>,
    target: &'a Repository,
    name: &'a str,
    transport: &'a Transport,
    plain_http: PlainHttp,
    progress: &'a Progress,
    /// Manifests and blobs that the repository has.
    known: &'a HashSet<Digest>,
}

#[derive(Default)]
struct Tally {
    uploaded: usize,
    mounted: usize,
}

impl Tally {
    fn count(&mut self, placed: &[Placed]) {
        self.uploaded += placed.iter().filter(|&&placed| placed == Placed::Uploaded).count();
        self.mounted += placed.iter().filter(|&&placed| placed == Placed::Mounted).count();
    }
}

impl Run<'_> {
    async fn carry_out(&self, images: &[Vec<Digest>]) -> Result<Tally> {
        let uploader = Uploader::new(self.transport, self.target, self.progress);
        let (ours, bases) = self.unknown(images)?;
        let ours = self.place(&uploader, ours.iter());
        let bases = stream::iter(&bases).map(|base| self.bring(&uploader, base)).buffer_unordered(AT_ONCE);
        let (ours, bases) = futures_util::future::try_join(ours, bases.try_concat()).await?;
        let mut tally = Tally::default();
        tally.count(&ours);
        tally.count(&bases);

        let count = self.push.manifests.len();
        for (position, (descriptor, manifest)) in self.push.manifests.iter().enumerate() {
            let is_top = position + 1 == count;
            if is_top {
                self.put_manifest(&uploader, self.name, descriptor, manifest, &mut tally).await?;
            } else if !self.known.contains(&descriptor.digest) {
                let name = descriptor.digest.to_string();
                self.put_manifest(&uploader, &name, descriptor, manifest, &mut tally).await?;
            }
        }
        Ok(tally)
    }

    /// The blobs that are not known to be in the repository: our own, and those of each base.
    fn unknown(&self, images: &[Vec<Digest>]) -> Result<(Vec<Item<'_>>, Vec<Vec<Item<'_>>>)> {
        let mut seen = HashSet::new();
        let (mut ours, mut bases) = (Vec::new(), Vec::new());
        for image in images {
            let mut base = Vec::new();
            for blob in self.push.blobs.iter().filter(|blob| image.contains(&blob.descriptor.digest)) {
                let digest = blob.descriptor.digest;
                if self.known.contains(&digest) || !seen.insert(digest) {
                    continue;
                }
                let item = self.item(blob)?;
                match &item.source {
                    // A layer of the base in its own repository.
                    Source::Elsewhere(source) if source == self.target => {}
                    Source::Elsewhere(_) => base.push(item),
                    Source::Bytes(_) | Source::File(_) => ours.push(item),
                }
            }
            if !base.is_empty() {
                bases.push(base);
            }
        }
        Ok((ours, bases))
    }

    fn item<'a>(&self, blob: &'a PushBlob<'_>) -> Result<Item<'a>> {
        let source = match &blob.source {
            BlobSource::Bytes(bytes) => Source::Bytes(bytes),
            BlobSource::File(open) => Source::File(&**open),
            BlobSource::Registry(reference) => {
                Source::Elsewhere(Repository::new(reference, self.plain_http)?)
            }
        };
        Ok(Item { blob: &blob.descriptor, source })
    }

    /// Brings a base's layers into the repository.
    ///
    /// One of them is the witness: it comes last, so where it is, the others are. One question
    /// then does for a base of any number of layers, also with registries that take manifests
    /// whose layers they lack.
    async fn bring(&self, uploader: &Uploader<'_>, base: &[Item<'_>]) -> Result<Vec<Placed>> {
        let Some((witness, others)) = base.split_last() else { return Ok(Vec::new()) };
        if exists(self.transport, self.target, witness.blob).await? {
            return Ok(Vec::new());
        }
        let mut placed = self.place(uploader, others.iter()).await?;
        placed.push(uploader.place(witness).await?);
        Ok(placed)
    }

    async fn place<'i>(
        &self,
        uploader: &Uploader<'_>,
        items: impl Iterator<Item = &'i Item<'i>>,
    ) -> Result<Vec<Placed>> {
        stream::iter(items).map(|item| uploader.place(item)).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Puts a manifest. Where the registry lacks blobs that it was believed to have, they are
    /// placed, and the manifest is put once more.
    async fn put_manifest(
        &self,
        uploader: &Uploader<'_>,
        name: &str,
        descriptor: &Descriptor,
        manifest: &Verified,
        tally: &mut Tally,
    ) -> Result<()> {
        let request = Request {
            method: Method::PUT,
            url: self.target.manifest(name),
            repository: self.target,
            scopes: Scopes::push(self.target),
            headers: vec![(CONTENT_TYPE, descriptor.media_type.to_string())],
            payload: Payload::Bytes(manifest.bytes()),
        };
        let mut response = self.transport.send(&request).await?;
        if response.status() != StatusCode::CREATED {
            let said = response.said().await;
            if !said.has(&[OciErrorCode::ManifestBlobUnknown, OciErrorCode::BlobUnknown]) {
                return Err(response.refused_with(said));
            }
            // Not every registry says which; then it is any of them.
            let missing = said.digests();
            let is_missing =
                |blob: &&PushBlob| missing.is_empty() || missing.contains(&blob.descriptor.digest);
            let missing: Vec<Item<'_>> = self
                .push
                .blobs
                .iter()
                .filter(is_missing)
                .map(|blob| self.item(blob))
                .collect::<Result<_>>()?;
            tally.count(&self.place(uploader, missing.iter()).await?);
            response = self.transport.send(&request).await?;
        }
        match response.status() {
            StatusCode::CREATED => check_header(&response, descriptor.digest),
            _ => Err(response.refused().await),
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

/// The blobs of each image, all of which must be listed: no registry is relied on to refuse an
/// image with holes.
fn images(push: &Push<'_>) -> Result<Vec<Vec<Digest>>> {
    let listed: HashSet<Digest> = push.blobs.iter().map(|blob| blob.descriptor.digest).collect();
    let mut images = Vec::new();
    for (descriptor, blob) in &push.manifests {
        let url = || Shown::of(&push.target);
        let document = Document::parse(blob.clone(), Some(descriptor.media_type.as_ref()))
            .map_err(|source| RegistryError::Document { url: url(), source })?;
        if let Document::Manifest(manifest) = document {
            let blobs: Vec<Digest> = blobs(&manifest).collect();
            if let Some(&blob) = blobs.iter().find(|blob| !listed.contains(blob)) {
                return Err(RegistryError::Unlisted { manifest: descriptor.digest, blob });
            }
            images.push(blobs);
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
