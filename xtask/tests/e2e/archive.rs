//! Releases as files: skopeo reads them, and a registry gets back all of what was exported.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use insta::assert_snapshot;

use crate::harness::{Run, Workspace, judge};
use crate::interrupts::{start, wait_until};
use crate::testing::{Fault, FaultProxy, Registry, program};

/// A workspace and a registry with the release `debian-13-v1`, a disk of it, and a signature.
fn released() -> (Workspace, Registry, String) {
    let workspace = Workspace::with_standin();
    let registry = Registry::docker();
    let image = format!("{}/me/os", registry.address());
    // The base's layers are in the registry, and nowhere else.
    let base = format!("{}/base:t", registry.address());
    workspace.push_standin("t", &base, "");
    workspace.ok(&format!(
        "build --distro debian-13 --base {base} --to oci:../out --push --image {image} --app-version v1"
    ));
    fs::write(workspace.path("../os.raw"), vec![7; 3 << 20]).unwrap();
    workspace.ok("disk qcow2 --from ../os.raw --name debian-13-v1 --output ../disks");
    workspace.ok(&format!(
        "pack ../disks/debian-13-v1.qcow2 --from {image}:debian-13-v1 --to {image}:debian-13-qcow2-v1"
    ));
    (workspace, registry, image)
}

fn digest(reference: &str) -> String {
    judge("crane", &format!("digest {reference}")).trim_end().to_owned()
}

