//! What is known of the image that a disk is of: it goes into the packed disk's annotations.

use anyhow::{Context, Result, anyhow};
use serde_json::{Map, Value};

use crate::disk::DiskFormat;
use crate::oci::{ImageName, Platform, Reference, Timestamp};
use crate::pack::{self, AppImage, Origin};
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
    let config: Map<String, Value> = serde_json::from_slice(config.bytes()).with_context(reading)?;
    let text = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default();
    let platform = Platform::from_oci(text("os"), text("architecture"))
        .ok_or_else(|| anyhow!("it is for {}/{}, which is no system's", text("os"), text("architecture")))
        .with_context(reading)?;
    let annotation = |key: &str| {
        let value = manifest.json.get("annotations").and_then(|annotations| annotations.get(key));
        value.and_then(Value::as_str).map(str::to_owned)
    };
    let name = match image {
        ImageName::Registry(reference) => Some(reference.to_string()),
        ImageName::Layout { .. } => public.map(|PublicName(name)| name),
    };
    let read = tag(image).and_then(Tag::parse);
    Ok(Origin {
        platform,
        created: Timestamp::from_rfc_3339(text("created")),
        distro: read.map(|tag| tag.distro),
        version: annotation(pack::VERSION),
        source: annotation(pack::SOURCE),
        revision: annotation(pack::REVISION),
        image: Some(AppImage { name, digest: source.document.blob().digest() }),
    })
}
