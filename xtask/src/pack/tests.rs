//! Packing and unpacking, and everything that a layer may be instead of a disk.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use ::tar::{EntryType, Header};

use super::image::image;
use super::layer::{PackedLayer, Recipe};
use super::*;
use crate::disk::DiskFormat;
use crate::hint::causes;
use crate::oci::{Config, DiffId, Digest, Document, Verified};

/// Where there is something in a file, and what.
const MIB: u64 = 1 << 20;

/// A sparse file of 5 MiB and a bit, with bytes that do not shrink, some that do, and zeros that are
/// no hole.
fn write_disk(path: &Path) {
    let file = File::create(path).unwrap();
    file.set_len(5 * MIB + 7).unwrap();
    let noise: Vec<u8> = (0..300_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    file.write_all_at(&noise, 3).unwrap();
    file.write_all_at(&[0; 70_000], 2 * MIB).unwrap();
    file.write_all_at(&b"text ".repeat(40_000), 3 * MIB).unwrap();
    file.write_all_at(b"end", 5 * MIB + 4).unwrap();
}

fn facts(size: u64, sha256: Digest) -> Facts {
    Facts {
        format: DiskFormat::Raw,
        name: "os-v1.raw".parse().unwrap(),
        size,
        virtual_size: size,
        sha256,
        origin: Origin {
            platform: "linux/amd64".parse().unwrap(),
            created: Some("1700000000".parse().unwrap()),
            distro: Some("debian-13".parse().unwrap()),
            version: Some("v1".to_owned()),
            source: Some("https://example.org/os".to_owned()),
            revision: None,
            image: Some(AppImage {
                name: Some("ghcr.io/me/os:debian-13-v1".to_owned()),
                digest: Digest::of(b"image"),
            }),
        },
    }
}

fn recipe(path: &Path, packing: Packing) -> Recipe {
    Recipe::new(DiskFile::look(path).unwrap(), "os-v1.raw".parse().unwrap(), packing).unwrap()
}

fn write(recipe: &Recipe) -> (PackedLayer, Vec<u8>) {
    let mut bytes = Vec::new();
    let layer = recipe.write(&mut bytes, None, &|_| ()).unwrap();
    (layer, bytes)
}

/// What a reader of an image with that layer makes of it.
fn read_back(facts: &Facts, layer: &PackedLayer) -> Result<PackedDisk, NotPacked> {
    let (manifest, config) = image(facts, layer);
    read(manifest, &config)
}

fn read(manifest: Verified, config: &Verified) -> Result<PackedDisk, NotPacked> {
    let Ok(Document::Manifest(manifest)) = Document::parse(manifest, None) else { panic!("a manifest") };
    PackedDisk::read(&manifest, &Config::parse(config.clone()).unwrap())
}

/// Unpacks in pieces of an odd size, as a network gives them.
fn unpack(disk: &PackedDisk, bytes: &[u8], file: &File) -> Result<(), String> {
    let mut unpacker = Unpacker::new(disk, file).unwrap();
    // The innermost error that is not only its own cause again.
    let shown = |error: &(dyn std::error::Error + 'static)| causes(error).next().unwrap().to_string();
    for piece in bytes.chunks(7_001) {
        unpacker.write_all(piece).map_err(|error| shown(&error))?;
    }
    unpacker.finish().map_err(|error| shown(&error))
}

#[test]
fn a_disk_comes_back_as_it_was_with_its_holes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("os-v1.raw");
    write_disk(&path);
    let content = std::fs::read(&path).unwrap();
    for packing in [Packing::Tar, Packing::Gzip, Packing::Zstd] {
        let recipe = recipe(&path, packing);
        let (layer, bytes) = write(&recipe);
        assert_eq!(layer.descriptor.digest, Digest::of(&bytes));
        assert_eq!(layer.descriptor.size, bytes.len() as u64);
        assert_eq!(layer.sha256, Digest::of(&content));
        // A digest that somebody has said changes nothing, or is wrong.
        let known = recipe.write(&mut io::sink(), Some(layer.sha256), &|_| ()).unwrap();
        assert_eq!(known, layer);
        let error = recipe.write(&mut io::sink(), Some(Digest::of(b"")), &|_| ()).unwrap_err();
        assert!(matches!(error, super::error::PackError::OtherDigest { .. }), "{error}");
        let mut again = Vec::new();
        recipe.open().unwrap().read_to_end(&mut again).unwrap();
        assert!(again == bytes, "{packing:?}: what is sent is what was hashed");

        let disk = read_back(&facts(content.len() as u64, layer.sha256), &layer).unwrap();
        let out = File::create_new(dir.path().join(format!("{packing:?}"))).unwrap();
        unpack(&disk, &bytes, &out).unwrap();
        assert!(std::fs::read(dir.path().join(format!("{packing:?}"))).unwrap() == content);
        let blocks = |path: &Path| std::fs::metadata(path).unwrap().blocks();
        assert!(out.metadata().unwrap().blocks() <= blocks(&path), "{packing:?}: no less sparse");
        assert!(out.metadata().unwrap().blocks() * 512 < 3 * MIB, "{packing:?}: sparse at all");
    }
}

/// A tar of one file is a digest of the file alone: neither the number of cores nor holes matter.
#[test]
fn bytes_depend_on_the_content_alone_and_are_frozen() {
    let dir = tempfile::tempdir().unwrap();
    let (sparse, full) = (dir.path().join("sparse"), dir.path().join("full"));
    write_disk(&sparse);
    std::fs::write(&full, std::fs::read(&sparse).unwrap()).unwrap();
    for packing in [Packing::Tar, Packing::Gzip, Packing::Zstd] {
        let layers = [1, 2, 5].map(|workers| write(&recipe(&sparse, packing).with_workers(workers)).0);
        assert!(layers.iter().all(|layer| *layer == layers[0]), "{packing:?}: {layers:#?}");
        assert_eq!(write(&recipe(&full, packing)).0, layers[0]);
    }
    let digest = |packing| write(&recipe(&sparse, packing)).0.descriptor.digest.to_string();
    insta::assert_snapshot!(digest(Packing::Tar), @"sha256:8b51137030303f3df8e97dfd8634351c42bbde30c94e3d1c4a5672d75dcc5a64");
    insta::assert_snapshot!(digest(Packing::Gzip), @"sha256:2f9d054b0185ea65ecb0e3df7908f823d0cd95a2e1bed971f7ca143345a038bf");
    insta::assert_snapshot!(digest(Packing::Zstd), @"sha256:27e5656c146d2f4f3dba82472d602198127002dc904a7e7b0aa6ee9838145188");
}

#[test]
fn a_compressed_layer_is_one_member_or_one_frame() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("os-v1.raw");
    write_disk(&path);
    let (_, tar) = write(&recipe(&path, Packing::Tar));
    let (_, gzip) = write(&recipe(&path, Packing::Gzip));
    let mut decoder = flate2::bufread::GzDecoder::new(&gzip[..]);
    let mut read = Vec::new();
    decoder.read_to_end(&mut read).unwrap();
    assert!(read == tar && decoder.into_inner().is_empty());
    let (_, frame) = write(&recipe(&path, Packing::Zstd));
    let mut decoder = zstd::Decoder::new(&frame[..]).unwrap().single_frame();
    let mut read = Vec::new();
    decoder.read_to_end(&mut read).unwrap();
    assert!(read == tar && decoder.finish().buffer().is_empty());
    let size = zstd::zstd_safe::get_frame_content_size(&frame).unwrap();
    assert_eq!(size, Some(tar.len() as u64), "the header says how much will come");
}

