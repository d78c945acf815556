//! VMDK, subformat streamOptimized, as a pure stream: what is needed to find a grain comes after it.
//!
//! The file is: header, descriptor, then for each 32 MiB of the disk its grains and their table; the
//! grain directory, the footer (the header again, with the directory's place) and the end of the
//! stream. Source: VMware, Virtual Disk Format 5.0, "Stream-Optimized Compressed Sparse Extents".

use std::io::{self, Seek, SeekFrom, Write};

use sha2::{Digest as _, Sha256};

use super::blocks::{BLOCK, SECTOR};
use super::encode::{LAST_BLOCK, Part};

/// Sectors of a grain: VMware's size, and the only one that its products write.
const GRAIN_SECTORS: u64 = BLOCK as u64 / SECTOR;
/// Entries of a grain table.
const TABLE_ENTRIES: usize = 512;
/// Where the grains begin, in sectors; before it are the header and the descriptor.
const OVERHEAD: u64 = 128;
const DESCRIPTOR_AT: u64 = 1;
const DESCRIPTOR_SECTORS: u64 = 20;
/// Line feeds can be checked; grains are compressed; there are markers.
const FLAGS: u32 = 1 | 1 << 16 | 1 << 17;
/// "See the footer", in place of the directory's sector.
const AT_END: u64 = u64::MAX;
/// Deflate with a window of 32 KiB, and a checksum at the end. Source: RFC 1950, 2.2.
const ZLIB_HEADER: [u8; 2] = [0x78, 0x9c];
/// Deflate, in the header's compression field.
const DEFLATE: u16 = 1;

/// What a marker announces.
#[derive(Clone, Copy)]
enum Marker {
    EndOfStream,
    Table,
    Directory,
    Footer,
}

/// Writes the grains of a disk, in their order.
pub(super) struct Writer<W> {
    out: W,
    /// Where in `out` the VMDK begins.
    start: u64,
    /// In sectors.
    capacity: u64,
    /// The next sector of the VMDK.
    sector: u64,
    /// The table that is being filled: its place in the directory, and its entries.
    table: Option<(usize, Vec<u32>)>,
    directory: Vec<u32>,
    /// What stands for the content: each grain's place, length and checksum.
    content: Sha256,
}

impl<W: Write + Seek> Writer<W> {
    /// For a disk of `size` bytes, whole grains; the file begins at `start`, where `out` may not
    /// stand yet.
    pub(super) fn new(mut out: W, start: u64, size: u64) -> io::Result<Writer<W>> {
        let tables = size.div_ceil((BLOCK * TABLE_ENTRIES) as u64);
        out.seek(SeekFrom::Start(start + OVERHEAD * SECTOR))?;
        Ok(Writer {
            out,
            start,
            capacity: size / SECTOR,
            sector: OVERHEAD,
            table: None,
            directory: vec![0; tables as usize],
            content: Sha256::new(),
        })
    }

    /// Adds the grain with this number, which is higher than those before.
    pub(super) fn add(&mut self, number: u64, part: &Part) -> io::Result<()> {
        let (table, index) = (number as usize / TABLE_ENTRIES, number as usize % TABLE_ENTRIES);
        if self.table.as_ref().is_some_and(|(current, _)| *current != table) {
            self.end_table()?;
        }
        let sector = self.sector_number()?;
        let (_, entries) = self.table.get_or_insert_with(|| (table, vec![0; TABLE_ENTRIES]));
        entries[index] = sector;
        let zlib = ZLIB_HEADER.len() + part.deflated.len() + LAST_BLOCK.len() + 4;
        let mut head = [0; 12 + ZLIB_HEADER.len()];
        head[..8].copy_from_slice(&(number * GRAIN_SECTORS).to_le_bytes());
        head[8..12].copy_from_slice(&(zlib as u32).to_le_bytes());
        head[12..].copy_from_slice(&ZLIB_HEADER);
        let adler = part.adler.to_be_bytes();
        self.content.update(head);
        self.content.update(adler);
        self.out.write_all(&head)?;
        self.out.write_all(&part.deflated)?;
        self.out.write_all(&LAST_BLOCK)?;
        self.out.write_all(&adler)?;
        self.end_sectors(12 + zlib as u64)
    }

