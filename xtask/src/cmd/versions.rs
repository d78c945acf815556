//! The versions of releases: which one is next, and tags that are put once.
//!
//! A registry cannot be asked to put a tag only where there is none, so two runs could take one
//! number. Who takes the next one claims it first: a tag of the distro, which is no release's,
//! names what only this run can have written. It is read again before each tag is put, and
//! afterwards. Of two runs, the one that claimed last finds the other's tag, or the other finds that
//! its claim is gone; never do both end well. Who finds that after its last tag gives it back.

use std::hash::{BuildHasher, Hasher, RandomState};

use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use serde_json::json;

use super::Session;
use super::build::Made;
use super::gather::{Gathering, Named};
use crate::disk::DiskFormat;
use crate::git;
use crate::hint::{WithHint, hinted};
use crate::oci::artifact::empty;
use crate::oci::merge::{index, platform_images};
use crate::oci::{Digest, Document, Manifest, MediaType, Platform, Reference, Verified};
use crate::registry::{BlobSource, Client, Push, PushBlob, Until};
use crate::release::{self, AskedVersion, ReleasedDisk};
use crate::workspace::DistroName;
use crate::workspace::settings::Repository;

/// What a claim is. Source: image-spec, manifest.md, "Guidelines for Artifact Usage".
const CLAIM: &str = "application/vnd.bootc-testboot.claim";
const CLAIMED_TAG: &str = "bootc-testboot.claim.tag";
const CLAIMED_FOR: &str = "bootc-testboot.claim.digest";
const CLAIMED_BY: &str = "bootc-testboot.claim.run";

/// The version that was asked for, by name.
pub(super) fn named(
    asked: &AskedVersion,
    distro: &DistroName,
    repository: &Repository,
    (session, registry): (&Session, &Client),
) -> Result<String> {
    match asked {
        AskedVersion::Named(name) => Ok(name.clone()),
        AskedVersion::Git => {
            let tag = git::tag(&session.root)?;
            match tag.parse() {
                Ok(AskedVersion::Named(name)) => Ok(name),
                Ok(AskedVersion::Next | AskedVersion::Git) => Err(anyhow!("`{tag}` means something else")),
                Err(error) => Err(error.into()),
            }
            .with_context(|| format!("taking the git tag {tag} as the version"))
            .hint("give the commit another tag, or name the version: '--app-version v1'")
        }
        AskedVersion::Next => {
            let tags = registry
                .tags(&repository.tagged(&release::latest_tag(distro)))
                .with_context(|| format!("asking {repository} which version is the last"))
                .hint("name the version: '--app-version v1'")?;
            let version = release::next(distro, &tags).hint("name the version: '--app-version v1'")?;
            session.progress.line(format!("the next version of {distro} in {repository} is {version}"));
            Ok(version)
        }
    }
}

/// Whether a tag's meaning may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tags {
    /// A version's.
    Stay,
    /// Those of what has no version.
    Move,
}

/// A release on its way into its repository, where no tag names it yet.
pub(super) struct Publication<'a> {
    made: &'a Made,
    registry: &'a Client,
    claim: Option<Claim>,
}

/// A packed disk that is in the repository and has no tag yet.
#[derive(Clone, Debug)]
pub(super) struct Untagged {
    pub(super) tag: Reference,
    pub(super) format: DiskFormat,
    pub(super) platform: Platform,
    pub(super) document: Document,
}

/// What tags name now, beside the image's own.
#[derive(Debug, Serialize)]
pub(super) struct Published {
    /// The manifest that names the image and its disks, where there are disks.
    #[serde(skip_serializing_if = "Option::is_none")]
    release: Option<Named>,
    /// The tag that moves to each release, where it moved to this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    latest: Option<Named>,
}

impl Untagged {
    /// Gives a disk its tag. That of a version keeps what it names; what another machine writes into it at
    /// the same time comes back when the release is gathered.
    pub(super) fn put(&self, tags: Tags, registry: &Client) -> Result<()> {
        TagChange::of_disk(self, tags, registry)?.carry_out(Tags::Move, registry)
    }

    /// As the release names it.
    pub(super) fn released(&self) -> ReleasedDisk {
        ReleasedDisk {
            tag: self.tag.tag().unwrap_or_default().to_owned(),
            format: self.format,
            platform: self.platform,
            manifest: self.document.descriptor(),
        }
    }
}

