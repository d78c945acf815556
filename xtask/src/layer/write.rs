//! A tree to the bytes of a tar: the same tree is the same bytes, everywhere.

use std::io::{self, Write};

use tar::{Builder, EntryType};

use super::tree::{Node, Tree};
use crate::oci::tar::header;

/// Writes `tree` as a tar: sorted, owned by root, mtime 0 (ostree keeps no other), no names of
/// users. Source: OCI image specification, layer.md.
pub(crate) fn write_tar(tree: &Tree, out: impl Write) -> io::Result<()> {
    let mut builder = Builder::new(out);
    for (path, node) in tree.nodes() {
        match node {
            Node::Directory => {
                let mut header = header(EntryType::Directory, 0o755, 0);
                builder.append_data(&mut header, format!("{}/", path.as_str()), io::empty())?;
            }
            Node::File { mode, content } => {
                let mut header = header(EntryType::Regular, mode.bits(), content.len() as u64);
                builder.append_data(&mut header, path.as_str(), content.as_slice())?;
            }
            Node::Symlink { target } => {
                let mut header = header(EntryType::Symlink, 0o777, 0);
                builder.append_link(&mut header, path.as_str(), target)?;
            }
        }
    }
    builder.finish()
}

#[cfg(test)]
mod tests {
    use super::super::tree::FileMode;
    use super::*;

    #[test]
    fn the_tar_holds_what_the_tree_does() {
        let long = format!("usr/share/doc/{}/{}", "d".repeat(120), "ü".repeat(90));
        let mut tree = Tree::default();
        tree.file("usr/bin/hello", FileMode::Executable, b"ELF".to_vec()).unwrap();
        tree.file(long.as_str(), FileMode::Plain, vec![]).unwrap();
        tree.symlink("usr/lib/systemd/system/multi-user.target.wants/hello.service", "../hello.service")
            .unwrap();
        let mut bytes = Vec::new();
        write_tar(&tree, &mut bytes).unwrap();

        let mut archive = tar::Archive::new(&bytes[..]);
        let mut listing = String::new();
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
            let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            let path = if path == long { "(long)" } else { &path };
            let link = entry.link_name_bytes().map(|name| String::from_utf8(name.into_owned()).unwrap());
            let (mode, size) = (header.mode().unwrap(), header.size().unwrap());
            listing += &format!("{mode:o} {size} {path} {}\n", link.unwrap_or_default());
        }
        insta::assert_snapshot!(listing, @"
        755 0 usr/ 
        755 0 usr/bin/ 
        755 3 usr/bin/hello 
        755 0 usr/lib/ 
        755 0 usr/lib/systemd/ 
        755 0 usr/lib/systemd/system/ 
        755 0 usr/lib/systemd/system/multi-user.target.wants/ 
        777 0 usr/lib/systemd/system/multi-user.target.wants/hello.service ../hello.service
        755 0 usr/share/ 
        755 0 usr/share/doc/ 
        755 0 usr/share/doc/dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd/ 
        644 0 (long)
        ");
    }
}
