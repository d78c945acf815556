//! The workflows, held against the programs that read them, README and the commands; and their jobs,
//! run here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Workspace, copy, host_architecture, judge};
use crate::jobs::{Runner, jobs_with_scripts, repository, workflows};
use crate::root;
use crate::testing::{Registry, program};

/// What a linter says of `.github` in `dir`, and whether it is content.
fn lint(dir: &Path, name: &str) -> (bool, String) {
    let mut command = Command::new(program(name));
    command.current_dir(dir);
    if name == "zizmor" {
        command.args(["--offline", "--pedantic", "--no-progress", "--format", "plain", ".github"]);
    } else {
        // It runs shellcheck, too, where it finds it.
        command.arg("-shellcheck").arg(program("shellcheck"));
        let files = fs::read_dir(dir.join(".github/workflows")).unwrap();
        command.args(files.map(|file| file.unwrap().path()));
    }
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.success(), text)
}

#[test]
fn linters_are_content_and_would_not_be_with_faults() {
    let workspace = Workspace::new();
    let dir = workspace.path("");
    let fresh = || copy(&repository().join(".github"), &dir.join(".github"));
    fresh();
    for linter in ["actionlint", "zizmor"] {
        let (is_content, text) = lint(&dir, linter);
        assert!(is_content, "{linter}: {text}");
    }
    let faults = [
        ("actionlint", "release.yml", "steps.push.outputs.digest", "steps.psuh.outputs.digest", "\"psuh\""),
        ("actionlint", "build-base.yml", "base \"$DISTRO\" --push", "base $DISTRO --push", "SC2086"),
        (
            "zizmor",
            "build-base.yml",
            "base \"$DISTRO\" --push",
            "base ${{ inputs.distro }}",
            "template-injection",
        ),
        ("zizmor", "ci.yml", "@08c6903cd8c0fde910a37f88322edcfb5dd907a8 # v5.0.0", "@v5", "unpinned-uses"),
        ("zizmor", "pins.yml", "permissions: {}", "permissions: write-all", "excessive-permissions"),
    ];
    for (linter, file, good, bad, expected) in faults {
        let path = dir.join(".github/workflows").join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(good), "{file} has no {good}");
        fs::write(&path, text.replace(good, bad)).unwrap();
        let (is_content, text) = lint(&dir, linter);
        assert!(!is_content && text.contains(expected), "{linter} of {bad}: {text}");
        fresh();
    }
}

fn objects<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    value[key].as_object().into_iter().flatten()
}

/// What no linter looks at.
#[test]
fn jobs_have_bounds() {
    let mut groups = BTreeMap::new();
    for (workflow, content) in workflows() {
        let is_called = content["on"]["workflow_call"].is_object();
        assert!(content["permissions"].as_object().is_some_and(|all| all.is_empty()), "{workflow}");
        // A called workflow runs in its caller's group: with one of that name it waits for itself.
        assert_eq!(content["concurrency"].is_null(), is_called, "{workflow}");
        let mut take = |owner: &str, concurrency: &Value| {
            if let Some(group) = concurrency["group"].as_str() {
                assert_eq!(groups.insert(group.to_owned(), owner.to_owned()), None, "{group} of {owner}");
                // What pushes is not cut off.
                let cancels = concurrency["cancel-in-progress"].clone();
                assert_eq!(cancels != false, workflow == "ci", "{owner}");
            }
        };
        take(&workflow, &content["concurrency"]);
        for (name, job) in objects(&content, "jobs") {
            let name = format!("{workflow}/{name}");
            take(&name, &job["concurrency"]);
            assert!(job["permissions"].as_object().is_some_and(|some| !some.is_empty()), "{name}");
            let is_call = job["uses"].is_string();
            assert_eq!(job["timeout-minutes"].is_u64(), !is_call, "{name}: a call has its jobs' bounds");
            if let Some(fail_fast) = job.get("strategy").map(|strategy| &strategy["fail-fast"]) {
                assert_eq!(*fail_fast, false, "{name}: one distro's trouble is not another's");
            }
            let mut is_set_up = false;
            for step in job["steps"].as_array().into_iter().flatten() {
                is_set_up |= step["uses"] == "./.github/actions/setup";
                let script = step["run"].as_str().unwrap_or_default();
                assert!(is_set_up || !script.contains("cargo "), "{name}: {script}");
                // What is released was compiled from what is checked out.
                assert!(step["with"]["cache"].is_null() || workflow == "ci", "{name}");
                if step["uses"].as_str().is_some_and(|uses| uses.starts_with("actions/checkout@")) {
                    assert_eq!(step["with"]["persist-credentials"], false, "{name}");
                }
            }
        }
    }
}

