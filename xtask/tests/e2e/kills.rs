//! Runs that are killed at any time: what has a name is whole, and the next run makes the same.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::breaks::assert_as_fresh;
use crate::harness::judge;
use crate::interrupts::{names, wait_until};
use crate::pack::{assert_exported, assert_same, with_disks};
use crate::testing::{Fault, FaultProxy, Registry, program};

/// How often a run is killed.
const KILLS: usize = 20;
const RAW: &str = "../disks/debian-13-v1.raw";

/// Moments within a run, of which the whole takes `whole`.
struct Moments {
    state: u64,
    whole: Duration,
}

impl Moments {
    /// Times a run, and says what the moments come from.
    fn within(what: &str, run: impl FnOnce()) -> Moments {
        let start = Instant::now();
        run();
        let (seed, whole) = (RandomState::new().build_hasher().finish() | 1, start.elapsed());
        let text = format!("{what}: killed at {KILLS} moments within {whole:?}, from the seed {seed}\n");
        io::stderr().write_all(text.as_bytes()).unwrap();
        Moments { state: seed, whole }
    }

    /// Source: Marsaglia, "Xorshift RNGs", the generator of 64 bits.
    fn next(&mut self) -> Duration {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.whole.mul_f64((self.state % 1000) as f64 / 1000.0)
    }
}

/// Runs a command until a moment, at which it is killed, unless it has ended before.
fn kill_at(mut command: Command, moment: Duration) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    thread::sleep(moment);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_pack_that_is_killed_at_any_time_is_made_again() {
    let workspace = with_disks("raw", 128);
    let mut moments = Moments::within("pack", || {
        workspace.ok(&format!("pack {RAW} --to oci:../fresh:t"));
    });
    let fresh = workspace.layout("../fresh").digest("t");
    for _ in 0..KILLS {
        kill_at(workspace.command(&format!("pack {RAW} --to oci:../out:t")), moments.next());
        let out = workspace.layout("../out");
        // None yet, or the image, of which everything is there.
        if out.tags() == ["t"] {
            assert_eq!(out.digest("t"), fresh);
            fs::remove_dir_all(&out.dir).unwrap();
        } else if out.dir.join("blobs/sha256").exists() {
            assert_eq!(out.tags(), [""; 0]);
            out.check_blobs();
        }
    }
    workspace.ok(&format!("pack {RAW} --to oci:../out:t"));
    assert_as_fresh(&workspace);
}

#[test]
fn a_push_that_is_killed_at_any_time_is_made_again() {
    let workspace = with_disks("raw", 64);
    let registry = Registry::docker();
    let at = |number: usize| format!("{}/me/os{number}:t", registry.address());
    let mut moments = Moments::within("push", || {
        workspace.ok(&format!("pack {RAW} --to {}", at(KILLS)));
    });
    let digest = judge("crane", &format!("digest {}", at(KILLS)));
    for number in 0..KILLS {
        let pack = format!("pack {RAW} --to {}", at(number));
        kill_at(workspace.command(&pack), moments.next());
        let named = Command::new(program("crane")).args(["digest", &at(number)]).output().unwrap();
        if named.status.success() {
            assert_eq!(String::from_utf8(named.stdout).unwrap(), digest);
        }
        workspace.ok(&pack);
        assert_eq!(judge("crane", &format!("digest {}", at(number))), digest);
    }
    assert_exported(&at(0), &workspace.path(RAW));
}

