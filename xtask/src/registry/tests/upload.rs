//! One blob on its way: lines that are slow or break, and what is sent again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::testing::{Fault, FaultProxy, Keeping, Keeps, Manner, Registry, Seen, answer, program};

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
        // These two registries lose what breaks off; both take a new upload.
        let breaks = Arc::new(AtomicUsize::new(0));
        let rule = breaks.clone();
        let proxy = FaultProxy::before(&registry, move |seen| {
            let is_large = seen.header("content-length").is_some_and(|length| length.len() >= 7);
            let is_body = matches!(&*seen.method, "PUT" | "PATCH") && is_large;
            match is_body && rule.fetch_add(1, Ordering::SeqCst) < 2 {
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
            let proxy =
                FaultProxy::before(&registry, |seen| match matches!(&*seen.method, "PUT" | "PATCH") {
                    true => Fault::CutRequest(0),
                    false => Fault::Pass,
                });
            let target = format!("{}/os/app:v2", proxy.address());
            let error = client.push(&Image::new(&[b"never"]).push(&target, None)).unwrap_err();
            assert!(proxy.count("PUT", "") + proxy.count("PATCH", "") <= 10, "{:#?}", proxy.lines());
            error
        };
        assert!(error.to_string().contains("broke off"), "{error:#}");
    }
}

const GOOD: Manner = Manner {
    keeps: Keeps::Bytes,
    tells: true,
    largest_part: 4 << 20,
    largest_whole: usize::MAX,
    losing_break: usize::MAX,
};

/// Breaks at the same place of a blob, so many times.
fn cut_at(place: usize, times: usize) -> impl FnMut(usize, usize) -> Option<usize> + Send + 'static {
    let mut left = times;
    move |have, length| {
        let is_here = have <= place && place < have + length && left > 0;
        left -= usize::from(is_here);
        is_here.then(|| place - have)
    }
}

/// Before Distribution, which keeps what came of a body. `cut` says where bodies of uploads break
/// off: from how many bytes of the upload are there before one, and how many it has, to how many pass.
fn breaking(
    registry: &Registry,
    cut: impl FnMut(usize, usize) -> Option<usize> + Send + 'static,
) -> FaultProxy {
    let cut = Mutex::new(cut);
    FaultProxy::before(registry, move |seen| {
        let number = |text: &str| text.parse().unwrap();
        let length = seen.header("content-length").map_or(0, number);
        let range = seen.header("content-range").and_then(|range| range.split_once('-'));
        let have = range.map_or(0, |(start, _)| number(start));
        let is_body = seen.path().contains("/blobs/uploads/") && length > 0;
        match is_body.then(|| cut.lock().unwrap()(have, length)).flatten() {
            Some(passes) => Fault::CutRequest(passes),
            None => Fault::Pass,
        }
    })
}

/// Pushes an image with one layer through a proxy; crane reads the layer back. How many bytes
/// passed.
fn pushed(client: &Client, proxy: &FaultProxy, layer: &[u8]) -> usize {
    let image = Image::new(&[layer]);
    let before = proxy.passed();
    client.push(&image.push(&format!("{}/os/app:v1", proxy.address()), None)).unwrap();
    let passed = proxy.passed() - before;
    let blob = format!("{}/os/app@{}", proxy.address(), image.layers[0].digest());
    let output = std::process::Command::new(program("crane")).args(["blob", &blob]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout == layer, "what crane finds is the layer");
    passed
}

/// Sends one layer, which the registry has then; how many bytes it took of it.
fn sent(registry: &Keeping, layer: &[u8]) -> usize {
    let image = Image::new(&[layer]);
    let target = format!("{}/os/app:v1", registry.proxy.address());
    client().push(&image.push(&target, None)).unwrap();
    let stored = registry.blob(&image.layers[0].digest().to_string());
    assert!(stored.as_deref() == Some(layer), "the parts make up the layer");
    registry.taken() - image.config.bytes().len() - image.manifest.bytes().len()
}

fn parts(proxy: &FaultProxy) -> Vec<String> {
    let seen = proxy.seen();
    let parts = seen.iter().filter(|seen| seen.method == "PATCH");
    parts.map(|seen| seen.header("content-length").unwrap().to_owned()).collect()
}

/// How many sessions were opened for blobs.
fn sessions(proxy: &FaultProxy) -> usize {
    proxy.count("POST", "/blobs/uploads/")
}

