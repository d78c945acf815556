//! The index of a release, in its repository: it names the image and all disks of it that have a tag.
//!
//! A registry cannot be asked to put a tag only where it still names what was read. So two machines that
//! push disks of one release write over each other: the index, and the tag of a disk of which each has
//! another platform. Each puts its disks into both, one after the other, and is done once both have all
//! that either has. Who writes over another's entry in the one finds it in the other.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use serde::Serialize;

use super::Session;
use super::build::Made;
use super::versions::{Tags, Untagged, taken};
use crate::disk::DiskFormat;
use crate::hint::{WithHint, hinted};
use crate::oci::annotation::IMAGE_DIGEST;
use crate::oci::merge::{PlatformImages, index, platform_images};
use crate::oci::{Digest, Document, Manifest, Platform, Reference};
use crate::pack::Origin;
use crate::registry::Client;
use crate::release::{self, Kind, Release, ReleasedDisk, Tag};
use crate::workspace::DistroName;

/// How often a release is written that others write at the same time.
const TRIES: usize = 8;

/// A release whose image is in its repository, or about to have its tag there.
pub(super) struct Gathering {
    /// The image's tag.
    system: Reference,
    distro: DistroName,
    version: String,
    image: Document,
    tags: Tags,
}

/// What a tag names.
#[derive(Debug, Serialize)]
pub(super) struct Named {
    reference: String,
    digest: Digest,
}

/// The disks of a release, by their tags and platforms.
type Disks = BTreeMap<(String, Platform), ReleasedDisk>;

impl Named {
    pub(super) fn new(reference: &Reference, document: &Document) -> Named {
        Named { reference: reference.to_string(), digest: document.blob().digest() }
    }
}

impl Gathering {
    pub(super) fn of(made: &Made) -> Gathering {
        Gathering {
            system: made.target.clone(),
            distro: made.distro.clone(),
            version: made.version_name().to_owned(),
            image: made.composition.root.clone(),
            tags: made.tags(),
        }
    }

    /// The release that a disk with the tag `disk` belongs to, where its image is there. A disk of another
    /// image than the one that has the version is refused.
    pub(super) fn of_disk(
        disk: &Reference,
        origin: &Origin,
        (session, registry): (&Session, &Client),
    ) -> Result<Option<Gathering>> {
        let Some(Tag { kind: Kind::Disk(_), distro, version }) = disk.tag().and_then(Tag::parse) else {
            return Ok(None);
        };
        let (version, tags) = (version.to_owned(), Tags::of(version));
        let system = beside(disk, &release::system_tag(&distro, &version));
        let Some(image) = registry.document(&system)? else { return Ok(None) };
        let there = image.blob().digest();
        match (&origin.image, tags) {
            (Some(installed), _) if installed.digest == there => {
                Ok(Some(Gathering { system, distro, version, image, tags }))
            }
            (Some(installed), Tags::Stay) => {
                let error =
                    anyhow!("{system} is released, as {there}, and {disk} is of {}", installed.digest);
                Err(hinted(error, format!("make the disk of that image: '--from {system}'")))
            }
            (Some(_), Tags::Move) => {
                session.progress.line(format!("{disk} is of another image than {system} is now"));
                Ok(None)
            }
            (None, _) => {
                session.progress.line(format!(
                    "nothing says that {disk} is of {system}, so the release does not name it; '--from' says it"
                ));
                Ok(None)
            }
        }
    }

    pub(super) fn tag(&self) -> Reference {
        beside(&self.system, &release::release_tag(&self.distro, &self.version))
    }

    /// The disks that the index has now. That of a version is one image's, and stays so.
    pub(super) fn there(&self, registry: &Client) -> Result<(Option<Digest>, Vec<ReleasedDisk>)> {
        let tag = self.tag();
        let Some(there) = registry.document(&tag)? else { return Ok((None, Vec::new())) };
        let digest = there.blob().digest();
        let ours = self.image.blob().digest();
        match (release::read(there.blob()), self.tags) {
            (Some((image, disks)), _) if image == ours => Ok((Some(digest), disks)),
            (Some((image, _)), Tags::Stay) => Err(taken(&tag, image, ours)),
            (None, Tags::Stay) => {
                Err(anyhow!("{tag} is no release, but {digest}")).hint("remove that tag: it is in the way")
            }
            (Some(_) | None, Tags::Move) => Ok((Some(digest), Vec::new())),
        }
    }

