//! A base from Debian packages: one mmdebstrap run, whose tar becomes the base's only layer.
//!
//! It needs no container engine and no registry, and no root where user namespaces work. What is
//! in it, and how it becomes image-based, is data: the folder of the distro, and what all
//! distros share.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use chrono::NaiveDate;
use serde_json::json;
use xshell::{Shell, cmd};

use super::advice::PROVIDES;
use super::local::LocalBase;
use super::root::{self, NEWEST};
use super::{Freshness, collect, read};
use crate::exec;
use crate::hint::WithHint;
use crate::layer::{FileMode, Node, Tree, write_tar};
use crate::oci::annotation::{BUILDER, TITLE, VERSION};
use crate::oci::{
    Arch, Compression, Descriptor, Digest, Document, ImageName, LayerWriter, MediaType, Platform, Timestamp,
    Verified,
};
use crate::preflight::{Need, Source};
use crate::progress::{Progress, human_bytes};
use crate::store::{Completeness, Store};
use crate::subids;
use crate::workspace::Distro;
use crate::workspace::distro::PACKAGES;

const DPKG_OPTIONS: &str = "dpkg.cfg";
const CUSTOMIZE: &str = "customize.sh";
const ROOTFS: &str = "rootfs";
/// Files that every distro has, beside the families' folders.
const SHARED_ROOTFS: &str = "base/shared/rootfs";

/// The folder, in the layout, of the files that mmdebstrap is given.
const SCRATCH: &str = ".scratch";

/// Changes when the code below makes other bytes of the same inputs.
const PROCESS: &str = "4";

const MMDEBSTRAP: Need =
    Need { program: "mmdebstrap", purpose: "makes the Debian base", from: Source::Debian("mmdebstrap") };

/// What making it takes on this machine.
pub(crate) fn needs() -> Vec<Need> {
    subids::needs(MMDEBSTRAP)
}

/// What the base is made of: when this changes, it is made anew.
struct Recipe {
    suite: String,
    /// Midnight of the day of the release. It must not be 0, which shadow takes for "the password
    /// is to be changed now".
    epoch: Timestamp,
    arch: Arch,
    packages: Vec<String>,
    dpkg_options: Vec<String>,
    /// The tar that goes over the root before any package is configured.
    overlay: Vec<u8>,
}

/// What is to be made, and of what.
pub(crate) struct Order<'a> {
    pub(crate) distro: &'a Distro,
    pub(crate) suite: &'a str,
    /// The day of the suite's release.
    pub(crate) released: NaiveDate,
    /// The workspace's.
    pub(crate) root: &'a Path,
    /// The layout that the base is in afterwards.
    pub(crate) dir: &'a Path,
    pub(crate) freshness: Freshness,
}

/// The base in the layout `order.dir`, made when it is not there or its inputs changed.
pub(crate) fn ensure(
    order: &Order<'_>,
    progress: &Progress,
    preflight: &dyn Fn(&[Need]) -> Result<()>,
) -> Result<ImageName> {
    let Order { distro, dir, .. } = *order;
    let recipe = Recipe::read(distro, order.suite, order.released, order.root)?;
    let local = LocalBase::new(&distro.name, dir, &recipe.digest(&distro.title)?, order.freshness);
    if local.is_made()? {
        return Ok(local.name());
    }
    preflight(&needs())?;
    let mode = mode()?;
    let store = local.open(progress)?;
    // By now, another run may have made it.
    if local.is_made()? {
        return Ok(local.name());
    }
    let step =
        progress.step(format!("making {} from Debian packages; this takes about a minute", distro.name));
    let make = Make { order, recipe: &recipe, mode, tag: &local.tag };
    let size = make.carry_out(&store, |line| {
        if let Some(text) = line.strip_prefix("I: ") {
            step.at(format!("making {}: {text}", distro.name));
        }
    })?;
    local.keep(&store)?;
    step.done(format!("made {} ({})", distro.name, human_bytes(size)));
    Ok(local.name())
}

/// What is to be made, once all of it is known.
struct Make<'a> {
    order: &'a Order<'a>,
    recipe: &'a Recipe,
    /// mmdebstrap's.
    mode: &'static str,
    /// In the layout.
    tag: &'a str,
}

