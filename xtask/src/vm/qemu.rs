//! The machine, as QEMU's command line has it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;
use serde::Serialize;
use xshell::{Shell, cmd};

use crate::preflight::{Need, Source};

pub(super) const QEMU: Need = Need {
    program: "qemu-system-x86_64",
    purpose: "boots the disk",
    from: Source::Debian("qemu-system-x86"),
};

pub(super) const SETPRIV: Need = Need {
    program: "setpriv",
    purpose: "ends the machine when this program is killed",
    from: Source::Debian("util-linux"),
};

/// UEFI's code and its variables: Debian's, Fedora's and Arch's places.
const OVMF: [(&str, &str); 3] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
];
/// A file in place of a program: it is looked for where it says.
const OVMF_NEED: Need = Need {
    program: OVMF[0].0,
    purpose: "is the firmware of a machine with UEFI ('--firmware bios' does without)",
    from: Source::Debian("ovmf"),
};

/// What starts the boot loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Firmware {
    Uefi,
    Bios,
}

/// Who executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Acceleration {
    /// The processor.
    Kvm,
    /// QEMU: ten times slower, and works everywhere.
    Emulation,
}

/// A port of the guest that its firewall has to keep closed; checks.sh sees to it that something
/// listens there.
const PROBED: u16 = 7777;

/// Where this machine's loopback interface leads into the guest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) ssh: u16,
    pub(super) web: u16,
    /// To [`PROBED`].
    pub(super) probe: u16,
}

pub(super) struct Machine<'a> {
    /// The layer that takes what the guest writes.
    pub(super) disk: &'a Path,
    /// UEFI's, in a file of their own; none for a BIOS.
    pub(super) variables: Option<&'a Path>,
    pub(super) acceleration: Acceleration,
    pub(super) memory: u32,
    pub(super) console: &'a Path,
    pub(super) serial: &'a str,
    pub(super) ports: Ports,
}

impl Acceleration {
    /// What this machine offers.
    pub(crate) fn of_this_machine() -> Acceleration {
        match File::options().read(true).write(true).open("/dev/kvm") {
            Ok(_) => Acceleration::Kvm,
            Err(_) => Acceleration::Emulation,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Acceleration::Kvm => "kvm",
            Acceleration::Emulation => "emulation",
        }
    }
}

impl Firmware {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Firmware::Uefi => "uefi",
            Firmware::Bios => "bios",
        }
    }

    /// What has to be installed for it, if it is not there.
    pub(super) fn need(self) -> Option<Need> {
        match self {
            Firmware::Bios => None,
            Firmware::Uefi => ovmf().is_none().then_some(OVMF_NEED),
        }
    }

    /// A copy of its variables in `folder`, since a boot may change them.
    pub(super) fn variables(self, folder: &Path) -> Result<Option<PathBuf>> {
        let Firmware::Uefi = self else { return Ok(None) };
        let (_, variables) = ovmf().ok_or_else(|| anyhow!("there is no OVMF"))?;
        let copy = folder.join("variables.fd");
        fs::copy(variables, &copy).with_context(|| format!("copying {variables}"))?;
        Ok(Some(copy))
    }
}

fn ovmf() -> Option<(&'static str, &'static str)> {
    OVMF.into_iter().find(|(code, variables)| Path::new(code).is_file() && Path::new(variables).is_file())
}

impl Machine<'_> {
    pub(super) fn command<'a>(&self, sh: &'a Shell) -> xshell::Cmd<'a> {
        let accelerator = match self.acceleration {
            Acceleration::Kvm => "kvm",
            Acceleration::Emulation => "tcg",
        };
        let Ports { ssh, web, probe } = self.ports;
        let forward = |(port, guest)| format!(",hostfwd=tcp:127.0.0.1:{port}-:{guest}");
        let forwards: String = [(ssh, 22), (web, 80), (probe, PROBED)].map(forward).concat();
        // Whoever started it may be killed, and cannot end it then.
        let mut command = cmd!(sh, "setpriv --pdeathsig KILL qemu-system-x86_64")
            .args(["-nodefaults", "-display", "none", "-no-user-config"])
            .args(["-machine", &format!("q35,accel={accelerator}"), "-cpu", "max", "-smp", "2"])
            .args(["-m", &self.memory.to_string()])
            .args(["-serial", &format!("file:{}", escaped(self.console))])
            // What is written is thrown away, so nobody waits until it is on disk.
            .args(["-drive", &format!("if=virtio,format=qcow2,cache=unsafe,file={}", escaped(self.disk))])
            .args(["-netdev", &format!("user,id=net{forwards}")])
            .args(["-device", "virtio-net-pci,netdev=net", "-device", "virtio-rng-pci"])
            .args(["-smbios", &format!("type=1,serial={}", self.serial)]);
        if let (Some((code, _)), Some(variables)) = (ovmf(), self.variables) {
            command = command
                .args(["-drive", &format!("if=pflash,format=raw,readonly=on,file={code}")])
                .args(["-drive", &format!("if=pflash,format=raw,file={}", escaped(variables))]);
        }
        command
    }
}

/// A path in an option with commas. Source: QEMU's manual: a comma is doubled.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_ends_with_its_starter() {
        let sh = Shell::new().unwrap();
        let machine = Machine {
            disk: Path::new("a,b.qcow2"),
            variables: None,
            acceleration: Acceleration::Emulation,
            memory: 1024,
            console: Path::new("console.log"),
            serial: "ds=nocloud;s=http://10.0.2.2:1/",
            ports: Ports { ssh: 22000, web: 8000, probe: 7000 },
        };
        insta::assert_snapshot!(machine.command(&sh), @"setpriv --pdeathsig KILL qemu-system-x86_64 -nodefaults -display none -no-user-config -machine q35,accel=tcg -cpu max -smp 2 -m 1024 -serial file:console.log -drive if=virtio,format=qcow2,cache=unsafe,file=a,,b.qcow2 -netdev user,id=net,hostfwd=tcp:127.0.0.1:22000-:22,hostfwd=tcp:127.0.0.1:8000-:80,hostfwd=tcp:127.0.0.1:7000-:7777 -device virtio-net-pci,netdev=net -device virtio-rng-pci -smbios type=1,serial=ds=nocloud;s=http://10.0.2.2:1/");
    }
}
