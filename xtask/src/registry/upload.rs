//! One blob on its way into a repository: mounted, or sent in one streamed PUT that is taken up
//! again where it broke off.
//! Source: OCI distribution specification, "Pushing blobs", "Mounting a blob from another
//! repository".

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{StreamExt, stream};
use oci_client::errors::OciErrorCode;
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, RANGE};
use reqwest::{Method, StatusCode, Url};
use tokio::sync::Semaphore;

use super::auth::Scopes;
use super::error::{RegistryError, Result, Shown};
use super::pull::{Download, exists};
use super::repository::Repository;
use super::response::Response;
use super::transport::{BodyStream, Payload, Request, Transport};
use crate::oci::digest::DigestWriter;
use crate::oci::verified::VerifyError;
use crate::oci::{Descriptor, Verified};
use crate::progress::{Progress, Step};

/// What a blob is read in: small enough that a body on a slow line is seen to move.
const READ_SIZE: usize = 256 * 1024;
/// The largest part after a break. GHCR answers 416 to larger ones.
const PART_SIZE: usize = 4 * 1024 * 1024;
/// From here on, asking whether a blob is there is cheaper than the chance of sending it in vain.
const WORTH_ASKING: u64 = 8 * 1024 * 1024;
/// From here on, an upload takes long enough to show.
const WORTH_SHOWING: u64 = 1024 * 1024;
/// How many bodies go out at once: more share the same line, and hold more memory.
const BODIES: usize = 4;
const OCTETS: &str = "application/octet-stream";

/// Opens a blob's bytes from their beginning; called again where a transfer broke off.
pub(crate) type Open<'a> = dyn Fn() -> io::Result<Box<dyn Read + Send>> + Send + Sync + 'a;

/// How a blob got where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    Uploaded,
    Mounted,
    /// It was there.
    Present,
}

/// Places blobs in one repository.
pub(super) struct Uploader<'a> {
    pub(super) transport: &'a Transport,
    pub(super) target: &'a Repository,
    pub(super) progress: &'a Progress,
    bodies: Semaphore,
}

/// A blob and the place that its bytes come from.
pub(super) struct Item<'a> {
    pub(super) blob: &'a Descriptor,
    pub(super) source: Source<'a>,
    pub(super) presence: Presence,
}

/// What is known of a blob in the repository that it goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Unknown,
    /// The registry said that it lacks it.
    Missing,
}

pub(super) enum Source<'a> {
    Bytes(&'a Verified),
    File(&'a Open<'a>),
    Elsewhere(Repository),
}

/// A blob with all that is needed to open it again and again.
struct Content<'a> {
    item: &'a Item<'a>,
    transport: &'a Transport,
    bar: Arc<Bar>,
    /// Why a stream ended early: what HTTP reports is only that it did.
    failure: Arc<Mutex<Option<RegistryError>>>,
}

/// The bar of one blob, which only moves forward when something is sent again.
struct Bar {
    step: Option<Step>,
    position: AtomicU64,
}

impl Bar {
    fn reach(&self, position: u64) {
        let before = self.position.fetch_max(position, Ordering::Relaxed);
        if let Some(step) = &self.step {
            step.advance(position.saturating_sub(before));
        }
    }
}

