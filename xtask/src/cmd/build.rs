//! `build`: the image alone, into a layout or a registry.

use anyhow::{Context, Result, anyhow};

use super::Session;
use crate::base::{self, ResolvedBase};
use crate::build::{self, Go};
use crate::compose::{self, Composition};
use crate::deliver::{self, BaseLayers};
use crate::flags::{Build, Compose};
use crate::git;
use crate::hint::hinted;
use crate::oci::append::Provenance;
use crate::oci::{ImageName, Platform, Reference};
use crate::registry::{Client, Pushed};
use crate::report::{self, BaseReport, ImageReport, PushReport};
use crate::store::{Completeness, Store};
use crate::workspace::Workspace;

/// The version of an image that was given none. It names what changes from run to run.
const UNVERSIONED: &str = "dev";

pub(crate) fn run(flags: &Build, session: &Session) -> Result<()> {
    let registry = session.registry()?;
    let made = make(&flags.compose, session, &registry)?;
    let base_layers = if flags.full { BaseLayers::Fetch } else { BaseLayers::AtHand };
    let default = ImageName::Layout { dir: session.dist_dir().join("oci"), tag: None };
    let report = match flags.to.as_ref().unwrap_or(&default) {
        ImageName::Layout { dir, tag } => {
            let tag = tag.as_deref().unwrap_or(&made.tag);
            let mut report = made.store(&Store::create(dir)?, tag, base_layers, session, &registry)?;
            if flags.push {
                report.pushed = Some(made.push(&made.target, &registry, session)?);
            }
            report
        }
        ImageName::Registry(target) => {
            let pushed = made.push(target, &registry, session)?;
            if flags.push {
                made.push(&made.target, &registry, session)?;
            }
            made.report(target.to_string(), !pushed.unchanged, Some(pushed))
        }
    };
    session.print(&report, || report.digest.to_string())
}

/// An image that was composed, and what it is to be called.
pub(crate) struct Made {
    pub(crate) composition: Composition,
    pub(crate) base: ResolvedBase,
    /// `<distro>-<version>`.
    pub(crate) tag: String,
    /// The project's own repository, with that tag.
    pub(crate) target: Reference,
    version: Option<String>,
}

/// From folders to a composed image: discover, find the base, build, compose.
pub(crate) fn make(flags: &Compose, session: &Session, registry: &Client) -> Result<Made> {
    let workspace = session.workspace()?;
    let distro = flags.distro.as_deref().unwrap_or(&workspace.settings.distro);
    let platforms = platforms(flags);
    session.ensure(&[build::GO])?;

    let base_name = match &flags.base {
        Some(name) => name.clone(),
        None => super::base::name(distro, &workspace, session)?,
    };
    let base = base::resolve(&base_name, &platforms, registry)?;
    let go = Go::find(session.cache("go"))?;
    let binaries = go.build_all(&workspace.apps, &platforms, flags.app_version.as_deref(), &session.progress)?;
    let settings = compose::Settings {
        compression: flags.compression,
        created: flags.source_date_epoch,
        provenance: Provenance {
            base_name: base.reference.as_ref().map(Reference::to_string),
            version: flags.app_version.clone(),
            revision: git::revision(&session.root)?,
            source: git::source(&session.root)?,
        },
    };
    let composition = compose::compose(&workspace, &binaries, &base, &settings)?;

    let tag = format!("{distro}-{}", flags.app_version.as_deref().unwrap_or(UNVERSIONED));
    let target = repository(flags, &workspace)?.with_tag(&tag);
    Ok(Made { composition, base, tag, target, version: flags.app_version.clone() })
}
