//! `base` for the distros that have an upstream: their Containerfiles, built by real engines from a
//! stand-in, and what is made of them.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Entry, Layout, Run, Workspace, fingerprint, host_architecture, judge};
use crate::standin::{Upstream, set_up_engine};
use crate::testing::{Registry, program};

/// The time of bases that are to be the same again: 2023-11-14.
pub(crate) const EPOCH: &str = "1700000000";

impl Workspace {
    /// Runs `base`, with the test's own store of images.
    pub(crate) fn base(&self, arguments: &str) -> Run {
        let mut command = self.command(arguments);
        set_up_engine(self, &mut command);
        Run::new(command.output().unwrap())
    }

    /// Runs what has to succeed.
    pub(crate) fn made(&self, arguments: &str) -> Run {
        let run = self.base(arguments);
        assert_eq!(run.code, Some(0), "{arguments}\n{}{}", run.stdout, run.stderr);
        run
    }

    /// Runs `base` at a time that is set, in seconds since 1970.
    pub(crate) fn base_at(&self, epoch: &str, arguments: &str) -> Run {
        let mut command = self.command(arguments);
        set_up_engine(self, &mut command);
        Run::new(command.env("SOURCE_DATE_EPOCH", epoch).output().unwrap())
    }

    /// The same, of what has to succeed.
    pub(crate) fn made_at(&self, epoch: &str, arguments: &str) -> Run {
        let run = self.base_at(epoch, arguments);
        assert_eq!(run.code, Some(0), "{arguments}\n{}{}", run.stdout, run.stderr);
        run
    }

    pub(crate) fn digest_of(&self, distro: &str) -> String {
        let layout = self.layout(&format!("target/base/{distro}"));
        layout.digest(&layout.tags()[0]).as_str().unwrap().to_owned()
    }

    /// The base of a distro, as its layout has it.
    pub(crate) fn base_of(&self, distro: &str) -> Made {
        let layout = self.layout(&format!("target/base/{distro}"));
        layout.check_blobs();
        let [tag] = &layout.tags()[..] else { panic!("{:?}", layout.tags()) };
        let manifest = layout.manifest(tag);
        let config = layout.json(&manifest["config"]["digest"]);
        Made { layout, manifest, config }
    }
}

pub(crate) struct Made {
    pub(crate) layout: Layout,
    pub(crate) manifest: Value,
    pub(crate) config: Value,
}

impl Made {
    pub(crate) fn label(&self, name: &str) -> &Value {
        &self.config["config"]["Labels"][name]
    }

    /// The last layer, which is the one that was built.
    pub(crate) fn top(&self) -> BTreeMap<String, Entry> {
        let layer = self.manifest["layers"].as_array().unwrap().last().unwrap();
        let diff_id = self.config["rootfs"]["diff_ids"].as_array().unwrap().last().unwrap();
        let entries = self.layout.entries(layer, diff_id);
        entries.into_iter().map(|entry| (entry.path.clone(), entry)).collect()
    }
}

/// A workspace with a distro `tiny-1` whose Containerfile runs nothing.
pub(crate) fn tiny(upstream: &Upstream) -> Workspace {
    let workspace = Workspace::with_standin();
    push(&workspace, "t", upstream);
    workspace.write(
        "base/tiny/1/Containerfile",
        "ARG UPSTREAM\nFROM ${UPSTREAM}\nCOPY base/shared/rootfs/ /\nLABEL bootc-testboot.provides=systemd\n",
    );
    let toml = format!(
        "# Why.\ntitle = \"Tiny\"\nupstream = \"{}:1\" # the tag moves\nstage = \"production\"\n\
         end-of-life = 2999-01-01\nplatforms = [\"linux/amd64\", \"linux/arm64\"]\n",
        upstream.name
    );
    workspace.write("base/tiny/1/distro.toml", &toml);
    workspace
}

/// Makes one of the workspace's stand-ins what the upstream's tag names.
pub(crate) fn push(workspace: &Workspace, tag: &str, upstream: &Upstream) {
    workspace.push_standin(tag, &format!("{}:1", upstream.name), if tag == "multi" { "--all" } else { "" });
}