impl<'a> Uploader<'a> {
    pub(super) fn new(
        transport: &'a Transport,
        target: &'a Repository,
        progress: &'a Progress,
    ) -> Uploader<'a> {
        Uploader { transport, target, progress, bodies: Semaphore::new(BODIES) }
    }

    /// Sees to it that the repository has a blob.
    pub(super) async fn place(&self, item: &Item<'_>) -> Result<Placed> {
        let blob = item.blob;
        let neighbour = match &item.source {
            Source::Elsewhere(source) => Some(source).filter(|source| source.same_registry(self.target)),
            Source::Bytes(_) | Source::File(_) => None,
        };
        if neighbour.is_some_and(|source| source.name() == self.target.name()) {
            let url = Shown::new(self.target.base());
            return Err(RegistryError::Contradiction { url, blob: blob.digest });
        }
        // A mount also answers whether the blob is there. For blobs that come from nowhere in the
        // registry, only some take "mount it from where it goes" as that question.
        let is_worth_asking = match (item.presence, &item.source) {
            (Presence::Missing, _) => false,
            // In vain, it would be fetched as well.
            (Presence::Unknown, Source::Elsewhere(_)) => neighbour.is_none(),
            (Presence::Unknown, Source::Bytes(_) | Source::File(_)) => blob.size >= WORTH_ASKING,
        };
        if is_worth_asking && exists(self.transport, self.target, blob).await? {
            return Ok(Placed::Present);
        }
        let from = neighbour.unwrap_or(self.target);
        let Some(session) = self.open(blob, from).await? else {
            return Ok(if neighbour.is_some() { Placed::Mounted } else { Placed::Present });
        };
        // Taken only when the registry wants the blob, so that mounts never queue.
        let _permit = self.bodies.acquire().await;
        let step = (blob.size >= WORTH_SHOWING).then(|| {
            let text = format!("sending {} to {}", blob.digest.short(), self.target.registry());
            self.progress.bytes(text, blob.size)
        });
        let bar = Arc::new(Bar { step, position: AtomicU64::new(0) });
        let content = Content { item, transport: self.transport, bar, failure: Arc::default() };
        self.send(&content, session, from).await?;
        Ok(Placed::Uploaded)
    }

    /// Finds out whether the repository takes anything from us: opens an upload, and gives it up.
    pub(super) async fn knock(&self) -> Result<()> {
        let request = self.request(Method::POST, self.target.uploads(), Payload::Empty);
        let response = self.transport.send(&request).await?;
        if response.status() != StatusCode::ACCEPTED {
            return Err(response.refused().await);
        }
        // Where giving it up is not known, the registry does so by itself some day.
        let session = response.location()?;
        self.transport.once(&self.request(Method::DELETE, session, Payload::Empty)).await.map(drop).or(Ok(()))
    }

    /// Opens an upload, unless the repository has the blob or gets it from `from`.
    async fn open(&self, blob: &Descriptor, from: &Repository) -> Result<Option<Url>> {
        let url = self.target.mount(&blob.digest.to_string(), from.name());
        let scopes = Scopes::mount(self.target, from);
        let request = Request { scopes, ..self.request(Method::POST, url, Payload::Empty) };
        let response = self.transport.send(&request).await?;
        match response.status() {
            StatusCode::CREATED => Ok(None),
            StatusCode::ACCEPTED => response.location().map(Some),
            _ => Err(response.refused().await),
        }
    }

    /// Sends a blob into an upload, and into new ones where that is lost.
    async fn send(&self, content: &Content<'_>, session: Url, from: &Repository) -> Result<()> {
        let mut retry = self.transport.retry();
        let mut outcome = self.put(content, &session).await;
        let mut session = session;
        let mut broke_at = 0;
        loop {
            let error = match outcome {
                Ok(()) => return Ok(()),
                Err(error) => content.take_failure().unwrap_or(error),
            };
            let lost = is_lost(&error);
            if !(lost || error.is_transient()) || !retry.wait(&error, None).await {
                return Err(error);
            }
            outcome = match self.arrived(&session).await {
                Ok(Some((offset, next))) => {
                    if offset >= broke_at + PART_SIZE as u64 {
                        retry.reset();
                    }
                    broke_at = offset;
                    session = next;
                    self.resume(content, &mut session, offset).await
                }
                // A session that is gone may be gone because it succeeded.
                Ok(None) => match self.open(content.item.blob, from).await? {
                    Some(next) => {
                        session = next;
                        self.put(content, &session).await
                    }
                    None => Ok(()),
                },
                Err(error) => Err(error),
            };
        }
    }

    /// The whole blob in one PUT.
    async fn put(&self, content: &Content<'_>, session: &Url) -> Result<()> {
        let size = content.item.blob.size;
        let open =
            || -> Pin<Box<dyn Future<Output = Result<BodyStream>> + Send + '_>> { Box::pin(content.open(0)) };
        self.finish(content, session, Payload::Stream { size, open: &open }).await
    }

    /// A PUT that ends an upload: the registry checks the digest of all that came.
    async fn finish<'r>(&'r self, content: &Content<'_>, session: &Url, payload: Payload<'r>) -> Result<()> {
        let mut url = session.clone();
        url.query_pairs_mut().append_pair("digest", &content.item.blob.digest.to_string());
        let mut request = self.request(Method::PUT, url, payload);
        request.headers.push((CONTENT_TYPE, OCTETS.to_owned()));
        let response = self.transport.once(&request).await?;
        match response.status() {
            StatusCode::CREATED | StatusCode::NO_CONTENT => Ok(()),
            _ => Err(response.refused().await),
        }
    }

    /// How much of an upload has come, and where it goes on; None when there is nothing to go on
    /// with.
    async fn arrived(&self, session: &Url) -> Result<Option<(u64, Url)>> {
        let request = self.request(Method::GET, session.clone(), Payload::Empty);
        let response = self.transport.send(&request).await?;
        if !response.status().is_success() {
            return Ok(None);
        }
        let offset = range_end(&response).filter(|&offset| offset > 1);
        Ok(offset.map(|offset| (offset, response.location().unwrap_or_else(|_| session.clone()))))
    }

    /// Sends what is missing from `offset` on, in parts.
    async fn resume(&self, content: &Content<'_>, session: &mut Url, mut offset: u64) -> Result<()> {
        let mut stream = content.open(offset).await?;
        let mut pending = Vec::new();
        loop {
            while pending.len() < PART_SIZE
                && let Some(bytes) = stream.next().await
            {
                let digest = content.item.blob.digest;
                pending.extend(bytes.map_err(|source| RegistryError::Read { digest, source })?);
            }
            if pending.is_empty() {
                return self.finish(content, session, Payload::Empty).await;
            }
            let rest = pending.split_off(pending.len().min(PART_SIZE));
            let part = std::mem::replace(&mut pending, rest);
            let end = offset + part.len() as u64;
            let mut request = self.request(Method::PATCH, session.clone(), Payload::Bytes(&part));
            request.headers.push((CONTENT_TYPE, OCTETS.to_owned()));
            request.headers.push((CONTENT_RANGE, format!("{offset}-{}", end - 1)));
            let response = self.transport.once(&request).await?;
            if !response.status().is_success() {
                return Err(response.refused().await);
            }
            *session = response.location()?;
            offset = end;
        }
    }

    fn request<'r>(&'r self, method: Method, url: Url, payload: Payload<'r>) -> Request<'r> {
        let (repository, scopes) = (self.target, Scopes::push(self.target));
        Request { method, url, repository, scopes, headers: Vec::new(), payload }
    }
}

