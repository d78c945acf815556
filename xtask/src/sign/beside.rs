//! The shell of it: what is beside an image in its registry, fetched and added to.

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;

use super::check::{Found, Rejected, Signed, check};
use super::key::{KeyError, PrivateKey, PublicKey};
use super::manifest::{Signatures, append, entries, merge, tag};
use super::payload::{Claim, MAX_PAYLOAD};
use crate::hint::{WithHint, hinted};
use crate::oci::reference::with_tag;
use crate::oci::{Descriptor, Digest, Document, Manifest, Reference, Verified};
use crate::registry::{BlobSource, Client, Push, PushBlob, Until};

/// More signatures than that are not looked at: each is a request.
const MAX_SIGNATURES: usize = 100;

/// How often signatures are written that others write at the same time.
const TRIES: usize = 5;

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
        Beside::at(registry, with_tag(reference, &tag(digest)))
    }

    fn at(registry: &'a Client, place: Reference) -> Result<Beside<'a>> {
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

    /// Sees to it that `key` has signed the image `digest` in the repository of `reference`; gives where,
    /// and whether it had before. No registry can merge what two write at once, so it is looked
    /// before the write what is there, and afterwards whether it is there still.
    pub(crate) fn sign(
        registry: &Client,
        reference: &Reference,
        digest: Digest,
        key: &PrivateKey,
    ) -> Result<(Reference, bool)> {
        let (claim, public) = (Claim::new(reference, digest), key.public());
        for tries in 0..=TRIES {
            let beside = Beside::read(registry, reference, digest)?;
            if beside.check(&claim, &public)?.is_ok() {
                return Ok((beside.place, tries == 0));
            }
            beside.put(&beside.signed(&claim, key)?)?;
        }
        Err(contended(&with_tag(reference, &tag(digest))))
    }

    /// Whether `key` has signed what is claimed; the inner error says why not.
    pub(crate) fn check(&self, claim: &Claim, key: &PublicKey) -> Result<Result<Signed, Rejected>> {
        let found = self.found().with_context(|| format!("reading {}", self.place))?;
        Ok(check(claim, key, &found))
    }

    fn found(&self) -> Result<Vec<Found>> {
        let entries = self.manifest.as_ref().map(entries).unwrap_or_default();
        bounded(entries.len())?;
        // What is larger is none that anybody's key has to be tried on.
        let entries = entries.into_iter().filter(|entry| entry.payload.size <= MAX_PAYLOAD);
        let found = entries.map(|entry| {
            let payload = self.registry.blob(&self.place, &entry.payload, MAX_PAYLOAD)?;
            Ok(Found { payload, signature: entry.signature })
        });
        found.collect()
    }

    /// Sees to it that `place` has the signatures that `ours` has, all of which are in its repository.
    pub(crate) fn merge(registry: &'a Client, place: &Reference, ours: &Manifest) -> Result<()> {
        for _ in 0..=TRIES {
            let beside = Beside::at(registry, place.clone())?;
            match &beside.manifest {
                Some(there) => match merge(there, ours) {
                    Some(signatures) => {
                        // More than that would stop whoever looks for one.
                        bounded(signatures.kept.len() + signatures.added.len())?;
                        beside.put(&beside.store(signatures, None)?)?;
                    }
                    None => return Ok(()),
                },
                None => beside.put(&Document::Manifest(ours.clone()))?,
            }
        }
        Err(contended(place))
    }

    /// What is there with one signature more.
    fn signed(&self, claim: &Claim, key: &PrivateKey) -> Result<Document> {
        let payload = claim.payload();
        let signatures = append(self.manifest.as_ref(), &payload, &key.sign(payload.bytes()));
        self.store(signatures, Some(&payload))
    }

    /// Stores what the tag is to name. Of what it has, `payload` alone is not there yet.
    fn store(&self, signatures: Signatures, payload: Option<&Verified>) -> Result<Document> {
        let there = signatures.kept.iter().chain(&signatures.added).map(|layer| PushBlob {
            descriptor: layer.clone(),
            source: match payload.filter(|payload| payload.digest() == layer.digest) {
                Some(payload) => BlobSource::Bytes(payload),
                None => BlobSource::Registry(self.place.clone()),
            },
        });
        let config = PushBlob {
            descriptor: signatures.config.descriptor(signatures.config_type.clone()),
            source: BlobSource::Bytes(&signatures.config),
        };
        let manifest = signatures.manifest.descriptor(signatures.media_type.clone());
        let push = Push {
            target: self.place.clone(),
            until: Until::Stored,
            manifests: vec![(manifest, signatures.manifest.clone())],
            blobs: there.chain([config]).collect(),
            artifacts: Vec::new(),
        };
        self.registry.push(&push).with_context(|| format!("writing {}", self.place))?;
        let content_type = signatures.media_type.to_string();
        Document::parse(signatures.manifest.clone(), Some(&content_type))
            .context("reading back what was signed")
    }

    /// Makes the tag name `document`, unless somebody has written there since.
    fn put(&self, document: &Document) -> Result<()> {
        let now = Beside::at(self.registry, self.place.clone())?;
        if now.digest() == self.digest() {
            let writing = || format!("writing {}", self.place);
            self.registry.tag(&self.place, document).with_context(writing)?;
        }
        Ok(())
    }

    /// Of what is there.
    fn digest(&self) -> Option<Digest> {
        self.manifest.as_ref().map(|manifest| manifest.blob.digest())
    }
}

fn bounded(signatures: usize) -> Result<()> {
    match signatures > MAX_SIGNATURES {
        true => Err(anyhow!("it has {signatures} signatures, which nobody needs"))
            .hint(format!("remove that tag, and sign anew: {MAX_SIGNATURES} are read")),
        false => Ok(()),
    }
}

fn contended(place: &Reference) -> anyhow::Error {
    let error = anyhow!("{place} was written to by others each time that it was added to");
    hinted(error, "run the command again, alone")
}

/// A wrong key with the file that it is in, and what to do.
pub(crate) fn explained(error: KeyError, path: &std::path::Path) -> anyhow::Error {
    let hint = error.hint();
    hinted(error, hint).context(format!("reading the key {}", path.display()))
}
