//! qcow2 version 3, compressed.
//!
//! The file is: the header's cluster; compressed clusters back to back, and L2 tables as each is
//! full; then the L1 table, the refcount blocks and the refcount table. The header is written last,
//! since it says where these are. Source: QEMU, docs/interop/qcow2.txt.

use std::io::{self, Seek, SeekFrom, Write};

use super::blocks::{BLOCK, SECTOR};

/// A cluster, of QEMU's own default size.
const CLUSTER: u64 = BLOCK as u64;
const CLUSTER_BITS: u32 = CLUSTER.trailing_zeros();
/// Entries of an L2 table, each of eight bytes.
const L2_ENTRIES: u64 = CLUSTER / 8;
/// Entries of a refcount block, each of two bytes (refcount_order 4).
const REFCOUNT_BLOCK_ENTRIES: u64 = CLUSTER / 2;
/// "QFI" and 0xfb.
const MAGIC: u32 = 0x5146_49fb;
/// With the compression type, and padding to a multiple of eight.
const HEADER_LENGTH: u32 = 112;
/// Incompatible feature: the header names a compression type.
const COMPRESSION_TYPE_BIT: u64 = 1 << 3;
/// In an L1 or L2 entry: the cluster has a refcount of exactly one.
const COPIED: u64 = 1 << 63;
/// In an L2 entry: the cluster is compressed.
const COMPRESSED: u64 = 1 << 62;
/// In the entry of a compressed cluster: where the number of further sectors begins,
/// 62 - (cluster_bits - 8).
const SECTORS_SHIFT: u32 = 62 - (CLUSTER_BITS - 8);

/// How clusters are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Qcow2Compression {
    /// Raw deflate with a window of 4 KiB: every reader has it.
    Zlib,
    /// QEMU 5.1 (2020) and later: a fraction of the time, and smaller.
    Zstd,
}

impl Qcow2Compression {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Qcow2Compression::Zlib => "zlib",
            Qcow2Compression::Zstd => "zstd",
        }
    }
}

