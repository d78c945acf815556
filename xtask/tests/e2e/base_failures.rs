//! What stays, and what is told, where a base cannot be built or pushed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use crate::bases::EPOCH;
use crate::engine::{ENGINES, Site, contain};
use crate::harness::{Run, fingerprint, judge};
use crate::interrupts::names;
use crate::standin::set_up_engine;
use crate::testing::{Fault, FaultProxy, Registry, answer, program};

#[test]
fn a_build_that_fails_leaves_nothing() {
    let site = Site::new();
    site.made("podman", "base tiny-1");
    let before = fingerprint(&site.workspace.path("target/base"));
    let two_stages = "ARG UPSTREAM\nFROM ${UPSTREAM} AS a\nRUN touch /one\nFROM ${UPSTREAM}\n\
                      COPY --from=a /one /two\nRUN false\n";
    let no_base = "ARG UPSTREAM\nFROM ${UPSTREAM} AS unused\nFROM scratch\nCOPY base/shared/rootfs/ /\n";
    for engine in ENGINES {
        for (containerfile, expected) in [(two_stages, "RUN false"), (no_base, "no host boots it")] {
            site.workspace.write("base/tiny/1/Containerfile", containerfile);
            let error = site.run(engine, "base tiny-1").failure();
            assert!(error.contains(expected), "{error}");
            site.check_clean();
        }
    }
    assert_eq!(fingerprint(&site.workspace.path("target/base")), before);
}

#[test]
fn a_full_disk_leaves_the_base_that_is_there() {
    let site = Site::new();
    let digest = site.made("podman", "base tiny-1");
    let before = names(&site.workspace.path("target/base/tiny-1/blobs/sha256")).len();
    fs::create_dir(site.workspace.path("../empty")).unwrap();
    // In a mount namespace of its own, the small disk is gone when the shell ends.
    let in_small = |engine: &str, mounts: &str| {
        let script = format!(
            "set -eu
            {mounts}
            code=0
            \"$0\" base tiny-1 --force || code=$?
            # Other codes than that of an error, which is what is expected here.
            test -z \"$(ls -A target/base/tiny-1 | grep -v -e '^blobs$' -e '^index.json$' -e '^oci-layout$')\" || exit 3
            test $(ls target/base/tiny-1/blobs/sha256 | wc -l) = {before} || exit 4
            \"$0\" build --base oci:target/base/tiny-1 --to oci:../out:t >/dev/null 2>&1 || exit 5
            exit $code"
        );
        let mut command = Command::new(program("unshare"));
        command.args(["-m", "sh", "-c", &script, env!("CARGO_BIN_EXE_xtask")]);
        site.workspace.prepare(&mut command);
        let path = std::env::var("PATH").unwrap();
        let mut command = site.set_up(command, engine);
        let bin = site.workspace.path(&format!("../bin-{engine}"));
        // For the shell and for Go; the engines are in /usr/bin.
        let others = site.workspace.path("../bin-others");
        if !others.exists() {
            fs::create_dir(&others).unwrap();
            for name in ["ls", "grep", "wc", "test", "mount", "cp", "go", "git", "gcc"] {
                if let Some(found) =
                    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|it| it.exists())
                {
                    symlink(found, others.join(name)).unwrap();
                }
            }
        }
        command.env("PATH", std::env::join_paths([bin, others]).unwrap());
        Run::new(command.output().unwrap()).failure()
    };
    let prune = [
        ("podman", "'podman system prune' frees"),
        ("buildah", "'buildah rm --all' and 'buildah rmi --prune' frees"),
    ];
    for (engine, command) in prune {
        let store = in_small(engine, "mount -t tmpfs -o size=60m tmpfs ../engine/root");
        let target = in_small(
            engine,
            "mount -t tmpfs -o size=20m tmpfs ../empty && cp -r target/base/. ../empty && \
             mount --bind ../empty target/base",
        );
        for error in [store, target] {
            assert!(error.to_lowercase().contains("no space left on device"), "{error}");
            assert!(error.contains(command) && error.contains("target/base can be made again"), "{error}");
        }
    }
    site.check_clean();
    assert_eq!(site.made("podman", "base tiny-1"), digest);
}

#[test]
fn a_folder_that_cannot_be_written_is_told_before_the_build() {
    let site = Site::new();
    fs::create_dir_all(site.workspace.path("target/base")).unwrap();
    let script = "mount --bind target/base target/base && mount -o remount,bind,ro target/base && exec \"$0\" base tiny-1";
    let mut command = Command::new(program("unshare"));
    command.args(["-m", "sh", "-c", script, env!("CARGO_BIN_EXE_xtask")]);
    site.workspace.prepare(&mut command);
    set_up_engine(&site.workspace, &mut command);
    let error = Run::new(command.output().unwrap()).failure();
    assert!(error.contains("Read-only file system") && error.contains("\nhint: write to a place"), "{error}");
    assert!(!site.workspace.path("../engine/root").exists(), "nothing was built");
}

