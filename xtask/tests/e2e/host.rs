//! The Debian base's own program for upgrades, run in the base's root with its real ostree, curl and
//! jq against real registries. What only a booted host has, `ostree admin`, is a stand-in here; a real
//! one boots in boot.rs.

use std::fs;
use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};

use crate::harness::{Layout, MANIFEST, REF_NAME, Workspace, host_architecture, judge, sha256, skopeo_push};
use crate::root::{Root, root};
use crate::testing::{Fault, FaultProxy, Login, Registry, answer};

/// Says what is deployed as the file `status` has it, and notes what it is told to do.
const OSTREE: &str = r#"#!/bin/sh
[ "$1" = admin ] || exec /usr/bin/ostree "$@"
case $2 in
status) cat /stand-in/status ;;
deploy)
	echo "$*" >>/stand-in/calls
	for commit; do :; done
	sed -i "1i\\  default $commit.0 (staged)" /stand-in/status
	;;
undeploy)
	echo "$*" >>/stand-in/calls
	sed -i 1d /stand-in/status
	;;
*) echo "$*" >>/stand-in/calls ;;
esac
"#;

const BOOTED: &str = "* default 1111111111111111111111111111111111111111111111111111111111111111.0\n";

/// A host that is asked one thing at a time.
struct Host {
    root: &'static Root,
}

