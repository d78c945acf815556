//! The layers of an image as tars, in files without names: each was read once, and is what its digest
//! says.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use anyhow::{Context, Result, anyhow};

use super::LocalImage;
use super::image::{DISTRUST, damaged};
use crate::hint::{WithHint, hinted};
use crate::oci::digest::DigestWriter;
use crate::oci::flatten::{self, FlattenError, Plan};
use crate::oci::{DOCKER_LAYER_GZIP, Descriptor, DiffId, Digest, MediaType};
use crate::read_at::ReadAt;

/// Buffers, in bytes, and how many of them wait to be written.
const BUFFER: usize = 256 << 10;
const BUFFERS: usize = 4;
/// What a layer that no host could take is mended by.
const MEND: &str = "mend what makes that layer: a host could not take it either";

pub(super) struct Unpacked {
    layers: Vec<Layer>,
}

struct Layer {
    /// As it was packed.
    digest: Digest,
    tar: File,
}

impl Unpacked {
    /// Unpacks the layers of `image` on the file system of `folder`.
    pub(super) fn new(image: &LocalImage, folder: &Path) -> Result<Unpacked> {
        let unpack = |(layer, expected): (&Descriptor, &DiffId)| -> Result<Layer> {
            let packed = image.layer(layer)?;
            let writing = || format!("unpacking {} in {}", layer.digest, folder.display());
            let mut tar = tempfile::tempfile_in(folder).with_context(writing)?;
            let (digest, found) = unpack(packed, &layer.media_type, &mut tar)
                .map_err(|error| match error.raw_os_error() {
                    Some(_) => error.into(),
                    None => hinted(error, DISTRUST),
                })
                .with_context(writing)?;
            if digest != layer.digest {
                return Err(damaged(layer));
            }
            // The config's digest tells disks and systems apart: it has to say what is in them.
            if found != *expected {
                return Err(anyhow!("{digest} holds {found}, and {expected} was promised as its diff id"))
                    .hint(DISTRUST);
            }
            Ok(Layer { digest, tar })
        };
        let layers = image.manifest.layers.iter().zip(&image.diff_ids).map(unpack).collect::<Result<_>>()?;
        Ok(Unpacked { layers })
    }

    /// Their digests, as they were packed.
    pub(super) fn digests(&self) -> impl Iterator<Item = Digest> {
        self.layers.iter().map(|layer| layer.digest)
    }

    /// What they come to.
    pub(super) fn plan(&self) -> Result<Plan> {
        flatten::plan(self.layers.iter().map(Layer::reader)).context("flattening the layers").hint(MEND)
    }

    /// What each has by itself, with its digest.
    pub(super) fn plans(&self) -> Result<Vec<(Digest, Plan)>> {
        let layers = self.layers.iter().enumerate();
        let plans = layers.map(|(number, layer)| Ok((layer.digest, flatten::alone(number, layer.reader())?)));
        plans.collect::<Result<_, FlattenError>>().context("reading the layers").hint(MEND)
    }

    /// Writes a part of that as one tar.
    pub(super) fn write_part(&self, part: &Plan, out: impl Write) -> Result<(), FlattenError> {
        part.write(|layer| self.reader(layer), BufWriter::with_capacity(BUFFER, out))
    }

    /// As [`write_part`](Self::write_part), with the objects that ostree's repository has of it in `folder`.
    pub(super) fn write_with_objects(
        &self,
        part: &Plan,
        folder: &str,
        out: impl Write,
    ) -> Result<(), FlattenError> {
        part.write_with_objects(folder, |layer| self.reader(layer), BufWriter::with_capacity(BUFFER, out))
    }

