//! Releases: versions that are put once, whoever else puts some.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::harness::{REF_NAME, Workspace, host_architecture, judge};
use crate::testing::{Fault, FaultProxy, Registry, answer};

/// The tags of releases, and of what moves with them.
fn tags(image: &str) -> Vec<String> {
    let all = judge("crane", &format!("ls {image}"));
    // Claims, and lists of referrers.
    let is_for_people = |tag: &&str| !tag.starts_with("_claim-") && !tag.starts_with("sha256-");
    let mut tags: Vec<String> = all.lines().filter(is_for_people).map(str::to_owned).collect();
    tags.sort();
    tags
}

fn digest(reference: &str) -> String {
    judge("crane", &format!("digest {reference}")).trim_end().to_owned()
}

fn push(image: &str, version: &str) -> String {
    format!("build --distro debian-13 --base oci:../standin:t --push --image {image} --app-version {version}")
}

#[test]
fn the_next_version_is_counted_and_none_changes() {
    let workspace = Workspace::with_standin();
    let registry = Registry::docker();
    let image = format!("{}/me/os", registry.address());
    let released = |report: serde_json::Value| report["pushed"]["reference"].as_str().unwrap().to_owned();
    assert_eq!(released(workspace.json(&push(&image, "next"))), format!("{image}:debian-13-v1"));
    assert_eq!(released(workspace.json(&push(&image, "v9"))), format!("{image}:debian-13-v9"));
    assert_eq!(released(workspace.json(&push(&image, "next"))), format!("{image}:debian-13-v10"));
    let last = workspace.json(&push(&image, "next"));
    assert_eq!(digest(&format!("{image}:debian-13-v11")), last["digest"]);
    assert_eq!(digest(&format!("{image}:debian-13-latest")), last["digest"]);
    let all = ["debian-13-latest", "debian-13-v1", "debian-13-v10", "debian-13-v11", "debian-13-v9"];
    assert_eq!(tags(&image), all);

    // The same again is the same; another under its name is refused, before anything is sent.
    let v9 = digest(&format!("{image}:debian-13-v9"));
    workspace.ok(&push(&image, "v9"));
    assert_eq!(digest(&format!("{image}:debian-13-latest")), last["digest"], "it moves forward only");
    let error = workspace.failure(&format!("{} --compression zstd", push(&image, "v9")));
    assert!(error.contains("debian-13-v9 is released, as sha256:"), "{error}");
    assert!(error.ends_with("choose another, such as '--app-version next'\n"), "{error}");
    assert_eq!(digest(&format!("{image}:debian-13-v9")), v9);
    assert_eq!(tags(&image), all);
}

