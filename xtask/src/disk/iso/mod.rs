//! An installer's medium: ISO 9660 with two boot loaders, a kernel with its initramfs, and the disk.
//!
//! It boots as a CD and, copied to it, from a USB stick. The disk is `install/disk.000` and so on, which
//! together are the runs of `install/disk.map`, each MiB in a zstd frame of its own. A line of the map
//! has a run's first MiB, how many there are, and their SHA-256; what is in no run is zero. The first MiB
//! of the disk, with its partition table, comes last, so that a disk that is half written does not boot.
//! How much of the disk is filled is known last, and everything else goes before it: there is room left.

mod boot;
mod volume;

use std::fmt::Write as _;
use std::io::{self, Seek, SeekFrom, Write};

use self::volume::{Directories, Extent, SECTOR};
use super::blocks::{CHUNK, Picture};
use crate::oci::digest::DigestWriter;
use crate::oci::{Digest, Timestamp};

pub(crate) use self::volume::VolumeName;

/// What is on a medium beside the disk.
#[derive(Clone, Debug)]
pub(crate) struct Medium {
    pub(crate) volume: VolumeName,
    pub(crate) time: Timestamp,
    /// Where the platform has a BIOS.
    pub(crate) bios: Option<Bios>,
    /// The EFI system partition: a FAT file system.
    pub(crate) esp: Vec<u8>,
    /// By their paths, whose parts have eight small letters at most, and three after a dot.
    pub(crate) files: Vec<(String, Vec<u8>)>,
}

