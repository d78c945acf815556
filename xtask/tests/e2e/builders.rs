//! Disks by builders that are containers. osbuild's are a stand-in's; the image that installs itself
//! is run by real podman.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
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
use crate::testing::{Registry, program};

pub(crate) const SETTINGS: &str =
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
pub(crate) struct Stage {
    pub(crate) workspace: Workspace,
    pub(crate) _registry: Registry,
    pub(crate) image: String,
}

impl Stage {
    pub(crate) fn new() -> Stage {
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
    pub(crate) fn with_base(&self) -> &str {
        let registry = self.image.split('/').next().unwrap();
        self.workspace.push_standin("t", &format!("{registry}/base:t"), "");
        registry
    }

    /// How the next builder ends.
    pub(crate) fn set_mode(&self, mode: &str) {
        self.workspace.write("../podman/state/mode", mode);
    }

    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = self.workspace.command(arguments);
        command.env("PATH", self.path());
        command
    }

    /// Programs, podman's stand-in first.
    pub(crate) fn path(&self) -> String {
        format!("{}:{}", self.workspace.path("../podman").display(), std::env::var("PATH").unwrap())
    }

    /// `disk` of the image.
    pub(crate) fn disk(&self, arguments: &str) -> Run {
        let command = format!("disk {arguments} --from {} --size 1GiB --output ../disks", self.image);
        Run::new(self.command(&command).output().unwrap())
    }

    pub(crate) fn ok(&self, arguments: &str) -> Run {
        let run = self.disk(arguments);
        assert_eq!(run.code, Some(0), "{arguments}\n{}{}", run.stdout, run.stderr);
        run
    }

    /// The error of one that has to fail, without what differs from run to run.
    pub(crate) fn failure(&self, arguments: &str) -> String {
        let error = self.disk(arguments).failure();
        let error = error.replace(self.workspace.path("../").to_str().unwrap(), "DIR/");
        error.lines().map(|line| without_container(line) + "\n").collect()
    }

    /// What podman was called for, since the last time.
    pub(crate) fn calls(&self) -> Vec<String> {
        let path = self.workspace.path("../podman/state/calls");
        let calls = fs::read_to_string(&path).unwrap_or_default();
        fs::write(path, "").unwrap();
        calls.lines().map(|call| call.split(' ').next().unwrap().to_owned()).collect()
    }

    /// Whether podman's storage has the image.
    pub(crate) fn has_image(&self) -> bool {
        self.workspace.path("../podman/state/images").join(self.image.replace('/', "_")).exists()
    }

    /// An ordinary user's way to root, whose files only `chown` can change.
    pub(crate) fn with_sudo(&self) {
        self.workspace.write("../podman/sudo", SUDO);
        judge("chmod", &format!("-R a+rwx {}", self.workspace.path("../podman").display()));
        let chown = self.workspace.path("../podman/chown");
        judge("install", &format!("-m4755 {} {}", program("chown").display(), chown.display()));
    }

    pub(crate) fn disk_as_nobody(&self, arguments: &str) -> Command {
        let disk = format!("disk {arguments} --from {} --size 1GiB --output target/disks", self.image);
        let mut command = as_nobody(&self.workspace, &disk);
        command.env("PATH", self.path());
        command
    }

    pub(crate) fn kept(&self) -> Vec<String> {
        names(&self.workspace.path("target/xtask/raw"))
    }
}

/// `disk` by a user who is not root.
pub(crate) fn as_nobody(workspace: &Workspace, arguments: &str) -> Command {
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

#[test]
fn stand_ins_are_sound() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/standin/podman");
    judge("shellcheck", &format!("{0}/podman {0}/bootc", folder.display()));
}

/// Writes an image of one layer as tag `t`: files, labels, and what its layer claims to have in bytes
/// if that is not the truth.
pub(crate) fn write_image(dir: &Path, files: &[(&str, &[u8], u32)], labels: Value, claims: Option<u64>) {
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
