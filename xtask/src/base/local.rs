//! Where a distro's base is on this machine: a layout that has the base of the latest inputs, and
//! until that is whole, the one before.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use super::scratch::Scratch;
use crate::hint::WithHint;
use crate::oci::{Digest, Document, ImageName};
use crate::progress::Progress;
use crate::store::{INDEX, LAYOUT, Store};
use crate::workspace::DistroName;

/// Whether a base that is there already will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// If its inputs have not changed.
    IfUnchanged,
    /// Never: packages may have changed on the mirror.
    Always,
}

/// The base that certain inputs make, there or not.
pub(super) struct LocalBase<'a> {
    pub(super) distro: &'a DistroName,
    /// The layout.
    pub(super) dir: &'a Path,
    /// Stands for the inputs.
    pub(super) tag: String,
    pub(super) freshness: Freshness,
}

impl<'a> LocalBase<'a> {
    pub(super) fn new(
        distro: &'a DistroName,
        dir: &'a Path,
        inputs: &Digest,
        freshness: Freshness,
    ) -> LocalBase<'a> {
        LocalBase { distro, dir, tag: format!("inputs-{}", inputs.short()), freshness }
    }

    pub(super) fn name(&self) -> ImageName {
        ImageName::Layout { dir: self.dir.to_owned(), tag: Some(self.tag.clone()) }
    }

    /// Whether the base is there and need not be made. A layout that is damaged is an error, unless
    /// it is made anew anyway.
    pub(super) fn is_made(&self) -> Result<bool> {
        match (self.has_base(), self.freshness) {
            (Ok(has_base), Freshness::IfUnchanged) => Ok(has_base),
            (Ok(_) | Err(_), Freshness::Always) => Ok(false),
            (Err(error), Freshness::IfUnchanged) => {
                Err(anyhow!("{} is damaged: {error:#}", self.dir.display()))
                    .hint(format!("run 'cargo xtask base {} --force' to make it anew", self.distro))
            }
        }
    }

    /// The layout to make the base in, once no other run writes it. One that is damaged is emptied:
    /// there is nothing in it that could be used until the new base is whole.
    pub(super) fn open(&self, progress: &Progress) -> Result<Store> {
        let dir = self.dir;
        let on_wait =
            || progress.line(format!("waiting for another run, which is writing {}", dir.display()));
        let is_damaged = || self.freshness == Freshness::Always && self.has_base().is_err();
        if is_damaged() {
            // Another run that is writing it holds the lock, if it has come that far.
            let lock = dir.join(LAYOUT).is_file().then(|| Store::lock_when_free(dir, on_wait)).transpose()?;
            if is_damaged() {
                empty(dir).with_context(|| format!("removing {}", dir.display()))?;
            }
            drop(lock);
        }
        Store::create_when_free(dir, on_wait)
    }

    /// Keeps the base, which is whole by now, and nothing else.
    pub(super) fn keep(&self, store: &Store) -> Result<()> {
        store.keep_only(&self.tag)?;
        store.collect_garbage()?;
        Ok(())
    }

    /// Whether the layout has the image, with the layers that were made here. What is half there,
    /// or cannot be read, is an error.
    fn has_base(&self) -> Result<bool> {
        let LocalBase { dir, tag, .. } = self;
        // A run that was killed leaves a layout without an index.
        if !dir.join(INDEX).exists() && is_new(dir)? {
            return Ok(false);
        }
        let store = Store::open(dir)?;
        if !store.tags()?.contains(tag) {
            return Ok(false);
        }
        let manifest = match store.document(Some(tag))? {
            Document::Manifest(manifest) => manifest,
            Document::Index(_) => bail!("{tag} is an index"),
        };
        store.config(&manifest.config)?;
        // An upstream's layers stay in its registry; the last one is always ours.
        let layers = match manifest.layers.split_last() {
            Some((ours, _)) if store.layers_in(ours)?.is_some() => std::slice::from_ref(ours),
            Some(_) | None => &manifest.layers[..],
        };
        for layer in layers {
            if !store.has(layer)? {
                bail!("{} is not there, or not whole", layer.digest);
            }
        }
        Ok(true)
    }
}

/// Whether nothing has been put into a layout yet.
fn is_new(dir: &Path) -> Result<bool> {
    if !dir.exists() || dir.join(LAYOUT).is_file() {
        return Ok(true);
    }
    let mut entries = fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))?;
    Ok(entries.next().is_none())
}

/// Removes what is in a layout, but for what tells that it is one and what killed builds have left:
/// that says what else they have on the machine.
fn empty(dir: &Path) -> Result<()> {
    if !dir.is_dir() {
        return Ok(fs::remove_file(dir)?);
    }
    let mut kept: Vec<PathBuf> = Scratch::left(dir)?.into_iter().map(|scratch| scratch.dir).collect();
    kept.push(dir.join(LAYOUT));
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if !kept.contains(&path) {
            if path.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
        }
    }
    Ok(())
}