#[test]
fn a_user_without_ids_is_told_before_the_build() {
    let site = Site::new();
    // Whoever runs this, `nobody` owns nothing and has no ids.
    fs::set_permissions(site.workspace.path(".."), PermissionsExt::from_mode(0o755)).unwrap();
    let binary = site.workspace.path("../xtask");
    fs::copy(env!("CARGO_BIN_EXE_xtask"), &binary).unwrap();
    let nobody: &[&str] = match rustix::process::geteuid().is_root() {
        true => &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"],
        false => &["unshare", "--user", "--map-user=65534"],
    };
    let expected = "error: nobody has no range of ids in /etc/subuid and /etc/subgid: no image can be made without \
                    root\nhint: run 'sudo usermod --add-subuids ";
    // Where podman takes no part, it need not hear of new ids.
    for (distro, then) in [("tiny-1", " and then 'podman system migrate'"), ("debian-13", "")] {
        let mut command = Command::new(program(nobody[0]));
        site.workspace.prepare(command.args(&nobody[1..]).arg(&binary).args(["base", distro]));
        set_up_engine(&site.workspace, &mut command);
        let error = Run::new(command.output().unwrap()).failure();
        assert!(error.starts_with(expected), "{error}");
        assert!(error.contains(&format!(" nobody'{then}, or run this as root")), "{error}");
        assert!(!site.workspace.path("target/base").exists());
    }
}

#[test]
fn who_may_not_push_hears_of_it_before_the_build() {
    let site = Site::new();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = site.run("podman", &format!("base tiny-1 --push --image {closed}/me/os")).failure();
    insta::assert_snapshot!(error, @"
    error: http://127.0.0.1:PORT/v2/me/os/blobs/uploads/ cannot be reached: Connection refused (os error 111)
    hint: is the registry at 127.0.0.1:PORT running?
    ");
    let denying = FaultProxy::alone(|_| {
        Fault::Answer(answer("401 Unauthorized", &[("WWW-Authenticate", "Basic realm=x")], b""))
    });
    let error =
        site.run("podman", &format!("base tiny-1 --push --image {}/me/os", denying.address())).failure();
    insta::assert_snapshot!(error, @"
    error: no credentials for 127.0.0.1:PORT
    hint: run 'podman login 127.0.0.1:PORT'
    ");
    assert!(!site.workspace.path("target/base").exists(), "nothing was built");
}

#[test]
fn a_push_that_fails_keeps_the_base() {
    let site = Site::new();
    let registry = Registry::docker();
    let proxy = FaultProxy::before(&registry, |seen| {
        match seen.method == "PUT" && seen.path().contains("/manifests/") {
            true => Fault::Answer(answer("403 Forbidden", &[], b"{}")),
            false => Fault::Pass,
        }
    });
    let image = format!("{}/me/os", proxy.address());
    let push = format!("base tiny-1 --push --image {image} --plain-http registry.lan");
    let run = site.run("podman", &push);
    let error = run.failure();
    assert!(error.starts_with("error: the base is made, and kept in target/base/tiny-1: "), "{error}");
    let command = format!("SOURCE_DATE_EPOCH={EPOCH} cargo xtask {push}");
    assert!(
        run.stderr.contains(&format!("hint: '{command}' pushes it without making it again")),
        "{}",
        run.stderr
    );
    let before = fingerprint(&site.workspace.path("target/base"));
    site.made("podman", &format!("base tiny-1 --push --image {}/me/os", registry.address()));
    assert_eq!(fingerprint(&site.workspace.path("target/base")), before);
    judge("crane", &format!("validate --remote {}/me/os:base-tiny-1", registry.address()));
}

#[test]
fn what_steps_say_is_made_fit_for_a_terminal() {
    let site = Site::new();
    contain(
        &site.workspace,
        r"RUN printf '\033[31mred\033[0m \377 \033]0;title\007end\n' | tee /dev/stderr; false",
    );
    // A user's PATH, without the folders of what an administrator starts: runc may be there.
    let bins: Vec<PathBuf> = ["/usr/bin", "/bin"].map(PathBuf::from).to_vec();
    for engine in ENGINES {
        let mut command = site.command(engine, "base tiny-1");
        let bin = site.workspace.path(&format!("../bin-{engine}"));
        command.env("PATH", std::env::join_paths([&[bin], &bins[..]].concat()).unwrap());
        let run = Run::new(command.output().unwrap());
        let error = run.failure();
        assert!(error.contains("\n    red \u{fffd} end\n"), "{error}");
        assert!(!run.stderr.contains(['\u{1b}', '\u{7}']), "{error}");
    }
}
