//! What is where on a disk that is made here, and by which numbers it is told from others.

use std::fmt::Write as _;

use super::grub::{CORE_SECTOR, SECTOR};
use crate::oci::{Arch, Digest, Uuid};

/// Partitions begin at whole MiB, as every partitioning program has it.
pub(super) const MIB: u64 = 1 << 20;
const ESP_START: u64 = 2 * MIB;
/// The least that FAT32 takes with sectors of 512 bytes is 33 MiB.
const ESP_SIZE: u64 = 64 * MIB;
const ROOT_START: u64 = ESP_START + ESP_SIZE;
/// At the end the copy of the partition table is: 33 sectors, rounded up.
const TAIL: u64 = MIB;

/// How large a disk is whose root has `root` bytes.
pub(super) fn size_with_root(root: u64) -> u64 {
    (ROOT_START + root + TAIL).next_multiple_of(MIB)
}

/// Partition types. Source: UEFI specification, 5.3.3; GRUB, "BIOS installation"; UAPI, Discoverable
/// Partitions Specification, which systemd-repart goes by.
const BIOS_BOOT: &str = "21686148-6449-6E6F-744E-656564454649";
const ESP: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";

/// What an architecture's firmware wants. Source: UEFI specification, 3.5.1.1, for the file's name.
pub(super) struct Firmware {
    pub(super) root_type: &'static str,
    pub(super) efi_target: &'static str,
    pub(super) efi_name: &'static str,
    pub(super) efi_modules: &'static str,
    /// Empty where there is none.
    pub(super) bios_target: &'static str,
    pub(super) bios_modules: &'static str,
}

/// An architecture that GRUB boots from the partitions that are made here.
pub(super) fn firmware(arch: Arch) -> Option<Firmware> {
    match arch {
        Arch::Amd64 => Some(Firmware {
            root_type: "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
            efi_target: "x86_64-efi",
            efi_name: "BOOTX64.EFI",
            efi_modules: "fat efi_gop efi_uga all_video",
            bios_target: "i386-pc",
            bios_modules: "biosdisk linux16",
        }),
        Arch::Arm64 => Some(Firmware {
            root_type: "B921B045-1DF0-41C3-AF44-4C6F280D3FAE",
            efi_target: "arm64-efi",
            efi_name: "BOOTAA64.EFI",
            efi_modules: "fat efi_gop all_video",
            bios_target: "",
            bios_modules: "",
        }),
        Arch::Ppc64le | Arch::S390x => None,
    }
}

/// A disk's places and numbers, the latter from what is on it: the same disk has the same ones.
pub(super) struct Layout {
    /// Whole MiB.
    size: u64,
    inputs: Digest,
}

impl Layout {
    /// For a disk of `size` bytes, made of `inputs`.
    pub(super) fn new(size: u64, inputs: Digest) -> Layout {
        Layout { size, inputs }
    }

    pub(super) fn esp_offset(&self) -> u64 {
        ESP_START
    }

    pub(super) fn esp_sectors(&self) -> u64 {
        ESP_SIZE / SECTOR as u64
    }

    pub(super) fn root_offset(&self) -> u64 {
        ROOT_START
    }

    pub(super) fn root_kib(&self) -> u64 {
        (self.size - ROOT_START - TAIL) / 1024
    }

    pub(super) fn root_uuid(&self) -> String {
        self.uuid("root file system")
    }

    pub(super) fn hash_seed(&self) -> String {
        self.uuid("directory hashes")
    }

    /// The FAT's serial number, 32 bits.
    pub(super) fn esp_serial(&self) -> String {
        self.uuid("esp file system")[..8].to_owned()
    }

    /// The partition table, as sfdisk reads it.
    pub(super) fn partitions(&self, firmware: &Firmware) -> String {
        let mut table = format!("label: gpt\nlabel-id: {}\n", self.uuid("table"));
        let core = CORE_SECTOR * SECTOR as u64;
        let mut add = |name: &str, start: u64, size: u64, kind: &str| {
            let (start, size, uuid) = (start / SECTOR as u64, size / SECTOR as u64, self.uuid(name));
            // Writing to a String does not fail.
            writeln!(table, "start={start}, size={size}, type={kind}, uuid={uuid}, name={name}").ok();
        };
        if !firmware.bios_target.is_empty() {
            add("bios", core, ESP_START - core, BIOS_BOOT);
        }
        add("esp", ESP_START, ESP_SIZE, ESP);
        add("root", ROOT_START, self.size - ROOT_START - TAIL, firmware.root_type);
        table
    }

    /// A UUID for `what`.
    fn uuid(&self, what: &str) -> String {
        Uuid::from(Digest::of(format!("{}\n{what}", self.inputs).as_bytes())).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_inputs_have_the_same_numbers() {
        let layout = Layout::new(10 << 30, Digest::of(b"image"));
        let amd64 = firmware(Arch::Amd64).unwrap();
        insta::assert_snapshot!(layout.partitions(&amd64), @"
        label: gpt
        label-id: cc890d1f-b78c-89b9-9b9e-7b90b0123b51
        start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649, uuid=9956ddaa-1358-8bff-99d3-4ead0347a2d4, name=bios
        start=4096, size=131072, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid=5655b057-99fc-83cc-951d-58ac1132187d, name=esp
        start=135168, size=20834304, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, uuid=589b3e50-2e13-802a-bcc2-86740652da8d, name=root
        ");
        insta::assert_snapshot!(layout.root_uuid(), @"ee7b7cfa-8d16-8c12-84e1-abe1bb3e256d");
        let arm64 = layout.partitions(&firmware(Arch::Arm64).unwrap());
        assert_eq!(arm64.matches("start=").count(), 2, "{arm64}");
        assert_ne!(Layout::new(10 << 30, Digest::of(b"other")).root_uuid(), layout.root_uuid());
        assert_eq!(layout.esp_serial().len(), 8);
        assert_eq!(layout.root_offset() + layout.root_kib() * 1024 + TAIL, 10 << 30);
    }
}
