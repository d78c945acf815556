//! The room that an image takes while it installs itself: memory for its files and programs, and space
//! where its disk is made.

use std::fs;

use anyhow::{Context, Result, anyhow};

use super::Order;
use super::ready::{self, Claim, UNPACKED};
use crate::hint::hinted;
use crate::preflight::Lack;
use crate::progress::human_bytes;
use crate::source::Home;

/// What file systems and programs take besides, roughly, in bytes.
const MORE: u64 = 128 << 20;
const SPACE_REMEDY: &str = "free some space";
const MEMORY_REMEDY: &str = "free some memory, or add swap, which counts as well";

/// Bytes of each.
pub(super) struct Room {
    pub(super) memory: u64,
    disk: u64,
}

impl Room {
    /// Of an image with so many bytes in files.
    pub(super) fn new(content: u64) -> Room {
        // What is smaller than a page of memory, or a block of the disk, takes one.
        let times = |quarters: u64| (content / 4).saturating_mul(quarters);
        Room { memory: times(5).saturating_add(MORE), disk: times(6).saturating_add(MORE) }
    }

    /// An error, if there is less.
    pub(super) fn check(&self, order: &Order<'_>) -> Result<()> {
        let lacks = self.lacks(vec![Claim::new(order.kept, self.disk)?])?;
        if lacks.is_empty() {
            return Ok(());
        }
        let (lines, remedies): (Vec<String>, Vec<String>) =
            lacks.into_iter().map(|lack| (lack.what, lack.remedy)).unzip();
        Err(hinted(anyhow!("{}", lines.join("\n")), remedies.join("; ")))
    }

    fn lacks(&self, claims: Vec<Claim>) -> Result<Vec<Lack>> {
        let meminfo = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
        let available = available_memory(&meminfo);
        let mut lacks = ready::shortages(&claims, SPACE_REMEDY);
        if available < self.memory {
            let (available, memory) = (human_bytes(available), human_bytes(self.memory));
            let what = format!("{available} of memory are free, and it takes about {memory}");
            lacks.push(Lack { what, remedy: MEMORY_REMEDY.to_owned() });
        }
        Ok(lacks)
    }
}

/// What there is too little of for an image whose layers are still packed, and for its formats.
pub(super) fn lacks(order: &Order<'_>) -> Result<Vec<Lack>> {
    let packed = order.image.packed_size();
    let content = packed.saturating_mul(UNPACKED);
    let room = Room::new(content);
    let fetched = match order.image.home() {
        Home::Registry(_) => packed,
        Home::Layout(_) => 0,
    };
    // Its layers are unpacked beside the disk.
    let claims = [
        (order.kept, room.disk.saturating_add(content)),
        (order.fetched, fetched),
        (order.output, ready::outputs(order)),
    ];
    let claims = claims.into_iter().filter(|(_, bytes)| *bytes > 0);
    let claims = claims.map(|(folder, bytes)| Claim::new(folder, bytes));
    room.lacks(claims.collect::<Result<_>>()?)
}

/// Bytes that programs can have, swap included. Source: proc_meminfo(5).
fn available_memory(meminfo: &str) -> u64 {
    let lines = meminfo.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        let counts = matches!(name, "MemAvailable" | "SwapFree");
        value.trim().strip_suffix(" kB")?.parse::<u64>().ok().filter(|_| counts)
    });
    lines.map(|kib| kib * 1024).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_counts_as_memory() {
        let meminfo = "MemTotal:  9 kB\nMemAvailable:    2 kB\nHugePages_Free: 7\nSwapFree:  3 kB\n";
        assert_eq!(available_memory(meminfo), 5 * 1024);
    }

    #[test]
    fn all_that_is_too_little_is_told() {
        let room = Room::new(u64::MAX);
        let folder = std::env::temp_dir();
        let lacks = room.lacks(vec![Claim::new(&folder, room.disk).unwrap()]).unwrap();
        let told: Vec<&str> = lacks.iter().map(|lack| lack.what.rsplit(", and ").next().unwrap()).collect();
        assert_eq!(told, ["it takes about 18446744 TB"; 2]);
        assert!(Room::new(0).lacks(Vec::new()).unwrap().is_empty());
    }
}
