//! What builders have made, and what they make: in a folder of its own until it is whole.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use super::{Builder, Order, bootc, image_builder, inputs, left, ostree};
use crate::disk::{self, DiskName};
use crate::hint::{WithHint, hinted};
use crate::oci::Digest;
use crate::preflight::{Lack, Need};
use crate::progress::Progress;
use crate::store::Store;
use crate::unfinished::replace_file;

/// A disk that is kept.
pub(crate) struct RawDisk {
    pub(crate) path: PathBuf,
    name: DiskName,
    /// While this is held, nobody replaces it.
    _lock: File,
}

/// The raw disk of an image, made when it is not there. `preflight` gets what it needs before
/// anything slow begins: programs, and what else is missing.
pub(crate) fn ensure(
    order: &Order<'_>,
    progress: &Progress,
    preflight: impl FnOnce(&[Need], &[Lack]) -> Result<()>,
) -> Result<RawDisk> {
    let inputs = inputs(order)?;
    let lock = lock(order.kept)?;
    let path = order.kept.join(file_name(order.name, inputs));
    if path.exists() && !Identity::is_kept(&path) {
        progress.warn(format!("{} is not as it was made: it is made anew", path.display()));
    }
    if !Identity::is_kept(&path) {
        let (needs, lacks) = order.requirements()?;
        preflight(&needs, &lacks)?;
        make(order, inputs, &path, progress).with_context(|| format!("making a disk of {}", order.name))?;
    }
    Ok(RawDisk { path, name: order.name.clone(), _lock: lock })
}

/// Has the builder itself make an installer of an image, which `take` takes to its place. `preflight`
/// as for [`ensure`].
pub(crate) fn installer<T>(
    order: &Order<'_>,
    progress: &Progress,
    preflight: impl FnOnce(&[Need], &[Lack]) -> Result<()>,
    take: impl FnOnce(&Path) -> Result<T>,
) -> Result<T> {
    let inputs = inputs(order)?;
    let _lock = lock(order.kept)?;
    let (needs, lacks) = order.requirements()?;
    preflight(&needs, &lacks)?;
    let made = in_folder(order, |folder| take(&build(order, inputs, folder, progress)?));
    made.with_context(|| format!("making an installer of {}", order.name))
}

/// What tells that a kept disk is as it was made, without reading all of it.
#[derive(Debug, Deserialize, PartialEq, Eq, Serialize)]
struct Identity {
    inode: u64,
    /// In bytes.
    size: u64,
    /// When it was written: seconds since 1970, and nanoseconds.
    modified: (i64, i64),
}

impl Identity {
    fn of(path: &Path) -> Result<Identity> {
        let metadata = fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?;
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Ok(Identity { inode: metadata.ino(), size: metadata.len(), modified })
    }

    /// Writes down what the disk at `path` is.
    fn keep(path: &Path) -> Result<()> {
        let file = identity_path(path);
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        replace_file(&file, &serde_json::to_vec(&Identity::of(path)?)?)
    }

    /// Whether it still is what was written down.
    fn is_kept(path: &Path) -> bool {
        // One without a record that can be read is made again.
        let text = fs::read(identity_path(path)).unwrap_or_default();
        let kept: Option<Identity> = serde_json::from_slice(&text).ok();
        kept.is_some_and(|kept| Identity::of(path).is_ok_and(|found| found == kept))
    }
}

/// Beside the folder of disks, which has nothing but disks.
fn identity_path(raw: &Path) -> PathBuf {
    let folder = raw.parent().unwrap_or(raw).with_extension("known");
    folder.join(raw.file_name().unwrap_or_default()).with_extension("json")
}

impl RawDisk {
    /// Removes the disks that are not made of any of `inputs`: each takes as much room as its image.
    pub(crate) fn keep_only(&self, inputs: &[Digest]) -> Result<()> {
        let Some(folder) = self.path.parent() else { return Ok(()) };
        let listing = || format!("listing {}", folder.display());
        let kept: Vec<PathBuf> =
            inputs.iter().map(|inputs| folder.join(file_name(&self.name, *inputs))).collect();
        for entry in fs::read_dir(folder).with_context(listing)? {
            let other = entry.with_context(listing)?.path();
            if other.extension().is_some_and(|ending| ending == "raw") && !kept.contains(&other) {
                let identity = identity_path(&other);
                if identity.exists() {
                    let removing = || format!("removing {}", identity.display());
                    fs::remove_file(&identity).with_context(removing)?;
                }
                fs::remove_file(&other).with_context(|| format!("removing {}", other.display()))?;
            }
        }
        Ok(())
    }
}

fn file_name(name: &DiskName, inputs: Digest) -> String {
    format!("{name}-{}.raw", inputs.short())
}

/// Makes the disk, and gives it its name.
fn make(order: &Order<'_>, inputs: Digest, path: &Path, progress: &Progress) -> Result<()> {
    in_folder(order, |folder| {
        let raw = build(order, inputs, folder, progress)?;
        finish(order, &raw, path).with_context(|| format!("writing {}", path.display()))?;
        Identity::keep(path)
    })
}

/// Does `work` in an empty folder, which is gone afterwards.
fn in_folder<T>(order: &Order<'_>, work: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let folder = order.kept.join(".unfinished");
    let writing = || format!("writing to {}", folder.display());
    // What a killed run left goes.
    if folder.exists() {
        left::sweep(&order.container(), &folder).context("removing what a run that was killed has left")?;
        fs::remove_dir_all(&folder)
            .with_context(writing)
            .hint(format!("if it is another user's, run 'sudo rm -r {}'", folder.display()))?;
    }
    fs::create_dir(&folder).with_context(writing)?;
    let done = work(&folder);
    let removed = fs::remove_dir_all(&folder).with_context(writing);
    // The first error is the one to show.
    done.and_then(|done| removed.map(|()| done))
}

/// Makes the disk in an empty folder, and gives its path.
fn build(order: &Order<'_>, inputs: Digest, folder: &Path, progress: &Progress) -> Result<PathBuf> {
    match order.builder {
        Builder::Ostree => {
            let path = folder.join("disk.raw");
            let file = File::create(&path).with_context(|| format!("writing {}", path.display()))?;
            order.image.fetch(|| Store::create(order.fetched), order.registry, progress)?;
            ostree::install(order, inputs, (&path, &file), progress)?;
            Ok(path)
        }
        Builder::Osbuild => image_builder::make(order, folder, progress),
        Builder::Bootc => bootc::make(order, folder, progress),
    }
}

/// Gives the raw its size and its name.
fn finish(order: &Order<'_>, raw: &Path, path: &Path) -> std::io::Result<()> {
    let file = File::options().read(true).write(true).open(raw)?;
    disk::grow(&file, order.size)?;
    file.sync_all()?;
    fs::rename(raw, path)?;
    File::open(order.kept)?.sync_all()
}

fn lock(folder: &Path) -> Result<File> {
    let writing = || format!("writing to {}", folder.display());
    fs::create_dir_all(folder).with_context(writing)?;
    let lock = File::open(folder).with_context(writing)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            Err(hinted(anyhow!("another run is making a disk"), "wait for it, and run the command again"))
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(writing),
    }
}
