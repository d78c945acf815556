//! What disks are made with: users and keys that work, formats that differ, and what is refused.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use insta::assert_snapshot;
use serde_json::Value;

use crate::harness::{Workspace, fingerprint, judge};
use crate::installed::made;
use crate::root;
use crate::root_of_disk::RootOfDisk;

const CONFIG: &str = "configs/builder/config.toml";

/// A new key, beside the workspace: the public one's file.
pub(crate) fn new_key(workspace: &Workspace, name: &str, kind: &str) -> PathBuf {
    let path = workspace.path(&format!("../{name}"));
    judge("ssh-keygen", &format!("-q -t {kind} -C me@here -f {} -N {}", path.display(), "passphrase"));
    path.with_extension("pub")
}

fn fingerprint_of(public_key: &Path) -> String {
    let line = judge("ssh-keygen", &format!("-l -f {}", public_key.display()));
    line.split_whitespace().nth(1).unwrap().to_owned()
}

fn disk(workspace: &Workspace, arguments: &str) -> Value {
    let image = made().workspace.path("../image");
    workspace.json(&format!("disk --from oci:{}:os --output ../disks {arguments}", image.display()))
}

#[test]
fn users_and_keys_of_the_config_are_on_the_disk() {
    let workspace = Workspace::new();
    let (given, own) = (new_key(&workspace, "given", "ed25519"), new_key(&workspace, "own", "rsa"));
    let hash = judge("openssl", "passwd -6 -salt saltsalt secret").trim().to_owned();
    let config = format!(
        r#"
[[customizations.group]]
name = "data"
gid = 2000

[[customizations.user]]
name = "devops"
groups = ["wheel", "data"]
key = "ssh-ed25519 AAAA... replace-me"

[[customizations.user]]
name = "second"
description = "the other"
uid = 1500
home = "/var/lib/second"
shell = "/bin/sh"
password = "{hash}"
key = "{}"

[customizations.kernel]
append = "console=ttyS0 quiet"

[[customizations.filesystem]]
mountpoint = "/"
minsize = "2 GiB"
"#,
        fs::read_to_string(&own).unwrap().trim()
    );
    workspace.write(CONFIG, &config);
    workspace.write(
        "Cargo.toml",
        "[workspace.metadata.testboot]\nimage = \"registry.example/os\"\ndistro = \"debian-13\"\ndisk-size = \"1 GiB\"\n",
    );
    let report = disk(&workspace, &format!("raw --ssh-key {}", given.display()));
    // The root has what was asked for, and the disk the other partitions besides.
    assert_eq!(report["outputs"][0]["virtual_size"], (2u64 << 30) + (67 << 20));
    let raw = workspace.path("../disks/os.raw");
    let root = RootOfDisk::new(&raw);

    for name in ["passwd", "shadow", "group", "gshadow"] {
        root::root().write(&format!("/tmp/accounts/etc/{name}"), "0600", &root.etc(name));
    }
    root::root().ok("grpck --read-only --root /tmp/accounts");
    root::root().ok("pwck --read-only --quiet --root /tmp/accounts");
    let (passwd, group) = (root.etc("passwd"), root.etc("group"));
    let line = |text: &str, name: &str| {
        let mut lines = text.lines().map(str::to_owned);
        lines.find(|line| line.starts_with(&format!("{name}:"))).unwrap_or_else(|| panic!("{name}: {text}"))
    };
    assert_eq!(line(&passwd, "devops"), "devops:x:1000:1000::/home/devops:/bin/bash");
    assert_eq!(line(&passwd, "second"), "second:x:1500:1500:the other:/var/lib/second:/bin/sh");
    assert_eq!(line(&group, "data"), "data:x:2000:devops");
    // What RPM distros call wheel.
    assert!(line(&group, "sudo").ends_with(":devops"), "{group}");
    let shadow = root.etc("shadow");
    assert!(line(&shadow, "devops").starts_with("devops:!:"), "{shadow}");
    assert!(line(&shadow, "second").starts_with(&format!("second:{hash}:")), "{shadow}");
    // The users and groups of the base are all still there, as they were.
    let base = root.debugfs(&format!("cat {}/usr/etc/passwd", root.deployment));
    assert!(!base.is_empty() && passwd.starts_with(&base), "{passwd}");
    for name in ["passwd-", "shadow-", "group-", "gshadow-"] {
        assert_eq!(root.etc(name), "", "{name} is left over");
    }

    // sshd takes only what belongs to the user, and what nobody else can write to.
    for (home, id) in [("home/devops", "1000"), ("lib/second", "1500")] {
        let at = |path: &str| root.stat(&format!("/ostree/deploy/default/var/{home}{path}"));
        let expected = |mode: &str| (id.to_owned(), id.to_owned(), mode.to_owned());
        assert_eq!(at(""), expected("0700"));
        assert_eq!(at("/.ssh"), expected("0700"));
        assert_eq!(at("/.ssh/authorized_keys"), expected("0600"));
        assert_eq!(at("/.profile").0, id, "it has what a home has");
    }
    let keys = |path: &str| {
        let file = workspace.path("../authorized_keys");
        let text = root.var(path);
        assert!(!text.contains("me@here"), "who made a key stays at home: {text}");
        fs::write(&file, text).unwrap();
        let lines = judge("ssh-keygen", &format!("-l -f {}", file.display()));
        lines.lines().map(|line| line.split_whitespace().nth(1).unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(keys("home/devops/.ssh/authorized_keys"), [fingerprint_of(&given)]);
    assert_eq!(keys("lib/second/.ssh/authorized_keys"), [fingerprint_of(&own), fingerprint_of(&given)]);

    // The image's own sudo takes the rule.
    let path = format!("{}/etc/sudoers.d/60-devops", root.deployment);
    assert_eq!(root.stat(&path), ("0".to_owned(), "0".to_owned(), "0440".to_owned()));
    let rule = root.etc("sudoers.d/60-devops");
    assert_eq!(rule, "devops ALL=(ALL:ALL) NOPASSWD: ALL\n");
    let checked =
        root::root().run("cat >/tmp/60-devops; visudo --check --strict --file=/tmp/60-devops", &rule);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));

    let arguments = root.kernel_arguments();
    assert!(arguments.contains(" console=ttyS0 quiet") && !arguments.contains("tty0"), "{arguments}");

    // The same elsewhere, with another comment in the key and other blanks in the config.
    let other = Workspace::new();
    let copy = other.path("../copy.pub");
    fs::write(&copy, fs::read_to_string(&given).unwrap().replace("me@here", "you@there")).unwrap();
    other.write(CONFIG, &format!("# A note.\n{}", config.replace(" = ", "=")));
    let again = disk(&other, &format!("raw --size 2115MiB --ssh-key {}", copy.display()));
    assert_eq!(again["outputs"][0]["sha256"], report["outputs"][0]["sha256"]);
}

