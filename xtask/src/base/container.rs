//! A base from a distro's own bootc image: its Containerfile, built by a container engine, and read
//! back into our own layout.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, anyhow, bail};

use super::context::Context as BuildContext;
use super::engine::{Build, Engine};
use super::scratch::{End, Scratch};
use super::{Freshness, UPSTREAM_DIGEST, UPSTREAM_NAME, graft, is_there};
use crate::exec::interrupt::CleanUp;
use crate::hint::{WithHint, causes, hinted};
use crate::oci::{
    Base, Compression, Descriptor, DiffId, Digest, Document, ImageName, Layer, LayerWriter, MediaType,
    Platform, Reference, Timestamp,
};
use crate::preflight::Need;
use crate::progress::{Progress, human_bytes};
use crate::registry::Client;
use crate::source::Source;
use crate::store::{Completeness, Store};
use crate::workspace::Distro;
use crate::workspace::distro::Upstream;

/// Changes when the code below makes something else of the same inputs.
const PROCESS: &str = "3";

/// Where, in the build's folder, the engine writes before anything is verified.
const EXPORT: &str = "export";

/// What is to be made, and of what.
pub(crate) struct Order<'a> {
    pub(crate) distro: &'a Distro,
    pub(crate) upstream: &'a Upstream,
    /// Stands another image in for the upstream.
    pub(crate) from: Option<&'a Reference>,
    /// The workspace's.
    pub(crate) root: &'a Path,
    /// The layout that the base is in afterwards.
    pub(crate) dir: &'a Path,
    pub(crate) freshness: Freshness,
    pub(crate) created: Option<Timestamp>,
}

/// The image that a base is made from, as a digest.
struct Resolved {
    name: Reference,
    digest: Digest,
    origin: Origin,
}

/// Where the digest comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The registry has just said so.
    Asked,
    /// It is written down, so the image may be gone.
    Written,
}

/// The base in the layout `order.dir`, made when it is not there or when what it is made of has
/// changed. Until the new one is whole, the layout has the old one.
pub(crate) fn ensure(
    order: &Order<'_>,
    registry: &Client,
    progress: &Progress,
    preflight: &dyn Fn(&[Need]) -> Result<()>,
) -> Result<ImageName> {
    let Order { distro, dir, .. } = order;
    let resolved = resolve(order, registry, progress)?;
    let context = BuildContext::read(distro, order.root)?;
    let labels = labels(distro, &resolved);
    let tag = format!("inputs-{}", inputs(order, &labels, &context)?.short());
    let name = ImageName::Layout { dir: dir.to_path_buf(), tag: Some(tag.clone()) };
    let is_made =
        || Ok::<_, anyhow::Error>(order.freshness == Freshness::IfUnchanged && is_there(dir, &tag)?);
    if is_made()? && Scratch::left(dir)?.is_empty() {
        return Ok(name);
    }

    let engine = Engine::find(order.root, preflight)?;
    let store = Store::create_when_free(dir, || progress.line(super::waiting_for(dir)))?;
    for left in Scratch::left(dir)? {
        progress.line(format!("removing what a run that was killed has left of {}", distro.name));
        left.remove(engine, End::Unknown, progress);
    }
    // By now, another run may have made it.
    if is_made()? {
        return Ok(name);
    }
    let host = Platform::host();
    if !distro.platforms.contains(&host) {
        return Err(anyhow!("{} does not exist for {host}", distro.name))
            .hint("make it on another machine, or choose a distro that 'cargo xtask list' shows for it");
    }
    resolved.check_is_there(distro, registry)?;
    let doing = format!("making {} from {}", distro.name, resolved.name);
    let step = progress.step(format!("{doing}; this takes some minutes"));
    let make = Make { order, engine, upstream: &resolved, tag: &tag };
    let size = make
        .carry_out((&context, labels), (&store, registry), progress, |what| {
            step.at(format!("{doing}: {what}"))
        })
        .map_err(|error| with_space_hint(error, engine))?;
    store.keep_only(&tag)?;
    store.collect_garbage()?;
    step.done(format!("made {} ({})", distro.name, human_bytes(size)));
    Ok(name)
}

/// Says what to free, where it was the workspace's disk that was full.
fn with_space_hint(error: anyhow::Error, engine: Engine) -> anyhow::Error {
    let is_full = |cause: &(dyn std::error::Error + 'static)| {
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    };
    if causes(error.as_ref()).any(is_full) { hinted(error, engine.space_hint()) } else { error }
}

