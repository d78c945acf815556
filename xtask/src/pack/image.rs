//! What is said of a packed disk, as the manifest and config of its image hold it.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value, json};

use super::layer::{PackedLayer, Packing};
use super::tar;
use crate::disk::DiskFormat;
use crate::oci::annotation::{
    DISK_FORMAT, DISTRO, IMAGE_DIGEST, IMAGE_NAME, REVISION, SOURCE, TITLE, VERSION,
};
use crate::oci::{
    Config, Descriptor, DiffId, Digest, Document, Manifest, MediaType, Platform, Timestamp, Verified,
};
use crate::words::foreign;
use crate::workspace::DistroName;

/// What no other annotation says of a disk.
const SIZE: &str = "bootc-testboot.disk.size";
const VIRTUAL_SIZE: &str = "bootc-testboot.disk.virtual-size";
const SHA256: &str = "bootc-testboot.disk.sha256";

/// The longest file name: with its folder, it has to fit into a tar header's 100 bytes.
const LONGEST_NAME: usize = 95;

/// A file's name that is no path: it can lead nowhere, whoever says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileName(String);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{}` is no name for a packed disk: it has letters, digits, `_`, `.` and `-`, starts with a letter or digit, and is at most {LONGEST_NAME} long",
    foreign(.0)
)]
pub(crate) struct BadFileName(String);

/// What is said of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) format: DiskFormat,
    pub(crate) name: FileName,
    /// Of the file, with its holes.
    pub(crate) size: u64,
    /// Of the disk that is in it.
    pub(crate) virtual_size: u64,
    /// Of the file.
    pub(crate) sha256: Digest,
    pub(crate) origin: Origin,
}

/// Where a disk came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) platform: Platform,
    /// The system's own time.
    pub(crate) created: Option<Timestamp>,
    pub(crate) distro: Option<DistroName>,
    pub(crate) version: Option<String>,
    /// The URL of the repository, and the commit in it, that the system was made from.
    pub(crate) source: Option<String>,
    pub(crate) revision: Option<String>,
    pub(crate) image: Option<AppImage>,
}

/// The image that was installed on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AppImage {
    /// In a registry; a folder's name is nobody's business.
    pub(crate) name: Option<String>,
    pub(crate) digest: Digest,
}

/// An image that holds a disk.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PackedDisk {
    pub(crate) facts: Facts,
    pub(crate) layer: Descriptor,
    pub(crate) packing: Packing,
    pub(crate) diff_id: DiffId,
}

/// Why an image is no packed disk, or none that can be trusted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotPacked {
    /// Nothing says that it is one.
    #[error("it is no packed disk")]
    Another,
    #[error("its annotation `{0}` is missing")]
    Missing(&'static str),
    #[error("its annotation `{key}` cannot be: {why}")]
    Annotation { key: &'static str, why: String },
    #[error("it has {0} layers, and a packed disk has one")]
    Layers(usize),
    #[error("its layer is a `{}`, which is no tar", foreign(.0))]
    MediaType(String),
    #[error("its layer has {found} bytes, and a tar of its disk has {expected}")]
    LayerSize { expected: u64, found: u64 },
    #[error("its config cannot be read: {0}")]
    Config(String),
    #[error("its config has the diff id {diff_id}, and its layer, which is not compressed, is {layer}")]
    DiffId { diff_id: DiffId, layer: Digest },
}

/// The image of a disk: a manifest and its config, whose bytes depend on nothing else.
pub(super) fn image(facts: &Facts, layer: &PackedLayer) -> (Verified, Verified) {
    let origin = &facts.origin;
    let mut config = Map::new();
    let mut history = json!({"created_by": "bootc-testboot pack"});
    if let Some(created) = origin.created {
        config.insert("created".to_owned(), json!(created.to_string()));
        history["created"] = json!(created.to_string());
    }
    config.insert("architecture".to_owned(), json!(origin.platform.arch.name()));
    config.insert("os".to_owned(), json!("linux"));
    config.insert("config".to_owned(), json!({}));
    config.insert("rootfs".to_owned(), json!({"type": "layers", "diff_ids": [layer.diff_id]}));
    config.insert("history".to_owned(), json!([history]));
    let config = Verified::own(Value::Object(config).to_string().into_bytes());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageManifest,
        "config": config.descriptor(MediaType::ImageConfig),
        "layers": [layer.descriptor],
        "annotations": annotations(facts),
    });
    (Verified::own(manifest.to_string().into_bytes()), config)
}