impl Content<'_> {
    /// The bytes from `offset` on. What is not verified yet is hashed, those before `offset` too,
    /// so a stream that ends without an error was the blob.
    async fn open(&self, offset: u64) -> Result<BodyStream> {
        let digest = self.item.blob.digest;
        let hasher = || Some(DigestWriter::new(io::sink()));
        let (parts, hasher): (BodyStream, _) = match &self.item.source {
            Source::Bytes(bytes) => (bytes_stream((*bytes).clone()), None),
            Source::File(open) => {
                let reader = open().map_err(|source| RegistryError::Read { digest, source })?;
                (file_stream(reader), hasher())
            }
            Source::Elsewhere(repository) => {
                let download = Download::new(self.transport, repository, self.item.blob);
                let failure = self.failure.clone();
                let parts = stream::try_unfold(download, move |mut download| {
                    let failure = failure.clone();
                    async move {
                        match download.next().await {
                            Ok(part) => Ok(part.map(|part| (part, download))),
                            Err(error) => Err(fail(&failure, error)),
                        }
                    }
                });
                (Box::pin(parts), hasher())
            }
        };
        Ok(self.checked(parts, hasher, offset))
    }

    /// `parts` from `offset` on, which end with an error unless they are the whole blob.
    fn checked(&self, parts: BodyStream, hasher: Option<DigestWriter<io::Sink>>, offset: u64) -> BodyStream {
        let (blob, bar, failure) = (self.item.blob.clone(), self.bar.clone(), self.failure.clone());
        let state = (parts, hasher, 0u64);
        Box::pin(stream::try_unfold(state, move |(mut parts, mut hasher, mut seen)| {
            let (blob, bar, failure) = (blob.clone(), bar.clone(), failure.clone());
            async move {
                let refuse = |source| fail(&failure, RegistryError::Changed(source));
                let size = |found| VerifyError::Size { digest: blob.digest, expected: blob.size, found };
                loop {
                    let Some(part) = parts.next().await else {
                        // The last part was given out when its digest was known.
                        return if seen == blob.size { Ok(None) } else { Err(refuse(size(seen))) };
                    };
                    let mut part = part?;
                    seen += part.len() as u64;
                    if seen > blob.size {
                        return Err(refuse(size(seen)));
                    }
                    if let Some(hasher) = &mut hasher {
                        hasher.write_all(&part)?;
                    }
                    // Checked before the last byte goes out, not after: then the upload fails.
                    if seen == blob.size
                        && let Some(hasher) = hasher.take()
                    {
                        let (_, found, _) = hasher.finish();
                        if found != blob.digest {
                            let expected = blob.digest;
                            return Err(refuse(VerifyError::Digest { expected, found }));
                        }
                    }
                    let skip = (offset + part.len() as u64).saturating_sub(seen).min(part.len() as u64);
                    part.drain(..skip as usize);
                    if !part.is_empty() {
                        bar.reach(seen);
                        return Ok(Some((part, (parts, hasher, seen))));
                    }
                }
            }
        }))
    }

    fn take_failure(&self) -> Option<RegistryError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Keeps the reason, and gives HTTP something to end the request with.
