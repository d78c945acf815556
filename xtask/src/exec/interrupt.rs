//! Ctrl-C, SIGTERM and the end of the terminal: the programs that run end, what they have left is
//! removed, then this process ends, with exit code 130.

use std::collections::BTreeMap;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::ExecError;
use crate::progress::say;

/// How long a patient program may take until it is told to end like any other.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long programs may take to clean up (mmdebstrap unmounts) once they are told to end.
const GRACE: Duration = Duration::from_secs(10);

/// The process groups that run now.
static RUNNING: Mutex<BTreeMap<u32, Manner>> = Mutex::new(BTreeMap::new());
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// What has to be done before this process ends, the last thing first.
static CLEAN_UP: Mutex<Vec<Box<dyn FnOnce() + Send>>> = Mutex::new(Vec::new());

/// What an interrupt means to a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// It is told at once; after an interrupt it is not started.
    Ordinary,
    /// It ends by itself soon, and is told only if it does not.
    Patient,
    /// Nothing: it removes what others have left.
    CleanUp,
}

/// Does what has to be done after some work, however that ends: when this is dropped, or when an
/// interrupt ends the process. One that begins within another ends within it.
pub(crate) struct CleanUp(());

/// Makes Ctrl-C, SIGTERM and the end of the terminal end the programs that run, then this process,
/// with exit code 130.
pub(crate) fn end_on_interrupt() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("listening for signals")?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            if INTERRUPTED.swap(true, Ordering::SeqCst) {
                // Who does not want to wait gets nothing cleaned up; the next run does it.
                signal_all(Signal::KILL, |_| true);
                end();
            }
            // Go's tools clean up after an interrupt, and after no other signal.
            let is_ordinary = |manner| manner == Manner::Ordinary;
            signal_all(Signal::INT, is_ordinary);
            let programs_run = !running().is_empty();
            // The main thread sees its program end, cleans up, and exits by itself, in time.
            std::thread::spawn(move || {
                if programs_run {
                    std::thread::sleep(PATIENCE);
                    signal_all(Signal::INT, |manner| manner == Manner::Patient);
                    std::thread::sleep(GRACE);
                    signal_all(Signal::KILL, |manner| manner != Manner::CleanUp);
                }
                exit_interrupted();
            });
        }
    });
    Ok(())
}

/// Ends this process as one that was interrupted, once everything is cleaned up.
pub(crate) fn exit_interrupted() -> ! {
    while clean_up() {}
    end()
}

fn end() -> ! {
    say("interrupted");
    std::process::exit(130)
}

/// Whether Ctrl-C or SIGTERM came, which explains the failure of a program.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

impl CleanUp {
    pub(crate) fn afterwards(work: impl FnOnce() + Send + 'static) -> CleanUp {
        CLEAN_UP.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(work));
        CleanUp(())
    }
}

impl Drop for CleanUp {
    fn drop(&mut self) {
        clean_up();
    }
}

/// Does one thing, if there is one left. Held while it is done, so that whoever comes second waits for
/// the first.
fn clean_up() -> bool {
    let mut left = CLEAN_UP.lock().unwrap_or_else(PoisonError::into_inner);
    let work = left.pop();
    let was_left = work.is_some();
    if let Some(work) = work {
        work();
    }
    was_left
}

impl Manner {
    /// Whether an interrupt makes what it comes to count for nothing.
    pub(super) fn is_void(self) -> bool {
        match self {
            Manner::Ordinary | Manner::Patient => interrupted(),
            Manner::CleanUp => false,
        }
    }
}

/// Starts a program. An interrupt either sees it or comes before it.
pub(super) fn started(
    manner: Manner,
    spawn: impl FnOnce() -> Result<Child, ExecError>,
) -> Result<Child, ExecError> {
    let mut running = running();
    if manner.is_void() {
        return Err(ExecError::Interrupted);
    }
    let child = spawn()?;
    running.insert(child.id(), manner);
    Ok(child)
}

/// A program has ended.
pub(super) fn forget(group: u32) {
    running().remove(&group);
}

pub(super) fn signal(group: u32, which: Signal) {
    // A group that has ended by itself is as good as one that was told to.
    if let Some(pid) = i32::try_from(group).ok().and_then(Pid::from_raw) {
        kill_process_group(pid, which).ok();
    }
}

fn running() -> MutexGuard<'static, BTreeMap<u32, Manner>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn signal_all(which: Signal, is_meant: impl Fn(Manner) -> bool) {
    let groups: Vec<u32> =
        running().iter().filter(|(_, manner)| is_meant(**manner)).map(|(group, _)| *group).collect();
    groups.into_iter().for_each(|group| signal(group, which));
}
