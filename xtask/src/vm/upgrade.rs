//! A system that runs -> the same host on another image, and back: what is kept, and what arrives.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde::Serialize;

use super::Vm;
use super::guest::Check;
use super::updater::{PROBE, Updater};
use crate::hint::WithHint;

/// Makes what has to be kept, and looks for it.
const KEPT: &str = include_str!("upgrade.sh");
/// A default in /etc that every image has, and the image's own copy of it.
const DEFAULT: &str = "/etc/nginx/nginx.conf";
const DEFAULT_IN_IMAGE: &str = "/usr/etc/nginx/nginx.conf";

/// What an upgrade leads to.
pub(crate) struct Next<'a> {
    /// The image's name, for the guest.
    pub(crate) image: &'a str,
    /// What the apps say there, if the image was made for this: then the apps differ, and a default
    /// in /etc.
    pub(crate) version: Option<&'a str>,
    /// The programs of the apps.
    pub(crate) programs: &'a [String],
    /// What is asked for through nginx.
    pub(crate) paths: &'a [String],
}

/// Something that took time.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) seconds: f64,
}

/// What an upgrade and a rollback came to.
#[derive(Debug, Serialize)]
pub(crate) struct Upgraded {
    pub(crate) steps: Vec<Step>,
    pub(crate) checks: Vec<Check>,
}

/// What a system is made of, as far as it is looked at.
#[derive(Debug, PartialEq, Eq)]
struct State {
    /// The folder of its deployment.
    deployment: String,
    /// SHA-256 by path; what is not there is not in it.
    files: BTreeMap<String, String>,
    answers: BTreeMap<String, String>,
}

/// Upgrades the system to `next`, looks at it, rolls it back and looks again. Each step and each boot
/// may take `limit`.
pub(crate) fn upgrade(
    vm: &mut Vm,
    next: &Next<'_>,
    limit: Duration,
    mut at: impl FnMut(&str),
) -> Result<Upgraded> {
    let updater = Updater::parse(&vm.guest.run(PROBE, limit)?)
        .ok_or_else(|| anyhow!("the guest has neither bootc nor testboot to upgrade itself with"))
        .hint("boot a disk of an image that this repository's bases are in")?;
    let mut steps = Vec::new();
    let mut checks = stage("before", vm.guest.look(KEPT, &["make"], limit)?);
    let before = State::read(vm, next, limit)?;

    let mut timed = |name, seconds: Duration| steps.push(Step { name, seconds: seconds.as_secs_f64() });
    at("getting the next image");
    let start = Instant::now();
    vm.guest.run(&updater.switch(next.image), limit).context("upgrading")?;
    timed("getting the next image", start.elapsed());
    at("rebooting into it");
    timed("rebooting into it", vm.reboot(limit)?);
    at("looking at the next system");
    let start = Instant::now();
    let mut seen = vm.look(limit)?;
    seen.extend(vm.guest.look(KEPT, &["look"], limit)?);
    let after = State::read(vm, next, limit)?;
    seen.extend(arrived(&before, &after, next));
    checks.extend(stage("upgraded", seen));
    timed("looking at the next system", start.elapsed());

    at("rolling back");
    let start = Instant::now();
    vm.guest.run(updater.rollback(), limit).context("rolling back")?;
    timed("rolling back", start.elapsed());
    at("rebooting into the system before");
    timed("rebooting into the system before", vm.reboot(limit)?);
    at("looking at the system before");
    let start = Instant::now();
    let mut seen = vm.look(limit)?;
    seen.extend(vm.guest.look(KEPT, &["look", "later"], limit)?);
    seen.extend(is_back(&before, &State::read(vm, next, limit)?, next));
    checks.extend(stage("rolled back", seen));
    timed("looking at the system before", start.elapsed());
    Ok(Upgraded { steps, checks })
}

fn stage(name: &str, checks: Vec<Check>) -> Vec<Check> {
    let of_stage = |check: Check| Check { name: format!("{name}: {}", check.name), ..check };
    checks.into_iter().map(of_stage).collect()
}

impl State {
    fn read(vm: &Vm, next: &Next<'_>, limit: Duration) -> Result<State> {
        let files: Vec<&str> =
            [DEFAULT, DEFAULT_IN_IMAGE].into_iter().chain(next.programs.iter().map(String::as_str)).collect();
        // Where the kernel was told to find the deployment is a link to it.
        let command = format!(
            "sudo readlink -e /sysroot\"$(sed 's/.*ostree=\\([^ ]*\\).*/\\1/' /proc/cmdline)\"\nsudo sha256sum {} 2>/dev/null || true",
            files.join(" ")
        );
        let text = vm.guest.run(&command, limit).context("looking at the guest's files")?;
        let mut answers = BTreeMap::new();
        for path in next.paths {
            // What is wrong with one is told by its check.
            let answer =
                vm.get(path).map_or_else(|error| error.to_string(), |(code, body)| format!("{code} {body}"));
            answers.insert(path.clone(), answer.trim_end().to_owned());
        }
        Ok(State::parse(&text, answers))
    }

