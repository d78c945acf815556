//! An app that `new-app` has made is one at once: for Go, for the image, for systemd and for nginx.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::harness::{Run, Workspace, fingerprint};
use crate::testing::program;

/// Runs a program in `dir`, which has to be content, and gives all that it says.
fn run(dir: &Path, name: &str, arguments: &str) -> String {
    let mut command = Command::new(program(name));
    // Modules are no business of a network's.
    command
        .args(arguments.split_whitespace())
        .current_dir(dir)
        .env("GOFLAGS", "-mod=mod")
        .env("GOPROXY", "off");
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert!(output.status.success(), "{name} {arguments}: {text}");
    text
}

#[test]
fn a_new_app_is_whole() {
    let workspace = Workspace::with_standin();
    let shown = workspace.ok("new-app shop --cache --dry-run");
    assert!(!workspace.path("apps/shop").exists(), "a dry run writes nothing");
    let made = workspace.json("new-app shop --cache");
    assert_eq!((&made["port"], &made["routes"]), (&json!(8081), &json!(["/shop"])));
    for file in made["files"].as_array().unwrap() {
        let (path, text) = (file["path"].as_str().unwrap(), file["text"].as_str().unwrap());
        assert_eq!(fs::read_to_string(workspace.path(path)).unwrap(), text);
        assert!(shown.contains(&format!("==> {path} <==\n{}", text.trim_end())), "{path} in {shown}");
    }
    // Where no app has it, an app may have everything.
    fs::remove_dir_all(workspace.path("apps/hello")).unwrap();
    fs::remove_file(workspace.path("systemd/hello.service")).unwrap();
    workspace.ok("new-app front --route / --port 9000");

    for app in ["shop", "front"] {
        let dir = workspace.path(&format!("apps/{app}"));
        assert_eq!(run(&dir, "gofmt", "-l ."), "", "{app} is formatted");
        run(&dir, "go", "vet ./...");
        run(&dir, "go", "test ./...");
    }
    let image = workspace.json("build --base oci:../standin:t --to oci:../out:t");
    let names: Vec<_> = image["layers"].as_array().unwrap().iter().map(|layer| &layer["name"]).collect();
    assert_eq!(names, ["base", "base", "base", "os", "front", "shop"]);
    let root = workspace.path("../root");
    unpack(&workspace, &root);
    check_units(&root);
    check_nginx(&root);
}

/// Our layers, in a folder of their own.
fn unpack(workspace: &Workspace, root: &Path) {
    let layout = workspace.layout("../out");
    let manifest = layout.manifest("t");
    let config = layout.json(&manifest["config"]["digest"]);
    let layers = manifest["layers"].as_array().unwrap();
    for (layer, diff_id) in layers.iter().zip(config["rootfs"]["diff_ids"].as_array().unwrap()).skip(3) {
        for entry in layout.entries(layer, diff_id).into_iter().filter(|e| e.header.entry_type().is_file()) {
            let path = root.join(&entry.path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &entry.content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(entry.header.mode().unwrap())).unwrap();
        }
    }
}

fn check_units(root: &Path) {
    let units = root.join("usr/lib/systemd/system");
    for target in ["basic", "multi-user", "network-online", "shutdown", "sysinit"] {
        fs::write(units.join(format!("{target}.target")), format!("[Unit]\nDescription={target}\n")).unwrap();
    }
    let analyze = |arguments: &str| {
        run(root, "systemd-analyze", &format!("{arguments} --root {}", root.display()));
    };
    for unit in ["shop.service", "front.service"] {
        analyze(&format!("verify --recursive-errors=yes --man=no {unit}"));
        analyze(&format!("security --offline=true --threshold 15 {unit}"));
    }
    let tmpfiles = fs::read_to_string(root.join("usr/lib/tmpfiles.d/shop.conf")).unwrap();
    assert!(tmpfiles.contains("\ne /var/cache/private/shop - - - 30d\n"), "{tmpfiles}");
    run(root, "systemd-tmpfiles", &format!("--clean --root {} shop.conf", root.display()));
}

/// nginx reads what the image has for it, with its own folders moved.
fn check_nginx(root: &Path) {
    let apps = root.join("usr/share/nginx/apps");
    let apps = apps.display();
    let here = root.display();
    fs::write(
        root.join("test.conf"),
        format!(
            "pid {here}/nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n  access_log off;\n  \
             include {apps}/*.upstream.conf;\n  server {{\n    listen unix:{here}/s;\n    \
             include {apps}/*.location.conf;\n  }}\n}}\n"
        ),
    )
    .unwrap();
    let said = run(root, "nginx", &format!("-t -c {here}/test.conf"));
    assert!(said.contains("test is successful"), "{said}");
    let names: Vec<String> = fs::read_dir(root.join("usr/share/nginx/apps"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".location.conf"))
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn nothing_is_written_over() {
    let workspace = Workspace::new();
    workspace.write("configs/sysusers.d/shop.conf", "u shop 300\n");
    let before = fingerprint(&workspace.path(""));
    insta::assert_snapshot!(workspace.failure("new-app shop --port 8080 --route /health"), @"
    error: the app shop cannot be added
      configs/sysusers.d/shop.conf: is there already
        hint: give the app another name
      apps/hello/app.toml: port 8080 is already hello's
        hint: leave '--port' out, and one that is free is taken
      apps/hello/app.toml: route `/health` is already hello's
        hint: name another path with '--route /PATH'
    ");
    insta::assert_snapshot!(workspace.failure("new-app hello"), @"
    error: the app hello cannot be added
      apps/hello: is there already
        hint: give the app another name
      systemd/hello.service: is there already
        hint: give the app another name
    ");
    assert_eq!(fingerprint(&workspace.path("")), before);
    for wrong in ["new-app Shop", "new-app sshd", "new-app shop --port 80", "new-app shop --route shop"] {
        assert_eq!(workspace.run(wrong).code, Some(2), "{wrong}");
    }
    assert_eq!(fingerprint(&workspace.path("")), before);
}

#[test]
fn a_full_disk_leaves_no_part_of_an_app() {
    let workspace = Workspace::new();
    let before = fingerprint(&workspace.path(""));
    // A folder with room for what is in it, a page a file, and for no more.
    let script = format!(
        "set -eu
        cp -a systemd ../units
        mount -t tmpfs -o size=$(($(ls -A systemd | wc -l) * 4))k tmpfs systemd
        cp ../units/* systemd
        code=0
        {} new-app shop || code=$?
        test ! -e apps/shop
        diff -r ../units systemd
        exit $code",
        env!("CARGO_BIN_EXE_xtask")
    );
    let mut unshare = Command::new(program("unshare"));
    unshare.arg(if rustix::process::geteuid().is_root() { "-m" } else { "-rm" });
    workspace.prepare(unshare.args(["sh", "-c", &script]));
    let error = Run::new(unshare.output().unwrap()).failure();
    assert!(error.contains("systemd/shop.service: No space left on device"), "{error}");
    assert_eq!(fingerprint(&workspace.path("")), before);
}
