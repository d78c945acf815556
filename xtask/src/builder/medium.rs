//! What is on an installer's medium beside the disk: the image's own kernel and initramfs, GRUB, and a
//! second initramfs with the installer and the programs that it needs.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use xshell::Shell;

use super::Order;
use super::config::KernelArguments;
use super::cpio::Archive;
use super::layout::{Firmware, Layout, firmware};
use super::ostree::{NO_TIME, SCRIPT, check_namespaces, check_programs, in_namespaces, is_tool};
use super::unpacked::Unpacked;
use crate::disk::{Bios, DiskName, Medium, VolumeName};
use crate::exec;
use crate::hint::{self, WithHint};
use crate::oci::flatten::Plan;
use crate::oci::{Digest, Timestamp};
use crate::progress::Progress;

/// Changes when the code below makes another medium of the same inputs.
pub(super) const PROCESS: &str = "2";
/// What runs on the machine, in the workspace.
const INSTALLER: &str = "configs/builder/installer.sh";

/// The image's programs that make the medium.
const MAKERS: [&str; 9] =
    ["bash", "grub-mkimage", "ldd", "mcopy", "mformat", "mmd", "readlink", "sed", "tar"];
/// The image's programs that the installer starts, without those that dracut takes into an initramfs
/// by itself.
const PROGRAMS: [&str; 6] = ["blkdiscard", "blockdev", "dd", "sha256sum", "sync", "zstd"];
/// The EFI system partition, which holds little more than GRUB: 4 MiB.
const ESP_SECTORS: u64 = 8192;
/// What file systems and programs take besides, roughly.
const MORE: u64 = 128 << 20;
/// Where the kernel is, with a version between.
const MODULES: &str = "usr/lib/modules";
const KERNEL: &str = "vmlinuz";
const INITRAMFS: &str = "initramfs.img";

/// What the installer does.
pub(super) fn installer(root: &Path) -> Result<String> {
    fs::read_to_string(root.join(INSTALLER)).with_context(|| format!("reading {INSTALLER}"))
}

pub(super) fn make(order: &Order<'_>, inputs: Digest, progress: &Progress) -> Result<Medium> {
    let image = order.image;
    let firmware = firmware(image.platform.arch)
        .ok_or_else(|| anyhow!("no installer for {} is made here", image.platform))
        .hint("leave out iso")?;
    check_namespaces()?;
    let step = progress.step(format!("making an installer of {}", order.name));
    let layers = Unpacked::new(image, order.kept)?;
    let plan = layers.plan()?;
    let tools = plan.part(is_tool);
    check_programs(&tools, &[&MAKERS[..], &PROGRAMS].concat())?;
    let kernel = boot_file(&plan, &layers, KERNEL)?;
    let initramfs = boot_file(&plan, &layers, INITRAMFS)?;

    let volume = VolumeName::new(&order.name.to_string(), inputs);
    let mut made =
        run(order, inputs, &Script { firmware: &firmware, volume: &volume, layers: &layers, tools: &tools })?;
    let mut take = |name: &str| {
        made.remove(name).map(|file| file.content).ok_or_else(|| anyhow!("the script made no {name}"))
    };
    let esp = take("efi.img")?;
    let bios = match firmware.bios_target.is_empty() {
        true => None,
        false => Some(Bios { boot: take("boot_hybrid.img")?, core: take("bios.img")? }),
    };
    let mut archive = Archive::default();
    for (path, file) in made {
        if let Some(path) = path.strip_prefix("root/") {
            archive.add(path, file.mode, file.content);
        }
    }
    archive.add("install/init", 0o755, installer(order.root)?.into_bytes());
    archive.add("install/config", 0o644, config(order, &volume).into_bytes());
    let files = [
        ("boot/grub/grub.cfg", menu(order.name, &order.config.kernel).into_bytes()),
        ("boot/vmlinuz", kernel),
        ("boot/initrd.img", initramfs),
        ("boot/install.img", archive.to_bytes()),
    ];
    step.done(format!("made an installer of {}", order.name));
    Ok(Medium {
        volume,
        time: image.created().unwrap_or(Timestamp::EPOCH),
        bios,
        esp,
        files: files.map(|(path, content)| (path.to_owned(), content)).into(),
    })
}

/// What the installer is told.
fn config(order: &Order<'_>, volume: &VolumeName) -> String {
    let size = order.size.div_ceil(1 << 20);
    format!("NAME='{}'\nSIZE={size}\nVOLUME='{}'\n", order.name, volume.as_str())
}

