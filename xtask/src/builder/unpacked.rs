//! The layers of an image as tars, in files without names: each was read once, and is what its digest
//! says.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::io::FdFlags;

use super::LocalImage;
use super::image::damaged;
use crate::hint::WithHint;
use crate::oci::digest::DigestWriter;
use crate::oci::flatten::{self, FlattenError, Plan};
use crate::oci::{DOCKER_LAYER_GZIP, Descriptor, Digest, MediaType};

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
        let unpack = |layer: &Descriptor| -> Result<Layer> {
            let packed = image.layer(layer)?;
            let writing = || format!("unpacking {} in {}", layer.digest, folder.display());
            let mut tar = tempfile::tempfile_in(folder).with_context(writing)?;
            let digest = unpack(packed, &layer.media_type, &mut tar).with_context(writing)?;
            if digest != layer.digest {
                return Err(damaged(layer));
            }
            let tar = rustix::io::fcntl_dupfd_cloexec(&tar, FIRST_NUMBER).map_err(io::Error::from);
            Ok(Layer { digest, tar: tar.with_context(writing)?.into() })
        };
        let layers = image.manifest.layers.iter().map(unpack).collect::<Result<_>>()?;
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

/// Writes the tar of a layer, and gives the digest of what it was packed as, read to its end.
fn unpack(packed: impl Read, kind: &MediaType, tar: &mut File) -> io::Result<Digest> {
    let hashed = Hashed { inner: packed, digest: DigestWriter::new(io::sink()) };
    let mut packed = BufReader::with_capacity(BUFFER, hashed);
    let mut out = BufWriter::with_capacity(BUFFER, tar);
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
