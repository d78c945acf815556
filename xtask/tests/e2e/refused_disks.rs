//! What is no packed disk, or a hostile one: told before it does harm.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;

use insta::assert_snapshot;
use serde_json::json;

use crate::harness::{INDEX, MANIFEST, REF_NAME, Workspace, sha256, skopeo_push};
use crate::interrupts::names;
use crate::pack::{CONFIG, MIB, with_disks};
use crate::testing::Registry;

/// What is hashed while it is packed would be a whole image of half a disk.
#[test]
fn a_disk_that_is_cut_off_is_refused() {
    for (format, why) in [
        ("qcow2", "it is no qcow2: it is cut off"),
        ("vmdk", "it is no vmdk: it does not begin and end like one"),
        ("ova", "it is no ova: it holds no whole VMDK"),
        ("vhd", "it is no vhd: it does not end like one"),
    ] {
        let workspace = with_disks(format, 8);
        let path = format!("../disks/debian-13-v1.{format}");
        let disk = File::options().write(true).open(workspace.path(&path)).unwrap();
        disk.set_len(disk.metadata().unwrap().len() / 2).unwrap();
        let error = workspace.failure(&format!("pack {path} --to oci:../out:t"));
        assert!(error.starts_with(&format!("error: packing {path}: {why}\n")), "{error}");
        assert!(!workspace.path("../out").exists());
    }
}

