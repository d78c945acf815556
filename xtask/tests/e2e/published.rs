//! Bases that are published, or are not, and what whoever builds on them is told.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::bases::{EPOCH, push, tiny};
use crate::harness::{Run, Workspace, fingerprint, judge, skopeo_push};
use crate::standin::Upstream;

const DATED: &str = "base-tiny-1-20231114";

/// Makes the base of `tiny-1` at a time, and pushes it.
fn publish_at(workspace: &Workspace, image: &str, epoch: &str) -> Value {
    let run = workspace.made_at(epoch, &format!("base tiny-1 --push --json --image {image}"));
    serde_json::from_str(&run.stdout).unwrap()
}

fn digest(reference: &str) -> String {
    judge("crane", &format!("digest {reference}")).trim_end().to_owned()
}

fn warnings(run: &Run) -> Vec<&str> {
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    run.stderr.lines().filter_map(|line| line.strip_prefix("warning: ")).collect()
}

/// Labels the base with what it is said to have.
fn label(workspace: &Workspace, provides: &str) {
    let containerfile = format!(
        "ARG UPSTREAM\nFROM ${{UPSTREAM}}\nCOPY base/shared/rootfs/ /\nLABEL bootc-testboot.provides={provides}\n"
    );
    workspace.write("base/tiny/1/Containerfile", &containerfile);
}

