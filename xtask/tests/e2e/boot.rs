//! Disks that boot: every format by a firmware, an upgrade and a rollback, and machines that are ended.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::{Workspace, fingerprint};
use crate::installed::made;
use crate::interrupts::{interrupt, names, start, wait_as_long, wait_until};
use crate::iso::PATIENCE;
use crate::root;

/// Enough where nothing helps to emulate, and other tests run beside.
const PATIENT: &str = "--deadline 1200";

/// Everything is content, and `expected` is among what was looked at.
fn check(report: &Value, expected: &[&str]) {
    let checks = [&report["checks"], &report["upgrade"]["checks"]];
    let checks: Vec<&Value> = checks.iter().filter_map(|list| list.as_array()).flatten().collect();
    let bad: Vec<&&Value> = checks.iter().filter(|check| check["ok"] != true).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert_eq!(report["ok"], true);
    for name in expected {
        assert!(checks.iter().any(|check| check["name"] == *name), "{name} in {report:#}");
    }
}

/// A boot by UEFI from a qcow2, and two more. It takes three to ten minutes where the processor does
/// not help.
#[test]
fn an_upgrade_and_a_rollback_keep_what_is_the_hosts() {
    let made = made();
    let qcow2 = made.path("qcow2");
    let before = fingerprint(&made.workspace.path("../disks"));
    let base = root::base();
    let base = format!("oci:{}:{}", base.layout.dir.display(), base.tag);
    let report =
        made.workspace.json(&format!("vm test {} --upgrade --base {base} {PATIENT}", qcow2.display()));
    check(
        &report,
        &[
            "state",
            "failed units",
            "boot-complete.target",
            "/usr",
            "root file system",
            "kernel settings",
            "journal's most",
            "sshd",
            "port 7777, outside",
            "GET /",
            "GET /health",
            "GET /shop",
            "before: a file of the operator's",
            "upgraded: state",
            "upgraded: boot-complete.target",
            "upgraded: a file of the operator's",
            "upgraded: a file that the operator changed",
            "upgraded: data in /var",
            "upgraded: data in /var/home",
            "upgraded: another image is booted",
            "upgraded: a changed default in /etc",
            "upgraded: apps are new",
            "rolled back: state",
            "rolled back: the image before is booted",
            "rolled back: its files",
            "rolled back: the old version answers",
            "rolled back: data of the newer system in /var",
        ],
    );
    let checks = report["upgrade"]["checks"].as_array().unwrap();
    let version = checks.iter().find(|check| check["name"] == "upgraded: the new version answers").unwrap();
    assert_eq!(version["found"], "upgrade-test is said by /, /shop");
    assert_eq!(report["firmware"], "uefi");
    let steps: Vec<&str> = report["upgrade"]["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        steps,
        [
            "getting the next image",
            "rebooting into it",
            "looking at the next system",
            "rolling back",
            "rebooting into the system before",
            "looking at the system before"
        ]
    );
    assert_eq!(fingerprint(&made.workspace.path("../disks")), before, "the disk is as it was");
}

/// It takes one to four minutes where the processor does not help.
#[test]
fn the_disk_in_an_ova_boots_by_uefi() {
    let made = made();
    let workspace = Workspace::new();
    workspace.ok(&format!("disk ova --from {} --output ../disks", made.path("raw").display()));
    let before = fingerprint(&workspace.path("../disks"));
    let report = workspace.json(&format!("vm test ../disks/os.ova --firmware uefi {PATIENT}"));
    check_boot(&report, "uefi");
    assert_eq!(fingerprint(&workspace.path("../disks")), before, "the OVA is as it was");
}

/// The firmware that the tests above leave out, as far as the system on the disk: what follows is theirs.
/// It takes a minute or two where the processor does not help.
#[test]
fn each_disk_starts_by_the_other_firmware_too() {
    let made = made();
    let workspace = Workspace::new();
    workspace.ok(&format!("disk ova --from {} --output ../disks", made.path("raw").display()));
    let console = workspace.path("target/xtask/vm/1/console.log");
    let ova = workspace.path("../disks/os.ova");
    for (disk, firmware) in [(made.path("raw"), "uefi"), (made.path("qcow2"), "bios"), (ova, "bios")] {
        let mut machine =
            start(workspace.command(&format!("vm run {} --firmware {firmware}", disk.display())));
        wait_as_long(PATIENCE, "its root", || {
            assert_eq!(machine.try_wait().unwrap(), None, "{}", disk.display());
            let text = fs::read(&console).unwrap_or_default();
            String::from_utf8_lossy(&text).contains("Local File Systems.")
        });
        interrupt(machine, Signal::INT);
        fs::remove_file(&console).unwrap();
    }
}

