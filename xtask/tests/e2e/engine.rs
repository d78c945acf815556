//! What an engine does on the machine while it builds a base: nothing of it is left, however the
//! build ends, and nothing but the files of the base decides what comes of it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Child, Command};

use rustix::process::{Pid, Signal, kill_process};

use crate::bases::EPOCH;
use crate::harness::{Run, Workspace, fingerprint, judge, make_private};
use crate::interrupts::{interrupt, names, start, wait_until};
use crate::standin::{Upstream, set_up_engine};
use crate::testing::{Fault, FaultProxy, Registry, answer, program};

const ENGINES: [&str; 2] = ["podman", "buildah"];

/// A workspace with a distro `tiny-1`, and an engine with a store of its own.
struct Site {
    workspace: Workspace,
    upstream: Upstream,
}

impl Site {
    fn new() -> Site {
        let site = Site { workspace: Workspace::new(), upstream: Upstream::debian() };
        site.add_distro(&site.workspace);
        site
    }

    fn add_distro(&self, workspace: &Workspace) {
        let toml = format!(
            "title = \"Tiny\"\nupstream = \"{}:t\"\nstage = \"production\"\nend-of-life = 2999-01-01\n\
             platforms = [\"linux/amd64\", \"linux/arm64\"]\n",
            self.upstream.name
        );
        workspace.write("base/tiny/1/distro.toml", &toml);
        contain(workspace, "");
    }

    /// A command on this site with one of the engines alone.
    fn command(&self, engine: &str, arguments: &str) -> Command {
        self.set_up(self.workspace.command(arguments), engine)
    }

    fn set_up(&self, mut command: Command, engine: &str) -> Command {
        set_up_engine(&self.workspace, &mut command);
        let bin = self.workspace.path(&format!("../bin-{engine}"));
        if !bin.exists() {
            fs::create_dir(&bin).unwrap();
            for name in [engine, "id", "sh"] {
                symlink(program(name), bin.join(name)).unwrap();
            }
        }
        command.env("PATH", &bin);
        // The same time, so that the same files make the same image.
        command.env("SOURCE_DATE_EPOCH", EPOCH);
        command
    }

    fn run(&self, engine: &str, arguments: &str) -> Run {
        Run::new(self.command(engine, arguments).output().unwrap())
    }

    fn made(&self, engine: &str, arguments: &str) -> String {
        succeeded(&self.run(engine, arguments))
    }

