//! An image that others are built on: its manifest and config, checked against each other.

use serde_json::{Map, Value};

use super::digest::DiffId;
use super::document::Manifest;
use super::platform::Platform;
use super::timestamp::Timestamp;
use super::verified::{Descriptor, Verified};
use super::{DOCKER_LAYER_GZIP, Digest, MediaType};

/// Marks an image that bootc can install. Either label does.
/// Source: bootc, docs/src/bootc-images.md; ostree-ext, `container/deploy.rs`.
pub(crate) const BOOTC_LABELS: [&str; 2] = ["containers.bootc", "ostree.bootable"];
/// The diff id of the last layer that is part of the base's ostree commit.
/// Source: ostree-ext, `container/mod.rs`, `DIFFID_LABEL`.
const FINAL_DIFFID_LABEL: &str = "ostree.final-diffid";

/// A bootable image's manifest and config. Its layers are known by name only: composing needs
/// no more.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Base {
    pub(crate) manifest: Manifest,
    pub(crate) platform: Platform,
    /// The config as it came, key order and unknown keys included.
    pub(crate) config: Map<String, Value>,
    /// One for each layer of the manifest.
    pub(crate) diff_ids: Vec<DiffId>,
    /// Where the base's own ostree layers end, on bases that are made of them.
    pub(crate) final_diff_id: Option<DiffId>,
}

#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum BaseError {
    #[error("the config {digest} is not valid: {message}")]
    Config { digest: Digest, message: String },
    #[error("the image has neither the label `containers.bootc` nor `ostree.bootable`: no host boots it")]
    NotBootable,
    #[error("the config says {found}, but {wanted} was asked for")]
    Platform { wanted: Platform, found: String },
    #[error("the manifest has {layers} layers, the config {diff_ids} diff ids: they must be one to one")]
    DiffIds { layers: usize, diff_ids: usize },
    #[error("layer {digest} is of type `{media_type}`, which a bootc host refuses")]
    LayerType { digest: Digest, media_type: MediaType },
    #[error("`ostree.final-diffid` names {0}, which is none of the image's layers")]
    FinalDiffId(String),
}

impl Base {
    /// Ties a manifest and its config together; the image must be for `wanted`.
    pub(crate) fn new(manifest: Manifest, config: Verified, wanted: Platform) -> Result<Base, BaseError> {
        let invalid = |message: String| BaseError::Config { digest: manifest.config.digest, message };
        let typed: oci_spec::image::ImageConfiguration =
            serde_json::from_slice(config.bytes()).map_err(|error| invalid(error.to_string()))?;
        let config: Map<String, Value> =
            serde_json::from_slice(config.bytes()).map_err(|error| invalid(error.to_string()))?;

        let (os, arch) = (typed.os().to_string(), typed.architecture().to_string());
        if Platform::from_oci(&os, &arch) != Some(wanted) {
            return Err(BaseError::Platform { wanted, found: format!("{os}/{arch}") });
        }
        for layer in &manifest.layers {
            if !is_layer(&layer.media_type) {
                return Err(BaseError::LayerType {
                    digest: layer.digest,
                    media_type: layer.media_type.clone(),
                });
            }
        }
        let diff_ids: Vec<DiffId> = typed
            .rootfs()
            .diff_ids()
            .iter()
            .map(|text| text.parse().map(DiffId))
            .collect::<Result<_, _>>()
            .map_err(|error| invalid(error.to_string()))?;
        if diff_ids.len() != manifest.layers.len() {
            return Err(BaseError::DiffIds { layers: manifest.layers.len(), diff_ids: diff_ids.len() });
        }

        let label = |name: &str| label(&config, name);
        if BOOTC_LABELS.iter().all(|name| label(name).is_none()) {
            return Err(BaseError::NotBootable);
        }
        let final_diff_id = match label(FINAL_DIFFID_LABEL) {
            None => None,
            Some(text) => {
                let unknown = || BaseError::FinalDiffId(text.to_owned());
                let diff_id = DiffId(text.parse().map_err(|_| unknown())?);
                Some(diff_ids.contains(&diff_id).then_some(diff_id).ok_or_else(unknown)?)
            }
        };
        Ok(Base { platform: wanted, config, diff_ids, final_diff_id, manifest })
    }

    pub(crate) fn digest(&self) -> Digest {
        self.manifest.blob.digest()
    }

    /// A label of the config.
    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        label(&self.config, name)
    }

    pub(crate) fn layers(&self) -> &[Descriptor] {
        &self.manifest.layers
    }
}

/// A label of the image with this config.
pub(crate) fn label<'a>(config: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    config.get("config")?.get("Labels")?.get(name)?.as_str()
}

/// What the image with this config is for; empty where it does not say.
pub(crate) fn os_and_architecture(config: &Map<String, Value>) -> (&str, &str) {
    let text = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default();
    (text("os"), text("architecture"))
}

/// When the image with this config was made, if it says so.
pub(crate) fn created(config: &Map<String, Value>) -> Option<Timestamp> {
    config.get("created").and_then(Value::as_str).and_then(Timestamp::from_rfc_3339)
}

/// Whether a bootc host imports a layer of this type; Docker's becomes OCI's when the image is
/// written.
fn is_layer(media_type: &MediaType) -> bool {
    match media_type {
        MediaType::ImageLayer | MediaType::ImageLayerGzip | MediaType::ImageLayerZstd => true,
        other => other.as_ref() == DOCKER_LAYER_GZIP,
    }
}
