//! The digest in a `distro.toml`: what the upstream's tag named when somebody last looked.

use anyhow::{Context, Result, anyhow};
use toml_edit::Document;

use crate::oci::Digest;
use crate::workspace::distro::Upstream;

/// `distro_toml` with `upstream` pinned to `digest`. Every other byte stays: comments, line ends,
/// a byte order mark, and the kind of the quotes.
pub(crate) fn repin(distro_toml: &str, upstream: &Upstream, digest: Digest) -> Result<String> {
    let document = Document::parse(distro_toml).context("reading it as TOML")?;
    let span = document
        .get("upstream")
        .and_then(|item| item.as_value()?.span())
        .ok_or_else(|| anyhow!("it has no upstream"))?;
    let old = &distro_toml[span.clone()];
    let quotes = &old[..old.len() - old.trim_start_matches(['"', '\'']).len()];
    let pinned = Upstream { tag: upstream.tag.clone(), pin: Some(digest) };
    // Nothing in a reference has to be escaped in any of TOML's strings.
    Ok(format!("{}{quotes}{pinned}{quotes}{}", &distro_toml[..span.start], &distro_toml[span.end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_changes_and_nothing_else_does() {
        let check = |before: &str, upstream: &str| {
            let upstream: Upstream = upstream.parse().unwrap();
            repin(before, &upstream, Digest::of(b"")).unwrap()
        };
        let pinned = format!("quay.io/o/n:t@{}", Digest::of(b""));
        let before =
            "# Why.\ntitle = 'x' # as is\nupstream   =  \"quay.io/o/n:t\" # the tag moves\n\n# End.\n";
        let after = check(before, "quay.io/o/n:t");
        assert_eq!(after, before.replace("quay.io/o/n:t", &pinned));
        assert_eq!(check(&after, &pinned), after);
        let other = after.replace(&Digest::of(b"").to_string(), &Digest::of(b"old").to_string());
        assert_eq!(check(&other, &pinned), after);

        for form in [
            "title = 'x'\r\nupstream = 'quay.io/o/n:t'\r\n# End.",
            "\u{feff}# Why.\r\n\"upstream\" = \"\"\"quay.io/o/n:t\"\"\"",
            "\u{feff}upstream\t= '''quay.io/o/n:t'''   # ü\n",
        ] {
            let expected = form.replace("quay.io/o/n:t", &pinned);
            assert_eq!(check(form, "quay.io/o/n:t"), expected);
            let distro: toml::Table = toml::from_str(&expected).unwrap();
            assert_eq!(distro["upstream"].as_str(), Some(pinned.as_str()));
        }
    }
}
