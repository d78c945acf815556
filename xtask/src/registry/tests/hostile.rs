//! Whatever a registry, or what stands before it, answers to a push.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::testing::{Fault, FaultProxy, Registry, Seen, answer};

/// The kinds of requests that a push is made of.
const KINDS: [(&str, &str); 5] = [
    ("GET", "/manifests/"),
    ("HEAD", "/blobs/"),
    ("POST", "/blobs/uploads/"),
    ("PUT", "/blobs/uploads/"),
    ("PUT", "/manifests/"),
];

fn is(seen: &Seen, (method, path): (&str, &str)) -> bool {
    seen.method == method && seen.path().contains(path)
}

/// Large enough to be asked for before it is sent.
fn large_image() -> Image {
    Image::new(&[&bytes(1, 9_000_000), b"small"])
}

/// What comes of a push when each request of a kind is answered so, and how many there were. No tag may
/// come of it.
fn refused(kind: (&'static str, &'static str), bytes: Vec<u8>) -> (String, usize) {
    let registry = Registry::docker();
    let proxy = FaultProxy::before(&registry, move |seen| match is(seen, kind) {
        true => Fault::Answer(bytes.clone()),
        false => Fault::Pass,
    });
    let target = format!("{}/os/app:v1", proxy.address());
    let image = large_image();
    let error = client().push(&image.push(&target, None)).unwrap_err();
    assert_eq!(tag(&client(), &format!("{}/os/app:v1", registry.address())), None);
    let mut text = shown(&error, proxy.address());
    for blob in image.layers.iter().chain([&image.config]) {
        text = text.replace(&blob.digest().to_string(), "DIGEST");
    }
    (text, proxy.seen().iter().filter(|seen| is(seen, kind)).count())
}

#[test]
fn what_is_busy_for_a_while_gets_all() {
    for kind in KINDS {
        let registry = Registry::docker();
        let refusals = Arc::new(AtomicUsize::new(0));
        let count = refusals.clone();
        let proxy = FaultProxy::before(&registry, move |seen| {
            if !is(seen, kind) {
                return Fault::Pass;
            }
            match count.fetch_add(1, Ordering::SeqCst) {
                0 => Fault::Answer(answer("429 Too Many Requests", &[("Retry-After", "0")], b"")),
                1 => Fault::Answer(answer("500 Internal Server Error", &[], b"")),
                _ => Fault::Pass,
            }
        });
        let target = format!("{}/os/app:v1", proxy.address());
        let image = large_image();
        client().push(&image.push(&target, None)).unwrap();
        assert!(refusals.load(Ordering::SeqCst) >= 3, "{kind:?}");
        assert_whole(&client(), &target, &image);
    }
}

#[test]
fn what_is_broken_for_ever_is_given_up() {
    for kind in KINDS {
        let (error, count) = refused(kind, answer("500 Internal Server Error", &[], b""));
        assert!(error.contains(": 500 Internal Server Error"), "{kind:?}: {error}");
        assert!(error.ends_with("hint: the registry is in trouble: try again later"), "{kind:?}: {error}");
        // Five tries each, of three blobs.
        assert!(count <= 15, "{kind:?}: {count} requests");
    }
}

#[test]
fn a_web_page_is_no_answer() {
    // Whoever logs in at a gate gets pages for everything.
    let page = b"<html>Log in\x1b[2J</html>";
    for (kind, statuses) in [
        // There is no body to it, and "it is there" is what 200 says.
        (KINDS[1], &["403 Forbidden"][..]),
        (KINDS[2], &["200 OK", "403 Forbidden"]),
        (KINDS[3], &["200 OK", "403 Forbidden"]),
        (KINDS[4], &["200 OK", "403 Forbidden"]),
    ] {
        for &status in statuses {
            let (error, count) = refused(kind, answer(status, &[("Content-Type", "text/html")], page));
            assert!(!error.contains("Log in"), "{error}");
            assert!(count <= 3, "{kind:?}: {count} requests");
        }
    }
    let (error, _) = refused(KINDS[4], answer("200 OK", &[], page));
    insta::assert_snapshot!(error, @"PUT http://HOST/v2/os/app/manifests/v1: 200 OK: a web page");
}

