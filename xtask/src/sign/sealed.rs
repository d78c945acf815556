//! Private keys in files: as PKCS#8, or encrypted as cosign does it, with a key that scrypt makes of
//! a password. Source: securesystemslib's `encrypted`, which cosign uses.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use crypto_secretbox::aead::{Aead, KeyInit};
use crypto_secretbox::{Key, Nonce, XSalsa20Poly1305};
use pem_rfc7468::LineEnding;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::key::{KeyError, PRIVATE, PrivateKey};
use crate::words::foreign;

/// What cosign writes today, and what it wrote before.
pub(super) const LABELS: [&str; 2] = ["ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY"];
/// The binary logarithms of scrypt's N that cosign knows. The memory that it takes is 128 N r bytes, so
/// 128 MiB at most: a key of unknown origin must not decide on more.
const LOG_N: [u8; 3] = [15, 16, 17];
/// What cosign makes keys with.
const NEW_LOG_N: u8 = 16;
const R: u32 = 8;
const P: u32 = 1;
/// Of the key that scrypt makes, in bytes.
const BOX_KEY: usize = 32;
/// In bytes. Source: nacl.cr.yp.to, crypto_secretbox_NONCEBYTES.
const NONCE: usize = 24;
const SALT: usize = 32;
const KDF: &str = "scrypt";
const CIPHER: &str = "nacl/secretbox";

/// What a file with a private key has in it.
pub(crate) enum KeyFile {
    Plain(PrivateKey),
    Sealed(SealedKey),
}

/// A private key that needs its password.
#[derive(Debug)]
pub(crate) struct SealedKey {
    log_n: u8,
    salt: Vec<u8>,
    nonce: [u8; NONCE],
    ciphertext: Vec<u8>,
}

/// What makes each sealed key another one: random bytes, never used twice.
pub(crate) struct Randomness {
    pub(crate) salt: [u8; SALT],
    pub(crate) nonce: [u8; NONCE],
}

#[derive(Deserialize)]
struct Document {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Deserialize)]
struct Kdf {
    name: String,
    params: Params,
    salt: String,
}

#[derive(Deserialize)]
struct Params {
    #[serde(rename = "N")]
    n: u64,
    r: u64,
    p: u64,
}

#[derive(Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

impl KeyFile {
    pub(crate) fn parse(pem: &str) -> Result<KeyFile, KeyError> {
        match pem_rfc7468::decode_label(pem.as_bytes()) {
            Ok(PRIVATE) => PrivateKey::from_pem(pem).map(KeyFile::Plain),
            Ok(label) if LABELS.contains(&label) => SealedKey::parse(pem).map(KeyFile::Sealed),
            Ok(label) => Err(KeyError::not_private(label)),
            Err(_) => Err(KeyError::Pem),
        }
    }
}

impl SealedKey {
    fn parse(pem: &str) -> Result<SealedKey, KeyError> {
        let (_, json) = pem_rfc7468::decode_vec(pem.as_bytes()).map_err(|_| KeyError::Pem)?;
        let sealed = |error: &dyn ToString| KeyError::Sealed(error.to_string());
        let Document { kdf, cipher, ciphertext } =
            serde_json::from_slice(&json).map_err(|error| sealed(&error))?;
        if kdf.name != KDF || cipher.name != CIPHER {
            return Err(KeyError::Cipher(format!("{} and {}", foreign(&kdf.name), foreign(&cipher.name))));
        }
        let Params { n, r, p } = kdf.params;
        let log_n = LOG_N.into_iter().find(|log_n| n == 1 << log_n);
        let log_n = log_n.filter(|_| r == u64::from(R) && p == u64::from(P)).ok_or(KeyError::Parameters {
            n,
            r,
            p,
        })?;
        let bytes = |text: String| BASE64.decode(text).map_err(|error| sealed(&error));
        let nonce = bytes(cipher.nonce)?.try_into().map_err(|_| sealed(&"its nonce has another length"))?;
        Ok(SealedKey { log_n, salt: bytes(kdf.salt)?, nonce, ciphertext: bytes(ciphertext)? })
    }

    /// Opens it.
    pub(crate) fn open(&self, password: &[u8]) -> Result<PrivateKey, KeyError> {
        let cipher = secretbox(password, &self.salt, self.log_n)?;
        let der = cipher.decrypt(Nonce::from_slice(&self.nonce), self.ciphertext.as_slice());
        PrivateKey::from_der(&Zeroizing::new(der.map_err(|_| KeyError::Password)?))
    }
}

