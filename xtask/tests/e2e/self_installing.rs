//! An image that installs itself, run by real podman.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use insta::assert_snapshot;
use rustix::process::Signal;
use serde_json::json;

use crate::builders::write_image;
use crate::harness::{Run, Workspace, fingerprint, judge};
use crate::interrupts::{interrupt, names, start, wait_until};
use crate::standin::set_up_engine;
use crate::testing::program;

/// An image that installs itself as bootc's do, of this machine's own programs.
fn self_installing(workspace: &Workspace) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/standin/podman/bootc");
    let programs = [
        "sh",
        "cat",
        "dd",
        "mkfs.ext4",
        "mount",
        "umount",
        "losetup",
        "sfdisk",
        "sleep",
        "touch",
        "readlink",
    ];
    let mut files: Vec<(String, Vec<u8>)> = vec![("usr/bin/bootc".to_owned(), fs::read(script).unwrap())];
    let mut add = |path: &Path, name: String| {
        if !files.iter().any(|(other, _)| *other == name) {
            files.push((name, fs::read(path).unwrap()));
        }
    };
    for name in programs {
        let path = program(name);
        for library in
            judge("ldd", path.to_str().unwrap()).split_whitespace().filter(|word| word.starts_with('/'))
        {
            add(Path::new(library), library.trim_start_matches('/').to_owned());
        }
        add(&path, format!("usr/bin/{name}"));
    }
    let files: Vec<_> =
        files.iter().map(|(name, content)| (name.as_str(), content.as_slice(), 0o755)).collect();
    write_image(&workspace.path("../self"), &files, json!({"containers.bootc": "1"}), None);
    "oci:../self:t".to_owned()
}

/// The file of the stand-in for bootc, in a disk's root.
fn seen(raw: &Path) -> String {
    let disk = format!("{}?offset=1048576", raw.display());
    let output = Command::new(program("debugfs")).args(["-R", "cat /seen", &disk]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The loop devices of this machine whose file has this number, or was removed although they have it.
fn loop_devices(inode: u64) -> usize {
    let list = judge("losetup", "--list --noheadings --output NAME,BACK-INO,BACK-FILE");
    let is_ours = |line: &&str| {
        line.split_whitespace().nth(1) == Some(&inode.to_string()) || line.ends_with("/disk.raw (deleted)")
    };
    list.lines().filter(is_ours).count()
}

#[test]
fn an_image_installs_itself_in_real_podman() {
    let workspace = Workspace::new();
    let image = self_installing(&workspace);
    let engine = |mut command: Command| {
        set_up_engine(&workspace, &mut command);
        command
    };
    let disk = |more: &str| {
        let disk =
            format!("disk raw qcow2 --from {image} --size 1GiB --output ../disks --builder bootc {more}");
        engine(workspace.command(&disk))
    };
    let configure = |append: &str| {
        workspace
            .write("configs/builder/config.toml", &format!("[customizations.kernel]\nappend = '{append}'\n"));
    };
    let containers = || {
        let mut command = engine(Command::new(program("podman")));
        let output = command.args(["ps", "--all", "--quiet"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };

    configure("console=tty0 a=b,c");
    let run = Run::new(disk("").output().unwrap());
    assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
    assert!(run.stderr.contains("\nInstallation complete!\n"), "{}", run.stderr);
    let raw = workspace.path("../disks/t.raw");
    judge("sfdisk", &format!("--verify {}", raw.display()));
    let qcow2 = workspace.path("../disks/t.qcow2");
    judge("qemu-img", &format!("compare -f raw -F qcow2 {} {}", raw.display(), qcow2.display()));
    assert_snapshot!(seen(&raw), @r#" --generic-image --via-loopback --skip-fetch-check <console=tty0><a=b,c>"#);
    assert_eq!(fs::metadata(&raw).unwrap().uid(), rustix::process::geteuid().as_raw());
    // A host looks for the next version where the project's images are.
    assert!(run.stderr.contains("\nbrought registry.example/os:t into podman's storage\n"), "{}", run.stderr);
    let images = || {
        let mut command = engine(Command::new(program("podman")));
        String::from_utf8(command.args(["images", "--all", "--quiet"]).output().unwrap().stdout).unwrap()
    };
    assert_eq!(images(), "");

    let before = fingerprint(&workspace.path("../disks"));
    let kept = || names(&workspace.path("target/xtask/raw"));
    configure("standin.fails");
    let error = Run::new(disk("").output().unwrap()).failure();
    for part in ["error: no kernel found\n", "and before, on standard output\n    Installing image\nhint: "] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!((loop_devices(0), containers()), (0, String::new()));

    configure("standin.slow");
    let unfinished = workspace.path("target/xtask/raw/.unfinished");
    for signal in [Signal::INT, Signal::TERM] {
        let child = start(disk(""));
        wait_until("the mount", || unfinished.join("attached").exists());
        let inode = fs::metadata(unfinished.join("disk.raw")).unwrap().ino();
        assert_eq!(loop_devices(inode), 2);
        interrupt(child, signal);
        assert_eq!((loop_devices(inode), containers()), (0, String::new()));
    }
    assert_eq!((fingerprint(&workspace.path("../disks")), kept().len()), (before, 1));

    let mut child = start(disk(""));
    wait_until("the mount", || unfinished.join("attached").exists());
    let inode = fs::metadata(unfinished.join("disk.raw")).unwrap().ino();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(loop_devices(inode), 2);
    configure("console=tty0");
    let run = Run::new(disk("").output().unwrap());
    assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
    assert_eq!((loop_devices(inode), containers(), images()), (0, String::new(), String::new()));
}
