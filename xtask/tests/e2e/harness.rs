//! A temporary workspace, a stand-in for a bootc base, and readers of what was made.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::testing::program;

/// A copy of this repository's folders, without its crate and without what it has built.
pub(crate) struct Workspace {
    /// Holds the workspace as `ws`; outputs and bases go next to it: `../out`.
    dir: PathBuf,
    /// Removes it in the end.
    _temp: Option<TempDir>,
}

/// What a workspace consists of.
const FOLDERS: [&str; 4] = ["apps", "systemd", "configs", "base"];

/// What a run of the binary came to.
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Workspace {
    pub(crate) fn new() -> Workspace {
        let temp = tempfile::Builder::new().prefix("e2e-").tempdir().unwrap();
        let workspace = Workspace { dir: temp.path().to_owned(), _temp: Some(temp) };
        workspace.fill();
        workspace
    }

    /// One that stays in `dir`: its sources are today's, and what was built there before is kept.
    pub(crate) fn lasting(dir: &Path) -> Workspace {
        let workspace = Workspace { dir: dir.to_owned(), _temp: None };
        for folder in FOLDERS.map(|folder| workspace.path(folder)).iter().filter(|folder| folder.exists()) {
            fs::remove_dir_all(folder).unwrap();
        }
        workspace.fill();
        workspace
    }

    fn fill(&self) {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for folder in FOLDERS {
            copy(&repository.join(folder), &self.path(folder));
        }
        self.write(
            "Cargo.toml",
            "[workspace.metadata.testboot]\nimage = \"registry.example/os\"\ndistro = \"debian-13\"\n",
        );
    }

    /// With the stand-in base as `oci:../standin`.
    pub(crate) fn with_standin() -> Workspace {
        let workspace = Workspace::new();
        write_standin(&workspace.path("../standin"));
        workspace
    }

    /// Sends what the stand-in's layout has under `tag` to a registry.
    pub(crate) fn push_standin(&self, tag: &str, to: &str, options: &str) {
        skopeo_push(&format!("oci:{}:{tag}", self.path("../standin").display()), to, options);
    }

    /// With a good image as `oci:../out:t`, on the stand-in base.
    pub(crate) fn with_good_image() -> Workspace {
        let workspace = Workspace::with_standin();
        workspace.ok("build --base oci:../standin:t --to oci:../out:t");
        workspace
    }

    /// A path seen from the root.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        match path.strip_prefix("../") {
            Some(beside) => self.dir.join(beside),
            None => self.dir.join("ws").join(path),
        }
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Adds an app, `second`, next to the one that is there.
    pub(crate) fn add_second_app(&self) {
        let go_mod = fs::read_to_string(self.path("apps/hello/go.mod")).unwrap();
        let unit = fs::read_to_string(self.path("systemd/hello.service")).unwrap();
        self.write("apps/second/go.mod", &go_mod.replace("hello", "second"));
        self.write("apps/second/main.go", "package main\n\nfunc main() { println(\"one\") }\n");
        self.write("apps/second/app.toml", "port = 8081\nroutes = [\"/second\"]\n");
        self.write("systemd/second.service", &unit.replace("hello", "second"));
    }

    /// The binary, to be run in the root with arguments that blanks separate.
    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(arguments.split_whitespace());
        self.prepare(&mut command);
        command
    }

    /// Where a command runs, and what it must not see of the user's environment.
    pub(crate) fn prepare(&self, command: &mut Command) {
        command.current_dir(self.path(""));
        for name in ["BASE_DISTRO", "IMAGE", "VERSION", "SOURCE_DATE_EPOCH"] {
            command.env_remove(name);
        }
        // No login and no password of the user's own is used.
        for name in ["REGISTRY_AUTH_FILE", "GITHUB_TOKEN", "GITHUB_ACTOR", "COSIGN_PASSWORD"] {
            command.env_remove(name);
        }
        for name in ["DOCKER_CONFIG", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"] {
            command.env(name, self.path("../no-logins"));
        }
    }

    pub(crate) fn run(&self, arguments: &str) -> Run {
        Run::new(self.command(arguments).output().unwrap())
    }

    /// Runs what has to succeed, and gives its standard output.
    pub(crate) fn ok(&self, arguments: &str) -> String {
        let run = self.run(arguments);
        assert_eq!(run.code, Some(0), "{arguments}\n{}{}", run.stdout, run.stderr);
        run.stdout.trim_end().to_owned()
    }

    /// Runs what has to succeed, with `--json`.
    pub(crate) fn json(&self, arguments: &str) -> Value {
        serde_json::from_str(&self.ok(&format!("{arguments} --json"))).unwrap()
    }

    /// Runs what has to fail with exit code 1, and gives the error and the hints.
    pub(crate) fn failure(&self, arguments: &str) -> String {
        self.run(arguments).failure()
    }

    pub(crate) fn layout(&self, path: &str) -> Layout {
        Layout { dir: self.path(path) }
    }
}

