//! Disks by builders that are containers. osbuild's are a stand-in's; the image that installs itself
//! is run by real podman.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use insta::assert_snapshot;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::config::new_key;
use crate::harness::{
    INDEX, Layout, MANIFEST, REF_NAME, Run, Workspace, fingerprint, host_architecture, judge, sha256,
    skopeo_push,
};
use crate::interrupts::{interrupt, names, start, wait_until};
use crate::standin::set_up_engine;
use crate::testing::{Registry, program};

const SETTINGS: &str =
    "[workspace.metadata.testboot]\nimage = \"registry.example/os\"\ndistro = \"debian-13\"\n";

/// Stands in for sudo, which knows the user until there is a file: what it starts has no more rights.
const SUDO: &str = r#"#!/bin/sh
[ "$1" = -n ] && [ ! -e "$0.expired" ] || { echo "sudo: a password is required" >&2; exit 1; }
echo "$2" >>"$0.calls"
[ "$2" != --validate ] || exit 0
shift
exec "$@"
"#;

/// A workspace, an image in a registry, and podman's stand-in.
struct Stage {
    workspace: Workspace,
    _registry: Registry,
    image: String,
}

impl Stage {
    fn new() -> Stage {
        let workspace = Workspace::with_good_image();
        let registry = Registry::docker();
        let image = format!("{}/me/os:t", registry.address());
        skopeo_push(&format!("oci:{}:t", workspace.path("../out").display()), &image, "");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/standin/podman/podman");
        fs::create_dir_all(workspace.path("../podman/state")).unwrap();
        fs::copy(script, workspace.path("../podman/podman")).unwrap();
        let stage = Stage { workspace, _registry: registry, image };
        stage.set_mode("well");
        stage
    }

    /// The registry, which has the base, too, as `base:t`.
    fn with_base(&self) -> &str {
        let registry = self.image.split('/').next().unwrap();
        let standin = format!("oci:{}:t", self.workspace.path("../standin").display());
        skopeo_push(&standin, &format!("{registry}/base:t"), "");
        registry
    }

    /// How the next builder ends.
    fn set_mode(&self, mode: &str) {
        self.workspace.write("../podman/state/mode", mode);
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = self.workspace.command(arguments);
        command.env("PATH", self.path());
        command
    }

    /// Programs, podman's stand-in first.
    fn path(&self) -> String {
        format!("{}:{}", self.workspace.path("../podman").display(), std::env::var("PATH").unwrap())
    }

    /// `disk` of the image.
    fn disk(&self, arguments: &str) -> Run {
        let command = format!("disk {arguments} --from {} --size 1GiB --output ../disks", self.image);
        Run::new(self.command(&command).output().unwrap())
    }

    fn ok(&self, arguments: &str) -> Run {
        let run = self.disk(arguments);
        assert_eq!(run.code, Some(0), "{arguments}\n{}{}", run.stdout, run.stderr);
        run
    }

    /// The error of one that has to fail, without what differs from run to run.
    fn failure(&self, arguments: &str) -> String {
        let error = self.disk(arguments).failure();
        let error = error.replace(self.workspace.path("../").to_str().unwrap(), "DIR/");
        error.lines().map(|line| without_container(line) + "\n").collect()
    }

    /// What podman was called for, since the last time.
    fn calls(&self) -> Vec<String> {
        let path = self.workspace.path("../podman/state/calls");
        let calls = fs::read_to_string(&path).unwrap_or_default();
        fs::write(path, "").unwrap();
        calls.lines().map(|call| call.split(' ').next().unwrap().to_owned()).collect()
    }

    /// Whether podman's storage has the image.
    fn has_image(&self) -> bool {
        self.workspace.path("../podman/state/images").join(self.image.replace('/', "_")).exists()
    }

    /// An ordinary user's way to root, whose files only `chown` can change.
    fn with_sudo(&self) {
        self.workspace.write("../podman/sudo", SUDO);
        judge("chmod", &format!("-R a+rwx {}", self.workspace.path("../podman").display()));
        let chown = self.workspace.path("../podman/chown");
        judge("install", &format!("-m4755 {} {}", program("chown").display(), chown.display()));
    }

    fn disk_as_nobody(&self, arguments: &str) -> Command {
        let disk = format!("disk {arguments} --from {} --size 1GiB --output target/disks", self.image);
        let mut command = as_nobody(&self.workspace, &disk);
        command.env("PATH", self.path());
        command
    }

