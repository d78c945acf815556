//! A disk, booted in QEMU. It is read only: what the guest writes is gone with it.

mod guest;
mod qemu;
mod seed;

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use tempfile::TempDir;
use xshell::Shell;

use crate::exec::{self, Running};
use crate::hint::WithHint;
use crate::preflight::{Need, Source};
use crate::progress::Progress;

pub(crate) use self::guest::Check;
use self::guest::Key;
pub(crate) use self::qemu::{Acceleration, Firmware};
use self::qemu::{Machine, Ports};
use self::seed::Seed;

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(500);
/// A processor's support for virtual machines that does not work fails at the first instructions.
const PROBATION: Duration = Duration::from_secs(4);

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

/// The programs and files that a boot takes.
pub(crate) fn needs(firmware: Firmware) -> Vec<Need> {
    let mut needs = vec![qemu::QEMU, SSH, SSH_KEYGEN];
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
    /// Where the console and QEMU write.
    pub(crate) logs: &'a Path,
}

/// A machine that runs until this is dropped.
pub(crate) struct Vm {
    qemu: Running,
    key: Key,
    ports: Ports,
    started: Instant,
    pub(crate) acceleration: Acceleration,
    pub(crate) console: PathBuf,
    log: PathBuf,
    /// The key and the firmware's variables.
    _scratch: TempDir,
}

impl Vm {
    /// Starts the machine; by emulation where this machine's support for virtual ones does not work.
    pub(crate) fn start(settings: &Settings<'_>, progress: &Progress) -> Result<Vm> {
        let acceleration = settings.acceleration.unwrap_or_else(Acceleration::of_this_machine);
        let mut vm = Vm::boot(settings, acceleration)?;
        if acceleration == Acceleration::Kvm && settings.acceleration.is_none() {
            let end = Instant::now() + PROBATION;
            while Instant::now() < end {
                if vm.qemu.has_ended()? || vm.log()?.contains("KVM internal error") {
                    progress
                        .warn("/dev/kvm is there and does not work: the machine is emulated, which is slow");
                    // The disk and the ports are free again before the next one starts.
                    drop(vm);
                    return Vm::boot(settings, Acceleration::Emulation);
                }
                thread::sleep(INTERVAL);
            }
        }
        Ok(vm)
    }

    fn boot(settings: &Settings<'_>, acceleration: Acceleration) -> Result<Vm> {
        let logs = settings.logs;
        fs::create_dir_all(logs).with_context(|| format!("making {}", logs.display()))?;
        let scratch = tempfile::tempdir().context("making a folder for the machine's files")?;
        let key = Key::make(scratch.path())?;
        let seed = Seed::serve(&key.public).context("serving the guest's first settings")?;
        let ports = Ports::free().context("looking for free ports")?;
        let variables = settings.firmware.variables(scratch.path())?;
        let console = logs.join("console.log");
        let machine = Machine {
            disk: settings.disk,
            variables: variables.as_deref(),
            acceleration,
            memory: settings.memory,
            console: &console,
            serial: &seed.serial(),
            ports,
        };
        let sh = Shell::new()?;
        let log = logs.join("qemu.log");
        let qemu = exec::serve(machine.command(&sh)?, &log)?;
        let started = Instant::now();
        Ok(Vm { qemu, key, ports, started, acceleration, console, log, _scratch: scratch })
    }

    /// The address of its nginx.
    pub(crate) fn web(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.web).into()
    }

    /// The command that logs in.
    pub(crate) fn ssh(&self) -> Result<String> {
        Ok(self.key.ssh(&Shell::new()?, self.ports.ssh).to_string())
    }

    /// For how long it has run.
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
        self.wait_until("nginx answers", limit, || Ok(guest::get(web, "/").is_ok()))
    }

    /// Waits until the key is let in.
    pub(crate) fn wait_for_ssh(&mut self, limit: Duration) -> Result<Duration> {
        let port = self.ports.ssh;
        // The closure may not borrow what is looked at beside it.
        let key = std::mem::take(&mut self.key);
        let waited = self.wait_until("ssh lets the key in", limit, || guest::is_open(&key, port));
        self.key = key;
        waited
    }

    /// Asks nginx for a path.
    pub(crate) fn get(&self, path: &str) -> io::Result<u16> {
        guest::get(self.web(), path).map(|(code, _)| code)
    }

    /// What the system says about itself.
    pub(crate) fn look(&self, limit: Duration) -> Result<Vec<Check>> {
        guest::look(&self.key, self.ports.ssh, limit.saturating_sub(self.age()).max(INTERVAL))
            .context("looking at the guest from inside")
    }

    fn wait_until(
        &mut self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut() -> Result<bool>,
    ) -> Result<Duration> {
        loop {
            if self.qemu.has_ended()? {
                bail!("QEMU has ended before {what}:\n{}", self.log()?.trim_end());
            }
            if condition()? {
                return Ok(self.age());
            }
            if self.age() > limit {
                return Err(anyhow!("not within {} s: {what}", limit.as_secs())).hint(format!(
                    "{} says how far it came; '--deadline' gives it more time",
                    self.console.display()
                ));
            }
            thread::sleep(INTERVAL);
        }
    }

    fn log(&self) -> Result<String> {
        let bytes = fs::read(&self.log).with_context(|| format!("reading {}", self.log.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Ports {
    /// Two that nobody listens on.
    fn free() -> io::Result<Ports> {
        let ssh = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let web = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        Ok(Ports { ssh: ssh.local_addr()?.port(), web: web.local_addr()?.port() })
    }
}
