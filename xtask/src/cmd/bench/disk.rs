//! Disks of all formats, measured side by side with the programs that builders use for them: one
//! `qemu-img convert` or `tar` after the other, from the same raw; and before all of them, a raw of an image.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tempfile::TempDir;
use xshell::{Shell, cmd};

use super::image;
use super::sample::{Sample, repeat};
use super::table::{Row, Table, Unit};
use crate::cmd::Session;
use crate::cmd::test::QEMU_IMG;
use crate::exec;
use crate::flags::Bench;

/// How often disks are measured when nothing is said: a round takes minutes.
const RUNS: usize = 1;
/// The size of the raw, and what is in it: what a small installed system has.
const SIZE: u64 = 8 << 30;
const DATA: u64 = 1_332_000_000;
/// After so much data comes a hole.
const EXTENT: u64 = 8 << 20;
const HOLE: u64 = 36 << 20;
/// Where the data begins, as a first partition would, and how it is aligned, as a file system does.
const START: u64 = 1 << 20;
const ALIGNMENT: u64 = 4096;
/// Larger files would make up too much of it.
const LARGEST_FILE: u64 = 100_000_000;
/// Where the data comes from: programs, libraries, texts, and what is compressed already.
const SOURCES: [&str; 4] = ["/usr/lib", "/usr/bin", "/usr/share", "/usr/include"];

/// What the other tools do, each for one output.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tool {
    Qcow2Zlib,
    Qcow2Zstd,
    Vmdk,
    Vhd,
    Ova,
    Gce,
}

/// Which of them make what `disk` makes when it makes everything.
const EVERYTHING: [Tool; 5] = [Tool::Qcow2Zlib, Tool::Vmdk, Tool::Vhd, Tool::Ova, Tool::Gce];

pub(super) fn table(flags: &Bench, session: &Session) -> Result<Table> {
    session.ensure(&[QEMU_IMG])?;
    let runs = flags.runs.unwrap_or(RUNS);
    let made = image::row(runs, session)?;
    let lab = Lab::new(session)?;
    let theirs = |tool| repeat(runs, |_| lab.tool(tool));
    let qcow2_zlib = theirs(Tool::Qcow2Zlib)?;
    let qcow2_zstd = theirs(Tool::Qcow2Zstd)?;
    let vmdk = theirs(Tool::Vmdk)?;
    let (vhd, ova, gce) = (theirs(Tool::Vhd)?, theirs(Tool::Ova)?, theirs(Tool::Gce)?);
    let everything = EVERYTHING.iter().map(|tool| match tool {
        Tool::Qcow2Zlib => &qcow2_zlib,
        Tool::Qcow2Zstd => &qcow2_zstd,
        Tool::Vmdk => &vmdk,
        Tool::Vhd => &vhd,
        Tool::Ova => &ova,
        Tool::Gce => &gce,
    });
    let (cpu, wall) = everything.fold((0.0, 0.0), |(cpu, wall), one| (cpu + one.cpu, wall + one.wall));
    let ours = |formats: &[&str]| repeat(runs, |_| lab.ours(formats));
    let (our_qcow2, our_vmdk, our_gce) = (ours(&["qcow2"])?, ours(&["vmdk"])?, ours(&["gce"])?);
    let all = ours(&["qcow2", "vmdk", "vhd", "ova", "gce"])?;

    let (seconds, bytes) = (Unit::Seconds, Unit::Bytes);
    let rows = vec![
        made,
        Row::share("qcow2: CPU time, beside zlib", seconds, our_qcow2.cpu, qcow2_zlib.cpu, 0.25, "a quarter"),
        Row::share(
            "qcow2: CPU time, beside zstd",
            seconds,
            our_qcow2.cpu,
            qcow2_zstd.cpu,
            0.8,
            "four fifths",
        ),
        Row::share("qcow2: size, beside zlib", bytes, our_qcow2.size, qcow2_zlib.size, 1.0, "no more"),
        Row::share(
            "qcow2: size, beside zstd",
            bytes,
            our_qcow2.size,
            qcow2_zstd.size,
            1.05,
            "5 % more at most",
        ),
        Row::share("vmdk: CPU time", seconds, our_vmdk.cpu, vmdk.cpu, 1.0 / 3.0, "a third"),
        Row::share("vmdk: size", bytes, our_vmdk.size, vmdk.size, 1.05, "5 % more at most"),
        Row::share("gce: CPU time", seconds, our_gce.cpu, gce.cpu, 0.25, "a quarter"),
        Row::share("gce: size", bytes, our_gce.size, gce.size, 1.1, "10 % more at most"),
        Row::share("all five: CPU time", seconds, all.cpu, cpu, 0.2, "a fifth"),
        Row::share("all five: wall time", seconds, all.wall, wall, 0.125, "an eighth"),
        Row::under("all five: peak memory", bytes, all.memory, 256e6, "under 256 MB"),
    ];
    let sh = Shell::new()?;
    let version = exec::read(cmd!(sh, "qemu-img --version"))?;
    let version = version.lines().next().unwrap_or_default().to_owned();
    Ok(Table { other: "tools", version, runs, rows })
}

struct Lab<'a> {
    session: &'a Session,
    raw: PathBuf,
    /// On the raw's own file system, for outputs.
    dir: TempDir,
}

/// What matters here of what `disk` reports.
#[derive(Deserialize)]
pub(super) struct Report {
    outputs: Vec<ReportedOutput>,
}

