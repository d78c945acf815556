//! The only place that starts a program.
//!
//! A program is shown as it would be typed, its output is kept for the error, and it ends when
//! this process is interrupted: nothing is left running.

pub(crate) mod interrupt;
mod measure;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};
use xshell::Cmd;

use self::interrupt::{Manner, interrupted, signal};
pub(crate) use self::measure::{Measured, measure};
use crate::progress::say;

/// How many of a failed program's last lines the error shows.
const LINES_KEPT: usize = 30;
/// Folders in which administrators' programs are, although a user's PATH lacks them.
pub(crate) const SYSTEM_DIRS: [&str; 2] = ["/usr/sbin", "/sbin"];
/// Where programs are looked for when nobody says. Source: _PATH_DEFPATH in paths.h.
const DEFAULT_PATH: &str = "/usr/bin:/bin";

/// What a pipe may hold that feeds a program, in bytes: as much as an ordinary user can have.
/// Source: pipe(7), /proc/sys/fs/pipe-max-size.
const PIPE_SIZE: usize = 1 << 20;

/// How often whoever ends a program's parts is asked to, until the program has ended.
const ENDING_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecError {
    #[error("`{command}` could not be started")]
    Start { command: String, source: io::Error },
    #[error("`{command}` failed ({status}){output}")]
    Failed { command: String, status: ExitStatus, output: String },
    #[error("reading what `{command}` writes{output}")]
    Io { command: String, output: String, source: io::Error },
    #[error("making what `{command}` reads")]
    Input { command: String, source: io::Error },
    #[error("`{command}` did not answer within {limit:?}")]
    Late { command: String, limit: Duration },
    #[error("writing what `{command}` says to {log}")]
    Log { command: String, log: PathBuf, source: io::Error },
    /// Ctrl-C came: nothing is started any more, and what a program came to does not count.
    #[error("interrupted")]
    Interrupted,
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
    String::from_utf8(output).map_err(|error| failed_io(&command, io::Error::other(error)))
}

/// Runs a program whose standard output `consume` reads while it runs; `on_line` sees each line
/// of its standard error.
pub(crate) fn stream<T>(
    cmd: Cmd<'_>,
    consume: impl FnOnce(&mut dyn Read) -> io::Result<T>,
    on_line: impl FnMut(&str) + Send,
) -> Result<T, ExecError> {
    stream_in(Manner::Ordinary, cmd, consume, on_line)
}

/// Runs a program that would leave much behind if an interrupt ended it, and whose end can be
/// brought about: from an interrupt on, `end` is called again and again, until the program has
/// ended. `on_line` sees each line of its standard error.
pub(crate) fn stream_until(
    cmd: Cmd<'_>,
    consume: impl FnOnce(&mut dyn Read) -> io::Result<()>,
    on_line: impl FnMut(&str) + Send,
    end: impl Fn() + Send,
) -> Result<(), ExecError> {
    let (running, ended) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while ended.recv_timeout(ENDING_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                if interrupted() {
                    end();
                }
            }
        });
        let result = stream_in(Manner::Patient, cmd, consume, on_line);
        drop(running);
        result
    })
}

/// Runs a program that removes what others have left, also after an interrupt, and gives what it
/// wrote to standard output.
pub(crate) fn clean_up(cmd: Cmd<'_>) -> Result<String, ExecError> {
    let mut output = Vec::new();
    stream_in(Manner::CleanUp, cmd, |stdout| stdout.read_to_end(&mut output).map(drop), |_| ())?;
    Ok(String::from_utf8_lossy(&output).into_owned())
}

