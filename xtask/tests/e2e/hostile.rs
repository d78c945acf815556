//! What strangers write: it passes for nothing but what it is, and nothing that a terminal obeys comes
//! through.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{INDEX, Layout, MANIFEST, REF_NAME, Run, Workspace, host_architecture, judge, sha256};
use crate::testing::{Fault, FaultProxy, Registry, answer, program};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CYCLONEDX: &str = "application/vnd.cyclonedx+json";
/// Clears the screen, sets the window's title, goes up a line, ends ours and begins another, and turns the
/// direction of writing.
const WORDS: &str =
    "a\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}1A\rb\nhint: run 'evil'\u{85}\u{202e}c\u{2028}d\u{7f}";

/// Nothing is left of them but letters, on a line of ours.
fn assert_harmless(what: &str, run: &Run) {
    for text in [&run.stdout, &run.stderr] {
        let unfit = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202e}' | '\u{2028}');
        assert!(!text.contains(unfit), "{what}: {text:?}");
        assert!(!text.lines().any(|line| line.starts_with("hint: run 'evil'")), "{what}: {text}");
    }
}

/// A layout with one image, `t`, whose documents are changed before they are written.
fn layout(workspace: &Workspace, name: &str, change: impl FnOnce(&mut Value, &mut Value)) -> Layout {
    let layout = Layout::create(&workspace.path(&format!("../{name}")));
    let layer = layout.put(b"layer", LAYER);
    let mut config = json!({
        "created": "2025-01-02T03:04:05Z", "os": "linux", "architecture": host_architecture(),
        "config": {"Labels": {"containers.bootc": "1"}},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        "history": [{"created_by": "bootc-testboot layer app"}],
    });
    let mut manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": [layer]});
    change(&mut config, &mut manifest);
    manifest["config"] = layout.put(config.to_string().as_bytes(), CONFIG);
    let media_type = manifest["mediaType"].as_str().unwrap_or(MANIFEST).to_owned();
    let mut entry = layout.put(manifest.to_string().as_bytes(), &media_type);
    entry["annotations"] = json!({REF_NAME: "t"});
    write_index(&layout, &[entry]);
    layout
}

fn write_index(layout: &Layout, entries: &[Value]) {
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    fs::write(layout.dir.join("index.json"), index.to_string()).unwrap();
}

#[test]
fn a_terminal_obeys_no_image() {
    let workspace = Workspace::with_standin();
    layout(&workspace, "words", |config, manifest| {
        config["created"] = json!(WORDS);
        config["history"][0]["created_by"] = json!(format!("bootc-testboot layer {WORDS}"));
        manifest["annotations"] = json!({WORDS: WORDS});
    });
    let text = workspace.run("inspect oci:../words:t");
    assert_harmless("inspect", &text);
    assert_eq!(text.code, Some(0), "{}", text.stderr);
    assert!(text.stdout.contains("b hint: run 'evil'"), "{}", text.stdout);
    let shown = workspace.run("inspect oci:../words:t --json");
    assert_harmless("inspect --json", &shown);
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(shown["annotations"][WORDS], WORDS, "JSON says what is there");
    for run in [
        "diff oci:../words:t oci:../words:t",
        "diff oci:../standin:t oci:../words:t",
        "export oci:../words:t -o ../words.tar --force",
    ] {
        let run_of = workspace.run(run);
        assert_eq!(run_of.code, Some(0), "{run}: {}", run_of.stderr);
        assert_harmless(run, &run_of);
    }

    let change = |change: &dyn Fn(&mut Value, &mut Value)| {
        layout(&workspace, "evil", change);
        for run in [
            "inspect oci:../evil:t",
            "diff oci:../evil:t oci:../evil:t",
            "pull oci:../evil:t",
            "build --base oci:../evil:t --to oci:../out:t",
            "export oci:../evil:t -o ../evil.tar --force",
        ] {
            assert_harmless(run, &workspace.run(run));
        }
    };
    change(&|config, _| config["os"] = json!(WORDS));
    change(&|config, _| config["architecture"] = json!(WORDS));
    change(&|config, _| config["rootfs"]["diff_ids"] = json!([WORDS]));
    change(&|config, _| config["config"]["Labels"]["ostree.final-diffid"] = json!(WORDS));
    change(&|_, manifest| manifest["layers"][0]["mediaType"] = json!(WORDS));
    change(&|_, manifest| manifest["layers"][0]["digest"] = json!(WORDS));
    change(&|_, manifest| manifest["mediaType"] = json!(WORDS));
    change(&|_, manifest| manifest["schemaVersion"] = json!(WORDS));
    let disk = |key: &'static str| {
        move |_: &mut Value, manifest: &mut Value| {
            manifest["annotations"] = json!({
                "bootc-testboot.disk.format": "raw", "bootc-testboot.disk.size": "5",
                "bootc-testboot.disk.virtual-size": "5", "org.opencontainers.image.title": "os.raw",
                "bootc-testboot.disk.sha256": "0".repeat(64), "bootc-testboot.image.digest": sha256(b"x"),
            });
            manifest["annotations"][key] = json!(WORDS);
        }
    };
    for key in ["disk.format", "disk.size", "disk.virtual-size", "disk.sha256", "image.name", "distro"] {
        change(&disk(format!("bootc-testboot.{key}").leak()));
    }
    change(&disk("org.opencontainers.image.title"));
    // What a layout calls its images.
    let evil = layout(&workspace, "evil", |_, _| ());
    let mut entry =
        json!({"mediaType": MANIFEST, "digest": sha256(b""), "size": 1, "annotations": {REF_NAME: WORDS}});
    write_index(&evil, &[entry.clone(), entry.clone()]);
    assert_harmless("inspect", &workspace.run("inspect oci:../evil:t"));
    assert_harmless("inspect", &workspace.run("inspect oci:../evil"));
    entry["digest"] = json!(WORDS);
    entry["annotations"] = json!({REF_NAME: "t", "bootc-testboot.base-layers-in": WORDS});
    write_index(&evil, &[entry]);
    assert_harmless("inspect", &workspace.run("inspect oci:../evil:t"));
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes()[..WORDS.len()].copy_from_slice(WORDS.as_bytes());
    header.set_size(0);
    header.set_cksum();
    tar.append(&header, &b""[..]).unwrap();
    fs::write(workspace.path("../evil.tar"), tar.into_inner().unwrap()).unwrap();
    let run = workspace.run("import ../evil.tar --to 127.0.0.1:1/x");
    assert!(run.stderr.contains("has no place in it"), "{}", run.stderr);
    assert_harmless("import", &run);
}

