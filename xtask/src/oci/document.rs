//! Manifests and indexes as they come: told apart without doubt, typed for reading, and kept as
//! the JSON they were for editing.

use serde_json::{Map, Value};

use super::digest::Digest;
use super::platform::Platform;
use super::verified::{Descriptor, Verified};
use super::{DOCKER_CONFIG, DOCKER_LAYER_GZIP, DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, MediaType};
use crate::words::foreign;

/// No manifest or index is larger than this. A registry that follows the specification takes at
/// least 4 MiB, and none of the known images comes near.
/// Source: OCI distribution specification, "Pushing manifests".
pub(crate) const MAX_SIZE: u64 = 4 * 1024 * 1024;

/// What a reference can point at.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Index),
}

/// An image manifest, OCI or Docker schema 2.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Manifest {
    /// The document's own media type, for the registry's Content-Type.
    pub(crate) media_type: MediaType,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
    /// The document as it came, key order and unknown keys included.
    pub(crate) json: Map<String, Value>,
    pub(crate) blob: Verified,
}

/// An image index, or Docker's manifest list.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Index {
    pub(crate) media_type: MediaType,
    /// The images for platforms that can boot, in the index's order.
    pub(crate) manifests: Vec<(Platform, Descriptor)>,
    pub(crate) blob: Verified,
}

#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum DocumentError {
    #[error("{0} is a web page, not a manifest")]
    WebPage(Digest),
    #[error("{0} is not JSON: {1}")]
    Json(Digest, String),
    #[error("{0} is a schema 1 manifest, which ended in 2017 and has no content digests")]
    Schema1(Digest),
    #[error("{0} has both `layers` and `manifests`: it could be read in two ways (CVE-2021-41190)")]
    Ambiguous(Digest),
    #[error("{digest} is sent as `{sent}`, but is `{found}`")]
    ContentType { digest: Digest, sent: String, found: String },
    #[error("{digest} has media type `{media_type}`, which is neither an image nor an index")]
    MediaType { digest: Digest, media_type: String },
    #[error("{digest} is not a valid {what}: {message}")]
    Invalid { digest: Digest, what: &'static str, message: String },
    #[error("{digest} is for {available}; there is nothing for {wanted} in it")]
    NoPlatform { digest: Digest, wanted: Platform, available: String },
}

impl Document {
    /// Reads a document, whose Content-Type is given where a registry sent one.
    pub(crate) fn parse(blob: Verified, content_type: Option<&str>) -> Result<Document, DocumentError> {
        let digest = blob.digest();
        if blob.bytes().trim_ascii_start().starts_with(b"<") {
            return Err(DocumentError::WebPage(digest));
        }
        let json: Map<String, Value> = serde_json::from_slice(blob.bytes())
            .map_err(|error| DocumentError::Json(digest, foreign(&error.to_string())))?;
        if json.get("schemaVersion") == Some(&Value::from(1)) {
            return Err(DocumentError::Schema1(digest));
        }
        let is_image = json.get("layers").is_some() || json.get("config").is_some();
        let is_index = json.get("manifests").is_some();
        if is_image && is_index {
            return Err(DocumentError::Ambiguous(digest));
        }

        let stated = json.get("mediaType").and_then(Value::as_str);
        // Registries also send `text/plain` and the like, which say nothing.
        let sent = content_type
            .map(|sent| sent.split(';').next().unwrap_or(sent).trim())
            .filter(|sent| is_document(sent));
        let found = stated.or(sent).unwrap_or(if is_index {
            MediaType::ImageIndex.as_ref()
        } else {
            MediaType::ImageManifest.as_ref()
        });
        if let Some(sent) = sent.filter(|&sent| sent != found) {
            let (sent, found) = (foreign(sent), foreign(found));
            return Err(DocumentError::ContentType { digest, sent, found });
        }

        let media_type = MediaType::from(found);
        match (&media_type, is_index) {
            (MediaType::ImageManifest, false) => {
                Manifest::parse(blob, json, media_type).map(Document::Manifest)
            }
            (MediaType::ImageIndex, true) => Index::parse(blob, media_type).map(Document::Index),
            (MediaType::Other(other), false) if other == DOCKER_MANIFEST => {
                Manifest::parse(blob, json, media_type).map(Document::Manifest)
            }
            (MediaType::Other(other), true) if other == DOCKER_MANIFEST_LIST => {
                Index::parse(blob, media_type).map(Document::Index)
            }
            _ if is_document(found) => {
                let body = if is_index { "an index" } else { "a manifest" }.to_owned();
                Err(DocumentError::ContentType { digest, sent: found.to_owned(), found: body })
            }
            _ => Err(DocumentError::MediaType { digest, media_type: foreign(found) }),
        }
    }

