//! A bootc image installs itself: its own `bootc install to-disk`, in a container of the image.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::config::{Config, KernelArguments, User};
use super::image_builder::{ROOT_FILE_SYSTEM, STORAGE_MOUNT};
use super::podman::{Container, Mount, MountMode, Namespaces, Podman};
use super::{Builder, Order, limits};
use crate::progress::Progress;

/// Changes when the code below makes another disk of the same inputs.
pub(super) const PROCESS: &str = "1";

/// The disk's file, in the folder that the container has as `OUTPUT_MOUNT`.
pub(super) const DISK: &str = "disk.raw";
const OUTPUT_MOUNT: &str = "/output";
/// What a disk has besides its root, in bytes: the boot partitions of bootc's, of 1 MiB and 512 MiB, and
/// a MiB at either end. Source: bootc, crates/lib/src/install/baseline.rs.
const BESIDE_ROOT: u64 = 515 << 20;

/// Says what of a config `bootc install` cannot do, all of it. It could give root a key, but sshd on every base lets
/// nobody in as root, so that a config has none.
pub(super) fn check_config(config: &Config) -> Result<()> {
    let mut cannot = limits::installer(config);
    cannot.extend(limits::one_file_system(config));
    let root = User { name: "root".to_owned(), ..User::default() };
    for user in config.users.iter().filter(|user| **user != root) {
        cannot.push(match user.name.as_str() {
            "root" => "settings of root's: it leaves root as the image has it".to_owned(),
            name => format!("the user `{name}`, from config.toml or '--ssh-key': it makes no users"),
        });
    }
    let groups = config.groups.iter();
    cannot.extend(groups.map(|group| format!("the group `{}`: it makes no groups", group.name)));
    limits::refuse(Builder::Bootc, &cannot)
}

/// How large a disk is, in bytes, on which everything is as large as `config` wants it.
pub(super) fn least_size(config: &Config) -> u64 {
    let with_root = |root: u64| root.next_multiple_of(1 << 20).saturating_add(BESIDE_ROOT);
    limits::size_with_one_file_system(config, with_root)
}

/// An installation, worked out beforehand.
struct Install<'a> {
    container: &'a str,
    image: &'a str,
    output: &'a Path,
    storage: &'a Path,
    /// What it attaches.
    disk: &'a Path,
    kernel_arguments: &'a KernelArguments,
}

/// Installs the image on a disk in the empty folder `folder`, and gives its path.
pub(super) fn make(order: &Order<'_>, folder: &Path, progress: &Progress) -> Result<PathBuf> {
    let podman = Podman::of_root()?;
    let _brought = podman.bring(order, folder, progress)?;
    let path = folder.join(DISK);
    let create = || File::create(&path)?.set_len(order.size);
    create().with_context(|| format!("making {}", path.display()))?;
    let install = Install {
        container: &order.container(),
        image: &order.upgrades_from.to_string(),
        output: &fs::canonicalize(folder)?,
        storage: &podman.storage,
        disk: &path,
        kernel_arguments: &order.config.kernel,
    };
    let doing = format!("making a disk of {} with its own bootc; this takes some minutes", order.name);
    let step = progress.step(doing);
    podman.run(&install.container(), (folder, progress), &step)?;
    step.done(format!("made a disk of {}", order.name));
    Ok(path)
}

