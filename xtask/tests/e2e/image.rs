//! `build`, `dist` and `diff` on the stand-in base: what is made, and that it is always the same.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{
    Run, Workspace, check_entries, fingerprint, host_architecture, judge, make_private, sha256, skopeo_push,
};
use crate::testing::{Fault, FaultProxy, Registry};

fn names(layers: &Value) -> Vec<&str> {
    layers.as_array().unwrap().iter().map(|layer| layer["name"].as_str().unwrap()).collect()
}

#[test]
fn a_layout_is_whole_and_follows_the_rules() {
    let workspace = Workspace::with_standin();
    let report = workspace.json("build --base oci:../standin:t --to oci:../out:t");
    let (out, standin) = (workspace.layout("../out"), workspace.layout("../standin"));
    assert_eq!(names(&report["layers"]), ["base", "base", "base", "os", "hello"]);
    assert_eq!(report["digest"], out.digest("t"));
    assert_eq!(report["whole"], true);

    // skopeo sees what we say, and copies it without a change.
    let raw = judge("skopeo", &format!("inspect --raw oci:{}:t", out.dir.display()));
    assert_eq!(sha256(raw.as_bytes()), report["digest"]);
    let copy = workspace.path("../copy");
    let copying = format!("oci:{}:t oci:{}:t", out.dir.display(), copy.display());
    judge("skopeo", &format!("--insecure-policy copy --quiet --preserve-digests {copying}"));
    assert_eq!(workspace.layout("../copy").digest("t"), report["digest"]);

    // The base's documents are kept, with what is not known to us.
    let (manifest, base_manifest) = (out.manifest("t"), standin.manifest("t"));
    let config = out.json(&manifest["config"]["digest"]);
    let base_config = standin.json(&base_manifest["config"]["digest"]);
    assert_eq!(config["x-vendor"], base_config["x-vendor"]);
    assert_eq!(config["config"].get("X-Unknown"), Some(&Value::Null));
    assert_eq!(config["config"]["StopSignal"], "SIGRTMIN+3");
    assert_eq!(config["config"]["Labels"]["vendor.example"], "kept");
    assert_eq!(config["config"]["Labels"]["containers.bootc"], "1");
    assert_eq!(config["created"], base_config["created"]);
    let start = |value: &Value, count: usize| value.as_array().unwrap()[..count].to_vec();
    assert_eq!(json!(start(&config["history"], 4)), base_config["history"]);
    assert_eq!(config["history"].as_array().unwrap().len(), 6);
    assert_eq!(json!(start(&manifest["layers"], 3)), base_manifest["layers"]);
    assert_eq!(json!(start(&config["rootfs"]["diff_ids"], 3)), base_config["rootfs"]["diff_ids"]);

    let layers = manifest["layers"].as_array().unwrap();
    let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
    assert_eq!((layers.len(), diff_ids.len()), (5, 5));
    let mut paths = BTreeSet::new();
    for (layer, diff_id) in layers.iter().zip(diff_ids).skip(3) {
        let entries = out.entries(layer, diff_id);
        check_entries(&entries);
        paths.extend(entries.into_iter().map(|entry| entry.path));
    }
    assert!(paths.contains("usr/bin/hello"), "{paths:?}");
    assert!(paths.contains("usr/lib/systemd/system/hello.service"), "{paths:?}");
}

#[test]
fn a_push_is_valid_and_a_second_one_sends_nothing() {
    let workspace = Workspace::with_standin();
    for registry in [Registry::docker(), Registry::crane()] {
        let proxy = FaultProxy::before(&registry, |_| Fault::Pass);
        let target = format!("{}/os:t", proxy.address());
        let build = format!("build --base oci:../standin:t --to {target}");
        let digest = workspace.ok(&build);
        judge("crane", &format!("validate --remote {target}"));
        assert_eq!(judge("crane", &format!("digest {target}")).trim(), digest);

        proxy.forget();
        let again = workspace.run(&build);
        assert_eq!(again.stdout.trim(), digest);
        assert!(again.stderr.contains(&format!("{target} is already {digest}")), "{}", again.stderr);
        let lines = proxy.lines();
        assert!(!lines.is_empty() && lines.iter().all(|line| line.starts_with(['G', 'H'])), "{lines:?}");
        let report = workspace.json(&build);
        assert_eq!(report["pushed"]["unchanged"], true);
        assert_eq!(report["pushed"]["sent_bytes"], 0);
    }
}

