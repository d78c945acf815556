//! `base`: a distro's base image.

use anyhow::{Result, anyhow};
use serde_json::json;

use super::Session;
use crate::base::debian::{self, Freshness};
use crate::flags::MakeBase;
use crate::hint::WithHint;
use crate::oci::ImageName;
use crate::workspace::{Distro, DistroName, Workspace};

pub(crate) fn run(flags: &MakeBase, session: &Session) -> Result<()> {
    let workspace = session.workspace()?;
    let distro = find(flags.distro.as_ref().unwrap_or(&workspace.settings.distro), &workspace)?;
    if !debian::is_debian(distro) {
        return Err(anyhow!("{} is not made here", distro.name))
            .hint("only distros with a packages.list are; build on another one's image with '--base REF'");
    }
    let freshness = if flags.force { Freshness::Always } else { Freshness::IfUnchanged };
    let name = make(distro, freshness, session)?;
    let registry = session.registry()?;
    let digest = crate::source::Source::open(&name, &registry)?.document.blob().digest();
    session.print(&json!({"reference": session.shown_name(&name).to_string(), "digest": digest}), || {
        digest.to_string()
    })
}

/// The image to build on for `distro`: made on the spot where that is how it is made, and
/// otherwise the base that the project has published.
pub(crate) fn name(distro: &DistroName, workspace: &Workspace, session: &Session) -> Result<ImageName> {
    let distro = find(distro, workspace)?;
    if debian::is_debian(distro) {
        return make(distro, Freshness::IfUnchanged, session);
    }
    Ok(ImageName::Registry(workspace.settings.image.tagged(&format!("base-{}", distro.name))))
}

fn make(distro: &Distro, freshness: Freshness, session: &Session) -> Result<ImageName> {
    let dir = session.root.join("target/base").join(distro.name.to_string());
    debian::ensure(distro, &session.root, &dir, freshness, &session.progress, |needs| session.ensure(needs))
}

fn find<'a>(name: &DistroName, workspace: &'a Workspace) -> Result<&'a Distro> {
    workspace
        .distro(name)
        .hint("'cargo xtask list' shows what there is; '--base REF' builds on any other image")
}
