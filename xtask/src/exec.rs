//! The only place that starts a program.
//!
//! A program is shown as it would be typed, its output is kept for the error, and it ends when
//! this process is interrupted: nothing is left running.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use xshell::Cmd;

use crate::progress::say;

/// How many of a failed program's last lines the error shows.
const LINES_KEPT: usize = 30;
/// How long programs may take to clean up (mmdebstrap unmounts) once they are told to end.
const GRACE: Duration = Duration::from_secs(10);

/// How often a measured program's memory is looked at.
const MEMORY_INTERVAL: Duration = Duration::from_millis(5);

/// The process groups that run now.
static RUNNING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// What an interrupt runs, by number.
static ENDINGS: Mutex<BTreeMap<u64, Command>> = Mutex::new(BTreeMap::new());
/// How many programs put something in order now.
static CLEANING: AtomicU64 = AtomicU64::new(0);

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

/// Makes Ctrl-C, SIGTERM and the end of the terminal end the programs that run, then this process,
/// with exit code 130.
pub(crate) fn end_on_interrupt() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("listening for signals")?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            let again = INTERRUPTED.swap(true, Ordering::SeqCst);
            // Go's tools clean up after an interrupt, and after no other signal.
            let programs_ran = signal_all(if again { Signal::KILL } else { Signal::INT });
            let is_cleaning = CLEANING.load(Ordering::SeqCst) > 0;
            if !(programs_ran || is_cleaning) || again {
                exit_interrupted();
            }
            std::thread::spawn(run_endings);
            // The main thread sees its program end, cleans up, and exits by itself, in time.
            std::thread::spawn(|| {
                std::thread::sleep(GRACE);
                signal_all(Signal::KILL);
                exit_interrupted();
            });
        }
    });
    Ok(())
}

/// Ends this process as one that was interrupted.
pub(crate) fn exit_interrupted() -> ! {
    say("interrupted");
    std::process::exit(130)
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
    String::from_utf8(output).map_err(|error| failed_io(&command, io::Error::other(error)))
}

/// Runs a program whose standard output `consume` reads while it runs; `on_line` sees each line
/// of its standard error.
pub(crate) fn stream<T>(
    cmd: Cmd<'_>,
    consume: impl FnOnce(&mut dyn Read) -> io::Result<T>,
    on_line: impl FnMut(&str) + Send,
) -> Result<T, ExecError> {
    let command = cmd.to_string();
    let mut child = spawn(cmd.into(), &command, Stdio::piped)?;
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
    let mut child = start(cmd, &command)?;
    let id = child.inner.id();
    let stdin = child.inner.stdin.take();
    let stdin = stdin.ok_or_else(|| failed(io::Error::other("its input is not a pipe")))?;
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
    let mut child = start(cmd, &command)?;
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

/// What a program cost.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) stdout: String,
    pub(crate) wall: Duration,
    /// User and system time, of the programs that it waited for as well.
    pub(crate) cpu: Duration,
    /// Bytes of memory that it had at most, without the programs that it started.
    pub(crate) peak_memory: u64,
}

/// Runs a program to its end and measures it.
pub(crate) fn measure(cmd: Cmd<'_>) -> Result<Measured, ExecError> {
    let command = cmd.to_string();
    let start = Instant::now();
    let mut child = spawn(cmd.into(), &command, Stdio::piped)?;
    let (mut stdout, stderr) = child.pipes().map_err(|source| failed_io(&command, source))?;
    let proc = format!("/proc/{}", child.inner.id());
    let ended = AtomicBool::new(false);
    let measured = std::thread::scope(|scope| -> io::Result<_> {
        let output = scope.spawn(move || io::read_to_string(&mut stdout));
        let tail = scope.spawn(|| keep_tail(stderr, |_| ()));
        let memory = scope.spawn(|| {
            let mut peak = 0;
            while !ended.load(Ordering::Relaxed) {
                peak = peak_memory(&proc).unwrap_or(peak);
                std::thread::sleep(MEMORY_INTERVAL);
            }
            peak
        });
        // Its times can be read until it is waited for.
        let waited = wait_unreaped(child.inner.id());
        let wall = start.elapsed();
        ended.store(true, Ordering::Relaxed);
        let cpu = waited.and_then(|()| cpu_time(&proc));
        let panicked = |_| io::Error::other("a thread that read its output panicked");
        let stdout = output.join().map_err(panicked)??;
        let tail = tail.join().map_err(panicked)?;
        let peak_memory = memory.join().map_err(panicked)?;
        Ok((Measured { stdout, wall, cpu: cpu?, peak_memory }, tail))
    });
    let status = child.wait(&command)?;
    let (measured, tail) = measured.map_err(|source| failed_io(&command, source))?;
    if !status.success() {
        return Err(ExecError::Failed { command, status, output: indent(tail) });
    }
    Ok(measured)
}

/// Something that runs where signals do not reach it, in a container or as another user, ends by
/// `cmd` when an interrupt comes before what this returns is dropped.
pub(crate) fn ended_by(cmd: Cmd<'_>) -> Ending {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    ENDINGS.lock().unwrap_or_else(PoisonError::into_inner).insert(number, cmd.into());
    Ending { number }
}

/// Dropping it waits for its program, should that run just now.
pub(crate) struct Ending {
    number: u64,
}

