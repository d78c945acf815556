//! An app's Go source to a static binary: the same source is the same bytes, from any folder,
//! under any umask, time zone or locale.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use crate::exec;
use crate::hint::WithHint;
use crate::oci::{Digest, Platform};
use crate::preflight::{Need, Source};
use crate::progress::Progress;
use crate::workspace::app::AppName;
use crate::workspace::{App, GoSourceError};

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
    /// What `go env GOVERSION` says; another compiler makes other bytes.
    version: String,
    cache: PathBuf,
}

impl Go {
    /// Asks the toolchain for its version; `cache` keeps finished binaries.
    pub(crate) fn find(cache: PathBuf) -> Result<Go> {
        let sh = Shell::new()?;
        let version = exec::read(isolated(cmd!(sh, "go env GOVERSION")))?.trim().to_owned();
        Ok(Go { version, cache })
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
        let mut binaries = results.into_iter().collect::<Result<Vec<_>>>()?;
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
        let inputs = format!("{} {platform} {version} {FLAGS:?} {source}", self.version);
        let cached = Cached {
            dir: &self.cache,
            prefix: format!("{}-{}-", app.name, platform.arch.name()),
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

    fn compile(&self, app: &App, platform: Platform, version: &str) -> Result<Vec<u8>> {
        let sh = Shell::new()?;
        sh.change_dir(&app.dir);
        let out = tempfile::tempdir_in(&self.cache).context("making a folder for the binary")?;
        let binary = out.path().join(app.name.as_str());
        let ldflags = format!("-buildid= -s -w -X main.version={version}");
        let command =
            cmd!(sh, "go build").args(FLAGS).arg("-ldflags").arg(ldflags).arg("-o").arg(&binary).arg(".");
        exec::run(isolated(command).env("GOARCH", platform.arch.name()))
            .with_context(|| format!("building {} for {platform}", app.name))
            .hint(format!("run 'cd {} && go build .' to see it alone", app.dir.display()))?;
        fs::read(&binary).with_context(|| format!("reading {}", binary.display()))
    }
}

/// Flags of `go build` beside the linker's: no paths, no commit, and no module that go.mod does
/// not name.
const FLAGS: [&str; 3] = ["-trimpath", "-buildvcs=false", "-mod=readonly"];

/// Everything in the environment that changes what Go writes, set; proxies and caches are the
/// user's own.
fn isolated(command: xshell::Cmd<'_>) -> xshell::Cmd<'_> {
    command
        .env("CGO_ENABLED", "0")
        .env("GOOS", "linux")
        .env("GOAMD64", "v1")
        .env("GOARM64", "v8.0")
        .env("GOPPC64", "power8")
        .env("GOFLAGS", "")
        .env("GOEXPERIMENT", "")
        .env("GODEBUG", "")
        .env("GOWORK", "off")
        // The toolchain that is installed, never one that go.mod makes it download.
        .env("GOTOOLCHAIN", "local")
}

/// A finished binary under `PREFIX-KEY-DIGEST`: its inputs, and its own digest, so that a
/// damaged one is built again.
struct Cached<'a> {
    dir: &'a Path,
    prefix: String,
    key: String,
}

impl Cached<'_> {
    fn load(&self) -> Result<Option<Vec<u8>>> {
        let reading = || format!("reading {}", self.dir.display());
        for entry in fs::read_dir(self.dir).with_context(reading)? {
            let name = entry.with_context(reading)?.file_name().to_string_lossy().into_owned();
            let digest = name.strip_prefix(&format!("{}{}-", self.prefix, self.key));
            if let Some(digest) = digest {
                let content = fs::read(self.dir.join(&name)).with_context(reading)?;
                return Ok((Digest::of(&content).hex() == digest).then_some(content));
            }
        }
        Ok(None)
    }

    /// Keeps `content`, and drops what the same app had before.
    fn save(&self, content: &[u8]) -> Result<()> {
        let name = format!("{}{}-{}", self.prefix, self.key, Digest::of(content).hex());
        let write = || -> io::Result<()> {
            for entry in fs::read_dir(self.dir)? {
                let entry = entry?;
                if !entry.file_name().to_string_lossy().starts_with(&self.prefix) {
                    continue;
                }
                match fs::remove_file(entry.path()) {
                    Ok(()) => {}
                    // Another run was faster.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            let mut file = tempfile::NamedTempFile::new_in(self.dir)?;
            file.write_all(content)?;
            file.persist(self.dir.join(&name))?;
            Ok(())
        };
        write().with_context(|| format!("keeping {name} in {}", self.dir.display()))
    }
}
