//! What an app's program depends on: a digest that says whether it has to be built again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::app::{App, GO_MOD};
use super::files::is_leftover;
use crate::oci::Digest;

/// Folders of version control, which Go does not embed either, and of editors.
const NOT_SOURCES: [&str; 7] = [".git", ".hg", ".svn", ".jj", ".bzr", ".idea", ".vscode"];
/// Source: Go's package embed, "Directives".
const EMBED: &str = "//go:embed";
/// Marks a folder of build results, such as cargo's `target`.
/// Source: Cache Directory Tagging Specification, <https://bford.info/cachedir/>.
const CACHE_TAG: &str = "CACHEDIR.TAG";

#[derive(Debug, thiserror::Error)]
pub(crate) enum GoSourceError {
    #[error("reading {path}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{0} is neither a file nor a folder; links are not followed")]
    Special(PathBuf),
    #[error("{0:?} cannot be listed: its name is not UTF-8, or has a line break")]
    Name(PathBuf),
    #[error("{go_mod} replaces a module by {target}, which is not a folder")]
    Replace { go_mod: PathBuf, target: String },
}

impl GoSourceError {
    pub(crate) fn hint(&self) -> String {
        match self {
            GoSourceError::Io { path, .. } => format!("run 'chmod -R u+rX {}'", path.display()),
            GoSourceError::Special(path) => format!("replace {} by the file itself", path.display()),
            GoSourceError::Name(_) => "rename it".to_owned(),
            GoSourceError::Replace { .. } => "write the path as seen from the app's folder".to_owned(),
        }
    }
}

impl App {
    /// The digest of all sources of the program: the files of the app's folder, and of the local
    /// folders that its go.mod replaces modules by. Names and contents count, times and modes do
    /// not, nor does the place of the workspace.
    ///
    /// The form is that of Go's own module digests: the SHA-256 of one line `<hex>  <name>` a
    /// file, sorted by name. Source: golang.org/x/mod/sumdb/dirhash, Hash1.
    pub(crate) fn source_digest(&self) -> Result<Digest, GoSourceError> {
        // `//go:embed` may take in any file, so that nothing can be left out then.
        let sources = self.sources(Leftovers::Skipped)?;
        let lines = if sources.embeds { self.sources(Leftovers::Counted)?.lines } else { sources.lines };
        let text: String = lines.iter().map(|(name, digest)| format!("{}  {name}\n", digest.hex())).collect();
        Ok(Digest::of(text.as_bytes()))
    }

    /// The app's own files that call C, and so are left out: programs are built without cgo. Those
    /// that a build constraint names are not listed, since something stands in for them.
    pub(crate) fn cgo_files(&self) -> Result<Vec<String>, GoSourceError> {
        let sources = self.sources(Leftovers::Skipped)?;
        let names = sources.lines.into_iter().map(|(name, _)| name);
        let own = names.filter(|name| {
            name.ends_with(".go") && !name.ends_with("_test.go") && !name.starts_with("vendor/")
        });
        let mut files = Vec::new();
        for name in own {
            let path = self.dir.join(&name);
            let content = fs::read(&path).map_err(|source| GoSourceError::Io { path, source })?;
            if calls_c(&String::from_utf8_lossy(&content)) {
                files.push(name);
            }
        }
        Ok(files)
    }

    fn sources(&self, leftovers: Leftovers) -> Result<Sources, GoSourceError> {
        let mut sources = Sources { leftovers, lines: Vec::new(), embeds: false };
        sources.list(&self.dir, "")?;
        let go_mod = self.dir.join(GO_MOD);
        for target in local_replacements(&read_text(&go_mod)?) {
            let folder = self.dir.join(&target);
            if !fs::symlink_metadata(&folder).is_ok_and(|found| found.is_dir()) {
                return Err(GoSourceError::Replace { go_mod, target });
            }
            sources.list(&folder, &target)?;
        }
        sources.lines.sort();
        sources.lines.dedup();
        Ok(sources)
    }
}

/// Whether what editors and build tools leave behind is listed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leftovers {
    Skipped,
    Counted,
}