#[test]
fn a_dated_tag_stays() {
    let upstream = Upstream::empty();
    let workspace = tiny(&upstream);
    let image = format!("{}/me/os", upstream.registry.address());
    let names = |report: &Value| -> Vec<String> {
        let pushed = report["pushed"].as_array().unwrap();
        let name =
            |pushed: &Value| pushed["reference"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
        pushed.iter().map(name).collect()
    };
    let first = publish_at(&workspace, &image, EPOCH);
    assert_eq!(names(&first), [DATED, "base-tiny-1"]);

    // Another one of the same day.
    workspace.write("base/shared/rootfs/usr/lib/motd.d/x", "hello\n");
    let second = publish_at(&workspace, &image, EPOCH);
    assert_ne!(second["digest"], first["digest"]);
    let next = format!("{DATED}.1");
    assert_eq!(names(&second), [next.as_str(), "base-tiny-1"]);
    let is =
        |tag: &str, report: &Value| assert_eq!(digest(&format!("{image}:{tag}")), report["digest"], "{tag}");
    is(DATED, &first);
    is(&next, &second);
    is("base-tiny-1", &second);

    // What is there is not pushed again, whichever of the tags it is.
    let again = publish_at(&workspace, &image, EPOCH);
    assert_eq!(names(&again), [next.as_str(), "base-tiny-1"]);
    assert!(again["pushed"].as_array().unwrap().iter().all(|pushed| pushed["unchanged"] == true), "{again}");
    fs::remove_dir_all(workspace.path("base/shared/rootfs/usr/lib/motd.d")).unwrap();
    let back = publish_at(&workspace, &image, EPOCH);
    assert_eq!((names(&back), &back["digest"]), (names(&first), &first["digest"]));
    is("base-tiny-1", &first);
    is(&next, &second);
    let tags = judge("crane", &format!("ls {image}"));
    assert_eq!(tags.lines().collect::<std::collections::BTreeSet<_>>().len(), 3, "{tags}");
}

#[test]
fn platforms_share_a_tag() {
    let upstream = Upstream::empty();
    let workspace = tiny(&upstream);
    let image = format!("{}/me/os", upstream.registry.address());
    let (dated, moving) = (format!("{image}:{DATED}"), format!("{image}:base-tiny-1"));
    // What a machine of another architecture has pushed, in Docker's form at that.
    let (other, ours) = match crate::harness::host_architecture() {
        "amd64" => ("arm64", "amd64"),
        ours => ("amd64", ours),
    };
    let multi = format!("oci:{}:multi", workspace.path("../standin").display());
    for tag in [&dated, &moving] {
        let options = "--quiet --dest-tls-verify=false --format v2s2";
        judge(
            "skopeo",
            &format!("--insecure-policy --override-arch {other} copy {options} {multi} docker://{tag}"),
        );
    }
    let theirs = digest(&moving);
    let report = publish_at(&workspace, &image, EPOCH);
    for tag in [&dated, &moving] {
        judge("crane", &format!("validate --remote {tag}"));
        let index: Value = serde_json::from_str(&judge("crane", &format!("manifest {tag}"))).unwrap();
        let found: Vec<(&Value, &Value)> = index["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| (&entry["platform"]["architecture"], &entry["digest"]))
            .collect();
        let mut expected = [(json!(ours), report["digest"].clone()), (json!(other), json!(theirs))];
        expected.sort_by(|a, b| a.0.as_str().cmp(&b.0.as_str()));
        assert_eq!(found, expected.iter().map(|(platform, digest)| (platform, digest)).collect::<Vec<_>>());
    }
    let again = publish_at(&workspace, &image, EPOCH);
    assert!(again["pushed"].as_array().unwrap().iter().all(|pushed| pushed["unchanged"] == true), "{again}");
    assert_eq!(again["pushed"][1]["digest"], digest(&moving));

    // Apps go on top of both.
    let target = format!("{image}:tiny-1-v1");
    let build =
        format!("build --distro tiny-1 --image {image} --platform linux/{other},linux/{ours} --to {target}");
    let report = workspace.json(&build);
    assert_eq!(report["base"]["reference"], moving);
    assert_eq!(report["platforms"].as_array().unwrap().len(), 2);
    judge("crane", &format!("validate --remote {target}"));
    assert!(!judge("crane", &format!("manifest --platform linux/{other} {target}")).contains("docker"));

    // Something else under the tag is left alone.
    workspace.push_standin("t", &moving, "");
    judge("crane", &format!("mutate {moving} --set-platform windows/amd64 --tag {moving}"));
    let error = workspace.base_at(EPOCH, &format!("base tiny-1 --push --image {image}")).failure();
    insta::assert_snapshot!(error, @"
    error: the base is made, and kept in target/base/tiny-1: reading what 127.0.0.1:PORT/me/os:base-tiny-1 is now: it is for windows/amd64, which nothing boots on
    hint: 'SOURCE_DATE_EPOCH=1700000000 cargo xtask base tiny-1 --push --image 127.0.0.1:PORT/me/os' pushes it without making it again
    hint: a base's tag has to be a bootc image: remove it, or name another repository with '--image'
    ");
}

#[test]
fn a_base_that_is_not_published_is_made_or_found_here() {
    let upstream = Upstream::empty();
    let workspace = tiny(&upstream);
    let image = format!("{}/me/os", upstream.registry.address());
    let build = format!("build --distro tiny-1 --image {image} --to oci:../out:t");
    insta::assert_snapshot!(workspace.failure(&build), @"
    error: there is no base of tiny-1: 127.0.0.1:PORT/me/os:base-tiny-1 is not in its registry
    hint: run 'cargo xtask base tiny-1 --push --image 127.0.0.1:PORT/me/os' to make and publish it; without '--push' it is made for this machine alone
    ");

    // Nor does a registry that says nothing leave anybody alone.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let unreachable = format!("build --distro tiny-1 --image {closed}/me/os --to oci:../out:t");
    let hints = |error: &str| -> Vec<String> {
        error.lines().filter_map(|line| line.strip_prefix("hint: ")).map(str::to_owned).collect()
    };
    let running = "is the registry at 127.0.0.1:PORT running?";
    let never =
        "if it was never published, 'cargo xtask base tiny-1 --push --image 127.0.0.1:PORT/me/os' does it";
    assert_eq!(hints(&workspace.failure(&unreachable)), [never, running]);

    label(&workspace, "nginx,systemd");
    workspace.made("base tiny-1");
    let here = "'--base oci:target/base/tiny-1' builds on the one that is here";
    assert_eq!(hints(&workspace.failure(&unreachable)), [here, running]);
    let run = workspace.run(&build);
    let publish = format!("cargo xtask base tiny-1 --push --image {image}");
    assert_eq!(
        warnings(&run),
        [format!(
            "{image}:base-tiny-1 is not published, so oci:target/base/tiny-1 is built on; '{publish}' publishes it"
        )]
    );
    let local = workspace.digest_of("tiny-1");
    let on = |build: &str| workspace.json(build)["base"]["digest"].as_str().unwrap().to_owned();
    assert_eq!(on(&build), local);

    // From then on it is the published one, also where a newer one is here.
    let old = publish_at(&workspace, &image, EPOCH)["digest"].clone();
    assert_eq!(warnings(&workspace.run(&build)), [""; 0]);
    workspace.made("base tiny-1");
    assert_ne!(workspace.digest_of("tiny-1"), old);
    let run = workspace.run(&build);
    assert_eq!(
        warnings(&run),
        [format!(
            "oci:target/base/tiny-1 is newer than {image}:base-tiny-1, which is built on; \
             '{publish}' publishes it, '--base oci:target/base/tiny-1' builds on it"
        )]
    );
    assert_eq!(on(&build), old);

    // The other way round, where a push speaks to the registry anyway.
    workspace.made_at("86400", "base tiny-1");
    let pushed = format!("{build} --base oci:target/base/tiny-1 --push");
    assert_eq!(
        warnings(&workspace.run(&pushed)),
        [format!(
            "{image}:base-tiny-1 is newer than oci:target/base/tiny-1, which is built on; \
             '--distro tiny-1' without '--base' builds on it"
        )]
    );
}

#[test]
fn whoever_builds_on_a_base_is_told_what_has_changed() {
    let upstream = Upstream::empty();
    let workspace = tiny(&upstream);
    let image = format!("{}/me/os", upstream.registry.address());
    let builds = [
        format!("build --distro tiny-1 --image {image} --to oci:../out:t"),
        format!("build --distro tiny-1 --image {image} --to {image}:t"),
        format!("dist --distro tiny-1 --image {image} --no-disks"),
    ];
    // It says that it has no nginx, and there is an app with a route.
    let first = publish_at(&workspace, &image, EPOCH);
    let publish = format!("cargo xtask base tiny-1 --push --image {image}");
    let lacks = format!(
        "the base says that it has no nginx, which apps with routes need; add it in the base's folder, \
         and 'nginx' to its label bootc-testboot.provides, and run '{publish}'"
    );
    for build in &builds {
        assert_eq!(warnings(&workspace.run(build)), [lacks.as_str()], "{build}");
    }
    // Its tag moves.
    label(&workspace, "nginx,systemd");
    let second = publish_at(&workspace, &image, EPOCH);
    let short = |report: &Value| report["digest"].as_str().unwrap()[7..19].to_owned();
    let names =
        ["oci:../out:t".to_owned(), format!("{image}:t"), "oci:target/dist/oci:tiny-1-dev".to_owned()];
    for (build, name) in builds.iter().zip(names) {
        let moved = format!(
            "{image}:base-tiny-1 has moved since {name} was built on it: it was {} and is {}, \
             so hosts download what changed in it too",
            short(&first),
            short(&second)
        );
        let run = workspace.run(build);
        let temporary = format!("{}/", workspace.path("..").display());
        let shown: Vec<String> = warnings(&run).iter().map(|line| line.replace(&temporary, "../")).collect();
        assert_eq!(shown, [moved], "{build}");
        assert_eq!(warnings(&workspace.run(build)), [""; 0], "{build}");
    }
    // Its distro pins another upstream: it has to be made and published again.
    push(&workspace, "multi", &upstream);
    workspace.made("base tiny-1 --update-pin");
    let run = workspace.run(&builds[0]);
    let remedy = format!("; run '{publish}'");
    let [warning] = warnings(&run)[..] else { panic!("{}", run.stderr) };
    assert!(warning.starts_with("the base was made from ") && warning.ends_with(&remedy), "{warning}");
}

#[test]
fn upstreams_are_looked_at_before_anything_is_built() {
    let upstream = Upstream::empty();
    let workspace = tiny(&upstream);
    let name = &upstream.name;
    let standin = format!("oci:{}", workspace.path("../standin").display());
    skopeo_push(&format!("{standin}:plain"), &format!("{name}:plain"), "");
    judge("crane", &format!("mutate {name}:1 --set-platform linux/s390x --tag {name}:s390x"));
    let from = |image: &str| {
        // Nothing is asked of an engine: there is none.
        let mut command = workspace.command(&format!("base tiny-1 --from {image}"));
        Run::new(command.env("PATH", "/nonexistent").output().unwrap()).failure()
    };
    insta::assert_snapshot!(from(&format!("{name}:plain")), @"
    error: reading the upstream 127.0.0.1:PORT/bootc/standin@sha256:HEX: the image has neither the label `containers.bootc` nor `ostree.bootable`: no host boots it
    hint: name a bootc image, such as quay.io/centos-bootc/centos-bootc:stream10
    ");
    insta::assert_snapshot!(from(&format!("{name}:s390x")).replace("amd64", "ARCH").replace("arm64", "ARCH"), @"
    error: reading the upstream 127.0.0.1:PORT/bootc/standin@sha256:HEX: the config says linux/s390x, but linux/ARCH was asked for
    hint: name one for linux/ARCH with '--from', or make the base on another machine
    ");
    insta::assert_snapshot!(from(&format!("{name}:gone")), @"
    error: 127.0.0.1:PORT/bootc/standin:gone is not in its registry
    hint: check the name and the tag that '--from' gives; a private repository needs 'podman login'
    ");
    insta::assert_snapshot!(from(&format!("{name}@sha256:{}", "0".repeat(64))), @"
    error: 127.0.0.1:PORT/bootc/standin@sha256:HEX is gone from its registry
    hint: name one with '--from' that is there
    ");
    judge("crane", &format!("index append --manifest {name}:s390x --tag {name}:index"));
    let error = from(&format!("{name}:index"));
    assert!(error.contains("is for linux/s390x; there is nothing for linux/"), "{error}");
    assert!(error.contains("with '--from', or make the base on another machine"), "{error}");
    assert!(!error.contains("--platform"), "{error}");

    // A Containerfile that does not care is told so: before the build, or by what comes of it.
    workspace.write("base/tiny/1/Containerfile", &format!("ARG UPSTREAM\nFROM {name}:1\nRUN true\n"));
    insta::assert_snapshot!(from(&format!("{name}:1")), @"
    error: base/tiny/1/Containerfile does not start from its upstream
    hint: write 'ARG UPSTREAM' and 'FROM ${UPSTREAM}'
    ");
    judge("crane", &format!("append --base {name}:1 --new_layer /dev/null --new_tag {name}:more"));
    let other =
        format!("ARG UPSTREAM\nFROM ${{UPSTREAM}} AS unused\nFROM {name}:1\nCOPY base/shared/rootfs/ /\n");
    workspace.write("base/tiny/1/Containerfile", &other);
    let error = workspace.base(&format!("base tiny-1 --from {name}:more")).failure();
    insta::assert_snapshot!(error, @"
    error: the image does not start with the upstream's 4 layers
    hint: the Containerfile has to start from a bootc image, as 'FROM ${UPSTREAM}' does
    ");
}

#[test]
fn an_upstream_may_be_in_dockers_form() {
    let upstream = Upstream::empty();
    let workspace = tiny(&upstream);
    workspace.push_standin("t", &format!("{}:docker", upstream.name), "--format v2s2");
    let image = format!("{}/me/os", upstream.registry.address());
    let base = workspace.made(&format!("base tiny-1 --push --image {image} --from {}:docker", upstream.name));
    judge("crane", &format!("validate --remote {image}:base-tiny-1"));
    let manifest = judge("crane", &format!("manifest {image}:base-tiny-1"));
    assert!(!manifest.contains("docker"), "{manifest}");
    let target = format!("{image}:t");
    let report = workspace.json(&format!("build --distro tiny-1 --image {image} --to {target}"));
    assert_eq!(report["base"]["digest"], base.stdout.trim_end());
    judge("crane", &format!("validate --remote {target}"));
}

#[test]
fn a_damaged_base_is_told_and_mended() {
    let upstream = Upstream::empty();
    let workspace = tiny(&upstream);
    let epoch = |arguments: &str| workspace.base_at(EPOCH, arguments);
    let good = workspace.made_at(EPOCH, "base tiny-1");
    let dir = workspace.path("target/base/tiny-1");
    let layout = workspace.layout("target/base/tiny-1");
    let blob = |what: fn(&Value) -> &Value| {
        layout.blob_path(what(&layout.manifest(&layout.tags()[0]))["digest"].as_str().unwrap())
    };
    let top = || blob(|manifest| manifest["layers"].as_array().unwrap().last().unwrap());
    let damages: [(&str, &dyn Fn()); 6] = [
        ("index", &|| fs::write(dir.join("index.json"), "{").unwrap()),
        ("mark", &|| fs::remove_file(dir.join("oci-layout")).unwrap()),
        ("layer", &|| fs::remove_file(top()).unwrap()),
        ("folder", &|| {
            let top = top();
            fs::remove_file(&top).unwrap();
            fs::create_dir(top).unwrap();
        }),
        ("config", &|| fs::write(blob(|manifest| &manifest["config"]), "{}").unwrap()),
        ("file", &|| {
            fs::remove_dir_all(&dir).unwrap();
            fs::write(&dir, "").unwrap();
        }),
    ];
    for (what, damage) in damages {
        damage();
        let error = epoch("base tiny-1").failure();
        assert!(error.contains("target/base/tiny-1 is damaged: "), "{what}: {error}");
        assert!(
            error.ends_with("\nhint: run 'cargo xtask base tiny-1 --force' to make it anew\n"),
            "{error}"
        );
        let mended = epoch("base tiny-1 --force");
        assert_eq!((mended.code, &mended.stdout), (Some(0), &good.stdout), "{what}: {}", mended.stderr);
        layout.check_blobs();
    }
    // What has the right size is not read each time; made anew, it is right all the same.
    let mut bytes = fs::read(top()).unwrap();
    bytes[20] ^= 1;
    fs::write(top(), bytes).unwrap();
    let before = fingerprint(&dir);
    assert_eq!(epoch("base tiny-1").stdout, good.stdout);
    assert_eq!(fingerprint(&dir), before);
    assert_eq!(epoch("base tiny-1 --force").stdout, good.stdout);
    layout.check_blobs();
}

#[test]
fn a_pin_is_written_where_it_belongs() {
    let upstream = Upstream::empty();
    let workspace = tiny(&upstream);
    let path = workspace.path("base/tiny/1/distro.toml");
    let toml = fs::read_to_string(&path)
        .unwrap()
        .replace('\n', "\r\n")
        .replace(":1\"", ":1'")
        .replace("= \"127", "= '127");
    let toml = format!("\u{feff}{toml}");
    fs::write(&path, &toml).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o664)).unwrap();
    workspace.made("base tiny-1 --update-pin");
    let pinned = format!(":1@{}'", digest(&format!("{}:1", upstream.name)));
    assert_eq!(fs::read_to_string(&path).unwrap(), toml.replace(":1'", &pinned));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o664);
    let names: Vec<_> =
        fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    // A gone tag is not written down.
    fs::write(&path, toml.replace(":1'", ":gone'")).unwrap();
    let error = workspace.base("base tiny-1 --update-pin").failure();
    assert!(
        error.ends_with(":gone is not in its registry\nhint: check the upstream in distro.toml\n"),
        "{error}"
    );
}

#[test]
fn distros_are_asked_for_as_people_do() {
    let workspace = Workspace::with_standin();
    for (asked, meant) in [
        ("fedora43", "fedora-43"),
        ("Fedora-43", "fedora-43"),
        ("debian", "debian-13"),
        ("stream9", "centos-stream9"),
        ("centos9", "centos-stream9"),
    ] {
        for command in ["base ", "build --distro ", "dist --base oci:../standin:t --distro "] {
            let error = workspace.failure(&format!("{command}{asked}"));
            // Another image's distro needs no folder, but a name that can begin a tag.
            assert!(error.contains(&format!("hint: did you mean {meant}? ")), "{command}{asked}: {error}");
        }
    }
    let run = workspace.run("base debian-13 --image localhost:5000/os");
    assert_eq!(run.code, Some(2));
    insta::assert_snapshot!(run.stderr, @"
    error: '--image' says where '--push' sends the base: add '--push', or leave it out

    Usage: cargo xtask [OPTIONS] <COMMAND>

    For more information, try '--help'.
    ");
}

#[test]
fn a_broken_workspace_is_no_good_health() {
    let workspace = Workspace::new();
    assert_eq!(workspace.run("doctor").code, Some(0));
    workspace.write("configs/tmpfiles.d/x.conf", "d /usr/x\n");
    let run = workspace.run("doctor");
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stdout.contains("line 1: /usr/x cannot be changed, /usr is read-only"), "{}", run.stdout);
    assert_eq!(run.stderr, "error: the workspace is not sound\nhint: mend what is listed above\n");
}

#[test]
fn files_that_call_c_are_told() {
    let workspace = Workspace::with_standin();
    workspace.write("apps/hello/fast.go", "package main\n\nimport \"C\"\n\nfunc fast() {}\n");
    let run = workspace.run("build --base oci:../standin:t --to oci:../out:t");
    assert_eq!(warnings(&run), ["hello is built without cgo, so these files of it are left out: fast.go"]);
}
