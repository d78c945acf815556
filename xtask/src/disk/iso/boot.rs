//! What makes a medium boot: El Torito's catalog for CDs, and a partition table for disks.
//!
//! Source: El Torito Bootable CD-ROM Format Specification, 1.0; UEFI specification, 5.3 and 13.3.2.1.

use super::IsoError;
use super::volume::{Extent, SECTOR, START, VolumeName};
use crate::oci::Digest;

/// In which disks count, and El Torito too.
const DISK_SECTOR: u64 = 512;
/// How much of a disk's first sector is code. A label, a partition table and a signature follow.
pub(super) const CODE: usize = 440;
/// A table's entries: 128 of 128 bytes. Source: UEFI specification, 5.3.1: 16 KiB at least.
const ENTRIES: usize = 128 * 128;
/// The first sector behind a table: the MBR, the header, the entries.
const FIRST_USABLE: u64 = 2 + ENTRIES as u64 / DISK_SECTOR;
/// The copy of a table: the entries, and then the header.
pub(super) const BACKUP: usize = ENTRIES + DISK_SECTOR as usize;

/// Platforms of a catalog. Source: El Torito, 2.1; UEFI specification, 13.3.2.1, "0xEF".
const X86: u8 = 0;
const EFI: u8 = 0xef;
/// The BIOS loads so many sectors of 512 bytes: cdboot.img, which loads the rest.
/// Source: GRUB, include/grub/offsets.h, and grub-core/boot/i386/pc/cdboot.S.
const LOADED: u16 = 4;
/// A firmware's word for "to the end of the CD". Source: UEFI specification, 13.3.2.1.
const SECTORS_TO_THE_END: u16 = 0;

/// Where cdboot.img reads where it is and how long: the boot information table of mkisofs.
/// Source: mkisofs(8), "EL TORITO BOOT INFORMATION TABLE".
const INFO: usize = 8;
/// From there on the table's checksum counts.
const INFO_END: usize = 64;
/// Where cdboot.img ends, and core.img begins.
const CDBOOT: usize = 2048;
/// Where core.img's first sector lists the rest of it. Source: GRUB, include/grub/i386/pc/boot.h,
/// `GRUB_BOOT_MACHINE_LIST_SIZE`.
const BLOCK_LIST: usize = CDBOOT + 512 - 12;
/// Where boot_hybrid.img has the sector of core.img. Source: GRUB, grub-core/boot/i386/pc/boot.S, under
/// HYBRID_BOOT.
const HYBRID_KERNEL_SECTOR: usize = 0x1b0;

/// The type of an EFI system partition, as GPT writes a UUID: C12A7328-F81F-11D2-BA4B-00A0C93EC93B.
const ESP: [u8; 16] =
    [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];

/// El Torito's boot catalog: the BIOS's boot loader first, where there is one.
pub(super) fn catalog(core: Option<Extent>, esp: Extent) -> Result<Vec<u8>, IsoError> {
    let platform = if core.is_some() { X86 } else { EFI };
    // The validation entry: the words of these 32 bytes come to nothing together.
    let mut bytes = vec![0; 32];
    bytes[0] = 1;
    bytes[1] = platform;
    bytes[30..].copy_from_slice(&[0x55, 0xaa]);
    let words = bytes.chunks(2).map(|word| u16::from_le_bytes([word[0], word[1]]));
    let sum = words.fold(0, u16::wrapping_add).wrapping_neg();
    bytes[28..30].copy_from_slice(&sum.to_le_bytes());

    let sectors = u16::try_from(u64::from(esp.len).div_ceil(DISK_SECTOR)).unwrap_or(SECTORS_TO_THE_END);
    if let Some(core) = core {
        bytes.extend(entry(core, LOADED));
        // The last section, with one entry.
        let mut section = [0; 32];
        section[..4].copy_from_slice(&[0x91, EFI, 1, 0]);
        bytes.extend(section);
    }
    bytes.extend(entry(esp, sectors));
    Ok(bytes)
}

/// Boots, and emulates no floppy disk.
fn entry(image: Extent, sectors: u16) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[0] = 0x88;
    bytes[6..8].copy_from_slice(&sectors.to_le_bytes());
    bytes[8..12].copy_from_slice(&image.sector.to_le_bytes());
    bytes
}

/// The BIOS's boot loader, told where it is.
pub(super) fn core(image: &[u8], extent: Extent) -> Result<Vec<u8>, IsoError> {
    if image.len() < CDBOOT + 2 * DISK_SECTOR as usize {
        return Err(IsoError::Length { what: "GRUB's image for a BIOS", len: image.len() });
    }
    let mut bytes = image.to_vec();
    // From a disk, its second sector begins to load at the third.
    let rest = (disk_sector(extent) + (CDBOOT as u64 + DISK_SECTOR) / DISK_SECTOR).to_le_bytes();
    bytes[BLOCK_LIST..][..8].copy_from_slice(&rest);
    let words = bytes[INFO_END..].chunks(4).map(|word| {
        let mut padded = [0; 4];
        padded[..word.len()].copy_from_slice(word);
        u32::from_le_bytes(padded)
    });
    let sum = words.fold(0, u32::wrapping_add);
    let info = [START as u32, extent.sector, extent.len, sum];
    for (place, value) in bytes[INFO..].chunks_mut(4).zip(info) {
        place.copy_from_slice(&value.to_le_bytes());
    }
    Ok(bytes)
}