/// GRUB for a BIOS, as it comes.
#[derive(Clone, Debug)]
pub(crate) struct Bios {
    /// boot_hybrid.img, a disk's first sector.
    pub(crate) boot: Vec<u8>,
    /// cdboot.img with core.img behind it, as grub-mkimage makes it for i386-pc-eltorito.
    pub(crate) core: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum IsoError {
    #[error("`{0}` is no name of a file in ISO 9660")]
    Name(String),
    #[error("{what} has {len} bytes, which it cannot have")]
    Length { what: &'static str, len: usize },
    #[error("the medium would have more than 256 GiB")]
    TooLarge,
    #[error("there is nothing to boot it with")]
    NoMedium,
}

impl From<IsoError> for io::Error {
    fn from(error: IsoError) -> io::Error {
        io::Error::other(error)
    }
}

/// The files of the disk.
const MAP: &str = "install/disk.map";
/// What a part of the disk has at most: whole sectors, fewer than 32 bits count bytes.
/// Source: ECMA-119, 9.1.4, "Data Length".
const PART: u64 = (1 << 32) - SECTOR;
/// How many parts there can be, for which a directory has room.
const MOST_PARTS: usize = 64;
/// A run is no longer, in MiB: one writes and reads a run at a time, and says how far it is.
const LONGEST_RUN: u64 = 32;
/// The copy of the partition table, in sectors of the volume.
const TAIL: u64 = (boot::BACKUP as u64).div_ceil(SECTOR);

/// Takes the chunks of a disk, whose size is whole chunks, in their order.
pub(super) struct Writer<W> {
    out: W,
    /// Where the disk begins on the medium, and how many bytes of it are written.
    start: u64,
    len: u64,
    runs: Vec<Run>,
    growing: Option<Growing>,
    /// The first chunk, which is written last: its digest and its frame.
    first: Option<(Digest, Vec<u8>)>,
}

/// In chunks.
struct Run {
    start: u64,
    count: u64,
    digest: Digest,
}

struct Growing {
    start: u64,
    count: u64,
    hasher: DigestWriter<io::Sink>,
}

impl Growing {
    fn finish(self) -> Run {
        Run { start: self.start, count: self.count, digest: self.hasher.finish().1 }
    }
}

impl<W: Write + Seek> Writer<W> {
    pub(super) fn new(mut out: W, medium: &Medium) -> io::Result<Writer<W>> {
        let start = Layout::new(medium)?.disk_at * SECTOR;
        out.seek(SeekFrom::Start(start))?;
        Ok(Writer { out, start, len: 0, runs: Vec::new(), growing: None, first: None })
    }

    /// Adds a chunk that is filled, with its zstd frame.
    pub(super) fn add(&mut self, picture: &Picture<'_>, frame: &[u8]) -> io::Result<()> {
        let number = picture.at / CHUNK as u64;
        if number == 0 {
            self.first = Some((Digest::of(picture.bytes), frame.to_vec()));
            return Ok(());
        }
        let grows = |run: &Growing| run.start + run.count == number && run.count < LONGEST_RUN;
        if !self.growing.as_ref().is_some_and(grows) {
            self.runs.extend(self.growing.take().map(Growing::finish));
        }
        let new = || Growing { start: number, count: 0, hasher: DigestWriter::new(io::sink()) };
        let run = self.growing.get_or_insert_with(new);
        run.count += 1;
        run.hasher.write_all(picture.bytes)?;
        self.len += frame.len() as u64;
        self.out.write_all(frame)
    }

    /// Writes the rest of the disk and what is behind it, and then what is before it.
    pub(super) fn finish(mut self, medium: &Medium) -> io::Result<W> {
        self.runs.extend(self.growing.take().map(Growing::finish));
        if let Some((digest, frame)) = self.first.take() {
            self.runs.push(Run { start: 0, count: 1, digest });
            self.len += frame.len() as u64;
            self.out.write_all(&frame)?;
        }
        let map = map(&self.runs);
        let disk_sectors = self.len.div_ceil(SECTOR);
        let layout = Layout::new(medium)?;
        let map_at = layout.disk_at + disk_sectors;
        let end = map_at + (map.len() as u64).div_ceil(SECTOR) + TAIL;
        self.out.seek(SeekFrom::Start(self.start + disk_sectors * SECTOR))?;
        self.out.write_all(map.as_bytes())?;

        let mut files = layout.files.clone();
        files.extend(parts(layout.disk_at, self.len)?);
        files.push((MAP.to_owned(), Extent::new(map_at, map.len() as u64)?));

        let images = layout.images(medium)?;
        let table = boot::partition_table(&medium.volume, images.esp, end);
        self.out.seek(SeekFrom::Start(end * SECTOR - table.backup.len() as u64))?;
        self.out.write_all(&table.backup)?;
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&images.code)?;
        self.out.seek(SeekFrom::Start(boot::CODE as u64))?;
        self.out.write_all(&table.primary[boot::CODE..])?;
        let descriptors = volume::Descriptors {
            name: &medium.volume,
            time: medium.time,
            sectors: u32::try_from(end).map_err(|_| IsoError::TooLarge)?,
            catalog: &boot::catalog(images.core, images.esp)?,
        };
        self.out.seek(SeekFrom::Start(volume::START * SECTOR))?;
        self.out.write_all(&layout.directories.volume(&descriptors, &files))?;
        for ((_, extent), bytes) in layout.files.iter().zip(layout.contents(medium)?) {
            self.out.seek(SeekFrom::Start(u64::from(extent.sector) * SECTOR))?;
            self.out.write_all(&bytes)?;
        }
        Ok(self.out)
    }
}

/// What is where, before the disk.
struct Layout {
    directories: Directories,
    files: Vec<(String, Extent)>,
    /// The sector at which the disk begins.
    disk_at: u64,
}

/// What firmware starts.
struct Images {
    core: Option<Extent>,
    esp: Extent,
    /// Of a disk's first sector.
    code: Vec<u8>,
}

const CORE: &str = "boot/bios.img";
const ESP: &str = "boot/efi.img";

impl Layout {
    fn new(medium: &Medium) -> Result<Layout, IsoError> {
        let own = contents(medium);
        let paths: Vec<String> = own.iter().map(|(path, _)| (*path).to_owned()).collect();
        let room = paths.into_iter().chain((0..MOST_PARTS).map(part)).chain([MAP.to_owned()]);
        let directories = Directories::new(&room.collect::<Vec<_>>())?;
        let mut sector = directories.end();
        let mut files = Vec::new();
        for (path, bytes) in own {
            let len = bytes.len() as u64;
            files.push((path.to_owned(), Extent::new(sector, len)?));
            sector += len.div_ceil(SECTOR);
        }
        Ok(Layout { directories, files, disk_at: sector })
    }

