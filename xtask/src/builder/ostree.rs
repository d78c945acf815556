//! An image that brings ostree, GRUB and mke2fs installs itself: its own programs, in namespaces,
//! make the disk. This needs no container engine and no loop device, and no root where user
//! namespaces work.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, anyhow};
use xshell::{Shell, cmd};

use super::config::{ADMINISTRATORS, Config};
use super::layout::{self, Firmware, Layout, firmware};
use super::room::{self, Room};
use super::unpacked::Unpacked;
use super::{Builder, Order, accounts, grub, limits};
use crate::exec;
use crate::hint::{self, WithHint};
use crate::oci::Digest;
use crate::oci::flatten::{Overruled, Plan};
use crate::preflight::{self, Lack, Need, Source};
use crate::progress::{Progress, human_bytes};
use crate::subids;

/// What runs in the namespaces, in the workspace.
pub(super) const SCRIPT: &str = "configs/builder/ostree.sh";
/// Changes when the code below makes another disk of the same inputs.
pub(super) const PROCESS: &str = "5";

/// The group of deployments that share /var, and the branch that the image is committed to.
const STATEROOT: &str = "default";
const BRANCH: &str = "testboot/image";
/// Where the script finds what ostree's repository has of the layers' files, and the layers' trees.
const OBJECTS: &str = "work/objects";
const TREES: &str = "work/trees";
/// What every format can describe, in bytes.
const LARGEST: u64 = 2040 << 30;
/// Arguments of the kernel that ostree's root wants, whatever else there is: what is read-only is
/// made so later, and systemd asks nobody for a password on a console.
const KERNEL_ARGUMENTS: &str = "rw systemd.firstboot=off";
/// The time of images that have none: a file system's times begin with 1970, and 0 is none.
pub(super) const NO_TIME: i64 = 1;

/// Parts of the image that none of the programs needs, and the folders that the script makes: where an image
/// has a link, it would write elsewhere.
const NOT_NEEDED: [&str; 10] = [
    "boot",
    "dev",
    "proc",
    "tmp",
    "usr/lib/firmware",
    "usr/lib/modules",
    "usr/share",
    "usr/src",
    "var",
    "work",
];
/// Beginnings of others.
const NOT_NEEDED_PREFIXES: [&str; 1] = ["usr/lib/python3"];

/// The image's programs that the script starts.
const PROGRAMS: [&str; 16] = [
    "cat",
    "cp",
    "debugfs",
    "find",
    "grub-mkimage",
    "ln",
    "mcopy",
    "mformat",
    "mkdir",
    "mke2fs",
    "mmd",
    "mv",
    "ostree",
    "sfdisk",
    "sh",
    "touch",
];
/// Those that it starts for users besides.
const ACCOUNT_PROGRAMS: [&str; 8] = ["chmod", "chown", "grep", "groupadd", "rm", "sed", "useradd", "usermod"];
/// Where they are, as a PATH has it.
const PROGRAM_DIRS: [&str; 4] = ["usr/sbin/", "usr/bin/", "sbin/", "bin/"];

const UNSHARE: Need =
    Need { program: "unshare", purpose: "lets the image install itself", from: Source::Debian("util-linux") };

const SETPRIV: Need = Need {
    program: "setpriv",
    purpose: "ends what an image runs when this program is killed",
    from: Source::Debian("util-linux"),
};

pub(super) fn needs() -> Vec<Need> {
    let mut needs = subids::needs(UNSHARE);
    needs.push(SETPRIV);
    needs
}

/// All that is missing for a disk beside programs, found out before the first layer is fetched or read.
pub(super) fn lacks(order: &Order<'_>) -> Result<Vec<Lack>> {
    let mut lacks = lacks_to_run(order)?;
    lacks.extend(room::lacks(order)?);
    Ok(lacks)
}

