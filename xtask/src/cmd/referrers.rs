//! What is attached to an image: listed for `inspect`, and looked at for `verify`.

use anyhow::{Context, Result, anyhow};
use serde::Serialize;

use crate::attest::Kind;
use crate::hint::WithHint;
use crate::oci::{Digest, Document, MediaType, Reference};
use crate::progress::human_bytes;
use crate::registry::{Client, Referrer};
use crate::words::foreign;

/// More documents than that are not looked at: each is two requests.
const MAX_CHECKED: usize = 100;
/// No SBOM and no provenance is larger, in bytes; it is read into memory whole.
const MAX_DOCUMENT: u64 = 64 * 1024 * 1024;
/// What cosign 3 attaches, of any version, with a signature or another statement.
/// Source: sigstore/protobuf-specs, sigstore_bundle.proto, `media_type`.
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";
const DISTRUST: &str = "do not trust it; if it is yours, push the image anew";

/// One referrer. Keys may be added, none renamed.
#[derive(Debug, Serialize)]
pub(super) struct ReferrerReport {
    /// A media type.
    artifact_type: Option<String>,
    digest: Digest,
    /// Of its manifest, in bytes.
    size: u64,
}

impl ReferrerReport {
    fn new(referrer: Referrer) -> ReferrerReport {
        let Referrer { descriptor, artifact_type } = referrer;
        ReferrerReport { artifact_type, digest: descriptor.digest, size: descriptor.size }
    }

    pub(super) fn text(&self) -> String {
        let artifact_type = self.artifact_type.as_deref();
        let kind = artifact_type
            .and_then(Kind::of)
            .map_or_else(|| foreign(artifact_type.unwrap_or("?")), |kind| kind.name().to_owned());
        format!("referrer {kind} {} {}\n", human_bytes(self.size), self.digest)
    }
}

/// All that refers to an image, by kind.
pub(super) fn list(image: &Reference, digest: Digest, registry: &Client) -> Result<Vec<ReferrerReport>> {
    let listed = listed(image, digest, registry)?;
    Ok(listed.into_iter().map(ReferrerReport::new).collect())
}

/// The SBOMs and the provenance of an image, each of which has to be about it.
pub(super) fn check(image: &Reference, digest: Digest, registry: &Client) -> Result<Vec<ReferrerReport>> {
    let mut checked = Vec::new();
    for referrer in listed(image, digest, registry)? {
        let Some(kind) = referrer.artifact_type.as_deref().and_then(Kind::of) else { continue };
        if checked.len() == MAX_CHECKED {
            return Err(anyhow!("{image} has more than {MAX_CHECKED} SBOMs and provenances"))
                .hint("remove those that nobody needs from its registry");
        }
        let looking = || format!("looking at the {} {}", kind.name(), referrer.descriptor.digest);
        let document = registry.document_by_digest(image, &referrer.descriptor).with_context(looking)?;
        let Document::Manifest(manifest) = document else {
            return Err(anyhow!("it is an index")).hint(DISTRUST).with_context(looking);
        };
        let [layer] = &manifest.layers[..] else {
            let count = manifest.layers.len();
            return Err(anyhow!("it has {count} documents")).hint(DISTRUST).with_context(looking);
        };
        let content = registry.blob(image, layer, MAX_DOCUMENT).with_context(looking)?;
        kind.check(&manifest, content.bytes(), digest).hint(DISTRUST).with_context(looking)?;
        checked.push(ReferrerReport::new(referrer));
    }
    Ok(checked)
}

/// Whether a Sigstore bundle is attached to an image, whatever is in it. Under a tag, cosign 2 lists it with
/// the type of its empty config, so that what it is shows in its manifest alone.
pub(super) fn has_bundle(image: &Reference, digest: Digest, registry: &Client) -> Result<bool> {
    let listed = listed(image, digest, registry)?;
    for Referrer { descriptor, artifact_type } in listed.iter().take(MAX_CHECKED) {
        let is_untold = |kind: &str| kind == MediaType::EmptyJSON.as_ref();
        let is_bundle = match artifact_type.as_deref() {
            Some(kind) if !is_untold(kind) => kind.starts_with(BUNDLE),
            Some(_) | None => match registry.document_by_digest(image, descriptor)? {
                Document::Manifest(manifest) => {
                    manifest.layers.iter().any(|layer| layer.media_type.as_ref().starts_with(BUNDLE))
                }
                Document::Index(_) => false,
            },
        };
        if is_bundle {
            return Ok(true);
        }
    }
    Ok(false)
}

/// In one order, whatever the registry's.
fn listed(image: &Reference, digest: Digest, registry: &Client) -> Result<Vec<Referrer>> {
    let mut listed =
        registry.referrers(image, digest).with_context(|| format!("listing what refers to {digest}"))?;
    listed.sort_by(|a, b| {
        (&a.artifact_type, a.descriptor.digest).cmp(&(&b.artifact_type, b.descriptor.digest))
    });
    Ok(listed)
}
