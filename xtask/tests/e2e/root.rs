//! The Debian base, made once for all tests, and its root, where its own programs are the judges.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::OnceLock;

use crate::harness::{Entry, Layout, Workspace};
use crate::testing::program;

/// The base's tag and the layout that holds it.
pub(crate) struct Base {
    pub(crate) layout: Layout,
    pub(crate) tag: String,
    /// Two runs of the tests at once would take it away from each other.
    _lock: File,
}

impl Base {
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let manifest = self.layout.manifest(&self.tag);
        let config = self.layout.json(&manifest["config"]["digest"]);
        self.layout.entries(&manifest["layers"][0], &config["rootfs"]["diff_ids"][0])
    }
}

/// The base of this repository's recipe. It is kept between runs, as a developer's own is.
pub(crate) fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| {
        let dir = kept_dir("debian-base");
        let lock = File::create(dir.join("lock")).unwrap();
        lock.lock().unwrap();
        let workspace = Workspace::lasting(&dir);
        workspace.ok("base debian-13 --yes");
        let layout = workspace.layout("target/base/debian-13");
        let [tag] = &layout.tags()[..] else { panic!("one base: {:?}", layout.tags()) };
        Base { tag: tag.clone(), layout, _lock: lock }
    })
}

/// A folder of Cargo's for what tests leave.
pub(crate) fn kept_dir(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// The base's root in a mount namespace, in memory. It is gone when this process is.
pub(crate) struct Root {
    holder: Child,
    /// The holder waits for its end.
    _alive: ChildStdin,
    dir: PathBuf,
}

/// The base's root, as it is on a host, for every test: what a test adds has a name of its own.
pub(crate) fn root() -> &'static Root {
    static ROOT: OnceLock<Root> = OnceLock::new();
    ROOT.get_or_init(|| {
        let base = base();
        let layers = &base.layout.manifest(&base.tag)["layers"];
        Root::unpack(&base.layout.blob_path(layers[0]["digest"].as_str().unwrap()))
    })
}

/// Makes the root and says so; then it waits until nobody is left who could use it.
const HOLD: &str = r#"
set -eu
mount -t tmpfs -o mode=755 tmpfs "$1"
tar --extract --gunzip --numeric-owner --directory "$1" --file "$2"
for name in dev proc sys; do mount --rbind /$name "$1/$name"; done
mkdir -p "$1/run/sshd"
echo ready
read -r end || true
"#;

impl Root {
    fn unpack(layer: &Path) -> Root {
        let dir = kept_dir("debian-root");
        let mut command = Command::new(program("unshare"));
        if !is_root() {
            command.args(["--map-root-user", "--map-auto"]);
        }
        command.args(["--mount", "sh", "-c", HOLD, "hold"]).arg(&dir).arg(layer);
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "unpacking {} into {}", layer.display(), dir.display());
        Root { _alive: holder.stdin.take().unwrap(), holder, dir }
    }

    /// Runs a script in the root, with `input` as its standard input.
    pub(crate) fn run(&self, script: &str, input: &str) -> Output {
        let mut command = Command::new(program("nsenter"));
        command.arg("--target").arg(self.holder.id().to_string()).arg("--mount");
        if !is_root() {
            command.arg("--user");
        }
        command.arg("chroot").arg(&self.dir).args(["sh", "-euc", script]);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin").env("LC_ALL", "C.UTF-8");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// Runs a script that has to succeed: what it wrote to standard output, and to standard error.
    pub(crate) fn ok(&self, script: &str) -> (String, String) {
        let output = self.run(script, "");
        let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert!(output.status.success(), "{script}\n{stdout}{stderr}");
        (stdout, stderr)
    }

    /// Makes a file.
    pub(crate) fn write(&self, path: &str, mode: &str, content: &str) {
        let script = format!("mkdir -p \"$(dirname {path})\"; cat >{path}; chmod {mode} {path}");
        assert!(self.run(&script, content).status.success(), "{path}");
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
