//! An installer's medium: that it is the same each time, what other readers find on it, and that it
//! boots, asks and refuses.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use insta::assert_snapshot;
use serde_json::Value;

use crate::harness::{Workspace, copy, fingerprint, judge, sha256};
use crate::root;
use crate::testing::program;

const ISO: &str = "disk iso --from oci:../image:os --size 2GiB --output ../disks";

struct Made {
    workspace: Workspace,
    report: Value,
}

/// Made once for all tests, of the base alone with the app.
fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| {
        let base = root::base();
        let workspace = Workspace::new();
        let base = format!("oci:{}:{}", base.layout.dir.display(), base.tag);
        workspace.ok(&format!("build --base {base} --to oci:../image:os --full"));
        let report = workspace.json(ISO);
        Made { workspace, report }
    })
}

impl Made {
    fn iso(&self) -> PathBuf {
        self.workspace.path("../disks/os.iso")
    }
}

#[test]
fn an_image_becomes_an_installer() {
    let made = made();
    let iso = made.iso();
    let output = &made.report["outputs"][0];
    assert_eq!((&output["format"], &output["virtual_size"]), (&"iso".into(), &(2_u64 << 30).into()));
    assert_eq!(format!("sha256:{}", output["sha256"].as_str().unwrap()), sha256(&fs::read(&iso).unwrap()));

    // Two readers find the same files, and in them what the image and the workspace have.
    let [first, second] = ["bsdtar", "xorriso"].map(|name| made.workspace.path(&format!("../{name}")));
    fs::create_dir(&first).unwrap();
    judge("bsdtar", &format!("-C {} -xf {}", first.display(), iso.display()));
    judge("xorriso", &format!("-osirrox on -indev {} -extract / {}", iso.display(), second.display()));
    let files = [
        "BOOT/BIOS.IMG",
        "BOOT/EFI.IMG",
        "BOOT/GRUB/GRUB.CFG",
        "BOOT/INITRD.IMG",
        "BOOT/INSTALL.IMG",
        "BOOT/VMLINUZ",
        "INSTALL/DISK.000",
        "INSTALL/DISK.MAP",
    ];
    for file in files {
        assert!(fs::read(first.join(file)).unwrap() == fs::read(second.join(file)).unwrap(), "{file}");
    }
    for entry in root::base().entries() {
        let file = match entry.path.rsplit_once('/') {
            Some((dir, "vmlinuz")) if dir.starts_with("usr/lib/modules/") => "BOOT/VMLINUZ",
            Some((dir, "initramfs.img")) if dir.starts_with("usr/lib/modules/") => "BOOT/INITRD.IMG",
            Some(_) | None => continue,
        };
        assert!(fs::read(first.join(file)).unwrap() == entry.content, "{file} is the image's {}", entry.path);
    }
    let archive = made.workspace.path("../initramfs");
    fs::create_dir(&archive).unwrap();
    judge("bsdtar", &format!("-C {} -xf {}", archive.display(), first.join("BOOT/INSTALL.IMG").display()));
    let installer = fs::read_to_string(archive.join("install/init")).unwrap();
    assert_eq!(installer, fs::read_to_string(made.workspace.path("configs/builder/installer.sh")).unwrap());
    let config = fs::read_to_string(archive.join("install/config")).unwrap();
    let volume = judge("isoinfo", &format!("-d -i {}", iso.display()));
    let volume = volume.lines().find_map(|line| line.strip_prefix("Volume id: ")).unwrap();
    assert_eq!(config, format!("NAME='os'\nSIZE=2048\nVOLUME='{volume}'\n"));
    for program in ["bin/dd", "bin/sha256sum", "bin/zstd", "sbin/blkdiscard"] {
        assert!(archive.join("usr").join(program).is_file(), "{program}");
    }

    // GRUB takes its configuration, and UEFI finds GRUB.
    root::root().write(
        "/tmp/medium.cfg",
        "0644",
        &fs::read_to_string(first.join("BOOT/GRUB/GRUB.CFG")).unwrap(),
    );
    root::root().ok("grub-script-check /tmp/medium.cfg");
    let esp = judge("mdir", &format!("-b -i {} ::/EFI/BOOT", first.join("BOOT/EFI.IMG").display()));
    assert!(esp.contains("/EFI/BOOT/BOOTX64.EFI"), "{esp}");
    let report = judge(
        "xorriso",
        &format!("-indev {} -report_el_torito plain -report_system_area plain", iso.display()),
    );
    for expected in [
        "El Torito boot img :   1  BIOS  y   none  0x0000  0x00      4 ",
        "El Torito boot img :   2  UEFI  y   none  0x0000  0x00   8192 ",
        "protective-msdos-label grub2-mbr cyl-align-off GPT",
        "GPT partition path :   1  /BOOT/EFI.IMG",
    ] {
        assert!(report.contains(expected), "{expected} in {report}");
    }
    judge("shellcheck", made.workspace.path("configs/builder/installer.sh").to_str().unwrap());
}

