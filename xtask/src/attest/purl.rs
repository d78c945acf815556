//! Package URLs: what databases of vulnerabilities know parts by.
//! Source: the package URL specification, "Rules for each purl component"; its types `golang` and
//! `oci`.

use crate::oci::Digest;

/// `pkg:golang/PATH@VERSION`. The type's rules have the path in lower case.
pub(super) fn golang(path: &str, version: Option<&str>) -> String {
    let path: Vec<String> = path.split('/').map(|segment| encode(&segment.to_lowercase(), "")).collect();
    let version = version.map(|version| format!("@{}", encode(version, ""))).unwrap_or_default();
    format!("pkg:golang/{}{version}", path.join("/"))
}

/// `pkg:oci/NAME@DIGEST?repository_url=REPOSITORY`.
pub(super) fn oci(repository: &str, digest: Digest) -> String {
    let name = repository.rsplit('/').next().unwrap_or(repository);
    let (name, digest) = (encode(&name.to_lowercase(), ""), encode(&digest.to_string(), ""));
    format!("pkg:oci/{name}@{digest}?repository_url={}", encode(repository, "/:"))
}

/// Percent-encodes all but unreserved characters and those of `kept`.
/// Source: RFC 3986, 2.3.
fn encode(text: &str, kept: &str) -> String {
    let is_kept =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.as_bytes().contains(&byte);
    let encoded = text.bytes().map(|byte| match is_kept(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    encoded.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded() {
        assert_eq!(
            golang("github.com/Azure/go-x", Some("v2.0.0+incompatible")),
            "pkg:golang/github.com/azure/go-x@v2.0.0%2Bincompatible"
        );
        assert_eq!(golang("hello", None), "pkg:golang/hello");
        let digest = Digest::of(b"");
        assert_eq!(
            oci("127.0.0.1:5000/me/os", digest),
            format!("pkg:oci/os@sha256%3A{}?repository_url=127.0.0.1:5000/me/os", digest.hex())
        );
    }
}
