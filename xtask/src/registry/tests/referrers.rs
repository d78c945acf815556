//! What is attached to images, with the registry's own API and without it.

use serde_json::Value;

use super::*;
use crate::oci::{Artifact, Attachment, Timestamp};
use crate::testing::{Fault, FaultProxy, Registry, Seen, answer};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn artifact(image: &Image, artifact_type: &'static str, content: &[u8]) -> Artifact {
    let attachment = Attachment {
        artifact_type,
        file_name: "document",
        annotation: Some(("example.note", "kept")),
        created: Timestamp::EPOCH,
        content: content.to_vec(),
    };
    Artifact::new(&image.descriptor(), attachment)
}

fn push_with(client: &Client, image: &Image, target: &str, artifacts: &[Artifact]) -> Pushed {
    let push = Push { artifacts: artifacts.to_vec(), ..image.push(target, None) };
    client.push(&push).unwrap()
}

fn listed(client: &Client, image: &Image, target: &str) -> Vec<Digest> {
    let referrers = client.referrers(&target.parse().unwrap(), image.manifest.digest()).unwrap();
    let mut digests: Vec<Digest> = referrers.into_iter().map(|referrer| referrer.descriptor.digest).collect();
    digests.sort();
    digests
}

fn digests(artifacts: &[&Artifact]) -> Vec<Digest> {
    let mut digests: Vec<Digest> = artifacts.iter().map(|artifact| artifact.manifest().digest()).collect();
    digests.sort();
    digests
}

#[test]
fn what_is_attached_is_there_before_the_tag_and_once() {
    for registry in [Registry::docker(), Registry::crane(), Registry::with_referrers()] {
        let proxy = FaultProxy::before(&registry, |_| Fault::Pass);
        let (client, target) = (client(), format!("{}/os/app:v1", proxy.address()));
        let image = Image::new(&[b"one", b"two"]);
        assert_eq!(listed(&client, &image, &target), []);
        let (a, b) = (artifact(&image, "text/plain", b"a"), artifact(&image, "text/html", b"b"));
        proxy.forget();
        let pushed = push_with(&client, &image, &target, &[a.clone(), b.clone()]);
        assert_eq!((pushed.attached, pushed.unchanged), (2, false));
        let lines = proxy.lines();
        let last_attached = lines.iter().rposition(|line| line.contains("/manifests/sha256"));
        assert_eq!(lines.iter().rposition(|line| line.ends_with("/manifests/v1")), Some(lines.len() - 1));
        assert!(last_attached.is_some_and(|at| at < lines.len() - 1), "{lines:?}");
        assert_eq!(listed(&client, &image, &target), digests(&[&a, &b]));
        assert_whole(&client, &target, &image);

        // Again, nothing is sent; with a third one, that alone is.
        proxy.forget();
        let pushed = push_with(&client, &image, &target, &[a.clone(), b.clone()]);
        assert_eq!((pushed.attached, pushed.unchanged, pushed.sent_bytes), (0, true, 0));
        assert!(proxy.lines().iter().all(|line| line.starts_with("GET")), "{:?}", proxy.lines());
        let c = artifact(&image, "text/plain", b"c");
        assert_eq!(push_with(&client, &image, &target, std::slice::from_ref(&c)).attached, 1);
        assert_eq!(listed(&client, &image, &target), digests(&[&a, &b, &c]));
        // By its digest, which is where all of it is then.
        let by_digest = format!("{}/os/app@{}", proxy.address(), image.manifest.digest());
        assert_eq!(push_with(&client, &image, &by_digest, std::slice::from_ref(&a)).attached, 0);
        let other = Image::new(&[b"three"]);
        let by_digest = format!("{}/os/app@{}", proxy.address(), other.manifest.digest());
        assert_eq!(
            push_with(&client, &other, &by_digest, &[artifact(&other, "text/plain", b"a")]).attached,
            1
        );
        assert_eq!(listed(&client, &image, &target), digests(&[&a, &b, &c]));
    }
}

#[test]
fn the_index_under_the_tag_keeps_what_others_have_put_there() {
    let registry = Registry::docker();
    let (client, target) = (client(), format!("{}/os/app:v1", registry.address()));
    let image = Image::new(&[b"one"]);
    let a = artifact(&image, "text/plain", b"a");
    push_with(&client, &image, &target, std::slice::from_ref(&a));
    let fallback = format!("{}/os/app:sha256-{}", registry.address(), image.manifest.digest().hex());
    let index = || -> Value {
        let document = client.document(&fallback.parse().unwrap()).unwrap().unwrap();
        serde_json::from_slice(document.blob().bytes()).unwrap()
    };
    let entry = &index()["manifests"][0];
    assert_eq!(entry["artifactType"], "text/plain");
    assert_eq!(entry["annotations"]["example.note"], "kept");

    // What another program adds, with keys that are not ours.
    let mut theirs = index();
    theirs["annotations"] = json!({"theirs": "kept"});
    theirs["manifests"][0]["x-theirs"] = json!(1);
    let theirs = Verified::own(theirs.to_string().into_bytes());
    let push = Push {
        target: fallback.parse().unwrap(),
        until: Until::Tagged,
        manifests: vec![(theirs.descriptor(MediaType::ImageIndex), theirs)],
        blobs: vec![],
        artifacts: vec![],
    };
    client.push(&push).unwrap();
    let b = artifact(&image, "text/html", b"b");
    push_with(&client, &image, &target, &[b]);
    let index = index();
    assert_eq!(
        (&index["annotations"]["theirs"], &index["manifests"][0]["x-theirs"]),
        (&json!("kept"), &json!(1))
    );
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
}

