//! osbuild's builders in a container, of both generations: bootc-image-builder, and the image-builder
//! that took its place. One run makes a raw disk; all formats come from that.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use super::config::Config;
use super::podman::{self, Container, Mount, MountMode, Namespaces, Podman};
use super::{Builder, Order, Product, limits};
use crate::hint::WithHint;
use crate::progress::Progress;

/// Changes when the code below makes another disk of the same inputs.
pub(super) const PROCESS: &str = "1";
/// What runs when nobody says otherwise.
pub(crate) const IMAGE: &str = "quay.io/centos-bootc/bootc-image-builder:latest";
/// Fedora's bases name no file system of the root; all get this one.
pub(super) const ROOT_FILE_SYSTEM: &str = "ext4";

/// Where the builder finds its configuration, and writes: bootc-image-builder knows no others.
const CONFIG_MOUNT: &str = "/config.toml";
const OUTPUT_MOUNT: &str = "/output";
/// Where both look for the image.
pub(super) const STORAGE_MOUNT: &str = "/var/lib/containers/storage";

/// Which command line an image understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Generation {
    BootcImageBuilder,
    ImageBuilder,
}

/// Says what of a config has no place in `product`, all of it.
pub(super) fn check_config(product: Product, config: &Config) -> Result<()> {
    let cannot = match product {
        Product::Raw => limits::installer(config),
        Product::Iso => limits::storage(config),
    };
    limits::refuse(Builder::Osbuild, &cannot)
}

/// How large a disk is at least, in bytes, on which everything is as large as `config` wants it. The
/// builder's own partitions come on top: it makes the disk longer by itself, if need be.
pub(super) fn least_size(config: &Config) -> u64 {
    config.storage.least_size().checked_next_multiple_of(1 << 20).unwrap_or(u64::MAX)
}

/// A run, worked out beforehand.
struct Build<'a> {
    generation: Generation,
    product: Product,
    container: &'a str,
    builder: &'a str,
    image: &'a str,
    config: &'a Path,
    output: &'a Path,
    storage: &'a Path,
    /// User and group of what is written.
    owner: (u32, u32),
}

impl Generation {
    /// Tells by what `build --help` says. Source: osbuild/image-builder, "Migrating from
    /// bootc-image-builder".
    fn of(help: &str) -> Option<Generation> {
        if help.contains("--bootc-ref") {
            Some(Generation::ImageBuilder)
        } else if help.contains("--rootfs") {
            Some(Generation::BootcImageBuilder)
        } else {
            None
        }
    }

    /// Says what of the order's config is not read by a builder of this generation. What bootc-generic-iso
    /// makes is the image itself, started from a CD; its name and its menu are files in the image.
    /// Source: osbuild.org, image-builder, "ISOs".
    fn check_config(self, order: &Order<'_>, progress: &Progress) -> Result<()> {
        let reads_it = match (self, order.product) {
            (Generation::ImageBuilder, Product::Iso) => false,
            (Generation::ImageBuilder, Product::Raw) | (Generation::BootcImageBuilder, _) => true,
        };
        if reads_it {
            return Ok(());
        }
        let cannot = limits::all_but_the_kernel(order.config);
        limits::refuse(Builder::Osbuild, &cannot)
            .hint("bootc-image-builder does it: leave '--builder-image' out")?;
        if !order.config.kernel.is_empty() {
            progress
                .line("iso: its kernel gets the arguments that the image says, not those of configs/builder");
        }
        Ok(())
    }
}

impl Product {
    /// What each generation calls it.
    fn type_name(self, generation: Generation) -> &'static str {
        match (self, generation) {
            (Product::Raw, Generation::BootcImageBuilder | Generation::ImageBuilder) => "raw",
            (Product::Iso, Generation::BootcImageBuilder) => "anaconda-iso",
            // It refuses its predecessor's name.
            (Product::Iso, Generation::ImageBuilder) => "bootc-generic-iso",
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Product::Raw => "a disk",
            Product::Iso => "an installer",
        }
    }

    /// How its file's name ends.
    fn ending(self) -> &'static str {
        match self {
            Product::Raw => "raw",
            Product::Iso => "iso",
        }
    }
}

