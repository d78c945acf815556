//! Releases: versions that are put once, whoever else puts some.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use insta::assert_snapshot;

use crate::harness::{Workspace, judge};
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
