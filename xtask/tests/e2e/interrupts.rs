//! Runs that are ended, by the user or by force: nothing half-made has a name, nothing keeps
//! running, and the next run makes what it would have made.

use std::fs;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Run, Workspace, fingerprint, judge};
use crate::testing::{Fault, FaultProxy, Registry, answer, program};

/// How long a program may take to do what it surely does.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_as_long(PATIENCE, what, condition);
}

pub(crate) fn wait_as_long(patience: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + patience;
    while !condition() {
        assert!(Instant::now() < end, "{what} did not happen");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A run that a test does not wait for; it ends with the test, also when that fails.
pub(crate) struct Started(Option<Child>);

impl Started {
    pub(crate) fn wait_with_output(mut self) -> io::Result<Output> {
        self.0.take().unwrap().wait_with_output()
    }
}

impl Deref for Started {
    type Target = Child;

    fn deref(&self) -> &Child {
        self.0.as_ref().unwrap()
    }
}

impl DerefMut for Started {
    fn deref_mut(&mut self) -> &mut Child {
        self.0.as_mut().unwrap()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Starts a command as the leader of a session, so that all that it starts can be found.
pub(crate) fn start(mut command: Command) -> Started {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: setsid is async-signal-safe, and nothing else happens between fork and exec.
    unsafe { command.pre_exec(|| Ok(rustix::process::setsid().map(drop)?)) };
    Started(Some(command.spawn().unwrap()))
}

/// The processes of a session that still run, zombies aside.
/// Source: proc_pid_stat(5): the state and the session are the fields 3 and 6.
fn session(leader: u32) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        // One that has just ended has no file any more.
        let Ok(stat) = fs::read_to_string(entry.unwrap().path().join("stat")) else { continue };
        // The name, in parentheses, may have blanks.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        if fields[0] != "Z" && fields[3] == leader.to_string() {
            found.push(stat);
        }
    }
    found
}

/// Sends a signal: the run has to say so, with exit code 130, and to leave no process.
pub(crate) fn interrupt(child: Started, signal: Signal) {
    let leader = child.id();
    kill_process(Pid::from_child(&child), signal).unwrap();
    let run = Run::new(child.wait_with_output().unwrap());
    assert_eq!(run.code, Some(130), "{}", run.stderr);
    assert!(run.stderr.ends_with("interrupted\n"), "{}", run.stderr);
    assert_eq!(session(leader), [""; 0]);
}

pub(crate) fn names(dir: &std::path::Path) -> Vec<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn an_interrupt_ends_a_wait_at_once() {
    let workspace = Workspace::with_good_image();
    let before = fingerprint(&workspace.path("../out"));
    let silent = FaultProxy::alone(|_| Fault::Silence);
    for signal in [Signal::INT, Signal::TERM] {
        silent.forget();
        let build = format!("build --base {}/os:t --to oci:../out:t", silent.address());
        let child = start(workspace.command(&build));
        wait_until("a request", || !silent.seen().is_empty());
        interrupt(child, signal);
    }
    assert_eq!(fingerprint(&workspace.path("../out")), before);
}

#[test]
fn an_interrupt_ends_a_credential_helper() {
    let workspace = Workspace::with_standin();
    workspace.write("../docker/config.json", r#"{"credsStore": "hangs"}"#);
    workspace.write("../docker/helper", "#!/bin/sh\necho \"$$\" > \"$0.started\"\nsleep 100\n");
    // Another process writes it, so that none of ours has it open when it starts.
    let (source, helper) =
        (workspace.path("../docker/helper"), workspace.path("../docker/docker-credential-hangs"));
    let installed = Command::new("install").arg("-m755").args([&source, &helper]).status().unwrap();
    assert!(installed.success());
    let registry = FaultProxy::alone(|_| {
        Fault::Answer(answer("401 Unauthorized", &[("WWW-Authenticate", "Basic realm=x")], b""))
    });
    let mut command =
        workspace.command(&format!("build --base oci:../standin:t --to {}/os:t", registry.address()));
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", workspace.path("../docker").display()));
    command.env("REGISTRY_AUTH_FILE", workspace.path("../docker/config.json"));
    let child = start(command);
    wait_until("the helper's start", || workspace.path("../docker/docker-credential-hangs.started").exists());
    interrupt(child, Signal::INT);
}

#[test]
fn an_interrupt_ends_the_compiler() {
    let workspace = Workspace::with_good_image();
    let before = fingerprint(&workspace.path("../out"));
    let digest = workspace.ok("build --base oci:../standin:t --to oci:../out:t");
    // Without its cache, the compiler has the whole standard library to do.
    let (cache, temporary) = (workspace.path("../go-cache"), workspace.path("../tmp"));
    fs::create_dir(&temporary).unwrap();
    let work = workspace.path("target/xtask/go");
    let kept = names(&work);
    let mut command = workspace.command("build --base oci:../standin:t --to oci:../out:t --app-version v2");
    command.env("GOCACHE", &cache).env("TMPDIR", &temporary);
    let child = start(command);
    wait_until("compiling", || names(&work) != kept && cache.exists());
    interrupt(child, Signal::INT);
    assert_eq!((names(&temporary), names(&work)), (Vec::new(), kept), "nothing is left over");
    assert_eq!(fingerprint(&workspace.path("../out")), before);
    assert_eq!(workspace.ok("build --base oci:../standin:t --to oci:../out:t"), digest);
}

#[test]
fn an_interrupt_ends_the_making_of_a_base() {
    let workspace = Workspace::new();
    let temporary = workspace.path("../tmp");
    fs::create_dir(&temporary).unwrap();
    let mut command = workspace.command("base debian-13");
    command.env("TMPDIR", &temporary);
    let child = start(command);
    wait_until("mmdebstrap's root", || {
        names(&temporary)
            .iter()
            .any(|name| name.starts_with("mmdebstrap") && temporary.join(name).join("var").exists())
    });
    interrupt(child, Signal::INT);
    assert_eq!(names(&temporary), [""; 0], "nothing is left over");
    let base = workspace.layout("target/base/debian-13");
    assert_eq!(base.tags(), [""; 0]);
    base.check_blobs();
}

#[test]
fn an_interrupt_of_a_push_moves_no_tag() {
    let workspace = Workspace::with_standin();
    let registry = Registry::docker();
    let direct = format!("{}/os:t", registry.address());
    let digest = workspace.ok(&format!("build --base oci:../standin:t --to {direct}"));
    let is_stuck = Arc::new(AtomicBool::new(true));
    let stuck = is_stuck.clone();
    let proxy = FaultProxy::before(&registry, move |seen| {
        let stops = stuck.load(Ordering::SeqCst) && seen.method == "PUT" && seen.path().contains("uploads");
        if stops { Fault::Silence } else { Fault::Pass }
    });
    let push = format!("build --base oci:../standin:t --to {}/os:t --app-version v2", proxy.address());
    for signal in [Signal::INT, Signal::KILL] {
        proxy.forget();
        let child = start(workspace.command(&push));
        wait_until("an upload", || proxy.count("PUT", "uploads") > 0);
        match signal {
            Signal::INT => interrupt(child, signal),
            _ => {
                kill_process(Pid::from_child(&child), signal).unwrap();
                child.wait_with_output().unwrap();
            }
        }
        assert_eq!(judge("crane", &format!("digest {direct}")).trim(), digest);
    }
    is_stuck.store(false, Ordering::SeqCst);
    let new = workspace.ok(&push);
    assert_eq!(judge("crane", &format!("digest {direct}")).trim(), new);
    judge("crane", &format!("validate --remote {direct}"));
}

#[test]
fn an_interrupt_of_an_export_or_an_import_leaves_no_name() {
    let workspace = Workspace::with_standin();
    let registry = Registry::docker();
    workspace.push_standin("t", &format!("{}/from:t", registry.address()), "");
    let is_stuck = Arc::new(AtomicBool::new(true));
    let stuck = is_stuck.clone();
    let proxy = FaultProxy::before(&registry, move |seen| {
        let moves_a_blob = match seen.method.as_str() {
            "GET" => seen.path().contains("/blobs/sha256"),
            "PUT" => seen.path().contains("/uploads/"),
            _ => false,
        };
        if moves_a_blob && stuck.load(Ordering::SeqCst) { Fault::Silence } else { Fault::Pass }
    });
    let folder = workspace.path("../archives");
    fs::create_dir(&folder).unwrap();
    let export = format!("export {}/from:t -o ../archives/t.tar", proxy.address());
    let import = format!("import ../archives/t.tar --to {}/to", proxy.address());
    let target = format!("{}/to:t", registry.address());

    let child = start(workspace.command(&export));
    wait_until("a download", || proxy.count("GET", "/blobs/sha256") > 0);
    interrupt(child, Signal::INT);
    assert_eq!(names(&folder), [""; 0]);
    is_stuck.store(false, Ordering::SeqCst);
    workspace.ok(&export);
    assert_eq!(names(&folder), ["t.tar"]);

    is_stuck.store(true, Ordering::SeqCst);
    let child = start(workspace.command(&import));
    wait_until("an upload", || proxy.count("PUT", "/uploads/") > 0);
    interrupt(child, Signal::INT);
    let named = Command::new(program("crane")).args(["digest", &target]).output().unwrap();
    assert!(!named.status.success(), "{named:?}");
    is_stuck.store(false, Ordering::SeqCst);
    workspace.ok(&import);
    judge("crane", &format!("validate --remote {target}"));
}

#[test]
fn after_a_kill_the_next_run_makes_the_same() {
    let workspace = Workspace::with_standin();
    let registry = Registry::docker();
    workspace.push_standin("t", &format!("{}/base:t", registry.address()), "");
    let manifest = workspace.layout("../standin").manifest("t");
    let last = manifest["layers"][2]["digest"].as_str().unwrap().to_owned();

    let is_stuck = Arc::new(AtomicBool::new(true));
    let (stuck, last_layer) = (is_stuck.clone(), last.clone());
    let proxy = FaultProxy::before(&registry, move |seen| {
        let stops = stuck.load(Ordering::SeqCst) && seen.path().ends_with(&last_layer);
        if stops { Fault::Silence } else { Fault::Pass }
    });
    let build = format!("build --base {}/base:t --full --to", proxy.address());
    let mut child =
        workspace.command(&format!("{build} oci:../out:t")).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the last layer's request", || proxy.count("GET", &last) > 0);
    child.kill().unwrap();
    child.wait().unwrap();
    let out = workspace.layout("../out");
    assert_eq!(out.tags(), [""; 0]);
    out.check_blobs();

    is_stuck.store(false, Ordering::SeqCst);
    let digest = workspace.ok(&format!("{build} oci:../out:t"));
    out.check_blobs();
    assert_eq!(out.tags(), ["t"]);
    assert_eq!(workspace.ok(&format!("{build} oci:../fresh:t")), digest);
    let files = |path: &str| -> Vec<_> {
        let root = workspace.path(path);
        fingerprint(&root).into_keys().map(|file| file.strip_prefix(&root).unwrap().to_owned()).collect()
    };
    assert_eq!(files("../out"), files("../fresh"), "nothing is left over");
}
