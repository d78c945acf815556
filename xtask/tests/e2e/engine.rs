//! What an engine does on the machine while it builds a base: nothing of it is left, however the
//! build ends, and nothing but the files of the base decides what comes of it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::symlink;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use crate::bases::EPOCH;
use crate::harness::{Run, Workspace, fingerprint, judge, make_private};
use crate::interrupts::{Started, interrupt, names, start, wait_until};
use crate::standin::{Upstream, set_up_engine};
use crate::testing::{Fault, FaultProxy, program};

pub(crate) const ENGINES: [&str; 2] = ["podman", "buildah"];

/// A workspace with a distro `tiny-1`, and an engine with a store of its own.
pub(crate) struct Site {
    pub(crate) workspace: Workspace,
    pub(crate) upstream: Upstream,
}

impl Site {
    pub(crate) fn new() -> Site {
        let site = Site { workspace: Workspace::new(), upstream: Upstream::debian() };
        site.add_distro(&site.workspace);
        site
    }

    pub(crate) fn add_distro(&self, workspace: &Workspace) {
        let toml = format!(
            "title = \"Tiny\"\nupstream = \"{}:t\"\nstage = \"production\"\nend-of-life = 2999-01-01\n\
             platforms = [\"linux/amd64\", \"linux/arm64\"]\n",
            self.upstream.name
        );
        workspace.write("base/tiny/1/distro.toml", &toml);
        contain(workspace, "");
    }

    /// A command on this site with one of the engines alone.
    pub(crate) fn command(&self, engine: &str, arguments: &str) -> Command {
        self.set_up(self.workspace.command(arguments), engine)
    }

    pub(crate) fn set_up(&self, mut command: Command, engine: &str) -> Command {
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

    pub(crate) fn run(&self, engine: &str, arguments: &str) -> Run {
        Run::new(self.command(engine, arguments).output().unwrap())
    }

    pub(crate) fn made(&self, engine: &str, arguments: &str) -> String {
        succeeded(&self.run(engine, arguments))
    }

    pub(crate) fn engine(&self, engine: &str, arguments: &str) -> String {
        let mut command = Command::new(program(engine));
        command.args(arguments.split_whitespace());
        set_up_engine(&self.workspace, &mut command);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{engine} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The name of the folder that everything of this site is in, and no other has.
    pub(crate) fn word(&self) -> String {
        let dir = self.workspace.path("..").canonicalize().unwrap();
        dir.file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// The processes of build steps, by what is mounted where they are; without zombies.
    pub(crate) fn steps(&self) -> Vec<String> {
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
    pub(crate) fn check_clean(&self) {
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
pub(crate) fn contain(workspace: &Workspace, steps: &str) {
    workspace.write(
        "base/tiny/1/Containerfile",
        &format!(
            "ARG UPSTREAM\nFROM ${{UPSTREAM}}\nCOPY base/shared/rootfs/ /\n{steps}\n\
             LABEL bootc-testboot.provides=systemd\n"
        ),
    );
}

pub(crate) fn succeeded(run: &Run) -> String {
    assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
    run.stdout.trim_end().to_owned()
}

/// Starts a build whose step does not end, and waits for that step.
fn start_sleeping(site: &Site, engine: &str) -> Started {
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
