//! What a terminal's user gets beside results: manual pages that a reader understands, what `--yes`
//! installs, and what `doctor` says.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Run, Workspace, judge};
use crate::testing::program;

#[test]
fn manual_pages_are_read_without_a_warning() {
    let workspace = Workspace::new();
    let mut command = workspace.command("man ../pages");
    // What is set here does not show in them.
    let output = command.env("IMAGE", "ghcr.io/somebody/secret").output().unwrap();
    assert!(output.status.success());
    let stdout = String::from_utf8(output.stdout).unwrap();
    let mut texts = String::new();
    for page in stdout.lines() {
        let page = workspace.path("").join(page);
        let output = Command::new(program("groff"))
            .args(["-man", "-Tutf8", "-ww", "-rLL=100n"])
            .arg(&page)
            .env("GROFF_NO_SGR", "1")
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && said.is_empty(), "{}: {said}", page.display());
        // Bold is a letter over itself.
        let text = String::from_utf8(output.stdout).unwrap();
        texts += &text.chars().filter(|c| *c != '\u{8}').collect::<String>();
    }
    assert_eq!(stdout.lines().count(), fs::read_dir(workspace.path("../pages")).unwrap().count());
    assert!(!texts.contains("secret"));
    for part in ["cargo xtask vm test --upgrade\n", "cargo xtask disk qcow2\n", "BBAASSEE__DDIISSTTRROO"] {
        assert!(texts.contains(part), "no {part:?} in {texts}");
    }
}

/// sudo is a stand-in, which installs nothing.
#[test]
fn packages_are_installed_by_sudo_where_it_asks_nothing() {
    let workspace = Workspace::new();
    let programs = workspace.path("../programs");
    workspace.write("../programs/sudo", "#!/bin/sh\nprintf '%s\\n' \"$*\" >>\"$0.calls\"\nexit \"$SUDO\"\n");
    judge("chmod", &format!("-R a+rwx {}", programs.display()));
    fs::set_permissions(workspace.path("../"), PermissionsExt::from_mode(0o755)).unwrap();
    let binary = workspace.path("../xtask");
    fs::copy(env!("CARGO_BIN_EXE_xtask"), &binary).unwrap();
    let failure = |sudo: &str| {
        let mut command = Command::new(program("setpriv"));
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&binary);
        command.args(["vm", "run", "none.qcow2", "--firmware", "bios", "--yes"]);
        workspace.prepare(&mut command);
        // Nothing else is found there.
        command.env("PATH", &programs).env("HOME", &programs).env("SUDO", sudo);
        Run::new(command.output().unwrap()).failure()
    };
    let packages = "openssh-client qemu-system-x86 qemu-utils util-linux";
    let still = failure("0");
    assert!(
        still.starts_with("error: qemu-system-x86_64 is still missing after its installation\n"),
        "{still}"
    );
    let calls = fs::read_to_string(programs.join("sudo.calls")).unwrap();
    let apt = "-n env DEBIAN_FRONTEND=noninteractive apt-get -q";
    let install = format!("{apt} install -y --no-install-recommends {packages}");
    assert_eq!(calls.lines().collect::<Vec<_>>(), ["-n true", &format!("{apt} update"), &install]);
    // One that asks is not used.
    let refused = failure("1");
    let listed = packages.replace(' ', ", ");
    assert!(refused.starts_with(&format!("error: only root installs packages: {listed}\n")), "{refused}");
}

/// What is not there yet stops nobody; what the repository has wrong is an error.
#[test]
fn doctor_tells_how_to_mend_what_it_finds() {
    let workspace = Workspace::new();
    let fact = |report: &Value, about: &str| {
        let facts = report["machine"].as_array().unwrap();
        facts
            .iter()
            .find(|fact| fact["about"] == about)
            .unwrap_or_else(|| panic!("{about}: {report:#}"))
            .clone()
    };
    let report = workspace.json("doctor");
    let login = fact(&report, "login");
    assert_eq!(login["state"], "limited");
    assert_eq!(login["text"], "there is none for registry.example: '--push' needs one");
    assert_eq!(login["hint"], "run 'podman login registry.example' or 'docker login registry.example'");
    assert_eq!(fact(&report, "disks")["state"], "ok");
    assert!(fact(&report, "distros")["text"].as_str().unwrap().contains("fedora-40"));

    // docker's file, as its login writes it.
    workspace.write(
        "../no-logins/config.json",
        "{\"auths\": {\"registry.example\": {\"auth\": \"bWU6c2VjcmV0\"}}}",
    );
    let settings = fs::read_to_string(workspace.path("Cargo.toml")).unwrap();
    workspace.write("Cargo.toml", &settings.replace("debian-13", "fedora-41"));
    workspace.write(
        "configs/builder/config.toml",
        "[[customizations.user]]\nname = \"ops\"\nkey = \"ssh-ed25519 AAAA... replace-me\"\n",
    );
    let run = workspace.run("doctor --json");
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert_eq!(run.stderr, "error: the workspace is not sound\nhint: mend what is listed above\n");
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    let login = fact(&report, "login");
    assert_eq!((&login["state"], login["hint"].is_null()), (&"ok".into(), true));
    assert!(!run.stdout.contains("secret") && !run.stdout.contains("bWU6c2VjcmV0"));
    let distros = fact(&report, "distros");
    assert_eq!(distros["hint"], "write distro = \"fedora-44\" into Cargo.toml");
    let disks = fact(&report, "disks");
    assert_eq!(disks["state"], "error");
    assert!(disks["text"].as_str().unwrap().contains("the ssh key is a placeholder"), "{disks}");
}
