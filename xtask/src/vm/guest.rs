//! A system that runs, seen from outside: over HTTP and ssh.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use xshell::{Shell, cmd};

use super::seed::USER;
use crate::exec;

/// Looks at the system from inside.
const CHECKS: &str = include_str!("checks.sh");
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
#[derive(Default)]
pub(crate) struct Key {
    private: PathBuf,
    pub(crate) public: String,
}

impl Key {
    /// Makes one in `folder`, which is empty.
    pub(crate) fn make(folder: &Path) -> Result<Key> {
        let private = folder.join("key");
        let sh = Shell::new()?;
        exec::run(cmd!(sh, "ssh-keygen -q -t ed25519 -C testboot-vm -N").arg("").arg("-f").arg(&private))?;
        let public = private.with_extension("pub");
        let public =
            std::fs::read_to_string(&public).with_context(|| format!("reading {}", public.display()))?;
        Ok(Key { private, public })
    }

    /// How the guest is logged in to, whose ssh is at `port` of this machine.
    pub(crate) fn ssh<'a>(&self, sh: &'a Shell, port: u16) -> xshell::Cmd<'a> {
        let key = &self.private;
        // Each boot has a host key of its own, which nobody can know.
        cmd!(sh, "ssh -q -i {key} -p")
            .arg(port.to_string())
            .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
            .args(["-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20"])
            .arg(format!("{USER}@127.0.0.1"))
    }
}

/// Whether the guest lets the owner of `key` in.
pub(crate) fn is_open(key: &Key, port: u16) -> Result<bool> {
    let sh = Shell::new()?;
    match exec::ask(key.ssh(&sh, port).arg("true"), "", PATIENCE * 2) {
        Ok(answer) => Ok(answer.status.success()),
        Err(exec::ExecError::Late { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What the guest says about itself, within `limit`.
pub(crate) fn look(key: &Key, port: u16, limit: Duration) -> Result<Vec<Check>> {
    let sh = Shell::new()?;
    let answer = exec::ask(key.ssh(&sh, port).args(["sh", "-s"]), CHECKS, limit)?;
    let mut checks = parse(&answer.stdout);
    if !answer.status.success() {
        let found = format!("the checks ended with {}", answer.status);
        checks.push(Check { name: "ssh".to_owned(), ok: false, found });
    }
    Ok(checks)
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
pub(crate) fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
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