#[test]
fn a_pull_that_is_killed_at_any_time_is_made_again() {
    let workspace = with_disks("raw", 128);
    let registry = Registry::docker();
    let name = format!("{}/me/os:t", registry.address());
    workspace.ok(&format!("pack {RAW} --to {name}"));
    let pull = format!("pull {name} -o ../back/disk.raw");
    fs::create_dir(workspace.path("../back")).unwrap();
    let mut moments = Moments::within("pull", || {
        workspace.ok(&pull);
    });
    let back = workspace.path("../back/disk.raw");
    for _ in 0..KILLS {
        fs::remove_file(&back).ok();
        kill_at(workspace.command(&pull), moments.next());
        if back.exists() {
            assert_same(&back, &workspace.path(RAW));
        }
    }
    workspace.ok(&pull);
    assert_same(&back, &workspace.path(RAW));
    assert_eq!(names(&workspace.path("../back")), ["disk.raw"], "nothing is left over");
}

#[test]
fn an_export_and_an_import_that_are_killed_are_made_again() {
    let workspace = with_disks("raw", 64);
    workspace.ok(&format!("pack {RAW} --to oci:../out:t"));
    let export = "export oci:../out:t -o ../archives/release.tar";
    fs::create_dir(workspace.path("../archives")).unwrap();
    let mut moments = Moments::within("export", || {
        workspace.ok(export);
    });
    let archive = workspace.path("../archives/release.tar");
    let fresh = fs::read(&archive).unwrap();
    for _ in 0..KILLS {
        fs::remove_file(&archive).ok();
        kill_at(workspace.command(export), moments.next());
        assert!(!archive.exists() || fs::read(&archive).unwrap() == fresh);
    }
    fs::remove_file(&archive).ok();
    workspace.ok(export);
    assert!(fs::read(&archive).unwrap() == fresh);
    assert_eq!(names(&workspace.path("../archives")), ["release.tar"], "nothing is left over");

    let registry = Registry::docker();
    let import =
        |number: usize| format!("import ../archives/release.tar --to {}/me/os{number}", registry.address());
    let at = |number: usize| format!("{}/me/os{number}:t", registry.address());
    let mut moments = Moments::within("import", || {
        workspace.ok(&import(KILLS));
    });
    let digest = judge("crane", &format!("digest {}", at(KILLS)));
    for number in 0..KILLS {
        kill_at(workspace.command(&import(number)), moments.next());
        let named = Command::new(program("crane")).args(["digest", &at(number)]).output().unwrap();
        if named.status.success() {
            assert_eq!(String::from_utf8(named.stdout).unwrap(), digest);
        }
        workspace.ok(&import(number));
        assert_eq!(judge("crane", &format!("digest {}", at(number))), digest);
    }
    assert_exported(&at(0), &workspace.path(RAW));
}

#[test]
fn a_push_that_was_killed_goes_on_in_the_next_run() {
    let workspace = with_disks("raw", 512);
    let registry = Registry::distribution();
    let is_stuck = Arc::new(AtomicBool::new(true));
    let stuck = is_stuck.clone();
    // Of the layer, 9 MB come, and nothing more.
    let proxy = FaultProxy::before(&registry, move |seen| {
        let is_large = seen.header("content-length").is_some_and(|length| length.len() >= 8);
        match is_large && stuck.load(Ordering::SeqCst) {
            true => Fault::Stall(9_000_000),
            false => Fault::Pass,
        }
    });
    let name = format!("{}/me/os:t", proxy.address());
    let pack = format!("pack {RAW} --to {name}");
    let mut child = workspace.command(&pack).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("9 MB", || proxy.passed() >= 9_000_000);
    child.kill().unwrap();
    child.wait().unwrap();
    let journal = workspace.path("target/xtask/uploads");
    assert_eq!(names(&journal).len(), 1);
    is_stuck.store(false, Ordering::SeqCst);

    let before = proxy.passed();
    let packed: Value = workspace.json(&pack)["packed"][0].clone();
    let size = packed["layer"]["size"].as_u64().unwrap() as usize;
    let sent = proxy.passed() - before;
    // A new session would have begun with the first byte.
    assert!(sent < size - 8_000_000, "{sent} of {size} bytes were sent by the second run");
    assert_exported(&name, &workspace.path(RAW));
    assert_eq!(names(&journal), [""; 0]);
}
