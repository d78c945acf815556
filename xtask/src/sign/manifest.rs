//! The image that signatures are in: beside the signed one, under a tag made of its digest, with a
//! layer for each signature. Source: sigstore's cosign, specs/SIGNATURE_SPEC.md, "Storage".

use serde_json::{Value, json};

use crate::oci::{Descriptor, Digest, Manifest, MediaType, Verified};

/// What is signed, as a layer, and the annotation with its signature.
const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// The time that Go has for none, and cosign for every signature.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// The tag that the signatures of an image have.
pub(crate) fn tag(digest: Digest) -> String {
    format!("sha256-{}.sig", digest.hex())
}

/// A signature that is there, right or wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Names what was signed.
    pub(crate) payload: Descriptor,
    /// In base64.
    pub(crate) signature: String,
}

/// An image of signatures, to be pushed under `tag`.
pub(crate) struct Signatures {
    pub(crate) manifest: Verified,
    pub(crate) media_type: MediaType,
    pub(crate) config: Verified,
    pub(crate) config_type: MediaType,
    /// Those that were there before.
    pub(crate) kept: Vec<Descriptor>,
    pub(crate) added: Vec<Descriptor>,
}

/// The signatures in `manifest`; other layers are none.
pub(crate) fn entries(manifest: &Manifest) -> Vec<Entry> {
    let layers = manifest.json.get("layers").and_then(Value::as_array).into_iter().flatten();
    let pairs = manifest.layers.iter().zip(layers);
    let is_payload = |layer: &Descriptor| layer.media_type.as_ref() == PAYLOAD;
    pairs
        .filter(|(descriptor, _)| is_payload(descriptor))
        .filter_map(|(descriptor, layer)| {
            let signature = layer.get("annotations")?.get(SIGNATURE)?.as_str()?.to_owned();
            Some(Entry { payload: descriptor.clone(), signature })
        })
        .collect()
}

/// The image with one signature more. What `existing` has stays as it is.
pub(crate) fn append(existing: Option<&Manifest>, payload: &Verified, signature: &str) -> Signatures {
    let payload = payload.descriptor(MediaType::from(PAYLOAD));
    let layer = json!({
        "mediaType": PAYLOAD,
        "size": payload.size,
        "digest": payload.digest,
        "annotations": {SIGNATURE: signature},
    });
    extend(existing, vec![(payload, layer)])
}

/// The image with the signatures of another one as well; None where it has all of them.
pub(crate) fn merge(existing: &Manifest, other: &Manifest) -> Option<Signatures> {
    let layers = |manifest: &Manifest| -> Vec<(Descriptor, Value)> {
        let json = manifest.json.get("layers").and_then(Value::as_array).cloned().unwrap_or_default();
        manifest.layers.iter().cloned().zip(json).collect()
    };
    // Others may annotate the same signature otherwise.
    let id = |(descriptor, layer): &(Descriptor, Value)| {
        (descriptor.digest, layer["annotations"][SIGNATURE].clone())
    };
    let there: Vec<_> = layers(existing).iter().map(id).collect();
    let more: Vec<_> = layers(other).into_iter().filter(|layer| !there.contains(&id(layer))).collect();
    (!more.is_empty()).then(|| extend(Some(existing), more))
}

fn extend(existing: Option<&Manifest>, more: Vec<(Descriptor, Value)>) -> Signatures {
    let kept = existing.map(|manifest| manifest.layers.clone()).unwrap_or_default();
    let (added, more): (Vec<Descriptor>, Vec<Value>) = more.into_iter().unzip();
    let digests: Vec<Digest> = kept.iter().chain(&added).map(|layer| layer.digest).collect();
    let config = config(&digests);
    let (media_type, config_type) = match existing {
        Some(manifest) => (manifest.media_type.clone(), manifest.config.media_type.clone()),
        None => (MediaType::ImageManifest, MediaType::ImageConfig),
    };
    let mut json = existing.map(|manifest| manifest.json.clone()).unwrap_or_default();
    json.entry("schemaVersion").or_insert(json!(2));
    json.entry("mediaType").or_insert(json!(media_type));
    json.insert("config".to_owned(), json!(config.descriptor(config_type.clone())));
    match json.entry("layers").or_insert(json!([])) {
        Value::Array(layers) => layers.extend(more),
        other => *other = Value::Array(more),
    }
    let manifest = Verified::own(Value::Object(json).to_string().into_bytes());
    Signatures { manifest, media_type, config, config_type, kept, added }
}

