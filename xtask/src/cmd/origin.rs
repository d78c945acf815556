//! What is known of the image that a disk is of: it goes into the packed disk's annotations.

use anyhow::{Context, Result};

use crate::disk::DiskFormat;
use crate::oci::{ImageName, Platform, Reference, annotation};
use crate::pack::{AppImage, Origin};
use crate::registry::Client;
use crate::release::{self, Kind, Tag};
use crate::source::Source;

/// The tag of a disk of an image whose own tag says what it is.
pub(super) fn disk_tag(image: &ImageName, format: DiskFormat) -> Option<String> {
    let tag = tag(image).and_then(Tag::parse).filter(|tag| tag.kind == Kind::System)?;
    Some(release::disk_tag(&tag.distro, format, tag.version))
}

fn tag(image: &ImageName) -> Option<&str> {
    match image {
        ImageName::Layout { tag, .. } => tag.as_deref(),
        ImageName::Registry(reference) => reference.tag(),
    }
}

/// A name that anybody may know.
pub(super) struct PublicName(String);

impl From<&Reference> for PublicName {
    fn from(reference: &Reference) -> PublicName {
        PublicName(reference.to_string())
    }
}

/// What is known of the image that disks are of. `public` is what it is called in a registry, where
/// it is not read from there.
pub(super) fn of_image(image: &ImageName, public: Option<PublicName>, registry: &Client) -> Result<Origin> {
    let reading = || format!("reading {image}");
    let source = Source::open(image, registry).with_context(reading)?;
    let manifest = source.manifest(Platform::host(), registry).with_context(reading)?;
    let config = source.config(&manifest.config, registry).with_context(reading)?;
    let annotation = |key: &str| manifest.annotation(key).map(str::to_owned);
    let name = match image {
        ImageName::Registry(reference) => Some(reference.to_string()),
        ImageName::Layout { .. } => public.map(|PublicName(name)| name),
    };
    let read = tag(image).and_then(Tag::parse);
    Ok(Origin {
        platform: config.platform().with_context(reading)?,
        created: config.created(),
        distro: read.map(|tag| tag.distro),
        version: annotation(annotation::VERSION),
        source: annotation(annotation::SOURCE),
        revision: annotation(annotation::REVISION),
        image: Some(AppImage { name, digest: source.document.blob().digest() }),
    })
}
