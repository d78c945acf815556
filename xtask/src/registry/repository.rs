//! Where a repository is: a reference becomes the origin and the URLs that requests go to.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use reqwest::Url;

use super::error::{RegistryError, Result};
use crate::oci::Reference;

/// Docker Hub under the name that users write, and the host that serves it.
/// Source: distribution/reference, `defaultDomain`; docs.docker.com, "Docker Hub API".
const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

/// A registry as the names of its images begin: `HOST` or `HOST:PORT`.
#[derive(Clone, Debug)]
pub(crate) struct RegistryName(String);

#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not how an image's name begins: write HOST or HOST:PORT")]
pub(crate) struct RegistryNameError(String);

impl FromStr for RegistryName {
    type Err = RegistryNameError;

    fn from_str(text: &str) -> Result<RegistryName, RegistryNameError> {
        match format!("{text}/x").parse::<Reference>() {
            Ok(reference) if reference.registry() == text => Ok(RegistryName(text.to_owned())),
            Ok(_) | Err(_) => Err(RegistryNameError(text.to_owned())),
        }
    }
}

impl fmt::Display for RegistryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A repository and how its registry is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Repository {
    /// The registry as users and credential files write it, port included.
    registry: String,
    name: String,
    /// `https://host/v2/name/`.
    base: Url,
}

impl Repository {
    /// `plain_http` are the registries that are spoken to without encryption, beside those on this
    /// machine.
    pub(super) fn new(reference: &Reference, plain_http: &[RegistryName]) -> Result<Repository> {
        let registry = reference.registry();
        let host = if registry == DOCKER_HUB { DOCKER_HUB_HOST } else { registry };
        let https = format!("https://{host}/v2/{}/", reference.repository());
        let malformed = || RegistryError::Name(registry.to_owned());
        let mut base = Url::parse(&https).map_err(|_| malformed())?;
        // `user@host` and the like would send requests elsewhere than the name says.
        if !base.username().is_empty() || base.password().is_some() || base.query().is_some() {
            return Err(malformed());
        }
        let is_plain = || plain_http.iter().any(|RegistryName(name)| name.eq_ignore_ascii_case(registry));
        if is_loopback(&base) || is_plain() {
            let port = base.port();
            base = Url::parse(&https.replacen("https:", "http:", 1)).map_err(|_| malformed())?;
            // `host:443` stays what was written when the scheme is no longer its own.
            if port.is_none() && host.ends_with(":443") {
                base.set_port(Some(443)).map_err(|()| malformed())?;
            }
        }
        Ok(Repository { registry: registry.to_owned(), name: reference.repository().to_owned(), base })
    }

    pub(super) fn registry(&self) -> &str {
        &self.registry
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn base(&self) -> &Url {
        &self.base
    }

    pub(super) fn same_registry(&self, other: &Repository) -> bool {
        self.base.origin() == other.base.origin()
    }

    /// `manifests/<tag or digest>`.
    pub(super) fn manifest(&self, reference: &str) -> Url {
        self.join(&["manifests", reference])
    }

    /// `tags/list`, `page` of them.
    pub(super) fn tags(&self, page: &str) -> Url {
        let mut url = self.join(&["tags", "list"]);
        url.query_pairs_mut().append_pair("n", page);
        url
    }

    /// `referrers/<digest>`.
    pub(super) fn referrers(&self, digest: &str) -> Url {
        self.join(&["referrers", digest])
    }

    /// `blobs/<digest>`.
    pub(super) fn blob(&self, digest: &str) -> Url {
        self.join(&["blobs", digest])
    }

    /// `blobs/uploads/`, where a POST opens an upload, or mounts `digest` out of `from`.
    pub(super) fn mount(&self, digest: &str, from: &str) -> Url {
        let mut url = self.uploads();
        url.query_pairs_mut().append_pair("mount", digest).append_pair("from", from);
        url
    }

    /// `blobs/uploads/`, where a POST opens an upload.
    pub(super) fn uploads(&self) -> Url {
        self.join(&["blobs", "uploads", ""])
    }

    fn join(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        // Only URLs without a host have no segments, and `base` has one.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }
}

/// Whether `url` is on this machine, where nobody listens in: `localhost`, 127.0.0.0/8, `[::1]`.
/// Source: RFC 6761, 6.3; RFC 1122, 3.2.1.3; RFC 4291, 2.5.3.
pub(super) fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_loopback(),
        Ok(IpAddr::V6(address)) => address == Ipv6Addr::LOCALHOST,
        Err(_) => host == "localhost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a reference leads when `registry.lan:5000` and some others are spoken to in plain HTTP.
    fn check(reference: &str, expected: &str) {
        let plain_http =
            ["registry.lan:443", "registry.lan:5000", "plain.lan"].map(|name| name.parse().unwrap());
        let reference = reference.parse().unwrap();
        let shown = match Repository::new(&reference, &plain_http) {
            Ok(repository) => repository.manifest("v1").to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(shown, expected, "for {reference}");
    }

    #[test]
    fn references_become_urls() {
        check("debian", "https://registry-1.docker.io/v2/library/debian/manifests/v1");
        check("ghcr.io/o/r:t", "https://ghcr.io/v2/o/r/manifests/v1");
        check("localhost:5000/a/b", "http://localhost:5000/v2/a/b/manifests/v1");
        check("127.1.2.3:5000/a", "http://127.1.2.3:5000/v2/a/manifests/v1");
        check("localhost.example:5000/a", "https://localhost.example:5000/v2/a/manifests/v1");
        check("registry.lan:80/a", "https://registry.lan:80/v2/a/manifests/v1");
        check("registry.lan:443/a", "http://registry.lan:443/v2/a/manifests/v1");
        check("registry.lan:5000/a", "http://registry.lan:5000/v2/a/manifests/v1");
        check("plain.lan/a", "http://plain.lan/v2/a/manifests/v1");
        // Neither another port nor a name below is what was allowed.
        check("plain.lan:5000/a", "https://plain.lan:5000/v2/a/manifests/v1");
        check("registry.lan/a", "https://registry.lan/v2/a/manifests/v1");
        check("evil.plain.lan/a", "https://evil.plain.lan/v2/a/manifests/v1");
        // References have no IPv6 addresses in their grammar; redirects and token services may.
        assert!(is_loopback(&Url::parse("http://[::1]:5000/").unwrap()));
        assert!(!is_loopback(&Url::parse("http://[::2]:5000/").unwrap()));
    }

    #[test]
    fn registries_are_named_as_in_references() {
        for name in ["registry.lan", "registry.lan:5000", "localhost", "10.0.0.1:80", "build:5000"] {
            assert!(name.parse::<RegistryName>().is_ok(), "{name}");
        }
        for name in ["", "build", "http://registry.lan", "registry.lan/", "registry.lan/os", "registry.lan:x"]
        {
            let error = name.parse::<RegistryName>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{name}` is not how")), "{error}");
        }
    }
}
