//! Disks of images: what is on them, and that they are the same each time.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tar::EntryType;

use crate::harness::{Layout, Run, Workspace, copy, fingerprint, judge, sha256, skopeo_push};
use crate::host::tag_manifest;
use crate::interrupts::{interrupt, start, wait_until};
use crate::root;
use crate::root_of_disk::RootOfDisk;
use crate::testing::{Registry, program};

/// An image with the apps, on the base of this repository's recipe, and disks of it.
pub(crate) struct Made {
    pub(crate) workspace: Workspace,
    report: Value,
}

const DISKS: &str = "disk raw qcow2 --from oci:../image:os --size 2GiB --output ../disks";

/// Made once for all tests. What it is made in is kept, as the base is.
pub(crate) fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| {
        let base = root::base();
        let workspace = Workspace::lasting(&root::kept_dir("debian-disk"));
        // Machines that boot from it have to answer for an app as `new-app` writes it, too.
        workspace.ok("new-app shop");
        let base = format!("oci:{}:{}", base.layout.dir.display(), base.tag);
        workspace.ok(&format!("build --base {base} --to oci:../image:os"));
        // One that another test has killed must not be taken for a good one.
        let kept = workspace.path("target/xtask/raw");
        if kept.exists() {
            fs::remove_dir_all(kept).unwrap();
        }
        let report = workspace.json(DISKS);
        Made { workspace, report }
    })
}

impl Made {
    pub(crate) fn path(&self, format: &str) -> PathBuf {
        let path = self.workspace.path(&format!("../disks/os.{format}"));
        assert!(path.is_file(), "{}", path.display());
        path
    }
}