#[test]
fn layers_come_from_the_registry_of_the_base() {
    let workspace = Workspace::with_standin();
    let standin = format!("oci:{}:t", workspace.path("../standin").display());
    let (docker, crane) = (Registry::docker(), Registry::crane());
    for (from, to) in [(&docker, &crane), (&crane, &docker), (&docker, &docker)] {
        let base = format!("{}/vendor/base:t", from.address());
        skopeo_push(&standin, &base, "");
        let target = format!("{}/os:from-{}", to.address(), from.address().rsplit(':').next().unwrap());
        let report = workspace.json(&format!("build --base {base} --to {target}"));
        judge("crane", &format!("validate --remote {target}"));
        assert_eq!(judge("crane", &format!("digest {target}")).trim(), report["digest"]);
        assert_eq!(report["base"]["reference"], base);
        assert_eq!(report["base"]["digest"], workspace.layout("../standin").digest("t"));
    }
}

#[test]
fn a_change_of_one_app_is_a_change_of_its_layer_only() {
    let workspace = Workspace::with_standin();
    workspace.add_second_app();
    let registry = Registry::docker();
    let build =
        |tag| workspace.json(&format!("build --base oci:../standin:t --to {}/os:{tag}", registry.address()));
    let old = build("v1");
    assert_eq!(names(&old["layers"]), ["base", "base", "base", "os", "hello", "second"]);
    workspace.write("apps/second/main.go", "package main\n\nfunc main() { println(\"two\") }\n");
    let new = build("v2");
    let address = registry.address();
    let diff = workspace.json(&format!("diff {address}/os:v1 {address}/os:v2"));
    assert_eq!(names(&diff["added"]), ["second"]);
    assert_eq!(names(&diff["dropped"]), ["second"]);
    assert_eq!(names(&diff["kept"]), ["base", "base", "base", "os", "hello"]);
    assert_eq!(diff["download"], diff["added"][0]["size"]);
    assert_eq!(diff["added"][0]["digest"], new["layers"][5]["digest"]);
    // A layer and a config.
    assert_eq!(new["pushed"]["uploaded"], 2);
    let reused: Vec<_> = new["layers"].as_array().unwrap().iter().map(|layer| &layer["reused"]).collect();
    assert_eq!(reused, [true, true, true, true, true, false]);
}

#[test]
fn zstd_layers_are_one_frame() {
    let workspace = Workspace::with_standin();
    workspace.ok("build --base oci:../standin:t --to oci:../out:t --compression zstd");
    let out = workspace.layout("../out");
    let manifest = out.manifest("t");
    let config = out.json(&manifest["config"]["digest"]);
    for position in [3, 4] {
        let layer = &manifest["layers"][position];
        assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd");
        check_entries(&out.entries(layer, &config["rootfs"]["diff_ids"][position]));
    }
}

#[test]
fn folder_umask_time_zone_and_language_leave_no_trace() {
    let (one, other) = (Workspace::with_standin(), Workspace::with_standin());
    make_private(&other.path(""));
    let arguments = "build --base oci:../standin:t --to oci:../out:t";
    let expected = one.ok(arguments);
    for (umask, zone, language) in [("077", "Asia/Tokyo", "tr_TR.UTF-8"), ("000", "UTC", "C")] {
        let mut shell = Command::new("sh");
        let script = format!("umask {umask}; exec {} {arguments}", env!("CARGO_BIN_EXE_xtask"));
        other.prepare(shell.arg("-c").arg(script).env("TZ", zone).env("LC_ALL", language));
        let run = Run::new(shell.output().unwrap());
        assert_eq!(run.stdout.trim(), expected, "{}", run.stderr);
        fs::remove_dir_all(other.path("../out")).unwrap();
    }
}

#[test]
fn two_platforms_make_an_index() {
    let workspace = Workspace::with_standin();
    let registry = Registry::docker();
    let target = format!("{}/os:multi", registry.address());
    let build = "build --base oci:../standin:multi --platform linux/amd64,linux/arm64 --to";
    let digest = workspace.ok(&format!("{build} {target}"));
    assert_eq!(workspace.ok(&format!("{build} oci:../out:multi")), digest);
    // In what order the platforms are named, and how often, does not count.
    let twice = "build --base oci:../standin:multi --platform linux/arm64,linux/amd64,linux/arm64 --to";
    assert_eq!(workspace.ok(&format!("{twice} oci:../out:twice")), digest);
    judge("crane", &format!("validate --remote {target}"));
    assert_eq!(judge("crane", &format!("digest {target}")).trim(), digest);

    let out = workspace.layout("../out");
    let index = out.manifest("multi");
    let mut found = Vec::new();
    for child in index["manifests"].as_array().unwrap() {
        let manifest = out.json(&child["digest"]);
        let config = out.json(&manifest["config"]["digest"]);
        assert_eq!(config["architecture"], child["platform"]["architecture"]);
        let entries = out.entries(&manifest["layers"][4], &config["rootfs"]["diff_ids"][4]);
        let binary = entries.iter().find(|entry| entry.path == "usr/bin/hello").unwrap();
        assert_eq!(&binary.content[..4], b"\x7fELF");
        // e_machine of the ELF header.
        let machine = u16::from_le_bytes([binary.content[18], binary.content[19]]);
        found.push((config["architecture"].as_str().unwrap().to_owned(), machine));
    }
    assert_eq!(found, [("amd64".to_owned(), 62), ("arm64".to_owned(), 183)]);
}

