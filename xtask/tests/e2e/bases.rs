//! `base` for the distros that have an upstream: their Containerfiles, built by real engines from a
//! stand-in, and what is made of them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Entry, Layout, Run, Workspace, fingerprint, judge, make_private, skopeo_push};
use crate::standin::{Upstream, set_up_engine};
use crate::testing::{Registry, program};

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

    pub(crate) fn digest_of(&self, distro: &str) -> String {
        let layout = self.layout(&format!("target/base/{distro}"));
        layout.digest(&layout.tags()[0]).as_str().unwrap().to_owned()
    }

    /// The base of a distro, as its layout has it.
    fn base_of(&self, distro: &str) -> Made {
        let layout = self.layout(&format!("target/base/{distro}"));
        layout.check_blobs();
        let [tag] = &layout.tags()[..] else { panic!("{:?}", layout.tags()) };
        let manifest = layout.manifest(tag);
        let config = layout.json(&manifest["config"]["digest"]);
        Made { layout, manifest, config }
    }
}

struct Made {
    layout: Layout,
    manifest: Value,
    config: Value,
}

impl Made {
    fn label(&self, name: &str) -> &Value {
        &self.config["config"]["Labels"][name]
    }

    /// The last layer, which is the one that was built.
    fn top(&self) -> BTreeMap<String, Entry> {
        let layer = self.manifest["layers"].as_array().unwrap().last().unwrap();
        let diff_id = self.config["rootfs"]["diff_ids"].as_array().unwrap().last().unwrap();
        let entries = self.layout.entries(layer, diff_id);
        entries.into_iter().map(|entry| (entry.path.clone(), entry)).collect()
    }
}

/// The files below a folder, under their paths from there.
fn files(folder: &Path) -> BTreeMap<String, PathBuf> {
    fingerprint(folder)
        .into_keys()
        .map(|path| (path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned(), path))
        .collect()
}

#[test]
fn every_containerfile_makes_the_same_base() {
    let upstream = Upstream::debian();
    let workspace = Workspace::new();
    // The modes of a checkout are none of the image's.
    make_private(&workspace.path("base"));
    let list = workspace.json("list");
    let distros: Vec<&Value> = list["distros"].as_array().unwrap().iter().collect();
    // What a CI matrix is made of.
    for key in ["name", "title", "stage", "ended", "upstream", "platforms", "default"] {
        assert!(distros.iter().all(|distro| distro.get(key).is_some()), "{key}");
    }
    let mut tops = BTreeMap::new();
    for distro in distros.into_iter().filter(|distro| !distro["upstream"].is_null()) {
        let name = distro["name"].as_str().unwrap();
        let run = workspace.made(&format!("base {name} --from {}:t", upstream.name));
        assert_eq!(run.stderr.contains("ended on"), distro["ended"].as_bool().unwrap(), "{}", run.stderr);
        let base = workspace.base_of(name);

        assert_eq!(*base.label("containers.bootc"), "1");
        assert_eq!(*base.label("vendor.example"), "kept");
        assert_eq!(*base.label("bootc-testboot.provides"), "nginx,systemd");
        assert_eq!(*base.label("org.opencontainers.image.title"), distro["title"]);
        assert_eq!(*base.label("org.opencontainers.image.version"), name.split_once('-').unwrap().1);
        assert_eq!(*base.label("org.opencontainers.image.base.name"), format!("{}:t", upstream.name));
        // The upstream's layers are the very same, and stay where they are.
        let layers = base.manifest["layers"].as_array().unwrap();
        assert_eq!((layers.len(), &layers[..2]), (3, upstream.layers("t").as_slice()));
        assert!(!base.layout.blob_path(layers[0]["digest"].as_str().unwrap()).exists());

        let top = base.top();
        check_tuning(&workspace, &top);
        let installed = String::from_utf8(top["usr/share/standin/packages"].content.clone()).unwrap();
        let (extra, installed): (Vec<_>, Vec<_>) =
            installed.lines().map(str::to_owned).partition(|package| package == "epel-release");
        assert_eq!(extra.len(), usize::from(name.starts_with("centos-")), "{name}");
        let list = fs::read_to_string(workspace.path("base/shared/rpm/packages.list")).unwrap();
        let listed: Vec<_> = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        assert_eq!(installed, listed);

        // Apps go on top, and nobody is warned of anything.
        let build = workspace.run(&format!("build --base oci:target/base/{name} --to oci:../out:{name}"));
        assert_eq!((build.code, build.stderr.contains("warning")), (Some(0), false), "{}", build.stderr);
        tops.insert(name.to_owned(), top);
    }
    assert!(tops.len() > 1, "{:?}", tops.keys());
    let text = workspace.ok("list");
    let ended = "distro fedora-40  Fedora 40, ended on 2025-05-13, go to fedora-44, from an image: quay.io/";
    assert!(text.contains(ended), "{text}");

    // What one distro gets, all of them get.
    let (first, expected) = tops.iter().next().unwrap();
    let differing = ["usr/share/standin/packages"];
    for (name, top) in &tops {
        let names = |top: &BTreeMap<String, Entry>| top.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(top), names(expected), "{name} and {first}");
        for (path, entry) in top.iter().filter(|(path, _)| !differing.contains(&path.as_str())) {
            let seen = |entry: &Entry| {
                let header = &entry.header;
                let link = header.link_name_bytes().map(|name| name.into_owned());
                (header.mode().unwrap(), header.uid().unwrap(), header.gid().unwrap(), link)
            };
            assert_eq!(seen(entry), seen(&expected[path]), "{path} in {name} and {first}");
            assert!(entry.content == expected[path].content, "{path} in {name} and {first}");
        }
    }
}

