//! A document that is attached to an image: a manifest with the image as its subject, which
//! registries call its referrer.
//! Source: OCI image specification 1.1, manifest.md, "Guidelines for Artifact Usage".

use serde_json::{Value, json};

use super::MediaType;
use super::annotation::{CREATED, TITLE};
use super::digest::Digest;
use super::timestamp::Timestamp;
use super::verified::{Descriptor, Verified};

/// A manifest that refers to an image, and the two blobs that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Artifact {
    subject: Digest,
    manifest: Verified,
    /// How lists of referrers show it.
    entry: Value,
    blobs: [(Descriptor, Verified); 2],
}

/// What is to be attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attachment {
    /// A media type, by which readers find it.
    pub(crate) artifact_type: &'static str,
    /// What a file with it is called.
    pub(crate) file_name: &'static str,
    /// What lists of referrers say of it.
    pub(crate) annotation: Option<(&'static str, &'static str)>,
    pub(crate) created: Timestamp,
    pub(crate) content: Vec<u8>,
}

/// The content of what has none, and the config of what needs none. Source: OCI image specification,
/// manifest.md, "Guidance for an Empty Descriptor".
pub(crate) fn empty() -> (Descriptor, Verified) {
    let empty = Verified::own(b"{}".to_vec());
    (empty.descriptor(MediaType::EmptyJSON), empty)
}

impl Artifact {
    /// The referrer of `subject` that holds `attachment`. Its bytes depend on these two alone.
    pub(crate) fn new(subject: &Descriptor, attachment: Attachment) -> Artifact {
        let Attachment { artifact_type, file_name, annotation, created, content } = attachment;
        let content = Verified::own(content);
        let blobs = [empty(), (content.descriptor(MediaType::from(artifact_type)), content)];
        let mut layer = json!(blobs[1].0);
        layer["annotations"] = json!({TITLE: file_name});
        let mut annotations = json!({CREATED: created.to_string()});
        if let Some((key, value)) = annotation {
            annotations[key] = json!(value);
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageManifest,
            "artifactType": artifact_type,
            "config": blobs[0].0,
            "layers": [layer],
            "subject": subject,
            "annotations": annotations,
        });
        let manifest = Verified::own(manifest.to_string().into_bytes());
        let mut entry = json!(manifest.descriptor(MediaType::ImageManifest));
        entry["artifactType"] = json!(artifact_type);
        entry["annotations"] = annotations;
        Artifact { subject: subject.digest, manifest, entry, blobs }
    }

    /// The image's.
    pub(crate) fn subject(&self) -> Digest {
        self.subject
    }

    pub(crate) fn manifest(&self) -> &Verified {
        &self.manifest
    }

    /// The descriptor of the manifest, with its artifact type and annotations.
    pub(crate) fn entry(&self) -> &Value {
        &self.entry
    }

    /// The empty config and the document.
    pub(crate) fn blobs(&self) -> &[(Descriptor, Verified); 2] {
        &self.blobs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_referrer_names_its_subject_and_its_document() {
        let subject = Verified::own(b"an image".to_vec()).descriptor(MediaType::ImageManifest);
        let artifact = Artifact::new(
            &subject,
            Attachment {
                artifact_type: "text/plain",
                file_name: "note.txt",
                annotation: Some(("example.kind", "note")),
                created: Timestamp::EPOCH,
                content: b"hello".to_vec(),
            },
        );
        assert_eq!(artifact.subject(), subject.digest);
        let shown = |bytes: &[u8]| {
            let json: Value = serde_json::from_slice(bytes).unwrap();
            serde_json::to_string_pretty(&json).unwrap()
        };
        insta::assert_snapshot!(shown(artifact.manifest().bytes()), @r#"
        {
          "schemaVersion": 2,
          "mediaType": "application/vnd.oci.image.manifest.v1+json",
          "artifactType": "text/plain",
          "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            "size": 2
          },
          "layers": [
            {
              "mediaType": "text/plain",
              "digest": "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
              "size": 5,
              "annotations": {
                "org.opencontainers.image.title": "note.txt"
              }
            }
          ],
          "subject": {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": "sha256:a5df3fde7b200c3fa2791144c7e05c5c2bced4c6ad863d3a4cf76c972c1712f9",
            "size": 8
          },
          "annotations": {
            "org.opencontainers.image.created": "1970-01-01T00:00:00Z",
            "example.kind": "note"
          }
        }
        "#);
        insta::assert_snapshot!(shown(artifact.entry().to_string().as_bytes()), @r#"
        {
          "mediaType": "application/vnd.oci.image.manifest.v1+json",
          "digest": "sha256:c28e5ac7616a799413bcbbd8e3bcada4e9eb2bfd9e9df07dd80bd45f6dc5ee39",
          "size": 702,
          "artifactType": "text/plain",
          "annotations": {
            "org.opencontainers.image.created": "1970-01-01T00:00:00Z",
            "example.kind": "note"
          }
        }
        "#);
    }
}
