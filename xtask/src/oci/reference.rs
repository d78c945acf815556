//! What names an image: a layout directory or a registry reference, as skopeo writes them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::digest::Digest;

/// A registry reference (`ghcr.io/owner/name:tag`, `...@sha256:...`), parsed and normalised by
/// the rules that docker, podman and the distribution specification share.
pub(crate) use oci_client::Reference;

/// Where an image is: `oci:DIR[:TAG]`, or a registry reference, which `docker://` may precede.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ImageName {
    Layout { dir: PathBuf, tag: Option<String> },
    Registry(Reference),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ImageNameError {
    #[error("`{0}` names no directory: write `oci:DIR` or `oci:DIR:TAG`")]
    NoDirectory(String),
    #[error(
        "`{0}` is not a tag: letters, digits, `_`, `.` and `-`, at most 128, not starting with `.` or `-`"
    )]
    Tag(String),
    #[error("`{transport}:` images are not supported: use `oci:DIR[:TAG]` or a registry reference")]
    Transport { transport: String },
    #[error("`{text}` is not an image reference: {source}")]
    Reference { text: String, source: oci_spec::distribution::ParseError },
}

/// Transports of skopeo that this tool does not read; named so that `oci-archive:x` is not
/// taken for a repository with a tag.
const OTHER_TRANSPORTS: [&str; 6] =
    ["containers-storage", "dir", "docker-archive", "docker-daemon", "oci-archive", "ostree"];

/// Whether `tag` matches the distribution specification's grammar for tags.
/// Source: OCI distribution specification, "Pulling manifests": `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
pub(crate) fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= 128 && tag.starts_with(word) && tag.chars().all(|c| word(c) || c == '.' || c == '-')
}

/// Where a reference leads, without its tag and digest.
pub(crate) fn repository(reference: &Reference) -> String {
    format!("{}/{}", reference.registry(), reference.repository())
}

/// What has `tag` in the repository of `reference`.
pub(crate) fn with_tag(reference: &Reference, tag: &str) -> Reference {
    let (registry, repository) = (reference.registry().to_owned(), reference.repository().to_owned());
    Reference::with_tag(registry, repository, tag.to_owned())
}

/// What has this digest in the repository of `reference`.
pub(crate) fn with_digest(reference: &Reference, digest: Digest) -> Reference {
    let (registry, repository) = (reference.registry().to_owned(), reference.repository().to_owned());
    Reference::with_digest(registry, repository, digest.to_string())
}

impl FromStr for ImageName {
    type Err = ImageNameError;

    fn from_str(text: &str) -> Result<ImageName, ImageNameError> {
        if let Some(rest) = text.strip_prefix("oci:") {
            let (dir, tag) = match rest.rsplit_once(':') {
                Some((dir, tag)) => (dir, Some(tag)),
                None => (rest, None),
            };
            if dir.is_empty() {
                return Err(ImageNameError::NoDirectory(text.to_owned()));
            }
            if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
                return Err(ImageNameError::Tag(tag.to_owned()));
            }
            return Ok(ImageName::Layout { dir: dir.into(), tag: tag.map(str::to_owned) });
        }
        if let Some((transport, _)) = text.split_once(':').filter(|(t, _)| OTHER_TRANSPORTS.contains(t)) {
            return Err(ImageNameError::Transport { transport: transport.to_owned() });
        }
        let name = text.strip_prefix("docker://").unwrap_or(text);
        name.parse()
            .map(ImageName::Registry)
            .map_err(|source| ImageNameError::Reference { text: text.to_owned(), source })
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageName::Layout { dir, tag: None } => write!(f, "oci:{}", dir.display()),
            ImageName::Layout { dir, tag: Some(tag) } => write!(f, "oci:{}:{tag}", dir.display()),
            ImageName::Registry(reference) => write!(f, "{reference}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let shown = match text.parse::<ImageName>() {
            Ok(name) => name.to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(shown, expected, "for {text}");
    }

    #[test]
    fn names_as_skopeo_writes_them() {
        check("oci:target/dist/oci", "oci:target/dist/oci");
        check("oci:/abs/dir:v1", "oci:/abs/dir:v1");
        check("oci:", "`oci:` names no directory: write `oci:DIR` or `oci:DIR:TAG`");
        check(
            "oci:dir:-x",
            "`-x` is not a tag: letters, digits, `_`, `.` and `-`, at most 128, not starting with `.` or `-`",
        );
        check("docker://localhost:5000/a/b:t", "localhost:5000/a/b:t");
        check("localhost:5000/a/b", "localhost:5000/a/b:latest");
        check("debian", "docker.io/library/debian:latest");
        check(
            "oci-archive:x.tar",
            "`oci-archive:` images are not supported: use `oci:DIR[:TAG]` or a registry reference",
        );
        check("Upper/Case", "`Upper/Case` is not an image reference: invalid reference format");
        check("a@sha256:../x", "`a@sha256:../x` is not an image reference: invalid reference format");
    }
}
