//! An image's config as it came, and what is read in it by others than hosts.

use serde_json::{Map, Value};

use super::digest::{DiffId, Digest};
use super::platform::Platform;
use super::timestamp::Timestamp;
use super::verified::Verified;
use crate::words::foreign;

/// No config is larger than this, in bytes; it is read into memory whole. The specification has no
/// limit. A config grows by a line of history with each layer, which makes kilobytes: what is
/// larger by a thousand times is no config.
pub(crate) const MAX_SIZE: u64 = 16 * 1024 * 1024;

/// A config, or what stands in its place in the manifest of something that is no image.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    /// The document as it came, key order and unknown keys included.
    pub(crate) json: Map<String, Value>,
    pub(crate) blob: Verified,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the config {digest} is not valid: {message}")]
pub(crate) struct ConfigError {
    pub(super) digest: Digest,
    pub(super) message: String,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is for {0}, which nothing boots on")]
pub(crate) struct PlatformError(String);

impl Config {
    pub(crate) fn parse(blob: Verified) -> Result<Config, ConfigError> {
        match serde_json::from_slice(blob.bytes()) {
            Ok(json) => Ok(Config { json, blob }),
            Err(error) => Err(ConfigError { digest: blob.digest(), message: foreign(&error.to_string()) }),
        }
    }

    /// What the image boots on.
    pub(crate) fn platform(&self) -> Result<Platform, PlatformError> {
        let text = |key: &str| self.text(key).unwrap_or_default();
        Platform::from_oci(text("os"), text("architecture"))
            .ok_or_else(|| PlatformError(self.shown_platform()))
    }

    /// The system and the architecture, whatever they are, with `?` for what is not said.
    pub(crate) fn shown_platform(&self) -> String {
        let text = |key: &str| self.text(key).unwrap_or("?");
        foreign(&format!("{}/{}", text("os"), text("architecture")))
    }

    /// When the image was made, if it says so.
    pub(crate) fn created(&self) -> Option<Timestamp> {
        self.text("created").and_then(Timestamp::from_rfc_3339)
    }

    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        self.json.get("config")?.get("Labels")?.get(name)?.as_str()
    }

    /// One for each of so many layers.
    /// Source: OCI image specification, config.md, `rootfs.diff_ids`.
    pub(crate) fn diff_ids(&self, layers: usize) -> Result<Vec<DiffId>, ConfigError> {
        let diff_ids = self.json.get("rootfs").and_then(|rootfs| rootfs.get("diff_ids")).cloned();
        let invalid = |message| ConfigError { digest: self.blob.digest(), message };
        let diff_ids: Vec<DiffId> = serde_json::from_value(diff_ids.unwrap_or_default())
            .map_err(|error| invalid(foreign(&error.to_string())))?;
        match diff_ids.len() == layers {
            true => Ok(diff_ids),
            false => Err(invalid(format!("it has {} diff ids for {layers} layers", diff_ids.len()))),
        }
    }

    /// A key's text, as it is.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.json.get(key).and_then(Value::as_str)
    }
}
