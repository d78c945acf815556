//! Small disks in all formats, with other programs as readers of what was written.

mod content;
mod determinism;
mod partitions;
mod readers;

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::{
    Bios, Disk, DiskError, DiskFormat, Medium, Options, Qcow2Compression, Target, Template, VolumeName,
    convert,
};
use crate::oci::{Digest, Timestamp};
use crate::testing::program;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What is in a part of a disk.
#[derive(Clone, Copy, Debug)]
enum Fill {
    /// Shrinks to a fraction.
    Text,
    /// Does not shrink.
    Noise,
    /// Zeros that are written, not a hole.
    Zeros,
}

/// A raw disk: its size, and what is where, for how many bytes.
#[derive(Clone, Debug)]
struct Raw {
    size: u64,
    parts: Vec<(u64, Fill, u64)>,
}

impl Raw {
    fn new(size: u64, parts: &[(u64, Fill, u64)]) -> Raw {
        Raw { size, parts: parts.to_vec() }
    }

    fn write(&self, path: &Path) {
        let file = File::create(path).unwrap();
        file.set_len(self.size).unwrap();
        for &(at, fill, len) in &self.parts {
            file.write_all_at(&fill.bytes(at, len as usize), at).unwrap();
        }
    }
}

impl Fill {
    /// `seed` makes bytes at other places differ.
    fn bytes(self, seed: u64, len: usize) -> Vec<u8> {
        match self {
            Fill::Text => {
                let words = (0_u64..).flat_map(|n| format!("{} of {seed}; ", n / 3).into_bytes());
                words.take(len).collect()
            }
            // Marsaglia's xorshift64.
            Fill::Noise => {
                let mut state = seed | 1 << 40;
                let mut bytes = Vec::with_capacity(len + 8);
                while bytes.len() < len {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    bytes.extend(state.to_le_bytes());
                }
                bytes.truncate(len);
                bytes
            }
            Fill::Zeros => vec![0; len],
        }
    }
}

/// How disks are written.
#[derive(Clone, Copy)]
struct How {
    compression: Qcow2Compression,
    threads: usize,
}

const USUAL: How = How { compression: Qcow2Compression::Zstd, threads: 2 };

fn options(how: How) -> Options {
    let template =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/builder/bootc-poc.ovf"));
    Options {
        name: "os".parse().unwrap(),
        qcow2_compression: how.compression,
        template: Some(Template::parse(&template.unwrap()).unwrap()),
        medium: Some(medium()),
        threads: how.threads,
    }
}

/// One that boots nothing, with files that end around the end of a sector.
fn medium() -> Medium {
    let file = |name: &str, len| (name.to_owned(), Fill::Noise.bytes(len as u64, len));
    Medium {
        volume: VolumeName::new("os", Digest::of(b"os")),
        time: Timestamp::from_rfc_3339("2025-08-09T12:34:56Z").unwrap(),
        bios: Some(Bios { boot: vec![0x90; 512], core: Fill::Text.bytes(1, 40_001) }),
        esp: Fill::Text.bytes(2, 100 * 512),
        files: vec![
            file("boot/a.0", 0),
            file("boot/deeper/a.1", 1),
            file("a.2", 2047),
            file("boot/a.3", 2048),
            file("boot/a.4", 2049),
            file("boot/deeper/last", 70_000),
        ],
    }
}

/// A raw and the disks that were made from it, in a folder.
struct Made {
    dir: TempDir,
    disks: Vec<Disk>,
}

impl Made {
    fn new(raw: &Raw, formats: &[DiskFormat], how: How) -> Made {
        let dir = tempfile::tempdir().unwrap();
        raw.write(&dir.path().join("source"));
        Made::from_source(dir, formats, how)
    }

    /// From the file `source` in `dir`.
    fn from_source(dir: TempDir, formats: &[DiskFormat], how: How) -> Made {
        let disks = convert_in(&dir, formats, how).unwrap();
        Made { dir, disks }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, format: DiskFormat) -> PathBuf {
        self.path(format.name())
    }
}

fn convert_in(dir: &TempDir, formats: &[DiskFormat], how: How) -> Result<Vec<Disk>, DiskError> {
    let open =
        |path: &Path| File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
    let targets =
        formats.iter().map(|&format| Target { format, file: open(&dir.path().join(format.name())) });
    let source = File::open(dir.path().join("source")).unwrap();
    convert(&source, targets.collect(), &options(how), || ())
}

/// Runs a program that has to be content, and gives what it writes.
fn judge(name: &str, arguments: &[&str]) -> String {
    let output = Command::new(program(name)).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{name} {arguments:?}: {stdout}{stderr}");
    stdout
}

/// Whether QEMU finds the same in both; what is longer has to have zeros at its end.
fn qemu_compares(raw: &Path, path: &Path, qemu_format: &str) -> bool {
    let status = Command::new(program("qemu-img"))
        .args(["compare", "-q", "-f", "raw", "-F", qemu_format])
        .args([raw, path])
        .status()
        .unwrap();
    match status.code() {
        Some(0) => true,
        Some(1) => false,
        other => panic!("qemu-img compare {}: {other:?}", path.display()),
    }
}

/// Whether a reader gives the raw's bytes, and zeros after them.
fn reads_as(mut reader: impl Read, raw: &Path) -> bool {
    let (mut expected, mut found) = (fs::read(raw).unwrap(), Vec::new());
    reader.read_to_end(&mut found).unwrap();
    expected.resize(found.len().max(expected.len()), 0);
    // A panic would print megabytes.
    expected == found
}

/// The bytes that a file takes on its disk.
fn allocated(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}
