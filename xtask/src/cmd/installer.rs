//! An installer that a builder makes as a whole: to its place, hashed on the way.

use std::fs::File;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};

use super::Session;
use super::disk::{self, OutputReport};
use crate::builder::{self, Order};
use crate::disk::{DiskFormat, to_stick};
use crate::oci::digest::DigestWriter;
use crate::progress::human_bytes;
use crate::unfinished::Unfinished;

/// Makes it, as the file `path`.
pub(super) fn write(order: &Order<'_>, path: &Path, session: &Session) -> Result<OutputReport> {
    let preflight = |needs: &_, lacks: &_| session.ensure_all(needs, lacks);
    builder::installer(order, &session.progress, preflight, |iso| take(iso, path, session))
}

fn take(iso: &Path, path: &Path, session: &Session) -> Result<OutputReport> {
    let writing = || format!("writing {}", path.display());
    let _lock = disk::lock(path.parent().with_context(writing)?)?;
    let unfinished = Unfinished::new(path.to_owned())?;
    let mut out = DigestWriter::new(unfinished.file());
    let copy = |out: &mut _| io::copy(&mut File::open(iso)?, out);
    copy(&mut out).with_context(writing)?;
    let (_, digest, size) = out.finish();
    unfinished.finish()?;
    let path = session.shown(path);
    session.progress.line(format!("{}: {}", path.display(), human_bytes(size)));
    session.progress.line(to_stick(&path));
    Ok(OutputReport { format: DiskFormat::Iso, path, size, virtual_size: size, sha256: digest.hex() })
}