    fn reader(&self, layer: usize) -> io::Result<ReadAt<&File>> {
        self.layers.get(layer).map(Layer::reader).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Layer {
    fn reader(&self) -> ReadAt<&File> {
        ReadAt::new(&self.tar, 0)
    }
}

/// A reader that hashes what it gives.
struct Hashed<R> {
    inner: R,
    digest: DigestWriter<io::Sink>,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.digest.write_all(&buffer[..count])?;
        Ok(count)
    }
}

/// Hands what is written on to another thread.
struct HandedOn(SyncSender<Vec<u8>>);

impl Write for HandedOn {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the tar of a layer, and gives the digest of what it was packed as, read to its end, and its own.
/// One thread inflates, and another hashes and writes.
fn unpack(packed: impl Read, kind: &MediaType, tar: &mut File) -> io::Result<(Digest, DiffId)> {
    let (sender, receiver) = sync_channel::<Vec<u8>>(BUFFERS);
    let mut out = DigestWriter::new(tar);
    thread::scope(|scope| {
        let writer = scope.spawn(move || {
            receiver.into_iter().try_for_each(|bytes| out.write_all(&bytes))?;
            Ok(DiffId(out.finish().1))
        });
        let digest = inflate(packed, kind, BufWriter::with_capacity(BUFFER, HandedOn(sender)));
        let found: io::Result<_> = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // A writer that failed leaves nobody to hand anything to.
        found.and_then(|found| Ok((digest?, found)))
    })
}

/// Writes what is packed, and gives the digest of what it was packed as.
fn inflate(packed: impl Read, kind: &MediaType, mut out: impl Write) -> io::Result<Digest> {
    let hashed = Hashed { inner: packed, digest: DigestWriter::new(io::sink()) };
    let mut packed = BufReader::with_capacity(BUFFER, hashed);
    match kind {
        MediaType::ImageLayer => io::copy(&mut packed, &mut out)?,
        MediaType::ImageLayerZstd => io::copy(&mut zstd::Decoder::with_buffer(&mut packed)?, &mut out)?,
        kind if *kind == MediaType::ImageLayerGzip || kind.as_ref() == DOCKER_LAYER_GZIP => {
            io::copy(&mut flate2::bufread::GzDecoder::new(&mut packed), &mut out)?
        }
        kind => return Err(io::Error::other(format!("it is of type {kind}"))),
    };
    out.flush()?;
    // What packs need not read: it counts for the digest.
    io::copy(&mut packed, &mut io::sink())?;
    Ok(packed.into_inner().digest.finish().1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::oci::{Document, ImageName, Platform, Verified};
    use crate::progress::{Progress, Verbosity};
    use crate::registry::Client;
    use crate::store::{Completeness, Store};

    /// What becomes of an image with these layers, whose config has these diff ids.
    fn check(layers: &[&[u8]], diff_ids: &[Digest]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path()).unwrap();
        let put = |bytes: &[u8], media_type: MediaType| {
            let blob = Verified::own(bytes.to_vec());
            let descriptor = blob.descriptor(media_type);
            store.put(&descriptor, &blob).unwrap();
            descriptor
        };
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| put(&zstd::encode_all(*layer, 1).unwrap(), MediaType::ImageLayerZstd))
            .collect();
        let config = json!({
            "os": "linux", "architecture": Platform::host().arch.name(), "rootfs": {"diff_ids": diff_ids},
        });
        let config = put(config.to_string().as_bytes(), MediaType::ImageConfig);
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
        let document = Document::parse(Verified::own(manifest.to_string().into_bytes()), None).unwrap();
        store.put(&document.descriptor(), document.blob()).unwrap();
        store.tag("t", &document, &Completeness::Whole).unwrap();
        let registry =
            Client::new(vec![], Progress::new(Verbosity::Quiet), dir.path().join("uploads")).unwrap();
        let name = ImageName::Layout { dir: dir.path().to_owned(), tag: Some("t".to_owned()) };
        let unpacked = LocalImage::open(&name, &registry).and_then(|image| Unpacked::new(&image, dir.path()));
        match unpacked {
            Ok(unpacked) => format!("{} layers", unpacked.layers.len()),
            Err(error) => error.root_cause().to_string(),
        }
    }

    #[test]
    fn a_config_and_its_layers_belong_together() {
        let [one, two] = [&b"one"[..], b"two"];
        let [first, second] = [one, two].map(Digest::of);
        assert_eq!(check(&[one, two], &[first, second]), "2 layers");
        let promised = |found, expected| format!("holds {found}, and {expected} was promised as its diff id");
        let error = check(&[one, two], &[second, first]);
        assert!(error.ends_with(&promised(first, second)), "{error}");
        let error = check(&[one, one], &[first, second]);
        assert!(error.ends_with(&promised(first, second)), "{error}");
        for diff_ids in [&[][..], &[first], &[first, second, second]] {
            let error = check(&[one, two], diff_ids);
            let expected = format!("is not valid: it has {} diff ids for 2 layers", diff_ids.len());
            assert!(error.ends_with(&expected), "{error}");
        }
    }
}
