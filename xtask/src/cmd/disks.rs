//! Disks of an image: its raw, and of that every format asked for that is not there already.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};

use super::disk::{self, OutputReport};
use super::record::{self, Overwrite};
use super::{Session, installer};
use crate::builder::{self, Builder, Config, Configs, LocalImage, Order, Product};
use crate::disk::{DiskFormat, DiskName, DiskSize, Options, Qcow2Compression, Template};
use crate::flags::{Compose, DiskBuilder};
use crate::hint::WithHint;
use crate::oci::{Digest, ImageName, Reference};
use crate::registry::Client;
use crate::release;
use crate::workspace::settings::Repository;

/// Changes when the same raw becomes other bytes in any format.
const PROCESS: &str = "1";

/// An image that disks are made of, and who makes them.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    name: &'a ImageName,
    image: &'a LocalImage,
    pub(super) builder: Builder,
    builder_image: &'a Reference,
    /// The one that stands in for the project's.
    repository: Option<&'a Repository>,
}

/// Disks of one image.
pub(super) struct Request<'a> {
    subject: Subject<'a>,
    registry: &'a Client,
    formats: &'a [DiskFormat],
    pub(super) size: Size,
    /// A file with public keys, which may log in.
    pub(super) ssh_key: Option<&'a Path>,
    pub(super) options: Options,
    /// Where the disks go.
    pub(super) folder: PathBuf,
    pub(super) overwrite: Overwrite,
    /// Where raw disks are kept.
    kept: PathBuf,
}

/// How large a disk is to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Size {
    /// So large, or not at all.
    Asked(DiskSize),
    /// So large, or larger where the config wants that.
    Usual(DiskSize),
}

/// Formats whose disks are the same, but for the format.
struct Variant {
    recipe: Recipe,
    formats: Vec<DiskFormat>,
    inputs: Digest,
}

/// What a builder makes, and with what.
struct Recipe {
    product: Product,
    config: Config,
    /// In bytes; an installer has none.
    size: u64,
}

/// What the raws of a request have in common.
struct Raws<'a> {
    request: &'a Request<'a>,
    session: &'a Session,
    fetched: PathBuf,
    upgrades_from: Reference,
}

/// Makes what is not there: a raw for each group of formats that are made with the same, and all of its
/// formats in one pass; and an installer, where the builder makes that by itself.
pub(super) fn make(request: &Request<'_>, session: &Session) -> Result<Vec<OutputReport>> {
    let Request { subject, formats, options, .. } = request;
    // Before anything slow.
    request.overwrite.check(formats.iter().map(|format| request.path(*format)), session)?;
    let configs = Configs::read(&session.root, request.ssh_key)?;
    let fetched = session.cache("fetched");
    let upgrades_from = upgrades_from(subject.name, subject.repository, session)?;
    let raws = Raws { request, session, fetched, upgrades_from };
    let variants = raws.variants(&configs)?;
    // What is kept is what any format of this image can be made from.
    let raw_variants = variants.iter().filter(|variant| variant.recipe.product == Product::Raw);
    let kept: Vec<Digest> = raw_variants.map(|variant| variant.inputs).collect();

    let mut reports = Vec::new();
    for variant in &variants {
        let order = |formats| raws.order(&variant.recipe, formats);
        let asked = variant.formats.iter().copied().filter(|format| formats.contains(format));
        let mut missing = Vec::new();
        let mut keys = BTreeMap::new();
        for format in asked {
            let own = match format {
                DiskFormat::Qcow2 => options.qcow2_compression.name().to_owned(),
                DiskFormat::Ova => {
                    let template = options.template.as_ref().map(Template::text).unwrap_or_default();
                    Digest::of(template.as_bytes()).to_string()
                }
                DiskFormat::Iso => match variant.recipe.product {
                    Product::Raw => builder::medium_inputs(&order(formats))?.to_string(),
                    Product::Iso => String::new(),
                },
                DiskFormat::Raw | DiskFormat::Ami | DiskFormat::Vmdk | DiskFormat::Vhd | DiskFormat::Gce => {
                    String::new()
                }
            };
            let key = key(variant.inputs, (format, &own), options);
            keys.insert(format, key);
            match record::find(&request.path(format), format, key, session)? {
                Some(report) => reports.push(report),
                None => missing.push(format),
            }
        }
        if missing.is_empty() {
            continue;
        }
        let order = order(&missing);
        let written = match variant.recipe.product {
            Product::Raw => raws.write(&order, &missing, &kept)?,
            Product::Iso => vec![installer::write(&order, &request.path(DiskFormat::Iso), session)?],
        };
        for report in written {
            let inputs = keys.get(&report.format).copied();
            record::keep(&request.path(report.format), &report, inputs, session)?;
            reports.push(report);
        }
    }
    reports.sort_by_key(|report| report.format);
    if let Some(variant) = variants.first() {
        session.progress.line(variant.recipe.config.logins());
    }
    Ok(reports)
}

/// Where a host that runs the image looks for its next version: the image's registry, or the
/// project's, or the one that stands in for it, for an image that is in none yet. A release's own tag
/// never moves, so a host follows the one that does.
fn upgrades_from(name: &ImageName, repository: Option<&Repository>, session: &Session) -> Result<Reference> {
    match name {
        ImageName::Registry(reference) => Ok(reference.clone()),
        ImageName::Layout { tag, .. } => {
            let settings = session.workspace()?.settings;
            let tag = tag.as_deref().unwrap_or("latest");
            Ok(repository.unwrap_or(&settings.image).tagged(&release::followed(tag)))
        }
    }
}

