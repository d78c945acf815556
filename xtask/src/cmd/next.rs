//! The image that an upgrade is tried with.

use anyhow::{Context, Result, anyhow};

use super::Session;
use super::build::make_of;
use crate::builder::LocalImage;
use crate::deliver::BaseLayers;
use crate::flags::{Compose, Deliver};
use crate::hint::WithHint;
use crate::oci::ImageName;
use crate::release::AskedVersion;
use crate::store::Store;
use crate::workspace::Workspace;

/// The version of an image that is made for this.
const VERSION: &str = "upgrade-test";
/// Its tag, in a layout of its own.
const TAG: &str = "next";

/// An image that is whole, and what is known of it.
pub(super) struct Next {
    pub(super) image: LocalImage,
    pub(super) name: String,
    /// What its apps say, if it was made for this.
    pub(super) version: Option<String>,
    /// Its layout, which no other run changes meanwhile.
    _held: Option<Store>,
}

/// The image that the user names.
pub(super) fn named(name: &ImageName, session: &Session) -> Result<Next> {
    let registry = session.registry()?;
    let image = LocalImage::open(name, &registry)?;
    image.fetch(|| Store::create(&session.cache("fetched")), &registry, &session.progress)?;
    image.check().with_context(|| format!("reading {name}"))?;
    Ok(Next { image, name: name.to_string(), version: None, _held: None })
}

/// The image of `workspace` with every app at another version, and another default in /etc.
pub(super) fn changed(workspace: &Workspace, flags: &Compose, session: &Session) -> Result<Next> {
    let mut workspace = workspace.clone();
    let conf = workspace
        .os
        .nginx_conf
        .as_mut()
        .ok_or_else(|| {
            anyhow!("the workspace has no default in /etc to change: there is no configs/os/nginx.conf")
        })
        .hint("name an image with '--upgrade-to'")?;
    conf.bytes.extend_from_slice(format!("# {VERSION}\n").as_bytes());
    let version = match &flags.app_version {
        Some(AskedVersion::Named(version)) => format!("{version}-{VERSION}"),
        Some(AskedVersion::Next | AskedVersion::Git) | None => VERSION.to_owned(),
    };
    let flags = Compose { app_version: Some(AskedVersion::Named(version.clone())), ..flags.clone() };
    let registry = session.registry()?;
    let made = make_of(&workspace, &flags, &Deliver::default(), (session, &registry))?;
    let dir = session.cache("next");
    let store = Store::create(&dir)?;
    made.store(&store, TAG, BaseLayers::Fetch, session, &registry)?;
    store.collect_garbage()?;
    let name = ImageName::Layout { dir, tag: Some(TAG.to_owned()) };
    Ok(Next { version: Some(version), _held: Some(store), ..named(&name, session)? })
}