impl Run {
    pub(crate) fn new(output: Output) -> Run {
        Run {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The error and its hints, without what differs from run to run.
    pub(crate) fn failure(&self) -> String {
        assert_eq!(self.code, Some(1), "{}{}", self.stdout, self.stderr);
        assert_eq!(self.stdout, "", "nothing but results goes to standard output");
        let start = self.stderr.find("error: ").unwrap_or_else(|| panic!("no error in: {}", self.stderr));
        normal(&self.stderr[start..])
    }
}

/// Ports and digests replaced.
pub(crate) fn normal(text: &str) -> String {
    let mut normal = String::new();
    for word in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let (token, end) = match word.char_indices().last() {
            Some((at, c)) if !c.is_ascii_alphanumeric() => word.split_at(at),
            _ => (word, ""),
        };
        let is_digest = token.len() == 64 && token.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_port = normal.ends_with("127.0.0.1:") && token.parse::<u16>().is_ok();
        normal += match () {
            () if is_digest => "HEX",
            () if is_port => "PORT",
            () => token,
        };
        normal += end;
    }
    normal
}

/// Copies a folder, with the modes that its files have.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.file_type().unwrap().is_symlink() {
            symlink(fs::read_link(entry.path()).unwrap(), target).unwrap();
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Takes all rights from group and others, as a checkout under umask 077 has it.
pub(crate) fn make_private(dir: &Path) {
    for file in walk(dir) {
        let mode = fs::metadata(&file).unwrap().mode();
        fs::set_permissions(&file, PermissionsExt::from_mode(mode & 0o700)).unwrap();
    }
}

/// Everything below a folder, folders included.
fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        found.push(entry.path());
        if entry.file_type().unwrap().is_dir() {
            found.extend(walk(&entry.path()));
        }
    }
    found
}

/// Inode, time of change and size of all files below a folder; two that are the same mean that
/// nothing was written in between.
pub(crate) fn fingerprint(dir: &Path) -> BTreeMap<PathBuf, (u64, i64, i64, u64)> {
    let files = walk(dir).into_iter().filter(|path| !path.is_dir());
    files
        .map(|path| {
            let metadata = fs::metadata(&path).unwrap();
            (path, (metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len()))
        })
        .collect()
}

/// Runs one of the programs that judge, which has to be content, and gives what it wrote.
pub(crate) fn judge(name: &str, arguments: &str) -> String {
    let output = Command::new(program(name)).args(arguments.split_whitespace()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {arguments}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Sends an image to a registry with skopeo.
pub(crate) fn skopeo_push(from: &str, to: &str, options: &str) {
    judge(
        "skopeo",
        &format!("--insecure-policy copy --quiet --dest-tls-verify=false {options} {from} docker://{to}"),
    );
}

/// An OCI layout, read and written without any of the code under test.
pub(crate) struct Layout {
    pub(crate) dir: PathBuf,
}

/// An entry of a layer.
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) header: tar::Header,
    pub(crate) content: Vec<u8>,
}

impl Layout {
    /// An empty one, which still needs its index.
    pub(crate) fn create(dir: &Path) -> Layout {
        fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
        Layout { dir: dir.to_owned() }
    }

    pub(crate) fn blob_path(&self, digest: &str) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap())
    }

    pub(crate) fn blob(&self, digest: &Value) -> Vec<u8> {
        let digest = digest.as_str().unwrap();
        let bytes = fs::read(self.blob_path(digest)).unwrap_or_else(|error| panic!("{digest}: {error}"));
        assert_eq!(sha256(&bytes), digest);
        bytes
    }

    pub(crate) fn json(&self, digest: &Value) -> Value {
        serde_json::from_slice(&self.blob(digest)).unwrap()
    }

    fn index(&self) -> Value {
        let path = self.dir.join("index.json");
        // What was never finished has none.
        if path.exists() { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() } else { Value::Null }
    }

    pub(crate) fn tags(&self) -> Vec<String> {
        let index = self.index();
        let entries = index["manifests"].as_array().into_iter().flatten();
        entries.map(|entry| entry["annotations"][REF_NAME].as_str().unwrap().to_owned()).collect()
    }

    /// The digest that a tag names.
    pub(crate) fn digest(&self, tag: &str) -> Value {
        let index = self.index();
        let mut entries = index["manifests"].as_array().unwrap().iter();
        entries.find(|entry| entry["annotations"][REF_NAME] == tag).unwrap()["digest"].clone()
    }

    pub(crate) fn manifest(&self, tag: &str) -> Value {
        self.json(&self.digest(tag))
    }

    /// A layer's entries, unpacked from one gzip member with the promised diff id.
    pub(crate) fn entries(&self, descriptor: &Value, diff_id: &Value) -> Vec<Entry> {
        let bytes = self.blob(&descriptor["digest"]);
        assert_eq!(descriptor["size"], bytes.len());
        let mut packed = &bytes[..];
        let mut tar = Vec::new();
        if descriptor["mediaType"].as_str().unwrap().ends_with("zstd") {
            let mut frame = zstd::Decoder::with_buffer(&mut packed).unwrap().single_frame();
            frame.read_to_end(&mut tar).unwrap();
            drop(frame);
            assert!(packed.is_empty(), "{} bytes follow the first zstd frame", packed.len());
        } else {
            flate2::bufread::GzDecoder::new(&mut packed).read_to_end(&mut tar).unwrap();
            assert!(packed.is_empty(), "{} bytes follow the first gzip member", packed.len());
        }
        assert_eq!(sha256(&tar), *diff_id);
        let mut archive = tar::Archive::new(&tar[..]);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            Entry { path: path.trim_end_matches('/').to_owned(), header: entry.header().clone(), content }
        });
        entries.collect()
    }

    /// Every blob is what its name says.
    pub(crate) fn check_blobs(&self) {
        for entry in fs::read_dir(self.dir.join("blobs/sha256")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            self.blob(&json!(format!("sha256:{name}")));
        }
    }

    pub(crate) fn put(&self, bytes: &[u8], media_type: &str) -> Value {
        let digest = sha256(bytes);
        fs::write(self.blob_path(&digest), bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }
}

