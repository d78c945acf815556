//! Packs, pushes and pulls of disks that are ended, break off or find no room.

use std::fs::{self};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use insta::assert_snapshot;
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Run, Workspace, fingerprint, judge};
use crate::interrupts::{interrupt, names, start, wait_until};
use crate::pack::{assert_exported, assert_same, with_disks, write_raw};
use crate::testing::{Fault, FaultProxy, Registry, Seen, program};

/// Whether a request is for a layer, which is the larger blob.
fn is_layer(seen: &Seen, hex: &str) -> bool {
    seen.method == "GET" && seen.path().ends_with(hex)
}

#[test]
fn a_pull_that_breaks_goes_on_where_it_was() {
    let workspace = with_disks("qcow2", 64);
    let registry = Registry::docker();
    let direct = format!("{}/me/os:disk", registry.address());
    let report = workspace.json(&format!("pack ../disks/debian-13-v1.qcow2 --to {direct}"));
    let hex = report["packed"][0]["layer"]["digest"].as_str().unwrap().replace("sha256:", "");
    let layer = hex.clone();
    let proxy = FaultProxy::before(&registry, move |seen| match is_layer(seen, &layer) && seen.earlier < 3 {
        // The connection breaks when half of what was asked for is there.
        true => Fault::Change(|mut answer| {
            answer.truncate(answer.len() / 2);
            answer
        }),
        false => Fault::Pass,
    });
    let through = direct.replace(registry.address(), proxy.address());
    workspace.ok(&format!("pull {through} -o ../back.qcow2"));
    assert_same(&workspace.path("../back.qcow2"), &workspace.path("../disks/debian-13-v1.qcow2"));
    let ranges: Vec<String> = proxy
        .seen()
        .iter()
        .filter(|seen| is_layer(seen, &hex))
        .map(|seen| seen.header("range").unwrap_or("all").to_owned())
        .collect();
    assert_eq!((ranges.len(), ranges[0].as_str()), (4, "all"), "{ranges:?}");
    assert!(ranges[1..].iter().all(|range| range.starts_with("bytes=")), "{ranges:?}");

    // A flipped bit is seen, and the file that was there stays.
    let blob = registry.blob_path(&hex);
    let mut bytes = fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&blob, bytes).unwrap();
    fs::write(workspace.path("../back.qcow2"), "old").unwrap();
    let error = workspace.failure(&format!("pull {direct} -o ../back.qcow2"));
    assert!(error.contains("was promised, but what came is"), "{error}");
    assert_eq!(fs::read(workspace.path("../back.qcow2")).unwrap(), b"old");
}

#[test]
fn a_pull_that_is_ended_leaves_nothing() {
    let workspace = with_disks("qcow2", 64);
    let registry = Registry::docker();
    let direct = format!("{}/me/os:disk", registry.address());
    let report = workspace.json(&format!("pack ../disks/debian-13-v1.qcow2 --to {direct}"));
    let hex = report["packed"][0]["layer"]["digest"].as_str().unwrap().replace("sha256:", "");
    // Half comes, and what is asked for then never does.
    let proxy =
        FaultProxy::before(&registry, move |seen| match (is_layer(seen, &hex), seen.header("range")) {
            (true, None) => Fault::Change(|mut answer| {
                answer.truncate(answer.len() / 2);
                answer
            }),
            (true, Some(_)) => Fault::Silence,
            (false, _) => Fault::Pass,
        });
    let folder = workspace.path("../pulled");
    fs::create_dir(&folder).unwrap();
    let through = direct.replace(registry.address(), proxy.address());
    let is_half = || proxy.seen().iter().any(|seen| seen.header("range").is_some());
    for signal in [Signal::INT, Signal::KILL] {
        proxy.forget();
        let child = start(workspace.command(&format!("pull {through} -o ../pulled")));
        wait_until("half of the pull", is_half);
        match signal {
            Signal::INT => interrupt(child, signal),
            _ => {
                kill_process(Pid::from_child(&child), signal).unwrap();
                child.wait_with_output().unwrap();
            }
        }
        assert_eq!(names(&folder), [""; 0], "nothing is left over");
    }
    workspace.ok(&format!("pull {direct} -o ../pulled"));
    assert_eq!(names(&folder), ["debian-13-v1.qcow2"]);
    assert_same(&folder.join("debian-13-v1.qcow2"), &workspace.path("../disks/debian-13-v1.qcow2"));
}

