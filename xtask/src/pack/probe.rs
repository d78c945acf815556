//! What a disk file is: its format by its name, its disk's size by what it holds.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::error::PackError;
use crate::disk::DiskFormat;
use crate::read_at::ReadAt;

/// Where a qcow2 has its version and its size. Source: QEMU, docs/interop/qcow2.txt, "Header".
const QCOW2_SIZE_AT: u64 = 24;
/// Where the length of a backing file's name is, that of the header in version 3, and the features
/// that a reader has to know: bit 2 says that the data is in another file. Source: the same.
const QCOW2_BACKING_AT: u64 = 16;
const QCOW2_FEATURES_AT: u64 = 72;
const QCOW2_EXTERNAL_DATA: u64 = 1 << 2;
/// Where it says how large clusters are, as a power of two, how many entries its table of level 1 has, and where that is;
/// an entry's bits for the place of a table of level 2, which is a cluster. Source: the same, "Cluster mapping".
const QCOW2_CLUSTER_BITS_AT: u64 = 20;
const QCOW2_L1_ENTRIES_AT: u64 = 36;
const QCOW2_L1_AT: u64 = 40;
const QCOW2_L1_PLACE: u64 = 0x00ff_ffff_ffff_fe00;
const QCOW2_MAGIC: [u8; 4] = *b"QFI\xfb";
/// Where a VMDK has its capacity, in sectors of 512 bytes. Source: VMware, Virtual Disk Format 5.0.
const VMDK_CAPACITY_AT: u64 = 12;
const SECTOR: u64 = 512;
/// Where it has the place of its grain directory, and what is there in one that was streamed: it is in the footer, which
/// is followed by one sector. Source: the same, "Stream-Optimized Compressed Sparse Extents".
const VMDK_DIRECTORY_AT: u64 = 56;
const VMDK_DIRECTORY_AT_END: [u8; 8] = [0xff; 8];
const VMDK_FOOTER: u64 = 2 * SECTOR;
/// A fixed VHD ends in its footer, with its size at 48.
/// Source: Virtual Hard Disk Image Format Specification, "Hard Disk Footer Format".
const VHD_FOOTER: u64 = 512;
const VHD_SIZE_AT: u64 = 48;
/// Where the first volume descriptor of ISO 9660 is. Source: ECMA-119, 6.2.1 and 8.1.
const ISO_VOLUME_AT: u64 = 16 * 2048;
/// An OVA has its description and its manifest before the disk; more entries are another thing.
const OVA_ENTRIES: usize = 8;

/// The format of a file, by the ending of its name.
pub(crate) fn format_of(path: &Path) -> Option<DiskFormat> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    // What `dd` and libvirt call a raw disk.
    if name.ends_with(".img") {
        return Some(DiskFormat::Raw);
    }
    let fits = |format: &DiskFormat| name.ends_with(&format!(".{}", format.extension()));
    // `x.ami.raw` ends in `.raw` as well.
    DiskFormat::ALL.into_iter().filter(fits).max_by_key(|format| format.extension().len())
}

/// The size of the disk in a file of that format; a file of another format is refused.
pub(crate) fn virtual_size(path: &Path, format: DiskFormat) -> Result<u64, PackError> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let refuse = |why| PackError::Format { format, why };
    match format {
        DiskFormat::Raw | DiskFormat::Ami => match at(&file, 0) {
            // `.img` is what some call a qcow2.
            Some(QCOW2_MAGIC) => Err(refuse("it begins like a qcow2")),
            Some(_) | None => Ok(size),
        },
        DiskFormat::Qcow2 => qcow2(&file),
        DiskFormat::Vmdk => vmdk(&file, 0, size).ok_or_else(|| refuse("it does not begin and end like one")),
        DiskFormat::Vhd => {
            let footer = size.checked_sub(VHD_FOOTER).ok_or_else(|| refuse("it is too short"))?;
            match (at(&file, footer), at(&file, footer + VHD_SIZE_AT)) {
                (Some(cookie), Some(size)) if &cookie == b"conectix" => Ok(u64::from_be_bytes(size)),
                _ => Err(refuse("it does not end like one")),
            }
        }
        // A medium is as large as it is; what it installs is its own affair.
        DiskFormat::Iso => match at(&file, ISO_VOLUME_AT) {
            Some(magic) if &magic == b"\x01CD001" => Ok(size),
            Some(_) | None => Err(refuse("it has no volume descriptor")),
        },
        DiskFormat::Gce => {
            let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&file));
            // Raw: a long name before it would be read into memory, however long.
            let first = archive.entries()?.raw(true).next().and_then(Result::ok);
            let disk = first.filter(|entry| entry.path_bytes().as_ref() == b"disk.raw");
            let size = disk.map(|entry| match entry.header() {
                header if header.entry_type().is_gnu_sparse() => {
                    header.as_gnu().map_or(Ok(entry.size()), tar::GnuHeader::real_size)
                }
                _ => Ok(entry.size()),
            });
            size.and_then(Result::ok).ok_or_else(|| refuse("it holds no `disk.raw`"))
        }
        DiskFormat::Ova => {
            let mut archive = tar::Archive::new(&file);
            let entries = archive.entries_with_seek()?.raw(true).take(OVA_ENTRIES);
            let disk = entries.filter_map(Result::ok).find(|entry| entry.path_bytes().ends_with(b".vmdk"));
            let place = disk.map(|entry| (entry.raw_file_position(), entry.size()));
            let disk = place.and_then(|(start, len)| vmdk(&file, start, start.checked_add(len)?));
            disk.ok_or_else(|| refuse("it holds no whole VMDK"))
        }
    }
}

