//! What is refused, and what an output does not take.

use super::*;

#[test]
fn what_is_no_disk_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    Raw::new(0, &[]).write(&dir.path().join("source"));
    let error = |format| convert_in(&dir, &[format], USUAL).unwrap_err().to_string();
    insta::assert_snapshot!(error(DiskFormat::Qcow2), @"it is empty");
    Raw::new(3 << 40, &[]).write(&dir.path().join("source"));
    insta::assert_snapshot!(error(DiskFormat::Vhd), @"it has 3298534883328 bytes, and vhd takes 2190433320960 at most");
    insta::assert_snapshot!(error(DiskFormat::Ova), @"it has 3298534883328 bytes, and ova takes 2199023255552 at most");
}

#[test]
fn holes_stay_holes() {
    let raw = Raw::new(64 * MIB, &[(32 * MIB, Fill::Text, 4096), (40 * MIB, Fill::Zeros, MIB)]);
    let formats = [DiskFormat::Raw, DiskFormat::Ami, DiskFormat::Vhd];
    let made = Made::new(&raw, &formats, USUAL);
    for format in formats {
        assert!(allocated(&made.file(format)) <= 128 * KIB, "{format}");
    }
}

/// A raw that shrinks, also where it has a hole, or is written to while it is read.
#[test]
fn a_raw_that_changes_is_no_disk() {
    let change: [fn(&File); 3] = [
        |raw| raw.set_len(MIB).unwrap(),
        |raw| raw.set_len(63 * MIB).unwrap(),
        |raw| raw.write_all_at(b"x", 50 * MIB).unwrap(),
    ];
    for change in change {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("source");
        Raw::new(64 * MIB, &[(0, Fill::Text, 40 * MIB)]).write(&path);
        let raw = File::options().read(true).write(true).open(&path).unwrap();
        // The kernel's clock for files is a coarse one.
        raw.set_modified(std::time::UNIX_EPOCH).unwrap();
        let targets = vec![Target { format: DiskFormat::Qcow2, file: tempfile::tempfile().unwrap() }];
        let once = std::sync::Once::new();
        let error = convert(&raw, targets, &options(USUAL), || once.call_once(|| change(&raw))).unwrap_err();
        assert!(matches!(error, DiskError::Changed), "{error}");
    }
}

/// A file that fails once so many bytes are written to it.
struct Full {
    file: File,
    room: u64,
}

impl Read for Full {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.read(bytes)
    }
}

impl Seek for Full {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.room =
            self.room.checked_sub(bytes.len() as u64).ok_or(io::Error::from(io::ErrorKind::StorageFull))?;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A full disk ends all writers at once, and the error says which of them met it.
#[test]
fn a_full_disk_ends_the_pass() {
    let dir = tempfile::tempdir().unwrap();
    Raw::new(200 * MIB, &[(0, Fill::Noise, 60 * MIB)]).write(&dir.path().join("source"));
    let source = File::open(dir.path().join("source")).unwrap();
    for full in DiskFormat::ALL {
        for room in [0, 20 * MIB] {
            let targets = DiskFormat::ALL.map(|format| {
                let room = if format == full { room } else { u64::MAX };
                Target { format, file: Full { file: tempfile::tempfile().unwrap(), room } }
            });
            let error = convert(&source, targets.into(), &options(USUAL), || ()).unwrap_err();
            match error {
                DiskError::Write { format, source } => {
                    assert_eq!((format, source.kind()), (full, io::ErrorKind::StorageFull));
                }
                other => panic!("{other}"),
            }
        }
    }
}
