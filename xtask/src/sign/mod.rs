//! Signatures of images, as cosign makes and finds them: a key, what it signs, and the image beside
//! the signed one that the signatures are in.
//!
//! Bytes in, bytes out: files, terminals and random bytes are others' work, and `beside` alone speaks
//! to registries. Source: sigstore's cosign, specs/SIGNATURE_SPEC.md.

mod beside;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
mod check;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
mod key;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
mod manifest;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
mod payload;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
mod sealed;

pub(crate) use beside::{Beside, Depth, digests, explained};
pub(crate) use check::{Rejected, Signed};
pub(crate) use key::{PrivateKey, PublicKey};
pub(crate) use payload::Claim;
pub(crate) use sealed::{KeyFile, Randomness};
