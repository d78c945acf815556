//! `pack`: disks into images, which go into a layout or a registry.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use serde::Serialize;

use super::build::{check_push, refuse_official};
use super::disk::OutputReport;
use super::gather::{Gathering, Named};
use super::packed::{self, PackedReport, hashed, said};
use super::versions::{Tags, Untagged};
use super::{Session, disks, dist, origin, versions};
use crate::builder::LocalImage;
use crate::disk::DiskFormat;
use crate::flags::{Pack, PackSource};
use crate::hint::WithHint;
use crate::oci::reference::is_tag;
use crate::oci::{Digest, ImageName, Platform, Reference};
use crate::pack::{self, Description, DiskFile, FileName, Order, Origin, PackedDisk, Packing, Readers};
use crate::progress::human_bytes;
use crate::registry::{Client, Until};
use crate::release::{self, AskedVersion, Kind, Tag};
use crate::store::Store;
use crate::workspace::DistroName;

#[derive(Debug, Serialize)]
struct Report {
    packed: Vec<PackedReport>,
    /// The releases that name the disks now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    releases: Vec<Named>,
}

/// A disk that is to be packed, and where it goes.
struct Job {
    order: Order,
    disk: OutputReport,
    destination: Destination,
    pushed_to: Option<Reference>,
}

/// A release, and the tags of the disks that it is to name.
struct Joining {
    release: Gathering,
    disks: Vec<Reference>,
}

/// A disk file, and what is to be said of it.
pub(super) struct Candidate {
    pub(super) report: OutputReport,
    /// Where the file was hashed by whoever wrote it.
    pub(super) sha256: Option<Digest>,
    pub(super) origin: Origin,
    /// `<distro>-<format>-<version>`, where that is known.
    pub(super) tag: Option<String>,
}

pub(crate) fn run(flags: &Pack, session: &Session) -> Result<()> {
    let registry = session.registry()?;
    if flags.push {
        if flags.compose.app_version == Some(AskedVersion::Next) {
            return Err(anyhow!("the next version has no image yet that disks could be of")).hint(
                "'cargo xtask dist --push' releases it with its disks; or name a version that is there",
            );
        }
        check_push(&flags.compose, session, &registry)?;
    }
    let mut candidates = Vec::new();
    for source in &flags.disks {
        if let PackSource::File(path) = source {
            candidates.push(of_file(path, flags, session, &registry)?);
        }
    }
    let mut formats: Vec<DiskFormat> = flags
        .disks
        .iter()
        .filter_map(|source| match source {
            PackSource::Format(format) => Some(*format),
            PackSource::File(_) => None,
        })
        .collect();
    formats.sort_unstable();
    formats.dedup();
    let targets = flags.disks.len();
    if let Some(to) = &flags.to
        && targets > 1
        && !matches!(to, ImageName::Layout { tag: None, .. })
    {
        return Err(anyhow!("{to} is one image, and {targets} disks are to be packed"))
            .hint("pack one at a time, or name a folder without a tag: 'oci:DIR'");
    }
    if !formats.is_empty() {
        candidates.extend(of_formats(&formats, flags, session, &registry)?);
    }

    // All that is refused is, before the first is packed.
    let readers = if flags.gzip { Readers::Old } else { Readers::OfToday };
    let mut jobs = Vec::new();
    let mut joining: Vec<Joining> = Vec::new();
    for candidate in candidates {
        let destination = destination(&candidate, flags, session)?;
        let pushed_to = flags.push.then(|| pushed_to(&candidate, flags, session)).transpose()?;
        for target in destination.reference().into_iter().chain(&pushed_to) {
            if let Some(release) = Gathering::of_disk(target, &candidate.origin, (session, &registry))? {
                release.there(&registry)?;
                match joining.iter_mut().find(|joining| joining.release.tag() == release.tag()) {
                    Some(joining) => joining.disks.push(target.clone()),
                    None => joining.push(Joining { release, disks: vec![target.clone()] }),
                }
            }
        }
        let (order, disk) = order(candidate, readers)?;
        jobs.push(Job { order, disk, destination, pushed_to });
    }

    let names: BTreeSet<String> = jobs.iter().map(|job| job.destination.name().to_string()).collect();
    if names.len() < jobs.len() {
        return Err(anyhow!("two of the disks would become the same image"))
            .hint("pack one at a time, and say where it goes: '--to REF'");
    }

    let (mut packed, mut sent) = (Vec::new(), Vec::new());
    for Job { order, disk, destination, pushed_to } in jobs {
        let report = match &destination {
            Destination::Layout { dir, tag } => {
                let store = Store::create(dir)?;
                let delivered = order.to_layout(&store, tag, &session.progress)?;
                let name = session.shown_name(&destination.name()).to_string();
                say(&name, &delivered.disk, delivered.outcome, session);
                let report = PackedReport::new(name, hashed(disk, &delivered.disk), &delivered);
                match pushed_to {
                    Some(target) => {
                        let pushed = pack::from_layout(&store, tag, &target, &registry)?;
                        let pushed = Some(said(&target, &pushed, session));
                        sent.push(packed::untagged(target, &delivered));
                        PackedReport { pushed, ..report }
                    }
                    None => report,
                }
            }
            Destination::Registry(target) => {
                let (report, untagged) = send(&order, disk, target, (session, &registry))?;
                sent.extend(untagged);
                match pushed_to {
                    Some(target) => {
                        let (pushed, untagged) =
                            send(&order, report.disk.clone(), &target, (session, &registry))?;
                        sent.extend(untagged);
                        PackedReport { pushed: pushed.pushed, ..report }
                    }
                    None => report,
                }
            }
        };
        packed.push(report);
    }
    // Nothing has a tag before all of it is there, and a release names what has one.
    for disk in &sent {
        disk.put(tags_of(&disk.tag).unwrap_or(Tags::Stay), &registry)?;
    }
    let gather = |Joining { release, disks }: Joining| {
        let disks: Vec<Untagged> = sent.iter().filter(|disk| disks.contains(&disk.tag)).cloned().collect();
        release.gather(&disks, &|| Ok(()), &registry)
    };
    let releases = joining.into_iter().map(gather).collect::<Result<_>>()?;
    let report = Report { packed, releases };
    session.print(&report, || {
        report.packed.iter().map(|packed| format!("{}  {}\n", packed.digest, packed.reference)).collect()
    })
}