fn fail(failure: &Mutex<Option<RegistryError>>, error: RegistryError) -> io::Error {
    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    io::Error::other("the source failed")
}

/// Parts of bytes that stay where they are: only what is on its way is copied.
fn bytes_stream(blob: Verified) -> BodyStream {
    let starts = (0..blob.bytes().len()).step_by(READ_SIZE);
    let part = move |start: usize| {
        let rest = &blob.bytes()[start..];
        rest[..rest.len().min(READ_SIZE)].to_vec()
    };
    Box::pin(stream::iter(starts).map(move |start| Ok(part(start))))
}

/// Reads a file off the threads that serve connections.
fn file_stream(reader: Box<dyn Read + Send>) -> BodyStream {
    Box::pin(stream::try_unfold(reader, |mut reader| async move {
        let read = tokio::task::spawn_blocking(move || {
            let mut part = Vec::with_capacity(READ_SIZE);
            reader.by_ref().take(READ_SIZE as u64).read_to_end(&mut part).map(|_| (part, reader))
        });
        let (part, reader) = read.await.map_err(io::Error::other)??;
        Ok((!part.is_empty()).then_some((part, reader)))
    }))
}

/// Whether an upload session no longer exists, or is not where it should be.
fn is_lost(error: &RegistryError) -> bool {
    let RegistryError::Refused { status, said, .. } = error else { return false };
    *status == StatusCode::RANGE_NOT_SATISFIABLE
        || said.has(&[OciErrorCode::BlobUploadUnknown, OciErrorCode::BlobUploadInvalid])
}

/// The number of bytes in `Range: 0-<last>`. docker's registry writes `0-0` for none as well as
/// for one, so one counts as none.
fn range_end(response: &Response) -> Option<u64> {
    let range = response.header(RANGE)?;
    let last: u64 = range.trim_start_matches("bytes=").strip_prefix("0-")?.parse().ok()?;
    last.checked_add(1)
}