#[test]
fn what_another_writer_drops_is_added_again() {
    let registry = Registry::docker();
    // The first index that is put is lost: another one is put in its place at once.
    let proxy = FaultProxy::before(&registry, |seen: &Seen| {
        let is_index = seen.method == "PUT" && seen.path().contains("/manifests/sha256-");
        match is_index && seen.earlier == 0 {
            true => Fault::Answer(answer("201 Created", &[], b"")),
            false => Fault::Pass,
        }
    });
    let (client, target) = (client(), format!("{}/os/app:v1", proxy.address()));
    let image = Image::new(&[b"one"]);
    let a = artifact(&image, "text/plain", b"a");
    push_with(&client, &image, &target, std::slice::from_ref(&a));
    assert_eq!(listed(&client, &image, &target), digests(&[&a]));
}

/// What comes of a list that a registry answers with, by its API or, where that is not there, under
/// the tag.
fn check(api: Option<&Answer>, tag: Option<&Answer>, expected: &str) {
    let missing = || answer("404 Not Found", &[], br#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#);
    let bytes = |given: Option<&Answer>| {
        given.map_or_else(missing, |Answer { status, content_type, body, link }| {
            let mut headers = vec![("Content-Type", *content_type)];
            headers.extend(link.map(|link| ("Link", link)));
            answer(status, &headers, body)
        })
    };
    let (api, tag) = (bytes(api), bytes(tag));
    let server = FaultProxy::alone(move |seen| {
        Fault::Answer(if seen.path().contains("/referrers/") { api.clone() } else { tag.clone() })
    });
    let reference = format!("{}/os/app:v1", server.address()).parse().unwrap();
    let shown = match client().referrers(&reference, Digest::of(b"image")) {
        Ok(referrers) => format!("{} referrers", referrers.len()),
        Err(error) => shown(&error, server.address()).replace(&Digest::of(b"image").hex(), "HEX"),
    };
    assert_eq!(shown.lines().next(), Some(expected));
}

struct Answer {
    status: &'static str,
    content_type: &'static str,
    body: Vec<u8>,
    link: Option<&'static str>,
}

fn list(body: &str) -> Answer {
    Answer { status: "200 OK", content_type: INDEX, body: body.as_bytes().to_vec(), link: None }
}

#[test]
fn lists_of_strangers_are_bounded_and_read_with_care() {
    let entry = json!(Verified::own(b"x".to_vec()).descriptor(MediaType::ImageManifest)).to_string();
    let index = |entries: &[&str]| {
        format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, entries.join(","))
    };
    let one = index(&[&entry]);
    check(Some(&list(&one)), None, "1 referrers");
    // No API: an answer that is no list, or none at all.
    let page = Answer { content_type: "text/html", ..list("<html></html>") };
    check(Some(&page), Some(&list(&one)), "1 referrers");
    for status in ["400 Bad Request", "405 Method Not Allowed", "406 Not Acceptable", "501 Not Implemented"] {
        check(Some(&Answer { status, ..list("{}") }), Some(&list(&one)), "1 referrers");
    }
    check(None, None, "0 referrers");

    let api = "http://HOST/v2/os/app/referrers/sha256:HEX";
    let tag = "http://HOST/v2/os/app/manifests/sha256-HEX";
    let no_list = |url: &str| format!("{url} is no list of referrers");
    for bad in ["[]", "{", r#"{"manifests":{}}"#, &index(&[r#"{"digest":"sha256:../../x"}"#])] {
        check(Some(&list(bad)), None, &no_list(api));
    }
    let evil = entry.replace("sha256:", "sha256:../");
    check(Some(&list(&index(&[&evil]))), None, &no_list(api));
    let long = entry.replacen('{', &format!(r#"{{"artifactType":"text/{}","#, "x".repeat(255)), 1);
    check(Some(&list(&index(&[&long]))), None, &no_list(api));
    let huge = index(&vec![entry.as_str(); 10_001]);
    check(Some(&list(&huge)), None, &format!("{api} lists more than 10000 referrers"));
    let vast = " ".repeat(5 * 1024 * 1024);
    check(Some(&list(&vast)), None, &format!("{api} has more than the 4194304 bytes that it may have"));
    // Pages for ever, and a page of another host's.
    let again = Answer { link: Some(r#"<?page=2>; rel="next""#), ..list(&one) };
    check(Some(&again), None, &format!("{api} lists more than 10000 referrers"));
    let elsewhere = Answer { link: Some(r#"<http://evil.example/>; rel="next""#), ..list(&one) };
    check(Some(&elsewhere), None, &format!("{api}: the answer has no valid `Link`"));
    // Whoever is not let in has not been told that there is nothing.
    let denied = Answer { status: "403 Forbidden", ..list("{}") };
    check(Some(&denied), None, "GET http://HOST/v2/os/app/referrers/sha256:HEX: 403 Forbidden: {}");

    let image = String::from_utf8(Image::new(&[b"one"]).manifest.bytes().to_vec()).unwrap();
    let manifest = Answer { content_type: MANIFEST, ..list(&image) };
    check(None, Some(&manifest), &no_list(tag));
    let both = list(r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#);
    let expected = format!(
        "reading {tag}: {} has both `layers` and `manifests`: it could be read in two ways (CVE-2021-41190)",
        Digest::of(&both.body)
    );
    check(None, Some(&both), &expected);
}
