//! What there is beside programs: what a machine can do, and what would stop a run later.

use std::path::Path;

use anyhow::{Context, Result};
use chrono::NaiveDate;
use serde::Serialize;

use super::Session;
use crate::builder::Configs;
use crate::hint;
use crate::progress::human_bytes;
use crate::subids;
use crate::vm::Acceleration;
use crate::workspace::{DistroName, Workspace};

/// A base, an image, a raw disk and one made of it, on debian-13: 0.3, 0.1, 1.5 and 0.5 GB; as much
/// again for the ones that are kept.
const ROOM: u64 = 5_000_000_000;

/// One thing that was looked at. Keys may be added, none renamed.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Fact {
    /// What it is about.
    pub(super) about: &'static str,
    pub(super) state: State,
    pub(super) text: String,
    /// A command or an edit, where it is not good.
    pub(super) hint: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Ok,
    /// Something works less well, or not at all; the rest does.
    Limited,
    /// What the repository holds has to be mended.
    Error,
}

impl Fact {
    fn ok(about: &'static str, text: impl Into<String>) -> Fact {
        Fact { about, state: State::Ok, text: text.into(), hint: None }
    }

    fn limited(about: &'static str, text: impl Into<String>, hint: impl Into<String>) -> Fact {
        Fact { about, state: State::Limited, text: text.into(), hint: Some(hint.into()) }
    }

    fn failed(about: &'static str, state: State, error: &anyhow::Error) -> Fact {
        let hints: Vec<&str> = hint::hints(error).collect();
        let hint = (!hints.is_empty()).then(|| hints.join("; "));
        Fact { about, state, text: format!("{error:#}"), hint }
    }
}

/// All of it, in the order in which it is shown.
pub(super) fn facts(workspace: Option<&Workspace>, session: &Session) -> Vec<Fact> {
    let mut facts = vec![
        kvm(Acceleration::of_this_machine(), Path::new("/dev/kvm").exists()),
        room(&session.root).unwrap_or_else(|error| Fact::failed("room", State::Limited, &error)),
        match subids::check(None) {
            Ok(()) => Fact::ok("user", "may make images"),
            Err(error) => Fact::failed("user", State::Limited, &error),
        },
        match Configs::read(&session.root, None) {
            Ok(_) => Fact::ok("disks", "their configuration is sound, and no key in it is a placeholder"),
            Err(error) => Fact::failed("disks", State::Error, &error),
        },
    ];
    if let Some(workspace) = workspace {
        facts.push(
            login(workspace, session).unwrap_or_else(|error| Fact::failed("login", State::Limited, &error)),
        );
        facts.push(distros(workspace, session.today()));
    }
    facts
}

fn kvm(offered: Acceleration, is_there: bool) -> Fact {
    match (offered, is_there) {
        (Acceleration::Kvm, _) => Fact::ok(
            "kvm",
            "/dev/kvm can be opened; where it does not work all the same, machines are emulated",
        ),
        (Acceleration::Emulation, true) => Fact::limited(
            "kvm",
            "/dev/kvm is not for this user: machines are emulated, ten times slower",
            "run 'sudo usermod --append --groups kvm \"$USER\"', and log in again",
        ),
        (Acceleration::Emulation, false) => Fact::limited(
            "kvm",
            "there is no /dev/kvm: machines are emulated, ten times slower",
            "turn virtualisation on in the firmware, or nested virtualisation where this is a machine of another's",
        ),
    }
}

/// What is free where bases, images and disks go.
fn room(root: &Path) -> Result<Fact> {
    let file_system = rustix::fs::statvfs(root).with_context(|| format!("looking at {}", root.display()))?;
    Ok(room_of(file_system.f_bavail * file_system.f_frsize))
}

fn room_of(free: u64) -> Fact {
    let text = format!("{} are free", human_bytes(free));
    if free >= ROOM {
        return Fact::ok("room", text);
    }
    let text = format!("{text}, and an image with its disk takes up to {}", human_bytes(ROOM));
    Fact::limited("room", text, "free some: 'rm -r target/dist target/xtask' removes what can be made again")
}

/// Whether a push would have a login. Pulling what is public needs none.
fn login(workspace: &Workspace, session: &Session) -> Result<Fact> {
    let image = &workspace.settings.image;
    let registry = image.registry();
    Ok(match session.registry()?.login(&image.tagged("latest"))? {
        Some(origin) => Fact::ok("login", format!("{registry}: from {origin}")),
        None => {
            let text = format!("there is none for {registry}: '--push' needs one");
            Fact::limited(
                "login",
                text,
                format!("run 'podman login {registry}' or 'docker login {registry}'"),
            )
        }
    })
}

fn distros(workspace: &Workspace, today: NaiveDate) -> Fact {
    let ended: Vec<String> = workspace
        .distros
        .iter()
        .filter(|distro| distro.is_ended(today))
        .map(|distro| distro.name.to_string())
        .collect();
    let default = workspace.distros.iter().find(|distro| distro.name == workspace.settings.distro);
    let successor = default.and_then(|distro| distro.successor.as_ref());
    of_distros(&workspace.settings.distro, successor, &ended)
}

/// What to say of distros that get no updates any more, of which the default one matters most.
fn of_distros(default: &DistroName, successor: Option<&DistroName>, ended: &[String]) -> Fact {
    let others = match ended.is_empty() {
        true => String::new(),
        false => format!("; ended: {}", ended.join(", ")),
    };
    if !ended.contains(&default.to_string()) {
        return Fact::ok("distros", format!("{default} is maintained{others}"));
    }
    let hint = match successor {
        Some(successor) => format!("write distro = \"{successor}\" into Cargo.toml"),
        None => "name another one in Cargo.toml: 'cargo xtask list' shows them".to_owned(),
    };
    Fact::limited("distros", format!("{default} gets no updates any more{others}"), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_good_has_a_hint() {
        let name = |text: &str| text.parse::<DistroName>().unwrap();
        let facts = [
            kvm(Acceleration::Kvm, true),
            kvm(Acceleration::Emulation, true),
            kvm(Acceleration::Emulation, false),
            room_of(ROOM),
            room_of(ROOM - 1),
            of_distros(&name("debian-13"), None, &["fedora-40".to_owned()]),
            of_distros(&name("fedora-40"), Some(&name("fedora-44")), &["fedora-40".to_owned()]),
            of_distros(&name("fedora-40"), None, &["fedora-40".to_owned()]),
        ];
        let states: Vec<State> = facts.iter().map(|fact| fact.state).collect();
        let (ok, limited) = (State::Ok, State::Limited);
        assert_eq!(states, [ok, limited, limited, ok, limited, ok, limited, limited]);
        for fact in &facts {
            assert_eq!(fact.hint.is_none(), fact.state == State::Ok, "{fact:?}");
        }
        insta::assert_snapshot!(facts[6].text, @"fedora-40 gets no updates any more; ended: fedora-40");
        insta::assert_snapshot!(facts[6].hint.as_ref().unwrap(), @r#"write distro = "fedora-44" into Cargo.toml"#);
    }
}
