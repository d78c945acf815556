//! The volume: its descriptors, path tables and directories.
//!
//! Source: ECMA-119, 4th edition (ISO 9660), interchange level 1: names of eight and three, and files
//! that lie in one piece. Linux and GRUB show the names in small letters and without a version.

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike, Timelike, Utc};

use super::IsoError;
use crate::oci::{Digest, Timestamp};

/// A logical sector and a logical block, in bytes. Source: ECMA-119, 6.1.2 and 6.2.2.
pub(super) const SECTOR: u64 = 2048;
/// The first sector of the volume's own; those before are the system's. Source: ECMA-119, 6.2.1.
pub(super) const START: u64 = 16;
/// The primary descriptor, El Torito's, the terminator, the boot catalog, and two path tables.
/// Source: El Torito, 2.0: its descriptor is sector 17.
const PRIMARY: u64 = START;
const CATALOG: u64 = START + 3;
const LITTLE_TABLE: u64 = START + 4;
const BIG_TABLE: u64 = START + 5;
const FIRST_DIRECTORY: u64 = START + 6;

/// The kinds of descriptor. Source: ECMA-119, 8.1.1.
const BOOT_RECORD: u8 = 0;
const PRIMARY_DESCRIPTOR: u8 = 1;
const TERMINATOR: u8 = 255;
/// Source: ECMA-119, 9.1.6: bit 1 says that it is a directory.
const DIRECTORY: u8 = 2;
/// The names of a directory itself and of its parent. Source: ECMA-119, 6.8.2.2.
const SELF: &[u8] = &[0];
const PARENT: &[u8] = &[1];
/// A record without its name. Source: ECMA-119, 9.1.
const RECORD: usize = 33;

/// What a volume is found by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VolumeName(String);

impl VolumeName {
    /// Its length at most. Source: ECMA-119, 8.4.7.
    const LONGEST: usize = 32;
    /// Hex digits that tell it from other volumes.
    const DIGITS: usize = 12;