struct Sources {
    leftovers: Leftovers,
    lines: Vec<(String, Digest)>,
    /// Whether a source has the directive that puts files into the program.
    embeds: bool,
}

impl Sources {
    /// Adds the files below `folder`, under names that start with `prefix`.
    fn list(&mut self, folder: &Path, prefix: &str) -> Result<(), GoSourceError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| GoSourceError::Io { path, source }
        };
        for entry in fs::read_dir(folder).map_err(failed(folder))? {
            let entry = entry.map_err(failed(folder))?;
            let path = entry.path();
            let name = entry.file_name().into_string().ok().filter(|name| !name.contains('\n'));
            let name = name.ok_or_else(|| GoSourceError::Name(path.clone()))?;
            let file_type = entry.file_type().map_err(failed(&path))?;
            let is_left_over = is_leftover(&name) || file_type.is_dir() && path.join(CACHE_TAG).exists();
            if NOT_SOURCES.contains(&name.as_str()) || is_left_over && self.leftovers == Leftovers::Skipped {
                continue;
            }
            let name = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            if file_type.is_dir() {
                self.list(&path, &name)?;
            } else if file_type.is_file() {
                let content = fs::read(&path).map_err(failed(&path))?;
                self.embeds |= name.ends_with(".go") && has(&content, EMBED);
                self.lines.push((name, Digest::of(&content)));
            } else {
                return Err(GoSourceError::Special(path));
            }
        }
        Ok(())
    }
}

/// Whether a Go file imports the pseudo-package `C`, and has no build constraint.
/// Source: Go's command cgo; Go's "Build constraints", which come before the package clause.
fn calls_c(go: &str) -> bool {
    let mut in_block = false;
    let mut calls = false;
    for line in go.lines().map(str::trim) {
        let line = line.split("//").next().filter(|_| !line.starts_with("//go:build")).unwrap_or(line).trim();
        if line.starts_with("//go:build") {
            return false;
        }
        match line {
            "import (" => in_block = true,
            ")" => in_block = false,
            r#"import "C""# => calls = true,
            r#""C""# if in_block => calls = true,
            // Nothing is imported behind these.
            line if line.starts_with("func ") => break,
            _ => {}
        }
    }
    calls
}

fn has(content: &[u8], text: &str) -> bool {
    content.windows(text.len()).any(|window| window == text.as_bytes())
}

fn read_text(path: &Path) -> Result<String, GoSourceError> {
    fs::read_to_string(path).map_err(|source| GoSourceError::Io { path: path.to_owned(), source })
}

