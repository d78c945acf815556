//! `dist`: from source to a verified image in `target/dist`, and into the registry when asked.

use std::collections::BTreeSet;

use anyhow::{Context, Result, anyhow};
use serde::Serialize;

use super::build::{Made, check_push, make};
use super::disk::OutputReport;
use super::packed::{self, PackedReport};
use super::plan::{Plan, previous_in_layout, previous_in_registry};
use super::record::Overwrite;
use super::versions::{Publication, Published, Untagged};
use super::{Session, advice, disks, sign};
use crate::builder::LocalImage;
use crate::deliver::{BaseLayers, Stored};
use crate::disk::DiskFormat;
use crate::flags::{Compose, Deliver, Dist};
use crate::hint::{self, WithHint};
use crate::oci::{Digest, ImageName};
use crate::preflight::Unready;
use crate::progress::{counted, human_bytes};
use crate::registry::{Client, Until};
use crate::report::{ImageReport, PushReport};
use crate::sign::{self as signing, Depth, PrivateKey};
use crate::store::Store;
use crate::unfinished::replace_file;

pub(crate) fn run(flags: &Dist, session: &Session) -> Result<()> {
    if flags.ssh_key.is_some() && flags.deliver.push && !flags.no_pack {
        return Err(anyhow!("a disk with a login of yours would be published"))
            .hint("leave out '--ssh-key', or keep the disks here with '--no-pack'");
    }
    let registry = session.registry()?;
    let push = flags.deliver.push;
    // Whoever is asked for a password is asked before anything slow.
    let key = flags.sign_key.as_deref().filter(|_| !flags.dry_run).map(sign::open_key).transpose()?;
    if push && !flags.dry_run {
        check_push(&flags.compose, session, &registry)?;
    }
    let made = make(&flags.compose, &flags.deliver, session, &registry)?;
    let layout = session.dist_dir().join("oci");
    if flags.dry_run {
        let previous = if flags.deliver.push {
            previous_in_registry(&made, &registry)?
        } else {
            previous_in_layout(&made, &layout, &registry)?
        };
        let mut plan = Plan::new(&made, previous, flags.deliver.push);
        plan.sign_key = flags.sign_key.clone();
        if flags.deliver.push && !flags.no_disks && !flags.no_pack {
            let formats: BTreeSet<DiskFormat> = session.workspace()?.settings.formats.into_iter().collect();
            plan.disks = formats.into_iter().map(|format| made.disk_tag(format)).collect();
        }
        return session.print(&plan, || plan.to_string());
    }

    let publication = push.then(|| Publication::begin(&made, &registry)).transpose()?;
    let publication = publication.map(|publication| (publication, key.as_ref()));
    let name = ImageName::Layout { dir: layout, tag: Some(made.tag.clone()) };
    advice::warn_of_rebase(&name, &made.base, &registry, session);
    // It is held to the end: no other run changes what disks are made of, or what dist.json tells of.
    let (held, stored) = store(&made, flags.deliver.base_layers(), session, &registry)?;
    let mut behind = Behind::default();
    let done = behind.carry_out((&made, &name), publication, flags, (session, &registry));
    let Behind { disks, packed, pushed, published, signed } = behind;
    let report = made.report(session.shown_name(&name).to_string(), Some(&stored), None);
    let report = ImageReport { pushed, ..report };
    // dist.json says what the layout holds, also where what comes behind it failed.
    let lasting_packed: Vec<PackedReport> = packed.iter().map(PackedReport::lasting).collect();
    let published = published.as_ref();
    let lasting = Report {
        image: &report.lasting(),
        disks: &disks,
        packed: &lasting_packed,
        published,
        signed: &signed,
    };
    let dist_json = serde_json::to_string_pretty(&lasting)? + "\n";
    replace_file(&session.dist_dir().join("dist.json"), dist_json.as_bytes())?;
    drop(held);
    done?;

    let report = Report { image: &report, disks: &disks, packed: &packed, published, signed: &signed };
    summarise(&report, session);
    session.print(&report, || report.image.digest.to_string())
}

