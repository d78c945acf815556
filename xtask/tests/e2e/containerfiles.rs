//! The distros' own Containerfiles, and Debian beside them: each makes a base that is tuned alike.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::bases::EPOCH;
use crate::harness::{Entry, Workspace, fingerprint, judge, make_private, sha256};
use crate::root::root;
use crate::standin::Upstream;
use crate::testing::program;
use crate::values::{
    JOURNALD, LIMITS, SSHD, SYSCTL_OF_A_NETWORK, SYSCTL_OF_THE_MACHINE, check_chrony, check_sshd,
    check_sysctl, check_systemd,
};

/// The files below a folder, under their paths from there.
fn files(folder: &Path) -> BTreeMap<String, PathBuf> {
    fingerprint(folder)
        .into_keys()
        .map(|path| (path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned(), path))
        .collect()
}

/// Whether a stand-in's cloud-init has its units' old names, as before 24.3.
fn has_old_cloud_init(distro: &str) -> bool {
    ["centos-stream9", "fedora-40"].contains(&distro)
}

const CLOUD_INIT_OLD: &[&str] = &["cloud-init"];

const CLOUD_INIT_NEW: &[&str] = &["cloud-init-main", "cloud-init-network"];

type Differences = (fn(&str) -> bool, &'static [&'static str]);

/// What the bases of some distros have for themselves; all else is the same in each.
const DIFFERENCES: &[Differences] = &[
    // htop comes from EPEL, which is a package and a repository more.
    (|distro| distro.starts_with("centos-"), &["etc/yum.repos.d", "etc/yum.repos.d/epel.repo"]),
    (|_| true, &["usr/share/standin/packages"]),
    // An edition's zone, which the base does not use.
    (|distro| distro.starts_with("fedora-"), &["usr/lib/firewalld/zones/FedoraServer.xml"]),
    (
        has_old_cloud_init,
        &[
            "usr/lib/systemd/system/cloud-init.service",
            "etc/systemd/system/multi-user.target.wants/cloud-init.service",
        ],
    ),
    (
        |distro| !has_old_cloud_init(distro),
        &[
            "usr/lib/systemd/system/cloud-init-main.service",
            "usr/lib/systemd/system/cloud-init-network.service",
            "etc/systemd/system/multi-user.target.wants/cloud-init-main.service",
            "etc/systemd/system/multi-user.target.wants/cloud-init-network.service",
        ],
    ),
];

/// What a distro's base has for itself.
fn differences(distro: &str) -> BTreeSet<&'static str> {
    let of_it = DIFFERENCES.iter().filter(|(is_for, _)| is_for(distro));
    of_it.flat_map(|(_, paths)| paths.iter().copied()).collect()
}

/// What the comparison of two bases looks at.
fn seen(entry: &Entry) -> (u32, u64, u64, Option<Vec<u8>>, &[u8]) {
    let header = &entry.header;
    let link = header.link_name_bytes().map(|name| name.into_owned());
    (header.mode().unwrap(), header.uid().unwrap(), header.gid().unwrap(), link, &entry.content)
}