#[test]
fn a_docker_base_makes_an_oci_image() {
    let workspace = Workspace::with_standin();
    let registry = Registry::docker();
    let base = format!("{}/base:docker", registry.address());
    workspace.push_standin("t", &base, "--format v2s2");
    assert!(judge("crane", &format!("manifest {base}")).contains("vnd.docker.distribution.manifest.v2"));
    let target = format!("{}/os:t", registry.address());
    workspace.ok(&format!("build --base {base} --to {target}"));
    judge("crane", &format!("validate --remote {target}"));
    let manifest = judge("crane", &format!("manifest {target}"));
    assert!(!manifest.contains("vnd.docker"), "{manifest}");
    assert!(manifest.contains("application/vnd.oci.image.manifest.v1+json"), "{manifest}");
}

#[test]
fn a_plan_compares_with_the_release_before() {
    let workspace = Workspace::with_standin();
    let registry = Registry::docker();
    let dist = format!("dist --distro debian-13 --base oci:../standin:t --image {}/os", registry.address());
    let v1 = workspace.json(&format!("{dist} --push --app-version v1"));
    let plan = workspace.json(&format!("{dist} --push --dry-run --app-version v2"));
    assert_eq!(plan["previous"]["name"], format!("{}/os:debian-13-v1", registry.address()));
    assert_eq!(plan["previous"]["digest"], v1["digest"]);
    let new: Vec<&Value> =
        plan["layers"].as_array().unwrap().iter().filter(|layer| layer["reused"] == false).collect();
    assert_eq!(new.len(), 1, "the app alone carries the version: {plan}");
    assert_eq!(plan["host_download"], new[0]["size"]);
}

#[test]
fn the_commit_says_when_files_differ() {
    let workspace = Workspace::with_standin();
    let revision = || {
        workspace.ok("build --base oci:../standin:t --to oci:../out:t");
        let manifest = workspace.layout("../out").manifest("t");
        manifest["annotations"]["org.opencontainers.image.revision"].as_str().map(str::to_owned)
    };
    assert_eq!(revision(), None, "there is no repository");
    let root = workspace.path("").display().to_string();
    let git =
        |arguments: &str| judge("git", &format!("-C {root} -c user.name=x -c user.email=x@x {arguments}"));
    git("init --quiet");
    assert_eq!(revision(), None, "there is no commit");
    workspace.write(".gitignore", "/target\n");
    git("add .");
    git("commit --quiet -m one");
    let head = git("rev-parse HEAD").trim().to_owned();
    assert_eq!(revision(), Some(head.clone()));
    workspace.write("cosign.pub", "what a command has left\n");
    assert_eq!(revision(), Some(head.clone()));
    workspace.write("configs/tmpfiles.d/new.conf", "d /var/lib/new\n");
    assert_eq!(revision(), Some(format!("{head}-dirty")), "a file that was never added is in the image");
}