/// What comes behind the image in the layout, as far as it came.
#[derive(Default)]
struct Behind {
    disks: Vec<OutputReport>,
    /// Disks that were pushed, and have their tags.
    packed: Vec<PackedReport>,
    pushed: Option<PushReport>,
    published: Option<Published>,
    /// The images that have a signature.
    signed: Vec<Digest>,
}

impl Behind {
    /// All is sent without a name, and named at the end: who sees the image finds its disks, and of a
    /// run that is interrupted nobody sees anything.
    fn carry_out(
        &mut self,
        (made, name): (&Made, &ImageName),
        publication: Option<(Publication<'_>, Option<&PrivateKey>)>,
        flags: &Dist,
        (session, registry): (&Session, &Client),
    ) -> Result<()> {
        // Before the disks: podman takes the image from there, where the layout lacks layers.
        let send = || made.push(&made.target, Until::Stored, (registry, session));
        let pushed = publication.is_some().then(send).transpose()?;
        if !flags.no_disks {
            self.disks = disks(name, flags, session, registry).hint("'--no-disks' leaves the disks out")?;
        }
        let (Some((publication, key)), Some(pushed)) = (publication, pushed) else { return Ok(()) };
        let packed = match flags.no_pack {
            true => Ok((Vec::new(), Vec::new())),
            false => packed::send(&self.disks, (made, name), session, registry),
        };
        let (packed, untagged) = packed.hint("'--no-pack' leaves the disks where they are")?;
        if let Some(key) = key {
            self.signed = sign_all(&untagged, made, key, registry)?;
        }
        self.published = Some(publication.finish(&untagged, session)?);
        self.pushed = Some(PushReport::new(&made.target.to_string(), &pushed));
        self.packed = packed;
        Ok(())
    }
}

/// Signs the disks and the image, each image of it before the index. Only what was made here: an
/// index of disks may have others' in it.
fn sign_all(disks: &[Untagged], made: &Made, key: &PrivateKey, registry: &Client) -> Result<Vec<Digest>> {
    let mut digests: Vec<Digest> = disks.iter().map(|disk| disk.document.blob().digest()).collect();
    digests.extend(signing::digests(&made.composition.root, Depth::All)?);
    sign::sign(&made.target, &digests, key, registry).context("signing what was pushed")?;
    Ok(digests)
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

fn store(
    made: &Made,
    base_layers: BaseLayers,
    session: &Session,
    registry: &Client,
) -> Result<(Store, Stored)> {
    let store = Store::create(&session.dist_dir().join("oci"))?;
    let stored = made.store(&store, &made.tag, base_layers, session, registry)?;
    store.collect_garbage()?;
    Ok((store, stored))
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
    let mut formats = settings.formats;
    formats.sort_unstable();
    formats.dedup();
    let is_chosen = flags.builder.builder.is_some();
    let image = match LocalImage::open(name, registry) {
        Err(error) if !is_chosen => return without_disks(error),
        image => image?,
    };
    let subject = match disks::Subject::new(name, &image, &flags.compose, &flags.builder) {
        Err(error) if !is_chosen => return without_disks(error),
        subject => subject?,
    };
    let mut request = disks::Request::usual(subject, &formats, None, (registry, session))?;
    request.ssh_key = flags.ssh_key.as_deref();
    request.overwrite = Overwrite::new(flags.force);
    match disks::make(&request, session) {
        // An image is made by anyone; who wants disks that only root makes says so.
        Err(error) if !is_chosen && subject.builder.is_of_root() && hint::is::<Unready>(&error) => {
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
    #[serde(flatten)]
    published: Option<&'a Published>,
    /// The images that were signed, with '--sign-key'.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    signed: &'a [Digest],
}

fn summarise(report: &Report<'_>, session: &Session) {
    let progress = &session.progress;
    let Report { image: report, disks, .. } = report;
    for platform in &report.platforms {
        progress.line(format!("{} {}", platform.platform, platform.digest));
        let (base, ours): (Vec<_>, Vec<_>) = platform.layers.iter().partition(|layer| layer.name == "base");
        let size: u64 = base.iter().map(|layer| layer.size).sum();
        progress.line(format!(
            "  {:<12} {:>9} in {}",
            "base",
            human_bytes(size),
            counted(base.len(), "layer")
        ));
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