/// What is missing to run the image's programs at all.
pub(super) fn lacks_to_run(order: &Order<'_>) -> Result<Vec<Lack>> {
    let mut lacks = Vec::new();
    // Without its programs it cannot be tried.
    if needs().iter().all(|need| preflight::find(need, order.root).is_some())
        && let Err(error) = check_namespaces()
    {
        let remedy = hint::hints(&error).collect::<Vec<_>>().join("; ");
        lacks.push(Lack { what: format!("{error:#}"), remedy });
    }
    if let Some(place) = order.image.layers_elsewhere()? {
        let what = format!("{} lacks layers, which are in {place}", order.image.name);
        lacks.push(Lack { what, remedy: "make the image with '--full'".to_owned() });
    }
    Ok(lacks)
}

/// Says what of a config this builder cannot do, all of it.
pub(super) fn check_config(config: &Config) -> Result<()> {
    let mut cannot = limits::installer(config);
    cannot.extend(limits::one_file_system(config));
    if least_size(config) > LARGEST {
        cannot.push(format!("a disk of more than {} GiB", LARGEST >> 30));
    }
    limits::refuse(Builder::Ostree, &cannot)
}

/// How large a disk is, in bytes, on which everything is as large as `config` wants it.
pub(super) fn least_size(config: &Config) -> u64 {
    limits::size_with_one_file_system(config, layout::size_with_root)
}