/// Packs a disk into a registry. What has the tag of a release's disk there does not get it yet.
fn send(
    order: &Order,
    disk: OutputReport,
    target: &Reference,
    (session, registry): (&Session, &Client),
) -> Result<(PackedReport, Option<Untagged>)> {
    let is_of_release = tags_of(target).is_some();
    let until = if is_of_release { Until::Stored } else { Until::Tagged };
    let delivered = order.to_registry((target, until), registry, &session.progress)?;
    let (report, untagged) = packed::sent(target.clone(), disk, &delivered, session);
    Ok((report, is_of_release.then_some(untagged)))
}

/// Whether a disk's tag may change its meaning, where it is one.
fn tags_of(target: &Reference) -> Option<Tags> {
    let tag = target.tag().and_then(Tag::parse)?;
    matches!(tag.kind, Kind::Disk(_)).then(|| Tags::of(tag.version))
}

fn say(name: &str, disk: &PackedDisk, is_new: bool, session: &Session) {
    let size = human_bytes(disk.layer.size);
    session.progress.line(match is_new {
        true => format!("packed {} into {name}: {size}", disk.facts.name),
        false => format!("{name} has {} already: {size}", disk.facts.name),
    });
}

pub(super) fn order(candidate: Candidate, readers: Readers) -> Result<(Order, OutputReport)> {
    let Candidate { report, sha256, origin, tag: _ } = candidate;
    let path = &report.path;
    let name: FileName = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .parse()
        .with_context(|| format!("packing {}", path.display()))
        .hint("rename the file")?;
    let file = look(path)?;
    let packing = Packing::of(report.format, readers);
    let description =
        Description { name, format: report.format, virtual_size: report.virtual_size, sha256, origin };
    Ok((Order::new(file, packing, description)?, report))
}

fn look(path: &Path) -> Result<DiskFile> {
    DiskFile::look(path).map_err(|error| pack::explained(error, path))
}

/// Where a packed disk goes first.
enum Destination {
    Layout { dir: PathBuf, tag: String },
    Registry(Reference),
}

impl Destination {
    fn reference(&self) -> Option<&Reference> {
        match self {
            Destination::Layout { .. } => None,
            Destination::Registry(reference) => Some(reference),
        }
    }

    fn name(&self) -> ImageName {
        match self {
            Destination::Layout { dir, tag } => {
                ImageName::Layout { dir: dir.clone(), tag: Some(tag.clone()) }
            }
            Destination::Registry(reference) => ImageName::Registry(reference.clone()),
        }
    }
}

fn destination(candidate: &Candidate, flags: &Pack, session: &Session) -> Result<Destination> {
    Ok(match &flags.to {
        None => Destination::Layout { dir: session.dist_dir().join("oci"), tag: tag_of(candidate)? },
        Some(ImageName::Layout { dir, tag: None }) => {
            Destination::Layout { dir: dir.clone(), tag: tag_of(candidate)? }
        }
        Some(ImageName::Layout { dir, tag: Some(tag) }) => {
            Destination::Layout { dir: dir.clone(), tag: tag.clone() }
        }
        Some(ImageName::Registry(reference)) => {
            refuse_official(reference)?;
            Destination::Registry(reference.clone())
        }
    })
}

fn pushed_to(candidate: &Candidate, flags: &Pack, session: &Session) -> Result<Reference> {
    let settings = session.workspace()?.settings;
    let repository = flags.compose.image.as_ref().unwrap_or(&settings.image);
    Ok(repository.tagged(&tag_of(candidate)?))
}

