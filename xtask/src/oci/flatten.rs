//! The layers of an image -> the one tree that they make, as one tar.
//!
//! Two passes, so that no file is in memory: [`plan`] reads the headers of all layers and decides
//! which entry wins each path, and [`Plan::write`] reads the layers again and passes the winners on.
//! Source: OCI image specification, layer.md, "Applying Changesets".

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use tar::{Builder, EntryType, Header};

/// Marks the path that a layer takes away. Source: layer.md, "Whiteouts".
const WHITEOUT: &str = ".wh.";
/// Takes away all that the layers below have in a directory. Source: layer.md, "Opaque Whiteout".
const OPAQUE: &str = ".wh..wh..opq";
/// Other names of AUFS's own, which mean nothing here. Source: storage, pkg/archive, `WhiteoutMetaPrefix`.
const AUFS: &str = ".wh..wh.";
/// The key under which star, GNU tar and libarchive keep an extended attribute in a PAX header.
const ATTRIBUTE: &str = "SCHILY.xattr.";
/// Files are labelled by the host's policy, not by what built the layer.
const SELINUX: &str = "SCHILY.xattr.security.selinux";
/// A symbolic link's target that does not fit into a header. Source: POSIX, pax, "linkpath".
const LINK_PATH: &str = "linkpath";

/// What an image holds, and which entries of which layers bring it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// Directories and symbolic links by their path, which has no slash at either end.
    nodes: BTreeMap<String, Node>,
    files: BTreeMap<Place, Content>,
}

/// An entry: the number of its layer, and its own among that layer's.
type Place = (usize, usize);

#[derive(Clone, Debug)]
enum Node {
    Directory(Metadata),
    Symlink { metadata: Metadata, target: String },
}

/// A file's bytes and metadata, which several paths may share.
#[derive(Clone, Debug)]
struct Content {
    metadata: Metadata,
    size: u64,
    paths: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Metadata {
    mode: u32,
    uid: u64,
    gid: u64,
    /// PAX keys and values.
    attributes: Vec<(String, Vec<u8>)>,
}

/// A directory that no layer has an entry for.
const IMPLICIT: Metadata = Metadata { mode: 0o755, uid: 0, gid: 0, attributes: Vec::new() };

#[derive(Debug, thiserror::Error)]
pub(crate) enum FlattenError {
    #[error("layer {layer} cannot be read")]
    Read { layer: usize, source: io::Error },
    #[error("layer {layer} has an entry `{path}`, which leaves the root")]
    Outside { layer: usize, path: String },
    #[error("layer {layer} has an entry `{path}`, whose name is not UTF-8")]
    NotUtf8 { layer: usize, path: String },
    #[error("layer {layer} has `{path}`, which takes nothing away")]
    BareWhiteout { layer: usize, path: String },
    #[error(
        "layer {layer} has `{path}`, which is of type {kind:?}: ostree keeps files, directories and links"
    )]
    Kind { layer: usize, path: String, kind: EntryType },
    #[error("layer {layer} has `{path}`, a hard link to `{target}`, which is no file there")]
    DanglingLink { layer: usize, path: String, target: String },
    #[error("a layer's content has changed since it was looked at")]
    Changed,
    #[error("the tree cannot be written")]
    Write(#[source] io::Error),
}

/// The tree while it grows.
#[derive(Default)]
struct Tree {
    entries: BTreeMap<String, Leaf>,
    contents: BTreeMap<Place, (Metadata, u64)>,
}

#[derive(Clone, Debug)]
enum Leaf {
    Node(Node),
    File(Place),
}

/// An entry of a layer, read.
struct Entry {
    number: usize,
    path: String,
    metadata: Metadata,
    kind: Kind,
}

enum Kind {
    Directory,
    Symlink(String),
    HardLink(String),
    File(u64),
}

/// Decides what `layers`, the lowest first, come to. Each is an uncompressed tar.
pub(crate) fn plan<R: Read>(layers: impl IntoIterator<Item = R>) -> Result<Plan, FlattenError> {
    let mut tree = Tree::default();
    for (layer, tar) in layers.into_iter().enumerate() {
        tree.apply(layer, tar)?;
    }
    Ok(tree.finish())
}

