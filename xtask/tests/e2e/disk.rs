//! Disks: what `disk` writes, says and refuses, and what is left when it is ended.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use insta::assert_snapshot;
use rustix::process::Signal;

use crate::harness::{Run, Workspace, fingerprint, judge, sha256};
use crate::interrupts::{interrupt, names, start, wait_until};
use crate::testing::program;

/// A raw disk with a word at each mebibyte.
fn write_raw(path: &Path, mebibytes: u64) {
    let file = File::create(path).unwrap();
    file.set_len(mebibytes << 20).unwrap();
    (0..mebibytes).for_each(|at| file.write_all_at(format!("here is {at}").as_bytes(), at << 20).unwrap());
}

#[test]
fn a_raw_becomes_all_formats() {
    let workspace = Workspace::new();
    let raw = workspace.path("../os.raw");
    write_raw(&raw, 8);
    let report = workspace.json("disk ova qcow2 raw ami vhd gce vmdk qcow2 --from ../os.raw --name os-v1");
    let outputs = report["outputs"].as_array().unwrap();
    let paths: Vec<&str> = outputs.iter().map(|output| output["path"].as_str().unwrap()).collect();
    assert_eq!(
        paths,
        ["raw", "ami.raw", "qcow2", "vmdk", "vhd", "tar.gz", "ova"]
            .map(|extension| format!("target/dist/disk/os-v1.{extension}"))
    );
    for output in outputs {
        let path = workspace.path(output["path"].as_str().unwrap());
        // One of them is a GiB of next to nothing.
        let bytes = fs::read(&path).unwrap();
        assert_eq!(output["size"], bytes.len());
        assert_eq!(format!("sha256:{}", output["sha256"].as_str().unwrap()), sha256(&bytes));
        let virtual_size = if output["format"] == "gce" { 1_u64 << 30 } else { 8 << 20 };
        assert_eq!(output["virtual_size"], virtual_size);
    }
    let disk = workspace.path("target/dist/disk/os-v1");
    let (raw, disk) = (raw.display(), disk.display());
    judge("qemu-img", &format!("compare -f raw -F qcow2 {raw} {disk}.qcow2"));
    judge("qemu-img", &format!("compare -f raw -F vmdk {raw} {disk}.vmdk"));
    judge("qemu-img", &format!("compare -f raw -F vpc {raw} {disk}.vhd"));
    judge("cmp", &format!("{raw} {disk}.raw"));
    judge("cmp", &format!("{raw} {disk}.ami.raw"));

    // The text is as sha256sum has it.
    let text = workspace.ok("disk qcow2 --from ../os.raw --output ../out --qcow2-compression zlib");
    let sum = sha256(&fs::read(workspace.path("../out/os.qcow2")).unwrap());
    assert_eq!(text, format!("{}  ../out/os.qcow2", sum.strip_prefix("sha256:").unwrap()));
    let info = judge("qemu-img", &format!("info {}", workspace.path("../out/os.qcow2").display()));
    assert!(info.contains("compression type: zlib"), "{info}");
}