#[test]
fn an_upload_goes_on_where_it_broke_off() {
    let registry = Registry::distribution();
    let proxy = breaking(&registry, cut_at(3_000_000, 1));
    pushed(&client(), &proxy, &bytes(7, 12_000_000));
    // 9 MB are left, in parts of 4 MiB at most, as GHCR wants them.
    assert_eq!(parts(&proxy), ["4194304", "4194304", "611392"]);
}

#[test]
fn a_line_that_breaks_often_brings_everything_over() {
    let registry = Registry::distribution();
    // Each connection carries 3 MB, which is less than a part.
    let proxy = breaking(&registry, |_, length| (length > 3_000_000).then_some(3_000_000));
    pushed(&client(), &proxy, &bytes(7, 30_000_000));
    assert_eq!(sessions(&proxy), 2, "one for each blob");
}

#[test]
fn a_line_that_falls_silent_is_given_up_and_the_upload_goes_on() {
    let registry = Registry::distribution();
    let is_first = std::sync::atomic::AtomicBool::new(true);
    let proxy = FaultProxy::before(&registry, move |seen| {
        let is_large = seen.header("content-length").is_some_and(|length| length.len() >= 8);
        match is_large && is_first.swap(false, Ordering::SeqCst) {
            true => Fault::Stall(3_000_000),
            false => Fault::Pass,
        }
    });
    let impatient = client_at(Timing { commit: Duration::from_secs(2), ..timing() });
    pushed(&impatient, &proxy, &bytes(7, 12_000_000));
    assert_eq!(parts(&proxy), ["4194304", "4194304", "611392"]);
}

#[test]
fn a_new_session_counts_from_its_own_beginning() {
    // The first session has 24 MB when it is lost; each break of the second one is 3 MB further.
    let mut is_first = true;
    let cut = move |have, length| {
        let carries = if std::mem::take(&mut is_first) { 24_000_000 } else { 3_000_000 };
        (have + length > 2_000_000 && length > carries).then_some(carries)
    };
    let registry = Keeping::new(Manner { losing_break: 2, ..GOOD }, cut);
    sent(&registry, &bytes(7, 30_000_000));
    assert_eq!(registry.sessions(), 3, "one of two was lost");
}

#[test]
fn where_a_registry_does_not_say_the_last_part_tells() {
    let manner = Manner { keeps: Keeps::Parts, tells: false, ..GOOD };
    let registry = Keeping::new(manner, cut_at(6_000_000, 3));
    let size = 12_000_000;
    let sent = sent(&registry, &bytes(7, size));
    assert_eq!(registry.sessions(), 3, "one was lost before a part was taken");
    // The PUT until it broke, all of it in parts, and twice what came of one of these.
    assert_eq!(sent, 6_000_000 + size + 2 * (6_000_000 - (4 << 20)));
}

#[test]
fn a_push_cut_ten_times_in_its_middle_sends_little_twice() {
    let size = 32_000_000;
    let bytes = bytes(7, size);
    // At the same place of the layer each time, and in the middle of whatever comes.
    let mut left = 10;
    let halves = move |_, length| {
        let is_cut = left > 0 && length > 1000;
        left -= usize::from(is_cut);
        is_cut.then_some(length / 2)
    };
    let registry = Registry::distribution();
    for proxy in [breaking(&registry, cut_at(size / 2, 10)), breaking(&registry, halves)] {
        registry.forget_blobs();
        let passed = pushed(&client(), &proxy, &bytes);
        assert!(passed >= size && passed < size * 12 / 10, "{passed} bytes for {size}");
        let broken = proxy.count("PATCH", "") + proxy.count("PUT", "/blobs/uploads/");
        assert!(broken >= 10, "{:#?}", proxy.lines());
        assert_eq!(sessions(&proxy), 2, "one for each blob");
    }
    // Where what breaks off is lost, the first half goes twice, and then one part ten times at most.
    let registry = Keeping::new(Manner { keeps: Keeps::Parts, ..GOOD }, cut_at(size / 2, 10));
    let in_parts = sent(&registry, &bytes);
    assert!(in_parts <= size * 3 / 2 + 10 * (4 << 20), "{in_parts} bytes for {size}");
}

#[test]
fn what_a_registry_will_not_have_goes_the_other_way() {
    // No part of any size: after the break, the blob goes at once again.
    let registry = Keeping::new(Manner { largest_part: 0, ..GOOD }, cut_at(3_000_000, 1));
    sent(&registry, &bytes(7, 12_000_000));
    assert_eq!(parts(&registry.proxy).len(), 1);
    // Nothing large at once, as a proxy before a registry may have it: parts.
    let registry = Keeping::new(Manner { largest_whole: 8_000_000, ..GOOD }, |_, _| None);
    sent(&registry, &bytes(7, 12_000_000));
    assert_eq!(parts(&registry.proxy).len(), 3);
}

