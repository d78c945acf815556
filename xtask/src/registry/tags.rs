//! The tags of a repository, page by page.
//! Source: OCI distribution specification, "Listing Tags".

use oci_client::errors::OciErrorCode;
use reqwest::header::LINK;
use reqwest::{StatusCode, Url};
use serde::Deserialize;

use super::auth::Scopes;
use super::error::{RegistryError, Result, Shown};
use super::pull::get;
use super::repository::Repository;
use super::response::Response;
use super::transport::Transport;

/// Tags that are asked for at once; registries may give fewer.
const PAGE: &str = "1000";
/// What a page may have: each tag has 128 characters at most, and its quotes.
const MAX_PAGE: u64 = 4 * 1024 * 1024;
/// More pages than that are a registry's mistake.
const MAX_PAGES: usize = 1000;

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
                return match said.has(&[OciErrorCode::NameUnknown, OciErrorCode::NotFound]) {
                    true => Ok(tags),
                    false => Err(RegistryError::NotARegistry { url: response.shown() }),
                };
            }
            _ => return Err(response.refused().await),
        }
        let body = response.read(MAX_PAGE).await?;
        let page: Page = serde_json::from_slice(&body)
            .map_err(|_| RegistryError::NotARegistry { url: response.shown() })?;
        tags.extend(page.tags.unwrap_or_default());
        match next(&response)? {
            Some(next) => url = next,
            None => return Ok(tags),
        }
    }
    Err(RegistryError::Redirects { url: Shown::new(&url), limit: MAX_PAGES })
}

/// Where the next page is: `Link: <URL>; rel="next"`. It has to be the same registry's.
fn next(response: &Response) -> Result<Option<Url>> {
    let links = response.headers(&LINK);
    let Some(link) = links.iter().find(|link| link.contains("rel=\"next\"")) else { return Ok(None) };
    let invalid = || RegistryError::Header { url: response.shown(), header: "Link" };
    let target = link.split_once('<').and_then(|(_, rest)| rest.split_once('>')).ok_or_else(invalid)?.0;
    let url = response.url.join(target).map_err(|_| invalid())?;
    if url.origin() == response.url.origin() { Ok(Some(url)) } else { Err(invalid()) }
}
