//! The only place that starts a program.
//!
//! A program is shown as it would be typed, its output is kept for the error, and it ends when
//! this process is interrupted: nothing is left running.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use xshell::Cmd;

/// How many of a failed program's last lines the error shows.
const LINES_KEPT: usize = 30;
/// How long programs may take to clean up (mmdebstrap unmounts) once they are told to end.
const GRACE: Duration = Duration::from_secs(10);

/// The process groups that run now.
static RUNNING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecError {
    #[error("`{command}` could not be started")]
    Start { command: String, source: io::Error },
    #[error("`{command}` failed ({status}){output}")]
    Failed { command: String, status: ExitStatus, output: String },
    #[error("reading what `{command}` writes")]
    Io { command: String, source: io::Error },
}

/// Makes Ctrl-C and SIGTERM end the programs that run, then this process, with exit code 130.
pub(crate) fn end_on_interrupt() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("listening for signals")?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            let again = INTERRUPTED.swap(true, Ordering::SeqCst);
            let programs_ran = signal_all(if again { Signal::KILL } else { Signal::TERM });
            if programs_ran && !again {
                // The main thread sees its program fail, cleans up, and exits by itself.
                std::thread::spawn(|| {
                    let end = Instant::now() + GRACE;
                    while Instant::now() < end && !running().is_empty() {
                        std::thread::sleep(Duration::from_millis(50));
                    }
                    signal_all(Signal::KILL);
                });
            } else {
                eprintln!("interrupted");
                std::process::exit(130);
            }
        }
    });
    Ok(())
}

/// Whether Ctrl-C or SIGTERM came, which explains the failure of a program.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Runs a program to its end; its output shows only when it fails.
pub(crate) fn run(cmd: Cmd<'_>) -> Result<(), ExecError> {
    read(cmd).map(drop)
}

/// Runs a program and gives what it wrote to standard output.
pub(crate) fn read(cmd: Cmd<'_>) -> Result<String, ExecError> {
    let command = cmd.to_string();
    let mut output = Vec::new();
    stream(cmd, |stdout| stdout.read_to_end(&mut output).map(drop), |_| ())?;
    String::from_utf8(output).map_err(|error| ExecError::Io { command, source: io::Error::other(error) })
}

/// Runs a program whose standard output `consume` reads while it runs; `on_line` sees each line
/// of its standard error.
pub(crate) fn stream<T>(
    cmd: Cmd<'_>,
    consume: impl FnOnce(&mut dyn Read) -> io::Result<T>,
    on_line: impl FnMut(&str) + Send,
) -> Result<T, ExecError> {
    let command = cmd.to_string();
    let failed_io = |source| ExecError::Io { command: command.clone(), source };
    let mut child = spawn(cmd.into(), &command, Stdio::piped)?;
    let (Some(mut stdout), Some(stderr)) = (child.inner.stdout.take(), child.inner.stderr.take()) else {
        return Err(failed_io(io::Error::other("its output is not a pipe")));
    };
    let (consumed, tail) = std::thread::scope(|scope| {
        let tail = scope.spawn(|| keep_tail(stderr, on_line));
        let consumed = consume(&mut stdout);
        // A consumer that gave up must not leave the program waiting for a reader.
        drop(stdout);
        (consumed, tail.join())
    });
    let status = child.inner.wait().map_err(failed_io)?;
    let tail = tail.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    if !status.success() {
        // The consumer's own error says more than the broken pipe that it caused.
        let output = indent(tail);
        if let (Err(source), false) = (consumed, interrupted()) {
            return Err(ExecError::Io { command: command.clone(), source });
        }
        return Err(ExecError::Failed { command, status, output });
    }
    consumed.map_err(failed_io)
}

/// Runs a program that talks to the user by itself, such as a test runner.
pub(crate) fn pass_through(cmd: Cmd<'_>) -> Result<(), ExecError> {
    let command = cmd.to_string();
    eprintln!("$ {command}");
    let mut child = spawn(cmd.into(), &command, Stdio::inherit)?;
    let status = child.inner.wait().map_err(|source| ExecError::Io { command: command.clone(), source })?;
    if status.success() { Ok(()) } else { Err(ExecError::Failed { command, status, output: String::new() }) }
}

/// A program that runs, in a process group of its own; dropping it ends the whole group.
struct Running {
    inner: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.inner.id());
        if matches!(self.inner.try_wait(), Ok(None)) {
            signal(self.inner.id(), Signal::KILL);
            if let Err(error) = self.inner.wait() {
                eprintln!("warning: waiting for process {}: {error}", self.inner.id());
            }
        }
    }
}

fn spawn(mut cmd: Command, command: &str, output: fn() -> Stdio) -> Result<Running, ExecError> {
    cmd.stdin(Stdio::null()).stdout(output()).stderr(output()).process_group(0);
    // Held while it starts, so that an interrupt either sees the program or comes before it.
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    let inner = cmd.spawn().map_err(|source| ExecError::Start { command: command.to_owned(), source })?;
    running.insert(inner.id());
    Ok(Running { inner })
}

fn running() -> BTreeSet<u32> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Sends `which` to every program that runs; whether there was one.
fn signal_all(which: Signal) -> bool {
    let running = running();
    running.iter().for_each(|&group| signal(group, which));
    !running.is_empty()
}

fn signal(group: u32, which: Signal) {
    // A group that has ended by itself is as good as one that was told to.
    if let Some(pid) = i32::try_from(group).ok().and_then(Pid::from_raw) {
        kill_process_group(pid, which).ok();
    }
}

/// Shows each line to `on_line` and keeps the last ones.
fn keep_tail(stderr: impl Read, mut on_line: impl FnMut(&str)) -> Vec<String> {
    let mut tail = Vec::new();
    for line in BufReader::new(stderr).split(b'\n') {
        let Ok(line) = line else { break };
        let line = String::from_utf8_lossy(&line).into_owned();
        on_line(&line);
        if tail.len() == LINES_KEPT {
            tail.remove(0);
        }
        tail.push(line);
    }
    tail
}

fn indent(lines: Vec<String>) -> String {
    lines.iter().fold(String::new(), |mut text, line| {
        write!(text, "\n    {line}").ok();
        text
    })
}

#[cfg(test)]
mod tests {
    use xshell::{Shell, cmd};

    use super::*;

    #[test]
    fn reads_output_and_keeps_errors() {
        let sh = Shell::new().unwrap();
        assert_eq!(read(cmd!(sh, "echo hello")).unwrap(), "hello\n");

        let script = "echo one >&2; echo two >&2; exit 3";
        let error = run(cmd!(sh, "sh -c {script}")).unwrap_err().to_string();
        insta::assert_snapshot!(error, @r#"
        `sh -c "echo one >&2; echo two >&2; exit 3"` failed (exit status: 3)
            one
            two
        "#);
        let error = run(cmd!(sh, "no-such-program --flag")).unwrap_err().to_string();
        insta::assert_snapshot!(error, @"`no-such-program --flag` could not be started");
    }

    #[test]
    fn a_consumer_that_fails_ends_the_program() {
        let sh = Shell::new().unwrap();
        let error = stream(cmd!(sh, "yes"), |_| Err::<(), _>(io::Error::other("disk full")), |_| ());
        let error = anyhow::Error::from(error.unwrap_err());
        assert_eq!(format!("{error:#}"), "reading what `yes` writes: disk full");
    }
}
