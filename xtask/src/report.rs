//! What a command made, as `--json` and dist.json show it.

use serde::Serialize;

use crate::compose::Composition;
use crate::oci::{DiffId, Digest, MediaType, Origin};
use crate::registry::Pushed;

/// One image. Keys may be added, none renamed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ImageReport {
    /// Where it is: a registry reference, or `oci:DIR:TAG`.
    pub(crate) reference: String,
    pub(crate) digest: Digest,
    pub(crate) media_type: MediaType,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    pub(crate) base: BaseReport,
    /// The layers of the first platform.
    pub(crate) layers: Vec<LayerReport>,
    pub(crate) platforms: Vec<PlatformReport>,
    /// Whether every layer is in the layout; absent where there is no layout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) whole: Option<bool>,
    /// Where it was pushed, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pushed: Option<PushReport>,
}

impl ImageReport {
    /// The image without what this run had to do for it: every run that makes it says the same.
    pub(crate) fn lasting(&self) -> ImageReport {
        let mut lasting = self.clone();
        let platforms = lasting.platforms.iter_mut().flat_map(|platform| &mut platform.layers);
        lasting.layers.iter_mut().chain(platforms).for_each(|layer| layer.reused = None);
        if let Some(pushed) = &mut lasting.pushed {
            pushed.cost = None;
        }
        lasting
    }
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct BaseReport {
    /// Its name in a registry, where it has one.
    pub(crate) reference: Option<String>,
    pub(crate) digest: Digest,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct PlatformReport {
    pub(crate) platform: String,
    pub(crate) digest: Digest,
    pub(crate) config_digest: Digest,
    pub(crate) layers: Vec<LayerReport>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct LayerReport {
    /// An app's name, `os`, or `base`.
    pub(crate) name: String,
    pub(crate) digest: Digest,
    pub(crate) diff_id: DiffId,
    /// Compressed, in bytes.
    pub(crate) size: u64,
    /// Whether this run found it there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reused: Option<bool>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct PushReport {
    pub(crate) reference: String,
    pub(crate) digest: Digest,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) cost: Option<PushCost>,
}

/// What a push took.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PushCost {
    /// Whether the tag had this digest already.
    pub(crate) unchanged: bool,
    /// Bodies alone.
    pub(crate) sent_bytes: u64,
    pub(crate) requests: u64,
    pub(crate) uploaded: usize,
    pub(crate) mounted: usize,
    /// Referrers that were not there.
    pub(crate) attached: usize,
}

impl PushReport {
    pub(crate) fn new(reference: &str, pushed: &Pushed) -> PushReport {
        PushReport {
            reference: reference.to_owned(),
            digest: pushed.digest,
            cost: Some(PushCost {
                unchanged: pushed.unchanged,
                sent_bytes: pushed.sent_bytes,
                requests: pushed.requests,
                uploaded: pushed.uploaded.len(),
                mounted: pushed.mounted,
                attached: pushed.attached,
            }),
        }
    }
}

/// The layers of each platform; `is_new` tells those that this run made.
pub(crate) fn platforms(composition: &Composition, is_new: impl Fn(Digest) -> bool) -> Vec<PlatformReport> {
    let images = composition.images.iter();
    images
        .map(|image| PlatformReport {
            platform: image.platform.to_string(),
            digest: image.manifest.digest(),
            config_digest: image.config.digest(),
            layers: image
                .layers
                .iter()
                .map(|layer| LayerReport {
                    name: layer.origin.name().unwrap_or("base").to_owned(),
                    digest: layer.descriptor.digest,
                    diff_id: layer.diff_id,
                    size: layer.descriptor.size,
                    reused: Some(layer.origin == Origin::Base || !is_new(layer.descriptor.digest)),
                })
                .collect(),
        })
        .collect()
}
