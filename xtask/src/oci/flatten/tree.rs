//! The tree while layers are applied to it, as ostree takes them together: each layer alone first, then
//! one over the other. What ostree would refuse, or make something else of, is refused here.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};

use tar::EntryType;

use super::entry::{Entry, IMPLICIT, Kind, Mark, Metadata, WHITEOUT, check_extensions, mark, path, read};
use super::{BLOCK, Content, FlattenError, Node, Overruled, Place, Plan};

#[derive(Default)]
pub(super) struct Tree {
    entries: BTreeMap<String, Leaf>,
    contents: BTreeMap<Place, (Metadata, u64)>,
    overruled: Vec<Overruled>,
}

/// What becomes of the files that take away what the layers below have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marks {
    Applied,
    /// They stay files.
    Kept,
}

#[derive(Clone, Debug)]
enum Leaf {
    Node(Node),
    File(Place),
}

/// What one layer has.
#[derive(Default)]
struct Own {
    folders: BTreeMap<String, Metadata>,
    /// Symbolic links and files.
    others: BTreeMap<String, Leaf>,
    contents: BTreeMap<Place, (Metadata, u64)>,
    /// A path, and the target's.
    hard_links: Vec<(String, String)>,
    /// Every path, also of a folder without an entry, and whether a folder is there.
    paths: BTreeMap<String, bool>,
}

impl Tree {
    pub(super) fn apply(
        &mut self,
        layer: usize,
        mut tar: impl Read + Seek,
        marks: Marks,
    ) -> Result<(), FlattenError> {
        let failed = |source| FlattenError::Read { layer, source };
        let length = tar.seek(SeekFrom::End(0)).map_err(failed)?;
        tar.rewind().map_err(failed)?;
        check_extensions(&mut tar).map_err(failed)?;
        tar.rewind().map_err(failed)?;
        let mut own = Own::default();
        let mut hidden = Vec::new();
        let mut archive = tar::Archive::new(tar);
        for (number, entry) in archive.entries_with_seek().map_err(failed)?.enumerate() {
            let mut entry = entry.map_err(failed)?;
            // Contents are passed over, not read.
            let size = entry.header().entry_size().map_err(failed)?.checked_next_multiple_of(BLOCK);
            let end = size.and_then(|size| size.checked_add(entry.raw_file_position()));
            if end.is_none_or(|end| end > length) {
                return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
            }
            let path = path(layer, &entry.path_bytes())?;
            // Marks are about the layers below, wherever in this one they are.
            let is_file = !matches!(entry.header().entry_type(), EntryType::Directory | EntryType::Symlink);
            let counts = is_file && marks == Marks::Applied;
            match if counts { mark(layer, &path)? } else { Mark::None } {
                Mark::None if path.is_empty() => {}
                Mark::None => own.extend(layer, read(layer, number, path, &mut entry)?)?,
                Mark::Nothing => {}
                Mark::Opaque(folder) => self.empty(folder),
                Mark::Whiteout(target) => {
                    own.make_parents(layer, &target)?;
                    self.make_parents(&target);
                    self.remove(&target);
                    hidden.push(target);
                }
            }
        }
        for path in hidden {
            own.check_hidden(layer, path)?;
        }
        self.insert(layer, own)
    }

    fn insert(&mut self, layer: usize, own: Own) -> Result<(), FlattenError> {
        let is_folder = |leaf: &Leaf| matches!(leaf, Leaf::Node(Node::Directory(_)));
        for (path, metadata) in own.folders {
            // ostree keeps the folder that is there.
            if let Some(Leaf::Node(Node::Directory(there))) = self.entries.get(&path) {
                if *there != metadata {
                    self.overruled.push(Overruled { layer, path });
                }
                continue;
            }
            self.make_parents(&path);
            self.entries.insert(path, Leaf::Node(Node::Directory(metadata)));
        }
        self.contents.extend(own.contents);
        let mut others = own.others;
        // ostree makes links when it has seen the rest of the layer, and of that layer alone.
        for (path, target) in own.hard_links {
            match others.get(&target).cloned() {
                Some(leaf) => others.insert(path, leaf),
                None => return Err(FlattenError::DanglingLink { layer, path, target }),
            };
        }
        for (path, leaf) in others {
            self.make_parents(&path);
            if self.entries.get(&path).is_some_and(is_folder) {
                self.empty(&path);
            }
            self.entries.insert(path, leaf);
        }
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

    pub(super) fn finish(mut self) -> Plan {
        let mut plan = Plan { overruled: self.overruled, ..Plan::default() };
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

impl Own {
    fn extend(&mut self, layer: usize, entry: Option<Entry>) -> Result<(), FlattenError> {
        let Some(entry) = entry else { return Ok(()) };
        self.make_parents(layer, &entry.path)?;
        let is_folder = matches!(entry.kind, Kind::Directory);
        if self.paths.insert(entry.path.clone(), is_folder).is_some_and(|was| was != is_folder) {
            return Err(FlattenError::TwoKinds { layer, path: entry.path });
        }
        let Entry { number, path, metadata, kind } = entry;
        match kind {
            Kind::Directory => {
                self.folders.insert(path, metadata);
            }
            Kind::Symlink(target) => {
                self.others.insert(path, Leaf::Node(Node::Symlink { metadata, target }));
            }
            Kind::File(size) => {
                self.contents.insert((layer, number), (metadata, size));
                self.others.insert(path, Leaf::File((layer, number)));
            }
            Kind::HardLink(target) => self.hard_links.push((path, target)),
        }
        Ok(())
    }

    fn make_parents(&mut self, layer: usize, path: &str) -> Result<(), FlattenError> {
        for (end, _) in path.match_indices('/') {
            match self.paths.get(&path[..end]) {
                Some(true) => {}
                Some(false) => return Err(FlattenError::TwoKinds { layer, path: path[..end].to_owned() }),
                None => {
                    self.paths.insert(path[..end].to_owned(), true);
                }
            }
        }
        Ok(())
    }

    /// Sees to it that what the layer has is not taken away by its own whiteout. ostree goes through a
    /// folder's files by their names, with the whiteouts among them, and then through its folders.
    fn check_hidden(&self, layer: usize, path: String) -> Result<(), FlattenError> {
        let name = path.rsplit('/').next().unwrap_or_default();
        let is_before = name < format!("{WHITEOUT}{name}").as_str();
        if is_before && self.paths.get(&path) == Some(&false) {
            return Err(FlattenError::Hidden { layer, path });
        }
        Ok(())
    }
}