#[test]
fn what_does_not_do_is_refused() {
    let workspace = with_disks("raw", 8);
    let fails = |arguments: &str| workspace.failure(arguments);
    assert_snapshot!(fails("pack ../gone.qcow2"), @"
    error: packing ../gone.qcow2: No such file or directory (os error 2)
    hint: name a disk that is there: 'cargo xtask disk' makes some
    ");
    fs::write(workspace.path("../text.qcow2"), "no disk at all").unwrap();
    assert_snapshot!(fails("pack ../text.qcow2"), @"
    error: packing ../text.qcow2: it is no qcow2: it is too short
    hint: name the file with the ending of its format: .qcow2, .raw, .ami.raw, .vmdk, .vhd, .ova, .tar.gz
    ");
    assert_snapshot!(fails("pack ../text.txt"), @"
    error: the name of ../text.txt does not say which format it has
    hint: give it the ending of its format: .qcow2, .raw, .ami.raw, .vmdk, .vhd, .ova or .tar.gz
    ");
    assert_snapshot!(fails("pack ../os.raw"), @"
    error: nothing says which distro and version ../os.raw is of
    hint: name the file <distro>-<version>, as 'cargo xtask disk' does, or say where it goes: '--to REF'
    ");
    assert_snapshot!(fails("pack ../os.raw ../disks/debian-13-v1.raw --to oci:../out:t"), @"
    error: oci:../out:t is one image, and 2 disks are to be packed
    hint: pack one at a time, or name a folder without a tag: 'oci:DIR'
    ");
    assert_snapshot!(fails("pack ../os.raw --to out"), @"
    error: docker.io/library/out:latest is among the images that Docker alone publishes
    hint: a folder is written 'oci:out'
    ");
    let twice = "pack ../disks/debian-13-v1.raw ../disks/debian-13-v1.raw";
    assert_snapshot!(fails(twice), @"
    error: two of the disks would become the same image
    hint: pack one at a time, and say where it goes: '--to REF'
    ");
    // 11 GB of data that is compressed already: no registry takes it, and nothing is read.
    let big = File::create(workspace.path("../debian-13-v1.qcow2")).unwrap();
    big.set_len(11_000_000_000).unwrap();
    big.write_all_at(b"QFI\xfb\0\0\0\x03", 0).unwrap();
    big.write_all_at(&(20_u64 << 30).to_be_bytes(), 24).unwrap();
    assert_snapshot!(fails("pack ../debian-13-v1.qcow2"), @"
    error: packing ../debian-13-v1.qcow2: its layer has 11000002048 bytes, and registries take 10.0 GB at most
    hint: put less on the disk, or pack another format of it: qcow2 is the smallest, and 'ls -l' shows how large it becomes
    ");
    assert!(!workspace.path("target/dist/oci").exists());
    let run = workspace.run("pack qcow");
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("did you mean `qcow2`?"), "{}", run.stderr);
    assert_eq!(workspace.run("build --app-version qcow2-v1").code, Some(2));

    workspace.ok("pack ../disks/debian-13-v1.raw --to oci:../out:t");
    // A disk that somebody has changed since, such as a machine that ran.
    fs::write(workspace.path("debian-13-v1.raw"), "mine").unwrap();
    assert_snapshot!(fails("pull oci:../out:t"), @"
    error: debian-13-v1.raw is there, and is another disk
    hint: name another with '-o FILE', or add '--force' to replace it
    ");
    assert_eq!(fs::read(workspace.path("debian-13-v1.raw")).unwrap(), b"mine");
    assert_snapshot!(fails("pull oci:../out:t --platform linux/s390x -o ../back.raw"), @"
    error: reading oci:../out:t: it is for linux/amd64
    hint: leave out '--platform'
    ");
    let standin = Workspace::with_standin();
    assert_snapshot!(standin.failure("pull oci:../standin:t"), @"
    error: reading oci:../standin:t: it is no packed disk
    hint: 'cargo xtask inspect' shows what it is; 'podman pull' and 'skopeo copy' bring images of other kinds
    ");

    // Damage, in the layout.
    let layout = workspace.layout("../out");
    let layer = layout.manifest("t")["layers"][0]["digest"].as_str().unwrap().to_owned();
    let blob = layout.blob_path(&layer);
    let mut bytes = fs::read(&blob).unwrap();
    let last = bytes.len() - 1;
    bytes[last / 2] ^= 1;
    fs::write(&blob, &bytes).unwrap();
    workspace.failure("pull oci:../out:t -o ../back.raw");
    assert!(!workspace.path("../back.raw").exists());
    fs::write(&blob, &bytes[..last]).unwrap();
    workspace.failure("pull oci:../out:t -o ../back.raw");
    assert!(!workspace.path("../back.raw").exists());
}

/// An image whose manifest and config are as they should be, and whose layer is anything.
#[test]
fn a_hostile_layer_leaves_nothing() {
    let workspace = with_disks("raw", 8);
    workspace.ok("pack ../disks/debian-13-v1.raw --to oci:../out:t");
    let layout = workspace.layout("../out");
    let good = layout.manifest("t");
    let entry = |path: &str, kind: tar::EntryType, size: u64| {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_link_name("/etc/passwd").unwrap();
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let disk = "disk/debian-13-v1.raw";
    let whole = [entry(disk, tar::EntryType::Regular, 8 * MIB), vec![0; 8 << 20]].concat();
    let registry = Registry::crane();
    for (tar, expected) in [
        (entry(disk, tar::EntryType::Symlink, 0), "in it is a symbolic link, not a file"),
        (entry("disk/../../escape", tar::EntryType::Regular, 0), "it holds `disk/../../escape`"),
        (entry(disk, tar::EntryType::Regular, 9 * MIB), "has 9437184 bytes, and 8388608 were announced"),
        ([whole.clone(), entry("second", tar::EntryType::Regular, 0)].concat(), "it holds `second`"),
        ([whole.clone(), vec![0; 64 << 20]].concat(), "it goes on behind its end"),
        ([whole, vec![0; 1024]].concat(), "was promised"),
    ] {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        let mut manifest = good.clone();
        manifest["layers"][0] =
            layout.put(&gzip.finish().unwrap(), "application/vnd.oci.image.layer.v1.tar+gzip");
        let mut config = layout.json(&good["config"]["digest"]);
        config["rootfs"]["diff_ids"][0] = sha256(&tar).into();
        manifest["config"] = layout.put(config.to_string().as_bytes(), CONFIG);
        let mut manifest = layout.put(manifest.to_string().as_bytes(), MANIFEST);
        manifest["annotations"] = json!({REF_NAME: "t"});
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest]});
        fs::write(layout.dir.join("index.json"), index.to_string()).unwrap();
        let name = format!("{}/me/os:t", registry.address());
        skopeo_push(&format!("oci:{}:t", layout.dir.display()), &name, "");
        fs::create_dir_all(workspace.path("../pulled")).unwrap();
        for from in ["oci:../out:t", &name] {
            let error = workspace.failure(&format!("pull {from} -o ../pulled"));
            assert!(error.contains(expected), "{error}");
            assert!(
                error.contains("hint: the image is damaged or hostile, and nothing of it was kept"),
                "{error}"
            );
            assert_eq!(names(&workspace.path("../pulled")), [""; 0]);
        }
    }
}
