//! What each format's readers find in it.

use super::*;

/// Every reader of every format, and whether it finds in `made` what is in the raw at `raw`.
fn readers(made: &Made, raw: &Path) -> Vec<(&'static str, bool)> {
    let mut found = Vec::new();
    let unpacked = made.path("unpacked");
    fs::create_dir_all(&unpacked).unwrap();
    let unpack = |format: DiskFormat, options: &str| {
        let (file, to) = (made.file(format), unpacked.to_str().unwrap());
        judge("tar", &["-C", to, options, file.to_str().unwrap()]);
    };
    let small = fs::metadata(raw).unwrap().len() < GIB;
    for disk in &made.disks {
        let path = made.file(disk.format);
        let open = || File::open(&path).unwrap();
        match disk.format {
            DiskFormat::Raw | DiskFormat::Ami => {
                found.push(("raw", qemu_compares(raw, &path, "raw")));
            }
            DiskFormat::Qcow2 => {
                judge("qemu-img", &["check", path.to_str().unwrap()]);
                found.push(("qcow2", qemu_compares(raw, &path, "qcow2")));
            }
            DiskFormat::Vmdk => {
                judge("qemu-img", &["check", path.to_str().unwrap()]);
                found.push(("vmdk", qemu_compares(raw, &path, "vmdk")));
                if small {
                    let reader = ::vmdk::VmdkReader::open(open()).unwrap();
                    assert_eq!(reader.virtual_disk_size(), disk.virtual_size);
                    assert_eq!(reader.disk_type(), "streamOptimized");
                    found.push(("vmdk-core", reads_as(reader, raw)));
                }
            }
            DiskFormat::Vhd => {
                found.push(("vpc", qemu_compares(raw, &path, "vpc")));
                let reader = ::vhd::VhdReader::open(&path).unwrap();
                assert_eq!(reader.virtual_disk_size(), disk.virtual_size);
                assert_eq!(disk.size, disk.virtual_size + 512);
                assert_eq!(disk.virtual_size % MIB, 0);
                if small {
                    found.push(("vhd crate", reads_as(reader, raw)));
                }
            }
            DiskFormat::Gce => {
                unpack(DiskFormat::Gce, "-xzf");
                let inner = unpacked.join("disk.raw");
                assert_eq!(fs::metadata(&inner).unwrap().len(), disk.virtual_size);
                assert_eq!(disk.virtual_size % GIB, 0);
                assert!(allocated(&inner) <= allocated(raw) + 20 * MIB, "it is sparse");
                found.push(("tar -xz", qemu_compares(raw, &inner, "raw")));
                let listed = judge("tar", &["-tvzf", path.to_str().unwrap()]);
                assert_eq!(listed.lines().count(), 1, "{listed}");
                assert!(listed.contains(&format!(" {} ", disk.virtual_size)), "{listed}");
                judge("gzip", &["-t", path.to_str().unwrap()]);
                // One member: a reader that stops after the first has all of it.
                let mut packed = io::BufReader::new(open());
                io::copy(&mut flate2::bufread::GzDecoder::new(&mut packed), &mut io::sink()).unwrap();
                assert_eq!(packed.stream_position().unwrap(), disk.size);
                assert!(io::BufRead::fill_buf(&mut packed).unwrap().is_empty());
            }
            DiskFormat::Ova => {
                unpack(DiskFormat::Ova, "-xf");
                let listed = judge("tar", &["-tf", path.to_str().unwrap()]);
                assert_eq!(listed, "os.ovf\nos.mf\nos.vmdk\n");
                check_ova(&unpacked, disk);
                found.push(("ova's vmdk", qemu_compares(raw, &unpacked.join("os.vmdk"), "vmdk")));
            }
            DiskFormat::Iso => {
                let disks = disks_of_iso(made, disk).into_iter();
                found.extend(disks.map(|(reader, path)| (reader, qemu_compares(raw, &path, "raw"))));
            }
        }
    }
    found
}

