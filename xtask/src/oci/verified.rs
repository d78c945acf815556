//! Bytes whose digest is known to be right. The parts of the model that read documents take
//! nothing else.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::MediaType;
use super::digest::Digest;

/// Names a blob: what it is, its digest, its size in bytes.
/// Source: OCI image specification, descriptor.md.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: MediaType,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// Bytes that hash to their digest. There is no way to make one without hashing; clones share the
/// bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verified {
    bytes: Arc<Vec<u8>>,
    digest: Digest,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VerifyError {
    #[error("{expected} was promised, but what came is {found}")]
    Digest { expected: Digest, found: Digest },
    #[error("{digest} should have {expected} bytes, but has {found}")]
    Size { digest: Digest, expected: u64, found: u64 },
}

impl Verified {
    /// Bytes of our own making.
    pub(crate) fn own(bytes: Vec<u8>) -> Verified {
        let digest = Digest::of(&bytes);
        Verified { bytes: Arc::new(bytes), digest }
    }

    /// Bytes that came from elsewhere and must be what `descriptor` promises.
    pub(crate) fn check(bytes: Vec<u8>, descriptor: &Descriptor) -> Result<Verified, VerifyError> {
        if bytes.len() as u64 != descriptor.size {
            return Err(VerifyError::Size {
                digest: descriptor.digest,
                expected: descriptor.size,
                found: bytes.len() as u64,
            });
        }
        Verified::check_digest(bytes, descriptor.digest)
    }

    /// Bytes that came from elsewhere under a digest alone, such as a manifest pulled by digest.
    pub(crate) fn check_digest(bytes: Vec<u8>, expected: Digest) -> Result<Verified, VerifyError> {
        let verified = Verified::own(bytes);
        if verified.digest != expected {
            return Err(VerifyError::Digest { expected, found: verified.digest });
        }
        Ok(verified)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// The descriptor that names these bytes as `media_type`.
    pub(crate) fn descriptor(&self, media_type: MediaType) -> Descriptor {
        Descriptor { media_type, digest: self.digest, size: self.bytes.len() as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_not_as_promised() {
        let good = Verified::own(b"abc".to_vec());
        let descriptor = good.descriptor(MediaType::ImageLayer);
        assert_eq!(Verified::check(b"abc".to_vec(), &descriptor), Ok(good));
        let longer = Verified::check(b"abcd".to_vec(), &descriptor);
        assert!(matches!(longer, Err(VerifyError::Size { expected: 3, found: 4, .. })), "{longer:?}");
        let flipped = Verified::check(b"abd".to_vec(), &descriptor);
        assert!(matches!(flipped, Err(VerifyError::Digest { .. })), "{flipped:?}");
    }
}