#[test]
fn the_tar_is_what_podman_and_kubevirt_take() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("os-v1.raw");
    write_disk(&path);
    let (_, tar) = write(&recipe(&path, Packing::Tar));
    let mut archive = ::tar::Archive::new(&tar[..]);
    let entries = archive.entries().unwrap().map(|entry| {
        let entry = entry.unwrap();
        let header = entry.header();
        format!(
            "{} {:o} {}:{} {} {}\n",
            entry.path().unwrap().display(),
            header.mode().unwrap(),
            header.uid().unwrap(),
            header.gid().unwrap(),
            header.mtime().unwrap(),
            entry.size(),
        )
    });
    insta::assert_snapshot!(entries.collect::<String>(), @"
    disk/ 755 107:107 0 0
    disk/os-v1.raw 440 107:107 0 5242887
    ");
}

#[test]
fn the_image_says_what_the_disk_is() {
    let digest = Digest::of(b"tar");
    let layer = PackedLayer {
        descriptor: Verified::own(b"layer".to_vec()).descriptor(Packing::Zstd.media_type()),
        diff_id: DiffId(digest),
        sha256: Digest::of(b"disk"),
    };
    let (manifest, config) = image(&facts(4, layer.sha256), &layer);
    let pretty = |blob: &Verified| {
        let value: serde_json::Value = serde_json::from_slice(blob.bytes()).unwrap();
        serde_json::to_string_pretty(&value).unwrap()
    };
    insta::assert_snapshot!(pretty(&manifest), @r#"
    {
      "schemaVersion": 2,
      "mediaType": "application/vnd.oci.image.manifest.v1+json",
      "config": {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": "sha256:b7e3339a3c62e820824c43eb39c0360b8e58e8d8abe5972e1ddce4f96adf2dc7",
        "size": 278
      },
      "layers": [
        {
          "mediaType": "application/vnd.oci.image.layer.v1.tar+zstd",
          "digest": "sha256:dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85",
          "size": 5
        }
      ],
      "annotations": {
        "org.opencontainers.image.title": "os-v1.raw",
        "bootc-testboot.disk.format": "raw",
        "bootc-testboot.disk.size": "4",
        "bootc-testboot.disk.virtual-size": "4",
        "bootc-testboot.disk.sha256": "1044dec7206e8d7c9fbb4ae8f766668406d2567fc7fc1a160a9d4700fcf8f8e9",
        "bootc-testboot.distro": "debian-13",
        "org.opencontainers.image.version": "v1",
        "org.opencontainers.image.source": "https://example.org/os",
        "bootc-testboot.image.name": "ghcr.io/me/os:debian-13-v1",
        "bootc-testboot.image.digest": "sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d"
      }
    }
    "#);
    insta::assert_snapshot!(pretty(&config), @r#"
    {
      "created": "2023-11-14T22:13:20Z",
      "architecture": "amd64",
      "os": "linux",
      "config": {},
      "rootfs": {
        "type": "layers",
        "diff_ids": [
          "sha256:90aebae315675cbf04612de4f7d5874850f48e0b8dd82becbeaa47ca93f5ebfb"
        ]
      },
      "history": [
        {
          "created_by": "bootc-testboot pack",
          "created": "2023-11-14T22:13:20Z"
        }
      ]
    }
    "#);
    let disk = read(manifest, &config).unwrap();
    assert_eq!(disk.facts, facts(4, layer.sha256));
}

/// What an image is refused for, before its layer is looked at.
#[test]
fn an_image_that_contradicts_itself_is_refused() {
    let layer = PackedLayer {
        descriptor: Verified::own(b"layer".to_vec()).descriptor(Packing::Zstd.media_type()),
        diff_id: DiffId(Digest::of(b"tar")),
        sha256: Digest::of(b"disk"),
    };
    let (manifest, config) = image(&facts(4, layer.sha256), &layer);
    let manifest = String::from_utf8(manifest.bytes().to_vec()).unwrap();
    let config_text = String::from_utf8(config.bytes().to_vec()).unwrap();
    let check = |from: &str, to: &str, expected: &str| {
        assert!(manifest.contains(from) || config_text.contains(from), "{from}");
        let config = Verified::own(config_text.replace(from, to).into_bytes());
        let manifest = Verified::own(manifest.replace(from, to).into_bytes());
        let error = read(manifest, &config).unwrap_err().to_string();
        assert_eq!(error.replace(&config.digest().to_string(), "CONFIG"), expected, "{from}");
    };
    check("bootc-testboot.disk.format", "x", "it is no packed disk");
    check(
        "\"raw\"",
        "\"floppy\"",
        "its annotation `bootc-testboot.disk.format` cannot be: `floppy` is not a disk format: there are raw, ami, qcow2, vmdk, vhd, gce, ova, iso",
    );
    check("disk.sha256", "x", "its annotation `bootc-testboot.disk.sha256` is missing");
    check(
        &layer.sha256.hex(),
        "../x",
        "its annotation `bootc-testboot.disk.sha256` cannot be: it is not 64 hex digits",
    );
    let name = "its annotation `org.opencontainers.image.title` cannot be: `../../etc/passwd` is no name for a packed disk: it has letters, digits, `_`, `.` and `-`, starts with a letter or digit, and is at most 95 long";
    check("os-v1.raw", "../../etc/passwd", name);
    check(
        "disk.size\":\"4\"",
        "disk.size\":\"9223372036854775807\"",
        "its annotation `bootc-testboot.disk.size` cannot be: no file is so large",
    );
    let zstd = Packing::Zstd.media_type().to_string();
    check(
        &zstd,
        "application/vnd.example.disk",
        "its layer is a `application/vnd.example.disk`, which is no tar",
    );
    check(&zstd, Packing::Tar.media_type().as_ref(), "its layer has 5 bytes, and a tar of its disk has 2560");
    check(
        "\"diff_ids\":[",
        "\"diff_ids\":[], \"x\": [",
        "its config cannot be read: the config CONFIG is not valid: it has 0 diff ids for 1 layers",
    );
    check(
        "\"linux\"",
        "\"windows\"",
        "its config cannot be read: it is for windows/amd64, which nothing boots on",
    );
}

/// An entry of a tar that somebody else has made.
fn entry(path: &str, entry_type: EntryType, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    // Past the crate's own checks, as somebody else's writer would.
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(entry_type);
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    let padding = content.len().next_multiple_of(512) - content.len();
    [header.as_bytes().as_slice(), content, &vec![0; padding]].concat()
}

/// What becomes of a layer with these bytes, whose digests are as promised, for a disk `disk`.
fn refused(tar: &[u8]) -> String {
    refused_as(Packing::Tar, tar, tar)
}

fn refused_as(packing: Packing, tar: &[u8], bytes: &[u8]) -> String {
    let content = b"disk";
    let disk = PackedDisk {
        facts: facts(content.len() as u64, Digest::of(content)),
        layer: Verified::own(bytes.to_vec()).descriptor(packing.media_type()),
        packing,
        diff_id: DiffId(Digest::of(tar)),
    };
    let file = tempfile::tempfile().unwrap();
    match unpack(&disk, bytes, &file) {
        Ok(()) => "taken".to_owned(),
        Err(error) => error,
    }
}

#[test]
fn a_tar_of_anything_else_is_refused() {
    let folder = entry("disk/", EntryType::Directory, b"");
    let disk = entry("disk/os-v1.raw", EntryType::Regular, b"disk");
    let end = vec![0; 1024];
    let check = |parts: &[&[u8]], expected: &str| {
        let prefix = "the layer is not what it should be: ";
        assert_eq!(refused(&parts.concat()).trim_start_matches(prefix), expected);
    };
    check(&[&folder, &disk, &end], "taken");
    // As other programs write it.
    check(&[&entry("./disk", EntryType::Directory, b""), &disk, &end, &vec![0; 9216]], "taken");
    check(&[&disk, &end], "taken");

    let other = |path: &str, entry_type| entry(path, entry_type, b"");
    let stranger = |path: &str| format!("it holds `{path}`, and nothing but the disk belongs there");
    for path in ["/disk/os-v1.raw", "../os-v1.raw", "disk/../os-v1.raw", "etc/passwd", "disk/.wh..wh..opq"] {
        check(&[&entry(path, EntryType::Regular, b"disk"), &end], &stranger(path));
    }
    check(&[&folder, &disk, &disk, &end], &stranger("disk/os-v1.raw"));
    // Names that are shown as the disk's, and are others.
    for path in
        ["disk/os-v1\u{1b}[0m.raw", "disk/os\u{7}-v1.raw", "disk/os-v1.raw\u{200b}", "disk//os-v1.raw"]
    {
        let shown = path.replace("\u{1b}[0m", "").replace(['\u{7}', '\u{200b}'], "");
        check(&[&entry(path, EntryType::Regular, b"disk"), &end], &stranger(&shown));
    }
    check(&[&folder, &folder, &disk, &end], &stranger("disk/"));
    check(&[&folder, &other("disk/second", EntryType::Regular), &disk, &end], &stranger("disk/second"));
    for (entry_type, kind) in [
        (EntryType::Symlink, "a symbolic link"),
        (EntryType::Link, "a link"),
        (EntryType::Block, "a device"),
        (EntryType::Fifo, "a pipe"),
        (EntryType::Directory, "a folder"),
        (EntryType::GNUSparse, "a sparse file of GNU tar's"),
    ] {
        let expected = format!("`disk/os-v1.raw` in it is {kind}, not a file");
        check(&[&other("disk/os-v1.raw", entry_type), &end], &expected);
    }
    check(&[&other("././@LongLink", EntryType::GNULongName), &end], &stranger("././@LongLink"));
    check(&[&other("PaxHeaders/x", EntryType::XHeader), &disk, &end], &stranger("PaxHeaders/x"));
    check(
        &[&entry("disk/os-v1.raw", EntryType::Regular, b"larger"), &end],
        "`disk/os-v1.raw` in it has 6 bytes, and 4 were announced",
    );
    check(&[b"<html>", &end], "it holds something that is no tar");
    check(&[&end], "it holds something that is no tar");
    check(&[&folder, &disk[..514]], "it ends too early");
    check(&[&folder, &disk], "it ends too early");
    check(&[&folder, &disk, &end, b"more"], "it goes on behind its end");
    check(&[&folder, &disk, &vec![0; 1 << 20]], "it goes on behind its end");
    let mut damaged = disk.clone();
    damaged[515] ^= 1;
    let found = Digest::of(&damaged[512..516]);
    let expected = format!("the disk is {found}, and {} was promised", Digest::of(b"disk"));
    check(&[&folder, &damaged, &end], &expected);
}

#[test]
fn a_stream_that_is_not_the_tar_is_refused() {
    let tar = [entry("disk/os-v1.raw", EntryType::Regular, b"disk"), vec![0; 1024]].concat();
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let (member, frame) = (gzip(&tar), zstd(&tar));
    assert_eq!(refused_as(Packing::Gzip, &tar, &member), "taken");
    assert_eq!(refused_as(Packing::Zstd, &tar, &frame), "taken");

    let check = |packing, bytes: &[u8], expected: &str| {
        let found = refused_as(packing, &tar, bytes);
        assert!(found.starts_with(expected), "{found}");
    };
    check(Packing::Gzip, &[&member[..], b"x"].concat(), "the layer goes on behind its gzip member");
    check(Packing::Gzip, &[&member[..], &member].concat(), "the layer goes on behind its gzip member");
    check(Packing::Gzip, &member[..member.len() - 9], "the layer is no whole gzip member");
    check(Packing::Gzip, &member[..member.len() - 3], "the layer is no whole gzip member");
    check(Packing::Gzip, &frame, "the layer cannot be decompressed");
    check(Packing::Zstd, &[&frame[..], b"x"].concat(), "the layer goes on behind its zstd frame");
    check(Packing::Zstd, &[&frame[..], &frame].concat(), "the layer goes on behind its zstd frame");
    check(Packing::Zstd, &frame[..frame.len() - 1], "the layer is no whole zstd frame");
    check(Packing::Zstd, &member, "the layer cannot be decompressed");
    let other = [entry("disk/os-v1.raw", EntryType::Regular, b"disk"), vec![0; 1536]].concat();
    check(Packing::Zstd, &zstd(&other), "the layer's content is sha256:");
    // A gibibyte of zeros in a few kilobytes.
    let bomb = zstd(&[&tar[..], &vec![0; 1 << 28]].concat());
    check(Packing::Zstd, &bomb, "the layer is not what it should be: it goes on behind its end");
    let bomb = gzip(&[&tar[..], &vec![0; 1 << 26]].concat());
    check(Packing::Gzip, &bomb, "the layer is not what it should be: it goes on behind its end");
    // A window that no reader should have to hold.
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&tar).unwrap();
    check(Packing::Zstd, &encoder.finish().unwrap(), "the layer cannot be decompressed");
}

#[test]
fn what_is_no_disk_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("os-v1.raw");
    let look = |path: &Path| DiskFile::look(path).unwrap_err().to_string();
    assert_eq!(look(dir.path()), "it is not a regular file");
    File::create(&path).unwrap();
    assert_eq!(look(&path), "it is empty");
    // 11 GB of nothing, which no registry takes as it is, and which zstd makes small.
    let file = File::create(&path).unwrap();
    file.set_len(11_000_000_000).unwrap();
    let disk = DiskFile::look(&path).unwrap();
    let error = Recipe::new(disk.clone(), "os-v1.raw".parse().unwrap(), Packing::Tar).unwrap_err();
    insta::assert_snapshot!(error, @"its layer has 11000002048 bytes, and registries take 10.0 GB at most");
    assert!(Recipe::new(disk, "os-v1.raw".parse().unwrap(), Packing::Zstd).is_ok());
    // A machine that runs meanwhile.
    write_disk(&path);
    let recipe = recipe(&path, Packing::Tar);
    file.set_len(MIB).unwrap();
    let error = recipe.write(&mut io::sink(), None, &|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "it has changed while it was read");
}