    /// Writes what comes last, and then the header and the descriptor. Gives the file's size, too.
    pub(super) fn finish(mut self) -> io::Result<(W, u64)> {
        self.end_table()?;
        let directory = std::mem::take(&mut self.directory);
        let directory_at = self.table_of(Marker::Directory, &directory)?;
        let footer = self.header(directory_at.into());
        self.marker(Marker::Footer, 1)?;
        self.out.write_all(&footer)?;
        self.sector += 1;
        self.marker(Marker::EndOfStream, 0)?;

        let id: [u8; 32] = std::mem::take(&mut self.content).finalize().into();
        let mut front = self.header(AT_END);
        front.extend(self.descriptor(&id).into_bytes());
        front.resize((OVERHEAD * SECTOR) as usize, 0);
        self.out.seek(SeekFrom::Start(self.start))?;
        self.out.write_all(&front)?;
        Ok((self.out, self.sector * SECTOR))
    }

    fn header(&self, directory_at: u64) -> Vec<u8> {
        let mut header = Vec::new();
        header.extend(b"KDMV");
        header.extend(3_u32.to_le_bytes());
        header.extend(FLAGS.to_le_bytes());
        header.extend(self.capacity.to_le_bytes());
        header.extend(GRAIN_SECTORS.to_le_bytes());
        header.extend(DESCRIPTOR_AT.to_le_bytes());
        header.extend(DESCRIPTOR_SECTORS.to_le_bytes());
        header.extend((TABLE_ENTRIES as u32).to_le_bytes());
        // There is no second, redundant directory.
        header.extend(0_u64.to_le_bytes());
        header.extend(directory_at.to_le_bytes());
        header.extend(OVERHEAD.to_le_bytes());
        // It was shut down cleanly.
        header.push(0);
        // What shows whether a transfer as text has harmed it.
        header.extend(b"\n \r\n");
        header.extend(DEFLATE.to_le_bytes());
        header.resize(SECTOR as usize, 0);
        header
    }

    /// The description in words. Its ids are made from the content, so that they change with it and
    /// with nothing else.
    fn descriptor(&self, id: &[u8; 32]) -> String {
        let mut id: [u8; 16] = std::array::from_fn(|index| id[index]);
        // The short id is the end of the long one. All ones mean "no parent", and one less is
        // reserved: so its highest bit is none.
        id[12] &= 0x7f;
        let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let capacity = self.capacity;
        // The geometry that VMware gives every disk of more than 1 GiB.
        let cylinders = capacity.div_ceil(255 * 63);
        format!(
            "# Disk DescriptorFile\nversion=1\nCID={cid}\nparentCID=ffffffff\n\
             createType=\"streamOptimized\"\n\n# Extent description\n\
             RW {capacity} SPARSE \"disk.vmdk\"\n\n# The Disk Data Base\n#DDB\n\n\
             ddb.adapterType = \"lsilogic\"\nddb.geometry.cylinders = \"{cylinders}\"\n\
             ddb.geometry.heads = \"255\"\nddb.geometry.sectors = \"63\"\n\
             ddb.longContentID = \"{long}\"\nddb.toolsVersion = \"2147483647\"\n\
             ddb.virtualHWVersion = \"19\"\n",
            cid = &hex[24..],
            long = hex,
        )
    }

    fn end_table(&mut self) -> io::Result<()> {
        if let Some((table, entries)) = self.table.take() {
            self.directory[table] = self.table_of(Marker::Table, &entries)?;
        }
        Ok(())
    }

    /// Writes a table behind its marker, and gives its sector.
    fn table_of(&mut self, marker: Marker, entries: &[u32]) -> io::Result<u32> {
        let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        self.marker(marker, (bytes.len() as u64).div_ceil(SECTOR))?;
        let sector = self.sector_number()?;
        self.out.write_all(&bytes)?;
        self.end_sectors(bytes.len() as u64)?;
        Ok(sector)
    }

    /// A sector that announces `sectors` of metadata.
    fn marker(&mut self, marker: Marker, sectors: u64) -> io::Result<()> {
        let kind = match marker {
            Marker::EndOfStream => 0_u32,
            Marker::Table => 1,
            Marker::Directory => 2,
            Marker::Footer => 3,
        };
        let mut bytes = [0; SECTOR as usize];
        bytes[..8].copy_from_slice(&sectors.to_le_bytes());
        // Between them is a length, which only grains have.
        bytes[12..16].copy_from_slice(&kind.to_le_bytes());
        self.out.write_all(&bytes)?;
        self.sector += 1;
        Ok(())
    }

    /// Pads `len` bytes that were written to whole sectors.
    fn end_sectors(&mut self, len: u64) -> io::Result<()> {
        let padding = (len.next_multiple_of(SECTOR) - len) as usize;
        self.out.write_all(&[0; SECTOR as usize][..padding])?;
        self.sector += len.div_ceil(SECTOR);
        Ok(())
    }

    /// The next sector, as tables have it.
    fn sector_number(&self) -> io::Result<u32> {
        u32::try_from(self.sector).map_err(|_| io::Error::other("a VMDK file ends at 2 TiB"))
    }
}
