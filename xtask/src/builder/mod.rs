//! An image -> one raw disk that boots it.
//!
//! A disk is made once for an image and what it is made with, and kept until another image's.

mod accounts;
mod bootc;
mod config;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
mod cpio;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
mod grub;
mod image;
mod image_builder;
mod kept;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
mod layout;
mod left;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
mod limits;
mod medium;
mod ostree;
mod podman;
mod ready;
mod room;
mod unpacked;

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;

use crate::disk::{DiskFormat, DiskName, Medium};
use crate::hint::{WithHint, hinted};
use crate::oci::annotation::BUILDER;
use crate::oci::reference::with_digest;
use crate::oci::{Digest, ImageName, Reference};
use crate::preflight::{Lack, Need};
use crate::progress::Progress;
use crate::registry::Client;
use crate::source::{Home, Source};
use crate::store::Store;

pub(crate) use self::config::{Config, Configs};
pub(crate) use self::image::LocalImage;
pub(crate) use self::image_builder::IMAGE as BUILDER_IMAGE;
pub(crate) use self::kept::{RawDisk, ensure, installer};

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

/// What a builder makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Product {
    /// A disk, which all formats can be written of.
    Raw,
    /// An installer's medium, which is whole.
    Iso,
}

/// What is to be made.
#[derive(Clone, Copy)]
pub(crate) struct Order<'a> {
    pub(crate) image: &'a LocalImage,
    pub(crate) builder: Builder,
    pub(crate) product: Product,
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

impl Order<'_> {
    /// What the image's repository has this very image under: the tag, whose manifest may have other
    /// annotations, or its digest, which is there before a tag is.
    fn pushed_as(&self) -> Result<Option<Reference>> {
        let tag = self.upgrades_from;
        let digest = with_digest(tag, self.image.manifest.blob.digest());
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
        let own = image.label(BUILDER).and_then(|name| Builder::from_str(name, false).ok());
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

    /// What it has to make for a disk of `format`.
    pub(crate) fn product_for(self, format: DiskFormat) -> Product {
        match (self, format) {
            (Builder::Osbuild, DiskFormat::Iso) => Product::Iso,
            (Builder::Ostree | Builder::Bootc | Builder::Osbuild, _) => Product::Raw,
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
}

impl Order<'_> {
    /// What it needs: programs, and what else is missing.
    fn requirements(&self) -> Result<(Vec<Need>, Vec<Lack>)> {
        let mut needs = self.builder.needs();
        match self.builder {
            Builder::Ostree => Ok((needs, ostree::lacks(self)?)),
            Builder::Osbuild | Builder::Bootc => {
                let is_layout = matches!(self.image.name, ImageName::Layout { .. });
                if is_layout && self.image.layers_elsewhere()?.is_none() {
                    needs.push(podman::SKOPEO);
                }
                Ok((needs, ready::lacks(self)?))
            }
        }
    }

    /// Says what of its config cannot be done, all of it.
    fn check_config(&self) -> Result<()> {
        match self.builder {
            Builder::Ostree => ostree::check_config(self.config),
            Builder::Osbuild => image_builder::check_config(self.product, self.config),
            Builder::Bootc => bootc::check_config(self.config),
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
    order.check_config()?;
    let (process, own) = match order.builder {
        Builder::Ostree => {
            let script = fs::read(order.root.join(ostree::SCRIPT));
            let script = script.with_context(|| format!("reading {}", ostree::SCRIPT))?;
            (ostree::PROCESS, vec![Digest::of(&script).to_string()])
        }
        Builder::Osbuild => {
            let product = match order.product {
                Product::Raw => "raw",
                Product::Iso => "iso",
            };
            let own = [&order.builder_image.to_string(), &order.upgrades_from.to_string(), product];
            (image_builder::PROCESS, own.map(str::to_owned).to_vec())
        }
        Builder::Bootc => (bootc::PROCESS, vec![order.upgrades_from.to_string()]),
    };
    let (image, size) = (order.image.config_digest.to_string(), order.size.to_string());
    let blueprint = order.blueprint()?;
    let mut inputs = vec![process, order.builder.name(), &image, &size, &blueprint];
    inputs.extend(own.iter().map(String::as_str));
    Ok(Digest::of(inputs.join("\n").as_bytes()))
}

/// What is on an installer's medium beside the disk, which the raw is. `preflight` as for [`ensure`].
pub(crate) fn medium(
    order: &Order<'_>,
    _raw: &RawDisk,
    progress: &Progress,
    preflight: impl FnOnce(&[Need], &[Lack]) -> Result<()>,
) -> Result<Medium> {
    let made = match order.builder {
        Builder::Ostree => {
            preflight(&order.builder.needs(), &ostree::lacks_to_run(order)?)?;
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
        "leave out iso, or '--builder': image-builder makes one of bootc images",
    )
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
