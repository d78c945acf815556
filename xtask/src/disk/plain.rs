//! The disk's bytes as they are, in a sparse file.

use std::io::{self, Seek, SeekFrom, Write};

use super::blocks::{Picture, ZEROS};

/// Writes what is filled, and leaves holes elsewhere.
pub(super) struct Writer<W> {
    out: W,
    /// Where the last written byte is, and one.
    end: u64,
}

impl<W: Write + Seek> Writer<W> {
    pub(super) fn new(out: W) -> Writer<W> {
        Writer { out, end: 0 }
    }

    pub(super) fn add(&mut self, picture: &Picture<'_>) -> io::Result<()> {
        for (at, bytes) in picture.runs() {
            self.out.seek(SeekFrom::Start(at))?;
            self.out.write_all(bytes)?;
            self.end = at + bytes.len() as u64;
        }
        Ok(())
    }

    /// Makes it `size` bytes long, with `trailer` behind them.
    pub(super) fn finish(mut self, size: u64, trailer: &[u8]) -> io::Result<W> {
        if trailer.is_empty() && self.end < size {
            // The last byte alone gives a file its length.
            self.out.seek(SeekFrom::Start(size - 1))?;
            self.out.write_all(&[0])?;
        }
        self.out.seek(SeekFrom::Start(size))?;
        self.out.write_all(trailer)?;
        Ok(self.out)
    }
}

/// Hashes a disk, whose holes are read as zeros.
pub(super) struct Hasher<H> {
    hasher: H,
    position: u64,
}

impl<H: Write> Hasher<H> {
    pub(super) fn new(hasher: H) -> Hasher<H> {
        Hasher { hasher, position: 0 }
    }

    pub(super) fn add(&mut self, picture: &Picture<'_>) -> io::Result<()> {
        // It may be a chunk that only a larger view of the disk has.
        if picture.len == 0 {
            return Ok(());
        }
        self.skip_to(picture.at)?;
        self.hasher.write_all(&picture.bytes[..picture.len])?;
        self.position += picture.len as u64;
        Ok(())
    }

    /// Ends a disk of `size` bytes.
    pub(super) fn finish(mut self, size: u64) -> io::Result<H> {
        self.skip_to(size)?;
        Ok(self.hasher)
    }

    fn skip_to(&mut self, at: u64) -> io::Result<()> {
        while self.position < at {
            let len = (at - self.position).min(ZEROS.len() as u64) as usize;
            self.hasher.write_all(&ZEROS[..len])?;
            self.position += len as u64;
        }
        Ok(())
    }
}
