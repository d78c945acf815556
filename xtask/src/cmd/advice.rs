//! What `build` and `dist` say about the base that they build on: nothing that stops them.

use std::path::Path;

use anyhow::Result;

use super::Session;
use super::base::{has_image, local};
use crate::base::advice::{self, Named, Remake, Situation, Twin, advise, newer, rebased};
use crate::base::{self, ResolvedBase, container};
use crate::oci::reference::with_tag;
use crate::oci::{Base, ImageName, Reference};
use crate::registry::Client;
use crate::release::base_tag;
use crate::source::Source;
use crate::store::Store;
use crate::workspace::settings::Repository;
use crate::workspace::{DistroName, Workspace};

/// What is built on.
#[derive(Clone, Copy)]
pub(super) struct Ground<'a> {
    pub(super) name: &'a ImageName,
    pub(super) base: &'a ResolvedBase,
    /// Where the project's own bases are.
    pub(super) published: &'a Repository,
}

/// Warns of what whoever builds on a base should know.
pub(super) fn warn(ground: Ground<'_>, workspace: &Workspace, registry: &Client, session: &Session) {
    let Ground { name, base, published } = ground;
    let tagged = match name {
        ImageName::Registry(reference) if reference.digest().is_some() => {
            reference.tag().map(|tag| with_tag(reference, tag))
        }
        ImageName::Registry(_) | ImageName::Layout { .. } => None,
    };
    let named = tagged.as_ref().and_then(|tag| match container::ask(tag, registry, "check the tag") {
        Ok(now) => Some(Named { tag, digest: base.digest, now }),
        // The image is there, by its digest: what became of its tag must not stop anybody.
        Err(error) => {
            session.progress.warn(format!("whether {tag} has moved is not known: {error:#}"));
            None
        }
    });
    let Some(image) = base.images.first() else { return };
    let is_published = |reference: &Reference| {
        (reference.registry(), reference.repository()) == (published.registry(), published.name())
    };
    let situation = Situation {
        base: image,
        named,
        distros: &workspace.distros,
        needs: &advice::needs(workspace),
        remake: match &base.reference {
            Some(reference) if is_published(reference) => Remake::Published(published),
            Some(_) | None => Remake::Local,
        },
    };
    for advice in advise(&situation) {
        session.progress.warn(advice.to_string());
    }
}

/// Warns where `distro`'s other base, the local one or the one in `published`, is newer than the
/// one that is built on.
pub(super) fn warn_of_newer(ground: Ground<'_>, distro: &DistroName, registry: &Client, session: &Session) {
    let Ground { name, base, published } = ground;
    let here = local(distro, session);
    let there = published.tagged(&base_tag(distro));
    let Some(image) = base.images.first() else { return };
    let shown_here = session.shown_name(&here);
    let (other, shown, remedy) = match name {
        ImageName::Registry(reference) if *reference == there && has_image(&here) => {
            let publish = Remake::Published(published).command(distro);
            let remedy = format!("'{publish}' publishes it, '--base {shown_here}' builds on it");
            (here, shown_here, remedy)
        }
        ImageName::Layout { dir, .. } if is_same_folder(dir, &here) => {
            let there = ImageName::Registry(there);
            (there.clone(), there, format!("'--distro {distro}' without '--base' builds on it"))
        }
        ImageName::Registry(_) | ImageName::Layout { .. } => return,
    };
    let read = || -> Result<Base> {
        let source = Source::open(&other, registry)?;
        base::image(&other, &source, image.platform, registry)
    };
    match read() {
        Ok(other) => {
            let (this, other) = (Twin { name, base: image }, Twin { name: &shown, base: &other });
            if let Some(advice) = newer(&this, &other, || remedy) {
                session.progress.warn(advice.to_string());
            }
        }
        Err(error) => {
            session.progress.line(format!("whether {shown} is newer is not known: {error:#}"));
        }
    }
}

/// Warns where the image `name`, which is about to be replaced, was built on what the tag of `base`
/// named before.
pub(super) fn warn_of_rebase(name: &ImageName, base: &ResolvedBase, registry: &Client, session: &Session) {
    let Some(tag) = &base.reference else { return };
    let document = match name {
        layout @ ImageName::Layout { dir, tag: Some(tag) } if has_image(layout) => {
            Store::open(dir).and_then(|store| match store.tags()?.contains(tag) {
                true => store.document(Some(tag)).map(Some),
                false => Ok(None),
            })
        }
        ImageName::Layout { .. } => return,
        ImageName::Registry(reference) => registry.document(reference),
    };
    match document {
        Ok(Some(document)) => {
            let annotations = document.annotations();
            let name = session.shown_name(name);
            if let Some(advice) = rebased(&name, annotations.as_ref(), tag, base.digest) {
                session.progress.warn(advice.to_string());
            }
        }
        Ok(None) => {}
        // Whoever replaces it says what is wrong.
        Err(error) => session.progress.line(format!("what {name} was built on is not known: {error:#}")),
    }
}

fn is_same_folder(dir: &Path, name: &ImageName) -> bool {
    let ImageName::Layout { dir: other, .. } = name else { return false };
    match (dir.canonicalize(), other.canonicalize()) {
        (Ok(dir), Ok(other)) => dir == other,
        (Ok(_) | Err(_), _) => false,
    }
}
