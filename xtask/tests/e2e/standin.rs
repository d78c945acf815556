//! A stand-in for a distro's own bootc image: Debian's systemd, chrony and sshd, and scripts in place
//! of what only a distro of RPM packages has. It is made once, and kept in `target/e2e`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{
    INDEX, Layout, MANIFEST, REF_NAME, Workspace, host_architecture, judge, sha256, skopeo_push,
};
use crate::testing::{Registry, program};

/// How it is made: when this changes, so does the name under which it is kept.
const MMDEBSTRAP: &[&str] = &[
    "--variant=essential",
    "--format=tar",
    "--include=systemd,chrony,openssh-server",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/zoneinfo/*",
    // What Debian keeps in /var is here as tmpfiles.d has it.
    "--skip=cleanup/apt",
    r#"--customize-hook=sh "$STANDIN/upstream.sh" "$1""#,
    "trixie",
];

/// The stand-in in a registry, and an engine's store for a test's own builds.
pub(crate) struct Upstream {
    pub(crate) registry: Registry,
    /// Without a tag.
    pub(crate) name: String,
}

impl Upstream {
    /// The Debian one, as tag `t`.
    pub(crate) fn debian() -> Upstream {
        let upstream = Upstream::empty();
        skopeo_push(&format!("oci:{}:t", debian().display()), &format!("{}:t", upstream.name), "");
        upstream
    }

    /// The Debian one as the upstream of a distro, whose name is its tag: it says which it is.
    pub(crate) fn of(&self, distro: &str) -> String {
        let (family, release) = distro.split_once('-').unwrap();
        let version = release.trim_start_matches(|c: char| !c.is_ascii_digit());
        let text = format!("NAME=stand-in\nID={family}\nVERSION_ID={version}\n");
        let mut layer = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        layer.append_data(&mut header, "usr/lib/os-release", text.as_bytes()).unwrap();
        let file = tempfile::NamedTempFile::with_suffix(".tar").unwrap();
        fs::write(file.path(), layer.into_inner().unwrap()).unwrap();
        let tagged = format!("{}:{distro}", self.name);
        judge(
            "crane",
            &format!(
                "append --base {}:t --new_layer {} --new_tag {tagged}",
                self.name,
                file.path().display()
            ),
        );
        tagged
    }

    pub(crate) fn empty() -> Upstream {
        let registry = Registry::docker();
        let name = format!("{}/bootc/standin", registry.address());
        Upstream { registry, name }
    }

    /// The descriptors of a tag's layers, as the registry has them.
    pub(crate) fn layers(&self, tag: &str) -> Vec<Value> {
        let manifest: Value =
            serde_json::from_str(&judge("crane", &format!("manifest {}:{tag}", self.name))).unwrap();
        manifest["layers"].as_array().unwrap().clone()
    }
}

/// Gives a command settings that keep an engine's images apart from the machine's own, and that
/// let it work in a small virtual machine: crun refuses a hybrid of cgroups v1 and v2, which runc
/// does not, and limits cannot be raised there.
pub(crate) fn set_up_engine(workspace: &Workspace, command: &mut Command) {
    let dir = workspace.path("../engine");
    fs::create_dir_all(&dir).unwrap();
    let storage = format!(
        "[storage]\ndriver = \"overlay\"\ngraphroot = \"{0}/root\"\nrunroot = \"{0}/run\"\n\
         [storage.options.overlay]\nskip_mount_home = \"true\"\n",
        dir.display()
    );
    let engine = "[engine]\nruntime = \"runc\"\n\
                  [containers]\ndefault_ulimits = [\"nofile=4096:4096\", \"nproc=4096:4096\"]\n";
    for (variable, name, text) in [
        ("CONTAINERS_STORAGE_CONF", "storage.conf", &*storage),
        ("CONTAINERS_CONF", "containers.conf", engine),
    ] {
        fs::write(dir.join(name), text).unwrap();
        command.env(variable, dir.join(name));
    }
}

fn debian() -> PathBuf {
    let standin = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/standin");
    let scripts = pack(&standin);
    let upstream = fs::read(standin.join("upstream.sh")).unwrap();
    let key = sha256(&[MMDEBSTRAP.join("\n").as_bytes(), &scripts, &upstream].concat());
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/e2e").join(&key[7..19]);
    fs::create_dir_all(dir.parent().unwrap()).unwrap();
    // The second of two tests waits for the first.
    let lock = fs::File::create(dir.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    if dir.exists() {
        return dir;
    }
    let temp = tempfile::tempdir_in(dir.parent().unwrap()).unwrap();
    let root = temp.path().join("root.tar");
    let output = Command::new(program("mmdebstrap"))
        .args(MMDEBSTRAP)
        .arg(&root)
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .env("STANDIN", &standin)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "mmdebstrap: {}", String::from_utf8_lossy(&output.stderr));
    let layout = Layout::create(&temp.path().join("oci"));
    let (layers, diff_ids): (Vec<_>, Vec<_>) = [fs::read(&root).unwrap(), scripts]
        .into_iter()
        .map(|tar| {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(&tar).unwrap();
            let layer = layout.put(&gzip.finish().unwrap(), "application/vnd.oci.image.layer.v1.tar+gzip");
            (layer, sha256(&tar))
        })
        .unzip();
    let labels = json!({
        "containers.bootc": "1", "ostree.bootable": "true", "vendor.example": "kept",
        "org.opencontainers.image.version": "the upstream's own",
    });
    let config = json!({
        "created": "2025-01-02T03:04:05Z", "architecture": host_architecture(), "os": "linux",
        "config": {"Labels": labels, "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["/sbin/init"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created_by": "Debian"}, {"created_by": "stand-ins"}],
    });
    let config = layout.put(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
    let mut manifest = layout.put(manifest.to_string().as_bytes(), MANIFEST);
    manifest["annotations"] = json!({REF_NAME: "t"});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest]});
    fs::write(layout.dir.join("index.json"), index.to_string()).unwrap();
    fs::rename(&layout.dir, &dir).unwrap();
    dir
}

/// The scripts as a layer.
fn pack(folder: &Path) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let bin = folder.join("usr/bin");
    let mut names: Vec<_> = fs::read_dir(&bin).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    for name in names {
        let content = fs::read(bin.join(&name)).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, Path::new("usr/bin").join(name), &content[..]).unwrap();
    }
    builder.into_inner().unwrap()
}
