//! `new-app`: all that makes a Go program an app of the system, in one go.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

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

/// What was not there before.
enum Made {
    Folder(PathBuf),
    File(PathBuf),
}

/// Writes all of them, or, where one cannot be written, none: what was made goes, and nothing else.
fn write_all(files: &[NewFile], root: &Path) -> Result<()> {
    let mut made = Vec::new();
    let written = files.iter().try_for_each(|file| write_new(&root.join(&file.path), &file.text, &mut made));
    written.or_else(|error| {
        made.iter().rev().try_for_each(Made::remove)?;
        Err(error)
    })
}

impl Made {
    fn remove(&self) -> Result<()> {
        let (path, removed) = match self {
            Made::File(path) => (path, fs::remove_file(path)),
            Made::Folder(path) => (path, fs::remove_dir(path)),
        };
        match removed {
            // Somebody has put something in.
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
            removed => removed.with_context(|| format!("removing {}", path.display())),
        }
    }
}

/// Never writes over a file, even one that came about just now.
fn write_new(path: &Path, text: &str, made: &mut Vec<Made>) -> Result<()> {
    let writing = || format!("writing {}", path.display());
    let folders: Vec<&Path> = path.ancestors().skip(1).take_while(|folder| !folder.exists()).collect();
    for folder in folders.into_iter().rev() {
        fs::create_dir(folder).with_context(writing)?;
        made.push(Made::Folder(folder.to_owned()));
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).with_context(writing)?;
    made.push(Made::File(path.to_owned()));
    file.write_all(text.as_bytes()).with_context(writing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_leaves_what_was_there() {
        let root = tempfile::tempdir().unwrap();
        let path = |path: &str| root.path().join(path);
        fs::create_dir(path("apps")).unwrap();
        fs::write(path("systemd"), "a file where a folder should be").unwrap();
        fs::create_dir(path("configs")).unwrap();
        fs::write(path("configs/mine"), "mine").unwrap();
        let file = |path: &str| NewFile { path: path.into(), text: "new".to_owned() };
        let mut files = vec![file("apps/shop/main.go"), file("configs/tmpfiles.d/shop.conf")];
        write_all(&files, root.path()).unwrap();
        assert_eq!(fs::read(path("configs/tmpfiles.d/shop.conf")).unwrap(), b"new");
        fs::remove_dir_all(path("apps/shop")).unwrap();
        fs::remove_dir_all(path("configs/tmpfiles.d")).unwrap();

        files.push(file("systemd/shop.service"));
        let error = write_all(&files, root.path()).unwrap_err().to_string();
        assert!(error.starts_with("writing ") && error.ends_with("systemd/shop.service"), "{error}");
        let names = |dir: &str| -> Vec<String> {
            fs::read_dir(path(dir)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
        };
        assert_eq!(names("apps"), [""; 0]);
        assert_eq!(names("configs"), ["mine"]);
        // Nor is what came about in between written over, or removed.
        fs::create_dir(path("apps/shop")).unwrap();
        fs::write(path("apps/shop/main.go"), "theirs").unwrap();
        write_all(&[file("apps/shop/go.mod"), file("apps/shop/main.go")], root.path()).unwrap_err();
        assert_eq!(names("apps/shop"), ["main.go"]);
        assert_eq!(fs::read(path("apps/shop/main.go")).unwrap(), b"theirs");
    }
}
