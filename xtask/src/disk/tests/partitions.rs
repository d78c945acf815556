//! The partition table of a disk that grows.

use super::*;
use crate::disk::grow;

/// Whether sfdisk finds nothing wrong with a disk's partition table.
fn is_sound(path: &Path) -> bool {
    let output = Command::new(program("sfdisk")).arg("--verify").arg(path).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).contains("No errors detected.")
}

fn partition(path: &Path) {
    let script = path.with_extension("sfdisk");
    let text = "label: gpt\nlabel-id: 6E8F0DB2-6A4E-4C5E-9E0B-1B1E6F1F0001\n\
                size=1MiB, type=U, uuid=6E8F0DB2-6A4E-4C5E-9E0B-1B1E6F1F0002\n\
                type=L, uuid=6E8F0DB2-6A4E-4C5E-9E0B-1B1E6F1F0003\n";
    fs::write(&script, text).unwrap();
    let run = Command::new(program("sfdisk"))
        .arg("--quiet")
        .arg(path)
        .stdin(File::open(&script).unwrap())
        .status()
        .unwrap();
    assert!(run.success());
}

#[test]
fn the_tables_copy_moves_to_the_new_end() {
    // Grows by one sector, by a part of a chunk, and by chunks.
    for size in [20 * MIB + 512, 33 * MIB - 512, 100 * MIB, GIB - 512] {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        Raw::new(size, &[]).write(&source);
        partition(&source);
        let file = File::options().write(true).open(&source).unwrap();
        file.write_all_at(&Fill::Text.bytes(0, 4096), 3 * MIB).unwrap();
        let made = Made::from_source(dir, &DiskFormat::ALL, USUAL);

        judge(
            "tar",
            &["-C", made.dir.path().to_str().unwrap(), "-xzf", made.file(DiskFormat::Gce).to_str().unwrap()],
        );
        let disk = made.path("disk.raw");
        assert!(is_sound(&disk), "gce of {size}");
        let partitions = |path: &Path| {
            let json = judge("sfdisk", &["--json", path.to_str().unwrap()]);
            let json: serde_json::Value = serde_json::from_str(&json).unwrap();
            let table = &json["partitiontable"];
            (table["partitions"].to_string().replace(path.to_str().unwrap(), ""), table["lastlba"].as_u64())
        };
        assert_eq!(partitions(&disk).0, partitions(&source).0);
        assert_eq!(partitions(&disk).1, Some(GIB / 512 - 34));
        // Without it, sfdisk complains.
        File::options().write(true).open(&source).unwrap().set_len(GIB).unwrap();
        assert!(!is_sound(&source));

        for (format, qemu_format) in [(DiskFormat::Vhd, "vpc"), (DiskFormat::Vmdk, "vmdk")] {
            let (from, to) = (made.file(format), made.path("back"));
            judge(
                "qemu-img",
                &["convert", "-f", qemu_format, "-O", "raw", from.to_str().unwrap(), to.to_str().unwrap()],
            );
            assert!(is_sound(&to), "{format} of {size}");
            assert_eq!(partitions(&to).0, partitions(&source).0.replace(source.to_str().unwrap(), ""));
        }
        assert!(qemu_compares(&made.file(DiskFormat::Raw), &made.file(DiskFormat::Qcow2), "qcow2"));
    }
}

#[test]
fn a_raw_grows_where_it_is_short() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raw");
    Raw::new(20 * MIB, &[]).write(&path);
    partition(&path);
    let file = File::options().read(true).write(true).open(&path).unwrap();
    for (size, expected) in [(10 * MIB, 20 * MIB), (GIB, GIB)] {
        grow(&file, size).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), expected);
    }
    assert!(is_sound(&path));
    let table = judge("sfdisk", &["--json", path.to_str().unwrap()]);
    assert!(table.contains(&format!("\"lastlba\": {}", GIB / 512 - 34)), "{table}");
}

/// What is no sound table is not touched.
#[test]
fn a_damaged_table_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    Raw::new(20 * MIB + 512, &[]).write(&source);
    partition(&source);
    let file = File::options().write(true).open(&source).unwrap();
    file.write_all_at(b"x", 20 * MIB + 20).unwrap();
    let made = Made::from_source(dir, &[DiskFormat::Vhd], USUAL);
    assert!(qemu_compares(&source, &made.file(DiskFormat::Vhd), "vpc"));
}