#[test]
fn a_file_is_told_by_its_name_and_its_content() {
    for (name, expected) in [
        ("a/os.qcow2", Some(DiskFormat::Qcow2)),
        ("os.RAW", Some(DiskFormat::Raw)),
        ("os.img", Some(DiskFormat::Raw)),
        ("os.ami.raw", Some(DiskFormat::Ami)),
        ("os-1.2.tar.gz", Some(DiskFormat::Gce)),
        ("os.iso9660", None),
        ("qcow2", None),
    ] {
        assert_eq!(format_of(Path::new(name)), expected, "for {name}");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("text");
    std::fs::write(&path, "no disk at all ".repeat(200)).unwrap();
    for format in DiskFormat::ALL {
        let found = virtual_size(&path, format);
        match format {
            DiskFormat::Raw | DiskFormat::Ami => assert_eq!(found.unwrap(), 3000),
            DiskFormat::Qcow2
            | DiskFormat::Vmdk
            | DiskFormat::Vhd
            | DiskFormat::Gce
            | DiskFormat::Ova
            | DiskFormat::Iso => {
                assert!(found.is_err(), "{format}");
            }
        }
    }
}

#[test]
fn the_disk_of_a_gce_file_is_its_first_entry() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("os.tar.gz");
    let find = |entries: &[u8]| {
        let mut gzip =
            flate2::write::GzEncoder::new(File::create(&path).unwrap(), flate2::Compression::fast());
        gzip.write_all(entries).unwrap();
        gzip.finish().unwrap();
        virtual_size(&path, DiskFormat::Gce).map_err(|error| error.to_string())
    };
    let plain = entry("disk.raw", EntryType::Regular, b"disk");
    assert_eq!(find(&plain), Ok(4));
    let mut sparse = Header::new_gnu();
    sparse.set_path("disk.raw").unwrap();
    sparse.set_entry_type(EntryType::GNUSparse);
    sparse.set_size(0);
    sparse.as_gnu_mut().unwrap().realsize[..8].copy_from_slice(b"00010000");
    sparse.set_cksum();
    assert_eq!(find(sparse.as_bytes()), Ok(4096));
    // A name as long as somebody likes would be in memory before the entry is.
    let long = entry("././@LongLink", EntryType::GNULongName, b"disk.raw");
    let refused = Err("it is no gce: it holds no `disk.raw`".to_owned());
    assert_eq!(find(&[&long[..], &plain].concat()), refused);
    assert_eq!(find(&[&entry("x", EntryType::Regular, b""), &plain[..]].concat()), refused);
}