impl Plan {
    /// The part whose paths `keep` wants. A directory that is left out is left out with all in it.
    pub(crate) fn part(&self, keep: impl Fn(&str) -> bool) -> Plan {
        let is_kept = |path: &str| {
            let slashes = path.match_indices('/').map(|(at, _)| at);
            slashes.chain([path.len()]).all(|end| keep(&path[..end]))
        };
        let nodes = self.nodes.iter().filter(|(path, _)| is_kept(path));
        let files = self.files.iter().filter_map(|(place, content)| {
            let paths: Vec<String> = content.paths.iter().filter(|path| is_kept(path)).cloned().collect();
            (!paths.is_empty()).then(|| (*place, Content { paths, ..content.clone() }))
        });
        Plan {
            nodes: nodes.map(|(path, node)| (path.clone(), node.clone())).collect(),
            files: files.collect(),
        }
    }

    /// Every path that is not a directory's.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = &str> {
        let is_link = |node: &Node| matches!(node, Node::Symlink { .. });
        let links = self.nodes.iter().filter(move |(_, node)| is_link(node)).map(|(path, _)| path.as_str());
        links.chain(self.files.values().flat_map(|content| &content.paths).map(String::as_str))
    }

    /// Bytes of all files together.
    pub(crate) fn content_size(&self) -> u64 {
        self.files.values().map(|content| content.size).sum()
    }

    /// How long the tar is that [`Plan::write`] writes.
    pub(crate) fn tar_size(&self) -> io::Result<u64> {
        let mut counter = Counter(0);
        let mut builder = Builder::new(&mut counter);
        self.write_nodes(&mut builder)?;
        for content in self.files.values() {
            content.write(&mut builder, io::repeat(0).take(content.size))?;
        }
        builder.finish()?;
        drop(builder);
        Ok(counter.0)
    }

    /// Writes the tree as one tar: first the directories and symbolic links, each after its parent,
    /// then the files in the order of the layers, each followed by the other paths that it has.
    /// `open` gives the layers that [`plan`] saw, by their number, and is asked for those alone that
    /// have a file in the tree.
    pub(crate) fn write<R: Read>(
        &self,
        mut open: impl FnMut(usize) -> io::Result<R>,
        out: impl Write,
    ) -> Result<(), FlattenError> {
        let mut builder = Builder::new(out);
        self.write_nodes(&mut builder).map_err(FlattenError::Write)?;
        let mut files = self.files.iter().peekable();
        while let Some(&(&(layer, _), _)) = files.peek() {
            let failed = |source| FlattenError::Read { layer, source };
            let mut archive = tar::Archive::new(open(layer).map_err(failed)?);
            for (number, entry) in archive.entries().map_err(failed)?.enumerate() {
                let entry = entry.map_err(failed)?;
                let Some((_, content)) = files.next_if(|(place, _)| **place == (layer, number)) else {
                    continue;
                };
                if entry.size() != content.size {
                    return Err(FlattenError::Changed);
                }
                content.write(&mut builder, entry).map_err(FlattenError::Write)?;
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
        for path in others {
            let header = self.metadata.header(EntryType::Link, 0);
            append(builder, header, path, &[], Some(first), io::empty())?;
        }
        Ok(())
    }
}

impl Metadata {
    fn header(&self, kind: EntryType, size: u64) -> Header {
        // A GNU header, since the builder stores names of over 100 bytes in GNU's way.
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(self.mode);
        header.set_uid(self.uid);
        header.set_gid(self.gid);
        header.set_size(size);
        // ostree keeps no time.
        header.set_mtime(0);
        header
    }
}

/// Appends an entry. The builder's own way with links would change what their targets say.
fn append(
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

impl Tree {
    fn apply(&mut self, layer: usize, tar: impl Read) -> Result<(), FlattenError> {
        let failed = |source| FlattenError::Read { layer, source };
        let mut entries = Vec::new();
        let mut archive = tar::Archive::new(tar);
        for (number, entry) in archive.entries().map_err(failed)?.enumerate() {
            let mut entry = entry.map_err(failed)?;
            let path = path(layer, &entry.path_bytes())?;
            let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
            // They are about the layers below, wherever in this one they are.
            if name == OPAQUE {
                self.empty(folder);
            } else if name.starts_with(AUFS) {
                continue;
            } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
                if hidden.is_empty() {
                    return Err(FlattenError::BareWhiteout { layer, path });
                }
                self.remove(&if folder.is_empty() {
                    hidden.to_owned()
                } else {
                    format!("{folder}/{hidden}")
                });
            } else if !path.is_empty() {
                entries.extend(read(layer, number, path, &mut entry)?);
            }
        }
        entries.into_iter().try_for_each(|entry| self.insert(layer, entry))
    }

    fn insert(&mut self, layer: usize, entry: Entry) -> Result<(), FlattenError> {
        let Entry { number, path, metadata, kind } = entry;
        let leaf = match kind {
            Kind::Directory => Leaf::Node(Node::Directory(metadata)),
            Kind::Symlink(target) => Leaf::Node(Node::Symlink { metadata, target }),
            Kind::File(size) => {
                self.contents.insert((layer, number), (metadata, size));
                Leaf::File((layer, number))
            }
            Kind::HardLink(target) => match self.entries.get(&target) {
                Some(Leaf::File(place)) => Leaf::File(*place),
                Some(Leaf::Node(Node::Symlink { metadata, target })) => {
                    Leaf::Node(Node::Symlink { metadata: metadata.clone(), target: target.clone() })
                }
                Some(Leaf::Node(Node::Directory(_))) | None => {
                    return Err(FlattenError::DanglingLink { layer, path, target });
                }
            },
        };
        self.make_parents(&path);
        if !matches!(leaf, Leaf::Node(Node::Directory(_))) {
            self.empty(&path);
        }
        self.entries.insert(path, leaf);
        Ok(())
    }

    /// Makes what is above `path` directories, whatever a layer below had there.
    fn make_parents(&mut self, path: &str) {
        for (end, _) in path.match_indices('/') {
            let parent = &path[..end];
            if !matches!(self.entries.get(parent), Some(Leaf::Node(Node::Directory(_)))) {
                self.entries.insert(parent.to_owned(), Leaf::Node(Node::Directory(IMPLICIT)));
            }
        }
    }

    /// Takes away `path` and all below it.
    fn remove(&mut self, path: &str) {
        self.entries.remove(path);
        self.empty(path);
    }

    /// Takes away all below `folder`.
    fn empty(&mut self, folder: &str) {
        if folder.is_empty() {
            self.entries.clear();
            return;
        }
        let start = format!("{folder}/");
        let below = self.entries.range(start.clone()..).map(|(path, _)| path);
        let below: Vec<String> = below.take_while(|path| path.starts_with(&start)).cloned().collect();
        for path in below {
            self.entries.remove(&path);
        }
    }

    fn finish(mut self) -> Plan {
        let mut plan = Plan::default();
        for (path, leaf) in self.entries {
            match leaf {
                Leaf::Node(node) => {
                    plan.nodes.insert(path, node);
                }
                Leaf::File(place) => match plan.files.get_mut(&place) {
                    Some(content) => content.paths.push(path),
                    None => {
                        if let Some((metadata, size)) = self.contents.remove(&place) {
                            plan.files.insert(place, Content { metadata, size, paths: vec![path] });
                        }
                    }
                },
            }
        }
        plan
    }
}

/// An entry's header; nothing for one that is about the archive itself.
fn read(
    layer: usize,
    number: usize,
    path: String,
    entry: &mut tar::Entry<'_, impl Read>,
) -> Result<Option<Entry>, FlattenError> {
    let failed = |source| FlattenError::Read { layer, source };
    let link = |entry: &tar::Entry<'_, _>| -> Result<String, FlattenError> {
        let bytes = entry.link_name_bytes().unwrap_or_default();
        String::from_utf8(bytes.into_owned()).map_err(|_| FlattenError::NotUtf8 { layer, path: path.clone() })
    };
    let kind = match entry.header().entry_type() {
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink(link(entry)?),
        EntryType::Link => Kind::HardLink(self::path(layer, link(entry)?.as_bytes())?),
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File(entry.size()),
        EntryType::XGlobalHeader => return Ok(None),
        kind => return Err(FlattenError::Kind { layer, path, kind }),
    };
    let mut attributes = Vec::new();
    for extension in entry.pax_extensions().map_err(failed)?.into_iter().flatten() {
        let extension = extension.map_err(failed)?;
        let key = extension.key().map_err(|error| failed(io::Error::other(error)))?;
        if key.starts_with(ATTRIBUTE) && key != SELINUX {
            attributes.push((key.to_owned(), extension.value_bytes().to_owned()));
        }
    }
    let header = entry.header();
    let metadata = Metadata {
        mode: header.mode().map_err(failed)? & 0o7777,
        uid: id(&header.as_old().uid, header.uid()).map_err(failed)?,
        gid: id(&header.as_old().gid, header.gid()).map_err(failed)?,
        attributes,
    };
    Ok(Some(Entry { number, path, metadata, kind }))
}

