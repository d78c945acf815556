//! What a thread makes of a chunk: all that the formats asked for need of it, compressed.

use std::io;

use zlib_rs::adler32::adler32;
use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Status};

use super::blocks::{BLOCK, CHUNK, Picture, filled};
use super::qcow2::Qcow2Compression;
use super::view::View;

/// Two parts in a hundred larger than QEMU's level 3, in three quarters of the time.
const ZSTD_LEVEL: i32 = 2;
/// A medium is downloaded more often than it is made: a fifth of the speed of level 2, and 8 % smaller.
const FRAME_LEVEL: i32 = 9;
/// zlib's default, and QEMU's.
const QCOW2_ZLIB_LEVEL: i32 = 6;
/// The window that qcow2 prescribes, as a power of two.
const QCOW2_WINDOW_BITS: u8 = 12;
/// How hard deflate looks for what it has seen before. Blocks that hardly shrink are mostly
/// among their like, and looking harder gains next to nothing there: so a block is treated by how the
/// one before it in its chunk went. Measured on the Debian base: an eighth of the time of level 4 alone
/// is saved, for 0.7 % of the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effort {
    /// zlib-rs's level 4: four parts in a hundred larger than zlib's level 6, in a third of the time.
    Usual,
    /// Level 3.
    Less,
    /// Level 2.
    Least,
}

impl Effort {
    /// What is worth it after a block that was deflated to so many bytes: less when they are more than
    /// 30 %, least when they are more than 55 %.
    fn after(deflated: usize) -> Effort {
        match deflated * 100 / BLOCK {
            0..30 => Effort::Usual,
            30..55 => Effort::Less,
            55.. => Effort::Least,
        }
    }
}

/// zlib's own window, as a power of two; less than nothing means that no header is written.
const DEFLATE_WINDOW_BITS: i32 = -15;
/// zlib's most: a block is shorter than the codes that fit into it.
const DEFLATE_MEM_LEVEL: i32 = 9;
/// The end of a flush, an empty stored block, which the bound does not count.
const FLUSH: usize = 16;
/// A last deflate block with nothing in it, which ends a stream of parts.
/// Source: RFC 1951, 3.2.6: fixed codes, end of block.
pub(super) const LAST_BLOCK: [u8; 2] = [3, 0];

/// A way to encode, of the chunks as a view shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) view: usize,
    pub(super) encoding: Encoding,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Qcow2(Qcow2Compression),
    /// For VMDK and GCE alike: compressing takes most of the time, and one does for both.
    Deflate,
    /// The whole chunk as one zstd frame with a checksum.
    Frame,
}

/// A chunk, encoded; blocks come with their number on the disk.
#[derive(Debug)]
pub(super) enum Encoded {
    /// Nothing where a block would not shrink.
    Clusters(Vec<(u64, Option<Vec<u8>>)>),
    Deflated(Vec<(u64, Part)>),
    /// Nothing where there is nothing in a chunk.
    Frame(Option<Vec<u8>>),
}

/// A part of a deflate stream that ends at a byte and needs nothing of what comes before it; with
/// the checksums of the plain bytes, of which VMDK wants one and GCE the other.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) deflated: Vec<u8>,
    pub(super) adler: u32,
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
    frame: zstd::bulk::Compressor<'static>,
    qcow2_zlib: Deflate,
    usual: Deflate,
    less: Deflate,
    least: Deflate,
    /// Compressed bytes on their way to a vector of the right size.
    room: Vec<u8>,
}

impl Encoder {
    pub(super) fn new() -> io::Result<Encoder> {
        let deflate = |level| {
            Deflate::new_with_config(DeflateConfig {
                window_bits: DEFLATE_WINDOW_BITS,
                mem_level: DEFLATE_MEM_LEVEL,
                ..DeflateConfig::new(level)
            })
        };
        let mut frame = zstd::bulk::Compressor::new(FRAME_LEVEL)?;
        frame.set_parameter(zstd::stream::raw::CParameter::ChecksumFlag(true))?;
        Ok(Encoder {
            frame,
            zstd: zstd::bulk::Compressor::new(ZSTD_LEVEL)?,
            qcow2_zlib: Deflate::new(QCOW2_ZLIB_LEVEL, false, QCOW2_WINDOW_BITS),
            usual: deflate(4),
            less: deflate(3),
            least: deflate(2),
            room: vec![0; zlib_rs::compress_bound(CHUNK) + FLUSH],
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
            Encoding::Deflate => {
                let mut effort = Effort::Usual;
                let parts = picture.filled_blocks().map(|(number, block)| {
                    let part = self.part(block, effort)?;
                    effort = Effort::after(part.deflated.len());
                    Ok((number, part))
                });
                Ok(Encoded::Deflated(parts.collect::<io::Result<_>>()?))
            }
            Encoding::Frame if picture.filled == 0 => Ok(Encoded::Frame(None)),
            Encoding::Frame => Ok(Encoded::Frame(Some(self.frame.compress(picture.bytes)?))),
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

    /// Bytes, at least one and at most a chunk, as a part of a deflate stream.
    pub(super) fn part(&mut self, bytes: &[u8], effort: Effort) -> io::Result<Part> {
        let stream = match effort {
            Effort::Usual => &mut self.usual,
            Effort::Less => &mut self.less,
            Effort::Least => &mut self.least,
        };
        let len = deflate(stream, bytes, DeflateFlush::SyncFlush, &mut self.room)?;
        let mut crc = crc32fast::Hasher::new();
        crc.update(bytes);
        Ok(Part { deflated: self.room[..len].to_vec(), adler: adler32(1, bytes), crc })
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