/// Every call of ours in a script is one that the program understands, and README names every workflow.
#[test]
fn workflows_commands_and_readme_agree() {
    let workspace = Workspace::new();
    let mut verbs = BTreeSet::new();
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let mut rows: BTreeSet<&str> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once(".yml` | "))
        .map(|row| row.0)
        .collect();
    for (workflow, content) in workflows() {
        assert!(rows.remove(&*workflow), "README's table has no {workflow}.yml");
        for path in content["on"]["push"]["paths"].as_array().into_iter().flatten() {
            let folder = path.as_str().unwrap().strip_suffix("/**").unwrap();
            assert!(repository().join(folder).is_dir(), "{workflow}: {folder}");
        }
        for (_, job) in objects(&content, "jobs") {
            for step in job["steps"].as_array().into_iter().flatten() {
                let script = step["run"].as_str().unwrap_or_default().replace("\\\n", " ");
                for line in script.lines().filter_map(|line| line.split_once("cargo xtask ")) {
                    let call = line.1.split(['|', '>']).next().unwrap();
                    let mut words = call.split_whitespace();
                    let verb = words.next().unwrap();
                    let help = workspace.ok(&format!("{verb} --help"));
                    for flag in words.filter(|word| word.starts_with("--")) {
                        assert!(
                            help.contains(&format!("{flag} ")) || help.contains(&format!("{flag}\n")),
                            "{verb} {flag}"
                        );
                    }
                    verbs.insert(verb.to_owned());
                }
            }
        }
    }
    assert_eq!(rows, BTreeSet::new(), "README names workflows that are not there");
    assert!(verbs.iter().eq(["base", "dist", "list", "pack", "tags", "test"]), "{verbs:?}");
}