#[test]
fn the_same_image_is_the_same_installer() {
    let made = made();
    let target = || fingerprint(&made.workspace.path("target/xtask"));
    let before = target();
    assert_eq!(made.workspace.json(ISO), made.report);
    assert_eq!(target(), before, "nothing is made twice");

    // In another place, from nothing; and another installer is another medium.
    let other = Workspace::new();
    copy(&made.workspace.path("../image"), &other.path("../image"));
    assert_eq!(other.json(ISO)["outputs"][0]["sha256"], made.report["outputs"][0]["sha256"]);
    let installer = other.path("configs/builder/installer.sh");
    fs::write(&installer, fs::read_to_string(&installer).unwrap() + "# More.\n").unwrap();
    assert_ne!(other.json(ISO)["outputs"][0]["sha256"], made.report["outputs"][0]["sha256"]);
}

#[test]
fn an_installer_is_made_of_an_image() {
    let workspace = Workspace::new();
    fs::write(workspace.path("../os.raw"), [7; 4096]).unwrap();
    assert_snapshot!(workspace.failure("disk iso raw --from ../os.raw --output ../disks"), @"
    error: a raw disk alone does not make an iso: its installer is of the image's own parts
    hint: name the image with '--from', or leave out iso
    ");
    assert!(!workspace.path("../disks").exists());
}

/// How long anything may take where nothing helps the processor, and others want it too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(900);

/// A machine whose console is this test's.
struct Machine {
    qemu: Child,
    output: Receiver<Vec<u8>>,
    /// What was said and not yet waited for.
    said: String,
}

impl Machine {
    /// With a BIOS, the CD, and disks with sectors of so many bytes.
    fn start(iso: &Path, disks: &[(&Path, u32)]) -> Machine {
        let mut command = Command::new(program("qemu-system-x86_64"));
        command.args(["-nodefaults", "-display", "none", "-no-user-config", "-no-reboot", "-m", "1024"]);
        command.args(["-machine", "q35,accel=tcg", "-cpu", "max", "-smp", "2", "-serial", "stdio"]);
        command.arg("-cdrom").arg(iso);
        for (number, (disk, sector)) in disks.iter().enumerate() {
            command.arg("-drive").arg(format!("if=none,id=disk{number},format=raw,file={}", disk.display()));
            command.arg("-device").arg(format!(
                "virtio-blk-pci,drive=disk{number},logical_block_size={sector},physical_block_size={sector}"
            ));
        }
        let mut qemu = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = qemu.stdout.take().unwrap();
        let (sender, output) = channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Machine { qemu, output, said: String::new() }
    }

    /// Waits until it says something, and gives what it said before that.
    fn wait_for(&mut self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.said.find(text) {
                let rest = self.said.split_off(at + text.len());
                return std::mem::replace(&mut self.said, rest);
            }
            if let Err(error) = self.listen(end) {
                panic!("{text} does not come ({error}): {}", self.said);
            }
        }
    }

    /// Waits until it turns itself off, and gives what it said before that.
    fn wait_for_end(mut self) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.listen(end) {
                Ok(()) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end: {}", self.said),
            }
        }
        assert!(self.qemu.wait().unwrap().success());
        std::mem::take(&mut self.said)
    }

    fn listen(&mut self, end: Instant) -> Result<(), RecvTimeoutError> {
        let bytes = self.output.recv_timeout(end.saturating_duration_since(Instant::now()))?;
        self.said += &String::from_utf8_lossy(&bytes);
        Ok(())
    }

    fn answer(&mut self, text: &str) {
        let stdin = self.qemu.stdin.as_mut().unwrap();
        stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()).unwrap();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.qemu.kill().ok();
        self.qemu.wait().ok();
    }
}

