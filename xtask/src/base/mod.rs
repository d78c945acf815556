//! The image that ours is built on: its manifest and config, for each platform.

pub(crate) mod advice;
pub(crate) mod container;
mod context;
pub(crate) mod debian;
pub(crate) mod engine;
mod graft;
pub(crate) mod pin;
pub(crate) mod publish;
mod scratch;
mod subids;
mod upstream;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use crate::hint::WithHint;
use crate::layer::{FileMode, Node};
use crate::oci::base::BaseError;
use crate::oci::document::MAX_CONFIG;
use crate::oci::{Base, Digest, Document, ImageName, Manifest, Platform, Reference};
use crate::progress::Progress;
use crate::registry::Client;
use crate::source::{Home, Source};
use crate::store::Store;
use crate::workspace::Distro;

use self::scratch::Scratch;

pub(crate) use advice::{TITLE, UPSTREAM_DIGEST, UPSTREAM_NAME};

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

/// An image that is to be built on, found but not yet looked at.
pub(crate) struct Opened {
    pub(crate) name: ImageName,
    pub(crate) source: Source,
}

/// Finds the image that `name` names.
pub(crate) fn open(name: ImageName, registry: &Client) -> Result<Opened> {
    let source = Source::open(&name, registry).with_context(|| format!("reading the base {name}"))?;
    Ok(Opened { name, source })
}

/// The image's documents for `platforms`. Its layers are not looked at.
pub(crate) fn resolve(opened: Opened, platforms: &[Platform], registry: &Client) -> Result<ResolvedBase> {
    let Opened { name, source } = opened;
    let images = platforms.iter().map(|&platform| image(&name, &source, platform, registry));
    let images = images.collect::<Result<_>>()?;
    let reference = match name {
        ImageName::Layout { .. } => None,
        ImageName::Registry(reference) => Some(reference),
    };
    Ok(ResolvedBase { reference, digest: source.document.blob().digest(), images, home: source.home })
}

/// The image for one platform, which has to be one that others can be built on.
pub(crate) fn image(
    name: &ImageName,
    source: &Source,
    platform: Platform,
    registry: &Client,
) -> Result<Base> {
    let read = || -> Result<Base> {
        let manifest = source.manifest(platform, registry)?;
        let config = source.config(&manifest.config, registry)?;
        check_ours(&source.home, &manifest)?;
        Base::new(manifest, config, platform).own_hint(|error| match error {
            BaseError::Platform { .. } => "choose another with '--platform', or name one for it".to_owned(),
            BaseError::Config { .. }
            | BaseError::NotBootable
            | BaseError::DiffIds { .. }
            | BaseError::LayerType { .. }
            | BaseError::FinalDiffId(_) => {
                "name an image that bootc can install, such as quay.io/centos-bootc/centos-bootc:stream10"
                    .to_owned()
            }
        })
    };
    read().with_context(|| format!("reading the base {name}"))
}

/// Finds the layer that no registry has, where a base was made here: without it, what is built on the
/// base could neither be pushed nor started.
fn check_ours(home: &Home, manifest: &Manifest) -> Result<()> {
    let Home::Layout(store) = home else { return Ok(()) };
    let (Some(_), Some(ours)) = (store.layers_in()?, manifest.layers.last()) else { return Ok(()) };
    match store.has(ours)? {
        true => Ok(()),
        false => Err(anyhow!("it is damaged: {} is not there, or not whole", ours.digest))
            .hint("make it again: 'cargo xtask base DISTRO --force' makes those in target/base"),
    }
}

/// What is said while another run has the layout `dir`.
fn waiting_for(dir: &Path) -> String {
    format!("waiting for another run, which is writing {}", dir.display())
}

/// Whether the base of these inputs is there and need not be made. A layout that is damaged is
/// an error, unless it is made anew anyway.
fn is_made((dir, tag): (&Path, &str), freshness: Freshness, distro: &Distro) -> Result<bool> {
    match (is_there(dir, tag), freshness) {
        (Ok(is_there), Freshness::IfUnchanged) => Ok(is_there),
        (Ok(_) | Err(_), Freshness::Always) => Ok(false),
        (Err(error), Freshness::IfUnchanged) => Err(anyhow!("{} is damaged: {error:#}", dir.display()))
            .hint(format!("run 'cargo xtask base {} --force' to make it anew", distro.name)),
    }
}

/// The layout to make a base in, once no other run writes it. One that is damaged is emptied: there
/// is nothing in it that could be used until the new base is whole.
fn layout((dir, tag): (&Path, &str), freshness: Freshness, progress: &Progress) -> Result<Store> {
    let on_wait = || progress.line(waiting_for(dir));
    let is_damaged = || freshness == Freshness::Always && is_there(dir, tag).is_err();
    if is_damaged() {
        // Another run that is writing it holds the lock, if it has come that far.
        let lock =
            dir.join("oci-layout").is_file().then(|| Store::lock_when_free(dir, on_wait)).transpose()?;
        if is_damaged() {
            empty(dir).with_context(|| format!("removing {}", dir.display()))?;
        }
        drop(lock);
    }
    Store::create_when_free(dir, on_wait)
}

/// Removes what is in a layout, but for what tells that it is one and what killed builds have left:
/// that says what else they have on the machine.
fn empty(dir: &Path) -> Result<()> {
    if !dir.is_dir() {
        return Ok(fs::remove_file(dir)?);
    }
    let mut kept: Vec<PathBuf> = Scratch::left(dir)?.into_iter().map(|scratch| scratch.dir).collect();
    kept.push(dir.join("oci-layout"));
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if !kept.contains(&path) {
            if path.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
        }
    }
    Ok(())
}

/// Whether the layout has the image, with the layers that were made here. What is half there, or
/// cannot be read, is an error.
fn is_there(dir: &Path, tag: &str) -> Result<bool> {
    let is_new = || -> Result<bool> {
        if !dir.exists() || dir.join("oci-layout").is_file() {
            return Ok(true);
        }
        let mut entries = fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))?;
        Ok(entries.next().is_none())
    };
    // A run that was killed leaves a layout without an index.
    if !dir.join("index.json").exists() && is_new()? {
        return Ok(false);
    }
    let store = Store::open(dir)?;
    if !store.tags()?.iter().any(|there| there == tag) {
        return Ok(false);
    }
    let manifest = match store.document(Some(tag))? {
        Document::Manifest(manifest) => manifest,
        Document::Index(_) => bail!("{tag} is an index"),
    };
    store.read(&manifest.config, MAX_CONFIG)?;
    // An upstream's layers stay in its registry; the last one is always ours.
    let layers = match store.layers_in()? {
        None => &manifest.layers[..],
        Some(_) => &manifest.layers[manifest.layers.len().saturating_sub(1)..],
    };
    for layer in layers {
        if !store.has(layer)? {
            bail!("{} is not there, or not whole", layer.digest);
        }
    }
    Ok(true)
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
