//! `base`: a distro's base image.

use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use serde_json::json;

use super::Session;
use super::publish::Publication;
use crate::base::advice::Remake;
use crate::base::container::{self, Order};
use crate::base::{self, Freshness, Opened, debian, pin};
use crate::flags::MakeBase;
use crate::hint::WithHint;
use crate::oci::{ImageName, Reference, Timestamp};
use crate::preflight::Need;
use crate::registry::Client;
use crate::release::base_tag;
use crate::source::{Home, Source};
use crate::store::{INDEX, Store};
use crate::unfinished::replace_file;
use crate::workspace::distro::{DISTRO_TOML, Stage};
use crate::workspace::settings::Repository;
use crate::workspace::{Distro, DistroKind, DistroName, DistroQuery, Workspace};

pub(crate) fn run(flags: &MakeBase, session: &Session) -> Result<()> {
    let workspace = session.workspace()?;
    let query = flags.distro.clone().unwrap_or_else(|| (&workspace.settings.distro).into());
    let distro = find(&query, &workspace, session)?;
    let registry = session.registry()?;
    if flags.update_pin {
        return update_pin(distro, &registry, session);
    }
    if let (DistroKind::Packages { .. }, Some(_)) = (&distro.kind, &flags.from) {
        return Err(anyhow!("{} is made from packages: no image can stand in for them", distro.name))
            .hint("leave out '--from', or name a distro that has an upstream: see 'cargo xtask list'");
    }
    let request = Request {
        also: &[],
        from: flags.from.as_ref(),
        freshness: if flags.force { Freshness::Always } else { Freshness::IfUnchanged },
        created: flags.source_date_epoch,
    };
    let repository = flags.image.as_ref().unwrap_or(&workspace.settings.image);
    if flags.push {
        // Making a base takes minutes: whoever may not push it hears of it before.
        registry.check_push(&repository.tagged(&base_tag(&distro.name)))?;
    }
    let (dir, name) = make(distro, &request, &registry, session)?;
    let base = Store::open(&dir)?;
    let document = base.document(None)?;
    let digest = document.blob().digest();
    let mut pushed = Vec::new();
    if flags.push {
        let publication = Publication::new(distro, &base, &document, flags.source_date_epoch)?;
        pushed = publication
            .push(repository, &registry, session)
            .with_context(|| format!("the base is made, and kept in {}", session.shown(&dir).display()))
            .hint(format!(
                "'{}' pushes it without making it again",
                push_again(&distro.name, flags, session)
            ))?;
    }
    if !matches!(distro.kind, DistroKind::Packages { .. }) && pushed.is_empty() {
        let shown = session.shown(&dir);
        session
            .progress
            .line(format!("'build --base oci:{}' builds on it, '--push' publishes it", shown.display()));
    }
    let value =
        json!({"reference": session.shown_name(&name).to_string(), "digest": digest, "pushed": pushed});
    session.print(&value, || digest.to_string())
}

/// The image to build on for `distro`: made on the spot where that is how it is made, and
/// otherwise the base that the project has published, in the repository `published`. Where it has
/// published none, the one that was made here will do.
pub(crate) fn open(
    distro: &Distro,
    published: &Repository,
    also: &[Need],
    (registry, session): (&Client, &Session),
) -> Result<Opened> {
    match distro.kind {
        DistroKind::Packages { .. } => {
            let request = Request { also, from: None, freshness: Freshness::IfUnchanged, created: None };
            base::open(make(distro, &request, registry, session)?.1, registry)
        }
        DistroKind::Image { .. } => {
            let reference = published.tagged(&base_tag(&distro.name));
            let publish = Remake::Published(published).command(&distro.name);
            let local = local(&distro.name, session);
            let shown = session.shown_name(&local);
            // A registry that keeps things private says the same of what is not there.
            let asked =
                registry.document(&reference).with_context(|| format!("asking for the base {reference}"));
            let document = asked.own_hint(|_| match has_image(&local) {
                true => format!("'--base {shown}' builds on the one that is here"),
                false => format!("if it was never published, '{publish}' does it"),
            })?;
            if let Some(document) = document {
                let source = Source { home: Home::Registry(reference.clone()), document };
                return Ok(Opened { name: ImageName::Registry(reference), source });
            }
            if !has_image(&local) {
                return Err(anyhow!("there is no base of {}: {reference} is not in its registry", distro.name))
                    .hint(format!("run '{publish}' to make and publish it; without '--push' it is made for this machine alone"));
            }
            session.progress.warn(format!(
                "{reference} is not published, so {shown} is built on; '{publish}' publishes it"
            ));
            base::open(local, registry)
        }
    }
}

