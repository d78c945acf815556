//! What a bootc host does not do with a layer, refused before a byte is written.
//!
//! A host drops, misplaces or overwrites such files without a word; the table says what to do
//! instead. Source of each rule: ostree-ext's tar import, bootc's `container lint`, and what
//! `podman` and `ostree checkout` make of a name that is a symlink in the base.

use std::fmt;
use std::io::{self, Write};

use super::path::LayerPath;
use super::tree::Tree;
use super::write;

/// A tree that no rule speaks against. Only this becomes a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckedTree(Tree);

/// Everything that is wrong with a layer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) struct Violations(pub(crate) Vec<Violation>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) path: LayerPath,
    pub(crate) reason: &'static str,
    pub(crate) instead: &'static str,
}

/// Something that holds for a place and all that is in it.
struct Rule {
    place: &'static str,
    reason: &'static str,
    instead: &'static str,
}

const STATE: &str = "let the unit make it (StateDirectory=, LogsDirectory=), or a line in configs/tmpfiles.d";
const RUNTIME: &str = "let the unit make it (RuntimeDirectory=), or a line in configs/tmpfiles.d";
const PROGRAMS: &str = "ship programs in /usr/bin";
const LIBRARIES: &str = "ship files in /usr/lib";
const USERS: &str = "describe users in configs/sysusers.d";

const OVER_SYMLINK: &str = "is a symlink in bases, which a layer's directory would replace";
const DROPPED: &str = "is emptied on the host";

const fn rule(place: &'static str, reason: &'static str, instead: &'static str) -> Rule {
    Rule { place, reason, instead }
}

const RULES: [Rule; 29] = [
    rule("var", "is unpacked at the first install only, and never upgraded", STATE),
    rule("run", DROPPED, RUNTIME),
    rule("tmp", DROPPED, RUNTIME),
    rule("proc", DROPPED, RUNTIME),
    rule("sys", DROPPED, RUNTIME),
    rule("dev", DROPPED, "let udev make devices"),
    rule("boot", "belongs to the boot loader", "leave kernels to the base"),
    rule("ostree", "belongs to ostree", LIBRARIES),
    rule("sysroot", "belongs to ostree", LIBRARIES),
    rule("usr/etc", "is where ostree keeps the image's /etc", "ship it in /etc"),
    rule(
        "usr/lib/modules",
        "belongs to the base's kernel; a second one is refused",
        "leave kernels to the base",
    ),
    rule("bin", OVER_SYMLINK, PROGRAMS),
    rule("sbin", OVER_SYMLINK, PROGRAMS),
    rule("usr/sbin", OVER_SYMLINK, PROGRAMS),
    rule("lib", OVER_SYMLINK, LIBRARIES),
    rule("lib64", OVER_SYMLINK, LIBRARIES),
    rule("usr/local", OVER_SYMLINK, PROGRAMS),
    rule("usr/tmp", OVER_SYMLINK, RUNTIME),
    rule("opt", OVER_SYMLINK, LIBRARIES),
    rule("home", OVER_SYMLINK, STATE),
    rule("root", OVER_SYMLINK, STATE),
    rule("srv", OVER_SYMLINK, STATE),
    rule("mnt", OVER_SYMLINK, STATE),
    rule("media", OVER_SYMLINK, STATE),
    rule("etc/passwd", "is the host's own, merged at each upgrade", USERS),
    rule("etc/shadow", "is the host's own, merged at each upgrade", USERS),
    rule("etc/group", "is the host's own, merged at each upgrade", USERS),
    rule("etc/gshadow", "is the host's own, merged at each upgrade", USERS),
    rule("etc/machine-id", "makes every host the same machine", "leave it to the first boot"),
];

/// The only top levels of a layer that reach a host.
const TOP_LEVELS: [&str; 2] = ["usr", "etc"];

/// Checks every path of `tree`; all that is wrong is listed.
pub(crate) fn check(tree: Tree) -> Result<CheckedTree, Violations> {
    let mut violations: Vec<Violation> = Vec::new();
    for (path, _) in tree.nodes() {
        let rule = RULES.iter().find(|rule| path.is_within(rule.place));
        let broken = rule.map(|rule| (rule.reason, rule.instead)).or_else(|| {
            let is_known = TOP_LEVELS.iter().any(|top| path.is_within(top));
            (!is_known).then_some(("is dropped: a host takes /usr and /etc only", LIBRARIES))
        });
        // What is in a refused place is refused with it.
        let is_told = violations.iter().any(|told| path.is_within(told.path.as_str()));
        if let (Some((reason, instead)), false) = (broken, is_told) {
            violations.push(Violation { path: path.clone(), reason, instead });
        }
    }
    if violations.is_empty() { Ok(CheckedTree(tree)) } else { Err(Violations(violations)) }
}