/// An owner; a field without a number is root's, as every other reader has it.
fn id(field: &[u8], number: io::Result<u64>) -> io::Result<u64> {
    if field.iter().all(|byte| matches!(byte, 0 | b' ')) { Ok(0) } else { number }
}

/// A path from the root, without slashes at its ends and without `.`; empty for the root itself.
fn path(layer: usize, bytes: &[u8]) -> Result<String, FlattenError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| FlattenError::NotUtf8 { layer, path: String::from_utf8_lossy(bytes).into_owned() })?;
    let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err(FlattenError::Outside { layer, path: text.to_owned() });
    }
    Ok(parts.join("/"))
}

/// Counts what is written to it.
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    /// A layer, an entry a word: `dir/`, `file=content`, `link->target`, `hard=>target`.
    fn layer(entries: &str) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (number, word) in entries.split_whitespace().enumerate() {
            let metadata = Metadata { uid: number as u64, ..IMPLICIT };
            let (path, kind, content, link) = if let Some((path, target)) = word.split_once("->") {
                (path, EntryType::Symlink, "", Some(target))
            } else if let Some((path, target)) = word.split_once("=>") {
                (path, EntryType::Link, "", Some(target))
            } else if let Some((path, content)) = word.split_once('=') {
                (path, EntryType::Regular, content, None)
            } else if word.ends_with('/') {
                (word, EntryType::Directory, "", None)
            } else {
                (word, EntryType::Regular, "", None)
            };
            let header = metadata.header(kind, content.len() as u64);
            append(&mut builder, header, path, &[], link, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn flatten(layers: &[Vec<u8>]) -> Result<Vec<u8>, FlattenError> {
        let plan = plan(layers.iter().map(Vec::as_slice))?;
        let mut out = Vec::new();
        plan.write(|number| Ok(layers[number].as_slice()), &mut out)?;
        assert_eq!(plan.tar_size().unwrap(), out.len() as u64);
        Ok(out)
    }

    /// The entries of a tar in the form that `layer` takes.
    fn shown(tar: &[u8]) -> String {
        let mut words = Vec::new();
        for entry in tar::Archive::new(tar).entries().unwrap() {
            let mut entry = entry.unwrap();
            let text = |bytes: std::borrow::Cow<'_, [u8]>| String::from_utf8(bytes.into_owned()).unwrap();
            let (path, link) = (text(entry.path_bytes()), entry.link_name_bytes().map(text));
            words.push(match (entry.header().entry_type(), link) {
                (EntryType::Symlink, Some(link)) => format!("{path}->{link}"),
                (EntryType::Link, Some(link)) => format!("{path}=>{link}"),
                (EntryType::Directory, _) => path,
                _ => {
                    let mut content = String::new();
                    entry.read_to_string(&mut content).unwrap();
                    format!("{path}={content}")
                }
            });
        }
        words.join(" ")
    }

    #[test]
    fn the_last_layer_wins() {
        let check = |layers: &[&str], expected: &str| {
            let layers: Vec<Vec<u8>> = layers.iter().map(|entries| layer(entries)).collect();
            let found = match flatten(&layers) {
                Ok(tar) => shown(&tar),
                Err(error) => error.to_string(),
            };
            assert_eq!(found, expected, "for {layers:?}");
        };
        check(&[], "");
        check(&["a/ a/b=1 c=2"], "a/ a/b=1 c=2");
        check(&["a/ a/b=1", "a/b=2"], "a/ a/b=2");
        // Names in every spelling that tars have.
        check(&["./ ./a/ ./a/b=1", "a//b=2"], "a/ a/b=2");
        // Parents that no layer has, and parents that come after their children.
        check(&["a/b/c=1"], "a/ a/b/ a/b/c=1");
        check(&["b/c=1 b/ a->b"], "a->b b/ b/c=1");
        // Something else at the same path, with what was below it.
        check(&["a/ a/b=1 a/c/ a/c/d=1", "a=2"], "a=2");
        check(&["a/ a/b=1", "a->x"], "a->x");
        check(&["a=1", "a/ a/b=2"], "a/ a/b=2");
        check(&["a->x", "a/"], "a/");
        check(&["sbin->bin bin/ bin/x=1", "sbin/y=2"], "bin/ sbin/ bin/x=1 sbin/y=2");
        check(&["a=1", "a/b/c=2"], "a/ a/b/ a/b/c=2");
        check(&["a/ ab=1", "a=2"], "ab=1 a=2");
    }

    #[test]
    fn whiteouts_are_about_the_layers_below() {
        let check = |layers: &[&str], expected: &str| {
            let layers: Vec<Vec<u8>> = layers.iter().map(|entries| layer(entries)).collect();
            assert_eq!(shown(&flatten(&layers).unwrap()), expected, "for {layers:?}");
        };
        check(&["a/ a/b=1 a/c=1", "a/.wh.b"], "a/ a/c=1");
        check(&["a/ a/b/ a/b/c=1", "a/.wh.b"], "a/");
        check(&["b=1 a=1", ".wh.b"], "a=1");
        check(&["a/ a/b=1", "a/b=2 a/.wh.b"], "a/ a/b=2");
        check(&["a/ a/b=1 a/c=1 d=1", "a/d=2 a/.wh..wh..opq"], "a/ d=1 a/d=2");
        check(&["a=1 b=1", ".wh..wh..opq c=2"], "c=2");
        check(&["a/ a/b=1", "a/.wh..wh.plnk a/.wh..wh.aufs"], "a/ a/b=1");
        check(&["a=1", ".wh.other"], "a=1");
        check(&["a/ a/b=1", ".wh.a a/ a/c=2"], "a/ a/c=2");
    }

    #[test]
    fn hard_links_share_what_they_were_linked_to() {
        let check = |layers: &[&str], expected: &str| {
            let layers: Vec<Vec<u8>> = layers.iter().map(|entries| layer(entries)).collect();
            assert_eq!(shown(&flatten(&layers).unwrap()), expected, "for {layers:?}");
        };
        check(&["b=1 c=>b a=>./c"], "a=1 b=>a c=>a");
        // One of the paths changes, or goes: the others keep the content.
        check(&["a=1 b=>a", "a=2"], "b=1 a=2");
        check(&["a=1 b=>a c=>a", ".wh.a"], "b=1 c=>b");
        // Into a layer below, whichever content the path has by then.
        check(&["a=1", "b=>a"], "a=1 b=>a");
        check(&["a=1", "a=2 b=>a"], "a=2 b=>a");
        check(&["a=1", "b=>a a=2"], "b=1 a=2");
        check(&["x->y z=>x"], "x->y z->y");
    }

    #[test]
    fn what_no_host_can_have_is_refused() {
        let check = |entries: &str, expected: &str| {
            assert_eq!(flatten(&[layer("a=1"), layer(entries)]).unwrap_err().to_string(), expected);
        };
        check(".wh.", "layer 1 has `.wh.`, which takes nothing away");
        check("b=>c", "layer 1 has `b`, a hard link to `c`, which is no file there");
        check("c/ b=>c", "layer 1 has `b`, a hard link to `c`, which is no file there");
        let raw = |kind: EntryType, name: &[u8]| {
            let mut header = IMPLICIT.header(kind, 0);
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name);
            header.set_cksum();
            let mut builder = Builder::new(Vec::new());
            builder.append(&header, io::empty()).unwrap();
            flatten(&[builder.into_inner().unwrap()]).unwrap_err().to_string()
        };
        assert_eq!(
            raw(EntryType::Regular, b"a/../../b"),
            "layer 0 has an entry `a/../../b`, which leaves the root"
        );
        assert_eq!(
            raw(EntryType::Regular, b"a\xff"),
            "layer 0 has an entry `a\u{fffd}`, whose name is not UTF-8"
        );
        assert_eq!(
            raw(EntryType::Fifo, b"a"),
            "layer 0 has `a`, which is of type Fifo: ostree keeps files, directories and links"
        );
        let cut = &layer("a=1")[..700];
        assert_eq!(plan([cut]).unwrap_err().to_string(), "layer 0 cannot be read");
        let plan = plan([&layer("a=1")[..]]).unwrap();
        for other in ["a=12", "b", ""] {
            let other = layer(other);
            let error = plan.write(|_| Ok(&other[..]), io::sink()).unwrap_err();
            assert_eq!(error.to_string(), "a layer's content has changed since it was looked at");
        }
    }

    #[test]
    fn a_part_has_whole_folders_or_none() {
        let tar = layer("a/ a/b=1 c/ c/d=>a/b c/e->x f=2");
        let plan = plan([&tar[..]]).unwrap();
        let part = plan.part(|path| path != "a");
        let mut out = Vec::new();
        part.write(|_| Ok(&tar[..]), &mut out).unwrap();
        assert_eq!(shown(&out), "c/ c/e->x c/d=1 f=2");
        assert_eq!((plan.content_size(), part.content_size()), (2, 2));
        assert_eq!(part.leaves().collect::<Vec<_>>(), ["c/e", "c/d", "f"]);
    }

    #[test]
    fn names_attributes_and_owners_arrive() {
        let long = format!("{}/{}", "d".repeat(120), "ü".repeat(90));
        let target = format!("../{}//end/", "t".repeat(150));
        let attribute = (format!("{ATTRIBUTE}security.capability"), vec![1, 0, 2]);
        let metadata = Metadata { mode: 0o4755, uid: 5_000_000, gid: 33, attributes: vec![attribute] };
        let mut builder = Builder::new(Vec::new());
        let label = (SELINUX.to_owned(), b"label".to_vec());
        let attributes = [&metadata.attributes[..], &[label]].concat();
        let header = metadata.header(EntryType::Regular, 1);
        append(&mut builder, header, &long, &attributes, None, &b"x"[..]).unwrap();
        let header = metadata.header(EntryType::Symlink, 0);
        append(&mut builder, header, "link", &[], Some(&target), io::empty()).unwrap();
        let tar = flatten(&[builder.into_inner().unwrap()]).unwrap();
        let plan = plan([&tar[..]]).unwrap();
        let content = plan.files.values().next().unwrap();
        assert_eq!((&content.metadata, &content.paths[..]), (&metadata, &[long][..]));
        let Some(Node::Symlink { target: found, .. }) = plan.nodes.get("link") else { panic!("a link") };
        assert_eq!(*found, target);
    }

    /// Where layers take nothing away, they come to what tar makes of them one after the other.
    #[test]
    fn tar_makes_the_same_of_it() {
        let layers = [
            layer("a/ a/b=1 a/c=1 d->a e/ e/f=1 g=1 h=>g usr/ usr/bin/ usr/bin/x=1"),
            layer("a/ a/b=22 e/ e/f->../g g=2 usr/bin/y=>usr/bin/x i/j/k=3"),
            layer("h=4 d=5 a/c=>h"),
        ];
        let dir = tempfile::tempdir().unwrap();
        let unpack = |name: &str, tars: &[&[u8]]| {
            let root = dir.path().join(name);
            fs::create_dir(&root).unwrap();
            for tar in tars {
                fs::write(dir.path().join("tar"), tar).unwrap();
                let mut command = Command::new("tar");
                command.arg("--extract").arg("--no-same-owner").arg("--file").arg(dir.path().join("tar"));
                assert!(command.arg("--directory").arg(&root).status().unwrap().success());
            }
            let find = "find . -mindepth 1 -printf '%P %y %m %n %l ' \\( -type f -exec cat {} \\; -o -true \\) \
                -printf '\\n' | sort";
            let output = Command::new("sh").args(["-c", find]).current_dir(root).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let all: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
        let (expected, found) = (unpack("layers", &all), unpack("flat", &[&flatten(&layers).unwrap()]));
        assert!(expected.contains("a/b f 755 1  22"), "{expected}");
        assert_eq!(found, expected);
    }
}
