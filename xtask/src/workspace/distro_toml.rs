//! `distro.toml`: what a distro is. All that is wrong with it is told at once, each with its line.

use std::ops::Range;
use std::path::Path;

use chrono::NaiveDate;
use toml_edit::{Document, Item};

use super::distro::{CONTAINERFILE, DistroKind, DistroName, PACKAGES, Stage};
use super::files::{SourceFile, line_of};
use super::problem::Problems;
use crate::oci::Platform;

/// Every key that there is, in the order of the repository's own files.
pub(super) const KEYS: [&str; 8] =
    ["title", "upstream", "suite", "released", "stage", "end-of-life", "successor", "platforms"];

/// How a folder's other file makes the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recipe {
    Containerfile,
    Packages,
}

/// What a sound file says.
pub(super) struct DistroToml {
    pub(super) title: String,
    pub(super) stage: Stage,
    pub(super) end_of_life: NaiveDate,
    pub(super) successor: Option<DistroName>,
    pub(super) platforms: Vec<Platform>,
    pub(super) kind: DistroKind,
}

/// Reads the file of the distro `name`. `exists` tells whether another distro has a folder.
pub(super) fn read(
    file: &SourceFile,
    (name, recipe): (&DistroName, Recipe),
    exists: impl Fn(&DistroName) -> bool,
    problems: &mut Problems,
) -> Option<DistroToml> {
    let before = problems.0.len();
    let text = file.text(problems)?;
    let document = match Document::parse(text) {
        Ok(document) => document,
        Err(error) => {
            file.wrong_toml(error.message(), error.span(), problems);
            return None;
        }
    };
    let mut keys = Keys { path: &file.path, text, document: &document, problems };
    keys.check_known();
    let title = keys.title();
    let stage = keys.stage();
    let end_of_life = keys.day("end-of-life");
    let successor = keys.successor(name, exists);
    let platforms = keys.platforms();
    let kind = match recipe {
        Recipe::Containerfile => keys.image(),
        Recipe::Packages => keys.packages(),
    };
    // Something is missing wherever there is a problem, but not the other way round.
    if problems.0.len() > before {
        return None;
    }
    let (title, stage, end_of_life) = (title?, stage?, end_of_life?);
    Some(DistroToml { title, stage, end_of_life, successor, platforms, kind: kind? })
}

struct Keys<'a> {
    path: &'a Path,
    text: &'a str,
    document: &'a Document<&'a str>,
    problems: &'a mut Problems,
}

impl<'a> Keys<'a> {
    /// A problem with what is at `span`; `edit` mends it.
    fn wrong(&mut self, span: Option<Range<usize>>, message: &str, edit: &str) {
        let line = line_of(self.text, span.map_or(0, |span| span.start));
        let hint = format!("mend line {line} of {}: {edit}", self.path.display());
        self.problems.add(self.path, format!("line {line}: {message}"), hint);
    }

    fn missing(&mut self, key: &str, edit: &str) {
        let hint = format!("add to {}: {edit}", self.path.display());
        self.problems.add(self.path, format!("has no `{key}`"), hint);
    }