impl PrivateKey {
    /// The file that cosign writes, which needs `password` to be opened.
    pub(crate) fn seal(&self, password: &[u8], randomness: &Randomness) -> Result<String, KeyError> {
        let Randomness { salt, nonce } = randomness;
        let cipher = secretbox(password, salt, NEW_LOG_N)?;
        let ciphertext = cipher
            .encrypt(Nonce::from_slice(nonce), self.to_der()?.as_bytes())
            .map_err(|error| KeyError::Sealed(error.to_string()))?;
        let document = json!({
            "kdf": {"name": KDF, "params": {"N": 1_u64 << NEW_LOG_N, "r": R, "p": P}, "salt": BASE64.encode(salt)},
            "cipher": {"name": CIPHER, "nonce": BASE64.encode(nonce)},
            "ciphertext": BASE64.encode(ciphertext),
        });
        let [label, _] = LABELS;
        pem_rfc7468::encode_string(label, LineEnding::LF, document.to_string().as_bytes())
            .map_err(|error| KeyError::Sealed(error.to_string()))
    }
}

/// The cipher that a password gives. This takes a tenth of a second, on purpose.
fn secretbox(password: &[u8], salt: &[u8], log_n: u8) -> Result<XSalsa20Poly1305, KeyError> {
    let refused = || KeyError::Parameters { n: 1 << log_n, r: R.into(), p: P.into() };
    let params = scrypt::Params::new(log_n, R, P, BOX_KEY).map_err(|_| refused())?;
    let mut key = Zeroizing::new([0; BOX_KEY]);
    scrypt::scrypt(password, salt, &params, key.as_mut()).map_err(|_| refused())?;
    Ok(XSalsa20Poly1305::new(Key::from_slice(key.as_slice())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::PublicKey;

    /// Made by cosign 2.6.5, with the password `secret`, for this test.
    const OF_COSIGN: &str = "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----
eyJrZGYiOnsibmFtZSI6InNjcnlwdCIsInBhcmFtcyI6eyJOIjo2NTUzNiwiciI6
OCwicCI6MX0sInNhbHQiOiJxNDBQZ3BGaFc4NzNYVStCS1lsREduT09iSXdZZitE
U2g1Uy9XU3pKMTY0PSJ9LCJjaXBoZXIiOnsibmFtZSI6Im5hY2wvc2VjcmV0Ym94
Iiwibm9uY2UiOiJpUlhYWlg3SGZzMVdwdkhETXMwcFpOSkswd2lSMUY1biJ9LCJj
aXBoZXJ0ZXh0IjoiNjBFYllzTHdwampXSk4zMmY4ZTdFSW5ld2Z6WE9KQW5ubWE5
UDBrSVViZ3J6OUY0d1Q5NnlSODd3Qzd2bXVOMENYV2lNNmtQRXNqa0hxUitmQlZj
NHNJRCtxUXVQenl5NUtzT3B5L1ZQUWdoMko3NVIrVlQ2QWNzLzFHeHFkY3Q5QjNt
bEx4REl0c1N2cGhWc0pPemRiZXpQbW1Sayt2R0QvUUlPUFpvUXZEU2JqZUlMZ1NZ
S3ovaEYrSEVWUExxSHhOUU1OT0pLTVJ1dVE9PSJ9
-----END ENCRYPTED SIGSTORE PRIVATE KEY-----
";
    const ITS_PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEhJAnV4e8B82KGYrtr7j/zK503+E7
nLlaHxpPRDRmg1CxqqV4YupT75V09ZPLbF2j3wEEMFdwR90hxvsE3MKZGw==
-----END PUBLIC KEY-----
";
    /// Made by openssl, for this test.
    const OF_OPENSSL: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgcOhQPFFytXW3rzHJ
IAMYqO5jfnmFl/0D/H7+vN/E9NihRANCAARHl1EdhrGqnSFLTdkMn/we8lHY9i+O
RXL1ACIPi+Gu6SubKsrmjK7PBLTibM+ssCJYs+EKJwVIknE7qTSVXT6k
-----END PRIVATE KEY-----
";

    fn sealed(pem: &str) -> SealedKey {
        match KeyFile::parse(pem).unwrap() {
            KeyFile::Sealed(sealed) => sealed,
            KeyFile::Plain(_) => panic!("it is not encrypted"),
        }
    }

    #[test]
    fn a_key_of_cosign_opens_with_its_password_alone() {
        let key = sealed(OF_COSIGN);
        assert_eq!(key.open(b"secret").unwrap().public().to_pem().unwrap(), ITS_PUBLIC_KEY);
        assert_eq!(key.open(b"").map(|key| key.public()), Err(KeyError::Password));
        let [new, old] = LABELS;
        assert_eq!(sealed(&OF_COSIGN.replace(new, old)).ciphertext, key.ciphertext);
    }

    #[test]
    fn a_key_is_sealed_as_cosign_does() {
        let key = PrivateKey::from_random(&[7; 32]).unwrap();
        let randomness = Randomness { salt: [1; SALT], nonce: [2; NONCE] };
        let pem = key.seal(b"word", &randomness).unwrap();
        let opened = sealed(&pem).open(b"word").unwrap();
        assert_eq!(opened.public(), key.public());
        let parameters = |pem: &str| {
            let (label, json) = pem_rfc7468::decode_vec(pem.as_bytes()).unwrap();
            let Document { kdf: Kdf { name, params, .. }, cipher, ciphertext } =
                serde_json::from_slice(&json).unwrap();
            (label.to_owned(), name, params.n, params.r, params.p, cipher.name, ciphertext.len())
        };
        assert_eq!(parameters(&pem), parameters(OF_COSIGN));
    }

    /// What comes of reading a key of cosign in which something else is written.
    fn changed(from: &str, to: &str) -> String {
        let (label, json) = pem_rfc7468::decode_vec(OF_COSIGN.as_bytes()).unwrap();
        let json = String::from_utf8(json).unwrap();
        let changed = json.replacen(from, to, 1);
        assert_ne!(changed, json);
        let pem = pem_rfc7468::encode_string(label, LineEnding::LF, changed.as_bytes()).unwrap();
        KeyFile::parse(&pem).err().map_or_else(|| "read".to_owned(), |error| error.to_string())
    }

    #[test]
    fn a_hostile_key_costs_nothing() {
        assert_eq!(changed("65536", "32768"), "read");
        insta::assert_snapshot!(changed("65536", "1073741824"), @"scrypt is to run with N 1073741824, r 8 and p 1, as cosign never does");
        insta::assert_snapshot!(changed("\"r\":8", "\"r\":4294967304"), @"scrypt is to run with N 65536, r 4294967304 and p 1, as cosign never does");
        insta::assert_snapshot!(changed("\"p\":1", "\"p\":1000"), @"scrypt is to run with N 65536, r 8 and p 1000, as cosign never does");
        insta::assert_snapshot!(changed("65536", "-1"), @"what is in it is not a key of cosign's: invalid value: integer `-1`, expected u64 at line 1 column 40");
        insta::assert_snapshot!(changed("scrypt", "pbkdf2"), @"it is encrypted by pbkdf2 and nacl/secretbox, and only scrypt with nacl/secretbox is read");
        insta::assert_snapshot!(changed("iRXXZX7H", "iRXX"), @"what is in it is not a key of cosign's: its nonce has another length");
        insta::assert_snapshot!(changed("\"ciphertext\":\"60", "\"ciphertext\":\"!0"), @"what is in it is not a key of cosign's: Invalid symbol 33, offset 0.");
        insta::assert_snapshot!(changed("ciphertext", "x"), @"what is in it is not a key of cosign's: missing field `ciphertext` at line 1 column 405");
    }

    #[test]
    fn a_plain_key_needs_no_password() {
        let KeyFile::Plain(key) = KeyFile::parse(OF_OPENSSL).unwrap() else { panic!("it is encrypted") };
        let signature = key.sign(b"message");
        assert_eq!(key.sign(b"message"), signature, "the same key signs the same bytes the same way");
        assert!(key.public().has_signed(b"message", &signature));
        assert!(!key.public().has_signed(b"massage", &signature));
        for bad in ["", "!", "MAA=", &signature[..20]] {
            assert!(!key.public().has_signed(b"message", bad), "{bad}");
        }
        let other = PublicKey::from_pem(ITS_PUBLIC_KEY).unwrap();
        assert!(!other.has_signed(b"message", &signature));
        assert_eq!(PublicKey::from_pem(&key.public().to_pem().unwrap()), Ok(key.public()));
    }

    #[test]
    fn other_files_are_refused() {
        let private = |pem: &str| KeyFile::parse(pem).err().unwrap().to_string();
        let public = |pem: &str| PublicKey::from_pem(pem).unwrap_err().to_string();
        let of_rsa = OF_OPENSSL.replace("PRIVATE", "RSA PRIVATE");
        insta::assert_snapshot!(private("hello"), @"it is not a key in PEM");
        insta::assert_snapshot!(private(ITS_PUBLIC_KEY), @"it is a public key, and only the private one signs");
        insta::assert_snapshot!(private(&of_rsa), @"it is a `RSA PRIVATE KEY`, which is not read here");
        insta::assert_snapshot!(private(&OF_OPENSSL.replace("MIGHAgEA", "MIGHAgEB")), @"it is not a key of ECDSA on P-256, which is what cosign makes");
        insta::assert_snapshot!(public("hello"), @"it is not a key in PEM");
        insta::assert_snapshot!(public(OF_COSIGN), @"it is a private key, which is nobody else's; a signature is checked with the public one");
        insta::assert_snapshot!(public(OF_OPENSSL), @"it is a private key, which is nobody else's; a signature is checked with the public one");
        insta::assert_snapshot!(public(&ITS_PUBLIC_KEY.replace("MFkwEwYH", "MFkwEwYI")), @"it is not a key of ECDSA on P-256, which is what cosign makes");
    }
}