#[test]
fn formats_that_are_made_with_the_same_share_a_raw() {
    let workspace = Workspace::new();
    let run = |formats: &str| disk(&workspace, &format!("{formats} --size 2GiB"));
    let kept = workspace.path("target/xtask/raw");
    let raws = || fingerprint(&kept);
    let report = run("ami qcow2 gce raw");
    assert_eq!(raws().len(), 3, "{:?}", raws());
    let formats: Vec<&str> = report["outputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|output| output["format"].as_str().unwrap())
        .collect();
    assert_eq!(formats, ["raw", "ami", "qcow2", "gce"]);

    let disks = workspace.path("../disks");
    let arguments = |name: &str| RootOfDisk::new(&disks.join(name)).kernel_arguments();
    let (plain, ami) = (arguments("os.raw"), arguments("os.ami.raw"));
    let usual = "console=tty0 console=ttyS0,115200n8";
    assert!(plain.contains(usual) && !plain.contains("nvme"), "{plain}");
    assert!(ami.contains(&format!("{usual} nvme_core.io_timeout=4294967295")), "{ami}");
    let mut tar =
        tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(disks.join("os.tar.gz")).unwrap()));
    let mut gce = Vec::new();
    tar.entries().unwrap().next().unwrap().unwrap().read_to_end(&mut gce).unwrap();
    fs::write(disks.join("gce.raw"), &gce).unwrap();
    let gce = arguments("gce.raw");
    assert!(gce.contains(" console=ttyS0,115200n8") && !gce.contains("tty0"), "{gce}");
    fs::remove_file(disks.join("gce.raw")).unwrap();

    // Nothing is made again, and another format of a raw that is kept needs none.
    let before = (raws(), fingerprint(&disks));
    assert_eq!(run("ami qcow2 gce raw"), report);
    assert_eq!((raws(), fingerprint(&disks)), before);
    run("vhd");
    assert_eq!(raws(), before.0);

    // Another config of one format is another disk of that format alone.
    workspace
        .write("configs/builder/ami.toml", "[customizations.kernel]\nappend = \"nvme_core.io_timeout=30\"\n");
    run("ami qcow2 gce raw");
    let after = fingerprint(&disks);
    for (path, state) in &before.1 {
        assert_eq!(after[path] == *state, !path.ends_with("os.ami.raw"), "{}", path.display());
    }
    assert_eq!(raws().len(), 3, "the one of the config before is gone: {:?}", raws());
}