/// Installs the image on the empty file `disk`, which is at `path`.
pub(super) fn install(
    order: &Order<'_>,
    inputs: Digest,
    (path, disk): (&Path, &File),
    progress: &Progress,
) -> Result<()> {
    let image = order.image;
    let firmware = firmware(image.platform.arch)
        .ok_or_else(|| anyhow!("no disk for {} is made here", image.platform))
        .hint("name another builder with '--builder'")?;
    check_namespaces()?;
    let step = progress.step(format!("making a disk of {}", order.name));
    step.at(format!("making a disk of {}: reading its layers", order.name));
    let layers = Unpacked::new(image, order.kept)?;
    let (plan, trees) = thread::scope(|scope| {
        let trees = scope.spawn(|| trees(&layers));
        (layers.plan(), trees.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let (plan, trees) = (plan?, trees?);
    for Overruled { layer, path } in plan.overruled() {
        progress.warn(format!("layer {layer} has /{path} with another mode or owner: it keeps that of a layer below, as on hosts"));
    }
    let tools = plan.part(is_tool);
    let accounts = accounts::lines(order.config);
    let more: &[&str] = if accounts.is_empty() { &[] } else { &ACCOUNT_PROGRAMS };
    check_programs(&tools, PROGRAMS.iter().chain(more))?;
    let room = Room::new(plan.content_size());
    room.check(order)?;
    let files = trees.and(tools);

    disk.set_len(order.size).context("setting the disk's size")?;
    let names: Vec<String> = layers.digests().map(|digest| digest.hex()).collect();
    let script = Script {
        order,
        inputs,
        firmware: &firmware,
        memory: room.memory,
        layers: names.join(" "),
        path,
        accounts,
    };
    let sh = Shell::new()?;
    let mount_point = order.kept.join(".root");
    fs::create_dir_all(&mount_point).with_context(|| format!("making {}", mount_point.display()))?;
    let produce = |out: &mut dyn io::Write| -> io::Result<()> {
        layers.write_with_objects(&files, OBJECTS, out).map_err(|error| hint::into_io(error.into()))
    };
    let on_line = |line: &str| {
        if let Some(text) = line.strip_prefix("I: ") {
            step.at(format!("making a disk of {}: {text}", order.name));
        }
    };
    let boot = exec::feed(script.command(&sh, &mount_point)?, produce, on_line)
        .hint("the lines above say which step failed; '--builder' chooses another way, where there is one")?;
    if !firmware.bios_target.is_empty() {
        let (boot_image, core_image) = boot.split_at(boot.len().min(grub::SECTOR));
        let boot = grub::embed(boot_image, core_image).context("placing the boot loader")?;
        disk.write_all_at(&boot.code, 0)
            .and_then(|()| disk.write_all_at(&boot.core, grub::CORE_SECTOR * grub::SECTOR as u64))
            .context("writing the boot loader")?;
    }
    step.done(format!("made a disk of {} ({})", order.name, human_bytes(order.size)));
    Ok(())
}

/// The layers as the script commits them: each alone, in a folder of its own.
fn trees(layers: &Unpacked) -> Result<Plan> {
    let plans = layers.plans()?.into_iter().map(|(digest, plan)| {
        let folder = format!("{TREES}/{}", digest.hex());
        plan.moved(|path| format!("{folder}/{}", committed(path)))
    });
    Ok(plans.fold(Plan::default(), Plan::and))
}

/// Where a commit has what an image has at `path`: a deployment's own /etc is a copy of /usr/etc.
/// Source: ostree, docs/deployment.md, "The /etc and /usr/etc directories".
fn committed(path: &str) -> String {
    match path.strip_prefix("etc") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("usr/etc{rest}"),
        Some(_) | None => path.to_owned(),
    }
}

/// What the script is told.
struct Script<'a> {
    order: &'a Order<'a>,
    inputs: Digest,
    firmware: &'a Firmware,
    /// What its root may take, in bytes.
    memory: u64,
    /// The layers' digests in hex.
    layers: String,
    path: &'a Path,
    accounts: String,
}

impl Script<'_> {
    fn command<'a>(&self, sh: &'a Shell, mount_point: &Path) -> Result<xshell::Cmd<'a>> {
        let Script { order, inputs, firmware, memory, layers, path, accounts } = self;
        let layout = Layout::new(order.size, *inputs);
        let created = order.image.created().map_or(NO_TIME, |created| created.seconds().max(NO_TIME));
        let script = order.root.join(SCRIPT);
        let command =
            in_namespaces(sh, &script, "install", mount_point)?.env("DISK", fs::canonicalize(path)?);
        let values = [
            ("SOURCE_DATE_EPOCH", created.to_string()),
            ("MEMORY", memory.to_string()),
            ("LAYERS", layers.clone()),
            ("CONFIG", order.image.config_digest.to_string()),
            ("STATEROOT", STATEROOT.to_owned()),
            ("BRANCH", BRANCH.to_owned()),
            ("VERSION", order.image.version().to_owned()),
            ("KERNEL_ARGUMENTS", format!("{KERNEL_ARGUMENTS} {}", order.config.kernel)),
            ("ACCOUNTS", accounts.clone()),
            ("ADMINISTRATORS", ADMINISTRATORS.to_owned()),
            ("PARTITIONS", layout.partitions(firmware)),
            ("ESP_OFFSET", layout.esp_offset().to_string()),
            ("ESP_SECTORS", layout.esp_sectors().to_string()),
            ("ESP_SERIAL", layout.esp_serial()),
            ("ROOT_OFFSET", layout.root_offset().to_string()),
            ("ROOT_KIB", layout.root_kib().to_string()),
            ("ROOT_UUID", layout.root_uuid()),
            ("HASH_SEED", layout.hash_seed()),
            ("EFI_TARGET", firmware.efi_target.to_owned()),
            ("EFI_NAME", firmware.efi_name.to_owned()),
            ("EFI_MODULES", firmware.efi_modules.to_owned()),
            ("BIOS_TARGET", firmware.bios_target.to_owned()),
            ("BIOS_MODULES", firmware.bios_modules.to_owned()),
        ];
        Ok(values.into_iter().fold(command, |command, (name, value)| command.env(name, value)))
    }
}

/// The script in namespaces of its own, told what to do there; it makes a root at `mount_point`.
pub(super) fn in_namespaces<'a>(
    sh: &'a Shell,
    script: &Path,
    task: &str,
    mount_point: &Path,
) -> Result<xshell::Cmd<'a>> {
    // Whoever started it may be killed, and cannot end it then.
    Ok(cmd!(sh, "setpriv --pdeathsig KILL unshare")
        .args(user_namespace())
        .args(["--mount", "--pid", "--fork", "--kill-child", "sh"])
        .arg(script)
        .args(["enter", task])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        // ostree refuses names that are not ASCII under a locale that has only those.
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .env("ROOT", fs::canonicalize(mount_point)?))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// An ordinary user is root in a namespace of their own.
fn user_namespace() -> &'static [&'static str] {
    if is_root() { &[] } else { &["--map-root-user", "--map-auto"] }
}

