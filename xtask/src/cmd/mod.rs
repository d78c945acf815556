//! One file a verb: each calls the stages of the pipeline, and says what came of it.

mod advice;
mod base;
mod bench;
mod build;
mod completions;
mod diff;
mod disk;
mod disks;
mod dist;
mod doctor;
mod export;
mod gather;
mod import;
mod inspect;
mod installer;
mod list;
mod man;
mod new_app;
mod next;
mod origin;
mod pack;
mod packed;
mod plan;
mod publish;
mod pull;
mod record;
mod referrers;
mod sign;
mod tags;
mod test;
mod verify;
mod versions;
mod vm;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;

use crate::flags::{Command, Common, Flags};
use crate::oci::ImageName;
use crate::preflight::{self, Consent, Lack, Need};
use crate::progress::{Progress, Verbosity};
use crate::registry::{Client, RegistryName};
use crate::words;
use crate::workspace::Workspace;

/// Carries out what the command line says.
pub(crate) fn run(flags: Flags) -> Result<()> {
    let session = Session::new(&flags.common)?;
    match flags.command {
        Command::Dist(dist) => dist::run(&dist, &session),
        Command::Base(base) => base::run(&base, &session),
        Command::Build(build) => build::run(&build, &session),
        Command::Disk(disk) => disk::run(&disk, &session),
        Command::Pack(pack) => pack::run(&pack, &session),
        Command::Pull(pull) => pull::run(&pull, &session),
        Command::Export(export) => export::run(&export, &session),
        Command::Import(import) => import::run(&import, &session),
        Command::Inspect(inspect) => inspect::run(&inspect, &session),
        Command::Sign(sign) => sign::run(&sign, &session),
        Command::Verify(verify) => verify::run(&verify, &session),
        Command::Tags(tags) => tags::run(&tags, &session),
        Command::Diff(diff) => diff::run(&diff, &session),
        Command::NewApp(app) => new_app::run(&app, &session),
        Command::List => list::run(&session),
        Command::Test(test) => test::run(&test, &session),
        Command::Vm(vm) => vm::run(&vm, &session),
        Command::Bench(bench) => bench::run(&bench, &session),
        Command::Doctor => doctor::run(&session),
        Command::Completions { shell } => completions::run(shell),
        Command::Man { dir } => man::run(&dir, &session),
    }
}

/// What every command works with.
pub(crate) struct Session {
    /// Where the command was given.
    here: PathBuf,
    /// The workspace's root.
    pub(crate) root: PathBuf,
    pub(crate) progress: Progress,
    pub(crate) consent: Consent,
    pub(crate) output: Output,
    plain_http: Vec<RegistryName>,
}

/// How results are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Text,
    Json,
}

impl Session {
    fn new(common: &Common) -> Result<Session> {
        let here = std::env::current_dir().context("finding the current folder")?;
        Ok(Session {
            root: Workspace::find_root(&here)?,
            here,
            progress: Progress::new(if common.quiet { Verbosity::Quiet } else { Verbosity::Normal }),
            consent: if common.yes { Consent::Install } else { Consent::Ask },
            output: if common.json { Output::Json } else { Output::Text },
            plain_http: common.plain_http.clone(),
        })
    }

    pub(crate) fn workspace(&self) -> Result<Workspace> {
        Ok(Workspace::discover(&self.root)?)
    }

    pub(crate) fn registry(&self) -> Result<Client> {
        Client::new(self.plain_http.clone(), self.progress.clone(), self.cache("uploads"))
    }

    pub(crate) fn ensure(&self, needs: &[Need]) -> Result<()> {
        self.ensure_all(needs, &[])
    }

    /// Programs, and what else is missing.
    pub(crate) fn ensure_all(&self, needs: &[Need], lacks: &[Lack]) -> Result<()> {
        preflight::ensure(needs, lacks, &self.root, (self.consent, &self.progress))
    }

    /// Today, for telling what has ended. Nothing that is made depends on it.
    pub(crate) fn today(&self) -> NaiveDate {
        DateTime::<Utc>::from(SystemTime::now()).date_naive()
    }

    /// Where finished images are.
    pub(crate) fn dist_dir(&self) -> PathBuf {
        self.root.join("target/dist")
    }

    /// A folder for what is kept between runs.
    pub(crate) fn cache(&self, name: &str) -> PathBuf {
        self.root.join("target/xtask").join(name)
    }

    /// `path` as the user sees it from where the command was given.
    pub(crate) fn shown(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.here).unwrap_or(path).to_owned()
    }

    /// `name` with its folder as the user sees it.
    pub(crate) fn shown_name(&self, name: &ImageName) -> ImageName {
        match name {
            ImageName::Layout { dir, tag } => ImageName::Layout { dir: self.shown(dir), tag: tag.clone() },
            ImageName::Registry(reference) => ImageName::Registry(reference.clone()),
        }
    }

    /// The result on standard output: `value` as JSON, or `text`.
    pub(crate) fn print(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        let shown = match self.output {
            Output::Json => words::json(&serde_json::to_string_pretty(value)?),
            Output::Text => words::lines(&text()).into_owned(),
        };
        if shown.is_empty() {
            return Ok(());
        }
        let mut stdout = std::io::stdout().lock();
        std::io::Write::write_all(&mut stdout, format!("{}\n", shown.trim_end()).as_bytes())
            .context("writing to standard output")
    }
}
