//! An image -> one raw disk that boots it.
//!
//! A disk is made once for an image and what it is made with, and kept until another image's.

mod accounts;
mod bootc;
mod config;
mod cpio;
mod grub;
mod image;
mod image_builder;
mod layout;
mod limits;
mod medium;
mod ostree;
mod podman;
mod ready;

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;

use crate::disk::{self, DiskFormat, DiskName, Medium};
use crate::hint::{WithHint, hinted};
use crate::oci::{Digest, ImageName, Reference};
use crate::preflight::{Lack, Need};
use crate::progress::{Progress, human_bytes};
use crate::registry::Client;
use crate::source::{Home, Source};
use crate::store::Store;

pub(crate) use self::config::{Config, Configs};
pub(crate) use self::image::LocalImage;
pub(crate) use self::image_builder::IMAGE as BUILDER_IMAGE;
use self::image_builder::Product;

/// An image that installs itself says by this label which builder does it.
pub(crate) const LABEL: &str = "bootc-testboot.builder";

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
    /// What it is made with.
    pub(crate) config: &'a Config,
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
    name: DiskName,
    /// While this is held, nobody replaces it.
    _lock: File,
}

impl Order<'_> {
    /// What the image's repository has this very image under: the tag, whose manifest may have other
    /// annotations, or its digest, which is there before a tag is.
    fn pushed_as(&self) -> Result<Option<Reference>> {
        let tag = self.upgrades_from;
        let digest = self.image.manifest.blob.digest().to_string();
        let digest = Reference::with_digest(tag.registry().to_owned(), tag.repository().to_owned(), digest);
        for reference in [tag, &digest] {
            let Some(document) = self.registry.document(reference)? else { continue };
            let source = Source { home: Home::Registry(reference.clone()), document };
            let manifest = source.manifest(self.image.platform, self.registry)?;
            if manifest.config.digest == self.image.config_digest {
                return Ok(Some(reference.clone()));
            }
        }
        Ok(None)
    }
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

    /// How large a disk has to be for what `config` wants, in bytes.
    pub(crate) fn least_size(self, config: &Config) -> u64 {
        match self {
            Builder::Ostree => ostree::least_size(config),
            Builder::Osbuild => image_builder::least_size(config),
            Builder::Bootc => bootc::least_size(config),
        }
    }

    /// Says what of a config it cannot do, all of it.
    fn check_config(self, config: &Config) -> Result<()> {
        match self {
            Builder::Ostree => ostree::check_config(config),
            Builder::Osbuild => image_builder::check_config(Product::Raw, config),
            Builder::Bootc => bootc::check_config(config),
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

    /// What it is made with, as osbuild's builders read it.
    fn blueprint(&self) -> Result<String> {
        self.config.blueprint().context("writing the config as a blueprint")
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

/// What a disk is made of: when this changes, it is another one. Nothing is made with a config that
/// its builder cannot do.
pub(crate) fn inputs(order: &Order<'_>) -> Result<Digest> {
    order.builder.check_config(order.config)?;
    let (process, own) = match order.builder {
        Builder::Ostree => {
            let script = fs::read(order.root.join(ostree::SCRIPT));
            let script = script.with_context(|| format!("reading {}", ostree::SCRIPT))?;
            (ostree::PROCESS, vec![Digest::of(&script).to_string()])
        }
        Builder::Osbuild => {
            (image_builder::PROCESS, vec![order.builder_image.to_string(), order.upgrades_from.to_string()])
        }
        Builder::Bootc => (bootc::PROCESS, vec![order.upgrades_from.to_string()]),
    };
    let (image, size) = (order.image.config_digest.to_string(), order.size.to_string());
    let blueprint = order.blueprint()?;
    let mut inputs = vec![process, order.builder.name(), &image, &size, &blueprint];
    inputs.extend(own.iter().map(String::as_str));
    Ok(Digest::of(inputs.join("\n").as_bytes()))
}

/// What is on an installer's medium beside the disk, which the raw is.
pub(crate) fn medium(order: &Order<'_>, _raw: &RawDisk, progress: &Progress) -> Result<Medium> {
    let made = match order.builder {
        Builder::Ostree => {
            order.image.fetch(|| Store::create(order.fetched), order.registry, progress)?;
            medium::make(order, inputs(order)?, progress)
        }
        Builder::Osbuild | Builder::Bootc => Err(no_installer(order)),
    };
    made.with_context(|| format!("making an installer of {}", order.name))
}

/// What that is made of, beside the disk's own inputs.
pub(crate) fn medium_inputs(order: &Order<'_>) -> Result<Digest> {
    let inputs = match order.builder {
        Builder::Ostree => [medium::PROCESS.to_owned(), medium::installer(order.root)?],
        Builder::Osbuild | Builder::Bootc => return Err(no_installer(order)),
    };
    Ok(Digest::of(inputs.join("\n").as_bytes()))
}

fn no_installer(order: &Order<'_>) -> anyhow::Error {
    hinted(
        anyhow!("{} makes no iso here", order.builder),
        "only an image that installs itself, as those of debian-13 do, becomes an installer; \
         bootc-image-builder makes one of others with '--type anaconda-iso'",
    )
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
    if !path.exists() {
        let (needs, lacks) = order.requirements()?;
        preflight(&needs, &lacks)?;
        make(order, inputs, &path, progress).with_context(|| format!("making a disk of {}", order.name))?;
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

/// Makes the disk in a folder of its own, until it is whole.
fn make(order: &Order<'_>, inputs: Digest, path: &Path, progress: &Progress) -> Result<()> {
    let folder = order.kept.join(".unfinished");
    let writing = || format!("writing to {}", folder.display());
    // What a killed run left goes.
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(writing)?;
    }
    fs::create_dir(&folder).with_context(writing)?;
    let made = build(order, inputs, &folder, progress).and_then(|raw| {
        finish(order, &raw, path, progress).with_context(|| format!("writing {}", path.display()))
    });
    let removed = fs::remove_dir_all(&folder).with_context(writing);
    // The first error is the one to show.
    made.and(removed)
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
        Builder::Osbuild => image_builder::make(Product::Raw, order, folder, progress),
        Builder::Bootc => bootc::make(order, folder, progress),
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
