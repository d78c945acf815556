//! `pull`: a packed disk becomes a file again, checked as it comes.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;

use super::{Session, disk, packed as packing};
use crate::disk::DiskFormat;
use crate::flags::Pull;
use crate::hint::WithHint;
use crate::oci::digest::DigestWriter;
use crate::oci::{Digest, Platform};
use crate::pack::{AppImage, PackedDisk, UnpackError, Unpacker};
use crate::progress::human_bytes;
use crate::registry::Client;
use crate::source::{Home, Source};
use crate::unfinished::Replace;

/// The file that was made. Keys may be added, none renamed.
#[derive(Debug, Serialize)]
struct Report {
    /// The image's.
    digest: Digest,
    format: DiskFormat,
    path: PathBuf,
    size: u64,
    virtual_size: u64,
    /// Of the file, in hex.
    sha256: String,
    /// Whether it was there as it should be, so that nothing was fetched.
    unchanged: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<ImageOfDisk>,
}

#[derive(Debug, Serialize)]
struct ImageOfDisk {
    name: Option<String>,
    digest: Digest,
}

pub(crate) fn run(flags: &Pull, session: &Session) -> Result<()> {
    let registry = session.registry()?;
    let name = &flags.image;
    let reading = || format!("reading {name}");
    let source = Source::open(name, &registry).with_context(reading)?;
    let platform = flags.platform.unwrap_or_else(Platform::host);
    let manifest = source.manifest(platform, &registry).with_context(reading)?;
    let config = source.config(&manifest.config, &registry).with_context(reading)?;
    let packed = PackedDisk::read(&manifest, &config).map_err(|error| packing::not_packed(error, name))?;
    let found = packed.facts.origin.platform;
    if flags.platform.is_some_and(|asked| asked != found) {
        return Err(anyhow!("it is for {found}")).hint("leave out '--platform'").with_context(reading);
    }

    let (path, replace) = target(flags.output.as_deref(), &packed);
    let replace = if flags.force { Replace::Yes } else { replace };
    let unchanged = is_there(&path, &packed)?;
    if !unchanged {
        if replace == Replace::No && path.symlink_metadata().is_ok() {
            return Err(anyhow!("{} is there, and is another disk", path.display()))
                .hint("name another with '-o FILE', or add '--force' to replace it");
        }
        fetch(&source, &packed, (&path, replace), session, &registry)?;
    }
    let facts = &packed.facts;
    let size = human_bytes(facts.size);
    session.progress.line(match unchanged {
        true => format!("{} is there as it should be: {size}", path.display()),
        false => format!("{}: {size}, a disk of {}", path.display(), human_bytes(facts.virtual_size)),
    });
    session.progress.line(facts.format.next_steps(&path));
    let report = Report {
        digest: manifest.blob.digest(),
        format: facts.format,
        path,
        size: facts.size,
        virtual_size: facts.virtual_size,
        sha256: facts.sha256.hex(),
        unchanged,
        image: facts.origin.image.clone().map(|AppImage { name, digest }| ImageOfDisk { name, digest }),
    };
    // As sha256sum writes it, and checks it.
    session.print(&report, || format!("{}  {}", report.sha256, report.path.display()))
}

/// The file that the disk becomes, and whether one that is there is replaced: only if the user has
/// named it.
fn target(output: Option<&Path>, packed: &PackedDisk) -> (PathBuf, Replace) {
    let own = packed.facts.name.to_string();
    match output {
        None => (own.into(), Replace::No),
        Some(folder) if folder.is_dir() => (folder.join(own), Replace::No),
        Some(file) => (file.to_owned(), Replace::Yes),
    }
}

/// Whether the very disk is there.
fn is_there(path: &Path, packed: &PackedDisk) -> Result<bool> {
    let reading = || format!("reading {}", path.display());
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() == packed.facts.size => {}
        Ok(metadata) if metadata.is_file() => return Ok(false),
        Ok(_) => bail!("{} is not a regular file", path.display()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).with_context(reading),
    }
    let mut hashed = DigestWriter::new(io::sink());
    io::copy(&mut File::open(path).with_context(reading)?, &mut hashed).with_context(reading)?;
    Ok(hashed.finish().1 == packed.facts.sha256)
}

/// Writes the disk, which has its name once it is whole.
fn fetch(
    source: &Source,
    packed: &PackedDisk,
    (path, replace): (&Path, Replace),
    session: &Session,
    registry: &Client,
) -> Result<()> {
    let (_lock, unfinished) = disk::begin_alone(path)?;
    let mut unpacker = Unpacker::new(packed, unfinished.file())?;
    let step = session.progress.bytes(format!("pulling {}", packed.facts.name), packed.layer.size);
    let fetched = match &source.home {
        Home::Registry(reference) => registry.fetch(reference, &packed.layer, &mut unpacker, &step),
        Home::Layout(store) => store.copy(&packed.layer, &mut unpacker, &|count| step.advance(count)),
    };
    fetched
        .and_then(|()| unpacker.finish().map_err(UnpackError::into_hinted))
        .with_context(|| format!("pulling into {}", path.display()))?;
    unfinished.finish_as(replace)
}
