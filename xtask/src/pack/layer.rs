//! A disk file -> the bytes of its layer, as a stream that can be opened again.

use std::io::{self, BufReader, Cursor, Read, Write};
use std::thread;

use zstd::zstd_safe::CParameter;

use super::content::{Content, DiskFile};
use super::error::PackError;
use super::image::FileName;
use super::{gzip, tar};
use crate::disk::DiskFormat;
use crate::oci::digest::DigestWriter;
use crate::oci::{Descriptor, DiffId, Digest, MediaType};

/// The largest layer that the strictest of the usual registries takes, in bytes.
/// Source: docs.github.com, "Working with the Container registry": 10 GB a layer.
pub(super) const LARGEST_LAYER: u64 = 10_000_000_000;
/// zstd's own default level.
const ZSTD_LEVEL: i32 = 3;
/// What a worker takes at a time, in bytes. Measured on a raw: zstd's own choice, 8 MiB, takes three
/// times the memory, which grows with the workers, and saves 0.8 %.
const ZSTD_JOB: u32 = 2 << 20;
/// More would wait for the one thread that hashes, and each takes memory.
const MOST_WORKERS: u32 = 8;
const BUFFER: usize = 256 << 10;

/// How a disk is compressed on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    /// Not at all: what is in it is compressed. The layer's digest is its diff id.
    Tar,
    Gzip,
    Zstd,
}

/// Who is to read what is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readers {
    /// podman, skopeo, and containerd from 1.5 on.
    OfToday,
    /// Those that know gzip alone.
    Old,
}

impl Packing {
    pub(crate) fn of(format: DiskFormat, readers: Readers) -> Packing {
        match (format, readers) {
            // gzip saves 0.3 % of what is compressed already.
            (
                DiskFormat::Qcow2 | DiskFormat::Vmdk | DiskFormat::Ova | DiskFormat::Gce | DiskFormat::Iso,
                _,
            ) => Packing::Tar,
            (DiskFormat::Raw | DiskFormat::Ami | DiskFormat::Vhd, Readers::OfToday) => Packing::Zstd,
            (DiskFormat::Raw | DiskFormat::Ami | DiskFormat::Vhd, Readers::Old) => Packing::Gzip,
        }
    }

    pub(super) fn media_type(self) -> MediaType {
        match self {
            Packing::Tar => MediaType::ImageLayer,
            Packing::Gzip => MediaType::ImageLayerGzip,
            Packing::Zstd => MediaType::ImageLayerZstd,
        }
    }

    /// How the layers of this media type are compressed.
    pub(super) fn of_media_type(media_type: &MediaType) -> Option<Packing> {
        [Packing::Tar, Packing::Gzip, Packing::Zstd]
            .into_iter()
            .find(|packing| packing.media_type() == *media_type)
    }
}

/// How a layer is made.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    file: DiskFile,
    name: FileName,
    packing: Packing,
    workers: u32,
}

/// A layer that went by, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PackedLayer {
    pub(super) descriptor: Descriptor,
    pub(super) diff_id: DiffId,
    /// Of the file itself.
    pub(super) sha256: Digest,
}

impl Recipe {
    /// Refuses what no registry would take, as far as that is known before it is read.
    pub(super) fn new(file: DiskFile, name: FileName, packing: Packing) -> Result<Recipe, PackError> {
        let size = tar::length(file.size);
        if packing == Packing::Tar && size > LARGEST_LAYER {
            return Err(PackError::TooLarge { size });
        }
        // With one worker or more, zstd's bytes do not depend on how many there are.
        let cores = thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
        Ok(Recipe { file, name, packing, workers: cores.clamp(1, MOST_WORKERS) })
    }

    pub(super) fn packing(&self) -> Packing {
        self.packing
    }

    #[cfg(test)]
    pub(super) fn with_workers(self, workers: u32) -> Recipe {
        Recipe { workers, ..self }
    }

