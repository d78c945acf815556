//! Whether an image is signed: by this key, as this image, for this repository.

use super::key::PublicKey;
use super::payload::{Claim, PayloadError};
use crate::oci::{Digest, Verified};

/// A signature that was found beside an image, with what it is said to be made over.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) payload: Verified,
    /// In base64.
    pub(crate) signature: String,
}

/// An image that a key has signed. Only `check` makes one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Signed {
    claim: Claim,
    payload: Digest,
}

/// Why an image does not count as signed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Rejected {
    #[error("it is not signed")]
    Unsigned,
    #[error("none of its signatures is by this key: {0} by others")]
    OtherKey(usize),
    #[error("what this key has signed beside it is no image: {0}")]
    Payload(PayloadError),
    #[error("this key has signed another image, {0}, and somebody has put that signature here")]
    OtherImage(Digest),
    #[error("this key has signed it for {found}, not for {wanted}")]
    OtherRepository { found: String, wanted: String },
}

/// Looks for a signature of `wanted` by `key`. Whatever else was found is no obstacle: anybody who
/// may write beside an image can leave something there.
pub(crate) fn check(wanted: &Claim, key: &PublicKey, found: &[Found]) -> Result<Signed, Rejected> {
    let mut rejected = match found.len() {
        0 => Rejected::Unsigned,
        others => Rejected::OtherKey(others),
    };
    // What a stranger wrote is not even read.
    for Found { payload, .. } in
        found.iter().filter(|found| key.has_signed(found.payload.bytes(), &found.signature))
    {
        match Claim::read(payload.bytes()) {
            Ok(claim) if claim == *wanted => return Ok(Signed { claim, payload: payload.digest() }),
            Ok(claim) if claim.digest != wanted.digest => rejected = Rejected::OtherImage(claim.digest),
            Ok(claim) => {
                rejected = Rejected::OtherRepository {
                    found: claim.repository().to_owned(),
                    wanted: wanted.repository().to_owned(),
                };
            }
            Err(error) => rejected = Rejected::Payload(error),
        }
    }
    Err(rejected)
}

impl Signed {
    /// The signed image.
    pub(crate) fn digest(&self) -> Digest {
        self.claim.digest
    }

    /// The repository that it is signed for.
    pub(crate) fn repository(&self) -> &str {
        self.claim.repository()
    }

    /// The digest of what was signed.
    pub(crate) fn payload(&self) -> Digest {
        self.payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::PrivateKey;

    fn claim(reference: &str, image: &[u8]) -> Claim {
        Claim::new(&reference.parse().unwrap(), Digest::of(image))
    }

    fn signed(key: &PrivateKey, payload: Verified) -> Found {
        Found { signature: key.sign(payload.bytes()), payload }
    }

    #[test]
    fn only_this_keys_signature_of_this_image_counts() {
        let [ours, theirs] = [[1; 32], [2; 32]].map(|bytes| PrivateKey::from_random(&bytes).unwrap());
        let wanted = claim("ghcr.io/me/os:v1", b"image");
        let good = signed(&ours, wanted.payload());
        let other_key = signed(&theirs, wanted.payload());
        let other_image = signed(&ours, claim("ghcr.io/me/os", b"other").payload());
        let other_repository = signed(&ours, claim("ghcr.io/me/test", b"image").payload());
        let no_claim = signed(&ours, Verified::own(b"{}".to_vec()));
        let swapped = Found { payload: wanted.payload(), signature: other_image.signature.clone() };
        let tampered = Found { payload: Verified::own(b"x".to_vec()), signature: good.signature.clone() };

        let why = |found: &[&Found]| {
            let found: Vec<Found> = found.iter().map(|&found| found.clone()).collect();
            check(&wanted, &ours.public(), &found).unwrap_err().to_string()
        };
        insta::assert_snapshot!(why(&[]), @"it is not signed");
        insta::assert_snapshot!(why(&[&other_key, &swapped, &tampered]), @"none of its signatures is by this key: 3 by others");
        insta::assert_snapshot!(why(&[&other_image, &other_key]), @"this key has signed another image, sha256:d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa, and somebody has put that signature here");
        insta::assert_snapshot!(why(&[&other_repository]), @"this key has signed it for ghcr.io/me/test, not for ghcr.io/me/os");
        insta::assert_snapshot!(why(&[&no_claim]), @"what this key has signed beside it is no image: it is not what cosign signs: missing field `critical` at line 1 column 2");

        let all = [other_key, other_image, other_repository, no_claim, swapped, good, tampered];
        let signed = check(&wanted, &ours.public(), &all).unwrap();
        assert_eq!((signed.digest(), signed.payload()), (wanted.digest, wanted.payload().digest()));
        assert_eq!(signed.repository(), "ghcr.io/me/os");
    }
}