/// GRUB's configuration; `arguments` is for people, who set it on GRUB's command line. A CD has a
/// driver in the kernel, and what else the firmware boots from may have none: then GRUB reads the disk
/// into memory, as the archive that it makes of files after `newc:`.
fn menu(name: &DiskName, arguments: &KernelArguments) -> String {
    // `;` and `{` would be GRUB's own. Source: GRUB manual, "Shell-like scripting", Quoting.
    let quote = |word: &str| format!("'{}'", word.replace('\'', r"'\''"));
    let arguments = arguments.words().map(quote).collect::<Vec<_>>().join(" ");
    format!(
        r#"set timeout=5
set arguments=
export arguments
serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
menuentry "Install {name}" {{
	echo "Loading the installer"
	linux /boot/vmlinuz rdinit=/install/init loglevel=4 {arguments} $arguments
	if regexp '^cd' "$root"; then
		set files=
	else
		set files=
		echo "Loading the disk, which takes a while"
		for file in /install/disk.*; do
			regexp --set=1:name '([^/]*)$' "$file"
			set files="$files newc:install/$name:$file"
		done
	fi
	initrd /boot/initrd.img /boot/install.img $files
}}
"#
    )
}

/// A file that is beside the kernel's modules.
fn boot_file(plan: &Plan, layers: &Unpacked, name: &str) -> Result<Vec<u8>> {
    let part = plan.part(|path| match path.strip_prefix(MODULES).map(|rest| rest.trim_start_matches('/')) {
        None => MODULES.starts_with(path),
        Some(rest) => match rest.split_once('/') {
            None => true,
            Some((_, file)) => file == name,
        },
    });
    let mut tar = Vec::new();
    layers.write_part(&part, &mut tar).with_context(|| format!("reading the image's {name}"))?;
    let mut found: Vec<_> = files(&tar)?.into_values().collect();
    match (found.pop(), found.is_empty()) {
        (Some(file), true) => Ok(file.content),
        (_, _) => Err(anyhow!("the image has not exactly one {MODULES}/*/{name}"))
            .hint("an installer takes an image with one kernel; leave out iso"),
    }
}

struct Script<'a> {
    firmware: &'a Firmware,
    volume: &'a VolumeName,
    layers: &'a Unpacked,
    tools: &'a Plan,
}

/// Runs the image's programs, and gives the files that they make.
fn run(order: &Order<'_>, inputs: Digest, script: &Script<'_>) -> Result<BTreeMap<String, Made>> {
    let Script { firmware, volume, layers, tools } = script;
    let created = order.image.created().map_or(NO_TIME, |created| created.seconds().max(NO_TIME));
    let mount_point = order.kept.join(".root");
    fs::create_dir_all(&mount_point).with_context(|| format!("making {}", mount_point.display()))?;
    let values = [
        ("SOURCE_DATE_EPOCH", created.to_string()),
        ("MEMORY", (tools.content_size() / 4 * 5 + MORE).to_string()),
        ("VOLUME", volume.as_str().to_owned()),
        ("ESP_SECTORS", ESP_SECTORS.to_string()),
        ("ESP_SERIAL", Layout::new(order.size, inputs).esp_serial()),
        ("EFI_TARGET", firmware.efi_target.to_owned()),
        ("EFI_NAME", firmware.efi_name.to_owned()),
        ("EFI_MODULES", firmware.efi_modules.to_owned()),
        ("BIOS_TARGET", firmware.bios_target.to_owned()),
        ("BIOS_MODULES", firmware.bios_modules.to_owned()),
        ("PROGRAMS", PROGRAMS.join(" ")),
    ];
    let sh = Shell::new()?;
    let command = in_namespaces(&sh, &order.root.join(SCRIPT), "medium", &mount_point)?;
    let command = values.into_iter().fold(command, |command, (name, value)| command.env(name, value));
    let produce = |out: &mut dyn io::Write| -> io::Result<()> {
        layers.write_part(tools, out).map_err(|error| hint::into_io(error.into()))
    };
    let tar = exec::feed(command, produce, |_| ()).hint("the lines above say which step failed")?;
    files(&tar)
}

struct Made {
    mode: u32,
    content: Vec<u8>,
}

/// The regular files of a tar, by their paths.
fn files(tar: &[u8]) -> Result<BTreeMap<String, Made>> {
    let read = || -> io::Result<_> {
        let mut found = BTreeMap::new();
        for entry in tar::Archive::new(tar).entries()? {
            let mut entry = entry?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let path = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
            let mode = entry.header().mode()? & 0o777;
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            found.insert(path, Made { mode, content });
        }
        Ok(found)
    };
    read().context("reading what was made for the installer")
}

#[cfg(test)]
mod tests {
    use super::super::config::Config;
    use super::*;

    #[test]
    fn arguments_of_the_kernel_are_words_to_grub() {
        let name: DiskName = "os".parse().unwrap();
        let line = |arguments: &str| {
            let text = format!("[customizations.kernel]\nappend = \"{arguments}\"");
            let config = Config::parse("f", text.as_bytes(), &[]).unwrap();
            let menu = menu(&name, &config.kernel);
            let line = menu.lines().find(|line| line.contains("linux ")).unwrap();
            line.trim().to_owned()
        };
        let start = "linux /boot/vmlinuz rdinit=/install/init loglevel=4";
        assert_eq!(line("quiet console=ttyS0"), format!("{start} 'quiet' 'console=ttyS0' $arguments"));
        assert_eq!(line("a=1;b {c} #d"), format!("{start} 'a=1;b' '{{c}}' '#d' $arguments"));
        assert_eq!(line(""), format!("{start}  $arguments"));
    }
}
