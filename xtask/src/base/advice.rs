//! What somebody who builds on a base should know about it: nothing that stops them.

use std::fmt;

use crate::oci::{Base, Digest, Reference};
use crate::workspace::{Distro, DistroName, Workspace};

/// What a base says it has, as a list with commas.
pub(crate) const PROVIDES: &str = "bootc-testboot.provides";
/// What a base was made from. Source: OCI image specification, annotations.md.
pub(crate) const UPSTREAM_NAME: &str = "org.opencontainers.image.base.name";
pub(crate) const UPSTREAM_DIGEST: &str = "org.opencontainers.image.base.digest";

/// Something that apps take for granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Capability {
    Nginx,
    Systemd,
}

/// A base that is named with both a tag and a digest, and what its registry says of the tag.
pub(crate) struct Named<'a> {
    pub(crate) tag: &'a Reference,
    pub(crate) digest: Digest,
    pub(crate) now: Digest,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Its tag names something newer.
    Moved {
        tag: String,
        was: Digest,
        now: Digest,
    },
    /// It was made from another upstream than the distro's folder pins.
    OtherUpstream {
        distro: DistroName,
        made_from: Digest,
        pin: Digest,
    },
    Lacks {
        capability: Capability,
        needed_by: &'static str,
    },
}

/// What there is to say about `base`, which is built on by a workspace with these distros and needs.
pub(crate) fn advise(
    base: &Base,
    named: Option<&Named<'_>>,
    distros: &[Distro],
    needs: &[(Capability, &'static str)],
) -> Vec<Advice> {
    let moved = named.filter(|named| named.now != named.digest).map(|named| Advice::Moved {
        tag: named.tag.to_string(),
        was: named.digest,
        now: named.now,
    });
    // A base that does not say what it has may have anything.
    let lacks = base.label(PROVIDES).into_iter().flat_map(|provided| {
        let has = |capability: Capability| provided.split(',').any(|word| word.trim() == capability.name());
        needs
            .iter()
            .filter(move |(capability, _)| !has(*capability))
            .map(|&(capability, needed_by)| Advice::Lacks { capability, needed_by })
    });
    moved.into_iter().chain(other_upstream(base, distros)).chain(lacks).collect()
}

/// What the apps of a workspace take for granted, and why.
pub(crate) fn needs(workspace: &Workspace) -> Vec<(Capability, &'static str)> {
    let mut needs = Vec::new();
    if workspace.apps.iter().any(|app| app.route.is_some()) {
        needs.push((Capability::Nginx, "apps with routes"));
    }
    if !workspace.os.units.is_empty() || workspace.apps.iter().any(|app| !app.units.is_empty()) {
        needs.push((Capability::Systemd, "units"));
    }
    needs
}

fn other_upstream(base: &Base, distros: &[Distro]) -> Option<Advice> {
    let name = base.label(UPSTREAM_NAME)?;
    let made_from: Digest = base.label(UPSTREAM_DIGEST)?.parse().ok()?;
    let is_of = |distro: &&Distro| distro.upstream().is_some_and(|upstream| upstream.tag.to_string() == name);
    let distro = distros.iter().find(is_of)?;
    let pin = distro.upstream()?.pin.filter(|pin| *pin != made_from)?;
    Some(Advice::OtherUpstream { distro: distro.name.clone(), made_from, pin })
}

impl Capability {
    fn name(self) -> &'static str {
        match self {
            Capability::Nginx => "nginx",
            Capability::Systemd => "systemd",
        }
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Advice::Moved { tag, was, now } => write!(
                f,
                "{tag} was {} and is {} by now; name the base with that digest to follow it",
                was.short(),
                now.short()
            ),
            Advice::OtherUpstream { distro, made_from, pin } => write!(
                f,
                "the base was made from {}, but {distro} pins {}; run 'cargo xtask base {distro}'",
                made_from.short(),
                pin.short()
            ),
            Advice::Lacks { capability, needed_by } => write!(
                f,
                "the base says that it has no {name}, which {needed_by} need; \
                 add it in the base's folder, and '{name}' to its label {PROVIDES}",
                name = capability.name()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;

    use super::*;
    use crate::oci::{Document, MediaType, Platform, Verified};
    use crate::workspace::DistroKind;
    use crate::workspace::distro::Stage;

    fn base(labels: &[(&str, &str)]) -> Base {
        let mut all = json!({"containers.bootc": "1"});
        for (key, value) in labels {
            all[key] = json!(value);
        }
        let config = json!({
            "os": "linux", "architecture": "amd64", "config": {"Labels": all},
            "rootfs": {"type": "layers", "diff_ids": []},
        });
        let config = Verified::own(config.to_string().into_bytes());
        let manifest = json!({
            "schemaVersion": 2, "layers": [], "config": config.descriptor(MediaType::ImageConfig),
        });
        let manifest = Verified::own(manifest.to_string().into_bytes());
        let Ok(Document::Manifest(manifest)) = Document::parse(manifest, None) else { panic!("a manifest") };
        Base::new(manifest, config, "linux/amd64".parse::<Platform>().unwrap()).unwrap()
    }

    fn fedora(upstream: &str) -> Distro {
        Distro {
            name: "fedora-43".parse().unwrap(),
            dir: PathBuf::new(),
            title: String::new(),
            stage: Stage::Production,
            end_of_life: "2026-12-09".parse().unwrap(),
            successor: None,
            platforms: Vec::new(),
            kind: DistroKind::Image { upstream: upstream.parse().unwrap() },
        }
    }

    #[test]
    fn advice_is_given_where_something_is_known() {
        let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
        let both = [(Capability::Nginx, "apps with routes"), (Capability::Systemd, "units")];
        let check = |labels: &[(&str, &str)], upstream: &str, now: Option<Digest>, expected: &[&str]| {
            let tag: Reference = "ghcr.io/o/n:base".parse().unwrap();
            let named = now.map(|now| Named { tag: &tag, digest: old, now });
            let advice = advise(&base(labels), named.as_ref(), &[fedora(upstream)], &both);
            let shown: Vec<String> = advice.iter().map(ToString::to_string).collect();
            assert_eq!(shown, expected, "for {labels:?}");
        };
        let (name, old_text) = ("quay.io/f/f:43", old.to_string());
        let pinned = |digest: Digest| format!("{name}@{digest}");
        let made_from_old = [(UPSTREAM_NAME, name), (UPSTREAM_DIGEST, old_text.as_str())];

        // Bases that say nothing, and tags that stayed.
        check(&[], name, None, &[]);
        check(&[], &pinned(new), Some(old), &[]);
        check(&[(PROVIDES, "nginx, systemd,more")], name, None, &[]);
        // Unpinned, pinned to the same, another distro's, damaged.
        check(&made_from_old, name, None, &[]);
        check(&made_from_old, &pinned(old), None, &[]);
        check(&made_from_old, &format!("quay.io/other/f:43@{new}"), None, &[]);
        check(&[(UPSTREAM_NAME, name), (UPSTREAM_DIGEST, "sha256:x")], &pinned(new), None, &[]);

        check(
            &[],
            name,
            Some(new),
            &["ghcr.io/o/n:base was cba06b5736fa and is 11507a0e2f5e by now; \
              name the base with that digest to follow it"],
        );
        check(
            &made_from_old,
            &pinned(new),
            None,
            &["the base was made from cba06b5736fa, but fedora-43 pins \
              11507a0e2f5e; run 'cargo xtask base fedora-43'"],
        );
        check(
            &[(PROVIDES, "systemd")],
            name,
            None,
            &["the base says that it has no nginx, which apps with routes \
              need; add it in the base's folder, and 'nginx' to its label bootc-testboot.provides"],
        );
        let lacking = base(&[(PROVIDES, "")]);
        assert_eq!(advise(&lacking, None, &[], &both).len(), 2);
        assert_eq!(advise(&lacking, None, &[], &[]), []);
    }
}
