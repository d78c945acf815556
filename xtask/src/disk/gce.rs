//! What Google Compute Engine imports: `disk.raw` in a tar file in gzip.
//!
//! The tar file is GNU's old format, with the disk as a sparse member, as `tar --format=oldgnu -S`
//! writes it; the gzip file is one member, whose parts were deflated in parallel. Which parts of the
//! disk are filled comes first in a tar file and is known last, so the deflated parts wait in a file
//! of their own. Source: Google Cloud, "Import a custom image"; GNU tar manual, "Basic Tar Format".

use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};

use tar::{EntryType, GnuExtSparseHeader, Header};

use super::blocks::{CHUNK, Picture, ZEROS};
use super::encode::{Encoder, Segment};

/// The name that Compute Engine looks for.
const MEMBER: &str = "disk.raw";
/// tar pads a file to whole records of twenty blocks.
const RECORD: u64 = 20 * 512;
/// Deflate, no flags, no time, no word on the effort, on Unix. Source: RFC 1952, 2.3.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
/// A last block with nothing in it. Source: RFC 1951, 3.2.6: fixed codes, end of block.
const LAST_BLOCK: [u8; 2] = [3, 0];

/// Takes the parts of a disk, in their order.
pub(super) struct Writer<S> {
    /// The deflated parts.
    scratch: S,
    size: u64,
    /// Where filled bytes are, and how many.
    map: Vec<(u64, u64)>,
    crc: crc32fast::Hasher,
}

impl<S: Read + Write + Seek> Writer<S> {
    /// For a disk of `size` bytes; `scratch` is empty.
    pub(super) fn new(scratch: S, size: u64) -> Writer<S> {
        Writer { scratch, size, map: Vec::new(), crc: crc32fast::Hasher::new() }
    }

    /// Adds the filled parts of a chunk, which are deflated in `segment`.
    pub(super) fn add(&mut self, picture: &Picture<'_>, segment: &Segment) -> io::Result<()> {
        for (at, bytes) in picture.runs() {
            match self.map.last_mut() {
                Some((start, len)) if *start + *len == at => *len += bytes.len() as u64,
                Some(_) | None => self.map.push((at, bytes.len() as u64)),
            }
        }
        self.crc.combine(&segment.crc);
        self.scratch.write_all(&segment.deflated)
    }

    /// Writes the whole file to `out`.
    pub(super) fn finish(mut self, out: &mut impl Write) -> io::Result<()> {
        let mut encoder = Encoder::new()?;
        let mut crc = crc32fast::Hasher::new();
        let filled: u64 = self.map.iter().map(|(_, len)| len).sum();
        let head = sparse_header(self.size, filled, &self.map)?;
        out.write_all(&GZIP_HEADER)?;
        for part in head.chunks(CHUNK) {
            let segment = encoder.segment(part)?;
            crc.combine(&segment.crc);
            out.write_all(&segment.deflated)?;
        }
        crc.combine(&self.crc);
        self.scratch.seek(SeekFrom::Start(0))?;
        io::copy(&mut BufReader::with_capacity(CHUNK, self.scratch), out)?;
        // Two blocks of zeros end a tar file, and then a record has to be full.
        let written = head.len() as u64 + filled;
        let end = (written.next_multiple_of(512) + 1024).next_multiple_of(RECORD);
        let segment = encoder.segment(&ZEROS[..(end - written) as usize])?;
        crc.combine(&segment.crc);
        out.write_all(&segment.deflated)?;
        out.write_all(&LAST_BLOCK)?;
        out.write_all(&crc.finalize().to_le_bytes())?;
        // The size before compression, in 32 bits.
        out.write_all(&(end as u32).to_le_bytes())
    }
}

/// The header of a sparse member, and as many blocks more as its map needs.
fn sparse_header(size: u64, filled: u64, map: &[(u64, u64)]) -> io::Result<Vec<u8>> {
    let mut header = Header::new_gnu();
    header.set_path(MEMBER)?;
    header.set_entry_type(EntryType::GNUSparse);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(filled);
    // A map ends with the disk: without this, a hole at its end would be cut off.
    let mut map = map.to_vec();
    if map.last().is_none_or(|(at, len)| at + len < size) {
        map.push((size, 0));
    }
    let gnu = header.as_gnu_mut().ok_or_else(|| io::Error::other("a GNU header is none"))?;
    number(&mut gnu.realsize, size);
    let (first, rest) = map.split_at(map.len().min(gnu.sparse.len()));
    for (slot, (at, len)) in gnu.sparse.iter_mut().zip(first) {
        number(&mut slot.offset, *at);
        number(&mut slot.numbytes, *len);
    }
    gnu.isextended = [u8::from(!rest.is_empty())];
    header.set_cksum();

    let mut bytes = header.as_bytes().to_vec();
    let mut blocks = rest.chunks(21).peekable();
    while let Some(entries) = blocks.next() {
        let mut block = GnuExtSparseHeader::new();
        for (slot, (at, len)) in block.sparse_mut().iter_mut().zip(entries) {
            number(&mut slot.offset, *at);
            number(&mut slot.numbytes, *len);
        }
        block.set_is_extended(blocks.peek().is_some());
        bytes.extend(block.as_bytes());
    }
    Ok(bytes)
}

/// Eleven octal digits; from 8 GiB on, which these cannot say, base 256.
/// Source: GNU tar manual, "Extensions to the Archive Format".
fn number(field: &mut [u8; 12], value: u64) {
    if value < 1 << 33 {
        field.copy_from_slice(format!("{value:011o}\0").as_bytes());
    } else {
        *field = [0; 12];
        field[0] = 0x80;
        field[4..].copy_from_slice(&value.to_be_bytes());
    }
}