fn stream_in<T>(
    manner: Manner,
    cmd: Cmd<'_>,
    consume: impl FnOnce(&mut dyn Read) -> io::Result<T>,
    on_line: impl FnMut(&str) + Send,
) -> Result<T, ExecError> {
    let command = cmd.to_string();
    let mut cmd: Command = cmd.into();
    cmd.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = start(manner, cmd, &command)?;
    let (mut stdout, stderr) = child.pipes().map_err(|source| failed_io(&command, source))?;
    let (consumed, tail) = std::thread::scope(|scope| {
        let tail = scope.spawn(|| keep_tail(stderr, on_line));
        let consumed = consume(&mut stdout);
        // A consumer that gave up must not leave the program waiting for a reader.
        drop(stdout);
        (consumed, tail.join())
    });
    let status = child.wait(&command)?;
    let output = indent(tail.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
    match consumed {
        Ok(value) if status.success() => Ok(value),
        Ok(_) => Err(ExecError::Failed { command, status, output }),
        // What the program said explains why its output was cut short.
        Err(source) => Err(ExecError::Io { command, output, source }),
    }
}

/// Runs a program whose standard input `produce` writes while it runs, and gives what it wrote to
/// standard output; `on_line` sees each line of its standard error. When `produce` fails, the
/// program is ended: it must not take what it got for all there is.
pub(crate) fn feed(
    cmd: Cmd<'_>,
    produce: impl FnOnce(&mut dyn io::Write) -> io::Result<()> + Send,
    on_line: impl FnMut(&str) + Send,
) -> Result<Vec<u8>, ExecError> {
    let command = cmd.to_string();
    let failed = |source| failed_io(&command, source);
    let mut cmd: Command = cmd.into();
    cmd.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = start(Manner::Ordinary, cmd, &command)?;
    let id = child.inner.id();
    let stdin = child.inner.stdin.take();
    let stdin = stdin.ok_or_else(|| failed(io::Error::other("its input is not a pipe")))?;
    // A smaller one does as well, at more turns.
    rustix::pipe::fcntl_setpipe_size(&stdin, PIPE_SIZE).ok();
    let (mut stdout, stderr) = child.pipes().map_err(failed)?;
    let mut output = Vec::new();
    let (read, produced, tail) = std::thread::scope(|scope| {
        let tail = scope.spawn(|| keep_tail(stderr, on_line));
        let producer = scope.spawn(move || {
            let mut input = Input { pipe: stdin, is_open: true };
            match produce(&mut input) {
                // A program that has ended, or wants no more, says why by itself.
                Err(error) if input.is_open => {
                    signal(id, Signal::KILL);
                    Err(error)
                }
                Ok(()) | Err(_) => Ok(()),
            }
        });
        (stdout.read_to_end(&mut output), producer.join(), tail.join())
    });
    let status = child.wait(&command)?;
    let tail = indent(tail.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
    let produced = produced.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    produced.map_err(|source| ExecError::Input { command: command.clone(), source })?;
    read.map_err(failed)?;
    if status.success() { Ok(output) } else { Err(ExecError::Failed { command, status, output: tail }) }
}

/// A program's standard input, and whether it still reads it.
struct Input {
    pipe: std::process::ChildStdin,
    is_open: bool,
}

impl io::Write for Input {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pipe.write(bytes).inspect_err(|_| self.is_open = false)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pipe.flush()
    }
}

/// What a program answered to a question.
pub(crate) struct Answer {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
}

/// Runs a program that is asked `question` on its standard input, and ends it when it takes longer
/// than `limit`. What it writes may be secret, so no error repeats any of it.
pub(crate) fn ask(cmd: Cmd<'_>, question: &str, limit: Duration) -> Result<Answer, ExecError> {
    let command = cmd.to_string();
    let failed_io = |source| failed_io(&command, source);
    let mut cmd: Command = cmd.into();
    // Both ends are ours until it starts, so that a program may as well not read its question.
    let (stdin, mut writer) = io::pipe().map_err(failed_io)?;
    writer.write_all(question.as_bytes()).map_err(failed_io)?;
    drop(writer);
    cmd.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = start(Manner::Ordinary, cmd, &command)?;
    let id = child.inner.id();
    let stdout = child.inner.stdout.take();
    let mut stdout = stdout.ok_or_else(|| failed_io(io::Error::other("its output is not a pipe")))?;
    let (ended, end) = mpsc::channel::<()>();
    let (answer, is_late) = std::thread::scope(|scope| {
        let watch = scope.spawn(move || {
            let is_late = end.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
            if is_late {
                signal(id, Signal::KILL);
            }
            is_late
        });
        let answer = io::read_to_string(&mut stdout);
        // Until it is waited for, its number names no other process that the watch could end.
        let answer = answer.and_then(|answer| wait_unreaped(id).map(|()| answer));
        drop(ended);
        (answer, watch.join())
    });
    if is_late.unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
        return Err(ExecError::Late { command, limit });
    }
    let stdout = answer.map_err(failed_io)?;
    let status = child.wait(&command)?;
    Ok(Answer { status, stdout })
}

