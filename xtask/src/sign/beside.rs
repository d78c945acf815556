//! The shell of it: what is beside an image in its registry, fetched and added to.

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;

use super::check::{Found, Rejected, Signed, check};
use super::key::{KeyError, PrivateKey, PublicKey};
use super::manifest::{append, entries, tag};
use super::payload::{Claim, MAX_PAYLOAD};
use crate::hint::{WithHint, hinted};
use crate::oci::reference::with_tag;
use crate::oci::{Descriptor, Digest, Document, Manifest, Reference};
use crate::registry::{BlobSource, Client, Push, PushBlob, Until};

/// More signatures than that are not looked at: each is a request.
const MAX_SIGNATURES: usize = 100;

/// Which of the images that a reference names is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// What it names, be it an index.
    Top,
    /// The images of an index, too.
    All,
}

/// The digests that are signed for `document`, its own last: once that has a signature, all have.
pub(crate) fn digests(document: &Document, depth: Depth) -> Result<Vec<Digest>> {
    /// All of an index, for platforms that nothing boots on as well.
    #[derive(Deserialize)]
    struct Members {
        manifests: Vec<Descriptor>,
    }

    let mut digests = Vec::new();
    if let (Document::Index(index), Depth::All) = (document, depth) {
        let Members { manifests } =
            serde_json::from_slice(index.blob.bytes()).context("reading the index")?;
        for member in manifests {
            if member.media_type == index.media_type {
                return Err(anyhow!("{} is an index inside an index", member.digest))
                    .hint("sign it by its own digest, and this one without '--recursive'");
            }
            digests.push(member.digest);
        }
    }
    digests.push(document.blob().digest());
    Ok(digests)
}

/// What is beside an image.
pub(crate) struct Beside<'a> {
    registry: &'a Client,
    /// Where the signatures are.
    place: Reference,
    manifest: Option<Manifest>,
}

impl<'a> Beside<'a> {
    /// Looks what is beside the image `digest` in the repository of `reference`.
    pub(crate) fn read(registry: &'a Client, reference: &Reference, digest: Digest) -> Result<Beside<'a>> {
        let place = with_tag(reference, &tag(digest));
        let manifest = match registry.document(&place).with_context(|| format!("reading {place}"))? {
            None => None,
            Some(Document::Manifest(manifest)) => Some(manifest),
            Some(Document::Index(_)) => {
                return Err(anyhow!("{place} is an index, and signatures are in no index"))
                    .hint("remove that tag: no signing program has made it");
            }
        };
        Ok(Beside { registry, place, manifest })
    }

    /// Whether `key` has signed what is claimed; the inner error says why not.
    pub(crate) fn check(&self, claim: &Claim, key: &PublicKey) -> Result<Result<Signed, Rejected>> {
        let found = self.found().with_context(|| format!("reading {}", self.place))?;
        Ok(check(claim, key, &found))
    }

    fn found(&self) -> Result<Vec<Found>> {
        let entries = self.manifest.as_ref().map(entries).unwrap_or_default();
        if entries.len() > MAX_SIGNATURES {
            return Err(anyhow!("it has {} signatures, which nobody needs", entries.len()))
                .hint(format!("remove that tag, and sign anew: {MAX_SIGNATURES} are read"));
        }
        // What is larger is none that anybody's key has to be tried on.
        let entries = entries.into_iter().filter(|entry| entry.payload.size <= MAX_PAYLOAD);
        let found = entries.map(|entry| {
            let payload = self.registry.blob(&self.place, &entry.payload, MAX_PAYLOAD)?;
            Ok(Found { payload, signature: entry.signature })
        });
        found.collect()
    }

    /// Adds a signature. The others stay; two who add theirs at once would lose one, since no
    /// registry can merge them.
    pub(crate) fn add(&self, claim: &Claim, key: &PrivateKey) -> Result<()> {
        let payload = claim.payload();
        let signatures = append(self.manifest.as_ref(), &payload, &key.sign(payload.bytes()));
        let kept = signatures.kept.iter().map(|layer| PushBlob {
            descriptor: layer.clone(),
            source: BlobSource::Registry(self.place.clone()),
        });
        let ours = [
            PushBlob { descriptor: signatures.payload.clone(), source: BlobSource::Bytes(&payload) },
            PushBlob {
                descriptor: signatures.config.descriptor(signatures.config_type.clone()),
                source: BlobSource::Bytes(&signatures.config),
            },
        ];
        let manifest = signatures.manifest.descriptor(signatures.media_type.clone());
        let push = Push {
            target: self.place.clone(),
            until: Until::Tagged,
            manifests: vec![(manifest, signatures.manifest.clone())],
            blobs: kept.chain(ours).collect(),
            artifacts: Vec::new(),
        };
        self.registry.push(&push).with_context(|| format!("writing {}", self.place)).map(|_| ())
    }

    /// Where the signatures are.
    pub(crate) fn place(&self) -> &Reference {
        &self.place
    }
}

/// A wrong key with the file that it is in, and what to do.
pub(crate) fn explained(error: KeyError, path: &std::path::Path) -> anyhow::Error {
    let hint = error.hint();
    hinted(error, hint).context(format!("reading the key {}", path.display()))
}
