//! Disks by a builder of root's, where an ordinary user asks for them.

use std::fs;
use std::process::Command;

use insta::assert_snapshot;
use serde_json::json;

use crate::builders::{SETTINGS, Stage, as_nobody, write_image};
use crate::harness::{Run, Workspace, judge};
use crate::interrupts::{names, start, wait_until};

#[test]
fn an_ordinary_user_goes_by_sudo() {
    let stage = Stage::new();
    let workspace = &stage.workspace;
    stage.with_sudo();
    let run = Run::new(stage.disk_as_nobody("raw").output().unwrap());
    assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
    let calls = fs::read_to_string(workspace.path("../podman/state/calls")).unwrap();
    assert!(calls.contains(" --chown 65534:65534 "), "{calls}");
    let by_sudo = fs::read_to_string(workspace.path("../podman/sudo.calls")).unwrap();
    // The one that takes long is called by a shell, while sudo is reminded of the user.
    let count = |name: &str| by_sudo.lines().filter(|program| *program == name).count();
    assert_eq!((count("podman") + 1, count("sh")), (calls.lines().count(), 1), "{by_sudo}");
    assert!(count("--validate") >= 1, "{by_sudo}");
}

/// A builder takes longer than sudo remembers its user.
#[test]
fn a_disk_that_is_made_is_not_lost_for_want_of_a_password() {
    for builder in
        ["quay.io/centos-bootc/bootc-image-builder:latest", "ghcr.io/osbuild/image-builder-cli:latest"]
    {
        let stage = Stage::new();
        stage.with_sudo();
        stage.set_mode("late");
        let run = Run::new(stage.disk_as_nobody(&format!("raw --builder-image {builder}")).output().unwrap());
        assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
        judge("sfdisk", &format!("--verify {}", stage.workspace.path("target/disks/os-t.raw").display()));
        // What is left is told.
        let hint = format!("hint: run 'sudo podman image rm {}'", stage.image);
        assert!(run.stderr.contains(&hint), "{}", run.stderr);
    }
}

#[test]
fn an_ordinary_user_removes_what_root_wrote_for_a_killed_run() {
    let stage = Stage::new();
    let workspace = &stage.workspace;
    stage.with_sudo();
    stage.set_mode("slow");
    // Whoever makes such a command lets everybody write to what is there by then.
    let [first, expired, second, third] = [(); 4].map(|()| stage.disk_as_nobody("qcow2"));
    let disk = |mut command: Command| Run::new(command.output().unwrap());
    let mut child = start(first);
    let unfinished = workspace.path("target/xtask/raw/.unfinished");
    wait_until("the builder's start", || unfinished.join("image/disk.raw").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    judge("chown", &format!("-R 0:0 {}", unfinished.join("image").display()));
    let containers = workspace.path("../podman/state/containers");
    stage.set_mode("well");
    workspace.write("../podman/sudo.expired", "");
    let error = disk(expired).failure();
    assert!(error.contains("hint: run 'sudo -v' before"), "{error}");
    assert!(unfinished.join("image/disk.raw").exists());
    fs::remove_file(workspace.path("../podman/sudo.expired")).unwrap();
    let run = disk(second);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!((names(&containers), stage.has_image(), unfinished.exists()), (vec![], false, false));

    // Where no container did it, root's own run did.
    fs::create_dir_all(unfinished.join("image")).unwrap();
    fs::write(unfinished.join("image/disk.raw"), "").unwrap();
    judge("chmod", &format!("755 {}", unfinished.join("image").display()));
    let folder = unfinished.canonicalize().unwrap();
    workspace.write("configs/builder/config.toml", "");
    let error = disk(third).failure();
    assert!(error.contains(&format!("run 'sudo rm -r {}'", folder.display())), "{error}");
}

/// An ordinary user on a machine without an engine, and an image that fits nowhere.
#[test]
fn all_that_is_missing_is_told_at_once() {
    let workspace = Workspace::with_standin();
    let large = "oci:../large:t";
    write_image(&workspace.path("../large"), &[], json!({"containers.bootc": "1"}), Some(9 << 50));
    // It is elsewhere: no blob here is so large.
    let layout = workspace.layout("../large");
    let layer = layout.manifest("t")["layers"][0]["digest"].as_str().unwrap().to_owned();
    fs::remove_file(layout.blob_path(&layer)).unwrap();
    let settings = SETTINGS.replace("registry.example", "127.0.0.1:1");
    workspace.write("Cargo.toml", &settings);
    fs::create_dir(workspace.path("../bin")).unwrap();

    let error = |builder: &str| {
        let disk = format!("disk qcow2 --from {large} --output target/disks {builder}");
        let mut command = as_nobody(&workspace, &disk);
        command.env("PATH", workspace.path("../bin"));
        let error = Run::new(command.output().unwrap()).failure();
        assert!(!workspace.path("target/disks").exists());
        // How much is free differs.
        let error = error.replace(workspace.path("../").to_str().unwrap(), "DIR/");
        error
            .lines()
            .map(|line| match line.split_once(" are free for ") {
                Some((_, rest)) => format!("SOME are free for {rest}\n"),
                None => format!("{line}\n"),
            })
            .collect::<String>()
    };
    assert_snapshot!(error(""), @"
    error: podman is missing: it runs builders of disks
    image-builder has to be root: it attaches and mounts disks
    oci:../large:t lacks layers, which are in another place, and 127.0.0.1:PORT/os:t did not say whether it has the image (http://127.0.0.1:PORT/v2/os/manifests/t cannot be reached: Connection refused (os error 111))
    SOME are free for /var/lib/containers/storage, DIR/ws/target/xtask/raw, DIR/ws/target/disks, and it takes about 70932 TB
    hint: run 'sudo apt-get install podman'; as root, '--yes' does it; run 'sudo -v' before it, or run it as root; make the image with '--full', or push it, so that podman can pull it; free some space: 'sudo podman system prune' removes images that are not used
    ");
    assert!(error("--builder bootc").contains("\nbootc has to be root: "));
}
