//! An app's Go source to a static binary: the same source is the same bytes, from any folder,
//! under any umask, time zone or locale.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, anyhow};
use tempfile::TempDir;
use xshell::{Shell, cmd};

use crate::exec;
use crate::hint::WithHint;
use crate::oci::{Digest, Platform};
use crate::preflight::{Need, Source};
use crate::progress::Progress;
use crate::workspace::app::AppName;
use crate::workspace::{App, GoSourceError};

/// How the folders of builds that are under way are called; a process id follows.
const SCRATCH: &str = ".build-";

pub(crate) const GO: Need = Need {
    program: "go",
    purpose: "builds the apps",
    from: Source::Toolchain { page: "https://go.dev/doc/install" },
};

/// One binary, as it goes into a layer.
#[derive(Clone, Debug)]
pub(crate) struct Binary {
    pub(crate) app: AppName,
    pub(crate) platform: Platform,
    pub(crate) content: Vec<u8>,
}

/// The Go toolchain and where finished binaries are kept.
#[derive(Debug)]
pub(crate) struct Go {
    /// Another compiler makes other bytes.
    version: String,
    /// Where modules come from and where Go keeps things: the user's own settings.
    settings: BTreeMap<String, String>,
    cache: PathBuf,
}

impl Go {
    /// Asks the toolchain for its version and its user's settings; `cache` keeps finished binaries.
    pub(crate) fn find(cache: PathBuf) -> Result<Go> {
        let sh = Shell::new()?;
        let command = cmd!(sh, "go env -json GOVERSION").args(SETTINGS).env("GOTOOLCHAIN", "local");
        let mut settings: BTreeMap<String, String> =
            serde_json::from_str(&exec::read(command)?).context("reading what 'go env -json' says")?;
        let version = settings.remove("GOVERSION").context("'go env' names no version")?;
        Ok(Go { version, settings, cache })
    }

    /// Builds every app for every platform, as many at once as there are cores. An app whose
    /// inputs did not change is not built again.
    pub(crate) fn build_all(
        &self,
        apps: &[App],
        platforms: &[Platform],
        app_version: Option<&str>,
        progress: &Progress,
    ) -> Result<Vec<Binary>> {
        fs::create_dir_all(&self.cache).with_context(|| format!("creating {}", self.cache.display()))?;
        for app in apps {
            let files = app.cgo_files().own_hint(GoSourceError::hint)?;
            if !files.is_empty() {
                progress.warn(format!(
                    "{} is built without cgo, so these files of it are left out: {}",
                    app.name,
                    files.join(", ")
                ));
            }
        }
        let work = apps.iter().flat_map(|app| platforms.iter().map(move |&platform| (app, platform)));
        let queue = Mutex::new(work);
        let next = || queue.lock().ok()?.next();
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let mut results = Vec::new();
        thread::scope(|scope| {
            let builder = || -> Vec<Result<Binary>> {
                std::iter::from_fn(next)
                    .map(|(app, platform)| self.build(app, platform, app_version, progress))
                    .collect()
            };
            let handles: Vec<_> = (0..workers).map(|_| scope.spawn(builder)).collect();
            for handle in handles {
                results.extend(handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
        });
        let (binaries, errors): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        let mut errors: Vec<anyhow::Error> = errors.into_iter().filter_map(Result::err).collect();
        // The last one is the command's own error; those before it are told here.
        let last = errors.pop();
        errors.iter().for_each(|error| progress.error(error));
        if let Some(error) = last {
            return Err(error);
        }
        let mut binaries: Vec<Binary> = binaries.into_iter().filter_map(Result::ok).collect();
        binaries.sort_by(|a, b| (&a.app, a.platform).cmp(&(&b.app, b.platform)));
        Ok(binaries)
    }

    fn build(
        &self,
        app: &App,
        platform: Platform,
        app_version: Option<&str>,
        progress: &Progress,
    ) -> Result<Binary> {
        let source = app.source_digest().own_hint(GoSourceError::hint)?;
        // Without a version of its own, an app carries what its source is, which no commit
        // elsewhere changes.
        let version = app_version.map_or_else(|| format!("dev-{}", source.short()), str::to_owned);
        let go = &self.version;
        let inputs = format!("{go} {:?} {:?} {source}", arguments(app, &version), environment(platform));
        let cached = Cached {
            dir: self.cache.join(app.name.as_str()).join(platform.arch.name()),
            key: Digest::of(inputs.as_bytes()).short(),
        };
        let content = match cached.load()? {
            Some(content) => content,
            None => {
                let step = progress.step(format!("building {} ({platform})", app.name));
                let content = self.compile(app, platform, &version)?;
                cached.save(&content)?;
                step.done(format!("built {} ({platform})", app.name));
                content
            }
        };
        Ok(Binary { app: app.name.clone(), platform, content })
    }

    /// A folder for one build, named after this process. Those of processes that were killed go.
    fn scratch(&self) -> Result<TempDir> {
        let making = || format!("making a folder in {}", self.cache.display());
        for entry in fs::read_dir(&self.cache).with_context(making)? {
            let entry = entry.with_context(making)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let owner = name.strip_prefix(SCRATCH).and_then(|rest| rest.split('-').next());
            if owner.is_some_and(|owner| !Path::new("/proc").join(owner).exists()) {
                match fs::remove_dir_all(entry.path()) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error).with_context(making),
                }
            }
        }
        let prefix = format!("{SCRATCH}{}-", std::process::id());
        tempfile::Builder::new().prefix(&prefix).tempdir_in(&self.cache).with_context(making)
    }

