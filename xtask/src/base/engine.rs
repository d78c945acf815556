//! A container engine, podman or buildah: a Containerfile to an OCI layout.
//!
//! Both understand the same arguments, and share one store. Whatever a machine needs beyond them
//! belongs into the engine's own settings, which containers.conf(5) describes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use xshell::{Cmd, Shell, cmd};

use super::scratch::Scratch;
use crate::exec::{self, ExecError};
use crate::hint::hinted;
use crate::oci::{Digest, Reference, Timestamp};
use crate::preflight::{self, Need, Source};
use crate::subids;
use crate::words::printable;

const PODMAN: Need =
    Need { program: "podman", purpose: "builds bases from Containerfiles", from: Source::Debian("podman") };
const BUILDAH: Need =
    Need { program: "buildah", purpose: "builds bases from Containerfiles", from: Source::Debian("buildah") };

/// What runs the steps of a build.
const RUNTIMES: [&str; 2] = ["crun", "runc"];

/// How many of a build's last lines on standard output an error shows: what a step itself said.
const LINES_KEPT: usize = 15;

/// The engine that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Podman,
    Buildah,
}

/// A build, worked out beforehand.
pub(crate) struct Build<'a> {
    /// Has the context, to which paths in the Containerfile are relative.
    pub(crate) scratch: &'a Scratch,
    /// As seen from the context.
    pub(crate) containerfile: PathBuf,
    /// The folders that the context has, for people.
    pub(crate) seen: String,
    /// The image that it starts from.
    pub(crate) upstream: &'a Reference,
    pub(crate) upstream_digest: Digest,
    /// Whether the upstream's registry is spoken to without encryption.
    pub(crate) plain_http: bool,
    pub(crate) labels: BTreeMap<&'static str, String>,
    /// The time of the image and of its files, where it must not be the clock's.
    pub(crate) created: Option<Timestamp>,
}

/// What a build's image is called in the engine's store, which other checkouts use too.
pub(super) fn image(mark: &str) -> String {
    format!("localhost/bootc-testboot-base:{mark}")
}

/// The argument by which an engine that works on a build is known.
pub(super) fn tag_option(mark: &str) -> String {
    format!("--tag={}", image(mark))
}

impl Engine {
    /// The engine of this machine, podman first. `preflight` installs it, or says how.
    pub(crate) fn find(root: &Path, preflight: &dyn Fn(&[Need]) -> Result<()>) -> Result<Engine> {
        let engine = Engine::choose(root);
        preflight(&subids::needs(engine.need()))?;
        subids::check(engine.after_new_ids())?;
        Ok(engine)
    }

    /// buildah where only that is there.
    pub(crate) fn choose(root: &Path) -> Engine {
        let is_there = |need: &Need| preflight::find(need, root).is_some();
        if is_there(&BUILDAH) && !is_there(&PODMAN) { Engine::Buildah } else { Engine::Podman }
    }

    pub(crate) fn need(self) -> Need {
        match self {
            Engine::Podman => PODMAN,
            Engine::Buildah => BUILDAH,
        }
    }

