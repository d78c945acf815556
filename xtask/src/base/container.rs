//! A base from a distro's own bootc image: its Containerfile, built by a container engine, and read
//! back into our own layout.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};

use super::engine::{Build, Engine};
use super::upstream::{inspect, starts_from_upstream};
use super::{Freshness, TITLE, UPSTREAM_DIGEST, UPSTREAM_NAME, collect, graft, is_made, layout};
use crate::hint::WithHint;
use crate::layer::{FileMode, Node};
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
use crate::workspace::distro::{CONTAINERFILE, DISTRO_TOML, Upstream};

/// What every distro may take files from, beside its own folder.
const SHARED: &str = "base/shared";
/// Changes when the code below makes something else of the same inputs.
const PROCESS: &str = "2";

/// Where, in the layout, the engine writes before anything is verified.
const EXPORT: &str = ".export";

/// What is to be made, and of what.
pub(crate) struct Order<'a> {
    pub(crate) distro: &'a Distro,
    pub(crate) upstream: &'a Upstream,
    /// Stands another image in for the upstream.
    pub(crate) from: Option<&'a Reference>,
    /// The workspace's, which is the build's context.
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
    preflight: impl FnOnce(&[Need]) -> Result<()>,
) -> Result<ImageName> {
    let Order { distro, dir, .. } = order;
    let resolved = resolve(order, registry, progress)?;
    let labels = labels(distro, &resolved);
    let tag = format!("inputs-{}", inputs(order, &labels)?.short());
    let name = ImageName::Layout { dir: dir.to_path_buf(), tag: Some(tag.clone()) };
    if is_made((dir, &tag), order.freshness, distro)? {
        return Ok(name);
    }

    let host = Platform::host();
    if !distro.platforms.contains(&host) {
        return Err(anyhow!("{} does not exist for {host}", distro.name))
            .hint("make it on another machine, or choose a distro that 'cargo xtask list' shows for it");
    }
    let containerfile = distro.dir.strip_prefix(order.root).unwrap_or(&distro.dir).join(CONTAINERFILE);
    let path = order.root.join(&containerfile);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    if !starts_from_upstream(&text) {
        return Err(anyhow!("{} does not start from its upstream", containerfile.display()))
            .hint("write 'ARG UPSTREAM' and 'FROM ${UPSTREAM}'");
    }
    let upstream = resolved.inspect(order, registry)?;
    let engine = Engine::find(order.root, preflight)?;
    let store = layout((dir, &tag), order.freshness)?;
    let doing = format!("making {} from {}", distro.name, resolved.name);
    let step = progress.step(format!("{doing}; this takes some minutes"));
    let build = Build {
        context: order.root,
        containerfile,
        upstream: &resolved.name,
        upstream_digest: resolved.digest,
        plain_http: registry.is_plain_http(&resolved.name)?,
        labels,
        created: order.created,
        // Another checkout's build, in the same store, has other inputs and so another name.
        image: format!("localhost/bootc-testboot-base:{tag}"),
    };
    engine.build(&build, |line| step.at(format!("{doing}: {line}"))).context(doing.clone())?;
    step.at(format!("{doing}: reading it back"));
    let exported = Exported {
        engine,
        image: &build.image,
        upstream: (&resolved.by_digest(), &upstream),
        dir,
        tag: &tag,
    };
    let size = exported.read_back(&store, registry)?;
    store.keep_only(&tag)?;
    store.collect_garbage()?;
    step.done(format!("made {} ({})", distro.name, human_bytes(size)));
    Ok(name)
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
        let (host, repository) = (self.name.registry().to_owned(), self.name.repository().to_owned());
        Reference::with_digest(host, repository, self.digest.to_string())
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
/// Source: OCI image specification, annotations.md.
fn labels(distro: &Distro, upstream: &Resolved) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        (TITLE, distro.title.clone()),
        ("org.opencontainers.image.version", distro.name.release().to_owned()),
        (UPSTREAM_NAME, upstream.name.to_string()),
        (UPSTREAM_DIGEST, upstream.digest.to_string()),
    ])
}

/// What the base is made of: when this changes, it is made anew. The upstream is in the labels.
/// Of `distro.toml`, the labels have what counts.
fn inputs(order: &Order<'_>, labels: &BTreeMap<&'static str, String>) -> Result<Digest> {
    let mut files = BTreeMap::new();
    collect(&order.root.join(SHARED), "shared/", &mut files)?;
    collect(&order.distro.dir, "distro/", &mut files)?;
    files.remove(&format!("distro/{DISTRO_TOML}"));
    let seen = |node: Node| match node {
        Node::File { mode: FileMode::Plain, content } => format!("file {}", Digest::of(&content)),
        Node::File { mode: FileMode::Executable, content } => format!("program {}", Digest::of(&content)),
        Node::Symlink { target } => format!("link {target}"),
        Node::Directory => "folder".to_owned(),
    };
    let files: BTreeMap<String, String> = files.into_iter().map(|(path, node)| (path, seen(node))).collect();
    let created = order.created.map(|time| time.to_string());
    Ok(Digest::of(&serde_json::to_vec(&(PROCESS, labels, files, created))?))
}

/// An image in an engine's store, and where it goes.
struct Exported<'a> {
    engine: Engine,
    image: &'a str,
    /// By its digest, and what is in it.
    upstream: (&'a Reference, &'a Base),
    dir: &'a Path,
    tag: &'a str,
}

impl Exported<'_> {
    /// Takes the engine's image over into `store`, once it has shown itself to be one that can be
    /// built on; gives the size of its layers. The upstream's own stay in their registry.
    fn read_back(&self, store: &Store, registry: &Client) -> Result<u64> {
        let Exported { engine, image, upstream: (reference, upstream), dir, tag } = self;
        // Inside the layout, so that its lock is ours: what is there already is a killed run's.
        let left = dir.join(EXPORT);
        if left.exists() {
            fs::remove_dir_all(&left).with_context(|| format!("removing {}", left.display()))?;
        }
        let exported = tempfile::Builder::new()
            .prefix(EXPORT)
            .rand_bytes(0)
            .tempdir_in(dir)
            .with_context(|| format!("making {}", left.display()))?;
        engine.export(image, exported.path(), tag)?;
        engine.forget(image)?;
        let name = ImageName::Layout { dir: exported.path().to_owned(), tag: Some((*tag).to_owned()) };
        let source = Source::open(&name, registry)?;
        let from = Store::open(exported.path())?;
        let manifest = source.manifest(Platform::host(), registry)?;
        let config = source.config(&manifest.config, registry)?;
        let config_descriptor = manifest.config.clone();
        let hint = "the Containerfile has to start from a bootc image, as 'FROM ${UPSTREAM}' does";
        let base = Base::new(manifest, config, Platform::host()).hint(hint)?;

        let (descriptors, diff_ids) = (upstream.layers(), &upstream.diff_ids[..]);
        let shared = graft::shared_layers(&base.diff_ids, diff_ids).hint(hint)?;
        let ours = base.layers().iter().skip(shared).map(|layer| recompress(&from, store, layer));
        let ours = ours.collect::<Result<Vec<_>>>()?;
        let manifest = graft::graft(&base, (descriptors, diff_ids), &ours)?;
        let document = Document::parse(manifest, None)?;

        store.adopt(&from, &config_descriptor)?;
        store.put(&document.descriptor(), document.blob())?;
        store.tag(tag, &document, &Completeness::LayersIn(reference.to_string()))?;
        fs::remove_dir_all(exported.path())
            .with_context(|| format!("removing {}", exported.path().display()))?;
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
