//! `build`: the image alone, into a layout or a registry.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, anyhow};

use super::Session;
use super::advice::{self, Ground};
use super::versions::{self, Publication, Tags};
use crate::base::{self, ResolvedBase};
use crate::build::{self, Go};
use crate::compose::{self, Composition};
use crate::deliver::{BaseLayers, Delivery, Stored};
use crate::disk::DiskFormat;
use crate::flags::{Build, Compose, Deliver};
use crate::git;
use crate::hint::WithHint;
use crate::oci::append::Provenance;
use crate::oci::reference::is_tag;
use crate::oci::{Digest, ImageName, Platform, Reference};
use crate::preflight::Need;
use crate::registry::{Client, Pushed, Until};
use crate::release::{self, AskedVersion, UNVERSIONED};
use crate::report::{self, BaseReport, ImageReport, PushReport};
use crate::store::{Completeness, LAYOUT, Store};
use crate::workspace::settings::Repository;
use crate::workspace::{DistroName, Workspace};

pub(crate) fn run(flags: &Build, session: &Session) -> Result<()> {
    let registry = session.registry()?;
    if flags.deliver.push {
        check_push(&flags.compose, session, &registry)?;
    }
    let made = make(&flags.compose, &flags.deliver, session, &registry)?;
    let publication = flags.deliver.push.then(|| Publication::begin(&made, &registry)).transpose()?;
    let base_layers = flags.deliver.base_layers();
    let default = ImageName::Layout { dir: session.dist_dir().join("oci"), tag: None };

    let mut report = match flags.to.as_ref().unwrap_or(&default) {
        ImageName::Layout { dir, tag } => {
            let tag = tag.as_deref().unwrap_or(&made.tag);
            let name = ImageName::Layout { dir: dir.clone(), tag: Some(tag.to_owned()) };
            advice::warn_of_rebase(&name, &made.base, &registry, session);
            let stored = made.store(&Store::create(dir)?, tag, base_layers, session, &registry)?;
            made.report(session.shown_name(&name).to_string(), Some(&stored), None)
        }
        name @ ImageName::Registry(target) => {
            refuse_official(target)?;
            advice::warn_of_rebase(name, &made.base, &registry, session);
            let pushed = made.push(target, Until::Tagged, (&registry, session))?;
            made.report(target.to_string(), None, Some(&pushed))
        }
    };
    if let Some(publication) = publication {
        let pushed = made.push(&made.target, Until::Stored, (&registry, session))?;
        publication.finish(&[], session)?;
        report = ImageReport { pushed: Some(PushReport::new(&made.target.to_string(), &pushed)), ..report };
    }
    session.print(&report, || report.digest.to_string())
}

/// Makes sure that the project's repository can be reached and takes what is pushed, before anything
/// slow.
pub(super) fn check_push(flags: &Compose, session: &Session, registry: &Client) -> Result<()> {
    refuse_nameless(flags)?;
    let settings = session.workspace()?.settings;
    let repository = flags.image.as_ref().unwrap_or(&settings.image);
    registry.check_push(&repository.tagged(UNVERSIONED))
}

/// Refuses to push what no distro's name is known of.
fn refuse_nameless(flags: &Compose) -> Result<()> {
    match (&flags.base, &flags.distro) {
        (Some(base), None) => {
            Err(anyhow!("{base} may be any distro's, and the tag that is pushed begins with its name"))
                .hint("name it with '--distro', or say the whole name with 'cargo xtask build --to REF'")
        }
        (Some(_) | None, _) => Ok(()),
    }
}

/// Where a name without a slash leads. Source: distribution/reference, `officialRepoPrefix`.
const OFFICIAL: &str = "library/";

/// What was written, of a name without a slash.
fn official(reference: &Reference) -> Option<&str> {
    reference.repository().strip_prefix(OFFICIAL).filter(|_| reference.registry() == "docker.io")
}