impl Tags {
    /// Those of a version, or of what has none.
    pub(super) fn of(version: &str) -> Tags {
        if version == release::UNVERSIONED { Tags::Move } else { Tags::Stay }
    }
}

impl<'a> Publication<'a> {
    /// Refuses a version that is another image's, before anything is sent.
    pub(super) fn begin(made: &'a Made, registry: &'a Client) -> Result<Publication<'a>> {
        TagChange::of_image(made, registry)?;
        let claim = match made.asked {
            Some(AskedVersion::Next) => Some(Claim::put(made, registry)?),
            Some(AskedVersion::Git | AskedVersion::Named(_)) | None => None,
        };
        Ok(Publication { made, registry, claim })
    }

    /// Gives all of it its tags: the disks first, then what names them all, then the image, and at
    /// last the tag that moves to each release. All that has a tag is there by its digest.
    pub(super) fn finish(self, disks: &[Untagged], session: &Session) -> Result<Published> {
        let Publication { made, registry, claim } = self;
        let image = &made.composition.root;
        let check = || claim.as_ref().map_or(Ok(()), |claim| claim.check(made, registry));
        // All that is refused is, before the first tag is put.
        let change = TagChange::of_image(made, registry)?;
        let gathering = Gathering::of(made);
        for disk in disks {
            TagChange::of_disk(disk, made.tags(), registry)?;
        }
        if !disks.is_empty() {
            gathering.there(registry)?;
        }
        for disk in disks {
            check()?;
            disk.put(made.tags(), registry)?;
        }
        let mut published = Published { release: None, latest: None };
        if !disks.is_empty() {
            published.release = Some(gathering.gather(disks, &check, registry)?);
        }
        check()?;
        change.carry_out(made.tags(), registry)?;
        if let Some(claim) = &claim {
            claim.check(made, registry).or_else(|error| {
                claim.give_back(made, registry)?;
                Err(error)
            })?;
        }
        let Some(version) = &made.version else { return Ok(published) };
        let latest = made.repository.tagged(&release::latest_tag(&made.distro));
        if !release::is_latest(version, &made.distro, &registry.tags(&latest)?) {
            session.progress.line(format!("{latest} stays: {version} is not the last release"));
            return Ok(published);
        }
        let change = TagChange::whole(latest, image.clone(), Tags::Move, registry)?;
        change.carry_out(Tags::Move, registry)?;
        let latest = change.tag;
        session.progress.line(format!("{latest} is {version} now"));
        published.latest = Some(Named::new(&latest, image));
        Ok(published)
    }
}

/// What a tag is to name.
pub(super) struct TagChange {
    tag: Reference,
    document: Document,
    /// What it names before.
    before: Option<Digest>,
}

impl TagChange {
    fn of_image(made: &Made, registry: &Client) -> Result<TagChange> {
        TagChange::whole(made.target.clone(), made.composition.root.clone(), made.tags(), registry)
    }

    /// The same of any tag, which nothing else is added to.
    pub(super) fn whole(
        tag: Reference,
        document: Document,
        tags: Tags,
        registry: &Client,
    ) -> Result<TagChange> {
        let before = digest_of(&tag, registry)?;
        match before {
            Some(there) if tags == Tags::Stay && there != document.blob().digest() => {
                Err(taken(&tag, there, document.blob().digest()))
            }
            Some(_) | None => Ok(TagChange { tag, document, before }),
        }
    }

    fn of_disk(disk: &Untagged, tags: Tags, registry: &Client) -> Result<TagChange> {
        let there =
            registry.document(&disk.tag).with_context(|| format!("reading what {} is now", disk.tag))?;
        let before = there.as_ref().map(|there| there.blob().digest());
        let document = placed(disk, there, tags, registry)?;
        Ok(TagChange { tag: disk.tag.clone(), document, before })
    }

    /// Puts the tag, unless it names that already. Where it stays, nobody may have put it meanwhile.
    pub(super) fn carry_out(&self, tags: Tags, registry: &Client) -> Result<()> {
        let TagChange { tag, document, before } = self;
        let ours = document.blob().digest();
        let now = match tags {
            Tags::Stay => digest_of(tag, registry)?,
            Tags::Move => *before,
        };
        match now {
            Some(there) if there == ours => Ok(()),
            Some(there) if now != *before => Err(taken(tag, there, ours)),
            Some(_) | None => registry.tag(tag, document),
        }
    }
}

