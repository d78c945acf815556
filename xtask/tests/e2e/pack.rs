//! Packed disks: podman, skopeo and crane read them, and they come back as they were.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};

use insta::assert_snapshot;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use serde_json::Value;

use crate::harness::{Workspace, fingerprint, judge, sha256};
use crate::root;
use crate::standin::set_up_engine;
use crate::testing::{Fault, FaultProxy, Registry, program};

pub(crate) const MIB: u64 = 1 << 20;

pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A sparse disk: every eighth mebibyte holds something, which does not shrink.
pub(crate) fn write_raw(path: &Path, mebibytes: u64) {
    let file = File::create(path).unwrap();
    file.set_len(mebibytes * MIB).unwrap();
    for at in (0..mebibytes).step_by(8) {
        let bytes: Vec<u8> =
            (0..65_536_u32).flat_map(|n| (n + at as u32).wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        file.write_all_at(&bytes, at * MIB).unwrap();
    }
}

/// A workspace with the disks `../disks/debian-13-v1.*`.
pub(crate) fn with_disks(formats: &str, mebibytes: u64) -> Workspace {
    let workspace = Workspace::new();
    write_raw(&workspace.path("../os.raw"), mebibytes);
    workspace.ok(&format!("disk {formats} --from ../os.raw --name debian-13-v1 --output ../disks"));
    workspace
}

pub(crate) fn blocks(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks()
}

/// What a command says, and how many bytes it has written to disks.
/// Source: proc_pid_io(5), `write_bytes`; it counts for a process that was not waited for.
fn written_by(mut command: Command) -> (String, u64) {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(Pid::from_child(&child)), ended).unwrap();
    let io = fs::read_to_string(format!("/proc/{}/io", child.id())).unwrap();
    let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    (String::from_utf8(output.stdout).unwrap(), written)
}

/// The file is the one that was packed, and no less sparse.
pub(crate) fn assert_same(file: &Path, packed: &Path) {
    judge("cmp", &format!("{} {}", file.display(), packed.display()));
    assert!(blocks(file) <= blocks(packed), "{} blocks of {}", blocks(file), blocks(packed));
}

/// What crane, which checks digests, and Go's tar reader find in an image is the file. (`crane
/// validate` reads gzip layers alone.)
pub(crate) fn assert_exported(image: &str, packed: &Path) {
    let output = Command::new(program("crane")).args(["export", image, "-"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut archive = tar::Archive::new(&output.stdout[..]);
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().trim_end_matches('/').to_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        found.push((path, content));
    }
    let name = packed.file_name().unwrap().to_str().unwrap();
    let expected = fs::read(packed).unwrap();
    assert!(found == [("disk".to_owned(), Vec::new()), (format!("disk/{name}"), expected)]);
}

impl Workspace {
    /// Runs podman with a store of its own, and gives what it wrote.
    fn podman(&self, arguments: &str) -> Vec<u8> {
        let mut command = Command::new(program("podman"));
        command.args(arguments.split_whitespace());
        self.prepare(&mut command);
        set_up_engine(self, &mut command);
        // podman wants a file where it is told that logins are.
        self.write("../no-logins/config.json", "{}");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }
}

#[test]
fn podman_brings_the_identical_file() {
    let workspace = with_disks("qcow2 raw", 64);
    let registry = Registry::docker();
    let image = format!("{}/me/os", registry.address());
    let files = "../disks/debian-13-v1.qcow2 ../disks/debian-13-v1.raw";
    let report = workspace.json(&format!("pack {files} --push --image {image}"));
    for packed in report["packed"].as_array().unwrap() {
        let format = packed["format"].as_str().unwrap();
        let name = format!("{image}:debian-13-{format}-v1");
        assert_eq!(packed["pushed"]["reference"], name);
        workspace.podman(&format!("pull --quiet --tls-verify=false {name}"));
        // An image of one file has no command, and podman wants one.
        let container = workspace.podman(&format!("create {name} none"));
        let container = String::from_utf8(container).unwrap();
        let inside = format!("{}:/disk/debian-13-v1.{format}", container.trim());
        let out = workspace.path(&format!("../podman.{format}"));
        workspace.podman(&format!("cp {inside} {}", out.display()));
        let original = workspace.path(&format!("../disks/debian-13-v1.{format}"));
        judge("cmp", &format!("{} {}", out.display(), original.display()));
        // As KubeVirt wants it.
        let tar = workspace.podman(&format!("export {}", container.trim()));
        let mut archive = tar::Archive::new(&tar[..]);
        let mut entries = archive.entries().unwrap().map(Result::unwrap);
        let entry = entries.find(|entry| entry.path().unwrap().ends_with(original.file_name().unwrap()));
        let entry = entry.unwrap();
        let header = entry.header();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (107, 107));
        assert_eq!(header.mode().unwrap() & 0o7777, 0o440);
    }
}