/// What the rules for layers say about entries.
pub(crate) fn check_entries(entries: &[Entry]) {
    let mut seen = BTreeSet::from([String::new()]);
    for Entry { path, header, .. } in entries {
        assert!(!path.starts_with(['/', '.']), "{path}");
        assert!(header.mtime().unwrap() == 0, "{path} has a time");
        assert!(header.uid().unwrap() == 0 && header.gid().unwrap() == 0, "{path} is not root's");
        assert!(header.mode().unwrap() & 0o022 == 0 || header.entry_type().is_symlink(), "{path} is open");
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        assert!(seen.contains(parent), "{path} comes before its folder");
        assert!(seen.insert(path.clone()), "{path} is there twice");
        let top = path.split('/').next().unwrap();
        assert!(!["var", "run", "tmp", "boot", "proc", "sys"].contains(&top), "{path} is a host's own");
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A stand-in for a bootc base: `t` for this machine, `multi` for two platforms, and `plain`, which
/// is no bootc image.
fn write_standin(dir: &Path) {
    let layout = Layout::create(dir);
    let mut entries = Vec::new();
    let mut tag = |name: &str, mut descriptor: Value| {
        descriptor["annotations"] = json!({REF_NAME: name});
        entries.push(descriptor);
    };
    tag("t", standin_image(&layout, host_architecture(), true));
    tag("plain", standin_image(&layout, host_architecture(), false));
    let children: Vec<Value> = ["amd64", "arm64"]
        .into_iter()
        .map(|architecture| {
            let mut child = standin_image(&layout, architecture, true);
            child["platform"] = json!({"os": "linux", "architecture": architecture});
            child
        })
        .collect();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children});
    tag("multi", layout.put(index.to_string().as_bytes(), INDEX));
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
}

pub(crate) fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn standin_image(layout: &Layout, architecture: &str, is_bootc: bool) -> Value {
    let (layers, diff_ids): (Vec<Value>, Vec<String>) = ["kernel", "systemd", architecture]
        .into_iter()
        .map(|name| {
            let tar = standin_tar(name);
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(&tar).unwrap();
            let layer = layout.put(&gzip.finish().unwrap(), "application/vnd.oci.image.layer.v1.tar+gzip");
            (layer, sha256(&tar))
        })
        .unzip();
    let mut labels = json!({"vendor.example": "kept"});
    if is_bootc {
        labels["containers.bootc"] = json!("1");
        labels["ostree.bootable"] = json!("1");
    }
    let config = json!({
        "created": "2025-01-02T03:04:05Z",
        "architecture": architecture,
        "os": "linux",
        "x-vendor": {"number": 1.50, "list": [3, 1, 2]},
        "config": {"Labels": labels, "Cmd": ["/sbin/init"], "StopSignal": "SIGRTMIN+3", "X-Unknown": null},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [
            {"created": "2025-01-02T03:04:05Z", "created_by": "kernel"},
            {"created_by": "label", "empty_layer": true},
            {"created_by": "systemd"},
            {"created_by": architecture, "x-note": "kept"},
        ],
    });
    let config = layout.put(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
        "annotations": {"vendor.example": "kept"},
    });
    layout.put(manifest.to_string().as_bytes(), MANIFEST)
}

fn standin_tar(name: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, kind, content) in [
        ("usr/", tar::EntryType::Directory, ""),
        ("usr/lib/", tar::EntryType::Directory, ""),
        (&format!("usr/lib/{name}"), tar::EntryType::Regular, name),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}