fn digest_of(tag: &Reference, registry: &Client) -> Result<Option<Digest>> {
    Ok(registry.document(tag)?.map(|there| there.blob().digest()))
}

pub(super) fn taken(tag: &Reference, there: Digest, ours: Digest) -> anyhow::Error {
    let error = anyhow!("{tag} is released, as {there}, and this is {ours}");
    hinted(error, "a version never changes: choose another, such as '--app-version next'")
}

/// What a disk's tag is to name: the disk, in an index with those of other platforms that it names
/// already.
fn placed(disk: &Untagged, there: Option<Document>, tags: Tags, registry: &Client) -> Result<Document> {
    let Untagged { tag, platform, document, .. } = disk;
    let reading = || format!("reading what {tag} is now");
    let Some(there) = there else { return Ok(document.clone()) };
    let ours = document.descriptor();
    let config = |manifest: &Manifest| registry.config(tag, &manifest.config);
    let mut images = match (platform_images(&there, config), tags) {
        (Ok(images), _) => images,
        (Err(error), Tags::Stay) => return Err(error).with_context(reading),
        (Err(_), Tags::Move) => return Ok(document.clone()),
    };
    match images.insert(*platform, ours.clone()) {
        Some(old) if old == ours => return Ok(there),
        Some(old) if tags == Tags::Stay => return Err(taken(tag, old.digest, ours.digest)),
        Some(_) | None => {}
    }
    match images.len() {
        1 => Ok(document.clone()),
        _ => Ok(Document::parse(index(&images), None)?),
    }
}

/// What a run writes to be the only one that takes a number.
struct Claim {
    tag: Reference,
    digest: Digest,
}

impl Claim {
    fn put(made: &Made, registry: &Client) -> Result<Claim> {
        // No distro's name begins so, and no version's tag.
        let tag = made.repository.tagged(&format!("_claim-{}", made.distro));
        // The keys of a fresh state are random: no other run has them.
        let run = format!("{:016x}", RandomState::new().build_hasher().finish());
        let (descriptor, empty) = empty();
        let claim = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageManifest,
            "artifactType": CLAIM,
            "config": descriptor,
            "layers": [descriptor],
            "annotations": {CLAIMED_TAG: made.tag, CLAIMED_FOR: made.composition.root.blob().digest(), CLAIMED_BY: run},
        });
        let claim = Verified::own(claim.to_string().into_bytes());
        let digest = claim.digest();
        registry
            .push(&Push {
                target: tag.clone(),
                until: Until::Tagged,
                artifacts: Vec::new(),
                manifests: vec![(claim.descriptor(MediaType::ImageManifest), claim)],
                blobs: vec![PushBlob { descriptor, source: BlobSource::Bytes(&empty) }],
            })
            .with_context(|| format!("claiming {}", made.tag))?;
        Ok(Claim { tag, digest })
    }

    /// Whether no other run has claimed a number since.
    fn check(&self, made: &Made, registry: &Client) -> Result<()> {
        match registry.document(&self.tag)? {
            Some(there) if there.blob().digest() == self.digest => Ok(()),
            Some(_) | None => Err(anyhow!("another run has taken {} while this one worked", made.tag))
                .hint("run the command again, for the number behind it"),
        }
    }

    /// Makes the tag name what the run that claimed it after this one has for it, if that is there: it
    /// may have ended well just before this one put the tag.
    fn give_back(&self, made: &Made, registry: &Client) -> Result<()> {
        let claim = registry.document(&self.tag)?.and_then(|claim| claim.annotations());
        let said = |key: &str| claim.as_ref()?.get(key)?.as_str();
        let (Some(tag), Some(digest)) = (said(CLAIMED_TAG), said(CLAIMED_FOR)) else { return Ok(()) };
        let digest: Digest = match digest.parse() {
            Ok(digest) if tag == made.tag => digest,
            Ok(_) | Err(_) => return Ok(()),
        };
        let theirs = registry.document(&made.repository.addressed(digest))?;
        theirs.map_or(Ok(()), |theirs| registry.tag(&made.target, &theirs))
    }
}