fn tag_of(candidate: &Candidate) -> Result<String> {
    let name = candidate.report.path.display();
    let tag = candidate.tag.clone();
    let tag = tag.ok_or_else(|| anyhow!("nothing says which distro and version {name} is of")).hint(
        "name the file <distro>-<version>, as 'cargo xtask disk' does, or say where it goes: '--to REF'",
    )?;
    match is_tag(&tag) {
        true => Ok(tag),
        false => Err(anyhow!("`{tag}` cannot be a tag: at most 128 characters are allowed"))
            .hint("say where it goes: '--to REF'"),
    }
}

/// A disk file that somebody has made.
fn of_file(path: &Path, flags: &Pack, session: &Session, registry: &Client) -> Result<Candidate> {
    let format = pack::format_of(path)
        .ok_or_else(|| anyhow!("the name of {} does not say which format it has", path.display()))
        .hint("give it the ending of its format: .qcow2, .raw, .ami.raw, .vmdk, .vhd, .ova or .tar.gz")?;
    let file = look(path)?;
    let virtual_size = pack::virtual_size(path, format).map_err(|error| pack::explained(error, path))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_suffix(&format!(".{}", format.extension())).unwrap_or(&name);
    let named = Tag::parse(stem).filter(|tag| tag.kind == Kind::System);
    let (origin, tag) = match &flags.from {
        Some(image) => {
            let origin = origin::of_image(image, None, registry)?;
            let tag = origin::disk_tag(image, format);
            let by_name = || named.map(|tag| release::disk_tag(&tag.distro, format, tag.version));
            (origin, tag.or_else(by_name))
        }
        None => {
            let (distro, version) = named_by(flags, named.as_ref(), session, registry)?;
            let tag = distro.as_ref().zip(version.as_ref());
            let tag = tag.map(|(distro, version)| release::disk_tag(distro, format, version));
            let platform = match &flags.compose.platform[..] {
                [] => Platform::host(),
                [platform] => *platform,
                [_, _, ..] => {
                    return Err(anyhow!("a disk is of one platform")).hint("name one with '--platform'");
                }
            };
            let created = flags.compose.source_date_epoch;
            let origin =
                Origin { platform, created, distro, version, source: None, revision: None, image: None };
            (origin, tag)
        }
    };
    let report = OutputReport {
        format,
        path: session.shown(path),
        size: file.size,
        virtual_size,
        sha256: String::new(),
    };
    Ok(Candidate { report, sha256: None, origin, tag })
}

/// The distro and the version of a disk: what the command line says, and else the file's name.
fn named_by(
    flags: &Pack,
    named: Option<&Tag<'_>>,
    session: &Session,
    registry: &Client,
) -> Result<(Option<DistroName>, Option<String>)> {
    let workspace = session.workspace()?;
    let asked = flags.compose.distro.as_ref();
    let asked = asked.map(|query| workspace.distro_name(query).own_hint(|unknown| unknown.hint()));
    let distro = asked.transpose()?.or_else(|| named.map(|tag| tag.distro.clone()));
    let repository = flags.compose.image.as_ref().unwrap_or(&workspace.settings.image);
    let version = match (&flags.compose.app_version, &distro) {
        (Some(asked), Some(distro)) => Some(versions::named(asked, distro, repository, (session, registry))?),
        (Some(_), None) => {
            return Err(anyhow!("a version is a distro's, and nothing says which one the disk is of"))
                .hint("name it with '--distro'");
        }
        (None, _) => named.map(|tag| tag.version.to_owned()),
    };
    Ok((distro, version))
}

/// Disks of an image, made where they are not there.
fn of_formats(
    formats: &[DiskFormat],
    flags: &Pack,
    session: &Session,
    registry: &Client,
) -> Result<Vec<Candidate>> {
    let (name, made) = match &flags.from {
        Some(image) => (image.clone(), None),
        None => {
            let (made, name) = dist::made(&flags.compose, session)?;
            (name, Some(made))
        }
    };
    let image = LocalImage::open(&name, registry)?;
    let subject = disks::Subject::new(&name, &image, &flags.compose, &flags.builder)?;
    let request = disks::Request::usual(subject, formats, None, (registry, session))?;
    let outputs = disks::make(&request, session)?;
    let origin = origin::of_image(&name, made.as_ref().map(|made| (&made.target).into()), registry)?;
    let candidate = |report: OutputReport| {
        let sha256 = Some(format!("sha256:{}", report.sha256).parse()?);
        let tag = match &made {
            Some(made) => Some(made.disk_tag(report.format)),
            None => origin::disk_tag(&name, report.format),
        };
        Ok(Candidate { report, sha256, origin: origin.clone(), tag })
    };
    outputs.into_iter().map(candidate).collect()
}
