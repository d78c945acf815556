//! What a document names, all of it: an index's other images and artifacts too, which nothing boots.

use serde_json::{Map, Value};

use super::document::{Document, DocumentError};
use super::verified::Descriptor;
use crate::words::foreign;

/// How deep indexes are inside each other: an image's in that of its release.
const MAX_DEPTH: usize = 4;
/// All documents of a release are in memory at once. One has some kilobytes, and no release thousands of them.
pub(crate) const MAX_DOCUMENTS: u64 = 64 << 20;

/// A document and what it names directly.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) descriptor: Descriptor,
    pub(crate) document: Document,
    /// Configs and layers.
    pub(crate) blobs: Vec<Descriptor>,
}

/// All documents that `descriptor` leads to, each once and behind those that it names. `read` gets
/// one, whose digest it has checked.
pub(crate) fn nodes<E: From<DocumentError>>(
    descriptor: &Descriptor,
    read: &mut dyn FnMut(&Descriptor) -> Result<Document, E>,
) -> Result<Vec<Node>, E> {
    let mut found = Vec::new();
    visit(descriptor, 0, read, &mut found)?;
    Ok(found)
}

fn visit<E: From<DocumentError>>(
    descriptor: &Descriptor,
    depth: usize,
    read: &mut dyn FnMut(&Descriptor) -> Result<Document, E>,
    found: &mut Vec<Node>,
) -> Result<(), E> {
    if found.iter().any(|node| node.descriptor.digest == descriptor.digest) {
        return Ok(());
    }
    let document = read(descriptor)?;
    let blobs = match &document {
        Document::Manifest(manifest) => {
            std::iter::once(&manifest.config).chain(&manifest.layers).cloned().collect()
        }
        Document::Index(index) => {
            let digest = index.blob.digest();
            let invalid = |message: String| DocumentError::Invalid { digest, what: "image index", message };
            if depth == MAX_DEPTH {
                return Err(invalid(format!("more than {MAX_DEPTH} indexes are inside each other")).into());
            }
            let json: Map<String, Value> = serde_json::from_slice(index.blob.bytes())
                .map_err(|error| invalid(foreign(&error.to_string())))?;
            for entry in json.get("manifests").and_then(Value::as_array).into_iter().flatten() {
                let child: Descriptor = serde_json::from_value(entry.clone())
                    .map_err(|error| invalid(foreign(&error.to_string())))?;
                visit(&child, depth + 1, read, found)?;
            }
            Vec::new()
        }
    };
    found.push(Node { descriptor: descriptor.clone(), document, blobs });
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::oci::{MediaType, Verified};

    #[test]
    fn what_is_named_comes_first_and_once() {
        let blob = |content: &str| Verified::own(content.as_bytes().to_vec());
        let mut blobs = BTreeMap::new();
        let mut document = |json: Value, media_type: MediaType| {
            let blob = Verified::own(json.to_string().into_bytes());
            let descriptor = blob.descriptor(media_type);
            blobs.insert(descriptor.digest, blob);
            descriptor
        };
        let layer = blob("layer").descriptor(MediaType::ImageLayer);
        let config = blob("{}").descriptor(MediaType::ImageConfig);
        let image = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
        let image = document(image, MediaType::ImageManifest);
        let index = |images: &[&Descriptor]| json!({"schemaVersion": 2, "manifests": images});
        let inner = document(index(&[&image]), MediaType::ImageIndex);
        let outer = document(index(&[&inner, &image]), MediaType::ImageIndex);
        let mut last = outer.clone();
        for _ in 0..MAX_DEPTH {
            last = document(index(&[&last]), MediaType::ImageIndex);
        }
        let mut read = |descriptor: &Descriptor| Document::parse(blobs[&descriptor.digest].clone(), None);
        let found = nodes(&outer, &mut read).unwrap();
        let digests: Vec<_> = found.iter().map(|node| node.descriptor.digest).collect();
        assert_eq!(digests, [image.digest, inner.digest, outer.digest]);
        assert_eq!(found[0].blobs, [config, layer]);
        let error = nodes(&last, &mut read).unwrap_err().to_string();
        assert!(error.ends_with("more than 4 indexes are inside each other"), "{error}");
    }
}
