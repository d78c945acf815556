//! One pass over a raw disk: one thread reads, as many as there are cores compress, and one for each
//! output writes, in the disk's order.
//!
//! ```text
//! reader -> encoders -> sequence -> writer of each output
//! ```
//!
//! Chunks are read into a fixed number of buffers, and a buffer is free again when the last writer
//! is done with it. That bounds the memory, whatever the disk's size and whoever is slow. What an
//! output holds does not depend on the number of threads.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::blocks::CHUNK;
use super::encode::{Done, Encoder, Job};
use super::raw;
use super::view::View;

/// How many chunks are under way at most. With what is made of a chunk for all formats it takes up
/// to five times its own size.
const BUFFERS: usize = 24;

/// A chunk's bytes, in a buffer that goes back to the reader.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    free: Sender<Vec<u8>>,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // Nobody takes it when the reader is done, which is as good.
        self.free.send(std::mem::take(&mut self.bytes)).ok();
    }
}

/// A finished chunk, which all writers share.
pub(super) type Shared = Arc<Done<Buffer>>;

/// What a pass reads, and what it makes of it.
pub(super) struct Pass<'a> {
    pub(super) raw: &'a File,
    pub(super) len: u64,
    pub(super) views: &'a [View],
    pub(super) jobs: &'a [Job],
    /// How many compress at a time.
    pub(super) threads: usize,
}

/// What went wrong in a pass.
#[derive(Debug)]
pub(super) enum PassError {
    Read(io::Error),
    Encode(io::Error),
    /// In the writer with this number.
    Write(usize, io::Error),
}

/// Feeds the chunks that hold something to all of `writers`, each in a thread of its own.
/// `on_chunk` hears of each.
pub(super) fn run<W>(pass: &Pass<'_>, writers: &mut [W], on_chunk: impl Fn()) -> Result<(), PassError>
where
    W: FnMut(&Done<Buffer>) -> io::Result<()> + Send,
{
    thread::scope(|scope| {
        let (work_out, work_in) = channel();
        let (done_out, done_in) = channel();
        let work_in = Arc::new(Mutex::new(work_in));
        for _ in 0..pass.threads.clamp(1, BUFFERS) {
            let (work_in, done_out) = (work_in.clone(), done_out.clone());
            scope.spawn(move || encode(pass, &work_in, &done_out));
        }
        drop((work_in, done_out));
        let reader = scope.spawn(move || read(pass, &work_out));

        let (outs, threads): (Vec<_>, Vec<_>) = writers
            .iter_mut()
            .map(|writer| {
                let (out, chunks) = channel::<Shared>();
                (out, scope.spawn(move || chunks.iter().try_for_each(|chunk| writer(&chunk))))
            })
            .unzip();
        let encoded = sequence(&done_in, &outs, on_chunk);
        // Whoever still works for this run stops now: after an error there is nobody to work for.
        drop((done_in, outs));

        let mut result = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        result = result.and(encoded);
        for (number, thread) in threads.into_iter().enumerate() {
            let written = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result = result.and(written.map_err(|error| PassError::Write(number, error)));
        }
        result
    })
}

/// A chunk on its way to an encoder: how many came before it, its number, and its bytes.
type Work = (usize, u64, Buffer);
/// A chunk that an encoder is done with.
type Finished = (usize, io::Result<Done<Buffer>>);

fn read(pass: &Pass<'_>, work: &Sender<Work>) -> Result<(), PassError> {
    let (free, buffers) = channel();
    for _ in 0..BUFFERS {
        free.send(Vec::new()).ok();
    }
    for (sequence, chunk) in raw::chunks(pass.raw, pass.views).enumerate() {
        let chunk = chunk.map_err(PassError::Read)?;
        // This thread holds a sender, so there is always a buffer to wait for.
        let Ok(mut bytes) = buffers.recv() else { return Ok(()) };
        bytes.resize(CHUNK, 0);
        raw::read_at(pass.raw, pass.len, chunk * CHUNK as u64, &mut bytes).map_err(PassError::Read)?;
        if work.send((sequence, chunk, Buffer { bytes, free: free.clone() })).is_err() {
            // The others have stopped, and say why.
            return Ok(());
        }
    }
    Ok(())
}

fn encode(pass: &Pass<'_>, work: &Mutex<Receiver<Work>>, done: &Sender<Finished>) {
    let next = || work.lock().unwrap_or_else(PoisonError::into_inner).recv();
    let mut encoder = match Encoder::new() {
        Ok(encoder) => encoder,
        Err(error) => {
            done.send((0, Err(error))).ok();
            return;
        }
    };
    while let Ok((sequence, chunk, bytes)) = next() {
        let encoded = encoder.encode(chunk, bytes, pass.views, pass.jobs);
        if done.send((sequence, encoded)).is_err() {
            return;
        }
    }
}

/// Hands the chunks to all writers in the order in which they were read.
fn sequence(
    done: &Receiver<Finished>,
    outs: &[Sender<Shared>],
    on_chunk: impl Fn(),
) -> Result<(), PassError> {
    let mut waiting = BTreeMap::new();
    let mut next = 0;
    for (sequence, encoded) in done {
        waiting.insert(sequence, Arc::new(encoded.map_err(PassError::Encode)?));
        while let Some(chunk) = waiting.remove(&next) {
            next += 1;
            on_chunk();
            if outs.iter().any(|out| out.send(chunk.clone()).is_err()) {
                // A writer has stopped, and says why.
                return Ok(());
            }
        }
    }
    Ok(())
}
