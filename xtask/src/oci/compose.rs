//! `append`: a base and our layers become an image. This is what composing is.

use serde_json::{Map, Value, json};

use super::MediaType;
use super::base::Base;
use super::digest::{DiffId, Digest};
use super::document::oci_media_type;
use super::layer::Layer;
use super::platform::Platform;
use super::timestamp::Timestamp;
use super::verified::{Descriptor, Verified};

/// Keys of the annotations that say where an image came from.
/// Source: OCI image specification, annotations.md, "Pre-Defined Annotation Keys".
const BASE_NAME: &str = "org.opencontainers.image.base.name";
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";
const REVISION: &str = "org.opencontainers.image.revision";
const SOURCE: &str = "org.opencontainers.image.source";
const VERSION: &str = "org.opencontainers.image.version";

/// An image: a manifest, its config, and what its layers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) platform: Platform,
    pub(crate) manifest: Verified,
    pub(crate) config: Verified,
    /// In the manifest's order: the base's, then ours.
    pub(crate) layers: Vec<ImageLayer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageLayer {
    pub(crate) origin: Origin,
    pub(crate) descriptor: Descriptor,
    pub(crate) diff_id: DiffId,
}

/// Who made a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Base,
    /// Ours, under the name of what it holds.
    Ours(String),
}

/// What is said of an image beside its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Provenance {
    /// The base's name as it was asked for, tag included.
    pub(crate) base_name: String,
    pub(crate) version: Option<String>,
    /// The commit that our layers were made from.
    pub(crate) revision: Option<String>,
    /// The URL of the repository that they were made from.
    pub(crate) source: Option<String>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AppendError {
    #[error("layer `{name}` has the same content as the base's layer {diff_id}, where its ostree layers end")]
    RepeatsFinalLayer { name: String, diff_id: DiffId },
    #[error("the base's `{key}` is not {shape}")]
    Shape { key: &'static str, shape: &'static str },
}

impl Image {
    pub(crate) fn descriptor(&self) -> Descriptor {
        self.manifest.descriptor(MediaType::ImageManifest)
    }

    pub(crate) fn config_descriptor(&self) -> Descriptor {
        self.config.descriptor(MediaType::ImageConfig)
    }
}

/// Puts `layers` on top of `base`.
///
/// The base's manifest and config keep every key they had, in their order. Two images with the
/// same config digest are one and the same to a bootc host, so provenance goes into manifest
/// annotations, and the config changes with the system and its version only. `created` replaces
/// the base's own time.
pub(crate) fn append(
    base: &Base,
    layers: &[Layer],
    created: Option<Timestamp>,
    provenance: &Provenance,
) -> Result<Image, AppendError> {
    if let Some(repeated) = layers.iter().find(|layer| Some(layer.diff_id()) == base.final_diff_id) {
        let (name, diff_id) = (repeated.name().to_owned(), repeated.diff_id());
        return Err(AppendError::RepeatsFinalLayer { name, diff_id });
    }
    let config = Verified::own(json_bytes(config(base, layers, created, provenance)?));
    let manifest = Verified::own(json_bytes(manifest(base, layers, &config, provenance)?));

    let base_layers = base.layers().iter().zip(&base.diff_ids).map(|(descriptor, &diff_id)| ImageLayer {
        origin: Origin::Base,
        descriptor: Descriptor { media_type: oci_media_type(&descriptor.media_type), ..descriptor.clone() },
        diff_id,
    });
    let our_layers = layers.iter().map(|layer| ImageLayer {
        origin: Origin::Ours(layer.name().to_owned()),
        descriptor: layer.descriptor().clone(),
        diff_id: layer.diff_id(),
    });
    Ok(Image { platform: base.platform, manifest, config, layers: base_layers.chain(our_layers).collect() })
}

/// An image index over `images`, which are the same system for different platforms.
pub(crate) fn index(images: &[Image], base_digest: Digest, provenance: &Provenance) -> Verified {
    let manifests: Vec<Value> = images
        .iter()
        .map(|image| {
            let mut entry = json!(image.descriptor());
            entry["platform"] = json!({"architecture": image.platform.arch.name(), "os": "linux"});
            entry
        })
        .collect();
    let mut annotations = Map::new();
    annotate(&mut annotations, base_digest, provenance);
    let index = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageIndex,
        "manifests": manifests,
        "annotations": annotations,
    });
    Verified::own(index.to_string().into_bytes())
}