#[test]
fn a_disk_goes_through_registries_and_other_programs_and_comes_back() {
    let workspace = with_disks("qcow2 raw vmdk", 64);
    let raw = workspace.path("../disks/debian-13-v1.raw");
    let files = "../disks/debian-13-v1.raw ../disks/debian-13-v1.vmdk ../disks/debian-13-v1.qcow2";
    let report = workspace.json(&format!("pack {files}"));
    let packed = report["packed"].as_array().unwrap();
    let layout = workspace.layout("target/dist/oci");
    layout.check_blobs();
    assert_eq!(layout.tags(), ["debian-13-raw-v1", "debian-13-vmdk-v1", "debian-13-qcow2-v1"]);
    let media_types: Vec<&str> =
        packed.iter().map(|packed| packed["layer"]["media_type"].as_str().unwrap()).collect();
    let plain = "application/vnd.oci.image.layer.v1.tar";
    assert_eq!(media_types, [&format!("{plain}+zstd"), plain, plain]);
    for packed in packed {
        let layer = &packed["layer"];
        assert_eq!(layer["digest"] == layer["diff_id"], layer["media_type"] == plain);
        let file = fs::read(workspace.path("").join(packed["path"].as_str().unwrap())).unwrap();
        assert_eq!(format!("sha256:{}", packed["sha256"].as_str().unwrap()), sha256(&file));
        assert_eq!(packed["virtual_size"], 64 * MIB);
    }

    // The same disk is the same image, wherever and whenever it is packed, and straight to a registry.
    let other = with_disks("raw", 64);
    let digest = packed[0]["digest"].as_str().unwrap();
    let expected = format!("{digest}  oci:../elsewhere:x");
    assert_eq!(other.ok("pack ../disks/debian-13-v1.raw --to oci:../elsewhere:x"), expected);
    // What is written to a layout is counted, on what is no memory, so that nothing is nothing.
    let counted = root::kept_dir("pack-counted");
    let to_layout = format!("pack ../disks/debian-13-v1.raw --to oci:{}:t", counted.display());
    assert!(written_by(workspace.command(&to_layout)).1 > MIB);
    fs::remove_dir_all(counted).unwrap();
    for registry in [Registry::docker(), Registry::crane()] {
        let name = format!("{}/me/os:disk", registry.address());
        let before = fingerprint(&workspace.path("target/dist"));
        let (text, written) =
            written_by(workspace.command(&format!("pack ../disks/debian-13-v1.raw --to {name}")));
        assert_eq!((text.trim_end(), written), (&*format!("{digest}  {name}"), 0));
        assert_eq!(fingerprint(&workspace.path("target/dist")), before, "nothing is written here");
        assert_exported(&name, &raw);
        let inspected = judge("skopeo", &format!("inspect --tls-verify=false docker://{name}"));
        let inspected: Value = serde_json::from_str(&inspected).unwrap();
        assert_eq!(inspected["Digest"], digest);

        // By tag and by digest.
        let line = workspace.ok(&format!("pull {name} -o ../back.raw"));
        assert_eq!(line, format!("{}  ../back.raw", packed[0]["sha256"].as_str().unwrap()));
        assert_same(&workspace.path("../back.raw"), &raw);
        fs::remove_file(workspace.path("../back.raw")).unwrap();
        fs::create_dir_all(workspace.path("../folder")).unwrap();
        let by_digest = format!("{}/me/os@{digest}", registry.address());
        workspace.ok(&format!("pull {by_digest} -o ../folder"));
        assert_same(&workspace.path("../folder/debian-13-v1.raw"), &raw);
        fs::remove_dir_all(workspace.path("../folder")).unwrap();

        // Once more, nothing is sent and nothing is fetched.
        let again = workspace.json(&format!("pack ../disks/debian-13-v1.raw --to {name}"));
        assert_eq!(again["packed"][0]["pushed"]["unchanged"], true);
        workspace.ok(&format!("pull {name} -o ../back.raw"));
        let inode = || fs::metadata(workspace.path("../back.raw")).unwrap().ino();
        let before = inode();
        assert_eq!(workspace.json(&format!("pull {name} -o ../back.raw"))["unchanged"], true);
        assert_eq!(inode(), before);

        // skopeo takes it elsewhere, compressed anew: another layer, the same disk.
        let (from, to) = (format!("docker://{name}"), workspace.path("../copied"));
        judge(
            "skopeo",
            &format!(
                "--insecure-policy copy --quiet --src-tls-verify=false --dest-compress-format gzip \
                 --dest-compress {from} oci:{}:t",
                to.display()
            ),
        );
        let copied = workspace.layout("../copied").manifest("t");
        assert_eq!(copied["layers"][0]["mediaType"], format!("{plain}+gzip"));
        workspace.ok("pull oci:../copied:t -o ../back.raw");
        assert_same(&workspace.path("../back.raw"), &raw);
        fs::remove_dir_all(&to).unwrap();
        fs::remove_file(workspace.path("../back.raw")).unwrap();
    }
    for format in ["qcow2", "vmdk"] {
        let name = format!("debian-13-v1.{format}");
        workspace.ok(&format!("pull oci:target/dist/oci:debian-13-{format}-v1"));
        assert_same(&workspace.path(&name), &workspace.path(&format!("../disks/{name}")));
    }
    judge("qemu-img", &format!("check {}", workspace.path("debian-13-v1.qcow2").display()));
}