#[test]
fn a_full_disk_leaves_the_file_that_was_there() {
    let workspace = with_disks("raw", 64);
    workspace.ok("pack ../disks/debian-13-v1.raw --to oci:../out:t");
    fs::create_dir(workspace.path("../full")).unwrap();
    // In a mount namespace of its own, the small disk is gone when the shell ends.
    let script = format!(
        "set -eu
        mount -t tmpfs -o size=1m tmpfs ../full
        echo old > ../full/os.raw
        code=0
        {} pull oci:../out:t -o ../full/os.raw || code=$?
        test \"$(ls -A ../full) $(cat ../full/os.raw)\" = 'os.raw old'
        exit $code",
        env!("CARGO_BIN_EXE_xtask")
    );
    let mut unshare = Command::new(program("unshare"));
    unshare.arg(if rustix::process::geteuid().is_root() { "-m" } else { "-rm" });
    workspace.prepare(unshare.args(["sh", "-c", &script]));
    assert_snapshot!(Run::new(unshare.output().unwrap()).failure(), @"
    error: pulling into ../full/os.raw: No space left on device (os error 28)
    hint: free some space: 'df -h' shows where it went, and 'rm -r target/dist' frees what can be made again
    ");
}

#[test]
fn a_pack_that_is_ended_leaves_nothing() {
    let workspace = Workspace::new();
    // Enough to be caught in the middle of it.
    let raw = workspace.path("../debian-13-v1.raw");
    write_raw(&raw, 2048);
    workspace.ok("pack ../debian-13-v1.raw --to oci:../fresh:t");
    for signal in [Signal::INT, Signal::KILL, Signal::KILL] {
        let child = start(workspace.command("pack ../debian-13-v1.raw --to oci:../out:t"));
        let stat = format!("/proc/{}/io", child.id());
        wait_until("writing", || {
            let text = fs::read_to_string(&stat).unwrap_or_default();
            let written = text.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse::<u64>().ok());
            written.is_some_and(|count| count > 3_000_000)
        });
        match signal {
            Signal::INT => interrupt(child, signal),
            _ => {
                kill_process(Pid::from_child(&child), signal).unwrap();
                child.wait_with_output().unwrap();
            }
        }
        let out = workspace.layout("../out");
        assert_eq!(out.tags(), [""; 0]);
        out.check_blobs();
    }
    workspace.ok("pack ../debian-13-v1.raw --to oci:../out:t");
    assert_as_fresh(&workspace);
}

/// The layout `out`, after runs that were ended, is what an undisturbed one left in `fresh`.
pub(crate) fn assert_as_fresh(workspace: &Workspace) {
    let files = |path: &str| -> Vec<_> {
        let root = workspace.path(path);
        fingerprint(&root).into_keys().map(|file| file.strip_prefix(&root).unwrap().to_owned()).collect()
    };
    assert_eq!(files("../out"), files("../fresh"), "the same blobs, and nothing is left over");
    workspace.layout("../out").check_blobs();
}

#[test]
fn a_push_of_a_disk_that_is_ended_moves_no_tag() {
    let workspace = with_disks("raw", 64);
    let registry = Registry::docker();
    let direct = format!("{}/me/os:disk", registry.address());
    let is_stuck = Arc::new(AtomicBool::new(true));
    let stuck = is_stuck.clone();
    let proxy = FaultProxy::before(&registry, move |seen| {
        let is_large = seen.header("content-length").is_some_and(|length| length.len() >= 6);
        let stops = stuck.load(Ordering::SeqCst) && seen.method == "PUT" && is_large;
        // Half of it goes through, and then the line is dead.
        if stops { Fault::CutRequest(1_000_000) } else { Fault::Pass }
    });
    let through = direct.replace(registry.address(), proxy.address());
    let pack = format!("pack ../disks/debian-13-v1.raw --to {through}");
    let child = start(workspace.command(&pack));
    wait_until("an upload that broke", || proxy.count("PUT", "uploads") > 1);
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait_with_output().unwrap();
    let absent = Command::new(program("crane")).args(["digest", &direct]).stderr(Stdio::null()).output();
    assert!(!absent.unwrap().status.success(), "there is no tag");

    is_stuck.store(false, Ordering::SeqCst);
    let text = workspace.ok(&pack);
    let digest = judge("crane", &format!("digest {direct}"));
    assert_eq!(text, format!("{}  {through}", digest.trim()));
    assert_exported(&direct, &workspace.path("../disks/debian-13-v1.raw"));
}

#[test]
fn a_push_of_a_disk_that_breaks_is_made_and_sent_again() {
    let workspace = with_disks("raw", 64);
    let registry = Registry::docker();
    let direct = format!("{}/me/os:disk", registry.address());
    let is_large = |seen: &Seen| seen.header("content-length").is_some_and(|length| length.len() >= 6);
    let cuts = Arc::new(AtomicUsize::new(0));
    let count = cuts.clone();
    let proxy = FaultProxy::before(&registry, move |seen| {
        let breaks = seen.method == "PUT" && is_large(seen) && count.fetch_add(1, Ordering::SeqCst) < 2;
        if breaks { Fault::CutRequest(1_000_000) } else { Fault::Pass }
    });
    let through = direct.replace(registry.address(), proxy.address());
    let text = workspace.ok(&format!("pack ../disks/debian-13-v1.raw --to {through}"));
    assert_eq!(cuts.load(Ordering::SeqCst), 3);
    let digest = judge("crane", &format!("digest {direct}"));
    assert_eq!(text, format!("{}  {through}", digest.trim()));
    assert_exported(&direct, &workspace.path("../disks/debian-13-v1.raw"));
}
