//! What goes beside an image: what is in it, in the two forms that scanners read, and how it was
//! made. Values in, documents out; the registry attaches them.

pub(crate) mod buildinfo;
pub(crate) mod inventory;
pub(crate) mod provenance;
mod purl;
pub(crate) mod sbom_cyclonedx;
pub(crate) mod sbom_spdx;

pub(crate) use inventory::{DiskFile, Inventory, LayerFiles, Named, Program};
pub(crate) use provenance::{Build, BuildKind};

use serde_json::Value;

use crate::oci::{Artifact, Descriptor, Digest, Manifest};

/// This program, as the documents name it.
const TOOL: &str = "bootc-testboot";
const TOOL_VERSION: &str = env!("CARGO_PKG_VERSION");
const REPOSITORY: &str = env!("CARGO_PKG_REPOSITORY");

/// What an artifact is, as far as it is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    CycloneDx,
    Spdx,
    Provenance,
}

impl Kind {
    /// The kind of what has this artifact type.
    pub(crate) fn of(artifact_type: &str) -> Option<Kind> {
        match artifact_type {
            sbom_cyclonedx::MEDIA_TYPE => Some(Kind::CycloneDx),
            sbom_spdx::MEDIA_TYPE => Some(Kind::Spdx),
            provenance::MEDIA_TYPE => Some(Kind::Provenance),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::CycloneDx => "SBOM (CycloneDX)",
            Kind::Spdx => "SBOM (SPDX)",
            Kind::Provenance => "provenance (in-toto)",
        }
    }

    /// Checks that a referrer of this kind, its manifest and its document, are about the image with
    /// this digest: a list of referrers is no more than a registry's word.
    pub(crate) fn check(
        self,
        manifest: &Manifest,
        document: &[u8],
        digest: Digest,
    ) -> Result<(), OtherImage> {
        // What says no type of its own has its config's. Source: OCI image specification, manifest.md,
        // `artifactType`.
        let own = manifest
            .json
            .get("artifactType")
            .map_or(Some(manifest.config.media_type.as_ref()), Value::as_str);
        if own.and_then(Kind::of) != Some(self) {
            return Err(OtherImage::Kind);
        }
        let subject = manifest.json.get("subject").and_then(|subject| subject.get("digest"));
        if subject != Some(&Value::from(digest.to_string())) {
            return Err(OtherImage::Subject(digest));
        }
        let document: Value = serde_json::from_slice(document).map_err(|_| OtherImage::Document(digest))?;
        let is_about = match self {
            Kind::CycloneDx => sbom_cyclonedx::is_about(&document, digest),
            Kind::Spdx => sbom_spdx::is_about(&document, digest),
            Kind::Provenance => provenance::is_about(&document, digest),
        };
        if is_about { Ok(()) } else { Err(OtherImage::Document(digest)) }
    }
}

/// Whether a list of checksums has this one of its kind, and no other: what it is of cannot be both.
fn says(list: &Value, (key, kind): (&str, &str), value: &str, digest: Digest) -> bool {
    let mut found = list.as_array().into_iter().flatten().filter(|entry| entry[key] == kind).peekable();
    found.peek().is_some() && found.all(|entry| entry[value] == digest.hex())
}

/// Why a referrer says nothing of an image.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OtherImage {
    #[error("its manifest says that it is something else")]
    Kind,
    #[error("its subject is another image than {0}")]
    Subject(Digest),
    #[error("its document is not about {0}")]
    Document(Digest),
}