#[test]
fn an_upload_that_never_comes_through_ends() {
    // Every session is as good as the last one, and every one of them is lost in the middle.
    let registry = Keeping::new(Manner { keeps: Keeps::Parts, ..GOOD }, cut_at(6_000_000, usize::MAX));
    let target = format!("{}/os/app:v1", registry.proxy.address());
    let image = Image::new(&[&bytes(7, 12_000_000)]);
    let error = client().push(&image.push(&target, None)).unwrap_err();
    assert!(error.to_string().contains("broke off"), "{error:#}");
}

/// A push that is cut off for good at 9 MB; its folder has what it wrote down.
fn given_up(registry: &Registry, layer: &[u8]) -> (FaultProxy, tempfile::TempDir, std::path::PathBuf) {
    let is_open = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let opens = is_open.clone();
    let proxy = breaking(registry, move |have, length| {
        (!opens.load(Ordering::SeqCst) && have + length > 9_000_000)
            .then(|| 9_000_000usize.saturating_sub(have))
    });
    let dir = tempfile::tempdir().unwrap();
    let target = format!("{}/os/app:v1", proxy.address());
    noting(&dir).push(&Image::new(&[layer]).push(&target, None)).unwrap_err();
    is_open.store(true, Ordering::SeqCst);
    let entries: Vec<_> = std::fs::read_dir(dir.path().join("uploads")).unwrap().collect();
    let [Ok(entry)] = &entries[..] else { panic!("{entries:?}") };
    let path = entry.path();
    (proxy, dir, path)
}

/// A client that writes its uploads down in a folder.
fn noting(dir: &tempfile::TempDir) -> Client {
    let progress = Progress::new(Verbosity::Quiet);
    let journal = Journal::new(dir.path().join("uploads"), progress.clone());
    Client::with(vec![], progress, journal, (Lookup::new(|_| None), timing())).unwrap()
}

#[test]
fn another_process_goes_on_with_an_upload() {
    use std::os::unix::fs::PermissionsExt;
    let layer = bytes(7, 12_000_000);
    let registry = Registry::distribution();
    let (proxy, dir, entry) = given_up(&registry, &layer);
    for (path, mode) in [(entry.as_path(), 0o600), (entry.parent().unwrap(), 0o700)] {
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, mode);
    }
    let passed = pushed(&noting(&dir), &proxy, &layer);
    // What was left, the config and the manifest.
    assert!((3_000_000..3_010_000).contains(&passed), "{passed} bytes");
    assert!(!entry.exists(), "nothing is left to go on with");
}

#[test]
fn an_entry_that_is_wrong_harms_nothing() {
    let layer = bytes(7, 12_000_000);
    let registry = Registry::distribution();
    let (proxy, dir, entry) = given_up(&registry, &layer);
    let good = std::fs::read_to_string(&entry).unwrap();
    let elsewhere = FaultProxy::alone(|_| Fault::Silence);
    let at = |host: &str| good.replace(&format!("http://{}/v2/os/app/blobs", proxy.address()), host);
    let wrongs = [
        good[..good.len() / 2].to_owned(),
        "x".repeat(100_000),
        at(&format!("http://{}/v2/os/app/blobs", elsewhere.address())),
        at("file:///etc/passwd?"),
        good.replace("12000000", "12000001"),
        // A session that never was.
        good.replace("uploads/", "uploads/99"),
    ];
    for wrong in &wrongs {
        assert_ne!(wrong, &good);
        std::fs::write(&entry, wrong).unwrap();
        registry.forget_blobs();
        let passed = pushed(&noting(&dir), &proxy, &layer);
        assert!(passed > layer.len(), "{wrong:.200} was believed");
        assert!(!entry.exists());
    }
    assert_eq!(elsewhere.seen().len(), 0);

    // Another run has it: this one goes its own way.
    std::fs::write(&entry, &good).unwrap();
    let theirs = std::fs::File::open(&entry).unwrap();
    theirs.lock().unwrap();
    registry.forget_blobs();
    pushed(&noting(&dir), &proxy, &layer);
    assert_eq!(std::fs::read_to_string(&entry).unwrap(), good);
    drop(theirs);

    // After a week, no registry knows of it.
    let old = std::time::SystemTime::now() - Duration::from_secs(8 * 24 * 60 * 60);
    std::fs::File::options().write(true).open(&entry).unwrap().set_modified(old).unwrap();
    pushed(&noting(&dir), &proxy, &bytes(8, 9_000_000));
    assert!(!entry.exists());
}
