//! Pushing: what is sent, what is not, and what a tag names when something fails.

use std::io;

use super::*;
use crate::testing::{Fault, FaultProxy, Registry, Seen};

/// A base of many small layers.
fn base(count: u64) -> Vec<Vec<u8>> {
    (0..count).map(|n| bytes(n + 1, 100)).collect()
}

/// The base with one layer on top.
fn image(base: &[Vec<u8>], app: &[u8]) -> Image {
    let layers: Vec<&[u8]> = base.iter().map(Vec::as_slice).chain([app]).collect();
    Image::new(&layers)
}

fn base_image(base: &[Vec<u8>]) -> Image {
    Image::new(&base.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

#[test]
fn an_app_change_needs_six_requests() {
    for registry in both() {
        let proxy = FaultProxy::before(&registry, |_| Fault::Pass);
        let client = client();
        let target = format!("{}/os/app:v1", proxy.address());
        assert_eq!(tag(&client, &target), None);
        let base = base(128);
        let pushed = client.push(&base_image(&base).push(&target, None)).unwrap();
        assert_eq!((pushed.uploaded.len(), pushed.unchanged), (129, false));
        assert_whole(&client, &target, &base_image(&base));

        let image = image(&base, &bytes(1000, 2_700_000));
        let push = image.push(&target, Some((&target, 128)));
        proxy.forget();
        let pushed = client.push(&push).unwrap();
        let mut lines = proxy.lines();
        lines
            .iter_mut()
            .for_each(|line| line.truncate(line.find("uploads/").map_or(line.len(), |at| at + 8)));
        // The two blobs go at the same time, in any order.
        lines[1..5].sort();
        let expected = [
            "GET /v2/os/app/manifests/v1",
            "POST /v2/os/app/blobs/uploads/",
            "POST /v2/os/app/blobs/uploads/",
            "PUT /v2/os/app/blobs/uploads/",
            "PUT /v2/os/app/blobs/uploads/",
            "PUT /v2/os/app/manifests/v1",
        ];
        assert_eq!(lines, expected);
        let sent = image.config.bytes().len() + 2_700_000 + image.manifest.bytes().len();
        let expected = Pushed {
            digest: image.manifest.digest(),
            requests: 6,
            sent_bytes: sent as u64,
            uploaded: [image.config.digest(), image.layers[128].digest()].into(),
            mounted: 0,
            attached: 0,
            unchanged: false,
        };
        assert_eq!(pushed, expected);
        assert_whole(&client, &target, &image);

        // Again, there is nothing to do.
        let pushed = client.push(&push).unwrap();
        assert_eq!((pushed.requests, pushed.sent_bytes, pushed.unchanged), (1, 0, true));
    }
}

#[test]
fn a_new_tag_asks_once_whether_the_base_is_there() {
    let registry = Registry::docker();
    let proxy = FaultProxy::before(&registry, |_| Fault::Pass);
    let client = client();
    let base = base(20);
    let from = format!("{}/base:weekly", proxy.address());
    client.push(&base_image(&base).push(&from, None)).unwrap();
    let (first, second) = (image(&base, b"first"), image(&base, b"second"));

    // A new repository gets each of the base's layers by a mount, and none is sent.
    let target = format!("{}/os/app:v1", proxy.address());
    let pushed = client.push(&first.push(&target, Some((&from, 20)))).unwrap();
    assert_eq!((pushed.uploaded.len(), pushed.mounted, pushed.requests), (2, 20, 1 + 1 + 4 + 20 + 1));
    assert_whole(&client, &target, &first);

    // A new tag in it: the question, then as above.
    let target = format!("{}/os/app:v2", proxy.address());
    let pushed = client.push(&second.push(&target, Some((&from, 20)))).unwrap();
    assert_eq!((pushed.uploaded.len(), pushed.mounted, pushed.requests), (2, 0, 7));
    assert_whole(&client, &target, &second);

    // The same image under another tag: a registry that takes it as it is may not have looked.
    let target = format!("{}/os/app:v3", proxy.address());
    let pushed = client.push(&second.push(&target, Some((&from, 20)))).unwrap();
    assert_eq!(pushed.uploaded, [].into());
    assert_whole(&client, &target, &second);
}

#[test]
fn a_registry_that_does_not_look_gets_no_image_with_holes() {
    let (source, target_registry) = (Registry::docker(), Registry::crane());
    let client = client();
    let base = base(5);
    let from = format!("{}/base:weekly", source.address());
    client.push(&base_image(&base).push(&from, None)).unwrap();
    // Another image there shares the base's last layer, and the largest ones, but not all.
    let other = Image::new(&[&base[4], &base[3]]);
    client.push(&other.push(&format!("{}/os/app:other", target_registry.address()), None)).unwrap();

    let target = format!("{}/os/app:v1", target_registry.address());
    let image = image(&base, b"app");
    client.push(&image.push(&target, Some((&from, 5)))).unwrap();
    assert_whole(&client, &target, &image);
}

#[test]
fn a_registry_that_names_one_missing_blob_at_a_time_gets_all() {
    let registry = Registry::docker();
    let proxy = FaultProxy::before(&registry, names_one_blob);
    let client = client();
    let base = base(5);
    let from = format!("{}/base:weekly", proxy.address());
    client.push(&base_image(&base).push(&from, None)).unwrap();
    let target = format!("{}/os/app:v1", proxy.address());
    let image = image(&base, b"app");
    client.push(&image.push(&target, Some((&from, 5)))).unwrap();
    assert_whole(&client, &target, &image);
}

/// A registry that refuses a manifest for the first blob that it lacks.
fn names_one_blob(seen: &Seen) -> Fault {
    match seen.method == "PUT" && seen.path().contains("manifests") {
        true => Fault::Change(name_one),
        false => Fault::Pass,
    }
}

/// A refusal with the first of its errors alone.
fn name_one(answer: Vec<u8>) -> Vec<u8> {
    let text = String::from_utf8(answer).unwrap();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return text.into_bytes() };
    let Ok(mut said) = serde_json::from_str::<serde_json::Value>(body) else { return text.into_bytes() };
    said["errors"].as_array_mut().unwrap().truncate(1);
    let kept = head.split("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with("content-length"));
    let (head, body) = (kept.collect::<Vec<_>>().join("\r\n"), said.to_string());
    format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[test]
fn a_large_blob_is_not_sent_where_it_is() {
    for registry in both() {
        let client = client();
        let large = bytes(1, 9_000_000);
        let target = format!("{}/os/disk:v1", registry.address());
        client.push(&Image::new(&[&large]).push(&target, None)).unwrap();
        let image = Image::new(&[&large, b"small"]);
        let target = format!("{}/os/disk:v2", registry.address());
        let pushed = client.push(&image.push(&target, None)).unwrap();
        assert_eq!(pushed.uploaded, [image.config.digest(), image.layers[1].digest()].into());
        assert_whole(&client, &target, &image);
    }
}

#[test]
fn a_mount_that_opens_an_upload_is_used() {
    let registry = Registry::docker();
    let client = client();
    let base = base(5);
    let from = format!("{}/base:weekly", registry.address());
    client.push(&base_image(&base).push(&from, None)).unwrap();
    // The registry is asked to mount out of a repository that has nothing: it answers 202.
    let proxy = FaultProxy::before(&registry, |seen| match seen.target.contains("from=base") {
        true => Fault::Retarget(format!("POST {}", seen.target.replace("from=base", "from=none"))),
        false => Fault::Pass,
    });
    let (from, target) =
        (format!("{}/base:weekly", proxy.address()), format!("{}/os/app:v1", proxy.address()));
    let image = image(&base, b"app");
    let pushed = client.push(&image.push(&target, Some((&from, 5)))).unwrap();
    assert_eq!((pushed.uploaded.len(), pushed.mounted), (7, 0));
    assert_eq!(proxy.count("POST", "uploads"), 7, "no upload is opened twice");
    assert_whole(&client, &target, &image);
}

#[test]
fn a_base_crosses_from_one_registry_to_another() {
    let (source, target_registry) = (Registry::docker(), Registry::crane());
    let client = client();
    let base: Vec<Vec<u8>> = (1..4).map(|n| bytes(n, 3_000_000)).collect();
    let from = format!("{}/base:weekly", source.address());
    client.push(&base_image(&base).push(&from, None)).unwrap();

    let target = format!("{}/os/app:v1", target_registry.address());
    let first = image(&base, b"first");
    let pushed = client.push(&first.push(&target, Some((&from, 3)))).unwrap();
    assert_eq!(pushed.uploaded.len(), 5);
    assert_whole(&client, &target, &first);

    let target = format!("{}/os/app:v2", target_registry.address());
    let second = image(&base, b"second");
    let pushed = client.push(&second.push(&target, Some((&from, 3)))).unwrap();
    assert_eq!(pushed.uploaded, [second.config.digest(), second.layers[3].digest()].into());

    // A source that flips a bit: nothing is sent under a false name, and no tag appears.
    let layer = first.layers[1].digest();
    let path = source.blob_path(&layer.hex());
    let mut damaged = std::fs::read(&path).unwrap();
    damaged[1_000_000] ^= 1;
    std::fs::write(&path, damaged).unwrap();
    let fresh = Registry::docker();
    let target = format!("{}/os/app:v1", fresh.address());
    let error = shown(&client.push(&first.push(&target, Some((&from, 3)))).unwrap_err(), source.address());
    assert!(error.contains(&format!("{layer} was promised, but what came is")), "{error}");
    assert_eq!(tag(&client, &target), None);

    // A source that breaks off is taken up again.
    std::fs::write(&path, first.layers[1].bytes()).unwrap();
    let proxy = FaultProxy::before(&source, |seen| match (seen.path().contains("blobs"), seen.earlier) {
        (true, 0) => Fault::Change(|answer| answer[..2_000_000].to_vec()),
        _ => Fault::Pass,
    });
    let from = format!("{}/base:weekly", proxy.address());
    client.push(&first.push(&target, Some((&from, 3)))).unwrap();
    assert_whole(&client, &target, &first);
}

#[test]
fn a_tag_moves_last_and_only_over_what_is_there() {
    // crane's registry takes a manifest whose layers it lacks; here a source that has nothing.
    for registry in both() {
        let empty = Registry::docker();
        let client = client();
        let base = base(3);
        let target = format!("{}/os/app:v1", registry.address());
        let from = format!("{}/base:weekly", empty.address());
        let image = image(&base, b"app");
        let error = client.push(&image.push(&target, Some((&from, 3)))).unwrap_err();
        assert!(error.to_string().contains("404"), "{error}");
        assert_eq!(tag(&client, &target), None);
    }
}

#[test]
fn blobs_that_vanished_are_sent_again() {
    let rules: [fn(&Seen) -> Fault; 2] = [|_| Fault::Pass, names_one_blob];
    for rule in rules {
        let registry = Registry::docker();
        let proxy = FaultProxy::before(&registry, rule);
        let client = client();
        let target = format!("{}/os/app:v1", proxy.address());
        let (first, second) = (Image::new(&[b"one", b"two"]), Image::new(&[b"one", b"two", b"three"]));
        client.push(&first.push(&target, None)).unwrap();
        // The tag still names them, but a careless cleanup took the layers.
        for layer in &first.layers {
            let head = format!("DELETE /v2/os/app/blobs/{} HTTP/1.1", layer.digest());
            let mut stream = std::net::TcpStream::connect(registry.address()).unwrap();
            let request = format!("{head}\r\nHost: x\r\nConnection: close\r\n\r\n");
            io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
        }

        let pushed = client.push(&second.push(&target, None)).unwrap();
        assert_eq!(pushed.uploaded.len(), 4);
        assert_whole(&client, &target, &second);
    }
}

#[test]
fn an_index_is_pushed_after_its_images() {
    for registry in both() {
        let client = client();
        let target = format!("{}/os/app:v1", registry.address());
        let (amd, arm) = (Image::new(&[b"shared", b"amd"]), Image::new(&[b"shared", b"arm"]));
        let index = |images: &[&Image]| {
            let entries: Vec<serde_json::Value> = images
                .iter()
                .zip(["amd64", "arm64"])
                .map(|(image, arch)| {
                    let mut entry = json!(image.descriptor());
                    entry["platform"] = json!({"os": "linux", "architecture": arch});
                    entry
                })
                .collect();
            let index = json!({"schemaVersion": 2, "mediaType": MediaType::ImageIndex, "manifests": entries});
            Verified::own(index.to_string().into_bytes())
        };
        let push = |images: &[&'static Image], index: &Verified| {
            let mut all = Push {
                target: target.parse().unwrap(),
                until: Until::Tagged,
                manifests: vec![],
                blobs: vec![],
                artifacts: vec![],
            };
            for image in images {
                let push = image.push(&target, None);
                all.manifests.extend(push.manifests);
                all.blobs.extend(push.blobs);
            }
            all.manifests.push((index.descriptor(MediaType::ImageIndex), index.clone()));
            all
        };
        let (amd, arm): (&'static Image, &'static Image) =
            (Box::leak(Box::new(amd)), Box::leak(Box::new(arm)));
        let first = index(&[amd, arm]);
        let pushed = client.push(&push(&[amd, arm], &first)).unwrap();
        assert_eq!((pushed.uploaded.len(), pushed.digest), (5, first.digest()));
        let reference: Reference = target.parse().unwrap();
        let Some(Document::Index(read)) = client.document(&reference).unwrap() else { panic!("an index") };
        for ((_, descriptor), image) in read.manifests.iter().zip([amd, arm]) {
            let Document::Manifest(manifest) = client.document_by_digest(&reference, descriptor).unwrap()
            else {
                panic!("a manifest")
            };
            assert_eq!(manifest.blob, image.manifest);
        }

        // One image changes: the other one is neither asked for nor sent.
        let newer: &'static Image = Box::leak(Box::new(Image::new(&[b"shared", b"newer"])));
        let second = index(&[amd, newer]);
        let pushed = client.push(&push(&[amd, newer], &second)).unwrap();
        assert_eq!((pushed.uploaded.len(), pushed.requests), (2, 1 + 2 + 4 + 2));
    }
}

#[test]
fn holes_and_wrong_names_are_found_before_anything_is_sent() {
    let server = FaultProxy::alone(|_| Fault::Silence);
    let target = format!("{}/os/app:v1", server.address());
    let image = Image::new(&[b"layer"]);
    let mut push = image.push(&target, None);
    push.blobs.pop();
    let error = client().push(&push).unwrap_err().to_string();
    assert!(error.ends_with("which is not among what is pushed"), "{error}");

    let mut push = image.push(&format!("{}/os/app@{}", server.address(), Digest::of(b"")), None);
    let error = client().push(&push).unwrap_err().to_string();
    assert!(error.contains("asks for another digest"), "{error}");
    push.manifests.clear();
    let error = client().push(&push).unwrap_err().to_string();
    assert!(error.starts_with("nothing to push to"), "{error}");
    assert_eq!(server.seen().len(), 0);
}

#[test]
fn a_registry_that_stores_something_else_is_found_out() {
    let registry = Registry::docker();
    let proxy = FaultProxy::before(&registry, |seen| {
        match seen.method == "PUT" && seen.path().contains("manifests") {
            true => Fault::Change(|answer| {
                let text = String::from_utf8(answer).unwrap();
                let (head, rest) = text.split_once("Docker-Content-Digest: sha256:").unwrap();
                format!("{head}Docker-Content-Digest: sha256:{}{}", "0".repeat(64), &rest[64..]).into_bytes()
            }),
            false => Fault::Pass,
        }
    });
    let target = format!("{}/os/app:v1", proxy.address());
    let error = client().push(&Image::new(&[b"layer"]).push(&target, None)).unwrap_err().to_string();
    assert!(error.contains("says that its digest is sha256:00"), "{error}");
}

#[test]
fn two_pushes_of_one_tag_leave_one_of_them_whole() {
    for registry in both() {
        let client = client();
        let target = format!("{}/os/app:v1", registry.address());
        let images = [Image::new(&[b"shared", b"one"]), Image::new(&[b"shared", b"two"])];
        std::thread::scope(|scope| {
            for image in &images {
                let (client, target) = (&client, &target);
                scope.spawn(move || client.push(&image.push(target, None)).unwrap());
            }
        });
        let digest = tag(&client, &target).unwrap();
        let image = images.iter().find(|image| image.manifest.digest() == digest).unwrap();
        assert_whole(&client, &target, image);
    }
}