#[test]
fn old_readers_get_gzip() {
    let workspace = with_disks("raw", 16);
    let registry = Registry::docker();
    let name = format!("{}/me/os:disk", registry.address());
    let report = workspace.json(&format!("pack ../disks/debian-13-v1.raw --gzip --to {name}"));
    let layer = &report["packed"][0]["layer"];
    assert_eq!(layer["media_type"], "application/vnd.oci.image.layer.v1.tar+gzip");
    judge("crane", &format!("validate --remote {name}"));
    workspace.ok(&format!("pull {name} -o ../back.raw"));
    assert_same(&workspace.path("../back.raw"), &workspace.path("../disks/debian-13-v1.raw"));
}

/// From 8 GiB on, a tar's header has another form. Go's own reader is in `crane`.
#[test]
fn a_disk_of_more_than_8_gibibytes_comes_back() {
    let workspace = Workspace::new();
    let raw = workspace.path("../debian-13-v1.raw");
    write_raw(&raw, 8);
    File::options().write(true).open(&raw).unwrap().set_len((8 << 30) + 512).unwrap();
    let registry = Registry::docker();
    let name = format!("{}/me/os:disk", registry.address());
    let report = workspace.json(&format!("pack ../debian-13-v1.raw --to {name}"));
    assert_eq!(report["packed"][0]["size"], (8_u64 << 30) + 512);
    // It goes from one to the other, since it is large.
    let script = "set -o pipefail; \"$0\" export \"$1\" - | tar -tvf -";
    let listed = Command::new("bash").args(["-c", script]).arg(program("crane")).arg(&name).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let list = String::from_utf8(listed.stdout).unwrap();
    assert!(list.contains("disk/debian-13-v1.raw") && list.contains("8589935104"), "{list}");
    workspace.ok(&format!("pull {name} -o ../back.raw"));
    let back = workspace.path("../back.raw");
    assert_eq!(fs::metadata(&back).unwrap().len(), (8 << 30) + 512);
    assert!(blocks(&back) <= blocks(&raw), "it is as sparse");
}