    fn kept(&self) -> Vec<String> {
        names(&self.workspace.path("target/xtask/raw"))
    }
}

/// A line of an error without the container's name, which depends on the folder.
fn without_container(line: &str) -> String {
    match line.split_once("bootc-testboot-") {
        Some((before, after)) => format!("{before}NAME{}", &after[12..]),
        None => line.to_owned(),
    }
}

#[test]
fn both_generations_of_the_builder_make_a_disk() {
    for builder in
        ["quay.io/centos-bootc/bootc-image-builder:latest", "ghcr.io/osbuild/image-builder-cli:latest"]
    {
        let stage = Stage::new();
        let workspace = &stage.workspace;
        let run = stage.ok(&format!("raw qcow2 --builder-image {builder} --json"));
        let report: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(report["outputs"][0]["virtual_size"], 1 << 30);
        // Nothing slow comes before what can be told at once, and the image before its container.
        let order = ["info", "image", "info", "run", "image", "image", "pull", "image", "rm", "run", "image"];
        assert_eq!(stage.calls(), order);
        assert!(!stage.has_image());
        // A log shows what the builder says, on both of its outputs.
        for line in ["\nBuilding manifest-raw.json\n", "\norg.osbuild.bootc.install-to-filesystem: "] {
            assert!(run.stderr.contains(line), "{line}: {}", run.stderr);
        }

        let disk = workspace.path("../disks/os-t");
        let (raw, qcow2) = (format!("{}.raw", disk.display()), format!("{}.qcow2", disk.display()));
        judge("sfdisk", &format!("--verify {raw}"));
        judge("qemu-img", &format!("check {qcow2}"));
        judge("qemu-img", &format!("compare -f raw -F qcow2 {raw} {qcow2}"));
        let kernel = json!({"append": "console=tty0 console=ttyS0,115200n8"});
        assert_eq!(seen_by_osbuild(Path::new(&raw)), json!({"customizations": {"kernel": kernel}}));
        workspace.ok("disk vmdk --from ../disks/os-t.raw --output ../disks");
        assert_eq!(names(&workspace.path("../podman/state/containers")), [""; 0]);
        assert_eq!(stage.kept().len(), 1, "{:?}", stage.kept());

        // It is there now. Another format is made of what was kept, another configuration of anew.
        let before = fingerprint(&workspace.path("../disks"));
        let again = format!("raw qcow2 --builder-image {builder} --json");
        assert_eq!(stage.ok(&again).stdout, run.stdout);
        assert_eq!(fingerprint(&workspace.path("../disks")), before);
        stage.ok(&format!("vhd --builder-image {builder}"));
        assert_eq!(stage.calls(), [""; 0]);
        // One that was changed since is not: what it has is anybody's guess.
        let kept = workspace.path("target/xtask/raw").join(&stage.kept()[0]);
        fs::write(&kept, vec![7; 1 << 20]).unwrap();
        let remade = stage.ok(&format!("vmdk --builder-image {builder}"));
        assert!(remade.stderr.contains(" is not as it was made: it is made anew\n"), "{}", remade.stderr);
        judge("qemu-img", &format!("compare -f raw -F vmdk {raw} {}.vmdk", disk.display()));
        stage.calls();
        workspace.write("configs/builder/config.toml", "[customizations.kernel]\nappend = \"quiet\"\n");
        assert_ne!(stage.ok(&again).stdout, run.stdout);
        assert_eq!(stage.calls(), order);
        assert_eq!(stage.kept().len(), 1, "{:?}", stage.kept());
    }
}

/// What the stand-in for osbuild's builders was given as its configuration: it is in the partition.
fn seen_by_osbuild(raw: &Path) -> Value {
    let raw = fs::read(raw).unwrap();
    let text = raw[2 << 20..].split(|byte| *byte == 0).next().unwrap();
    toml::from_str(str::from_utf8(text).unwrap()).unwrap()
}