#[test]
fn a_disk_is_in_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let check = |version: u8, changes: &[(usize, u8)], expected: &str| {
        let mut header = [0; 512];
        header[..8].copy_from_slice(&[b'Q', b'F', b'I', 0xfb, 0, 0, 0, version]);
        header[30] = 1;
        changes.iter().for_each(|&(at, value)| header[at] = value);
        std::fs::write(&path, header).unwrap();
        let shown = match virtual_size(&path, DiskFormat::Qcow2) {
            Ok(size) => size.to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(shown, expected);
    };
    check(3, &[], "256");
    check(2, &[(79, 4)], "256");
    check(3, &[(79, 4)], "its data is in another file");
    for version in [2, 3] {
        check(version, &[(19, 10)], "it is what changed over another disk, its backing file");
    }
    check(3, &[(0, b'q')], "it is no qcow2: it does not begin like one");
    check(3, &[], "256");
    let error = virtual_size(&path, DiskFormat::Raw).unwrap_err().to_string();
    assert_eq!(error, "it is no raw: it begins like a qcow2");
}

/// From 8 GiB on, a size has no room in a tar's octal digits.
#[test]
fn a_size_of_many_gigabytes_is_in_the_header() {
    let name: FileName = "os-v1.raw".parse().unwrap();
    for size in [(8 << 30) - 1, 8 << 30, 1 << 42] {
        let head = super::tar::head(&name, size).unwrap();
        let header = Header::from_byte_slice(head[512..].try_into().unwrap());
        assert_eq!(header.entry_size().unwrap(), size);
    }
}
