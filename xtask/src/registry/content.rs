//! What an upload sends: a blob's bytes from anywhere on, which fail before their last one goes out
//! unless they are the blob.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{StreamExt, stream};

use super::error::{RegistryError, Result};
use super::pull::Download;
use super::transport::{BodyStream, Transport};
use super::upload::{Item, Source};
use crate::oci::Verified;
use crate::oci::digest::DigestWriter;
use crate::oci::verified::VerifyError;
use crate::progress::Step;

/// What a blob is read in: small enough that a body on a slow line is seen to move.
pub(super) const READ_SIZE: usize = 256 * 1024;

/// A blob with all that is needed to open it again and again.
pub(super) struct Content<'a> {
    pub(super) item: &'a Item<'a>,
    transport: &'a Transport,
    bar: Arc<Bar>,
    /// Why a stream ended early: what HTTP reports is only that it did.
    failure: Arc<Mutex<Option<RegistryError>>>,
}

/// The bar of one blob, which only moves forward when something is sent again.
struct Bar {
    step: Option<Step>,
    position: AtomicU64,
    /// Bytes that were given out since someone asked.
    moved: AtomicU64,
}

impl Bar {
    fn reach(&self, position: u64) {
        let before = self.position.fetch_max(position, Ordering::Relaxed);
        if let Some(step) = &self.step {
            step.advance(position.saturating_sub(before));
        }
    }
}

impl<'a> Content<'a> {
    pub(super) fn new(item: &'a Item<'a>, transport: &'a Transport, step: Option<Step>) -> Content<'a> {
        let bar = Arc::new(Bar { step, position: AtomicU64::new(0), moved: AtomicU64::new(0) });
        Content { item, transport, bar, failure: Arc::default() }
    }

    /// The bytes from `offset` on. What is not verified yet is hashed, those before `offset` too,
    /// so a stream that ends without an error was the blob.
    pub(super) async fn open(&self, offset: u64) -> Result<BodyStream> {
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
                        bar.moved.fetch_add(part.len() as u64, Ordering::Relaxed);
                        return Ok(Some((part, (parts, hasher, seen))));
                    }
                }
            }
        }))
    }

    /// How many bytes were given out since the last call.
    pub(super) fn take_moved(&self) -> u64 {
        self.bar.moved.swap(0, Ordering::Relaxed)
    }

    pub(super) fn take_failure(&self) -> Option<RegistryError> {
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