#[test]
fn a_terminal_obeys_no_registry() {
    let workspace = Workspace::with_standin();
    let said = json!({"errors": [{"code": "DENIED", "message": WORDS, "detail": WORDS}]}).to_string();
    let types = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {"mediaType": MANIFEST, "digest": sha256(b""), "size": 1, "artifactType": WORDS},
        {"mediaType": WORDS, "digest": sha256(b""), "size": 1, "annotations": {"a": WORDS}},
    ]});
    for (status, body) in [
        ("418 I'm a teapot", said.as_str()),
        ("418 I'm a teapot", WORDS),
        ("200 OK", WORDS),
        ("200 OK", &json!({"schemaVersion": 2, "mediaType": WORDS}).to_string()),
        ("200 OK", &json!({"tags": [WORDS]}).to_string()),
        ("200 OK", &types.to_string()),
        ("200 OK", &json!({"token": WORDS}).to_string()),
    ] {
        let bytes = answer(status, &[("Content-Type", INDEX)], body.as_bytes());
        let server = FaultProxy::alone(move |_| Fault::Answer(bytes.clone()));
        let image = format!("{}/me/os", server.address());
        for run in [
            format!("inspect {image}:t"),
            format!("tags {image}"),
            format!("pull {image}:t"),
            format!("diff {image}:t {image}:t"),
            format!("build --base oci:../standin:t --to {image}:t"),
        ] {
            assert_harmless(&run, &workspace.run(&run));
        }
    }
    // Beside an image that is as it should be.
    let registry = Registry::docker();
    workspace.ok(&format!("build --base oci:../standin:t --to {}/me/os:t", registry.address()));
    let list = types.to_string();
    let proxy = FaultProxy::before(&registry, move |seen| match seen.path().contains("/referrers/") {
        true => Fault::Answer(answer("200 OK", &[("Content-Type", INDEX)], list.as_bytes())),
        false => Fault::Pass,
    });
    for json in ["", " --json"] {
        let run = workspace.run(&format!("inspect {}/me/os:t{json}", proxy.address()));
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert_harmless("inspect", &run);
    }
}

/// Puts a blob or a manifest, as anybody does who may write there.
fn put(url: &str, media_type: &str, bytes: &[u8]) {
    let mut curl = Command::new(program("curl"));
    curl.args(["--silent", "--fail", "--request", "PUT", "--data-binary", "@-"]);
    curl.args(["--header", &format!("Content-Type: {media_type}"), url]).stdin(Stdio::piped());
    let mut child = curl.spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    assert!(child.wait().unwrap().success(), "{url}");
}

