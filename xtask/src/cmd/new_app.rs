//! `new-app`: all that makes a Go program an app of the system, in one go.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use super::Session;
use crate::flags::AddApp;
use crate::workspace::new_app::{self, Cache, NewApp, NewFile};

pub(crate) fn run(flags: &AddApp, session: &Session) -> Result<()> {
    let workspace = session.workspace()?;
    let app = NewApp {
        name: flags.name.clone(),
        port: flags.port,
        prefix: flags.route.clone(),
        cache: if flags.cache { Cache::Aged } else { Cache::None },
    };
    // A link that leads nowhere is there as well.
    let is_there = |path: &str| session.root.join(path).symlink_metadata().is_ok();
    let (route, files) = new_app::plan(&app, &workspace, is_there)?;
    if !flags.dry_run {
        write_all(&files, &session.root)?;
    }
    let routes: Vec<&str> = route.prefixes.iter().map(|prefix| prefix.as_str()).collect();
    let shown: Vec<_> = files.iter().map(|file| json!({"path": file.path, "text": file.text})).collect();
    let value =
        json!({"name": app.name.as_str(), "port": route.port.number(), "routes": routes, "files": shown});
    session.print(&value, || {
        let path = |file: &NewFile| session.shown(&session.root.join(&file.path)).display().to_string();
        let text = |file: &NewFile| match flags.dry_run {
            true => format!("==> {} <==\n{}\n", path(file), file.text),
            false => format!("{}\n", path(file)),
        };
        files.iter().map(text).collect()
    })?;
    if !flags.dry_run {
        session.progress.line(format!(
            "{} answers at {} once 'cargo xtask dist' has made an image with it",
            app.name,
            routes.join(", ")
        ));
    }
    Ok(())
}

/// Writes all of them, or, where one cannot be written, none.
fn write_all(files: &[NewFile], root: &Path) -> Result<()> {
    for (count, file) in files.iter().enumerate() {
        if let Err(error) = write_new(&root.join(&file.path), &file.text) {
            for written in &files[..count] {
                let path = root.join(&written.path);
                fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
            }
            return Err(error);
        }
    }
    Ok(())
}

/// Never writes over a file, even one that came about just now.
fn write_new(path: &Path, text: &str) -> Result<()> {
    let writing = || format!("writing {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(writing)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).with_context(writing)?;
    file.write_all(text.as_bytes()).with_context(writing)
}
