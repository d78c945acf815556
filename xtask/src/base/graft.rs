//! An engine's image over its upstream's own layers.
//!
//! An engine keeps layers unpacked, and compresses all of them anew when it exports an image: with
//! each new engine they would have other digests, and every host would download everything again.
//! So the upstream's layers are named as its registry names them.

use serde_json::{Value, json};

use crate::oci::document::oci_media_type;
use crate::oci::{Base, Descriptor, DiffId, Layer, MediaType, Verified};

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GraftError {
    #[error("the image does not start with the upstream's {0} layers")]
    NotOver(usize),
    #[error("{made} layers were made, where the image has {wanted} beside its upstream's")]
    Count { made: usize, wanted: usize },
    #[error("layer {number} was to be {wanted}, and is {made}")]
    DiffId { number: usize, wanted: DiffId, made: DiffId },
}

/// How many of the exported image's layers are the upstream's: all of the upstream's, at its start.
pub(crate) fn shared_layers(exported: &[DiffId], upstream: &[DiffId]) -> Result<usize, GraftError> {
    match exported.starts_with(upstream) && !upstream.is_empty() {
        true => Ok(upstream.len()),
        false => Err(GraftError::NotOver(upstream.len())),
    }
}

/// The manifest of `exported` with the upstream's own descriptors, and then `ours`. The config stays
/// as it is: it names layers by what is in them.
pub(crate) fn graft(
    exported: &Base,
    upstream: (&[Descriptor], &[DiffId]),
    ours: &[Layer],
) -> Result<Verified, GraftError> {
    let (descriptors, diff_ids) = upstream;
    let shared = shared_layers(&exported.diff_ids, diff_ids)?;
    let wanted = &exported.diff_ids[shared..];
    if descriptors.len() != shared || wanted.len() != ours.len() {
        return Err(GraftError::Count { made: ours.len(), wanted: wanted.len() });
    }
    for (number, (&wanted, layer)) in wanted.iter().zip(ours).enumerate() {
        let made = layer.diff_id();
        if made != wanted {
            return Err(GraftError::DiffId { number: shared + number, wanted, made });
        }
    }
    let theirs = descriptors
        .iter()
        .map(|layer| Descriptor { media_type: oci_media_type(&layer.media_type), ..layer.clone() });
    let layers: Vec<Value> =
        theirs.chain(ours.iter().map(|layer| layer.descriptor().clone())).map(|layer| json!(layer)).collect();
    let mut manifest = exported.manifest.json.clone();
    manifest.insert("mediaType".to_owned(), json!(MediaType::ImageManifest));
    manifest.insert("layers".to_owned(), Value::Array(layers));
    Ok(Verified::own(Value::Object(manifest).to_string().into_bytes()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::oci::{Compression, Config, Digest, Document, LayerWriter};

    fn layer(tar: &[u8]) -> Layer {
        let mut writer = LayerWriter::new(Compression::Gzip, Vec::new()).unwrap();
        writer.write_all(tar).unwrap();
        writer.finish("t").unwrap().0
    }

    fn id(tar: &[u8]) -> DiffId {
        DiffId(Digest::of(tar))
    }

    /// An image of these layers, as an engine exports it: every digest is the engine's own.
    fn exported(tars: &[&[u8]]) -> Base {
        let config = json!({
            "os": "linux", "architecture": "amd64", "config": {"Labels": {"containers.bootc": "1"}},
            "rootfs": {"type": "layers", "diff_ids": tars.iter().map(|tar| id(tar)).collect::<Vec<_>>()},
        });
        let config = Config::parse(Verified::own(config.to_string().into_bytes())).unwrap();
        let layers: Vec<Descriptor> = tars
            .iter()
            .map(|tar| Verified::own([b"engine", *tar].concat()).descriptor(MediaType::ImageLayerGzip))
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "config": config.blob.descriptor(MediaType::ImageConfig), "layers": layers,
            "annotations": {"x": "kept"},
        });
        let manifest = Verified::own(manifest.to_string().into_bytes());
        let Ok(Document::Manifest(manifest)) = Document::parse(manifest, None) else { panic!("a manifest") };
        Base::new(manifest, config, "linux/amd64".parse().unwrap()).unwrap()
    }

    #[test]
    fn the_upstreams_layers_keep_their_digests() {
        let upstream =
            Verified::own(b"registry's".to_vec()).descriptor(MediaType::from(crate::oci::DOCKER_LAYER_GZIP));
        let base = exported(&[b"a", b"b"]);
        let manifest = graft(&base, (std::slice::from_ref(&upstream), &[id(b"a")]), &[layer(b"b")]).unwrap();
        let Ok(Document::Manifest(manifest)) = Document::parse(manifest, None) else { panic!("a manifest") };
        let expected = Descriptor { media_type: MediaType::ImageLayerGzip, ..upstream };
        assert_eq!(manifest.layers, [expected, layer(b"b").descriptor().clone()]);
        assert_eq!(manifest.config, base.manifest.config);
        assert_eq!(manifest.json["annotations"], json!({"x": "kept"}));
    }

    #[test]
    fn what_does_not_agree_is_refused() {
        let base = exported(&[b"a", b"b"]);
        let blob = Verified::own(b"x".to_vec()).descriptor(MediaType::ImageLayerGzip);
        let check = |upstream: &[DiffId], ours: &[Layer], expected: GraftError| {
            let descriptors = vec![blob.clone(); upstream.len()];
            assert_eq!(graft(&base, (&descriptors, upstream), ours), Err(expected));
        };
        check(&[], &[layer(b"b")], GraftError::NotOver(0));
        check(&[id(b"b")], &[layer(b"b")], GraftError::NotOver(1));
        check(&[id(b"a"), id(b"b"), id(b"c")], &[], GraftError::NotOver(3));
        check(&[id(b"a")], &[], GraftError::Count { made: 0, wanted: 1 });
        let other = GraftError::DiffId { number: 1, wanted: id(b"b"), made: id(b"c") };
        check(&[id(b"a")], &[layer(b"c")], other);
    }
}