#[test]
fn an_answer_of_gigabytes_is_not_read() {
    let endless =
        [b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".to_vec(), vec![b'x'; 5 << 20]].concat();
    for kind in KINDS {
        let claimed = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 314572800\r\n\r\n".to_vec();
        for bytes in [claimed, endless.clone()] {
            let (error, count) = refused(kind, bytes);
            assert!(error.contains("400 Bad Request"), "{kind:?}: {error}");
            assert!(error.len() < 1000 && count <= 3, "{kind:?}: {error}");
        }
    }
}

#[test]
fn an_upload_that_leads_elsewhere_takes_no_login_there() {
    let elsewhere = FaultProxy::alone(|seen| {
        Fault::Answer(match seen.method.as_str() {
            "PUT" => answer("201 Created", &[], b""),
            _ => answer("202 Accepted", &[("Location", "/session")], b""),
        })
    });
    let location = format!("http://{}/session", elsewhere.address());
    let home = |status: &'static str, location: String| {
        FaultProxy::alone(move |seen| {
            let is_logged_in = seen.header("authorization").is_some();
            Fault::Answer(match seen.method.as_str() {
                _ if !is_logged_in => {
                    answer("401 Unauthorized", &[("WWW-Authenticate", "Basic realm=x")], b"")
                }
                "POST" => answer(status, &[("Location", &location)], b""),
                "PUT" => answer("201 Created", &[], b""),
                _ => answer("404 Not Found", &[], br#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#),
            })
        })
    };
    // As storage's own address, and by a redirect.
    for status in ["202 Accepted", "307 Temporary Redirect"] {
        elsewhere.forget();
        let server = home(status, location.clone());
        let client = client_with(super::auth::files(server.address(), "user:s3cret"));
        let target = format!("{}/os/app:v1", server.address());
        client.push(&Image::new(&[b"layer"]).push(&target, None)).unwrap();
        let seen = elsewhere.seen();
        assert!(seen.iter().any(|seen| seen.method == "PUT"), "{seen:?}");
        assert!(seen.iter().all(|seen| seen.header("authorization").is_none()), "{seen:?}");
    }
    for (location, expected) in [
        ("file:///etc/passwd", "which is no web address"),
        ("", "redirects more than 10 times"),
        ("http://[", "the answer has no valid `Location`"),
    ] {
        let server = home("307 Temporary Redirect", location.to_owned());
        let client = client_with(super::auth::files(server.address(), "user:s3cret"));
        let target = format!("{}/os/app:v1", server.address());
        let error = client.push(&Image::new(&[b"layer"]).push(&target, None)).unwrap_err().to_string();
        assert!(error.ends_with(expected), "{error}");
    }
}

#[test]
fn a_tag_and_a_referrer_are_what_was_sent() {
    let lie =
        ("Docker-Content-Digest", "sha256:0000000000000000000000000000000000000000000000000000000000000000");
    let registry = Registry::docker();
    let image = Image::new(&[b"layer"]);
    let target = format!("{}/os/app:v1", registry.address());
    client().push(&image.push(&target, None)).unwrap();
    let proxy = FaultProxy::before(&registry, move |seen| match seen.method.as_str() {
        "PUT" if seen.path().contains("/manifests/") => Fault::Answer(answer("201 Created", &[lie], b"")),
        _ => Fault::Pass,
    });
    let target: Reference = format!("{}/os/app:v2", proxy.address()).parse().unwrap();
    let document =
        client().document(&target.to_string().replace("v2", "v1").parse().unwrap()).unwrap().unwrap();
    let error = client().tag(&target, &document).unwrap_err().to_string();
    assert!(error.contains("says that its digest is sha256:00"), "{error}");
}
