//! The footer that makes a raw disk a fixed VHD.
//!
//! Source: Microsoft, Virtual Hard Disk Image Format Specification 1.0, "Hard Disk Footer Format".

use crate::oci::{Digest, Uuid};

/// What the footer is long.
pub(super) const FOOTER: usize = 512;
/// "Reserved", which is always set.
const FEATURES: u32 = 2;
const VERSION: u32 = 1 << 16;
/// No dynamic header follows.
const NO_HEADER: u64 = u64::MAX;
const FIXED: u32 = 2;
/// Hyper-V's own name: readers (QEMU among them) take the size of its disks from the field for the
/// size, and not from the geometry, which cannot say it exactly.
const CREATOR: &[u8; 4] = b"win ";
const CREATOR_VERSION: u32 = 10 << 16;
const CREATOR_HOST: &[u8; 4] = b"Wi2k";
const CHECKSUM: std::ops::Range<usize> = 64..68;

/// The footer of a disk of `size` bytes; its UUID is made from the content.
pub(super) fn footer(size: u64, content: Digest) -> [u8; FOOTER] {
    let mut bytes = Vec::new();
    bytes.extend(b"conectix");
    bytes.extend(FEATURES.to_be_bytes());
    bytes.extend(VERSION.to_be_bytes());
    bytes.extend(NO_HEADER.to_be_bytes());
    // The time of creation, in seconds since 2000: the same content is the same file.
    bytes.extend(0_u32.to_be_bytes());
    bytes.extend(CREATOR);
    bytes.extend(CREATOR_VERSION.to_be_bytes());
    bytes.extend(CREATOR_HOST);
    // The original size and the current one.
    bytes.extend(size.to_be_bytes());
    bytes.extend(size.to_be_bytes());
    let (cylinders, heads, sectors) = geometry(size / 512);
    bytes.extend(cylinders.to_be_bytes());
    bytes.extend([heads, sectors]);
    bytes.extend(FIXED.to_be_bytes());
    // The checksum, which counts as zero in itself.
    bytes.extend([0; 4]);
    bytes.extend(Uuid::from(content).bytes());
    let mut footer = [0; FOOTER];
    footer[..bytes.len()].copy_from_slice(&bytes);
    let sum: u32 = footer.iter().map(|byte| u32::from(*byte)).sum();
    footer[CHECKSUM].copy_from_slice(&(!sum).to_be_bytes());
    footer
}

/// Cylinders, heads and sectors a track. Source: the specification's appendix, "CHS Calculation".
fn geometry(total: u64) -> (u16, u8, u8) {
    let total = total.min(65535 * 16 * 255);
    let (sectors, heads, tracks);
    if total >= 65535 * 16 * 63 {
        (sectors, heads) = (255, 16);
        tracks = total / sectors;
    } else {
        let by_17 = total / 17;
        let least = by_17.div_ceil(1024).max(4);
        if by_17 < least * 1024 && least <= 16 {
            (sectors, heads, tracks) = (17, least, by_17);
        } else if total / 31 < 16 * 1024 {
            (sectors, heads, tracks) = (31, 16, total / 31);
        } else {
            (sectors, heads, tracks) = (63, 16, total / 63);
        }
    }
    ((tracks / heads) as u16, heads as u8, sectors as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geometry_is_the_specifications() {
        // Worked out by hand; sizes are in MiB.
        for (mib, expected) in [
            (1, (30, 4, 17)),
            (20, (602, 4, 17)),
            (200, (825, 16, 31)),
            (504, (1024, 16, 63)),
            (1024, (2080, 16, 63)),
            (8192, (16644, 16, 63)),
            (40960, (20560, 16, 255)),
            (1 << 20, (65535, 16, 255)),
        ] {
            assert_eq!(geometry(mib * 2048), expected, "{mib} MiB");
        }
    }
}
