//! The distros that a base can be made of: the folders `base/<family>/<release>/`.
//!
//! A folder is all that a distro takes. Its `distro.toml` says what it is; the file beside it,
//! `Containerfile` or `packages.list`, says how its base is made.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use chrono::NaiveDate;
use serde::Deserialize;

use super::distro_toml::{self, DistroToml, Recipe};
use super::files::{Entry, EntryKind, SourceFile, Tree};
use super::problem::Problems;
use crate::oci::reference::with_tag;
use crate::oci::{Digest, Platform, Reference};

/// Folder names: the bases, and in it what all of them share.
pub(super) const BASE: &str = "base";
pub(super) const SHARED: &str = "shared";
pub(crate) const DISTRO_TOML: &str = "distro.toml";
/// Which of these a folder has decides how its base is made.
pub(crate) const CONTAINERFILE: &str = "Containerfile";
pub(crate) const PACKAGES: &str = "packages.list";
/// All that a base from packages is made of; what each file is for, `base/debian.rs` knows.
const PACKAGES_FILES: [&str; 4] = [PACKAGES, "customize.sh", "dpkg.cfg", "rootfs"];

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
    /// For people.
    pub(crate) title: String,
    pub(crate) stage: Stage,
    /// From this day on, nobody mends it any more.
    pub(crate) end_of_life: NaiveDate,
    /// What to go to when it has ended.
    pub(crate) successor: Option<DistroName>,
    /// What its base exists for.
    pub(crate) platforms: Vec<Platform>,
    pub(crate) kind: DistroKind,
}

/// What a distro is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Production,
    /// For trying, developing and testing.
    Preview,
}

/// How a distro's base is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DistroKind {
    /// From packages: no engine and no registry are needed.
    Packages {
        /// The release's name on the mirror.
        suite: String,
        /// The day of the release: the only time that the build sees.
        released: NaiveDate,
    },
    /// From the distro's own bootc image, by its Containerfile.
    Image { upstream: Upstream },
}

/// A distro's own bootc image: the tag that moves, and what the tag named when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Upstream {
    /// Without a digest.
    pub(crate) tag: Reference,
    pub(crate) pin: Option<Digest>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error(transparent)]
    Reference(#[from] oci_spec::distribution::ParseError),
    #[error(transparent)]
    Digest(#[from] crate::oci::digest::DigestError),
    #[error("it has no tag, so nobody could say whether it has moved")]
    NoTag,
}

impl Distro {
    /// Whether it has ended on the day `today`.
    pub(crate) fn is_ended(&self, today: NaiveDate) -> bool {
        today >= self.end_of_life
    }

    pub(crate) fn upstream(&self) -> Option<&Upstream> {
        match &self.kind {
            DistroKind::Packages { .. } => None,
            DistroKind::Image { upstream } => Some(upstream),
        }
    }
}

impl Stage {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Stage::Production => "production",
            Stage::Preview => "preview",
        }
    }
}

impl FromStr for Upstream {
    type Err = UpstreamError;

    fn from_str(text: &str) -> Result<Upstream, UpstreamError> {
        let whole: Reference = text.parse()?;
        // Without a tag and a digest, the parser adds `latest`; it has to be meant.
        let name = text.split('@').next().unwrap_or(text);
        let has_tag = name.rsplit('/').next().is_some_and(|last| last.contains(':'));
        let tag = whole.tag().filter(|_| has_tag).ok_or(UpstreamError::NoTag)?;
        let pin = whole.digest().map(str::parse).transpose()?;
        Ok(Upstream { tag: with_tag(&whole, tag), pin })
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pin {
            None => write!(f, "{}", self.tag),
            Some(digest) => write!(f, "{}@{digest}", self.tag),
        }
    }
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
    let entries = tree.entries(&dir, problems);
    // What is there but is a link, say, has its problem already.
    let has = |file: &str| tree.has(dir.join(file));
    let recipe = match (has(CONTAINERFILE), has(PACKAGES)) {
        (true, false) => Some(Recipe::Containerfile),
        (false, true) => Some(Recipe::Packages),
        (true, true) => {
            let message =
                format!("has a {CONTAINERFILE} and a {PACKAGES}: its base could be made in two ways");
            problems.add(&dir, message, "remove the one that does not make it");
            None
        }
        (false, false) => {
            let hint = format!("add one of them; what several distros share belongs into {BASE}/{SHARED}");
            problems.add(&dir, format!("has neither a {CONTAINERFILE} nor a {PACKAGES}"), hint);
            return None;
        }
    };
    let recipe = recipe.filter(|recipe| {
        let file = match recipe {
            Recipe::Containerfile => CONTAINERFILE,
            Recipe::Packages => PACKAGES,
        };
        let source = tree.read(dir.join(file), problems);
        if let Some(source) = &source {
            check_strays(&entries, (source, *recipe), problems);
        }
        source.is_some()
    });
    let path = dir.join(DISTRO_TOML);
    if !has(DISTRO_TOML) {
        let hint = format!("write {}, as in the folders beside it", path.display());
        problems.add(&dir, format!("has no {DISTRO_TOML}, which says what the distro is"), hint);
        return None;
    }
    let file = tree.read(&path, problems)?;
    let exists = |other: &DistroName| tree.has(Path::new(BASE).join(other.family()).join(other.release()));
    let DistroToml { title, stage, end_of_life, successor, platforms, kind } =
        distro_toml::read(&file, (&name, recipe?), exists, problems)?;
    let dir = tree.root.join(dir);
    Some(Distro { name, dir, title, stage, end_of_life, successor, platforms, kind })
}

