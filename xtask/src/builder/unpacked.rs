//! The layers of an image as tars, in files without names: each was read once, and is what its digest
//! says.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use rustix::io::FdFlags;

use super::LocalImage;
use super::image::{DISTRUST, damaged};
use crate::hint::WithHint;
use crate::oci::digest::DigestWriter;
use crate::oci::flatten::{self, FlattenError, Plan};
use crate::oci::{DOCKER_LAYER_GZIP, Descriptor, DiffId, Digest, MediaType};

/// Buffers, in bytes.
const BUFFER: usize = 256 << 10;
/// A shell's script uses numbers of one digit for files of its own.
const FIRST_NUMBER: i32 = 10;

pub(super) struct Unpacked {
    layers: Vec<Layer>,
}

struct Layer {
    /// As it was packed.
    digest: Digest,
    tar: File,
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

impl Unpacked {
    /// Unpacks the layers of `image` on the file system of `folder`.
    pub(super) fn new(image: &LocalImage, folder: &Path) -> Result<Unpacked> {
        let unpack = |(layer, expected): (&Descriptor, &DiffId)| -> Result<Layer> {
            let packed = image.layer(layer)?;
            let writing = || format!("unpacking {} in {}", layer.digest, folder.display());
            let mut tar = tempfile::tempfile_in(folder).with_context(writing)?;
            let (digest, found) = unpack(packed, &layer.media_type, &mut tar).with_context(writing)?;
            if digest != layer.digest {
                return Err(damaged(layer));
            }
            // The config's digest tells disks and systems apart: it has to say what is in them.
            if found != *expected {
                return Err(anyhow!("{digest} holds {found}, and {expected} was promised as its diff id"))
                    .hint(DISTRUST);
            }
            let tar = rustix::io::fcntl_dupfd_cloexec(&tar, FIRST_NUMBER).map_err(io::Error::from);
            Ok(Layer { digest, tar: tar.with_context(writing)?.into() })
        };
        let layers = image.manifest.layers.iter().zip(&image.diff_ids).map(unpack).collect::<Result<_>>()?;
        Ok(Unpacked { layers })
    }

    /// What they come to.
    pub(super) fn plan(&self) -> Result<Plan> {
        flatten::plan(self.layers.iter().map(|layer| &layer.tar))
            .context("flattening the layers")
            .hint("mend what makes that layer: a host could not take it either")
    }

    /// Writes a part of that as one tar.
    pub(super) fn write_part(&self, part: &Plan, out: impl Write) -> Result<(), FlattenError> {
        let open = |number: usize| {
            let mut tar = &self.layers.get(number).ok_or(io::ErrorKind::NotFound)?.tar;
            tar.rewind()?;
            Ok(tar)
        };
        part.write(open, BufWriter::with_capacity(BUFFER, out))
    }

    /// A word for each: its digest in hex, a colon, and the number under which programs that are started
    /// from now on have its tar open, so that they read it without a copy.
    pub(super) fn handed_down(&self) -> io::Result<String> {
        let word = |layer: &Layer| {
            rustix::io::fcntl_setfd(&layer.tar, FdFlags::empty())?;
            Ok(format!("{}:{}", layer.digest.hex(), layer.tar.as_raw_fd()))
        };
        let words = self.layers.iter().map(word).collect::<io::Result<Vec<_>>>();
        words.map(|words| words.join(" "))
    }
}

/// Writes the tar of a layer, and gives the digest of what it was packed as, read to its end, and its own.
fn unpack(packed: impl Read, kind: &MediaType, tar: &mut File) -> io::Result<(Digest, DiffId)> {
    let hashed = Hashed { inner: packed, digest: DigestWriter::new(io::sink()) };
    let mut packed = BufReader::with_capacity(BUFFER, hashed);
    let mut out = BufWriter::with_capacity(BUFFER, DigestWriter::new(tar));
    match kind {
        MediaType::ImageLayer => io::copy(&mut packed, &mut out)?,
        MediaType::ImageLayerZstd => io::copy(&mut zstd::Decoder::with_buffer(&mut packed)?, &mut out)?,
        kind if *kind == MediaType::ImageLayerGzip || kind.as_ref() == DOCKER_LAYER_GZIP => {
            io::copy(&mut flate2::bufread::GzDecoder::new(&mut packed), &mut out)?
        }
        kind => return Err(io::Error::other(format!("it is of type {kind}"))),
    };
    let found = out.into_inner().map_err(io::IntoInnerError::into_error)?.finish().1;
    // What packs need not read: it counts for the digest.
    io::copy(&mut packed, &mut io::sink())?;
    Ok((packed.into_inner().digest.finish().1, DiffId(found)))
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
