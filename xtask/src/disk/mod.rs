//! A raw disk -> the same disk in every format asked for, in one pass.
//!
//! Pure but for reading the raw, which is a sparse file: outputs are anything that can be read,
//! written and sought in. The same raw gives the same bytes, whatever holes it has and however many
//! threads there are; nothing in an output says when, where or by whom it was made.

mod blocks;
mod encode;
mod error;
mod format;
mod gce;
mod gpt;
mod iso;
mod name;
mod next;
mod output;
mod ova;
mod ovf;
mod pipeline;
mod plain;
mod qcow2;
mod raw;
mod size;
#[cfg(test)]
mod tests;
mod vhd;
mod view;
mod vmdk;

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::time::SystemTime;

use self::encode::Job;
use self::gpt::Gpt;
use self::output::{Output, Setting};
use self::pipeline::{Pass, PassError};
use self::view::View;
use crate::oci::Digest;

pub(crate) use self::blocks::ZEROS;
pub(crate) use self::error::DiskError;
pub(crate) use self::format::{DiskFormat, UnknownFormat};
pub(crate) use self::iso::{Bios, Medium, VolumeName};
pub(crate) use self::name::DiskName;
pub(crate) use self::next::to_stick;
pub(crate) use self::ovf::Template;
pub(crate) use self::qcow2::Qcow2Compression;
pub(crate) use self::size::DiskSize;

/// What a chunk is long, in bytes.
pub(crate) const CHUNK_BYTES: u64 = blocks::CHUNK as u64;

/// What disks are made from, beside the raw.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) name: DiskName,
    pub(crate) qcow2_compression: Qcow2Compression,
    /// The description of an OVA's virtual machine, which no other format needs.
    pub(crate) template: Option<Template>,
    /// What is on an installer's medium beside the disk, which no other format needs.
    pub(crate) medium: Option<Medium>,
    /// How many compress at a time.
    pub(crate) threads: usize,
}

/// Where a disk goes.
pub(crate) struct Target<F> {
    pub(crate) format: DiskFormat,
    /// Empty.
    pub(crate) file: F,
}

/// A finished disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) format: DiskFormat,
    /// Of the file, with its holes.
    pub(crate) size: u64,
    /// Of the disk that it holds.
    pub(crate) virtual_size: u64,
    /// Of the file.
    pub(crate) digest: Digest,
}

/// Writes `raw` to all of `targets`, whose formats differ, and gives the disks in their order.
/// `on_chunk` hears of each of the [`chunks`].
pub(crate) fn convert<F: Read + Write + Seek + Send>(
    raw: &File,
    targets: Vec<Target<F>>,
    options: &Options,
    on_chunk: impl Fn(),
) -> Result<Vec<Disk>, DiskError> {
    let formats: Vec<DiskFormat> = targets.iter().map(|target| target.format).collect();
    let before = state(raw)?;
    let (len, all_views) = look(raw, &formats)?;
    let mut views: Vec<View> = Vec::new();
    let mut jobs: Vec<Job> = Vec::new();
    let mut outputs = Vec::new();
    for (Target { format, file }, view) in targets.into_iter().zip(all_views) {
        let virtual_size = view.size;
        let view = place(&mut views, view);
        let job = output::encoding(format, options).map(|encoding| Job { view, encoding });
        let job = job.map(|job| place(&mut jobs, job));
        let setting = Setting { format, virtual_size, view, job };
        let output = Output::new(file, setting, options);
        outputs.push(output.map_err(|source| DiskError::Write { format, source })?);
    }

    let pass = Pass { raw, len, views: &views, jobs: &jobs, threads: options.threads };
    let mut hashers = output::hashers(&outputs);
    let mut writers: Vec<_> = outputs.iter_mut().map(Output::writer).collect();
    writers.extend(hashers.iter_mut().map(|hasher| hasher.writer()));
    let passed = pipeline::run(&pass, &mut writers, on_chunk);
    // Whatever else went wrong with a raw that somebody writes to, that is the reason.
    if state(raw)? != before {
        return Err(DiskError::Changed);
    }
    passed.map_err(|error| match error {
        PassError::Read(source) => DiskError::Read(source),
        PassError::Encode(source) => DiskError::Encode(source),
        PassError::Write(number, source) => match formats.get(number) {
            Some(&format) => DiskError::Write { format, source },
            // Hashing does not fail.
            None => DiskError::Encode(source),
        },
    })?;
    drop(writers);
    let contents = output::contents(hashers, &views).map_err(DiskError::Encode)?;
    output::finish_all(outputs, &contents, options)
}

/// What shows that a raw is written to: its length, and when that was done last.
fn state(raw: &File) -> Result<(u64, SystemTime), DiskError> {
    let metadata = raw.metadata().map_err(DiskError::Read)?;
    Ok((metadata.len(), metadata.modified().map_err(DiskError::Read)?))
}

/// How many chunks a pass over `raw` reads.
pub(crate) fn chunks(raw: &File, formats: &[DiskFormat]) -> Result<u64, DiskError> {
    let (_, views) = look(raw, formats)?;
    raw::chunks(raw, &views).try_fold(0, |count, chunk| chunk.map(|_| count + 1)).map_err(DiskError::Read)
}

/// Makes a raw as long as `size` says, where it is shorter: the copy of its partition table moves to
/// the new end.
pub(crate) fn grow(raw: &File, size: u64) -> io::Result<()> {
    let len = raw.metadata()?.len();
    if len >= size {
        return Ok(());
    }
    let read = |at, count| {
        let mut bytes = vec![0; count];
        raw::read_at(raw, len, at, &mut bytes).map(|()| bytes)
    };
    let overlays = Gpt::find(len, read)?.map(|gpt| gpt.moved_to_end_of(size));
    raw.set_len(size)?;
    for overlay in overlays.iter().flatten() {
        raw.write_all_at(&overlay.bytes, overlay.at)?;
    }
    Ok(())
}

/// The length of a raw, and what each format sees of it.
fn look(raw: &File, formats: &[DiskFormat]) -> Result<(u64, Vec<View>), DiskError> {
    let len = raw.metadata().map_err(DiskError::Read)?.len();
    if len == 0 {
        return Err(DiskError::Empty);
    }
    let read = |at, count| {
        let mut bytes = vec![0; count];
        raw::read_at(raw, len, at, &mut bytes).map(|()| bytes)
    };
    let gpt = Gpt::find(len, read).map_err(DiskError::Read)?;
    for &format in formats {
        let (size, most) = (len, format.largest());
        if size > most {
            return Err(DiskError::TooLarge { format, size, most });
        }
    }
    Ok((len, formats.iter().map(|&format| View::new(format, len, gpt.as_ref())).collect()))
}

/// Where `value` is among `values`, to which it is added if it is new.
fn place<T: PartialEq>(values: &mut Vec<T>, value: T) -> usize {
    match values.iter().position(|other| *other == value) {
        Some(place) => place,
        None => {
            values.push(value);
            values.len() - 1
        }
    }
}
