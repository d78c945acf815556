//! Packing, measured side by side with buildah: a scratch image with one file in it, in a layout;
//! and what it takes to bring a disk of 10 GiB to a registry and back, over a line that breaks, too.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tempfile::TempDir;
use xshell::{Shell, cmd};

use super::disk::make_raw;
use super::proxy::Proxy;
use super::registry::{Noise, Registry};
use super::sample::{Sample, repeat};
use super::table::{Row, Table, Unit};
use crate::build;
use crate::cmd::Session;
use crate::cmd::test::{BUILDAH, DISTRIBUTION, DOCKER_REGISTRY};
use crate::exec::{self, Measured};
use crate::flags::Bench;
use crate::preflight::Need;

/// How often packing is measured when nothing is said: a round takes minutes.
const RUNS: usize = 1;
/// What everything has to do with, whatever the disk's size.
const MEMORY: f64 = 128e6;
/// The disk's size; of that, 1.3 GB are data, which is what a small installed system has.
const SIZE: u64 = 10 << 30;
/// The most that a push to a registry writes to disks: the entry of its upload.
/// Source: `LARGEST` in `registry/journal.rs`.
const JOURNAL: f64 = 65536.0;
/// A disk that no compression makes smaller, so that the middle of the file is the middle of its layer.
const NOISE: u64 = 64_000_000;
/// How often the push of that one is cut off in its middle, and how many of its bytes may pass in all.
const CUTS: usize = 10;
const CUT_BYTES: f64 = 1.2;
/// The least that does what `pack` does: the store's own copy is part of it.
const BUILDAH_SCRIPT: &str = "set -e
c=$(buildah --root root --runroot run from scratch)
buildah --root root --runroot run copy --quiet $c \"$1\" /disk/
i=$(buildah --root root --runroot run commit --quiet $c)
buildah --root root --runroot run push --quiet $i oci:buildah:t
buildah --root root --runroot run rm --all >/dev/null
buildah --root root --runroot run rmi --all --force >/dev/null";

pub(super) fn table(flags: &Bench, session: &Session) -> Result<Table> {
    session.ensure(&[build::GO, BUILDAH, DOCKER_REGISTRY, DISTRIBUTION])?;
    let runs = flags.runs.unwrap_or(RUNS);
    let lab = Lab::new(session)?;
    let (raw, qcow2) = (&lab.raw, &lab.qcow2);
    let registry = Registry::start(&DOCKER_REGISTRY, session)?;
    let layout = format!("oci:{}", lab.dir.path().join("ours").display());
    let remote = format!("{}/disk:t", registry.address());
    let elsewhere = format!("{}/elsewhere", registry.address());

    let buildah_qcow2 = repeat(runs, |_| lab.buildah(qcow2))?;
    let buildah_raw = repeat(runs, |_| lab.buildah(raw))?;
    let ours_qcow2 = repeat(runs, |_| lab.ours(qcow2, &layout))?;
    let ours_raw = repeat(runs, |_| lab.ours(raw, &layout))?;
    let sent = repeat(1, |_| lab.ours(raw, &remote))?;
    let pulled = repeat(runs, |_| lab.pull(&remote, raw))?;
    let (exported, imported) = lab.archive(&remote, &elsewhere)?;
    let kept = lab.cut(&DISTRIBUTION)?;
    let lost = lab.cut(&DOCKER_REGISTRY)?;

    let memory = |what, sample: Sample| Row::under(what, Unit::Bytes, sample.memory, MEMORY, "under 128 MB");
    let (seconds, bytes) = (Unit::Seconds, Unit::Bytes);
    let rows = vec![
        Row::share("qcow2: CPU time", seconds, ours_qcow2.cpu, buildah_qcow2.cpu, 1.0 / 6.0, "a sixth"),
        Row::share("qcow2: wall time", seconds, ours_qcow2.wall, buildah_qcow2.wall, 1.0, "no more"),
        Row::share("qcow2: layer", bytes, ours_qcow2.size, buildah_qcow2.size, 1.03, "3 % more at most"),
        Row::share("raw: CPU time", seconds, ours_raw.cpu, buildah_raw.cpu, 0.25, "a quarter"),
        Row::share("raw: wall time", seconds, ours_raw.wall, buildah_raw.wall, 1.0, "no more"),
        Row::share("raw: layer", bytes, ours_raw.size, buildah_raw.size, 1.0, "no more"),
        memory("10 GiB with 1.3 GB of data, to a layout: peak memory", ours_raw),
        memory("the same to a registry: peak memory", sent),
        Row {
            what: "the same to a registry: bytes written to disks",
            unit: bytes,
            ours: sent.written,
            other: None,
            bar: "a journal's 64 KiB",
            met: sent.written <= JOURNAL,
        },
        memory("the same from a registry: peak memory", pulled),
        memory("the same from a registry into an archive: peak memory", exported),
        memory("the same from there into a registry: peak memory", imported),
        Row::under(
            "64 MB cut ten times at half: sent, Distribution 3",
            Unit::Times,
            kept,
            CUT_BYTES,
            "under 1.2 of one push",
        ),
        Row {
            what: "the same, docker-registry, which loses what is cut",
            unit: Unit::Times,
            ours: lost,
            other: None,
            bar: "ends, and comes back",
            met: true,
        },
    ];
    let sh = Shell::new()?;
    let version = exec::read(cmd!(sh, "buildah --version"))?.trim().to_owned();
    Ok(Table { other: "buildah", version, runs, rows })
}

struct Lab<'a> {
    session: &'a Session,
    raw: PathBuf,
    qcow2: PathBuf,
    /// On the disks' own file system.
    dir: TempDir,
}