/// A boot without an upgrade came to what it should.
fn check_boot(report: &Value, firmware: &str) {
    check(report, &["state", "boot-complete.target", "root file system", "GET /health"]);
    assert_eq!((&report["firmware"], &report["upgrade"]), (&firmware.into(), &Value::Null));
}

/// The processes whose command line names `path`.
fn processes_of(path: &Path) -> Vec<String> {
    let path = path.to_str().unwrap();
    let commands = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        // What is not a process has no command line, and nor has one that has just ended.
        let command = fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&command).replace('\0', " "))
    });
    commands.filter(|command| command.contains(path)).collect()
}

#[test]
fn a_machine_ends_with_its_run() {
    let workspace = Workspace::new();
    let disk = workspace.path("../empty.raw");
    fs::File::create(&disk).unwrap().set_len(1 << 20).unwrap();
    let test = "vm test ../empty.raw --firmware bios --acceleration emulation";
    let folder = workspace.path("target/xtask/vm/1");
    let layer = folder.join("disk.qcow2");
    let is_on = || {
        processes_of(&layer).iter().any(|command| command.starts_with("qemu-system"))
            && folder.join("console.log").exists()
    };

    let child = start(workspace.command(test));
    wait_until("the machine", is_on);
    interrupt(child, Signal::INT);
    assert_eq!(processes_of(&layer), [""; 0]);
    let left = || {
        let mut left = names(&folder);
        left.sort();
        left
    };
    assert_eq!(left(), ["console.log", "qemu.log"]);

    let mut child = start(workspace.command(test));
    wait_until("the machine", is_on);
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    wait_until("the machine's end", || processes_of(&layer).is_empty());
    assert!(layer.exists(), "nobody could remove it");
    // The next run finds what was left, and says why it gives up.
    let error = workspace.failure(&format!("{test} --deadline 1"));
    insta::assert_snapshot!(error.replace(folder.to_str().unwrap(), "FOLDER"), @"
    error: not within 1 s: nginx answers
    its console is silent
    hint: FOLDER/console.log says how far it came; '--deadline' gives it more time
    ");
    assert_eq!(left(), ["console.log", "qemu.log"]);
    assert_eq!(names(&workspace.path("target/xtask/vm")), ["1"]);
}

#[test]
fn what_is_no_disk_is_told() {
    let workspace = Workspace::new();
    fs::write(workspace.path("../x.iso"), "").unwrap();
    insta::assert_snapshot!(workspace.failure("vm test ../x.iso --firmware bios"), @"
    error: reading the disk ../x.iso: ../x.iso is no disk that QEMU boots
    hint: name a file that ends in .qcow2, .raw, .img, .vmdk, .vhd or .ova
    ");
    insta::assert_snapshot!(workspace.failure("vm test ../gone.qcow2 --firmware bios"), @"
    error: reading the disk ../gone.qcow2: No such file or directory (os error 2)
    hint: 'cargo xtask disk qcow2' makes one
    ");
    fs::write(workspace.path("../x.ova"), "x").unwrap();
    insta::assert_snapshot!(workspace.failure("vm test ../x.ova --firmware bios"), @"error: reading the disk ../x.ova: it is no OVA: failed to read entire block");
    let mut arm = vec![0; 4 << 20];
    arm[3 << 20..][..11].copy_from_slice(b"BOOTAA64EFI");
    fs::write(workspace.path("../arm.raw"), arm).unwrap();
    insta::assert_snapshot!(workspace.failure("vm run ../arm.raw --firmware bios"), @"
    error: ../arm.raw is for arm64, and the machine here is an amd64 one
    hint: boot it by hand, with qemu-system-arm and qemu-efi-aarch64 from Debian: 'qemu-system-aarch64 -machine virt -cpu max -m 2048 -nographic -snapshot -bios /usr/share/qemu-efi-aarch64/QEMU_EFI.fd -drive if=virtio,file=../arm.raw'
    ");
    let missing = workspace.failure("vm test ../x.qcow2 --upgrade-to oci:../gone:t");
    insta::assert_snapshot!(missing, @"
    error: reading oci:../gone:t: opening the OCI layout ../gone: No such file or directory (os error 2)
    hint: name a folder that 'cargo xtask build' or skopeo has written
    ");
}