impl Drop for Ending {
    fn drop(&mut self) {
        ENDINGS.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

fn run_endings() {
    let mut endings = ENDINGS.lock().unwrap_or_else(PoisonError::into_inner);
    for command in endings.values_mut() {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        // Whoever holds the ending cleans up as well, and says what did not work.
        command.status().ok();
    }
}

/// Runs a program that puts in order what another has left: an interrupt does not stop it.
pub(crate) fn clean_up(cmd: Cmd<'_>) -> Result<String, ExecError> {
    struct Cleaning;
    impl Drop for Cleaning {
        fn drop(&mut self) {
            CLEANING.fetch_sub(1, Ordering::SeqCst);
        }
    }
    CLEANING.fetch_add(1, Ordering::SeqCst);
    let _cleaning = Cleaning;
    let command = cmd.to_string();
    let mut cmd: Command = cmd.into();
    let output = cmd.stdin(Stdio::null()).process_group(0).output();
    let output = output.map_err(|source| ExecError::Start { command: command.clone(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let tail = indent(keep_tail(output.stderr.as_slice(), |_| ()));
    Err(ExecError::Failed { command, status: output.status, output: tail })
}

/// Starts a server, which runs until what this returns is dropped; `log` gets its output.
pub(crate) fn serve(cmd: Cmd<'_>, log: &Path) -> Result<Running, ExecError> {
    let command = cmd.to_string();
    let failed = |source| ExecError::Log { command: command.clone(), log: log.to_owned(), source };
    let out = File::create(log).map_err(failed)?;
    let err = out.try_clone().map_err(failed)?;
    let mut cmd: Command = cmd.into();
    cmd.stdin(Stdio::null()).stdout(out).stderr(err);
    start(cmd, &command)
}

/// A program that runs, in a process group of its own; dropping it ends the whole group.
pub(crate) struct Running {
    inner: Child,
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
}

impl Running {
    /// Whether it has ended. What it came to after an interrupt does not count.
    pub(crate) fn has_ended(&mut self) -> Result<bool, ExecError> {
        if interrupted() {
            return Err(ExecError::Interrupted);
        }
        let ended = self.inner.try_wait().map_err(|source| failed_io("a server", source))?;
        Ok(ended.is_some())
    }

    /// Waits for its end. What a program came to after an interrupt does not count.
    fn wait(&mut self, command: &str) -> Result<ExitStatus, ExecError> {
        let status = self.inner.wait().map_err(|source| failed_io(command, source))?;
        if interrupted() { Err(ExecError::Interrupted) } else { Ok(status) }
    }
}

fn failed_io(command: &str, source: io::Error) -> ExecError {
    ExecError::Io { command: command.to_owned(), output: String::new(), source }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.inner.id());
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
    start(cmd, command)
}

fn start(mut cmd: Command, command: &str) -> Result<Running, ExecError> {
    cmd.process_group(0);
    // Held while it starts, so that an interrupt either sees the program or comes before it.
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    if interrupted() {
        return Err(ExecError::Interrupted);
    }
    let inner = cmd.spawn().map_err(|source| ExecError::Start { command: command.to_owned(), source })?;
    running.insert(inner.id());
    Ok(Running { inner })
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

/// `utime`, `stime`, `cutime` and `cstime`, the fields 14 to 17. Source: proc_pid_stat(5).
fn cpu_time(proc: &str) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("{proc}/stat"))?;
    // The name, in parentheses, may have blanks; the third field comes after it.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks: u64 = fields.skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// `VmHWM`, which is gone once the program has ended. Source: proc_pid_status(5).
fn peak_memory(proc: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("{proc}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
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
    fn a_program_is_asked_and_not_waited_for_without_end() {
        let sh = Shell::new().unwrap();
        let long = Duration::from_secs(20);
        let answer = ask(cmd!(sh, "cat"), "question", long).unwrap();
        assert_eq!((answer.status.code(), answer.stdout.as_str()), (Some(0), "question"));
        let answer = ask(cmd!(sh, "sh -c 'echo no; exit 3'"), "question", long).unwrap();
        assert_eq!((answer.status.code(), answer.stdout.as_str()), (Some(3), "no\n"));

        let short = Duration::from_millis(100);
        // One that does nothing, and one that has nothing more to say but does not end.
        for script in ["sleep 20", "exec >&-; sleep 20"] {
            let start = Instant::now();
            let error = ask(cmd!(sh, "sh -c {script}"), "", short).err().unwrap().to_string();
            assert_eq!(error, format!("`sh -c \"{script}\"` did not answer within 100ms"));
            assert!(start.elapsed() < long);
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
        let error = anyhow::Error::from(feed(cmd!(sh, "sh -c 'cat; sleep 20'"), short, |_| ()).unwrap_err());
        assert_eq!(format!("{error:#}"), "making what `sh -c \"cat; sleep 20\"` reads: damaged");
    }

    #[test]
    fn measures_time_and_memory() {
        let sh = Shell::new().unwrap();
        let script = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo $i";
        let measured = measure(cmd!(sh, "sh -c {script}")).unwrap();
        assert_eq!(measured.stdout, "300000\n");
        assert!(!measured.cpu.is_zero(), "{measured:?}");
        assert!(measured.peak_memory > 100_000, "{measured:?}");
        let error = measure(cmd!(sh, "sh -c 'echo no >&2; exit 3'")).unwrap_err().to_string();
        insta::assert_snapshot!(error, @r#"
        `sh -c "echo no >&2; exit 3"` failed (exit status: 3)
            no
        "#);
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
