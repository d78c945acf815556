//! One blob on its way: lines that are slow or break, and what is sent again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::testing::{Fault, FaultProxy, Registry, Seen, answer};

#[test]
fn asking_whether_a_push_is_allowed_leaves_nothing() {
    let registry = Registry::docker();
    let proxy = FaultProxy::before(&registry, |_| Fault::Pass);
    let target = format!("{}/me/os:t", proxy.address()).parse().unwrap();
    client().check_push(&target).unwrap();
    let methods: Vec<String> = proxy.seen().into_iter().map(|seen| seen.method).collect();
    assert_eq!(methods, ["POST", "DELETE"]);
    assert_eq!(client().tags(&target).unwrap(), [""; 0]);
}

#[test]
fn an_upload_is_not_turned_into_a_question() {
    let registry = Registry::docker();
    let proxy = FaultProxy::before(&registry, |seen| match seen.method.as_str() {
        "PUT" => Fault::Answer(answer("302 Found", &[("Location", "/elsewhere")], b"")),
        _ => Fault::Pass,
    });
    let target = format!("{}/os/app:v1", proxy.address());
    let error = client().push(&Image::new(&[b"layer"]).push(&target, None)).unwrap_err().to_string();
    assert!(error.ends_with("which would turn what is sent into a question"), "{error}");
}

#[test]
fn a_file_that_changed_is_not_sent() {
    let registry = Registry::docker();
    let target = format!("{}/os/app:v1", registry.address());
    let image = Image::new(&[b"layer"]);
    for (content, expected) in
        [(&b"lay"[..], "should have 5 bytes"), (b"later", "was promised"), (b"layers", "should have 5")]
    {
        let mut push = image.push(&target, None);
        let content = content.to_vec();
        push.blobs[1].source = BlobSource::File(Box::new(move || Ok(Box::new(Cursor::new(content.clone())))));
        let error = client().push(&push).unwrap_err().to_string();
        assert!(error.contains("what was to be sent has changed") && error.contains(expected), "{error}");
        assert_eq!(tag(&client(), &target), None);
    }
}

#[test]
fn a_slow_line_is_no_registry_that_ponders() {
    let registry = Registry::docker();
    let is_layer = |seen: &Seen| seen.header("content-length").is_some_and(|length| length.len() >= 8);
    let proxy = FaultProxy::before(&registry, move |seen| match seen.method == "PUT" && is_layer(seen) {
        true => Fault::Delay(Duration::from_secs(3)),
        false => Fault::Pass,
    });
    let timing = Timing { commit: Duration::from_secs(2), ..timing() };
    let client = client_at(timing);
    let target = format!("{}/os/app:v1", proxy.address());
    // More than the sockets on the way hold, so that it cannot all be gone at once.
    let image = Image::new(&[&bytes(1, 24_000_000)]);
    let mut push = image.push(&target, None);
    push.blobs[1].source = BlobSource::Bytes(&image.layers[0]);
    let pushed = client.push(&push).unwrap();
    let sent: usize =
        [&image.config, &image.layers[0], &image.manifest].iter().map(|b| b.bytes().len()).sum();
    assert_eq!((pushed.sent_bytes, pushed.uploaded.len()), (sent as u64, 2));
    assert_eq!(proxy.count("PUT", "uploads"), 2, "each blob in one request");
    assert_whole(&client, &target, &image);
}

