//! What a signature is made over: a document that says which image of which repository is meant.
//! Source: containers/image, docs/containers-signature.5.md, "JSON Data Format".

use serde::Deserialize;
use serde_json::json;

use crate::oci::{Digest, Reference, Verified};
use crate::words::foreign;

/// Says that a document is a signature's, and no other that a key has signed.
/// Source: sigstore's cosign, specs/SIGNATURE_SPEC.md, "Simple Signing".
const TYPE: &str = "cosign container image signature";
/// Docker Hub, as references name it, and as cosign has it in what it signs.
const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_SIGNED: &str = "index.docker.io";
/// No payload is larger than this, in bytes: one has some 250, and its signer's remarks.
pub(crate) const MAX_PAYLOAD: u64 = 256 * 1024;

/// What a signature says: that this image is this repository's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// With neither tag nor digest.
    repository: String,
    pub(crate) digest: Digest,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PayloadError {
    #[error("it is not what cosign signs: {0}")]
    Json(String),
    #[error("it is a `{0}`, not a `{TYPE}`")]
    Type(String),
    #[error("`{0}` is no repository")]
    Repository(String),
}

#[derive(Deserialize)]
struct Document {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    identity: Identity,
    image: Image,
    r#type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Identity {
    docker_reference: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Image {
    docker_manifest_digest: Digest,
}

impl Claim {
    /// That the image `digest` is the repository's of `reference`, whose tag does not count.
    pub(crate) fn new(reference: &Reference, digest: Digest) -> Claim {
        Claim { repository: repository(reference), digest }
    }

    /// Reads what was signed, whether its signature is good or not.
    pub(crate) fn read(payload: &[u8]) -> Result<Claim, PayloadError> {
        let document: Document = serde_json::from_slice(payload)
            .map_err(|error| PayloadError::Json(foreign(&error.to_string())))?;
        let Critical { identity, image, r#type } = document.critical;
        if r#type != TYPE {
            return Err(PayloadError::Type(foreign(&r#type)));
        }
        // Some signers add the tag or the digest.
        let reference: Reference = identity
            .docker_reference
            .parse()
            .map_err(|_| PayloadError::Repository(foreign(&identity.docker_reference)))?;
        Ok(Claim::new(&reference, image.docker_manifest_digest))
    }

    /// What is signed: the bytes that cosign makes of it.
    pub(crate) fn payload(&self) -> Verified {
        let document = json!({
            "critical": {
                "identity": {"docker-reference": self.repository},
                "image": {"docker-manifest-digest": self.digest},
                "type": TYPE,
            },
            // Remarks that a signer may add.
            "optional": null,
        });
        Verified::own(document.to_string().into_bytes())
    }

    /// The repository as it is signed.
    pub(crate) fn repository(&self) -> &str {
        &self.repository
    }
}

/// A repository as cosign names it.
fn repository(reference: &Reference) -> String {
    let registry = match reference.registry() {
        DOCKER_HUB => DOCKER_HUB_SIGNED,
        registry => registry,
    };
    format!("{registry}/{}", reference.repository())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn claim(reference: &str) -> Claim {
        Claim::new(&reference.parse().unwrap(), DIGEST.parse().unwrap())
    }

    #[test]
    fn a_payload_is_what_cosign_signs() {
        let payload = claim("ghcr.io/me/os:debian-13-v1").payload();
        insta::assert_snapshot!(str::from_utf8(payload.bytes()).unwrap(), @r#"{"critical":{"identity":{"docker-reference":"ghcr.io/me/os"},"image":{"docker-manifest-digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},"type":"cosign container image signature"},"optional":null}"#);
    }

    #[test]
    fn a_payload_says_which_image_of_which_repository() {
        for reference in ["ghcr.io/me/os:t", "localhost:5000/os", "debian", "registry.lan/a/b/c@sha256:"] {
            let reference = reference.replace("sha256:", DIGEST);
            let claim = claim(&reference);
            assert_eq!(Claim::read(claim.payload().bytes()), Ok(claim), "{reference}");
        }
        assert_eq!(claim("debian").repository(), "index.docker.io/library/debian");
        assert_ne!(claim("ghcr.io/me/os"), claim("ghcr.io/me/other"));
        // Others' payloads: with remarks, with a tag, with Docker Hub's other name.
        let check = |reference: &str, expected: &str| {
            let payload = format!(
                r#"{{"critical": {{"type": "{TYPE}", "identity": {{"docker-reference": "{reference}"}},
                "image": {{"docker-manifest-digest": "{DIGEST}"}}, "x": 1}}, "optional": {{"a": 1}}}}"#
            );
            assert_eq!(Claim::read(payload.as_bytes()).unwrap().repository(), expected);
        };
        check("ghcr.io/me/os:v1", "ghcr.io/me/os");
        check("docker.io/library/debian", "index.docker.io/library/debian");
    }

    #[test]
    fn other_documents_are_refused() {
        let payload = String::from_utf8(claim("ghcr.io/me/os").payload().bytes().to_vec()).unwrap();
        let check = |from: &str, to: &str| {
            let changed = payload.replacen(from, to, 1);
            assert_ne!(changed, payload);
            Claim::read(changed.as_bytes()).unwrap_err().to_string()
        };
        insta::assert_snapshot!(check("cosign container", "atomic container"), @"it is a `atomic container image signature`, not a `cosign container image signature`");
        insta::assert_snapshot!(check("ghcr.io/me/os", "A B"), @"`A B` is no repository");
        insta::assert_snapshot!(check("sha256:", "sha256:../"), @"it is not what cosign signs: digest `sha256:../e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855` is not of the form `sha256:<64 hex digits>` at line 1 column 172");
        insta::assert_snapshot!(check("critical", "other"), @"it is not what cosign signs: missing field `critical` at line 1 column 226");
    }
}
