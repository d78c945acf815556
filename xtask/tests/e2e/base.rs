//! The Debian base, made from packages, with the apps on it.

use crate::harness::{Entry, Workspace, fingerprint, judge};
use crate::root;
use crate::testing::Registry;

/// It needs a Debian mirror, and a minute or two.
#[test]
fn dist_makes_its_own_base() {
    let workspace = Workspace::new();
    let report = workspace.json("dist --yes");
    let layout = workspace.layout("target/dist/oci");
    assert_eq!(report["whole"], true);
    assert_eq!(report["digest"], layout.digest("debian-13-dev"));
    judge("skopeo", &format!("inspect oci:{}:debian-13-dev", layout.dir.display()));

    let manifest = layout.manifest("debian-13-dev");
    let config = layout.json(&manifest["config"]["digest"]);
    let labels = &config["config"]["Labels"];
    assert_eq!(labels["containers.bootc"], "1");
    assert_eq!(labels["ostree.bootable"], "true");

    let mut entries = Vec::new();
    for (layer, diff_id) in
        manifest["layers"].as_array().unwrap().iter().zip(config["rootfs"]["diff_ids"].as_array().unwrap())
    {
        entries.extend(layout.entries(layer, diff_id));
    }
    let paths: Vec<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
    let has =
        |start: &str, end: &str| paths.iter().any(|path| path.starts_with(start) && path.ends_with(end));
    assert!(has("usr/lib/modules/", "/vmlinuz"), "a kernel");
    assert!(has("usr/lib/modules/", "/initramfs.img"), "an initramfs");
    assert!(has("usr/bin/hello", "hello"), "the app");
    assert!(has("dev", "dev"), "a folder to mount devices on");
    let below: Vec<_> = paths
        .iter()
        .filter(|path| ["var/", "boot/", "run/"].iter().any(|top| path.starts_with(top)))
        .collect();
    assert!(below.is_empty(), "{below:?}");

    // The base is there now: it is named, and not made again.
    let made = fingerprint(&workspace.path("target/base"));
    let again = workspace.run("base debian-13");
    assert_eq!(again.stdout.trim_end(), report["base"]["digest"].as_str().unwrap());
    assert!(again.stderr.contains("debian-13 is a preview"), "{}", again.stderr);
    assert_eq!(workspace.ok("dist"), report["digest"].as_str().unwrap());
    assert_eq!(fingerprint(&workspace.path("target/base")), made);

    // It is pushed like any other; its day is that of its newest package, which tells it from the
    // base of another week.
    let created = config["created"].as_str().unwrap();
    let (day, _) = created.split_once('T').unwrap();
    assert!(day > "2025-08-09", "a package has come after the release: {created}");
    let newest = entries.iter().find(|entry| entry.path == "usr/share/testboot/newest-package").unwrap();
    let seconds = std::str::from_utf8(&newest.content).unwrap().trim_end();
    assert_eq!(judge("date", &format!("--utc --date=@{seconds} +%FT%TZ")).trim_end(), created);
    let dated = format!("base-debian-13-{}", day.replace('-', ""));
    let registry = Registry::docker();
    let image = format!("{}/me/os", registry.address());
    let pushed = workspace.json(&format!("base debian-13 --push --image {image}"));
    for tag in [dated.as_str(), "base-debian-13"] {
        assert_eq!(judge("crane", &format!("digest {image}:{tag}")).trim_end(), pushed["digest"]);
    }

    // Made once more of the same packages, it has the same digest. The base of the other tests
    // will do, unless the mirror has got newer packages since.
    let other = root::base();
    let digest = &report["base"]["digest"];
    if packages(&other.entries()) == packages(&entries) {
        assert_eq!(other.layout.digest(&other.tag), *digest, "raise PROCESS if the code has changed");
    } else {
        assert_eq!(workspace.ok("base debian-13 --force"), digest.as_str().unwrap());
    }
}

/// dpkg's list of what is installed.
fn packages(entries: &[Entry]) -> &[u8] {
    &entries.iter().find(|entry| entry.path == "usr/lib/sysimage/dpkg/status").unwrap().content
}
