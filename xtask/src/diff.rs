//! What a host downloads to go from one image to another.

use crate::oci::{Descriptor, Digest};
use std::collections::HashSet;

/// A layer and what it holds, where that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedLayer {
    pub(crate) name: Option<String>,
    pub(crate) descriptor: Descriptor,
}

/// The way from one image to another, for a host that has the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delta {
    /// The host has these.
    pub(crate) kept: Vec<NamedLayer>,
    /// The host downloads these.
    pub(crate) added: Vec<NamedLayer>,
    /// The new image no longer has these.
    pub(crate) dropped: Vec<NamedLayer>,
}

/// Compares two images as a bootc host does: by digest alone, so a layer that was compressed
/// anew is downloaded anew.
pub(crate) fn delta(old: &[NamedLayer], new: &[NamedLayer]) -> Delta {
    let digests = |layers: &[NamedLayer]| layers.iter().map(|layer| layer.descriptor.digest).collect();
    let (old_digests, new_digests): (HashSet<Digest>, HashSet<Digest>) = (digests(old), digests(new));
    let mut seen = HashSet::new();
    // The same layer may stand in an image more than once; it is downloaded once.
    let once: Vec<&NamedLayer> = new.iter().filter(|layer| seen.insert(layer.descriptor.digest)).collect();
    let (kept, added): (Vec<&NamedLayer>, Vec<&NamedLayer>) =
        once.into_iter().partition(|layer| old_digests.contains(&layer.descriptor.digest));
    Delta {
        kept: kept.into_iter().cloned().collect(),
        added: added.into_iter().cloned().collect(),
        dropped: old
            .iter()
            .filter(|layer| !new_digests.contains(&layer.descriptor.digest))
            .cloned()
            .collect(),
    }
}

impl Delta {
    /// Bytes of layers to download.
    pub(crate) fn download(&self) -> u64 {
        total(&self.added)
    }
}

/// Bytes of layers, as their manifests have it: a stranger's may claim anything.
pub(crate) fn total(layers: &[NamedLayer]) -> u64 {
    layers.iter().map(|layer| layer.descriptor.size).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::MediaType;

    fn layers(names: &[&str]) -> Vec<NamedLayer> {
        let layer = |name: &&str| NamedLayer {
            name: Some((*name).to_owned()),
            descriptor: Descriptor {
                media_type: MediaType::ImageLayerGzip,
                digest: Digest::of(name.as_bytes()),
                size: name.len() as u64,
            },
        };
        names.iter().map(layer).collect()
    }

    #[test]
    fn a_host_downloads_what_it_has_not_got_once() {
        let old = layers(&["base", "empty", "empty", "hello v1"]);
        let new = layers(&["base", "empty", "empty", "hello v2!", "hello v2!"]);
        let delta = delta(&old, &new);
        assert_eq!(delta.kept, layers(&["base", "empty"]));
        assert_eq!(delta.added, layers(&["hello v2!"]));
        assert_eq!(delta.dropped, layers(&["hello v1"]));
        assert_eq!(delta.download(), 9);
        let mut huge = layers(&["one", "two"]);
        huge.iter_mut().for_each(|layer| layer.descriptor.size = u64::MAX);
        assert_eq!(total(&huge), u64::MAX);
    }
}
