//! GRUB for a BIOS, put into place without its own installer, which wants a device.

/// The sector of the disk at which core.img begins: that of the BIOS boot partition.
pub(super) const CORE_SECTOR: u64 = 2048;
/// What the BIOS boot partition holds.
pub(super) const CORE_MOST: usize = 1 << 20;
pub(super) const SECTOR: usize = 512;

/// How much of the disk's first sector is code; a label and a partition table follow.
const CODE: usize = 440;
/// Where boot.img has the sector of core.img. Source: GRUB, include/grub/i386/pc/boot.h,
/// `GRUB_BOOT_MACHINE_KERNEL_SECTOR`.
const KERNEL_SECTOR: usize = 0x5c;
/// The drive to boot from, of which 0xff means the one that the BIOS has booted.
/// Source: there, `GRUB_BOOT_MACHINE_BOOT_DRIVE`.
const BOOT_DRIVE: usize = 0x64;
/// A jump that GRUB's installer replaces by nothing, so that a BIOS's wrong drive number is
/// corrected. Source: there, `GRUB_BOOT_MACHINE_DRIVE_CHECK`; util/setup.c.
const DRIVE_CHECK: usize = 0x66;
const NOP: u8 = 0x90;
/// Where core.img's first sector lists the rest: a sector (8 bytes), a count (2), a segment (2).
/// Source: there, `GRUB_BOOT_MACHINE_LIST_SIZE`.
const BLOCK_LIST: usize = SECTOR - 12;
/// The segment at which the rest is loaded. Source: there, `GRUB_BOOT_MACHINE_KERNEL_SEG`, and
/// util/setup.c, which adds the first sector.
const SEGMENT: u16 = 0x820;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum GrubError {
    #[error("boot.img has {0} bytes, and not {SECTOR}")]
    BootImage(usize),
    #[error("core.img has {0} bytes, which is not between {SECTOR} and {CORE_MOST}")]
    CoreImage(usize),
}

/// What goes to the disk's beginning, and what to [`CORE_SECTOR`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Boot {
    pub(super) code: Vec<u8>,
    pub(super) core: Vec<u8>,
}

/// Ties `boot_image` and `core_image`, as GRUB comes with and makes them, to their places.
pub(super) fn embed(boot_image: &[u8], core_image: &[u8]) -> Result<Boot, GrubError> {
    if boot_image.len() != SECTOR {
        return Err(GrubError::BootImage(boot_image.len()));
    }
    if !(SECTOR + 1..=CORE_MOST).contains(&core_image.len()) {
        return Err(GrubError::CoreImage(core_image.len()));
    }
    let mut code = boot_image[..CODE].to_vec();
    code[KERNEL_SECTOR..][..8].copy_from_slice(&CORE_SECTOR.to_le_bytes());
    code[BOOT_DRIVE] = 0xff;
    code[DRIVE_CHECK..][..2].fill(NOP);

    let mut core = core_image.to_vec();
    core.resize(core_image.len().next_multiple_of(SECTOR), 0);
    // Of 2048 at most, the first is loaded already.
    let rest = (core.len() / SECTOR - 1) as u16;
    core[BLOCK_LIST..][..8].copy_from_slice(&(CORE_SECTOR + 1).to_le_bytes());
    core[BLOCK_LIST + 8..][..2].copy_from_slice(&rest.to_le_bytes());
    core[BLOCK_LIST + 10..][..2].copy_from_slice(&SEGMENT.to_le_bytes());
    Ok(Boot { code, core })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_images_know_their_places() {
        let boot = embed(&[7; SECTOR], &[9; 3 * SECTOR + 1]).unwrap();
        assert_eq!(boot.code.len(), 440, "the disk's label stays");
        assert_eq!(boot.code[90..104], [7, 7, 0, 8, 0, 0, 0, 0, 0, 0, 255, 7, 0x90, 0x90]);
        assert_eq!(boot.core.len(), 4 * SECTOR);
        assert_eq!(boot.core[498..514], [9, 9, 1, 8, 0, 0, 0, 0, 0, 0, 3, 0, 0x20, 8, 9, 9]);
    }

    #[test]
    fn other_sizes_are_refused() {
        assert_eq!(embed(&[0; 440], &[0; 1024]), Err(GrubError::BootImage(440)));
        for size in [0, SECTOR, CORE_MOST + 1] {
            assert_eq!(embed(&[0; SECTOR], &vec![0; size]), Err(GrubError::CoreImage(size)));
        }
    }
}
