//! A disk image of any format -> a copy-on-write layer over it. What a guest writes goes there, and
//! the file stays as it is.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use xshell::{Shell, cmd};

use crate::exec;
use crate::hint::WithHint;
use crate::preflight::{Need, Source};

pub(super) const QEMU_IMG: Need = Need {
    program: "qemu-img",
    purpose: "keeps what the guest writes apart from the disk",
    from: Source::Debian("qemu-utils"),
};

const GIB: u64 = 1 << 30;
/// So much of a disk has the folders of its EFI system partition: all builders put it first, and mkfs.fat
/// puts them behind its tables.
const START_MIB: &str = "64";
/// In bytes, and what begins one: the name that firmware looks for without being told, as FAT has it.
/// Source: UEFI specification, 3.5.1.1; Microsoft, FAT specification, 6.1.
const DIRECTORY_ENTRY: usize = 32;
const LOADER_AMD64: &[u8] = b"BOOTX64 EFI";
const LOADER_ARM64: &[u8] = b"BOOTAA64EFI";

/// A disk in a file.
#[derive(Debug, PartialEq, Eq)]
struct Image {
    path: PathBuf,
    /// QEMU's name of the format.
    format: &'static str,
    /// The part of the file that it is, where it is not the whole.
    part: Option<Part>,
}

/// Bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    offset: u64,
    size: u64,
}

/// Makes a layer over `disk` in `folder`. It is a quarter larger than the disk, as a disk on a host
/// is larger than the image that was written to it.
pub(super) fn layer_over(disk: &Path, folder: &Path) -> Result<PathBuf> {
    let reading = || format!("reading the disk {}", disk.display());
    let image = Image::find(disk).with_context(reading)?;
    let name = image.name();
    let sh = Shell::new()?;
    let info = exec::read(cmd!(sh, "qemu-img info --output=json {name}")).with_context(reading)?;
    let info: Value = serde_json::from_str(&info).context("reading what qemu-img says")?;
    let size = info["virtual-size"].as_u64().context("qemu-img does not say how large it is")?;
    let (layer, format) = (folder.join("disk.qcow2"), image.format);
    let size = (size + grown_by(size)).to_string();
    exec::run(cmd!(sh, "qemu-img create -q -f qcow2 -F {format} -b {name} {layer} {size}"))
        .with_context(|| format!("making a layer over {}", disk.display()))?;
    let start = folder.join("start.raw");
    let read =
        exec::run(cmd!(sh, "qemu-img dd -f qcow2 -O raw bs=1M count={START_MIB} if={layer} of={start}"));
    let bytes = read.map_err(anyhow::Error::from).and_then(|()| Ok(fs::read(&start)?));
    check_boot_loader(&bytes.with_context(reading)?, disk)?;
    fs::remove_file(&start).with_context(|| format!("removing {}", start.display()))?;
    Ok(layer)
}

/// Refuses a disk that has a boot loader, and none for the machine here: it would be waited for in vain.
fn check_boot_loader(start: &[u8], disk: &Path) -> Result<()> {
    let has = |name: &[u8]| start.chunks_exact(DIRECTORY_ENTRY).any(|entry| entry.starts_with(name));
    if has(LOADER_AMD64) || !has(LOADER_ARM64) {
        return Ok(());
    }
    Err(anyhow!("{} is for arm64, and the machine here is an amd64 one", disk.display())).hint(format!(
        "boot it by hand, with qemu-system-arm and qemu-efi-aarch64 from Debian: 'qemu-system-aarch64 -machine virt \
         -cpu max -m 2048 -nographic -snapshot -bios /usr/share/qemu-efi-aarch64/QEMU_EFI.fd -drive if=virtio,file={}'",
        disk.display()
    ))
}

/// By how much more a guest's disk has: so much that a root file system that did not grow is told
/// from one that did.
fn grown_by(size: u64) -> u64 {
    (size / 4).next_multiple_of(GIB)
}

impl Image {
    /// Finds out what `disk` is, by the file's ending.
    fn find(disk: &Path) -> Result<Image> {
        // The layer, which is elsewhere, names it.
        let path = fs::canonicalize(disk).hint("'cargo xtask disk qcow2' makes one")?;
        let ending = disk.extension().unwrap_or_default().to_string_lossy();
        let (format, part) = match &*ending {
            "qcow2" => ("qcow2", None),
            "raw" | "img" => ("raw", None),
            "vmdk" => ("vmdk", None),
            "vhd" => ("vpc", None),
            "ova" => ("vmdk", Some(vmdk_inside(&path)?)),
            _ => {
                return Err(anyhow!("{} is no disk that QEMU boots", disk.display()))
                    .hint("name a file that ends in .qcow2, .raw, .img, .vmdk, .vhd or .ova");
            }
        };
        Ok(Image { path, format, part })
    }