    fn extent(&self, path: &str) -> Option<Extent> {
        self.files.iter().find(|(other, _)| other == path).map(|(_, extent)| *extent)
    }

    fn images(&self, medium: &Medium) -> Result<Images, IsoError> {
        let core = self.extent(CORE);
        let code = match (&medium.bios, core) {
            (Some(bios), Some(core)) => boot::code(&bios.boot, core)?,
            (Some(_) | None, _) => Vec::new(),
        };
        Ok(Images { core, esp: self.extent(ESP).ok_or(IsoError::NoMedium)?, code })
    }

    /// The files' bytes, as they are on the medium.
    fn contents(&self, medium: &Medium) -> Result<Vec<Vec<u8>>, IsoError> {
        let place = |(path, bytes): (&str, &[u8])| match self.extent(path) {
            Some(extent) if path == CORE => boot::core(bytes, extent),
            Some(_) | None => Ok(bytes.to_vec()),
        };
        contents(medium).into_iter().map(place).collect()
    }
}

/// What is on a medium before the disk, in its order.
fn contents(medium: &Medium) -> Vec<(&str, &[u8])> {
    let core = medium.bios.iter().map(|bios| (CORE, &bios.core[..]));
    let files = medium.files.iter().map(|(path, bytes)| (path.as_str(), &bytes[..]));
    core.chain([(ESP, &medium.esp[..])]).chain(files).collect()
}

/// The files that the disk's bytes are, which begin at a sector and follow each other.
fn parts(sector: u64, len: u64) -> Result<Vec<(String, Extent)>, IsoError> {
    if len.div_ceil(PART) > MOST_PARTS as u64 {
        return Err(IsoError::TooLarge);
    }
    let starts = (0..len).step_by(PART as usize).enumerate();
    let file =
        |(number, start)| Ok((part(number), Extent::new(sector + start / SECTOR, PART.min(len - start))?));
    starts.map(file).collect()
}

/// The name of a part of the disk.
fn part(number: usize) -> String {
    format!("install/disk.{number:03}")
}

fn map(runs: &[Run]) -> String {
    runs.iter().fold(String::new(), |mut map, Run { start, count, digest }| {
        // Writing to a String does not fail.
        writeln!(map, "{start} {count} {}", digest.hex()).ok();
        map
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_disk_is_in_parts() {
        let check = |len: u64| {
            let parts = parts(100, len).unwrap();
            parts.into_iter().map(|(name, extent)| (name, extent.sector, extent.len)).collect::<Vec<_>>()
        };
        let file = |number: usize, sector: u32, len: u32| (part(number), sector, len);
        // 4 GiB less a sector: 0x1f_ffff sectors.
        let (most, second) = (u32::MAX - 2047, 100 + 0x1f_ffff);
        assert_eq!(check(0), []);
        assert_eq!(check(1), [file(0, 100, 1)]);
        assert_eq!(check(PART), [file(0, 100, most)]);
        assert_eq!(check(PART + 1), [file(0, 100, most), file(1, second, 1)]);
        let all = check(64 * PART);
        assert_eq!((all.len(), all.last()), (64, Some(&file(63, 100 + 63 * 0x1f_ffff, most))));
        assert_eq!(parts(100, 64 * PART + 1), Err(IsoError::TooLarge));
    }
}
