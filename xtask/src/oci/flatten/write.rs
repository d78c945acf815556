//! A [`Plan`] -> a tar.

use std::io::{self, Read, Seek, Write};

use tar::{Builder, EntryType, Header};

use super::entry::Metadata;
use super::object::{Object, Objects};
use super::{Content, FlattenError, Node, Plan};
use crate::oci::tar::header;

/// A symbolic link's target that does not fit into a header. Source: POSIX, pax, "linkpath".
const LINK_PATH: &str = "linkpath";

impl Plan {
    /// Writes the tree as one tar: first the directories and symbolic links, each after its parent,
    /// then the files in the order of the layers, each followed by the other paths that it has.
    /// `open` gives the layers that [`plan`](super::plan) saw, by their number, and is asked for those alone that
    /// have a file in the tree.
    pub(crate) fn write<R: Read + Seek>(
        &self,
        open: impl FnMut(usize) -> io::Result<R>,
        out: impl Write,
    ) -> Result<(), FlattenError> {
        self.write_files(open, out, |builder, content, entry| content.write(builder, entry))
    }

    /// As [`write`](Self::write), and each file that ostree has no more to say of than its content, owner and
    /// mode is in `folder` besides, as ostree's repository has it there.
    pub(crate) fn write_with_objects<R: Read + Seek>(
        &self,
        folder: &str,
        open: impl FnMut(usize) -> io::Result<R>,
        out: impl Write,
    ) -> Result<(), FlattenError> {
        let mut objects = Objects::new(folder);
        self.write_files(open, out, |builder, content, entry| {
            let Some(object) = Objects::begin(&content.metadata) else {
                return content.write(builder, entry);
            };
            let mut entry = Tee { inner: entry, object };
            content.write(builder, &mut entry)?;
            match (content.paths.first(), objects.end(entry.object)) {
                (Some(path), Some(object)) => content.link(builder, &object, path),
                // ostree sees by itself that one is there already.
                (_, None) | (None, _) => Ok(()),
            }
        })
    }

    fn write_files<R: Read + Seek, W: Write>(
        &self,
        mut open: impl FnMut(usize) -> io::Result<R>,
        out: W,
        mut write: impl FnMut(&mut Builder<W>, &Content, tar::Entry<'_, R>) -> io::Result<()>,
    ) -> Result<(), FlattenError> {
        let mut builder = Builder::new(out);
        self.write_nodes(&mut builder).map_err(FlattenError::Write)?;
        let mut files = self.files.iter().peekable();
        while let Some(&(&(layer, _), _)) = files.peek() {
            let failed = |source| FlattenError::Read { layer, source };
            let mut archive = tar::Archive::new(open(layer).map_err(failed)?);
            for (number, entry) in archive.entries_with_seek().map_err(failed)?.enumerate() {
                let entry = entry.map_err(failed)?;
                let Some((_, content)) = files.next_if(|(place, _)| **place == (layer, number)) else {
                    continue;
                };
                if entry.size() != content.size {
                    return Err(FlattenError::Changed);
                }
                write(&mut builder, content, entry).map_err(FlattenError::Write)?;
                if files.peek().is_none_or(|((next, _), _)| *next != layer) {
                    break;
                }
            }
            // A file that was there is not any more: without this it would be looked for without end.
            if files.peek().is_some_and(|((next, _), _)| *next == layer) {
                return Err(FlattenError::Changed);
            }
        }
        builder.into_inner().and_then(|mut out| out.flush()).map_err(FlattenError::Write)
    }

    fn write_nodes(&self, builder: &mut Builder<impl Write>) -> io::Result<()> {
        for (path, node) in &self.nodes {
            match node {
                Node::Directory(metadata) => {
                    let header = metadata.header(EntryType::Directory, 0);
                    append(builder, header, &format!("{path}/"), &metadata.attributes, None, io::empty())?;
                }
                Node::Symlink { metadata, target } => {
                    let header = metadata.header(EntryType::Symlink, 0);
                    append(builder, header, path, &metadata.attributes, Some(target), io::empty())?;
                }
            }
        }
        Ok(())
    }
}

impl Content {
    fn write(&self, builder: &mut Builder<impl Write>, content: impl Read) -> io::Result<()> {
        let Some((first, others)) = self.paths.split_first() else { return Ok(()) };
        let header = self.metadata.header(EntryType::Regular, self.size);
        append(builder, header, first, &self.metadata.attributes, None, content)?;
        others.iter().try_for_each(|path| self.link(builder, path, first))
    }

    fn link(&self, builder: &mut Builder<impl Write>, path: &str, target: &str) -> io::Result<()> {
        let header = self.metadata.header(EntryType::Link, 0);
        append(builder, header, path, &[], Some(target), io::empty())
    }
}

/// A file that is read, and hashed on the way.
struct Tee<R> {
    inner: R,
    object: Object,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.object.write_all(&buffer[..count])?;
        Ok(count)
    }
}

impl Metadata {
    pub(super) fn header(&self, kind: EntryType, size: u64) -> Header {
        let mut header = header(kind, self.mode, size);
        header.set_uid(self.uid);
        header.set_gid(self.gid);
        header
    }
}

/// Appends an entry. The builder's own way with links would change what their targets say.
pub(super) fn append(
    builder: &mut Builder<impl Write>,
    mut header: Header,
    path: &str,
    attributes: &[(String, Vec<u8>)],
    link: Option<&str>,
    content: impl Read,
) -> io::Result<()> {
    let mut extensions: Vec<(&str, &[u8])> =
        attributes.iter().map(|(key, value)| (key.as_str(), value.as_slice())).collect();
    if let Some(target) = link
        && header.set_link_name_literal(target).is_err()
    {
        extensions.push((LINK_PATH, target.as_bytes()));
    }
    if !extensions.is_empty() {
        builder.append_pax_extensions(extensions)?;
    }
    builder.append_data(&mut header, path, content)
}
