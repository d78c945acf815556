//! A base from Debian packages: one mmdebstrap run, whose tar becomes the base's only layer.
//!
//! It needs no container engine and no registry, and no root where user namespaces work. What is
//! in it, and how it becomes image-based, is data: the folder of the distro, and what all
//! distros share.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use chrono::NaiveDate;
use serde_json::json;
use tar::EntryType;
use xshell::{Shell, cmd};

use super::advice::PROVIDES;
use super::local::LocalBase;
use super::{Freshness, collect, read};
use crate::exec;
use crate::hint::WithHint;
use crate::layer::{FileMode, Node, Tree, write_tar};
use crate::oci::annotation::{BUILDER, TITLE, VERSION};
use crate::oci::tar::{attributes, header};
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

/// Where `customize.sh` leaves the time of the newest package, in seconds since 1970.
const NEWEST: &str = "usr/share/testboot/newest-package";

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

        let (layer, found) = store.put_new(|out| {
            let mut writer = LayerWriter::new(Compression::Gzip, out)?;
            let found = exec::stream(command, |tar| normalise(tar, &mut writer), on_line)
                .hint("lines that start with 'E:' say why; the package mirror has to be reachable")?;
            let (layer, _) = writer.finish(&distro.name.to_string())?;
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

/// What a root says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// The version of its kernel.
    kernel: Option<String>,
    /// When the newest of its packages was made.
    newest: Option<Timestamp>,
}

/// Passes a root's tar on as a layer: no times, no names of users, no leading `./`, no devices.
fn normalise(tar: &mut dyn Read, layer: impl Write) -> io::Result<Found> {
    let mut found = Found::default();
    let mut has_dev = false;
    let mut builder = tar::Builder::new(layer);
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = String::from_utf8(entry.path_bytes().into_owned()).map_err(io::Error::other)?;
        let path = path.strip_prefix("./").unwrap_or(&path).to_owned();
        if path.is_empty() {
            continue;
        }
        // systemd mounts devices there before it can make a folder: it has to be in the image.
        if !has_dev && path.as_str() >= "dev" {
            has_dev = true;
            if path != "dev/" {
                let mut header = header(EntryType::Directory, 0o755, 0);
                builder.append_data(&mut header, "dev/", io::empty())?;
            }
        }
        if let Some(version) =
            path.strip_prefix("usr/lib/modules/").and_then(|rest| rest.strip_suffix("/vmlinuz"))
        {
            found.kernel = Some(version.to_owned());
        }
        let mut header = header(entry.header().entry_type(), entry.header().mode()?, entry.size());
        header.set_uid(entry.header().uid()?);
        header.set_gid(entry.header().gid()?);
        let attributes = attributes(&mut entry)?;
        if !attributes.is_empty() {
            builder.append_pax_extensions(
                attributes.iter().map(|(key, value)| (key.as_str(), value.as_slice())),
            )?;
        }
        match entry.header().entry_type() {
            EntryType::Regular if path == NEWEST => {
                let mut text = String::new();
                entry.read_to_string(&mut text)?;
                found.newest = Some(text.trim_end().parse().map_err(io::Error::other)?);
                builder.append_data(&mut header, &path, text.as_bytes())?
            }
            EntryType::Regular | EntryType::Directory => {
                builder.append_data(&mut header, &path, &mut entry)?
            }
            EntryType::Symlink | EntryType::Link => {
                let target = entry.link_name_bytes().map(|name| name.into_owned()).unwrap_or_default();
                let target = String::from_utf8(target).map_err(io::Error::other)?;
                let is_hard = entry.header().entry_type() == EntryType::Link;
                let target = target.strip_prefix("./").filter(|_| is_hard).unwrap_or(&target);
                builder.append_link(&mut header, &path, target)?;
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {}
            other => {
                return Err(io::Error::other(format!("/{path} is a {other:?}, which no layer can hold")));
            }
        }
    }
    // The blocks that fill the last record come after the end: who writes them wants them read.
    io::copy(archive.into_inner(), &mut io::sink())?;
    builder.finish()?;
    Ok(found)
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

    #[test]
    fn a_root_becomes_a_layer_without_times_and_devices() {
        let mut root = tar::Builder::new(Vec::new());
        let mut add = |kind: EntryType, path: &str, link: &str, content: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(0o755);
            header.set_uid(33);
            header.set_gid(33);
            header.set_mtime(1_700_000_000);
            header.set_size(content.len() as u64);
            header.set_username("www-data").unwrap();
            match kind {
                EntryType::Symlink | EntryType::Link => root.append_link(&mut header, path, link).unwrap(),
                _ => root.append_data(&mut header, path, content).unwrap(),
            }
        };
        add(EntryType::Directory, "./boot/", "", b"");
        add(EntryType::Char, "./null", "", b"");
        add(EntryType::Regular, "./usr/lib/modules/6.12/vmlinuz", "", b"kernel");
        add(EntryType::Link, "./usr/lib/modules/6.12/again", "./usr/lib/modules/6.12/vmlinuz", b"");
        add(EntryType::Regular, "./usr/share/testboot/newest-package", "", b"1700000000\n");
        add(EntryType::Symlink, "./vmlinuz", "./usr/lib/x", b"");
        let root = root.into_inner().unwrap();

        let mut layer = Vec::new();
        let found = normalise(&mut &root[..], &mut layer).unwrap();
        let newest = Some("1700000000".parse().unwrap());
        assert_eq!(found, Found { kernel: Some("6.12".to_owned()), newest });
        let mut listing = Vec::new();
        for entry in tar::Archive::new(&layer[..]).entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.mtime().unwrap(), header.username_bytes().unwrap_or_default()), (0, &b""[..]));
            let text = |bytes: std::borrow::Cow<'_, [u8]>| String::from_utf8(bytes.into_owned()).unwrap();
            listing.push((text(entry.path_bytes()), entry.link_name_bytes().map(text).unwrap_or_default()));
        }
        let expected = [
            ("boot/", ""),
            ("dev/", ""),
            ("usr/lib/modules/6.12/vmlinuz", ""),
            ("usr/lib/modules/6.12/again", "usr/lib/modules/6.12/vmlinuz"),
            ("usr/share/testboot/newest-package", ""),
            ("vmlinuz", "./usr/lib/x"),
        ];
        assert_eq!(listing, expected.map(|(path, link)| (path.to_owned(), link.to_owned())));
    }
}
