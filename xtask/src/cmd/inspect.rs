//! `inspect`: what an image is, by its manifest and config; no layer is fetched.

use std::io::{self, BufReader, Read};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Map, Value};

use super::referrers::{self, ReferrerReport};
use super::{Session, packed as packing};
use crate::disk::DiskFormat;
use crate::flags::Inspect;
use crate::oci::{Descriptor, Digest, Document, MediaType, Platform};
use crate::pack::{Facts, PackedDisk};
use crate::progress::{counted, human_bytes};
use crate::source::{Home, Source};
use crate::words::foreign;

/// What says that an image is a system. Source: bootc, "Generic guidance for building images".
const BOOTC: &str = "containers.bootc";

/// No layer is larger when it is unpacked, in bytes; one that claims more is not unpacked to its end.
const LARGEST: u64 = 64 << 30;
const BUFFER: usize = 256 << 10;

/// Keys may be added, none renamed.
#[derive(Debug, Serialize)]
struct Report {
    reference: String,
    digest: Digest,
    media_type: MediaType,
    kind: Kind,
    platform: String,
    /// What an index has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    platforms: Vec<PlatformReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    /// Of all layers, as they are transferred, in bytes.
    size: u64,
    /// The base's layers and ours, where the image says which is which.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<GroupReport>,
    layers: Vec<LayerReport>,
    annotations: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk: Option<DiskReport>,
    /// What is attached to the image, where it is in a registry.
    referrers: Vec<ReferrerReport>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// A disk that was packed.
    Disk,
    /// What a bootc host boots.
    System,
    Image,
}

#[derive(Debug, Serialize)]
struct PlatformReport {
    platform: String,
    digest: Digest,
}

#[derive(Debug, Serialize)]
struct LayerReport {
    /// What it holds, where that is known.
    name: Option<String>,
    digest: Digest,
    media_type: MediaType,
    size: u64,
    /// Unpacked, where that is known: of what is not compressed, and of what is in a layout here.
    unpacked: Option<u64>,
}

#[derive(Debug, Serialize)]
struct GroupReport {
    name: &'static str,
    layers: usize,
    size: u64,
    /// Where that of each layer is known.
    unpacked: Option<u64>,
}

#[derive(Debug, Serialize)]
struct DiskReport {
    format: DiskFormat,
    name: String,
    size: u64,
    virtual_size: u64,
    sha256: String,
    distro: Option<String>,
    version: Option<String>,
    /// What was installed on it.
    image: Option<ImageReport>,
}

#[derive(Debug, Serialize)]
struct ImageReport {
    name: Option<String>,
    digest: Digest,
}

pub(crate) fn run(flags: &Inspect, session: &Session) -> Result<()> {
    let registry = session.registry()?;
    let reading = || format!("reading {}", flags.image);
    let source = Source::open(&flags.image, &registry).with_context(reading)?;
    let platform = flags.platform.unwrap_or_else(Platform::host);
    let manifest = source.manifest(platform, &registry).with_context(reading)?;
    let config = source.config(&manifest.config, &registry).with_context(reading)?;
    let disk = match PackedDisk::is_claimed_by(&manifest) {
        true => {
            let read = PackedDisk::read(&manifest, &config);
            Some(read.map_err(|error| packing::not_packed(error, &flags.image))?)
        }
        false => None,
    };
    let names = match &disk {
        Some(disk) => vec![Some(disk.facts.name.to_string())],
        None => config.layer_names(manifest.layers.len()),
    };
    let layers = names.into_iter().zip(&manifest.layers).map(|(name, layer)| {
        let unpacked = unpacked(&source, layer).with_context(reading)?;
        let (digest, media_type) = (layer.digest, layer.media_type.clone());
        Ok(LayerReport { name, digest, media_type, size: layer.size, unpacked })
    });
    let layers = layers.collect::<Result<Vec<LayerReport>>>()?;
    let platforms = match &source.document {
        Document::Manifest(_) => Vec::new(),
        Document::Index(index) => index
            .manifests
            .iter()
            .map(|(platform, image)| PlatformReport { platform: platform.to_string(), digest: image.digest })
            .collect(),
    };
    let root = source.document.descriptor();
    let mut referrers = Vec::new();
    if let Home::Registry(reference) = &source.home {
        // To an index and to the image in it.
        let image = manifest.blob.digest();
        referrers = referrers::list(reference, image, &registry).with_context(reading)?;
        if root.digest != image {
            referrers.extend(referrers::list(reference, root.digest, &registry).with_context(reading)?);
        }
    }
    let report = Report {
        reference: session.shown_name(&flags.image).to_string(),
        digest: root.digest,
        media_type: root.media_type,
        kind: match (&disk, config.label(BOOTC)) {
            (Some(_), _) => Kind::Disk,
            (None, Some(_)) => Kind::System,
            (None, None) => Kind::Image,
        },
        platform: config.shown_platform(),
        platforms,
        created: config.text("created").map(str::to_owned),
        size: manifest.layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add),
        groups: if disk.is_some() { Vec::new() } else { groups(&layers) },
        layers,
        annotations: manifest.json.get("annotations").and_then(Value::as_object).cloned().unwrap_or_default(),
        disk: disk.map(|disk| DiskReport::new(&disk.facts)),
        referrers,
    };
    session.print(&report, || report.text())
}