/// What the distro's upstream, or what stands in for it, is now.
fn resolve(order: &Order<'_>, registry: &Client, progress: &Progress) -> Result<Resolved> {
    let (name, written) = match order.from {
        Some(from) => (from, from.digest().map(str::parse).transpose()?),
        None => (&order.upstream.tag, order.upstream.pin),
    };
    if let Some(digest) = written {
        return Ok(Resolved { name: name.clone(), digest, origin: Origin::Written });
    }
    if order.from.is_none() {
        let distro = &order.distro.name;
        progress.warn(format!("{name} is not pinned: run 'cargo xtask base {distro} --update-pin'"));
    }
    Ok(Resolved { name: name.clone(), digest: ask(name, registry)?, origin: Origin::Asked })
}

/// What a tag names in its registry now.
pub(crate) fn ask(tag: &Reference, registry: &Client) -> Result<Digest> {
    let asking = || format!("asking for {tag}");
    let document = registry.document(tag).with_context(asking)?;
    let document = document
        .ok_or_else(|| anyhow!("{tag} is not in its registry"))
        .hint("check the upstream in distro.toml; '--from REF' stands another image in")?;
    Ok(document.blob().digest())
}

impl Resolved {
    fn by_digest(&self) -> Reference {
        let (host, repository) = (self.name.registry().to_owned(), self.name.repository().to_owned());
        Reference::with_digest(host, repository, self.digest.to_string())
    }

    /// Asks for an image that was written down some time ago: registries remove old ones.
    fn check_is_there(&self, distro: &Distro, registry: &Client) -> Result<()> {
        if self.origin == Origin::Asked {
            return Ok(());
        }
        let pinned = self.by_digest();
        match registry.document(&pinned).with_context(|| format!("asking for {pinned}"))? {
            Some(_) => Ok(()),
            None => Err(anyhow!("{pinned} is gone from its registry"))
                .hint(format!("run 'cargo xtask base {} --update-pin' to take today's", distro.name)),
        }
    }
}

/// What the command knows and the Containerfile does not.
/// Source: OCI image specification, annotations.md.
fn labels(distro: &Distro, upstream: &Resolved) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("org.opencontainers.image.title", distro.title.clone()),
        ("org.opencontainers.image.version", distro.name.release().to_owned()),
        (UPSTREAM_NAME, upstream.name.to_string()),
        (UPSTREAM_DIGEST, upstream.digest.to_string()),
    ])
}

/// What the base is made of: when this changes, it is made anew. The upstream is in the labels.
fn inputs(
    order: &Order<'_>,
    labels: &BTreeMap<&'static str, String>,
    context: &BuildContext,
) -> Result<Digest> {
    let created = order.created.map(|time| time.to_string());
    Ok(Digest::of(&serde_json::to_vec(&(PROCESS, labels, context.digests(), created))?))
}

/// What is to be made, once all of it is known.
struct Make<'a> {
    order: &'a Order<'a>,
    engine: Engine,
    upstream: &'a Resolved,
    /// In the layout.
    tag: &'a str,
}