    /// podman keeps a process that holds the ids a user had when it started.
    fn after_new_ids(self) -> Option<&'static str> {
        match self {
            Engine::Podman => Some("podman system migrate"),
            Engine::Buildah => None,
        }
    }

    /// Builds the image into the engine's store; `on_step` sees what it is at.
    pub(crate) fn build(self, build: &Build<'_>, mut on_step: impl FnMut(&str)) -> Result<()> {
        let sh = Shell::new()?;
        sh.change_dir(build.scratch.context());
        let mut said = Vec::new();
        let consume = |stdout: &mut dyn std::io::Read| {
            for line in BufReader::new(stdout).split(b'\n') {
                let line = printable(&line?);
                if line.starts_with("STEP ") {
                    on_step(&line);
                }
                if said.len() == LINES_KEPT {
                    said.remove(0);
                }
                said.push(line);
            }
            Ok(())
        };
        let result =
            exec::stream_until(self.build_command(&sh, build), consume, |_| (), || build.scratch.end_steps());
        result.map_err(|error| self.explain(error, &said, &build.seen))
    }

    /// Writes a build's image into the layout `name` beside its context, as `tag`.
    pub(crate) fn export(self, build: &Build<'_>, (name, tag): (&str, &str)) -> Result<()> {
        let sh = Shell::new()?;
        // A path may have colons, which would end it.
        sh.change_dir(&build.scratch.dir);
        let (program, image) = (self.need().program, image(&build.scratch.mark));
        // No registry takes part, so a file of logins that is not there must not stop it.
        let command = cmd!(sh, "{program} push --quiet {image} oci:{name}:{tag}")
            .env("TMPDIR", build.scratch.temporary())
            .env_remove("REGISTRY_AUTH_FILE")
            .env_remove("DOCKER_CONFIG");
        exec::run(command).map_err(|error| self.explain(error, &[], &build.seen))
    }

    /// Removes an image from the engine's store, if it is there; the upstream's stays.
    pub(super) fn forget(self, image: &str) -> Result<()> {
        let sh = Shell::new()?;
        let program = self.need().program;
        let there = exec::clean_up(cmd!(sh, "{program} images --quiet --filter reference={image}"))?;
        if !there.trim().is_empty() {
            exec::clean_up(cmd!(sh, "{program} rmi {image}"))?;
        }
        Ok(())
    }

    /// The working containers of a build. An engine lists only whose image they come from, but
    /// keeps beside each what it was called with.
    pub(super) fn working_containers(self, mark: &str) -> Result<Vec<String>> {
        let sh = Shell::new()?;
        let program = self.need().program;
        let place = match self {
            Engine::Podman => "{{.Store.GraphRoot}}",
            Engine::Buildah => "{{.store.GraphRoot}}",
        };
        let root = exec::clean_up(cmd!(sh, "{program} info --format {place}"))?;
        let root = Path::new(root.trim_end());
        let listing = || format!("listing {}", root.display());
        let mut found = Vec::new();
        for kind in fs::read_dir(root).with_context(listing)? {
            let kind = kind.with_context(listing)?;
            if !kind.file_name().as_encoded_bytes().ends_with(b"-containers") {
                continue;
            }
            for container in fs::read_dir(kind.path()).with_context(listing)? {
                let container = container.with_context(listing)?;
                let call = fs::read_to_string(container.path().join("userdata/buildah.json"));
                if call.is_ok_and(|call| call.contains(mark)) {
                    found.push(container.file_name().display().to_string());
                }
            }
        }
        Ok(found)
    }

    /// The command that shows working containers.
    pub(super) fn listing(self) -> &'static str {
        match self {
            Engine::Podman => "podman ps --all --external",
            Engine::Buildah => "buildah containers",
        }
    }

    /// Removes a container that nothing works in any more, and what is mounted for it.
    pub(super) fn remove_container(self, container: &str) -> Result<()> {
        let sh = Shell::new()?;
        let command = match self {
            Engine::Podman => cmd!(sh, "podman rm --force {container}"),
            Engine::Buildah => cmd!(sh, "buildah rm {container}"),
        };
        Ok(exec::clean_up(command).map(drop)?)
    }

    /// Makes the runtime forget the containers of steps that ended without it. `temporary` has a
    /// folder for each of them, after which it is called.
    pub(super) fn forget_steps(self, temporary: &Path) {
        let Ok(sh) = Shell::new() else { return };
        for entry in fs::read_dir(temporary).into_iter().flatten().flatten() {
            if entry.path().join("config.json").exists() {
                let name = format!("buildah-{}", entry.file_name().display());
                for runtime in RUNTIMES {
                    // One of them knew it, if it was ever started.
                    exec::clean_up(cmd!(sh, "{runtime} delete --force {name}")).ok();
                }
            }
        }
    }

    /// `--no-cache`: an engine does not look at what a step mounts, and packages may have changed
    /// on their mirror. `--layers=false`: all of a Containerfile's steps make one layer, so what one
    /// of them removes is in none. `--secret`: no step reads it, but working containers are known
    /// by its name.
    fn build_command<'a>(self, sh: &'a Shell, build: &Build<'_>) -> Cmd<'a> {
        let Build { scratch, upstream, upstream_digest, containerfile, .. } = build;
        let program = self.need().program;
        let name = format!("{}/{}@{upstream_digest}", upstream.registry(), upstream.repository());
        let tls_verify = build.plain_http.then_some("--tls-verify=false");
        let labels = build.labels.iter().map(|(key, value)| format!("--label={key}={value}"));
        let created = build.created.map(|time| format!("--timestamp={}", time.seconds()));
        cmd!(sh, "{program} build --layers=false --no-cache --format=oci")
            .args(tls_verify)
            .args(created)
            .arg(format!("--build-arg=UPSTREAM={name}"))
            .args(labels)
            .arg(format!("--secret=id={},src=/dev/null", scratch.mark))
            .arg(tag_option(&scratch.mark))
            .arg("--file")
            .arg(containerfile)
            .arg(".")
            // Here, whatever ends it, its files are found again.
            .env("TMPDIR", scratch.temporary())
            // Newer ones read it themselves, and refuse it beside --timestamp.
            .env_remove("SOURCE_DATE_EPOCH")
    }

    /// What to free on a full disk, the engine's or the workspace's.
    pub(super) fn space_hint(self) -> String {
        let prune = match self {
            Engine::Podman => "'podman system prune'",
            Engine::Buildah => "'buildah rm --all' and 'buildah rmi --prune'",
        };
        format!(
            "free some space: 'df -h' shows which disk is full; {prune} frees the engine's store of what is \
             unused, and the bases in target/base can be made again"
        )
    }

    /// The engine's error, with what the step said before it, and with what mends it.
    fn explain(self, error: ExecError, said: &[String], seen: &str) -> anyhow::Error {
        // Only what the engine says itself can be explained.
        let ExecError::Failed { .. } = &error else { return error.into() };
        let mut text = error.to_string();
        if !said.is_empty() {
            let lines: String = said.iter().map(|line| format!("\n    {line}")).collect();
            text += &format!("\n  and before, on standard output{lines}");
        }
        let hint = match Trouble::of(&text) {
            Some(Trouble::DiskFull) => self.space_hint(),
            Some(Trouble::NotInContext) => {
                format!("a build sees {seen} alone, under these paths: put what it needs into one of them")
            }
            Some(Trouble::NoIds) => match subids::hint(self.after_new_ids()) {
                Ok(hint) => hint,
                Err(error) => return error,
            },
            Some(Trouble::Known(hint)) => hint.to_owned(),
            None => {
                "read the lines above; the command can be run by itself in the repository's root".to_owned()
            }
        };
        hinted(anyhow!("{text}"), hint)
    }
}