impl Make<'_> {
    /// Runs mmdebstrap and writes the image; gives the layer's size.
    fn carry_out(&self, store: &Store, on_line: impl FnMut(&str) + Send) -> Result<u64> {
        let Make { order: Order { distro, dir, .. }, recipe, mode, tag } = *self;
        // Inside the layout, whose lock is ours: what is there already is a killed run's.
        let left = dir.join(SCRATCH);
        if left.exists() {
            fs::remove_dir_all(&left).with_context(|| format!("removing {}", left.display()))?;
        }
        let scratch = tempfile::Builder::new()
            .prefix(SCRATCH)
            .rand_bytes(0)
            .tempdir_in(dir)
            .with_context(|| format!("making {}", left.display()))?;
        fs::write(scratch.path().join("overlay.tar"), &recipe.overlay).context("writing the base's files")?;
        let sh = Shell::new()?;
        sh.change_dir(scratch.path());
        let command = recipe.mmdebstrap(&sh, mode);

        let writing = || format!("writing the layer of {} in {}", distro.name, dir.display());
        let (layer, found) = store.put_new(|out| {
            let mut writer = LayerWriter::new(Compression::Gzip, out).with_context(writing)?;
            let found = exec::stream(command, |tar| root::layer(tar, &mut writer), on_line)
                .hint("lines that start with 'E:' say why; the package mirror has to be reachable")?;
            let (layer, _) = writer.finish(&distro.name.to_string()).with_context(writing)?;
            Ok((layer.descriptor().clone(), (layer, found)))
        })?;
        let kernel = found.kernel.context("the packages brought no kernel in /usr/lib/modules")?;
        // What tells one week's base from another's: the same packages have the same time.
        let created =
            found.newest.with_context(|| format!("{CUSTOMIZE} left no time in /{NEWEST}"))?.to_string();
        let labels = BTreeMap::from([
            (BUILDER, "ostree"),
            (PROVIDES, "nginx,systemd"),
            ("containers.bootc", "1"),
            (TITLE, distro.title.as_str()),
            (VERSION, distro.name.release()),
            ("ostree.bootable", "true"),
            ("ostree.linux", kernel.as_str()),
        ]);
        let config = Verified::own(
            json!({
                "created": created,
                "architecture": recipe.arch.name(),
                "os": "linux",
                "config": {"Labels": labels, "Cmd": ["/sbin/init"], "StopSignal": "SIGRTMIN+3"},
                "rootfs": {"type": "layers", "diff_ids": [layer.diff_id()]},
                "history": [{"created": created, "created_by": format!("mmdebstrap {}", recipe.suite)}],
            })
            .to_string()
            .into_bytes(),
        );
        let config_descriptor = config.descriptor(MediaType::ImageConfig);
        let manifest = Verified::own(
            json!({
                "schemaVersion": 2,
                "mediaType": MediaType::ImageManifest,
                "config": config_descriptor,
                "layers": [layer.descriptor()],
            })
            .to_string()
            .into_bytes(),
        );
        let document = Document::parse(manifest, None)?;
        store.put(&config_descriptor, &config)?;
        store.put(&document.descriptor(), document.blob())?;
        store.tag(tag, &document, &Completeness::Whole)?;
        let Descriptor { size, .. } = layer.descriptor();
        Ok(*size)
    }
}

impl Recipe {
    fn read(distro: &Distro, suite: &str, released: NaiveDate, root: &Path) -> Result<Recipe> {
        let arch = Platform::host().arch;

        let mut files = BTreeMap::new();
        for rootfs in [root.join(SHARED_ROOTFS), distro.dir.join(ROOTFS)] {
            collect(&rootfs, "", &mut files)?;
        }
        let content = read(&distro.dir.join(CUSTOMIZE))?;
        files.insert(CUSTOMIZE.to_owned(), Node::File { mode: FileMode::Plain, content });
        let mut tree = Tree::default();
        for (path, node) in files {
            tree.insert(path, node)?;
        }
        let mut overlay = Vec::new();
        write_tar(&tree, &mut overlay)?;

        Ok(Recipe {
            suite: suite.to_owned(),
            epoch: Timestamp::midnight(released),
            arch,
            packages: packages(&lines(&distro.dir.join(PACKAGES))?, arch),
            dpkg_options: lines(&distro.dir.join(DPKG_OPTIONS))?,
            overlay,
        })
    }

