//! What a command needs, found out before its first slow step: all that is missing, at once,
//! with the command that installs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use xshell::{Shell, cmd};

use crate::exec::{self, SYSTEM_DIRS};
use crate::hint::{WithHint, hinted};
use crate::progress::Progress;

/// How long sudo may think about whether it asks for a password.
const PATIENCE: Duration = Duration::from_secs(10);

/// A program that a command starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) program: &'static str,
    /// What it is for, to end the sentence "X is missing: it ...".
    pub(crate) purpose: &'static str,
    pub(crate) from: Source,
}

/// Something else that is missing, which only the user can mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lack {
    pub(crate) what: String,
    /// A command or an edit.
    pub(crate) remedy: String,
}

/// A command cannot begin.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub(crate) struct Unready(Vec<String>);

/// Who installs a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A package of Debian's, which other systems may call otherwise.
    Debian(&'static str),
    /// `go install` of this package, into the workspace's own `target/tools/bin`.
    GoInstall(&'static str),
    /// `pip install` of this package, into an environment of the workspace's own.
    Pip(&'static str),
    /// Comes with a language's toolchain; the user installs that, as its page says.
    Toolchain { page: &'static str },
}

/// How this machine gets packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packager {
    /// As Debian does.
    Apt,
    /// Some other way.
    Other,
}

/// Whether missing programs may be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consent {
    Install,
    Ask,
}

/// Where a program is: in PATH or among the system's. One that a language's installer brings has a
/// version, so the workspace's own counts alone, and only if it was installed as that version.
pub(crate) fn find(need: &Need, root: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = match need.from {
        Source::GoInstall(package) | Source::Pip(package) => {
            let is_it = fs::read_to_string(receipt(need, root)).is_ok_and(|installed| installed == package);
            let dir =
                if matches!(need.from, Source::Pip(_)) { python(root).join("bin") } else { tools(root) };
            if is_it { vec![dir] } else { Vec::new() }
        }
        Source::Debian(_) | Source::Toolchain { .. } => {
            std::env::split_paths(&path).chain(SYSTEM_DIRS.map(PathBuf::from)).collect()
        }
    };
    dirs.into_iter().map(|dir| dir.join(need.program)).find(|candidate| candidate.is_file())
}

/// Makes sure that all of `needs` are there: installs what is missing, or says what to do. Where
/// there are `lacks`, nothing is installed: all that is missing is told.
pub(crate) fn ensure(
    needs: &[Need],
    lacks: &[Lack],
    root: &Path,
    (consent, progress): (Consent, &Progress),
) -> Result<()> {
    let missing: Vec<Need> = needs.iter().copied().filter(|need| find(need, root).is_none()).collect();
    if missing.is_empty() && lacks.is_empty() {
        return Ok(());
    }
    let is_toolchain = |need: &Need| matches!(need.from, Source::Toolchain { .. });
    let is_by_hand = Packager::here() == Packager::Other && !debian_packages(&missing).is_empty();
    let is_ours = !is_by_hand && !missing.iter().any(is_toolchain);
    if consent == Consent::Install && is_ours && lacks.is_empty() {
        return install(&missing, root, progress);
    }
    let programs = missing.iter().map(|need| format!("{} is missing: it {}", need.program, need.purpose));
    let lines = programs.chain(lacks.iter().map(|lack| lack.what.clone())).collect();
    let install = (!missing.is_empty()).then(|| install_hint(&missing));
    let remedies = install.into_iter().chain(lacks.iter().map(|lack| lack.remedy.clone()));
    Err(hinted(Unready(lines), remedies.collect::<Vec<_>>().join("; ")))
}

fn install(missing: &[Need], root: &Path, progress: &Progress) -> Result<()> {
    let sh = Shell::new()?;
    let packages = debian_packages(missing);
    if !packages.is_empty() {
        let Some((env, through)) = as_root(&sh) else {
            return Err(anyhow!("only root installs packages: {}", packages.join(", ")))
                .hint(install_hint(missing));
        };
        let apt =
            || cmd!(sh, "{env}").args(through).args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"]);
        let step = progress.step(format!("installing Debian packages: {}", packages.join(" ")));
        exec::run(apt().arg("update"))?;
        exec::run(apt().args(["install", "-y", "--no-install-recommends"]).args(&packages))?;
        step.done(format!("installed Debian packages: {}", packages.join(" ")));
    }
    for need in missing {
        let (package, folder, commands) = match need.from {
            Source::GoInstall(package) => {
                let folder = tools(root);
                let install = cmd!(sh, "go install {package}").env("GOBIN", &folder);
                (package, folder, vec![install])
            }
            Source::Pip(package) => {
                let folder = python(root);
                let pip = folder.join("bin/pip");
                let make = cmd!(sh, "python3 -m venv {folder}");
                let install = cmd!(sh, "{pip} install --quiet --disable-pip-version-check {package}");
                (package, folder, vec![make, install])
            }
            Source::Debian(_) | Source::Toolchain { .. } => continue,
        };
        let step = progress.step(format!("installing {package} into {}", folder.display()));
        commands.into_iter().try_for_each(exec::run)?;
        let receipt = receipt(need, root);
        fs::write(&receipt, package).with_context(|| format!("writing {}", receipt.display()))?;
        step.done(format!("installed {package} into {}", folder.display()));
    }
    match missing.iter().find(|need| find(need, root).is_none()) {
        None => Ok(()),
        Some(need) => Err(hinted(
            anyhow!("{} is still missing after its installation", need.program),
            install_hint(missing),
        )),
    }
}

/// How root's `env` is called: directly, or by sudo, where that asks for no password.
fn as_root(sh: &Shell) -> Option<(&'static str, &'static [&'static str])> {
    if rustix::process::geteuid().is_root() {
        return Some(("env", &[]));
    }
    let answer = exec::ask(cmd!(sh, "sudo -n true"), "", PATIENCE).ok()?;
    answer.status.success().then_some(("sudo", &["-n", "env"]))
}

impl Packager {
    /// Wherever it is: a PATH that lacks it says nothing of the machine.
    fn here() -> Packager {
        let is_apt = ["/usr/bin/apt-get", "/bin/apt-get"].into_iter().any(|path| Path::new(path).exists());
        if is_apt { Packager::Apt } else { Packager::Other }
    }
}

/// The commands that install what is missing.
pub(crate) fn install_hint(missing: &[Need]) -> String {
    install_hint_for(missing, Packager::here())
}

fn install_hint_for(missing: &[Need], packager: Packager) -> String {
    let mut parts = Vec::new();
    for need in missing {
        if let Source::Toolchain { page } = need.from {
            parts.push(format!("install {} as {page} says", need.program));
        }
    }
    let packages = debian_packages(missing);
    if !packages.is_empty() {
        parts.push(match packager {
            Packager::Apt => format!("run 'sudo apt-get install {}'", packages.join(" ")),
            Packager::Other => format!(
                "install what Debian has in {} with this system's package manager",
                packages.join(", ")
            ),
        });
    }
    let is_ours = |need: &Need| matches!(need.from, Source::GoInstall(_) | Source::Pip(_));
    if missing.iter().any(is_ours) {
        let programs: Vec<&str> =
            missing.iter().filter(|need| is_ours(need)).map(|need| need.program).collect();
        parts.push(format!("'--yes' installs {}", programs.join(", ")));
    } else if packager == Packager::Apt && missing.iter().all(|need| matches!(need.from, Source::Debian(_))) {
        parts.push("as root, '--yes' does it".to_owned());
    }
    parts.join("; ")
}

fn debian_packages(needs: &[Need]) -> Vec<&'static str> {
    let mut packages: Vec<&str> = needs
        .iter()
        .filter_map(|need| match need.from {
            Source::Debian(package) => Some(package),
            Source::Pip(_) => Some("python3-venv"),
            Source::GoInstall(_) | Source::Toolchain { .. } => None,
        })
        .collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

fn tools(root: &Path) -> PathBuf {
    root.join("target/tools/bin")
}

fn python(root: &Path) -> PathBuf {
    root.join("target/tools/python")
}

/// Says which package and version a program of ours came from.
fn receipt(need: &Need, root: &Path) -> PathBuf {
    root.join("target/tools").join(format!("{}.package", need.program))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Verbosity;

    #[test]
    fn all_that_is_missing_is_told_at_once() {
        let need = |program, from| Need { program, purpose: "is for this test", from };
        let needs = [
            need("sh", Source::Debian("dash")),
            need("no-such-a", Source::Debian("a-package")),
            need("no-such-b", Source::GoInstall("example.com/b@v1")),
            need("no-such-p", Source::Pip("p-bin==1")),
            need("no-such-c", Source::Toolchain { page: "example.com/c" }),
        ];
        let progress = Progress::new(Verbosity::Quiet);
        let told = |needs: &[Need]| {
            let error = ensure(needs, &[], Path::new("/nowhere"), (Consent::Ask, &progress)).unwrap_err();
            let hint = crate::hint::hints(&error).collect::<String>();
            format!("{error}\nhint: {hint}")
        };
        insta::assert_snapshot!(told(&needs), @"
        no-such-a is missing: it is for this test
        no-such-b is missing: it is for this test
        no-such-p is missing: it is for this test
        no-such-c is missing: it is for this test
        hint: install no-such-c as example.com/c says; run 'sudo apt-get install a-package python3-venv'; '--yes' installs no-such-b, no-such-p
        ");
        let lack = |what: &str, remedy: &str| Lack { what: what.to_owned(), remedy: remedy.to_owned() };
        let lacks = [lack("only root does this", "be root"), lack("9 GB are missing", "free them")];
        let error =
            ensure(&needs[..2], &lacks, Path::new("/nowhere"), (Consent::Install, &progress)).unwrap_err();
        let hint = crate::hint::hints(&error).collect::<String>();
        insta::assert_snapshot!(format!("{error}\nhint: {hint}"), @"
        no-such-a is missing: it is for this test
        only root does this
        9 GB are missing
        hint: run 'sudo apt-get install a-package'; as root, '--yes' does it; be root; free them
        ");
        assert!(crate::hint::is::<Unready>(&error.context("more")));
        insta::assert_snapshot!(install_hint_for(&needs[1..2], Packager::Apt), @"run 'sudo apt-get install a-package'; as root, '--yes' does it");
        insta::assert_snapshot!(install_hint_for(&needs[1..4], Packager::Other), @"install what Debian has in a-package, python3-venv with this system's package manager; '--yes' installs no-such-b, no-such-p");
        insta::assert_snapshot!(told(&needs[..4]), @"
        no-such-a is missing: it is for this test
        no-such-b is missing: it is for this test
        no-such-p is missing: it is for this test
        hint: run 'sudo apt-get install a-package python3-venv'; '--yes' installs no-such-b, no-such-p
        ");
    }
}
