//! What kinds of disk there are, and what each wants of a disk's size.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A file that a hypervisor, a cloud or `dd` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub(crate) enum DiskFormat {
    /// The disk's bytes, as a sparse file.
    Raw,
    /// The same, for AWS to import.
    Ami,
    /// qcow2 version 3, compressed: QEMU, libvirt, OpenStack.
    Qcow2,
    /// VMDK streamOptimized: VMware.
    Vmdk,
    /// Fixed VHD: Azure.
    Vhd,
    /// A tar file with `disk.raw`, in gzip: Google Compute Engine.
    Gce,
    /// A VMDK with its OVF description: vSphere, VirtualBox.
    Ova,
    /// An installer's medium: it writes the disk onto a machine's own. Of an image alone, whose kernel
    /// and boot loader are on it.
    Iso,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a disk format: there are {}{}", names(), closest_note(.closest))]
pub(crate) struct UnknownFormat {
    given: String,
    closest: Option<DiskFormat>,
}

impl DiskFormat {
    pub(crate) const ALL: [DiskFormat; 8] = [
        DiskFormat::Raw,
        DiskFormat::Ami,
        DiskFormat::Qcow2,
        DiskFormat::Vmdk,
        DiskFormat::Vhd,
        DiskFormat::Gce,
        DiskFormat::Ova,
        DiskFormat::Iso,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            DiskFormat::Raw => "raw",
            DiskFormat::Ami => "ami",
            DiskFormat::Qcow2 => "qcow2",
            DiskFormat::Vmdk => "vmdk",
            DiskFormat::Vhd => "vhd",
            DiskFormat::Gce => "gce",
            DiskFormat::Ova => "ova",
            DiskFormat::Iso => "iso",
        }
    }

    /// What follows the name of a file of this format, without the first dot. No two formats share
    /// one, so that all of them fit into one folder.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            DiskFormat::Raw => "raw",
            DiskFormat::Ami => "ami.raw",
            DiskFormat::Qcow2 => "qcow2",
            DiskFormat::Vmdk => "vmdk",
            DiskFormat::Vhd => "vhd",
            // The ending that Compute Engine insists on.
            DiskFormat::Gce => "tar.gz",
            DiskFormat::Ova => "ova",
            DiskFormat::Iso => "iso",
        }
    }

    /// The size of a disk in this format is a multiple of so many bytes.
    pub(crate) fn granularity(self) -> u64 {
        match self {
            // As it came: only raw can be of any size.
            DiskFormat::Raw | DiskFormat::Ami => 1,
            // A sector. Source: QEMU, docs/interop/qcow2.txt; QEMU's block layer counts in sectors.
            DiskFormat::Qcow2 => 512,
            // A grain. Source: VMware Virtual Disks, Virtual Disk Format 5.0, "capacity".
            DiskFormat::Vmdk | DiskFormat::Ova => 64 << 10,
            // Source: Azure, "Prepare a Linux VHD": whole MiB, the footer not counted.
            DiskFormat::Vhd => 1 << 20,
            // What its installer writes at a time.
            DiskFormat::Iso => super::CHUNK_BYTES,
            // Source: Google Cloud, "Import a custom image": whole GiB.
            DiskFormat::Gce => 1 << 30,
        }
    }

    /// The largest disk that this format can describe, in bytes.
    pub(crate) fn largest(self) -> u64 {
        match self {
            // What a signed offset, and so a file, can have.
            DiskFormat::Raw | DiskFormat::Ami | DiskFormat::Gce | DiskFormat::Iso => i64::MAX as u64,
            // 32 MiB of L1 table, QEMU's own limit, with clusters of 64 KiB.
            DiskFormat::Qcow2 => 2 << 50,
            // A grain directory counts sectors in 32 bits.
            DiskFormat::Vmdk | DiskFormat::Ova => 2 << 40,
            // Source: Virtual Hard Disk Image Format Specification: 2040 GB.
            DiskFormat::Vhd => 2040 << 30,
        }
    }
}

impl fmt::Display for DiskFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl TryFrom<String> for DiskFormat {
    type Error = UnknownFormat;

    fn try_from(text: String) -> Result<DiskFormat, UnknownFormat> {
        text.parse()
    }
}

impl FromStr for DiskFormat {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<DiskFormat, UnknownFormat> {
        let named = DiskFormat::ALL.into_iter().find(|format| format.name() == text);
        named.ok_or_else(|| UnknownFormat { given: text.to_owned(), closest: closest(text) })
    }
}

/// The format whose name is typed like `text`, if one is: two wrong letters are a typing mistake,
/// three are another word.
fn closest(text: &str) -> Option<DiskFormat> {
    let distance = |format: &DiskFormat| strsim::damerau_levenshtein(format.name(), &text.to_lowercase());
    DiskFormat::ALL
        .into_iter()
        .filter(|format| distance(format) <= 2 && distance(format) < format.name().len())
        .min_by_key(distance)
}

fn names() -> String {
    DiskFormat::ALL.map(DiskFormat::name).join(", ")
}

fn closest_note(closest: &Option<DiskFormat>) -> String {
    closest.map(|format| format!("; did you mean `{format}`?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_name_is_read_and_a_wrong_one_is_answered() {
        for format in DiskFormat::ALL {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        let error = |text: &str| text.parse::<DiskFormat>().unwrap_err().to_string();
        insta::assert_snapshot!(
            error("qcow"),
            @"`qcow` is not a disk format: there are raw, ami, qcow2, vmdk, vhd, gce, ova, iso; did you mean `qcow2`?"
        );
        insta::assert_snapshot!(
            error("floppy"),
            @"`floppy` is not a disk format: there are raw, ami, qcow2, vmdk, vhd, gce, ova, iso"
        );
        for (text, expected) in [("VMDK", "vmdk"), ("vdmk", "vmdk"), ("gec", "gce"), ("OVA", "ova")] {
            assert!(error(text).ends_with(&format!("did you mean `{expected}`?")), "{text}");
        }
    }

    #[test]
    fn all_formats_fit_into_one_folder() {
        let extensions: BTreeSet<&str> = DiskFormat::ALL.map(DiskFormat::extension).into();
        assert_eq!(extensions.len(), DiskFormat::ALL.len());
    }
}
