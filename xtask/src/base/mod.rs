//! The image that ours is built on: its manifest and config, for each platform.

#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
pub(crate) mod advice;
pub(crate) mod container;
mod context;
pub(crate) mod debian;
pub(crate) mod engine;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
mod graft;
mod local;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
pub(crate) mod pin;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
pub(crate) mod publish;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
mod root;
mod scratch;
mod upstream;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};

use crate::hint::WithHint;
use crate::layer::{FileMode, Node};
use crate::oci::base::BaseError;
use crate::oci::{Base, Digest, ImageName, Manifest, Platform, Reference};
use crate::registry::Client;
use crate::source::{Home, Source};

pub(crate) use local::Freshness;

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
            BaseError::Config(_)
            | BaseError::NotBootable
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
    let Some(ours) = manifest.layers.last() else { return Ok(()) };
    match store.has(ours)? || store.layers_in(ours)?.is_none() {
        true => Ok(()),
        false => Err(anyhow!("it is damaged: {} is not there, or not whole", ours.digest))
            .hint("make it again: 'cargo xtask base DISTRO --force' makes those in target/base"),
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