    pub(crate) fn blob(&self) -> &Verified {
        match self {
            Document::Manifest(manifest) => &manifest.blob,
            Document::Index(index) => &index.blob,
        }
    }

    /// The document's own annotations, if it has any.
    pub(crate) fn annotations(&self) -> Option<Value> {
        let json: Map<String, Value> = match self {
            Document::Manifest(manifest) => manifest.json.clone(),
            Document::Index(index) => serde_json::from_slice(index.blob.bytes()).ok()?,
        };
        json.get("annotations").cloned()
    }

    /// The descriptor that names this document.
    pub(crate) fn descriptor(&self) -> Descriptor {
        let media_type = match self {
            Document::Manifest(manifest) => &manifest.media_type,
            Document::Index(index) => &index.media_type,
        };
        self.blob().descriptor(media_type.clone())
    }
}

impl Manifest {
    fn parse(
        blob: Verified,
        json: Map<String, Value>,
        media_type: MediaType,
    ) -> Result<Manifest, DocumentError> {
        let invalid = |message: String| DocumentError::Invalid {
            digest: blob.digest(),
            what: "image manifest",
            message,
        };
        let typed: oci_spec::image::ImageManifest =
            serde_json::from_slice(blob.bytes()).map_err(|error| invalid(foreign(&error.to_string())))?;
        let config = descriptor(typed.config()).map_err(invalid)?;
        let layers = typed.layers().iter().map(descriptor).collect::<Result<_, _>>().map_err(invalid)?;
        Ok(Manifest { media_type, config, layers, json, blob })
    }

    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.json.get("annotations")?.get(key)?.as_str()
    }
}

impl Index {
    fn parse(blob: Verified, media_type: MediaType) -> Result<Index, DocumentError> {
        let invalid =
            |message: String| DocumentError::Invalid { digest: blob.digest(), what: "image index", message };
        let typed: oci_spec::image::ImageIndex =
            serde_json::from_slice(blob.bytes()).map_err(|error| invalid(foreign(&error.to_string())))?;
        let mut manifests = Vec::new();
        for entry in typed.manifests() {
            // Attestations and other systems' images have their place in an index; none boots.
            let platform = entry.platform().as_ref().and_then(|platform| {
                Platform::from_oci(
                    platform.os().to_string().as_str(),
                    platform.architecture().to_string().as_str(),
                )
            });
            if let Some(platform) = platform {
                manifests.push((platform, descriptor(entry).map_err(invalid)?));
            }
        }
        Ok(Index { media_type, manifests, blob })
    }

    /// The image for `platform`: the first one, as every client takes it.
    pub(crate) fn select(&self, platform: Platform) -> Result<&Descriptor, DocumentError> {
        self.manifests
            .iter()
            .find_map(|(candidate, descriptor)| (*candidate == platform).then_some(descriptor))
            .ok_or_else(|| {
                let available: Vec<String> = self.manifests.iter().map(|(p, _)| p.to_string()).collect();
                DocumentError::NoPlatform {
                    digest: self.blob.digest(),
                    wanted: platform,
                    available: if available.is_empty() {
                        "no known platform".to_owned()
                    } else {
                        foreign(&available.join(", "))
                    },
                }
            })
    }
}