/// Refuses what is most likely meant as a folder.
pub(super) fn refuse_official(target: &Reference) -> Result<()> {
    match official(target) {
        None => Ok(()),
        Some(name) => Err(anyhow!("{target} is among the images that Docker alone publishes"))
            .hint(format!("a folder is written 'oci:{name}'")),
    }
}

/// An image that was composed, and what it is to be called.
pub(crate) struct Made {
    pub(crate) composition: Composition,
    pub(crate) base: ResolvedBase,
    pub(crate) distro: DistroName,
    /// `<distro>-<version>`.
    pub(crate) tag: String,
    /// The project's own repository, with that tag.
    pub(crate) target: Reference,
    pub(crate) repository: Repository,
    pub(crate) version: Option<String>,
    /// How the version was named.
    pub(crate) asked: Option<AskedVersion>,
}

/// From folders to an image: discover, find the base, build, compose.
pub(crate) fn make(flags: &Compose, deliver: &Deliver, session: &Session, registry: &Client) -> Result<Made> {
    make_of(&session.workspace()?, flags, deliver, (session, registry))
}

/// The same, of a workspace that was read, and may have been changed since.
pub(super) fn make_of(
    workspace: &Workspace,
    flags: &Compose,
    deliver: &Deliver,
    (session, registry): (&Session, &Client),
) -> Result<Made> {
    if deliver.push {
        refuse_nameless(flags)?;
    }
    let query = flags.distro.clone().unwrap_or_else(|| (&workspace.settings.distro).into());
    let distro = workspace.distro_name(&query).own_hint(|unknown| unknown.hint())?;
    // In one order, whatever theirs was: the index's digest depends on it.
    let asked: BTreeSet<Platform> = flags.platform.iter().copied().collect();
    let platforms: Vec<Platform> =
        if asked.is_empty() { vec![Platform::host()] } else { asked.into_iter().collect() };
    let repository = flags.image.as_ref().unwrap_or(&workspace.settings.image);
    let asked = flags.app_version.as_ref();
    let named = |asked| versions::named(asked, &distro, repository, (session, registry));
    let version = asked.map(named).transpose()?;
    let version = version.as_deref();
    let needs: &[Need] = if workspace.apps.is_empty() {
        session.progress.warn("there is no app: no folder in apps/ has a go.mod");
        &[]
    } else {
        &[build::GO]
    };

    let tag = format!("{distro}-{}", version.unwrap_or(UNVERSIONED));
    if !is_tag(&tag) {
        return Err(anyhow!("`{tag}` cannot be the tag of an image: at most 128 characters are allowed"))
            .hint("choose a shorter '--app-version'");
    }
    let revision = git::revision(&session.root).unwrap_or_else(|error| {
        session.progress.warn(format!("the image will not say which commit it is made from: {error:#}"));
        None
    });

    let opened = match &flags.base {
        Some(name) => {
            refuse_folder(name)?;
            base::open(name.clone(), registry)?
        }
        None => {
            let distro = super::base::find(&query, workspace, session)?;
            super::base::open(distro, repository, needs, (registry, session))?
        }
    };
    session.ensure(needs)?;
    let base_name = opened.name.clone();
    let base = base::resolve(opened, &platforms, registry)?;
    let ground = Ground { name: &base_name, base: &base, published: repository };
    advice::warn(ground, workspace, registry, session);
    // Only a push asks a registry about a base that is here.
    if matches!(base_name, ImageName::Registry(_)) || flags.base.is_some() && deliver.push {
        advice::warn_of_newer(ground, &distro, registry, session);
    }
    let binaries = match &workspace.apps[..] {
        [] => Vec::new(),
        apps => Go::find(session.cache("go"))?.build_all(apps, &platforms, version, &session.progress)?,
    };
    let settings = compose::Settings {
        compression: flags.compression,
        created: flags.source_date_epoch,
        provenance: Provenance {
            base_name: base.reference.as_ref().map(Reference::to_string),
            version: version.map(str::to_owned),
            revision,
            source: workspace.settings.source.clone(),
        },
    };
    let composition = compose::compose(workspace, &binaries, &base, &settings)?;

    let target = repository.tagged(&tag);
    let (repository, version) = (repository.clone(), version.map(str::to_owned));
    Ok(Made { composition, base, distro, tag, target, repository, version, asked: asked.cloned() })
}