    /// Makes the index name the image, the disks `ours`, and all others of it. `before_put` may refuse.
    pub(super) fn gather(
        &self,
        ours: &[Untagged],
        before_put: &dyn Fn() -> Result<()>,
        registry: &Client,
    ) -> Result<Named> {
        let tag = self.tag();
        for _ in 0..TRIES {
            let (there, mut known) = self.there(registry)?;
            known.extend(ours.iter().map(Untagged::released));
            let mut is_settled = true;
            let mut disks: Disks =
                known.into_iter().map(|disk| ((disk.tag.clone(), disk.platform), disk)).collect();
            for (other, format) in self.disk_tags(registry)? {
                let target = beside(&tag, &other);
                let Some(images) = self.images(&target, &disks, registry)? else { continue };
                let mut merged = images.clone();
                for ((_, platform), disk) in disks.iter().filter(|((tag, _), _)| *tag == other) {
                    merged.entry(*platform).or_insert_with(|| disk.manifest.clone());
                }
                if merged != images {
                    before_put()?;
                    registry.tag(&target, &Document::parse(index(&merged), None)?)?;
                    is_settled = false;
                }
                // What the tag says is what counts.
                disks.extend(merged.into_iter().map(|(platform, manifest)| {
                    let disk = ReleasedDisk { tag: other.clone(), format, platform, manifest };
                    ((other.clone(), platform), disk)
                }));
            }
            let document = self.document(disks)?;
            if there != Some(document.blob().digest()) {
                before_put()?;
                registry.tag(&tag, &document)?;
                is_settled = false;
            }
            if is_settled {
                return Ok(Named::new(&tag, &document));
            }
        }
        Err(anyhow!("others write {tag} all the time")).hint("run the command again")
    }

    fn document(&self, disks: Disks) -> Result<Document> {
        let release = Release {
            distro: self.distro.to_string(),
            version: &self.version,
            tag: self.system.tag().unwrap_or_default(),
            image: self.image.descriptor(),
            disks: disks.into_values().collect(),
        };
        Document::parse(release.index(), None).context("reading back the release manifest")
    }

    /// The tags of disks that have this version.
    fn disk_tags(&self, registry: &Client) -> Result<Vec<(String, DiskFormat)>> {
        let format = |tag: &str| match Tag::parse(tag)? {
            Tag { kind: Kind::Disk(format), distro, version } => {
                (distro == self.distro && version == self.version).then_some(format)
            }
            Tag { kind: Kind::Base | Kind::Release | Kind::System | Kind::Latest, .. } => None,
        };
        let tags = registry.tags(&self.system)?;
        Ok(tags.into_iter().filter_map(|tag| format(&tag).map(|format| (tag, format))).collect())
    }

    /// The disks that a tag names, where all of them are known or say that they are of this image.
    fn images(&self, target: &Reference, known: &Disks, registry: &Client) -> Result<Option<PlatformImages>> {
        let reading = || format!("reading what {target} is now");
        let Some(there) = registry.document(target).with_context(reading)? else { return Ok(None) };
        let config = |manifest: &Manifest| registry.config(target, &manifest.config);
        let images = platform_images(&there, config).with_context(reading)?;
        for (platform, manifest) in &images {
            let key = (target.tag().unwrap_or_default().to_owned(), *platform);
            if known.get(&key).is_some_and(|disk| disk.manifest == *manifest) {
                continue;
            }
            let disk = registry.document_by_digest(target, manifest).with_context(reading)?;
            let annotations = disk.annotations();
            let image = annotations.as_ref().and_then(|all| all.get(IMAGE_DIGEST)?.as_str());
            if image != Some(&*self.image.blob().digest().to_string()) {
                return Ok(None);
            }
        }
        Ok(Some(images))
    }
}

/// Another tag of the same repository.
fn beside(reference: &Reference, tag: &str) -> Reference {
    let (registry, name) = (reference.registry().to_owned(), reference.repository().to_owned());
    Reference::with_tag(registry, name, tag.to_owned())
}
