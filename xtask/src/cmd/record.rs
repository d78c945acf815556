//! What is known of disks that were written: of what they were made, and when. A file that it does not
//! know is somebody's own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use super::Session;
use super::disk::OutputReport;
use crate::disk::DiskFormat;
use crate::hint::WithHint;
use crate::oci::Digest;
use crate::unfinished;

/// Which files a run may replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overwrite {
    /// Those alone that are as a run wrote them.
    Known,
    All,
}

/// What is known of a disk that was written.
#[derive(Debug, Deserialize, Serialize)]
struct Record {
    /// What it was made of; none of a raw that was given.
    inputs: Option<Digest>,
    /// When its file was written, in nanoseconds since 1970, so that a change is seen.
    modified: u128,
    size: u64,
    virtual_size: u64,
    sha256: String,
}

/// A file where a disk is to be.
enum Standing {
    Absent,
    /// As it was written.
    Known(Record),
    /// It was changed, or no run wrote it.
    Foreign,
}

impl Overwrite {
    /// What `--force` says.
    pub(super) fn new(force: bool) -> Overwrite {
        if force { Overwrite::All } else { Overwrite::Known }
    }

    /// Refuses to replace what may not be replaced, all of it.
    pub(super) fn check(self, paths: impl Iterator<Item = PathBuf>, session: &Session) -> Result<()> {
        let mut foreign = Vec::new();
        for path in paths.filter(|_| self == Overwrite::Known) {
            let standing = Standing::of(&path, session);
            if let Standing::Foreign = standing.with_context(|| format!("looking at {}", path.display()))? {
                foreign.push(session.shown(&path).display().to_string());
            }
        }
        if foreign.is_empty() {
            return Ok(());
        }
        Err(anyhow!("not written by this command, or changed since: {}", foreign.join(", "))).hint(
            "'cargo xtask disk FORMAT --force' writes it anew, '--output DIR' elsewhere; or move it away",
        )
    }
}

impl Standing {
    fn of(path: &Path, session: &Session) -> io::Result<Standing> {
        let (size, modified) = match state(path) {
            Ok(state) => state,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Standing::Absent),
            Err(error) => return Err(error),
        };
        // Without a record that can be read, nobody knows it.
        let text = fs::read(record_path(path, session)).unwrap_or_default();
        Ok(match serde_json::from_slice::<Record>(&text) {
            Ok(record) if (record.size, record.modified) == (size, modified) => Standing::Known(record),
            Ok(_) | Err(_) => Standing::Foreign,
        })
    }
}

/// The disk that was made of these inputs, if it is there as it was written.
pub(super) fn find(
    path: &Path,
    format: DiskFormat,
    inputs: Digest,
    session: &Session,
) -> Result<Option<OutputReport>> {
    let standing = Standing::of(path, session).with_context(|| format!("looking at {}", path.display()))?;
    let Standing::Known(record) = standing else { return Ok(None) };
    Ok((record.inputs == Some(inputs)).then(|| OutputReport {
        format,
        path: session.shown(path),
        size: record.size,
        virtual_size: record.virtual_size,
        sha256: record.sha256,
    }))
}

/// Writes down what was written at `path`.
pub(super) fn keep(
    path: &Path,
    report: &OutputReport,
    inputs: Option<Digest>,
    session: &Session,
) -> Result<()> {
    let (size, modified) = state(path).with_context(|| format!("looking at {}", path.display()))?;
    let (virtual_size, sha256) = (report.virtual_size, report.sha256.clone());
    let record = Record { inputs, modified, size, virtual_size, sha256 };
    let folder = session.cache("disks");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    unfinished::replace_file(&record_path(path, session), &serde_json::to_vec(&record)?)
}

/// Where it is written down what a disk is.
fn record_path(disk: &Path, session: &Session) -> PathBuf {
    let place = std::path::absolute(disk).unwrap_or_else(|_| disk.to_owned());
    let key = Digest::of(place.as_os_str().as_encoded_bytes());
    session.cache("disks").join(format!("{}.json", key.short()))
}

/// A file's size, and when it was written, in nanoseconds since 1970.
fn state(path: &Path) -> io::Result<(u64, u128)> {
    let metadata = fs::metadata(path)?;
    let modified = metadata.modified()?.duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
    Ok((metadata.len(), modified.as_nanos()))
}
