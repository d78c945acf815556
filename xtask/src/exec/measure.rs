//! What a program costs: time, memory, and what it writes to disks.

use std::fs;
use std::io;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use xshell::Cmd;

use super::{ExecError, failed_io, indent, keep_tail, spawn, wait_unreaped};

/// How often a measured program's memory is looked at.
const MEMORY_INTERVAL: Duration = Duration::from_millis(5);

/// What a program cost.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) stdout: String,
    pub(crate) wall: Duration,
    /// User and system time, of the programs that it waited for as well.
    pub(crate) cpu: Duration,
    /// Bytes of memory that it had at most, without the programs that it started.
    pub(crate) peak_memory: u64,
    /// Bytes that it had written to disks, with the programs that it waited for.
    pub(crate) written: u64,
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
        // Its times and counts can be read until it is waited for.
        let waited = wait_unreaped(child.inner.id());
        let wall = start.elapsed();
        ended.store(true, Ordering::Relaxed);
        let counts = waited.and_then(|()| Ok((cpu_time(&proc)?, written(&proc)?)));
        let panicked = |_| io::Error::other("a thread that read its output panicked");
        let stdout = output.join().map_err(panicked)??;
        let tail = tail.join().map_err(panicked)?;
        let peak_memory = memory.join().map_err(panicked)?;
        let (cpu, written) = counts?;
        Ok((Measured { stdout, wall, cpu, peak_memory, written }, tail))
    });
    let status = child.wait(&command)?;
    let (measured, tail) = measured.map_err(|source| failed_io(&command, source))?;
    if !status.success() {
        return Err(ExecError::Failed { command, status, output: indent(tail) });
    }
    Ok(measured)
}

/// `utime`, `stime`, `cutime` and `cstime`, the fields 14 to 17. Source: proc_pid_stat(5).
fn cpu_time(proc: &str) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("{proc}/stat"))?;
    // The name, in parentheses, may have blanks; the third field comes after it.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks: u64 = fields.skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// `write_bytes`: what is to reach a disk, counted when it gets into the page cache. Source: proc_pid_io(5).
fn written(proc: &str) -> io::Result<u64> {
    let io = fs::read_to_string(format!("{proc}/io"))?;
    let count = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok());
    count.ok_or_else(|| io::Error::other("the kernel does not count what programs write"))
}

/// `VmHWM`, which is gone once the program has ended. Source: proc_pid_status(5).
fn peak_memory(proc: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("{proc}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use xshell::{Shell, cmd};

    use super::*;

    #[test]
    fn measures_time_and_memory() {
        let sh = Shell::new().unwrap();
        let script = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo $i";
        let measured = measure(cmd!(sh, "sh -c {script}")).unwrap();
        assert_eq!(measured.stdout, "300000\n");
        assert!(!measured.cpu.is_zero(), "{measured:?}");
        assert!(measured.peak_memory > 100_000, "{measured:?}");
        assert_eq!(measured.written, 0, "{measured:?}");
        // A memory file system is no disk, and a target folder is on one.
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let file = dir.path().join("file");
        let measured = measure(cmd!(sh, "dd if=/dev/zero of={file} bs=4096 count=16")).unwrap();
        // A file system may count a block of the folder's, too.
        assert!((16 * 4096..32 * 4096).contains(&measured.written), "{measured:?}");
        let error = measure(cmd!(sh, "sh -c 'echo no >&2; exit 3'")).unwrap_err().to_string();
        insta::assert_snapshot!(error, @r#"
        `sh -c "echo no >&2; exit 3"` failed (exit status: 3)
            no
        "#);
    }
}