/// Runs a program that talks to the user by itself, such as a test runner.
pub(crate) fn pass_through(cmd: Cmd<'_>) -> Result<(), ExecError> {
    let command = cmd.to_string();
    say(&format!("$ {command}"));
    let mut child = spawn(cmd.into(), &command, Stdio::inherit)?;
    let status = child.wait(&command)?;
    if status.success() { Ok(()) } else { Err(ExecError::Failed { command, status, output: String::new() }) }
}

/// Starts a server, which runs until what this returns is dropped; `log` gets its output.
pub(crate) fn serve(cmd: Cmd<'_>, log: &Path) -> Result<Running, ExecError> {
    let command = cmd.to_string();
    let failed = |source| ExecError::Log { command: command.clone(), log: log.to_owned(), source };
    let out = File::create(log).map_err(failed)?;
    let err = out.try_clone().map_err(failed)?;
    let mut cmd: Command = cmd.into();
    cmd.stdin(Stdio::null()).stdout(out).stderr(err);
    start(Manner::Ordinary, cmd, &command)
}

/// A program that runs, in a process group of its own; dropping it ends the whole group.
pub(crate) struct Running {
    inner: Child,
    manner: Manner,
}

impl Running {
    /// Its standard output and its standard error.
    fn pipes(&mut self) -> io::Result<(ChildStdout, ChildStderr)> {
        self.inner
            .stdout
            .take()
            .zip(self.inner.stderr.take())
            .ok_or_else(|| io::Error::other("its output is not a pipe"))
    }

    /// Whether it has ended. What it came to after an interrupt does not count.
    pub(crate) fn has_ended(&mut self) -> Result<bool, ExecError> {
        if self.manner.is_void() {
            return Err(ExecError::Interrupted);
        }
        let ended = self.inner.try_wait().map_err(|source| failed_io("a server", source))?;
        Ok(ended.is_some())
    }

    /// Waits for its end. What a program came to after an interrupt does not count.
    fn wait(&mut self, command: &str) -> Result<ExitStatus, ExecError> {
        if self.manner.is_void() {
            // What it has left in its group; until it is waited for, no other group has its number.
            wait_unreaped(self.inner.id()).map_err(|source| failed_io(command, source))?;
            signal(self.inner.id(), Signal::KILL);
        }
        let status = self.inner.wait().map_err(|source| failed_io(command, source))?;
        if self.manner.is_void() { Err(ExecError::Interrupted) } else { Ok(status) }
    }
}

fn failed_io(command: &str, source: io::Error) -> ExecError {
    ExecError::Io { command: command.to_owned(), output: String::new(), source }
}

impl Drop for Running {
    fn drop(&mut self) {
        interrupt::forget(self.inner.id());
        if matches!(self.inner.try_wait(), Ok(None)) {
            signal(self.inner.id(), Signal::KILL);
            if let Err(error) = self.inner.wait() {
                say(&format!("warning: waiting for process {}: {error}", self.inner.id()));
            }
        }
    }
}

fn spawn(mut cmd: Command, command: &str, output: fn() -> Stdio) -> Result<Running, ExecError> {
    cmd.stdin(Stdio::null()).stdout(output()).stderr(output());
    start(Manner::Ordinary, cmd, command)
}

fn start(manner: Manner, mut cmd: Command, command: &str) -> Result<Running, ExecError> {
    cmd.process_group(0);
    if cmd.get_envs().all(|(name, _)| name != "PATH") {
        cmd.env("PATH", search_path());
    }
    let failed = |source| ExecError::Start { command: command.to_owned(), source };
    let inner = interrupt::started(manner, || cmd.spawn().map_err(failed))?;
    Ok(Running { inner, manner })
}