    /// For people `name`, and for machines what it is made of.
    pub(crate) fn new(name: &str, inputs: Digest) -> VolumeName {
        // Source: ECMA-119, 7.4.1: d-characters.
        let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        let name = name.chars().map(letter).take(Self::LONGEST - Self::DIGITS - 1);
        let digits = inputs.hex()[..Self::DIGITS].to_uppercase();
        VolumeName(format!("{}_{digits}", name.collect::<String>()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where a file's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) sector: u32,
    /// In bytes.
    pub(super) len: u32,
}

impl Extent {
    pub(super) fn new(sector: u64, len: u64) -> Result<Extent, IsoError> {
        match (sector.try_into(), len.try_into()) {
            (Ok(sector), Ok(len)) => Ok(Extent { sector, len }),
            (_, _) => Err(IsoError::TooLarge),
        }
    }
}

/// What a volume says about itself.
pub(super) struct Descriptors<'a> {
    pub(super) name: &'a VolumeName,
    pub(super) time: Timestamp,
    /// Of the whole volume.
    pub(super) sectors: u32,
    /// El Torito's boot catalog.
    pub(super) catalog: &'a [u8],
}

/// All directories, in the path tables' order: first the root, then by depth, parent and name.
pub(super) struct Directories(Vec<Directory>);

struct Directory {
    /// In capitals, without a slash at its ends.
    path: String,
    /// The index of the one that it is in; the root's is its own.
    parent: usize,
    sector: u64,
    sectors: u64,
}

impl Directories {
    /// Those of files with these paths, with room for all of them.
    pub(super) fn new(paths: &[String]) -> Result<Directories, IsoError> {
        // By depth, then by the path of the parent.
        let mut found = BTreeMap::from([((0, String::new()), ())]);
        for path in paths {
            let path = identifier(path)?;
            for (at, _) in path.match_indices('/') {
                let directory = &path[..at];
                found.insert((directory.split('/').count(), directory.to_owned()), ());
            }
        }
        let mut list: Vec<Directory> = Vec::new();
        for (_, path) in found.into_keys() {
            let parent = parent(&path).and_then(|parent| list.iter().position(|other| other.path == parent));
            list.push(Directory { path, parent: parent.unwrap_or(0), sector: 0, sectors: 0 });
        }
        let mut directories = Directories(list);
        let nowhere = Extent { sector: 0, len: 0 };
        let files: Vec<(String, Extent)> = paths.iter().map(|path| (path.clone(), nowhere)).collect();
        let mut sector = FIRST_DIRECTORY;
        for index in 0..directories.0.len() {
            let sectors = directories.records(index, &files, [0; 7]).len() as u64 / SECTOR;
            let directory = &mut directories.0[index];
            (directory.sector, directory.sectors) = (sector, sectors);
            sector += sectors;
        }
        Ok(directories)
    }

    /// The sector behind them, at which files can begin.
    pub(super) fn end(&self) -> u64 {
        self.0.last().map_or(FIRST_DIRECTORY, |last| last.sector + last.sectors)
    }

    /// The volume from [`START`] to its first file, where the files are those that there was room for,
    /// or some of them.
    pub(super) fn volume(&self, descriptors: &Descriptors<'_>, files: &[(String, Extent)]) -> Vec<u8> {
        let date = record_date(descriptors.time);
        let mut bytes = self.primary(descriptors, date);
        let mut add = |sector: u64, content: &[u8]| {
            bytes.resize(((sector - START) * SECTOR) as usize, 0);
            bytes.extend(content);
        };
        let mut boot_record = descriptor(BOOT_RECORD);
        boot_record[7..30].copy_from_slice(b"EL TORITO SPECIFICATION");
        boot_record[71..75].copy_from_slice(&(CATALOG as u32).to_le_bytes());
        add(PRIMARY + 1, &boot_record);
        add(PRIMARY + 2, &descriptor(TERMINATOR));
        add(CATALOG, descriptors.catalog);
        add(LITTLE_TABLE, &self.path_table(u32::to_le_bytes, u16::to_le_bytes));
        add(BIG_TABLE, &self.path_table(u32::to_be_bytes, u16::to_be_bytes));
        for (index, directory) in self.0.iter().enumerate() {
            add(directory.sector, &self.records(index, files, date));
        }
        add(self.end(), &[]);
        bytes
    }

    /// Source: ECMA-119, 8.4.
    fn primary(&self, descriptors: &Descriptors<'_>, date: [u8; 7]) -> Vec<u8> {
        let Descriptors { name, time, sectors, catalog: _ } = descriptors;
        let mut bytes = descriptor(PRIMARY_DESCRIPTOR);
        let mut put = |at: usize, content: &[u8]| bytes[at..at + content.len()].copy_from_slice(content);
        // Names that there are not are blanks, as are the ends of those that there are.
        put(8, &[b' '; 64]);
        put(40, name.as_str().as_bytes());
        put(80, &both_32(*sectors));
        // One volume, which is the first.
        put(120, &both_16(1));
        put(124, &both_16(1));
        put(128, &both_16(SECTOR as u16));
        let table = self.path_table(u32::to_le_bytes, u16::to_le_bytes);
        put(132, &both_32(table.len() as u32));
        put(140, &(LITTLE_TABLE as u32).to_le_bytes());
        put(148, &(BIG_TABLE as u32).to_be_bytes());
        put(156, &record(SELF, self.extent(0), DIRECTORY, date));
        put(190, &[b' '; 623]);
        put(813, &descriptor_date(Some(*time)));
        put(830, &descriptor_date(Some(*time)));
        put(847, &descriptor_date(None));
        put(864, &descriptor_date(None));
        // The version of these structures.
        put(881, &[1]);
        bytes
    }

    /// Source: ECMA-119, 9.4.
    fn path_table(&self, long: fn(u32) -> [u8; 4], short: fn(u16) -> [u8; 2]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (index, directory) in self.0.iter().enumerate() {
            let name = if index == 0 { SELF } else { last(&directory.path).as_bytes() };
            bytes.extend([name.len() as u8, 0]);
            bytes.extend(long(directory.sector as u32));
            bytes.extend(short(directory.parent as u16 + 1));
            bytes.extend(name);
            bytes.resize(bytes.len().next_multiple_of(2), 0);
        }
        bytes
    }

    fn extent(&self, index: usize) -> Extent {
        let Directory { sector, sectors, .. } = &self.0[index];
        Extent { sector: *sector as u32, len: (sectors * SECTOR) as u32 }
    }

    /// The records of a directory, in whole sectors. Source: ECMA-119, 6.8.1.1: a record ends in the
    /// sector in which it begins; 9.3: they are in the order of their names.
    fn records(&self, index: usize, files: &[(String, Extent)], date: [u8; 7]) -> Vec<u8> {
        let own = &self.0[index];
        let mut entries = BTreeMap::new();
        for (number, child) in self.0.iter().enumerate().skip(1).filter(|(_, child)| child.parent == index) {
            let record = record(last(&child.path).as_bytes(), self.extent(number), DIRECTORY, date);
            entries.insert(last(&child.path).to_owned(), record);
        }
        for (path, extent) in files {
            let path = path.to_uppercase();
            if parent(&path).unwrap_or_default() == own.path {
                let name = last(&path);
                let dot = if name.contains('.') { "" } else { "." };
                // Source: ECMA-119, 7.5.1: a dot and a version are there in any case.
                let record = record(format!("{name}{dot};1").as_bytes(), *extent, 0, date);
                entries.insert(name.to_owned(), record);
            }
        }
        let own = [record(SELF, self.extent(index), DIRECTORY, date)];
        let parent = [record(PARENT, self.extent(self.0[index].parent), DIRECTORY, date)];
        let mut bytes = Vec::new();
        for record in own.into_iter().chain(parent).chain(entries.into_values()) {
            let left = SECTOR as usize - bytes.len() % SECTOR as usize;
            if left < record.len() {
                bytes.resize(bytes.len() + left, 0);
            }
            bytes.extend(record);
        }
        // As long as there was room left for.
        bytes.resize(bytes.len().max((self.0[index].sectors * SECTOR) as usize), 0);
        bytes.resize(bytes.len().next_multiple_of(SECTOR as usize), 0);
        bytes
    }
}

/// A path in capitals, if its parts are names. Source: ECMA-119, 10.1: level 1.
fn identifier(path: &str) -> Result<String, IsoError> {
    let is_short = |text: &str, most: usize| {
        (1..=most).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    let is_name = |name: &str| match name.split_once('.') {
        Some((name, ending)) => is_short(name, 8) && is_short(ending, 3),
        None => is_short(name, 8),
    };
    if path.split('/').all(is_name) { Ok(path.to_uppercase()) } else { Err(IsoError::Name(path.to_owned())) }
}

/// The directory that a path is in; none for the root's own.
fn parent(path: &str) -> Option<&str> {
    if path.is_empty() { None } else { Some(path.rsplit_once('/').map_or("", |(parent, _)| parent)) }
}

fn last(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, last)| last)
}

/// A descriptor with nothing in it yet. Source: ECMA-119, 8.1.
fn descriptor(kind: u8) -> Vec<u8> {
    let mut bytes = vec![0; SECTOR as usize];
    bytes[0] = kind;
    bytes[1..6].copy_from_slice(b"CD001");
    bytes[6] = 1;
    bytes
}

/// Source: ECMA-119, 9.1.
fn record(name: &[u8], extent: Extent, flags: u8, date: [u8; 7]) -> Vec<u8> {
    let len = (RECORD + name.len()).next_multiple_of(2);
    let mut bytes = vec![len as u8, 0];
    bytes.extend(both_32(extent.sector));
    bytes.extend(both_32(extent.len));
    bytes.extend(date);
    bytes.extend([flags, 0, 0]);
    bytes.extend(both_16(1));
    bytes.push(name.len() as u8);
    bytes.extend(name);
    bytes.resize(len, 0);
    bytes
}

/// Source: ECMA-119, 7.3.3: the least significant byte first, and then the most significant one.
fn both_32(value: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&value.to_le_bytes());
    bytes[4..].copy_from_slice(&value.to_be_bytes());
    bytes
}

