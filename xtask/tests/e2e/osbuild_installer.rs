//! An installer that a builder makes as a whole.

use std::fs;

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::builders::Stage;
use crate::config::new_key;
use crate::harness::{Workspace, fingerprint, judge};
use crate::interrupts::names;

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
