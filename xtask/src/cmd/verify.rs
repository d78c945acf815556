//! `verify`: whether an image is signed by a key, and what is attached to it is about it; no layer
//! is fetched.

use anyhow::{Context, Result, anyhow};
use serde::Serialize;

use super::referrers::{self, ReferrerReport};
use super::{Session, sign};
use crate::flags::Verify;
use crate::hint::hinted;
use crate::oci::{Digest, ImageName, MediaType};
use crate::sign::{self as signing, Beside, Claim, PublicKey, Rejected, Signed};
use crate::source::Source;

/// What was found to be signed. Keys may be added, none renamed.
#[derive(Debug, Serialize)]
struct Report {
    reference: String,
    /// What the reference names.
    digest: Digest,
    media_type: MediaType,
    /// The images of an index come first.
    signatures: Vec<SignatureReport>,
    /// The SBOMs and the provenance that are attached to the images, each about its own.
    referrers: Vec<ReferrerReport>,
}

#[derive(Debug, Serialize)]
struct SignatureReport {
    digest: Digest,
    /// The repository that it is signed for.
    repository: String,
    /// The digest of what was signed.
    payload: Digest,
}

pub(crate) fn run(flags: &Verify, session: &Session) -> Result<()> {
    let Verify { image, key: path, .. } = flags;
    let key = PublicKey::from_pem(&sign::read_key(path)?).map_err(|error| signing::explained(error, path))?;
    let registry = session.registry()?;
    let source = Source::open(&ImageName::Registry(image.clone()), &registry)?;
    let signed_for = flags.signed_for.as_ref().map(|repository| repository.tagged("latest"));
    let signed_for = signed_for.as_ref().unwrap_or(image);
    let root = source.document.descriptor();
    let (mut signatures, mut referrers) = (Vec::new(), Vec::new());
    for digest in signing::digests(&source.document, flags.depth())? {
        let beside = Beside::read(&registry, image, digest)?;
        let checked = beside.check(&Claim::new(signed_for, digest), &key)?;
        let context = || match digest == root.digest {
            true => format!("{image} does not pass"),
            false => format!("{image} does not pass: its image {digest}"),
        };
        let signed = match checked {
            Ok(signed) => signed,
            Err(Rejected::Unsigned) if referrers::has_bundle(image, digest, &registry)? => {
                return Err(bundled(flags)).with_context(context);
            }
            Err(why) => return Err(explained(why, flags)).with_context(context),
        };
        signatures.push(signed);
        referrers.extend(referrers::check(image, digest, &registry).with_context(context)?);
    }
    session.progress.line(format!("{image} is signed by {}", path.display()));
    let report = Report {
        reference: image.to_string(),
        digest: root.digest,
        media_type: root.media_type,
        signatures: signatures.iter().map(SignatureReport::new).collect(),
        referrers,
    };
    session.print(&report, || root.digest.to_string())
}

impl SignatureReport {
    fn new(signed: &Signed) -> SignatureReport {
        SignatureReport {
            digest: signed.digest(),
            repository: signed.repository().to_owned(),
            payload: signed.payload(),
        }
    }
}

/// What somebody has attached may be a signature by a key, or by none, or say something else of the image.
fn bundled(flags: &Verify) -> anyhow::Error {
    let (image, key) = (&flags.image, flags.key.display());
    let error =
        "it has no signature under a tag, where hosts look, but a Sigstore bundle, which is not read here";
    hinted(
        anyhow!(error),
        format!(
            "'cosign verify --new-bundle-format --key {key} {image}' reads it; for hosts, run 'cargo xtask sign {image}' where its private key is"
        ),
    )
}

/// Why an image does not pass, and what to do.
fn explained(why: Rejected, flags: &Verify) -> anyhow::Error {
    let hint = match &why {
        Rejected::Unsigned => {
            format!("run 'cargo xtask sign {}' where its private key is", flags.image)
        }
        Rejected::OtherKey(_) => "name the key that it was signed with, or sign it with this one".to_owned(),
        Rejected::Payload(_) | Rejected::OtherImage(_) => {
            "do not use it; if it is yours, sign it anew".to_owned()
        }
        Rejected::OtherRepository { found, .. } => {
            format!("where it is meant to be a copy of that, say '--signed-for {found}'")
        }
    };
    hinted(why, hint)
}
