//! `base`: a distro's base image.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use serde_json::json;

use super::Session;
use crate::base::advice::{self, Named, advise};
use crate::base::container::{self, Order};
use crate::base::{Freshness, ResolvedBase, debian, pin};
use crate::deliver::layout_source;
use crate::flags::MakeBase;
use crate::hint::WithHint;
use crate::oci::document::MAX_CONFIG;
use crate::oci::{Descriptor, Document, ImageName, Manifest, Reference, Timestamp};
use crate::preflight::Need;
use crate::progress::human_bytes;
use crate::registry::{Client, Push, PushBlob};
use crate::report::PushReport;
use crate::store::{self, Store};
use crate::workspace::distro::{DISTRO_TOML, Stage};
use crate::workspace::settings::Repository;
use crate::workspace::{Distro, DistroKind, DistroName, Workspace};

pub(crate) fn run(flags: &MakeBase, session: &Session) -> Result<()> {
    let workspace = session.workspace()?;
    let distro = find(flags.distro.as_ref().unwrap_or(&workspace.settings.distro), &workspace, session)?;
    let registry = session.registry()?;
    if flags.update_pin {
        return update_pin(distro, &registry, session);
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
        registry.check_push(&repository.tagged(&tag(&distro.name)))?;
    }
    let (dir, name) = make(distro, &request, &registry, session)?;
    let base = Store::open(&dir)?;
    let document = base.document(None)?;
    let digest = document.blob().digest();
    let mut pushed = Vec::new();
    if flags.push {
        pushed = push(distro, &base, &document, flags.source_date_epoch, repository, &registry, session)
            .with_context(|| format!("the base is made, and kept in {}", session.shown(&dir).display()))
            .hint(format!("'{}' pushes it without making it again", push_again(&distro.name, flags)))?;
    }
    if !matches!(distro.kind, DistroKind::Packages { .. }) && pushed.is_empty() {
        let shown = session.shown(&dir);
        session
            .progress
            .line(format!("'--base oci:{}' builds on it, '--push' publishes it", shown.display()));
    }
    let value =
        json!({"reference": session.shown_name(&name).to_string(), "digest": digest, "pushed": pushed});
    session.print(&value, || digest.to_string())
}

/// The image to build on for `distro`: made on the spot where that is how it is made, and
/// otherwise the base that the project has published, in the repository `published`.
pub(crate) fn name(
    distro: &DistroName,
    published: &Repository,
    workspace: &Workspace,
    also: &[Need],
    (registry, session): (&Client, &Session),
) -> Result<ImageName> {
    let distro = find(distro, workspace, session)?;
    match distro.kind {
        DistroKind::Packages { .. } => {
            let request = Request { also, from: None, freshness: Freshness::IfUnchanged, created: None };
            Ok(make(distro, &request, registry, session)?.1)
        }
        DistroKind::Image { .. } => Ok(ImageName::Registry(published.tagged(&tag(&distro.name)))),
    }
}