#[test]
fn every_containerfile_makes_the_same_base() {
    let upstream = Upstream::debian();
    let workspace = Workspace::new();
    // The modes of a checkout are none of the image's.
    make_private(&workspace.path("base"));
    let list = workspace.json("list");
    let distros: Vec<&Value> = list["distros"].as_array().unwrap().iter().collect();
    // What a CI matrix is made of.
    for key in ["name", "title", "stage", "ended", "upstream", "platforms", "default"] {
        assert!(distros.iter().all(|distro| distro.get(key).is_some()), "{key}");
    }
    let mut tops = BTreeMap::new();
    for distro in distros.into_iter().filter(|distro| !distro["upstream"].is_null()) {
        let name = distro["name"].as_str().unwrap();
        let from = upstream.of(name);
        let run = workspace.made_at(EPOCH, &format!("base {name} --from {from}"));
        assert_eq!(run.stderr.contains("ended on"), distro["ended"].as_bool().unwrap(), "{}", run.stderr);
        let base = workspace.base_of(name);

        assert_eq!(*base.label("containers.bootc"), "1");
        assert_eq!(*base.label("vendor.example"), "kept");
        assert_eq!(*base.label("bootc-testboot.provides"), "nginx,systemd");
        assert_eq!(*base.label("org.opencontainers.image.title"), distro["title"]);
        assert_eq!(*base.label("org.opencontainers.image.version"), name.split_once('-').unwrap().1);
        assert_eq!(*base.label("org.opencontainers.image.base.name"), from);
        // The upstream's layers are the very same, and stay where they are.
        let (layers, theirs) = (base.manifest["layers"].as_array().unwrap(), upstream.layers(name));
        assert_eq!((layers.len(), &layers[..theirs.len()]), (theirs.len() + 1, theirs.as_slice()));
        assert!(!base.layout.blob_path(layers[0]["digest"].as_str().unwrap()).exists());

        let top = base.top();
        check_tuning(&workspace, name, &top);
        check_judges(&top);
        let installed = String::from_utf8(top["usr/share/standin/packages"].content.clone()).unwrap();
        let (extra, installed): (Vec<_>, Vec<_>) =
            installed.lines().map(str::to_owned).partition(|package| package == "epel-release");
        assert_eq!(extra.len(), usize::from(name.starts_with("centos-")), "{name}");
        let list = fs::read_to_string(workspace.path("base/shared/rpm/packages.list")).unwrap();
        let listed: Vec<_> = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        assert_eq!(installed, listed);

        // Apps go on top, and nobody is warned of anything.
        let build = workspace.run(&format!("build --base oci:target/base/{name} --to oci:../out:{name}"));
        assert_eq!((build.code, build.stderr.contains("warning")), (Some(0), false), "{}", build.stderr);
        tops.insert(name.to_owned(), top);
    }
    assert!(tops.len() > 1, "{:?}", tops.keys());
    let text = workspace.ok("list");
    let ended = "distro fedora-40  Fedora 40, ended on 2025-05-13, go to fedora-44, from an image: quay.io/";
    assert!(text.contains(ended), "{text}");

    // What one distro gets, all of them get, but for what the table says; and what it says is there.
    let same = |name: &str, top: &BTreeMap<String, Entry>| -> BTreeSet<String> {
        let own = differences(name);
        assert!(own.iter().all(|path| top.contains_key(*path)), "{own:?} in {name}");
        top.keys().filter(|path| !own.contains(path.as_str())).cloned().collect()
    };
    let (first, expected) = tops.iter().next().unwrap();
    for (name, top) in &tops {
        let (paths, theirs) = (same(name, top), same(first, expected));
        assert_eq!(paths.symmetric_difference(&theirs).collect::<Vec<_>>(), [""; 0], "{name} and {first}");
        for path in paths {
            assert!(seen(&top[&path]) == seen(&expected[&path]), "{path} in {name} and {first}");
        }
    }

    // Made once more, of another checkout and in another engine's store, a base is the very same.
    let other = Workspace::new();
    let name = "centos-stream10";
    other.made_at(EPOCH, &format!("base {name} --from {}:{name}", upstream.name));
    assert_eq!(other.digest_of(name), workspace.digest_of(name), "{name}");
}

/// What the programs that read the tuning made of it, at the end of a stand-in's build.
fn check_judges(top: &BTreeMap<String, Entry>) {
    let said = |name: &str| {
        String::from_utf8(at(top, &format!("usr/share/standin/{name}")).content.clone()).unwrap()
    };
    check_sshd(&said("sshd"));
    let without = said("sshd.without");
    for lost in SSHD {
        assert!(!without.lines().any(|line| line == *lost), "{lost} does not come from our file");
    }
    check_chrony(&said("chrony"));
    check_sysctl(&said("sysctl"), &[SYSCTL_OF_A_NETWORK, SYSCTL_OF_THE_MACHINE].concat());
    check_systemd(&said("system"), &said("system.shipped"), LIMITS);
    check_systemd(&said("journald"), &said("journald.shipped"), JOURNALD);
    assert_eq!(said("changed"), "", "a first boot changes it");
}

