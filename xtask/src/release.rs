//! What the tags of releases say, and which release comes before another.

use std::cmp::Ordering;

use crate::disk::DiskFormat;
use crate::workspace::DistroName;

/// What the tag of a base begins with.
const BASE: &str = "base-";

/// A tag, read: `<distro>-<version>`, `<distro>-<format>-<version>`, `base-<distro>` and
/// `base-<distro>-<day>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tag<'a> {
    pub(crate) kind: Kind,
    pub(crate) distro: DistroName,
    /// Of a base, the day or nothing.
    pub(crate) version: &'a str,
}

/// What has a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Base,
    System,
    Disk(DiskFormat),
}

impl<'a> Tag<'a> {
    /// None where it is of another kind, such as a signature's.
    pub(crate) fn parse(tag: &'a str) -> Option<Tag<'a>> {
        let base = tag.strip_prefix(BASE);
        let text = base.unwrap_or(tag);
        // A distro's name is two words.
        let second = text.find('-')? + 1;
        let end = text[second..].find('-').map_or(text.len(), |at| second + at);
        let distro = text[..end].parse().ok()?;
        let rest = text[end..].strip_prefix('-').unwrap_or_default();
        if base.is_some() {
            return Some(Tag { kind: Kind::Base, distro, version: rest });
        }
        let disk = rest.split_once('-').and_then(|(format, version)| Some((format.parse().ok()?, version)));
        let (kind, version) = match disk {
            Some((format, version)) => (Kind::Disk(format), version),
            None => (Kind::System, rest),
        };
        (!version.is_empty()).then_some(Tag { kind, distro, version })
    }
}

/// The tag of a packed disk.
pub(crate) fn disk_tag(distro: &DistroName, format: DiskFormat, version: &str) -> String {
    format!("{distro}-{format}-{version}")
}

/// Whether a version would make the tag of a system look like a disk's.
pub(crate) fn looks_like_disk(version: &str) -> bool {
    version.split_once('-').is_some_and(|(format, _)| format.parse::<DiskFormat>().is_ok())
}

/// What a host that is to get `tag` most likely runs: the last release of the same distro before
/// it, or else the last of all. `tags` are those of the image's repository.
pub(crate) fn before<'a>(tag: &str, distro: &DistroName, tags: &'a [String]) -> Option<&'a str> {
    let is_release =
        |other: &str| Tag::parse(other).is_some_and(|tag| tag.kind == Kind::System && tag.distro == *distro);
    let others = || tags.iter().map(String::as_str).filter(|other| is_release(other) && *other != tag);
    let earlier = others().filter(|other| compare(other, tag) == Ordering::Less);
    earlier.max_by(|a, b| compare(a, b)).or_else(|| others().max_by(|a, b| compare(a, b)))
}

/// Versions as people read them: `v2` comes before `v10`.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    parts(a).cmp(parts(b))
}

/// Runs of digits, as numbers (their length first, leading zeros aside), and what is between them.
fn parts(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let is_number = rest.chars().next()?.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != is_number).unwrap_or(rest.len());
        let (part, behind) = rest.split_at(end);
        rest = behind;
        let number = part.trim_start_matches('0');
        Some(if is_number { (number.len() + 1, number) } else { (0, part) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_say_what_they_are_of() {
        for (tag, expected) in [
            ("debian-13-v1", "System debian-13 v1"),
            ("centos-stream9-v1-rc.2", "System centos-stream9 v1-rc.2"),
            ("debian-13-qcow2-v1", "Disk(Qcow2) debian-13 v1"),
            ("debian-13-qcow2", "System debian-13 qcow2"),
            ("base-debian-13", "Base debian-13 "),
            ("base-debian-13-20260104", "Base debian-13 20260104"),
        ] {
            let Tag { kind, distro, version } = Tag::parse(tag).unwrap();
            assert_eq!(format!("{kind:?} {distro} {version}"), expected, "for {tag}");
        }
        let signature = format!("sha256-{}.sig", "0f".repeat(32));
        for other in ["latest", "debian-13", "debian-13-", "debian-13-qcow2-", &signature, "-", ""] {
            assert_eq!(Tag::parse(other), None, "for {other}");
        }
        let tag = disk_tag(&"debian-13".parse().unwrap(), DiskFormat::Vmdk, "v1");
        assert_eq!(Tag::parse(&tag).unwrap().kind, Kind::Disk(DiskFormat::Vmdk));
        assert!(looks_like_disk("raw-v1") && !looks_like_disk("v1-raw") && !looks_like_disk("raw"));
    }

    #[test]
    fn the_release_before_is_the_last_one_below() {
        let tags = [
            "base-debian-13",
            "debian-13-v1",
            "debian-13-v2",
            "debian-13-v10",
            "debian-13-qcow2-v10",
            "fedora-43-v11",
        ];
        let tags = tags.map(str::to_owned);
        let distro = "debian-13".parse().unwrap();
        for (tag, expected) in [
            ("debian-13-v11", Some("debian-13-v10")),
            ("debian-13-v10", Some("debian-13-v2")),
            ("debian-13-v2", Some("debian-13-v1")),
            // There is nothing before it, so a host has the last one.
            ("debian-13-dev", Some("debian-13-v10")),
            ("debian-13-v1", Some("debian-13-v10")),
        ] {
            assert_eq!(before(tag, &distro, &tags), expected, "for {tag}");
        }
        assert_eq!(before("centos-stream9-v1", &"centos-stream9".parse().unwrap(), &tags), None);
    }
}