/// Makes the order's product below the empty folder `folder`, and gives its path.
pub(super) fn make(order: &Order<'_>, folder: &Path, progress: &Progress) -> Result<PathBuf> {
    let podman = Podman::of_root()?;
    let builder = order.builder_image.to_string();
    let step = progress.step(format!("asking {builder} how it is called"));
    let help = podman.ask(&builder, &["build", "--help"], &step)?;
    drop(step);
    let generation = Generation::of(&help)
        .ok_or_else(|| {
            anyhow!("{builder} builds no disks: its 'build' knows neither --rootfs nor --bootc-ref")
        })
        .hint("'--builder-image' names bootc-image-builder's image, or image-builder's")?;
    generation.check_config(order, progress)?;
    let _brought = podman.bring(order, folder, progress)?;

    let folder = fs::canonicalize(folder)?;
    let config = folder.join("config.toml");
    fs::write(&config, order.blueprint()?).with_context(|| format!("writing {}", config.display()))?;
    let container = order.container();
    let build = Build {
        generation,
        product: order.product,
        container: &container,
        builder: &builder,
        image: &order.upgrades_from.to_string(),
        config: &config,
        output: &folder,
        storage: &podman.storage,
        owner: podman::owner(),
    };
    let what = order.product.noun();
    let step =
        progress.step(format!("making {what} of {} with {builder}; this takes 10 to 20 minutes", order.name));
    podman.run(&build.container(), (&folder, progress), &step)?;
    let made = product_in(&folder, order.product.ending())?;
    step.done(format!("made {what} of {}", order.name));
    Ok(made)
}

impl Build<'_> {
    fn container(&self) -> Container<'_> {
        Container {
            name: self.container,
            image: self.builder,
            namespaces: Namespaces::Own,
            mounts: vec![
                Mount { from: self.config, to: CONFIG_MOUNT, mode: MountMode::ReadOnly },
                Mount { from: self.output, to: OUTPUT_MOUNT, mode: MountMode::ReadWrite },
                Mount { from: self.storage, to: STORAGE_MOUNT, mode: MountMode::ReadWrite },
            ],
            attaches: None,
            command: self.command(),
        }
    }

    /// What the builder is told. Source: bootc-image-builder's and image-builder's `build --help`.
    fn command(&self) -> Vec<OsString> {
        let kind = self.product.type_name(self.generation);
        let (user, group) = self.owner;
        let owner = format!("{user}:{group}");
        let words: Vec<&str> = match self.generation {
            Generation::BootcImageBuilder => {
                let mut words = vec!["--type", kind, "--rootfs", ROOT_FILE_SYSTEM];
                words.extend(["--chown", &owner, "--progress", "verbose", self.image]);
                words
            }
            Generation::ImageBuilder => {
                let mut words =
                    vec!["build", "--bootc-ref", self.image, "--bootc-default-fs", ROOT_FILE_SYSTEM];
                match self.product {
                    Product::Raw => words.extend(["--blueprint", CONFIG_MOUNT]),
                    // It has no use for one.
                    Product::Iso => {}
                }
                words.extend(["--output-dir", OUTPUT_MOUNT, "--progress", "verbose", kind]);
                words
            }
        };
        words.into_iter().map(OsString::from).collect()
    }
}

