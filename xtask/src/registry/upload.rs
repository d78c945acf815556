//! One blob on its way into a repository: mounted, or sent in one streamed PUT that is taken up
//! again where it broke off.
//! Source: OCI distribution specification, "Pushing blobs", "Mounting a blob from another
//! repository".

use std::io::{self, Read};
use std::pin::Pin;

use futures_util::StreamExt;
use oci_client::errors::OciErrorCode;
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, RANGE};
use reqwest::{Method, StatusCode, Url};
use tokio::sync::Semaphore;

use super::auth::Scopes;
use super::content::{Content, READ_SIZE};
use super::error::{RegistryError, Result, Shown};
use super::journal::{Entry, Journal, Upload};
use super::pull::exists;
use super::repository::Repository;
use super::response::Response;
use super::transport::{BodyStream, Payload, Request, Transport};
use crate::oci::{Descriptor, Verified};
use crate::progress::Progress;

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
    journal: &'a Journal,
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

/// How to go on after a break.
enum Next {
    From(Upload),
    /// In a new session.
    Anew(Way),
}

enum Way {
    /// One streamed PUT: the fastest.
    Whole,
    /// A request for each part, of which those that are whole are kept.
    Parts,
}

/// What a registry will not have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// The session is not there any more, or is not where it should be.
    Session,
    /// It takes no such parts.
    Parts,
    /// It takes nothing so large at once.
    Whole,
}

impl<'a> Uploader<'a> {
    pub(super) fn new(
        transport: &'a Transport,
        target: &'a Repository,
        progress: &'a Progress,
        journal: &'a Journal,
    ) -> Uploader<'a> {
        Uploader { transport, target, progress, journal, bodies: Semaphore::new(BODIES) }
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
        // A mount is faster than going on with anything.
        let is_worth_noting = neighbour.is_none() && blob.size >= WORTH_ASKING;
        let entry = is_worth_noting.then(|| self.journal.entry(self.target, blob)).flatten();
        let start = match entry.as_ref().and_then(Entry::recall) {
            Some(upload) => self.arrived(&upload, None).await?,
            None => Next::Anew(Way::Whole),
        };
        let (upload, way) = match start {
            Next::From(upload) => (upload, Way::Parts),
            Next::Anew(way) => match self.open(blob, from).await? {
                Some(session) => (Upload { session, offset: 0 }, way),
                None => return Ok(if neighbour.is_some() { Placed::Mounted } else { Placed::Present }),
            },
        };
        // Taken only when the registry wants the blob, so that mounts never queue.
        let _permit = self.bodies.acquire().await;
        let step = (blob.size >= WORTH_SHOWING).then(|| {
            let text = format!("sending {} to {}", blob.digest.short(), self.target.registry());
            self.progress.bytes(text, blob.size)
        });
        let content = Content::new(item, self.transport, step);
        let sent = self.send(&content, (upload, way), from, entry.as_ref()).await;
        // What is not going to mend itself must not stop the next run as well.
        if sent.as_ref().err().is_none_or(|error| !error.is_transient())
            && let Some(entry) = entry
        {
            entry.forget();
        }
        sent.map(|()| Placed::Uploaded)
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
    async fn send(
        &self,
        content: &Content<'_>,
        (mut upload, way): (Upload, Way),
        from: &Repository,
        entry: Option<&Entry>,
    ) -> Result<()> {
        let mut retry = self.transport.retry();
        let mut sessions = 0;
        // What a session is known to have, at the last break.
        let mut kept = upload.offset;
        let mut outcome = self.transfer(content, &mut upload, way, entry).await;
        loop {
            let error = match outcome {
                Ok(()) => return Ok(()),
                Err(error) => content.take_failure().unwrap_or(error),
            };
            let refusal = Refusal::of(&error);
            let moved = content.take_moved();
            if moved >= PART_SIZE as u64 {
                retry.be_patient();
                retry.shorten();
            }
            if !(refusal.is_some() || error.is_transient()) || !retry.wait(&error).await {
                return Err(error);
            }
            let next = match refusal {
                // The other way is what is left to try.
                Some(Refusal::Parts) => Ok(Next::Anew(Way::Whole)),
                Some(Refusal::Whole) => Ok(Next::Anew(Way::Parts)),
                Some(Refusal::Session) | None => self.arrived(&upload, refusal).await,
            };
            outcome = match next {
                Ok(Next::From(next)) => {
                    if next.offset >= kept + READ_SIZE as u64 {
                        retry.reset();
                        kept = next.offset;
                    }
                    upload = next;
                    self.transfer(content, &mut upload, Way::Parts, entry).await
                }
                Ok(Next::Anew(way)) => {
                    sessions += 1;
                    if sessions >= self.transport.timing().patient_tries {
                        return Err(error);
                    }
                    // A session that is gone may be gone because it succeeded.
                    let Some(session) = self.open(content.item.blob, from).await? else { return Ok(()) };
                    kept = 0;
                    upload = Upload { session, offset: 0 };
                    self.transfer(content, &mut upload, way, entry).await
                }
                Err(error) => Err(error),
            };
        }
    }

