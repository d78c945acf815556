//! Reading: documents and blobs, none of which is given out before it is known to be right.

use std::io::{self, Write};

use oci_client::errors::OciErrorCode;
use reqwest::header::{ACCEPT, CONTENT_RANGE, CONTENT_TYPE, HeaderName, RANGE};
use reqwest::{Method, StatusCode, Url};

use super::auth::Scopes;
use super::error::{RegistryError, Result, Shown};
use super::repository::Repository;
use super::response::Response;
use super::retry::Retry;
use super::transport::{Payload, Request, Transport};
use crate::oci::digest::DigestWriter;
use crate::oci::document::MAX_SIZE;
use crate::oci::verified::VerifyError;
use crate::oci::{Descriptor, Digest, Document, Verified};

/// The documents that can be read, ours first.
const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json";
/// Where a registry says what it believes the digest of a document to be.
/// Source: OCI distribution specification, "Pulling manifests".
pub(super) const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// After this much, a connection that breaks off has done enough for its tries to count anew.
const PROGRESS: u64 = 1024 * 1024;

/// A manifest or index as it came, and its Content-Type.
pub(super) struct Raw {
    pub(super) url: Shown,
    pub(super) blob: Verified,
    content_type: Option<String>,
}

impl Raw {
    pub(super) fn parse(self) -> Result<Document> {
        let Raw { url, blob, content_type } = self;
        Document::parse(blob, content_type.as_deref())
            .map_err(|source| RegistryError::Document { url, source })
    }
}

/// The document under a tag or digest, or None where the registry says that there is none.
pub(super) async fn raw_document(
    transport: &Transport,
    repository: &Repository,
    reference: &str,
    scopes: Scopes,
) -> Result<Option<Raw>> {
    let request =
        get(repository, repository.manifest(reference), scopes, vec![(ACCEPT, ACCEPTED.to_owned())]);
    let mut retry = transport.retry();
    loop {
        let mut response = transport.send(&request).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                let said = response.said().await;
                let absent =
                    [OciErrorCode::ManifestUnknown, OciErrorCode::NameUnknown, OciErrorCode::NotFound];
                return match said.is_empty() || said.has(&absent) {
                    true => Ok(None),
                    false => Err(RegistryError::NotARegistry { url: response.shown() }),
                };
            }
            _ => return Err(response.refused().await),
        }
        match response.read(MAX_SIZE).await {
            Ok(body) => return check(&response, body, reference).map(Some),
            Err(error) if error.is_transient() && retry.wait(&error).await => {}
            Err(error) => return Err(error),
        }
    }
}

/// Checks a document against every digest that was given for it.
fn check(response: &Response, body: Vec<u8>, reference: &str) -> Result<Raw> {
    let url = response.shown();
    let blob = match reference.parse::<Digest>() {
        Ok(digest) => Verified::check_digest(body, digest)
            .map_err(|source| RegistryError::Verify { url: url.clone(), source })?,
        Err(_) => Verified::own(body),
    };
    check_header(response, blob.digest())?;
    let content_type = response.header(CONTENT_TYPE).map(str::to_owned);
    Ok(Raw { url, blob, content_type })
}

/// Refuses a Docker-Content-Digest that lies. One by another algorithm says nothing about ours.
pub(super) fn check_header(response: &Response, found: Digest) -> Result<()> {
    let said = response.header(DOCKER_CONTENT_DIGEST).filter(|said| said.starts_with("sha256:"));
    match said {
        Some(said) if said.parse() != Ok(found) => {
            let said = said.chars().take(80).collect();
            Err(RegistryError::DigestHeader { url: response.shown(), said, found })
        }
        _ => Ok(()),
    }
}

/// Whether a repository has a blob.
pub(super) async fn exists(
    transport: &Transport,
    repository: &Repository,
    blob: &Descriptor,
) -> Result<bool> {
    let mut request =
        get(repository, repository.blob(&blob.digest.to_string()), Scopes::push(repository), vec![]);
    request.method = Method::HEAD;
    let response = transport.send(&request).await?;
    match response.status() {
        StatusCode::OK => Ok(true),
        StatusCode::NOT_FOUND => Ok(false),
        _ => Err(response.refused().await),
    }
}

/// A blob on its way here: in parts, hashed as they come, taken up again where it broke off.
pub(super) struct Download {
    transport: Transport,
    repository: Repository,
    scopes: Scopes,
    blob: Descriptor,
    hasher: DigestWriter<io::Sink>,
    received: u64,
    retry: Retry,
    /// What had been received when the tries last began to count anew.
    broke_at: u64,
    /// What comes again at the beginning of an answer.
    skip: u64,
    response: Option<Response>,
}

