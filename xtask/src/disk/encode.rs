//! What a thread makes of a chunk: all that the formats asked for need of it, compressed.

use std::borrow::Cow;
use std::io;

use libdeflater::{CompressionLvl, Compressor};
use zlib_rs::{Deflate, DeflateFlush, Status};

use super::blocks::{BLOCK, CHUNK, Picture, filled};
use super::qcow2::Qcow2Compression;
use super::view::View;

/// Two parts in a hundred larger than QEMU's level 3, in three quarters of the time.
const ZSTD_LEVEL: i32 = 2;
/// zlib's default, and QEMU's.
const QCOW2_ZLIB_LEVEL: i32 = 6;
/// The window that qcow2 prescribes, as a power of two.
const QCOW2_WINDOW_BITS: u8 = 12;
/// Of libdeflate: three parts in a hundred larger than zlib's level 6, at four times its pace.
const VMDK_LEVEL: i32 = 3;
/// Of zlib-rs: seven parts in a hundred larger than gzip, at four times its pace.
const GCE_LEVEL: i32 = 3;
/// gzip's window, as a power of two.
const GZIP_WINDOW_BITS: u8 = 15;
/// The end of a flush, an empty stored block, which the bound does not count.
const FLUSH: usize = 16;

/// A way to encode, of the chunks as a view shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) view: usize,
    pub(super) encoding: Encoding,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Qcow2(Qcow2Compression),
    Vmdk,
    Gce,
}

/// A chunk, encoded; blocks come with their number on the disk.
#[derive(Debug)]
pub(super) enum Encoded {
    /// Nothing where a block would not shrink.
    Clusters(Vec<(u64, Option<Vec<u8>>)>),
    /// zlib streams.
    Grains(Vec<(u64, Vec<u8>)>),
    Segment(Segment),
}

/// A part of a deflate stream that ends at a byte and needs nothing of what comes before it.
#[derive(Debug, Default)]
pub(super) struct Segment {
    pub(super) deflated: Vec<u8>,
    /// Of the bytes before compression; it knows how many they are.
    pub(super) crc: crc32fast::Hasher,
}

/// A chunk that went through a thread.
#[derive(Debug)]
pub(super) struct Done<B> {
    /// Its number on the disk.
    pub(super) chunk: u64,
    /// The raw's bytes.
    bytes: B,
    /// One a view.
    drawn: Vec<Drawn>,
    /// One a job.
    pub(super) encoded: Vec<Encoded>,
}

/// What a view makes of a chunk.
#[derive(Debug)]
struct Drawn {
    /// Where it is not the raw's bytes.
    bytes: Option<Vec<u8>>,
    len: usize,
    filled: u16,
}

impl<B: AsRef<[u8]>> Done<B> {
    pub(super) fn picture(&self, view: usize) -> Picture<'_> {
        let drawn = &self.drawn[view];
        let bytes = drawn.bytes.as_deref().unwrap_or(self.bytes.as_ref());
        Picture { at: self.chunk * CHUNK as u64, bytes, len: drawn.len, filled: drawn.filled }
    }

    /// A block of the disk, which is in this chunk.
    pub(super) fn block(&self, view: usize, number: u64) -> &[u8] {
        let blocks = (CHUNK / BLOCK) as u64;
        let start = (number % blocks) as usize * BLOCK;
        &self.picture(view).bytes[start..start + BLOCK]
    }
}

/// A thread's compressors, which it uses again and again.
pub(super) struct Encoder {
    zstd: zstd::bulk::Compressor<'static>,
    qcow2_zlib: Deflate,
    vmdk: Compressor,
    gce: Deflate,
    /// Compressed bytes on their way to a vector of the right size.
    room: Vec<u8>,
}

impl Encoder {
    pub(super) fn new() -> io::Result<Encoder> {
        let level =
            CompressionLvl::new(VMDK_LEVEL).map_err(|error| io::Error::other(format!("{error:?}")))?;
        let mut vmdk = Compressor::new(level);
        let room = vec![0; (zlib_rs::compress_bound(CHUNK) + FLUSH).max(vmdk.zlib_compress_bound(BLOCK))];
        Ok(Encoder {
            zstd: zstd::bulk::Compressor::new(ZSTD_LEVEL)?,
            qcow2_zlib: Deflate::new(QCOW2_ZLIB_LEVEL, false, QCOW2_WINDOW_BITS),
            vmdk,
            gce: Deflate::new(GCE_LEVEL, false, GZIP_WINDOW_BITS),
            room,
        })
    }

