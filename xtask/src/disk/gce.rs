//! What Google Compute Engine imports: `disk.raw` in a tar file in gzip.
//!
//! The tar file is GNU's old format, with the disk as a sparse member, as `tar --format=oldgnu -S`
//! writes it; the gzip file is one member, whose parts were deflated in parallel. Which parts of the
//! disk are filled comes first in a tar file and is known last, so there is room left for it. Source: Google Cloud, "Import a custom image"; GNU tar manual, "Basic Tar Format".

use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};

use tar::{EntryType, GnuExtSparseHeader};

use super::blocks::{BLOCK, CHUNK, ZEROS};
use super::encode::{Effort, Encoder, LAST_BLOCK, Part};
use crate::oci::tar::header;

/// The name that Compute Engine looks for.
const MEMBER: &str = "disk.raw";
/// tar pads a file to whole records of twenty blocks.
const RECORD: u64 = 20 * 512;
/// Deflate, no flags, no time, no word on the effort, on Unix. Source: RFC 1952, 2.3.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
/// Room for the gzip header and the deflated tar header. A map of thousands of filled parts takes
/// less; if one does not, what is behind it moves.
const ROOM: u64 = 64 << 10;
/// Deflate blocks with nothing in them, which end at a byte: a stored one, and one of fixed codes
/// with a stored one behind it. Source: RFC 1951, 3.2.4 and 3.2.6.
const EMPTY_5: [u8; 5] = [0, 0, 0, 0xff, 0xff];
const EMPTY_6: [u8; 6] = [2, 0, 0, 0, 0xff, 0xff];

/// Takes the blocks of a disk, whose size is whole blocks, in their order.
pub(super) struct Writer<W: Write> {
    out: BufWriter<W>,
    size: u64,
    /// Where filled bytes are, and how many.
    map: Vec<(u64, u64)>,
    /// Of the filled bytes.
    crc: crc32fast::Hasher,
    /// Of the file.
    end: u64,
}

impl<W: Read + Write + Seek> Writer<W> {
    /// For a disk of `size` bytes.
    pub(super) fn new(out: W, size: u64) -> io::Result<Writer<W>> {
        let mut out = BufWriter::with_capacity(CHUNK, out);
        out.seek(SeekFrom::Start(ROOM))?;
        Ok(Writer { out, size, map: Vec::new(), crc: crc32fast::Hasher::new(), end: ROOM })
    }

    /// Adds the block with this number, which is higher than those before.
    pub(super) fn add(&mut self, number: u64, part: &Part) -> io::Result<()> {
        let (at, block) = (number * BLOCK as u64, BLOCK as u64);
        match self.map.last_mut() {
            Some((start, len)) if *start + *len == at => *len += block,
            Some(_) | None => self.map.push((at, block)),
        }
        self.crc.combine(&part.crc);
        self.end += part.deflated.len() as u64;
        self.out.write_all(&part.deflated)
    }

