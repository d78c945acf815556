//! The raw disk that everything is made from: a sparse file, read where it holds something.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::blocks::CHUNK;
use super::view::View;

/// The numbers of the chunks that hold something, rising: those with data in the file, and those
/// that a view lays something over.
pub(super) fn chunks<'a>(raw: &'a File, views: &[View]) -> impl Iterator<Item = io::Result<u64>> + 'a {
    let chunk = CHUNK as u64;
    let overlays = views.iter().flat_map(|view| &view.overlays);
    let mut overlaid: BTreeSet<u64> = overlays
        .flat_map(|overlay| overlay.at / chunk..=(overlay.at + overlay.bytes.len() as u64 - 1) / chunk)
        .collect();
    let mut next = 0;
    std::iter::from_fn(move || {
        let data = match data_from(raw, next * chunk) {
            Ok(data) => data.map(|at| at / chunk),
            Err(error) => return Some(Err(error)),
        };
        let found = data.into_iter().chain(overlaid.first().copied()).min()?;
        overlaid.remove(&found);
        next = found + 1;
        Some(Ok(found))
    })
}

/// Where the next data is at or after an offset. A file system that knows no holes says that all of
/// it is data.
fn data_from(raw: &File, at: u64) -> io::Result<Option<u64>> {
    match seek(raw, SeekFrom::Data(at)) {
        Ok(at) => Ok(Some(at)),
        Err(Errno::NXIO) => Ok(None),
        Err(Errno::INVAL) => Ok((at < raw.metadata()?.len()).then_some(at)),
        Err(error) => Err(error.into()),
    }
}

/// Fills `bytes` from a raw of `len` bytes, and with zeros beyond its end.
pub(super) fn read_at(raw: &File, len: u64, at: u64, bytes: &mut [u8]) -> io::Result<()> {
    let there = len.saturating_sub(at).min(bytes.len() as u64) as usize;
    raw.read_exact_at(&mut bytes[..there], at)?;
    bytes[there..].fill(0);
    Ok(())
}