/// The base's layers, and ours; nothing where none is known to be ours.
fn groups(layers: &[LayerReport]) -> Vec<GroupReport> {
    let (ours, base): (Vec<&LayerReport>, Vec<&LayerReport>) =
        layers.iter().partition(|layer| layer.name.is_some());
    let group = |name, layers: Vec<&LayerReport>| GroupReport {
        name,
        layers: layers.len(),
        size: layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add),
        unpacked: layers.iter().try_fold(0, |sum: u64, layer| Some(sum.saturating_add(layer.unpacked?))),
    };
    if ours.is_empty() { Vec::new() } else { vec![group("base", base), group("ours", ours)] }
}

/// What a layer has when it is unpacked. None is fetched for that.
fn unpacked(source: &Source, layer: &Descriptor) -> Result<Option<u64>> {
    if layer.media_type == MediaType::ImageLayer {
        return Ok(Some(layer.size));
    }
    let Home::Layout(store) = &source.home else { return Ok(None) };
    if !store.has(layer)? {
        return Ok(None);
    }
    let file = BufReader::with_capacity(BUFFER, store.open_blob(layer)?);
    let reader: Box<dyn Read> = match &layer.media_type {
        MediaType::ImageLayerGzip => Box::new(flate2::bufread::GzDecoder::new(file)),
        MediaType::ImageLayerZstd => Box::new(zstd::Decoder::with_buffer(file)?),
        _ => return Ok(None),
    };
    let size = io::copy(&mut reader.take(LARGEST + 1), &mut io::sink())
        .with_context(|| format!("unpacking {}", layer.digest))?;
    Ok((size <= LARGEST).then_some(size))
}

impl DiskReport {
    fn new(facts: &Facts) -> DiskReport {
        let origin = &facts.origin;
        DiskReport {
            format: facts.format,
            name: facts.name.to_string(),
            size: facts.size,
            virtual_size: facts.virtual_size,
            sha256: facts.sha256.hex(),
            distro: origin.distro.as_ref().map(ToString::to_string),
            version: origin.version.clone(),
            image: origin
                .image
                .as_ref()
                .map(|image| ImageReport { name: image.name.clone(), digest: image.digest }),
        }
    }
}

impl Report {
    fn text(&self) -> String {
        let what = match self.kind {
            Kind::Disk => "packed disk",
            Kind::System => "system",
            Kind::Image => "image",
        };
        let mut text = format!("{what} {}\ndigest {}\n", self.reference, self.digest);
        match &self.platforms[..] {
            [] => text += &format!("platform {}\n", foreign(&self.platform)),
            several => {
                for PlatformReport { platform, digest } in several {
                    text += &format!("platform {platform} {digest}\n");
                }
            }
        }
        if let Some(created) = &self.created {
            text += &format!("created {}\n", foreign(created));
        }
        if let Some(disk) = &self.disk {
            let (size, virtual_size) = (human_bytes(disk.size), human_bytes(disk.virtual_size));
            text += &format!("disk {}: {}, {size}, a disk of {virtual_size}\n", disk.name, disk.format);
            text += &format!("sha256 {}\n", disk.sha256);
            if let Some(ImageReport { name, digest }) = &disk.image {
                let name = name.as_deref().map(|name| format!("{} ", foreign(name))).unwrap_or_default();
                text += &format!("of the image {name}{digest}\n");
            }
        }
        text += &format!("{} in {}\n", human_bytes(self.size), counted(self.layers.len(), "layer"));
        for GroupReport { name, layers, size, unpacked } in &self.groups {
            let unpacked = unpacked.map(|size| format!(", {} unpacked", human_bytes(size)));
            let (size, layers) = (human_bytes(*size), counted(*layers, "layer"));
            text += &format!("{name}: {size} in {layers}{}\n", unpacked.unwrap_or_default());
        }
        for layer in &self.layers {
            let name = foreign(layer.name.as_deref().unwrap_or("base"));
            text += &format!("  {name:<12} {:>9} {}\n", human_bytes(layer.size), layer.digest.short());
        }
        for referrer in &self.referrers {
            text += &referrer.text();
        }
        for (key, value) in &self.annotations {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            text += &format!("{} = {}\n", foreign(key), foreign(&value));
        }
        text
    }
}