    fn compile(&self, app: &App, platform: Platform, version: &str) -> Result<Vec<u8>> {
        let sh = Shell::new()?;
        sh.change_dir(&app.dir);
        let out = self.scratch()?;
        let binary = out.path().join(app.name.as_str());
        let command = cmd!(sh, "go build").args(arguments(app, version)).arg("-o").arg(&binary).arg(".");
        // Interrupted at its start, Go leaves its files behind; this folder is removed all the same.
        let command = command.envs(&self.settings).env("GOTMPDIR", out.path());
        exec::run(command.envs(environment(platform)))
            .with_context(|| format!("building {} for {platform}", app.name))
            .hint(format!("run 'cd {} && go build .' to see it alone", app.dir.display()))?;
        let content = fs::read(&binary).with_context(|| format!("reading {}", binary.display()))?;
        if !content.starts_with(ELF) {
            return Err(anyhow!("apps/{} is a library, not a program", app.name))
                .hint("begin its Go files with 'package main', and write a func main()");
        }
        Ok(content)
    }
}

/// How a program begins. Source: elf(5), `e_ident`.
const ELF: &[u8] = b"\x7fELF";

/// What `go build` is told: no paths, no commit, and no module that go.mod does not name, or that
/// is not in the app's own copies of them.
fn arguments(app: &App, version: &str) -> [String; 4] {
    let is_vendored = app.dir.join("vendor/modules.txt").is_file();
    let modules = if is_vendored { "-mod=vendor" } else { "-mod=readonly" };
    let ldflags = format!("-ldflags=-buildid= -s -w -X main.version={version}");
    ["-trimpath".to_owned(), "-buildvcs=false".to_owned(), modules.to_owned(), ldflags]
}

/// Settings that say where things come from and go to, and leave no trace in what is built.
const SETTINGS: [&str; 11] = [
    "GOAUTH",
    "GOCACHE",
    "GOINSECURE",
    "GOMODCACHE",
    "GONOPROXY",
    "GONOSUMDB",
    "GOPATH",
    "GOPRIVATE",
    "GOPROXY",
    "GOSUMDB",
    "GOVCS",
];

/// Everything else that changes what Go writes, set for `platform`. What 'go env -w' has stored is
/// not read, since an empty variable would not outdo it.
fn environment(platform: Platform) -> [(&'static str, &'static str); 14] {
    [
        ("CGO_ENABLED", "0"),
        ("GOOS", "linux"),
        ("GOARCH", platform.arch.name()),
        ("GOAMD64", "v1"),
        ("GOARM64", "v8.0"),
        ("GOPPC64", "power8"),
        ("GOENV", "off"),
        ("GO111MODULE", "on"),
        ("GOFLAGS", ""),
        ("GOEXPERIMENT", ""),
        ("GODEBUG", ""),
        ("GOFIPS140", "off"),
        ("GOWORK", "off"),
        // The toolchain that is installed, never one that go.mod makes it download.
        ("GOTOOLCHAIN", "local"),
    ]
}

/// A finished binary under `KEY-DIGEST` in its app's and platform's folder: its inputs, and its own
/// digest, so that a damaged one is built again.
struct Cached {
    dir: PathBuf,
    key: String,
}

impl Cached {
    fn load(&self) -> Result<Option<Vec<u8>>> {
        let load = || -> io::Result<Option<Vec<u8>>> {
            for entry in fs::read_dir(&self.dir)? {
                let path = entry?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let digest = name.strip_prefix(&self.key).and_then(|rest| rest.strip_prefix('-'));
                if let Some(digest) = digest {
                    let content = fs::read(&path)?;
                    return Ok((Digest::of(&content).hex() == digest).then_some(content));
                }
            }
            Ok(None)
        };
        match load() {
            // Nothing was kept yet, or another run has just dropped it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            loaded => loaded.with_context(|| format!("reading {}", self.dir.display())),
        }
    }

    /// Keeps `content`, and drops what the same app had before.
    fn save(&self, content: &[u8]) -> Result<()> {
        let name = format!("{}-{}", self.key, Digest::of(content).hex());
        let write = || -> io::Result<()> {
            fs::create_dir_all(&self.dir)?;
            for entry in fs::read_dir(&self.dir)? {
                match fs::remove_file(entry?.path()) {
                    Ok(()) => {}
                    // Another run was faster.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
            file.write_all(content)?;
            match file.persist(self.dir.join(&name)) {
                Ok(_) => Ok(()),
                // Another run took it for something old; its own binary is kept then.
                Err(error) if error.error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error.error),
            }
        };
        write().with_context(|| format!("keeping {name} in {}", self.dir.display()))
    }
}