/// The size of the disk in a qcow2 that has all of it.
fn qcow2(file: &File) -> Result<u64, PackError> {
    let refuse = |why| PackError::Format { format: DiskFormat::Qcow2, why };
    let too_short = || refuse("it is too short");
    let magic: [u8; 4] = at(file, 0).ok_or_else(too_short)?;
    let version = u32::from_be_bytes(at(file, 4).ok_or_else(too_short)?);
    let size = u64::from_be_bytes(at(file, QCOW2_SIZE_AT).ok_or_else(too_short)?);
    if magic != QCOW2_MAGIC {
        return Err(refuse("it does not begin like one"));
    }
    let backing: [u8; 4] = at(file, QCOW2_BACKING_AT).ok_or_else(too_short)?;
    // Version 2 has no features.
    let features = match version {
        2 => 0,
        _ => u64::from_be_bytes(at(file, QCOW2_FEATURES_AT).ok_or_else(too_short)?),
    };
    if backing != [0; 4] {
        return Err(PackError::Elsewhere("it is what changed over another disk, its backing file"));
    }
    if features & QCOW2_EXTERNAL_DATA != 0 {
        return Err(PackError::Elsewhere("its data is in another file"));
    }
    match ends_of_tables(file) {
        Some(end) if end <= file.metadata()?.len() => Ok(size),
        Some(_) | None => Err(refuse("it is cut off")),
    }
}

/// Where the last of a qcow2's tables of level 2 ends; nothing where the table of level 1 is not there.
fn ends_of_tables(file: &File) -> Option<u64> {
    let cluster = 1u64.checked_shl(u32::from_be_bytes(at(file, QCOW2_CLUSTER_BITS_AT)?))?;
    let entries = u32::from_be_bytes(at(file, QCOW2_L1_ENTRIES_AT)?);
    let mut table =
        ReadAt::new(file, u64::from_be_bytes(at(file, QCOW2_L1_AT)?)).take(u64::from(entries) * 8);
    let mut table = BufReader::new(&mut table);
    let mut end = 0;
    for _ in 0..entries {
        let mut entry = [0; 8];
        table.read_exact(&mut entry).ok()?;
        match u64::from_be_bytes(entry) & QCOW2_L1_PLACE {
            0 => {}
            place => end = end.max(place.checked_add(cluster)?),
        }
    }
    Some(end)
}

/// The size of the disk in a VMDK from `start` to `end`. One that was streamed has a copy of its header at the end.
fn vmdk(file: &File, start: u64, end: u64) -> Option<u64> {
    let begins = |at_: u64| at::<4>(file, at_).filter(|magic| magic == b"KDMV");
    begins(start)?;
    let capacity = u64::from_le_bytes(at(file, start + VMDK_CAPACITY_AT)?);
    if at(file, start + VMDK_DIRECTORY_AT)? == VMDK_DIRECTORY_AT_END {
        begins(end.checked_sub(VMDK_FOOTER)?)?;
    }
    capacity.checked_mul(SECTOR)
}

fn at<const N: usize>(file: &File, at: u64) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, at).ok().map(|()| bytes)
}
