//! From an image to a raw disk that boots it: what somebody waits for after each change of an app. The
//! base and the image are there before; what counts is from the start of `disk` to the named file.

use std::fs;

use anyhow::{Context, Result};
use xshell::Shell;

use super::disk::Report;
use super::project::{Project, Readable};
use super::sample::{Sample, repeat};
use super::table::{Row, Unit};
use crate::build;
use crate::cmd::{Session, base};
use crate::exec;

/// A distro whose images install themselves, without an engine.
const DISTRO: &str = "debian-13";
/// The size that `dist` gives its disks.
const SIZE: &str = "4GiB";
/// How long it may take, in seconds.
const BAR: f64 = 10.0;

pub(super) fn row(runs: usize, session: &Session) -> Result<Row> {
    let workspace = session.workspace()?;
    let distro = base::find(&DISTRO.parse()?, &workspace, session)?;
    let registry = session.registry()?;
    let base = base::open(distro, &workspace.settings.image, &[build::GO], (&registry, session))?;
    let project = Project::copy_into(&session.cache("bench"), session, Readable::ByAll)?;
    let lab = Lab { session, project, base: base.name.to_string() };
    let sample = repeat(runs, |run| lab.raw(run))?;
    let what = "changed image to raw of 4 GiB: wall time";
    Ok(Row::under(what, Unit::Seconds, sample.wall, BAR, "under 10 s"))
}

struct Lab<'a> {
    session: &'a Session,
    /// On the file system that disks are on.
    project: Project,
    base: String,
}

impl Lab<'_> {
    /// Changes an app, and measures how long a disk of the new image takes.
    fn raw(&self, run: usize) -> Result<Sample> {
        let step = self.session.progress.step("making an image with a changed app");
        let image = format!("oci:{}:os", self.project.path().join("oci").display());
        self.project.change(run)?;
        self.project.build(&["build", "--full", "--base", &self.base, "--to", &image])?;
        // What was written until now is not to be waited for.
        rustix::fs::sync();
        step.at("making a raw disk of a changed image");
        let (out, sh) = (self.project.path().join("disks"), Shell::new()?);
        let output = out.to_string_lossy();
        let disk = ["disk", "raw", "--from", &image, "--size", SIZE, "--output", &output];
        let cost = exec::measure(self.project.command(&sh, &disk)?)?;
        let report: Report = serde_json::from_str(&cost.stdout).context("reading what `disk` reports")?;
        step.done(format!(
            "made a raw disk of a changed image in {:.1} s, with {:.1} s of CPU time",
            cost.wall.as_secs_f64(),
            cost.cpu.as_secs_f64()
        ));
        fs::remove_dir_all(&out).with_context(|| format!("removing {}", out.display()))?;
        Ok(Sample::new(&cost, report.size()))
    }
}
