//! Folders to a `Workspace`. This module alone knows what the folders are called; everything
//! after it works on values.

pub(crate) mod app;
pub(crate) mod distro;
mod distro_toml;
pub(crate) mod files;
mod gosource;
mod name;
pub(crate) mod new_app;
mod nginx;
mod os;
pub(crate) mod problem;
mod query;
pub(crate) mod route;
pub(crate) mod settings;
mod sysusers;
mod tmpfiles;
pub(crate) mod unit;

#[cfg(test)]
mod content;
#[cfg(test)]
pub(crate) mod oracle;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub(crate) use app::App;
pub(crate) use distro::{Distro, DistroKind, DistroName};
pub(crate) use gosource::GoSourceError;
pub(crate) use os::OsFiles;
pub(crate) use problem::Problems;
pub(crate) use query::DistroQuery;
pub(crate) use settings::Settings;

use crate::hint::hinted;
use files::Tree;

/// Everything that an image is made from, read once and found to be sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) settings: Settings,
    /// Sorted by name. There may be none: the system then is its base and its own files.
    pub(crate) apps: Vec<App>,
    pub(crate) os: OsFiles,
    /// Sorted by name.
    pub(crate) distros: Vec<Distro>,
}

impl Workspace {
    /// The folder in which `cwd` is, or which it is, whose Cargo.toml has our settings.
    pub(crate) fn find_root(cwd: &Path) -> Result<PathBuf> {
        for folder in cwd.ancestors() {
            let path = folder.join(settings::CARGO_TOML);
            match fs::read_to_string(&path) {
                Ok(text) if settings::has_settings(&text) => return Ok(folder.to_owned()),
                Ok(_) => (),
                Err(error) if error.kind() == io::ErrorKind::NotFound => (),
                Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
            }
        }
        let error = anyhow::anyhow!(
            "neither {} nor a folder above it has a Cargo.toml with [workspace.metadata.testboot]",
            cwd.display()
        );
        Err(hinted(error, "change into the repository: cd bootc-testboot"))
    }

    /// Reads the workspace below `root`.
    pub(crate) fn discover(root: &Path) -> Result<Workspace, Problems> {
        let mut problems = Problems::default();
        let tree = Tree { root };
        let settings = settings::read(&tree, &mut problems);
        let distros = distro::read(&tree, &mut problems);
        let mut apps = app::read(&tree, &mut problems);
        let os = os::read(&tree, &mut apps, &mut problems);
        match settings {
            Some(settings) => problems.or(Workspace { root: root.to_owned(), settings, apps, os, distros }),
            None => Err(problems),
        }
    }
}