/// Whoever pulls a published disk would have its owner's login.
#[test]
fn a_disk_with_a_key_is_not_published() {
    let workspace = Workspace::new();
    insta::assert_snapshot!(workspace.failure("dist --push --image 127.0.0.1:1/me/os --ssh-key me.pub"), @"
    error: a disk with a login of yours would be published
    hint: leave out '--ssh-key', or keep the disks here with '--no-pack'
    ");
}

#[test]
fn a_disk_without_a_key_says_so() {
    let workspace = Workspace::new();
    let image = made().workspace.path("../image");
    let disk = format!("disk raw --from oci:{}:os --size 2GiB --output ../disks", image.display());
    let run = workspace.run(&disk);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let said = "no login is baked in: keys come through cloud-init at first boot";
    assert!(run.stderr.contains(said), "{}", run.stderr);
    let run = workspace.run(&disk);
    assert!(run.stderr.contains(said), "also when nothing was made: {}", run.stderr);
    let key = new_key(&workspace, "key", "ecdsa");
    let run = workspace.run(&format!("{disk} --ssh-key {}", key.display()));
    assert!(run.stderr.contains("who can log in: devops (ssh key)"), "{}", run.stderr);
    let root = RootOfDisk::new(&workspace.path("../disks/os.raw"));
    assert!(root.etc("group").lines().any(|line| line.starts_with("sudo:") && line.ends_with(":devops")));
    assert!(root.var("home/devops/.ssh/authorized_keys").starts_with("ecdsa-sha2-nistp256 "));

    // What only the image can tell.
    workspace.write(CONFIG, "[[customizations.user]]\nname = \"me\"\ngroups = [\"docker\"]\n");
    let error = workspace.failure(&disk);
    assert!(error.contains("me is to be in group docker, which the image does not have"), "{error}");
}

#[test]
fn what_no_disk_can_be_made_with_is_told() {
    let workspace = Workspace::with_good_image();
    let fails = |options: &str| {
        workspace.failure(&format!("disk qcow2 --from oci:../out:t --builder ostree {options}"))
    };
    let usual = fs::read_to_string(workspace.path(CONFIG)).unwrap();

    let placeholder =
        "[[customizations.user]]\nname = \"devops\"\nkey = \"ssh-ed25519 AAAA... replace-me\"\n";
    workspace.write(CONFIG, placeholder);
    assert_snapshot!(fails(""), @"
    error: what disks are told has a problem
      configs/builder/config.toml:3: the ssh key is a placeholder
        hint: write your public key there, or give it with '--ssh-key ~/.ssh/id_ed25519.pub'
    ");
    workspace.write(
        CONFIG,
        "[[customizations.user]]\nname = \"Dev Ops\"\npassword = \"secret\"\n\n[[customizations.filesystem]]\nmountpoint = \"/var\"\nminsize = \"lots\"\n\n[customizations.kernel]\nappend = \"root=/dev/sda 'quiet'\"\n",
    );
    workspace.write("configs/builder/gcp.toml", "");
    assert_snapshot!(fails(""), @r#"
    error: what disks are told has 7 problems
      configs/builder/config.toml:2: `Dev Ops` is no name of a user
        hint: use lower-case letters, digits, '_' and '-', a letter or '_' first, at most 31
      configs/builder/config.toml:3: a password is written as its hash: whoever has the repository or a disk could read it
        hint: run 'openssl passwd -6', and write what it prints
      configs/builder/config.toml:6: bootc hosts cannot have `/var` as a file system of its own: ostree keeps it beside the deployments, and mounts it itself
        hint: there can be '/', '/boot', and folders below /var, such as '/var/lib/data'
      configs/builder/config.toml:7: `lots` is not a size
        hint: write it as "20 GiB"
      configs/builder/config.toml:10: `root=/dev/sda` is the boot loader's own: the disk would not boot
        hint: remove it: it is set when the disk is made
      configs/builder/config.toml:10: `'quiet'` has a character that boot loaders treat differently
        hint: use printable ASCII without quotes, `\`, `$` and backticks
      configs/builder/gcp.toml:1: `gcp` is not a disk format: there are raw, ami, qcow2, vmdk, vhd, gce, ova, iso; did you mean `gce`?
        hint: rename the file, or remove it
    "#);
    fs::remove_file(workspace.path("configs/builder/gcp.toml")).unwrap();

    workspace.write(
        CONFIG,
        "[customizations.installer.kickstart]\ncontents = \"text\"\n[[customizations.filesystem]]\nmountpoint = \"/var/lib/data\"\nminsize = \"50 GiB\"\n",
    );
    assert_snapshot!(fails(""), @"
    error: the builder 'ostree' cannot do what configs/builder asks for:
      [customizations.installer]: what it makes is no installer
      a file system for /var/lib/data: it makes one, for /, which a host grows
    hint: remove it from configs/builder/config.toml, or name another builder with '--builder', where there is one
    ");
    workspace.write(CONFIG, "[[customizations.filesystem]]\nmountpoint = \"/\"\nminsize = \"20 GiB\"\n");
    assert_snapshot!(fails("--size 10GiB"), @r#"
    error: a disk of 10 GiB is too small for what configs/builder/config.toml wants
    hint: leave '--size' out, or say '--size "20547 MiB"'
    "#);

    workspace.write(CONFIG, &usual);
    let key = new_key(&workspace, "key", "ed25519");
    let private = key.with_extension("");
    let error = fails(&format!("--ssh-key {}", private.display())).replace(private.to_str().unwrap(), "KEY");
    assert_snapshot!(error, @"
    error: reading the ssh key KEY: it is a private key, which must never be in an image or on a disk
    hint: give the file that ends in .pub
    ");
    assert_snapshot!(fails("--ssh-key ../gone.pub"), @"
    error: reading the ssh key ../gone.pub: No such file or directory (os error 2)
    hint: '--ssh-key' names the file of a public key
    ");
    let run = workspace.run("dist --no-disks --ssh-key ../key.pub");
    assert_eq!(run.code, Some(2), "{}", run.stderr);
    fs::write(workspace.path("../os.raw"), "x").unwrap();
    assert_snapshot!(workspace.failure("disk qcow2 --from ../os.raw --ssh-key ../key.pub"), @"
    error: '--ssh-key' adds a key while a disk is made of an image, and a raw disk is made
    hint: leave it out, or name an image with '--from'
    ");
    assert_snapshot!(workspace.failure("disk qcow2 --from ../os.raw --size 5GiB"), @"
    error: '--size' is for disks that are made of an image, and a raw disk has its size
    hint: leave it out, or name an image with '--from'
    ");
    fs::remove_file(workspace.path(CONFIG)).unwrap();
    assert_snapshot!(fails(""), @"
    error: what disks are told has a problem
      configs/builder/config.toml:1: it is not there
        hint: write it, if only with a comment: it says what disks are made with
    ");
    assert!(!workspace.path("target/dist/disk").exists());
}