    /// What mmdebstrap is called with, its files included.
    fn digest(&self, title: &str) -> Result<Digest> {
        let sh = Shell::new()?;
        let command = self.mmdebstrap(&sh, "MODE").to_string();
        let inputs = [PROCESS.as_bytes(), title.as_bytes(), command.as_bytes(), &self.overlay];
        Ok(Digest::of(&inputs.map(|input| Digest::of(input).hex()).concat().into_bytes()))
    }

    /// The tar of the finished root goes to standard output. The hooks, the clean environment
    /// and the skipped steps are what makes it the same for root and for an ordinary user.
    fn mmdebstrap<'a>(&self, sh: &'a Shell, mode: &str) -> xshell::Cmd<'a> {
        let (suite, arch) = (self.suite.as_str(), self.arch.name());
        let include = self.packages.join(",");
        let hook = r#"chroot "$1" sh /customize.sh"#;
        let dpkg_options = self.dpkg_options.iter().map(|option| format!("--dpkgopt={option}"));
        let command = cmd!(sh, "mmdebstrap --mode={mode} --variant=minbase --format=tar")
            .args(dpkg_options)
            .arg(format!("--architectures={arch}"))
            .arg("--components=main")
            .arg(format!("--include={include}"))
            .arg(r#"--aptopt=Acquire::Retries "3""#)
            // apt's lists would land in /var again; device nodes are the host's.
            .arg("--skip=cleanup/apt,output/dev")
            .arg("--essential-hook=tar-in overlay.tar /")
            .arg(format!("--essential-hook={hook}"))
            .arg(format!("--customize-hook={hook}"))
            .args([suite, "-"])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/nonexistent")
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .env("SOURCE_DATE_EPOCH", self.epoch.seconds().to_string())
            // dracut runs once, in the hook, and not for each package.
            .env("INITRD", "No");
        let passed_on = ["TMPDIR", "http_proxy", "https_proxy", "no_proxy"];
        passed_on.into_iter().fold(command, |command, name| match std::env::var_os(name) {
            Some(value) => command.env(name, value),
            None => command,
        })
    }
}

/// How mmdebstrap becomes root inside: it is, or user namespaces make it look so.
fn mode() -> Result<&'static str> {
    if rustix::process::geteuid().is_root() {
        return Ok("root");
    }
    subids::check(None)?;
    let sh = Shell::new()?;
    exec::run(cmd!(sh, "mmdebstrap --unshare-helper true"))
        .context("user namespaces do not work here")
        .hint(subids::NAMESPACES_HINT)?;
    Ok("unshare")
}

/// The packages for `arch`. `@ARCH@` stands for its name, and a list in brackets keeps a line to
/// the architectures in it. Source of the names: Debian, which calls ppc64le ppc64el.
fn packages(lines: &[String], arch: Arch) -> Vec<String> {
    let debian = match arch {
        Arch::Amd64 | Arch::Arm64 | Arch::S390x => arch.name(),
        Arch::Ppc64le => "ppc64el",
    };
    let package = |line: &String| -> Option<String> {
        let (name, only) = line.split_once('[').unwrap_or((line, debian));
        let is_for_it = only.trim_end_matches(']').split_whitespace().any(|listed| listed == debian);
        is_for_it.then(|| name.trim().replace("@ARCH@", debian))
    };
    lines.iter().filter_map(package).collect()
}

/// The lines of a list, without comments.
fn lines(path: &Path) -> Result<Vec<String>> {
    let text = String::from_utf8(read(path)?).with_context(|| format!("reading {}", path.display()))?;
    let content = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    Ok(content.filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_chosen_by_architecture() {
        let lines = [
            "systemd",
            "linux-image-cloud-@ARCH@",
            "grub-pc-bin [amd64]",
            "grub-efi-@ARCH@-bin [amd64 arm64]",
        ];
        let lines = lines.map(str::to_owned);
        assert_eq!(
            packages(&lines, Arch::Amd64),
            ["systemd", "linux-image-cloud-amd64", "grub-pc-bin", "grub-efi-amd64-bin"]
        );
        assert_eq!(packages(&lines, Arch::Ppc64le), ["systemd", "linux-image-cloud-ppc64el"]);
    }
}