/// PATH, and the folders of administrators' programs: what a program starts in its turn may be
/// there.
fn search_path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    for dir in SYSTEM_DIRS.map(PathBuf::from) {
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    // What was split before has no colons.
    std::env::join_paths(dirs).unwrap_or(path)
}

/// Waits for the end of a child, and leaves it for `wait`.
fn wait_unreaped(pid: u32) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    loop {
        match waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Shows each line to `on_line` and keeps the last ones.
fn keep_tail(stderr: impl Read, mut on_line: impl FnMut(&str)) -> Vec<String> {
    let mut tail = Vec::new();
    for line in BufReader::new(stderr).split(b'\n') {
        let Ok(line) = line else { break };
        let line = crate::words::printable(&line);
        on_line(&line);
        if tail.len() == LINES_KEPT {
            tail.remove(0);
        }
        tail.push(line);
    }
    tail
}

fn indent(lines: Vec<String>) -> String {
    lines.iter().map(|line| format!("\n    {line}")).collect()
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
    fn a_program_is_asked_and_not_waited_for_without_end() {
        let sh = Shell::new().unwrap();
        let long = Duration::from_secs(20);
        let answer = ask(cmd!(sh, "cat"), "question", long).unwrap();
        assert_eq!((answer.status.code(), answer.stdout.as_str()), (Some(0), "question"));
        let answer = ask(cmd!(sh, "sh -c 'echo no; exit 3'"), "question", long).unwrap();
        assert_eq!((answer.status.code(), answer.stdout.as_str()), (Some(3), "no\n"));

        let short = Duration::from_millis(100);
        // One that does nothing, and one that has nothing more to say but does not end: only a signal
        // ends either.
        for script in ["sleep infinity", "exec >&-; sleep infinity"] {
            let error = ask(cmd!(sh, "sh -c {script}"), "", short).err().unwrap().to_string();
            assert_eq!(error, format!("`sh -c \"{script}\"` did not answer within 100ms"));
        }
    }

    #[test]
    fn a_program_is_fed() {
        let sh = Shell::new().unwrap();
        let much = |out: &mut dyn io::Write| out.write_all(&[b'x'; 1 << 20]);
        assert_eq!(feed(cmd!(sh, "cat"), much, |_| ()).unwrap().len(), 1 << 20);
        // One that wants no more is content, and one that fails says why.
        assert_eq!(feed(cmd!(sh, "head -c 1"), much, |_| ()).unwrap(), b"x");
        let error = feed(cmd!(sh, "sh -c 'echo no >&2; exit 3'"), much, |_| ()).unwrap_err().to_string();
        assert_eq!(error, "`sh -c \"echo no >&2; exit 3\"` failed (exit status: 3)\n    no");
        // One that could take what it got for all is ended.
        let short = |_: &mut dyn io::Write| Err(io::Error::other("damaged"));
        let error =
            anyhow::Error::from(feed(cmd!(sh, "sh -c 'cat; sleep infinity'"), short, |_| ()).unwrap_err());
        assert_eq!(format!("{error:#}"), "making what `sh -c \"cat; sleep infinity\"` reads: damaged");
    }

    #[test]
    fn what_a_program_said_explains_why_its_output_is_short() {
        let sh = Shell::new().unwrap();
        let script = "printf half; echo E: no space >&2; exit 1";
        let error = stream(cmd!(sh, "sh -c {script}"), |out| out.read_exact(&mut [0; 8]), |_| ());
        let error = anyhow::Error::from(error.unwrap_err());
        assert_eq!(
            format!("{error:#}"),
            "reading what `sh -c \"printf half; echo E: no space >&2; exit 1\"` writes\n    E: no space: failed to fill whole buffer"
        );
    }

    #[test]
    fn a_consumer_that_fails_ends_the_program() {
        let sh = Shell::new().unwrap();
        let error = stream(cmd!(sh, "yes"), |_| Err::<(), _>(io::Error::other("disk full")), |_| ());
        let error = anyhow::Error::from(error.unwrap_err());
        assert_eq!(format!("{error:#}"), "reading what `yes` writes: disk full");
    }
}