/// The folders that a go.mod's `replace` directives name.
/// Source: Go Modules Reference, "replace directive": a path starts with `/`, `./` or `../`.
fn local_replacements(go_mod: &str) -> Vec<String> {
    let mut folders = Vec::new();
    let mut in_block = false;
    for line in go_mod.lines() {
        let line = line.split("//").next().unwrap_or_default().trim();
        let rest = match line.strip_prefix("replace") {
            _ if in_block && line == ")" => {
                in_block = false;
                continue;
            }
            _ if in_block => line,
            Some(rest) if rest.trim() == "(" => {
                in_block = true;
                continue;
            }
            Some(rest) if rest.starts_with(char::is_whitespace) => rest,
            _ => continue,
        };
        let Some((_, target)) = rest.split_once("=>") else { continue };
        let target = target.trim().trim_matches(['"', '`']).trim_end_matches('/');
        let is_local = ["/", "./", "../"].iter().any(|start| target.starts_with(start));
        if is_local || target == "." || target == ".." {
            folders.push(target.to_owned());
        }
    }
    folders
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const GO_MOD_TEXT: &str = "module a\n\nreplace example.com/s => ../shared\n";

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    fn app(root: &Path) -> App {
        App {
            name: "a".parse().unwrap(),
            dir: root.join("apps/a"),
            units: Vec::new(),
            tmpfiles: None,
            sysusers: None,
            route: None,
        }
    }

    fn workspace() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let files = [
            ("apps/a/go.mod", GO_MOD_TEXT),
            ("apps/a/main.go", "package main"),
            ("apps/a/sub/page.html", "<p>"),
            ("apps/shared/go.mod", "module s"),
            ("apps/shared/s.go", "package s"),
            ("apps/b/main.go", "package main"),
        ];
        write(root.path(), &files);
        root
    }

    #[test]
    fn digest_changes_with_the_sources_alone() {
        let (one, two) = (workspace(), workspace());
        let before = app(one.path()).source_digest().unwrap();
        assert_eq!(app(two.path()).source_digest().unwrap(), before, "the place must not count");

        let check = |path: &str, changes: bool| {
            write(two.path(), &[(path, "new")]);
            let after = app(two.path()).source_digest().unwrap();
            assert_eq!(after != before, changes, "for {path}");
            fs::remove_file(two.path().join(path)).unwrap();
        };
        check("apps/a/new.go", true);
        check("apps/a/.hidden", true);
        check("apps/a/sub/new.css", true);
        check("apps/shared/new.go", true);
        check("apps/b/new.go", false);
        check("apps/a/.git/index", false);
        check("apps/a/main.go~", false);
        check("apps/a/.main.go.swp", false);
        // A package of this name is a source; cargo's folder is not.
        check("apps/a/target/new.go", true);
        write(two.path(), &[("apps/a/target/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55")]);
        check("apps/a/target/new.go", false);
        fs::remove_dir_all(two.path().join("apps/a/target")).unwrap();

        // Where files are embedded, any of them may be.
        for root in [&one, &two] {
            write(root.path(), &[("apps/shared/s.go", "package s\n//go:embed pages\nvar pages embed.FS\n")]);
        }
        let before = app(one.path()).source_digest().unwrap();
        assert_eq!(app(two.path()).source_digest().unwrap(), before);
        write(two.path(), &[("apps/shared/pages/old.html~", "<p>")]);
        assert_ne!(app(two.path()).source_digest().unwrap(), before);
        fs::remove_dir_all(two.path().join("apps/shared/pages")).unwrap();

        fs::rename(two.path().join("apps/a/main.go"), two.path().join("apps/a/other.go")).unwrap();
        assert_ne!(app(two.path()).source_digest().unwrap(), before);
    }

    #[test]
    fn what_cannot_be_followed_is_an_error() {
        let root = workspace();
        let error = || {
            let text = app(root.path()).source_digest().unwrap_err().to_string();
            text.replace(root.path().to_str().unwrap(), "ROOT")
        };
        symlink("/etc/passwd", root.path().join("apps/a/link.go")).unwrap();
        assert_eq!(error(), "ROOT/apps/a/link.go is neither a file nor a folder; links are not followed");
        fs::remove_file(root.path().join("apps/a/link.go")).unwrap();
        fs::remove_dir_all(root.path().join("apps/shared")).unwrap();
        assert_eq!(error(), "ROOT/apps/a/go.mod replaces a module by ../shared, which is not a folder");
    }

    #[test]
    fn files_that_call_c_are_found() {
        let root = workspace();
        let c = "package main\n\n// #include <math.h>\nimport \"C\"\n";
        write(
            root.path(),
            &[
                ("apps/a/c.go", c),
                ("apps/a/sub/block.go", "package sub\nimport (\n\t\"fmt\"\n\t\"C\" // why\n)\n"),
                ("apps/a/c_test.go", c),
                ("apps/a/vendor/x/c.go", c),
                ("apps/a/cgo.go", &format!("//go:build cgo\n\n{c}")),
                ("apps/a/text.go", "package main\nfunc f() string { return `\nimport \"C\"\n` }\n"),
                ("apps/a/c.txt", c),
            ],
        );
        assert_eq!(app(root.path()).cgo_files().unwrap(), ["c.go", "sub/block.go"]);
    }

    #[test]
    fn replacements() {
        let text = "module m\n\
            replace a => ../a // comment\n\
            // replace no => ../no\n\
            replace b v1.2.3 => `./b/`\n\
            replace (\n\tc => \"../../c\"\n\td => example.com/d v1.0.0\n\te v1 => /abs/e\n)\n\
            replace f => example.com/f v1.0.0\n\
            replaced => ../no\n";
        assert_eq!(local_replacements(text), ["../a", "./b", "../../c", "/abs/e"]);
    }
}
