//! The layers of an image -> the one tree that they make, as one tar.
//!
//! Two passes, so that no file is in memory: [`plan`] reads the headers of all layers and decides
//! which entry wins each path, and [`Plan::write`] reads the layers again and passes the winners on.
//! What it decides is what ostree makes of layers that are committed one by one and checked out over each
//! other, as on a host; what ostree would do wrong is an error.
//! Source: OCI image specification, layer.md, "Applying Changesets".

mod entry;
mod object;
mod tree;
mod write;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{self, Read, Seek};

use tar::EntryType;

use self::entry::Metadata;
use self::tree::{Marks, Tree};

/// A tar's unit, in bytes. Source: POSIX, pax, "ustar Interchange Format".
const BLOCK: u64 = 512;

/// What an image holds, and which entries of which layers bring it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// Directories and symbolic links by their path, which has no slash at either end.
    nodes: BTreeMap<String, Node>,
    files: BTreeMap<Place, Content>,
    overruled: Vec<Overruled>,
}

/// A layer's entry for a folder that a layer below has otherwise, in mode, owner or attributes. The one
/// below stays, as it does on hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overruled {
    pub(crate) layer: usize,
    pub(crate) path: String,
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
    #[error(
        "layer {layer} has `{path}`, a hard link to `{target}`, which is no file of that layer: \
         hosts keep each layer by itself"
    )]
    DanglingLink { layer: usize, path: String, target: String },
    #[error("layer {layer} has `{path}` twice, once as a folder: ostree takes neither")]
    TwoKinds { layer: usize, path: String },
    #[error("layer {layer} has `{path}` and takes it away: ostree would do the latter last")]
    Hidden { layer: usize, path: String },
    #[error("a layer's content has changed since it was looked at")]
    Changed,
    #[error("the tree cannot be written")]
    Write(#[source] io::Error),
}

/// Decides what `layers`, the lowest first, come to. Each is an uncompressed tar.
pub(crate) fn plan<R: Read + Seek>(layers: impl IntoIterator<Item = R>) -> Result<Plan, FlattenError> {
    let mut tree = Tree::default();
    for (layer, tar) in layers.into_iter().enumerate() {
        tree.apply(layer, tar, Marks::Applied)?;
    }
    Ok(tree.finish())
}

/// What the layer `layer`, whose tar this is, has by itself. What takes something away is a file of it.
pub(crate) fn alone(layer: usize, tar: impl Read + Seek) -> Result<Plan, FlattenError> {
    let mut tree = Tree::default();
    tree.apply(layer, tar, Marks::Kept)?;
    Ok(tree.finish())
}

impl Plan {
    /// The same with all of it at the paths that `place` gives for what they are.
    pub(crate) fn moved(self, place: impl Fn(&str) -> String) -> Plan {
        let nodes = self.nodes.into_iter().map(|(path, node)| (place(&path), node)).collect();
        let files = self.files.into_iter().map(|(entry, content)| {
            let paths = content.paths.iter().map(|path| place(path)).collect();
            (entry, Content { paths, ..content })
        });
        Plan { nodes, files: files.collect(), overruled: self.overruled }
    }