#[test]
fn somebodys_own_files_are_not_written_over() {
    let workspace = Workspace::new();
    write_raw(&workspace.path("../os.raw"), 1);
    let disk = "disk qcow2 vhd vmdk --from ../os.raw --output ../out";
    fs::create_dir(workspace.path("../out")).unwrap();
    workspace.write("../out/os.vhd", "mine");
    let before = fingerprint(&workspace.path("../out"));
    assert_snapshot!(workspace.failure(disk), @"
    error: not written by this command, or changed since: ../out/os.vhd
    hint: 'cargo xtask disk FORMAT --force' writes it anew, '--output DIR' elsewhere; or move it away
    ");
    assert_eq!(fingerprint(&workspace.path("../out")), before);
    let made = workspace.ok(&format!("{disk} --force"));
    // What is as it was written is written over, here with other content, and what is gone is written.
    write_raw(&workspace.path("../os.raw"), 2);
    fs::remove_file(workspace.path("../out/os.vmdk")).unwrap();
    assert_ne!(workspace.ok(disk), made);
    // A change of the content alone is one, too: a machine that ran on it.
    let qcow2 = workspace.path("../out/os.qcow2");
    let bytes = fs::read(&qcow2).unwrap();
    fs::write(&qcow2, &bytes).unwrap();
    assert!(workspace.failure(disk).contains(" changed since: ../out/os.qcow2\n"));
    workspace.ok("disk vhd --from ../os.raw --output ../out");
}

#[test]
fn what_does_not_do_is_refused() {
    let workspace = Workspace::new();
    write_raw(&workspace.path("../os.raw"), 1);
    workspace.ok("disk raw qcow2 --from ../os.raw --output ../out");
    let before = fingerprint(&workspace.path("../out"));
    let fails = |arguments: &str| {
        let error = workspace.failure(&format!("disk {arguments} --output ../out"));
        assert_eq!(fingerprint(&workspace.path("../out")), before, "{arguments}");
        error
    };
    assert_snapshot!(fails("qcow2 --from oci:../gone:t"), @"
    error: reading oci:../gone:t: opening the OCI layout ../gone: No such file or directory (os error 2)
    hint: name a folder that 'cargo xtask build' or skopeo has written
    ");
    assert_snapshot!(fails("qcow2 --from ../gone.raw"), @"
    error: reading the raw disk ../gone.raw: No such file or directory (os error 2)
    hint: '--from' names a raw disk that is there
    ");
    assert_snapshot!(fails("raw --from ../out/os.raw"), @"
    error: ../out/os.raw would be written over itself
    hint: write elsewhere with '--output DIR', or under another name with '--name'
    ");
    fs::write(workspace.path("../empty.raw"), "").unwrap();
    assert_snapshot!(fails("qcow2 --from ../empty.raw --name os"), @"
    error: reading the raw disk ../empty.raw: it is empty
    hint: give a file with a disk in it
    ");
    fs::copy(workspace.path("../os.raw"), workspace.path("../my disk&.raw")).unwrap();
    let mut command = workspace.command("disk qcow2 --output ../out --from");
    command.arg("../my disk&.raw");
    assert_snapshot!(Run::new(command.output().unwrap()).failure(), @"
    error: `my disk&` is no name for a disk: it has letters, digits, `_`, `.` and `-`, starts with a letter or digit, and is at most 80 long
    hint: name the disk with '--name'
    ");
    let lock = File::open(workspace.path("../out")).unwrap();
    lock.lock().unwrap();
    assert_snapshot!(fails("qcow2 --from ../os.raw"), @"
    error: another run is writing to ../out
    hint: wait for it, or write elsewhere with '--output DIR'
    ");
    drop(lock);
    workspace.write("configs/builder/bootc-poc.ovf", "<Envelope/>");
    assert_snapshot!(fails("ova --from ../os.raw"), @"
    error: reading configs/builder/bootc-poc.ovf: it does not mention {{name}}
    hint: correct configs/builder/bootc-poc.ovf
    ");

    let whole =
        fs::read_to_string(format!("{}/../configs/builder/bootc-poc.ovf", env!("CARGO_MANIFEST_DIR")));
    workspace.write("configs/builder/bootc-poc.ovf", whole.unwrap().trim_end().strip_suffix('>').unwrap());
    let cut = fails("ova --from ../os.raw");
    assert!(cut.contains("configs/builder/bootc-poc.ovf: it is cut off: it does not end with </"), "{cut}");

    let run = workspace.run("disk qcow --from ../os.raw");
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("did you mean `qcow2`?"), "{}", run.stderr);
    let all = ["raw", "ami", "qcow2", "vmdk", "vhd", "gce", "ova", "iso"];
    assert!(all.iter().all(|format| run.stderr.contains(format)), "{}", run.stderr);
}

/// Mebibytes that nothing makes shorter.
fn write_noise(path: &Path, mebibytes: u64) {
    let file = File::create(path).unwrap();
    let mebibyte: Vec<u8> = (0..1_u32 << 18)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).rotate_left(n % 31).to_le_bytes())
        .collect();
    (0..mebibytes).for_each(|at| file.write_all_at(&mebibyte, at << 20).unwrap());
}

#[test]
fn a_full_file_system_keeps_the_old_disks() {
    let workspace = Workspace::new();
    fs::create_dir(workspace.path("../full")).unwrap();
    write_raw(&workspace.path("../os.raw"), 1);
    write_noise(&workspace.path("../large.raw"), 16);
    for format in ["raw", "ami", "qcow2", "vmdk", "vhd", "gce", "ova"] {
        // In a mount namespace of its own, the small disk is gone when the shell ends.
        let script = format!(
            "set -eu
            mount -t tmpfs -o size=5m tmpfs ../full
            $0 disk {format} --from ../os.raw --output ../full --name os --quiet >/dev/null
            ls -A ../full >../before
            sha256sum ../full/* >../sums
            code=0
            $0 disk {format} --from ../large.raw --output ../full --name os || code=$?
            ls -A ../full | cmp - ../before
            sha256sum --check --quiet ../sums
            exit $code"
        );
        let mut unshare = Command::new(program("unshare"));
        unshare.arg(if rustix::process::geteuid().is_root() { "-m" } else { "-rm" });
        workspace.prepare(unshare.args(["sh", "-c", &script, env!("CARGO_BIN_EXE_xtask")]));
        let error = Run::new(unshare.output().unwrap()).failure();
        assert!(error.starts_with("error: writing ../full/os."), "{format}: {error}");
        assert!(error.contains("No space left on device (os error 28)\nhint: free some space: "), "{error}");
        // What is remembered of a disk is not in that folder.
        fs::remove_dir_all(workspace.path("target/xtask")).unwrap();
    }
}

#[test]
fn a_raw_that_shrinks_while_it_is_read_is_told() {
    let workspace = Workspace::new();
    let raw = workspace.path("../os.raw");
    write_raw(&raw, 8);
    workspace.ok("disk qcow2 --from ../os.raw --output ../out");
    let before = fingerprint(&workspace.path("../out"));
    write_noise(&raw, 512);
    let child =
        start(workspace.command("disk qcow2 --from ../os.raw --output ../out --qcow2-compression zlib"));
    wait_until_written(child.id(), 10_000_000);
    File::options().write(true).open(&raw).unwrap().set_len(1 << 20).unwrap();
    assert_snapshot!(Run::new(child.wait_with_output().unwrap()).failure(), @"
    error: reading the raw disk ../os.raw: it has changed while it was read
    hint: stop the machine or the program that writes to it, and try again
    ");
    assert_eq!(fingerprint(&workspace.path("../out")), before);
    assert_eq!(names(&workspace.path("../out")), ["os.qcow2"]);
}

/// Waits until a process has written so many bytes.
fn wait_until_written(process: u32, bytes: u64) {
    let stat = format!("/proc/{process}/io");
    wait_until("writing", || {
        let text = fs::read_to_string(&stat).unwrap_or_default();
        let written = text.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse::<u64>().ok());
        written.is_some_and(|count| count > bytes)
    });
}

#[test]
fn an_interrupt_leaves_the_old_disk() {
    let workspace = Workspace::new();
    let raw = workspace.path("../os.raw");
    write_raw(&raw, 8);
    workspace.ok("disk qcow2 --from ../os.raw --output ../out");
    let before = fingerprint(&workspace.path("../out"));
    // What takes long: zlib, and a gibibyte that holds something everywhere.
    write_noise(&raw, 1024);
    let child =
        start(workspace.command("disk qcow2 --from ../os.raw --output ../out --qcow2-compression zlib"));
    wait_until_written(child.id(), 10_000_000);
    interrupt(child, Signal::INT);
    assert_eq!(fingerprint(&workspace.path("../out")), before);
    assert_eq!(names(&workspace.path("../out")), ["os.qcow2"]);
}
