//! What is attached to an image: listed and added to, by the registry's own API, or, where it has
//! none, by the index that a tag names.
//! Source: OCI distribution specification 1.1, "Listing Referrers", "Pushing Manifests with Subject",
//! "Referrers Tag Schema".

use std::collections::HashSet;

use reqwest::StatusCode;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderName};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::auth::Scopes;
use super::error::{RegistryError, Result, Shown};
use super::pull::{check_header, get, raw_document};
use super::repository::Repository;
use super::tags::{next, put_request};
use super::transport::Transport;
use super::upload::{Item, Presence, Source, Uploader};
use crate::oci::document::{DocumentError, MAX_SIZE};
use crate::oci::{Artifact, Descriptor, Digest, Document, MediaType, Verified};

/// What a registry with the API answers when it takes a manifest with a subject.
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
/// More than that are a registry's mistake, or an attack.
const MAX_PAGES: usize = 100;
const MAX_REFERRERS: usize = 10_000;
/// Source: RFC 6838, 4.2: 127 characters, a slash, and 127 more.
const LONGEST_TYPE: usize = 255;
/// How often an index is written that others write at the same time.
const TRIES: usize = 5;

/// Something that refers to an image, as a list names it. What it is shows when it is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Referrer {
    /// Of its manifest.
    pub(crate) descriptor: Descriptor,
    pub(crate) artifact_type: Option<String>,
}

#[derive(Deserialize)]
struct List {
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(flatten)]
    descriptor: Descriptor,
    artifact_type: Option<String>,
}

impl From<Entry> for Referrer {
    fn from(Entry { descriptor, artifact_type }: Entry) -> Referrer {
        Referrer { descriptor, artifact_type }
    }
}

/// All that refers to `subject`.
pub(super) async fn list(
    transport: &Transport,
    repository: &Repository,
    subject: Digest,
) -> Result<Vec<Referrer>> {
    let scopes = Scopes::pull(repository);
    match by_api(transport, repository, subject, &scopes).await? {
        Some(referrers) => Ok(referrers),
        None => Ok(by_tag(transport, repository, subject, &scopes).await?.1),
    }
}

/// Attaches `artifacts` to `subject`; gives how many were not there before.
pub(super) async fn attach(
    uploader: &Uploader<'_>,
    subject: Digest,
    artifacts: &[&Artifact],
) -> Result<usize> {
    let (transport, repository) = (uploader.transport, uploader.target);
    let scopes = Scopes::push(repository);
    let listed = by_api(transport, repository, subject, &scopes).await?;
    let has_api = listed.is_some();
    let listed = match listed {
        Some(listed) => listed,
        None => by_tag(transport, repository, subject, &scopes).await?.1,
    };
    let missing = missing(artifacts, &listed);
    let mut is_listed = true;
    for artifact in &missing {
        for (blob, bytes) in artifact.blobs() {
            let item = Item { blob, source: Source::Bytes(bytes), presence: Presence::Unknown };
            uploader.place(&item).await?;
        }
        is_listed &= put(uploader, artifact).await?;
    }
    // A registry lists what it says that it has taken as a referrer. Some have the API, and do not
    // say so.
    if !is_listed && has_api {
        let listed = by_api(transport, repository, subject, &scopes).await?.unwrap_or_default();
        is_listed = self::missing(artifacts, &listed).is_empty();
    }
    if !is_listed {
        let entries: Vec<Value> = artifacts.iter().map(|artifact| artifact.entry().clone()).collect();
        extend_tag(transport, repository, subject, &entries).await?;
    }
    Ok(missing.len())
}

fn missing<'a>(artifacts: &[&'a Artifact], listed: &[Referrer]) -> Vec<&'a Artifact> {
    let listed: HashSet<Digest> = listed.iter().map(|referrer| referrer.descriptor.digest).collect();
    artifacts.iter().copied().filter(|artifact| !listed.contains(&artifact.manifest().digest())).collect()
}

/// What the API lists, or None where there is none.
async fn by_api(
    transport: &Transport,
    repository: &Repository,
    subject: Digest,
    scopes: &Scopes,
) -> Result<Option<Vec<Referrer>>> {
    let mut referrers: Vec<Referrer> = Vec::new();
    let mut url = repository.referrers(&subject.to_string());
    for _ in 0..MAX_PAGES {
        let accept = vec![(ACCEPT, MediaType::ImageIndex.to_string())];
        let request = get(repository, url.clone(), scopes.clone(), accept);
        let mut response = transport.send(&request).await?;
        let is_index = response
            .header(CONTENT_TYPE)
            .is_some_and(|sent| sent.split(';').next() == Some(MediaType::ImageIndex.as_ref()));
        match response.status() {
            StatusCode::OK if is_index => {}
            // Registries without the API answer with what they have for unknown addresses.
            StatusCode::OK
            | StatusCode::BAD_REQUEST
            | StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_ACCEPTABLE
            | StatusCode::NOT_IMPLEMENTED
                if referrers.is_empty() =>
            {
                return Ok(None);
            }
            _ => return Err(response.refused().await),
        }
        let body = response.read(MAX_SIZE).await?;
        let document = Verified::own(body);
        referrers.extend(entries(&document, response.shown())?);
        if referrers.len() > MAX_REFERRERS {
            return Err(RegistryError::TooMany {
                url: response.shown(),
                limit: MAX_REFERRERS,
                what: "referrers",
            });
        }
        match next(&response)? {
            Some(next) => url = next,
            None => return Ok(Some(referrers)),
        }
    }
    Err(RegistryError::TooMany { url: Shown::new(&url), limit: MAX_REFERRERS, what: "referrers" })
}

