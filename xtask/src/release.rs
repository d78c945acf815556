//! Which release comes before another, by the names of their tags.

use std::cmp::Ordering;

use crate::workspace::DistroName;

/// What a host that is to get `tag` most likely runs: the last release of the same distro before
/// it, or else the last of all. `tags` are those of the image's repository.
pub(crate) fn before<'a>(tag: &str, distro: &DistroName, tags: &'a [String]) -> Option<&'a str> {
    let prefix = format!("{distro}-");
    let others =
        || tags.iter().map(String::as_str).filter(|other| other.starts_with(&prefix) && *other != tag);
    let earlier = others().filter(|other| compare(other, tag) == Ordering::Less);
    earlier.max_by(|a, b| compare(a, b)).or_else(|| others().max_by(|a, b| compare(a, b)))
}

/// Versions as people read them: `v2` comes before `v10`.
fn compare(a: &str, b: &str) -> Ordering {
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
    fn the_release_before_is_the_last_one_below() {
        let tags = ["base-debian-13", "debian-13-v1", "debian-13-v2", "debian-13-v10", "fedora-43-v11"];
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