/// It takes one to three minutes where the processor does not help.
#[test]
fn an_installer_boots_and_asks() {
    let made = made();
    let [large, small, odd] =
        ["large", "small", "odd"].map(|name| made.workspace.path(&format!("../{name}.img")));
    for (disk, size) in [(&large, 3 << 30), (&small, 64 << 20), (&odd, 3 << 30)] {
        fs::File::create(disk).unwrap().set_len(size).unwrap();
    }
    let mut machine = Machine::start(&made.iso(), &[(&large, 512), (&small, 512), (&odd, 4096)]);
    machine.wait_for("Install os");
    machine.answer("\r");
    machine.wait_for("This installs os.");
    let question = "Install on which disk?";
    let list = machine.wait_for(question);
    for expected in [
        "/dev/sr0  ",
        "(it is the medium that this runs from)",
        "/dev/vda  3072 MiB",
        "/dev/vdb  64 MiB  ",
        "(it has 64 MiB, and os takes 2048)",
        "/dev/vdc  3072 MiB",
        "(it has sectors of 4096 bytes, and os is for those of 512)",
    ] {
        assert!(list.contains(expected), "{expected} in {list}");
    }
    for (answer, expected) in [
        ("sr0", "/dev/sr0: it is the medium that this runs from"),
        ("/dev/vdb", "/dev/vdb: it has 64 MiB, and os takes 2048"),
        ("nosuch", "/dev/nosuch: there is no such disk"),
    ] {
        machine.answer(&format!("{answer}\r"));
        let said = machine.wait_for(question);
        assert!(said.contains(expected), "{expected} in {said}");
    }
    machine.answer("vda\r");
    machine.wait_for("Type 'yes' to erase it: ");
    machine.answer("no\r");
    machine.wait_for("Nothing was written.");
    let is_empty = |disk: &Path| judge("qemu-img", &format!("map --output=json {}", disk.display()));
    for disk in [&large, &small, &odd] {
        let map: Value = serde_json::from_str(&is_empty(disk)).unwrap();
        assert!(map.as_array().unwrap().iter().all(|extent| extent["zero"] == true), "{map}");
    }
}

/// It takes two to six minutes where the processor does not help.
#[test]
fn an_installer_that_is_told_all_asks_nothing() {
    let made = made();
    // Another system's disk, whose copy of the partition table is not in a whole MiB.
    let disk = made.workspace.path("../told.img");
    let file = fs::File::create(&disk).unwrap();
    let length = (2 << 30) + (3 << 20) + 5 * 512;
    file.set_len(length).unwrap();
    let other = [0x5a; 1 << 20];
    for at in [0, 1 << 30, length - (1 << 20)] {
        file.write_all_at(&other, at).unwrap();
    }
    let mut machine = Machine::start(&made.iso(), &[(&disk, 512)]);
    machine.wait_for("Install os");
    machine.answer("c");
    machine.wait_for("grub>");
    machine.answer("set arguments='testboot.disk=/dev/vda testboot.erase=yes'\r");
    machine.wait_for("grub>");
    machine.answer("\x1b");
    machine.wait_for("Install os");
    machine.answer("\r");
    let said = machine.wait_for_end();
    assert!(said.contains("This installs os.") && said.contains("os is on /dev/vda."), "{said}");
    assert!(!said.contains("Install on which disk?") && !said.contains("Type 'yes'"), "{said}");

    // The disk's own bytes, and behind them nothing.
    let kept = fs::read_dir(made.workspace.path("target/xtask/raw")).unwrap();
    let mut raws = kept.map(|entry| entry.unwrap().path());
    let raw = raws.find(|path| path.extension().is_some_and(|ending| ending == "raw")).unwrap();
    judge("qemu-img", &format!("compare -f raw -F raw {} {}", raw.display(), disk.display()));
}
