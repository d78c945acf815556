//! `bench`: measurements side by side with other tools, on this machine: of a push with crane here,
//! of disks in `disk`.
//!
//! For a push, both get what they need beforehand: the binary is built, the registry has an earlier image.
//! Then both put the same files over the same base, and a proxy counts what passes.

mod disk;
mod image;
mod pack;
mod project;
mod proxy;
mod registry;
mod sample;
mod table;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use self::project::{Project, Readable, parse};
use self::proxy::{Proxy, Traffic};
use self::registry::{Registry, Shape, push_base};
use self::table::{Row, Table, Unit, median};
use super::Session;
use super::test::{CRANE, DOCKER_REGISTRY};
use crate::build;
use crate::exec::{self, Measured};
use crate::flags::{Bench, Benched};
use crate::oci::Reference;
use crate::preflight;

/// The most layers that a bootc image has: ostree-ext and rpm-ostree chunk into fewer than 128.
const MANY_LAYERS: Shape = Shape { layers: 128, layer_size: 4096 };
/// A real base's size: 540 MB.
const LARGE: Shape = Shape { layers: 5, layer_size: 108_000_000 };
/// How often a push is measured when nothing is said.
const PUSH_RUNS: usize = 5;
/// What a registry on another continent takes to answer.
const FAR: Duration = Duration::from_millis(40);

pub(crate) fn run(flags: &Bench, session: &Session) -> Result<()> {
    let table = match flags.what {
        Benched::Push => pushes(flags, session)?,
        Benched::Disk => disk::table(flags, session)?,
        Benched::Pack => pack::table(flags, session)?,
    };
    if let Some(path) = &flags.output {
        let text = serde_json::to_string_pretty(&table)? + "\n";
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    session.print(&table, || table.text())
}

fn pushes(flags: &Bench, session: &Session) -> Result<Table> {
    session.ensure(&[build::GO, DOCKER_REGISTRY, CRANE])?;
    let runs = flags.runs.unwrap_or(PUSH_RUNS);
    let bench = Lab::new(session, runs)?;
    let mut rows = bench.pushes()?;
    rows.push(bench.nothing_changed()?);
    rows.push(bench.one_of_two()?);
    rows.push(bench.two_folders()?);
    rows.push(bench.across()?);
    if flags.cold_build {
        rows.push(cold_build(session)?);
    }

    let sh = Shell::new()?;
    let crane = &bench.crane;
    let version = exec::read(cmd!(sh, "{crane} version"))?;
    Ok(Table { other: "crane", version: format!("crane {}", version.trim()), runs, rows })
}

/// Everything that the rows are measured with.
struct Lab<'a> {
    session: &'a Session,
    runs: usize,
    crane: PathBuf,
    project: Project,
    proxy: Proxy,
    /// Behind the proxy.
    registry: Registry,
    /// The base of many layers, through the proxy.
    base: String,
}

/// One push: what it took, and what passed the proxy.
struct Sample {
    cost: Measured,
    traffic: Traffic,
}