/// What the stand-in was given as its configuration for an ISO.
fn seen_in_iso(workspace: &Workspace, iso: &str) -> Value {
    let folder = workspace.path("../extracted");
    fs::remove_dir_all(&folder).ok();
    fs::create_dir(&folder).unwrap();
    judge("bsdtar", &format!("-C {} -xf {}", folder.display(), workspace.path(iso).display()));
    let file = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    toml::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

#[test]
fn the_builder_makes_an_installer_by_itself() {
    let stage = Stage::new();
    let workspace = &stage.workspace;
    let key = new_key(workspace, "key", "ed25519");
    workspace.write(
        "configs/builder/config.toml",
        "[customizations.installer]\nunattended = true\n[customizations.iso]\nvolume_id = 'OS'\n",
    );
    let disk = format!("iso --ssh-key {} --json", key.display());
    let run = stage.ok(&disk);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    let iso = workspace.path("../disks/os-t.iso");
    let output = &report["outputs"][0];
    let sha256sum = judge("sha256sum", iso.to_str().unwrap());
    assert_eq!(output["sha256"], *sha256sum.split(' ').next().unwrap());
    assert_eq!((&output["format"], &output["size"]), (&"iso".into(), &output["virtual_size"]));
    let line = fs::read_to_string(&key).unwrap();
    let line = line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    assert_eq!(
        seen_in_iso(workspace, "../disks/os-t.iso"),
        json!({"customizations": {
            "user": [{"name": "devops", "groups": ["wheel"], "key": line}],
            "installer": {"unattended": true},
            "iso": {"volume_id": "OS"},
        }})
    );
    assert!(run.stderr.contains("\nBuilding manifest-anaconda-iso.json\n"), "{}", run.stderr);
    assert!(run.stderr.contains(" of=/dev/STICK ") && !run.stderr.contains("testboot."), "{}", run.stderr);
    assert_eq!((stage.kept(), names(&workspace.path("../podman/state/containers"))), (vec![], vec![]));
    // It is there now, and a disk would need another configuration.
    stage.calls();
    assert_eq!(stage.ok(&disk).stdout, run.stdout);
    assert_eq!(stage.calls(), [""; 0]);
    assert!(
        stage.failure("iso qcow2").contains("  [customizations.installer]: what it makes is no installer\n")
    );

    // With one that both can be made with, there is a run for each.
    workspace.write("configs/builder/config.toml", "[customizations.kernel]\nappend = 'quiet'\n");
    let report: Value = serde_json::from_str(&stage.ok("iso qcow2 raw --json").stdout).unwrap();
    let formats: Vec<&str> = report["outputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|output| output["format"].as_str().unwrap())
        .collect();
    assert_eq!(formats, ["raw", "qcow2", "iso"]);
    let kernel = json!({"customizations": {"kernel": {"append": "quiet"}}});
    assert_eq!(seen_in_iso(workspace, "../disks/os-t.iso"), kernel);
    assert_eq!(stage.calls().iter().filter(|call| *call == "run").count(), 4);

    // One that fails leaves the last one as it is.
    let before = fingerprint(&workspace.path("../disks"));
    stage.set_mode("fails");
    workspace.write("configs/builder/config.toml", "");
    let error = stage.failure("iso");
    assert!(error.starts_with("error: making an installer of os-t: `podman run "), "{error}");
    assert_eq!(fingerprint(&workspace.path("../disks")), before);
    assert_eq!(stage.kept().len(), 1, "{:?}", stage.kept());
}

/// What image-builder makes of an image is that image on a CD: nothing is added.
#[test]
fn the_successor_takes_no_configuration_for_an_installer() {
    let stage = Stage::new();
    let workspace = &stage.workspace;
    let iso = "iso --builder-image ghcr.io/osbuild/image-builder-cli:latest";
    workspace.write(
        "configs/builder/config.toml",
        "[[customizations.user]]\nname = 'me'\n[[customizations.group]]\nname = 'data'\n\
         [customizations.installer]\nunattended = true\n[customizations.iso]\nvolume_id = 'OS'\n",
    );
    assert_snapshot!(stage.failure(iso), @"
    error: making an installer of os-t: the builder 'image-builder' cannot do what configs/builder asks for:
      the user `me`, from config.toml or '--ssh-key': it takes users from the image
      the group `data`: it makes no groups
      [customizations.installer]: it takes its installer from the image
      [customizations.iso]: it takes the ISO's names from the image
    hint: bootc-image-builder does it: leave '--builder-image' out
    ");
    // Nothing slow came before.
    assert_eq!(stage.calls(), ["info", "image", "info", "run"]);
    workspace.write("configs/builder/config.toml", "[customizations.kernel]\nappend = 'quiet'\n");
    let run = stage.ok(iso);
    let line = "\niso: its kernel gets the arguments that the image says, not those of configs/builder\n";
    assert!(run.stderr.contains(line), "{}", run.stderr);
    assert_eq!(seen_in_iso(workspace, "../disks/os-t.iso"), json!({}));
    assert_snapshot!(stage.failure("iso --builder bootc"), @"
    error: bootc makes no iso here
    hint: leave out iso, or '--builder': image-builder makes one of bootc images
    ");
}

#[test]
fn what_disks_are_made_with_reaches_the_builder() {
    for builder in
        ["quay.io/centos-bootc/bootc-image-builder:latest", "ghcr.io/osbuild/image-builder-cli:latest"]
    {
        let stage = Stage::new();
        let workspace = &stage.workspace;
        let (given, own) = (new_key(workspace, "given", "ed25519"), new_key(workspace, "own", "ed25519"));
        let key = |file: &Path| {
            let line = fs::read_to_string(file).unwrap();
            line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
        };
        let (given_key, own_key) = (key(&given), key(&own));
        workspace.write(
            "configs/builder/config.toml",
            &format!(
                "[customizations.kernel]\nappend = 'console=tty0 quiet'\n[[customizations.group]]\nname = 'data'\n\
                 [[customizations.user]]\nname = 'me'\ngroups = ['data']\nkey = '{own_key} me@here'\n\
                 [[customizations.filesystem]]\nmountpoint = '/var/lib/data'\nminsize = '64 MiB'\n"
            ),
        );
        // Formats with other arguments of the kernel are made of another raw.
        stage.ok(&format!("raw qcow2 gce --ssh-key {} --builder-image {builder}", given.display()));
        let runs = stage.calls().iter().filter(|call| *call == "run").count();
        assert_eq!(runs, 4, "one that asks and one that makes, twice");
        let blueprint = |append: &str| {
            json!({"customizations": {
                "group": [{"name": "data"}],
                "user": [{"name": "me", "groups": ["data"], "key": format!("{own_key}\n{given_key}")}],
                "filesystem": [{"mountpoint": "/var/lib/data", "minsize": 64 << 20}],
                "kernel": {"append": append},
            }})
        };
        let raws = workspace.path("target/xtask/raw");
        let mut seen: Vec<Value> =
            stage.kept().iter().map(|name| seen_by_osbuild(&raws.join(name))).collect();
        seen.sort_by_key(|seen| seen["customizations"]["kernel"]["append"].to_string());
        let expected = ["quiet console=ttyS0,115200n8", "console=tty0 quiet"].map(blueprint);
        assert_eq!(seen, [expected[1].clone(), expected[0].clone()]);
        assert_eq!(seen_by_osbuild(&workspace.path("../disks/os-t.raw")), expected[1]);

        // Without users, a key makes one.
        workspace.write("configs/builder/config.toml", "");
        stage.ok(&format!("raw --ssh-key {} --builder-image {builder}", given.display()));
        let user = json!({"name": "devops", "groups": ["wheel"], "key": given_key});
        assert_eq!(
            seen_by_osbuild(&workspace.path("../disks/os-t.raw")),
            json!({"customizations": {"user": [user]}})
        );
    }
}

#[test]
fn a_builder_may_make_a_larger_disk() {
    let stage = Stage::new();
    stage.set_mode("large");
    let run = stage.ok("raw --json");
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["outputs"][0]["virtual_size"], 2_u64 << 30);
    let warning = "warning: the disk has 2.15 GB, not 1.07 GB: image-builder made it as large\n";
    assert!(run.stderr.contains(warning), "{}", run.stderr);
}

/// A layout with our layers alone: podman can pull what has been pushed, and nothing else.
#[test]
fn a_layout_without_its_base_is_pulled_once_it_is_pushed() {
    let stage = Stage::new();
    let workspace = &stage.workspace;
    let registry = stage.with_base();
    let build = format!("build --base {registry}/base:t --to");
    workspace.ok(&format!("{build} oci:../partial:v1"));
    workspace.write("Cargo.toml", &SETTINGS.replace("registry.example/os", &format!("{registry}/me/os")));
    let disk = || {
        Run::new(
            stage
                .command("disk raw --from oci:../partial:v1 --size 1GiB --output ../disks")
                .output()
                .unwrap(),
        )
    };
    assert_snapshot!(disk().failure(), @"
    error: oci:../partial:v1 lacks layers, which are in 127.0.0.1:PORT/base:t (sha256:HEX), and 127.0.0.1:PORT/me/os:v1 has not got the image
    hint: make the image with '--full', or push it, so that podman can pull it
    ");
    // Another image of the name is none.
    workspace.ok(&format!("{build} {registry}/me/os:v1 --app-version other"));
    assert!(disk().failure().contains(" has not got the image\n"));
    workspace.ok(&format!("{build} {registry}/me/os:v1"));
    stage.calls();
    let run = disk();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(stage.calls().contains(&"pull".to_owned()));
}

#[test]
fn a_builder_that_fails_is_told_and_leaves_nothing() {
    let stage = Stage::new();
    stage.ok("qcow2");
    stage.workspace.write("configs/builder/config.toml", "");
    let before = fingerprint(&stage.workspace.path("../disks"));
    let fails = |mode: &str, arguments: &str| {
        stage.set_mode(mode);
        let error = stage.failure(arguments);
        assert_eq!(fingerprint(&stage.workspace.path("../disks")), before, "{mode}");
        assert_eq!(stage.kept().len(), 1, "{:?}", stage.kept());
        assert_eq!(names(&stage.workspace.path("../podman/state/containers")), [""; 0]);
        error.replace(&stage.image, "IMAGE")
    };
    assert_snapshot!(fails("fails", "qcow2"), @"
    error: making a disk of os-t: `podman run --rm --name NAME --stop-timeout=2 --pull=never --privileged --security-opt label=type:unconfined_t --volume DIR/ws/target/xtask/raw/.unfinished/config.toml:/config.toml:ro --volume DIR/ws/target/xtask/raw/.unfinished:/output --volume DIR/podman/state/storage:/var/lib/containers/storage quay.io/centos-bootc/bootc-image-builder:latest --type raw --rootfs ext4 --chown 0:0 --progress verbose 127.0.0.1:PORT/me/os:t` failed (exit status: 1)
        org.osbuild.bootc.install-to-filesystem: HEX
        Error: cannot run osbuild: exit status 1
      and before, on standard output
        Building manifest-raw.json
        ERROR Installing to filesystem: no kernel found
    hint: the lines above say which step failed; '--builder' chooses another way
    ");
    let full = fails("full", "qcow2");
    assert!(full.contains("No space left on device\n"), "{full}");
    assert!(full.contains("hint: free some space: "), "{full}");
    assert_snapshot!(fails("twice", "qcow2"), @"
    error: making a disk of os-t: looking for what the builder wrote in DIR/ws/target/xtask/raw/.unfinished: it wrote 2 files that end in .raw, and one is expected
    hint: '--builder-image' names another version
    ");
    assert_snapshot!(fails("well", "qcow2 --builder-image docker.io/library/nginx:latest"), @"
    error: making a disk of os-t: docker.io/library/nginx:latest builds no disks: its 'build' knows neither --rootfs nor --bootc-ref
    hint: '--builder-image' names bootc-image-builder's image, or image-builder's
    ");
    stage.workspace.write("configs/builder/config.toml", "[[customizations.user]\n");
    assert!(fails("well", "qcow2").contains("  configs/builder/config.toml:1: it is not TOML: "));
    stage.workspace.write("configs/builder/config.toml", "[customizations.installer]\nunattended = true\n");
    assert_snapshot!(fails("well", "qcow2"), @"
    error: the builder 'image-builder' cannot do what configs/builder asks for:
      [customizations.installer]: what it makes is no installer
    hint: remove it from configs/builder/config.toml, or name another builder with '--builder', where there is one
    ");
    stage.workspace.write("configs/builder/config.toml", "");
    stage.calls();
    fails("well", "qcow2 --builder ostree");
    assert_eq!(stage.calls(), [""; 0]);
}

#[test]
fn an_interrupt_ends_the_container() {
    let stage = Stage::new();
    stage.set_mode("slow");
    let disk = format!("disk qcow2 --from {} --size 1GiB --output ../disks", stage.image);
    let containers = stage.workspace.path("../podman/state/containers");
    let half = stage.workspace.path("target/xtask/raw/.unfinished/image/disk.raw");
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let mut child = start(stage.command(&disk));
        wait_until("the builder's start", || half.exists());
        if signal == Signal::KILL {
            child.kill().unwrap();
            child.wait().unwrap();
            assert_eq!(names(&containers).len(), 1);
        } else {
            interrupt(child, signal);
            assert_eq!((names(&containers), stage.kept()), (vec![], vec![]));
        }
    }
    assert!(!stage.workspace.path("../disks").exists());
    // What a killed run left, container included, goes with the next.
    assert!(stage.has_image());
    // Whichever builder that has, and whatever becomes of it.
    stage.failure("qcow2 --builder ostree");
    assert_eq!((names(&containers), stage.kept(), stage.has_image()), (vec![], vec![], false));
    stage.set_mode("well");
    stage.ok("qcow2");
    assert_eq!((names(&containers).len(), stage.kept().len()), (0, 1));
}

/// `disk` by a user who is not root.
fn as_nobody(workspace: &Workspace, arguments: &str) -> Command {
    fs::create_dir_all(workspace.path("target")).unwrap();
    fs::set_permissions(workspace.path("../"), PermissionsExt::from_mode(0o755)).unwrap();
    judge("chmod", &format!("-R a+rwX {}", workspace.path("target").display()));
    let mut command = Command::new(program("setpriv"));
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", env!("CARGO_BIN_EXE_xtask")]);
    command.args(arguments.split_whitespace());
    workspace.prepare(&mut command);
    command.env("HOME", workspace.path("../"));
    command
}

#[test]
fn an_image_that_was_in_the_storage_stays_there() {
    let stage = Stage::new();
    let podman = stage.workspace.path("../podman/podman");
    judge(podman.to_str().unwrap(), &format!("pull --tls-verify=false {}", stage.image));
    stage.ok("qcow2");
    assert!(stage.has_image());
    assert!(!stage.calls()[1..].contains(&"pull".to_owned()));
}

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

#[test]
fn a_builder_that_an_image_cannot_use_is_refused() {
    let workspace = Workspace::with_standin();
    let labels = json!({"containers.bootc": "1", "bootc-testboot.builder": "ostree"});
    write_image(&workspace.path("../debian"), &[("a", b"a", 0o644)], labels, None);
    write_image(&workspace.path("../plain"), &[("a", b"a", 0o644)], json!({}), None);
    assert_snapshot!(workspace.failure("disk qcow2 --from oci:../debian:t --builder bootc"), @"
    error: bootc makes no disk of oci:../debian:t: it has no bootc, and installs itself by ostree
    hint: leave '--builder' out
    ");
    assert_snapshot!(workspace.failure("disk qcow2 --from oci:../plain:t"), @"
    error: image-builder makes no disk of oci:../plain:t: no host boots it, since it has no label containers.bootc
    hint: build on a bootc base, as 'cargo xtask list' shows them
    ");
    assert_snapshot!(workspace.failure("disk qcow2 --from oci:../plain:t --builder bootc"), @"
    error: bootc makes no disk of oci:../plain:t: no host boots it, since it has no label containers.bootc
    hint: build on a bootc base, as 'cargo xtask list' shows them
    ");
    write_image(&workspace.path("../bootc"), &[("a", b"a", 0o644)], json!({"containers.bootc": "1"}), None);
    workspace.write(
        "configs/builder/config.toml",
        "[[customizations.user]]\nname = 'me'\n[[customizations.group]]\nname = 'data'\n",
    );
    assert_snapshot!(workspace.failure("disk qcow2 --from oci:../bootc:t --builder bootc"), @"
    error: the builder 'bootc' cannot do what configs/builder asks for:
      the user `me`, from config.toml or '--ssh-key': it makes no users
      the group `data`: it makes no groups
    hint: remove it from configs/builder/config.toml, or name another builder with '--builder', where there is one
    ");
    workspace.write("configs/builder/config.toml", "");
    let key = new_key(&workspace, "key", "ed25519");
    let disk = format!("disk qcow2 --from oci:../bootc:t --builder bootc --ssh-key {}", key.display());
    assert!(workspace.failure(&disk).contains("\n  the user `devops`, from config.toml or '--ssh-key': "));
    let run = workspace.run("vm run target/a.raw --builder bootc");
    assert_eq!(run.code, Some(2), "{}", run.stderr);
}

/// The base's layers are in the registry alone, and no tag of the release is there before its disks.
#[test]
fn the_first_release_on_a_base_in_a_registry_has_disks() {
    let stage = Stage::new();
    let workspace = &stage.workspace;
    let registry = stage.with_base();
    workspace.write("Cargo.toml", &format!("{SETTINGS}formats = [\"qcow2\"]\ndisk-size = \"1 GiB\"\n"));
    stage.calls();
    let image = format!("{registry}/me/new");
    let dist = format!(
        "dist --distro debian-13 --base {registry}/base:t --push --sign-key ../a.key --image {image} \
         --app-version next --json"
    );
    let with_password = |arguments: &str| {
        let mut command = stage.command(arguments);
        Run::new(command.env("COSIGN_PASSWORD", "").output().unwrap())
    };
    with_password("sign --generate-key --key ../a.key");
    let run = with_password(&dist);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["packed"][0]["reference"], format!("{image}:debian-13-qcow2-v1"));
    assert_eq!(report["release"]["reference"], format!("{image}:release-debian-13-v1"));
    assert_eq!(report["latest"]["digest"], report["digest"]);
    assert_eq!(report["signed"], json!([report["packed"][0]["digest"], report["digest"]]));
    workspace.ok(&format!("verify {image}:debian-13-qcow2-v1 --key ../a.pub"));
    workspace.ok(&format!("verify {image}:debian-13-latest --key ../a.pub"));
    // A host of the disk follows what moves. In the storage there is nothing of it any more.
    let calls = fs::read_to_string(workspace.path("../podman/state/calls")).unwrap();
    assert!(calls.contains(&format!(" --progress verbose {image}:debian-13-latest\n")), "{calls}");
    let left = names(&workspace.path("../podman/state/images"));
    assert!(!left.iter().any(|name| name.contains("me_new")), "{left:?}");
}

/// `dist` makes an image anywhere; it makes no disks where its builder cannot run.
#[test]
fn dist_does_without_disks_that_only_root_makes() {
    let workspace = Workspace::with_standin();
    workspace.write("Cargo.toml", &format!("{SETTINGS}formats = [\"qcow2\"]\n"));
    fs::create_dir(workspace.path("../bin")).unwrap();
    for name in ["go", "git"] {
        symlink(program(name), workspace.path("../bin").join(name)).unwrap();
    }
    let dist = |arguments: &str| {
        let mut command = workspace.command(&format!("dist --base oci:../standin:t --json {arguments}"));
        command.env("PATH", workspace.path("../bin"));
        Run::new(command.output().unwrap())
    };
    let run = dist("");
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["disks"], json!([]));
    assert!(run.stderr.contains("warning: there are no disks: podman is missing"), "{}", run.stderr);
    assert!(run.stderr.contains("hint: run 'sudo apt-get install podman skopeo'"), "{}", run.stderr);
    // Who names a builder wants disks.
    assert!(dist("--builder bootc").failure().contains("podman is missing"));
}

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

#[test]
fn stand_ins_are_sound() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/standin/podman");
    judge("shellcheck", &format!("{0}/podman {0}/bootc", folder.display()));
}

/// Writes an image of one layer as tag `t`: files, labels, and what its layer claims to have in bytes
/// if that is not the truth.
fn write_image(dir: &Path, files: &[(&str, &[u8], u32)], labels: Value, claims: Option<u64>) {
    let layout = Layout::create(dir);
    let mut builder = tar::Builder::new(Vec::new());
    for folder in ["dev/", "mnt/", "output/", "proc/", "run/", "sys/", "tmp/", "var/lib/containers/storage/"]
    {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        builder.append_data(&mut header, folder, &[][..]).unwrap();
    }
    for (path, content, mode) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_mode(0o777);
    header.set_size(0);
    builder.append_link(&mut header, "bin", "usr/bin").unwrap();
    let tar = builder.into_inner().unwrap();
    let mut layer = layout.put(&tar, "application/vnd.oci.image.layer.v1.tar");
    if let Some(size) = claims {
        layer["size"] = json!(size);
    }
    let config = json!({
        "architecture": host_architecture(), "os": "linux", "config": {"Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": [sha256(&tar)]}, "history": [{"created_by": "a test"}],
    });
    let config = layout.put(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]});
    let mut manifest = layout.put(manifest.to_string().as_bytes(), MANIFEST);
    manifest["annotations"] = json!({REF_NAME: "t"});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest]});
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
}