fn annotations(facts: &Facts) -> Map<String, Value> {
    let Facts { format, name, size, virtual_size, sha256, origin } = facts;
    let Origin { platform: _, created: _, distro, version, source, revision, image } = origin;
    let pairs = [
        (TITLE, Some(name.to_string())),
        (DISK_FORMAT, Some(format.to_string())),
        (SIZE, Some(size.to_string())),
        (VIRTUAL_SIZE, Some(virtual_size.to_string())),
        (SHA256, Some(sha256.hex())),
        (DISTRO, distro.as_ref().map(ToString::to_string)),
        (VERSION, version.clone()),
        (SOURCE, source.clone()),
        (REVISION, revision.clone()),
        (IMAGE_NAME, image.as_ref().and_then(|image| image.name.clone())),
        (IMAGE_DIGEST, image.as_ref().map(|image| image.digest.to_string())),
    ];
    pairs.into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value?)))).collect()
}

impl PackedDisk {
    /// Whether a manifest says that its image is a packed disk.
    pub(crate) fn is_claimed_by(manifest: &Manifest) -> bool {
        manifest.annotation(DISK_FORMAT).is_some()
    }

    /// The packed disk that a manifest and its config describe. Nothing in it contradicts itself;
    /// whether the layer is as they say is seen when it comes.
    pub(crate) fn read(manifest: &Manifest, config: &Config) -> Result<PackedDisk, NotPacked> {
        let facts = facts(manifest, config)?;
        let [layer] = &manifest.layers[..] else { return Err(NotPacked::Layers(manifest.layers.len())) };
        let packing = Packing::of_media_type(&layer.media_type)
            .ok_or_else(|| NotPacked::MediaType(layer.media_type.to_string()))?;
        let diff_id = diff_id(config)?;
        if packing == Packing::Tar {
            let expected = tar::length(facts.size);
            // GNU tar fills up to its own record's length.
            if layer.size < expected || layer.size > expected + tar::LONGEST_END {
                return Err(NotPacked::LayerSize { expected, found: layer.size });
            }
            if layer.digest != diff_id.0 {
                return Err(NotPacked::DiffId { diff_id, layer: layer.digest });
            }
        }
        Ok(PackedDisk { facts, layer: layer.clone(), packing, diff_id })
    }

    /// Whether this very image is what [`image`] makes of `facts`, which was packed before.
    pub(super) fn is_image_of(&self, facts: &Facts, document: &Document) -> bool {
        let layer =
            PackedLayer { descriptor: self.layer.clone(), diff_id: self.diff_id, sha256: self.facts.sha256 };
        image(facts, &layer).0.digest() == document.blob().digest()
    }
}

fn facts(manifest: &Manifest, config: &Config) -> Result<Facts, NotPacked> {
    if !PackedDisk::is_claimed_by(manifest) {
        return Err(NotPacked::Another);
    }
    let platform = config.platform().map_err(|error| NotPacked::Config(error.to_string()))?;
    let optional = |key| manifest.annotation(key).map(str::to_owned);
    let digest = parsed(manifest, IMAGE_DIGEST).ok();
    let size = parsed(manifest, SIZE)?;
    // What a signed offset, and so a file, can have, with the tar's own blocks.
    if size > i64::MAX as u64 - tar::LONGEST_END * 2 {
        return Err(NotPacked::Annotation { key: SIZE, why: "no file is so large".to_owned() });
    }
    Ok(Facts {
        format: parsed(manifest, DISK_FORMAT)?,
        name: parsed(manifest, TITLE)?,
        size,
        virtual_size: parsed(manifest, VIRTUAL_SIZE)?,
        sha256: format!("sha256:{}", required(manifest, SHA256)?)
            .parse()
            .map_err(|_| NotPacked::Annotation { key: SHA256, why: "it is not 64 hex digits".to_owned() })?,
        origin: Origin {
            platform,
            created: config.created(),
            distro: manifest.annotation(DISTRO).and_then(|name| name.parse().ok()),
            version: optional(VERSION),
            source: optional(SOURCE),
            revision: optional(REVISION),
            image: digest.map(|digest| AppImage { name: optional(IMAGE_NAME), digest }),
        },
    })
}

fn required<'a>(manifest: &'a Manifest, key: &'static str) -> Result<&'a str, NotPacked> {
    manifest.annotation(key).ok_or(NotPacked::Missing(key))
}

fn parsed<T: FromStr<Err: fmt::Display>>(manifest: &Manifest, key: &'static str) -> Result<T, NotPacked> {
    let text = required(manifest, key)?;
    text.parse().map_err(|error: T::Err| NotPacked::Annotation { key, why: foreign(&error.to_string()) })
}

fn diff_id(config: &Config) -> Result<DiffId, NotPacked> {
    let diff_ids = config.diff_ids(1).map_err(|error| NotPacked::Config(error.to_string()))?;
    Ok(diff_ids[0])
}

impl FromStr for FileName {
    type Err = BadFileName;

    fn from_str(text: &str) -> Result<FileName, BadFileName> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        match starts_well && text.len() <= LONGEST_NAME && text.chars().all(is_part) {
            true => Ok(FileName(text.to_owned())),
            false => Err(BadFileName(text.to_owned())),
        }
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