/// All that is attached to the image `subject`, which `inventory` is of.
pub(crate) fn artifacts(subject: &Descriptor, inventory: &Inventory, build: &Build<'_>) -> Vec<Artifact> {
    let documents = [
        sbom_cyclonedx::attachment(inventory),
        sbom_spdx::attachment(inventory),
        provenance::attachment(inventory, build),
    ];
    documents.into_iter().map(|document| Artifact::new(subject, document)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::oci::{Document, MediaType, Verified};

    /// Whether a referrer with this manifest and document passes as being about `image`.
    fn check(kind: Kind, manifest: &Value, document: &Value) -> String {
        let manifest = Verified::own(manifest.to_string().into_bytes());
        let Ok(Document::Manifest(manifest)) = Document::parse(manifest, None) else { panic!("a manifest") };
        let checked = kind.check(&manifest, document.to_string().as_bytes(), Digest::of(b"image"));
        checked.map_or_else(|error| error.to_string(), |()| "about it".to_owned())
    }

    fn manifest(artifact_type: &str, subject: &[u8]) -> Value {
        let blob = |content: &[u8]| Verified::own(content.to_vec()).descriptor(MediaType::EmptyJSON);
        json!({
            "schemaVersion": 2, "artifactType": artifact_type, "config": blob(b"{}"), "layers": [blob(b"{}")],
            "subject": blob(subject),
        })
    }

    #[test]
    fn a_document_is_about_its_own_image_alone() {
        let [ours, other] = [Digest::of(b"image"), Digest::of(b"other")].map(|digest| digest.hex());
        let cyclonedx =
            |hashes: Value| json!({"bomFormat": "CycloneDX", "metadata": {"component": {"hashes": hashes}}});
        let sha256 = |hex: &str| json!({"alg": "SHA-256", "content": hex});
        let spdx = |checksums: Value| {
            json!({
                "packages": [{"SPDXID": "SPDXRef-image", "checksums": checksums}, {"SPDXID": "SPDXRef-b", "checksums": [
                    {"algorithm": "SHA256", "checksumValue": ours}
                ]}],
                "relationships": [{
                    "spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES",
                    "relatedSpdxElement": "SPDXRef-image",
                }],
            })
        };
        let checksum = |hex: &str| json!({"algorithm": "SHA256", "checksumValue": hex});
        let statement = |hex: &str| {
            json!({
                "_type": "https://in-toto.io/Statement/v1", "subject": [{"name": "x", "digest": {"sha256": hex}}],
            })
        };
        let (image, digest) = (b"image", Digest::of(b"image"));
        let not_about = format!("its document is not about {digest}");
        let kinds = [
            (Kind::CycloneDx, sbom_cyclonedx::MEDIA_TYPE, cyclonedx(json!([sha256(&ours)]))),
            (Kind::Spdx, sbom_spdx::MEDIA_TYPE, spdx(json!([checksum(&ours)]))),
            (Kind::Provenance, provenance::MEDIA_TYPE, statement(&ours)),
        ];
        for (kind, media_type, document) in &kinds {
            assert_eq!(check(*kind, &manifest(media_type, image), document), "about it");
            // Copied from another image, or only listed as what it is not.
            let subject = format!("its subject is another image than {digest}");
            assert_eq!(check(*kind, &manifest(media_type, b"other"), document), subject);
            let another = "its manifest says that it is something else";
            assert_eq!(check(*kind, &manifest("text/plain", image), document), another);
            for wrong in [json!({}), json!([]), json!("x"), json!(null)] {
                assert_eq!(check(*kind, &manifest(media_type, image), &wrong), not_about);
            }
        }
        // Before there were artifact types, the config's said it.
        let mut old = manifest("", image);
        old["config"]["mediaType"] = json!(provenance::MEDIA_TYPE);
        old.as_object_mut().unwrap().remove("artifactType");
        assert_eq!(check(Kind::Provenance, &old, &statement(&ours)), "about it");

        let both = cyclonedx(json!([sha256(&ours), sha256(&other)]));
        for (kind, media_type, document) in [
            (Kind::CycloneDx, sbom_cyclonedx::MEDIA_TYPE, cyclonedx(json!([sha256(&other)]))),
            (Kind::CycloneDx, sbom_cyclonedx::MEDIA_TYPE, both),
            (Kind::CycloneDx, sbom_cyclonedx::MEDIA_TYPE, cyclonedx(json!([]))),
            (Kind::Spdx, sbom_spdx::MEDIA_TYPE, spdx(json!([checksum(&other)]))),
            (Kind::Spdx, sbom_spdx::MEDIA_TYPE, spdx(json!([checksum(&ours), checksum(&other)]))),
            (Kind::Provenance, provenance::MEDIA_TYPE, statement(&other)),
        ] {
            assert_eq!(check(kind, &manifest(media_type, image), &document), not_about, "{document}");
        }
    }
}
