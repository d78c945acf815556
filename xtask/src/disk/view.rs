//! A disk's content as a format sees it: its size rounded up, and what that changes.

use super::DiskFormat;
use super::gpt::Gpt;

/// What is read instead of the raw's own bytes, and how long the disk is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) size: u64,
    /// In the order in which they are laid over the raw's bytes.
    pub(super) overlays: Vec<Overlay>,
}

/// Bytes that stand in for the raw's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Overlay {
    pub(super) at: u64,
    pub(super) bytes: Vec<u8>,
}

impl View {
    /// A raw of `len` bytes in a format. When it grows, the partition table's copy has to move to
    /// the new end: that is where firmware and kernel look for it.
    pub(super) fn new(format: DiskFormat, len: u64, gpt: Option<&Gpt>) -> View {
        let size = len.next_multiple_of(format.granularity());
        let overlays = match gpt {
            Some(gpt) if size != len => gpt.moved_to_end_of(size),
            Some(_) | None => Vec::new(),
        };
        View { size, overlays }
    }
}

impl Overlay {
    fn end(&self) -> u64 {
        self.at + self.bytes.len() as u64
    }

    /// Whether some of it is in the `len` bytes from `at`.
    pub(super) fn touches(&self, at: u64, len: usize) -> bool {
        self.at < at + len as u64 && at < self.end()
    }

    /// Lays it over the bytes that begin at `at`.
    pub(super) fn apply(&self, at: u64, bytes: &mut [u8]) {
        let start = self.at.max(at);
        let end = self.end().min(at + bytes.len() as u64);
        if start < end {
            let (to, from) = ((start - at) as usize, (start - self.at) as usize);
            let len = (end - start) as usize;
            bytes[to..to + len].copy_from_slice(&self.bytes[from..from + len]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_covers_what_it_overlaps() {
        let overlay = Overlay { at: 10, bytes: b"abcd".to_vec() };
        for (at, expected) in
            [(5, "....."), (6, "....a"), (9, ".abcd"), (11, "bcd.."), (13, "d...."), (14, ".....")]
        {
            let mut bytes = *b".....";
            overlay.apply(at, &mut bytes);
            assert_eq!(std::str::from_utf8(&bytes).unwrap(), expected, "at {at}");
            assert_eq!(overlay.touches(at, 5), expected != ".....", "at {at}");
        }
    }

    #[test]
    fn a_size_is_rounded_up_to_what_the_format_takes() {
        let size = |format, len| View::new(format, len, None).size;
        for (format, expected) in [
            (DiskFormat::Raw, 1_000_001),
            (DiskFormat::Qcow2, 1_000_448),
            (DiskFormat::Vmdk, 1_048_576),
            (DiskFormat::Vhd, 1_048_576),
            (DiskFormat::Gce, 1_073_741_824),
        ] {
            assert_eq!(size(format, 1_000_001), expected, "{format}");
            assert_eq!(size(format, expected), expected, "{format}");
        }
    }
}
