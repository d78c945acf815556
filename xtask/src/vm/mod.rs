//! A disk, booted in QEMU. It is read only: what the guest writes is gone with it.

mod disk;
mod folder;
mod guest;
mod http;
mod qemu;
mod registry;
mod seed;
mod updater;
mod upgrade;

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use xshell::Shell;

use crate::exec::{self, Running};
use crate::hint::WithHint;
use crate::preflight::{Need, Source};
use crate::progress::Progress;
use crate::words::printable;

pub(crate) use self::folder::Folder;
pub(crate) use self::guest::Check;
use self::guest::{Guest, Key};
pub(crate) use self::qemu::{Acceleration, Firmware};
use self::qemu::{Machine, Ports};
pub(crate) use self::registry::Registry;
use self::seed::Seed;
pub(crate) use self::upgrade::{Next, Upgraded, upgrade};

/// Looks at a system from inside.
const CHECKS: &str = include_str!("checks.sh");
/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long a processor's support for virtual machines may take to start a kernel: one that works needs
/// a few seconds, and one that does not may fail at some instruction of the kernel's, or crawl.
const PROBATION: Duration = Duration::from_secs(30);
/// What a kernel says first. Source: Linux, init/version.c, linux_banner.
const BANNER: &str = "Linux version ";
/// What QEMU says of an instruction that the processor's support cannot do. Source: QEMU,
/// accel/kvm/kvm-all.c, kvm_handle_internal_error.
const KVM_ERROR: &str = "KVM internal error";

const SSH: Need = Need {
    program: "ssh",
    purpose: "looks at the guest from inside",
    from: Source::Debian("openssh-client"),
};
const SSH_KEYGEN: Need = Need {
    program: "ssh-keygen",
    purpose: "makes the key that the guest lets in",
    from: Source::Debian("openssh-client"),
};

/// How long a port that has to be closed is asked whether it is.
const CLOSED: Duration = Duration::from_secs(8);
/// What is on the console of a guest that nobody need wait for.
/// Source: Linux, kernel/panic.c; systemd, units/emergency.service.in and sulogin-shell.
const DEAD_ENDS: [&str; 2] = ["Kernel panic - not syncing", "You are in emergency mode"];
/// How many of the console's last lines an error shows.
const LINES_SHOWN: usize = 12;
/// What QEMU says when somebody has taken a port since it was free. Source: QEMU, net/slirp.c.
const PORT_TAKEN: &str = "Could not set up host forwarding rule";
/// How often other ports are tried then.
const TRIES: usize = 5;

/// The programs and files that a boot takes.
pub(crate) fn needs(firmware: Firmware) -> Vec<Need> {
    let mut needs = vec![qemu::QEMU, disk::QEMU_IMG, qemu::SETPRIV, SSH, SSH_KEYGEN];
    needs.extend(firmware.need());
    needs
}

/// What is booted, and how.
pub(crate) struct Settings<'a> {
    pub(crate) disk: &'a Path,
    pub(crate) firmware: Firmware,
    /// None for what this machine can do.
    pub(crate) acceleration: Option<Acceleration>,
    /// In MiB.
    pub(crate) memory: u32,
}

/// A machine that runs until this is dropped.
pub(crate) struct Vm {
    // Ended before its files go.
    qemu: Running,
    guest: Guest,
    ports: Ports,
    /// When it was turned on, or told to boot again.
    started: Instant,
    pub(crate) acceleration: Acceleration,
    pub(crate) folder: Folder,
}

impl Vm {
    /// Starts the machine, whose files are in `folder`; by emulation where this machine's support for
    /// virtual ones does not work.
    pub(crate) fn start(settings: &Settings<'_>, folder: Folder, progress: &Progress) -> Result<Vm> {
        let acceleration = settings.acceleration.unwrap_or_else(Acceleration::of_this_machine);
        let key = Key::make(&folder.path)?;
        let mut vm = Vm::boot(settings, acceleration, key, folder)?;
        if settings.acceleration.is_some()
            || acceleration == Acceleration::Emulation
            || vm.starts_a_kernel()?
        {
            return Ok(vm);
        }
        progress.warn(
            "/dev/kvm is there and starts no kernel: the machine is emulated, which is slow \
             ('--acceleration kvm' waits for longer)",
        );
        let Vm { qemu, guest, folder, .. } = vm;
        // The disk and the ports are free again before the next one starts.
        drop(qemu);
        Vm::boot(settings, Acceleration::Emulation, guest.key, folder)
    }

