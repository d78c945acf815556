//! `disk`: a raw disk in the formats that hypervisors and clouds take.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, anyhow};
use serde::Serialize;

use super::record::{self, Overwrite};
use super::{Session, disks, dist};
use crate::builder::{Configs, LocalImage};
use crate::disk::{self, DiskError, DiskFormat, DiskName, Options, Qcow2Compression, Target, Template};
use crate::flags::{Compose, Disk, DiskBuilder, DiskSource};
use crate::hint::{WithHint, hinted};
use crate::oci::ImageName;
use crate::progress::human_bytes;
use crate::unfinished::Unfinished;

/// The description of an OVA's virtual machine, in the workspace.
const TEMPLATE: &str = "configs/builder/bootc-poc.ovf";

#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) outputs: Vec<OutputReport>,
}

/// One disk. Keys may be added, none renamed.
#[derive(Clone, Debug, Serialize)]
pub(super) struct OutputReport {
    pub(super) format: DiskFormat,
    pub(super) path: PathBuf,
    /// Of the file, in bytes; holes count.
    pub(super) size: u64,
    /// Of the disk that is in it, in bytes.
    pub(super) virtual_size: u64,
    /// Of the file, in hex.
    pub(super) sha256: String,
}

pub(crate) fn run(flags: &Disk, session: &Session) -> Result<()> {
    let mut formats = flags.formats.clone();
    formats.sort_unstable();
    formats.dedup();
    let folder = flags.output.clone().unwrap_or_else(|| folder(session));
    let report = match &flags.from {
        Some(DiskSource::Raw(_)) if formats.contains(&DiskFormat::Iso) => {
            return Err(anyhow!(
                "a raw disk alone does not make an iso: its installer is of the image's own parts"
            ))
            .hint("name the image with '--from', or leave out iso");
        }
        Some(DiskSource::Raw(source)) => {
            check_raw(flags, session)?;
            let name = flags.name.clone().map_or_else(|| name_of(source), Ok)?;
            let options = options(name, &formats, flags.qcow2_compression, session)?;
            let path = |format: DiskFormat| folder.join(options.name.file(format));
            // Its own file is refused in any case, with better words.
            let paths = formats.iter().map(|format| path(*format)).filter(|path| !is_same(path, source));
            Overwrite::new(flags.force).check(paths, session)?;
            let report = write(source, &formats, &options, &folder, session)?;
            for output in &report.outputs {
                record::keep(&path(output.format), output, None, session)?;
            }
            report
        }
        Some(DiskSource::Image(image)) => of_image(image, &formats, &folder, flags, session)?,
        None => of_image(&dist::image(&flags.compose, session)?, &formats, &folder, flags, session)?,
    };
    session.print(&report, || {
        // As sha256sum writes it, and checks it.
        let line = |output: &OutputReport| format!("{}  {}\n", output.sha256, output.path.display());
        report.outputs.iter().map(line).collect()
    })
}

/// A raw disk is what it is: what it could be told is refused, and what is left out is said.
fn check_raw(flags: &Disk, session: &Session) -> Result<()> {
    if flags.ssh_key.is_some() {
        return Err(anyhow!(
            "'--ssh-key' adds a key while a disk is made of an image, and a raw disk is made"
        ))
        .hint("leave it out, or name an image with '--from'");
    }
    if flags.size.is_some() {
        return Err(anyhow!("'--size' is for disks that are made of an image, and a raw disk has its size"))
            .hint("leave it out, or name an image with '--from'");
    }
    for format in &flags.formats {
        if let Some(file) = Configs::file_of(&session.root, *format) {
            session.progress.line(format!("{format}: {file} is for disks of images; the raw stays as it is"));
        }
    }
    Ok(())
}

/// Where disks go when nobody says.
pub(super) fn folder(session: &Session) -> PathBuf {
    session.dist_dir().join("disk")
}

pub(super) fn options(
    name: DiskName,
    formats: &[DiskFormat],
    qcow2_compression: Qcow2Compression,
    session: &Session,
) -> Result<Options> {
    Ok(Options {
        name,
        qcow2_compression,
        template: formats.contains(&DiskFormat::Ova).then(|| template(&session.root)).transpose()?,
        medium: None,
        threads: thread::available_parallelism().context("counting the processor's cores")?.get(),
    })
}

/// The disk for QEMU that `dist` makes of an image by default.
pub(super) fn default(flags: &Compose, builder: &DiskBuilder, session: &Session) -> Result<PathBuf> {
    let image_name = dist::image(flags, session)?;
    let registry = session.registry()?;
    let image = LocalImage::open(&image_name, &registry)?;
    let subject = disks::Subject::new(&image_name, &image, flags, builder)?;
    let request = disks::Request::usual(subject, &[DiskFormat::Qcow2], None, (&registry, session))?;
    disks::make(&request, session)?;
    Ok(request.path(DiskFormat::Qcow2))
}

fn of_image(
    image_name: &ImageName,
    formats: &[DiskFormat],
    folder: &Path,
    flags: &Disk,
    session: &Session,
) -> Result<Report> {
    let registry = session.registry()?;
    let image = LocalImage::open(image_name, &registry)?;
    let subject = disks::Subject::new(image_name, &image, &flags.compose, &flags.builder)?;
    let mut request = disks::Request::usual(subject, formats, flags.name.as_ref(), (&registry, session))?;
    if let Some(size) = flags.size {
        request.size = disks::Size::Asked(size);
    }
    request.ssh_key = flags.ssh_key.as_deref();
    request.options.qcow2_compression = flags.qcow2_compression;
    request.folder = folder.to_owned();
    request.overwrite = Overwrite::new(flags.force);
    Ok(Report { outputs: disks::make(&request, session)? })
}

