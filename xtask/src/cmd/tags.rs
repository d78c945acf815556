//! `tags`: what a repository has, by distro, version and format.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use super::Session;
use crate::flags::Tags;
use crate::registry::listed_by;
use crate::release::{self, Kind, Tag};

/// Keys may be added, none renamed.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Report {
    image: String,
    distros: Vec<DistroReport>,
    /// Tags of other kinds, such as those of signatures.
    others: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct DistroReport {
    name: String,
    /// The tags of bases.
    bases: Vec<String>,
    /// The tag that moves to each release, where there is one.
    latest: Option<String>,
    /// The oldest first.
    versions: Vec<VersionReport>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct VersionReport {
    version: String,
    /// The tag of the system, which is missing where there are disks alone.
    system: Option<String>,
    /// The tag of the manifest that names the system and its disks.
    release: Option<String>,
    /// The tags of the packed disks, by format.
    disks: BTreeMap<&'static str, String>,
}

pub(crate) fn run(flags: &Tags, session: &Session) -> Result<()> {
    let image = match &flags.image {
        Some(image) => image.clone(),
        None => session.workspace()?.settings.image,
    };
    // An error while listing is an error: whoever takes it for "nothing there" overwrites a release.
    let tags = session.registry()?.tags(&image.tagged("latest"))?;
    let report = report(image.to_string(), tags);
    if report.distros.is_empty() && report.others.is_empty() {
        session.progress.line(format!("{image} has no tags"));
    }
    session.print(&report, || report.text())
}

fn report(image: String, mut tags: Vec<String>) -> Report {
    // What is attached is no version of anything.
    tags.retain(|tag| listed_by(tag).is_none());
    tags.sort_by(|a, b| release::compare(a, b));
    let mut distros: Vec<DistroReport> = Vec::new();
    let mut others = Vec::new();
    for tag in tags {
        let Some(Tag { kind, distro, version }) = Tag::parse(&tag) else {
            others.push(tag);
            continue;
        };
        let distro = entry(
            &mut distros,
            |other| other.name == distro.to_string(),
            || DistroReport {
                name: distro.to_string(),
                bases: Vec::new(),
                latest: None,
                versions: Vec::new(),
            },
        );
        let versions = &mut distro.versions;
        match kind {
            Kind::Base => distro.bases.push(tag),
            Kind::Latest => distro.latest = Some(tag),
            Kind::Release => of_version(versions, version).release = Some(tag.clone()),
            Kind::System => of_version(versions, version).system = Some(tag.clone()),
            Kind::Disk(format) => {
                of_version(versions, version).disks.insert(format.name(), tag.clone());
            }
        }
    }
    for distro in &mut distros {
        distro.versions.sort_by(|a, b| release::compare(&a.version, &b.version));
    }
    distros.sort_by(|a, b| a.name.cmp(&b.name));
    Report { image, distros, others }
}

fn of_version<'a>(versions: &'a mut Vec<VersionReport>, version: &str) -> &'a mut VersionReport {
    entry(
        versions,
        |other| other.version == version,
        || VersionReport { version: version.to_owned(), system: None, release: None, disks: BTreeMap::new() },
    )
}

/// The entry that is meant, which is made where it is not there.
fn entry<T>(entries: &mut Vec<T>, is_it: impl Fn(&T) -> bool, new: impl FnOnce() -> T) -> &mut T {
    let place = entries.iter().position(is_it).unwrap_or_else(|| {
        entries.push(new());
        entries.len() - 1
    });
    &mut entries[place]
}

impl Report {
    fn text(&self) -> String {
        let mut text = String::new();
        for DistroReport { name, bases, latest, versions } in &self.distros {
            text += &format!("{name}\n");
            for base in bases {
                text += &format!("  {base}\n");
            }
            if let Some(latest) = latest {
                text += &format!("  {latest}\n");
            }
            for VersionReport { version, system, release: _, disks } in versions {
                let system = if system.is_some() { "" } else { " (disks alone)" };
                let disks: Vec<&str> = disks.keys().copied().collect();
                let line = format!("  {version:<12}{system} {}", disks.join(" "));
                text += &format!("{}\n", line.trim_end());
            }
        }
        if !self.others.is_empty() {
            text += &format!("others: {}\n", self.others.join(" "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_put_together_by_what_they_say() {
        let tags = [
            "latest",
            "debian-13-v10",
            "debian-13-latest",
            "debian-13-v9",
            "debian-13-qcow2-v9",
            "debian-13-vmdk-v9",
            "debian-13-raw-v8",
            "base-centos-stream10",
            "base-centos-stream10-20260104",
            "centos-stream10-v9",
        ];
        let report = report("ghcr.io/me/os".to_owned(), tags.map(str::to_owned).into());
        insta::assert_snapshot!(report.text(), @"
        centos-stream10
          base-centos-stream10
          base-centos-stream10-20260104
          v9
        debian-13
          debian-13-latest
          v8           (disks alone) raw
          v9           qcow2 vmdk
          v10
        others: latest
        ");
    }
}