/// What nobody reads would only make the base anew. A Containerfile may copy anything that is
/// beside it, so there it is what it does not name.
fn check_strays(entries: &[Entry], (source, recipe): (&SourceFile, Recipe), problems: &mut Problems) {
    let text = String::from_utf8_lossy(&source.bytes);
    let folder = source.path.parent().unwrap_or(Path::new("")).display().to_string();
    let is_read = |entry: &Entry| match recipe {
        Recipe::Containerfile => {
            let is_whole = |rest: &str| {
                matches!(rest.trim_start_matches('/').chars().next(), None | Some(' ' | ',' | '"' | '\n'))
            };
            let copies_all = text.match_indices(&folder).any(|(at, _)| is_whole(&text[at + folder.len()..]));
            entry.name == CONTAINERFILE || copies_all || text.contains(&format!("{folder}/{}", entry.name))
        }
        Recipe::Packages => PACKAGES_FILES.contains(&entry.name.as_str()),
    };
    for entry in entries.iter().filter(|entry| entry.name != DISTRO_TOML && !is_read(entry)) {
        let hint = match recipe {
            Recipe::Containerfile => {
                format!("remove it, or name {folder}/{} in the {CONTAINERFILE}", entry.name)
            }
            Recipe::Packages => {
                format!("remove it: beside {DISTRO_TOML} there are {}", PACKAGES_FILES.join(", "))
            }
        };
        problems.add(&entry.path, "is not read by anything", hint);
    }
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

    #[test]
    fn upstreams_have_a_tag_and_perhaps_a_digest() {
        let check = |text: &str, expected: &str| {
            let shown = match text.parse::<Upstream>() {
                Ok(upstream) => format!("{} pinned: {}", upstream, upstream.pin.is_some()),
                Err(error) => error.to_string(),
            };
            assert_eq!(shown, expected, "for {text}");
        };
        let pinned = format!("quay.io/o/n:t@{}", Digest::of(b""));
        check("quay.io/o/n:t", "quay.io/o/n:t pinned: false");
        check(&pinned, &format!("{pinned} pinned: true"));
        check("localhost:5000/n", "it has no tag, so nobody could say whether it has moved");
        check(&pinned.replace(":t@", "@"), "it has no tag, so nobody could say whether it has moved");
        check("Not valid", "invalid reference format");
    }

    #[test]
    fn a_distro_ends_on_its_day() {
        let day = |text: &str| text.parse::<NaiveDate>().unwrap();
        let distro = Distro {
            name: "fedora-40".parse().unwrap(),
            dir: PathBuf::new(),
            title: String::new(),
            stage: Stage::Production,
            end_of_life: day("2025-05-13"),
            successor: None,
            platforms: Vec::new(),
            kind: DistroKind::Packages { suite: String::new(), released: day("2024-04-23") },
        };
        let ended =
            ["2024-04-23", "2025-05-12", "2025-05-13", "2030-01-01"].map(|on| distro.is_ended(day(on)));
        assert_eq!(ended, [false, false, true, true]);
    }
}
