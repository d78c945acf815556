//! The image that ours is built on: its manifest and config, for each platform.

pub(crate) mod debian;

use anyhow::{Context, Result};

use crate::hint::WithHint;
use crate::oci::{Base, Digest, ImageName, Platform, Reference};
use crate::registry::Client;
use crate::source::{Home, Source};

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
