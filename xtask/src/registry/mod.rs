//! Registries: images come from them and go to them, by the OCI distribution specification.
//!
//! What comes is checked by digest and size before anything is made of it. What goes is sent once,
//! and a tag is moved last. The requests are our own, over reqwest: oci-client neither retries nor
//! bounds what it reads, and loses uploads that break off; what it knows about references and
//! error codes is used.

mod auth;
mod content;
mod credentials;
mod error;
mod http;
mod journal;
mod pull;
mod push;
mod referrers;
mod repository;
mod response;
mod retry;
mod tags;
mod transport;
mod upload;

use std::io::Write;
use std::path::PathBuf;

pub(crate) use error::RegistryError;
pub(crate) use push::{BlobSource, Push, PushBlob, Pushed, Until};
pub(crate) use referrers::{Referrer, list_document, listed_by, tag as list_tag};
pub(crate) use repository::RegistryName;

use self::auth::{Auth, Scopes};
use self::credentials::Lookup;
use self::error::Shown;
use self::journal::Journal;
use self::pull::Download;
use self::repository::Repository;
use self::retry::Timing;
use self::transport::Transport;
use self::upload::Uploader;
use crate::oci::document::Index;
use crate::oci::verified::VerifyError;
use crate::oci::{Config, Descriptor, Digest, Document, Reference, Verified, config};
use crate::progress::{Progress, Step};

/// Requests are a matter of waiting; one thread would do, and two keep hashing off the network.
const WORKERS: usize = 2;

/// A client for any number of registries. Threads share it; its calls block.
pub(crate) struct Client {
    runtime: tokio::runtime::Runtime,
    transport: Transport,
    plain_http: Vec<RegistryName>,
    progress: Progress,
    journal: Journal,
}

impl Client {
    /// `plain_http` are the registries that are spoken to without encryption, beside those on this
    /// machine. In the folder `journal`, uploads are written down until they are whole.
    pub(crate) fn new(
        plain_http: Vec<RegistryName>,
        progress: Progress,
        journal: PathBuf,
    ) -> anyhow::Result<Client> {
        let journal = Journal::new(journal, progress.clone());
        Client::with(plain_http, progress, journal, (Lookup::system(), Timing::default()))
            .map_err(RegistryError::into_hinted)
    }

