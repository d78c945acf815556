//! What the tags of releases say, and which release comes before another.

mod index;

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

pub(crate) use self::index::{Release, ReleasedDisk, read};
use crate::disk::DiskFormat;
use crate::oci::reference::is_tag;
use crate::workspace::DistroName;

/// What the tag of a base begins with.
const BASE: &str = "base-";
/// What the tag of a release manifest begins with.
const RELEASE: &str = "release-";
/// Ends the tag of an image that was given no version: it names what changes from run to run.
pub(crate) const UNVERSIONED: &str = "dev";
/// Ends the tag that moves to each release, and so names none of them.
const LATEST: &str = "latest";

/// The version that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AskedVersion {
    /// The number behind the last one that the registry has: `v1`, `v2` and so on.
    Next,
    /// The tag of the commit that is checked out.
    Git,
    Named(String),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VersionError {
    #[error("a version has letters, digits, `_`, `.` and `-`, and does not start with `.` or `-`")]
    Form,
    #[error("a version does not start with a disk's format: such tags are those of packed disks")]
    Disk,
    #[error("`{LATEST}` is the tag that moves to each release")]
    Latest,
}

impl FromStr for AskedVersion {
    type Err = VersionError;

    /// It ends up in a tag, a label and a linker flag: it has a tag's form.
    fn from_str(text: &str) -> Result<AskedVersion, VersionError> {
        match text {
            "next" => Ok(AskedVersion::Next),
            "git" => Ok(AskedVersion::Git),
            LATEST => Err(VersionError::Latest),
            text if !is_tag(text) => Err(VersionError::Form),
            text if looks_like_disk(text) => Err(VersionError::Disk),
            text => Ok(AskedVersion::Named(text.to_owned())),
        }
    }
}

impl fmt::Display for AskedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AskedVersion::Next => "next",
            AskedVersion::Git => "git",
            AskedVersion::Named(name) => name,
        })
    }
}

/// A tag, read: `<distro>-<version>`, `<distro>-latest`, `<distro>-<format>-<version>`,
/// `release-<distro>-<version>`, `base-<distro>` and `base-<distro>-<day>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tag<'a> {
    pub(crate) kind: Kind,
    pub(crate) distro: DistroName,
    /// Of a base, the day or nothing; of what moves, `latest`.
    pub(crate) version: &'a str,
}

/// What has a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Base,
    /// The manifest of a release.
    Release,
    System,
    /// The system that was released last.
    Latest,
    Disk(DiskFormat),
}