/// The index that the tag names, if there is one, and what it lists.
async fn by_tag(
    transport: &Transport,
    repository: &Repository,
    subject: Digest,
    scopes: &Scopes,
) -> Result<(Option<Verified>, Vec<Referrer>)> {
    let tag = tag(subject);
    let Some(raw) = raw_document(transport, repository, &tag, scopes.clone()).await? else {
        return Ok((None, Vec::new()));
    };
    let url = raw.url.clone();
    let Document::Index(index) = raw.parse()? else { return Err(RegistryError::NoList { url }) };
    let referrers = entries(&index.blob, url)?;
    Ok((Some(index.blob), referrers))
}

fn entries(document: &Verified, url: Shown) -> Result<Vec<Referrer>> {
    let list: List =
        serde_json::from_slice(document.bytes()).map_err(|_| RegistryError::NoList { url: url.clone() })?;
    if list.manifests.len() > MAX_REFERRERS {
        return Err(RegistryError::TooMany { url, limit: MAX_REFERRERS, what: "referrers" });
    }
    // Each is kept, and a page has room for one of megabytes.
    let is_type = |entry: &Entry| entry.artifact_type.as_ref().is_none_or(|text| text.len() <= LONGEST_TYPE);
    if !list.manifests.iter().all(is_type) {
        return Err(RegistryError::NoList { url });
    }
    Ok(list.manifests.into_iter().map(Referrer::from).collect())
}

/// Puts an artifact's manifest; true where the registry says that it lists it.
async fn put(uploader: &Uploader<'_>, artifact: &Artifact) -> Result<bool> {
    let digest = artifact.manifest().digest();
    let name = digest.to_string();
    let request = put_request(uploader.target, &name, &MediaType::ImageManifest, artifact.manifest().bytes());
    let response = uploader.transport.send(&request).await?;
    if response.status() != StatusCode::CREATED {
        return Err(response.refused().await);
    }
    check_header(&response, digest)?;
    Ok(response.header(OCI_SUBJECT) == Some(artifact.subject().to_string().as_str()))
}

/// Adds what another list of `subject` has to the index that the tag names. All of that is there.
pub(super) async fn add_list(
    transport: &Transport,
    repository: &Repository,
    subject: Digest,
    list: &Verified,
) -> Result<()> {
    /// As they came.
    #[derive(Deserialize)]
    struct Entries {
        manifests: Vec<Value>,
    }

    let url = || Shown::new(&repository.manifest(&tag(subject)));
    let Entries { manifests } =
        serde_json::from_slice(list.bytes()).map_err(|_| RegistryError::NoList { url: url() })?;
    extend_tag(transport, repository, subject, &manifests).await
}

/// Adds entries to the index that the tag names. Nobody can do that at once for sure; so it is
/// read again, and what another writer has dropped is added again.
async fn extend_tag(
    transport: &Transport,
    repository: &Repository,
    subject: Digest,
    entries: &[Value],
) -> Result<()> {
    let scopes = Scopes::push(repository);
    let tag = tag(subject);
    for _ in 0..TRIES {
        let (index, listed) = by_tag(transport, repository, subject, &scopes).await?;
        let listed: HashSet<String> =
            listed.iter().map(|referrer| referrer.descriptor.digest.to_string()).collect();
        let is_missing = |entry: &&Value| !entry["digest"].as_str().is_some_and(|it| listed.contains(it));
        let missing: Vec<Value> = entries.iter().filter(is_missing).cloned().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let index = extended(index.as_ref(), missing);
        let request = put_request(repository, &tag, &MediaType::ImageIndex, &index);
        let response = transport.send(&request).await?;
        if response.status() != StatusCode::CREATED {
            return Err(response.refused().await);
        }
        check_header(&response, Digest::of(&index))?;
    }
    Err(RegistryError::Contended { url: Shown::new(&repository.manifest(&tag)) })
}

/// An index with more entries; what else it has stays.
fn extended(index: Option<&Verified>, more: Vec<Value>) -> Vec<u8> {
    let index = index.and_then(|index| serde_json::from_slice(index.bytes()).ok());
    let mut index: Map<String, Value> = index.unwrap_or_else(|| {
        Map::from_iter([
            ("schemaVersion".to_owned(), json!(2)),
            ("mediaType".to_owned(), json!(MediaType::ImageIndex)),
        ])
    });
    let entries = index.entry("manifests").or_insert_with(|| json!([]));
    if let Value::Array(entries) = entries {
        entries.extend(more);
    }
    Value::Object(index).to_string().into_bytes()
}

/// The list that a registry without the API has under `tag`, for one that was listed by the API.
pub(crate) fn list_document(referrers: &[Referrer]) -> std::result::Result<Document, DocumentError> {
    let entry = |referrer: &Referrer| {
        let mut entry = json!(referrer.descriptor);
        if let Some(artifact_type) = &referrer.artifact_type {
            entry["artifactType"] = json!(artifact_type);
        }
        entry
    };
    // The order in which a registry lists them says nothing.
    let mut referrers: Vec<&Referrer> = referrers.iter().collect();
    referrers.sort_by_key(|referrer| referrer.descriptor.digest);
    let entries: Vec<Value> = referrers.into_iter().map(entry).collect();
    let index = json!({"schemaVersion": 2, "mediaType": MediaType::ImageIndex, "manifests": entries});
    Document::parse(Verified::own(index.to_string().into_bytes()), None)
}

/// Where referrers are listed without the API.
pub(crate) fn tag(subject: Digest) -> String {
    format!("sha256-{}", subject.hex())
}

/// What a tag lists the referrers of, if it is such a list's.
pub(crate) fn listed_by(tag: &str) -> Option<Digest> {
    tag.strip_prefix("sha256-").and_then(|hex| format!("sha256:{hex}").parse().ok())
}
