//! Moves a partition table's copy to the new end of a disk that grows.
//!
//! Source: UEFI specification, 5.3 "GUID Partition Table (GPT) Disk Layout".

use super::blocks::SECTOR;
use super::view::Overlay;

const SIGNATURE: &[u8] = b"EFI PART";
/// What a header has at least: later revisions may add to it.
const LEAST_HEADER: usize = 92;
/// The protective MBR's first partition: its type, and its size in sectors.
const MBR_TYPE: usize = 446 + 4;
const MBR_SECTORS: usize = 446 + 12;
/// "GPT protective".
const PROTECTIVE: u8 = 0xee;
/// No partition table has more sectors of entries: 128 entries of 128 bytes are 32.
const MOST_ENTRY_SECTORS: u64 = 256;

/// Both ends of a disk with a sound partition table.
#[derive(Debug)]
pub(super) struct Gpt {
    mbr: Vec<u8>,
    primary: Vec<u8>,
    /// The copy's entries and its header, as they are on the disk.
    entries: Vec<u8>,
    backup: Vec<u8>,
    /// Where the copy's header is.
    last: u64,
}

impl Gpt {
    /// Finds the table of a disk of `len` bytes through `read`, which gives the bytes at an offset.
    /// A disk without one, or whose copy is not at its end or damaged, is left as it is: `None`.
    pub(super) fn find<E>(
        len: u64,
        read: impl Fn(u64, usize) -> Result<Vec<u8>, E>,
    ) -> Result<Option<Gpt>, E> {
        let sectors = len / SECTOR;
        if sectors < 3 || !len.is_multiple_of(SECTOR) {
            return Ok(None);
        }
        let last = sectors - 1;
        let sector = SECTOR as usize;
        let (mbr, primary) = (read(0, sector)?, read(SECTOR, sector)?);
        if !is_sound(&primary) || field(&primary, Field::Other) != last {
            return Ok(None);
        }
        let backup = read(last * SECTOR, sector)?;
        let entries_at = field(&backup, Field::Entries);
        let count = last.checked_sub(entries_at);
        let Some(count) = count.filter(|count| is_sound(&backup) && (1..=MOST_ENTRY_SECTORS).contains(count))
        else {
            return Ok(None);
        };
        let entries = read(entries_at * SECTOR, count as usize * sector)?;
        Ok(Some(Gpt { mbr, primary, entries, backup, last }))
    }

    /// What changes when the disk has `size` bytes, which are more.
    pub(super) fn moved_to_end_of(&self, size: u64) -> Vec<Overlay> {
        let last = size / SECTOR - 1;
        let entry_sectors = self.entries.len() as u64 / SECTOR;
        let entries_at = last - entry_sectors;
        let (mut primary, mut backup) = (self.primary.clone(), self.backup.clone());
        set(&mut primary, Field::Other, last);
        set(&mut primary, Field::LastUsable, entries_at - 1);
        set(&mut backup, Field::Own, last);
        set(&mut backup, Field::LastUsable, entries_at - 1);
        set(&mut backup, Field::Entries, entries_at);
        seal(&mut primary);
        seal(&mut backup);
        let mut mbr = self.mbr.clone();
        if mbr[MBR_TYPE] == PROTECTIVE {
            let sectors = u32::try_from(last).unwrap_or(u32::MAX);
            mbr[MBR_SECTORS..MBR_SECTORS + 4].copy_from_slice(&sectors.to_le_bytes());
        }
        let old = vec![0; self.entries.len() + self.backup.len()];
        vec![
            Overlay { at: 0, bytes: mbr },
            Overlay { at: SECTOR, bytes: primary },
            // Two copies would be one too many for whoever repairs the disk.
            Overlay { at: (self.last - entry_sectors) * SECTOR, bytes: old },
            Overlay { at: entries_at * SECTOR, bytes: self.entries.clone() },
            Overlay { at: last * SECTOR, bytes: backup },
        ]
    }
}

/// Numbers of sectors in a header.
#[derive(Clone, Copy)]
enum Field {
    /// Where this header is.
    Own,
    /// Where the other one is.
    Other,
    LastUsable,
    /// Where the entries begin.
    Entries,
}

fn offset(field: Field) -> usize {
    match field {
        Field::Own => 24,
        Field::Other => 32,
        Field::LastUsable => 48,
        Field::Entries => 72,
    }
}

fn field(header: &[u8], field: Field) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&header[offset(field)..][..8]);
    u64::from_le_bytes(bytes)
}

fn set(header: &mut [u8], field: Field, value: u64) {
    header[offset(field)..][..8].copy_from_slice(&value.to_le_bytes());
}

fn length(header: &[u8]) -> usize {
    header[12..16].iter().rev().fold(0, |length, byte| length << 8 | usize::from(*byte))
}

/// A header's checksum, which is taken with its own place as zero.
fn checksum(header: &[u8]) -> [u8; 4] {
    let mut bytes = header[..length(header)].to_vec();
    bytes[16..20].fill(0);
    crc32fast::hash(&bytes).to_le_bytes()
}

fn is_sound(header: &[u8]) -> bool {
    header.starts_with(SIGNATURE)
        && (LEAST_HEADER..=header.len()).contains(&length(header))
        && header[16..20] == checksum(header)
}

fn seal(header: &mut [u8]) {
    let checksum = checksum(header);
    header[16..20].copy_from_slice(&checksum);
}