    /// Both, of the same layers. A file that is in both is one file.
    pub(crate) fn and(mut self, other: Plan) -> Plan {
        self.nodes.extend(other.nodes);
        for (entry, content) in other.files {
            match self.files.entry(entry) {
                Entry::Vacant(vacant) => {
                    vacant.insert(content);
                }
                Entry::Occupied(mut there) => there.get_mut().paths.extend(content.paths),
            }
        }
        self.overruled.extend(other.overruled);
        self
    }

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
            overruled: Vec::new(),
        }
    }

    /// Every path that is not a directory's.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = &str> {
        let is_link = |node: &Node| matches!(node, Node::Symlink { .. });
        let links = self.nodes.iter().filter(move |(_, node)| is_link(node)).map(|(path, _)| path.as_str());
        links.chain(self.files.values().flat_map(|content| &content.paths).map(String::as_str))
    }

    /// What layers say of folders in vain.
    pub(crate) fn overruled(&self) -> &[Overruled] {
        &self.overruled
    }

    /// Bytes of all files together.
    pub(crate) fn content_size(&self) -> u64 {
        self.files.values().map(|content| content.size).fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Cursor;
    use std::process::Command;

    use tar::Builder;

    use super::entry::IMPLICIT;
    use super::write::append;
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
        let plan = plan(layers.iter().map(Cursor::new))?;
        let mut out = Vec::new();
        plan.write(|number| Ok(Cursor::new(&layers[number])), &mut out)?;
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
        // Only files mark something.
        check(&["a=1 b=1", ".wh.a/ .wh.b->x"], ".wh.a/ .wh.b->x a=1 b=1");
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
        // Wherever in its layer the target is, and whatever is below.
        check(&["b=>a a=1"], "a=1 b=>a");
        check(&["a=1", "b=>a a=2"], "a=2 b=>a");
        check(&["a=1 b=>a", "a=>b b=3"], "a=3 b=>a");
        check(&["x->y z=>x"], "x->y z->y");
    }

    #[test]
    fn what_no_host_can_have_is_refused() {
        let check = |entries: &str, expected: &str| {
            assert_eq!(flatten(&[layer("a=1"), layer(entries)]).unwrap_err().to_string(), expected);
        };
        check(".wh.", "layer 1 has `.wh.`, which takes nothing away");
        for (entries, target) in [("b=>c", "c"), ("c/ b=>c", "c"), ("b=>a", "a")] {
            let expected = format!(
                "layer 1 has `b`, a hard link to `{target}`, which is no file of that layer: hosts keep each layer by itself"
            );
            check(entries, &expected);
        }
        for entries in ["b/ b=1", "b=1 b/", "b=1 b/c=1", "b/c=1 b=1", "b->c b/c=1", "b=1 b/.wh.c"] {
            check(entries, "layer 1 has `b` twice, once as a folder: ostree takes neither");
        }
        for (entries, path) in [(".a=1 .wh..a", ".a"), ("d/.wh.-b d/-b->c", "d/-b"), ("#=>b b=1 .wh.#", "#")]
        {
            let expected = format!("layer 1 has `{path}` and takes it away: ostree would do the latter last");
            check(entries, &expected);
        }
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
        // A long name that comes before an entry is read into memory, as long as it is.
        for kind in
            [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader, EntryType::XGlobalHeader]
        {
            let mut header = IMPLICIT.header(kind, (1 << 20) + 1);
            header.set_path("long").unwrap();
            header.set_cksum();
            let mut builder = Builder::new(Vec::new());
            builder.append(&header, &vec![b'a'; (1 << 20) + 1][..]).unwrap();
            let error = flatten(&[builder.into_inner().unwrap()]).unwrap_err();
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert_eq!(source, "what precedes an entry has 1048577 bytes");
        }
        let cut = &layer("a=1")[..700];
        assert_eq!(plan([Cursor::new(cut)]).unwrap_err().to_string(), "layer 0 cannot be read");
        let plan = plan([Cursor::new(layer("a=1"))]).unwrap();
        for other in ["a=12", "b", ""] {
            let other = layer(other);
            let error = plan.write(|_| Ok(Cursor::new(&other)), io::sink()).unwrap_err();
            assert_eq!(error.to_string(), "a layer's content has changed since it was looked at");
        }
    }

    #[test]
    fn a_folder_keeps_what_the_first_layer_says_of_it() {
        let layers = ["a/ b/c=1", "x=1 a/ b/", ".wh.a x=2 y=2 a/"].map(layer);
        let plan = plan(layers.iter().map(Cursor::new)).unwrap();
        let owner = |path: &str| match plan.nodes.get(path) {
            Some(Node::Directory(metadata)) => metadata.uid,
            Some(Node::Symlink { .. }) | None => panic!("{path} is a folder"),
        };
        // `layer` gives entries their number as owner. One that was taken away is another one.
        assert_eq!((owner("a"), owner("b")), (3, 0));
        let overruled: Vec<String> =
            plan.overruled().iter().map(|Overruled { layer, path }| format!("{layer} {path}")).collect();
        assert_eq!(overruled, ["1 a", "1 b"]);
    }

    #[test]
    fn a_part_has_whole_folders_or_none() {
        let tar = layer("a/ a/b=1 c/ c/d=>a/b c/e->x f=2");
        let plan = plan([Cursor::new(&tar)]).unwrap();
        let part = plan.part(|path| path != "a");
        let mut out = Vec::new();
        part.write(|_| Ok(Cursor::new(&tar)), &mut out).unwrap();
        assert_eq!(shown(&out), "c/ c/e->x c/d=1 f=2");
        assert_eq!((plan.content_size(), part.content_size()), (2, 2));
        assert_eq!(part.leaves().collect::<Vec<_>>(), ["c/e", "c/d", "f"]);
    }

    #[test]
    fn layers_are_beside_what_they_come_to() {
        let layers = ["a/ a/b=1 c=>a/b", ".wh.c a/.wh..wh..opq d=2"].map(layer);
        let own = layers.iter().enumerate().map(|(number, tar)| alone(number, Cursor::new(tar)).unwrap());
        let own = own.map(|plan| plan.moved(|path| format!("own/{path}"))).reduce(Plan::and).unwrap();
        let all = own.and(plan(layers.iter().map(Cursor::new)).unwrap());
        let mut out = Vec::new();
        all.write(|number| Ok(Cursor::new(&layers[number])), &mut out).unwrap();
        let expected = "a/ own/a/ own/a/b=1 own/c=>own/a/b own/.wh.c= own/a/.wh..wh..opq= own/d=2 d=>own/d";
        assert_eq!(shown(&out), expected);
    }

    #[test]
    fn objects_are_where_ostree_has_them() {
        let attribute = vec![("SCHILY.xattr.security.capability".to_owned(), vec![1, 0, 2])];
        let mut builder = Builder::new(Vec::new());
        for (path, attributes) in [("f", &[][..]), ("g", &[]), ("h", &attribute)] {
            let metadata = Metadata { mode: 0o4755, uid: 33, gid: 0, attributes: vec![] };
            append(&mut builder, metadata.header(EntryType::Regular, 1), path, attributes, None, &b"1"[..])
                .unwrap();
        }
        let tar = builder.into_inner().unwrap();
        let plan = plan([Cursor::new(&tar)]).unwrap();
        let mut out = Vec::new();
        plan.write_with_objects("o", |_| Ok(Cursor::new(&tar)), &mut out).unwrap();
        // What `ostree ls --checksum` says of such a file.
        let object = "o/97/94e881c2e4e787f878fc209dfc1276aa479b5ed0f2bb4e378fc4cb7f5c24cc.file";
        assert_eq!(shown(&out), format!("f=1 {object}=>f g=1 h=1"));
    }

    #[test]
    fn names_attributes_and_owners_arrive() {
        let long = format!("{}/{}", "d".repeat(120), "ü".repeat(90));
        let target = format!("../{}//end/", "t".repeat(150));
        let attribute = ("SCHILY.xattr.security.capability".to_owned(), vec![1, 0, 2]);
        let metadata = Metadata { mode: 0o4755, uid: 5_000_000, gid: 33, attributes: vec![attribute] };
        let mut builder = Builder::new(Vec::new());
        let label = ("SCHILY.xattr.security.selinux".to_owned(), b"label".to_vec());
        let attributes = [&metadata.attributes[..], &[label]].concat();
        let header = metadata.header(EntryType::Regular, 1);
        append(&mut builder, header, &long, &attributes, None, &b"x"[..]).unwrap();
        let header = metadata.header(EntryType::Symlink, 0);
        append(&mut builder, header, "link", &[], Some(&target), io::empty()).unwrap();
        let tar = flatten(&[builder.into_inner().unwrap()]).unwrap();
        let plan = plan([Cursor::new(&tar)]).unwrap();
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
            layer("a/ a/b=22 e/ e/f->../g g=2 usr/bin/x=3 usr/bin/y=>usr/bin/x i/j/k=3"),
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
