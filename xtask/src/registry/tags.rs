//! The tags of a repository: listed, page by page, and put.
//! Source: OCI distribution specification, "Listing Tags", "Pushing Manifests".

use oci_client::errors::OciErrorCode;
use reqwest::header::{CONTENT_TYPE, LINK};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use super::auth::Scopes;
use super::error::{RegistryError, Result, Shown};
use super::pull::{check_header, get};
use super::repository::Repository;
use super::response::Response;
use super::transport::{Payload, Request, Transport};
use crate::oci::reference::is_tag;
use crate::oci::{Document, MediaType};

/// Tags that are asked for at once; registries may give fewer.
const PAGE: &str = "1000";
/// What a page may have: each tag has 128 characters at most, and its quotes.
const MAX_PAGE: u64 = 4 * 1024 * 1024;
/// More than that are a registry's mistake, or an attack.
const MAX_PAGES: usize = 1000;
const MAX_TAGS: usize = 1_000_000;

#[derive(Deserialize)]
struct Page {
    /// Null where a repository has none.
    tags: Option<Vec<String>>,
}

/// All tags; none where there is no such repository. Anything else that goes wrong is an error:
/// who takes it for "no tags" overwrites a release.
pub(super) async fn tags(transport: &Transport, repository: &Repository) -> Result<Vec<String>> {
    let mut tags = Vec::new();
    let mut url = repository.tags(PAGE);
    for _ in 0..MAX_PAGES {
        let request = get(repository, url.clone(), Scopes::pull(repository), Vec::new());
        let mut response = transport.send(&request).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                let said = response.said().await;
                return if said.has(&[OciErrorCode::NameUnknown]) {
                    Ok(tags)
                } else if said.has(&[OciErrorCode::NotFound]) {
                    // It may be the project, or the page, that is not found.
                    Err(response.refused_with(said))
                } else {
                    Err(RegistryError::NotARegistry { url: response.shown() })
                };
            }
            _ => return Err(response.refused().await),
        }
        let body = response.read(MAX_PAGE).await?;
        let page: Page = serde_json::from_slice(&body)
            .map_err(|_| RegistryError::NotARegistry { url: response.shown() })?;
        let page = page.tags.unwrap_or_default();
        // Each is shown, and becomes part of an address.
        if !page.iter().all(|tag| is_tag(tag)) {
            return Err(RegistryError::NotARegistry { url: response.shown() });
        }
        tags.extend(page);
        if tags.len() > MAX_TAGS {
            return Err(RegistryError::TooMany { url: response.shown(), limit: MAX_TAGS, what: "tags" });
        }
        match next(&response)? {
            Some(next) => url = next,
            None => return Ok(tags),
        }
    }
    Err(RegistryError::TooMany { url: Shown::new(&url), limit: MAX_TAGS, what: "tags" })
}

/// Makes `tag` name what the repository has.
pub(super) async fn put(
    transport: &Transport,
    repository: &Repository,
    tag: &str,
    document: &Document,
) -> Result<()> {
    let descriptor = document.descriptor();
    let request = put_request(repository, tag, &descriptor.media_type, document.blob().bytes());
    let response = transport.send(&request).await?;
    match response.status() {
        StatusCode::CREATED => check_header(&response, descriptor.digest),
        _ => Err(response.refused().await),
    }
}

/// Puts a manifest under a tag or its digest.
pub(super) fn put_request<'a>(
    repository: &'a Repository,
    name: &str,
    media_type: &MediaType,
    manifest: &'a [u8],
) -> Request<'a> {
    Request {
        method: Method::PUT,
        url: repository.manifest(name),
        repository,
        scopes: Scopes::push(repository),
        headers: vec![(CONTENT_TYPE, media_type.to_string())],
        payload: Payload::Bytes(manifest),
    }
}

/// Where the next page is: `Link: <URL>; rel="next"`. It has to be the same registry's.
pub(super) fn next(response: &Response) -> Result<Option<Url>> {
    let links = response.headers(&LINK);
    let Some(link) = links.iter().find(|link| link.contains("rel=\"next\"")) else { return Ok(None) };
    let invalid = || RegistryError::Header { url: response.shown(), header: "Link" };
    let target = link.split_once('<').and_then(|(_, rest)| rest.split_once('>')).ok_or_else(invalid)?.0;
    let url = response.url.join(target).map_err(|_| invalid())?;
    if url.origin() == response.url.origin() { Ok(Some(url)) } else { Err(invalid()) }
}