/// Source: ECMA-119, 7.2.3.
fn both_16(value: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (value.to_le_bytes(), value.to_be_bytes());
    [a, b, c, d]
}

fn utc(time: Timestamp) -> DateTime<Utc> {
    DateTime::from_timestamp(time.seconds(), 0).unwrap_or_default()
}

/// Source: ECMA-119, 9.1.5: a year has one byte, from 1900 on; the last is the offset from UTC.
fn record_date(time: Timestamp) -> [u8; 7] {
    let time = utc(time);
    let year = (time.year() - 1900).clamp(0, 255) as u8;
    let [month, day] = [time.month() as u8, time.day() as u8];
    [year, month, day, time.hour() as u8, time.minute() as u8, time.second() as u8, 0]
}

/// Source: ECMA-119, 8.4.26.1: digits, hundredths last, and the offset from UTC; or no date.
fn descriptor_date(time: Option<Timestamp>) -> [u8; 17] {
    let digits = time.map_or_else(|| "0".repeat(16), |time| utc(time).format("%Y%m%d%H%M%S00").to_string());
    let mut bytes = [0; 17];
    for (byte, digit) in bytes.iter_mut().zip(digits.bytes().take(16)) {
        *byte = digit;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: &str = "2025-08-09T12:34:56Z";

    fn time() -> Timestamp {
        Timestamp::from_rfc_3339(NOON).unwrap()
    }

    fn directories(paths: &[&str]) -> Directories {
        Directories::new(&paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn numbers_have_both_orders() {
        assert_eq!(both_32(0x0102_0304), [4, 3, 2, 1, 1, 2, 3, 4]);
        assert_eq!(both_16(0x0102), [2, 1, 1, 2]);
    }

    #[test]
    fn dates_are_those_of_the_standard() {
        assert_eq!(record_date(time()), [125, 8, 9, 12, 34, 56, 0]);
        assert_eq!(&descriptor_date(Some(time())), b"2025080912345600\0");
        assert_eq!(&descriptor_date(None), b"0000000000000000\0");
        // What a byte cannot say is not another year.
        assert_eq!(record_date(Timestamp::from_rfc_3339("9999-01-01T00:00:00Z").unwrap())[0], 255);
    }

    #[test]
    fn names_are_of_eight_and_three() {
        for good in ["boot/grub/grub.cfg", "vmlinuz", "a_1.0"] {
            assert_eq!(identifier(good), Ok(good.to_uppercase()));
        }
        for bad in ["", "/a", "a//b", "Boot", "ninechars", "a.four", "a.b.c", "a.", ".a", "ä", "a-b"] {
            assert_eq!(identifier(bad), Err(IsoError::Name(bad.to_owned())));
        }
        let name = VolumeName::new("debian-13-v1.with-a-long-tail", Digest::of(b"x"));
        assert_eq!(name.as_str(), "DEBIAN_13_V1_WITH_A_2D711642B726");
        assert_eq!(name.as_str().len(), VolumeName::LONGEST);
        assert_eq!(VolumeName::new("a", Digest::of(b"x")).as_str(), "A_2D711642B726");
    }

    #[test]
    fn path_tables_are_by_depth_parent_and_name() {
        let directories = directories(&["b/z/x", "a/y/x", "c", "b/a/x"]);
        let paths: Vec<_> = directories.0.iter().map(|own| (own.path.as_str(), own.parent)).collect();
        assert_eq!(paths, [("", 0), ("A", 0), ("B", 0), ("A/Y", 1), ("B/A", 2), ("B/Z", 2)]);
        let table = directories.path_table(u32::to_le_bytes, u16::to_le_bytes);
        assert_eq!(table[..10], [1, 0, 22, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(table[10..20], [1, 0, 23, 0, 0, 0, 1, 0, b'A', 0]);
        assert_eq!(table[30..40], [1, 0, 25, 0, 0, 0, 2, 0, b'Y', 0]);
        let big = directories.path_table(u32::to_be_bytes, u16::to_be_bytes);
        assert_eq!(big[30..40], [1, 0, 0, 0, 0, 25, 0, 2, b'Y', 0]);
    }

    /// A record of 8.3 has 48 bytes: beside the two of 34 that every directory has, 41 fit.
    #[test]
    fn a_record_does_not_cross_a_sector() {
        let paths: Vec<String> = (0..42).map(|n| format!("filename.{n:03}")).collect();
        for (count, sectors) in [(41, 1), (42, 2)] {
            let directories = Directories::new(&paths[..count]).unwrap();
            assert_eq!(directories.0[0].sectors, sectors);
            let files: Vec<_> =
                paths[..count].iter().map(|path| (path.clone(), Extent { sector: 7, len: 9 })).collect();
            let records = directories.records(0, &files, [0; 7]);
            assert_eq!(records.len() as u64, sectors * SECTOR);
            assert_eq!(records[34 + 34 + 40 * 48], 48);
            assert_eq!(records[34 + 34 + 41 * 48], 0);
            if sectors == 2 {
                assert_eq!(records[2048], 48);
                assert_eq!(&records[2048 + 33..][..14], b"FILENAME.041;1");
            }
        }
    }
}