/// The config that cosign gives such an image. A payload is not compressed: its digest is its diff id.
fn config(layers: &[Digest]) -> Verified {
    let history = vec![json!({"created": NEVER}); layers.len()];
    let config = json!({
        "architecture": "",
        "created": NEVER,
        "history": history,
        "os": "",
        "rootfs": {"type": "layers", "diff_ids": layers},
        "config": {},
    });
    Verified::own(config.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Document;

    fn read(signatures: &Signatures) -> Manifest {
        let content_type = signatures.media_type.to_string();
        match Document::parse(signatures.manifest.clone(), Some(&content_type)).unwrap() {
            Document::Manifest(manifest) => manifest,
            Document::Index(_) => panic!("it is an index"),
        }
    }

    #[test]
    fn signatures_are_added_to_what_is_there() {
        let payloads = ["one", "two"].map(|text| Verified::own(text.as_bytes().to_vec()));
        let first = append(None, &payloads[0], "MQ==");
        assert_eq!(first.kept, []);
        insta::assert_snapshot!(str::from_utf8(first.manifest.bytes()).unwrap(), @r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:9de656aec370f405834641f8dbe8c86993a2e53cd80afb20006e8363667eec84","size":233},"layers":[{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","size":3,"digest":"sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed","annotations":{"dev.cosignproject.cosign/signature":"MQ=="}}]}"#);
        insta::assert_snapshot!(str::from_utf8(first.config.bytes()).unwrap(), @r#"{"architecture":"","created":"0001-01-01T00:00:00Z","history":[{"created":"0001-01-01T00:00:00Z"}],"os":"","rootfs":{"type":"layers","diff_ids":["sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"]},"config":{}}"#);

        // As others leave it: annotated, with a layer that is no signature.
        let text = str::from_utf8(first.manifest.bytes()).unwrap();
        let other = json!({
            "mediaType": "text/plain", "size": 1, "digest": Digest::of(b"x"), "annotations": {SIGNATURE: "x"},
        });
        let text =
            text.replace("\"layers\":[", &format!("\"annotations\":{{\"a\":\"b\"}},\"layers\":[{other},"));
        let text = text.replace(&format!("{SIGNATURE}\":"), &format!("{SIGNATURE}\":\"MQ==\",\"chain\":"));
        let blob = Verified::own(text.into_bytes());
        let Document::Manifest(existing) = Document::parse(blob, None).unwrap() else { panic!("an index") };
        let second = append(Some(&existing), &payloads[1], "Mg==");
        let manifest = read(&second);
        assert_eq!(second.kept, existing.layers);
        assert_eq!(manifest.layers.len(), 3);
        assert_eq!(manifest.json["annotations"], json!({"a": "b"}));
        let kept = existing.json["layers"].as_array().unwrap();
        assert_eq!(manifest.json["layers"].as_array().unwrap()[..2], kept[..]);
        let found: Vec<(Digest, String)> =
            entries(&manifest).into_iter().map(|entry| (entry.payload.digest, entry.signature)).collect();
        let [one, two] = payloads.clone().map(|payload| payload.digest());
        assert_eq!(found, [(one, "MQ==".to_owned()), (two, "Mg==".to_owned())]);
        let config: Value = serde_json::from_slice(second.config.bytes()).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"], json!([Digest::of(b"x"), one, two]));
        assert_eq!(manifest.config, second.config.descriptor(MediaType::ImageConfig));

        // One that went another way brings its own, once.
        let third = read(&append(None, &payloads[0], "Mw=="));
        let merged = read(&merge(&manifest, &third).unwrap());
        assert_eq!(merged.json["annotations"], json!({"a": "b"}));
        let signatures: Vec<String> = entries(&merged).into_iter().map(|entry| entry.signature).collect();
        assert_eq!(signatures, ["MQ==", "Mg==", "Mw=="]);
        assert!(merge(&merged, &third).is_none() && merge(&merged, &existing).is_none());
    }

    #[test]
    fn the_tag_is_that_of_cosign() {
        insta::assert_snapshot!(tag(Digest::of(b"")), @"sha256-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855.sig");
    }
}
