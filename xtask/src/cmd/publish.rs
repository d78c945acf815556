//! `base --push`: a base into the project's repository, under its day's tag and under the one that
//! moves.

use anyhow::{Context, Result, anyhow, bail};

use super::Session;
use crate::base::publish::{MAX_A_DAY, Place, dated, place};
use crate::deliver::layout_source;
use crate::hint::WithHint;
use crate::oci::merge::{PlatformImages, index, platform_images};
use crate::oci::{Descriptor, Document, Manifest, Platform, Reference, Timestamp};
use crate::progress::human_bytes;
use crate::registry::{Client, Push, PushBlob, Until};
use crate::release::base_tag;
use crate::report::PushReport;
use crate::store::Store;
use crate::workspace::Distro;
use crate::workspace::settings::Repository;

/// A base that is to be published.
pub(super) struct Publication<'a> {
    distro: &'a Distro,
    store: &'a Store,
    document: &'a Document,
    manifest: &'a Manifest,
    platform: Platform,
    day: Timestamp,
}

impl<'a> Publication<'a> {
    /// The day is the image's own: one image has one day, whoever sends it and whenever. `epoch`
    /// sets another one.
    pub(super) fn new(
        distro: &'a Distro,
        store: &'a Store,
        document: &'a Document,
        epoch: Option<Timestamp>,
    ) -> Result<Publication<'a>> {
        let Document::Manifest(manifest) = document else {
            return Err(anyhow!("the base of {} is no single image", distro.name))
                .hint("make it again with '--force'");
        };
        let config = store.config(&manifest.config)?;
        let platform = config.platform().with_context(|| format!("reading the base of {}", distro.name))?;
        let day = epoch
            .or_else(|| config.created())
            .ok_or_else(|| anyhow!("the base does not say when it was made"))
            .hint("set SOURCE_DATE_EPOCH to the seconds since 1970 that its day's tag is to name")?;
        Ok(Publication { distro, store, document, manifest, platform, day })
    }

    /// Sends it. What a dated tag names for a platform stays; other platforms' images stay under
    /// both tags, in an index.
    pub(super) fn push(
        &self,
        repository: &Repository,
        registry: &Client,
        session: &Session,
    ) -> Result<Vec<PushReport>> {
        let image = self.document.descriptor();
        let mut first_taken = None;
        let mut reports = Vec::new();
        for tag in dated(&self.distro.name, self.day.day()) {
            let target = repository.tagged(&tag);
            let there = images(&target, registry)?;
            match place(&there, (self.platform, &image)) {
                Place::Taken => {
                    first_taken.get_or_insert(target);
                    continue;
                }
                Place::There | Place::Free => {
                    if let Some(taken) = first_taken {
                        session.progress.line(format!(
                            "{taken} is another base of that day and stays: this one is {target}"
                        ));
                    }
                    reports.push(self.send(&target, there, registry, session)?);
                    break;
                }
            }
        }
        if reports.is_empty() {
            return Err(anyhow!("{} has {MAX_A_DAY} other bases of {}", self.distro.name, self.day.day()))
                .hint("set SOURCE_DATE_EPOCH to another day, or remove some of its tags");
        }
        let moving = repository.tagged(&base_tag(&self.distro.name));
        let there = images(&moving, registry)?;
        reports.push(self.send(&moving, there, registry, session)?);
        Ok(reports)
    }

    /// Makes `target`, which names the images `there`, name this one for its platform.
    fn send(
        &self,
        target: &Reference,
        there: PlatformImages,
        registry: &Client,
        session: &Session,
    ) -> Result<PushReport> {
        let mut images = there;
        images.insert(self.platform, self.document.descriptor());
        let mut manifests = vec![(self.document.descriptor(), self.document.blob().clone())];
        if images.len() > 1 {
            let index = Document::parse(index(&images), None)?;
            manifests.push((index.descriptor(), index.blob().clone()));
        }
        let blob = |descriptor| -> Result<PushBlob<'_>> {
            Ok(PushBlob {
                descriptor: Descriptor::clone(descriptor),
                source: layout_source(self.store, descriptor)?,
            })
        };
        let pushed = registry.push(&Push {
            target: target.clone(),
            until: Until::Tagged,
            manifests,
            blobs: self
                .manifest
                .layers
                .iter()
                .chain([&self.manifest.config])
                .map(blob)
                .collect::<Result<_>>()?,
            artifacts: Vec::new(),
        })?;
        session.progress.line(match pushed.unchanged {
            true => format!("{target} is already {}", pushed.digest),
            false => format!("pushed {target}: {}", human_bytes(pushed.sent_bytes)),
        });
        let others: Vec<String> =
            images.keys().filter(|key| **key != self.platform).map(ToString::to_string).collect();
        if !others.is_empty() {
            session.progress.line(format!("{target} has {} beside {}", others.join(", "), self.platform));
        }
        Ok(PushReport::new(&target.to_string(), &pushed))
    }
}

/// What a tag names, platform by platform; nothing where it is not there.
fn images(target: &Reference, registry: &Client) -> Result<PlatformImages> {
    let reading = || format!("reading what {target} is now");
    let Some(document) = registry.document(target).with_context(reading)? else {
        return Ok(PlatformImages::new());
    };
    let config = |manifest: &Manifest| registry.config(target, &manifest.config);
    let images = platform_images(&document, config)
        .hint("a base's tag has to be a bootc image: remove it, or name another repository with '--image'")
        .with_context(reading)?;
    if images.is_empty() {
        bail!("{target} is an index without an image for a platform that can boot");
    }
    Ok(images)
}
