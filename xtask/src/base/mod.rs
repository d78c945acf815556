//! The image that ours is built on: its manifest and config, for each platform.

pub(crate) mod advice;
pub(crate) mod container;
mod context;
pub(crate) mod debian;
pub(crate) mod engine;
mod graft;
pub(crate) mod pin;
mod scratch;
mod subids;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};

use crate::hint::WithHint;
use crate::layer::{FileMode, Node};
use crate::oci::{Base, Digest, Document, ImageName, Platform, Reference};
use crate::registry::Client;
use crate::source::{Home, Source};
use crate::store::Store;

pub(crate) use advice::{UPSTREAM_DIGEST, UPSTREAM_NAME};

/// Whether a base that is there already will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// If its inputs have not changed.
    IfUnchanged,
    /// Never: packages may have changed on the mirror.
    Always,
}

/// A base for each platform that was asked for, and where its layers are.
pub(crate) struct ResolvedBase {
    /// The reference that it has in a registry, for annotations.
    pub(crate) reference: Option<Reference>,
    /// What was named: a manifest, or an index over several.
    pub(crate) digest: Digest,
    /// In the order of the platforms that were asked for.
    pub(crate) images: Vec<Base>,
    pub(crate) home: Home,
}

/// Finds the base that `name` names. Its layers are not looked at.
pub(crate) fn resolve(name: &ImageName, platforms: &[Platform], registry: &Client) -> Result<ResolvedBase> {
    let reading = || format!("reading the base {name}");
    let source = Source::open(name, registry).with_context(reading)?;
    let image = |&platform: &Platform| -> Result<Base> {
        let manifest = source.manifest(platform, registry)?;
        let config = source.config(&manifest.config, registry)?;
        Base::new(manifest, config, platform)
            .hint("name an image that bootc can install, such as quay.io/centos-bootc/centos-bootc:stream10")
    };
    let images = platforms.iter().map(image).collect::<Result<_>>().with_context(reading)?;
    let reference = match name {
        ImageName::Layout { .. } => None,
        ImageName::Registry(reference) => Some(reference.clone()),
    };
    Ok(ResolvedBase { reference, digest: source.document.blob().digest(), images, home: source.home })
}

/// What is said while another run has the layout `dir`.
fn waiting_for(dir: &Path) -> String {
    format!("waiting for another run, which is writing {}", dir.display())
}

/// Whether the layout has the image, with the layers that were made here.
fn is_there(dir: &Path, tag: &str) -> Result<bool> {
    if !dir.join("index.json").exists() {
        return Ok(false);
    }
    let store = Store::open(dir)?;
    if !store.tags()?.iter().any(|there| there == tag) {
        return Ok(false);
    }
    match store.document(Some(tag))? {
        Document::Manifest(manifest) => {
            // An upstream's layers stay in its registry; the last one is always ours.
            let layers = match store.layers_in()? {
                None => &manifest.layers[..],
                Some(_) => &manifest.layers[manifest.layers.len().saturating_sub(1)..],
            };
            let mut blobs = layers.iter().chain([&manifest.config]);
            blobs.try_fold(true, |all, blob| Ok(all && store.has(blob)?))
        }
        Document::Index(_) => Ok(false),
    }
}

/// Every file and link below `folder`, under its path from there; of a file's mode only whether it
/// is a program, since the rest depends on who has checked it out.
fn collect(folder: &Path, prefix: &str, files: &mut BTreeMap<String, Node>) -> Result<()> {
    let listing = || format!("listing {}", folder.display());
    for entry in fs::read_dir(folder).with_context(listing)? {
        let entry = entry.with_context(listing)?;
        let name =
            entry.file_name().into_string().map_err(|name| anyhow!("{} is not UTF-8", name.display()))?;
        let path = format!("{prefix}{name}");
        let metadata = entry.metadata().with_context(listing)?;
        if metadata.is_dir() {
            collect(&entry.path(), &format!("{path}/"), files)?;
        } else if metadata.is_file() {
            let is_program = metadata.permissions().mode() & 0o100 != 0;
            let mode = if is_program { FileMode::Executable } else { FileMode::Plain };
            files.insert(path, Node::File { mode, content: read(&entry.path())? });
        } else if metadata.is_symlink() {
            let target = fs::read_link(entry.path()).with_context(listing)?;
            let target = target
                .into_os_string()
                .into_string()
                .map_err(|name| anyhow!("{} is not UTF-8", name.display()))?;
            files.insert(path, Node::Symlink { target });
        } else {
            bail!("{} is neither a file, a link nor a folder", entry.path().display());
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}