#[test]
fn a_disk_holds_the_image_and_two_boot_loaders() {
    let made = made();
    let raw = made.path("raw");
    let size = fs::metadata(&raw).unwrap();
    assert_eq!(size.len(), 2 << 30);
    assert!(size.blocks() * 512 < 1 << 30, "it is sparse: {} blocks", size.blocks());

    let table: Value = serde_json::from_str(&judge("sfdisk", &format!("--json {}", raw.display()))).unwrap();
    let table = &table["partitiontable"];
    assert_eq!(table["label"], "gpt");
    let partitions: Vec<_> = table["partitions"].as_array().unwrap().iter().collect();
    let shape: Vec<_> = partitions
        .iter()
        .map(|partition| {
            let number = |key: &str| partition[key].as_u64().unwrap();
            (partition["name"].as_str().unwrap(), number("start"), number("size"))
        })
        .collect();
    assert_eq!(shape, [("bios", 2048, 2048), ("esp", 4096, 131_072), ("root", 135_168, 4_057_088)]);
    judge("sfdisk", &format!("--verify {}", raw.display()));

    // The root file system, with the image's deployment in it.
    let root = RootOfDisk::new(&raw);
    let debugfs = |request: &str| root.debugfs(request);
    let deployment = &root.deployment;
    let app = debugfs(&format!("stat {deployment}/usr/bin/hello"));
    assert!(app.contains("Type: regular") && app.contains("Mode:  0755"), "{app}");
    assert!(debugfs(&format!("stat {deployment}")).contains("Flags: 0x80010"), "it is immutable");
    let unit = debugfs(&format!("cat {deployment}/usr/lib/systemd/system/hello.service"));
    let source = made.workspace.path("systemd/hello.service");
    assert_eq!(unit, fs::read_to_string(source).unwrap());
    assert!(debugfs(&format!("ls {deployment}/etc")).contains("machine-id"), "etc is there");
    // So that an upgrade downloads only what is new.
    let refs = debugfs("ls -p /ostree/repo/refs/heads/testboot/layer");
    for layer in made.workspace.layout("../image").manifest("os")["layers"].as_array().unwrap() {
        let digest = layer["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        assert!(refs.contains(digest), "{digest} in {refs}");
    }
    let entry = debugfs("cat /boot/loader/syslinux.cfg");
    for argument in ["root=UUID=", " rw ", "console=tty0 console=ttyS0,115200n8", "ostree=/ostree/boot."] {
        assert!(entry.contains(argument), "{argument} in {entry}");
    }

    // UEFI's boot loader, and a BIOS's.
    let esp = judge("mdir", &format!("-b -i {}@@2M ::/EFI/BOOT", raw.display()));
    assert!(esp.contains("/EFI/BOOT/BOOTX64.EFI"), "{esp}");
    let mut sectors = [0; 512];
    let file = File::open(&raw).unwrap();
    file.read_exact_at(&mut sectors, 0).unwrap();
    assert_eq!(sectors[0x5c..0x64], 2048u64.to_le_bytes(), "where core.img is");
    assert_eq!(sectors[510..], [0x55, 0xaa]);
    assert_eq!(sectors[446 + 4], 0xee, "the protective partition is still there");
    file.read_exact_at(&mut sectors, 2048 * 512).unwrap();
    assert_eq!(sectors[500..508], 2049u64.to_le_bytes(), "where the rest of core.img is");

    judge("qemu-img", &format!("compare -f raw -F qcow2 {} {}", raw.display(), made.path("qcow2").display()));
}

#[test]
fn the_same_image_is_the_same_disk() {
    let made = made();
    let digest = |report: &Value, number: usize| report["outputs"][number]["sha256"].clone();
    let target = || fingerprint(&made.workspace.path("target/xtask"));
    let (before, disks) = (target(), fingerprint(&made.workspace.path("../disks")));
    assert_eq!(made.workspace.json(DISKS), made.report);
    assert_eq!((target(), fingerprint(&made.workspace.path("../disks"))), (before, disks));

    // In another place, from nothing.
    let other = Workspace::new();
    let image = made.workspace.path("../image");
    let disk = |options: &str| {
        other.json(&format!("disk raw --from oci:{}:os --output ../disks {options}", image.display()))
    };
    assert_eq!(digest(&disk("--size 2GiB"), 0), digest(&made.report, 0));
    // Every option is another disk.
    let larger = disk("--size 3GiB");
    assert_eq!(larger["outputs"][0]["virtual_size"], 3u64 << 30);
    assert_ne!(digest(&larger, 0), digest(&made.report, 0));
    let kept = fs::read_dir(other.path("target/xtask/raw")).unwrap().count();
    assert_eq!(kept, 2, "the disk that was made last, and the folder to mount at");
}

/// In a namespace of their own, as the owner of a range of ids.
#[test]
fn an_ordinary_user_makes_the_same_disk() {
    let workspace = Workspace::new();
    let path = |name: &str| workspace.path(&format!("../{name}"));
    copy(&made().workspace.path("../image"), &path("image"));
    add_layer(&workspace.layout("../image"), "more", "usr/ usr/bin/ usr/bin/pong+");
    let disk = "disk raw --from oci:../image:more --size 2GiB --output ../disks --json";
    let expected = workspace.json(disk.strip_suffix(" --json").unwrap());
    fs::remove_dir_all(workspace.path("target")).unwrap();
    fs::remove_dir_all(path("disks")).unwrap();

    fs::create_dir(path("home")).unwrap();
    fs::write(path("ids"), "nobody:500000:65536\n").unwrap();
    fs::copy(env!("CARGO_BIN_EXE_xtask"), path("xtask")).unwrap();
    let mut command = Command::new(path("xtask"));
    // Root becomes somebody who has a range; whoever else runs this has one already.
    if rustix::process::geteuid().is_root() {
        judge("chown", &format!("--recursive --no-dereference 65534:65534 {}", path("").display()));
        let as_user = "mount --bind ../ids /etc/subuid && mount --bind ../ids /etc/subgid && \
                       exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\"";
        command = Command::new(program("unshare"));
        command.args(["-m", "sh", "-c", as_user, "sh"]).arg(path("xtask"));
    }
    workspace.prepare(command.args(disk.split(' ')));
    let run = Run::new(command.env("HOME", path("home")).output().unwrap());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(serde_json::from_str::<Value>(&run.stdout).unwrap(), expected);
}

/// `cap_net_raw=ep`. Source: linux/capability.h, `vfs_cap_data`, of VFS_CAP_REVISION_2 with its bit "effective".
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Adds a layer to the image, under a tag of its own: a word is `folder/`, `file=content`, `link->target`,
/// `hard=>target` or `program+`, a file with a capability, and one that ends in nothing of these an empty file.
fn add_layer(layout: &Layout, tag: &str, words: &str) {
    let mut builder = tar::Builder::new(Vec::new());
    for word in words.split_whitespace() {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        let (path, kind, content) = if let Some((path, target)) = word.split_once("=>") {
            header.set_link_name(target).unwrap();
            (path, EntryType::Link, "")
        } else if let Some((path, target)) = word.split_once("->") {
            header.set_link_name(target).unwrap();
            header.set_mode(0o777);
            (path, EntryType::Symlink, "")
        } else if let Some((path, content)) = word.split_once('=') {
            (path, EntryType::Regular, content)
        } else if let Some(path) = word.strip_suffix('+') {
            builder.append_pax_extensions([("SCHILY.xattr.security.capability", CAPABILITY)]).unwrap();
            (path, EntryType::Regular, "")
        } else if word.ends_with('/') {
            (word, EntryType::Directory, "")
        } else {
            (word, EntryType::Regular, "")
        };
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    let tar = builder.into_inner().unwrap();
    let mut manifest = layout.manifest("os");
    let mut config = layout.json(&manifest["config"]["digest"]);
    config["rootfs"]["diff_ids"].as_array_mut().unwrap().push(sha256(&tar).into());
    manifest["config"] =
        layout.put(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
    let layer = layout.put(&tar, "application/vnd.oci.image.layer.v1.tar");
    manifest["layers"].as_array_mut().unwrap().push(layer);
    tag_manifest(layout, tag, &manifest);
}

#[test]
fn layers_are_taken_together_as_on_a_host() {
    let workspace = Workspace::new();
    copy(&made().workspace.path("../image"), &workspace.path("../image"));
    let layout = workspace.layout("../image");
    let words = "usr/ usr/bin/ usr/bin/.wh.hello usr/bin/to->again usr/lib/ usr/lib/tmpfiles.d=file
        usr/share/ usr/share/nginx/ usr/share/nginx/.wh..wh..opq usr/share/nginx/new=1 etc/ etc/again=22
        etc/same=>etc/again etc/ssl/ etc/ssl/private/ usr/bin/pong+ work->/etc";
    add_layer(&layout, "more", words);
    add_layer(&layout, "empty", "");
    let disk = |tag: &str| format!("disk raw --from oci:../image:{tag} --size 2GiB --output ../disks");
    let run = workspace.run(&disk("more"));
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let number = layout.manifest("more")["layers"].as_array().unwrap().len() - 1;
    let warning = format!("layer {number} has /etc/ssl/private with another mode or owner");
    assert!(run.stderr.contains(&warning), "{}", run.stderr);

    let root = RootOfDisk::new(&workspace.path("../disks/more.raw"));
    let deployment = &root.deployment;
    let listing = |path: &str| root.debugfs(&format!("ls -p {deployment}/{path}"));
    assert!(!listing("usr/bin").contains("/hello/"), "it was taken away");
    let nginx = listing("usr/share/nginx");
    let names: Vec<&str> = nginx.lines().filter_map(|line| line.split('/').nth(5)).collect();
    assert_eq!(names, [".", "..", "new"]);
    let cat = |path: &str| root.debugfs(&format!("cat {deployment}/{path}"));
    assert_eq!((cat("usr/lib/tmpfiles.d").as_str(), cat("etc/same").as_str()), ("file", "22"));
    assert!(root.debugfs(&format!("stat {deployment}/usr/bin/to")).contains("Fast link dest: \"again\""));
    assert!(root.debugfs(&format!("stat {deployment}/work")).contains("Fast link dest: \"/etc\""));
    let attributes = root.debugfs(&format!("ea_list {deployment}/usr/bin/pong"));
    assert!(attributes.contains("security.capability (20) = 01 00 00 02 00 20"), "{attributes}");
    check_commits(&root, &layout, "more");
    workspace.ok(&disk("empty"));

    // What ostree would refuse is refused before it begins.
    for (tag, words, expected) in [
        (
            "link",
            "usr/ usr/bin/ usr/bin/dash2=>usr/bin/dash",
            "a hard link to `usr/bin/dash`, which is no file",
        ),
        ("twice", "usr/ usr/x=1 usr/x/", "has `usr/x` twice"),
        ("hidden", "usr/ usr/.a=1 usr/.wh..a", "has `usr/.a` and takes it away"),
    ] {
        add_layer(&layout, tag, words);
        let error = workspace.failure(&disk(tag));
        assert!(error.contains(expected) && error.contains("hint: mend what makes that layer"), "{error}");
        assert!(!workspace.path(&format!("../disks/{tag}.raw")).exists());
    }
}

/// Sees to it that each layer was committed as ostree commits its tar, as hosts do.
fn check_commits(root: &RootOfDisk, layout: &Layout, tag: &str) {
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().display();
    judge("ostree", &format!("init --mode=archive --repo={repository}"));
    for layer in layout.manifest(tag)["layers"].as_array().unwrap() {
        let digest = layer["digest"].as_str().unwrap();
        let branch = format!("testboot/layer/{}", digest.strip_prefix("sha256:").unwrap());
        let tar = layout.blob_path(digest);
        let expected = judge(
            "ostree",
            &format!(
                "commit --repo={repository} --branch={branch} --tree=tar={} --tar-autocreate-parents \
                 --tar-pathname-filter=^etc(/|$),usr/etc\\1 --timestamp=@1",
                tar.display()
            ),
        );
        assert_eq!(root.debugfs(&format!("cat /ostree/repo/refs/heads/{branch}")), expected, "{digest}");
    }
}

#[test]
fn an_image_in_a_registry_is_fetched() {
    let made = made();
    let workspace = Workspace::new();
    let registry = Registry::docker();
    let image = format!("{}/me/os:v1", registry.address());
    skopeo_push(&format!("oci:{}:os", made.workspace.path("../image").display()), &image, "");
    // Two raws, since gce has other arguments of the kernel; the layers are fetched for the first.
    let disk = || workspace.json(&format!("disk raw gce --from {image} --size 2GiB --output ../disks"));
    let report = disk();
    assert_eq!(report["outputs"][0]["path"], "../disks/os-v1.raw");
    assert_eq!(report["outputs"][0]["sha256"], made.report["outputs"][0]["sha256"]);
    let before = fingerprint(&workspace.path("target"));
    assert_eq!(disk(), report);
    assert_eq!(fingerprint(&workspace.path("target")), before);
}

#[test]
fn dist_makes_disks_once() {
    let made = made();
    let workspace = Workspace::new();
    workspace.ok("new-app shop");
    let settings = "[workspace.metadata.testboot]\nimage = \"registry.example/os\"\ndistro = \"debian-13\"\n";
    workspace
        .write("Cargo.toml", &format!("{settings}formats = [\"qcow2\", \"raw\"]\ndisk-size = \"2 GiB\"\n"));
    let base = root::base();
    let dist = format!("dist --base oci:{}:{}", base.layout.dir.display(), base.tag);
    let report = workspace.json(&dist);
    let disks = &report["disks"];
    assert_eq!(disks.as_array().unwrap().len(), 2);
    // Images of the same layers have the same config, whatever they are called.
    assert_eq!(disks[0]["sha256"], made.report["outputs"][0]["sha256"]);
    let dist_json: Value =
        serde_json::from_slice(&fs::read(workspace.path("target/dist/dist.json")).unwrap()).unwrap();
    assert_eq!(dist_json["disks"], *disks);
    let before = fingerprint(&workspace.path("target"));
    assert_eq!(workspace.json(&dist)["disks"], *disks);
    assert_eq!(fingerprint(&workspace.path("target")), before);

    // A disk that was changed is somebody's own, until it is given up; no other is made again.
    let qcow2 = workspace.path("target/dist/disk/debian-13-dev.qcow2");
    fs::write(&qcow2, "changed").unwrap();
    let error = workspace.failure(&dist);
    let refusal =
        "error: not written by this command, or changed since: target/dist/disk/debian-13-dev.qcow2\n";
    assert!(error.starts_with(refusal), "{error}");
    assert_eq!(fs::read(&qcow2).unwrap(), b"changed");
    assert_eq!(workspace.json(&format!("{dist} --force"))["disks"], *disks);
    let after = fingerprint(&workspace.path("target/dist/disk"));
    assert_ne!(after[&qcow2], before[&qcow2]);
    let raw = workspace.path("target/dist/disk/debian-13-dev.raw");
    assert_eq!(after[&raw], before[&raw]);

    // With a key, they are other disks, of the same image.
    let key = workspace.path("../key");
    judge("ssh-keygen", &format!("-q -t ed25519 -N passphrase -f {}", key.display()));
    let run = workspace.run(&format!("{dist} --ssh-key {}.pub --json", key.display()));
    assert!(run.stderr.contains("who can log in: devops (ssh key)"), "{}", run.stderr);
    let with_key: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(with_key["digest"], report["digest"]);
    assert_ne!(with_key["disks"][0]["sha256"], disks[0]["sha256"]);
}

#[test]
fn scripts_are_sound() {
    let workspace = Workspace::new();
    for script in ["configs/builder/ostree.sh", "base/debian/13/rootfs/usr/sbin/testboot"] {
        judge("shellcheck", workspace.path(script).to_str().unwrap());
    }
    judge("shellcheck", &format!("--shell=sh {}/src/vm/checks.sh", env!("CARGO_MANIFEST_DIR")));
}

#[test]
fn what_cannot_be_a_disk_is_told() {
    let workspace = Workspace::with_good_image();
    let error = workspace.failure("disk qcow2 --from oci:../out:t --builder ostree");
    insta::assert_snapshot!(error, @"
    error: making a disk of t: the image cannot install itself: it has no cat, cp, debugfs, find, grub-mkimage, ln, mcopy, mformat, mkdir, mke2fs, mmd, mv, ostree, sfdisk, sh, touch
    hint: an image of debian-13 can; '--builder' names another way, where there is one
    ");
    let dist = workspace.path("target/dist/disk");
    assert!(!dist.exists());
    let layout = workspace.layout("../out");
    let layer = layout.manifest("t")["layers"][0]["digest"].as_str().unwrap().to_owned();
    let blob = File::options().write(true).open(layout.blob_path(&layer)).unwrap();
    blob.set_len(blob.metadata().unwrap().len() / 2).unwrap();
    let error = workspace.failure("disk qcow2 --from oci:../out:t --builder ostree");
    insta::assert_snapshot!(error, @"
    error: the layer sha256:HEX is damaged
    hint: remove the layout, and make the image again
    ");
    fs::remove_file(layout.blob_path(&layer)).unwrap();
    let error = workspace.failure("disk qcow2 --from oci:../out:t --builder ostree");
    insta::assert_snapshot!(error, @"
    error: oci:../out:t lacks layers, which are in another place
    hint: make the image with '--full'
    ");

    let settings = "[workspace.metadata.testboot]\nimage = \"registry.example/os\"\ndistro = \"debian-13\"\n";
    workspace.write("Cargo.toml", &format!("{settings}formats = [\"qcow\"]\n"));
    assert!(workspace.failure("dist --base oci:../standin:t").contains("`qcow` is not a disk format"));
    workspace.write("Cargo.toml", settings);
}

#[test]
fn a_run_that_is_ended_leaves_no_mount() {
    let made = made();
    let workspace = Workspace::new();
    let image = made.workspace.path("../image");
    let command = || {
        workspace
            .command(&format!("disk raw --from oci:{}:os --size 2GiB --output ../disks", image.display()))
    };
    let kept = workspace.path("target/xtask/raw");
    let unfinished = kept.join(".unfinished/disk.raw");
    // More than what is the same on every disk.
    let has_written = || fs::metadata(&unfinished).is_ok_and(|disk| disk.blocks() * 512 > 64 << 20);
    // They are in a namespace of their own, which is there as long as its processes are.
    let is_mounted = || {
        let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path().join("mountinfo"));
        let mut mounts = processes.filter_map(|path| fs::read_to_string(path).ok());
        mounts.any(|mounts| mounts.contains(kept.to_str().unwrap()))
    };
    let check = || {
        wait_until("the end of its mounts", || !is_mounted());
        assert_eq!(fs::read_dir(kept.join(".root")).unwrap().count(), 0);
        assert!(!workspace.path("../disks").join("os.raw").exists());
    };
    // While the image goes in, and while the file system is made.
    for moment in [&is_mounted as &dyn Fn() -> bool, &has_written] {
        let child = start(command());
        wait_until("its work", moment);
        interrupt(child, Signal::INT);
        check();
        assert!(!kept.join(".unfinished").exists());
    }
    for moment in [&has_written as &dyn Fn() -> bool, &is_mounted] {
        let mut child = command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("its work", moment);
        kill(&mut child);
        // What it had started ends with it.
        check();
        assert_eq!(fs::metadata(&unfinished).map(|disk| disk.len()).ok(), Some(2 << 30));
    }
    let made_now =
        workspace.json(&format!("disk raw --from oci:{}:os --size 2GiB --output ../disks", image.display()));
    assert_eq!(made_now["outputs"][0]["sha256"], made.report["outputs"][0]["sha256"]);
}

fn kill(child: &mut Child) {
    kill_process(Pid::from_child(child), Signal::KILL).unwrap();
    child.wait().unwrap();
}