#[test]
fn what_it_is_is_said_without_its_layer() {
    let workspace = with_disks("qcow2", 16);
    let registry = Registry::docker();
    let image = format!("{}/me/os", registry.address());
    write_system(&workspace, &image);
    let packed = workspace.json(&format!(
        "pack ../disks/debian-13-v1.qcow2 --from {image}:debian-13-v1 --push --image {image}"
    ));
    let digest = packed["packed"][0]["digest"].as_str().unwrap().to_owned();

    // The layer is out of reach.
    let proxy = FaultProxy::before(&registry, |seen| {
        let is_layer = seen.method == "GET" && seen.path().contains("/blobs/") && seen.earlier > 0;
        if is_layer { Fault::Silence } else { Fault::Pass }
    });
    let through = image.replace(registry.address(), proxy.address());
    let report = workspace.json(&format!("inspect {through}:debian-13-qcow2-v1"));
    assert_eq!(proxy.count("GET", "/blobs/"), 1, "the config alone: {:?}", proxy.lines());
    assert_eq!((&report["kind"], &report["digest"]), (&"disk".into(), &digest.into()));
    let disk = &report["disk"];
    assert_eq!(disk["format"], "qcow2");
    assert_eq!(disk["virtual_size"], 16 * MIB);
    assert_eq!(disk["sha256"], packed["packed"][0]["sha256"]);
    assert_eq!((&disk["distro"], &disk["version"]), (&"debian-13".into(), &"v1".into()));
    let system = judge("crane", &format!("digest {image}:debian-13-v1"));
    assert_eq!(disk["image"]["digest"], system.trim());
    assert_eq!(disk["image"]["name"], format!("{image}:debian-13-v1"));
    assert_eq!(report["layers"].as_array().unwrap().len(), 1);
    assert_eq!(report["size"], packed["packed"][0]["layer"]["size"]);
    let text = workspace.ok(&format!("inspect {image}:debian-13-qcow2-v1"));
    assert!(text.contains("disk debian-13-v1.qcow2: qcow2, "), "{text}");

    let report = workspace.json(&format!("inspect {image}:debian-13-v1"));
    assert_eq!((&report["kind"], &report["disk"]), (&"system".into(), &Value::Null));
    let layers: Vec<&str> =
        report["layers"].as_array().unwrap().iter().filter_map(|layer| layer["name"].as_str()).collect();
    assert_eq!(layers, ["os", "hello"]);

    assert_snapshot!(workspace.ok(&format!("tags {image}")), @"
    debian-13
      v1           qcow2
    ");
    let tags = workspace.json(&format!("tags {image}"));
    assert_eq!(tags["distros"][0]["versions"][0]["disks"]["qcow2"], "debian-13-qcow2-v1");
    // A host's next release is a system, not a disk.
    let plan = workspace.ok(&format!(
        "dist --dry-run --push --distro debian-13 --base oci:../standin:t --image {image} --app-version v2"
    ));
    assert!(plan.contains(&format!("a host on {image}:debian-13-v1 downloads")), "{plan}");

    let broken = FaultProxy::alone(|_| Fault::Answer(crate::testing::answer("403 Forbidden", &[], b"")));
    let error = workspace.failure(&format!("tags {}/me/os", broken.address()));
    assert_snapshot!(error, @"
    error: GET http://127.0.0.1:PORT/v2/me/os/tags/list: 403 Forbidden
    hint: the account has no right to do this: ask the repository's owner
    ");
}

/// The whole way, with a disk of a real system.
#[test]
fn dist_pushes_its_disks_before_the_image() {
    let base = root::base();
    let workspace = Workspace::lasting(&root::kept_dir("debian-pack"));
    workspace.write(
        "Cargo.toml",
        "[workspace.metadata.testboot]\nimage = \"registry.example/os\"\ndistro = \"debian-13\"\n\
         formats = [\"qcow2\"]\ndisk-size = \"2 GiB\"\n",
    );
    let registry = Registry::docker();
    let proxy = FaultProxy::before(&registry, |_| Fault::Pass);
    let image = format!("{}/me/os", proxy.address());
    let direct = format!("{}/me/os", registry.address());
    let base = format!("oci:{}:{}", base.layout.dir.display(), base.tag);
    let dist = format!("dist --distro debian-13 --base {base} --app-version v1 --push --image {image}");
    let report = workspace.json(&dist);
    let packed = &report["packed"][0];
    assert_eq!(packed["reference"], format!("{image}:debian-13-qcow2-v1"));
    // Nothing has a tag before all of it is there. What a registry without the API lists as attached is under a tag of
    // a digest, and names no release.
    let is_put = |line: &String| line.starts_with("PUT /v2/me/os/manifests/");
    let is_list = |line: &String| line.contains("/manifests/sha256-");
    let puts: Vec<String> = proxy.lines().into_iter().filter(|line| is_put(line) && !is_list(line)).collect();
    let first_tag = puts.iter().position(|line| !line.contains("sha256:")).unwrap();
    let put = |tag: &str| format!("PUT /v2/me/os/manifests/{tag}");
    let tags = ["debian-13-qcow2-v1", "release-debian-13-v1", "debian-13-v1", "debian-13-latest"].map(put);
    assert_eq!(puts[first_tag..], tags);
    assert!(first_tag >= 2, "{puts:?}");
    let release: Value =
        serde_json::from_str(&judge("crane", &format!("manifest {direct}:release-debian-13-v1"))).unwrap();
    let named = |entry: &Value| entry["digest"].clone();
    assert_eq!(
        release["manifests"].as_array().unwrap().iter().map(named).collect::<Vec<_>>(),
        [report["digest"].clone(), packed["digest"].clone()]
    );
    assert_eq!(release["subject"]["digest"], report["digest"]);
    judge("crane", &format!("validate --remote {direct}:debian-13-latest"));

    let lasting = fs::read_to_string(workspace.path("target/dist/dist.json")).unwrap();
    let lasting: Value = serde_json::from_str(&lasting).unwrap();
    assert_eq!(lasting["packed"][0]["digest"], packed["digest"]);
    assert_eq!(lasting["packed"][0]["pushed"]["digest"], packed["digest"]);
    assert_eq!(judge("crane", &format!("digest {direct}:debian-13-qcow2-v1")).trim(), packed["digest"]);
    let inspected = workspace.json(&format!("inspect {image}:debian-13-qcow2-v1"));
    assert_eq!(inspected["disk"]["image"]["digest"], report["digest"]);
    assert_eq!(inspected["disk"]["image"]["name"], format!("{image}:debian-13-v1"));
    assert_eq!(inspected["disk"]["sha256"], report["disks"][0]["sha256"]);
    workspace.ok(&format!("pull {image}:debian-13-qcow2-v1 -o ../back.qcow2"));
    let disk = workspace.path("").join(report["disks"][0]["path"].as_str().unwrap());
    assert_exported(&format!("{direct}:debian-13-qcow2-v1"), &disk);
    assert_same(&workspace.path("../back.qcow2"), &disk);

    // Again: the registry has it all.
    proxy.forget();
    let again = workspace.json(&dist);
    assert_eq!(again["packed"][0]["pushed"]["unchanged"], true);
    assert_eq!(proxy.seen().iter().filter(|seen| seen.method == "PUT").count(), 0, "{:?}", proxy.lines());
    let packed_again = workspace.json(&format!("pack qcow2 --base {base} --app-version v1 --image {image}"));
    assert_eq!(packed_again["packed"][0]["digest"], packed["digest"], "the layout gets the same");
}

/// An app image on the stand-in base, in a registry as `debian-13-v1`.
pub(crate) fn write_system(workspace: &Workspace, image: &str) {
    let standin = Workspace::with_standin();
    let tag = "debian-13-v1";
    standin.ok(&format!("build --base oci:../standin:t --to {image}:{tag} --app-version v1"));
    crate::harness::copy(&standin.path("../standin"), &workspace.path("../standin"));
}
