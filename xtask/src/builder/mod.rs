//! An image -> one raw disk that boots it.
//!
//! A disk is made once for an image and the options that it is made with, and kept until the next.

mod bootc;
mod grub;
mod image;
mod image_builder;
mod layout;
mod ostree;
mod podman;
mod ready;

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;
use serde::Deserialize;

use crate::disk::{self, DiskFormat, DiskName};
use crate::hint::{WithHint, hinted};
use crate::oci::{Digest, ImageName, Reference};
use crate::preflight::{Lack, Need};
use crate::progress::{Progress, human_bytes};
use crate::registry::Client;
use crate::store::Store;

pub(crate) use self::image::LocalImage;
pub(crate) use self::image_builder::IMAGE as BUILDER_IMAGE;

/// An image that installs itself says by this label which builder does it.
pub(crate) const LABEL: &str = "bootc-testboot.builder";

/// What every builder is told, in the workspace.
const CONFIG: &str = "configs/builder/config.toml";

/// Who makes a disk of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Builder {
    /// The image's own ostree, GRUB and mke2fs, in namespaces: no container engine
    Ostree,
    /// bootc-image-builder or image-builder, by root's podman: all of config.toml
    #[value(name = "image-builder")]
    Osbuild,
    /// The image's own 'bootc install to-disk', by root's podman: faster, without users
    Bootc,
}

/// What is to be made.
#[derive(Clone, Copy)]
pub(crate) struct Order<'a> {
    pub(crate) image: &'a LocalImage,
    pub(crate) builder: Builder,
    /// Of the disk, in bytes.
    pub(crate) size: u64,
    pub(crate) name: &'a DiskName,
    /// The workspace's.
    pub(crate) root: &'a Path,
    /// Where raw disks are kept.
    pub(crate) kept: &'a Path,
    /// The layout for layers that have to be fetched.
    pub(crate) fetched: &'a Path,
    pub(crate) registry: &'a Client,
    /// What `image-builder` runs.
    pub(crate) builder_image: &'a Reference,
    /// What a host of this disk is told to upgrade from, where bootc installs it.
    pub(crate) upgrades_from: &'a Reference,
    /// What will be made of the raw, and where.
    pub(crate) formats: &'a [DiskFormat],
    pub(crate) output: &'a Path,
}

/// A disk that is kept.
pub(crate) struct RawDisk {
    pub(crate) path: PathBuf,
    /// While this is held, nobody replaces it.
    _lock: File,
}