#[test]
fn an_error_is_not_no_version() {
    let workspace = Workspace::with_standin();
    let registry = Registry::docker();
    let image = format!("{}/me/os", registry.address());
    workspace.ok(&push(&image, "v1"));
    let proxy = FaultProxy::before(&registry, |seen| match seen.path().contains("/tags/list") {
        true => Fault::Answer(answer("404 Not Found", &[], b"{\"errors\":[{\"code\":\"NOT_FOUND\"}]}")),
        false => Fault::Pass,
    });
    let through = format!("{}/me/os", proxy.address());
    assert_snapshot!(workspace.failure(&push(&through, "next")), @"
    error: asking 127.0.0.1:PORT/me/os which version is the last: GET http://127.0.0.1:PORT/v2/me/os/tags/list: 404 Not Found: NOT_FOUND
    hint: name the version: '--app-version v1'
    hint: check the name
    ");
    assert_eq!(tags(&image), ["debian-13-latest", "debian-13-v1"]);
}

#[test]
fn the_commits_tag_is_the_version() {
    let workspace = Workspace::with_standin();
    let root = workspace.path("").display().to_string();
    let git =
        |arguments: &str| judge("git", &format!("-C {root} -c user.name=x -c user.email=x@x {arguments}"));
    let build = "build --base oci:../standin:t --to oci:../out --app-version git";
    assert!(workspace.failure(build).contains("is no git checkout"));
    git("init --quiet");
    workspace.write(".gitignore", "/target\n");
    git("add .");
    git("commit --quiet -m one");
    assert_snapshot!(workspace.failure(build), @"
    error: the commit that is checked out has no tag
    hint: give it one, 'git tag v1', or name the version: '--app-version v1'
    ");
    git("tag v1.9.0");
    git("tag v1.10.0");
    let report = workspace.json(build);
    assert!(report["reference"].as_str().unwrap().ends_with(":debian-13-v1.10.0"), "{report}");
    workspace.write("configs/tmpfiles.d/new.conf", "d /var/lib/new\n");
    assert_snapshot!(workspace.failure(build), @"
    error: files differ from the commit that has the tag v1.10.0
    hint: 'git status' lists them; or name another version: '--app-version v1'
    ");
}

/// The worst that can happen: a whole run ends well just before another puts its tag.
#[test]
fn two_runs_never_both_have_one_number() {
    let workspace = Arc::new(Workspace::with_standin());
    let other = Arc::new(Workspace::with_standin());
    let registry = Registry::docker();
    let image = format!("{}/me/os", registry.address());
    let (inner, direct) = (other.clone(), image.clone());
    let ran = Arc::new(AtomicBool::new(false));
    let proxy = FaultProxy::before(&registry, move |seen| {
        if seen.method == "PUT" && seen.path().ends_with("/debian-13-v1") && !ran.swap(true, Ordering::SeqCst)
        {
            inner.ok(&format!("{} --compression zstd", push(&direct, "next")));
        }
        Fault::Pass
    });
    let through = format!("{}/me/os", proxy.address());
    let error = workspace.failure(&push(&through, "next"));
    assert_snapshot!(error, @"
    error: another run has taken debian-13-v1 while this one worked
    hint: run the command again, for the number behind it
    ");
    // What the other run released is what the tags name.
    let released = other.json(&format!("{} --compression zstd", push(&image, "v1")));
    assert_eq!(digest(&format!("{image}:debian-13-v1")), released["digest"]);
    assert_eq!(digest(&format!("{image}:debian-13-latest")), released["digest"]);
    // And the next one has the next number.
    workspace.ok(&push(&image, "next"));
    assert_eq!(tags(&image), ["debian-13-latest", "debian-13-v1", "debian-13-v2"]);
}

/// A workspace and a registry with the image `debian-13-v1`, and disks of it that are in no registry yet.
fn with_image_and_disks() -> (Workspace, Registry, String) {
    let workspace = Workspace::with_standin();
    let registry = Registry::docker();
    let image = format!("{}/me/os", registry.address());
    workspace.ok(&push(&image, "v1"));
    fs::write(workspace.path("../os.raw"), vec![7; 3 << 20]).unwrap();
    workspace.ok("disk qcow2 vhd raw --from ../os.raw --name debian-13-v1 --output ../disks");
    (workspace, registry, image)
}

fn pack(image: &str, format: &str) -> String {
    format!(
        "pack ../disks/debian-13-v1.{format} --from {image}:debian-13-v1 --to {image}:debian-13-{format}-v1"
    )
}

/// The tags that the release names, each with what it says that it is for, and that all are there.
fn released(image: &str) -> Vec<String> {
    let index = format!("{image}:release-debian-13-v1");
    judge("crane", &format!("validate --fast --remote {index}"));
    let index: Value = serde_json::from_str(&judge("crane", &format!("manifest {index}"))).unwrap();
    assert_eq!(index["subject"]["digest"], digest(&format!("{image}:debian-13-v1")));
    let name = |entry: &Value| {
        let tag = entry["annotations"][REF_NAME].as_str().unwrap();
        let platform = entry["platform"]["architecture"].as_str();
        let of_platform = platform.map_or(String::new(), |name| format!(" --platform linux/{name}"));
        let named = judge("crane", &format!("digest {image}:{tag}{of_platform}"));
        assert_eq!(entry["digest"], named.trim_end(), "{tag}");
        platform.map_or(tag.to_owned(), |platform| format!("{tag} {platform}"))
    };
    index["manifests"].as_array().unwrap().iter().map(name).collect()
}

#[test]
fn disks_that_come_later_are_in_the_release() {
    let (workspace, registry, image) = with_image_and_disks();
    let here = host_architecture();
    let report = workspace.json(&pack(&image, "qcow2"));
    let release = format!("{image}:release-debian-13-v1");
    assert_eq!(report["releases"], json!([{"reference": release, "digest": digest(&release)}]));
    assert_eq!(released(&image), ["debian-13-v1".to_owned(), format!("debian-13-qcow2-v1 {here}")]);
    // With '--push', as jobs do it.
    let later = "pack ../disks/debian-13-v1.vhd --to oci:../out";
    workspace.ok(&format!("{later} --from {image}:debian-13-v1 --push --image {image}"));
    let both = ["debian-13-v1".to_owned()]
        .into_iter()
        .chain(["qcow2", "vhd"].map(|format| format!("debian-13-{format}-v1 {here}")));
    let both: Vec<String> = both.collect();
    assert_eq!(released(&image), both);

    // Again, no tag is put.
    let proxy = FaultProxy::before(&registry, |_| Fault::Pass);
    let through = format!("{}/me/os", proxy.address());
    workspace.ok(&format!("{later} --from {image}:debian-13-v1 --push --image {through}"));
    assert!(
        !proxy.lines().iter().any(|line| line.starts_with("PUT ") && line.ends_with("-v1")),
        "{:?}",
        proxy.lines()
    );

    // What is another image's, or nobody knows whose, is not in it.
    workspace.ok(&format!("{} --compression zstd", push(&image, "v2")));
    let before = tags(&image);
    let other =
        format!("pack ../disks/debian-13-v1.raw --from {image}:debian-13-v2 --to {image}:debian-13-raw-v1");
    assert_snapshot!(workspace.failure(&other), @"
    error: 127.0.0.1:PORT/me/os:debian-13-v1 is released, as sha256:HEX, and 127.0.0.1:PORT/me/os:debian-13-raw-v1 is of sha256:HEX
    hint: make the disk of that image: '--from 127.0.0.1:PORT/me/os:debian-13-v1'
    ");
    assert_eq!(tags(&image), before);
    let unknown = workspace.run(&format!("pack ../disks/debian-13-v1.raw --to {image}:debian-13-raw-v1"));
    assert_eq!(unknown.code, Some(0), "{}", unknown.stderr);
    assert!(
        unknown.stderr.contains("so the release does not name it; '--from' says it"),
        "{}",
        unknown.stderr
    );
    assert_eq!(released(&image), both);
}

/// The worst that can happen: just before a machine puts a tag, another one writes all of its own, and the
/// first one's tag is without it.
#[test]
fn machines_that_push_disks_at_once_lose_none() {
    let (workspace, registry, image) = with_image_and_disks();
    let (workspace, direct) = (Arc::new(workspace), image.clone());
    // A disk of another platform, under the same tag.
    let (here, there) = match host_architecture() {
        "arm64" => ("arm64", "amd64"),
        here => (here, "arm64"),
    };
    workspace.ok(&format!("pack ../disks/debian-13-v1.qcow2 --from {image}:debian-13-v1 --to {image}:made"));
    judge("crane", &format!("mutate {image}:made --set-platform linux/{there} -t {image}:other"));
    let (inner, count) = (workspace.clone(), Arc::new(AtomicUsize::new(0)));
    let runs = count.clone();
    let proxy = FaultProxy::before(&registry, move |seen| {
        if seen.method == "PUT" && seen.earlier == 0 && seen.path().ends_with("/debian-13-qcow2-v1") {
            judge("crane", &format!("tag {direct}:other debian-13-qcow2-v1"));
            inner.ok(&pack(&direct, "vhd"));
            runs.fetch_add(1, Ordering::SeqCst);
        }
        if seen.method == "PUT" && seen.earlier == 0 && seen.path().ends_with("/release-debian-13-v1") {
            inner.ok(&pack(&direct, "raw"));
            runs.fetch_add(1, Ordering::SeqCst);
        }
        Fault::Pass
    });
    let through = pack(&format!("{}/me/os", proxy.address()), "qcow2");
    workspace.ok(&through.replacen(proxy.address(), registry.address(), 1));
    assert_eq!(count.load(Ordering::SeqCst), 2);
    let mut all = released(&image);
    all.sort();
    let disk = |format: &str, platform: &str| format!("debian-13-{format}-v1 {platform}");
    let mut expected = vec![
        "debian-13-v1".to_owned(),
        disk("qcow2", here),
        disk("qcow2", there),
        disk("raw", here),
        disk("vhd", here),
    ];
    expected.sort();
    assert_eq!(all, expected);
}
