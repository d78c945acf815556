//! A real registry on this machine, and the stand-ins for a base that are pushed into it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tempfile::TempDir;
use xshell::{Shell, cmd};

use crate::cmd::Session;
use crate::exec;
use crate::oci::digest::DigestWriter;
use crate::oci::{Descriptor, MediaType, Platform, Reference, Verified};
use crate::preflight::{self, Need};
use crate::registry::{BlobSource, Push, PushBlob, Until};

/// How long the registry may take to come up on a busy machine.
const STARTUP: Duration = Duration::from_secs(30);

/// docker's registry or Distribution, without authentication, which runs until it is dropped.
pub(super) struct Registry {
    address: SocketAddr,
    /// Ends before its storage goes.
    _server: exec::Running,
    _dir: TempDir,
}

impl Registry {
    pub(super) fn start(program: &Need, session: &Session) -> Result<Registry> {
        let program = preflight::find(program, &session.root)
            .with_context(|| format!("{} is missing", program.program))?;
        let dir = tempfile::tempdir().context("making a folder for the registry")?;
        let address = free_address().context("looking for a free port")?;
        let config = dir.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}', secret: bench}}\n",
            dir.path().join("storage").display()
        );
        fs::write(&config, text).with_context(|| format!("writing {}", config.display()))?;
        let log = dir.path().join("log");
        let sh = Shell::new()?;
        // Distribution would send traces to a port that nothing listens on here.
        let serve = cmd!(sh, "{program} serve {config}").env("OTEL_TRACES_EXPORTER", "none");
        let server = exec::serve(serve, &log)?;
        let end = Instant::now() + STARTUP;
        while TcpStream::connect(address).is_err() {
            if Instant::now() > end {
                bail!("the registry does not answer: {}", fs::read_to_string(&log).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Registry { address, _server: server, _dir: dir })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A port that was free a moment ago.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// The shape of a base: how many layers, of how many bytes each.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) layers: usize,
    pub(super) layer_size: u64,
}

/// Pushes an image of `shape` that a bootc host would take for bootable, the same each time.
/// Its layers are not compressed, and could not be.
pub(super) fn push_base(shape: Shape, target: &Reference, session: &Session) -> Result<()> {
    let dir = tempfile::tempdir().context("making a folder for the base's layers")?;
    let mut layers = Vec::new();
    for number in 0..shape.layers {
        let path = dir.path().join(number.to_string());
        let layer = write_layer(&path, number, shape.layer_size)
            .with_context(|| format!("writing {}", path.display()))?;
        layers.push((path, layer));
    }
    let diff_ids: Vec<_> = layers.iter().map(|(_, layer)| layer.digest).collect();
    let config = Verified::own(serde_json::to_vec(&json!({
        "created": "2025-01-01T00:00:00Z",
        "architecture": Platform::host().arch.name(),
        "os": "linux",
        "config": { "Labels": { "containers.bootc": "1" } },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    }))?);
    let config_descriptor = config.descriptor(MediaType::ImageConfig);
    let manifest = Verified::own(serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageManifest,
        "config": config_descriptor,
        "layers": layers.iter().map(|(_, layer)| layer).collect::<Vec<_>>(),
    }))?);

    let mut blobs: Vec<PushBlob<'_>> = layers
        .iter()
        .map(|(path, layer)| PushBlob {
            descriptor: layer.clone(),
            source: BlobSource::File(Box::new(move || Ok(Box::new(File::open(path)?)))),
        })
        .collect();
    blobs.push(PushBlob { descriptor: config_descriptor, source: BlobSource::Bytes(&config) });
    let push = Push {
        target: target.clone(),
        until: Until::Tagged,
        manifests: vec![(manifest.descriptor(MediaType::ImageManifest), manifest)],
        blobs,
        artifacts: Vec::new(),
    };
    session.registry()?.push(&push).with_context(|| format!("pushing the base {target}"))?;
    Ok(())
}

/// A tar with one file of `size` bytes that look random.
fn write_layer(path: &Path, number: usize, size: u64) -> io::Result<Descriptor> {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    let out = DigestWriter::new(io::BufWriter::new(File::create(path)?));
    let mut tar = tar::Builder::new(out);
    let noise = Noise::new(number as u64);
    tar.append_data(&mut header, format!("usr/share/base/{number}"), io::Read::take(noise, size))?;
    let (mut file, digest, size) = tar.into_inner()?.finish();
    file.flush()?;
    Ok(Descriptor { media_type: MediaType::ImageLayer, digest, size })
}

/// Bytes without a pattern, the same for the same start.
/// Source: Marsaglia, "Xorshift RNGs", the generator of 64 bits.
pub(super) struct Noise {
    state: u64,
}

impl Noise {
    pub(super) fn new(number: u64) -> Noise {
        Noise { state: number + 1 }
    }
}

impl io::Read for Noise {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for part in buffer.chunks_mut(8) {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            part.copy_from_slice(&self.state.to_le_bytes()[..part.len()]);
        }
        Ok(buffer.len())
    }
}