/// What becomes of a cluster.
#[derive(Debug)]
pub(super) enum Cluster<'a> {
    Compressed(&'a [u8]),
    /// It would not get smaller.
    Plain(&'a [u8]),
}

/// Writes the clusters of a disk, in their order.
pub(super) struct Writer<W> {
    out: W,
    size: u64,
    compression: Qcow2Compression,
    /// Where `out` stands.
    position: u64,
    /// Where compressed bytes go on. They are packed, and may go over into the next cluster if
    /// that one is free.
    packed_end: u64,
    /// The first cluster that nothing is in.
    next: u64,
    refcounts: Vec<u16>,
    l1: Vec<u64>,
    /// The table that is being filled: its place in L1 and its entries.
    l2: Option<(u64, Vec<u64>)>,
}

impl<W: Write + Seek> Writer<W> {
    /// For a disk of `size` bytes, whole sectors.
    pub(super) fn new(out: W, size: u64, compression: Qcow2Compression) -> Writer<W> {
        let l1_size = size.div_ceil(L2_ENTRIES * CLUSTER);
        Writer {
            out,
            size,
            compression,
            // The header's cluster is written last.
            position: 0,
            packed_end: CLUSTER,
            next: 1,
            refcounts: vec![1],
            l1: vec![0; l1_size as usize],
            l2: None,
        }
    }

    /// Adds the cluster with this number, which is higher than those before.
    pub(super) fn add(&mut self, number: u64, cluster: Cluster<'_>) -> io::Result<()> {
        let (table, index) = (number / L2_ENTRIES, number % L2_ENTRIES);
        if self.l2.as_ref().is_some_and(|(current, _)| *current != table) {
            self.end_l2()?;
        }
        let entry = match cluster {
            Cluster::Compressed(bytes) => self.pack(bytes)?,
            Cluster::Plain(bytes) => COPIED | self.append_clusters(bytes)?,
        };
        let (_, entries) = self.l2.get_or_insert_with(|| (table, vec![0; L2_ENTRIES as usize]));
        entries[index as usize] = entry;
        Ok(())
    }

    /// Writes the tables and, last, the header.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.end_l2()?;
        let l1: Vec<u8> = self.l1.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        let l1_at = self.append_clusters(&l1)?;

        // The refcounts count their own clusters as well: more of these may need more of those.
        let (mut blocks, mut table) = (0, 0);
        loop {
            let clusters = self.next + blocks + table;
            let more = clusters.div_ceil(REFCOUNT_BLOCK_ENTRIES);
            let larger = (more * 8).div_ceil(CLUSTER);
            if (more, larger) == (blocks, table) {
                break;
            }
            (blocks, table) = (more, larger);
        }
        self.refcounts.resize((self.next + blocks + table) as usize, 1);
        let refcounts: Vec<u8> = self.refcounts.iter().flat_map(|count| count.to_be_bytes()).collect();
        let blocks_at = self.next * CLUSTER;
        self.write_at(blocks_at, &refcounts)?;
        let entries: Vec<u8> =
            (0..blocks).flat_map(|block| (blocks_at + block * CLUSTER).to_be_bytes()).collect();
        let table_at = blocks_at + blocks * CLUSTER;
        self.write_at(table_at, &entries)?;
        self.pad_to(table_at + table * CLUSTER)?;

        let header = self.header(l1_at, table_at, table);
        self.write_at(0, &header)?;
        Ok(self.out)
    }

    fn header(&self, l1_at: u64, refcounts_at: u64, refcount_clusters: u64) -> Vec<u8> {
        let (features, compression_type) = match self.compression {
            Qcow2Compression::Zlib => (0, 0),
            Qcow2Compression::Zstd => (COMPRESSION_TYPE_BIT, 1),
        };
        let mut header = Vec::new();
        header.extend(MAGIC.to_be_bytes());
        header.extend(3_u32.to_be_bytes());
        // No backing file: its place, and the length of its name.
        header.extend([0; 8 + 4]);
        header.extend(CLUSTER_BITS.to_be_bytes());
        header.extend(self.size.to_be_bytes());
        // No encryption.
        header.extend([0; 4]);
        header.extend((self.l1.len() as u32).to_be_bytes());
        header.extend(l1_at.to_be_bytes());
        header.extend(refcounts_at.to_be_bytes());
        header.extend((refcount_clusters as u32).to_be_bytes());
        // No snapshots: their number, and the place of their table.
        header.extend([0; 4 + 8]);
        header.extend(u64::to_be_bytes(features));
        // Compatible features, and those that QEMU clears when it does not know them.
        header.extend([0; 8 + 8]);
        // Refcounts have 1 << 4 bits.
        header.extend(4_u32.to_be_bytes());
        header.extend(HEADER_LENGTH.to_be_bytes());
        header.push(compression_type);
        header.resize(HEADER_LENGTH as usize, 0);
        // The end of the header extensions.
        header.extend([0; 8]);
        header
    }

    /// Writes compressed bytes where there is room, and gives their L2 entry.
    fn pack(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let len = bytes.len() as u64;
        let room = self.packed_end.next_multiple_of(CLUSTER) - self.packed_end;
        let goes_on = self.packed_end.next_multiple_of(CLUSTER) == self.next * CLUSTER;
        if len > room && !goes_on {
            self.packed_end = self.next * CLUSTER;
        }
        let at = self.packed_end;
        self.packed_end = at + len;
        let (first, last) = (at / CLUSTER, (self.packed_end - 1) / CLUSTER);
        self.next = self.next.max(last + 1);
        self.refcounts.resize(self.next as usize, 0);
        // A cluster counts each compressed one that touches it.
        (first..=last).for_each(|cluster| self.refcounts[cluster as usize] += 1);
        self.write_at(at, bytes)?;
        let further_sectors = (self.packed_end - 1) / SECTOR - at / SECTOR;
        Ok(COMPRESSED | further_sectors << SECTORS_SHIFT | at)
    }

    /// Writes bytes into as many clusters of their own as they need, and gives their place.
    fn append_clusters(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let at = self.next * CLUSTER;
        self.next += (bytes.len() as u64).div_ceil(CLUSTER);
        self.refcounts.resize(self.next as usize, 1);
        self.write_at(at, bytes)?;
        Ok(at)
    }

    fn end_l2(&mut self) -> io::Result<()> {
        if let Some((table, entries)) = self.l2.take() {
            let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_be_bytes()).collect();
            self.l1[table as usize] = COPIED | self.append_clusters(&bytes)?;
        }
        Ok(())
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        if self.position != at {
            self.out.seek(SeekFrom::Start(at))?;
        }
        self.out.write_all(bytes)?;
        self.position = at + bytes.len() as u64;
        Ok(())
    }

    /// Makes the file end here: a reader takes whole clusters.
    fn pad_to(&mut self, end: u64) -> io::Result<()> {
        let missing = end.saturating_sub(self.position);
        io::copy(&mut io::Read::take(io::repeat(0), missing), &mut self.out)?;
        self.position += missing;
        Ok(())
    }
}
