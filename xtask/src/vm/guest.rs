//! A system that runs, seen from outside: over HTTP and ssh.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use xshell::{Shell, cmd};

use super::seed::USER;
use crate::exec;

/// How long a single answer may take. A guest that is emulated is slow, and one that has just
/// started is slower.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest answer that is read.
const LONGEST: u64 = 1 << 20;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) ok: bool,
    /// What was found.
    pub(crate) found: String,
}

/// A key that lets its owner in, in a folder of its own.
#[derive(Clone)]
pub(super) struct Key {
    private: PathBuf,
    pub(super) public: String,
}

impl Key {
    /// Makes one in `folder`, which has none.
    pub(super) fn make(folder: &Path) -> Result<Key> {
        let private = folder.join("key");
        let sh = Shell::new()?;
        exec::run(cmd!(sh, "ssh-keygen -q -t ed25519 -C testboot-vm -N").arg("").arg("-f").arg(&private))?;
        let public = private.with_extension("pub");
        let public =
            std::fs::read_to_string(&public).with_context(|| format!("reading {}", public.display()))?;
        Ok(Key { private, public })
    }

    /// How a guest is logged in to, whose ssh is at `port` of this machine.
    fn ssh<'a>(&self, sh: &'a Shell, port: u16) -> xshell::Cmd<'a> {
        let key = &self.private;
        // Each boot has a host key of its own, which nobody can know.
        cmd!(sh, "ssh -q -i {key} -p")
            .arg(port.to_string())
            .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
            .args(["-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20"])
            .arg(format!("{USER}@127.0.0.1"))
    }
}

/// A system that is reached by ssh at a port of this machine.
pub(super) struct Guest {
    pub(super) key: Key,
    pub(super) port: u16,
}

impl Guest {
    /// The command that logs in.
    pub(super) fn ssh<'a>(&self, sh: &'a Shell) -> xshell::Cmd<'a> {
        self.key.ssh(sh, self.port)
    }

    /// What tells its boots apart, and nothing while it lets nobody in.
    /// Source: Linux, Documentation/admin-guide/sysctl/kernel.rst, "random", `boot_id`.
    pub(super) fn boot(&self) -> Result<Option<String>> {
        let sh = Shell::new()?;
        match exec::ask(self.ssh(&sh).arg("cat /proc/sys/kernel/random/boot_id"), "", PATIENCE * 2) {
            Ok(answer) => Ok(answer.status.success().then(|| answer.stdout.trim().to_owned())),
            Err(exec::ExecError::Late { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What a script finds, which gets `arguments`.
    pub(super) fn look(&self, script: &str, arguments: &[&str], limit: Duration) -> Result<Vec<Check>> {
        let sh = Shell::new()?;
        let command = self.ssh(&sh).args(["sh", "-s", "-"]).args(arguments);
        let answer = exec::ask(command, script, limit)?;
        let mut checks = parse(&answer.stdout);
        if !answer.status.success() {
            checks.push(Check::new("ssh", false, format!("the checks ended with {}", answer.status)));
        }
        Ok(checks)
    }

    /// Runs a shell's command, which has to succeed, and gives all that it wrote.
    pub(super) fn run(&self, command: &str, limit: Duration) -> Result<String> {
        let sh = Shell::new()?;
        let answer = exec::ask(self.ssh(&sh).args(["sh", "-s"]), &format!("exec 2>&1\n{command}\n"), limit)?;
        let text = answer.stdout.trim_end();
        if !answer.status.success() {
            bail!("`{command}` failed on the guest ({})\n{text}", answer.status);
        }
        Ok(text.to_owned())
    }
}

impl Check {
    pub(super) fn new(name: impl Into<String>, ok: bool, found: impl Into<String>) -> Check {
        Check { name: name.into(), ok, found: found.into() }
    }
}

fn parse(text: &str) -> Vec<Check> {
    let check = |line: &str| {
        let mut fields = line.splitn(3, '\t');
        let (verdict, name, found) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Check { name: name.to_owned(), ok: verdict == "ok", found: found.to_owned() })
    };
    text.lines().filter_map(check).collect()
}

/// Asks for a path: the status code and the body.
pub(super) fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    get_within(address, path, PATIENCE)
}

/// The same, for which `limit` is how long anything may take.
pub(super) fn get_within(address: SocketAddr, path: &str, limit: Duration) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    // In HTTP/1.0, the body ends with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: testboot\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.take(LONGEST).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let code = text.split(' ').nth(1).and_then(|code| code.parse().ok());
    let code = code.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is no HTTP"))?;
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((code, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_lines() {
        let checks = parse("ok\tstate\trunning\nnoise\nbad\tfailed units\tx.service\ty is more\n");
        let check =
            |name: &str, ok, found: &str| Check { name: name.to_owned(), ok, found: found.to_owned() };
        assert_eq!(
            checks,
            [check("state", true, "running"), check("failed units", false, "x.service\ty is more")]
        );
    }
}
