//! Distros as people ask for them, and which one they may have meant.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use super::Workspace;
use super::distro::{Distro, DistroName};

/// What somebody calls a distro: its name, or something near it. Only a workspace tells which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DistroQuery(String);

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UnknownDistro {
    query: DistroQuery,
    known: Vec<DistroName>,
    /// The one that may have been meant.
    pub(crate) closest: Option<DistroName>,
}

/// From this likeness on, a name is worth suggesting; clap suggests its arguments by the same one.
/// Source: clap_builder, `parser/features/suggestions.rs`.
const LIKENESS: f64 = 0.7;

impl Workspace {
    /// The distro of this name.
    pub(crate) fn distro(&self, query: &DistroQuery) -> Result<&Distro, UnknownDistro> {
        self.distros
            .iter()
            .find(|distro| distro.name.to_string() == query.0)
            .ok_or_else(|| self.unknown(query))
    }

    /// The name of a distro that needs no folder, because its base comes from elsewhere.
    pub(crate) fn distro_name(&self, query: &DistroQuery) -> Result<DistroName, UnknownDistro> {
        query.0.parse().map_err(|_| self.unknown(query))
    }

    fn unknown(&self, query: &DistroQuery) -> UnknownDistro {
        let known: Vec<DistroName> = self.distros.iter().map(|distro| distro.name.clone()).collect();
        let closest = closest(&query.0, &known).cloned();
        UnknownDistro { query: query.clone(), known, closest }
    }
}

/// The name that has every word and every number of `text`, in whatever case and with whatever
/// between them; of several, the last. Otherwise the one that looks most like it.
fn closest<'a>(text: &str, names: &'a [DistroName]) -> Option<&'a DistroName> {
    let text = text.to_ascii_lowercase();
    let wanted = parts(&text);
    let has_all = |name: &&DistroName| {
        let name = name.to_string();
        let there = parts(&name);
        let has = |part: &&str| match part.starts_with(|c: char| c.is_ascii_digit()) {
            true => there.contains(part),
            false => there.iter().any(|other| other.contains(part)),
        };
        !wanted.is_empty() && wanted.iter().all(has)
    };
    let likeness = |name: &&DistroName| strsim::jaro(&text, &name.to_string());
    names.iter().rfind(has_all).or_else(|| {
        let closest = names.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
        (likeness(&closest) > LIKENESS).then_some(closest)
    })
}

/// Words and numbers.
fn parts(text: &str) -> Vec<&str> {
    let kind = |c: char| (c.is_ascii_alphabetic(), c.is_ascii_digit());
    let ends = text.char_indices().zip(text.chars().skip(1));
    let mut cuts: Vec<usize> =
        ends.filter(|((_, a), b)| kind(*a) != kind(*b)).map(|((at, a), _)| at + a.len_utf8()).collect();
    cuts.push(text.len());
    let mut start = 0;
    let pieces = cuts.into_iter().map(|end| &text[std::mem::replace(&mut start, end)..end]);
    pieces.filter(|piece| piece.starts_with(|c: char| c.is_ascii_alphanumeric())).collect()
}

impl FromStr for DistroQuery {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<DistroQuery, Infallible> {
        Ok(DistroQuery(text.to_owned()))
    }
}

impl From<&DistroName> for DistroQuery {
    fn from(name: &DistroName) -> DistroQuery {
        DistroQuery(name.to_string())
    }
}

impl UnknownDistro {
    pub(crate) fn hint(&self) -> String {
        match &self.closest {
            Some(closest) => format!("did you mean {closest}? 'cargo xtask list' shows what there is"),
            None => {
                "'cargo xtask list' shows what there is; '--base REF' builds on any other image".to_owned()
            }
        }
    }
}

impl fmt::Display for UnknownDistro {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.query.0.parse::<DistroName>() {
            Ok(name) => write!(f, "no folder base/{}/{}", name.family(), name.release())?,
            Err(error) => write!(f, "{error}")?,
        }
        let known: Vec<String> = self.known.iter().map(ToString::to_string).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        write!(f, ": there are {known}")
    }
}

impl std::error::Error for UnknownDistro {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_is_found() {
        let names = ["centos-stream10", "centos-stream9", "debian-13", "fedora-43", "fedora-44"];
        let names = names.map(|name| name.parse().unwrap());
        let check = |text: &str, expected: Option<&str>| {
            let found = closest(text, &names).map(ToString::to_string);
            assert_eq!(found.as_deref(), expected, "for {text}");
        };
        check("fedora43", Some("fedora-43"));
        check("Fedora-43", Some("fedora-43"));
        check("FEDORA_44", Some("fedora-44"));
        check("fedora", Some("fedora-44"));
        check("debian", Some("debian-13"));
        check("13", Some("debian-13"));
        check("stream9", Some("centos-stream9"));
        check("centos9", Some("centos-stream9"));
        check("centos:stream10", Some("centos-stream10"));
        check("CentOS Stream 9", Some("centos-stream9"));
        check("debain-13", Some("debian-13"));
        check("debian-14", Some("debian-13"));
        check("centos-9", Some("centos-stream9"));
        check("alpine-3", None);
        check("plan9-4", None);
        check("", None);
        check("\u{fc}-1", None);
        assert_eq!(closest("debian", &[]), None);
    }
}