impl Install<'_> {
    /// The machine's devices and processes are what bootc wants. Source: bootc, docs, "bootc install".
    fn container(&self) -> Container<'_> {
        let mount = |from, to, mode| Mount { from, to, mode };
        let mounts = vec![
            mount(Path::new("/dev"), "/dev", MountMode::ReadWrite),
            mount(self.storage, STORAGE_MOUNT, MountMode::ReadWrite),
            mount(self.output, OUTPUT_MOUNT, MountMode::ReadWrite),
        ];
        Container {
            name: self.container,
            image: self.image,
            namespaces: Namespaces::Host,
            mounts,
            attaches: Some(self.disk),
            command: self.command(),
        }
    }

    /// `--generic-image`: for any machine's firmware, and nothing of this machine's. The registry
    /// need not have the image yet, nor be reachable. Source: bootc-install-to-disk(8).
    fn command(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> =
            ["bootc", "install", "to-disk", "--generic-image", "--via-loopback", "--skip-fetch-check"]
                .map(OsString::from)
                .to_vec();
        words.extend(["--filesystem", ROOT_FILE_SYSTEM].map(OsString::from));
        for argument in self.kernel_arguments.words() {
            words.extend(["--karg", argument].map(OsString::from));
        }
        words.push(format!("{OUTPUT_MOUNT}/{DISK}").into());
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse("config.toml", text.as_bytes(), &[]).unwrap()
    }

    fn command(config: &Config) -> String {
        let install = Install {
            container: "bootc-testboot-1",
            image: "ghcr.io/me/os:v1",
            output: Path::new("/ws/target/out put"),
            storage: Path::new("/var/lib/containers/storage"),
            disk: Path::new("/ws/target/out put/disk.raw"),
            kernel_arguments: &config.kernel,
        };
        let words = install.container().arguments();
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn an_image_is_told_to_install_itself() {
        let config = config("customizations.kernel.append = 'console=tty0  console=ttyS0,115200n8'");
        insta::assert_snapshot!(command(&config), @"
        run
        --rm
        --name
        bootc-testboot-1
        --stop-timeout=2
        --pull=never
        --privileged
        --pid=host
        --ipc=host
        --security-opt
        label=type:unconfined_t
        --volume
        /dev:/dev
        --volume
        /var/lib/containers/storage:/var/lib/containers/storage
        --volume
        /ws/target/out put:/output
        ghcr.io/me/os:v1
        bootc
        install
        to-disk
        --generic-image
        --via-loopback
        --skip-fetch-check
        --filesystem
        ext4
        --karg
        console=tty0
        --karg
        console=ttyS0,115200n8
        /output/disk.raw
        ");
    }

    #[test]
    fn what_it_cannot_do_is_told() {
        let told = |text: &str| {
            let error = check_config(&config(text)).err();
            error.map(|error| error.to_string()).unwrap_or_default()
        };
        insta::assert_snapshot!(told(r#"
            [[customizations.user]]
            name = "devops"
            [[customizations.user]]
            name = "root"
            home = "/var/lib/root"
            [[customizations.group]]
            name = "data"
            [[customizations.filesystem]]
            mountpoint = "/var/lib/data"
            minsize = "1 GiB"
            [customizations.installer]
            unattended = true
            [customizations.iso]
            volume_id = "OS"
        "#), @"
        the builder 'bootc' cannot do what configs/builder asks for:
          [customizations.installer]: what it makes is no installer
          [customizations.iso]: what it makes is no ISO
          a file system for /var/lib/data: it makes one, for /, which a host grows
          the user `devops`, from config.toml or '--ssh-key': it makes no users
          settings of root's: it leaves root as the image has it
          the group `data`: it makes no groups
        ");
        let disk = |rest: &str| told(&format!("[customizations.disk]\nminsize = '20 GiB'\n{rest}"));
        assert_eq!(disk(""), "");
        assert!(disk("type = 'dos'").contains("[customizations.disk] but for its minsize"));
        // Who is there anyway, as the image has them.
        assert_eq!(told("[[customizations.user]]\nname = 'root'"), "");
    }

    #[test]
    fn a_disk_has_room_for_the_root_that_is_wanted() {
        let least = |text: &str| least_size(&config(text)) >> 20;
        assert_eq!(least(""), 0);
        assert_eq!(least("[[customizations.filesystem]]\nmountpoint = '/'\nminsize = '2 GiB'"), 2048 + 515);
        assert_eq!(least("[customizations.disk]\nminsize = '20 GiB'"), 20 << 10);
    }
}
