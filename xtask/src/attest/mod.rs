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

/// Why a referrer says nothing of an image.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OtherImage {
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