pub(super) fn check_namespaces() -> Result<()> {
    subids::check(None)?;
    let sh = Shell::new()?;
    let command = cmd!(sh, "unshare").args(user_namespace()).args(["--mount", "--pid", "--fork", "true"]);
    let hint = if is_root() {
        "namespaces may be forbidden in a container: run it on the machine itself"
    } else {
        subids::NAMESPACES_HINT
    };
    exec::run(command).context("namespaces do not work here").hint(hint)
}

pub(super) fn is_tool(path: &str) -> bool {
    !NOT_NEEDED.contains(&path) && !NOT_NEEDED_PREFIXES.iter().any(|prefix| path.starts_with(prefix))
}

/// Sees to it that the image has all of `programs`.
pub(super) fn check_programs<'p>(
    tools: &Plan,
    programs: impl IntoIterator<Item = &'p &'p str>,
) -> Result<()> {
    let found: BTreeSet<&str> = tools
        .leaves()
        .filter_map(|path| PROGRAM_DIRS.iter().find_map(|dir| path.strip_prefix(dir)))
        .collect();
    let missing: Vec<&str> =
        programs.into_iter().copied().filter(|program| !found.contains(program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(anyhow!("the image cannot install itself: it has no {}", missing.join(", ")))
        .hint("an image of debian-13 can; '--builder' names another way, where there is one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_cannot_do_is_told_and_sizes_are_kept() {
        let check = |text: &str| {
            let config = Config::parse("f", text.as_bytes(), &[]).unwrap();
            let said = check_config(&config).err().map(|error| error.to_string()).unwrap_or_default();
            (said, least_size(&config) >> 20)
        };
        let root =
            |size: &str| format!("[[customizations.filesystem]]\nmountpoint = \"/\"\nminsize = \"{size}\"\n");
        assert_eq!(check(""), (String::new(), 0));
        assert_eq!(check(&root("1 GiB")), (String::new(), 1024 + 67));
        assert_eq!(check("[customizations.disk]\nminsize = \"1 GB\""), (String::new(), 954));
        for (text, expected) in [
            (root("1 GiB").replace("\"/\"", "\"/boot\""), "a file system for /boot"),
            (root("2040 GiB"), "a disk of more than 2040 GiB"),
            ("[customizations.disk]\ntype = \"dos\"".to_owned(), "[customizations.disk] but for its minsize"),
            (
                "[[customizations.disk.partitions]]\ntype = \"lvm\"\nminsize = 1".to_owned(),
                "[customizations.disk] but for its minsize",
            ),
            ("[customizations.installer]\nunattended = true".to_owned(), "[customizations.installer]"),
            ("[customizations.iso]\nvolume_id = \"A\"".to_owned(), "[customizations.iso]"),
        ] {
            assert!(check(&text).0.contains(expected), "{text}: {}", check(&text).0);
        }
    }

    #[test]
    fn etc_is_committed_as_a_default() {
        for (path, expected) in
            [("etc", "usr/etc"), ("etc/a", "usr/etc/a"), ("etcd", "etcd"), ("a/etc", "a/etc")]
        {
            assert_eq!(committed(path), expected);
        }
    }

    #[test]
    fn programs_and_their_libraries_are_tools() {
        for (path, expected) in [
            ("usr", true),
            ("usr/bin/ostree", true),
            ("usr/lib/grub/i386-pc/boot.img", true),
            ("usr/lib/python3.13", false),
            ("usr/share", false),
            ("usr/lib/modules", false),
            ("work", false),
        ] {
            assert_eq!(is_tool(path), expected, "{path}");
        }
    }
}