    fn with(
        plain_http: Vec<RegistryName>,
        progress: Progress,
        journal: Journal,
        (lookup, timing): (Lookup, Timing),
    ) -> Result<Client, RegistryError> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(WORKERS).enable_all().build().map_err(RegistryError::Runtime)?;
        let transport = Transport::new(Auth::new(lookup), timing, progress.clone());
        Ok(Client { runtime, transport, plain_http, progress, journal })
    }

    /// Whether the registry of `reference` is spoken to without encryption.
    pub(crate) fn is_plain_http(&self, reference: &Reference) -> anyhow::Result<bool> {
        let repository = Repository::new(reference, &self.plain_http).map_err(RegistryError::into_hinted)?;
        Ok(repository.base().scheme() == "http")
    }

    /// Where this machine's login for a repository is; no registry is asked whether it is any good.
    pub(crate) fn login(&self, reference: &Reference) -> anyhow::Result<Option<String>> {
        let repository = Repository::new(reference, &self.plain_http).map_err(RegistryError::into_hinted)?;
        Lookup::system().origin(&repository).map_err(RegistryError::into_hinted)
    }

    /// The document that a reference names, or None where the registry says that there is none.
    pub(crate) fn document(&self, reference: &Reference) -> anyhow::Result<Option<Document>> {
        self.run(async {
            let repository = Repository::new(reference, &self.plain_http)?;
            let name = reference.digest().or(reference.tag()).unwrap_or("latest");
            let scopes = Scopes::pull(&repository);
            let raw = pull::raw_document(&self.transport, &repository, name, scopes).await?;
            raw.map(pull::Raw::parse).transpose()
        })
    }

    /// A document that another one names, in the same repository.
    pub(crate) fn document_by_digest(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
    ) -> anyhow::Result<Document> {
        self.run(async {
            let repository = Repository::new(reference, &self.plain_http)?;
            let name = descriptor.digest.to_string();
            let scopes = Scopes::pull(&repository);
            let raw = pull::raw_document(&self.transport, &repository, &name, scopes).await?;
            let missing = || RegistryError::Missing {
                reference: reference.clone_with_digest(name.clone()).to_string(),
            };
            let raw = raw.ok_or_else(missing)?;
            let found = raw.blob.bytes().len() as u64;
            if found != descriptor.size {
                let (digest, expected, url) = (descriptor.digest, descriptor.size, raw.url);
                let source = VerifyError::Size { digest, expected, found };
                return Err(RegistryError::Verify { url, source });
            }
            raw.parse()
        })
    }

    /// A config that a manifest names.
    pub(crate) fn config(&self, reference: &Reference, descriptor: &Descriptor) -> anyhow::Result<Config> {
        Ok(Config::parse(self.blob(reference, descriptor, config::MAX_SIZE)?)?)
    }

    /// A blob that a manifest names, in memory; none that is larger than `limit` bytes.
    pub(crate) fn blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        limit: u64,
    ) -> anyhow::Result<Verified> {
        self.run(async {
            let repository = Repository::new(reference, &self.plain_http)?;
            let url = Shown::new(&repository.blob(&descriptor.digest.to_string()));
            if descriptor.size > limit {
                return Err(RegistryError::TooLarge { url, limit });
            }
            let mut download = Download::new(&self.transport, &repository, descriptor);
            let mut bytes = Vec::new();
            while let Some(part) = download.next().await? {
                bytes.extend(part);
            }
            Verified::check(bytes, descriptor).map_err(|source| RegistryError::Verify { url, source })
        })
    }

    /// Streams a blob into `out`. What was written is the blob only if this returns Ok: until
    /// then it must not have its final name.
    pub(crate) fn fetch(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        out: &mut dyn Write,
        step: &Step,
    ) -> anyhow::Result<()> {
        self.run(async {
            let repository = Repository::new(reference, &self.plain_http)?;
            let mut download = Download::new(&self.transport, &repository, descriptor);
            while let Some(part) = download.next().await? {
                out.write_all(&part)
                    .map_err(|source| RegistryError::Write { digest: descriptor.digest, source })?;
                step.advance(part.len() as u64);
            }
            Ok(())
        })
    }

    /// The tags of a reference's repository; none where there is no such repository.
    pub(crate) fn tags(&self, reference: &Reference) -> anyhow::Result<Vec<String>> {
        self.run(async {
            let repository = Repository::new(reference, &self.plain_http)?;
            tags::tags(&self.transport, &repository).await
        })
    }

    /// Makes the tag of `target` name `document`, which the repository has.
    pub(crate) fn tag(&self, target: &Reference, document: &Document) -> anyhow::Result<()> {
        self.run(async {
            let repository = Repository::new(target, &self.plain_http)?;
            let tag = target.tag().ok_or_else(|| RegistryError::NothingToPush(Shown::of(target)))?;
            tags::put(&self.transport, &repository, tag, document).await
        })
    }

    /// What refers to the image with this digest, in the repository of `reference`.
    pub(crate) fn referrers(&self, reference: &Reference, subject: Digest) -> anyhow::Result<Vec<Referrer>> {
        self.run(async {
            let repository = Repository::new(reference, &self.plain_http)?;
            referrers::list(&self.transport, &repository, subject).await
        })
    }

    /// Adds what `list` has to the referrers that are listed under the tag of `subject`, in the repository of
    /// `reference`, which has them.
    pub(crate) fn add_referrers(
        &self,
        reference: &Reference,
        subject: Digest,
        list: &Index,
    ) -> anyhow::Result<()> {
        self.run(async {
            let repository = Repository::new(reference, &self.plain_http)?;
            referrers::add_list(&self.transport, &repository, subject, &list.blob).await
        })
    }

    /// Makes sure that the registry of `target` can be reached, and lets us push there. Nothing is
    /// left of it.
    pub(crate) fn check_push(&self, target: &Reference) -> anyhow::Result<()> {
        self.run(async {
            let repository = Repository::new(target, &self.plain_http)?;
            Uploader::new(&self.transport, &repository, &self.progress, &self.journal).knock().await
        })
    }

    /// Sends an image.
    pub(crate) fn push(&self, push: &Push<'_>) -> anyhow::Result<Pushed> {
        let ways = push::Ways {
            transport: &self.transport.counted(),
            plain_http: &self.plain_http,
            progress: &self.progress,
            journal: &self.journal,
        };
        self.run(push::push(&ways, push))
    }

    fn run<T>(&self, work: impl Future<Output = Result<T, RegistryError>>) -> anyhow::Result<T> {
        self.runtime.block_on(work).map_err(RegistryError::into_hinted)
    }
}

#[cfg(test)]
mod tests;