/// `configs/builder/config.toml`: the part of osbuild's blueprints that has a meaning here.
/// Source: osbuild.org, "Blueprint reference".
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    customizations: Customizations,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Customizations {
    #[serde(default)]
    kernel: Kernel,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kernel {
    #[serde(default)]
    append: String,
}

impl Builder {
    /// The builder that was asked for, or else the one that `image` asks for, if it can make a disk of
    /// it.
    pub(crate) fn choose(image: &LocalImage, asked: Option<Builder>, name: &ImageName) -> Result<Builder> {
        let own = image.label(LABEL).and_then(|name| Builder::from_str(name, false).ok());
        let builder = asked.or(own).unwrap_or(Builder::Osbuild);
        match (builder, own) {
            // Whether it has the programs is seen when its layers are.
            (Builder::Ostree, _) => Ok(builder),
            (Builder::Osbuild | Builder::Bootc, Some(Builder::Ostree)) => Err(anyhow!(
                "{builder} makes no disk of {name}: it has no bootc, and installs itself by ostree"
            ))
            .hint("leave '--builder' out"),
            (Builder::Osbuild | Builder::Bootc, _) if image.is_bootc() => Ok(builder),
            (Builder::Osbuild | Builder::Bootc, _) => Err(anyhow!(
                "{builder} makes no disk of {name}: no host boots it, since it has no label containers.bootc"
            ))
            .hint("build on a bootc base, as 'cargo xtask list' shows them"),
        }
    }

    /// Whether only root can run it.
    pub(crate) fn is_of_root(self) -> bool {
        match self {
            Builder::Ostree => false,
            Builder::Osbuild | Builder::Bootc => true,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Builder::Ostree => "ostree",
            Builder::Osbuild => "image-builder",
            Builder::Bootc => "bootc",
        }
    }

    /// The programs that it starts on this machine.
    pub(crate) fn needs(self) -> Vec<Need> {
        match self {
            Builder::Ostree => ostree::needs(),
            Builder::Osbuild => vec![podman::PODMAN],
            Builder::Bootc => vec![podman::PODMAN, podman::LOSETUP],
        }
    }
}

impl Order<'_> {
    /// What it needs: programs, and what else is missing.
    fn requirements(&self) -> Result<(Vec<Need>, Vec<Lack>)> {
        let mut needs = self.builder.needs();
        match self.builder {
            Builder::Ostree => Ok((needs, Vec::new())),
            Builder::Osbuild | Builder::Bootc => {
                let is_layout = matches!(self.image.name, ImageName::Layout { .. });
                if is_layout && self.image.layers_elsewhere()?.is_none() {
                    needs.push(podman::SKOPEO);
                }
                Ok((needs, ready::lacks(self)?))
            }
        }
    }

    /// What its container is called: the same in the next run, which ends one that was left.
    fn container(&self) -> String {
        format!("bootc-testboot-{}", Digest::of(self.kept.as_os_str().as_encoded_bytes()).short())
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

/// The raw disk of an image, made when it is not there. `preflight` gets what it needs before
/// anything slow begins: programs, and what else is missing.
pub(crate) fn ensure(
    order: &Order<'_>,
    progress: &Progress,
    preflight: impl FnOnce(&[Need], &[Lack]) -> Result<()>,
) -> Result<RawDisk> {
    let job = Job::read(order)?;
    let lock = lock(order.kept)?;
    let path = order.kept.join(format!("{}-{}.raw", order.name, job.inputs.short()));
    if !path.exists() {
        let (needs, lacks) = order.requirements()?;
        preflight(&needs, &lacks)?;
        make(order, &job, &path, progress).with_context(|| format!("making a disk of {}", order.name))?;
        forget_others(order, &path)?;
    }
    Ok(RawDisk { path, _lock: lock })
}

/// An order with what is read for it.
struct Job {
    kernel_arguments: String,
    inputs: Digest,
}

impl Job {
    fn read(order: &Order<'_>) -> Result<Job> {
        let config = config(order.root)?;
        let kernel_arguments = config.customizations.kernel.append;
        let digest_of = |file: &str| -> Result<String> {
            let content = fs::read(order.root.join(file)).with_context(|| format!("reading {file}"))?;
            Ok(Digest::of(&content).to_string())
        };
        let (process, own) = match order.builder {
            Builder::Ostree => (ostree::PROCESS, vec![digest_of(ostree::SCRIPT)?]),
            Builder::Osbuild => {
                let builder = order.builder_image.to_string();
                (image_builder::PROCESS, vec![digest_of(CONFIG)?, builder, order.upgrades_from.to_string()])
            }
            Builder::Bootc => (bootc::PROCESS, vec![order.upgrades_from.to_string()]),
        };
        let image = order.image.config_digest.to_string();
        let size = order.size.to_string();
        let mut inputs = vec![process, order.builder.name(), &image, &size, &kernel_arguments];
        inputs.extend(own.iter().map(String::as_str));
        let inputs = Digest::of(inputs.join("\n").as_bytes());
        Ok(Job { kernel_arguments, inputs })
    }
}

fn config(root: &Path) -> Result<Config> {
    let reading = || format!("reading {CONFIG}");
    let text = fs::read_to_string(root.join(CONFIG)).with_context(reading)?;
    toml::from_str(&text)
        .hint(
            "it has [customizations.kernel] with 'append'; users and keys come from cloud-init on each host",
        )
        .with_context(reading)
}

/// Makes the disk in a folder of its own, until it is whole.
fn make(order: &Order<'_>, job: &Job, path: &Path, progress: &Progress) -> Result<()> {
    let folder = order.kept.join(".unfinished");
    let writing = || format!("writing to {}", folder.display());
    // What a killed run left goes.
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(writing)?;
    }
    fs::create_dir(&folder).with_context(writing)?;
    let made = build(order, job, &folder, progress).and_then(|raw| {
        finish(order, &raw, path, progress).with_context(|| format!("writing {}", path.display()))
    });
    let removed = fs::remove_dir_all(&folder).with_context(writing);
    // The first error is the one to show.
    made.and(removed)
}

/// Makes the disk in an empty folder, and gives its path.
fn build(order: &Order<'_>, job: &Job, folder: &Path, progress: &Progress) -> Result<PathBuf> {
    match order.builder {
        Builder::Ostree => {
            let path = folder.join("disk.raw");
            let file = File::create(&path).with_context(|| format!("writing {}", path.display()))?;
            order.image.fetch(|| Store::create(order.fetched), order.registry, progress)?;
            ostree::install(order, job, (&path, &file), progress)?;
            Ok(path)
        }
        Builder::Osbuild => image_builder::make(image_builder::Product::Raw, order, folder, progress),
        Builder::Bootc => {
            let wishes = bootc::Wishes { kernel_arguments: &job.kernel_arguments, root_keys: None };
            bootc::make(&wishes, order, folder, progress)
        }
    }
}

/// Gives the raw its size and its name.
fn finish(order: &Order<'_>, raw: &Path, path: &Path, progress: &Progress) -> std::io::Result<()> {
    let file = File::options().read(true).write(true).open(raw)?;
    let size = disk::grow(&file, order.size)?;
    if size > order.size {
        let (made, asked) = (human_bytes(size), human_bytes(order.size));
        progress.warn(format!("the disk has {made}, not {asked}: {} made it as large", order.builder));
    }
    file.sync_all()?;
    fs::rename(raw, path)?;
    File::open(order.kept)?.sync_all()
}

/// Removes the disks that were made before: each takes as much room as its image.
fn forget_others(order: &Order<'_>, path: &Path) -> Result<()> {
    let listing = || format!("listing {}", order.kept.display());
    for entry in fs::read_dir(order.kept).with_context(listing)? {
        let other = entry.with_context(listing)?.path();
        if other != path && other.extension().is_some_and(|ending| ending == "raw") {
            fs::remove_file(&other).with_context(|| format!("removing {}", other.display()))?;
        }
    }
    Ok(())
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
    fn a_config_may_not_promise_what_nobody_does() {
        let check =
            |text: &str| toml::from_str::<Config>(text).map(|config| config.customizations.kernel.append);
        assert_eq!(check("").unwrap(), "");
        assert_eq!(check("[customizations.kernel]\nappend = \"a b=c\"").unwrap(), "a b=c");
        let error = check("[[customizations.user]]\nname = \"devops\"").unwrap_err().to_string();
        assert!(error.contains("unknown field `user`"), "{error}");
    }

    #[test]
    fn builders_have_the_names_that_labels_use() {
        for builder in Builder::value_variants() {
            assert_eq!(Builder::from_str(builder.name(), false).as_ref(), Ok(builder));
        }
    }
}
