//! `dist`: from source to a verified image in `target/dist`, and into the registry when asked.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, anyhow};
use serde::Serialize;

use super::build::{Made, make};
use super::disk::{self, OutputReport};
use super::pack::{self, PackedReport};
use super::{Session, advice, disks};
use crate::builder::{Builder, LocalImage};
use crate::deliver::{BaseLayers, Stored};
use crate::diff::{Delta, NamedLayer, delta};
use crate::disk::{DiskFormat, Qcow2Compression};
use crate::flags::{Compose, Deliver, Dist};
use crate::hint::{self, WithHint};
use crate::oci::{Digest, ImageName, Origin, Platform, Reference};
use crate::preflight::Unready;
use crate::progress::human_bytes;
use crate::registry::Client;
use crate::release;
use crate::report::{ImageReport, PushReport};
use crate::source::{Home, Source};
use crate::store::{self, Store};

pub(crate) fn run(flags: &Dist, session: &Session) -> Result<()> {
    if flags.ssh_key.is_some() && flags.deliver.push && !flags.no_pack {
        return Err(anyhow!("a disk with a login of yours would be published"))
            .hint("leave out '--ssh-key', or keep the disks here with '--no-pack'");
    }
    let registry = session.registry()?;
    let made = make(&flags.compose, &flags.deliver, session, &registry)?;
    let layout = session.dist_dir().join("oci");
    if flags.dry_run {
        let previous = if flags.deliver.push {
            previous_in_registry(&made, &registry)?
        } else {
            previous_in_layout(&made, &layout, &registry)?
        };
        let mut plan = Plan::new(&made, previous, flags.deliver.push);
        if flags.deliver.push && !flags.no_disks && !flags.no_pack {
            let formats: BTreeSet<DiskFormat> = session.workspace()?.settings.formats.into_iter().collect();
            plan.disks = formats.into_iter().map(|format| made.disk_tag(format)).collect();
        }
        return session.print(&plan, || plan.to_string());
    }

    let name = ImageName::Layout { dir: layout, tag: Some(made.tag.clone()) };
    advice::warn_of_rebase(&name, &made.base, &registry, session);
    let stored = store(&made, flags.deliver.base_layers(), session, &registry)?;
    let disks = if flags.no_disks { Ok(Vec::new()) } else { disks(&name, flags, session, &registry) };
    let mut report = made.report(session.shown_name(&name).to_string(), Some(&stored), None);
    let packed = match &disks {
        Ok(disks) if flags.deliver.push && !flags.no_pack => {
            pack::push(disks, (&made, &name), session, &registry)
        }
        Ok(_) | Err(_) => Ok(Vec::new()),
    };
    // The image's own tag comes last: who sees it finds its disks.
    let is_pushed = flags.deliver.push && disks.is_ok() && packed.is_ok();
    let pushed = is_pushed.then(|| made.push(&made.target, &registry, session)).transpose();
    // dist.json says what the layout holds, also where the push failed.
    report.pushed = pushed
        .as_ref()
        .ok()
        .and_then(Option::as_ref)
        .map(|pushed| PushReport::new(&made.target.to_string(), pushed));
    let made_disks = disks.as_ref().map_or(&[][..], Vec::as_slice);
    let lasting_packed: Vec<PackedReport> = packed.iter().flatten().map(PackedReport::lasting).collect();
    let lasting = Report { image: &report.lasting(), disks: made_disks, packed: &lasting_packed };
    let dist_json = serde_json::to_string_pretty(&lasting)? + "\n";
    let lock = Store::lock_when_free(&session.dist_dir().join("oci"), || ())?;
    store::replace_file(&session.dist_dir().join("dist.json"), dist_json.as_bytes())?;
    drop(lock);
    let disks = disks.hint("'--no-disks' leaves the disks out")?;
    let packed = packed.hint("'--no-pack' leaves the disks where they are")?;
    pushed?;

    let report = Report { image: &report, disks: &disks, packed: &packed };
    summarise(&report, session);
    session.print(&report, || report.image.digest.to_string())
}

/// The image that `dist` makes, stored as it does that.
pub(super) fn image(flags: &Compose, session: &Session) -> Result<ImageName> {
    made(flags, session).map(|(_, name)| name)
}

