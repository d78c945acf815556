//! What the walkthrough says about its machine, in a machine. It boots by BIOS; `boot.rs` boots by UEFI.

use std::io::Read;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::Signal;

use super::{bash, documents};
use crate::harness::{Workspace, fingerprint};
use crate::installed::made;
use crate::interrupts::{interrupt, names, start, wait_as_long};
use crate::testing::program;

/// Enough where nothing helps to emulate, and other tests run beside.
const PATIENCE: Duration = Duration::from_secs(1200);

/// The commands of a section, block by block.
fn commands(section: &str) -> Vec<Vec<String>> {
    let documents = documents();
    let document = &documents["docs/011-walkthrough.md"];
    let mut lines =
        document.headings.iter().skip_while(|(_, heading)| heading != section).map(|(line, _)| *line);
    let (from, to) = (lines.next().unwrap(), lines.next().unwrap());
    let blocks = document.blocks.iter().filter(|block| (from..to).contains(&block.line));
    blocks.map(super::markdown::Block::commands).collect()
}

/// Reads what a run says, up to a line that begins with `last`, and leaves the rest.
fn said_until(child: &mut Child, last: &str) -> String {
    let stderr = child.stderr.as_mut().unwrap();
    let mut said = Vec::new();
    let is_last = |said: &[u8]| {
        let text = String::from_utf8_lossy(said).into_owned();
        text.ends_with('\n') && text.lines().last().is_some_and(|line| line.starts_with(last))
    };
    while !is_last(&said) {
        let mut byte = [0];
        let count = stderr.read(&mut byte).unwrap();
        assert_eq!(count, 1, "it ended: {}", String::from_utf8_lossy(&said));
        said.push(byte[0]);
    }
    String::from_utf8(said).unwrap()
}

/// It takes one to four minutes where the processor does not help.
#[test]
fn its_machine_is_as_it_says() {
    let [boot, outside, inside] = &commands("4. Boot")[..] else { panic!("a boot, and two looks at it") };
    assert_eq!(*boot, ["cargo xtask vm run --app-version v1"]);
    let made = made();
    let before = fingerprint(&made.workspace.path("../disks"));
    let workspace = Workspace::new();
    let run = format!("vm run {} --firmware bios", made.path("raw").display());
    let mut child = start(workspace.command(&run));
    let said = said_until(&mut child, "Ctrl-C ends it");
    let line = |name: &str| {
        let mut lines = said.lines().filter_map(|line| line.trim().strip_prefix(name));
        lines.next().unwrap_or_else(|| panic!("{name} in {said}")).trim().to_owned()
    };
    let port = line("nginx:").rsplit_once(':').unwrap().1.trim_end_matches('/').to_owned();
    let get =
        |url: &str| Command::new(program("curl")).args(["-fsS", "--max-time", "30", url]).output().unwrap();
    wait_as_long(PATIENCE, "an answer of the app's", || {
        get(&format!("http://127.0.0.1:{port}/shop")).status.success()
    });
    let answers: Vec<String> = outside
        .iter()
        .map(|command| {
            let url = command.strip_prefix("curl ").unwrap().replace("PORT", &port);
            let output = get(&url);
            assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        })
        .collect();
    assert!(answers[0].starts_with("{\"app\":\"shop\",\"version\":"), "{answers:?}");

    let ssh = line("ssh:");
    let inner = |command: &str| bash(&workspace, &format!("{ssh} {}", quoted(command)));
    wait_as_long(PATIENCE, "a login", || inner("true").is_ok());
    assert_eq!(inner("sudo systemctl is-system-running --wait").unwrap(), "running\n");
    assert_eq!(inner("systemctl is-active boot-complete.target").unwrap(), "active\n");
    inner("test ! -e /sys/firmware/efi").unwrap();
    let [status, touch, testboot, journal] = &inside[..] else { panic!("{inside:?}") };
    assert!(inner(status).unwrap().contains("active (running)"));
    assert!(inner(touch).unwrap_err().contains("Read-only file system"));
    assert!(inner(testboot).unwrap().contains("booted"));
    assert!(inner(journal).unwrap().contains("listening address=127.0.0.1:8081"));

    interrupt(child, Signal::INT);
    assert_eq!(fingerprint(&made.workspace.path("../disks")), before, "the disk is as it was");
    let mut left = names(&workspace.path("target/xtask/vm/1"));
    left.sort();
    assert_eq!(left, ["console.log", "qemu.log"]);
}

/// One word of a shell's.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
