//! `vm`: a disk, booted and looked at.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;

use super::{Session, disk};
use crate::flags::{Vm as Flags, VmMachine, VmTest};
use crate::vm::{self, Acceleration, Check, Firmware, Settings, Vm};

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
}

fn keep_running(flags: &VmMachine, session: &Session) -> Result<()> {
    let (mut machine, disk) = start(flags, session)?;
    let progress = &session.progress;
    progress.line(format!("booting {}; what it writes is gone in the end", disk.display()));
    progress.line(format!("  console:  tail -f {}", session.shown(&machine.console).display()));
    progress.line(format!("  nginx:    curl http://{}/", machine.web()));
    progress.line(format!("  ssh:      {}", machine.ssh()?));
    progress.line("Ctrl-C ends it");
    machine.wait()
}

fn test(flags: &VmTest, session: &Session) -> Result<()> {
    let deadline = Duration::from_secs(flags.deadline);
    let workspace = session.workspace()?;
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
    for prefix in workspace.apps.iter().filter_map(|app| app.route.as_ref()).flat_map(|route| &route.prefixes)
    {
        let path = prefix.to_string();
        let (ok, found) = match machine.get(&path) {
            Ok(code) => (code < 400, code.to_string()),
            Err(error) => (false, error.to_string()),
        };
        checks.push(Check { name: format!("GET {path}"), ok, found });
    }
    let seconds = machine.age();
    step.done(format!("booted {} ({how}) in {:.0} s", disk.display(), nginx.as_secs_f64()));
    drop(machine);

    let report = Report {
        disk,
        firmware,
        acceleration,
        seconds_to_nginx: nginx.as_secs_f64(),
        seconds: seconds.as_secs_f64(),
        ok: checks.iter().all(|check| check.ok),
        checks,
    };
    session.print(&report, || {
        let line = |check: &Check| {
            let verdict = if check.ok { "ok " } else { "BAD" };
            format!("{verdict} {:<30} {}\n", check.name, check.found)
        };
        report.checks.iter().map(line).collect()
    })?;
    let bad = report.checks.iter().filter(|check| !check.ok).count();
    if bad > 0 {
        bail!("{bad} of {} checks failed", report.checks.len());
    }
    Ok(())
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
        logs: &session.cache("vm"),
    };
    Ok((Vm::start(&settings, &session.progress)?, disk))
}