/// The base of a distro, once it was made here.
pub(super) fn local(distro: &DistroName, session: &Session) -> ImageName {
    ImageName::Layout { dir: local_dir(distro, session), tag: None }
}

fn local_dir(distro: &DistroName, session: &Session) -> PathBuf {
    session.root.join("target/base").join(distro.to_string())
}

pub(super) fn has_image(name: &ImageName) -> bool {
    matches!(name, ImageName::Layout { dir, .. } if dir.join(INDEX).exists())
}

/// What was asked for, beside the distro.
struct Request<'a> {
    /// What later steps need: a user is told of all that is missing at once.
    also: &'a [Need],
    from: Option<&'a Reference>,
    freshness: Freshness,
    created: Option<Timestamp>,
}

/// The base's layout, and its name in it.
fn make(
    distro: &Distro,
    request: &Request<'_>,
    registry: &Client,
    session: &Session,
) -> Result<(PathBuf, ImageName)> {
    let dir = local_dir(&distro.name, session);
    let (root, progress) = (&session.root, &session.progress);
    let name = match &distro.kind {
        DistroKind::Packages { suite, released } => {
            let (released, freshness) = (*released, request.freshness);
            let order = debian::Order { distro, suite, released, root, dir: &dir, freshness };
            debian::ensure(&order, progress, &|needs| session.ensure(&[needs, request.also].concat()))?
        }
        DistroKind::Image { upstream } => {
            let order = Order {
                distro,
                upstream,
                from: request.from,
                root,
                dir: &dir,
                freshness: request.freshness,
                created: request.created,
            };
            container::ensure(&order, registry, progress, &|needs| {
                session.ensure(&[needs, request.also].concat())
            })?
        }
    };
    Ok((dir, name))
}

/// The command that pushes a base that is there.
fn push_again(distro: &DistroName, flags: &MakeBase, session: &Session) -> String {
    let epoch = flags.source_date_epoch.map(|time| format!("SOURCE_DATE_EPOCH={} ", time.seconds()));
    let from = flags.from.as_ref().map(|from| format!(" --from {from}"));
    let image = flags.image.as_ref().map(|image| format!(" --image {image}"));
    let [epoch, from, image] = [epoch, from, image].map(Option::unwrap_or_default);
    let plain: String = session.plain_http.iter().map(|name| format!(" --plain-http {name}")).collect();
    format!("{epoch}cargo xtask base {distro}{from} --push{image}{plain}")
}

/// Writes down what the upstream's tag names now.
fn update_pin(distro: &Distro, registry: &Client, session: &Session) -> Result<()> {
    let upstream = distro
        .upstream()
        .ok_or_else(|| anyhow!("{} is made from packages: it has no upstream to pin", distro.name))
        .hint(format!("'cargo xtask base {} --force' takes today's packages", distro.name))?;
    let new = container::ask(&upstream.tag, registry, "check the upstream in distro.toml")?;
    let path = distro.dir.join(DISTRO_TOML);
    let shown = session.shown(&path);
    // Two at once would lose each other's edits, or take each other's files away.
    let lock = File::open(&distro.dir).with_context(|| format!("opening {}", distro.dir.display()))?;
    lock.lock().with_context(|| format!("locking {}", distro.dir.display()))?;
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", shown.display()))?;
    let pinned = pin::repin(&text, upstream, new).with_context(|| format!("editing {}", shown.display()))?;
    replace_file(&path, pinned.as_bytes())?;
    let old = upstream.pin.map_or("not pinned".to_owned(), |digest| digest.to_string());
    let changed = upstream.pin != Some(new);
    let value =
        json!({"distro": distro.name.to_string(), "old": upstream.pin, "new": new, "changed": changed});
    session.print(&value, || match changed {
        true => format!("{}: {old} -> {new}", upstream.tag),
        false => format!("{}: still {new}", upstream.tag),
    })
}

/// The distro of this name, and a word about it where it should not simply be used.
pub(crate) fn find<'a>(
    query: &DistroQuery,
    workspace: &'a Workspace,
    session: &Session,
) -> Result<&'a Distro> {
    let distro = workspace.distro(query).own_hint(|unknown| unknown.hint())?;
    if distro.is_ended(session.today()) {
        let successor = distro.successor.as_ref();
        let successor = successor.map_or(String::new(), |name| format!("; go to {name}"));
        session.progress.warn(format!(
            "{} ended on {}: nobody mends it any more{successor}",
            distro.title, distro.end_of_life
        ));
    }
    match distro.stage {
        Stage::Production => {}
        Stage::Preview => {
            session.progress.line(format!("{} is a preview: for trying, developing and testing", distro.name))
        }
    }
    Ok(distro)
}
