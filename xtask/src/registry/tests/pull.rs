//! Reading, and every hostile or broken answer that a registry can give.

use super::*;
use crate::testing::{Fault, FaultProxy, Registry, answer};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What becomes of a document that is answered with these bytes.
fn check(bytes: impl Fn(usize) -> Vec<u8> + Send + Sync + 'static, expected: &str) {
    check_reference("os/app:v1", bytes, expected);
}

fn check_reference(name: &str, bytes: impl Fn(usize) -> Vec<u8> + Send + Sync + 'static, expected: &str) {
    let server = FaultProxy::alone(move |seen| Fault::Answer(bytes(seen.earlier)));
    let reference = format!("{}/{name}", server.address()).parse().unwrap();
    let found = match client().document(&reference) {
        Ok(Some(document)) => format!("{} after {}", document.blob().digest().short(), server.seen().len()),
        Ok(None) => "none".to_owned(),
        Err(error) => format!("{} (after {})", shown(&error, server.address()), server.seen().len()),
    };
    assert_eq!(found.replace("http://HOST/v2/os/app/manifests/", "URL:"), expected);
}

fn ok(body: &str) -> Vec<u8> {
    answer("200 OK", &[("Content-Type", MANIFEST)], body.as_bytes())
}

fn manifest() -> String {
    String::from_utf8(Image::new(&[b"layer"]).manifest.bytes().to_vec()).unwrap()
}