/// The OCI media type of what Docker's schema 2 calls `media_type`. The bytes are the same; a
/// bootc host refuses Docker's names inside an OCI manifest.
pub(crate) fn oci_media_type(media_type: &MediaType) -> MediaType {
    match media_type.as_ref() {
        DOCKER_MANIFEST => MediaType::ImageManifest,
        DOCKER_CONFIG => MediaType::ImageConfig,
        DOCKER_LAYER_GZIP => MediaType::ImageLayerGzip,
        _ => media_type.clone(),
    }
}

/// Whether `media_type` is one of the four that name a manifest or an index.
fn is_document(media_type: &str) -> bool {
    [MediaType::ImageManifest.as_ref(), MediaType::ImageIndex.as_ref(), DOCKER_MANIFEST, DOCKER_MANIFEST_LIST]
        .contains(&media_type)
}

fn descriptor(typed: &oci_spec::image::Descriptor) -> Result<Descriptor, String> {
    let digest = typed.digest().to_string().parse().map_err(|error| format!("{error}"))?;
    Ok(Descriptor { media_type: typed.media_type().clone(), digest, size: typed.size() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYER: &str = r#"{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","size":3,"digest":"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}"#;

    fn check(body: &str, content_type: Option<&str>, expected: &str) {
        let body = body.replace("LAYER", LAYER);
        let blob = Verified::own(body.clone().into_bytes());
        let digest = blob.digest().to_string();
        let shown = match Document::parse(blob, content_type) {
            Ok(Document::Manifest(manifest)) => format!("manifest, {} layers", manifest.layers.len()),
            Ok(Document::Index(index)) => format!("index, {} manifests", index.manifests.len()),
            Err(error) => error.to_string().replace(&digest, "D"),
        };
        assert_eq!(shown, expected, "for {body}");
    }

    #[test]
    fn tells_documents_apart() {
        const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
        const INDEX: &str = "application/vnd.oci.image.index.v1+json";
        let manifest = r#"{"schemaVersion":2,"config":LAYER,"layers":[LAYER,LAYER]}"#;
        check(manifest, None, "manifest, 2 layers");
        check(
            manifest,
            Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"),
            "manifest, 2 layers",
        );
        check(manifest, Some("text/plain"), "manifest, 2 layers");
        check(manifest, Some(DOCKER_MANIFEST), "manifest, 2 layers");
        check(manifest, Some(INDEX), &format!("D is sent as `{INDEX}`, but is `a manifest`"));
        check(
            &format!(r#"{{"schemaVersion":2,"mediaType":"{OCI}","config":LAYER,"layers":[]}}"#),
            Some(INDEX),
            &format!("D is sent as `{INDEX}`, but is `{OCI}`"),
        );
        check(
            r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#,
            None,
            "D has both `layers` and `manifests`: it could be read in two ways (CVE-2021-41190)",
        );
        check(
            r#"{"schemaVersion":1,"fsLayers":[]}"#,
            None,
            "D is a schema 1 manifest, which ended in 2017 and has no content digests",
        );
        check("  <html></html>", Some("text/html"), "D is a web page, not a manifest");
        check(
            r#"{"schemaVersion":2,"mediaType":"application/json","layers":[]}"#,
            None,
            "D has media type `application/json`, which is neither an image nor an index",
        );
        check("{", None, "D is not JSON: EOF while parsing an object at line 1 column 1");
    }

    #[test]
    fn index_takes_bootable_platforms_and_names_them_when_none_fits() {
        let entry = |os: &str, arch: &str| {
            LAYER.replace('}', &format!(r#","platform":{{"os":"{os}","architecture":"{arch}"}}}}"#))
        };
        let body = format!(
            r#"{{"schemaVersion":2,"manifests":[{},{},{}]}}"#,
            entry("linux", "arm64"),
            entry("unknown", "unknown"),
            entry("linux", "amd64")
        );
        let Ok(Document::Index(index)) = Document::parse(Verified::own(body.into_bytes()), None) else {
            panic!("an index");
        };
        assert!(index.select("linux/amd64".parse().unwrap()).is_ok());
        let error = index.select("linux/s390x".parse().unwrap()).unwrap_err().to_string();
        assert!(
            error.ends_with("is for linux/arm64, linux/amd64; there is nothing for linux/s390x in it"),
            "{error}"
        );
    }
}