#[test]
fn what_is_planted_beside_an_image_does_not_pass() {
    let workspace = Workspace::with_standin();
    let registry = Registry::docker();
    let image = format!("{}/me/os", registry.address());
    let build = |tag: &str, more: &str| {
        workspace.json(&format!("build --base oci:../standin:t --to {image}:{tag} {more}"))["digest"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (ours, other) = (build("t", ""), build("other", "--app-version v2"));
    let command = |arguments: &str| {
        let mut command = workspace.command(arguments);
        Run::new(command.env("COSIGN_PASSWORD", "").output().unwrap())
    };
    for arguments in ["sign --generate-key --key ../ours.key", &format!("sign {image}:t --key ../ours.key")] {
        assert_eq!(command(arguments).code, Some(0), "{}", command(arguments).stderr);
    }
    let verify = || command(&format!("verify {image}:t --key ../ours.pub"));
    let run = verify();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let url = |name: &str| format!("http://{}/v2/me/os/manifests/{name}", registry.address());
    let listed_under = |digest: &str| digest.replace(':', "-");
    let list = |digest: &str| -> Value {
        serde_json::from_str(&judge("crane", &format!("manifest {image}:{}", listed_under(digest)))).unwrap()
    };
    let good = list(&ours);
    let of = |list: &Value, artifact_type: &str| {
        let mut entries = list["manifests"].as_array().unwrap().iter();
        entries.find(|entry| entry["artifactType"] == artifact_type).unwrap().clone()
    };
    let sbom = of(&good, CYCLONEDX);
    let manifest = |entry: &Value| -> Value {
        let digest = entry["digest"].as_str().unwrap();
        serde_json::from_str(&judge("crane", &format!("manifest {image}@{digest}"))).unwrap()
    };
    // The list has one entry more, of a manifest that is put there.
    let plant = |entry: Value| {
        let mut list = good.clone();
        list["manifests"].as_array_mut().unwrap().push(entry);
        put(&url(&listed_under(&ours)), INDEX, list.to_string().as_bytes());
        let run = verify();
        put(&url(&listed_under(&ours)), INDEX, good.to_string().as_bytes());
        assert_eq!(verify().code, Some(0));
        run.failure().replace("127.0.0.1:PORT/me/os:t", "IMAGE")
    };
    let entry = |manifest: &Value, artifact_type: &str| {
        let bytes = manifest.to_string();
        let digest = sha256(bytes.as_bytes());
        put(&url(&digest), MANIFEST, bytes.as_bytes());
        json!({"mediaType": MANIFEST, "digest": digest, "size": bytes.len(), "artifactType": artifact_type})
    };
    // Another image's own, as it is.
    let theirs = of(&list(&other), CYCLONEDX);
    let error = plant(theirs.clone());
    insta::assert_snapshot!(error, @"
    error: IMAGE does not pass: looking at the SBOM (CycloneDX) sha256:HEX: its subject is another image than sha256:HEX
    hint: do not trust it; if it is yours, push the image anew
    ");
    // The same, with the subject changed: now the document tells.
    let mut changed = manifest(&theirs);
    changed["subject"] = manifest(&sbom)["subject"].clone();
    let error = plant(entry(&changed, CYCLONEDX));
    insta::assert_snapshot!(error, @"
    error: IMAGE does not pass: looking at the SBOM (CycloneDX) sha256:HEX: its document is not about sha256:HEX
    hint: do not trust it; if it is yours, push the image anew
    ");
    // Ours, listed as something else.
    let mut changed = manifest(&sbom);
    changed["artifactType"] = json!("text/plain");
    let error = plant(entry(&changed, CYCLONEDX));
    insta::assert_snapshot!(error, @"
    error: IMAGE does not pass: looking at the SBOM (CycloneDX) sha256:HEX: its manifest says that it is something else
    hint: do not trust it; if it is yours, push the image anew
    ");
    let mut changed = manifest(&sbom);
    let layer = changed["layers"][0].clone();
    changed["layers"] = json!([layer, layer]);
    let error = plant(entry(&changed, CYCLONEDX));
    insta::assert_snapshot!(error, @"
    error: IMAGE does not pass: looking at the SBOM (CycloneDX) sha256:HEX: it has 2 documents
    hint: do not trust it; if it is yours, push the image anew
    ");
    let mut sized = sbom.clone();
    sized["size"] = json!(1);
    let error = plant(sized);
    insta::assert_snapshot!(error, @"
    error: IMAGE does not pass: looking at the SBOM (CycloneDX) sha256:HEX: http://127.0.0.1:PORT/v2/me/os/manifests/sha256:HEX is not what it should be: sha256:HEX should have 1 bytes, but has 731
    hint: the registry, or a proxy before it, is damaged or hostile: nothing was used
    ");
    // A document that claims to be larger than any is not fetched.
    let mut changed = manifest(&sbom);
    changed["layers"][0]["size"] = json!(1_u64 << 40);
    let error = plant(entry(&changed, CYCLONEDX));
    insta::assert_snapshot!(error, @"
    error: IMAGE does not pass: looking at the SBOM (CycloneDX) sha256:HEX: http://127.0.0.1:PORT/v2/me/os/blobs/sha256:HEX has more than the 67108864 bytes that it may have
    hint: check that the name is an image's
    ");

    // Another image's signature, under this one's tag.
    let signature = |digest: &str| format!("{}.sig", listed_under(digest));
    assert_eq!(command(&format!("sign {image}:other --key ../ours.key")).code, Some(0));
    judge("crane", &format!("copy {image}:{} {image}:{}", signature(&other), signature(&ours)));
    let error = verify().failure().replace("127.0.0.1:PORT/me/os:t", "IMAGE");
    insta::assert_snapshot!(error, @"
    error: IMAGE does not pass: this key has signed another image, sha256:HEX, and somebody has put that signature here
    hint: do not use it; if it is yours, sign it anew
    ");
}
