//! A base from a distro's own bootc image: its Containerfile, built by a container engine, and read
//! back into our own layout.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, anyhow, bail};

use super::context::Context as BuildContext;
use super::engine::{Build, Engine};
use super::local::LocalBase;
use super::scratch::{End, Scratch};
use super::upstream::{inspect, starts_from_upstream};
use super::{Freshness, graft};
use crate::exec::interrupt::CleanUp;
use crate::hint::{WithHint, causes, hinted};
use crate::oci::annotation::{BASE_DIGEST, BASE_NAME, TITLE, VERSION};
use crate::oci::reference::with_digest;
use crate::oci::{
    Base, Compression, Descriptor, Digest, Document, ImageName, Layer, LayerWriter, MediaType, Platform,
    Reference, Timestamp,
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
    let local = LocalBase::new(&distro.name, dir, &inputs(order, &labels, &context)?, order.freshness);
    if local.is_made()? {
        if !Scratch::left(dir)?.is_empty() {
            prepare(&local, order.root, progress, preflight)?;
        }
        // Nobody should take it for one that has today's packages.
        progress.line(format!(
            "{} is as it was made; '--force' makes it again, with the packages of today",
            distro.name
        ));
        return Ok(local.name());
    }
    let image = check(order, &context, &resolved, registry)?;
    let (engine, store) = prepare(&local, order.root, progress, preflight)?;
    // By now, another run may have made it.
    if local.is_made()? {
        return Ok(local.name());
    }
    let doing = format!("making {} from {}", distro.name, resolved.name);
    let step = progress.step(format!("{doing}; this takes some minutes"));
    let make = Make {
        order,
        engine,
        registry,
        upstream: &resolved,
        image: &image,
        context,
        labels,
        tag: &local.tag,
    };
    let size = make
        .carry_out(&store, progress, |what| step.at(format!("{doing}: {what}")))
        .map_err(|error| with_space_hint(error, engine))?;
    local.keep(&store)?;
    step.done(format!("made {} ({})", distro.name, human_bytes(size)));
    Ok(local.name())
}

/// Looks at all that can be known before minutes are spent on a build, and gives the upstream.
fn check(order: &Order<'_>, context: &BuildContext, resolved: &Resolved, registry: &Client) -> Result<Base> {
    let (distro, host) = (order.distro, Platform::host());
    if !distro.platforms.contains(&host) {
        return Err(anyhow!("{} does not exist for {host}", distro.name))
            .hint("make it on another machine, or choose a distro that 'cargo xtask list' shows for it");
    }
    let path = order.root.join(context.containerfile());
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    if !starts_from_upstream(&text) {
        return Err(anyhow!("{} does not start from its upstream", context.containerfile().display()))
            .hint("write 'ARG UPSTREAM' and 'FROM ${UPSTREAM}'");
    }
    resolved.inspect(order, registry)
}

/// The engine, and the layout, once no other run writes it and what killed runs have left is gone.
fn prepare(
    local: &LocalBase<'_>,
    root: &Path,
    progress: &Progress,
    preflight: &dyn Fn(&[Need]) -> Result<()>,
) -> Result<(Engine, Store)> {
    let engine = Engine::find(root, preflight)?;
    let store = local.open(progress)?;
    for left in Scratch::left(local.dir)? {
        progress.line(format!("removing what a run that was killed has left of {}", local.distro));
        left.remove(engine, End::Unknown, progress);
    }
    Ok((engine, store))
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
    let hint = match order.from {
        Some(_) => {
            "check the name and the tag that '--from' gives; a private repository needs 'podman login'"
        }
        None => UPSTREAM_HINT,
    };
    Ok(Resolved { name: name.clone(), digest: ask(name, registry, hint)?, origin: Origin::Asked })
}

/// What helps when a distro's upstream is not in its registry.
pub(crate) const UPSTREAM_HINT: &str =
    "check the upstream in distro.toml; '--from REF' stands another image in";

