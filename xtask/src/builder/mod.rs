//! An image -> one raw disk that boots it.
//!
//! A disk is made once for an image and what it is made with, and kept until another image's.

mod accounts;
mod config;
mod cpio;
mod grub;
mod image;
mod layout;
mod medium;
mod ostree;

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;

use crate::disk::{DiskName, Medium};
use crate::hint::hinted;
use crate::oci::Digest;
use crate::preflight::Need;
use crate::progress::Progress;

pub(crate) use self::config::{Config, Configs};
pub(crate) use self::image::LocalImage;

/// An image that installs itself says by this label which builder does it.
pub(crate) const LABEL: &str = "bootc-testboot.builder";

/// Who makes a disk of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Builder {
    /// The image's own ostree, GRUB and mke2fs, in namespaces: no container engine
    Ostree,
}

/// What is to be made.
pub(crate) struct Order<'a> {
    pub(crate) image: &'a LocalImage,
    pub(crate) builder: Builder,
    /// What it is made with.
    pub(crate) config: &'a Config,
    /// Of the disk, in bytes.
    pub(crate) size: u64,
    pub(crate) name: &'a DiskName,
    /// The workspace's.
    pub(crate) root: &'a Path,
    /// Where raw disks are kept.
    pub(crate) kept: &'a Path,
}

/// A disk that is kept.
pub(crate) struct RawDisk {
    pub(crate) path: PathBuf,
    name: DiskName,
    /// While this is held, nobody replaces it.
    _lock: File,
}

impl Builder {
    /// The builder that `image` asks for.
    pub(crate) fn of(image: &LocalImage) -> Option<Builder> {
        image.label(LABEL).and_then(|name| Builder::from_str(name, false).ok())
    }

    fn name(self) -> &'static str {
        match self {
            Builder::Ostree => "ostree",
        }
    }

    /// The programs that it starts on this machine.
    pub(crate) fn needs(self) -> Vec<Need> {
        match self {
            Builder::Ostree => ostree::needs(),
        }
    }

    /// How large a disk has to be for what `config` wants, in bytes.
    pub(crate) fn least_size(self, config: &Config) -> u64 {
        match self {
            Builder::Ostree => ostree::least_size(config),
        }
    }
}

impl fmt::Display for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a disk is made of: when this changes, it is another one.
pub(crate) fn inputs(order: &Order<'_>) -> Result<Digest> {
    Ok(Job::read(order)?.inputs)
}

/// What is on an installer's medium beside the disk, which the raw is.
pub(crate) fn medium(order: &Order<'_>, _raw: &RawDisk, progress: &Progress) -> Result<Medium> {
    let job = Job::read(order)?;
    let made = match order.builder {
        Builder::Ostree => medium::make(order, &job, progress),
    };
    made.with_context(|| format!("making an installer of {}", order.name))
}

/// What that is made of, beside the disk's own inputs.
pub(crate) fn medium_inputs(order: &Order<'_>) -> Result<Digest> {
    let inputs = match order.builder {
        Builder::Ostree => [medium::PROCESS.to_owned(), medium::installer(order.root)?],
    };
    Ok(Digest::of(inputs.join("\n").as_bytes()))
}

/// The raw disk of an image, made when it is not there.
pub(crate) fn ensure(
    order: &Order<'_>,
    progress: &Progress,
    preflight: impl FnOnce(&[Need]) -> Result<()>,
) -> Result<RawDisk> {
    let job = Job::read(order)?;
    let lock = lock(order.kept)?;
    let path = order.kept.join(file_name(order.name, job.inputs));
    if !path.exists() {
        preflight(&order.builder.needs())?;
        make(order, &job, &path, progress)?;
    }
    Ok(RawDisk { path, name: order.name.clone(), _lock: lock })
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
                fs::remove_file(&other).with_context(|| format!("removing {}", other.display()))?;
            }
        }
        Ok(())
    }
}

fn file_name(name: &DiskName, inputs: Digest) -> String {
    format!("{name}-{}.raw", inputs.short())
}

/// An order with what is read for it.
struct Job {
    script: PathBuf,
    kernel_arguments: String,
    inputs: Digest,
}

impl Job {
    fn read(order: &Order<'_>) -> Result<Job> {
        let config = order.config;
        match order.builder {
            Builder::Ostree => ostree::check_config(config)?,
        }
        let script = order.root.join(ostree::SCRIPT);
        let content = fs::read(&script).with_context(|| format!("reading {}", ostree::SCRIPT))?;
        let inputs = [
            ostree::PROCESS,
            order.builder.name(),
            &order.image.config_digest.to_string(),
            &order.size.to_string(),
            &config.blueprint().context("writing the config as a blueprint")?,
            &Digest::of(&content).to_string(),
        ];
        let inputs = Digest::of(inputs.join("\n").as_bytes());
        Ok(Job { script, kernel_arguments: config.kernel.to_string(), inputs })
    }
}

/// Makes the disk under another name, until it is whole.
fn make(order: &Order<'_>, job: &Job, path: &Path, progress: &Progress) -> Result<()> {
    let unfinished = order.kept.join(".unfinished.raw");
    let writing = || format!("writing {}", path.display());
    // What a killed run left goes.
    let file = File::create(&unfinished).with_context(writing)?;
    let made = match order.builder {
        Builder::Ostree => ostree::install(order, job, &unfinished, &file, progress),
    };
    if let Err(error) = made {
        // The first error is the one to show.
        fs::remove_file(&unfinished).ok();
        return Err(error).with_context(|| format!("making a disk of {}", order.name));
    }
    let name = || -> std::io::Result<()> {
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        File::open(order.kept)?.sync_all()
    };
    name().with_context(writing)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builders_have_the_names_that_labels_use() {
        for builder in Builder::value_variants() {
            assert_eq!(Builder::from_str(builder.name(), false).as_ref(), Ok(builder));
        }
    }
}