/// Refuses a name that is a layout's here, but for its `oci:`: without it, it would be looked for at
/// Docker Hub, as the names are that name no registry.
fn refuse_folder(name: &ImageName) -> Result<()> {
    let ImageName::Registry(reference) = name else { return Ok(()) };
    let folder = Path::new(official(reference).unwrap_or(reference.repository()));
    if reference.registry() == "docker.io" && folder.join(LAYOUT).is_file() {
        return Err(anyhow!("{} is a folder here, and {reference} an image in a registry", folder.display()))
            .hint(format!("write 'oci:{}'", folder.display()));
    }
    Ok(())
}

impl Made {
    pub(crate) fn store(
        &self,
        store: &Store,
        tag: &str,
        base_layers: BaseLayers,
        session: &Session,
        registry: &Client,
    ) -> Result<Stored> {
        let stored = self.delivery(session, registry).to_layout(store, tag, base_layers)?;
        if let Completeness::LayersIn(place) = &stored.completeness {
            session.progress.line(format!("the base's layers stay in {place}; '--full' fetches them"));
        }
        Ok(stored)
    }

    /// The tag of a packed disk of it.
    pub(crate) fn disk_tag(&self, format: DiskFormat) -> String {
        release::disk_tag(&self.distro, format, self.version_name())
    }

    /// What its tags end in.
    pub(super) fn version_name(&self) -> &str {
        self.version.as_deref().unwrap_or(UNVERSIONED)
    }

    pub(super) fn tags(&self) -> Tags {
        if self.version.is_some() { Tags::Stay } else { Tags::Move }
    }

    pub(crate) fn push(
        &self,
        target: &Reference,
        until: Until,
        (registry, session): (&Client, &Session),
    ) -> Result<Pushed> {
        let pushed = self.delivery(session, registry).to_registry(target, until)?;
        session.progress.line(match pushed.unchanged {
            true => format!("{target} is already {}", pushed.digest),
            false => format!(
                "sent {target}: {} in {} requests, {} layers and configs sent, {} mounted",
                crate::progress::human_bytes(pushed.sent_bytes),
                pushed.requests,
                pushed.uploaded.len(),
                pushed.mounted
            ),
        });
        Ok(pushed)
    }

    fn delivery<'a>(&'a self, session: &'a Session, registry: &'a Client) -> Delivery<'a> {
        Delivery { composition: &self.composition, base: &self.base, registry, progress: &session.progress }
    }

    /// What was made, under the name `reference`. Layers are reused unless they had to be written
    /// or sent.
    pub(crate) fn report(
        &self,
        reference: String,
        stored: Option<&Stored>,
        pushed: Option<&Pushed>,
    ) -> ImageReport {
        let is_new = |digest: Digest| match stored {
            Some(stored) => stored.written.contains(&digest),
            None => pushed.is_some_and(|pushed| pushed.uploaded.contains(&digest)),
        };
        let platforms = report::platforms(&self.composition, is_new);
        let root = self.composition.root.descriptor();
        ImageReport {
            digest: root.digest,
            media_type: root.media_type,
            version: self.version.clone(),
            base: BaseReport {
                reference: self.base.reference.as_ref().map(Reference::to_string),
                digest: self.base.digest,
            },
            layers: platforms.first().map(|platform| platform.layers.clone()).unwrap_or_default(),
            platforms,
            whole: stored.map(|stored| stored.completeness == Completeness::Whole),
            pushed: pushed.map(|pushed| PushReport::new(&reference, pushed)),
            reference,
        }
    }
}
