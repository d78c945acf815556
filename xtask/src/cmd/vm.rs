//! `vm`: a disk, booted and looked at.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::{Session, disk, next};
use crate::flags::{Vm as Flags, VmMachine, VmTest};
use crate::vm::{self, Acceleration, Check, Firmware, Folder, Registry, Settings, Upgraded, Vm};

pub(crate) fn run(flags: &Flags, session: &Session) -> Result<()> {
    match flags {
        Flags::Run(machine) => keep_running(machine, session),
        Flags::Test(flags) => test(flags, session),
    }
}

/// What a boot came to. Keys may be added, none renamed.
#[derive(Debug, Serialize)]
struct Report {
    disk: PathBuf,
    firmware: Firmware,
    acceleration: Acceleration,
    /// From the start of the machine to the first answer of nginx's.
    seconds_to_nginx: f64,
    /// From the start of the machine to the end of the checks.
    seconds: f64,
    ok: bool,
    checks: Vec<Check>,
    /// There if one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    upgrade: Option<UpgradeReport>,
}

#[derive(Debug, Serialize)]
struct UpgradeReport {
    /// What it led to.
    image: String,
    #[serde(flatten)]
    upgraded: Upgraded,
}

fn keep_running(flags: &VmMachine, session: &Session) -> Result<()> {
    let (mut machine, disk) = start(flags, session)?;
    let progress = &session.progress;
    progress.line(format!("booting {}; what it writes is gone in the end", disk.display()));
    progress.line(format!("  console:  tail -f {}", session.shown(&machine.folder.console()).display()));
    progress.line(format!("  nginx:    curl http://{}/", machine.web()));
    progress.line(format!("  ssh:      {}", machine.ssh()?));
    progress.line("Ctrl-C ends it");
    machine.wait()
}

fn test(flags: &VmTest, session: &Session) -> Result<()> {
    let deadline = Duration::from_secs(flags.deadline);
    let workspace = session.workspace()?;
    // Made before the machine runs: it may take a compiler, and fail.
    let next = match (&flags.upgrade_to, flags.upgrade) {
        (Some(name), _) => Some(next::named(name, session)?),
        (None, true) => Some(next::changed(&workspace, &flags.machine.compose, session)?),
        (None, false) => None,
    };
    let (mut machine, disk) = start(&flags.machine, session)?;
    let (firmware, acceleration) = (flags.machine.firmware, machine.acceleration);
    let how = format!("{}, {}", firmware.name(), acceleration.name());
    let step = session.progress.step(format!("booting {} ({how})", disk.display()));
    let nginx = machine.wait_for_web(deadline)?;
    step.at("waiting for ssh");
    machine.wait_for_ssh(deadline)?;
    step.at("looking at the system from inside");
    let mut checks = machine.look(deadline)?;
    // By now the boot is over, and every app has had its time.
    let routes = workspace.apps.iter().filter_map(|app| app.route.as_ref());
    let paths: Vec<String> =
        routes.flat_map(|route| &route.prefixes).map(|prefix| prefix.to_string()).collect();
    for path in &paths {
        let (ok, found) = match machine.get(path) {
            Ok((code, _)) => (code < 400, code.to_string()),
            Err(error) => (false, error.to_string()),
        };
        checks.push(Check { name: format!("GET {path}"), ok, found });
    }
    let seconds = machine.age();
    step.done(format!("booted {} ({how}) in {:.0} s", disk.display(), nginx.as_secs_f64()));

    let upgrade = match next {
        Some(next::Next { image, name, version, .. }) => {
            let registry = Registry::serve(image).context("serving the next image")?;
            let programs: Vec<String> =
                workspace.apps.iter().map(|app| format!("/usr/bin/{}", app.name)).collect();
            let target = registry.image();
            let next =
                vm::Next { image: &target, version: version.as_deref(), programs: &programs, paths: &paths };
            let step = session.progress.step(format!("upgrading to {name}"));
            let upgraded = vm::upgrade(&mut machine, &next, deadline, |what| step.at(what))?;
            step.done(format!("upgraded to {name}, and rolled back"));
            Some(UpgradeReport { image: name, upgraded })
        }
        None => None,
    };
    drop(machine);

    let all = || checks.iter().chain(upgrade.iter().flat_map(|upgrade| &upgrade.upgraded.checks));
    let (count, bad) = (all().count(), all().filter(|check| !check.ok).count());
    let report = Report {
        ok: bad == 0,
        disk,
        firmware,
        acceleration,
        seconds_to_nginx: nginx.as_secs_f64(),
        seconds: seconds.as_secs_f64(),
        checks,
        upgrade,
    };
    session.print(&report, || report.to_string())?;
    if bad > 0 {
        bail!("{bad} of {count} checks failed");
    }
    Ok(())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let upgraded = self.upgrade.as_ref().map(|upgrade| &upgrade.upgraded);
        for check in self.checks.iter().chain(upgraded.iter().flat_map(|upgraded| &upgraded.checks)) {
            let verdict = if check.ok { "ok " } else { "BAD" };
            writeln!(f, "{verdict} {:<40} {}", check.name, check.found)?;
        }
        writeln!(f, "{:>5.0} s until nginx answers", self.seconds_to_nginx)?;
        for step in upgraded.iter().flat_map(|upgraded| &upgraded.steps) {
            writeln!(f, "{:>5.0} s {}", step.seconds, step.name)?;
        }
        Ok(())
    }
}

/// Boots the disk that is named, or the one that `dist` makes.
fn start(flags: &VmMachine, session: &Session) -> Result<(Vm, PathBuf)> {
    session.ensure(&vm::needs(flags.firmware))?;
    let disk = match &flags.disk {
        Some(disk) => disk.clone(),
        None => disk::default(&flags.compose, &flags.builder, session)?,
    };
    let settings = Settings {
        disk: &disk,
        firmware: flags.firmware,
        acceleration: flags.acceleration,
        memory: flags.memory,
    };
    let folder = Folder::take(&session.cache("vm"))?;
    Ok((Vm::start(&settings, folder, &session.progress)?, disk))
}