    /// The layer's bytes, from the beginning.
    pub(super) fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.stream(Hashing::Nothing)?))
    }

    /// Writes the layer to `out`, and says what it is. `known` is the digest that the file has to have,
    /// where somebody has said so. `on_read` hears of the bytes of the tar that went by.
    pub(super) fn write(
        &self,
        out: &mut dyn Write,
        known: Option<Digest>,
        on_read: &dyn Fn(u64),
    ) -> Result<PackedLayer, PackError> {
        let mut stream = self.stream(Hashing::TarAndFile)?;
        let mut out = Limited { out, left: LARGEST_LAYER };
        let compressed = match self.packing {
            Packing::Tar => pump(&mut stream, &mut out, on_read).map(|()| None),
            Packing::Gzip | Packing::Zstd => {
                let mut hashed = DigestWriter::new(out);
                pump(&mut stream, &mut hashed, on_read).map(|()| Some(hashed.finish()))
            }
        };
        let compressed = compressed.map_err(unwrapped)?;
        let (tar_digest, sha256, tar_size) = stream.into_tar().digests()?;
        if let Some(expected) = known.filter(|known| *known != sha256) {
            return Err(PackError::OtherDigest { expected, found: sha256 });
        }
        let (digest, size) = match compressed {
            Some((_, digest, size)) => (digest, size),
            None => (tar_digest, tar_size),
        };
        let descriptor = Descriptor { media_type: self.packing.media_type(), digest, size };
        Ok(PackedLayer { descriptor, diff_id: DiffId(tar_digest), sha256 })
    }

    /// What `on_read` of [`Recipe::write`] hears of in all.
    pub(super) fn length(&self) -> u64 {
        tar::length(self.file.size)
    }

    fn stream(&self, hashing: Hashing) -> io::Result<Stream> {
        let tar = Tar::new(&self.file, &self.name, hashing)?;
        Ok(match self.packing {
            Packing::Tar => Stream::Tar(Box::new(tar)),
            Packing::Gzip => Stream::Gzip(Box::new(gzip::Encoder::new(tar))),
            Packing::Zstd => {
                let buffered = BufReader::with_capacity(BUFFER, tar);
                let mut zstd = zstd::stream::read::Encoder::with_buffer(buffered, ZSTD_LEVEL)?;
                zstd.set_parameter(CParameter::NbWorkers(self.workers))?;
                zstd.set_parameter(CParameter::JobSize(ZSTD_JOB))?;
                // A reader sees in the frame's header how much will come.
                zstd.set_pledged_src_size(Some(tar::length(self.file.size)))?;
                Stream::Zstd(Box::new(zstd))
            }
        })
    }
}

type Zstd = zstd::stream::read::Encoder<'static, BufReader<Tar>>;

enum Stream {
    Tar(Box<Tar>),
    Gzip(Box<gzip::Encoder<Tar>>),
    Zstd(Box<Zstd>),
}

impl Stream {
    fn tar(&self) -> &Tar {
        match self {
            Stream::Tar(tar) => tar,
            Stream::Gzip(gzip) => gzip.get_ref(),
            Stream::Zstd(zstd) => zstd.get_ref().get_ref(),
        }
    }

    fn into_tar(self) -> Tar {
        match self {
            Stream::Tar(tar) => *tar,
            Stream::Gzip(gzip) => gzip.into_inner(),
            Stream::Zstd(zstd) => zstd.finish().into_inner(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tar(tar) => tar.read(buffer),
            Stream::Gzip(gzip) => gzip.read(buffer),
            Stream::Zstd(zstd) => zstd.read(buffer),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Hashing {
    Nothing,
    TarAndFile,
}

/// The tar of a file, hashed as it is read.
struct Tar {
    head: Cursor<Vec<u8>>,
    content: Content,
    tail: Cursor<Vec<u8>>,
    whole: Option<DigestWriter<io::Sink>>,
    file: Option<DigestWriter<io::Sink>>,
    /// How much of it was read.
    position: u64,
}

impl Tar {
    fn new(file: &DiskFile, name: &FileName, hashing: Hashing) -> io::Result<Tar> {
        let hasher = || (hashing == Hashing::TarAndFile).then(|| DigestWriter::new(io::sink()));
        Ok(Tar {
            head: Cursor::new(tar::head(name, file.size)?),
            content: file.open()?,
            tail: Cursor::new(tar::tail(file.size)),
            whole: hasher(),
            file: hasher(),
            position: 0,
        })
    }

    /// The digests of the tar and of the file, and the tar's size.
    fn digests(self) -> io::Result<(Digest, Digest, u64)> {
        let missing = || io::Error::other("nothing was hashed");
        let (_, whole, size) = self.whole.ok_or_else(missing)?.finish();
        let (_, file, _) = self.file.ok_or_else(missing)?.finish();
        Ok((whole, file, size))
    }
}

impl Read for Tar {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut count = self.head.read(buffer)?;
        if count == 0 {
            count = self.content.read(buffer)?;
            if let Some(file) = &mut self.file {
                file.write_all(&buffer[..count])?;
            }
        }
        if count == 0 {
            count = self.tail.read(buffer)?;
        }
        self.position += count as u64;
        if let Some(whole) = &mut self.whole {
            whole.write_all(&buffer[..count])?;
        }
        Ok(count)
    }
}

/// Passes on what fits into the largest layer.
struct Limited<'a> {
    out: &'a mut dyn Write,
    left: u64,
}

impl Write for Limited<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or_else(|| io::Error::other(PackError::TooLargeCompressed))?;
        self.out.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn pump(from: &mut Stream, to: &mut impl Write, on_read: &dyn Fn(u64)) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let before = from.tar().position;
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(&buffer[..count])?;
        on_read(from.tar().position - before);
    }
}

/// An error of our own that went through I/O.
fn unwrapped(error: io::Error) -> PackError {
    match error.downcast::<PackError>() {
        Ok(own) => own,
        Err(error) => PackError::Io(error),
    }
}