    /// How QEMU is told of it. Source: QEMU's manual, "Device URL Syntax", and qapi/block-core.json.
    fn name(&self) -> String {
        let filename = self.path.to_string_lossy();
        let file = match self.part {
            None => json!({"driver": "file", "filename": filename}),
            Some(Part { offset, size }) => json!({
                "driver": "raw", "offset": offset, "size": size,
                "file": {"driver": "file", "filename": filename},
            }),
        };
        format!("json:{}", json!({"driver": self.format, "file": file}))
    }
}

/// Where in an OVA its disk is, so that nothing has to be unpacked. Source: DSP0243, 5: an OVA is a tar.
fn vmdk_inside(ova: &Path) -> Result<Part> {
    let mut archive = tar::Archive::new(File::open(ova)?);
    for entry in archive.entries_with_seek().context("it is no OVA")? {
        let entry = entry.context("it is no OVA")?;
        if entry.path().context("it is no OVA")?.extension().is_some_and(|ending| ending == "vmdk") {
            return Ok(Part { offset: entry.raw_file_position(), size: entry.size() });
        }
    }
    Err(anyhow!("there is no VMDK in it")).hint("unpack it with 'tar --extract', and name the disk in it")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_ova(path: &Path, name: &str) {
        let mut builder = tar::Builder::new(File::create(path).unwrap());
        for (name, content) in [("os.ovf", &b"<Envelope/>"[..]), (name, &[7; 1024])] {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, content).unwrap();
        }
        builder.finish().unwrap();
    }

    #[test]
    fn the_file_says_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let find = |name: &str| {
            let path = dir.path().join(name);
            if !path.exists() {
                fs::write(&path, "").unwrap();
            }
            Image::find(&path)
        };
        for (name, format) in
            [("a.qcow2", "qcow2"), ("a.raw", "raw"), ("a.img", "raw"), ("a,b.vmdk", "vmdk"), ("a.vhd", "vpc")]
        {
            let image = find(name).unwrap();
            assert_eq!((image.format, image.part), (format, None));
        }
        write_ova(&dir.path().join("a.ova"), "os-disk1.vmdk");
        let image = find("a.ova").unwrap();
        assert_eq!((image.format, image.part), ("vmdk", Some(Part { offset: 1536, size: 1024 })));
        write_ova(&dir.path().join("b.ova"), "os.iso");
        assert_eq!(find("b.ova").unwrap_err().to_string(), "there is no VMDK in it");
        assert!(find("c.ova").is_err());
        assert!(find("x.tar.gz").unwrap_err().to_string().ends_with("x.tar.gz is no disk that QEMU boots"));
    }

    #[test]
    fn a_disk_for_other_processors_is_refused() {
        let check = |loaders: &[&[u8]]| {
            let mut start = vec![0; 4096];
            for (number, loader) in loaders.iter().enumerate() {
                let at = 512 + number * DIRECTORY_ENTRY;
                start[at..at + loader.len()].copy_from_slice(loader);
            }
            check_boot_loader(&start, Path::new("os.qcow2")).map_err(|error| error.to_string()).err()
        };
        let refused = Some("os.qcow2 is for arm64, and the machine here is an amd64 one".to_owned());
        assert_eq!(check(&[LOADER_ARM64]), refused);
        // A BIOS needs no such loader, and one disk may be for both.
        assert_eq!((check(&[]), check(&[LOADER_AMD64, LOADER_ARM64])), (None, None));
    }

    #[test]
    fn a_part_of_a_file_is_named() {
        let part = Some(Part { offset: 1536, size: 1024 });
        let image = Image { path: "/a,\"b.ova".into(), format: "vmdk", part };
        insta::assert_snapshot!(image.name(), @r#"json:{"driver":"vmdk","file":{"driver":"raw","offset":1536,"size":1024,"file":{"driver":"file","filename":"/a,\"b.ova"}}}"#);
    }

    #[test]
    fn a_root_that_did_not_grow_is_told_from_one_that_did() {
        for gib in [1, 2, 10, 100] {
            let size = gib * GIB;
            // What checks.sh asks for.
            assert!(size * 100 < (size + grown_by(size)) * 85, "{gib} GiB");
        }
    }

    #[test]
    fn a_layer_is_larger_and_the_disk_stays() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("os.raw");
        File::create(&disk).unwrap().set_len(GIB).unwrap();
        let layer = layer_over(&disk, dir.path()).unwrap();
        let sh = Shell::new().unwrap();
        let info = exec::read(cmd!(sh, "qemu-img info --output=json {layer}")).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&info).unwrap()["virtual-size"], 2 * GIB);
        assert_eq!(fs::metadata(&disk).unwrap().len(), GIB);
    }
}