#[test]
fn a_release_goes_through_a_file() {
    let (workspace, _registry, image) = released();
    // What cosign calls a signature: all that matters here is its tag.
    let signature = format!("{}.sig", digest(&format!("{image}:debian-13-v1")).replace(':', "-"));
    judge("crane", &format!("tag {image}:debian-13-qcow2-v1 {signature}"));
    let export = format!("export {image}:debian-13-v1 -o ../release.tar");
    let line = workspace.ok(&export);
    let archive = workspace.path("../release.tar");
    let sha256 = crate::harness::sha256(&fs::read(&archive).unwrap());
    assert_eq!(format!("sha256:{}", line.split("  ").next().unwrap()), sha256);
    // A second one has the same bytes, also out of a layout whose base is elsewhere.
    assert_snapshot!(workspace.failure(&export), @"
    error: ../release.tar is there
    hint: name another file with '-o FILE', or add '--force' to replace it
    ");
    let again = workspace.json(&format!("{export} --force"));
    let exported: Vec<&str> =
        again["images"].as_array().unwrap().iter().map(|image| image["tag"].as_str().unwrap()).collect();
    for tag in ["debian-13-v1", "debian-13-qcow2-v1", &signature] {
        assert!(exported.contains(&tag), "{exported:?}");
    }
    assert_eq!(again["sha256"], line.split("  ").next().unwrap());
    workspace.ok("export oci:../out:debian-13-v1 -o ../alone.tar");

    // Another program finds whole images in it.
    for (archive, tag) in
        [("release", "debian-13-v1"), ("release", "debian-13-qcow2-v1"), ("alone", "debian-13-v1")]
    {
        let from = format!("oci-archive:{}:{tag}", workspace.path(&format!("../{archive}.tar")).display());
        let to = workspace.path(&format!("../copy-{archive}-{tag}"));
        judge(
            "skopeo",
            &format!("--insecure-policy copy --quiet --preserve-digests {from} dir:{}", to.display()),
        );
    }

    let other = Registry::docker();
    let target = format!("{}/their/os", other.address());
    let report = workspace.json(&format!("import ../release.tar --to {target}"));
    assert_eq!(report["latest"], format!("{target}:debian-13-latest"));
    for tag in ["debian-13-v1", "debian-13-qcow2-v1", &signature] {
        assert_eq!(digest(&format!("{target}:{tag}")), digest(&format!("{image}:{tag}")));
    }
    judge("crane", &format!("validate --remote {target}:debian-13-v1"));
    // What is there is not sent again, and a version stays what it is.
    workspace.ok(&format!("import ../release.tar --to {target}"));
    workspace.ok(&format!(
        "build --base oci:../standin:t --to {target}:debian-13-v1 --app-version v1 --compression zstd"
    ));
    let error = workspace.failure(&format!("import ../release.tar --to {target}"));
    assert!(error.contains("debian-13-v1 is released, as sha256:"), "{error}");
}

#[test]
fn an_archive_that_is_not_whole_leaves_nothing() {
    let (workspace, registry, image) = released();
    workspace.ok(&format!("export {image}:debian-13-v1 -o ../release.tar"));
    let whole = fs::read(workspace.path("../release.tar")).unwrap();
    let target = format!("{}/their/os", registry.address());
    let import = |bytes: &[u8]| {
        fs::write(workspace.path("../bad.tar"), bytes).unwrap();
        workspace.failure(&format!("import ../bad.tar --to {target}"))
    };
    assert!(import(&whole[..whole.len() / 2]).contains("ends within"));
    let mut flipped = whole.clone();
    let middle = whole.len() / 2;
    flipped[middle] ^= 1;
    assert_snapshot!(import(&flipped), @"
    error: reading ../bad.tar: a blob in it is not what its name says: sha256:HEX was promised, but what came is sha256:HEX
    hint: it is damaged or hostile, and nothing of it was used: export it again, and compare its SHA-256
    ");
    // Nor is anything of it shown, which a terminal could obey.
    assert_snapshot!(import(&[b"\x1b[31m<html>".as_slice(), &[b'x'; 1024]].concat()), @"
    error: reading ../bad.tar: it is no tar, or it is cut off
    hint: it is damaged or hostile, and nothing of it was used: export it again, and compare its SHA-256
    ");
    let all = judge("crane", &format!("catalog {}", registry.address()));
    assert!(!all.contains("their/os"), "{all}");
}

#[test]
fn what_other_programs_have_written_is_imported() {
    let workspace = Workspace::with_standin();
    let registry = Registry::docker();
    let standin = workspace.path("../standin");
    let archive = workspace.path("../skopeo.tar");
    let (from, to) = (format!("oci:{}:t", standin.display()), format!("oci-archive:{}:t", archive.display()));
    judge("skopeo", &format!("--insecure-policy copy --quiet {from} {to}"));
    let plain = workspace.path("../plain.tar");
    judge("tar", &format!("-C {} -cf {} .", standin.display(), plain.display()));
    for (file, repository) in [("skopeo", "a/os"), ("plain", "b/os")] {
        let target = format!("{}/{repository}", registry.address());
        workspace.ok(&format!("import ../{file}.tar --to {target}"));
        judge("crane", &format!("validate --remote {target}:t"));
    }
}

#[test]
fn a_bases_day_stays() {
    let workspace = Workspace::with_standin();
    let registry = Registry::docker();
    let tag = "base-debian-13-20260104";
    let at = |repository: &str, tag: &str| format!("{}/{repository}:{tag}", registry.address());
    for (from, to) in
        [("t", at("me/os", tag)), ("plain", at("their/os", tag)), ("t", at("me/os", "base-debian-13"))]
    {
        workspace.push_standin(from, &to, "");
    }
    workspace.ok(&format!("export {} -o ../base.tar", at("me/os", tag)));
    let there = digest(&at("their/os", tag));
    let error = workspace.failure(&format!("import ../base.tar --to {}/their/os", registry.address()));
    assert!(error.contains("base-debian-13-20260104 is released, as sha256:"), "{error}");
    assert_eq!(digest(&at("their/os", tag)), there);
    // The tag that follows the last one moves.
    workspace.push_standin("plain", &at("their/os", "base-debian-13"), "");
    workspace.ok(&format!("export {} -o ../moves.tar", at("me/os", "base-debian-13")));
    workspace.ok(&format!("import ../moves.tar --to {}/their/os", registry.address()));
    assert_eq!(digest(&at("their/os", "base-debian-13")), digest(&at("me/os", "base-debian-13")));
}

#[test]
fn what_cannot_be_written_leaves_the_file_that_was_there() {
    let workspace = Workspace::with_standin();
    fs::create_dir(workspace.path("../full")).unwrap();
    // In a mount namespace of its own, the small disk is gone when the shell ends.
    let script = format!(
        "set -eu
        mount -t tmpfs -o size=4k tmpfs ../full
        echo old > ../full/x.tar
        code=0
        {} export oci:../standin:t -o ../full/x.tar --force || code=$?
        test \"$(ls -A ../full) $(cat ../full/x.tar)\" = 'x.tar old'
        exit $code",
        env!("CARGO_BIN_EXE_xtask")
    );
    let mut unshare = Command::new(program("unshare"));
    unshare.arg(if rustix::process::geteuid().is_root() { "-m" } else { "-rm" });
    workspace.prepare(unshare.args(["sh", "-c", &script]));
    assert_snapshot!(Run::new(unshare.output().unwrap()).failure(), @"
    error: exporting oci:../standin:t into ../full/x.tar: No space left on device (os error 28)
    hint: free some space: 'df -h' shows where it went, and 'rm -r target/dist' frees what can be made again
    ");

    let lock = File::open(workspace.path("../full")).unwrap();
    lock.lock().unwrap();
    assert_snapshot!(workspace.failure("export oci:../standin:t -o ../full/x.tar"), @"
    error: exporting oci:../standin:t into ../full/x.tar: another run is writing to ../full
    hint: wait for it, or write elsewhere with '--output DIR'
    ");
    assert_eq!(fs::read_dir(workspace.path("../full")).unwrap().count(), 0);
    drop(lock);
    workspace.ok("export oci:../standin:t -o ../full/x.tar");
}

#[test]
fn two_imports_at_once_bring_one_image() {
    let workspace = Workspace::with_standin();
    let registry = Registry::docker();
    workspace.ok("export oci:../standin:t -o ../t.tar");
    // The first run is held up in its first upload, until the second one has ended.
    let posts = AtomicUsize::new(0);
    let (is_held, is_open) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (held, open) = (is_held.clone(), is_open.clone());
    let proxy = FaultProxy::before(&registry, move |seen| {
        if seen.method == "POST" && posts.fetch_add(1, Ordering::SeqCst) == 0 {
            held.store(true, Ordering::SeqCst);
            wait_until("the end of the second run", || open.load(Ordering::SeqCst));
        }
        Fault::Pass
    });
    let import = format!("import ../t.tar --to {}/os", proxy.address());
    let first = start(workspace.command(&import));
    wait_until("an upload of the first run", || is_held.load(Ordering::SeqCst));
    let second = workspace.ok(&import);
    is_open.store(true, Ordering::SeqCst);
    let first = Run::new(first.wait_with_output().unwrap());
    assert_eq!((first.code, first.stdout.trim_end()), (Some(0), second.as_str()), "{}", first.stderr);
    judge("crane", &format!("validate --remote {}/os:t", registry.address()));
}

#[test]
fn the_release_that_was_made_last_is_exported() {
    let workspace = Workspace::with_standin();
    assert_snapshot!(workspace.failure("export"), @"
    error: reading target/dist/dist.json: No such file or directory (os error 2)
    hint: make a release, 'cargo xtask dist', or name one that is in a registry
    ");
    workspace.ok("dist --base oci:../standin:t --no-disks");
    workspace.ok("export");
    let archive = workspace.path("debian-13-dev.tar");
    let inspected =
        judge("skopeo", &format!("inspect --raw oci-archive:{}:debian-13-dev", archive.display()));
    assert!(inspected.contains("\"layers\""), "{inspected}");
}

#[test]
fn what_the_registrys_api_alone_lists_is_in_the_file() {
    let workspace = Workspace::with_standin();
    let (with_api, without) = (Registry::with_referrers(), Registry::docker());
    let image = format!("{}/me/os", with_api.address());
    workspace.ok(&format!("build --base oci:../standin:t --app-version v1 --to {image}:debian-13-v1"));
    let attached = |image: &str| {
        let inspected = workspace.json(&format!("inspect {image}:debian-13-v1"));
        let referrers = inspected["referrers"].as_array().unwrap();
        let mut digests: Vec<String> =
            referrers.iter().map(|referrer| referrer["digest"].as_str().unwrap().to_owned()).collect();
        digests.sort();
        digests
    };
    let before = attached(&image);
    assert_eq!(before.len(), 3);
    workspace.ok(&format!("export {image}:debian-13-v1 -o ../release.tar"));
    let target = format!("{}/their/os", without.address());
    workspace.ok(&format!("import ../release.tar --to {target}"));
    assert_eq!(attached(&target), before);
}

#[test]
fn what_is_attached_elsewhere_is_added_to() {
    let (workspace, registry, image) = released();
    let run = |arguments: &str| {
        let mut command = workspace.command(arguments);
        let output = command.env("COSIGN_PASSWORD", "a secret").output().unwrap();
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    };
    for key in ["ours", "other"] {
        run(&format!("sign --generate-key --key ../{key}.key"));
    }
    run(&format!("sign {image}:debian-13-v1 --key ../ours.key"));
    workspace.ok(&format!("export {image}:debian-13-v1 -o ../release.tar"));

    // The same image, with documents of that repository and another signature.
    let other = Registry::docker();
    let target = format!("{}/their/os", other.address());
    let base = format!("{}/base:t", registry.address());
    workspace
        .ok(&format!("build --distro debian-13 --base {base} --to {target}:debian-13-v1 --app-version v1"));
    assert_eq!(digest(&format!("{target}:debian-13-v1")), digest(&format!("{image}:debian-13-v1")));
    run(&format!("sign {target}:debian-13-v1 --key ../other.key"));
    let attached = |image: &str| {
        let inspected = workspace.json(&format!("inspect {image}:debian-13-v1"));
        let referrers = inspected["referrers"].as_array().unwrap().iter();
        referrers.map(|referrer| referrer["digest"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    let expected: BTreeSet<_> = attached(&image).union(&attached(&target)).cloned().collect();
    assert_eq!(expected.len(), 6);
    let list = digest(&format!("{image}:debian-13-v1")).replace(':', "-");
    let tags = [list.clone(), format!("{list}.sig")];
    let mut before = None;
    for _ in 0..2 {
        workspace.ok(&format!("import ../release.tar --to {target}"));
        assert_eq!(attached(&target), expected);
        workspace.ok(&format!("verify {target}:debian-13-v1 --key ../other.pub"));
        workspace.ok(&format!("verify {target}:debian-13-v1 --key ../ours.pub --signed-for {image}"));
        // The second time there is nothing to add.
        let now = tags.clone().map(|tag| digest(&format!("{target}:{tag}")));
        assert!(before.replace(now.clone()).is_none_or(|before| before == now));
    }
}