impl Download {
    pub(super) fn new(transport: &Transport, repository: &Repository, blob: &Descriptor) -> Download {
        Download {
            transport: transport.clone(),
            repository: repository.clone(),
            scopes: Scopes::pull(repository),
            blob: blob.clone(),
            hasher: DigestWriter::new(io::sink()),
            received: 0,
            retry: transport.retry(),
            broke_at: 0,
            skip: 0,
            response: None,
        }
    }

    /// The next part; None once everything has come and is as promised.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            let part = match &mut self.response {
                Some(response) => response.chunk().await,
                None => match self.open().await {
                    Ok(response) => {
                        self.response = Some(response);
                        continue;
                    }
                    // With nothing to lose, the tries of one request are enough.
                    Err(error) if self.received < PROGRESS => return Err(error),
                    Err(error) => Err(error),
                },
            };
            match part {
                Ok(Some(mut part)) => {
                    let again = self.skip.min(part.len() as u64);
                    self.skip -= again;
                    part.drain(..again as usize);
                    if part.is_empty() {
                        continue;
                    }
                    self.received += part.len() as u64;
                    if self.received > self.blob.size {
                        let (digest, expected) = (self.blob.digest, self.blob.size);
                        let found = self.received;
                        return Err(self.failed(VerifyError::Size { digest, expected, found }));
                    }
                    self.hasher
                        .write_all(&part)
                        .map_err(|source| RegistryError::Write { digest: self.blob.digest, source })?;
                    return Ok(Some(part));
                }
                Ok(None) => return self.verify().map(|()| None),
                Err(error) => {
                    self.response = None;
                    // What broke off was the end alone, and no registry has anything behind it.
                    if self.received == self.blob.size {
                        return self.verify().map(|()| None);
                    }
                    if self.received >= self.broke_at + PROGRESS {
                        self.retry.reset();
                        self.retry.be_patient();
                        self.broke_at = self.received;
                    }
                    if !error.is_transient() || !self.retry.wait(&error).await {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Asks for what is missing.
    async fn open(&mut self) -> Result<Response> {
        self.skip = 0;
        let from = self.received;
        let headers = if from > 0 { vec![(RANGE, format!("bytes={from}-"))] } else { vec![] };
        let url = self.repository.blob(&self.blob.digest.to_string());
        let request = get(&self.repository, url, self.scopes.clone(), headers);
        let response = self.transport.send(&request).await?;
        match response.status() {
            StatusCode::OK => {
                if let Some(found) = response.content_length().filter(|&length| length != self.blob.size) {
                    let (digest, expected) = (self.blob.digest, self.blob.size);
                    return Err(self.failed(VerifyError::Size { digest, expected, found }));
                }
                // A registry without ranges sends once more what has come already.
                self.skip = from;
                Ok(response)
            }
            StatusCode::PARTIAL_CONTENT if from > 0 => {
                let expected = format!("bytes {from}-");
                match response.header(CONTENT_RANGE).is_some_and(|range| range.starts_with(&expected)) {
                    true => Ok(response),
                    false => Err(RegistryError::Header { url: response.shown(), header: "Content-Range" }),
                }
            }
            _ => Err(response.refused().await),
        }
    }

    fn verify(&mut self) -> Result<()> {
        let (digest, expected) = (self.blob.digest, self.blob.size);
        let hasher = std::mem::replace(&mut self.hasher, DigestWriter::new(io::sink()));
        let (_, found, size) = hasher.finish();
        if size != expected {
            return Err(self.failed(VerifyError::Size { digest, expected, found: size }));
        }
        if found != digest {
            return Err(self.failed(VerifyError::Digest { expected: digest, found }));
        }
        Ok(())
    }

    fn failed(&self, source: VerifyError) -> RegistryError {
        RegistryError::Verify { url: self.shown(), source }
    }

    fn shown(&self) -> Shown {
        Shown::new(&self.repository.blob(&self.blob.digest.to_string()))
    }
}

pub(super) fn get(
    repository: &Repository,
    url: Url,
    scopes: Scopes,
    headers: Vec<(HeaderName, String)>,
) -> Request<'_> {
    Request { method: Method::GET, url, repository, scopes, headers, payload: Payload::Empty }
}