impl Report {
    /// Of all outputs, in bytes.
    pub(super) fn size(&self) -> u64 {
        self.outputs.iter().map(|output| output.size).sum()
    }
}

#[derive(Deserialize)]
struct ReportedOutput {
    size: u64,
}

impl<'a> Lab<'a> {
    fn new(session: &'a Session) -> Result<Lab<'a>> {
        let cache = session.cache("bench");
        let making = || format!("making a raw disk in {}", cache.display());
        fs::create_dir_all(&cache).with_context(making)?;
        let raw = cache.join("disk.raw");
        let step = session.progress.step("making a raw disk of 8 GiB with 1.3 GB in it");
        make_raw(&raw, SIZE).with_context(making)?;
        step.done("made a raw disk of 8 GiB with 1.3 GB in it");
        let dir = tempfile::tempdir_in(&cache).with_context(making)?;
        Ok(Lab { session, raw, dir })
    }

    fn ours(&self, formats: &[&str]) -> Result<Sample> {
        let sh = Shell::new()?;
        sh.change_dir(&self.session.root);
        let program = std::env::current_exe().context("finding this program")?;
        let (raw, dir) = (&self.raw, self.dir.path());
        let command = cmd!(sh, "{program} disk {formats...} --from {raw} --output {dir} --quiet --json");
        let step = self.session.progress.step(format!("writing {} with this program", formats.join(", ")));
        let cost = exec::measure(command)?;
        step.done(format!("wrote {} with this program", formats.join(", ")));
        let report: Report = serde_json::from_str(&cost.stdout).context("reading what `disk` reports")?;
        self.sample(&cost, report.size())
    }

    fn tool(&self, tool: Tool) -> Result<Sample> {
        let sh = Shell::new()?;
        sh.change_dir(self.dir.path());
        let raw = &self.raw;
        let convert = |options: &[&str]| cmd!(sh, "qemu-img convert -f raw {options...} {raw} out");
        let vmdk = ["-O", "vmdk", "-o", "subformat=streamOptimized"];
        let (name, command) = match tool {
            Tool::Qcow2Zlib => ("qemu-img -c -O qcow2", convert(&["-c", "-O", "qcow2"])),
            Tool::Qcow2Zstd => {
                ("qemu-img -c -O qcow2, zstd", convert(&["-c", "-O", "qcow2", "-o", "compression_type=zstd"]))
            }
            Tool::Vmdk => ("qemu-img -O vmdk", convert(&vmdk)),
            Tool::Vhd => ("qemu-img -O vpc", convert(&["-O", "vpc", "-o", "subformat=fixed,force_size=on"])),
            Tool::Ova => {
                let script = "qemu-img convert -f raw -O vmdk -o subformat=streamOptimized \"$1\" disk.vmdk \
                              && sha256sum disk.vmdk > disk.mf && tar --format=ustar -cf out disk.mf disk.vmdk";
                ("qemu-img -O vmdk, sha256sum and tar", cmd!(sh, "sh -c {script} sh {raw}"))
            }
            Tool::Gce => {
                let script = "tar --format=oldgnu -C \"$(dirname \"$1\")\" -S -cf - disk.raw | gzip > out";
                ("tar -S and gzip", cmd!(sh, "sh -c {script} sh {raw}"))
            }
        };
        let step = self.session.progress.step(format!("writing with {name}"));
        let cost = exec::measure(command)?;
        step.done(format!("wrote with {name}"));
        let out = self.dir.path().join("out");
        let size = fs::metadata(&out).with_context(|| format!("reading {}", out.display()))?.len();
        self.sample(&cost, size)
    }

    /// What a run came to; its outputs go, so that all runs write to an empty folder.
    fn sample(&self, cost: &exec::Measured, size: u64) -> Result<Sample> {
        let emptying = || format!("emptying {}", self.dir.path().display());
        for entry in fs::read_dir(self.dir.path()).with_context(emptying)? {
            fs::remove_file(entry.with_context(emptying)?.path()).with_context(emptying)?;
        }
        Ok(Sample::new(cost, size))
    }
}

/// A sparse raw with this machine's files in it, one after the other, with holes in between.
pub(super) fn make_raw(path: &Path, size: u64) -> Result<()> {
    let mut raw = File::create(path)?;
    raw.set_len(size)?;
    let (mut at, mut data, mut extent) = (START, 0, 0);
    for source in SOURCES {
        for file in files(Path::new(source))? {
            // What cannot be read is not needed.
            let Ok(mut from) = File::open(&file) else { continue };
            raw.seek(SeekFrom::Start(at))?;
            let copied = io::copy(&mut io::Read::take(&mut from, DATA - data), &mut raw)?;
            at += copied.next_multiple_of(ALIGNMENT);
            data += copied;
            extent += copied;
            if extent >= EXTENT {
                extent = 0;
                at += HOLE;
            }
            if data == DATA {
                return Ok(raw.flush()?);
            }
        }
    }
    bail!("this machine has no {DATA} bytes in {}", SOURCES.join(", "))
}

/// All regular files below a folder, in one order.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let reading = || format!("reading {}", folder.display());
        for entry in fs::read_dir(&folder).with_context(reading)? {
            let entry = entry.with_context(reading)?;
            let kind = entry.file_type().with_context(reading)?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && entry.metadata().with_context(reading)?.len() <= LARGEST_FILE {
                found.push(entry.path());
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}