/// What a disk is made of: its raw, and `own` of its format, on which no other format depends.
fn key(raw: Digest, (format, own): (DiskFormat, &str), options: &Options) -> Digest {
    let inputs = [PROCESS, &raw.to_string(), format.name(), &options.name.to_string(), own];
    Digest::of(inputs.join("\n").as_bytes())
}

impl Raws<'_> {
    /// All formats, in groups that are made with the same; those alone that can be made of what is
    /// asked for.
    fn variants(&self, configs: &Configs) -> Result<Vec<Variant>> {
        let Request { subject: Subject { builder, .. }, formats, size, .. } = *self.request;
        let mut variants: Vec<Variant> = Vec::new();
        for format in DiskFormat::ALL {
            let product = builder.product_for(format);
            if !formats.iter().any(|asked| builder.product_for(*asked) == product) {
                continue;
            }
            let config = configs.of(format);
            let is_same =
                |variant: &&mut Variant| variant.recipe.product == product && variant.recipe.config == config;
            if let Some(same) = variants.iter_mut().find(is_same) {
                same.formats.push(format);
                continue;
            }
            let size = match product {
                Product::Raw => size.of(builder.least_size(&config))?,
                Product::Iso => {
                    if let Size::Asked(_) = size {
                        self.session.progress.line("iso: '--size' says nothing about an installer");
                    }
                    0
                }
            };
            let recipe = Recipe { product, config, size };
            let inputs = builder::inputs(&self.order(&recipe, formats))?;
            variants.push(Variant { recipe, formats: vec![format], inputs });
        }
        Ok(variants)
    }

    fn order<'o>(&'o self, recipe: &'o Recipe, formats: &'o [DiskFormat]) -> Order<'o> {
        let Request { subject, registry, options, folder, kept, .. } = self.request;
        let Subject { image, builder, builder_image, .. } = *subject;
        Order {
            image,
            builder,
            product: recipe.product,
            config: &recipe.config,
            size: recipe.size,
            name: &options.name,
            root: &self.session.root,
            kept,
            fetched: &self.fetched,
            registry,
            builder_image,
            upgrades_from: &self.upgrades_from,
            formats,
            output: folder,
        }
    }

    /// Writes formats of a raw, of which those that are made of `kept` stay.
    fn write(&self, order: &Order<'_>, formats: &[DiskFormat], kept: &[Digest]) -> Result<Vec<OutputReport>> {
        let Raws { request, session, .. } = *self;
        let preflight = |needs: &[_], lacks: &[_]| session.ensure_all(needs, lacks);
        let raw = builder::ensure(order, &session.progress, preflight)?;
        raw.keep_only(kept)?;
        let mut options = request.options.clone();
        if formats.contains(&DiskFormat::Iso) {
            options.medium = Some(builder::medium(order, &raw, &session.progress, preflight)?);
        }
        Ok(disk::write(&raw.path, formats, &options, &request.folder, session)?.outputs)
    }
}

impl<'a> Subject<'a> {
    pub(super) fn new(
        name: &'a ImageName,
        image: &'a LocalImage,
        compose: &'a Compose,
        flags: &'a DiskBuilder,
    ) -> Result<Subject<'a>> {
        let builder = Builder::choose(image, flags.builder, name)?;
        let (builder_image, repository) = (&flags.builder_image, compose.image.as_ref());
        Ok(Subject { name, image, builder, builder_image, repository })
    }
}

impl<'a> Request<'a> {
    /// Disks as they are made when nothing is said: of the size that Cargo.toml names, where disks go,
    /// and over what a run has written alone. They have the name of the image, or `name`.
    pub(super) fn usual(
        subject: Subject<'a>,
        formats: &'a [DiskFormat],
        name: Option<&DiskName>,
        (registry, session): (&'a Client, &Session),
    ) -> Result<Request<'a>> {
        let name = name.cloned().map_or_else(|| self::name(subject.name), Ok)?;
        Ok(Request {
            subject,
            registry,
            formats,
            size: Size::Usual(session.workspace()?.settings.disk_size),
            ssh_key: None,
            options: disk::options(name, formats, Qcow2Compression::Zstd, session)?,
            folder: disk::folder(session),
            overwrite: Overwrite::Known,
            kept: session.cache("raw"),
        })
    }

    pub(super) fn path(&self, format: DiskFormat) -> PathBuf {
        self.folder.join(self.options.name.file(format))
    }
}

impl Size {
    /// In bytes, where `least` are wanted.
    fn of(self, least: u64) -> Result<u64> {
        match self {
            Size::Usual(size) => Ok(size.bytes().max(least)),
            Size::Asked(size) if size.bytes() >= least => Ok(size.bytes()),
            Size::Asked(size) => {
                let least = least.div_ceil(1 << 20);
                Err(anyhow!("a disk of {size} is too small for what configs/builder/config.toml wants"))
                    .hint(format!("leave '--size' out, or say '--size \"{least} MiB\"'"))
            }
        }
    }
}

/// What the disks of an image are called when nobody says.
fn name(image: &ImageName) -> Result<DiskName> {
    let text = match image {
        ImageName::Layout { tag: Some(tag), .. } => tag.clone(),
        ImageName::Layout { dir, tag: None } => {
            dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
        }
        ImageName::Registry(reference) => {
            let name = reference.repository().rsplit('/').next().unwrap_or_default();
            [Some(name), reference.tag()].into_iter().flatten().collect::<Vec<_>>().join("-")
        }
    };
    text.parse().hint("name the disk with '--name'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_called_as_its_image() {
        for (image, expected) in [
            ("oci:target/dist/oci:debian-13-v1", "debian-13-v1"),
            ("oci:some/folder", "folder"),
            ("ghcr.io/me/os:debian-13-v1", "os-debian-13-v1"),
        ] {
            assert_eq!(name(&image.parse().unwrap()).unwrap().to_string(), expected);
        }
    }
}
