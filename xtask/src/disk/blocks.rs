//! The pieces in which a disk goes through the writers.

/// The unit of compression: qcow2's cluster and VMDK's grain, which are chosen to be the same.
pub(super) const BLOCK: usize = 64 << 10;
/// The unit of reading, and of what a thread does at a time.
pub(super) const CHUNK: usize = 1 << 20;
/// A sector, in which VMDK and qcow2 count. Both specifications say 512 whatever the device has.
pub(super) const SECTOR: u64 = 512;

/// What a hole reads as.
pub(crate) static ZEROS: [u8; CHUNK] = [0; CHUNK];

/// Whether there is nothing in `bytes`, which is at most a chunk. Comparing slices is the C
/// library's work, so it is fast in a build without optimisation too.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes == &ZEROS[..bytes.len()]
}

/// A chunk of a disk, as one size of it has it.
#[derive(Debug)]
pub(super) struct Picture<'a> {
    /// Where it begins.
    pub(super) at: u64,
    /// Whole blocks; what is beyond the end of the disk is zero.
    pub(super) bytes: &'a [u8],
    /// How much of it is before the end of the disk.
    pub(super) len: usize,
    /// Which blocks hold something, a bit a block, the first block's lowest.
    pub(super) filled: u16,
}

impl Picture<'_> {
    /// The blocks that hold something: their number on the disk, and their bytes.
    pub(super) fn filled_blocks(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let first = self.at / BLOCK as u64;
        let blocks = self.bytes.chunks(BLOCK).enumerate();
        blocks
            .filter(|(index, _)| self.filled & 1 << index != 0)
            .map(move |(index, block)| (first + index as u64, block))
    }

    /// The longest runs of blocks that hold something: where each begins, and its bytes up to the
    /// end of the disk.
    pub(super) fn runs(&self) -> Vec<(u64, &[u8])> {
        let is_filled = |index: usize| self.filled >> index & 1 != 0;
        let blocks = self.len.div_ceil(BLOCK);
        let mut runs = Vec::new();
        let mut start = 0;
        while start < blocks {
            let end = (start..blocks).find(|&index| !is_filled(index)).unwrap_or(blocks);
            if end > start {
                let bytes = &self.bytes[start * BLOCK..self.len.min(end * BLOCK)];
                runs.push((self.at + (start * BLOCK) as u64, bytes));
            }
            start = end + 1;
        }
        runs
    }
}

/// Which blocks of a chunk hold something.
pub(super) fn filled(bytes: &[u8]) -> u16 {
    let blocks = bytes.chunks(BLOCK).enumerate();
    blocks.fold(0, |mask, (index, block)| if is_zero(block) { mask } else { mask | 1 << index })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_of_filled_blocks_and_end_with_the_disk() {
        let mut bytes = vec![0; CHUNK];
        for block in [1, 2, 5, 15] {
            bytes[block * BLOCK + 7] = 1;
        }
        let filled = filled(&bytes);
        assert_eq!(filled, 0b1000_0000_0010_0110);
        let at = 3 * CHUNK as u64;
        let block = BLOCK as u64;
        let runs = |len| {
            let picture = Picture { at, bytes: &bytes, len, filled };
            let runs = picture.runs().into_iter();
            runs.map(|(start, bytes)| ((start - at) / block, bytes.len())).collect::<Vec<_>>()
        };
        assert_eq!(runs(CHUNK), [(1, 2 * BLOCK), (5, BLOCK), (15, BLOCK)]);
        assert_eq!(runs(5 * BLOCK + 3), [(1, 2 * BLOCK), (5, 3)]);
        let picture = Picture { at, bytes: &bytes, len: CHUNK, filled };
        let blocks: Vec<u64> = picture.filled_blocks().map(|(number, _)| number).collect();
        assert_eq!(blocks, [49, 50, 53, 63]);
    }
}