    /// Whether a kernel shows itself within [`PROBATION`]: on the console, or, where that is silent, by
    /// letting somebody in at the end.
    fn starts_a_kernel(&mut self) -> Result<bool> {
        while self.age() < PROBATION {
            if self.qemu.has_ended()? || self.log()?.contains(KVM_ERROR) {
                return Ok(false);
            }
            if self.console()?.contains(BANNER) {
                return Ok(true);
            }
            thread::sleep(INTERVAL);
        }
        Ok(self.get("/").is_ok() || self.guest.boot()?.is_some())
    }

    fn boot(settings: &Settings<'_>, acceleration: Acceleration, key: Key, mut folder: Folder) -> Result<Vm> {
        let seed = Seed::serve(&key.public).context("serving the guest's first settings")?;
        let layer = disk::layer_over(settings.disk, &folder.path)?;
        let variables = settings.firmware.variables(&folder.path)?;
        let (console, log) = (folder.console(), folder.log());
        let sh = Shell::new()?;
        let mut tries = 0;
        loop {
            let ports = Ports::free().context("looking for free ports")?;
            let machine = Machine {
                disk: &layer,
                variables: variables.as_deref(),
                acceleration,
                memory: settings.memory,
                console: &console,
                serial: &seed.serial(),
                ports,
            };
            let started = Instant::now();
            let mut qemu = exec::serve(machine.command(&sh), &log)?;
            let web = SocketAddr::from((Ipv4Addr::LOCALHOST, ports.web));
            // It takes its ports at once, or ends.
            while !qemu.has_ended()? && TcpStream::connect(web).is_err() {
                thread::sleep(INTERVAL / 10);
            }
            tries += 1;
            let guest = Guest { key: key.clone(), port: ports.ssh };
            let mut vm = Vm { qemu, guest, ports, started, acceleration, folder };
            if tries < TRIES && vm.qemu.has_ended()? && vm.log()?.contains(PORT_TAKEN) {
                folder = vm.folder;
                continue;
            }
            return Ok(vm);
        }
    }

