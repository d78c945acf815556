//! The Debian base, made from packages, with the apps on it.

use crate::harness::{Workspace, fingerprint, judge};
use crate::testing::Registry;

/// The only test that installs packages: it needs a Debian mirror, and a minute or two.
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

    let mut paths = Vec::new();
    for (layer, diff_id) in
        manifest["layers"].as_array().unwrap().iter().zip(config["rootfs"]["diff_ids"].as_array().unwrap())
    {
        let entries = layout.entries(layer, diff_id);
        paths.extend(entries.into_iter().map(|entry| entry.path.trim_start_matches("./").to_owned()));
    }
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

    // It is pushed like any other; its day is the release's.
    let registry = Registry::docker();
    let image = format!("{}/me/os", registry.address());
    let pushed = workspace.json(&format!("base debian-13 --push --image {image}"));
    for tag in ["base-debian-13-20250809", "base-debian-13"] {
        assert_eq!(judge("crane", &format!("digest {image}:{tag}")).trim_end(), pushed["digest"]);
    }
}