impl Make<'_> {
    /// Builds the image and takes it over into the layout; gives the size of its layers. Whatever
    /// happens, nothing else is left of it.
    fn carry_out(
        &self,
        (context, labels): (&BuildContext, BTreeMap<&'static str, String>),
        (store, registry): (&Store, &Client),
        progress: &Progress,
        on_step: impl Fn(&str),
    ) -> Result<u64> {
        let Make { order, engine, upstream, .. } = *self;
        let scratch = Scratch::new(order.dir)?;
        let is_built = Arc::new(AtomicBool::new(false));
        let _clean_up = CleanUp::afterwards({
            let (scratch, is_built, progress) = (scratch.clone(), is_built.clone(), progress.clone());
            move || {
                let end = if is_built.load(Ordering::SeqCst) { End::Built } else { End::Unknown };
                scratch.remove(engine, end, &progress);
            }
        });
        context.write(&scratch.context())?;
        let build = Build {
            scratch: &scratch,
            containerfile: context.containerfile(),
            seen: context.shown(),
            upstream: &upstream.name,
            upstream_digest: upstream.digest,
            plain_http: registry.is_plain_http(&upstream.name)?,
            labels,
            created: order.created,
        };
        engine
            .build(&build, &on_step)
            .with_context(|| format!("making {} from {}", order.distro.name, upstream.name))?;
        is_built.store(true, Ordering::SeqCst);
        on_step("reading it back");
        engine.export(&build, (EXPORT, self.tag))?;
        self.read_back(&scratch.dir.join(EXPORT), store, registry)
    }

    /// Takes the exported image over into `store`, once it has shown itself to be one that can be
    /// built on; gives the size of its layers. The upstream's own stay in their registry.
    fn read_back(&self, exported: &Path, store: &Store, registry: &Client) -> Result<u64> {
        let Make { upstream, tag, .. } = *self;
        let name = ImageName::Layout { dir: exported.to_owned(), tag: Some(tag.to_owned()) };
        let source = Source::open(&name, registry)?;
        let from = Store::open(exported)?;
        let manifest = source.manifest(Platform::host(), registry)?;
        let config = source.config(&manifest.config, registry)?;
        let config_descriptor = manifest.config.clone();
        let hint = "the Containerfile has to start from a bootc image, as 'FROM ${UPSTREAM}' does";
        let base = Base::new(manifest, config, Platform::host()).hint(hint)?;

        let reference = upstream.by_digest();
        let (descriptors, diff_ids) =
            layers_of(&reference, registry).with_context(|| format!("reading {reference}"))?;
        let shared = graft::shared_layers(&base.diff_ids, &diff_ids).hint(hint)?;
        let ours = base.layers().iter().skip(shared).map(|layer| recompress(&from, store, layer));
        let ours = ours.collect::<Result<Vec<_>>>()?;
        let manifest = graft::graft(&base, (&descriptors, &diff_ids), &ours)?;
        let document = Document::parse(manifest, None)?;

        store.adopt(&from, &config_descriptor)?;
        store.put(&document.descriptor(), document.blob())?;
        store.tag(tag, &document, &Completeness::LayersIn(reference.to_string()))?;
        let sizes = descriptors.iter().chain(ours.iter().map(|layer| layer.descriptor()));
        Ok(sizes.map(|layer| layer.size).sum())
    }
}

/// An image's layers as its registry names them, and what is in them.
fn layers_of(reference: &Reference, registry: &Client) -> Result<(Vec<Descriptor>, Vec<DiffId>)> {
    let source = Source::open(&ImageName::Registry(reference.clone()), registry)?;
    let manifest = source.manifest(Platform::host(), registry)?;
    let config = source.config(&manifest.config, registry)?;
    let config: oci_spec::image::ImageConfiguration =
        serde_json::from_slice(config.bytes()).context("reading the config")?;
    let diff_ids = config.rootfs().diff_ids().iter().map(|text| Ok(DiffId(text.parse()?)));
    Ok((manifest.layers, diff_ids.collect::<Result<_>>()?))
}

/// Writes a layer of the engine's with our own compressor, whose bytes depend on the tar alone.
fn recompress(from: &Store, store: &Store, layer: &Descriptor) -> Result<Layer> {
    let packed = BufReader::new(from.open_blob(layer)?);
    let mut tar: Box<dyn Read> = match &layer.media_type {
        MediaType::ImageLayer => Box::new(packed),
        MediaType::ImageLayerGzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
        MediaType::ImageLayerZstd => Box::new(zstd::Decoder::with_buffer(packed)?),
        other => bail!("the engine made a layer of type {other}"),
    };
    store.put_new(|out| {
        let mut writer = LayerWriter::new(Compression::Gzip, out)?;
        io::copy(&mut tar, &mut writer).with_context(|| format!("unpacking {}", layer.digest))?;
        let (layer, _) = writer.finish("base")?;
        Ok((layer.descriptor().clone(), layer))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hint::hints;

    #[test]
    fn a_full_disk_of_ours_is_told_like_the_engine_s() {
        let check = |kind: io::ErrorKind, expected: bool| {
            let error = Err::<(), _>(io::Error::from(kind)).context("writing").unwrap_err();
            let error = with_space_hint(error, Engine::Buildah);
            assert_eq!(hints(&error).any(|hint| hint.contains("'buildah rm --all'")), expected, "{kind}");
        };
        check(io::ErrorKind::StorageFull, true);
        check(io::ErrorKind::QuotaExceeded, true);
        check(io::ErrorKind::NotFound, false);
    }
}