/// What matters here of what `pack` reports.
#[derive(Deserialize)]
struct Report {
    packed: Vec<Packed>,
}

#[derive(Deserialize)]
struct Packed {
    layer: Layer,
}

#[derive(Deserialize)]
struct Layer {
    size: u64,
}

impl<'a> Lab<'a> {
    fn new(session: &'a Session) -> Result<Lab<'a>> {
        let cache = session.cache("bench");
        let making = || format!("making a raw disk in {}", cache.display());
        fs::create_dir_all(&cache).with_context(making)?;
        let raw = cache.join("disk.raw");
        let step = session.progress.step("making a raw disk of 10 GiB with 1.3 GB in it, and a qcow2 of it");
        make_raw(&raw, SIZE).with_context(making)?;
        let dir = tempfile::tempdir_in(&cache).with_context(making)?;
        let lab = Lab { session, qcow2: dir.path().join("disk.qcow2"), raw, dir };
        let (raw, folder) = (&lab.raw, lab.dir.path());
        lab.run(&["disk", "qcow2", "--from"], &[raw, Path::new("--output"), folder])?;
        step.done("made a raw disk of 10 GiB with 1.3 GB in it, and a qcow2 of it");
        Ok(lab)
    }

    fn ours(&self, file: &Path, to: &str) -> Result<Sample> {
        let named = if to.starts_with("oci:") { format!("{to}:t") } else { to.to_owned() };
        let step = self.session.progress.step(format!("packing {} to {to}", file.display()));
        let cost = self.run(&["pack", "--to", &named], &[file])?;
        step.done(format!("packed {} to {to}", file.display()));
        let report: Report = serde_json::from_str(&cost.stdout).context("reading what `pack` reports")?;
        let size = report.packed.iter().map(|packed| packed.layer.size).sum();
        self.forget("ours")?;
        Ok(Sample::new(&cost, size))
    }

    /// Fails unless what comes is `packed`.
    fn pull(&self, from: &str, packed: &Path) -> Result<Sample> {
        let out = self.dir.path().join("pulled.raw");
        let step = self.session.progress.step(format!("pulling {from}"));
        let cost = self.run(&["pull", from, "-o"], &[&out])?;
        let sh = Shell::new()?;
        exec::run(cmd!(sh, "cmp {out} {packed}"))
            .context("comparing what was pulled with what was packed")?;
        step.done(format!("pulled {from}"));
        fs::remove_file(&out).with_context(|| format!("removing {}", out.display()))?;
        Ok(Sample::new(&cost, 0))
    }

    /// Into an archive and from there into another repository.
    fn archive(&self, from: &str, to: &str) -> Result<(Sample, Sample)> {
        let file = self.dir.path().join("release.tar");
        let step = self.session.progress.step(format!("exporting {from}, and importing it as {to}"));
        let exported = self.run(&["export", from, "-o"], &[&file])?;
        let imported = self.run(&["import", "--to", to], &[&file])?;
        step.done(format!("exported {from}, and imported it as {to}"));
        fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))?;
        Ok((Sample::new(&exported, 0), Sample::new(&imported, 0)))
    }

    /// How many times the bytes of one push pass when it is cut off in its middle, again and again.
    fn cut(&self, registry: &Need) -> Result<f64> {
        let noise = self.dir.path().join("noise.raw");
        let write = || io::copy(&mut Noise::new(0).take(NOISE), &mut File::create(&noise)?);
        write().with_context(|| format!("writing {}", noise.display()))?;
        let server = Registry::start(registry, self.session)?;
        let proxy = Proxy::before(server.address())?;
        let at = |name: &str| format!("{}/{name}:t", proxy.address());
        self.ours(&noise, &at("whole"))?;
        let whole = proxy.take().sent;
        proxy.cut_at(NOISE / 2, CUTS);
        self.ours(&noise, &at("cut"))?;
        let cut = proxy.take().sent;
        if proxy.cuts_left() > 0 {
            bail!("{} of {CUTS} cuts did not come about", proxy.cuts_left());
        }
        self.pull(&at("cut"), &noise)?;
        Ok(cut as f64 / whole as f64)
    }

    fn buildah(&self, file: &Path) -> Result<Sample> {
        let sh = Shell::new()?;
        sh.change_dir(self.dir.path());
        let step = self.session.progress.step(format!("packing {} with buildah", file.display()));
        let cost = exec::measure(cmd!(sh, "sh -c {BUILDAH_SCRIPT} sh {file}"))?;
        step.done(format!("packed {} with buildah", file.display()));
        // The one that is not a manifest or a config.
        let blobs = self.dir.path().join("buildah/blobs/sha256");
        let reading = || format!("reading {}", blobs.display());
        let mut size = 0;
        for blob in fs::read_dir(&blobs).with_context(reading)? {
            let metadata = blob.and_then(|blob| blob.metadata()).with_context(reading)?;
            size = size.max(metadata.len());
        }
        self.forget("buildah")?;
        Ok(Sample::new(&cost, size))
    }

    /// Runs this program.
    fn run(&self, arguments: &[&str], files: &[&Path]) -> Result<Measured> {
        let sh = Shell::new()?;
        sh.change_dir(&self.session.root);
        let program = std::env::current_exe().context("finding this program")?;
        Ok(exec::measure(cmd!(sh, "{program} {arguments...} {files...} --quiet --json"))?)
    }

    /// Removes what a run made, so that the next one finds nothing of it.
    fn forget(&self, name: &str) -> Result<()> {
        let path = self.dir.path().join(name);
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("removing {}", path.display()))?;
        }
        Ok(())
    }
}