    /// Encodes a chunk, whose bytes are whole, for all jobs.
    pub(super) fn encode<B: AsRef<[u8]>>(
        &mut self,
        chunk: u64,
        bytes: B,
        views: &[View],
        jobs: &[Job],
    ) -> io::Result<Done<B>> {
        let raw = bytes.as_ref();
        let raw_filled = filled(raw);
        let drawn = views.iter().map(|view| draw(view, chunk * CHUNK as u64, raw, raw_filled)).collect();
        let mut done = Done { chunk, bytes, drawn, encoded: Vec::new() };
        for job in jobs {
            let encoded = self.job(job.encoding, &done.picture(job.view))?;
            done.encoded.push(encoded);
        }
        Ok(done)
    }

    fn job(&mut self, encoding: Encoding, picture: &Picture<'_>) -> io::Result<Encoded> {
        match encoding {
            Encoding::Qcow2(compression) => {
                let clusters = picture.filled_blocks().map(|(number, block)| {
                    let len = self.cluster(compression, block)?;
                    Ok((number, (len < BLOCK).then(|| self.room[..len].to_vec())))
                });
                Ok(Encoded::Clusters(clusters.collect::<io::Result<_>>()?))
            }
            Encoding::Vmdk => {
                let grains = picture.filled_blocks().map(|(number, block)| {
                    let len = self.vmdk.zlib_compress(block, &mut self.room);
                    let len = len.map_err(|error| io::Error::other(error.to_string()))?;
                    Ok((number, self.room[..len].to_vec()))
                });
                Ok(Encoded::Grains(grains.collect::<io::Result<_>>()?))
            }
            Encoding::Gce => {
                let runs: Vec<&[u8]> = picture.runs().into_iter().map(|(_, bytes)| bytes).collect();
                let bytes = match runs[..] {
                    [run] => Cow::Borrowed(run),
                    [..] => Cow::Owned(runs.concat()),
                };
                Ok(Encoded::Segment(self.segment(&bytes)?))
            }
        }
    }

    /// Compresses a cluster into `room`, and says how long it got.
    fn cluster(&mut self, compression: Qcow2Compression, block: &[u8]) -> io::Result<usize> {
        match compression {
            Qcow2Compression::Zstd => self.zstd.compress_to_buffer(block, self.room.as_mut_slice()),
            Qcow2Compression::Zlib => {
                deflate(&mut self.qcow2_zlib, block, DeflateFlush::Finish, &mut self.room)
            }
        }
    }

    /// Bytes of at most a chunk, as a part of a deflate stream.
    pub(super) fn segment(&mut self, bytes: &[u8]) -> io::Result<Segment> {
        if bytes.is_empty() {
            return Ok(Segment::default());
        }
        let len = deflate(&mut self.gce, bytes, DeflateFlush::SyncFlush, &mut self.room)?;
        let mut crc = crc32fast::Hasher::new();
        crc.update(bytes);
        Ok(Segment { deflated: self.room[..len].to_vec(), crc })
    }
}

/// Deflates bytes without regard to those before.
fn deflate(stream: &mut Deflate, bytes: &[u8], flush: DeflateFlush, out: &mut [u8]) -> io::Result<usize> {
    stream.reset();
    let status = stream.compress(bytes, out, flush).map_err(|error| io::Error::other(error.as_str()))?;
    let len = stream.total_out() as usize;
    // A flush that fills the room to the last byte may not be over.
    let is_over = match status {
        Status::StreamEnd => true,
        Status::Ok | Status::BufError => stream.total_in() == bytes.len() as u64 && len < out.len(),
    };
    if is_over { Ok(len) } else { Err(io::Error::other("deflate needs more room than it can")) }
}

/// A chunk as a view has it.
fn draw(view: &View, at: u64, raw: &[u8], raw_filled: u16) -> Drawn {
    let len = view.size.saturating_sub(at).min(CHUNK as u64) as usize;
    let mut overlays = view.overlays.iter().filter(|overlay| overlay.touches(at, CHUNK)).peekable();
    if overlays.peek().is_none() {
        return Drawn { bytes: None, len, filled: raw_filled };
    }
    let mut bytes = raw.to_vec();
    overlays.for_each(|overlay| overlay.apply(at, &mut bytes));
    let filled = filled(&bytes);
    Drawn { bytes: Some(bytes), len, filled }
}
