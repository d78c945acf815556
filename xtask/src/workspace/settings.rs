//! The product's own settings: `[workspace.metadata.testboot]` in Cargo.toml.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use super::distro::DistroName;
use super::files::Tree;
use super::problem::Problems;
use crate::disk::{DiskFormat, DiskSize};
use crate::oci::{Digest, Reference};

/// What the product is called, and what is made when nothing else is said.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) image: Repository,
    pub(crate) distro: DistroName,
    /// The disks that `dist` makes.
    #[serde(default)]
    pub(crate) formats: Vec<DiskFormat>,
    /// How large disks are.
    #[serde(default, rename = "disk-size")]
    pub(crate) disk_size: DiskSize,
    /// Where the source is published: cargo's own `repository`, the same for every clone.
    #[serde(skip)]
    pub(crate) source: Option<String>,
}

/// A registry and a repository in it, without a tag: `ghcr.io/owner/name`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Repository {
    registry: String,
    name: String,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RepositoryError {
    #[error("`{text}` is not the name of an image: {source}")]
    Reference { text: String, source: oci_spec::distribution::ParseError },
    #[error("`{0}` is not the name of an image: it has to be in lower case")]
    Case(String),
    #[error("`{0}` has a tag or a digest, but tags are made here: write the name alone")]
    Tagged(String),
}

impl Repository {
    pub(crate) fn registry(&self) -> &str {
        &self.registry
    }

    /// Without the registry.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The image of this name that has `tag`.
    pub(crate) fn tagged(&self, tag: &str) -> Reference {
        Reference::with_tag(self.registry.clone(), self.name.clone(), tag.to_owned())
    }

    /// The image in it that has this digest.
    pub(crate) fn addressed(&self, digest: Digest) -> Reference {
        Reference::with_digest(self.registry.clone(), self.name.clone(), digest.to_string())
    }
}

impl FromStr for Repository {
    type Err = RepositoryError;

    fn from_str(text: &str) -> Result<Repository, RepositoryError> {
        // A colon before the last slash is a port's.
        let last = text.rsplit('/').next().unwrap_or(text);
        if last.contains([':', '@']) {
            return Err(RepositoryError::Tagged(text.to_owned()));
        }
        // The parser overlooks capitals in the first component.
        if text.contains(|c: char| c.is_ascii_uppercase()) {
            return Err(RepositoryError::Case(text.to_owned()));
        }
        let reference: Reference =
            text.parse().map_err(|source| RepositoryError::Reference { text: text.to_owned(), source })?;
        Ok(Repository { registry: reference.registry().to_owned(), name: reference.repository().to_owned() })
    }
}

impl TryFrom<String> for Repository {
    type Error = RepositoryError;

    fn try_from(text: String) -> Result<Repository, RepositoryError> {
        text.parse()
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.name)
    }
}

/// The parts of a Cargo.toml on the way to the settings; cargo knows the other keys.
#[derive(Deserialize)]
struct CargoToml {
    workspace: Option<CargoWorkspace>,
}

#[derive(Deserialize)]
struct CargoWorkspace {
    metadata: Option<Metadata>,
    package: Option<CargoPackage>,
}

#[derive(Deserialize)]
struct CargoPackage {
    repository: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    testboot: Option<Settings>,
}

pub(super) const CARGO_TOML: &str = "Cargo.toml";

pub(super) fn read(tree: &Tree, problems: &mut Problems) -> Option<Settings> {
    let before = problems.0.len();
    let settings = tree.read(CARGO_TOML, problems).and_then(|file| {
        let CargoWorkspace { metadata, package } = file.toml::<CargoToml>(problems)?.workspace?;
        Some(Settings { source: package.and_then(|package| package.repository), ..metadata?.testboot? })
    });
    if settings.is_none() && problems.0.len() == before {
        let hint = "add the table, with image = \"ghcr.io/OWNER/NAME\" and distro = \"debian-13\"";
        problems.add(CARGO_TOML, "has no [workspace.metadata.testboot]", hint);
    }
    settings
}

/// Whether a Cargo.toml has our table, valid or not.
pub(super) fn has_settings(cargo_toml: &str) -> bool {
    toml::from_str::<toml::Table>(cargo_toml).is_ok_and(|table| {
        let metadata = table.get("workspace").and_then(|workspace| workspace.get("metadata"));
        metadata.and_then(|metadata| metadata.get("testboot")).is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let shown = match text.parse::<Repository>() {
            Ok(repository) => repository.tagged("v1").to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(shown, expected, "for {text}");
    }

    #[test]
    fn repositories_have_no_tag() {
        check("ghcr.io/o/n", "ghcr.io/o/n:v1");
        check("localhost:5000/n", "localhost:5000/n:v1");
        check("n", "docker.io/library/n:v1");
        check(
            "ghcr.io/o/n:t",
            "`ghcr.io/o/n:t` has a tag or a digest, but tags are made here: write the name alone",
        );
        check("O/n", "`O/n` is not the name of an image: it has to be in lower case");
        check("o//n", "`o//n` is not the name of an image: invalid reference format");
    }
}
