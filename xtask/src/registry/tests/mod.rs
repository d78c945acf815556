//! Pulls and pushes against real registries, and against a proxy that breaks what passes.

mod auth;
mod hostile;
mod pull;
mod push;
mod referrers;
mod upload;

use std::io::{Cursor, Read};
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::hint::hints;
use crate::oci::{Digest, MediaType};
use crate::progress::Verbosity;
use crate::testing::Registry;

/// Fast enough for tests, slow enough for a busy machine.
fn timing() -> Timing {
    Timing {
        connect: Duration::from_secs(10),
        idle: Duration::from_secs(20),
        commit: Duration::from_secs(20),
        pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(50),
        tries: 5,
        patient_tries: 12,
    }
}

fn client() -> Client {
    client_at(timing())
}

fn client_at(timing: Timing) -> Client {
    client_of(vec![], Lookup::new(|_| None), timing)
}

fn client_with(lookup: Lookup) -> Client {
    client_of(vec![], lookup, timing())
}

fn client_of(plain_http: Vec<RegistryName>, lookup: Lookup, timing: Timing) -> Client {
    let progress = Progress::new(Verbosity::Quiet);
    // Entries end with their uploads, and names have a port in them.
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/xtask/test-uploads");
    let journal = Journal::new(dir, progress.clone());
    Client::with(plain_http, progress, journal, (lookup, timing)).unwrap()
}

/// An image whose layers are bytes.
struct Image {
    config: Verified,
    layers: Vec<Verified>,
    manifest: Verified,
}

impl Image {
    fn new(layers: &[&[u8]]) -> Image {
        let layers: Vec<Verified> = layers.iter().map(|layer| Verified::own(layer.to_vec())).collect();
        let diff_ids: Vec<Digest> = layers.iter().map(Verified::digest).collect();
        let config = json!({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let config = Verified::own(config.to_string().into_bytes());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageManifest,
            "config": config.descriptor(MediaType::ImageConfig),
            "layers": layers.iter().map(|layer| layer.descriptor(MediaType::ImageLayer)).collect::<Vec<_>>(),
        });
        Image { manifest: Verified::own(manifest.to_string().into_bytes()), config, layers }
    }

    fn descriptor(&self) -> Descriptor {
        self.manifest.descriptor(MediaType::ImageManifest)
    }

    /// A push whose first `base` layers stay where they are, in `source`.
    fn push(&self, target: &str, base: Option<(&str, usize)>) -> Push<'_> {
        let (source, count) = base.unwrap_or(("", 0));
        let blob = |bytes, media_type, source| PushBlob {
            descriptor: Verified::descriptor(bytes, media_type),
            source,
        };
        let mut blobs = vec![blob(&self.config, MediaType::ImageConfig, BlobSource::Bytes(&self.config))];
        for (position, layer) in self.layers.iter().enumerate() {
            let source = if position < count {
                BlobSource::Registry(source.parse().unwrap())
            } else {
                BlobSource::File(Box::new(|| {
                    Ok(Box::new(Cursor::new(layer.bytes().to_vec())) as Box<dyn Read + Send>)
                }))
            };
            blobs.push(blob(layer, MediaType::ImageLayer, source));
        }
        Push {
            target: target.parse().unwrap(),
            until: Until::Tagged,
            manifests: vec![(self.descriptor(), self.manifest.clone())],
            blobs,
            artifacts: vec![],
        }
    }
}

/// Bytes that differ with `seed`.
fn bytes(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..size).map(|_| next()).collect()
}

/// What a target names.
fn tag(client: &Client, target: &str) -> Option<Digest> {
    client.document(&target.parse().unwrap()).unwrap().map(|document| document.blob().digest())
}

/// Registries that differ in all that the specification leaves open.
fn both() -> [Registry; 2] {
    [Registry::docker(), Registry::crane()]
}

/// Everything an image consists of can be read back, and is what was sent.
fn assert_whole(client: &Client, target: &str, image: &Image) {
    let reference: Reference = target.parse().unwrap();
    let Some(Document::Manifest(manifest)) = client.document(&reference).unwrap() else { panic!("{target}") };
    assert_eq!(manifest.blob, image.manifest);
    assert_eq!(client.config(&reference, &manifest.config).unwrap().blob, image.config);
    for (layer, expected) in manifest.layers.iter().zip(&image.layers) {
        let mut read = Vec::new();
        let step = Progress::new(Verbosity::Quiet).step("");
        client.fetch(&reference, layer, &mut read, &step).unwrap();
        assert_eq!(read, expected.bytes());
    }
}

/// An error as the user sees it, with what differs from run to run left out.
fn shown(error: &anyhow::Error, address: &str) -> String {
    let hint = hints(error).next().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    format!("{error:#}{hint}").replace(address, "HOST")
}
