//! Keys of ECDSA on P-256 with SHA-256, which are what cosign makes, and signatures by them.
//! Source: FIPS 186-5; RFC 6979, by which the same key signs the same bytes the same way.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use p256::ecdsa::signature::{Signer, Verifier};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use p256::pkcs8::{
    DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey, LineEnding, SecretDocument,
};

use super::sealed;

/// The labels of PEM files. Source: RFC 7468, 10 and 13.
pub(super) const PRIVATE: &str = "PRIVATE KEY";
const PUBLIC: &str = "PUBLIC KEY";

/// Signs. It is never printed, and leaves memory when it is dropped.
#[derive(Clone)]
pub(crate) struct PrivateKey(SigningKey);

/// Tells whose signature it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicKey(VerifyingKey);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("it is not a key in PEM")]
    Pem,
    #[error("it is a private key, which is nobody else's; a signature is checked with the public one")]
    Private,
    #[error("it is a public key, and only the private one signs")]
    Public,
    #[error("it is a `{0}`, which is not read here")]
    Label(String),
    #[error("it is not a key of ECDSA on P-256, which is what cosign makes")]
    Curve,
    #[error("what is in it is not a key of cosign's: {0}")]
    Sealed(String),
    #[error("it is encrypted by {0}, and only scrypt with nacl/secretbox is read")]
    Cipher(String),
    #[error("scrypt is to run with N {n}, r {r} and p {p}, as cosign never does")]
    Parameters { n: u64, r: u64, p: u64 },
    #[error("the password is wrong, or the key is damaged")]
    Password,
}

impl KeyError {
    /// What to do about it.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            KeyError::Password => "set COSIGN_PASSWORD to the password that the key was made with",
            KeyError::Private => "name the file that was made beside it, such as cosign.pub",
            KeyError::Public => "name the file that was made beside it, such as cosign.key",
            KeyError::Label(_) => {
                "make a PKCS#8 key of it: 'openssl pkcs8 -topk8 -nocrypt -in FILE -out key.pem'"
            }
            KeyError::Pem
            | KeyError::Curve
            | KeyError::Sealed(_)
            | KeyError::Cipher(_)
            | KeyError::Parameters { .. } => "'cargo xtask sign --generate-key' makes a pair of keys",
        }
    }
}

impl PrivateKey {
    /// A key of 32 random bytes; None for the few that make none, where others have to be tried.
    pub(crate) fn from_random(bytes: &[u8; 32]) -> Option<PrivateKey> {
        SigningKey::from_slice(bytes).ok().map(PrivateKey)
    }

    /// Reads PKCS#8 in PEM.
    pub(super) fn from_pem(pem: &str) -> Result<PrivateKey, KeyError> {
        SigningKey::from_pkcs8_pem(pem).map(PrivateKey).map_err(|_| KeyError::Curve)
    }

    /// Reads PKCS#8.
    pub(super) fn from_der(der: &[u8]) -> Result<PrivateKey, KeyError> {
        SigningKey::from_pkcs8_der(der).map(PrivateKey).map_err(|_| KeyError::Curve)
    }

    /// As PKCS#8.
    pub(super) fn to_der(&self) -> Result<SecretDocument, KeyError> {
        self.0.to_pkcs8_der().map_err(|_| KeyError::Curve)
    }

    pub(crate) fn public(&self) -> PublicKey {
        PublicKey(*self.0.verifying_key())
    }

    /// The signature of `message`, as DER in base64.
    pub(crate) fn sign(&self, message: &[u8]) -> String {
        let signature: Signature = self.0.sign(message);
        BASE64.encode(signature.to_der().as_bytes())
    }
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo in PEM.
    pub(crate) fn from_pem(pem: &str) -> Result<PublicKey, KeyError> {
        match pem_rfc7468::decode_label(pem.as_bytes()) {
            Ok(PUBLIC) => VerifyingKey::from_public_key_pem(pem).map(PublicKey).map_err(|_| KeyError::Curve),
            Ok(label) if label == PRIVATE || sealed::LABELS.contains(&label) => Err(KeyError::Private),
            Ok(label) => Err(KeyError::Label(label.to_owned())),
            Err(_) => Err(KeyError::Pem),
        }
    }

    pub(crate) fn to_pem(&self) -> Result<String, KeyError> {
        self.0.to_public_key_pem(LineEnding::LF).map_err(|_| KeyError::Curve)
    }

    /// Whether `signature`, DER in base64, is this key's for `message`.
    pub(super) fn has_signed(&self, message: &[u8], signature: &str) -> bool {
        let signature = BASE64.decode(signature).ok().and_then(|der| Signature::from_der(&der).ok());
        signature.is_some_and(|signature| self.0.verify(message, &signature).is_ok())
    }
}

impl KeyError {
    /// Why a file with this label is not a private key.
    pub(super) fn not_private(label: &str) -> KeyError {
        match label {
            PUBLIC => KeyError::Public,
            label => KeyError::Label(label.to_owned()),
        }
    }
}
