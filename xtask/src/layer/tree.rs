//! What a layer holds, as files rather than as bytes of a tar.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::path::{LayerPath, LayerPathError};

/// The files of one layer.
///
/// Everything in it belongs to root, and has no time; every directory that something is in has
/// an entry of its own (ostree gives a missing parent the child's owner, and composefs refuses
/// the layer). Devices and sockets, which an import refuses, cannot be put in, nor can hard links,
/// which it refuses where they lead into another layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    nodes: BTreeMap<LayerPath, Node>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// 0755, as the base has every directory that layers share: a layer cannot change a
    /// directory of the base.
    Directory,
    File {
        mode: FileMode,
        content: Vec<u8>,
    },
    Symlink {
        target: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileMode {
    /// 0644.
    Plain,
    /// 0755.
    Executable,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TreeError {
    #[error(transparent)]
    Path(#[from] LayerPathError),
    #[error("{0} comes from two places")]
    Twice(LayerPath),
    #[error("{0} is a file, and something else is to be put below it")]
    BelowFile(LayerPath),
}

impl Tree {
    pub(crate) fn file(
        &mut self,
        path: impl Into<String>,
        mode: FileMode,
        content: Vec<u8>,
    ) -> Result<(), TreeError> {
        self.insert(path, Node::File { mode, content })
    }

    pub(crate) fn symlink(
        &mut self,
        path: impl Into<String>,
        target: impl Into<String>,
    ) -> Result<(), TreeError> {
        self.insert(path, Node::Symlink { target: target.into() })
    }

    /// Everything, each directory before what is in it.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&LayerPath, &Node)> {
        self.nodes.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(crate) fn insert(&mut self, path: impl Into<String>, node: Node) -> Result<(), TreeError> {
        let path = LayerPath::new(path)?;
        for parent in path.parents() {
            match self.nodes.entry(parent.clone()).or_insert(Node::Directory) {
                Node::Directory => {}
                Node::File { .. } | Node::Symlink { .. } => return Err(TreeError::BelowFile(parent)),
            }
        }
        match self.nodes.entry(path) {
            Entry::Vacant(entry) => {
                entry.insert(node);
                Ok(())
            }
            Entry::Occupied(entry) => Err(TreeError::Twice(entry.key().clone())),
        }
    }
}

impl FileMode {
    pub(crate) fn bits(self) -> u32 {
        match self {
            FileMode::Plain => 0o644,
            FileMode::Executable => 0o755,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_there_before_children_and_nothing_is_there_twice() {
        let mut tree = Tree::default();
        tree.file("usr/bin/hello", FileMode::Executable, vec![]).unwrap();
        tree.symlink("etc/motd", "../usr/share/motd").unwrap();
        let paths: Vec<&str> = tree.nodes().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["etc", "etc/motd", "usr", "usr/bin", "usr/bin/hello"]);

        let twice = tree.file("usr/bin/hello", FileMode::Plain, vec![]).unwrap_err();
        assert_eq!(twice.to_string(), "/usr/bin/hello comes from two places");
        let below = tree.file("etc/motd/x", FileMode::Plain, vec![]).unwrap_err();
        assert_eq!(below.to_string(), "/etc/motd is a file, and something else is to be put below it");
        assert_eq!(
            tree.file("usr", FileMode::Plain, vec![]),
            Err(TreeError::Twice(LayerPath::new("usr").unwrap()))
        );
    }
}