/// The Debian base, which is made in another way, has the same files of ours in the same places.
#[test]
fn debian_has_the_same_tuning() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../base/shared/rootfs");
    let files = files(&shared);
    let paths: String = files.keys().map(|path| format!(" /{path}")).collect();
    let (shown, _) = root().ok(&format!(
        "for path in {paths}; do echo $path $(stat -c '%A %u:%g' $path) $(readlink $path || sha256sum <$path); done"
    ));
    for ((path, source), line) in files.iter().zip(shown.lines()) {
        let expected = match fs::read_link(source) {
            Ok(target) => format!("/{path} lrwxrwxrwx 0:0 {}", target.display()),
            Err(_) => {
                let is_program = source.metadata().unwrap().mode() & 0o100 != 0;
                let mode = if is_program { "-rwxr-xr-x" } else { "-rw-r--r--" };
                let digest = sha256(&fs::read(source).unwrap());
                format!("/{path} {mode} 0:0 {} -", digest.strip_prefix("sha256:").unwrap())
            }
        };
        assert_eq!(line, expected);
    }
    assert_eq!(shown.lines().count(), files.len());
}

/// What a layer has at `path`.
fn at<'a>(top: &'a BTreeMap<String, Entry>, path: &str) -> &'a Entry {
    top.get(path).unwrap_or_else(|| panic!("{path} is not there, but {:#?}", top.keys()))
}

