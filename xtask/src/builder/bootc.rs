//! A bootc image installs itself: its own `bootc install to-disk`, in a container of the image.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Order;
use super::image_builder::{ROOT_FILE_SYSTEM, STORAGE_MOUNT};
use super::podman::{Container, Mount, MountMode, Namespaces, Podman};
use crate::progress::Progress;

/// Changes when the code below makes another disk of the same inputs.
pub(super) const PROCESS: &str = "1";

/// The disk's file, in the folder that the container has as `OUTPUT_MOUNT`.
const DISK: &str = "disk.raw";
const OUTPUT_MOUNT: &str = "/output";
const KEYS_MOUNT: &str = "/run/bootc-testboot.keys";

/// What of a configuration `bootc install` can do. It makes no users and no mount points: whoever
/// reads a configuration that has some refuses this builder.
pub(super) struct Wishes<'a> {
    /// As the kernel's command line has them.
    pub(super) kernel_arguments: &'a str,
    /// A file like ~/.ssh/authorized_keys, for root.
    pub(super) root_keys: Option<&'a Path>,
}

/// An installation, worked out beforehand.
struct Install<'a> {
    container: &'a str,
    image: &'a str,
    output: &'a Path,
    storage: &'a Path,
    wishes: &'a Wishes<'a>,
}

/// Installs the image on a disk in the empty folder `folder`, and gives its path.
pub(super) fn make(
    wishes: &Wishes<'_>,
    order: &Order<'_>,
    folder: &Path,
    progress: &Progress,
) -> Result<PathBuf> {
    let podman = Podman::of_root()?;
    podman.bring(order, progress)?;
    let path = folder.join(DISK);
    let create = || File::create(&path)?.set_len(order.size);
    create().with_context(|| format!("making {}", path.display()))?;
    let install = Install {
        container: &order.container(),
        image: &order.upgrades_from.to_string(),
        output: &fs::canonicalize(folder)?,
        storage: &podman.storage,
        wishes,
    };
    let doing = format!("making a disk of {} with its own bootc; this takes some minutes", order.name);
    let step = progress.step(doing);
    let done = podman.run(&install.container(), folder, &step);
    done.and(podman.release(&path))?;
    step.done(format!("made a disk of {}", order.name));
    Ok(path)
}

impl Install<'_> {
    /// The machine's devices and processes are what bootc wants. Source: bootc, docs, "bootc install".
    fn container(&self) -> Container<'_> {
        let mount = |from, to, mode| Mount { from, to, mode };
        let mut mounts = vec![
            mount(Path::new("/dev"), "/dev", MountMode::ReadWrite),
            mount(self.storage, STORAGE_MOUNT, MountMode::ReadWrite),
            mount(self.output, OUTPUT_MOUNT, MountMode::ReadWrite),
        ];
        mounts.extend(self.wishes.root_keys.map(|keys| mount(keys, KEYS_MOUNT, MountMode::ReadOnly)));
        Container {
            name: self.container,
            image: self.image,
            namespaces: Namespaces::Host,
            mounts,
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
        for argument in split(self.wishes.kernel_arguments) {
            words.extend(["--karg".into(), argument.into()]);
        }
        if self.wishes.root_keys.is_some() {
            words.extend(["--root-ssh-authorized-keys", KEYS_MOUNT].map(OsString::from));
        }
        words.push(format!("{OUTPUT_MOUNT}/{DISK}").into());
        words
    }
}

/// The arguments on a kernel's command line: blanks separate them, but not within double quotes.
/// Source: the kernel's admin-guide, "kernel-parameters".
fn split(line: &str) -> Vec<&str> {
    let mut is_quoted = false;
    let is_end = |c: char| {
        is_quoted ^= c == '"';
        c.is_whitespace() && !is_quoted
    };
    line.split(is_end).filter(|argument| !argument.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(wishes: &Wishes<'_>) -> String {
        let install = Install {
            container: "bootc-testboot-1",
            image: "ghcr.io/me/os:v1",
            output: Path::new("/ws/target/out put"),
            storage: Path::new("/var/lib/containers/storage"),
            wishes,
        };
        let words = install.container().arguments();
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn an_image_is_told_to_install_itself() {
        let kernel_arguments = r#"console=tty0 console=ttyS0,115200n8  dyndbg="file a.c +p""#;
        insta::assert_snapshot!(command(&Wishes { kernel_arguments, root_keys: None }), @r#"
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
        --karg
        dyndbg="file a.c +p"
        /output/disk.raw
        "#);
        let with_keys = Wishes { kernel_arguments: "", root_keys: Some(Path::new("/home/me/keys")) };
        let with_keys = command(&with_keys);
        assert!(with_keys.contains("\n/home/me/keys:/run/bootc-testboot.keys:ro\n"), "{with_keys}");
        assert!(
            with_keys.contains("\n--root-ssh-authorized-keys\n/run/bootc-testboot.keys\n"),
            "{with_keys}"
        );
        assert!(!with_keys.contains("--karg"), "{with_keys}");
    }
}