#[test]
fn documents_are_read_when_they_are_right() {
    let digest = Digest::of(manifest().as_bytes());
    check(|_| ok(&manifest()), &format!("{} after 1", digest.short()));
    check_reference(&format!("os/app@{digest}"), |_| ok(&manifest()), &format!("{} after 1", digest.short()));
    let header = move || digest.to_string();
    check(
        move |_| answer("200 OK", &[("Docker-Content-Digest", &header())], manifest().as_bytes()),
        &format!("{} after 1", digest.short()),
    );
    let absent = |code: &str| format!(r#"{{"errors":[{{"code":"{code}","message":"x"}}]}}"#);
    check(move |_| answer("404 Not Found", &[], absent("MANIFEST_UNKNOWN").as_bytes()), "none");
    check(move |_| answer("404 Not Found", &[], absent("NAME_UNKNOWN").as_bytes()), "none");
}

#[test]
fn hostile_documents_are_refused() {
    let lie =
        "Docker-Content-Digest: sha256:0000000000000000000000000000000000000000000000000000000000000000";
    let damaged =
        "hint: the registry, or a proxy before it, is damaged or hostile: nothing was used (after 1)";
    let digest = Digest::of(manifest().as_bytes());
    check(
        move |_| answer("200 OK", &[lie.split_once(": ").unwrap()], manifest().as_bytes()),
        &format!(
            "URL:v1 says that its digest is {}, but it is {digest}\n{damaged}",
            lie.split_once(": ").unwrap().1
        ),
    );
    check_reference(
        &format!("os/app@{digest}"),
        |_| ok(&manifest().replace("amd64", "amd65").replace("linux", "linus").replace(":2,", ": 2,")),
        &format!(
            "URL:{digest} is not what it should be: {digest} was promised, but what came is {}\n{damaged}",
            Digest::of(manifest().replace(":2,", ": 2,").as_bytes())
        ),
    );
    let look =
        "hint: check that the name is an image's; 'curl --location URL:v1' shows what is there (after 1)";
    let ambiguous = r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#;
    check(
        |_| ok(ambiguous),
        &format!(
            "reading URL:v1: {} has both `layers` and `manifests`: it could be read in two ways (CVE-2021-41190)\n{look}",
            Digest::of(ambiguous.as_bytes())
        ),
    );
    let index = "application/vnd.oci.image.index.v1+json";
    check(
        move |_| answer("200 OK", &[("Content-Type", index)], manifest().as_bytes()),
        &format!("reading URL:v1: {digest} is sent as `{index}`, but is `{MANIFEST}`\n{look}"),
    );
    let schema1 = r#"{"schemaVersion":1,"fsLayers":[]}"#;
    check(
        |_| ok(schema1),
        &format!(
            "reading URL:v1: {} is a schema 1 manifest, which ended in 2017 and has no content digests\nhint: push the image again, with a tool of today (after 1)",
            Digest::of(schema1.as_bytes())
        ),
    );
    let page = "<html>Welcome</html>";
    check(
        move |_| answer("200 OK", &[("Content-Type", "text/html")], page.as_bytes()),
        &format!(
            "reading URL:v1: {} is a web page, not a manifest\n\
             hint: check the registry's name: a login page or a proxy answers there (after 1)",
            Digest::of(page.as_bytes())
        ),
    );
    check(
        move |_| answer("404 Not Found", &[("Content-Type", "text/html")], page.as_bytes()),
        "URL:v1 answers with something that no registry says\nhint: check the registry's name and port (after 1)",
    );
    // CVE-2024-3727: a digest that would be a path outside.
    let path = manifest().replace(&Digest::of(b"layer").to_string(), "sha256:../../../etc/passwd");
    let path_digest = Digest::of(path.as_bytes());
    let server = FaultProxy::alone(move |_| Fault::Answer(ok(&path)));
    let reference = format!("{}/os/app:v1", server.address()).parse().unwrap();
    let error = shown(&client().document(&reference).unwrap_err(), server.address());
    assert!(error.contains(&format!("{path_digest} is not a valid image manifest")), "{error}");
}

#[test]
fn tags_come_in_pages_and_an_error_is_not_no_tags() {
    let registry = Registry::docker();
    let client = client();
    let reference: Reference = format!("{}/os/app", registry.address()).parse().unwrap();
    assert_eq!(client.tags(&reference).unwrap(), [""; 0], "there is no repository yet");
    for tag in ["v1", "v2", "v10"] {
        let target = format!("{}/os/app:{tag}", registry.address());
        client.push(&Image::new(&[b"layer"]).push(&target, None)).unwrap();
    }
    let mut tags = client.tags(&reference).unwrap();
    tags.sort();
    assert_eq!(tags, ["v1", "v10", "v2"]);

    let paged = FaultProxy::alone(|seen| {
        let next = [("Link", "</v2/os/app/tags/list?n=1&last=a>; rel=\"next\"")];
        Fault::Answer(match seen.target.contains("last=a") {
            false => answer("200 OK", &next, br#"{"name":"os/app","tags":["a"]}"#),
            true => answer("200 OK", &[], br#"{"name":"os/app","tags":["b"]}"#),
        })
    });
    let reference: Reference = format!("{}/os/app", paged.address()).parse().unwrap();
    assert_eq!(client.tags(&reference).unwrap(), ["a", "b"]);

    let elsewhere = [("Link", "<https://evil.example/v2/os/app/tags/list>; rel=\"next\"")];
    for bad in [
        answer("500 Internal Server Error", &[], b""),
        answer("403 Forbidden", &[], b""),
        answer("404 Not Found", &[], b"<html>"),
        answer("200 OK", &[], b"<html>"),
        answer("200 OK", &elsewhere, br#"{"tags":["a"]}"#),
    ] {
        let server = FaultProxy::alone(move |_| Fault::Answer(bad.clone()));
        let reference: Reference = format!("{}/os/app", server.address()).parse().unwrap();
        client.tags(&reference).unwrap_err();
    }
}

#[test]
fn tags_are_bounded() {
    let many = [r#"{"tags":["a""#, &r#","a""#.repeat(600_000), "]}"].concat();
    for body in [r#"{"tags":["a"]}"#, r#"{"tags":[]}"#, &many] {
        let body = body.as_bytes().to_vec();
        let server = FaultProxy::alone(move |_| {
            Fault::Answer(answer("200 OK", &[("Link", "<?last=a>; rel=\"next\"")], &body))
        });
        let reference: Reference = format!("{}/os/app", server.address()).parse().unwrap();
        let error = client().tags(&reference).unwrap_err().to_string();
        assert!(error.ends_with("lists more than 1000000 tags"), "{error}");
    }
}

#[test]
fn reading_stops_where_a_document_is_too_large() {
    let expected = "URL:v1 has more than the 4194304 bytes that it may have\n\
                    hint: check that the name is an image's (after 1)";
    check(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 314572800\r\n\r\n".to_vec(), expected);
    let endless = || [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec(), vec![b' '; 5 << 20]].concat();
    check(move |_| endless(), expected);
}

#[test]
fn transfers_that_break_are_tried_again() {
    let digest = Digest::of(manifest().as_bytes()).short();
    let cut = || ok(&manifest())[..200].to_vec();
    check(move |earlier| if earlier < 2 { cut() } else { ok(&manifest()) }, &format!("{digest} after 3"));
    let busy = |status, headers: &[(&str, &str)]| answer(status, headers, b"");
    check(
        move |earlier| match earlier {
            0 => busy("500 Internal Server Error", &[]),
            1 => busy("503 Service Unavailable", &[("Retry-After", "0")]),
            2 => busy("429 Too Many Requests", &[("Retry-After", "86400")]),
            _ => ok(&manifest()),
        },
        &format!("{digest} after 4"),
    );
    check(
        move |_| busy("500 Internal Server Error", &[]),
        "GET URL:v1: 500 Internal Server Error\nhint: the registry is in trouble: try again later (after 5)",
    );
    let limit = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"pull \u001b[2Jrate limit"}]}"#;
    check(
        move |_| answer("429 Too Many Requests", &[], limit.as_bytes()),
        "GET URL:v1: 429 Too Many Requests: TOOMANYREQUESTS: pull rate limit\n\
         hint: wait a while: the registry limits how often it is asked (after 5)",
    );
    check(move |_| busy("418 I'm a teapot", &[]), "GET URL:v1: 418 I'm a teapot (after 1)");
}

#[test]
fn retry_after_is_waited_for() {
    let server = FaultProxy::alone(|seen| {
        Fault::Answer(match seen.earlier {
            0 => answer("429 Too Many Requests", &[("Retry-After", "1")], b""),
            _ => ok(&manifest()),
        })
    });
    let timing = Timing { longest_pause: Duration::from_millis(100), ..timing() };
    let client = client_at(timing);
    let start = std::time::Instant::now();
    client.document(&format!("{}/os/app:v1", server.address()).parse().unwrap()).unwrap();
    // A second is the shortest that can be asked for, and this client's limit cuts it short.
    assert!(start.elapsed() >= Duration::from_millis(100));
}

#[test]
fn nothing_on_this_machine_is_asked_again() {
    // A port that was free a moment ago.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let pause = Duration::from_secs(10);
    let timing = Timing { pause, longest_pause: pause, tries: 2, ..timing() };
    let client = client_at(timing);
    let start = std::time::Instant::now();
    let error = client.document(&format!("{closed}/os/app:v1").parse().unwrap()).unwrap_err();
    // Pauses are half as long at least.
    assert!(start.elapsed() < pause / 2, "{:?}", start.elapsed());
    insta::assert_snapshot!(shown(&error, &closed), @"
    http://HOST/v2/os/app/manifests/v1 cannot be reached: Connection refused (os error 111)
    hint: is the registry at HOST running?
    ");
}

/// A part of a name has at most 63 characters, so no resolver asks anybody for this one.
/// Source: RFC 1035, 2.3.4.
#[test]
fn a_name_that_does_not_exist_is_asked_for_once() {
    let host = format!("{}.example", "a".repeat(64));
    let client = client_of(vec![host.parse().unwrap()], Lookup::new(|_| None), timing());
    let error = client.document(&format!("{host}/os/app:v1").parse().unwrap()).unwrap_err();
    assert_eq!(client.transport.traffic().requests(), 1, "{error:?}");
    insta::assert_snapshot!(shown(&error, &host), @"
    http://HOST/v2/os/app/manifests/v1 cannot be reached: failed to lookup address information: Name or service not known
    hint: check the name HOST
    ");
}

#[test]
fn a_registry_that_falls_silent_is_given_up() {
    let server = FaultProxy::alone(|_| Fault::Silence);
    let timing = Timing { idle: Duration::from_millis(50), tries: 2, ..timing() };
    let client = client_at(timing);
    let error = client.document(&format!("{}/os/app:v1", server.address()).parse().unwrap()).unwrap_err();
    insta::assert_snapshot!(shown(&error, server.address()), @"
    http://HOST/v2/os/app/manifests/v1 did not move for 50ms
    hint: check the network, and run the command again
    ");
}

/// The same answer with another head, and a body of `count` bytes.
fn resize(answer: &[u8], head: &str, count: usize) -> Vec<u8> {
    let body = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    let mut body = answer[body..].to_vec();
    body.resize(count, 0);
    [format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{head}\r\n").as_bytes(), &body].concat()
}

/// A layer in a real registry, whose answers pass through `change`.
fn fetch(
    layer: &[u8],
    change: impl Fn(&crate::testing::Seen) -> Fault + Send + Sync + 'static,
) -> (String, FaultProxy) {
    let registry = Registry::docker();
    let image = Image::new(&[layer]);
    let client = client();
    let target = format!("{}/os/app:v1", registry.address());
    client.push(&image.push(&target, None)).unwrap();
    let proxy = FaultProxy::before(&registry, change);
    let reference = format!("{}/os/app:v1", proxy.address()).parse().unwrap();
    let descriptor = image.layers[0].descriptor(MediaType::ImageLayer);
    let step = Progress::new(Verbosity::Quiet).step("");
    let mut read = Vec::new();
    let result = match client.fetch(&reference, &descriptor, &mut read, &step) {
        Ok(()) => {
            assert_eq!(read, layer);
            "whole".to_owned()
        }
        Err(error) => {
            let digest = descriptor.digest.to_string();
            assert!(read.len() <= layer.len(), "no more than the size is ever written");
            shown(&error, proxy.address()).replace(&digest, "DIGEST")
        }
    };
    (result, proxy)
}

#[test]
fn blobs_that_are_not_as_promised_are_refused() {
    let layer = bytes(1, 100_000);
    let (result, _) = fetch(&layer, |_| {
        Fault::Change(|mut answer| {
            let last = answer.len() - 1;
            answer[last] ^= 1;
            answer
        })
    });
    let result = result.split(" what came is ").next().unwrap().to_owned();
    insta::assert_snapshot!(result, @"http://HOST/v2/os/app/blobs/DIGEST is not what it should be: DIGEST was promised, but");
    // Longer and shorter, with a length that says so, and without one.
    let longer = |answer: Vec<u8>| resize(&answer, "Content-Length: 100001\r\n", 100_001);
    let shorter = |answer: Vec<u8>| resize(&answer, "Content-Length: 99999\r\n", 99_999);
    let (longer, _) = fetch(&layer, move |_| Fault::Change(longer));
    assert!(longer.contains("DIGEST should have 100000 bytes, but has 100001"), "{longer}");
    let (shorter, _) = fetch(&layer, move |_| Fault::Change(shorter));
    assert!(shorter.contains("DIGEST should have 100000 bytes, but has 99999"), "{shorter}");
    let (longer, _) = fetch(&layer, |_| Fault::Change(|answer| resize(&answer, "", 200_000)));
    assert!(longer.contains("DIGEST should have 100000 bytes, but has "), "{longer}");
    let (shorter, _) = fetch(&layer, |_| Fault::Change(|answer| resize(&answer, "", 99_999)));
    insta::assert_snapshot!(shorter, @"
    http://HOST/v2/os/app/blobs/DIGEST is not what it should be: DIGEST should have 100000 bytes, but has 99999
    hint: the registry, or a proxy before it, is damaged or hostile: nothing was used
    ");
}

#[test]
fn a_download_goes_on_where_it_broke_off() {
    let layer = bytes(1, 3_000_000);
    let cut = |seen: &crate::testing::Seen| match seen.earlier {
        0 => Fault::Change(|answer| answer[..2_000_000].to_vec()),
        _ => Fault::Pass,
    };
    let (result, proxy) = fetch(&layer, cut);
    assert_eq!(result, "whole");
    let ranges: Vec<_> = proxy.seen().iter().map(|seen| seen.header("range").map(str::to_owned)).collect();
    assert!(matches!(&ranges[..], [None, Some(range)] if range.starts_with("bytes=19")), "{ranges:?}");

    // From a registry that knows no ranges.
    let body = layer.clone();
    let server = FaultProxy::alone(move |seen| {
        let whole = answer("200 OK", &[], &body);
        Fault::Answer(if seen.earlier == 0 { whole[..2_000_000].to_vec() } else { whole })
    });
    let reference = format!("{}/os/app:v1", server.address()).parse().unwrap();
    let descriptor = Verified::own(layer.clone()).descriptor(MediaType::ImageLayer);
    let (mut read, step) = (Vec::new(), Progress::new(Verbosity::Quiet).step(""));
    client().fetch(&reference, &descriptor, &mut read, &step).unwrap();
    assert_eq!((read == layer, server.seen().len()), (true, 2));

    // It is given up when it never gets further.
    let (result, proxy) = fetch(&layer, |_| Fault::Change(|answer| answer[..300].to_vec()));
    assert!(result.contains("broke off"), "{result}");
    assert!(proxy.seen().len() <= 10, "{}", proxy.seen().len());
}

#[test]
fn a_download_that_breaks_after_its_last_byte_is_whole() {
    // All of the body in one chunk, and the end that says so never comes.
    let unended = |answer: Vec<u8>| {
        let body = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
        let body = &answer[body..];
        let head = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len());
        [head.as_bytes(), body, b"\r\n"].concat()
    };
    let (result, proxy) = fetch(&bytes(1, 100_000), move |_| Fault::Change(unended));
    assert_eq!((result.as_str(), proxy.seen().len()), ("whole", 1));
}

#[test]
fn large_configs_are_not_read_into_memory() {
    let server = FaultProxy::alone(|_| Fault::Answer(answer("200 OK", &[], b"")));
    let reference = format!("{}/os/app:v1", server.address()).parse().unwrap();
    let descriptor = Descriptor { size: 1 << 40, ..Verified::own(vec![]).descriptor(MediaType::ImageConfig) };
    let error = client().config(&reference, &descriptor).unwrap_err();
    assert!(error.to_string().contains("more than the 16777216 bytes"), "{error}");
    assert_eq!(server.seen().len(), 0);
}

#[test]
fn urls_of_layers_are_never_followed() {
    let elsewhere = FaultProxy::alone(|_| Fault::Answer(answer("200 OK", &[], b"layer")));
    let urls = format!(r#""urls":["http://{}/layer"],"digest""#, elsewhere.address());
    let foreign = manifest().replace(r#""digest""#, &urls);
    let server = FaultProxy::alone(move |seen| {
        Fault::Answer(match seen.path().contains("manifests") {
            true => ok(&foreign),
            false => answer("404 Not Found", &[], br#"{"errors":[{"code":"BLOB_UNKNOWN"}]}"#),
        })
    });
    let reference: Reference = format!("{}/os/app:v1", server.address()).parse().unwrap();
    let Some(Document::Manifest(manifest)) = client().document(&reference).unwrap() else { panic!() };
    let step = Progress::new(Verbosity::Quiet).step("");
    let error = client().fetch(&reference, &manifest.layers[0], &mut Vec::new(), &step).unwrap_err();
    let error = shown(&error, server.address()).replace(&manifest.layers[0].digest.to_string(), "DIGEST");
    insta::assert_snapshot!(error, @"
    GET http://HOST/v2/os/app/blobs/DIGEST: 404 Not Found: BLOB_UNKNOWN
    hint: check the name
    ");
    assert_eq!(elsewhere.seen().len(), 0);
}

#[test]
fn redirects_are_followed_without_credentials_and_not_for_ever() {
    let storage = FaultProxy::alone(|_| Fault::Answer(ok(&manifest())));
    let location = format!("http://{}/signed?signature=secret", storage.address());
    let server = FaultProxy::alone(move |seen| {
        Fault::Answer(match seen.header("authorization") {
            None => answer("401 Unauthorized", &[("WWW-Authenticate", "Basic realm=x")], b""),
            Some(_) => answer("307 Temporary Redirect", &[("Location", &location)], b""),
        })
    });
    let address = server.address().to_owned();
    let client = client_with(super::auth::files(&address, "user:password"));
    let reference = format!("{address}/os/app:v1").parse().unwrap();
    assert!(client.document(&reference).unwrap().is_some());
    assert!(server.seen()[1].header("authorization").is_some());
    let [seen] = &storage.seen()[..] else { panic!("one request") };
    assert_eq!(seen.header("authorization"), None, "another port is another host");

    check(
        |earlier| answer("302 Found", &[("Location", &format!("/{earlier}"))], b""),
        "URL:v1 redirects more than 10 times (after 11)",
    );
    check(
        |_| answer("302 Found", &[("Location", "file:///etc/passwd")], b""),
        "URL:v1 redirects to file:///etc/passwd, which is no web address (after 1)",
    );
}
