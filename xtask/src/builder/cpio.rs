//! An archive that a kernel unpacks into its initramfs.
//!
//! Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst: "newc". All of it is
//! root's, and nothing has a time.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Everything in it begins at a multiple of so many bytes.
const ALIGNMENT: usize = 4;
/// Source: Linux, include/uapi/linux/stat.h: S_IFDIR and S_IFREG.
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
/// The name that ends an archive.
const TRAILER: &str = "TRAILER!!!";

/// Files by their paths, which have no slash at either end.
#[derive(Debug, Default)]
pub(super) struct Archive(BTreeMap<String, Entry>);

#[derive(Debug)]
enum Entry {
    Directory,
    File { mode: u32, content: Vec<u8> },
}

impl Archive {
    /// Adds a file, and the directories that it is in.
    pub(super) fn add(&mut self, path: &str, mode: u32, content: Vec<u8>) {
        for (at, _) in path.match_indices('/') {
            self.0.entry(path[..at].to_owned()).or_insert(Entry::Directory);
        }
        self.0.insert(path.to_owned(), Entry::File { mode, content });
    }

    /// A directory's path is less than those in it, so it comes first.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (number, (path, entry)) in (1..).zip(&self.0) {
            match entry {
                Entry::Directory => append(&mut bytes, number, path, DIRECTORY | 0o755, &[]),
                Entry::File { mode, content } => append(&mut bytes, number, path, FILE | mode, content),
            }
        }
        append(&mut bytes, 0, TRAILER, 0, &[]);
        bytes
    }
}

fn append(bytes: &mut Vec<u8>, number: u32, path: &str, mode: u32, content: &[u8]) {
    let mut header = "070701".to_owned();
    // Inode, mode, owner, group, links, time, size; two devices of two numbers; the name's length with
    // the zero at its end, and no checksum.
    let fields = [number, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0, path.len() as u32 + 1, 0];
    for field in fields {
        // Writing to a String does not fail.
        write!(header, "{field:08x}").ok();
    }
    for part in [format!("{header}{path}\0").as_bytes(), content] {
        bytes.extend(part);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_after_its_directories() {
        let mut archive = Archive::default();
        archive.add("b/c/d", 0o755, b"12345".to_vec());
        archive.add("a", 0o644, Vec::new());
        let bytes = archive.to_bytes();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).unwrap().replace('\0', ".");
        insta::assert_snapshot!(text.replace("070701", "\n070701"), @"
        07070100000001000081a40000000000000000000000010000000000000000000000000000000000000000000000000000000200000000a.
        07070100000002000041ed0000000000000000000000010000000000000000000000000000000000000000000000000000000200000000b.
        07070100000003000041ed0000000000000000000000010000000000000000000000000000000000000000000000000000000400000000b/c...
        07070100000004000081ed0000000000000000000000010000000000000005000000000000000000000000000000000000000600000000b/c/d.12345...
        07070100000000000000000000000000000000000000010000000000000000000000000000000000000000000000000000000b00000000TRAILER!!!....
        ");
    }
}