/// The code of a disk's first sector, told where core.img is.
pub(super) fn code(image: &[u8], core: Extent) -> Result<Vec<u8>, IsoError> {
    if image.len() != DISK_SECTOR as usize {
        return Err(IsoError::Length { what: "GRUB's image for a hybrid disk", len: image.len() });
    }
    let mut bytes = image[..CODE].to_vec();
    let sector = disk_sector(core) + CDBOOT as u64 / DISK_SECTOR;
    bytes[HYBRID_KERNEL_SECTOR..][..8].copy_from_slice(&sector.to_le_bytes());
    Ok(bytes)
}

fn disk_sector(extent: Extent) -> u64 {
    u64::from(extent.sector) * (SECTOR / DISK_SECTOR)
}

/// A partition table, which has the EFI system partition alone.
pub(super) struct Table {
    /// From the disk's beginning on; the code is zero.
    pub(super) primary: Vec<u8>,
    /// The end of the disk.
    pub(super) backup: Vec<u8>,
}

/// For a medium of so many sectors, all of which are the volume's.
pub(super) fn partition_table(volume: &VolumeName, esp: Extent, sectors: u64) -> Table {
    let last = sectors * (SECTOR / DISK_SECTOR) - 1;
    let mut entries = vec![0; ENTRIES];
    let start = disk_sector(esp);
    let end = start + u64::from(esp.len).div_ceil(DISK_SECTOR) - 1;
    entries[..16].copy_from_slice(&ESP);
    entries[16..32].copy_from_slice(&uuid(volume, "esp"));
    entries[32..40].copy_from_slice(&start.to_le_bytes());
    entries[40..48].copy_from_slice(&end.to_le_bytes());
    for (place, letter) in entries[56..].chunks_mut(2).zip("esp".encode_utf16()) {
        place.copy_from_slice(&letter.to_le_bytes());
    }
    let backup_entries = last - ENTRIES as u64 / DISK_SECTOR;
    let header = |own: u64, other: u64, entries_at: u64| {
        let mut bytes = b"EFI PART\0\0\x01\0".to_vec();
        bytes.extend(92_u32.to_le_bytes());
        // The checksum comes last, and is taken with its own place as zero.
        bytes.extend([0; 8]);
        for number in [own, other, FIRST_USABLE, backup_entries - 1] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(uuid(volume, "table"));
        bytes.extend(entries_at.to_le_bytes());
        bytes.extend(128_u32.to_le_bytes());
        bytes.extend(128_u32.to_le_bytes());
        bytes.extend(crc32fast::hash(&entries).to_le_bytes());
        let sum = crc32fast::hash(&bytes).to_le_bytes();
        bytes[16..20].copy_from_slice(&sum);
        bytes.resize(DISK_SECTOR as usize, 0);
        bytes
    };
    let primary = [protective(last), header(1, last, 2), entries.clone()].concat();
    let backup = [entries.clone(), header(last, 1, backup_entries)].concat();
    Table { primary, backup }
}

/// The MBR that says that all of the disk is taken. Source: UEFI specification, 5.2.3.
fn protective(last: u64) -> Vec<u8> {
    let mut bytes = vec![0; DISK_SECTOR as usize];
    let partition = &mut bytes[446..462];
    partition[1..8].copy_from_slice(&[0, 2, 0, 0xee, 0xff, 0xff, 0xff]);
    partition[8..12].copy_from_slice(&1_u32.to_le_bytes());
    partition[12..].copy_from_slice(&u32::try_from(last).unwrap_or(u32::MAX).to_le_bytes());
    bytes[510..].copy_from_slice(&[0x55, 0xaa]);
    bytes
}

/// A UUID of version 8, as GPT writes it: its first three parts are little-endian.
/// Source: RFC 9562, 5.8; UEFI specification, appendix A.
fn uuid(volume: &VolumeName, what: &str) -> [u8; 16] {
    let digest = Digest::of(format!("{}\n{what}", volume.as_str()).as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.bytes()[..16]);
    bytes[7] = bytes[7] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_catalog_sums_up_to_nothing() {
        let (core, esp) = (Extent { sector: 30, len: 5000 }, Extent { sector: 33, len: 1 << 20 });
        for (core, len) in [(Some(core), 128), (None, 64)] {
            let bytes = catalog(core, esp).unwrap();
            assert_eq!(bytes.len(), len);
            let sum = bytes[..32].chunks(2).map(|word| u16::from_le_bytes([word[0], word[1]]));
            assert_eq!(sum.fold(0, u16::wrapping_add), 0);
            assert_eq!(bytes[len - 32..][..12], [0x88, 0, 0, 0, 0, 0, 0, 8, 33, 0, 0, 0]);
        }
    }

    #[test]
    fn boot_loaders_know_their_places() {
        let extent = Extent { sector: 30, len: 4000 };
        let bytes = core(&[1; 4000], extent).unwrap();
        assert_eq!(bytes[..12], [1, 1, 1, 1, 1, 1, 1, 1, 16, 0, 0, 0]);
        assert_eq!(bytes[12..20], [30, 0, 0, 0, 0xa0, 0x0f, 0, 0]);
        assert_eq!(bytes[2547..2557], [1, 125, 0, 0, 0, 0, 0, 0, 0, 1], "four sectors a sector, and five");
        let code = code(&[1; 512], extent).unwrap();
        assert_eq!((code.len(), &code[431..]), (440, &[1, 124, 0, 0, 0, 0, 0, 0, 0][..]));
        let refused = |error: IsoError| matches!(error, IsoError::Length { .. });
        assert!(refused(core(&[1; 2048], extent).unwrap_err()));
        assert!(refused(self::code(&[1; 440], extent).unwrap_err()));
    }
}