pub(super) fn write(
    source: &Path,
    formats: &[DiskFormat],
    options: &Options,
    folder: &Path,
    session: &Session,
) -> Result<Report> {
    let reading = || format!("reading the raw disk {}", source.display());
    let raw = File::open(source).hint("'--from' names a raw disk that is there").with_context(reading)?;
    if !raw.metadata().with_context(reading)?.is_file() {
        return Err(anyhow!("{} is not a regular file", source.display()))
            .hint("copy it into one first: 'cp --sparse=always'");
    }
    let chunks = disk::chunks(&raw, formats).map_err(|error| explained(error, source, folder, options))?;

    let _lock = lock(folder)?;
    let unfinished: Vec<Unfinished> = formats
        .iter()
        .map(|format| begin(folder.join(options.name.file(*format)), source))
        .collect::<Result<_>>()?;
    let targets = formats
        .iter()
        .zip(&unfinished)
        .map(|(format, output)| Ok(Target { format: *format, file: output.file().try_clone()? }))
        .collect::<Result<_>>()
        .with_context(|| format!("writing to {}", folder.display()))?;
    let names: Vec<&str> = formats.iter().map(|format| format.name()).collect();
    let step = session.progress.bytes(format!("writing {}", names.join(", ")), chunks * disk::CHUNK_BYTES);
    let disks = disk::convert(&raw, targets, options, || step.advance(disk::CHUNK_BYTES));
    let disks = disks.map_err(|error| explained(error, source, folder, options))?;

    let mut outputs = Vec::new();
    for (made, unfinished) in disks.into_iter().zip(unfinished) {
        let path = session.shown(&unfinished.path);
        unfinished.finish()?;
        outputs.push(OutputReport {
            format: made.format,
            path,
            size: made.size,
            virtual_size: made.virtual_size,
            sha256: made.digest.hex(),
        });
    }
    step.done(format!("wrote {}", names.join(", ")));
    for output in &outputs {
        let (path, size) = (output.path.display(), human_bytes(output.size));
        let virtual_size = human_bytes(output.virtual_size);
        session.progress.line(format!("{path}: {size}, a disk of {virtual_size}"));
        session.progress.line(output.format.next_steps(&output.path));
    }
    Ok(Report { outputs })
}

/// The raw's own name.
fn name_of(source: &Path) -> Result<DiskName> {
    let stem = source.file_stem().unwrap_or_default().to_string_lossy();
    stem.parse().hint("name the disk with '--name'")
}

fn template(root: &Path) -> Result<Template> {
    let path = root.join(TEMPLATE);
    let reading = || format!("reading {TEMPLATE}");
    let text = fs::read_to_string(&path).with_context(reading)?;
    Template::parse(&text).hint(format!("correct {TEMPLATE}")).with_context(reading)
}

/// Makes the folder, and sees to it that no other run writes there.
pub(super) fn lock(folder: &Path) -> Result<File> {
    let writing = || format!("writing to {}", folder.display());
    fs::create_dir_all(folder).with_context(writing)?;
    let lock = File::open(folder).with_context(writing)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(anyhow!("another run is writing to {}", folder.display()))
            .hint("wait for it, or write elsewhere with '--output DIR'"),
        Err(TryLockError::Error(error)) => Err(error).with_context(writing),
    }
}

/// An empty file, to become the one at `path`, in whose folder no other run writes as long as the first is open.
pub(super) fn begin_alone(path: &Path) -> Result<(File, Unfinished)> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    let name = path.file_name().with_context(|| format!("{} is not a file's name", path.display()))?;
    let lock = lock(folder)?;
    Ok((lock, Unfinished::new(folder.join(name))?))
}

/// An empty file, to become the one at `path`.
fn begin(path: PathBuf, source: &Path) -> Result<Unfinished> {
    if is_same(&path, source) {
        return Err(anyhow!("{} would be written over itself", path.display()))
            .hint("write elsewhere with '--output DIR', or under another name with '--name'");
    }
    Unfinished::new(path)
}

fn is_same(path: &Path, source: &Path) -> bool {
    fs::canonicalize(path).is_ok_and(|path| fs::canonicalize(source).is_ok_and(|raw| raw == path))
}

/// An error with the file that it is about, and what to do.
fn explained(error: DiskError, source: &Path, folder: &Path, options: &Options) -> anyhow::Error {
    let raw = format!("reading the raw disk {}", source.display());
    match &error {
        DiskError::Empty => hinted(error, "give a file with a disk in it").context(raw),
        DiskError::TooLarge { format, .. } => {
            let hint = format!("leave out {format}, or make a smaller disk");
            hinted(error, hint).context(raw)
        }
        DiskError::Changed => {
            hinted(error, "stop the machine or the program that writes to it, and try again").context(raw)
        }
        DiskError::Read(_) | DiskError::Encode(_) => anyhow::Error::from(error).context(raw),
        DiskError::Write { format, .. } => {
            let path = folder.join(options.name.file(*format));
            anyhow::Error::from(error).context(format!("writing {}", path.display()))
        }
    }
}
