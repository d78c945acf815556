//! A copy of the workspace to change apps in, and this very program run in it.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tempfile::TempDir;
use xshell::{Cmd, Shell, cmd};

use crate::cmd::Session;
use crate::exec::{self, Measured};
use crate::oci::{Digest, ImageName, Platform};
use crate::progress::{Progress, Verbosity};
use crate::registry::Client;
use crate::source::Source;

/// What of a workspace an image is made of.
const PARTS: [&str; 5] = ["Cargo.toml", "apps", "base", "configs", "systemd"];
/// An app beside the one that changes.
const SECOND: &str = "bench-second";

pub(super) struct Project {
    dir: TempDir,
    /// The source file of the app that changes.
    source: PathBuf,
    pub(super) app: String,
}

/// What matters here of what `build` and `dist` report.
#[derive(Debug, Deserialize)]
pub(super) struct Report {
    pub(super) digest: Digest,
    pub(super) layers: Vec<ReportedLayer>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct ReportedLayer {
    pub(super) name: String,
    pub(super) digest: Digest,
}

/// Who may read a copy's files.
#[derive(Clone, Copy)]
pub(super) enum Readable {
    ByAll,
    ByOwner,
}

impl Project {
    /// Copies the workspace, and adds an app to it.
    pub(super) fn copy(session: &Session, readable: Readable) -> Result<Project> {
        Project::copy_into(&std::env::temp_dir(), session, readable)
    }

    /// The same, on the file system of `folder`.
    pub(super) fn copy_into(folder: &Path, session: &Session, readable: Readable) -> Result<Project> {
        let workspace = session.workspace()?;
        let Some(app) = workspace.apps.first() else { bail!("there is no app in apps/ to measure with") };
        let name = app.name.as_str().to_owned();
        let making = || format!("making a folder for a copy of the workspace in {}", folder.display());
        fs::create_dir_all(folder).with_context(making)?;
        let dir = tempfile::tempdir_in(folder).with_context(making)?;
        for part in PARTS {
            let from = session.root.join(part);
            if from.exists() {
                copy(&from, &dir.path().join(part), readable)
                    .with_context(|| format!("copying {}", from.display()))?;
            }
        }
        let second = dir.path().join("apps").join(SECOND);
        let unit = dir.path().join(format!("systemd/{SECOND}.service"));
        let add = || -> io::Result<()> {
            fs::create_dir(&second)?;
            fs::write(second.join("go.mod"), format!("module {SECOND}\n\ngo 1.22\n"))?;
            fs::write(second.join("main.go"), "package main\n\nfunc main() {}\n")?;
            let text =
                format!("[Service]\nExecStart=/usr/bin/{SECOND}\n\n[Install]\nWantedBy=multi-user.target\n");
            fs::write(&unit, text)
        };
        add().with_context(|| format!("adding the app {}", second.display()))?;
        let source = dir.path().join("apps").join(&name).join("main.go");
        Ok(Project { dir, source, app: name })
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Changes the app's source, so that its binary is another one.
    pub(super) fn change(&self, run: usize) -> Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).open(&self.source)?;
        writeln!(file, "\n// Run {run}.").with_context(|| format!("changing {}", self.source.display()))
    }

    /// This program, with nothing of the user's settings.
    pub(super) fn command<'a>(&self, sh: &'a Shell, args: &[&str]) -> Result<Cmd<'a>> {
        let program = std::env::current_exe().context("finding this program")?;
        sh.change_dir(self.path());
        let command = cmd!(sh, "{program}").args(args).args(["--json", "--quiet"]);
        Ok(["BASE_DISTRO", "IMAGE", "VERSION", "SOURCE_DATE_EPOCH"]
            .into_iter()
            .fold(command, |command, name| command.env_remove(name)))
    }

    pub(super) fn measure(&self, args: &[&str]) -> Result<Measured> {
        let sh = Shell::new()?;
        Ok(exec::measure(self.command(&sh, args)?)?)
    }

    pub(super) fn build(&self, args: &[&str]) -> Result<Report> {
        parse(&self.measure(args)?.stdout)
    }

    /// The app's layer as it is in the layout `oci`, not compressed: what crane gets to append.
    pub(super) fn layer_tar(&self, oci: &Path) -> Result<PathBuf> {
        let client =
            Client::new(vec![], Progress::new(Verbosity::Quiet), self.path().join("target/xtask/uploads"))?;
        let source = Source::open(&ImageName::Layout { dir: oci.to_owned(), tag: None }, &client)?;
        let layers = source.layers(Platform::host(), &client)?;
        // The OS's layer comes first, then those of apps by name.
        let ours = layers.last();
        let digest = ours.context("the image has no layer of the app's")?.descriptor.digest;
        let blob = oci.join("blobs/sha256").join(digest.hex());
        let tar = self.path().join("target/layer.tar");
        let mut bytes = Vec::new();
        fs::File::open(&blob)
            .and_then(|file| flate2::read::GzDecoder::new(file).read_to_end(&mut bytes))
            .and_then(|_| fs::write(&tar, &bytes))
            .with_context(|| format!("unpacking {}", blob.display()))?;
        Ok(tar)
    }
}

pub(super) fn parse(stdout: &str) -> Result<Report> {
    serde_json::from_str(stdout).context("reading what this program reports")
}

fn copy(from: &Path, to: &Path, readable: Readable) -> io::Result<()> {
    let kind = fs::symlink_metadata(from)?;
    if kind.is_symlink() {
        return std::os::unix::fs::symlink(fs::read_link(from)?, to);
    }
    if kind.is_dir() {
        fs::create_dir(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()), readable)?;
        }
    } else {
        fs::copy(from, to)?;
    }
    match readable {
        Readable::ByAll => Ok(()),
        Readable::ByOwner => {
            let mode = kind.permissions().mode() & 0o700;
            fs::set_permissions(to, fs::Permissions::from_mode(mode))
        }
    }
}
