//! What a build sees: the files that all distros share, and the distro's own folder.
//!
//! It is a copy: so its modes and times are those of no checkout, nothing else is in it, and what
//! is in it is what the base is made of.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result};

use super::collect;
use crate::layer::{FileMode, Node};
use crate::oci::Digest;
use crate::workspace::Distro;
use crate::workspace::distro::{CONTAINERFILE, DISTRO_TOML};

/// What every distro may take files from, beside its own folder.
const SHARED: &str = "base/shared";

pub(crate) struct Context {
    /// The distro's folder, as seen from the workspace's root.
    folder: PathBuf,
    files: BTreeMap<String, Node>,
}

impl Context {
    /// Of `distro.toml`, the labels have what counts.
    pub(crate) fn read(distro: &Distro, root: &Path) -> Result<Context> {
        let folder = distro.dir.strip_prefix(root).unwrap_or(&distro.dir).to_owned();
        let mut files = BTreeMap::new();
        collect(&root.join(SHARED), &format!("{SHARED}/"), &mut files)?;
        collect(&distro.dir, &format!("{}/", folder.display()), &mut files)?;
        files.remove(&format!("{}/{DISTRO_TOML}", folder.display()));
        Ok(Context { folder, files })
    }

    pub(crate) fn containerfile(&self) -> PathBuf {
        self.folder.join(CONTAINERFILE)
    }

    /// The folders that are in it, for people.
    pub(crate) fn shown(&self) -> String {
        format!("{SHARED} and {}", self.folder.display())
    }

    /// What stands for it: the same for the same files.
    pub(crate) fn digests(&self) -> BTreeMap<&str, String> {
        let seen = |node: &Node| match node {
            Node::File { mode: FileMode::Plain, content } => format!("file {}", Digest::of(content)),
            Node::File { mode: FileMode::Executable, content } => format!("program {}", Digest::of(content)),
            Node::Symlink { target } => format!("link {target}"),
            Node::Directory => "folder".to_owned(),
        };
        self.files.iter().map(|(path, node)| (path.as_str(), seen(node))).collect()
    }

    /// Writes it into `dir`, which is not there yet.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        make_folder(dir)?;
        for (path, node) in &self.files {
            let target = dir.join(path);
            let folders: Vec<&Path> =
                target.ancestors().skip(1).take_while(|folder| !folder.exists()).collect();
            folders.into_iter().rev().try_for_each(make_folder)?;
            write_node(node, &target).with_context(|| format!("writing {}", target.display()))?;
        }
        Ok(())
    }
}

/// With the mode that it has in an image, whatever the umask is: COPY takes it over.
fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir(path)
        .and_then(|()| fs::set_permissions(path, PermissionsExt::from_mode(0o755)))
        .with_context(|| format!("making {}", path.display()))
}

fn write_node(node: &Node, path: &Path) -> std::io::Result<()> {
    match node {
        Node::Directory => fs::create_dir(path),
        Node::Symlink { target } => symlink(target, path),
        Node::File { mode, content } => {
            let mut file = File::create(path)?;
            file.write_all(content)?;
            file.set_permissions(PermissionsExt::from_mode(mode.bits()))?;
            file.set_modified(SystemTime::UNIX_EPOCH)
        }
    }
}