/// What a layer has at `path`.
fn at<'a>(top: &'a BTreeMap<String, Entry>, path: &str) -> &'a Entry {
    top.get(path).unwrap_or_else(|| panic!("{path} is not there, but {:#?}", top.keys()))
}

/// Every file of ours is in its place, and everything that a step does was done.
fn check_tuning(workspace: &Workspace, top: &BTreeMap<String, Entry>) {
    for rootfs in ["base/shared/rootfs", "base/shared/rpm/rootfs"] {
        let files = files(&workspace.path(rootfs));
        assert!(!files.is_empty());
        for (path, source) in files {
            let Entry { header, content, .. } = at(top, &path);
            if let Ok(target) = fs::read_link(&source) {
                assert_eq!(header.link_name().unwrap().unwrap(), target, "{path}");
                continue;
            }
            let mode = if source.metadata().unwrap().mode() & 0o100 != 0 { 0o755 } else { 0o644 };
            assert_eq!(*content, fs::read(source).unwrap(), "{path}");
            assert_eq!((header.mode().unwrap() & 0o7777, header.uid().unwrap()), (mode, 0), "{path}");
        }
    }
    let mode = |path: &str| at(top, path).header.mode().unwrap() & 0o7777;
    assert_eq!((mode("etc"), mode("usr"), mode("etc/firewalld")), (0o755, 0o755, 0o750));

    let text = |path: &str| String::from_utf8(at(top, path).content.clone()).unwrap();
    let link = |path: &str| at(top, path).header.link_name().unwrap().unwrap().to_str().unwrap().to_owned();
    for unit in ["chronyd", "firewalld", "nginx", "sshd", "cloud-init-local", "cloud-config", "cloud-final"] {
        let wants = format!("etc/systemd/system/multi-user.target.wants/{unit}.service");
        assert_eq!(link(&wants), format!("/usr/lib/systemd/system/{unit}.service"));
    }
    assert!(!top.contains_key("etc/systemd/system/multi-user.target.wants/cloud-init-main.service"));
    assert_eq!(link("etc/systemd/system/systemd-time-wait-sync.service"), "/dev/null");
    assert_eq!(text("etc/selinux/targeted/active/booleans.local"), "httpd_can_network_connect=1\n");
    assert_eq!(text("etc/firewalld/firewalld.conf"), "DefaultZone=public\n");
    assert!(!text("etc/chrony.conf").contains("pool"));
    assert_eq!(text("etc/chrony.conf").matches("\nconfdir /etc/chrony/conf.d\n").count(), 1);
    let ours = fs::read_dir(workspace.path("base/shared/rootfs/etc/chrony/conf.d")).unwrap();
    for file in ours {
        // chrony itself has read ours, after the distro's.
        for line in fs::read_to_string(file.unwrap().path()).unwrap().lines() {
            let read = text("usr/share/standin/chrony");
            assert!(
                line.starts_with('#') || line.is_empty() || read.contains(line),
                "{line} is not in {read}"
            );
        }
    }
    for user in ["\nnginx:x:110:110:", "\ntcpdump:x:72:72:", "\ndhcpcd:x:114:114:"] {
        assert!(text("etc/passwd").contains(user), "{}", text("etc/passwd"));
    }
    let tmpfiles = text("usr/lib/tmpfiles.d/zz-testboot-var.conf");
    assert!(tmpfiles.contains("\nd /var/lib/nginx/tmp 0770 nginx nginx -\n"), "{tmpfiles}");
    let left: Vec<_> = top
        .keys()
        // What only says that something of the upstream's is gone.
        .filter(|path| !path.contains("/.wh."))
        .filter(|path| {
            ["run/", "tmp/", "var/cache/", "var/lib/dnf", "var/lib/rhsm"].iter().any(|start| path.starts_with(start))
                // What the engine mounts resolv.conf over.
                && !path.starts_with("run/systemd")
                || path.starts_with("var/log/") && !path.starts_with("var/log/nginx")
                || path.ends_with('-')
        })
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn containerfiles_and_scripts_are_in_good_order() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let base = files(&repository.join("base"));
    let named = |end: &str| {
        let paths: Vec<_> = base.values().filter(|path| path.ends_with(end)).collect();
        paths.into_iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
    };
    let containerfiles = named("Containerfile");
    assert!(!containerfiles.is_empty());
    judge("hadolint", &containerfiles.join(" "));
    judge("shellcheck", &named("setup.sh").join(" "));
    for path in containerfiles {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("\nRUN bootc container lint --fatal-warnings\n"), "{path}");
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
    let from = format!("oci:{}:{tag}", workspace.path("../standin").display());
    skopeo_push(&from, &format!("{}:1", upstream.name), if tag == "multi" { "--all" } else { "" });
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
    assert_eq!(workspace.made("base tiny-1").stdout, first.stdout);
    assert_eq!(made(), before);

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
    let run = || -> Value {
        let mut command = workspace.command(&push);
        set_up_engine(&workspace, &mut command);
        command.env("SOURCE_DATE_EPOCH", "1700000000");
        let run = Run::new(command.output().unwrap());
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        serde_json::from_str(&run.stdout).unwrap()
    };
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
    let mut command = other.command("base tiny-1 --force");
    set_up_engine(&other, &mut command);
    let made = Run::new(command.env("SOURCE_DATE_EPOCH", "1700000000").output().unwrap());
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
    assert!(error.contains("no-such-file") && error.contains("hint: read the lines above"), "{error}");
    // Something that no host boots.
    let scratch = "ARG UPSTREAM\nFROM ${UPSTREAM} AS unused\nFROM scratch\nCOPY base/shared/rootfs/ /\n";
    workspace.write("base/tiny/1/Containerfile", scratch);
    insta::assert_snapshot!(fails("base tiny-1"), @"
    error: the image has neither the label `containers.bootc` nor `ostree.bootable`: no host boots it
    hint: the Containerfile has to start from a bootc image, as 'FROM ${UPSTREAM}' does
    ");
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