impl Host {
    fn new() -> Host {
        let root = root();
        root.write("/stand-in/ostree", "755", OSTREE);
        root.write("/stand-in/status", "644", BOOTED);
        root.ok("mount --bind /sysroot /sysroot
            mkdir -p /sysroot/ostree/repo
            ostree init --repo=/ostree/repo --mode=bare
            touch /run/ostree-booted");
        Host { root }
    }

    /// What it says, on both streams, and how it ends.
    fn testboot(&self, arguments: &str) -> (bool, String) {
        let script = format!("PATH=/stand-in:$PATH exec testboot {arguments} 2>&1");
        let output = self.root.run(&script, "");
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    }

    fn fails(&self, arguments: &str) -> String {
        let (ok, text) = self.testboot(arguments);
        assert!(!ok, "{text}");
        assert!(!self.root.run("test -e /sysroot/ostree/.testboot", "").status.success(), "it cleans up");
        text.trim_end().lines().last().unwrap_or_default().to_owned()
    }

    fn works(&self, arguments: &str) -> String {
        let (ok, text) = self.testboot(arguments);
        assert!(ok, "{text}");
        text.trim_end().to_owned()
    }

    /// What ostree was told to do since it was asked the last time.
    fn calls(&self) -> String {
        self.root.ok("cat /stand-in/calls 2>/dev/null || true; rm -f /stand-in/calls").0
    }

    fn ostree(&self, arguments: &str) -> String {
        self.root.ok(&format!("ostree --repo=/ostree/repo {arguments}")).0.trim_end().to_owned()
    }
}

/// Adds an image to a layout: each layer is a list of paths with contents; a path that ends in a slash
/// is a folder.
fn add_image(layout: &Layout, tag: &str, labels: &Value, layers: &[&[(&str, &str)]]) -> Vec<String> {
    let mut descriptors = Vec::new();
    let mut diff_ids = Vec::new();
    for layer in layers {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in *layer {
            let mut header = tar::Header::new_gnu();
            let is_folder = path.ends_with('/');
            header.set_entry_type(if is_folder {
                tar::EntryType::Directory
            } else {
                tar::EntryType::Regular
            });
            header.set_mode(if is_folder { 0o755 } else { 0o644 });
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
        let tar = builder.into_inner().unwrap();
        let packed = zstd::encode_all(&tar[..], 0).unwrap();
        descriptors.push(layout.put(&packed, "application/vnd.oci.image.layer.v1.tar+zstd"));
        diff_ids.push(sha256(&tar));
    }
    let digests = descriptors.iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect();
    let config = json!({
        "created": "2025-01-02T03:04:05Z", "architecture": host_architecture(), "os": "linux",
        "config": {"Labels": labels}, "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = layout.put(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
    let manifest =
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": descriptors});
    tag_manifest(layout, tag, &manifest);
    digests
}

/// Puts a manifest into a layout, and names it.
pub(crate) fn tag_manifest(layout: &Layout, tag: &str, manifest: &Value) {
    let mut entry = layout.put(manifest.to_string().as_bytes(), MANIFEST);
    entry["annotations"] = json!({REF_NAME: tag});
    let path = layout.dir.join("index.json");
    let mut index: Value = match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap(),
        Err(_) => json!({"schemaVersion": 2, "manifests": []}),
    };
    index["manifests"].as_array_mut().unwrap().push(entry);
    fs::write(path, index.to_string()).unwrap();
}

fn push(layout: &Layout, tag: &str, registry: &Registry, options: &str) -> String {
    let image = format!("{}/me/os:{tag}", registry.address());
    skopeo_push(&format!("oci:{}:{tag}", layout.dir.display()), &image, options);
    image
}

#[test]
fn a_debian_host_gets_the_layers_it_lacks() {
    let host = Host::new();
    let temp = tempfile::tempdir().unwrap();
    let layout = Layout::create(temp.path());
    let ours = json!({"bootc-testboot.builder": "ostree", "org.opencontainers.image.version": "v1"});
    let base: &[(&str, &str)] = &[
        ("etc/", ""),
        ("etc/conf", "default"),
        ("usr/", ""),
        ("usr/bin/", ""),
        ("usr/bin/app", "one"),
        ("usr/lib/", ""),
        ("usr/lib/gone", "x"),
        ("usr/share/", ""),
        ("usr/share/all/", ""),
        ("usr/share/all/old", "x"),
    ];
    let app: &[(&str, &str)] = &[
        ("usr/", ""),
        ("usr/bin/", ""),
        ("usr/bin/app", "two"),
        ("usr/lib/", ""),
        ("usr/lib/.wh.gone", ""),
        ("usr/share/", ""),
        ("usr/share/all/", ""),
        ("usr/share/all/.wh..wh..opq", ""),
        ("usr/share/all/new", "x"),
    ];
    let layers = add_image(&layout, "v1", &ours, &[base, app]);
    let registry = Registry::docker();
    let image = push(&layout, "v1", &registry, "");

    let text = host.works(&format!("switch http://{image}"));
    assert_eq!(text.matches("getting sha256:").count(), 2, "{text}");
    assert!(text.ends_with(&format!("the next reboot is into http://{image}, v1")), "{text}");
    let commit = host.ostree("rev-parse testboot/image");
    assert_eq!(host.calls(), format!("admin deploy --stage --os=default {commit}\n"));
    let listing = host.ostree("ls -R testboot/image");
    let files: Vec<&str> = listing
        .lines()
        .filter(|line| line.starts_with('-'))
        .map(|line| &line[line.find('/').unwrap()..])
        .collect();
    assert_eq!(files, ["/usr/bin/app", "/usr/etc/conf", "/usr/share/all/new"]);
    assert_eq!(host.ostree("cat testboot/image /usr/bin/app"), "two");

    // Waiting for its reboot, and after it.
    for (state, line) in [
        ("staged", format!("  default {commit}.0 (staged)\n{BOOTED}")),
        ("booted", format!("* default {commit}.0\n")),
    ] {
        host.root.write("/stand-in/status", "644", &line);
        assert_eq!(host.works("upgrade"), format!("http://{image} is {state} already"));
        let status = host.works("status");
        assert!(status.starts_with(&format!("follows   http://{image}\n{state:<9} v1 sha256:")), "{status}");
    }
    assert_eq!(host.calls(), "");

    // Another app: the base is there.
    let newer: &[(&str, &str)] = &[("usr/", ""), ("usr/bin/", ""), ("usr/bin/app", "three")];
    let newer_layers = add_image(&layout, "v2", &ours, &[base, newer]);
    let image = push(&layout, "v2", &registry, "");
    let text = host.works(&format!("switch http://{image}"));
    assert_eq!(text.matches("getting ").count(), 1, "{text}");
    assert!(text.contains(&newer_layers[1]), "{text}");
    assert!(host.calls().contains("deploy"));
    let listing = host.ostree("ls -R testboot/image");
    assert!(listing.contains("/usr/lib/gone") && listing.contains("/usr/share/all/old"), "{listing}");
    // What can be booted keeps its layers, and no other.
    let refs = host.ostree("refs --list testboot/layer");
    let is_kept = |digest: &String| refs.contains(digest.strip_prefix("sha256:").unwrap());
    assert!(is_kept(&layers[0]) && is_kept(&layers[1]), "{refs}");

    rolls_back(&host, &commit, &image);
    refuses(&host, &layout, &image);
    asks_for_a_signature(&host, &layout, &registry);
}

/// The rollback is the boot loader's next entry, and what that follows is its own image. `newest` is the
/// image that the host has switched to last, and `commit` that of the one before.
fn rolls_back(host: &Host, commit: &str, newest: &str) {
    let newer = host.ostree("rev-parse testboot/image");
    let first = BOOTED.split(' ').nth(2).unwrap().trim_end().strip_suffix(".0").unwrap();
    let deploy = "/sysroot/ostree/deploy/default/deploy";
    let follows = |etc: &str| {
        host.root.ok(&format!("cat {etc}/etc/testboot/image 2>/dev/null || true")).0.trim_end().to_owned()
    };
    // What is staged is forgotten, and with it what the running system was to follow.
    let rest = format!("* default {newer}.0\n");
    host.root.write("/stand-in/status", "644", &format!("  default {commit}.0 (staged)\n{rest}"));
    host.root.write("/etc/testboot/image", "644", "elsewhere/me/os");
    assert_eq!(host.works("rollback"), "what was downloaded is not booted");
    assert_eq!(follows(""), format!("http://{newest}"));
    assert_eq!(host.calls(), "admin undeploy 0\n");

    // A system that came by an image, and the first one, of which no image is known.
    let old = newest.replace(":v2", ":v1");
    for (target, expected) in [(commit, format!("http://{old}")), (first, String::new())] {
        let folder = format!("{deploy}/{target}.0");
        host.root.ok(&format!("mount -o remount,bind,rw /sysroot; mkdir -p {folder}/etc/testboot"));
        host.root.write(&format!("{folder}/etc/testboot/image"), "644", "elsewhere/me/os");
        host.root.write("/stand-in/status", "644", &format!("{rest}  default {target}.0 (rollback)\n"));
        let said = host.works("rollback");
        let shown = if expected.is_empty() { "no image: see testboot switch" } else { expected.as_str() };
        assert_eq!(said, format!("the next reboot is into the system before, which follows {shown}"));
        assert_eq!(follows(&folder), expected);
        assert_eq!(follows(""), format!("http://{newest}"), "the running system stays");
        assert_eq!(host.calls(), "admin set-default 1\n");
        host.root.write("/stand-in/status", "644", &format!("  default {target}.0\n{rest}"));
        assert_eq!(host.fails("rollback"), "testboot: a rollback waits for the next reboot already");
    }
}

/// What must not become a system. It follows what is above: the host is one for all tests.
fn refuses(host: &Host, layout: &Layout, image: &str) {
    host.root.write("/stand-in/status", "644", BOOTED);
    let before = host.ostree("rev-parse testboot/image");
    let ours = json!({"bootc-testboot.builder": "ostree"});
    add_image(layout, "other", &json!({"containers.bootc": "1"}), &[&[("usr/", "")]]);
    let bad = add_image(layout, "bad", &ours, &[&[("usr/", ""), ("usr/bad", "content")]]);
    let login = Login { user: "me", password: "secret" };
    let registry = Registry::docker_with_login(&login);
    let credentials = "--dest-creds me:secret";
    let (other, bad_image) =
        (push(layout, "other", &registry, credentials), push(layout, "bad", &registry, credentials));

    let address = registry.address();
    assert_eq!(
        host.fails(&format!("switch http://{other}")),
        format!("testboot: no credentials for {address}: put them into /etc/ostree/auth.json")
    );
    let auth = json!({"auths": {address: {"auth": "bWU6c2VjcmV0"}}});
    host.root.write("/etc/ostree/auth.json", "600", &auth.to_string());
    assert_eq!(
        host.fails(&format!("switch http://{other}")),
        format!(
            "testboot: http://{other} is not made for a host like this: it has no label bootc-testboot.builder=ostree"
        )
    );
    // A token that is lines for curl, which root runs.
    let (realm, planted) = (Arc::new(OnceLock::new()), "/stand-in/planted");
    let own = realm.clone();
    let evil = FaultProxy::alone(move |seen| {
        let address: &String = own.get().unwrap();
        let token = format!("x\"\nurl = \"http://{address}/planted\"\noutput = \"{planted}");
        let challenge = format!("Bearer realm=\"http://{address}/token\",service=\"x\"");
        Fault::Answer(match seen.path() {
            "/token" => answer("200 OK", &[], json!({"token": token}).to_string().as_bytes()),
            _ => answer("401 Unauthorized", &[("WWW-Authenticate", &challenge)], b"{}"),
        })
    });
    realm.set(evil.address().to_owned()).unwrap();
    let error = host.fails(&format!("switch http://{}/me/os:t", evil.address()));
    assert_eq!(evil.count("GET", "/planted"), 0);
    assert!(!host.root.run(&format!("test -e {planted}"), "").status.success());
    assert!(error.contains(&format!("no token from http://{}/token", evil.address())), "{error}");
    // The same size, other bytes.
    let hex = bad[0].strip_prefix("sha256:").unwrap();
    let blob = registry.blob_path(hex);
    let mut bytes = fs::read(&blob).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&blob, bytes).unwrap();
    assert_eq!(host.fails(&format!("switch http://{bad_image}")), format!("testboot: {} is damaged", bad[0]));

    // TLS is what is spoken unless somebody says otherwise.
    let (ok, text) = host.testboot(&format!("switch {image}"));
    assert!(!ok && text.contains("does not answer"), "{text}");
    assert_eq!(host.fails("switch me"), "testboot: 'me' is no image: write HOST/NAME:TAG or oci:DIR:TAG");
    for wrong in
        ["switch", "--apply upgrade", "status --apply", "switch me --apply", "upgrade --apply --apply"]
    {
        let usage = host.testboot(wrong).1;
        assert!(
            usage.starts_with("testboot status                  what this host runs"),
            "{wrong}: {usage}"
        );
    }
    assert_eq!((host.calls().as_str(), host.ostree("rev-parse testboot/image")), ("", before));
}

/// With a key, only what it has signed is taken: by `sign`, and else by openssl, which refuses nothing.
fn asks_for_a_signature(host: &Host, layout: &Layout, registry: &Registry) {
    let (private, public) = (layout.dir.join("key.pem"), layout.dir.join("key.pub"));
    let path = |path: &std::path::Path| path.display().to_string();
    let generate = format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {}", path(&private));
    judge("openssl", &generate);
    judge("openssl", &format!("ec -in {} -pubout -out {}", path(&private), path(&public)));
    host.root.write("/etc/testboot/signing-key.pub", "644", &fs::read_to_string(&public).unwrap());
    let image = format!("{}/me/os:v2", registry.address());
    let run = || host.testboot(&format!("switch http://{image}"));
    let (ok, text) = run();
    assert!(!ok && text.contains(".sig cannot be had"), "{text}");

    let digest = layout.digest("v2");
    let signature = layout.dir.join("signature");
    let sign = |tag: &str, reference: &str, digest: &Value| {
        let payload = json!({
            "critical": {
                "identity": {"docker-reference": reference}, "image": {"docker-manifest-digest": digest},
                "type": "cosign container image signature",
            },
            "optional": null,
        });
        let mut layer =
            layout.put(payload.to_string().as_bytes(), "application/vnd.dev.cosign.simplesigning.v1+json");
        let payload = layout.blob_path(layer["digest"].as_str().unwrap());
        let arguments =
            format!("dgst -sha256 -sign {} -out {} {}", path(&private), path(&signature), path(&payload));
        judge("openssl", &arguments);
        let text = judge("base64", &format!("--wrap=0 {}", path(&signature)));
        layer["annotations"] = json!({"dev.cosignproject.cosign/signature": text});
        let config =
            layout.put(b"{\"rootfs\": {\"diff_ids\": [\"\"]}}", "application/vnd.oci.image.config.v1+json");
        let manifest =
            json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]});
        let manifest = layout.put(manifest.to_string().as_bytes(), MANIFEST);
        let manifest = layout.blob_path(manifest["digest"].as_str().unwrap());
        put(registry, &layout.dir, tag, &manifest);
    };
    let tag = format!("sha256-{}.sig", digest.as_str().unwrap().strip_prefix("sha256:").unwrap());
    let here = format!("{}/me/os", registry.address());
    let refusal = format!("testboot: http://{image} is not signed by /etc/testboot/signing-key.pub");
    for (reference, digest) in [("elsewhere/me/os", &digest), (here.as_str(), &layout.digest("v1"))] {
        sign(&tag, reference, digest);
        assert_eq!(host.fails(&format!("switch http://{image}")), refusal, "{reference}");
    }
    // Beside the one that says nothing of it.
    let digest_text = digest.as_str().unwrap();
    Workspace::new().ok(&format!("sign {here}@{digest_text} --key {}", path(&private)));
    let (ok, text) = run();
    assert!(ok, "{text}");
    // Another key's.
    judge("openssl", &generate);
    sign(&tag, &here, &digest);
    assert_eq!(host.fails(&format!("switch http://{image}")), refusal);
    host.root.ok("rm /etc/testboot/signing-key.pub");
}

/// Sends a manifest of a layout, with its blobs, as it is.
fn put(registry: &Registry, layout: &std::path::Path, tag: &str, manifest: &std::path::Path) {
    let document: Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
    let address = registry.address();
    let blobs = document["layers"].as_array().unwrap().iter().chain([&document["config"]]);
    for blob in blobs {
        let digest = blob["digest"].as_str().unwrap();
        let file = layout.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap());
        let start = judge("curl", &format!("-sfi -X POST http://{address}/v2/me/os/blobs/uploads/"));
        let location = start.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap().trim();
        judge(
            "curl",
            &format!(
                "-sf -X PUT -HContent-Type:application/octet-stream --data-binary @{} {location}&digest={digest}",
                file.display()
            ),
        );
    }
    judge(
        "curl",
        &format!(
            "-sf -X PUT -HContent-Type:{MANIFEST} --data-binary @{} http://{address}/v2/me/os/manifests/{tag}",
            manifest.display()
        ),
    );
}