/// Warns of what whoever builds on `base`, which `name` names, should know.
pub(crate) fn warn(
    name: &ImageName,
    base: &ResolvedBase,
    workspace: &Workspace,
    registry: &Client,
    session: &Session,
) {
    let tagged = match name {
        ImageName::Registry(reference) if reference.digest().is_some() => reference.tag().map(|tag| {
            let (host, repository) = (reference.registry().to_owned(), reference.repository().to_owned());
            Reference::with_tag(host, repository, tag.to_owned())
        }),
        ImageName::Registry(_) | ImageName::Layout { .. } => None,
    };
    let now = tagged.as_ref().map(|tag| container::ask(tag, registry));
    let named = match (&tagged, now) {
        (Some(tag), Some(Ok(now))) => Some(Named { tag, digest: base.digest, now }),
        // The image is there, by its digest: what became of its tag must not stop anybody.
        (Some(tag), Some(Err(error))) => {
            session.progress.warn(format!("whether {tag} has moved is not known: {error:#}"));
            None
        }
        (None, _) | (_, None) => None,
    };
    if let Some(image) = base.images.first() {
        for advice in advise(image, named.as_ref(), &workspace.distros, &advice::needs(workspace)) {
            session.progress.warn(advice.to_string());
        }
    }
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
    let dir = session.root.join("target/base").join(distro.name.to_string());
    let (root, progress) = (&session.root, &session.progress);
    let name = match &distro.kind {
        DistroKind::Packages { .. } if request.from.is_some() => {
            return Err(anyhow!("{} is made from packages: no image can stand in for them", distro.name))
                .hint("leave out '--from', or name a distro that has an upstream: see 'cargo xtask list'");
        }
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

/// Sends the base under its day's tag, which stays, and then under the one that moves. The day is
/// the image's own: one image has one day, whoever sends it and whenever. A base from packages has
/// its release's time, so it takes SOURCE_DATE_EPOCH to tell one week's from another's.
fn push(
    distro: &Distro,
    base: &Store,
    document: &Document,
    epoch: Option<Timestamp>,
    repository: &Repository,
    registry: &Client,
    session: &Session,
) -> Result<Vec<PushReport>> {
    let Document::Manifest(manifest) = document else {
        return Err(anyhow!("the base of {} is no single image", distro.name))
            .hint("make it again with '--force'");
    };
    let day = match epoch {
        Some(epoch) => epoch,
        None => created(base, manifest)?,
    };
    let tag = tag(&distro.name);
    let dated = format!("{tag}-{}", day.day().format("%Y%m%d"));
    let send = |tag: String| -> Result<PushReport> {
        let target = repository.tagged(&tag);
        let blob = |descriptor| -> Result<PushBlob<'_>> {
            Ok(PushBlob {
                descriptor: Descriptor::clone(descriptor),
                source: layout_source(base, descriptor)?,
            })
        };
        let pushed = registry.push(&Push {
            target: target.clone(),
            manifests: vec![(document.descriptor(), document.blob().clone())],
            blobs: manifest.layers.iter().chain([&manifest.config]).map(blob).collect::<Result<_>>()?,
        })?;
        session.progress.line(match pushed.unchanged {
            true => format!("{target} is already {}", pushed.digest),
            false => format!("pushed {target}: {}", human_bytes(pushed.sent_bytes)),
        });
        Ok(PushReport::new(&target.to_string(), &pushed))
    };
    [dated, tag].into_iter().map(send).collect()
}

/// The command that pushes a base that is there.
fn push_again(distro: &DistroName, flags: &MakeBase) -> String {
    let epoch = flags.source_date_epoch.map(|time| format!("SOURCE_DATE_EPOCH={} ", time.seconds()));
    let from = flags.from.as_ref().map(|from| format!(" --from {from}"));
    let image = flags.image.as_ref().map(|image| format!(" --image {image}"));
    let [epoch, from, image] = [epoch, from, image].map(Option::unwrap_or_default);
    format!("{epoch}cargo xtask base {distro}{from} --push{image}")
}

/// When the image was made, as its config says.
fn created(base: &Store, manifest: &Manifest) -> Result<Timestamp> {
    let config = base.read(&manifest.config, MAX_CONFIG)?;
    let config: serde_json::Value = serde_json::from_slice(config.bytes()).context("reading the config")?;
    let created = config.get("created").and_then(serde_json::Value::as_str);
    created
        .and_then(Timestamp::from_rfc_3339)
        .ok_or_else(|| anyhow!("the base does not say when it was made"))
        .hint("set SOURCE_DATE_EPOCH to the seconds since 1970 that its day's tag is to name")
}

/// Writes down what the upstream's tag names now.
fn update_pin(distro: &Distro, registry: &Client, session: &Session) -> Result<()> {
    let upstream = distro
        .upstream()
        .ok_or_else(|| anyhow!("{} is made from packages: it has no upstream to pin", distro.name))
        .hint(format!("'cargo xtask base {} --force' takes today's packages", distro.name))?;
    let new = container::ask(&upstream.tag, registry)?;
    let path = distro.dir.join(DISTRO_TOML);
    let shown = session.shown(&path);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", shown.display()))?;
    let pinned = pin::repin(&text, upstream, new).with_context(|| format!("editing {}", shown.display()))?;
    store::replace_file(&path, pinned.as_bytes())?;
    let old = upstream.pin.map_or("not pinned".to_owned(), |digest| digest.to_string());
    let changed = upstream.pin != Some(new);
    let value =
        json!({"distro": distro.name.to_string(), "old": upstream.pin, "new": new, "changed": changed});
    session.print(&value, || match changed {
        true => format!("{}: {old} -> {new}", upstream.tag),
        false => format!("{}: still {new}", upstream.tag),
    })
}

fn tag(distro: &DistroName) -> String {
    format!("base-{distro}")
}

/// The distro of this name, and a word about it where it should not simply be used.
fn find<'a>(name: &DistroName, workspace: &'a Workspace, session: &Session) -> Result<&'a Distro> {
    let distro = workspace.distro(name).own_hint(|unknown| match &unknown.closest {
        Some(closest) => format!("did you mean {closest}? 'cargo xtask list' shows what there is"),
        None => "'cargo xtask list' shows what there is; '--base REF' builds on any other image".to_owned(),
    })?;
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
