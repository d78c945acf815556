//! The digest in a `distro.toml`: what the upstream's tag named when somebody last looked.

use anyhow::{Context, Result, anyhow};
use toml_edit::{DocumentMut, Value};

use crate::oci::Digest;
use crate::workspace::distro::Upstream;

/// `distro_toml` with `upstream` pinned to `digest`. Everything else, comments included, stays.
pub(crate) fn repin(distro_toml: &str, upstream: &Upstream, digest: Digest) -> Result<String> {
    let mut document: DocumentMut = distro_toml.parse().context("reading it as TOML")?;
    let value = document
        .get_mut("upstream")
        .and_then(|item| item.as_value_mut())
        .ok_or_else(|| anyhow!("it has no upstream"))?;
    let pinned = Upstream { tag: upstream.tag.clone(), pin: Some(digest) };
    let mut new = Value::from(pinned.to_string());
    // The blanks before a value and the comment behind it belong to it.
    *new.decor_mut() = value.decor().clone();
    *value = new;
    Ok(document.to_string())
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
    }
}