fn config(
    base: &Base,
    layers: &[Layer],
    created: Option<Timestamp>,
    provenance: &Provenance,
) -> Result<Map<String, Value>, AppendError> {
    let mut config = base.config.clone();
    if let Some(created) = created {
        config.insert("created".to_owned(), json!(created.to_string()));
    }
    if let Some(version) = &provenance.version {
        let labels = object(object(&mut config, "config")?, "Labels")?;
        labels.insert(VERSION.to_owned(), json!(version));
    }
    let diff_ids = array(object(&mut config, "rootfs")?, "diff_ids")?;
    diff_ids.extend(layers.iter().map(|layer| json!(layer.diff_id())));

    // Readers pair history entries with layers by position: entries are added only where the
    // base has one for each of its own layers.
    let time = config.get("created").cloned();
    if let Some(Value::Array(history)) = config.get_mut("history") {
        let is_layer = |entry: &&Value| entry.get("empty_layer") != Some(&Value::Bool(true));
        if history.iter().filter(is_layer).count() == base.layers().len() {
            history.extend(layers.iter().map(|layer| {
                let mut entry = json!({"created_by": format!("bootc-testboot layer {}", layer.name())});
                if let Some(time) = &time {
                    entry["created"] = time.clone();
                }
                entry
            }));
        }
    }
    Ok(config)
}

fn manifest(
    base: &Base,
    layers: &[Layer],
    config: &Verified,
    provenance: &Provenance,
) -> Result<Map<String, Value>, AppendError> {
    let mut manifest = base.manifest.json.clone();
    manifest.insert("mediaType".to_owned(), json!(MediaType::ImageManifest));

    let descriptor = object(&mut manifest, "config")?;
    translate_media_type(descriptor);
    descriptor.insert("digest".to_owned(), json!(config.digest()));
    descriptor.insert("size".to_owned(), json!(config.bytes().len()));
    // An inlined copy of the base's config would contradict the digest beside it.
    descriptor.shift_remove("data");

    let list = array(&mut manifest, "layers")?;
    list.iter_mut().filter_map(Value::as_object_mut).for_each(translate_media_type);
    list.extend(layers.iter().map(|layer| json!(layer.descriptor())));

    annotate(object(&mut manifest, "annotations")?, base.digest(), provenance);
    Ok(manifest)
}

fn annotate(annotations: &mut Map<String, Value>, base_digest: Digest, provenance: &Provenance) {
    let Provenance { base_name, version, revision, source } = provenance;
    annotations.insert(BASE_NAME.to_owned(), json!(base_name));
    annotations.insert(BASE_DIGEST.to_owned(), json!(base_digest));
    for (key, value) in [(VERSION, version), (REVISION, revision), (SOURCE, source)] {
        if let Some(value) = value {
            annotations.insert(key.to_owned(), json!(value));
        }
    }
}

/// The object under `key`, made when it is absent or null.
fn object<'a>(
    parent: &'a mut Map<String, Value>,
    key: &'static str,
) -> Result<&'a mut Map<String, Value>, AppendError> {
    match child(parent, key, || json!({})) {
        Value::Object(object) => Ok(object),
        _ => Err(AppendError::Shape { key, shape: "an object" }),
    }
}

/// The array under `key`, made when it is absent or null.
fn array<'a>(
    parent: &'a mut Map<String, Value>,
    key: &'static str,
) -> Result<&'a mut Vec<Value>, AppendError> {
    match child(parent, key, || json!([])) {
        Value::Array(array) => Ok(array),
        _ => Err(AppendError::Shape { key, shape: "an array" }),
    }
}

fn child<'a>(parent: &'a mut Map<String, Value>, key: &str, empty: fn() -> Value) -> &'a mut Value {
    let value = parent.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = empty();
    }
    value
}

fn translate_media_type(descriptor: &mut Map<String, Value>) {
    if let Some(Value::String(media_type)) = descriptor.get_mut("mediaType") {
        *media_type = oci_media_type(&MediaType::from(media_type.as_str())).to_string();
    }
}

fn json_bytes(object: Map<String, Value>) -> Vec<u8> {
    Value::Object(object).to_string().into_bytes()
}