/// The disk on a medium, as each of two readers finds it there, put together from its runs.
fn disks_of_iso(made: &Made, disk: &Disk) -> Vec<(&'static str, PathBuf)> {
    let iso = made.file(DiskFormat::Iso);
    let iso = iso.to_str().unwrap();
    let report =
        judge("xorriso", &["-indev", iso, "-report_el_torito", "plain", "-report_system_area", "plain"]);
    for expected in [
        "El Torito boot img :   1  BIOS  y   none  0x0000  0x00      4 ",
        "El Torito boot img :   2  UEFI  y   none  0x0000  0x00    100 ",
        "El Torito img opts :   1  boot-info-table grub2-boot-info",
        "System area summary: MBR protective-msdos-label grub2-mbr cyl-align-off GPT",
        "GPT partition path :   1  /BOOT/EFI.IMG",
    ] {
        assert!(report.contains(expected), "{expected} in {report}");
    }
    judge("sfdisk", &["--verify", iso]);
    ["bsdtar", "xorriso"]
        .into_iter()
        .map(|name| {
            let dir = made.path(name);
            let to = dir.to_str().unwrap();
            // What is there is of the same medium, read-only.
            if !dir.exists() {
                fs::create_dir(&dir).unwrap();
                match name {
                    "bsdtar" => judge(name, &["-C", to, "-xf", iso]),
                    _ => judge(name, &["-osirrox", "on", "-indev", iso, "-extract", "/", to]),
                };
            }
            for (path, content) in medium().files {
                assert_eq!(fs::read(dir.join(path.to_uppercase())).unwrap(), content, "{name}: {path}");
            }
            assert_eq!(fs::read(dir.join("BOOT/EFI.IMG")).unwrap(), medium().esp);
            let raw = dir.with_extension("raw");
            put_together(&dir.join("INSTALL"), &raw, disk.virtual_size);
            (name, raw)
        })
        .collect()
}

/// Does what the installer does.
fn put_together(install: &Path, to: &Path, size: u64) {
    let raw = File::create(to).unwrap();
    raw.set_len(size).unwrap();
    let map = fs::read_to_string(install.join("DISK.MAP")).unwrap();
    if map.is_empty() {
        return;
    }
    let mut runs = zstd::Decoder::new(File::open(install.join("DISK.000")).unwrap()).unwrap();
    for line in map.lines() {
        let [start, count, sum] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let [start, count] = [start, count].map(|number| number.parse::<u64>().unwrap() * MIB);
        assert!(count <= 32 * MIB);
        let mut bytes = vec![0; count as usize];
        runs.read_exact(&mut bytes).unwrap();
        assert_eq!(Digest::of(&bytes).hex(), sum);
        raw.write_all_at(&bytes, start).unwrap();
    }
    assert_eq!(runs.read(&mut [0]).unwrap(), 0, "nothing is left");
}

/// What is around an OVA's disk.
fn check_ova(unpacked: &Path, disk: &Disk) {
    let read = |name: &str| fs::read(unpacked.join(name)).unwrap();
    let (ovf, vmdk) = (read("os.ovf"), read("os.vmdk"));
    // The manifest's lines are openssl's.
    let lines = ["os.ovf", "os.vmdk"].map(|name| {
        let sum = judge("sha256sum", &[unpacked.join(name).to_str().unwrap()]);
        format!("SHA256({name})= {}\n", sum.split(' ').next().unwrap())
    });
    assert_eq!(String::from_utf8(read("os.mf")).unwrap(), lines.concat());
    let ovf = String::from_utf8(ovf).unwrap();
    assert!(ovf.contains(&format!("ovf:size=\"{}\"", vmdk.len())), "{ovf}");
    assert!(ovf.contains(&format!("ovf:capacity=\"{}\"", disk.virtual_size)), "{ovf}");
    // The VMDK's header has the capacity at byte 12, in sectors.
    let sectors = u64::from_le_bytes(vmdk[12..20].try_into().unwrap());
    assert_eq!(sectors * 512, disk.virtual_size);
    // A stream's end is one sector of zeros, and before it is the footer.
    let last = &vmdk[vmdk.len() - 1024..];
    assert!(last[..4] == *b"KDMV" && last[512..].iter().all(|byte| *byte == 0));
}

/// All readers agree on a raw; and when a byte of it changes, each says so.
fn check(raw: &Raw, changed_at: u64, formats: &[DiskFormat]) {
    let made = Made::new(raw, formats, USUAL);
    let source = made.path("source");
    for (reader, same) in readers(&made, &source) {
        assert!(same, "{reader}: {raw:?}");
    }
    for disk in &made.disks {
        let path = made.file(disk.format);
        assert_eq!(fs::metadata(&path).unwrap().len(), disk.size, "{}", disk.format);
        if disk.size < GIB {
            let sum = judge("sha256sum", &[path.to_str().unwrap()]);
            assert!(sum.starts_with(&disk.digest.hex()), "{}", disk.format);
        }
    }
    let other = made.path("other");
    raw.write(&other);
    let file = File::options().read(true).write(true).open(&other).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, changed_at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], changed_at).unwrap();
    for (reader, same) in readers(&made, &other) {
        assert!(!same, "{reader} does not see a changed byte: {raw:?}");
    }
}