impl<'a> Tag<'a> {
    /// None where it is of another kind, such as a signature's.
    pub(crate) fn parse(tag: &'a str) -> Option<Tag<'a>> {
        let base = tag.strip_prefix(BASE);
        let release = tag.strip_prefix(RELEASE);
        let text = base.or(release).unwrap_or(tag);
        // A distro's name is two words.
        let second = text.find('-')? + 1;
        let end = text[second..].find('-').map_or(text.len(), |at| second + at);
        let distro = text[..end].parse().ok()?;
        let rest = text[end..].strip_prefix('-').unwrap_or_default();
        if base.is_some() {
            return Some(Tag { kind: Kind::Base, distro, version: rest });
        }
        if release.is_some() {
            return (!rest.is_empty()).then_some(Tag { kind: Kind::Release, distro, version: rest });
        }
        let disk = rest.split_once('-').and_then(|(format, version)| Some((format.parse().ok()?, version)));
        let (kind, version) = match disk {
            Some((format, version)) => (Kind::Disk(format), version),
            None if rest == LATEST => (Kind::Latest, rest),
            None => (Kind::System, rest),
        };
        (!version.is_empty()).then_some(Tag { kind, distro, version })
    }
}

/// The tag of a distro's base, which moves.
pub(crate) fn base_tag(distro: &DistroName) -> String {
    format!("{BASE}{distro}")
}

/// The tag of a packed disk.
pub(crate) fn disk_tag(distro: &DistroName, format: DiskFormat, version: &str) -> String {
    format!("{distro}-{format}-{version}")
}

/// The tag that moves to each release of a distro.
pub(crate) fn latest_tag(distro: &DistroName) -> String {
    format!("{distro}-{LATEST}")
}

/// The tag of an image.
pub(crate) fn system_tag(distro: &DistroName, version: &str) -> String {
    format!("{distro}-{version}")
}

/// The tag of the manifest of a release.
pub(crate) fn release_tag(distro: &DistroName, version: &str) -> String {
    format!("{RELEASE}{distro}-{version}")
}

/// What a host follows that runs the image with `tag`: the tag itself, unless it is a release's and
/// stays.
pub(crate) fn followed(tag: &str) -> String {
    match Tag::parse(tag) {
        Some(Tag { kind: Kind::System, distro, version }) if is_release(version) => latest_tag(&distro),
        Some(_) | None => tag.to_owned(),
    }
}

/// The version behind the last one of `tags` that is a number: `v1` where there is none. Tags of
/// disks count, since they are left where their system is removed.
pub(crate) fn next(distro: &DistroName, tags: &[String]) -> Result<String, NoNext> {
    let of_distro = tags.iter().filter_map(|tag| Tag::parse(tag)).filter(|tag| tag.distro == *distro);
    let numbers = of_distro
        .filter(|tag| matches!(tag.kind, Kind::System | Kind::Disk(_)))
        .filter_map(|tag| number(tag.version));
    let last = numbers.max_by(|a, b| compare(a, b)).unwrap_or("0");
    let next = last.parse::<u64>().ok().and_then(|last| last.checked_add(1));
    next.map(|next| format!("v{next}")).ok_or_else(|| NoNext(format!("v{last}")))
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no number comes after `{0}`")]
pub(crate) struct NoNext(String);

/// The digits of `v<digits>`.
fn number(version: &str) -> Option<&str> {
    let digits = version.strip_prefix('v')?;
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(digits)
}

/// Whether `<distro>-latest` moves to `version`: it is a release, `v3` or `1.2.0`, and `tags` has
/// none behind it. What has anything else in it (`v3-rc.1`) is not a release yet.
pub(crate) fn is_latest(version: &str, distro: &DistroName, tags: &[String]) -> bool {
    let others = tags.iter().filter_map(|tag| Tag::parse(tag));
    let mut others = others.filter(|tag| tag.kind == Kind::System && tag.distro == *distro);
    let is_behind = |other: &str| compare(without_v(other), without_v(version)) == Ordering::Greater;
    is_release(version) && !others.any(|tag| is_release(tag.version) && is_behind(tag.version))
}

fn is_release(version: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    without_v(version).split('.').all(is_number)
}

fn without_v(version: &str) -> &str {
    version.strip_prefix('v').unwrap_or(version)
}

/// Whether a version would make the tag of a system look like a disk's.
fn looks_like_disk(version: &str) -> bool {
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
            ("debian-13-latest", "Latest debian-13 latest"),
            ("base-debian-13", "Base debian-13 "),
            ("release-debian-13-v1", "Release debian-13 v1"),
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
    fn a_version_has_a_tags_form() {
        let check = |text: &str, expected: Result<AskedVersion, VersionError>| {
            assert_eq!(text.parse(), expected, "for {text}");
        };
        check("next", Ok(AskedVersion::Next));
        check("git", Ok(AskedVersion::Git));
        check("v1", Ok(AskedVersion::Named("v1".to_owned())));
        check("latest", Err(VersionError::Latest));
        check("raw-v1", Err(VersionError::Disk));
        check("a/b", Err(VersionError::Form));
    }

    #[test]
    fn the_next_version_is_a_number() {
        let distro = "debian-13".parse().unwrap();
        let check = |tags: &[&str], expected: Result<&str, &str>| {
            let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
            let found = next(&distro, &tags).map_err(|error| error.to_string());
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "for {tags:?}");
        };
        check(&[], Ok("v1"));
        check(&["debian-13-v9", "debian-13-v10", "debian-13-v2"], Ok("v11"));
        check(
            &["debian-13-v9", "debian-13-qcow2-v12", "debian-12-v40", "base-debian-13-20260104"],
            Ok("v13"),
        );
        check(
            &["debian-13-v1.5", "debian-13-v2-rc1", "debian-13-dev", "debian-13-v", "debian-13-latest"],
            Ok("v1"),
        );
        check(&["debian-13-v007"], Ok("v8"));
        check(&["debian-13-v18446744073709551615"], Err("no number comes after `v18446744073709551615`"));
    }

    #[test]
    fn latest_moves_forward_only() {
        let distro = "debian-13".parse().unwrap();
        let tags = ["debian-13-v2", "debian-13-v10", "debian-13-v11-rc.1", "fedora-43-v12", "debian-13-dev"];
        let tags = tags.map(str::to_owned);
        for (tag, expected) in [
            ("debian-13-v1", "debian-13-latest"),
            ("debian-13-v2-rc.1", "debian-13-v2-rc.1"),
            ("debian-13-dev", "debian-13-dev"),
            ("debian-13-latest", "debian-13-latest"),
            ("mine", "mine"),
        ] {
            assert_eq!(followed(tag), expected);
        }
        for (version, expected) in [
            ("v10", true),
            ("v11", true),
            ("11.0", true),
            ("v9", false),
            ("9.1", false),
            ("v12-rc.1", false),
            ("dev", false),
        ] {
            assert_eq!(is_latest(version, &distro, &tags), expected, "for {version}");
        }
    }

    #[test]
    fn the_release_before_is_the_last_one_below() {
        let tags = [
            "base-debian-13",
            "debian-13-latest",
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
