//! A gzip member of a stream, for readers that know no zstd.
//!
//! zlib-rs by itself: its bytes are pinned with its version, and do not depend on which backend
//! another crate turns on for flate2. libdeflate, which packs the apps' layers, takes whole buffers,
//! and a disk is none. Source: RFC 1952.

use std::io::{self, Read};

use zlib_rs::{Deflate, DeflateFlush, Status};

/// A third of the time of level 6, and four parts in a hundred larger.
const LEVEL: i32 = 4;
/// Deflate's largest window, as a power of two.
const WINDOW_BITS: u8 = 15;
/// Deflate, no flags, no time, no hint, no system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
const INPUT: usize = 256 << 10;

pub(super) struct Encoder<R> {
    reader: R,
    deflate: Deflate,
    crc: crc32fast::Hasher,
    /// What was read, and how much of it is deflated.
    input: Vec<u8>,
    taken: usize,
    stage: Stage,
}

enum Stage {
    /// What is still to come of bytes outside of the deflate stream, and whether they are the last.
    Header(usize),
    Body,
    /// Everything was read.
    Ending,
    Trailer([u8; 8], usize),
}

impl<R: Read> Encoder<R> {
    pub(super) fn new(reader: R) -> Encoder<R> {
        Encoder {
            reader,
            deflate: Deflate::new(LEVEL, false, WINDOW_BITS),
            crc: crc32fast::Hasher::new(),
            input: Vec::new(),
            taken: 0,
            stage: Stage::Header(0),
        }
    }

    pub(super) fn get_ref(&self) -> &R {
        &self.reader
    }

    pub(super) fn into_inner(self) -> R {
        self.reader
    }

    /// Sees to it that there is input, or that the end is known.
    fn fill(&mut self) -> io::Result<()> {
        if self.taken < self.input.len() {
            return Ok(());
        }
        self.input.resize(INPUT, 0);
        let count = self.reader.read(&mut self.input)?;
        self.input.truncate(count);
        self.taken = 0;
        self.crc.update(&self.input);
        if count == 0 {
            self.stage = Stage::Ending;
        }
        Ok(())
    }

    /// Deflates into `buffer`, and gives how much was written.
    fn deflate(&mut self, buffer: &mut [u8], flush: DeflateFlush) -> io::Result<usize> {
        let (before_in, before_out) = (self.deflate.total_in(), self.deflate.total_out());
        let status = self.deflate.compress(&self.input[self.taken..], buffer, flush);
        let status = status.map_err(|error| io::Error::other(error.as_str()))?;
        self.taken += (self.deflate.total_in() - before_in) as usize;
        if status == Status::StreamEnd {
            // The length is modulo 2^32.
            let (crc, length) = (self.crc.clone().finalize(), self.deflate.total_in() as u32);
            let mut trailer = [0; 8];
            trailer[..4].copy_from_slice(&crc.to_le_bytes());
            trailer[4..].copy_from_slice(&length.to_le_bytes());
            self.stage = Stage::Trailer(trailer, 0);
        }
        Ok((self.deflate.total_out() - before_out) as usize)
    }
}

impl<R: Read> Read for Encoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let count = match &mut self.stage {
                Stage::Header(done) => {
                    let count = copy(&HEADER[*done..], buffer);
                    *done += count;
                    if *done == HEADER.len() {
                        self.stage = Stage::Body;
                    }
                    count
                }
                Stage::Body => {
                    self.fill()?;
                    match self.stage {
                        Stage::Ending => 0,
                        Stage::Header(_) | Stage::Body | Stage::Trailer(..) => {
                            self.deflate(buffer, DeflateFlush::NoFlush)?
                        }
                    }
                }
                Stage::Ending => self.deflate(buffer, DeflateFlush::Finish)?,
                Stage::Trailer(trailer, done) => {
                    let count = copy(&trailer[*done..], buffer);
                    *done += count;
                    return Ok(count);
                }
            };
            if count > 0 {
                return Ok(count);
            }
        }
    }
}

fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let count = from.len().min(to.len());
    to[..count].copy_from_slice(&from[..count]);
    count
}
