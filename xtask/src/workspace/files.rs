//! Reads the workspace's files, each of them once.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::problem::Problems;

/// A file that was read; whoever uses it needs no file system any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceFile {
    /// Relative to the workspace's root; for messages, and for the name.
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
}

impl SourceFile {
    /// The last component of the path.
    pub(crate) fn name(&self) -> &str {
        self.path.file_name().and_then(OsStr::to_str).unwrap_or_default()
    }

    /// The content as text. `None`, and a problem, if it is not UTF-8.
    pub(super) fn text(&self, problems: &mut Problems) -> Option<&str> {
        let text = str::from_utf8(&self.bytes);
        if text.is_err() {
            let hint = format!("save {} as UTF-8", self.path.display());
            problems.add(&self.path, "is not UTF-8 text", hint);
        }
        text.ok()
    }

    /// The content as the settings `T`. `None`, and a problem, if it is anything else.
    pub(super) fn toml<T: DeserializeOwned>(&self, problems: &mut Problems) -> Option<T> {
        let text = self.text(problems)?;
        match toml::from_str(text) {
            Ok(settings) => Some(settings),
            Err(error) => {
                self.wrong_toml(error.message(), error.span(), problems);
                None
            }
        }
    }

    /// The lines of tmpfiles.d and sysusers.d that say something, with their numbers.
    pub(super) fn statements(&self, problems: &mut Problems) -> Vec<(usize, &str)> {
        let lines = self.text(problems).unwrap_or_default().lines().map(str::trim);
        let lines = (1..).zip(lines);
        lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).collect()
    }

    /// Notes what a parser says of the text at `span`.
    pub(super) fn wrong_toml(&self, message: &str, span: Option<Range<usize>>, problems: &mut Problems) {
        let message = message.replace('\n', ", ");
        let path = self.path.display();
        let text = String::from_utf8_lossy(&self.bytes);
        let (message, hint) = match span.map(|span| line_of(&text, span.start)) {
            Some(line) => (format!("line {line}: {message}"), format!("mend line {line} of {path}")),
            None => (message, format!("mend {path}")),
        };
        problems.add(&self.path, message, hint);
    }
}

/// The number of the line that a byte of `text` is on.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryKind {
    File,
    Folder,
}

/// What a folder holds.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Relative to the workspace's root.
    pub(super) path: PathBuf,
    pub(super) kind: EntryKind,
}

/// The workspace's files; every path is relative to its root.
pub(super) struct Tree<'a> {
    pub(super) root: &'a Path,
}

impl Tree<'_> {
    /// A folder's entries, sorted by name; none if there is no such folder.
    ///
    /// Hidden files and editors' leftovers are passed over. A link or a device is a problem: an
    /// image is made from what the repository holds, not from what happens to lie elsewhere.
    pub(super) fn entries(&self, folder: impl AsRef<Path>, problems: &mut Problems) -> Vec<Entry> {
        let folder = folder.as_ref();
        let mut entries = Vec::new();
        match self.kind(folder, problems) {
            Some(EntryKind::Folder) => (),
            Some(EntryKind::File) => {
                problems.add(
                    folder,
                    "is a file, not a folder",
                    format!("move it: git mv {0} {0}.old", folder.display()),
                );
                return entries;
            }
            None => return entries,
        }
        let names = fs::read_dir(self.root.join(folder)).and_then(|list| {
            list.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>()
        });
        let mut names = match names {
            Ok(names) => names,
            Err(error) => {
                unreadable(folder, &error, problems);
                return entries;
            }
        };
        names.sort();
        for name in names {
            let path = folder.join(&name);
            let Some(name) = name.to_str() else {
                problems.add(path, "has a name that is not UTF-8", "rename it");
                continue;
            };
            if name.starts_with('.') || is_leftover(name) {
                continue;
            }
            if let Some(kind) = self.kind(&path, problems) {
                entries.push(Entry { name: name.to_owned(), path, kind });
            }
        }
        entries
    }

    /// The files of a folder. A folder inside is a problem, since nothing would read it.
    pub(super) fn files(&self, folder: impl AsRef<Path>, problems: &mut Problems) -> Vec<SourceFile> {
        let folder = folder.as_ref();
        let entries = self.entries(folder, problems);
        let mut files = Vec::new();
        for entry in entries {
            match entry.kind {
                EntryKind::File => files.extend(self.read(&entry.path, problems)),
                EntryKind::Folder => {
                    let hint = format!("move its files to {}", folder.display());
                    problems.add(entry.path, "is a folder that nothing reads", hint);
                }
            }
        }
        files
    }

    /// A file, if there is one.
    pub(super) fn read(&self, path: impl AsRef<Path>, problems: &mut Problems) -> Option<SourceFile> {
        let path = path.as_ref();
        match self.kind(path, problems)? {
            EntryKind::File => (),
            EntryKind::Folder => {
                problems.add(path, "is a folder, not a file", format!("rename {}", path.display()));
                return None;
            }
        }
        match fs::read(self.root.join(path)) {
            Ok(bytes) => Some(SourceFile { path: path.to_owned(), bytes }),
            Err(error) => {
                unreadable(path, &error, problems);
                None
            }
        }
    }

    /// Whether there is anything at `path`, sound or not.
    pub(super) fn has(&self, path: impl AsRef<Path>) -> bool {
        fs::symlink_metadata(self.root.join(path)).is_ok()
    }

    /// What `path` is; `None` if it is not there, or is a problem.
    fn kind(&self, path: &Path, problems: &mut Problems) -> Option<EntryKind> {
        let file_type = match fs::symlink_metadata(self.root.join(path)) {
            Ok(found) => found.file_type(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                unreadable(path, &error, problems);
                return None;
            }
        };
        if file_type.is_file() {
            Some(EntryKind::File)
        } else if file_type.is_dir() {
            Some(EntryKind::Folder)
        } else {
            let what = if file_type.is_symlink() { "a symbolic link" } else { "neither a file nor a folder" };
            let hint = format!("replace {} by the file itself", path.display());
            problems.add(path, format!("is {what}"), hint);
            None
        }
    }
}

/// Whether a name is that of a file which an editor or a merge left behind.
pub(super) fn is_leftover(name: &str) -> bool {
    let is_swap_file = [".swp", ".swo", ".swx"].iter().any(|suffix| name.ends_with(suffix));
    name.ends_with('~')
        || name.starts_with(".#")
        || (name.starts_with('#') && name.ends_with('#'))
        || (name.starts_with('.') && is_swap_file)
        || [".orig", ".rej", ".bak"].iter().any(|suffix| name.ends_with(suffix))
        || name == ".DS_Store"
}

fn unreadable(path: &Path, error: &io::Error, problems: &mut Problems) {
    problems.add(path, format!("cannot be read: {error}"), format!("run 'chmod -R u+rX {}'", path.display()));
}