    fn engine(&self, engine: &str, arguments: &str) -> String {
        let mut command = Command::new(program(engine));
        command.args(arguments.split_whitespace());
        set_up_engine(&self.workspace, &mut command);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{engine} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The name of the folder that everything of this site is in, and no other has.
    fn word(&self) -> String {
        let dir = self.workspace.path("..").canonicalize().unwrap();
        dir.file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// The processes of build steps, by what is mounted where they are; without zombies.
    fn steps(&self) -> Vec<String> {
        let word = self.word();
        let here = fs::read_link("/proc/self/ns/mnt").unwrap();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap() {
            let process = entry.unwrap().path();
            let is_elsewhere = fs::read_link(process.join("ns/mnt")).is_ok_and(|there| there != here);
            let mounts = fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
            if is_elsewhere && mounts.contains(&word) {
                let command = fs::read(process.join("cmdline")).unwrap_or_default();
                found.push(String::from_utf8_lossy(&command).replace('\0', " "));
            }
        }
        found
    }

    /// Nothing is there but the base and the upstream's image.
    fn check_clean(&self) {
        assert_eq!(self.steps(), [""; 0]);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounts: Vec<_> = mounts.lines().filter(|line| line.contains(&self.word())).collect();
        assert_eq!(mounts, [""; 0]);
        assert_eq!(self.engine("podman", "ps --all --external --quiet"), "");
        let layout = self.workspace.path("target/base/tiny-1");
        if layout.exists() {
            let names: BTreeSet<String> = names(&layout).into_iter().collect();
            let allowed = ["blobs", "index.json", "oci-layout"].map(str::to_owned);
            assert!(names.is_subset(&BTreeSet::from(allowed)), "{names:?}");
        }
        let images = self.engine("podman", "images --all --format {{.Repository}}");
        assert!(images.lines().all(|name| name == self.upstream.name), "{images}");
        let runtime = self.engine("podman", "info --format {{.Host.OCIRuntime.Name}}");
        let states = judge(runtime.trim(), "list --format json");
        assert!(!states.contains(&self.word()), "{states}");
    }
}

/// Makes `tiny-1` one that is built in these steps.
fn contain(workspace: &Workspace, steps: &str) {
    workspace.write(
        "base/tiny/1/Containerfile",
        &format!(
            "ARG UPSTREAM\nFROM ${{UPSTREAM}}\nCOPY base/shared/rootfs/ /\n{steps}\n\
             LABEL bootc-testboot.provides=systemd\n"
        ),
    );
}

fn succeeded(run: &Run) -> String {
    assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
    run.stdout.trim_end().to_owned()
}

/// Starts a build whose step does not end, and waits for that step.
fn start_sleeping(site: &Site, engine: &str) -> Child {
    contain(&site.workspace, "RUN echo begun; sleep 1000");
    let child = start(site.command(engine, "base tiny-1"));
    wait_until("the step", || site.steps().iter().any(|step| step.starts_with("sleep")));
    child
}

#[test]
fn an_interrupt_leaves_nothing_of_a_build() {
    let site = Site::new();
    site.made("podman", "base tiny-1");
    site.check_clean();
    let before = fingerprint(&site.workspace.path("target/base"));
    for engine in ENGINES {
        for signal in [Signal::INT, Signal::TERM] {
            interrupt(start_sleeping(&site, engine), signal);
            site.check_clean();
        }
    }
    // Once the image is built, there is no step any more, but the image.
    contain(&site.workspace, "RUN touch /usr/share/another");
    let layout = site.workspace.path("target/base/tiny-1");
    let child = start(site.command("podman", "base tiny-1"));
    let is_exported = |name: &String| layout.join(name).join("export").exists();
    wait_until("the export", || names(&layout).iter().any(is_exported));
    interrupt(child, Signal::INT);
    site.check_clean();
    assert_eq!(fingerprint(&site.workspace.path("target/base")), before);
}

#[test]
fn an_engine_that_does_not_end_by_itself_is_ended() {
    let site = Site::new();
    // It waits for the upstream, so that there is no step that could be ended.
    let silent = FaultProxy::before(&site.upstream.registry, |seen| match seen.path().contains("/blobs/") {
        true => Fault::Silence,
        false => Fault::Pass,
    });
    let from = format!("{}/bootc/standin:t", silent.address());
    let child = start(site.command("podman", &format!("base tiny-1 --from {from}")));
    wait_until("the pull", || silent.count("GET", "/blobs/") > 0);
    interrupt(child, Signal::INT);
    site.check_clean();
}

#[test]
fn what_a_killed_run_leaves_goes_with_the_next() {
    let site = Site::new();
    let digest = site.made("podman", "base tiny-1");
    let before = fingerprint(&site.workspace.path("target/base"));
    // Somebody else's working container of the same image, which is none of ours.
    let others = site.engine("buildah", &format!("from --tls-verify=false {}:t", site.upstream.name));
    for engine in ENGINES {
        for is_engine_killed in [false, true] {
            let child = start_sleeping(&site, engine);
            let group = if is_engine_killed { engines(&site) } else { Vec::new() };
            kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
            child.wait_with_output().unwrap();
            group.into_iter().for_each(|engine| kill_process(engine, Signal::KILL).unwrap());
            assert!(site.steps().iter().any(|step| step.starts_with("sleep")));
            // The base that was there is still one that can be built on.
            site.workspace.ok("build --base oci:target/base/tiny-1 --to oci:../out:t");
            // The files are those of before, so nothing is made.
            contain(&site.workspace, "");
            let run = site.run(engine, "base tiny-1");
            assert_eq!(succeeded(&run), digest);
            assert!(run.stderr.contains("removing what a run that was killed has left"), "{}", run.stderr);
            assert_eq!(fingerprint(&site.workspace.path("target/base")), before);
            assert_eq!(site.steps(), [""; 0]);
            assert_eq!(
                site.engine("buildah", "containers --format {{.ContainerName}}").trim(),
                others.trim()
            );
        }
    }
    site.engine("buildah", &format!("rm {others}"));
    site.check_clean();
}

/// The engines that work for a site.
fn engines(site: &Site) -> Vec<Pid> {
    let word = site.word();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let process = entry.unwrap();
        let command = fs::read(process.path().join("environ")).unwrap_or_default();
        let is_ours = String::from_utf8_lossy(&command).contains(&word);
        let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        if is_ours && (ENGINES.contains(&name.trim()) || name.starts_with("exe")) {
            found.extend(process.file_name().to_str().unwrap().parse().ok().and_then(Pid::from_raw));
        }
    }
    assert!(!found.is_empty());
    found
}

#[test]
fn two_checkouts_with_one_store_make_one_base() {
    let site = Site::new();
    let other = Workspace::new();
    site.add_distro(&other);
    // One of them under another umask, as a checkout and as a build.
    make_private(&other.path("base"));
    let private = format!("umask 077; exec {} base tiny-1", env!("CARGO_BIN_EXE_xtask"));
    let mut command = Command::new(program("sh"));
    other.prepare(command.args(["-c", &private]));
    for workspace in [&site.workspace, &other] {
        workspace.write("base/shared/rootfs/usr/share/new/folder/file", "x\n");
    }
    let children = [site.command("podman", "base tiny-1"), site.set_up(command, "buildah")].map(start);
    let digests = children.map(|child| succeeded(&Run::new(child.wait_with_output().unwrap())));
    assert_eq!(digests[0], digests[1]);
    site.check_clean();
}

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

/// Without root, an engine works in namespaces of its own, as the owner of a range of ids.
#[test]
fn an_ordinary_user_leaves_nothing_either() {
    let site = Site::new();
    let path = |name: &str| site.workspace.path(&format!("../{name}"));
    fs::create_dir(path("home")).unwrap();
    fs::create_dir(path("runtime")).unwrap();
    fs::write(path("ids"), "nobody:500000:65536\n").unwrap();
    fs::copy(env!("CARGO_BIN_EXE_xtask"), path("xtask")).unwrap();
    // Root becomes somebody who has a range; whoever else runs this has one already.
    let is_root = rustix::process::geteuid().is_root();
    // Whose network the engine's steps have: udev lets everybody open this device, and not each machine has udev.
    let as_user = "mount --bind ../ids /etc/subuid && mount --bind ../ids /etc/subgid && \
                   { test -e ../tun || mknod --mode=666 ../tun c 10 200; } && \
                   mount --bind ../tun /dev/net/tun && \
                   exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\"";
    let command = |program_and_arguments: &str| {
        let mut words = program_and_arguments.split(' ');
        let program_itself = words.next().unwrap();
        let mut command = Command::new(if is_root { program("unshare") } else { program(program_itself) });
        if is_root {
            command.args(["-m", "sh", "-c", as_user, "sh", program_itself]);
        }
        site.workspace.prepare(command.args(words));
        set_up_engine(&site.workspace, &mut command);
        // The one driver that needs nothing of the machine.
        let storage = fs::read_to_string(path("engine/storage.conf")).unwrap();
        fs::write(path("engine/storage.conf"), storage.replace("\"overlay\"\n", "\"vfs\"\n")).unwrap();
        command.env("HOME", path("home")).env("XDG_RUNTIME_DIR", path("runtime"));
        command
    };
    let engine = |arguments: &str| {
        let run = Run::new(command(&format!("podman {arguments}")).output().unwrap());
        succeeded(&run)
    };
    let base = format!("{} base tiny-1", path("xtask").display());
    drop(command(&base));
    if is_root {
        judge("chown", &format!("--recursive --no-dereference 65534:65534 {}", path("").display()));
    }
    let digest = succeeded(&Run::new(command(&base).output().unwrap()));
    let check_clean = || {
        assert!(!site.steps().iter().any(|step| step.starts_with("sleep")));
        assert_eq!(engine("ps --all --external --quiet"), "");
        assert_eq!(engine("images --all --format {{.Repository}}"), site.upstream.name);
        assert_eq!(names(&site.workspace.path("target/base/tiny-1")).len(), 3);
    };
    check_clean();
    for signal in [Signal::INT, Signal::KILL] {
        contain(&site.workspace, "RUN echo begun; sleep 1000");
        let child = start(command(&base));
        wait_until("the step", || site.steps().iter().any(|step| step.starts_with("sleep")));
        if signal == Signal::INT {
            interrupt(child, signal);
        } else {
            kill_process(Pid::from_child(&child), signal).unwrap();
            child.wait_with_output().unwrap();
            contain(&site.workspace, "");
            assert_eq!(succeeded(&Run::new(command(&base).output().unwrap())), digest);
        }
        check_clean();
    }
    // Only in the engine's namespaces everything is the user's own; then the process that holds them.
    let store = engine("info --format {{.Store.GraphRoot}}");
    assert!(store.contains(&site.word()), "{store}");
    engine(&format!("unshare rm -r {store}"));
    engine("system migrate");
}

#[test]
fn a_build_sees_the_base_s_files_and_nothing_else() {
    let site = Site::new();
    // What an engine would read in the repository's root.
    for name in [".containerignore", ".dockerignore"] {
        site.workspace.write(name, "*\n");
    }
    contain(&site.workspace, "COPY base/tiny/1/mine /usr/share/mine");
    site.workspace.write("base/tiny/1/mine", "one\n");
    let first = site.made("podman", "base tiny-1");
    site.workspace.write("base/tiny/1/mine", "two\n");
    assert_ne!(site.made("podman", "base tiny-1"), first);
    for (engine, line) in [
        ("podman", "COPY configs/os/nginx.conf /usr/share/x"),
        ("buildah", "COPY configs/os/nginx.conf /usr/share/x"),
        ("podman", "RUN --mount=type=bind,source=configs,target=/run/configs ls /run/configs"),
    ] {
        contain(&site.workspace, &format!("COPY base/tiny/1/mine /usr/share/mine\n{line}"));
        let error = site.run(engine, "base tiny-1").failure();
        let hint = "hint: a build sees base/shared and base/tiny/1 alone, under these paths";
        assert!(error.contains(hint), "{line}: {error}");
    }
    site.check_clean();
}

#[test]
fn a_workspace_may_be_anywhere() {
    let site = Site::new();
    let temp = tempfile::Builder::new().prefix("e2e-").tempdir().unwrap();
    let workspace = Workspace::lasting(&temp.path().join("a b:c,d=e"));
    site.add_distro(&workspace);
    contain(&workspace, "RUN --mount=type=bind,source=base/shared,target=/run/base,z ls /run/base/rootfs");
    for engine in ENGINES {
        let command = site.set_up(workspace.command("base tiny-1 --force"), engine);
        succeeded(&Run::new({ command }.output().unwrap()));
    }
    assert_eq!(names(&workspace.path("target/base/tiny-1")).len(), 3);
    site.check_clean();
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
fn another_run_is_waited_for() {
    let site = Site::new();
    let digest = site.made("podman", "base tiny-1");
    let lock = fs::File::open(site.workspace.path("target/base/tiny-1/oci-layout")).unwrap();
    lock.lock().unwrap();
    let mut child = start(site.command("podman", "base tiny-1 --force"));
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("waiting for another run, which is writing ") {
        line.clear();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "it did not wait");
    }
    drop(lock);
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    let run = Run::new(child.wait_with_output().unwrap());
    assert_eq!((run.code, run.stdout.trim_end()), (Some(0), &*digest), "{rest}");
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