/// The same, and what is known of it.
pub(super) fn made(flags: &Compose, session: &Session) -> Result<(Made, ImageName)> {
    let registry = session.registry()?;
    let made = make(flags, &Deliver::default(), session, &registry)?;
    store(&made, BaseLayers::AtHand, session, &registry)?;
    let name = ImageName::Layout { dir: session.dist_dir().join("oci"), tag: Some(made.tag.clone()) };
    Ok((made, name))
}

fn store(made: &Made, base_layers: BaseLayers, session: &Session, registry: &Client) -> Result<Stored> {
    let store = Store::create(&session.dist_dir().join("oci"))?;
    let stored = made.store(&store, &made.tag, base_layers, session, registry)?;
    store.collect_garbage()?;
    Ok(stored)
}

/// The disks that Cargo.toml names, where the image can be made into some here.
fn disks(name: &ImageName, flags: &Dist, session: &Session, registry: &Client) -> Result<Vec<OutputReport>> {
    let settings = session.workspace()?.settings;
    if settings.formats.is_empty() {
        return Ok(Vec::new());
    }
    let without_disks = |error: anyhow::Error| {
        let hints: String = hint::hints(&error).map(|hint| format!("\nhint: {hint}")).collect();
        session.progress.warn(format!("there are no disks: {error:#}{hints}"));
        Ok(Vec::new())
    };
    let image = LocalImage::open(name, registry);
    let chosen = image.and_then(|image| Ok((Builder::choose(&image, flags.builder.builder, name)?, image)));
    let (builder, image) = match chosen {
        Ok(chosen) => chosen,
        Err(error) if flags.builder.builder.is_none() => return without_disks(error),
        Err(error) => return Err(error),
    };
    let mut formats = settings.formats;
    formats.sort_unstable();
    formats.dedup();
    let request = disks::Request {
        name,
        image: &image,
        registry,
        builder,
        builder_image: &flags.builder.builder_image,
        size: disks::Size::Usual(settings.disk_size),
        ssh_key: flags.ssh_key.as_deref(),
        formats: &formats,
        options: &disk::options(disks::name(name)?, &formats, Qcow2Compression::Zstd, session)?,
        folder: &disk::folder(session),
        kept: &session.cache("raw"),
    };
    match disks::make(&request, session) {
        // An image is made by anyone; who wants disks that only root makes says so.
        Err(error)
            if flags.builder.builder.is_none() && builder.is_of_root() && hint::is::<Unready>(&error) =>
        {
            without_disks(error)
        }
        made => made,
    }
}

/// What was made. Keys may be added, none renamed.
#[derive(Debug, Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    image: &'a ImageReport,
    disks: &'a [OutputReport],
    /// The disks that were pushed.
    packed: &'a [PackedReport],
}

/// What `dist` would do, and what it would cost.
#[derive(Debug, Serialize)]
struct Plan {
    reference: String,
    digest: Digest,
    /// What a host runs before, if anything: what the tag names now, or the release before it.
    previous: Option<PlannedPrevious>,
    layers: Vec<PlannedLayer>,
    /// Where it would be pushed.
    push: Option<String>,
    /// The tags of the disks that would be pushed with it, where they can be made.
    disks: Vec<String>,
    /// Bytes that a host on the previous image downloads; on none, all of them.
    host_download: u64,
    /// Bytes of layers and configs that are ours.
    ours: u64,
}

#[derive(Debug, Serialize)]
struct PlannedPrevious {
    name: String,
    digest: Digest,
}

#[derive(Debug, Serialize)]
struct PlannedLayer {
    name: String,
    digest: Digest,
    size: u64,
    /// Whether the previous image has it.
    reused: bool,
}

/// What a host runs before it gets the new image.
type Previous = Option<PreviousImage>;

struct PreviousImage {
    name: String,
    digest: Digest,
    /// For one platform.
    layers: Vec<NamedLayer>,
}

