//! What somebody who builds on a base should know about it: nothing that stops them.

use std::fmt;

use serde_json::Value;

use crate::oci::annotation::{BASE_DIGEST, BASE_NAME, TITLE};
use crate::oci::{Base, Digest, ImageName, Reference};
use crate::workspace::settings::Repository;
use crate::workspace::{Distro, DistroName, Workspace};

/// What a base says it has, as a list with commas.
pub(crate) const PROVIDES: &str = "bootc-testboot.provides";

/// Something that apps take for granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Capability {
    Nginx,
    Systemd,
}

/// A tag, what it named, and what its registry says of it.
pub(crate) struct Named<'a> {
    pub(crate) tag: &'a Reference,
    pub(crate) digest: Digest,
    pub(crate) now: Digest,
}

/// How a distro's base gets to where the one that is built on came from.
#[derive(Clone, Copy)]
pub(crate) enum Remake<'a> {
    /// Into its layout.
    Local,
    /// Into the repository that it is published in.
    Published(&'a Repository),
}

/// A base, and what is known around it.
pub(crate) struct Situation<'a> {
    pub(crate) base: &'a Base,
    /// The base's own name, where it has both a tag and a digest.
    pub(crate) named: Option<Named<'a>>,
    pub(crate) distros: &'a [Distro],
    /// What the workspace takes for granted.
    pub(crate) needs: &'a [(Capability, &'static str)],
    pub(crate) remake: Remake<'a>,
}

/// One of a distro's bases, of which there may be two.
pub(crate) struct Twin<'a> {
    pub(crate) name: &'a ImageName,
    pub(crate) base: &'a Base,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Its tag names something newer.
    Moved { tag: String, was: Digest, now: Digest },
    /// The image that is to be replaced was built on what the base's tag named before.
    Rebased { image: String, tag: String, was: Digest, now: Digest },
    /// It was made from another upstream than the distro's folder pins.
    OtherUpstream {
        made_from: Digest,
        pin: Digest,
        distro: DistroName,
        /// The command that makes it anew.
        command: String,
    },
    Lacks {
        capability: Capability,
        needed_by: &'static str,
        /// The command that makes the base anew, where it is one of the workspace's.
        command: Option<String>,
    },
    /// There is a newer one of the same distro elsewhere.
    Newer {
        this: String,
        other: String,
        /// What makes use of the newer one.
        remedy: String,
    },
}

/// What there is to say about a base that is built on.
pub(crate) fn advise(situation: &Situation<'_>) -> Vec<Advice> {
    let Situation { base, named, needs, .. } = situation;
    let moved = named.as_ref().filter(|named| named.now != named.digest).map(|named| Advice::Moved {
        tag: named.tag.to_string(),
        was: named.digest,
        now: named.now,
    });
    // A base that does not say what it has may have anything.
    let lacks = base.label(PROVIDES).into_iter().flat_map(|provided| {
        let has = |capability: Capability| provided.split(',').any(|word| word.trim() == capability.name());
        needs.iter().filter(move |(capability, _)| !has(*capability)).map(|&(capability, needed_by)| {
            Advice::Lacks { capability, needed_by, command: remake_own(situation) }
        })
    });
    moved.into_iter().chain(other_upstream(situation)).chain(lacks).collect()
}

/// Whether `image`, whose annotations are these, was built on something else that `tag` named.
pub(crate) fn rebased(
    image: &ImageName,
    annotations: Option<&Value>,
    tag: &Reference,
    now: Digest,
) -> Option<Advice> {
    let text = |key: &str| annotations?.get(key)?.as_str();
    let was: Digest = text(BASE_DIGEST)?.parse().ok()?;
    let is_same_name = text(BASE_NAME)? == tag.to_string();
    (is_same_name && was != now).then(|| Advice::Rebased {
        image: image.to_string(),
        tag: tag.to_string(),
        was,
        now,
    })
}

