//! What a program that is measured came to, and the medians of several runs of it.

use anyhow::Result;

use super::table::median;
use crate::exec::Measured;

/// What one run of one program came to.
#[derive(Clone, Copy)]
pub(super) struct Sample {
    pub(super) cpu: f64,
    pub(super) wall: f64,
    /// Of what it wrote.
    pub(super) size: f64,
    pub(super) memory: f64,
    /// To disks.
    pub(super) written: f64,
}

impl Sample {
    pub(super) fn new(cost: &Measured, size: u64) -> Sample {
        Sample {
            cpu: cost.cpu.as_secs_f64(),
            wall: cost.wall.as_secs_f64(),
            size: size as f64,
            memory: cost.peak_memory as f64,
            written: cost.written as f64,
        }
    }
}

/// The medians of several runs, each of which gets its number.
pub(super) fn repeat(runs: usize, run: impl Fn(usize) -> Result<Sample>) -> Result<Sample> {
    let samples: Vec<Sample> = (0..runs).map(run).collect::<Result<_>>()?;
    let of = |what: fn(&Sample) -> f64| median(samples.iter().map(what));
    Ok(Sample {
        cpu: of(|sample| sample.cpu),
        wall: of(|sample| sample.wall),
        size: of(|sample| sample.size),
        memory: of(|sample| sample.memory),
        written: of(|sample| sample.written),
    })
}
