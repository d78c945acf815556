//! The distros that a base can be made of: the folders `base/<family>/<release>/`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;

use super::files::{EntryKind, Tree};
use super::problem::Problems;
use crate::oci::Reference;

/// Folder names: the bases, and in it what all of them share.
const BASE: &str = "base";
const SHARED: &str = "shared";
const DISTRO_TOML: &str = "distro.toml";

/// A distro as it is asked for: `debian-13`, `centos-stream9`, `fedora-43`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct DistroName {
    family: String,
    release: String,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a distro: write <family>-<release>, such as debian-13, in lower-case letters, digits and dots"
)]
pub(crate) struct DistroNameError(String);

/// A distro that has a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Distro {
    pub(crate) name: DistroName,
    /// As found under the workspace's root.
    pub(crate) dir: PathBuf,
    /// For people; the name where nothing better is said.
    pub(crate) title: String,
    /// The distro's own bootc image, which the base is made from. Without one, the base is made
    /// here, from packages.
    pub(crate) upstream: Option<Reference>,
}

impl DistroName {
    pub(crate) fn family(&self) -> &str {
        &self.family
    }

    pub(crate) fn release(&self) -> &str {
        &self.release
    }
}

impl FromStr for DistroName {
    type Err = DistroNameError;

    fn from_str(text: &str) -> Result<DistroName, DistroNameError> {
        // It becomes a folder, a tag and a file name, so it can hold neither a slash nor `..`.
        let is_word = |word: &str| {
            word.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.')
        };
        match text.split_once('-') {
            Some((family, release)) if is_word(family) && is_word(release) => {
                Ok(DistroName { family: family.to_owned(), release: release.to_owned() })
            }
            _ => Err(DistroNameError(text.to_owned())),
        }
    }
}

impl TryFrom<String> for DistroName {
    type Error = DistroNameError;

    fn try_from(text: String) -> Result<DistroName, DistroNameError> {
        text.parse()
    }
}

impl fmt::Display for DistroName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.family, self.release)
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DistroToml {
    title: Option<String>,
    image: Option<String>,
}

/// All distros, sorted by name.
pub(super) fn read(tree: &Tree, problems: &mut Problems) -> Vec<Distro> {
    let mut distros = Vec::new();
    for family in tree.entries(BASE, problems) {
        if family.kind == EntryKind::File || family.name == SHARED {
            continue;
        }
        for release in tree.entries(&family.path, problems) {
            if release.kind == EntryKind::File {
                continue;
            }
            match format!("{}-{}", family.name, release.name).parse() {
                Ok(name) => distros.extend(read_distro(tree, name, release.path, problems)),
                Err(error) => problems.add(release.path, error, "rename the folder"),
            }
        }
    }
    distros.sort_by(|a, b| a.name.cmp(&b.name));
    distros
}

fn read_distro(tree: &Tree, name: DistroName, dir: PathBuf, problems: &mut Problems) -> Option<Distro> {
    let path = dir.join(DISTRO_TOML);
    let toml: DistroToml = match tree.read(&path, problems) {
        Some(file) => file.toml(problems)?,
        None => DistroToml::default(),
    };
    let upstream = match toml.image.map(|image| (image.parse(), image)) {
        None => None,
        Some((Ok(reference), _)) => Some(reference),
        Some((Err(error), image)) => {
            problems.add(path, format!("image `{image}`: {error}"), "write it like quay.io/owner/name:tag");
            return None;
        }
    };
    let title = toml.title.unwrap_or_else(|| name.to_string());
    Some(Distro { name, dir: tree.root.join(dir), title, upstream })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_family_and_release() {
        for good in ["debian-13", "centos-stream9", "fedora-43", "ubuntu-24.04"] {
            assert_eq!(good.parse::<DistroName>().unwrap().to_string(), good);
        }
        for bad in ["", "debian", "debian-", "-13", "Debian-13", "a-b/c", "a-..", "../x-1", "a-b-c"] {
            assert_eq!(bad.parse::<DistroName>(), Err(DistroNameError(bad.to_owned())));
        }
    }
}