/// A failure that is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    DiskFull,
    NotInContext,
    /// The user's ranges of ids are too small, or cannot be used.
    NoIds,
    /// With what mends it.
    Known(&'static str),
}

impl Trouble {
    /// The words are those of containers/storage, containers/image, buildah, runc, crun and dnf.
    fn of(text: &str) -> Option<Trouble> {
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        if says(&["no space left on device", "No space left on device", "disk quota exceeded"]) {
            return Some(Trouble::DiskFull);
        }
        // What COPY misses, and what a mount misses.
        let is_missing =
            says(&["no such file or directory"]) && says(&["checking on sources under", "/context/"]);
        if is_missing || says(&["on host to bind mount into container"]) {
            return Some(Trouble::NotInContext);
        }
        let lacks_ids = [
            "insufficient UIDs or GIDs",
            "not enough unused ID",
            "no subuid ranges",
            "no subgid ranges",
            "newuidmap",
            "newgidmap",
        ];
        if says(&lacks_ids) {
            return Some(Trouble::NoIds);
        }
        known(text).map(Trouble::Known)
    }
}

fn known(text: &str) -> Option<&'static str> {
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    Some(if says(&["setrlimit", "error setting rlimit"]) {
        "set default_ulimits in a file that CONTAINERS_CONF names: see containers.conf(5)"
    } else if says(&["cgroups in hybrid mode not supported"]) {
        "install runc, and set runtime = \"runc\" in a file that CONTAINERS_CONF names: see containers.conf(5)"
    } else if says(&["manifest unknown"]) {
        "the upstream image is gone from its registry: 'cargo xtask base DISTRO --update-pin' takes today's"
    } else if says(&["unauthorized", "authentication required"]) {
        "run 'podman login' for the upstream's registry"
    } else if says(&["pinging container registry", "dial tcp", "i/o timeout"]) {
        "the upstream's registry has to be reachable: check the network, and run the command again"
    } else if says(&["Cannot download repomd.xml", "Failed to download metadata", "Could not resolve host"]) {
        "the distro's package mirror has to be reachable from a build: check the network and its proxy settings"
    } else if says(&["bootc container lint"]) {
        "mend what the lines above name: a host would stumble over it"
    } else {
        return None;
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_engines_are_called_alike() {
        let sh = Shell::new().unwrap();
        let upstream = "quay.io/o/n:t".parse().unwrap();
        let scratch = Scratch { dir: "/ws/target/.m".into(), mark: "m".to_owned() };
        let mut build = Build {
            scratch: &scratch,
            containerfile: "base/f/1/Containerfile".into(),
            seen: "base/shared and base/f/1".to_owned(),
            upstream: &upstream,
            upstream_digest: Digest::of(b""),
            plain_http: false,
            labels: BTreeMap::from([("a", "b c".to_owned())]),
            created: None,
        };
        insta::assert_snapshot!(Engine::Podman.build_command(&sh, &build), @r#"podman build --layers=false --no-cache --format=oci --build-arg=UPSTREAM=quay.io/o/n@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 "--label=a=b c" --secret=id=m,src=/dev/null --tag=localhost/bootc-testboot-base:m --file base/f/1/Containerfile ."#);
        build.plain_http = true;
        build.created = Some("60".parse().unwrap());
        insta::assert_snapshot!(Engine::Buildah.build_command(&sh, &build), @r#"buildah build --layers=false --no-cache --format=oci --tls-verify=false --timestamp=60 --build-arg=UPSTREAM=quay.io/o/n@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 "--label=a=b c" --secret=id=m,src=/dev/null --tag=localhost/bootc-testboot-base:m --file base/f/1/Containerfile ."#);
    }

    #[test]
    fn failures_have_hints() {
        let check = |text: &str, expected: &str| {
            let Some(Trouble::Known(hint)) = Trouble::of(text) else { panic!("{text}") };
            assert!(hint.contains(expected), "{text}: {hint}");
        };
        let full = "Error: writing blob: storing blob to file: write /var/tmp/x: no space left on device";
        assert_eq!(Trouble::of(full), Some(Trouble::DiskFull));
        let outside = "Error: building at STEP \"COPY configs/x /\": checking on sources under \"/w\": copier: \
                       stat: \"/configs/x\": no such file or directory";
        assert_eq!(Trouble::of(outside), Some(Trouble::NotInContext));
        assert_eq!(Trouble::of("something else"), None);
        for lacking in [
            "potentially insufficient UIDs or GIDs available in user namespace",
            "Error: cannot set up namespace using \"/usr/bin/newuidmap\": exit status 1",
        ] {
            assert_eq!(Trouble::of(lacking), Some(Trouble::NoIds));
        }
        check("crun: setrlimit `RLIMIT_NOFILE`: Operation not permitted", "CONTAINERS_CONF");
        check("creating container for [/bin/sh]: cgroups in hybrid mode not supported", "runc");
        check("reading manifest sha256:0 in quay.io/x/y: manifest unknown: manifest unknown", "--update-pin");
        check(
            "pinging container registry quay.io: Get \"https://quay.io/v2/\": dial tcp: lookup quay.io",
            "registry has to",
        );
        check("Error: Failed to download metadata for repo 'epel'", "package mirror");
        check(
            "Error: building at STEP \"RUN bootc container lint --fatal-warnings\": exit status 1",
            "stumble",
        );
    }
}
