//! OVA: a tar file with the OVF description, the manifest and the VMDK, in this order.
//!
//! The VMDK is written first, behind the room that the others need: their lengths are known.
//! Source: DMTF DSP0243, Open Virtualization Format Specification, "Distribution as a single file"
//! (ustar) and "OVF package" (the manifest).

use std::io::{self, Seek, SeekFrom, Write};

use tar::{EntryType, Header};

use super::ovf::{Machine, Template};
use super::{DiskFormat, DiskName, Options};
use crate::oci::Digest;

const BLOCK: u64 = 512;

/// What is around the VMDK.
pub(super) struct Frame<'a> {
    name: &'a DiskName,
    template: &'a Template,
    /// The size of the disk.
    capacity: u64,
}

impl<'a> Frame<'a> {
    /// For a disk of `capacity` bytes.
    pub(super) fn new(options: &'a Options, capacity: u64) -> io::Result<Frame<'a>> {
        let template = options.template.as_ref();
        let template = template.ok_or_else(|| io::Error::other("there is no template of its OVF"))?;
        Ok(Frame { name: &options.name, template, capacity })
    }

    /// Where the VMDK begins.
    pub(super) fn vmdk_at(&self) -> u64 {
        let ovf = self.ovf(0);
        let manifest = self.manifest(&ovf, Digest::of(b""));
        let entry = |len: usize| BLOCK + (len as u64).next_multiple_of(BLOCK);
        entry(ovf.len()) + entry(manifest.len()) + BLOCK
    }

    /// Writes what is before the VMDK, and what is after it.
    pub(super) fn finish(
        &self,
        out: &mut (impl Write + Seek),
        vmdk_size: u64,
        digest: Digest,
    ) -> io::Result<()> {
        let ovf = self.ovf(vmdk_size);
        let manifest = self.manifest(&ovf, digest);
        out.seek(SeekFrom::Start(0))?;
        for (file, text) in [(self.file("ovf"), ovf), (self.file("mf"), manifest)] {
            out.write_all(header(&file, text.len() as u64)?.as_bytes())?;
            out.write_all(text.as_bytes())?;
            let padding = text.len().next_multiple_of(BLOCK as usize) - text.len();
            out.write_all(&[0; BLOCK as usize][..padding])?;
        }
        out.write_all(header(&self.vmdk_file(), vmdk_size)?.as_bytes())?;
        // A VMDK is whole sectors, which are as long as a tar file's blocks. Two empty ones end it.
        out.seek(SeekFrom::Start(self.vmdk_at() + vmdk_size))?;
        out.write_all(&[0; 2 * BLOCK as usize])
    }

    fn ovf(&self, vmdk_size: u64) -> String {
        self.template.fill(Machine {
            name: &self.name.to_string(),
            disk_file: &self.vmdk_file(),
            disk_file_size: vmdk_size,
            capacity: self.capacity,
        })
    }

    fn manifest(&self, ovf: &str, vmdk: Digest) -> String {
        let line = |file: &str, digest: Digest| format!("SHA256({file})= {}\n", digest.hex());
        line(&self.file("ovf"), Digest::of(ovf.as_bytes())) + &line(&self.vmdk_file(), vmdk)
    }

    fn vmdk_file(&self) -> String {
        self.name.file(DiskFormat::Vmdk)
    }

    fn file(&self, extension: &str) -> String {
        format!("{}.{extension}", self.name)
    }
}

/// The header of a file; a size of 8 GiB and more is in base 256, which every tar reads.
fn header(name: &str, size: u64) -> io::Result<Header> {
    let mut header = Header::new_ustar();
    header.set_path(name)?;
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    Ok(header)
}