#[test]
fn a_base_is_made_again_when_what_it_is_made_of_changes() {
    let upstream = Upstream::empty();
    let workspace = tiny(&upstream);
    let first = workspace.made("base tiny-1");
    let unpinned = format!("{}:1 is not pinned: run 'cargo xtask base tiny-1 --update-pin'", upstream.name);
    assert!(first.stderr.contains(&unpinned), "{}", first.stderr);
    let made = || fingerprint(&workspace.path("target/base"));
    let before = made();
    let again = workspace.made("base tiny-1");
    assert_eq!(again.stdout, first.stdout);
    assert_eq!(made(), before);
    // Nobody takes it for one that has today's packages.
    let kept = "\ntiny-1 is as it was made; '--force' makes it again, with the packages of today\n";
    assert!(again.stderr.contains(kept) && !first.stderr.contains(kept), "{}", again.stderr);

    // A file that every distro has.
    workspace.write("base/shared/rootfs/usr/lib/motd.d/x", "hello\n");
    let second = workspace.made("base tiny-1");
    assert_ne!(second.stdout, first.stdout);
    assert_eq!(workspace.base_of("tiny-1").top()["usr/lib/motd.d/x"].content, b"hello\n");
    // What only people read.
    let toml = fs::read_to_string(workspace.path("base/tiny/1/distro.toml")).unwrap();
    workspace.write("base/tiny/1/distro.toml", &toml.replace("2999", "2998"));
    let before = made();
    assert_eq!(workspace.made("base tiny-1").stdout, second.stdout);
    assert_eq!(made(), before);
    // The upstream, whose tag moves.
    let upstream_digest = |workspace: &Workspace| {
        workspace.base_of("tiny-1").label("org.opencontainers.image.base.digest").clone()
    };
    let old = upstream_digest(&workspace);
    push(&workspace, "multi", &upstream);
    workspace.made("base tiny-1");
    let new = upstream_digest(&workspace);
    assert_ne!(new, old);

    // Pinned, it stays; only the digest is edited.
    let pinned = workspace.made("base tiny-1 --update-pin").stdout;
    assert_eq!(pinned, format!("{}:1: not pinned -> {}\n", upstream.name, new.as_str().unwrap()));
    let edited = fs::read_to_string(workspace.path("base/tiny/1/distro.toml")).unwrap();
    let with_pin = format!(":1@{}\" # the tag moves", new.as_str().unwrap());
    assert_eq!(edited, toml.replace("2999", "2998").replace(":1\" # the tag moves", &with_pin));
    push(&workspace, "t", &upstream);
    let before = made();
    let run = workspace.made("base tiny-1");
    assert!(!run.stderr.contains("not pinned"), "{}", run.stderr);
    assert_eq!(made(), before);

    // Whoever builds on it hears of what it lacks, and of what it was made from.
    let build = "build --base oci:target/base/tiny-1 --to oci:../out:t";
    let lacks = "warning: the base says that it has no nginx, which apps with routes need";
    let warned = |run: &Run| run.stderr.lines().filter(|line| line.starts_with("warning")).count();
    let run = workspace.run(build);
    assert!(run.code == Some(0) && run.stderr.contains(lacks) && warned(&run) == 1, "{}", run.stderr);
    let moved = workspace.made("base tiny-1 --update-pin").stdout;
    assert_eq!(
        moved,
        format!("{}:1: {} -> {}\n", upstream.name, new.as_str().unwrap(), old.as_str().unwrap())
    );
    let run = workspace.run(build);
    assert!(run.stderr.contains("; run 'cargo xtask base tiny-1'") && warned(&run) == 2, "{}", run.stderr);
    let still = workspace.made("base tiny-1 --update-pin").stdout;
    assert_eq!(still, format!("{}:1: still {}\n", upstream.name, old.as_str().unwrap()));
    // A base that is named with both a tag and a digest: what became of the tag.
    let both = format!("build --base {}:1@{} --to oci:../out:u", upstream.name, new.as_str().unwrap());
    let run = workspace.run(&both);
    assert!(run.code == Some(0) && run.stderr.contains("by now; name the base with"), "{}", run.stderr);
}