    /// Sends what is missing of an upload; in parts, it is then as far as they were taken.
    async fn transfer(
        &self,
        content: &Content<'_>,
        upload: &mut Upload,
        way: Way,
        entry: Option<&Entry>,
    ) -> Result<()> {
        if let Some(entry) = entry {
            entry.note(upload);
        }
        match way {
            Way::Whole => self.put(content, &upload.session).await,
            Way::Parts => self.send_parts(content, upload, entry).await,
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

    /// How to go on after a break: by what the registry says of the upload, or else by what it said
    /// when it took the last part.
    async fn arrived(&self, upload: &Upload, refusal: Option<Refusal>) -> Result<Next> {
        let request = self.request(Method::GET, upload.session.clone(), Payload::Empty);
        let response = self.transport.send(&request).await?;
        if response.status().is_success() {
            let session = response.location().unwrap_or_else(|_| upload.session.clone());
            return Ok(match range_end(&response).filter(|&offset| offset > 1) {
                // It was right, so it is the part that is not.
                Some(offset) if refusal.is_some() && offset == upload.offset => Next::Anew(Way::Whole),
                Some(offset) => Next::From(Upload { session, offset }),
                // It keeps the session and nothing of a body that breaks off: of parts, it keeps
                // those that are whole.
                None => Next::Anew(Way::Parts),
            });
        }
        let error = response.refused().await;
        Ok(match Refusal::of(&error) {
            // It keeps nothing that breaks off, in parts or at once.
            Some(Refusal::Session) => Next::Anew(Way::Whole),
            // Not every registry answers this question.
            Some(Refusal::Parts | Refusal::Whole) | None => match (refusal, upload.offset) {
                (Some(_), _) => Next::Anew(Way::Whole),
                (None, 0) => Next::Anew(Way::Parts),
                (None, _) => Next::From(upload.clone()),
            },
        })
    }

    async fn send_parts(
        &self,
        content: &Content<'_>,
        upload: &mut Upload,
        entry: Option<&Entry>,
    ) -> Result<()> {
        let mut stream = content.open(upload.offset).await?;
        let mut pending = Vec::new();
        loop {
            while pending.len() < PART_SIZE
                && let Some(bytes) = stream.next().await
            {
                let digest = content.item.blob.digest;
                pending.extend(bytes.map_err(|source| RegistryError::Read { digest, source })?);
            }
            if pending.is_empty() {
                return self.finish(content, &upload.session, Payload::Empty).await;
            }
            let rest = pending.split_off(pending.len().min(PART_SIZE));
            let part = std::mem::replace(&mut pending, rest);
            let end = upload.offset + part.len() as u64;
            let mut request = self.request(Method::PATCH, upload.session.clone(), Payload::Bytes(&part));
            request.headers.push((CONTENT_TYPE, OCTETS.to_owned()));
            request.headers.push((CONTENT_RANGE, format!("{}-{}", upload.offset, end - 1)));
            let response = self.transport.once(&request).await?;
            if !response.status().is_success() {
                return Err(response.refused().await);
            }
            *upload = Upload { session: response.location()?, offset: end };
            if let Some(entry) = entry {
                entry.note(upload);
            }
        }
    }

    fn request<'r>(&'r self, method: Method, url: Url, payload: Payload<'r>) -> Request<'r> {
        let (repository, scopes) = (self.target, Scopes::push(self.target));
        Request { method, url, repository, scopes, headers: Vec::new(), payload }
    }
}

impl Refusal {
    fn of(error: &RegistryError) -> Option<Refusal> {
        let RegistryError::Refused { method, status, said, .. } = error else { return None };
        let codes = [OciErrorCode::BlobUploadUnknown, OciErrorCode::BlobUploadInvalid];
        if *status == StatusCode::RANGE_NOT_SATISFIABLE || said.has(&codes) {
            return Some(Refusal::Session);
        }
        // What is sent is what it should be, so it came together from something else.
        if *method == Method::PUT && said.has(&[OciErrorCode::DigestInvalid]) {
            return Some(Refusal::Session);
        }
        // Too small a part, too large a one, or none at all: registries say so in many ways.
        match (method.as_str(), status.as_u16()) {
            ("PATCH", 400 | 404 | 405 | 411 | 413 | 415 | 501) => Some(Refusal::Parts),
            ("PUT", 413) => Some(Refusal::Whole),
            _ => None,
        }
    }
}

/// The number of bytes in `Range: 0-<last>`. docker's registry writes `0-0` for none as well as
/// for one, so one counts as none.
fn range_end(response: &Response) -> Option<u64> {
    let range = response.header(RANGE)?;
    let last: u64 = range.trim_start_matches("bytes=").strip_prefix("0-")?.parse().ok()?;
    last.checked_add(1)
}