#[test]
fn all_readers_find_what_the_raw_has() {
    use Fill::{Noise, Text, Zeros};
    let mixed: Vec<_> = (0..40)
        .map(|index| (index * 96 * KIB, if index % 3 == 0 { Noise } else { Text }, 64 * KIB))
        .collect();
    for (raw, changed_at) in [
        // Nothing at all.
        (Raw::new(3 * MIB, &[]), 2 * MIB + 5),
        // Less than a sector; a sector and a byte.
        (Raw::new(1, &[(0, Text, 1)]), 0),
        (Raw::new(513, &[(0, Text, 513)]), 512),
        // No multiple of anything, with data up to the last byte, and none there.
        (Raw::new(5 * MIB + 12345, &[(10, Text, 70_000), (5 * MIB + 12000, Noise, 345)]), 5 * MIB + 12344),
        (Raw::new(5 * MIB + 12345, &[(3 * MIB, Text, 70_000)]), 5 * MIB),
        // What does not shrink; among what does.
        (Raw::new(4 * MIB, &[(0, Noise, 2 * MIB + 64 * KIB)]), MIB),
        (Raw::new(4 * MIB, &mixed), 3 * MIB),
        // Zeros that are there.
        (Raw::new(6 * MIB, &[(0, Text, MIB), (MIB, Zeros, 4 * MIB), (5 * MIB, Text, MIB)]), 2 * MIB),
        // Blocks that are filled in turn.
        (Raw::new(40 * MIB, &(0..100).map(|n| (n * 384 * KIB, Text, 512)).collect::<Vec<_>>()), 384 * KIB),
    ] {
        check(&raw, changed_at, &DiskFormat::ALL);
    }
}

#[test]
fn all_readers_find_what_large_disks_have() {
    let at = [0, GIB, 4 * GIB - 32 * KIB, 4 * GIB + 5, 8 * GIB - 100, 9 * GIB - 512];
    let parts: Vec<_> = at.iter().map(|&at| (at, Fill::Text, 512)).collect();
    check(&Raw::new(4 * GIB + MIB, &parts[..4]), 4 * GIB + 6, &[DiskFormat::Vhd]);
    // Those that hold nothing for a hole.
    let packed = [DiskFormat::Qcow2, DiskFormat::Vmdk, DiskFormat::Ova, DiskFormat::Gce, DiskFormat::Iso];
    check(&Raw::new(9 * GIB, &parts), 8 * GIB + 3, &packed);
}

#[test]
fn qcow2_with_zlib_is_read_by_others() {
    let parts = [(0, Fill::Text, 3 * MIB), (3 * MIB, Fill::Noise, MIB), (9 * MIB, Fill::Text, 100)];
    let raw = Raw::new(600 * MIB, &parts);
    let made = Made::new(&raw, &[DiskFormat::Qcow2], How { compression: Qcow2Compression::Zlib, ..USUAL });
    let (source, path) = (made.path("source"), made.file(DiskFormat::Qcow2));
    assert!(readers(&made, &source).iter().all(|(_, same)| *same));
    let reader = ::qcow2::Qcow2Reader::open(&path).unwrap();
    assert!(reads_as(reader, &source));
    let info = judge("qemu-img", &["info", path.to_str().unwrap()]);
    assert!(info.contains("compression type: zlib"), "{info}");
}

/// Bytes that compress to different lengths, in a file whose clusters are shared: the refcounts of
/// more than one refcount block, and tables of more than one L2 table.
#[test]
fn qcow2_counts_what_it_shares() {
    let parts: Vec<_> = (0..64)
        .map(|n| (n * 40 * MIB, if n % 2 == 0 { Fill::Text } else { Fill::Noise }, 200 * KIB + n))
        .collect();
    let made = Made::new(&Raw::new(3 * GIB, &parts), &[DiskFormat::Qcow2], USUAL);
    let check =
        judge("qemu-img", &["check", "--output=json", made.file(DiskFormat::Qcow2).to_str().unwrap()]);
    let check: serde_json::Value = serde_json::from_str(&check).unwrap();
    for problem in ["corruptions", "leaks", "check-errors"] {
        assert!(check[problem].is_null() || check[problem] == 0, "{check}");
    }
    assert!(check["compressed-clusters"].as_u64().unwrap() > 100, "{check}");
}