#[test]
fn a_base_is_pushed_under_its_day_and_its_name() {
    let upstream = Upstream::empty();
    let workspace = tiny(&upstream);
    let image = format!("{}/me/os", upstream.registry.address());
    let push = format!("base tiny-1 --push --image {image} --json");
    let run = || -> Value { serde_json::from_str(&workspace.made_at(EPOCH, &push).stdout).unwrap() };
    let report = run();
    // Within the upstream's registry, its layers are mounted: ours and the config are sent.
    let (first, then) = (&report["pushed"][0], &report["pushed"][1]);
    assert_eq!((&first["mounted"], &first["uploaded"]), (&json!(3), &json!(2)), "{report}");
    assert_eq!(then["uploaded"], 0);
    for (pushed, tag) in
        report["pushed"].as_array().unwrap().iter().zip(["base-tiny-1-20231114", "base-tiny-1"])
    {
        assert_eq!(pushed["reference"], format!("{image}:{tag}"));
        assert_eq!(judge("crane", &format!("digest {image}:{tag}")).trim_end(), report["digest"]);
        judge("crane", &format!("validate --remote {image}:{tag}"));
    }
    assert_eq!(workspace.base_of("tiny-1").config["created"], "2023-11-14T22:13:20Z");
    let again = run();
    assert_eq!(again["digest"], report["digest"]);
    assert!(again["pushed"].as_array().unwrap().iter().all(|pushed| pushed["unchanged"] == true), "{again}");

    // It is the base of the distro from here on.
    let build = format!("build --distro tiny-1 --image {image} --to oci:../out:t");
    assert_eq!(workspace.json(&build)["base"]["digest"], report["digest"]);

    // The same inputs make the same bytes, in another folder and in another store.
    let other = tiny(&upstream);
    let made = other.made_at(EPOCH, "base tiny-1 --force");
    assert_eq!(made.stdout.trim_end(), report["digest"].as_str().unwrap(), "{}", made.stderr);

    // Apps go on top of the layout too: whole, and into another registry, layers that are not in it
    // come from the upstream's.
    other.ok("build --base oci:target/base/tiny-1 --to oci:../full:t --full");
    let elsewhere = Registry::docker();
    let there = format!("{}/me/os:t", elsewhere.address());
    other.ok(&format!("build --base oci:target/base/tiny-1 --to {there}"));
    judge("crane", &format!("validate --remote {there}"));
    other.layout("../full").check_blobs();
    for layer in upstream.layers("1") {
        other.layout("../full").blob(&layer["digest"]);
    }
}