/// Every file of ours is in its place, and everything that a step does was done.
fn check_tuning(workspace: &Workspace, distro: &str, top: &BTreeMap<String, Entry>) {
    for rootfs in ["base/shared/rootfs", "base/shared/rpm/rootfs"] {
        let files = files(&workspace.path(rootfs));
        assert!(!files.is_empty());
        for (path, source) in files {
            let Entry { header, content, .. } = at(top, &path);
            if let Ok(target) = fs::read_link(&source) {
                assert_eq!(header.link_name().unwrap().unwrap(), target, "{path}");
                continue;
            }
            let mode = if source.metadata().unwrap().mode() & 0o100 != 0 { 0o755 } else { 0o644 };
            assert_eq!(*content, fs::read(source).unwrap(), "{path}");
            assert_eq!((header.mode().unwrap() & 0o7777, header.uid().unwrap()), (mode, 0), "{path}");
        }
    }
    let mode = |path: &str| at(top, path).header.mode().unwrap() & 0o7777;
    assert_eq!((mode("etc"), mode("usr"), mode("etc/firewalld")), (0o755, 0o755, 0o750));

    let text = |path: &str| String::from_utf8(at(top, path).content.clone()).unwrap();
    let link = |path: &str| at(top, path).header.link_name().unwrap().unwrap().to_str().unwrap().to_owned();
    let cloud_init = if has_old_cloud_init(distro) { CLOUD_INIT_OLD } else { CLOUD_INIT_NEW };
    let services =
        ["chronyd", "firewalld", "nginx", "sshd", "cloud-init-local", "cloud-config", "cloud-final"];
    let expected: BTreeSet<String> =
        services.iter().chain(cloud_init).map(|unit| format!("{unit}.service")).collect();
    let wants = "etc/systemd/system/multi-user.target.wants/";
    let enabled = top.keys().filter_map(|path| path.strip_prefix(wants));
    assert_eq!(enabled.map(str::to_owned).collect::<BTreeSet<_>>(), expected);
    for unit in expected {
        assert_eq!(link(&format!("{wants}{unit}")), format!("/usr/lib/systemd/system/{unit}"));
    }
    assert_eq!(link("etc/systemd/system/systemd-time-wait-sync.service"), "/dev/null");
    assert_eq!(text("etc/selinux/targeted/active/booleans.local"), "httpd_can_network_connect=1\n");
    assert_eq!(text("etc/firewalld/firewalld.conf"), "DefaultZone=public\n");
    assert_eq!(
        text("etc/chrony.conf"),
        "makestep 10 1\nkeyfile /etc/chrony.keys\n\nconfdir /etc/chrony/conf.d\n"
    );
    for user in ["\nnginx:x:110:110:", "\ntcpdump:x:72:72:", "\ndhcpcd:x:114:114:"] {
        assert!(text("etc/passwd").contains(user), "{}", text("etc/passwd"));
    }
    let tmpfiles = text("usr/lib/tmpfiles.d/zz-testboot-var.conf");
    assert!(tmpfiles.contains("\nd /var/lib/nginx/tmp 0770 nginx root -\n"), "{tmpfiles}");
    let left: Vec<_> = top
        .keys()
        // What only says that something of the upstream's is gone.
        .filter(|path| !path.contains("/.wh."))
        .filter(|path| {
            ["run/", "tmp/", "var/cache/", "var/lib/dnf", "var/lib/rhsm"].iter().any(|start| path.starts_with(start))
                // What the engine mounts resolv.conf over.
                && !path.starts_with("run/systemd")
                || path.starts_with("var/log/") && !["var/log/nginx", "var/log/chrony"].contains(&path.as_str())
                || path.ends_with('-')
        })
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The stand-ins are no softer than what they stand for.
#[test]
fn stand_ins_refuse_what_the_real_ones_refuse() {
    let upstream = Upstream::debian();
    let from = upstream.of("fedora-44");
    let workspace = Workspace::new();
    workspace.write("base/fedora/44/faults.sh", include_str!("standin/faults.sh"));
    let containerfile = fs::read_to_string(workspace.path("base/fedora/44/Containerfile")).unwrap();
    let faults = "RUN --mount=type=bind,source=base/fedora/44/faults.sh,target=/run/faults.sh,z sh /run/faults.sh\n\nLABEL";
    workspace.write("base/fedora/44/Containerfile", &containerfile.replacen("LABEL", faults, 1));
    workspace.made(&format!("base fedora-44 --from {from}"));
    let told = workspace.base_of("fedora-44").top();
    let told = String::from_utf8(at(&told, "usr/share/standin/faults").content.clone()).unwrap();
    insta::assert_snapshot!(told, @r#"
    :; bootc container lint --fatal-warnings: 0 nothing
    echo x >/var/log/x; bootc container lint --fatal-warnings: 1 var-log: /var/log/x;var-tmpfiles: /var/log/x;error: linting: checks failed
    mkdir /var/lib/x; bootc container lint --fatal-warnings: 1 var-tmpfiles: /var/lib/x;error: linting: checks failed
    : >/var/lib/nginx/x; bootc container lint --fatal-warnings: 1 var-tmpfiles: /var/lib/nginx/x;error: linting: checks failed
    mkdir /run/x; bootc container lint --fatal-warnings: 1 nonempty-run-tmp: /run/x;error: linting: checks failed
    : >/tmp/x; bootc container lint --fatal-warnings: 1 nonempty-run-tmp: /tmp/x;error: linting: checks failed
    mkdir /boot/x; bootc container lint --fatal-warnings: 1 nonempty-boot: /boot/x;error: linting: checks failed
    mkdir /usr/etc; bootc container lint --fatal-warnings: 1 etc-usretc: /usr/etc;error: linting: checks failed
    rm /var/run; mkdir /var/run; bootc container lint --fatal-warnings: 1 var-run: not a link;error: linting: checks failed
    echo x:x:976:976::/:/bin/sh >>/etc/passwd; bootc container lint --fatal-warnings: 1 sysusers: passwd x;error: linting: checks failed
    echo x:x:976: >>/etc/group; bootc container lint --fatal-warnings: 1 sysusers: group x;error: linting: checks failed
    rm /ostree; bootc container lint --fatal-warnings: 1 baseimage-root;error: linting: checks failed
    touch $(printf '/usr/share/\377'); bootc container lint --fatal-warnings: 1 utf8: a name is not UTF-8;error: linting: checks failed
    bootc container lint: 2 error: unrecognized container lint
    dnf -y install nginx-light: 1 Unable to find a match: nginx-light
    dnf install jq: 1 Operation aborted.
    dnf -y install: 1 install: the following arguments are required: PACKAGE
    dnf -y --quick install jq: 1 unrecognized arguments: --quick
    dnf -y install --setopt=weak_deps=False jq: 1 Setting of option failed: --setopt=weak_deps=False
    dnf -y remove jq: 1 No such command: remove
    dnf clean everything: 1 clean: invalid choice: everything
    setsebool -P httpd_can_network_connect=1: 1 Usage: setsebool [ -NPV ] boolean value | bool1=val1 bool2=val2...
    setsebool -P -N httpd_can_network=1: 255 Boolean httpd_can_network is not defined
    setsebool -P -N httpd_can_network_connect=yes: 1 setsebool: illegal value in httpd_can_network_connect=yes
    firewall-offline-cmd --set-default-zone=public: 16 ZONE_ALREADY_SET: public
    firewall-offline-cmd --set-default-zone=open: 112 INVALID_ZONE: open
    firewall-offline-cmd --zone=open --list-services: 112 INVALID_ZONE: open
    firewall-offline-cmd --zone=public --add-port=8080/tcp: 2 unrecognized arguments: --zone=public --add-port=8080/tcp
    sed -i s/https/htps/ /etc/firewalld/zones/public.xml; firewall-offline-cmd --check-config: 101 INVALID_SERVICE: htps
    sed -i s,/zone,zone, /etc/firewalld/zones/public.xml; firewall-offline-cmd --check-config: 109 INVALID_ZONE: /etc/firewalld/zones/public.xml is no zone
    "#);

    // And a build ends there.
    fs::remove_file(workspace.path("base/fedora/44/faults.sh")).unwrap();
    workspace
        .write("base/fedora/44/Containerfile", &containerfile.replace("setup.sh", "setup.sh epel-release"));
    let error = workspace.base(&format!("base fedora-44 --from {from}")).failure();
    assert!(error.contains("Unable to find a match: epel-release"), "{error}");
}

#[test]
fn containerfiles_and_scripts_are_in_good_order() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let base = files(&repository.join("base"));
    let named = |end: &str| {
        let paths: Vec<_> = base.values().filter(|path| path.ends_with(end)).collect();
        paths.into_iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
    };
    let containerfiles = named("Containerfile");
    assert!(!containerfiles.is_empty());
    judge("hadolint", &containerfiles.join(" "));
    judge("shellcheck", &named("setup.sh").join(" "));
    let stand_ins = files(&repository.join("xtask/tests/e2e/standin"));
    let stand_ins: Vec<_> = stand_ins.values().map(|path| path.display().to_string()).collect();
    judge("shellcheck", &stand_ins.join(" "));
    let temp = tempfile::tempdir().unwrap();
    let planted = temp.path().join("Containerfile");
    for path in containerfiles {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("\nRUN bootc container lint --fatal-warnings\n"), "{path}");
        assert_eq!(text.matches("\nLABEL containers.bootc=1 ").count(), 1, "{path}");
        // The judge sees a fault where there is one.
        for fault in ["RUN cd /usr\n", "RUN dnf install jq\n", "MAINTAINER me\n"] {
            fs::write(&planted, format!("{text}{fault}")).unwrap();
            let output = Command::new(program("hadolint")).arg(&planted).output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{path} and {fault}");
        }
    }
}