/// Whether `other` is a newer base than `this`, by the times that are in them.
pub(crate) fn newer(this: &Twin<'_>, other: &Twin<'_>, remedy: impl FnOnce() -> String) -> Option<Advice> {
    let made = |twin: &Twin<'_>| twin.base.config.created();
    let is_other = this.base.digest() != other.base.digest();
    (is_other && made(other)? > made(this)?).then(|| Advice::Newer {
        this: this.name.to_string(),
        other: other.name.to_string(),
        remedy: remedy(),
    })
}

impl Remake<'_> {
    /// The command that makes the base of `distro` anew.
    pub(crate) fn command(self, distro: &DistroName) -> String {
        match self {
            Remake::Local => format!("cargo xtask base {distro}"),
            Remake::Published(repository) => {
                format!("cargo xtask base {distro} --push --image {repository}")
            }
        }
    }
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

/// The command for a base that has the title of one of the workspace's distros.
fn remake_own(situation: &Situation<'_>) -> Option<String> {
    let title = situation.base.label(TITLE)?;
    let distro = situation.distros.iter().find(|distro| distro.title == title)?;
    Some(situation.remake.command(&distro.name))
}

fn other_upstream(situation: &Situation<'_>) -> Option<Advice> {
    let Situation { base, distros, remake, .. } = situation;
    let name = base.label(BASE_NAME)?;
    let made_from: Digest = base.label(BASE_DIGEST)?.parse().ok()?;
    let is_of = |distro: &&Distro| distro.upstream().is_some_and(|upstream| upstream.tag.to_string() == name);
    let distro = distros.iter().find(is_of)?;
    let pin = distro.upstream()?.pin.filter(|pin| *pin != made_from)?;
    let (distro, command) = (distro.name.clone(), remake.command(&distro.name));
    Some(Advice::OtherUpstream { made_from, pin, distro, command })
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
            Advice::Rebased { image, tag, was, now } => write!(
                f,
                "{tag} has moved since {image} was built on it: it was {} and is {}, so hosts download \
                 what changed in it too",
                was.short(),
                now.short()
            ),
            Advice::OtherUpstream { made_from, pin, distro, command } => write!(
                f,
                "the base was made from {}, but {distro} pins {}; run '{command}'",
                made_from.short(),
                pin.short()
            ),
            Advice::Lacks { capability, needed_by, command } => {
                let name = capability.name();
                write!(
                    f,
                    "the base says that it has no {name}, which {needed_by} need; \
                     add it in the base's folder, and '{name}' to its label {PROVIDES}"
                )?;
                match command {
                    Some(command) => write!(f, ", and run '{command}'"),
                    None => Ok(()),
                }
            }
            Advice::Newer { this, other, remedy } => {
                write!(f, "{other} is newer than {this}, which is built on; {remedy}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;

    use super::*;
    use crate::oci::{Config, Document, MediaType, Platform, Verified};
    use crate::workspace::DistroKind;
    use crate::workspace::distro::Stage;

    #[test]
    fn the_newer_of_two_bases_is_told() {
        let made = |time: &str| {
            let mut base = base(&[]);
            base.config.json.insert("created".to_owned(), json!(time));
            // As another config would make it.
            base.manifest.blob = Verified::own(time.as_bytes().to_vec());
            base
        };
        let [this_name, other_name]: [ImageName; 2] =
            ["ghcr.io/o/n:base", "oci:b"].map(|name| name.parse().unwrap());
        let check = |this: &Base, other: &Base, expected: Option<&str>| {
            let (this, other) =
                (Twin { name: &this_name, base: this }, Twin { name: &other_name, base: other });
            let advice = newer(&this, &other, || "do this".to_owned());
            assert_eq!(advice.map(|advice| advice.to_string()).as_deref(), expected);
        };
        let (old, new) = (made("2026-01-04T00:00:00Z"), made("2026-01-11T00:00:00Z"));
        check(&old, &new, Some("oci:b is newer than ghcr.io/o/n:base, which is built on; do this"));
        check(&new, &old, None);
        check(&new, &new, None);
        check(&made("who knows"), &new, None);
    }

    fn base(labels: &[(&str, &str)]) -> Base {
        let mut all = json!({"containers.bootc": "1"});
        for (key, value) in labels {
            all[key] = json!(value);
        }
        let config = json!({
            "os": "linux", "architecture": "amd64", "config": {"Labels": all},
            "rootfs": {"type": "layers", "diff_ids": []},
        });
        let config = Config::parse(Verified::own(config.to_string().into_bytes())).unwrap();
        let manifest = json!({
            "schemaVersion": 2, "layers": [], "config": config.blob.descriptor(MediaType::ImageConfig),
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
            let (base, distros) = (base(labels), [fedora(upstream)]);
            let remake = Remake::Local;
            let advice = advise(&Situation { base: &base, named, distros: &distros, needs: &both, remake });
            let shown: Vec<String> = advice.iter().map(ToString::to_string).collect();
            assert_eq!(shown, expected, "for {labels:?}");
        };
        let (name, old_text) = ("quay.io/f/f:43", old.to_string());
        let pinned = |digest: Digest| format!("{name}@{digest}");
        let made_from_old = [(BASE_NAME, name), (BASE_DIGEST, old_text.as_str())];

        // Bases that say nothing, and tags that stayed.
        check(&[], name, None, &[]);
        check(&[], &pinned(new), Some(old), &[]);
        check(&[(PROVIDES, "nginx, systemd,more")], name, None, &[]);
        // Unpinned, pinned to the same, another distro's, damaged.
        check(&made_from_old, name, None, &[]);
        check(&made_from_old, &pinned(old), None, &[]);
        check(&made_from_old, &format!("quay.io/other/f:43@{new}"), None, &[]);
        check(&[(BASE_NAME, name), (BASE_DIGEST, "sha256:x")], &pinned(new), None, &[]);

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
        let situation =
            |needs| Situation { base: &lacking, named: None, distros: &[], needs, remake: Remake::Local };
        assert_eq!(advise(&situation(&both)).len(), 2);
        let (ours, mut distros) = (base(&[(PROVIDES, ""), (TITLE, "Fedora 43")]), [fedora(name)]);
        distros[0].title = "Fedora 43".to_owned();
        let advice = advise(&Situation { base: &ours, distros: &distros, ..situation(&both[..1]) });
        let [advice] = &advice[..] else { panic!("{advice:?}") };
        assert!(advice.to_string().ends_with(", and run 'cargo xtask base fedora-43'"), "{advice}");
        assert_eq!(advise(&situation(&[])), []);

        // A base that is published is published again.
        let (published, pin) = ("ghcr.io/o/n".parse().unwrap(), pinned(new));
        let remake = Remake::Published(&published);
        let (base, distros) = (base(&made_from_old), [fedora(&pin)]);
        let advice = advise(&Situation { base: &base, named: None, distros: &distros, needs: &[], remake });
        let [advice] = &advice[..] else { panic!("{advice:?}") };
        let expected = "run 'cargo xtask base fedora-43 --push --image ghcr.io/o/n'";
        assert!(advice.to_string().ends_with(expected), "{advice}");
    }

    #[test]
    fn an_image_is_rebased_when_its_bases_tag_has_moved() {
        let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
        let image: ImageName = "oci:out:t".parse().unwrap();
        let check = |annotations: Value, expected: Option<&str>| {
            let tag = "ghcr.io/o/n:base".parse().unwrap();
            let advice = rebased(&image, Some(&annotations), &tag, new);
            assert_eq!(advice.map(|advice| advice.to_string()).as_deref(), expected);
        };
        let on = |name: &str, digest: &str| json!({BASE_NAME: name, BASE_DIGEST: digest});
        check(
            on("ghcr.io/o/n:base", &old.to_string()),
            Some(
                "ghcr.io/o/n:base has moved since oci:out:t was built on it: it was cba06b5736fa and is \
                 11507a0e2f5e, so hosts download what changed in it too",
            ),
        );
        check(on("ghcr.io/o/n:base", &new.to_string()), None);
        check(on("ghcr.io/o/other:base", &old.to_string()), None);
        check(on("ghcr.io/o/n:base", "sha256:x"), None);
        check(json!({}), None);
    }
}
