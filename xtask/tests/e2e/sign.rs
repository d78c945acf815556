//! Signatures: cosign accepts what is signed here, its own are accepted here, and what was changed
//! passes nowhere.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Layout, MANIFEST, Run, Workspace, judge, normal, skopeo_push};
use crate::interrupts::{Started, start, wait_until};
use crate::testing::{Fault, FaultProxy, Registry, Seen, answer, program};

/// Of all keys here.
const PASSWORD: &str = "a secret";

/// A workspace, a registry, and the image `v1` in a repository of it.
struct Scene {
    workspace: Workspace,
    registry: Registry,
    /// The repository.
    image: String,
}

impl Scene {
    /// With the stand-in base `tag` as `v1`, and a pair of keys as `../ours.key`.
    fn new(registry: Registry, tag: &str) -> Scene {
        let workspace = Workspace::with_standin();
        let image = format!("{}/me/os", registry.address());
        let scene = Scene { workspace, registry, image };
        scene.push(tag, "v1");
        scene.ok("sign --generate-key --key ../ours.key");
        scene
    }

    /// Pushes the stand-in base `from`; all of its images, where it is an index.
    fn push(&self, from: &str, to: &str) {
        self.workspace.push_standin(from, &format!("{}:{to}", self.image), "--all");
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = self.workspace.command(&arguments.replace("IMAGE", &self.image));
        command.env("COSIGN_PASSWORD", PASSWORD);
        command
    }

    fn ok(&self, arguments: &str) -> String {
        let run = Run::new(self.command(arguments).output().unwrap());
        assert_eq!(run.code, Some(0), "{arguments}\n{}{}", run.stdout, run.stderr);
        run.stdout.trim_end().to_owned()
    }

    fn json(&self, arguments: &str) -> Value {
        serde_json::from_str(&self.ok(&format!("{arguments} --json"))).unwrap()
    }

    fn failure(&self, arguments: &str) -> String {
        let failure = Run::new(self.command(arguments).output().unwrap()).failure();
        failure.replace(&self.workspace.path("..").display().to_string(), "DIR")
    }

    fn digest(&self, tag: &str) -> String {
        judge("crane", &format!("digest {}:{tag}", self.image)).trim_end().to_owned()
    }

    /// The tag that the signatures of a digest have.
    fn place(digest: &str) -> String {
        format!("{}.sig", digest.replace(':', "-"))
    }

    /// Runs cosign, which keeps what it wants to remember beside the workspace.
    fn cosign(&self, arguments: &str) -> Run {
        let mut command = Command::new(program("cosign"));
        command.args(arguments.replace("IMAGE", &self.image).split_whitespace());
        self.workspace.prepare(&mut command);
        command.env("HOME", self.workspace.path("../home")).env("COSIGN_PASSWORD", PASSWORD);
        Run::new(command.output().unwrap())
    }

    fn cosign_ok(&self, arguments: &str) -> String {
        let run = self.cosign(arguments);
        assert_eq!(run.code, Some(0), "cosign {arguments}\n{}", run.stderr);
        run.stdout
    }

    fn cosign_verifies(&self, key: &str, reference: &str) -> Run {
        self.cosign(&format!("verify --insecure-ignore-tlog --key {key} {reference}"))
    }

    /// Puts an image of signatures under a digest's tag, without any of the code under test.
    fn put_signature(&self, digest: &str, payload: &[u8], signature: &str) {
        let layout = Layout::create(&self.workspace.path("../signature-layout"));
        let mut layer = layout.put(payload, "application/vnd.dev.cosign.simplesigning.v1+json");
        let config = json!({
            "architecture": "", "os": "", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        });
        layer["annotations"] = json!({"dev.cosignproject.cosign/signature": signature});
        let config = layout.put(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
        let manifest =
            json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]});
        let manifest = layout.put(manifest.to_string().as_bytes(), MANIFEST);
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        fs::write(layout.dir.join("index.json"), index.to_string()).unwrap();
        let target = format!("{}:{}", self.image, Scene::place(digest));
        skopeo_push(&format!("oci:{}", layout.dir.display()), &target, "");
    }

    /// The manifest with the signatures of a digest.
    fn signatures(&self, digest: &str) -> Value {
        let manifest = judge("crane", &format!("manifest {}:{}", self.image, Scene::place(digest)));
        serde_json::from_str(&manifest).unwrap()
    }
}