/// The one file below `folder` with this ending: where it is differs from version to version.
fn product_in(folder: &Path, ending: &str) -> Result<PathBuf> {
    let looking = || format!("looking for what the builder wrote in {}", folder.display());
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(looking)? {
            let entry = entry.with_context(looking)?;
            let kind = entry.file_type().with_context(looking)?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && entry.path().extension().is_some_and(|found| found == ending) {
                found.push(entry.path());
            }
        }
    }
    match <[PathBuf; 1]>::try_from(found) {
        Ok([path]) => Ok(path),
        Err(found) => {
            Err(anyhow!("it wrote {} files that end in .{ending}, and one is expected", found.len()))
                .hint("'--builder-image' names another version")
                .with_context(looking)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(generation: Generation, product: Product) -> String {
        let build = Build {
            generation,
            product,
            container: "bootc-testboot-1",
            builder: "quay.io/o/builder:latest",
            image: "ghcr.io/me/os:v1",
            config: Path::new("/ws/target/out put/config.toml"),
            output: Path::new("/ws/target/out put"),
            storage: Path::new("/var/lib/containers/storage"),
            owner: (1000, 100),
        };
        let words = build.container().arguments();
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn each_generation_has_its_command_line() {
        insta::assert_snapshot!(command(Generation::BootcImageBuilder, Product::Raw), @"
        run
        --rm
        --name
        bootc-testboot-1
        --stop-timeout=2
        --pull=never
        --privileged
        --security-opt
        label=type:unconfined_t
        --volume
        /ws/target/out put/config.toml:/config.toml:ro
        --volume
        /ws/target/out put:/output
        --volume
        /var/lib/containers/storage:/var/lib/containers/storage
        quay.io/o/builder:latest
        --type
        raw
        --rootfs
        ext4
        --chown
        1000:100
        --progress
        verbose
        ghcr.io/me/os:v1
        ");
        insta::assert_snapshot!(command(Generation::ImageBuilder, Product::Raw), @"
        run
        --rm
        --name
        bootc-testboot-1
        --stop-timeout=2
        --pull=never
        --privileged
        --security-opt
        label=type:unconfined_t
        --volume
        /ws/target/out put/config.toml:/config.toml:ro
        --volume
        /ws/target/out put:/output
        --volume
        /var/lib/containers/storage:/var/lib/containers/storage
        quay.io/o/builder:latest
        build
        --bootc-ref
        ghcr.io/me/os:v1
        --bootc-default-fs
        ext4
        --blueprint
        /config.toml
        --output-dir
        /output
        --progress
        verbose
        raw
        ");
    }

    #[test]
    fn each_generation_makes_installers() {
        // What follows the builder's image differs, and nothing before.
        let told = |generation| {
            let raw = command(generation, Product::Raw);
            let iso = command(generation, Product::Iso);
            let told = |text: &str| {
                let (before, after) = text.split_once("\nquay.io/o/builder:latest\n").unwrap();
                (before.to_owned(), after.replace('\n', " "))
            };
            assert_eq!(told(&raw).0, told(&iso).0);
            told(&iso).1
        };
        insta::assert_snapshot!(told(Generation::BootcImageBuilder), @"--type anaconda-iso --rootfs ext4 --chown 1000:100 --progress verbose ghcr.io/me/os:v1");
        insta::assert_snapshot!(told(Generation::ImageBuilder), @"build --bootc-ref ghcr.io/me/os:v1 --bootc-default-fs ext4 --output-dir /output --progress verbose bootc-generic-iso");
    }

    #[test]
    fn a_disk_is_no_installer_and_has_room_for_what_is_wanted() {
        let config = |text: &str| Config::parse("config.toml", text.as_bytes(), &[]).unwrap();
        let installer =
            config("customizations.installer.unattended = true\ncustomizations.iso.volume_id = 'OS'");
        insta::assert_snapshot!(check_config(Product::Raw, &installer).unwrap_err(), @"
        the builder 'image-builder' cannot do what configs/builder asks for:
          [customizations.installer]: what it makes is no installer
          [customizations.iso]: what it makes is no ISO
        ");
        assert!(check_config(Product::Iso, &installer).is_ok());
        let divided = config("[[customizations.filesystem]]\nmountpoint = '/'\nminsize = '9 GiB'");
        insta::assert_snapshot!(check_config(Product::Iso, &divided).unwrap_err(), @"
        the builder 'image-builder' cannot do what configs/builder asks for:
          [[customizations.filesystem]]: an installer divides the disk that it finds, and a kickstart says how
        ");
        let users =
            config("[[customizations.user]]\nname = 'devops'\n[[customizations.group]]\nname = 'data'");
        assert!(check_config(Product::Raw, &users).is_ok());

        let least = |text: &str| least_size(&config(text)) >> 20;
        assert_eq!(least(""), 0);
        let file_system = |path, size| {
            format!("[[customizations.filesystem]]\nmountpoint = '{path}'\nminsize = '{size}'\n")
        };
        assert_eq!(least(&(file_system("/", "2 GiB") + &file_system("/var/lib/data", "1 GiB"))), 3 << 10);
        let partition = "[[customizations.disk.partitions]]\ntype = 'plain'\nmountpoint = '/var/lib/data'\nfs_type = 'xfs'\nminsize = '6 GiB'\n";
        let disk = |size: &str| format!("[customizations.disk]\nminsize = '{size}'\n{partition}");
        assert_eq!((least(&disk("5 GiB")), least(&disk("7 GiB"))), (6 << 10, 7 << 10));
    }

    #[test]
    fn generations_are_told_by_their_help() {
        let old = "Usage:\n  bootc-image-builder build IMAGE_NAME\n\nFlags:\n      --rootfs string   Root filesystem";
        let new = "Usage:\n  image-builder build <image-type> [flags]\n\nFlags:\n      --bootc-ref string   bootc container ref";
        assert_eq!(Generation::of(old), Some(Generation::BootcImageBuilder));
        assert_eq!(Generation::of(new), Some(Generation::ImageBuilder));
        assert_eq!(Generation::of("Usage: nginx [-?hvVtTq]"), None);
    }

    #[test]
    fn one_disk_is_expected() {
        let dir = tempfile::tempdir().unwrap();
        let error = |count: usize| format!("it wrote {count} files that end in .raw, and one is expected");
        let found = || product_in(dir.path(), "raw").map_err(|error| error.root_cause().to_string());
        assert_eq!(found(), Err(error(0)));
        fs::create_dir(dir.path().join("image")).unwrap();
        let disk = dir.path().join("image/disk.raw");
        fs::write(&disk, "").unwrap();
        fs::write(dir.path().join("manifest-raw.json"), "").unwrap();
        std::os::unix::fs::symlink("/dev/zero", dir.path().join("link.raw")).unwrap();
        assert_eq!(found(), Ok(disk));
        fs::write(dir.path().join("other.raw"), "").unwrap();
        assert_eq!(found(), Err(error(2)));
    }
}
