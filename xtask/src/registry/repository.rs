//! Where a repository is: a reference becomes the origin and the URLs that requests go to.

use std::net::{IpAddr, Ipv6Addr};

use reqwest::Url;

use super::PlainHttp;
use super::error::{RegistryError, Result};
use crate::oci::Reference;

/// Docker Hub under the name that users write, and the host that serves it.
/// Source: distribution/reference, `defaultDomain`; docs.docker.com, "Docker Hub API".
const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

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
    pub(super) fn new(reference: &Reference, plain_http: PlainHttp) -> Result<Repository> {
        let registry = reference.registry();
        let host = if registry == DOCKER_HUB { DOCKER_HUB_HOST } else { registry };
        let https = format!("https://{host}/v2/{}/", reference.repository());
        let malformed = || RegistryError::Name(registry.to_owned());
        let mut base = Url::parse(&https).map_err(|_| malformed())?;
        // `user@host` and the like would send requests elsewhere than the name says.
        if !base.username().is_empty() || base.password().is_some() || base.query().is_some() {
            return Err(malformed());
        }
        if is_loopback(&base) || plain_http == PlainHttp::Allowed {
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

    /// `blobs/<digest>`.
    pub(super) fn blob(&self, digest: &str) -> Url {
        self.join(&["blobs", digest])
    }

    /// `blobs/uploads/`, where a POST opens an upload, or mounts `digest` out of `from`.
    pub(super) fn mount(&self, digest: &str, from: &str) -> Url {
        let mut url = self.join(&["blobs", "uploads", ""]);
        url.query_pairs_mut().append_pair("mount", digest).append_pair("from", from);
        url
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

    fn check(reference: &str, plain_http: PlainHttp, expected: &str) {
        let reference = reference.parse().unwrap();
        let shown = match Repository::new(&reference, plain_http) {
            Ok(repository) => repository.manifest("v1").to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(shown, expected, "for {reference}");
    }

    #[test]
    fn references_become_urls() {
        use PlainHttp::{Allowed, LoopbackOnly};
        check("debian", LoopbackOnly, "https://registry-1.docker.io/v2/library/debian/manifests/v1");
        check("ghcr.io/o/r:t", LoopbackOnly, "https://ghcr.io/v2/o/r/manifests/v1");
        check("localhost:5000/a/b", LoopbackOnly, "http://localhost:5000/v2/a/b/manifests/v1");
        check("127.1.2.3:5000/a", LoopbackOnly, "http://127.1.2.3:5000/v2/a/manifests/v1");
        check("localhost.example:5000/a", LoopbackOnly, "https://localhost.example:5000/v2/a/manifests/v1");
        check("registry.lan:80/a", LoopbackOnly, "https://registry.lan:80/v2/a/manifests/v1");
        check("registry.lan:443/a", Allowed, "http://registry.lan:443/v2/a/manifests/v1");
        check("registry.lan:5000/a", Allowed, "http://registry.lan:5000/v2/a/manifests/v1");
        // References have no IPv6 addresses in their grammar; redirects and token services may.
        assert!(is_loopback(&Url::parse("http://[::1]:5000/").unwrap()));
        assert!(!is_loopback(&Url::parse("http://[::2]:5000/").unwrap()));
    }
}