impl<'a> Lab<'a> {
    fn new(session: &'a Session, runs: usize) -> Result<Lab<'a>> {
        let crane = preflight::find(&CRANE, &session.root).context("crane is missing")?;
        let project = Project::copy(session, Readable::ByAll)?;
        let registry = Registry::start(&DOCKER_REGISTRY, session)?;
        let proxy = Proxy::before(registry.address())?;
        let base = format!("{}/os:base", proxy.address());
        let step = session.progress.step("pushing a base of 128 layers");
        push_base(MANY_LAYERS, &reference(&base)?, session)?;
        step.done("pushed a base of 128 layers");
        Ok(Lab { session, runs, crane, project, proxy, registry, base })
    }

    /// Changed apps, pushed by us and by crane, near and far.
    fn pushes(&self) -> Result<Vec<Row>> {
        let near = self.compare(Duration::ZERO, 0)?;
        let far = self.compare(FAR, self.runs + 1)?;
        let of = |samples: &[Sample], what: fn(&Sample) -> f64| median(samples.iter().map(what));
        let row = |what, unit, (ours, crane): &(Vec<Sample>, Vec<Sample>), value, bar| Row {
            what,
            unit,
            ours: of(ours, value),
            other: Some(of(crane, value)),
            bar,
            met: false,
        };
        let judge = |row: Row, met: fn(f64, f64) -> bool| Row {
            met: row.other.is_some_and(|crane| met(row.ours, crane)),
            ..row
        };
        let requests = "requests: a changed app, 128 base layers";
        let far_away = "wall time, 40 ms a request";
        let cpu = "CPU time, from binary to registry";
        Ok(vec![
            judge(
                row(requests, Unit::Count, &near, |sample| sample.traffic.requests as f64, "9 or fewer"),
                |ours, _| ours <= 9.0,
            ),
            judge(
                row(far_away, Unit::Seconds, &far, |s| s.cost.wall.as_secs_f64(), "a third of crane's"),
                |ours, crane| ours <= crane / 3.0,
            ),
            judge(
                row(cpu, Unit::Seconds, &near, |s| s.cost.cpu.as_secs_f64(), "no more than crane's"),
                |ours, crane| ours <= crane,
            ),
            judge(
                row("bytes sent", Unit::Bytes, &near, |s| s.traffic.sent as f64, "fewer than crane's"),
                |ours, crane| ours < crane,
            ),
        ])
    }

    /// Pushes a changed app in turn with both, after one of each that does not count: the
    /// repository is warm then, and so are the programs' files.
    fn compare(&self, delay: Duration, first: usize) -> Result<(Vec<Sample>, Vec<Sample>)> {
        let (mut ours, mut cranes) = (Vec::new(), Vec::new());
        let step = self.session.progress.step("pushing changed apps");
        let (base, crane) = (&self.base, &self.crane);
        let target = |name: &str| format!("{}/os:{name}", self.proxy.address());
        for run in 0..=self.runs {
            step.at(format!("pushing changed apps: {run} of {}", self.runs));
            self.project.change(first + run)?;
            let oci = tempfile::tempdir_in(self.project.path()).context("making a folder")?;
            let to = format!("oci:{}", oci.path().display());
            self.project.build(&["build", "--base", base, "--to", &to])?;
            let tar = self.project.layer_tar(oci.path())?;

            self.proxy.delay_by(delay);
            self.proxy.take();
            let cost = self.project.measure(&["build", "--base", base, "--to", &target("app")])?;
            let our = Sample { cost, traffic: self.proxy.take() };
            let sh = Shell::new()?;
            let to = target("crane");
            let cost = exec::measure(cmd!(sh, "{crane} append -b {base} -f {tar} -t {to}"))?;
            let cranes_own = Sample { cost, traffic: self.proxy.take() };
            self.proxy.delay_by(Duration::ZERO);
            if run > 0 {
                ours.push(our);
                cranes.push(cranes_own);
            }
        }
        step.done(format!("pushed changed apps with {} ms a request", delay.as_millis()));
        Ok((ours, cranes))
    }

    /// `dist --push`, again.
    fn nothing_changed(&self) -> Result<Row> {
        let image = format!("{}/os", self.proxy.address());
        let args = [
            "dist",
            "--distro",
            "debian-13",
            "--base",
            &self.base,
            "--push",
            "--no-disks",
            "--image",
            &image,
        ];
        let first = self.project.build(&args)?;
        let dist = self.project.path().join("target/dist");
        let mut walls = Vec::new();
        let mut idle = true;
        for _ in 0..self.runs {
            let before = files(&dist)?;
            self.proxy.take();
            let cost = self.project.measure(&args)?;
            let same = parse(&cost.stdout)?.digest == first.digest;
            idle &= same && self.proxy.take().sent == 0 && files(&dist)? == before;
            walls.push(cost.wall.as_secs_f64());
        }
        let ours = median(walls);
        Ok(Row {
            what: "second dist: same digest, nothing written or sent",
            unit: Unit::Seconds,
            ours,
            other: None,
            bar: "under 1 s",
            met: idle && ours < 1.0,
        })
    }

    /// How many layers change with one app.
    fn one_of_two(&self) -> Result<Row> {
        let oci = tempfile::tempdir().context("making a folder")?;
        let to = format!("oci:{}", oci.path().display());
        let args = ["build", "--base", &self.base, "--to", &to];
        let before = self.project.build(&args)?;
        self.project.change(usize::MAX)?;
        let after = self.project.build(&args)?;
        let changed: Vec<&str> = after
            .layers
            .iter()
            .filter(|layer| !before.layers.contains(layer))
            .map(|layer| layer.name.as_str())
            .collect();
        Ok(Row {
            what: "one app of two changed: layers with a new digest",
            unit: Unit::Count,
            ours: changed.len() as f64,
            other: None,
            bar: "that app's only",
            met: changed == [self.project.app.as_str()],
        })
    }

    /// How many digests the same source has, in folders, under umasks, time zones and locales
    /// that differ.
    fn two_folders(&self) -> Result<Row> {
        let settings =
            [(Readable::ByAll, "022", "UTC", "C"), (Readable::ByOwner, "077", "Asia/Tokyo", "de_DE.UTF-8")];
        let mut digests = Vec::new();
        for (readable, umask, zone, locale) in settings {
            let project = Project::copy(self.session, readable)?;
            let sh = Shell::new()?;
            sh.change_dir(project.path());
            let program = std::env::current_exe().context("finding this program")?;
            let script = format!("umask {umask}; exec \"$@\"");
            let (to, base) = (format!("oci:{}", project.path().join("out").display()), &self.base);
            let command =
                cmd!(sh, "sh -c {script} sh {program} build --json --quiet --base {base} --to {to}");
            let command = command.env("TZ", zone).env("LANG", locale).env("LC_ALL", locale);
            digests.push(parse(&exec::read(command)?)?.digest);
        }
        digests.dedup();
        Ok(Row {
            what: "two folders, umasks, time zones, locales: digests",
            unit: Unit::Count,
            ours: digests.len() as f64,
            other: None,
            bar: "one",
            met: digests.len() == 1,
        })
    }

    /// The memory that it takes to move a large base from one registry to another.
    fn across(&self) -> Result<Row> {
        let step = self.session.progress.step("pushing a base of 540 MB into another registry");
        let other = Registry::start(&DOCKER_REGISTRY, self.session)?;
        let base = format!("{}/large:base", other.address());
        push_base(LARGE, &reference(&base)?, self.session)?;
        let here = self.registry.address();
        let (ours, cranes) = (format!("{here}/ours:app"), format!("{here}/cranes:app"));
        step.at("moving a base of 540 MB from one registry to another");
        let cost = self.project.measure(&["build", "--base", &base, "--to", &ours])?;
        let sh = Shell::new()?;
        let (crane, tar) = (&self.crane, self.project.path().join("target/layer.tar"));
        let cranes_own = exec::measure(cmd!(sh, "{crane} append -b {base} -f {tar} -t {cranes}"))?;
        step.done(format!(
            "moved a base of 540 MB in {:.1} s; crane in {:.1} s",
            cost.wall.as_secs_f64(),
            cranes_own.wall.as_secs_f64()
        ));
        Ok(Row {
            what: "540 MB of base between two registries: peak memory",
            unit: Unit::Bytes,
            ours: cost.peak_memory as f64,
            other: Some(cranes_own.peak_memory as f64),
            bar: "under 100 MB",
            met: cost.peak_memory < 100_000_000,
        })
    }
}

/// This program, built from nothing.
fn cold_build(session: &Session) -> Result<Row> {
    let step = session.progress.step("building this program from nothing");
    let dir = tempfile::tempdir().context("making a folder for the build")?;
    let (sh, target) = (Shell::new()?, dir.path());
    sh.change_dir(&session.root);
    let cost = exec::measure(cmd!(sh, "cargo build --locked --package xtask --target-dir {target}"))?;
    step.done("built this program from nothing");
    let what = "cargo build of this program from nothing";
    Ok(Row::under(what, Unit::Seconds, cost.wall.as_secs_f64(), 240.0, "under 240 s"))
}

fn reference(text: &str) -> Result<Reference> {
    text.parse().with_context(|| format!("reading the reference {text}"))
}

/// All files under `dir`, and when they were written.
fn files(dir: &Path) -> Result<BTreeMap<PathBuf, SystemTime>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let reading = || format!("reading {}", folder.display());
        for entry in fs::read_dir(&folder).with_context(reading)? {
            let path = entry.with_context(reading)?.path();
            let metadata = fs::symlink_metadata(&path).with_context(reading)?;
            if metadata.is_dir() {
                folders.push(path);
            } else {
                files.insert(path, metadata.modified().with_context(reading)?);
            }
        }
    }
    Ok(files)
}