#[test]
fn what_goes_wrong_leaves_the_base_that_is_there() {
    let upstream = Upstream::empty();
    let workspace = tiny(&upstream);
    workspace.made("base tiny-1");
    let before = fingerprint(&workspace.path("target/base"));
    let fails = |arguments: &str| {
        let error = workspace.base(arguments).failure();
        assert_eq!(fingerprint(&workspace.path("target/base")), before, "{arguments}");
        error
    };
    let toml = fs::read_to_string(workspace.path("base/tiny/1/distro.toml")).unwrap();
    let gone = format!(":1@sha256:{}\"", "0".repeat(64));
    workspace.write("base/tiny/1/distro.toml", &toml.replace(":1\"", &gone));
    insta::assert_snapshot!(fails("base tiny-1"), @"
    error: 127.0.0.1:PORT/bootc/standin@sha256:HEX is gone from its registry
    hint: run 'cargo xtask base tiny-1 --update-pin' to take today's
    ");
    workspace.write("base/tiny/1/distro.toml", &toml);
    insta::assert_snapshot!(fails("base tiny-1 --from 127.0.0.1:1/no/such:t"), @"
    error: asking for 127.0.0.1:PORT/no/such:t: http://127.0.0.1:PORT/v2/no/such/manifests/t cannot be reached: Connection refused (os error 111)
    hint: is the registry at 127.0.0.1:PORT running?
    ");
    let unknown = fails("base tiny-2");
    assert!(unknown.contains("\nhint: did you mean tiny-1? 'cargo xtask list' shows"), "{unknown}");
    insta::assert_snapshot!(fails("base debian-13 --from quay.io/x/y:z"), @"
    error: debian-13 is made from packages: no image can stand in for them
    hint: leave out '--from', or name a distro that has an upstream: see 'cargo xtask list'
    ");
    let with_push = fails("base debian-13 --from quay.io/x/y:z --push --image 127.0.0.1:1/me/os");
    assert!(with_push.contains("no image can stand in for them"), "no registry is asked: {with_push}");
    insta::assert_snapshot!(workspace.run("build --base target/base/tiny-1").failure(), @"
    error: target/base/tiny-1 is a folder here, and docker.io/target/base/tiny-1:latest an image in a registry
    hint: write 'oci:target/base/tiny-1'
    ");
    insta::assert_snapshot!(fails("base debian-13 --update-pin"), @"
    error: debian-13 is made from packages: it has no upstream to pin
    hint: 'cargo xtask base debian-13 --force' takes today's packages
    ");

    // A machine that the distro does not exist for.
    workspace.write(
        "base/tiny/1/distro.toml",
        &toml.replace("\"linux/amd64\", \"linux/arm64\"", "\"linux/s390x\""),
    );
    let error = fails("base tiny-1 --force");
    assert!(error.starts_with("error: tiny-1 does not exist for linux/"), "{error}");
    workspace.write("base/tiny/1/distro.toml", &toml);
    // No engine at all.
    let mut command = workspace.command("base tiny-1 --force");
    let error = Run::new(command.env("PATH", "/nonexistent").output().unwrap()).failure();
    insta::assert_snapshot!(error, @"
    error: podman is missing: it builds bases from Containerfiles
    hint: run 'sudo apt-get install podman'; as root, '--yes' does it
    ");
    // A step that fails.
    workspace.write("base/tiny/1/Containerfile", "ARG UPSTREAM\nFROM ${UPSTREAM}\nCOPY no-such-file /\n");
    let error = fails("base tiny-1");
    assert!(
        error.contains("no-such-file") && error.contains("hint: a build sees base/shared and"),
        "{error}"
    );
    // Something that no host boots.
    let scratch = "ARG UPSTREAM\nFROM ${UPSTREAM} AS unused\nFROM scratch\nCOPY base/shared/rootfs/ /\n";
    workspace.write("base/tiny/1/Containerfile", scratch);
    insta::assert_snapshot!(fails("base tiny-1"), @"
    error: the image has neither the label `containers.bootc` nor `ostree.bootable`: no host boots it
    hint: the Containerfile has to start from a bootc image, as 'FROM ${UPSTREAM}' does
    ");
}

#[test]
fn a_base_that_lacks_its_own_layer_is_not_built_on() {
    let upstream = Upstream::empty();
    let workspace = tiny(&upstream);
    workspace.made("base tiny-1");
    let build = "build --base oci:target/base/tiny-1 --to oci:../out:t";
    let other = if host_architecture() == "amd64" { "arm64" } else { "amd64" };
    let error = workspace.run(&format!("{build} --platform linux/{other}")).failure();
    assert!(error.ends_with("hint: choose another with '--platform', or name one for it\n"), "{error}");

    let base = workspace.base_of("tiny-1");
    let ours = base.manifest["layers"].as_array().unwrap().last().unwrap()["digest"].as_str().unwrap();
    let path = base.layout.blob_path(ours);
    fs::File::options().write(true).open(&path).unwrap().set_len(10).unwrap();
    for is_there in [true, false] {
        if !is_there {
            fs::remove_file(&path).unwrap();
        }
        let error = workspace.run(build).failure();
        let (damage, hint) = ("it is damaged: ", "\nhint: make it again: 'cargo xtask base DISTRO --force'");
        assert!(error.contains(damage) && error.contains(hint), "{error}");
        assert!(!workspace.path("../out").exists());
    }
    workspace.made("base tiny-1 --force");
    workspace.ok(build);
}

#[test]
fn buildah_does_as_well() {
    let upstream = Upstream::empty();
    let workspace = tiny(&upstream);
    // A PATH on which buildah is the only engine.
    let bin = workspace.path("../bin");
    fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(program("buildah"), bin.join("buildah")).unwrap();
    let mut command: Command = workspace.command("base tiny-1");
    set_up_engine(&workspace, &mut command);
    command.env("PATH", &bin);
    let run = Run::new(command.output().unwrap());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(workspace.base_of("tiny-1").manifest["layers"].as_array().unwrap().len(), 4);
    assert_eq!(run.stdout.trim_end(), workspace.digest_of("tiny-1"));
}