/// From a base to a second release, in the order in which GitHub runs the jobs: `cargo xtask` is real,
/// and so is the registry. What only GitHub and Sigstore have stands in (`jobs.rs`).
#[test]
fn the_jobs_run_here() {
    let workspace = Workspace::with_standin();
    let registry = Registry::docker();
    let image = format!("{}/me/os", registry.address());
    let platform = format!("linux/{}", host_architecture());
    follow_a_registry(&workspace, &registry);
    // What the tests have is as good as one that is made here.
    copy(&root::base().layout.dir, &workspace.path("target/base/debian-13"));
    let mut runner = Runner::new(&workspace);
    let platforms = format!("[\"{platform}\"]");
    runner.set(&[
        ("github.token", "nobody's"),
        ("github.repository", "me/os"),
        ("github.ref_name", "main"),
        ("inputs.distro", "debian-13"),
        ("inputs.formats", ""),
        ("inputs.platforms", &platforms),
        ("join(fromJSON(inputs.platforms), ',')", &platform),
        ("inputs.image", &image),
        ("vars.IMAGE", &image),
        ("matrix.distro", "debian-13"),
        ("matrix.platform", &platform),
    ]);

    runner.run_action("setup");
    assert_eq!(
        runner.calls(),
        [
            "rustup toolchain install stable --profile minimal --component clippy,rustfmt",
            "rustup default stable",
            "sudo sysctl --write kernel.apparmor_restrict_unprivileged_userns=0",
        ]
    );

    // Before its base, it waits.
    let summary = runner.run("build-bootc", "plan");
    assert_eq!(summary, "debian-13 waits for its base, which build-base makes.\n");
    assert_eq!(runner.values["needs.plan.outputs.releases"], "{\"include\":[]}");
    let formats = runner.failure("build-bootc", "plan", ("inputs.formats", "qcow2 qcow3"));
    let expected = "no format is called qcow3: there are raw, ami, qcow2, vmdk, vhd, gce, ova, iso";
    assert!(formats.contains(expected), "{formats}");

    runner.run("build-base", "plan");
    let bases: Value = serde_json::from_str(&runner.values["needs.plan.outputs.bases"]).unwrap();
    let bases: Vec<&str> =
        bases["include"].as_array().unwrap().iter().map(|base| base["platform"].as_str().unwrap()).collect();
    assert_eq!(bases, ["linux/amd64", "linux/arm64"]);
    runner.run("build-base", "base");
    runner.run("build-base", "apps");
    assert_eq!(runner.calls(), ["gh workflow run build-bootc.yml --ref main --field distro=debian-13"]);

    let summary = runner.run("build-bootc", "plan");
    assert_eq!(summary, "");
    assert_eq!(runner.values["needs.plan.outputs.image"], image);
    assert_eq!(runner.values["needs.plan.outputs.formats"], "qcow2");
    let releases = "{\"include\":[{\"distro\":\"debian-13\",\"platforms\":\"[\\\"linux/amd64\\\",\\\"linux/arm64\\\"]\"}]}";
    assert_eq!(runner.values["needs.plan.outputs.releases"], releases);
    runner.set(&[("inputs.formats", "qcow2 vhd")]);
    runner.run("release", "image");
    let signed = |digest: &str| format!("cosign sign --yes --recursive {image}@{digest}");
    let login = format!("cosign login {} --username somebody --password-stdin", registry.address());
    let v1 = runner.values["needs.image.outputs.digest"].clone();
    assert_eq!(runner.values["needs.image.outputs.version"], "v1");
    assert_eq!(runner.calls(), [login.clone(), signed(&v1)]);
    runner.run("release", "disks");
    let calls = runner.calls();
    assert!(calls[0].starts_with("sudo rm -rf /opt/ghc ") && calls[1] == login, "{calls:#?}");
    let disks = ["qcow2", "vhd"].map(|format| {
        let disk = workspace.json(&format!("inspect {image}:debian-13-{format}-v1"));
        format!("cosign sign --yes {image}@{}", disk["digest"].as_str().unwrap())
    });
    assert_eq!(calls[2..], disks);
    check_release(&workspace, &image, "v1", &["qcow2", "vhd"]);
    let summary = runner.run("release", "summary");
    assert_eq!(
        summary,
        format!(
            "## debian-13 v1\n\n`{image}:debian-13-v1` is `{v1}`.\n\n```\nbootc switch {image}:debian-13-v1\n\
             cargo xtask pull {image}:debian-13-qcow2-v1\npodman pull {image}:debian-13-qcow2-v1\n\
             cargo xtask pull {image}:debian-13-vhd-v1\npodman pull {image}:debian-13-vhd-v1\n```\n"
        )
    );

    // An app's change: what a pull request says of it is what hosts download then.
    let main = workspace.path("apps/hello/main.go");
    let text = fs::read_to_string(&main).unwrap();
    fs::write(main, text.replace("Hello World", "Good morning")).unwrap();
    let summary = runner.run("ci", "upgrade");
    assert!(summary.starts_with("## What hosts would download\n```\n"), "{summary}");
    assert!(summary.contains("hello"), "{summary}");
    runner.run("ci", "test");
    assert_eq!(runner.calls(), ["sudo chmod --changes a+rw /dev/kvm"]);
    runner.run("release", "image");
    assert_eq!(runner.values["needs.image.outputs.version"], "v2");
    let diff = workspace.json(&format!("diff {image}:debian-13-v1 {image}:debian-13-v2"));
    let added: Vec<&Value> = diff["added"].as_array().unwrap().iter().map(|layer| &layer["name"]).collect();
    assert_eq!(added, ["hello"]);
    runner.calls();
    runner.run("release", "disks");
    runner.calls();
    check_release(&workspace, &image, "v2", &["qcow2", "vhd"]);

    runner.run("pins", "pins");
    let calls = runner.calls();
    assert_eq!(calls[0], "gh auth setup-git");
    assert_eq!(
        calls[2],
        "gh pr create --head pins --title base: pins of today's upstreams --body-file pins.txt"
    );
    let git = |arguments: &str| git(&workspace, arguments);
    assert_eq!(git("diff --name-only origin/main origin/pins"), "base/centos/stream10/distro.toml\n");
    assert_eq!(calls[3..], ["gh workflow run ci.yml --ref pins"]);
    // On the branch, all is as its upstreams are.
    runner.run("pins", "pins");
    assert_eq!(runner.calls(), [""; 0]);

    runner.run("retention", "untagged");
    let package =
        ["owner", "package"].map(|key| runner.values[&format!("steps.image.outputs.{key}")].clone());
    assert_eq!(package, ["me", "os"]);
    assert_eq!(runner.done, jobs_with_scripts());
}