    /// The address of its nginx.
    pub(crate) fn web(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.web).into()
    }

    /// The command that logs in.
    pub(crate) fn ssh(&self) -> Result<String> {
        Ok(self.guest.ssh(&Shell::new()?).to_string())
    }

    /// For how long it has run, since it was turned on or told to boot again.
    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits until the machine has ended by itself.
    pub(crate) fn wait(&mut self) -> Result<()> {
        while !self.qemu.has_ended()? {
            thread::sleep(INTERVAL);
        }
        let log = self.log()?;
        if log.trim().is_empty() { Ok(()) } else { bail!("QEMU has ended:\n{}", log.trim_end()) }
    }

    /// Waits for an answer of nginx's to `/`, whatever it is; `limit` is the machine's age then.
    pub(crate) fn wait_for_web(&mut self, limit: Duration) -> Result<Duration> {
        let web = self.web();
        self.wait_until("nginx answers", limit, |_| Ok(guest::get(web, "/").is_ok()))
    }

    /// Waits until the key is let in.
    pub(crate) fn wait_for_ssh(&mut self, limit: Duration) -> Result<Duration> {
        self.wait_until("ssh lets the key in", limit, |guest| Ok(guest.boot()?.is_some()))
    }

    /// Boots again, and waits until nginx and ssh answer.
    fn reboot(&mut self, limit: Duration) -> Result<Duration> {
        let before = self.guest.boot()?;
        self.started = Instant::now();
        // The connection may end before the command does.
        self.guest.run("sudo systemctl reboot || true", limit).ok();
        self.wait_until("the guest boots again", limit, |guest| {
            let now = guest.boot()?;
            Ok(now.is_some() && now != before)
        })?;
        self.wait_for_web(limit)
    }

    /// Asks nginx for a path: the status code and the body.
    pub(crate) fn get(&self, path: &str) -> io::Result<(u16, String)> {
        guest::get(self.web(), path)
    }

    /// What the system says about itself, and what it lets in.
    pub(crate) fn look(&self, limit: Duration) -> Result<Vec<Check>> {
        let left = limit.saturating_sub(self.age()).max(INTERVAL);
        let mut checks = self.guest.look(CHECKS, &[], left).context("looking at the guest from inside")?;
        let probe = (Ipv4Addr::LOCALHOST, self.ports.probe).into();
        checks.push(match guest::get_within(probe, "/", CLOSED) {
            Ok((code, _)) => Check::new("port 7777, outside", false, format!("it is open: {code}")),
            Err(_) => Check::new("port 7777, outside", true, "no answer"),
        });
        Ok(checks)
    }

    fn wait_until(
        &mut self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut(&Guest) -> Result<bool>,
    ) -> Result<Duration> {
        loop {
            if self.qemu.has_ended()? {
                bail!("QEMU has ended before {what}:\n{}{}", self.log()?.trim_end(), self.last_lines());
            }
            if condition(&self.guest)? {
                return Ok(self.age());
            }
            if let Some(end) = dead_end(&self.console()?) {
                bail!("the guest gave up before {what}: {end}{}", self.last_lines());
            }
            if self.log()?.contains(KVM_ERROR) {
                return Err(anyhow!(
                    "/dev/kvm does not work: the guest stopped before {what}{}",
                    self.last_lines()
                ))
                .hint("'--acceleration emulation' does without it, and is slow");
            }
            if self.age() > limit {
                let error = anyhow!("not within {} s: {what}{}", limit.as_secs(), self.last_lines());
                return Err(error).hint(format!(
                    "{} says how far it came; '--deadline' gives it more time",
                    self.folder.console().display()
                ));
            }
            thread::sleep(INTERVAL);
        }
    }

    fn log(&self) -> Result<String> {
        let log = self.folder.log();
        let bytes = fs::read(&log).with_context(|| format!("reading {}", log.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What the guest has written to its console so far; QEMU makes the file when it starts.
    fn console(&self) -> Result<String> {
        let console = self.folder.console();
        match fs::read(&console) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(error).with_context(|| format!("reading {}", console.display())),
        }
    }

    /// The end of what the guest wrote to its console, for an error.
    fn last_lines(&self) -> String {
        last_lines(&self.console().unwrap_or_default())
    }
}

impl Ports {
    /// Three that nobody listens on.
    fn free() -> io::Result<Ports> {
        let ssh = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let web = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = |listener: TcpListener| Ok::<_, io::Error>(listener.local_addr()?.port());
        Ok(Ports { ssh: port(ssh)?, web: port(web)?, probe: port(probe)? })
    }
}

/// The line after which a guest goes on no further by itself, if it has come to that.
fn dead_end(console: &str) -> Option<&str> {
    console.lines().find_map(|line| {
        let start = DEAD_ENDS.iter().find_map(|words| line.find(words))?;
        line.get(start..).map(str::trim_end)
    })
}

/// The last lines of a console, each after a line break, without what moves the cursor and colours.
fn last_lines(console: &str) -> String {
    let plain = |line: &str| printable(line.as_bytes()).trim_end().to_owned();
    let lines: Vec<String> = console.lines().map(plain).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        return "\nits console is silent".to_owned();
    }
    let last = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
    last.iter().map(|line| format!("\n    {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_ends_in_plain_lines() {
        let many: String = (0..40).map(|number| format!("line {number}\r\n")).collect();
        let console = format!("{many}\r\n\u{1b}[0;1;31mFailed\u{1b}[0m to start\u{1b}[K\r\n\u{1b}c login: ");
        let lines = last_lines(&console);
        assert_eq!(lines.lines().count(), LINES_SHOWN + 1, "{lines}");
        assert!(lines.starts_with("\n    line 30\n"), "{lines}");
        assert!(lines.ends_with("\n    Failed to start\n     login:"), "{lines}");
        assert_eq!(last_lines("\r\n"), "\nits console is silent");
    }

    #[test]
    fn a_guest_that_gave_up_is_not_waited_for() {
        let check =
            |console: &str, expected: Option<&str>| assert_eq!(dead_end(console), expected, "{console}");
        check("", None);
        check(
            "[    0.0] Linux version 6.12\r\n[    2.1] systemd[1]: Reached target emergency.target\r\n",
            None,
        );
        check(
            "[    0.9] clock\r\n[    1.2] Kernel panic - not syncing: VFS: no root\r\n[    1.3] CPU: 0\r\n",
            Some("Kernel panic - not syncing: VFS: no root"),
        );
        check(
            "You are in emergency mode. After logging in, type \"journalctl -xb\"\r\n",
            Some("You are in emergency mode. After logging in, type \"journalctl -xb\""),
        );
    }
}