    fn parse(text: &str, answers: BTreeMap<String, String>) -> State {
        let (deployment, sums) = text.split_once('\n').unwrap_or((text, ""));
        let files = sums.lines().filter_map(|line| line.split_once("  "));
        let files = files.map(|(sum, path)| (path.to_owned(), sum.to_owned())).collect();
        State { deployment: deployment.to_owned(), files, answers }
    }

    fn file(&self, path: &str) -> &str {
        self.files.get(path).map_or("none", String::as_str)
    }

    /// The paths whose answer contains `text`.
    fn that_say(&self, text: &str) -> Vec<&str> {
        let found = self.answers.iter().filter(|(_, answer)| answer.contains(text));
        found.map(|(path, _)| path.as_str()).collect()
    }

    fn are_answered(&self) -> Check {
        let bad = self.answers.iter().filter(|(_, answer)| !answer.starts_with(['2', '3']));
        let bad: Vec<String> = bad.map(|(path, answer)| format!("{path}: {answer}")).collect();
        let found = if bad.is_empty() { self.answers.keys().cloned().collect() } else { bad };
        Check::new(
            "apps answer",
            self.answers.values().all(|answer| answer.starts_with(['2', '3'])),
            found.join(", "),
        )
    }
}

/// What the next system has to have that the one before had not.
fn arrived(before: &State, after: &State, next: &Next<'_>) -> Vec<Check> {
    let is_images = after.files.contains_key(DEFAULT) && after.file(DEFAULT) == after.file(DEFAULT_IN_IMAGE);
    let mut checks = vec![
        Check::new("another image is booted", before.deployment != after.deployment, &*after.deployment),
        Check::new(
            "a default in /etc",
            is_images,
            if is_images { "as the image has it" } else { "not the image's" },
        ),
        after.are_answered(),
    ];
    if let Some(version) = next.version {
        let is_new = before.file(DEFAULT) != after.file(DEFAULT);
        checks.push(Check::new(
            "a changed default in /etc",
            is_new,
            if is_new { "arrived" } else { "did not arrive" },
        ));
        let is_new =
            |path: &&String| before.file(path) != after.file(path) && after.files.contains_key(*path);
        let new: Vec<&str> = next.programs.iter().filter(is_new).map(String::as_str).collect();
        checks.push(Check::new("apps are new", new.len() == next.programs.len(), new.join(", ")));
        // Not every app says what version it is.
        let old_says = |path: &&str| before.answers.get(*path) != after.answers.get(*path);
        let (says, changed) =
            (after.that_say(version), next.paths.iter().map(String::as_str).filter(old_says).count());
        let found = format!(
            "{version} is said by {}",
            if says.is_empty() { "none".to_owned() } else { says.join(", ") }
        );
        checks.push(Check::new("the new version answers", !says.is_empty() || changed == 0, found));
    }
    checks
}

/// What has to be as it was.
fn is_back(before: &State, after: &State, next: &Next<'_>) -> Vec<Check> {
    let mut checks = vec![
        Check::new("the image before is booted", before.deployment == after.deployment, &*after.deployment),
        Check::new("its files", before.files == after.files, format!("{} compared", after.files.len())),
        after.are_answered(),
    ];
    if let Some(version) = next.version {
        let says = after.that_say(version);
        let found = if says.is_empty() { "the version before".to_owned() } else { says.join(", ") };
        checks.push(Check::new("the old version answers", says.is_empty(), found));
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(deployment: &str, sum: &str, answer: &str) -> State {
        let text =
            format!("{deployment}\n{sum}  {DEFAULT}\n{sum}  {DEFAULT_IN_IMAGE}\n{sum}  /usr/bin/hello\n");
        State::parse(&text, BTreeMap::from([("/".to_owned(), answer.to_owned())]))
    }

    fn bad(checks: &[Check]) -> Vec<&str> {
        checks.iter().filter(|check| !check.ok).map(|check| check.name.as_str()).collect()
    }

    #[test]
    fn every_check_of_an_upgrade_can_fail() {
        let (programs, paths) = (["/usr/bin/hello".to_owned()], ["/".to_owned()]);
        let next = Next { image: "x", version: Some("v2"), programs: &programs, paths: &paths };
        let old = state("/deploy/a.0", "1", "200 version v1");
        let new = state("/deploy/b.0", "2", "200 version v2");
        assert_eq!(bad(&arrived(&old, &new, &next)), [""; 0]);
        assert_eq!(bad(&is_back(&old, &old, &next)), [""; 0]);
        assert_eq!(
            bad(&arrived(&old, &old, &next)),
            ["another image is booted", "a changed default in /etc", "apps are new"]
        );
        let mut half = state("/deploy/b.0", "2", "502 x");
        half.files.insert(DEFAULT.to_owned(), "1".to_owned());
        assert_eq!(
            bad(&arrived(&old, &half, &next)),
            ["a default in /etc", "apps answer", "a changed default in /etc", "the new version answers"]
        );
        assert_eq!(
            bad(&is_back(&old, &new, &next)),
            ["the image before is booted", "its files", "the old version answers"]
        );
        assert_eq!(bad(&is_back(&old, &state("/deploy/a.0", "1", "no route"), &next)), ["apps answer"]);
    }
}