    fn item(&self, key: &str) -> Option<&'a Item> {
        self.document.get(key)
    }

    fn check_known(&mut self) {
        let unknown = self.document.iter().filter(|(key, _)| !KEYS.contains(key));
        let unknown: Vec<_> = unknown.map(|(key, item)| (key.to_owned(), item.span())).collect();
        for (key, span) in unknown {
            let edit = format!("the keys are {}", KEYS.join(", "));
            self.wrong(span, &format!("there is no key `{key}`"), &edit);
        }
    }

    /// A string, where there is the key.
    fn string(&mut self, key: &str) -> Option<(&'a str, Option<Range<usize>>)> {
        let item = self.item(key)?;
        let text = item.as_str();
        if text.is_none() {
            self.wrong(item.span(), &format!("{key} is no string"), &format!("write {key} = \"...\""));
        }
        Some((text?, item.span()))
    }

    fn title(&mut self) -> Option<String> {
        const EDIT: &str = "write title = \"NAME RELEASE\"";
        if self.item("title").is_none() {
            self.missing("title", "title = \"NAME RELEASE\"");
        }
        let (title, span) = self.string("title")?;
        if title.trim().is_empty() {
            self.wrong(span, "title is empty", EDIT);
        } else if title.chars().any(char::is_control) {
            self.wrong(span, "title has a line break or another control character", EDIT);
        }
        Some(title.to_owned())
    }

    fn stage(&mut self) -> Option<Stage> {
        const EDIT: &str = "write stage = \"production\" or stage = \"preview\"";
        if self.item("stage").is_none() {
            self.missing("stage", "stage = \"production\" or stage = \"preview\"");
        }
        let (text, span) = self.string("stage")?;
        let stage = [Stage::Production, Stage::Preview].into_iter().find(|stage| stage.name() == text);
        if stage.is_none() {
            self.wrong(span, &format!("stage is `{text}`"), EDIT);
        }
        stage
    }

    /// A day; TOML's other times would leave open which day they mean.
    fn day(&mut self, key: &str) -> Option<NaiveDate> {
        let Some(item) = self.item(key) else {
            self.missing(key, &format!("{key} = YYYY-MM-DD"));
            return None;
        };
        let day = item.as_datetime().and_then(|value| match (value.date, value.time) {
            (Some(date), None) => {
                NaiveDate::from_ymd_opt(date.year.into(), date.month.into(), date.day.into())
            }
            (Some(_) | None, _) => None,
        });
        if day.is_none() {
            let edit = format!("write {key} = YYYY-MM-DD, without quotes");
            self.wrong(item.span(), &format!("{key} is not a day"), &edit);
        }
        day
    }

    /// A successor that is not there would send people nowhere.
    fn successor(&mut self, own: &DistroName, exists: impl Fn(&DistroName) -> bool) -> Option<DistroName> {
        const EDIT: &str = "name a distro that 'cargo xtask list' shows, or leave it out";
        let (text, span) = self.string("successor")?;
        let successor: DistroName = match text.parse() {
            Ok(successor) => successor,
            Err(error) => {
                self.wrong(span, &format!("successor: {error}"), EDIT);
                return None;
            }
        };
        if successor == *own {
            self.wrong(span, "it is its own successor", EDIT);
        } else if !exists(&successor) {
            let folder = format!("base/{}/{}", successor.family(), successor.release());
            self.wrong(span, &format!("successor `{successor}` has no folder {folder}"), EDIT);
        }
        Some(successor)
    }

    fn platforms(&mut self) -> Vec<Platform> {
        const EDIT: &str = "write platforms = [\"linux/amd64\"]";
        let Some(item) = self.item("platforms") else {
            self.missing("platforms", "platforms = [\"linux/amd64\"]");
            return Vec::new();
        };
        let Some(array) = item.as_array() else {
            self.wrong(item.span(), "platforms is no list", EDIT);
            return Vec::new();
        };
        if array.is_empty() {
            self.wrong(item.span(), "platforms is empty", EDIT);
        }
        let mut platforms = Vec::new();
        for value in array {
            let text = value.as_str().unwrap_or_default();
            match text.parse::<Platform>() {
                Ok(platform) if platforms.contains(&platform) => {
                    self.wrong(
                        value.span(),
                        &format!("{platform} is there twice"),
                        "leave out one of the two",
                    );
                }
                Ok(platform) => platforms.push(platform),
                Err(error) => self.wrong(value.span(), &error.to_string(), "take it out of platforms"),
            }
        }
        platforms
    }

    fn image(&mut self) -> Option<DistroKind> {
        for key in ["suite", "released"] {
            self.unwanted(key, &format!("a distro with a {CONTAINERFILE} is made from its upstream"));
        }
        if self.item("upstream").is_none() {
            self.missing("upstream", "upstream = \"REGISTRY/NAME:TAG\"");
        }
        let (text, span) = self.string("upstream")?;
        match text.parse() {
            Ok(upstream) => Some(DistroKind::Image { upstream }),
            Err(error) => {
                let edit = "write it like quay.io/owner/name:tag, or with @sha256:... behind it";
                self.wrong(span, &format!("upstream `{text}`: {error}"), edit);
                None
            }
        }
    }

    fn packages(&mut self) -> Option<DistroKind> {
        self.unwanted("upstream", &format!("a distro with a {PACKAGES} is made from a suite"));
        if self.item("suite").is_none() {
            self.missing("suite", "suite = \"NAME\", what the mirror calls the release");
        }
        let suite = self.string("suite");
        let released = self.day("released");
        let (suite, span) = suite?;
        let is_word = |c: char| c.is_ascii_alphanumeric() || "-._/".contains(c);
        if !suite.starts_with(|c: char| c.is_ascii_alphanumeric()) || !suite.chars().all(is_word) {
            let edit = "write suite = \"NAME\", what the mirror calls the release";
            self.wrong(span, &format!("suite `{suite}` is no suite's name"), edit);
        }
        Some(DistroKind::Packages { suite: suite.to_owned(), released: released? })
    }

    fn unwanted(&mut self, key: &str, why: &str) {
        if let Some(span) = self.item(key).map(Item::span) {
            self.wrong(span, why, &format!("leave out {key}"));
        }
    }
}
