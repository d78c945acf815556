//! A container engine, podman or buildah: a Containerfile to an OCI layout.
//!
//! Both understand the same arguments, and share one store. Whatever a machine needs beyond them
//! belongs into the engine's own settings, which containers.conf(5) describes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use xshell::{Cmd, Shell, cmd};

use crate::exec::{self, ExecError};
use crate::hint::hinted;
use crate::oci::{Digest, Reference, Timestamp};
use crate::preflight::{self, Need, Source};

const PODMAN: Need =
    Need { program: "podman", purpose: "builds bases from Containerfiles", from: Source::Debian("podman") };
const BUILDAH: Need =
    Need { program: "buildah", purpose: "builds bases from Containerfiles", from: Source::Debian("buildah") };
const NEWUIDMAP: Need =
    Need { program: "newuidmap", purpose: "lets podman work without root", from: Source::Debian("uidmap") };

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
    /// What paths in the Containerfile are relative to.
    pub(crate) context: &'a Path,
    /// As seen from the context.
    pub(crate) containerfile: PathBuf,
    /// The image that it starts from.
    pub(crate) upstream: &'a Reference,
    pub(crate) upstream_digest: Digest,
    /// Whether the upstream's registry is spoken to without encryption.
    pub(crate) plain_http: bool,
    pub(crate) labels: BTreeMap<&'static str, String>,
    /// The time of the image and of its files, where it must not be the clock's.
    pub(crate) created: Option<Timestamp>,
    /// What the image is called in the engine's store.
    pub(crate) image: String,
}

impl Engine {
    /// The engine of this machine, podman first. `preflight` installs it, or says how.
    pub(crate) fn find(root: &Path, preflight: impl FnOnce(&[Need]) -> Result<()>) -> Result<Engine> {
        let engine = Engine::choose(root);
        let mut needs = vec![engine.need()];
        if !rustix::process::geteuid().is_root() {
            needs.push(NEWUIDMAP);
        }
        preflight(&needs)?;
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

    /// Builds the image into the engine's store; `on_step` sees what it is at.
    pub(crate) fn build(self, build: &Build<'_>, mut on_step: impl FnMut(&str)) -> Result<()> {
        let sh = Shell::new()?;
        sh.change_dir(build.context);
        let mut said = Vec::new();
        let consume = |stdout: &mut dyn std::io::Read| {
            for line in BufReader::new(stdout).split(b'\n') {
                let line = String::from_utf8_lossy(&line?).into_owned();
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
        let result = exec::stream(self.build_command(&sh, build), consume, |_| ());
        result.map_err(|error| explain(error, &said))
    }

    /// Writes an image of the engine's store into the layout `dir`, as `tag`.
    pub(crate) fn export(self, image: &str, dir: &Path, tag: &str) -> Result<()> {
        let sh = Shell::new()?;
        let program = self.need().program;
        let layout = format!("oci:{}:{tag}", dir.display());
        // No registry takes part, so a file of logins that is not there must not stop it.
        let command = cmd!(sh, "{program} push --quiet {image} {layout}")
            .env_remove("REGISTRY_AUTH_FILE")
            .env_remove("DOCKER_CONFIG");
        exec::run(command).map_err(|error| explain(error, &[]))
    }

    /// Removes what was exported from the engine's store; the upstream's image stays there.
    pub(crate) fn forget(self, image: &str) -> Result<()> {
        let sh = Shell::new()?;
        let program = self.need().program;
        exec::run(cmd!(sh, "{program} rmi {image}")).map_err(|error| explain(error, &[]))
    }

    /// `--no-cache`: an engine does not look at what a step mounts, and packages may have changed
    /// on their mirror. `--layers=false`: all of a Containerfile's steps make one layer, so what one
    /// of them removes is in none.
    fn build_command<'a>(self, sh: &'a Shell, build: &Build<'_>) -> Cmd<'a> {
        let Build { upstream, upstream_digest, containerfile, image, .. } = build;
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
            .arg(format!("--tag={image}"))
            .arg("--file")
            .arg(containerfile)
            .arg(".")
            // Newer ones read it themselves, and refuse it beside --timestamp.
            .env_remove("SOURCE_DATE_EPOCH")
    }
}

/// The engine's error, with what the step said before it, and with what mends it.
fn explain(error: ExecError, said: &[String]) -> anyhow::Error {
    // Only what the engine says itself can be explained.
    let ExecError::Failed { .. } = &error else { return error.into() };
    let mut text = error.to_string();
    if !said.is_empty() {
        let lines: String = said.iter().map(|line| format!("\n    {line}")).collect();
        text += &format!("\n  and before, on standard output{lines}");
    }
    let hint = hint(&text);
    hinted(anyhow!("{text}"), hint)
}

/// What mends a failure that the engine, or a program in the build, describes like this. The words
/// are those of containers/storage, containers/image, runc, crun and dnf.
fn hint(text: &str) -> &'static str {
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["no space left on device", "No space left on device"]) {
        "free some space: 'podman system df' shows what images take, 'podman system prune' removes what is unused"
    } else if says(&[
        "insufficient UIDs or GIDs",
        "not enough unused ID",
        "no subuid ranges",
        "no subgid ranges",
        "newuidmap",
        "newgidmap",
    ]) {
        "run 'sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER' and 'podman system migrate'"
    } else if says(&["setrlimit", "error setting rlimit"]) {
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
        "read the lines above; the command can be run by itself in the repository's root"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_engines_are_called_alike() {
        let sh = Shell::new().unwrap();
        let upstream = "quay.io/o/n:t".parse().unwrap();
        let mut build = Build {
            context: Path::new("/ws"),
            containerfile: "base/f/1/Containerfile".into(),
            upstream: &upstream,
            upstream_digest: Digest::of(b""),
            plain_http: false,
            labels: BTreeMap::from([("a", "b c".to_owned())]),
            created: None,
            image: "localhost/b:f-1".to_owned(),
        };
        insta::assert_snapshot!(Engine::Podman.build_command(&sh, &build), @r#"podman build --layers=false --no-cache --format=oci --build-arg=UPSTREAM=quay.io/o/n@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 "--label=a=b c" --tag=localhost/b:f-1 --file base/f/1/Containerfile ."#);
        build.plain_http = true;
        build.created = Some("60".parse().unwrap());
        insta::assert_snapshot!(Engine::Buildah.build_command(&sh, &build), @r#"buildah build --layers=false --no-cache --format=oci --tls-verify=false --timestamp=60 --build-arg=UPSTREAM=quay.io/o/n@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 "--label=a=b c" --tag=localhost/b:f-1 --file base/f/1/Containerfile ."#);
    }

    #[test]
    fn failures_have_hints() {
        let check = |text: &str, expected: &str| {
            assert!(hint(text).contains(expected), "{text}: {}", hint(text));
        };
        check(
            "Error: writing blob: storing blob to file: write /var/tmp/x: no space left on device",
            "free some space",
        );
        check("potentially insufficient UIDs or GIDs available in user namespace", "--add-subuids");
        check("Error: cannot set up namespace using \"/usr/bin/newuidmap\": exit status 1", "--add-subuids");
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
        check("something else", "read the lines above");
    }
}