#[test]
fn cosign_accepts_what_is_signed_here_and_nothing_else() {
    for registry in [Registry::docker(), Registry::crane()] {
        let scene = Scene::new(registry, "t");
        let first = scene.digest("v1");
        let report = scene.json("sign IMAGE:v1 --key ../ours.key");
        assert_eq!(report["digest"], first);
        let place = Scene::place(&first);
        let signature = json!({"digest": first, "tag": place, "unchanged": false});
        assert_eq!(report["signatures"], json!([signature]));

        for reference in ["IMAGE:v1".to_owned(), format!("IMAGE@{first}")] {
            let run = scene.cosign_verifies("../ours.pub", &reference);
            assert_eq!(run.code, Some(0), "{}", run.stderr);
            let verified: Value = serde_json::from_str(run.stdout.trim()).unwrap();
            assert_eq!(verified[0]["critical"]["image"]["docker-manifest-digest"], first);
            assert_eq!(scene.ok(&format!("verify {reference} --key ../ours.pub")), first);
        }

        // The same key signs the same image once.
        let before = scene.digest(&place);
        let again = scene.json("sign IMAGE:v1 --key ../ours.key");
        assert_eq!(again["signatures"][0]["unchanged"], true);
        assert_eq!(scene.digest(&place), before);

        // Another image under the tag, first without a signature, then with that of the first one.
        scene.push("plain", "v1");
        let second = scene.digest("v1");
        assert_ne!(second, first);
        assert_ne!(scene.cosign_verifies("../ours.pub", "IMAGE:v1").code, Some(0));
        insta::allow_duplicates! {
            insta::assert_snapshot!(scene.failure("verify IMAGE:v1 --key ../ours.pub"), @"
            error: 127.0.0.1:PORT/me/os:v1 does not pass: it is not signed
            hint: run 'cargo xtask sign 127.0.0.1:PORT/me/os:v1' where its private key is
            ");
        }
        let copy = |tag: &str| format!("{}:{}", scene.image, Scene::place(tag));
        judge("crane", &format!("copy {} {}", copy(&first), copy(&second)));
        assert_ne!(scene.cosign_verifies("../ours.pub", "IMAGE:v1").code, Some(0));
        insta::allow_duplicates! {
            insta::assert_snapshot!(scene.failure("verify IMAGE:v1 --key ../ours.pub"), @"
            error: 127.0.0.1:PORT/me/os:v1 does not pass: this key has signed another image, sha256:HEX, and somebody has put that signature here
            hint: do not use it; if it is yours, sign it anew
            ");
        }
        assert_eq!(scene.ok(&format!("verify IMAGE@{first} --key ../ours.pub")), first);
    }
}

#[test]
fn what_cosign_has_signed_is_accepted_and_kept() {
    let scene = Scene::new(Registry::docker(), "multi");
    let index = scene.digest("v1");
    scene.cosign_ok("generate-key-pair --output-key-prefix ../theirs");
    let unsigned = scene.failure("verify IMAGE:v1 --key ../theirs.pub --recursive");
    assert!(unsigned.contains("does not pass: its image sha256:HEX: it is not signed"), "{unsigned}");

    let sign = |key: &str| {
        scene.cosign_ok(&format!("sign --yes --tlog-upload=false --recursive --key {key} IMAGE@{index}"))
    };
    sign("../theirs.key");
    let report = scene.json("verify IMAGE:v1 --key ../theirs.pub --recursive");
    assert_eq!(report["digest"], index);
    assert_eq!(report["signatures"].as_array().unwrap().len(), 3);

    // With cosign's key, there is nothing left to sign; with another one, its signatures stay.
    let with_theirs = scene.json("sign IMAGE:v1 --key ../theirs.key --recursive");
    let with_ours = scene.json("sign IMAGE:v1 --key ../ours.key --recursive");
    for (report, unchanged) in [(&with_theirs, true), (&with_ours, false)] {
        let signatures = report["signatures"].as_array().unwrap();
        assert_eq!(signatures.len(), 3);
        assert!(signatures.iter().all(|signature| signature["unchanged"] == unchanged), "{report}");
    }
    let both = scene.signatures(&index);
    assert_eq!(both["layers"].as_array().unwrap().len(), 2);
    for signature in with_ours["signatures"].as_array().unwrap() {
        let image = format!("IMAGE@{}", signature["digest"].as_str().unwrap());
        for key in ["../theirs.pub", "../ours.pub"] {
            let run = scene.cosign_verifies(key, &image);
            assert_eq!(run.code, Some(0), "{key}, {image}: {}", run.stderr);
            scene.ok(&format!("verify {image} --key {key}"));
        }
    }

    // cosign opens a key that was made here, and sees that it has signed.
    sign("../ours.key");
    assert_eq!(scene.signatures(&index), both);
}

/// What holds up one of two processes until the other is where it should be.
#[derive(Default)]
struct Gate {
    is_reached: AtomicBool,
    is_open: AtomicBool,
}

impl Gate {
    /// Waits, the first time, until it is opened.
    fn pass(&self) {
        if !self.is_reached.swap(true, Ordering::SeqCst) {
            while !self.is_open.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    fn wait(&self, what: &str) {
        wait_until(what, || self.is_reached.load(Ordering::SeqCst));
    }

    fn open(&self) {
        self.is_open.store(true, Ordering::SeqCst);
    }
}

#[test]
fn two_who_sign_at_once_lose_nothing() {
    let mut scene = Scene::new(Registry::docker(), "t");
    scene.ok("sign --generate-key --key ../other.key");
    let digest = scene.digest("v1");
    let (storing, tagging, looking) =
        (Arc::<Gate>::default(), Arc::<Gate>::default(), Arc::<Gate>::default());
    let gates = (storing.clone(), tagging.clone(), looking.clone());
    let tagged = AtomicUsize::new(0);
    let proxy = FaultProxy::before(&scene.registry, move |seen| {
        let is_tag = seen.path().ends_with(".sig");
        match seen.method.as_str() {
            // The first one has looked what is there, and is held up.
            "POST" => gates.0.pass(),
            // The third one has looked again, too.
            "PUT" if is_tag && tagged.fetch_add(1, Ordering::SeqCst) == 2 => gates.1.pass(),
            // The fourth one has put its tag, and is to see whether it is there still.
            "GET" if is_tag && tagged.load(Ordering::SeqCst) == 4 => gates.2.pass(),
            _ => {}
        }
        Fault::Pass
    });
    scene.image = format!("{}/me/os", proxy.address());
    let start = |key: &str| start(scene.command(&format!("sign IMAGE:v1 --key ../{key}.key")));
    let ends = |child: Started| assert!(child.wait_with_output().unwrap().status.success());
    let both_have_signed = |digest: &str| {
        for key in ["ours", "other"] {
            let run = scene.cosign_verifies(&format!("../{key}.pub"), "IMAGE:v1");
            assert_eq!(run.code, Some(0), "{key}: {}", run.stderr);
            scene.ok(&format!("verify IMAGE:v1 --key ../{key}.pub"));
        }
        assert_eq!(scene.signatures(digest)["layers"].as_array().unwrap().len(), 2);
    };

    // One signs while the other prepares its own.
    let first = start("ours");
    storing.wait("the first signature");
    scene.ok("sign IMAGE:v1 --key ../other.key");
    storing.open();
    ends(first);
    both_have_signed(&digest);

    // Two keys sign the next image, and the tag of the one that is slower replaces the other's.
    scene.push("plain", "v1");
    let digest = scene.digest("v1");
    let slower = start("ours");
    tagging.wait("the tag of the slower one");
    let faster = start("other");
    looking.wait("the look of the faster one");
    tagging.open();
    ends(slower);
    assert_eq!(scene.signatures(&digest)["layers"].as_array().unwrap().len(), 1);
    looking.open();
    ends(faster);
    both_have_signed(&digest);
}

/// Hosts look under a tag, and cosign 3 attaches a bundle, as its second version does when told to.
#[test]
fn a_bundle_is_told_from_nothing() {
    for registry in [Registry::docker(), Registry::with_referrers()] {
        let scene = Scene::new(registry, "t");
        scene.cosign_ok("generate-key-pair --output-key-prefix ../theirs");
        let digest = scene.digest("v1");
        let error = scene.failure("verify IMAGE:v1 --key ../theirs.pub");
        assert!(error.contains("it is not signed"), "{error}");
        scene.cosign_ok(&format!(
            "sign --yes --tlog-upload=false --new-bundle-format --key ../theirs.key IMAGE@{digest}"
        ));
        insta::allow_duplicates! {
            insta::assert_snapshot!(scene.failure("verify IMAGE:v1 --key ../theirs.pub"), @"
            error: 127.0.0.1:PORT/me/os:v1 does not pass: it has no signature under a tag, where hosts look, but a Sigstore bundle, which is not read here
            hint: 'cosign verify --new-bundle-format --key ../theirs.pub 127.0.0.1:PORT/me/os:v1' reads it; for hosts, run 'cargo xtask sign 127.0.0.1:PORT/me/os:v1' where its private key is
            ");
        }
        scene.ok("sign IMAGE:v1 --key ../ours.key");
        scene.ok("verify IMAGE:v1 --key ../ours.pub");
    }
}

/// A host that asks for a signature finds it as soon as it finds the tag.
#[test]
fn a_release_is_signed_before_it_has_a_tag() {
    let scene = Scene::new(Registry::docker(), "t");
    let dist = |repository: &str| {
        format!(
            "dist --push --no-disks --sign-key ../ours.key --distro debian-13 --base oci:../standin:multi \
             --platform linux/amd64,linux/arm64 --app-version v2 --image {repository}"
        )
    };
    let is_signature = |seen: &Seen| seen.method == "PUT" && seen.path().ends_with(".sig");
    let proxy = FaultProxy::before(&scene.registry, move |seen| match is_signature(seen) {
        true => Fault::Answer(answer("403 Forbidden", &[], b"{}")),
        false => Fault::Pass,
    });
    let failure = scene.failure(&dist(&format!("{}/me/os", proxy.address())));
    assert!(
        failure.starts_with("error: signing what was pushed: writing 127.0.0.1:PORT/me/os:sha256-HEX.sig")
    );
    // Lists of what is attached to a digest aside.
    let all = judge("crane", &format!("ls {}", scene.image));
    let is_list = |tag: &&str| tag.starts_with("sha256-") && !tag.ends_with(".sig");
    assert_eq!(all.lines().filter(|tag| !is_list(tag)).collect::<Vec<_>>(), ["v1"]);

    let plan = scene.ok(&format!("{} --dry-run", dist("IMAGE")));
    assert!(plan.contains("\nsigned with ../ours.key\n"), "{plan}");
    let report = scene.json(&dist("IMAGE"));
    assert_eq!(report["signed"].as_array().unwrap().len(), 3);
    assert_eq!(report["signed"][2], report["digest"]);
    let verify = "verify IMAGE:debian-13-v2 --key ../ours.pub --recursive";
    assert_eq!(scene.ok(verify), report["digest"].as_str().unwrap());
    let run = scene.cosign_verifies("../ours.pub", "IMAGE:debian-13-v2");
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let dist_json = fs::read_to_string(scene.workspace.path("target/dist/dist.json")).unwrap();
    let dist_json: Value = serde_json::from_str(&dist_json).unwrap();
    assert_eq!(dist_json["signed"], report["signed"]);
}

#[test]
fn what_is_wrong_is_told() {
    let scene = Scene::new(Registry::docker(), "t");
    let digest = scene.digest("v1");
    scene.ok("sign IMAGE:v1 --key ../ours.key");
    scene.ok("sign --generate-key --key ../other.key");

    // Keys.
    insta::assert_snapshot!(scene.failure("verify IMAGE:v1 --key ../other.pub"), @"
    error: 127.0.0.1:PORT/me/os:v1 does not pass: none of its signatures is by this key: 1 by others
    hint: name the key that it was signed with, or sign it with this one
    ");
    insta::assert_snapshot!(scene.failure("verify IMAGE:v1 --key ../ours.key"), @"
    error: reading the key ../ours.key: it is a private key, which is nobody else's; a signature is checked with the public one
    hint: name the file that was made beside it, such as cosign.pub
    ");
    insta::assert_snapshot!(scene.failure("verify IMAGE:v1 --key ../none.pub"), @"
    error: reading the key ../none.pub: No such file or directory (os error 2)
    hint: name a key that is there: 'cargo xtask sign --generate-key' makes a pair of them
    ");
    insta::assert_snapshot!(scene.failure("sign IMAGE:v1 --key ../ours.pub"), @"
    error: reading the key ../ours.pub: it is a public key, and only the private one signs
    hint: name the file that was made beside it, such as cosign.key
    ");
    let mut wrong = scene.command("sign IMAGE:v1 --key ../ours.key");
    let wrong = Run::new(wrong.env("COSIGN_PASSWORD", "a guess").output().unwrap());
    insta::assert_snapshot!(wrong.failure(), @"
    error: reading the key ../ours.key: the password is wrong, or the key is damaged
    hint: set COSIGN_PASSWORD to the password that the key was made with
    ");
    let mut alone = scene.command("sign IMAGE:v1 --key ../ours.key");
    alone.env_remove("COSIGN_PASSWORD");
    // In a session of its own, it has no terminal.
    let alone = Run::new(start(alone).wait_with_output().unwrap());
    insta::assert_snapshot!(alone.failure(), @"
    error: asking for a password on the terminal: No such device or address (os error 6)
    hint: set COSIGN_PASSWORD, which may be empty, to the key's password
    ");

    // Images.
    insta::assert_snapshot!(scene.failure("verify IMAGE:v2 --key ../ours.pub"), @"
    error: 127.0.0.1:PORT/me/os:v2 is not in its registry
    hint: check the name and the tag; a private repository needs 'podman login'
    ");
    insta::assert_snapshot!(scene.failure("sign IMAGE:v2 --key ../ours.key"), @"
    error: 127.0.0.1:PORT/me/os:v2 is not in its registry
    hint: check the name and the tag; a private repository needs 'podman login'
    ");
    let wrong_call = scene.workspace.run("verify oci:../standin --key ../ours.pub");
    assert_eq!(wrong_call.code, Some(2));
    insta::assert_snapshot!(wrong_call.stderr.lines().next().unwrap(), @"error: invalid value 'oci:../standin' for '<REF>': signatures are beside images in registries: push it, and name it there");

    // A copy keeps the name that it was signed for, which is not that of the copy.
    let [from, to] = ["me/os", "me/copy"].map(|name| format!("{}/{name}", scene.registry.address()));
    for tag in ["v1", &Scene::place(&digest)] {
        judge("crane", &format!("copy {from}:{tag} {to}:{tag}"));
    }
    insta::assert_snapshot!(scene.failure(&format!("verify {to}:v1 --key ../ours.pub")), @"
    error: 127.0.0.1:PORT/me/copy:v1 does not pass: this key has signed it for 127.0.0.1:PORT/me/os, not for 127.0.0.1:PORT/me/copy
    hint: where it is meant to be a copy of that, say '--signed-for 127.0.0.1:PORT/me/os'
    ");
    assert_eq!(scene.ok(&format!("verify {to}:v1 --key ../ours.pub --signed-for {from}")), digest);

    // What is larger than any signature's payload is no obstacle: it is neither fetched nor taken away.
    scene.push("plain", "large");
    let large = scene.digest("large");
    scene.put_signature(&large, &[b'x'; 300_000], "AAAA");
    scene.ok("sign IMAGE:large --key ../ours.key");
    assert_eq!(scene.ok("verify IMAGE:large --key ../ours.pub"), large);
    assert_eq!(scene.signatures(&large)["layers"].as_array().unwrap().len(), 2);

    // What was signed, changed: as another blob, and as the same one.
    let layer = scene.signatures(&digest)["layers"][0].clone();
    let hex = layer["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let path = scene.registry.blob_path(hex);
    let payload = fs::read_to_string(&path).unwrap();
    let signature = layer["annotations"]["dev.cosignproject.cosign/signature"].as_str().unwrap();
    let changed = payload.replace("me/os", "me/so");
    assert_ne!(changed, payload);
    scene.put_signature(&digest, changed.as_bytes(), signature);
    insta::assert_snapshot!(scene.failure("verify IMAGE:v1 --key ../ours.pub"), @"
    error: 127.0.0.1:PORT/me/os:v1 does not pass: none of its signatures is by this key: 1 by others
    hint: name the key that it was signed with, or sign it with this one
    ");
    scene.put_signature(&digest, payload.as_bytes(), signature);
    scene.ok("verify IMAGE:v1 --key ../ours.pub");
    fs::write(&path, &changed).unwrap();
    insta::assert_snapshot!(scene.failure("verify IMAGE:v1 --key ../ours.pub"), @"
    error: reading 127.0.0.1:PORT/me/os:sha256-HEX.sig: http://127.0.0.1:PORT/v2/me/os/blobs/sha256:HEX is not what it should be: sha256:HEX was promised, but what came is sha256:HEX
    hint: the registry, or a proxy before it, is damaged or hostile: nothing was used
    ");
}

#[test]
fn a_key_is_the_owners_and_is_never_overwritten() {
    let workspace = Workspace::new();
    let generate = |key: &str| {
        let mut command = workspace.command(&format!("sign --generate-key --key {key}"));
        Run::new(command.env("COSIGN_PASSWORD", "").output().unwrap())
    };
    assert_eq!(generate("../a.key").stdout, "../a.key\n../a.pub\n");
    let read = |name: &str| fs::read(workspace.path(name)).unwrap();
    let mode = |name: &str| fs::metadata(workspace.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("../a.key"), mode("../a.pub")), (0o600, 0o644));
    let before = (read("../a.key"), read("../a.pub"));

    insta::assert_snapshot!(generate("../a.key").failure(), @"
    error: ../a.key is there, and no key is overwritten
    hint: name another file with '--key FILE', or move this one away
    ");
    fs::remove_file(workspace.path("../a.key")).unwrap();
    insta::assert_snapshot!(generate("../a.key").failure(), @"
    error: ../a.pub is there, and no key is overwritten
    hint: name another file with '--key FILE', or move this one away
    ");
    insta::assert_snapshot!(generate("../a.pub").failure(), @"
    error: ../a.pub is what the public key is called
    hint: name the private key otherwise, such as '--key cosign.key'
    ");
    assert!(!workspace.path("../a.key").exists());
    assert_eq!(read("../a.pub"), before.1);
    fs::remove_file(workspace.path("../a.pub")).unwrap();
    assert_eq!(generate("../a.key").code, Some(0));
    assert_ne!((read("../a.key"), read("../a.pub")), before, "each key is another one");
}

/// A shell on a terminal of its own, in which `command` runs; what it shows is read as it comes.
struct Terminal {
    child: Child,
    shown: String,
}

impl Terminal {
    fn new(scene: &Scene, command: &str) -> Terminal {
        let own = env!("CARGO_BIN_EXE_xtask");
        let command = command.replace("IMAGE", &scene.image);
        // The shell outlives a Ctrl-C, and says whether the terminal shows what is typed.
        let script =
            format!("trap : INT; {own} {command}; echo code $?; stty -a | tr ' ' '\\n' | grep -x -e -*echo");
        let mut program = Command::new(program("script"));
        program.args(["--quiet", "--command", &script, "/dev/null"]).stdin(Stdio::piped());
        scene.workspace.prepare(&mut program);
        let child = program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Terminal { child, shown: String::new() }
    }

    /// Types once `prompt` shows.
    fn answer(&mut self, prompt: &str, text: &str) {
        let output = self.child.stdout.as_mut().unwrap();
        let from = self.shown.len();
        let mut byte = [0];
        while !self.shown[from..].contains(prompt) {
            assert_eq!(output.read(&mut byte).unwrap(), 1, "{prompt} did not show: {}", self.shown);
            self.shown.push(char::from(byte[0]));
        }
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// All that it has shown in the end.
    fn end(mut self) -> String {
        self.child.stdout.as_mut().unwrap().read_to_string(&mut self.shown).unwrap();
        self.child.wait().unwrap();
        normal(&self.shown.replace('\r', ""))
    }
}

#[test]
fn a_password_is_asked_for_and_not_shown() {
    let scene = Scene::new(Registry::docker(), "t");
    let mut terminal = Terminal::new(&scene, "sign IMAGE:v1 --key ../ours.key");
    terminal.answer("password of ../ours.key: ", &format!("{PASSWORD}\n"));
    insta::assert_snapshot!(terminal.end(), @"
    password of ../ours.key: 
    signed 127.0.0.1:PORT/me/os:v1
    sha256:HEX
    code 0
    echo
    ");

    let mut terminal = Terminal::new(&scene, "sign --generate-key --key ../new.key");
    terminal.answer("password for ../new.key: ", "one\n");
    terminal.answer("the same again: ", "two\n");
    insta::assert_snapshot!(terminal.end(), @"
    password for ../new.key: 
    the same again: 
    error: the second password is another one
    hint: run it again
    code 1
    echo
    ");
    assert!(!scene.workspace.path("../new.key").exists());

    let mut terminal = Terminal::new(&scene, "sign IMAGE:v1 --key ../ours.key");
    terminal.answer("password of ../ours.key: ", "half\u{3}");
    insta::assert_snapshot!(terminal.end(), @"
    password of ../ours.key: interrupted
    code 130
    echo
    ");
}