/// What a tag names in its registry now; `hint` helps when that is nothing.
pub(crate) fn ask(tag: &Reference, registry: &Client, hint: &str) -> Result<Digest> {
    let asking = || format!("asking for {tag}");
    let document = registry.document(tag).with_context(asking)?;
    let document = document.ok_or_else(|| anyhow!("{tag} is not in its registry")).hint(hint)?;
    Ok(document.blob().digest())
}

impl Resolved {
    fn by_digest(&self) -> Reference {
        with_digest(&self.name, self.digest)
    }

    /// The image itself, found to be one that can be built on. One that was written down some time
    /// ago may be gone: registries remove old ones.
    fn inspect(&self, order: &Order<'_>, registry: &Client) -> Result<Base> {
        let pinned = self.by_digest();
        inspect(&pinned, registry)?.ok_or_else(|| anyhow!("{pinned} is gone from its registry")).own_hint(
            |_| match (order.from, self.origin) {
                (Some(_), _) => "name one with '--from' that is there".to_owned(),
                (None, Origin::Written) => {
                    format!("run 'cargo xtask base {} --update-pin' to take today's", order.distro.name)
                }
                (None, Origin::Asked) => "the tag has just moved: run the command again".to_owned(),
            },
        )
    }
}

/// What the command knows and the Containerfile does not.
fn labels(distro: &Distro, upstream: &Resolved) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        (TITLE, distro.title.clone()),
        (VERSION, distro.name.release().to_owned()),
        (BASE_NAME, upstream.name.to_string()),
        (BASE_DIGEST, upstream.digest.to_string()),
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
    registry: &'a Client,
    upstream: &'a Resolved,
    /// What the upstream is.
    image: &'a Base,
    context: BuildContext,
    labels: BTreeMap<&'static str, String>,
    /// In the layout.
    tag: &'a str,
}

impl Make<'_> {
    /// Builds the image and takes it over into the layout; gives the size of its layers. Whatever
    /// happens, nothing else is left of it.
    fn carry_out(&self, store: &Store, progress: &Progress, on_step: impl Fn(&str)) -> Result<u64> {
        let Make { order, engine, registry, upstream, ref context, ref labels, .. } = *self;
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
            labels: labels.clone(),
            created: order.created,
        };
        engine
            .build(&build, &on_step)
            .with_context(|| format!("making {} from {}", order.distro.name, upstream.name))?;
        is_built.store(true, Ordering::SeqCst);
        on_step("reading it back");
        engine.export(&build, (EXPORT, self.tag))?;
        self.read_back(&scratch.dir.join(EXPORT), store)
    }

    /// Takes the exported image over into `store`, once it has shown itself to be one that can be
    /// built on; gives the size of its layers. The upstream's own stay in their registry.
    fn read_back(&self, exported: &Path, store: &Store) -> Result<u64> {
        let Make { registry, upstream, image, tag, .. } = *self;
        let name = ImageName::Layout { dir: exported.to_owned(), tag: Some(tag.to_owned()) };
        let source = Source::open(&name, registry)?;
        let from = Store::open(exported)?;
        let manifest = source.manifest(Platform::host(), registry)?;
        let config = source.config(&manifest.config, registry)?;
        let config_descriptor = manifest.config.clone();
        let hint = "the Containerfile has to start from a bootc image, as 'FROM ${UPSTREAM}' does";
        let base = Base::new(manifest, config, Platform::host()).hint(hint)?;

        let (descriptors, diff_ids) = (image.layers(), &image.diff_ids[..]);
        let shared = graft::shared_layers(&base.diff_ids, diff_ids).hint(hint)?;
        let ours = base.layers().iter().skip(shared).map(|layer| recompress(&from, store, layer));
        let ours = ours.collect::<Result<Vec<_>>>()?;
        let manifest = graft::graft(&base, (descriptors, diff_ids), &ours)?;
        let document = Document::parse(manifest, None)?;

        store.adopt(&from, &config_descriptor)?;
        store.put(&document.descriptor(), document.blob())?;
        store.tag(tag, &document, &Completeness::LayersIn(upstream.by_digest().to_string()))?;
        let sizes = descriptors.iter().chain(ours.iter().map(|layer| layer.descriptor()));
        Ok(sizes.map(|layer| layer.size).sum())
    }
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