#[test]
fn nothing_that_is_secret_is_in_an_image() {
    const SECRET: &str = "planted-s3cret";
    let workspace = Workspace::with_standin();
    for path in [
        ".env",
        ".netrc",
        "id_ed25519",
        "apps/hello/.env",
        "apps/hello/.git/config",
        "apps/hello/id_ed25519",
        "apps/hello/notes.txt",
        "apps/.env",
        "systemd/.env",
        "configs/.env",
        ".cargo/credentials.toml",
    ] {
        workspace.write(path, SECRET);
    }
    let root = workspace.path("").display().to_string();
    let git = |arguments: &str| {
        judge("git", &format!("-C {root} -c user.name=x -c user.email={SECRET}@x {arguments}"))
    };
    git("init --quiet");
    git(&format!("remote add origin https://me:{SECRET}@example.org/os"));
    git(&format!("commit --quiet --allow-empty -m {SECRET}"));
    let mut build =
        workspace.command("build --base oci:../standin:t --to oci:../out:t --app-version v1 --json");
    for name in ["GITHUB_TOKEN", "COSIGN_PASSWORD", "AWS_SECRET_ACCESS_KEY", "GOFLAGS_SECRET"] {
        build.env(name, SECRET);
    }
    let run = Run::new(build.output().unwrap());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(!run.stdout.contains(SECRET) && !run.stderr.contains(SECRET), "{}{}", run.stdout, run.stderr);
    let layout = workspace.layout("../out");
    let manifest = layout.manifest("t");
    let config = layout.json(&manifest["config"]["digest"]);
    assert!(
        !manifest.to_string().contains(SECRET) && !config.to_string().contains(SECRET),
        "{manifest}{config}"
    );
    let layers = manifest["layers"].as_array().unwrap().iter();
    let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
    for (layer, diff_id) in layers.zip(diff_ids) {
        for entry in layout.entries(layer, diff_id) {
            let has_it = entry.content.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
            assert!(!has_it, "{}", entry.path);
        }
    }
}

#[test]
fn empty_variables_are_as_if_they_were_not_set() {
    let workspace = Workspace::with_standin();
    let build = "build --base oci:../standin:t --to oci:../out:t";
    let digest = workspace.ok(build);
    let mut command = workspace.command(build);
    for name in ["BASE_DISTRO", "IMAGE", "VERSION", "SOURCE_DATE_EPOCH"] {
        command.env(name, "");
    }
    let run = Run::new(command.output().unwrap());
    assert_eq!(run.stdout.trim(), digest, "{}", run.stderr);
    let mut command = workspace.command(build);
    let run = Run::new(command.env("SOURCE_DATE_EPOCH", "86400").output().unwrap());
    assert_ne!(run.stdout.trim(), digest, "a variable that is set counts: {}", run.stderr);
    assert_eq!(run.code, Some(0));
}

#[test]
fn dist_reports_what_it_made_and_writes_once() {
    let workspace = Workspace::with_standin();
    let dist = workspace.path("target/dist");
    let plan = workspace.json("dist --base oci:../standin:t --dry-run");
    assert!(!dist.exists(), "a dry run writes nothing");

    let registry = Registry::docker();
    let push =
        format!("dist --distro debian-13 --base oci:../standin:t --push --image {}/os", registry.address());
    let mut report = workspace.json(&push);
    let file: Value = serde_json::from_slice(&fs::read(dist.join("dist.json")).unwrap()).unwrap();
    assert_eq!(report["digest"], plan["digest"]);
    assert_eq!(report["reference"], "oci:target/dist/oci:debian-13-dev");
    assert_eq!(report["media_type"], "application/vnd.oci.image.manifest.v1+json");
    let layout = workspace.layout("target/dist/oci");
    assert_eq!(report["digest"], layout.digest("debian-13-dev"));
    assert_eq!(report["base"]["digest"], workspace.layout("../standin").digest("t"));
    assert_eq!(report["platforms"][0]["platform"], format!("linux/{}", host_architecture()));
    for layer in report["layers"].as_array().unwrap() {
        let keys: Vec<_> = layer.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["name", "digest", "diff_id", "size", "reused"]);
        assert_eq!(layer["reused"], layer["name"] == "base");
    }

    let before = fingerprint(&dist);
    let again = workspace.json(&push);
    assert_eq!(again["digest"], report["digest"]);
    assert!(again["layers"].as_array().unwrap().iter().all(|layer| layer["reused"] == true));
    assert_eq!(again["pushed"]["unchanged"], true);
    assert_eq!(fingerprint(&dist), before, "a second run writes nothing");

    // dist.json says what was made, and not what one run had to do for it.
    let platforms = report["platforms"].as_array_mut().unwrap();
    let mut lists: Vec<Value> = platforms.iter_mut().map(|platform| platform["layers"].take()).collect();
    lists.push(report["layers"].take());
    for layer in lists.iter_mut().flat_map(|list| list.as_array_mut().unwrap()) {
        layer.as_object_mut().unwrap().remove("reused");
    }
    report["layers"] = lists.pop().unwrap();
    report["platforms"][0]["layers"] = lists.pop().unwrap();
    let target = format!("{}/os:debian-13-dev", registry.address());
    report["pushed"] = json!({"reference": target, "digest": report["digest"]});
    assert_eq!(report, file);
    workspace.ok("dist --base oci:../standin:t --dry-run --app-version v2");
    assert_eq!(fingerprint(&dist), before, "a dry run writes nothing");
}