impl CheckedTree {
    /// Writes the layer's tar.
    pub(crate) fn write_tar(&self, out: impl Write) -> io::Result<()> {
        write::write_tar(&self.0, out)
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> =
            self.0.iter().map(|v| format!("{} {}: {}", v.path, v.reason, v.instead)).collect();
        f.write_str(&lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::FileMode;
    use super::*;

    fn check_paths(paths: &[&str]) -> String {
        let mut tree = Tree::default();
        for path in paths {
            tree.file(*path, FileMode::Plain, vec![]).unwrap();
        }
        check(tree).map_or_else(|violations| violations.to_string(), |_| "fine".to_owned())
    }

    #[test]
    fn each_place_is_refused_with_what_to_do_instead() {
        assert_eq!(
            check_paths(&["usr/bin/hello", "etc/nginx/nginx.conf", "usr/lib64/x", "usr/binary"]),
            "fine"
        );
        let places: Vec<String> = RULES.iter().map(|rule| format!("{}/x", rule.place)).collect();
        let places: Vec<&str> = places.iter().map(String::as_str).chain(["data/x"]).collect();
        insta::assert_snapshot!(check_paths(&places), @"
        /bin is a symlink in bases, which a layer's directory would replace: ship programs in /usr/bin
        /boot belongs to the boot loader: leave kernels to the base
        /data is dropped: a host takes /usr and /etc only: ship files in /usr/lib
        /dev is emptied on the host: let udev make devices
        /etc/group is the host's own, merged at each upgrade: describe users in configs/sysusers.d
        /etc/gshadow is the host's own, merged at each upgrade: describe users in configs/sysusers.d
        /etc/machine-id makes every host the same machine: leave it to the first boot
        /etc/passwd is the host's own, merged at each upgrade: describe users in configs/sysusers.d
        /etc/shadow is the host's own, merged at each upgrade: describe users in configs/sysusers.d
        /home is a symlink in bases, which a layer's directory would replace: let the unit make it (StateDirectory=, LogsDirectory=), or a line in configs/tmpfiles.d
        /lib is a symlink in bases, which a layer's directory would replace: ship files in /usr/lib
        /lib64 is a symlink in bases, which a layer's directory would replace: ship files in /usr/lib
        /media is a symlink in bases, which a layer's directory would replace: let the unit make it (StateDirectory=, LogsDirectory=), or a line in configs/tmpfiles.d
        /mnt is a symlink in bases, which a layer's directory would replace: let the unit make it (StateDirectory=, LogsDirectory=), or a line in configs/tmpfiles.d
        /opt is a symlink in bases, which a layer's directory would replace: ship files in /usr/lib
        /ostree belongs to ostree: ship files in /usr/lib
        /proc is emptied on the host: let the unit make it (RuntimeDirectory=), or a line in configs/tmpfiles.d
        /root is a symlink in bases, which a layer's directory would replace: let the unit make it (StateDirectory=, LogsDirectory=), or a line in configs/tmpfiles.d
        /run is emptied on the host: let the unit make it (RuntimeDirectory=), or a line in configs/tmpfiles.d
        /sbin is a symlink in bases, which a layer's directory would replace: ship programs in /usr/bin
        /srv is a symlink in bases, which a layer's directory would replace: let the unit make it (StateDirectory=, LogsDirectory=), or a line in configs/tmpfiles.d
        /sys is emptied on the host: let the unit make it (RuntimeDirectory=), or a line in configs/tmpfiles.d
        /sysroot belongs to ostree: ship files in /usr/lib
        /tmp is emptied on the host: let the unit make it (RuntimeDirectory=), or a line in configs/tmpfiles.d
        /usr/etc is where ostree keeps the image's /etc: ship it in /etc
        /usr/lib/modules belongs to the base's kernel; a second one is refused: leave kernels to the base
        /usr/local is a symlink in bases, which a layer's directory would replace: ship programs in /usr/bin
        /usr/sbin is a symlink in bases, which a layer's directory would replace: ship programs in /usr/bin
        /usr/tmp is a symlink in bases, which a layer's directory would replace: let the unit make it (RuntimeDirectory=), or a line in configs/tmpfiles.d
        /var is unpacked at the first install only, and never upgraded: let the unit make it (StateDirectory=, LogsDirectory=), or a line in configs/tmpfiles.d
        ");
    }

    #[test]
    fn a_refused_directory_speaks_for_what_is_in_it() {
        assert_eq!(
            check_paths(&["opt/a/one", "opt/a/two"]),
            "/opt is a symlink in bases, which a layer's directory would replace: ship files in /usr/lib"
        );
    }
}
