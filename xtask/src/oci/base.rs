//! An image that others are built on: its manifest and config, checked against each other.

use super::config::{Config, ConfigError};
use super::digest::DiffId;
use super::document::Manifest;
use super::platform::Platform;
use super::verified::Descriptor;
use super::{DOCKER_LAYER_GZIP, Digest, MediaType};
use crate::words::foreign;

/// Marks an image that bootc can install. Either label does.
/// Source: bootc, docs/src/bootc-images.md; ostree-ext, `container/deploy.rs`.
const BOOTC_LABELS: [&str; 2] = ["containers.bootc", "ostree.bootable"];
/// The diff id of the last layer that is part of the base's ostree commit.
/// Source: ostree-ext, `container/mod.rs`, `DIFFID_LABEL`.
const FINAL_DIFFID_LABEL: &str = "ostree.final-diffid";

/// A bootable image's manifest and config. Its layers are known by name only: composing needs
/// no more.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Base {
    pub(crate) manifest: Manifest,
    pub(crate) platform: Platform,
    pub(crate) config: Config,
    /// One for each layer of the manifest.
    pub(crate) diff_ids: Vec<DiffId>,
    /// Where the base's own ostree layers end, on bases that are made of them.
    pub(crate) final_diff_id: Option<DiffId>,
}

#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum BaseError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the image has neither the label `containers.bootc` nor `ostree.bootable`: no host boots it")]
    NotBootable,
    #[error("the config says {found}, but {wanted} was asked for")]
    Platform { wanted: Platform, found: String },
    #[error("layer {digest} is of type `{media_type}`, which a bootc host refuses")]
    LayerType { digest: Digest, media_type: String },
    #[error("`ostree.final-diffid` names {0}, which is none of the image's layers")]
    FinalDiffId(String),
}

impl Base {
    /// Ties a manifest and its config together; the image must be for `wanted`.
    pub(crate) fn new(manifest: Manifest, config: Config, wanted: Platform) -> Result<Base, BaseError> {
        // Hosts read it by the specification: what that demands has to be there.
        if let Err(error) = serde_json::from_slice::<oci_spec::image::ImageConfiguration>(config.blob.bytes())
        {
            return Err(
                ConfigError { digest: manifest.config.digest, message: foreign(&error.to_string()) }.into()
            );
        }
        if config.platform() != Ok(wanted) {
            return Err(BaseError::Platform { wanted, found: config.shown_platform() });
        }
        for layer in &manifest.layers {
            if !is_layer(&layer.media_type) {
                return Err(BaseError::LayerType {
                    digest: layer.digest,
                    media_type: foreign(layer.media_type.as_ref()),
                });
            }
        }
        let diff_ids = config.diff_ids(manifest.layers.len())?;
        if !config.is_bootc() {
            return Err(BaseError::NotBootable);
        }
        let final_diff_id = match config.label(FINAL_DIFFID_LABEL) {
            None => None,
            Some(text) => {
                let unknown = || BaseError::FinalDiffId(foreign(text));
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
        self.config.label(name)
    }

    pub(crate) fn layers(&self) -> &[Descriptor] {
        &self.manifest.layers
    }
}

impl Config {
    /// Whether bootc can install the image.
    pub(crate) fn is_bootc(&self) -> bool {
        BOOTC_LABELS.iter().any(|name| self.label(name).is_some())
    }
}

/// Whether a bootc host imports a layer of this type; Docker's becomes OCI's when the image is
/// written.
fn is_layer(media_type: &MediaType) -> bool {
    match media_type {
        MediaType::ImageLayer | MediaType::ImageLayerGzip | MediaType::ImageLayerZstd => true,
        other => other.as_ref() == DOCKER_LAYER_GZIP,
    }
}
