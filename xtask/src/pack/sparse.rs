//! A file that is written from its beginning to its end, and gets holes where it holds nothing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::disk::ZEROS;

/// How much is gathered before it is written.
const CHUNK: usize = 1 << 20;
/// The smallest hole: the block of most file systems.
const HOLE: usize = 4 << 10;

pub(super) struct Writer<'a> {
    file: &'a File,
    /// What is to be written next, and where.
    chunk: Vec<u8>,
    at: u64,
}

impl<'a> Writer<'a> {
    /// Into `file`, which is empty.
    pub(super) fn new(file: &'a File) -> Writer<'a> {
        Writer { file, chunk: Vec::with_capacity(CHUNK), at: 0 }
    }

    pub(super) fn add(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = bytes.len().min(CHUNK - self.chunk.len());
            self.chunk.extend_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            if self.chunk.len() == CHUNK {
                self.write()?;
            }
        }
        Ok(())
    }

    /// Gives the file its length, which what comes last may not have done.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.write()?;
        self.file.set_len(self.at)
    }

    /// Writes the longest runs of blocks that hold something.
    fn write(&mut self) -> io::Result<()> {
        let chunk = &self.chunk;
        let is_empty = |block: &[u8]| block == &ZEROS[..block.len()];
        if !is_empty(chunk) {
            let mut run = None;
            for (start, block) in (0..).step_by(HOLE).zip(chunk.chunks(HOLE)) {
                match (is_empty(block), run) {
                    (false, None) => run = Some(start),
                    (true, Some(from)) => {
                        self.file.write_all_at(&chunk[from..start], self.at + from as u64)?;
                        run = None;
                    }
                    (false, Some(_)) | (true, None) => {}
                }
            }
            if let Some(from) = run {
                self.file.write_all_at(&chunk[from..], self.at + from as u64)?;
            }
        }
        self.at += chunk.len() as u64;
        self.chunk.clear();
        Ok(())
    }
}