impl Plan {
    fn new(made: &Made, previous: Previous, push: bool) -> Plan {
        let layers: Vec<NamedLayer> = match made.composition.images.first() {
            Some(image) => image
                .layers
                .iter()
                .map(|layer| {
                    let name = match &layer.origin {
                        Origin::Base => None,
                        Origin::Ours(name) => Some(name.clone()),
                    };
                    NamedLayer { name, descriptor: layer.descriptor.clone() }
                })
                .collect(),
            None => Vec::new(),
        };
        let (previous, old) = match previous {
            Some(PreviousImage { name, digest, layers }) => (Some(PlannedPrevious { name, digest }), layers),
            None => (None, Vec::new()),
        };
        let delta: Delta = delta(&old, &layers);
        let is_kept = |layer: &NamedLayer| delta.kept.contains(layer);
        Plan {
            reference: made.target.to_string(),
            digest: made.composition.root.blob().digest(),
            previous,
            push: push.then(|| made.target.to_string()),
            disks: Vec::new(),
            host_download: delta.download(),
            ours: made.composition.blobs().map(|(descriptor, _)| descriptor.size).sum(),
            layers: layers
                .iter()
                .map(|layer| PlannedLayer {
                    name: layer.name.clone().unwrap_or_else(|| "base".to_owned()),
                    digest: layer.descriptor.digest,
                    size: layer.descriptor.size,
                    reused: is_kept(layer),
                })
                .collect(),
        }
    }
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "image {} {}", self.reference, self.digest)?;
        for layer in &self.layers {
            let state = if layer.reused { "unchanged" } else { "new" };
            writeln!(
                f,
                "  {:<12} {:>9} {} {state}",
                layer.name,
                human_bytes(layer.size),
                layer.digest.short()
            )?;
        }
        match (&self.push, &self.previous) {
            (Some(target), Some(previous)) if previous.name == *target && previous.digest == self.digest => {
                writeln!(f, "push: nothing, {target} is this")?
            }
            (Some(target), _) => {
                writeln!(f, "push: to {target}, at most {} of ours", human_bytes(self.ours))?
            }
            (None, _) => writeln!(f, "push: no ('--push' sends it)")?,
        }
        if !self.disks.is_empty() {
            writeln!(f, "disks pushed with it, where they can be made: {}", self.disks.join(" "))?;
        }
        let whom = self.previous.as_ref().map_or("no image yet", |previous| &previous.name);
        write!(f, "a host on {whom} downloads {}", human_bytes(self.host_download))
    }
}

/// What the tag names, or else the release before it.
fn previous_in_registry(made: &Made, registry: &Client) -> Result<Previous> {
    let mut reference = made.target.clone();
    let mut document = registry.document(&reference)?;
    if document.is_none() {
        let tags = registry.tags(&reference)?;
        let Some(before) = release::before(&made.tag, &made.distro, &tags) else { return Ok(None) };
        reference = Reference::with_tag(
            reference.registry().to_owned(),
            reference.repository().to_owned(),
            before.to_owned(),
        );
        document = registry.document(&reference)?;
    }
    let Some(document) = document else { return Ok(None) };
    let name = reference.to_string();
    previous(name, &Source { home: Home::Registry(reference), document }, made, registry).map(Some)
}

fn previous_in_layout(made: &Made, layout: &Path, registry: &Client) -> Result<Previous> {
    if !layout.exists() {
        return Ok(None);
    }
    let store = Store::open(layout)?;
    if !store.tags()?.contains(&made.tag) {
        return Ok(None);
    }
    let document = store.document(Some(&made.tag))?;
    previous(made.tag.clone(), &Source { home: Home::Layout(store), document }, made, registry).map(Some)
}

fn previous(name: String, source: &Source, made: &Made, registry: &Client) -> Result<PreviousImage> {
    let platform = made.composition.images.first().map_or(Platform::host(), |image| image.platform);
    let digest = source.document.blob().digest();
    Ok(PreviousImage { name, digest, layers: source.layers(platform, registry)? })
}

fn summarise(report: &Report<'_>, session: &Session) {
    let progress = &session.progress;
    let Report { image: report, disks, packed: _ } = report;
    for platform in &report.platforms {
        progress.line(format!("{} {}", platform.platform, platform.digest));
        let (base, ours): (Vec<_>, Vec<_>) = platform.layers.iter().partition(|layer| layer.name == "base");
        let size: u64 = base.iter().map(|layer| layer.size).sum();
        progress.line(format!("  {:<12} {:>9} in {} layers", "base", human_bytes(size), base.len()));
        for layer in ours {
            let state = if layer.reused == Some(true) { "unchanged" } else { "new" };
            progress.line(format!("  {:<12} {:>9} {state}", layer.name, human_bytes(layer.size)));
        }
    }
    let whole = if report.whole == Some(true) { "whole" } else { "without the base's layers" };
    progress.line(format!("{} ({whole})", report.reference));
    for disk in *disks {
        let (size, virtual_size) = (human_bytes(disk.size), human_bytes(disk.virtual_size));
        let path = disk.path.display();
        progress.line(format!("{path} ({size}, a disk of {virtual_size}) sha256:{}", disk.sha256));
    }
}