/// The release names the image and its disks, by the digests that their tags have, and so does its file.
fn check_release(workspace: &Workspace, image: &str, version: &str, formats: &[&str]) {
    let mut tags = vec![format!("debian-13-{version}")];
    tags.extend(formats.iter().map(|format| format!("debian-13-{format}-{version}")));
    let digest = |tag: &str| judge("crane", &format!("digest {image}:{tag}")).trim_end().to_owned();
    let digests: Vec<String> = tags.iter().map(|tag| digest(tag)).collect();
    let release = format!("release-debian-13-{version}");
    let index: Value = serde_json::from_str(&judge("crane", &format!("manifest {image}:{release}"))).unwrap();
    let named: Vec<&Value> =
        index["manifests"].as_array().unwrap().iter().map(|entry| &entry["digest"]).collect();
    assert_eq!(named, digests.iter().collect::<Vec<_>>());
    let exported = workspace.json(&format!("export {image}:debian-13-{version} -o ../{release}.tar"));
    let exported: BTreeMap<&str, &str> = exported["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|image| (image["tag"].as_str().unwrap(), image["digest"].as_str().unwrap()))
        .collect();
    assert_eq!(exported[&*release], digest(&release));
    for (tag, digest) in tags.iter().zip(&digests) {
        assert_eq!(exported[&**tag], digest);
    }
    // And a program that is not ours finds them in the file.
    for tag in &tags {
        let file = workspace.path(&format!("../{release}.tar"));
        judge("skopeo", &format!("inspect --raw oci-archive:{}:{tag}", file.display()));
    }
    fs::remove_file(workspace.path(&format!("../{release}.tar"))).unwrap();
}

/// The workspace as a checkout, with an origin, and with one upstream, which is in the registry.
fn follow_a_registry(workspace: &Workspace, registry: &Registry) {
    for other in ["base/fedora", "base/centos/stream9"] {
        fs::remove_dir_all(workspace.path(other)).unwrap();
    }
    workspace.push_standin("t", &format!("{}/centos-bootc:stream10", registry.address()), "");
    let toml = fs::read_to_string(workspace.path("base/centos/stream10/distro.toml")).unwrap();
    let upstream = "quay.io/centos-bootc/centos-bootc:stream10";
    assert!(toml.contains(upstream), "{toml}");
    let here = format!("{}/centos-bootc:stream10", registry.address());
    workspace.write("base/centos/stream10/distro.toml", &toml.replace(upstream, &here));
    let settings = fs::read_to_string(workspace.path("Cargo.toml")).unwrap();
    workspace.write("Cargo.toml", &format!("{settings}formats = [\"qcow2\"]\n"));
    workspace.write(".gitignore", "/target\n/*.json\n/*.txt\n");
    git(workspace, "init --quiet --bare ../origin");
    git(workspace, "init --quiet --initial-branch main");
    git(workspace, "add .");
    git(workspace, "-c user.name=me -c user.email=me@example.org commit --quiet --message all");
    git(workspace, "remote add origin ../origin");
    git(workspace, "push --quiet origin main");
}

fn git(workspace: &Workspace, arguments: &str) -> String {
    let mut command = Command::new(program("git"));
    command.args(arguments.split(' '));
    workspace.prepare(&mut command);
    let output = command.output().unwrap();
    assert!(output.status.success(), "git {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