    /// Writes what comes after the filled parts, and then what comes before them.
    pub(super) fn finish(mut self) -> io::Result<W> {
        let mut encoder = Encoder::new()?;
        let filled: u64 = self.map.iter().map(|(_, len)| len).sum();
        let header = sparse_header(self.size, filled, &self.map)?;
        let mut head = GZIP_HEADER.to_vec();
        let mut crc = crc32fast::Hasher::new();
        for bytes in header.chunks(CHUNK) {
            let part = encoder.part(bytes, Effort::Usual)?;
            crc.combine(&part.crc);
            head.extend(part.deflated);
        }
        crc.combine(&self.crc);

        // Two blocks of zeros end a tar file, and then a record has to be full.
        let written = header.len() as u64 + filled;
        let end = (written.next_multiple_of(512) + 1024).next_multiple_of(RECORD);
        let part = encoder.part(&ZEROS[..(end - written) as usize], Effort::Usual)?;
        crc.combine(&part.crc);
        self.out.write_all(&part.deflated)?;
        self.out.write_all(&LAST_BLOCK)?;
        self.out.write_all(&crc.finalize().to_le_bytes())?;
        // The size before compression, in 32 bits.
        self.out.write_all(&(end as u32).to_le_bytes())?;
        self.end += (part.deflated.len() + LAST_BLOCK.len() + 4 + 4) as u64;

        let len = head.len() as u64;
        if ROOM < len + SMALLEST_PADDING {
            self.move_up(len + SMALLEST_PADDING - ROOM)?;
            head.extend(padding(SMALLEST_PADDING as usize));
        } else {
            head.extend(padding((ROOM - len) as usize));
        }
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&head)?;
        self.out.into_inner().map_err(io::IntoInnerError::into_error)
    }

    /// Moves everything behind the room by so many bytes, from the end on.
    fn move_up(&mut self, by: u64) -> io::Result<()> {
        self.out.flush()?;
        let out = self.out.get_mut();
        let mut end = self.end;
        while end > ROOM {
            let start = end.saturating_sub(CHUNK as u64).max(ROOM);
            let mut bytes = vec![0; (end - start) as usize];
            out.seek(SeekFrom::Start(start))?;
            out.read_exact(&mut bytes)?;
            out.seek(SeekFrom::Start(start + by))?;
            out.write_all(&bytes)?;
            end = start;
        }
        Ok(())
    }
}

/// From here on, every length is a sum of fives and sixes.
const SMALLEST_PADDING: u64 = 20;

/// Deflate blocks of so many bytes that stand for nothing.
fn padding(len: usize) -> Vec<u8> {
    let sixes = len % EMPTY_5.len();
    let fives = len.saturating_sub(sixes * EMPTY_6.len()) / EMPTY_5.len();
    [EMPTY_6.repeat(sixes), EMPTY_5.repeat(fives)].concat()
}

/// The header of a sparse member, and as many blocks more as its map needs.
fn sparse_header(size: u64, filled: u64, map: &[(u64, u64)]) -> io::Result<Vec<u8>> {
    let mut header = header(EntryType::GNUSparse, 0o644, filled);
    header.set_path(MEMBER)?;
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

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn padding_is_of_any_length_and_stands_for_nothing() {
        for len in SMALLEST_PADDING as usize..SMALLEST_PADDING as usize + 200 {
            let padding = padding(len);
            assert_eq!(padding.len(), len);
            let stream = [&padding[..], &LAST_BLOCK].concat();
            let mut plain = Vec::new();
            flate2::read::DeflateDecoder::new(&stream[..]).read_to_end(&mut plain).unwrap();
            assert!(plain.is_empty());
        }
    }

    /// A map that does not fit into its room: what is behind it moves.
    #[test]
    fn a_long_map_makes_room_for_itself() {
        let part = Encoder::new().unwrap().part(&[b'x'; BLOCK], Effort::Usual).unwrap();
        let mut writer = Writer::new(Cursor::new(Vec::new()), 1 << 40).unwrap();
        let count = 60_000;
        for index in 0..count {
            // Not evenly, so that it does not shrink to nothing.
            writer.add(index * 200 + index * index % 197, &part).unwrap();
        }
        let file = writer.finish().unwrap().into_inner();
        let mut packed = &file[..];
        let mut archive = tar::Archive::new(flate2::bufread::GzDecoder::new(&mut packed));
        let mut entries = archive.entries().unwrap();
        let entry = entries.next().unwrap().unwrap();
        assert_eq!(entry.header().size().unwrap(), 1 << 40);
        assert_eq!(entry.header().entry_size().unwrap(), count * BLOCK as u64);
        assert!(entries.next().is_none());
        // The checksum at the end is right, and it is the end.
        io::copy(&mut archive.into_inner(), &mut io::sink()).unwrap();
        assert!(packed.is_empty());
    }
}