#[test]
fn an_upload_that_breaks_off_is_sent_again() {
    for registry in both() {
        // These two registries know no way to go on; both take a new upload.
        let breaks = Arc::new(AtomicUsize::new(0));
        let rule = breaks.clone();
        let proxy = FaultProxy::before(&registry, move |seen| {
            let is_large = seen.header("content-length").is_some_and(|length| length.len() >= 7);
            match seen.method == "PUT" && is_large && rule.fetch_add(1, Ordering::SeqCst) < 2 {
                true => Fault::CutRequest(1_000_000),
                false => Fault::Pass,
            }
        });
        let client = client();
        let target = format!("{}/os/app:v1", proxy.address());
        let image = Image::new(&[&bytes(1, 3_000_000)]);
        let pushed = client.push(&image.push(&target, None)).unwrap();
        assert_eq!((pushed.uploaded.len(), breaks.load(Ordering::SeqCst)), (2, 3));
        assert_whole(&client, &target, &image);

        let error = {
            let proxy = FaultProxy::before(&registry, |seen| match seen.method == "PUT" {
                true => Fault::CutRequest(0),
                false => Fault::Pass,
            });
            let target = format!("{}/os/app:v2", proxy.address());
            let error = client.push(&Image::new(&[b"never"]).push(&target, None)).unwrap_err();
            assert!(proxy.count("PUT", "") <= 10, "{:#?}", proxy.lines());
            error
        };
        assert!(error.to_string().contains("broke off"), "{error:#}");
    }
}

/// A mock of a registry that keeps what came of an upload, as the specification allows.
fn resumable(cut: usize) -> (FaultProxy, Arc<Mutex<Vec<u8>>>) {
    let upload: Arc<Mutex<Vec<u8>>> = Arc::default();
    let kept = upload.clone();
    let session = "/v2/os/app/blobs/uploads/1?state=";
    let rule = move |seen: &Seen| {
        let (kept, state) = (kept.clone(), kept.lock().unwrap().len());
        let location = format!("{session}{state}");
        let range = format!("0-{}", state.saturating_sub(1));
        let absent = || answer("404 Not Found", &[], br#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#);
        let is_upload = seen.path().contains("uploads");
        let part = match seen.header("content-range") {
            Some(range) if range.starts_with(&format!("{state}-")) => true,
            Some(_) => return Fault::Answer(answer("416 Range Not Satisfiable", &[], b"")),
            None => false,
        };
        match (seen.method.as_str(), is_upload) {
            ("POST", _) => Fault::Answer(answer("202 Accepted", &[("Location", &location)], b"")),
            ("GET", true) => {
                Fault::Answer(answer("204 No Content", &[("Location", &location), ("Range", &range)], b""))
            }
            // The first PUT of the layer breaks; what comes later is whole.
            ("PUT", true) if seen.header("content-length") != Some("0") && state == 0 => Fault::Take(
                cut,
                Box::new(move |body| {
                    if body.len() < cut {
                        return Some(answer("201 Created", &[], b""));
                    }
                    kept.lock().unwrap().extend(body);
                    None
                }),
            ),
            ("PATCH", true) if part => Fault::Take(
                usize::MAX,
                Box::new(move |body| {
                    let mut kept = kept.lock().unwrap();
                    kept.extend(body);
                    let location = format!("{session}{}", kept.len());
                    Some(answer("202 Accepted", &[("Location", &location)], b""))
                }),
            ),
            ("PUT", _) => Fault::Take(usize::MAX, Box::new(|_| Some(answer("201 Created", &[], b"")))),
            _ => Fault::Answer(absent()),
        }
    };
    (FaultProxy::alone(rule), upload)
}

#[test]
fn an_upload_goes_on_where_it_broke_off() {
    let layer = bytes(7, 12_000_000);
    let (server, upload) = resumable(3_000_000);
    let image = Image::new(&[&layer]);
    let target = format!("{}/os/app:v1", server.address());
    let pushed = client().push(&image.push(&target, None)).unwrap();
    assert_eq!(pushed.uploaded.len(), 2);
    assert!(*upload.lock().unwrap() == layer, "the parts make up the layer");
    // 9 MB are left, in parts of 4 MiB at most, as GHCR wants them.
    let parts: Vec<usize> = server
        .seen()
        .iter()
        .filter(|seen| seen.method == "PATCH")
        .map(|seen| seen.header("content-length").unwrap().parse().unwrap())
        .collect();
    assert_eq!(parts, [4_194_304, 4_194_304, 611_392]);
}
