//! What was written is read back, and what was tampered with is refused.

use std::io::{self, Write};

use serde_json::json;

use super::{Archive, ArchiveError, Entry, LAYOUT_CONTENT, Writer};
use crate::oci::{Descriptor, MediaType, Verified};

fn blob(content: &str) -> (Descriptor, Verified) {
    let blob = Verified::own(content.as_bytes().to_vec());
    (blob.descriptor(MediaType::ImageLayer), blob)
}

/// An archive with two blobs, of which the first has the tag `v1`.
fn written() -> Vec<u8> {
    let blobs = [blob("one"), blob(&"two".repeat(400))];
    let mut writer = Writer::new(Vec::new(), &[("v1".to_owned(), blobs[0].0.clone())]).unwrap();
    for (descriptor, blob) in &blobs {
        writer.blob(descriptor, |out| out.write_all(blob.bytes())).unwrap();
    }
    writer.finish().unwrap()
}

fn open(bytes: &[u8]) -> Result<Archive, ArchiveError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Archive::open(file)
}

/// A tar of entries, as a stranger may write it.
fn tar(entries: &[(&str, &[u8], tar::EntryType)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content, kind) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_size(content.len() as u64);
        header.set_entry_type(*kind);
        if kind.is_symlink() {
            header.set_link_name("/etc/hostname").unwrap();
        }
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn what_was_written_is_read_back() {
    let bytes = written();
    assert_eq!(bytes, written(), "the same makes the same");
    let archive = open(&bytes).unwrap();
    let (descriptor, content) = blob("one");
    assert_eq!(archive.named, [Entry { tag: "v1".to_owned(), descriptor: descriptor.clone() }]);
    assert_eq!(archive.read(&descriptor, 3).unwrap(), content);
    let mut read = Vec::new();
    io::copy(&mut archive.open_blob(&blob(&"two".repeat(400)).0).unwrap(), &mut read).unwrap();
    assert_eq!(read, "two".repeat(400).as_bytes());
    archive.check(&|_| ()).unwrap();
    assert_eq!(archive.size(), 1203);
    assert!(matches!(archive.has(&blob("three").0), Err(ArchiveError::NoBlob(_))));
    let longer = Descriptor { size: 4, ..descriptor };
    assert!(matches!(archive.has(&longer), Err(ArchiveError::Blob(_))));
}

#[test]
fn a_blob_is_as_long_as_it_should_be() {
    let (descriptor, _) = blob("four");
    for content in ["fou", "fours"] {
        let mut writer = Writer::new(Vec::new(), &[]).unwrap();
        writer.blob(&descriptor, |out| out.write_all(content.as_bytes())).unwrap_err();
    }
}

#[test]
fn what_is_cut_off_or_changed_is_refused() {
    let bytes = written();
    let second = blob(&"two".repeat(400)).0;
    // The last blob, its padding and the end.
    for length in 0..bytes.len() - 1024 - 336 {
        let is_whole = open(&bytes[..length]).is_ok_and(|archive| archive.has(&second).is_ok());
        assert!(!is_whole, "cut off at {length}");
    }
    for (from, to) in [("two", "twO"), ("one", "onE")] {
        let mut changed = bytes.clone();
        let at = changed.windows(3).rposition(|window| window == from.as_bytes()).unwrap();
        changed[at..at + 3].copy_from_slice(to.as_bytes());
        let archive = open(&changed).unwrap();
        assert!(matches!(archive.check(&|_| ()), Err(ArchiveError::Blob(_))));
    }
}

#[test]
fn a_size_that_lies_is_refused() {
    let whole = written();
    // The last blob's header: it claims more than there is, more than a file can have, and less.
    let at = whole.len() - 1024 - 1536 - 512;
    let change = |size: &[u8; 12]| {
        let mut changed = whole.clone();
        changed[at + 124..at + 136].copy_from_slice(size);
        let header: &mut [u8; 512] = (&mut changed[at..at + 512]).try_into().unwrap();
        let mut header = tar::Header::from_byte_slice(header).clone();
        header.set_cksum();
        changed[at..at + 512].copy_from_slice(header.as_bytes());
        open(&changed).and_then(|archive| archive.has(&blob(&"two".repeat(400)).0)).unwrap_err().to_string()
    };
    let path = format!("blobs/sha256/{}", blob(&"two".repeat(400)).0.digest.hex());
    for claim in [b"00000010000\0", b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", b"77777777777\0"] {
        assert_eq!(change(claim), format!("it ends within `{path}`"));
    }
    assert_eq!(change(&[0xff; 12]), "it is no tar, or it is cut off");
    assert_eq!(change(b"00000002257\0"), "a blob in it is not what its name says");
}

#[test]
fn what_has_no_place_in_it_is_refused() {
    let (one, content) = blob("one");
    let index = |tag: &str| {
        let mut entry = json!(one);
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        json!({"schemaVersion": 2, "manifests": [entry]}).to_string()
    };
    let good = index("v1");
    let path = format!("blobs/sha256/{}", one.digest.hex());
    let file = tar::EntryType::Regular;
    let check = |index: &str, more: &[(&str, &[u8], tar::EntryType)], expected: &str| {
        let mut entries = vec![
            ("./blobs/", &b""[..], tar::EntryType::Directory),
            ("oci-layout", LAYOUT_CONTENT, file),
            ("./index.json", index.as_bytes(), file),
            (path.as_str(), content.bytes(), file),
        ];
        entries.extend(more);
        let shown = match open(&tar(&entries)) {
            Ok(archive) => archive.read(&one, 3).map(|_| "good".to_owned()).unwrap(),
            Err(error) => error.to_string(),
        };
        assert_eq!(shown, expected);
    };
    check(&good, &[], "good");
    check(&good, &[("../x", b"x", file)], "`../x` has no place in it");
    check(&good, &[("blobs/sha256/../../x", b"x", file)], "`blobs/sha256/../../x` has no place in it");
    check(&good, &[("index.json", b"{}", file)], "`index.json` is in it twice");
    check(&good, &[(&path, b"onE", file)], &format!("`{path}` is in it twice"));
    check(&good, &[("x\u{1b}[2J", b"x", file)], "`x` has no place in it");
    // A name that says so is read into memory by whoever understands it, and it may be as long as the file.
    let long = ("././@LongLink", path.as_bytes(), tar::EntryType::GNULongName);
    check(&good, &[long, ("x", b"x", file)], "`././@LongLink` has no place in it");
    let pax = ("PaxHeaders/x", &b"12 path=aaa\n"[..], tar::EntryType::XHeader);
    check(&good, &[pax, ("x", b"x", file)], "`PaxHeaders/x` has no place in it");
    for kind in
        [tar::EntryType::Link, tar::EntryType::GNUSparse, tar::EntryType::Block, tar::EntryType::Directory]
    {
        check(&good, &[("blobs/x", b"", kind)], "`blobs/x` has no place in it");
    }
    let link = tar::EntryType::Symlink;
    let other = format!("blobs/sha256/{}", "0f".repeat(32));
    check(&good, &[(&other, b"", link)], &format!("`{other}` has no place in it"));
    check("[]", &[], "its `index.json` cannot be: invalid type: sequence, expected a map at line 1 column 0");
    check("{}", &[], "its `index.json` cannot be: it has no list `manifests`");
    check(r#"{"manifests":[]}"#, &[], "its `index.json` cannot be: it names no image");
    let bad = "its `index.json` cannot be: an image in it has no tag, or none that can be one";
    check(&index("../../v1"), &[], bad);
    let twice = format!("{0},{0}", index("v1").split_once('[').unwrap().1.trim_end_matches("]}"));
    let twice = format!(r#"{{"schemaVersion":2,"manifests":[{twice}]}}"#);
    check(&twice, &[], "its `index.json` cannot be: it names two images `v1`");
    assert!(matches!(open(b"no tar at all"), Err(ArchiveError::Tar | ArchiveError::Missing(_))));
    assert!(matches!(open(&tar(&[])), Err(ArchiveError::Missing("oci-layout"))));
}
