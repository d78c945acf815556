//! What fails says why and how to go on, and leaves what was there as it was.

use std::fs::{self, File};
use std::process::Command;

use insta::assert_snapshot;

use crate::harness::{Run, Workspace, fingerprint};
use crate::testing::{Fault, FaultProxy, Login, Registry, answer, program};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Runs what has to fail; the good image has to stay as it was.
fn fails(workspace: &Workspace, arguments: &str) -> String {
    let before = fingerprint(&workspace.path("../out"));
    let error = workspace.failure(arguments);
    assert_eq!(fingerprint(&workspace.path("../out")), before, "{arguments}");
    error
}

#[test]
fn bases_that_do_not_do() {
    let workspace = Workspace::with_good_image();
    let build = |base: &str| fails(&workspace, &format!("build --base {base} --to oci:../out:t"));
    assert_snapshot!(build("oci:../standin:plain"), @"
    error: reading the base oci:../standin:plain: the image has neither the label `containers.bootc` nor `ostree.bootable`: no host boots it
    hint: name an image that bootc can install, such as quay.io/centos-bootc/centos-bootc:stream10
    ");
    assert_snapshot!(build("oci:../standin:gone"), @"
    error: reading the base oci:../standin:gone: the OCI layout ../standin has no image `gone`
    hint: name one of: t, plain, multi
    ");
    assert_snapshot!(build("oci:../nowhere:t"), @"
    error: reading the base oci:../nowhere:t: opening the OCI layout ../nowhere: No such file or directory (os error 2)
    hint: name a folder that 'cargo xtask build' or skopeo has written
    ");
    assert_snapshot!(build("oci:../standin:multi --platform linux/ppc64le"), @"
    error: reading the base oci:../standin:multi: sha256:HEX is for linux/amd64, linux/arm64; there is nothing for linux/ppc64le in it
    hint: choose others with '--platform'
    ");
    let registry = Registry::docker();
    assert_snapshot!(build(&format!("{}/no/such:t", registry.address())), @"
    error: reading the base 127.0.0.1:PORT/no/such:t: 127.0.0.1:PORT/no/such:t is not in its registry
    hint: check the name and the tag; a private repository needs 'podman login'
    ");
}

#[test]
fn registries_that_do_not_do() {
    let workspace = Workspace::with_good_image();
    let build = |base: &str| fails(&workspace, &format!("build --base {base}/os:t --to oci:../out:t"));
    // A port that was free a moment ago.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_snapshot!(build(&closed.to_string()), @"
    error: reading the base 127.0.0.1:PORT/os:t: http://127.0.0.1:PORT/v2/os/manifests/t cannot be reached: Connection refused (os error 111)
    hint: is the registry at 127.0.0.1:PORT running?
    ");
    let push = format!("build --base oci:../standin:t --to {closed}/os:t");
    assert_snapshot!(fails(&workspace, &push), @"
    error: http://127.0.0.1:PORT/v2/os/manifests/t cannot be reached: Connection refused (os error 111)
    hint: is the registry at 127.0.0.1:PORT running?
    ");

    let serve = |body: &'static [u8]| {
        FaultProxy::alone(move |seen| {
            let found = seen.path().contains("/manifests/");
            let (status, body) = if found { ("200 OK", body) } else { ("404 Not Found", &b""[..]) };
            Fault::Answer(answer(status, &[("Content-Type", MANIFEST)], body))
        })
    };
    let large = serve(vec![b' '; 5 * 1024 * 1024].leak());
    assert_snapshot!(build(large.address()), @"
    error: reading the base 127.0.0.1:PORT/os:t: http://127.0.0.1:PORT/v2/os/manifests/t has more than the 4194304 bytes that it may have
    hint: check that the name is an image's
    ");
    let ambiguous = serve(br#"{"schemaVersion": 2, "layers": [], "manifests": []}"#);
    assert_snapshot!(build(ambiguous.address()), @"
    error: reading the base 127.0.0.1:PORT/os:t: reading http://127.0.0.1:PORT/v2/os/manifests/t: sha256:HEX has both `layers` and `manifests`: it could be read in two ways (CVE-2021-41190)
    hint: check that the name is an image's; 'curl --location http://127.0.0.1:PORT/v2/os/manifests/t' shows what is there
    ");
    let page = serve(b"<!DOCTYPE html><title>Log in</title>");
    assert_snapshot!(build(page.address()), @"
    error: reading the base 127.0.0.1:PORT/os:t: reading http://127.0.0.1:PORT/v2/os/manifests/t: sha256:HEX is a web page, not a manifest
    hint: check the registry's name: a login page or a proxy answers there
    ");
}

#[test]
fn wrong_credentials() {
    let workspace = Workspace::with_standin();
    let registry = Registry::docker_with_login(&Login { user: "user", password: "right" });
    let address = registry.address();
    let push = format!("build --base oci:../standin:t --to {address}/os:t");
    let with_login = |base64: &str| {
        let config = format!(r#"{{"auths": {{"{address}": {{"auth": "{base64}"}}}}}}"#);
        workspace.write("../docker/config.json", &config);
        let mut command = workspace.command(&push);
        command.env("DOCKER_CONFIG", workspace.path("../docker"));
        command.env("REGISTRY_AUTH_FILE", workspace.path("../docker/config.json"));
        Run::new(command.output().unwrap())
    };
    // user:wrong
    let refused = with_login("dXNlcjp3cm9uZw==");
    assert!(!refused.stderr.contains("wrong") && !refused.stderr.contains("dXNlcjp3"), "{}", refused.stderr);
    let temporary = workspace.path("..").canonicalize().unwrap().display().to_string();
    assert_snapshot!(refused.failure().replace(&temporary, "TMP"), @"
    error: 127.0.0.1:PORT does not accept the credentials from TMP/docker/config.json
    hint: run 'podman login 127.0.0.1:PORT'
    ");
    // user:right
    let accepted = with_login("dXNlcjpyaWdodA==");
    assert_eq!(accepted.code, Some(0), "{}", accepted.stderr);
}

#[test]
fn a_flipped_bit_is_seen() {
    let workspace = Workspace::with_good_image();
    let standin = workspace.layout("../standin");
    let manifest = standin.manifest("t");
    let flip = |digest: &serde_json::Value| {
        let path = standin.blob_path(digest.as_str().unwrap());
        let mut bytes = fs::read(&path).unwrap();
        bytes[20] ^= 1;
        // A new file: the good image may share the old one.
        fs::remove_file(&path).unwrap();
        fs::write(path, bytes).unwrap();
    };
    flip(&manifest["layers"][0]["digest"]);
    let other = workspace.failure("build --base oci:../standin:t --to oci:../other:t");
    assert_snapshot!(other, @"
    error: ../standin/blobs/sha256/HEX is damaged: it is not what its name says
    hint: remove ../standin and make it again
    ");
    assert_eq!(workspace.layout("../other").tags(), [""; 0]);
    workspace.layout("../other").check_blobs();

    flip(&manifest["config"]["digest"]);
    assert_snapshot!(fails(&workspace, "build --base oci:../standin:t --to oci:../out:t"), @"
    error: reading the base oci:../standin:t: reading the config: reading sha256:HEX in ../standin: sha256:HEX was promised, but what came is sha256:HEX
    hint: remove ../standin and make it again
    ");
    workspace.layout("../out").check_blobs();
}

#[test]
fn a_full_disk_leaves_the_last_image() {
    let workspace = Workspace::with_standin();
    fs::create_dir(workspace.path("../full")).unwrap();
    // In a mount namespace of its own, the small disk is gone when the shell ends.
    let script = format!(
        "set -eu
        mount -t tmpfs -o size=1m tmpfs ../full
        cp -r ../standin/. ../full
        code=0
        {} build --base oci:../standin:t --to oci:../full:new || code=$?
        cmp ../standin/index.json ../full/index.json
        test -z \"$(ls -A ../full | grep -v -e '^blobs$' -e '^index.json$' -e '^oci-layout$')\"
        cd ../full/blobs/sha256
        for blob in *; do echo \"$blob  $blob\"; done | sha256sum --check --quiet
        exit $code",
        env!("CARGO_BIN_EXE_xtask")
    );
    let mut unshare = Command::new(program("unshare"));
    unshare.arg(if rustix::process::geteuid().is_root() { "-m" } else { "-rm" });
    workspace.prepare(unshare.args(["sh", "-c", &script]));
    assert_snapshot!(Run::new(unshare.output().unwrap()).failure(), @"
    error: writing sha256:HEX to ../full: No space left on device (os error 28)
    hint: free some space: 'df -h' shows where it went, and 'rm -r target/dist' frees what can be made again
    ");
}

#[test]
fn two_runs_do_not_write_at_once() {
    let workspace = Workspace::with_good_image();
    let lock = File::open(workspace.path("../out/oci-layout")).unwrap();
    lock.lock().unwrap();
    assert_snapshot!(fails(&workspace, "build --base oci:../standin:t --to oci:../out:t"), @"
    error: another run is writing ../out
    hint: wait until it has ended, and run the command again
    ");
    drop(lock);
    workspace.ok("build --base oci:../standin:t --to oci:../out:t");
}

#[test]
fn mistakes_in_the_sources() {
    let workspace = Workspace::with_good_image();
    let build = "build --base oci:../standin:t --to oci:../out:t";
    let with = |path: &str, text: &str| {
        let good = fs::read(workspace.path(path)).ok();
        workspace.write(path, text);
        let error = fails(&workspace, build);
        match good {
            Some(good) => fs::write(workspace.path(path), good).unwrap(),
            None => fs::remove_file(workspace.path(path)).unwrap(),
        }
        error
    };
    assert_snapshot!(with("apps/hello/app.toml", "port = \"high\"\n"), @r#"
    error: the workspace has a problem
      apps/hello/app.toml: line 1: invalid type: string "high", expected u16
        hint: mend line 1 of apps/hello/app.toml
    "#);
    assert_snapshot!(with("apps/hello/app.toml", "prot = 8080\nroutes = [\"/\"]\n"), @"
    error: the workspace has a problem
      apps/hello/app.toml: line 1: unknown field `prot`, expected `port` or `routes`
        hint: mend line 1 of apps/hello/app.toml
    ");
    let error = with("apps/hello/main.go", "package main\n\nfunc main() { undefined() }\n");
    assert!(error.contains("main.go:3:15: undefined: undefined"), "{error}");
    assert_snapshot!(with("configs/tmpfile.d/hello.conf", "d /var/hello\n"), @"
    error: the workspace has a problem
      configs/tmpfile.d: is not read by anything
        hint: rename or remove it: configs holds builder, os, sysusers.d, tmpfiles.d
    ");
    fs::remove_dir(workspace.path("configs/tmpfile.d")).unwrap();
    assert_snapshot!(with("systemd/shop.service", "[Service]\nExecStart=/usr/bin/shop\n"), @"
    error: the workspace has a problem
      systemd/shop.service: starts /usr/bin/shop, but no app is called `shop`
        hint: add apps/shop/go.mod, or remove the unit
    ");
    // The repository's own distros are named, however many they are.
    let unknown = |arguments: &str, folder: &str, hint: &str| {
        let error = fails(&workspace, arguments);
        let (start, end) = error.split_once(": there are ").unwrap();
        let (known, found) = end.split_once("\nhint: ").unwrap();
        assert_eq!((start, found.trim_end()), (&*format!("error: no folder base/{folder}"), hint));
        assert!(known.contains("debian-13, "), "{known}");
    };
    unknown(
        "build --distro debian-99 --to oci:../out:t",
        "debian/99",
        "did you mean debian-13? 'cargo xtask list' shows what there is",
    );
    unknown(
        "base plan9-4",
        "plan9/4",
        "'cargo xtask list' shows what there is; '--base REF' builds on any other image",
    );
    workspace.ok(build);
}

#[test]
fn all_apps_that_do_not_compile_are_told() {
    let workspace = Workspace::with_good_image();
    workspace.add_second_app();
    for app in ["hello", "second"] {
        workspace.write(&format!("apps/{app}/main.go"), "package main\n\nfunc main() { undefined() }\n");
    }
    let error = fails(&workspace, "build --base oci:../standin:t --to oci:../out:t");
    for app in ["hello", "second"] {
        assert!(error.contains(&format!("building {app} for linux/")), "{error}");
    }
}

#[test]
fn a_library_is_no_app() {
    let workspace = Workspace::with_good_image();
    workspace.add_second_app();
    workspace.write("apps/second/main.go", "package second\n");
    assert_snapshot!(fails(&workspace, "build --base oci:../standin:t --to oci:../out:t"), @"
    error: apps/second is a library, not a program
    hint: begin its Go files with 'package main', and write a func main()
    ");
}

#[test]
fn nobody_has_to_listen() {
    let workspace = Workspace::with_standin();
    for build in ["build --base oci:../standin:t --to oci:../out:t", "completions bash"] {
        let mut command = workspace.command(build);
        let full = || fs::File::options().write(true).open("/dev/full").unwrap();
        let run = Run::new(command.stderr(full()).output().unwrap());
        assert_eq!(run.code, Some(0), "standard error is full");
        let mut command = workspace.command(build);
        let run = Run::new(command.stdout(full()).output().unwrap());
        assert_eq!(run.code, Some(1), "standard output is full: {}", run.stderr);
        assert!(run.stderr.contains("error: writing to standard output"), "{}", run.stderr);
    }
}

#[test]
fn a_push_that_fails_leaves_a_report_that_is_true() {
    let workspace = Workspace::with_standin();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dist = "dist --distro debian-13 --base oci:../standin:t";
    // What can be known beforehand is.
    let error = workspace.failure(&format!("{dist} --push --image {closed}/os"));
    assert!(error.contains("cannot be reached"), "{error}");
    assert!(!workspace.path("target/dist").exists());
    let registry = Registry::docker();
    let proxy = FaultProxy::before(&registry, |seen| {
        let is_tag = seen.method == "PUT" && seen.path().ends_with("/manifests/debian-13-dev");
        if is_tag { Fault::Answer(answer("403 Forbidden", &[], b"")) } else { Fault::Pass }
    });
    let error = workspace.failure(&format!("{dist} --push --image {}/os", proxy.address()));
    assert!(error.contains("403 Forbidden"), "{error}");
    let file = fs::read(workspace.path("target/dist/dist.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&file).unwrap();
    assert_eq!(report["digest"], workspace.layout("target/dist/oci").digest("debian-13-dev"));
    assert_eq!(report.get("pushed"), None);
}

#[test]
fn calls_that_are_not_meant_so() {
    let workspace = Workspace::with_standin();
    assert_snapshot!(workspace.failure("dist --base oci:../standin:t --push"), @"
    error: oci:../standin:t may be any distro's, and the tag that is pushed begins with its name
    hint: name it with '--distro', or say the whole name with 'cargo xtask build --to REF'
    ");
    assert_snapshot!(workspace.failure("build --base oci:../standin:t --to out"), @"
    error: docker.io/library/out:latest is among the images that Docker alone publishes
    hint: a folder is written 'oci:out'
    ");
    let version = "v".repeat(127);
    assert_snapshot!(workspace.failure(&format!("build --base oci:../standin:t --app-version {version}")), @"
    error: `debian-13-vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv` cannot be the tag of an image: at most 128 characters are allowed
    hint: choose a shorter '--app-version'
    ");
    workspace.write("../mine/letter.txt", "hello");
    assert_snapshot!(workspace.failure("build --base oci:../standin:t --to oci:../mine"), @"
    error: ../mine holds other files, and is no OCI layout
    hint: name a folder that is empty or not there yet
    ");
    assert_snapshot!(workspace.failure("build --base oci:../standin:t --to oci:../mine/letter.txt"), @"
    error: ../mine/letter.txt is a file, and no OCI layout
    hint: name a folder that is empty or not there yet
    ");
    assert_snapshot!(workspace.failure("diff oci:../standin:t oci:../standin:multi --platform linux/s390x"), @"
    error: reading oci:../standin:t: it is for linux/amd64, not for linux/s390x
    hint: choose another with '--platform'
    ");
}

#[test]
fn wrong_calls() {
    let workspace = Workspace::new();
    for arguments in ["", "frobnicate", "build --frobnicate", "dist --app-version a/b", "build --platform x"]
    {
        let run = workspace.run(arguments);
        assert_eq!(run.code, Some(2), "{arguments}: {}", run.stderr);
        assert_eq!(run.stdout, "");
    }
    assert_snapshot!(workspace.run("dist --app-version a/b").stderr, @"
    error: invalid value 'a/b' for '--app-version <VERSION>': a version has letters, digits, `_`, `.` and `-`, and does not start with `.` or `-`

    For more information, try '--help'.
    ");
}
