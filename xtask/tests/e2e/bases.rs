//! `base` for the distros that have an upstream: their Containerfiles, built by real engines from a
//! stand-in, and what is made of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{
    Entry, Layout, Run, Workspace, fingerprint, host_architecture, judge, make_private, sha256, skopeo_push,
};
use crate::root::root;
use crate::standin::{Upstream, set_up_engine};
use crate::testing::{Registry, program};
use crate::values::{
    JOURNALD, LIMITS, SSHD, SYSCTL_OF_A_NETWORK, SYSCTL_OF_THE_MACHINE, check_chrony, check_sshd,
    check_sysctl, check_systemd,
};

/// The time of bases that are to be the same again: 2023-11-14.
pub(crate) const EPOCH: &str = "1700000000";

impl Workspace {
    /// Runs `base`, with the test's own store of images.
    pub(crate) fn base(&self, arguments: &str) -> Run {
        let mut command = self.command(arguments);
        set_up_engine(self, &mut command);
        Run::new(command.output().unwrap())
    }

    /// Runs what has to succeed.
    pub(crate) fn made(&self, arguments: &str) -> Run {
        let run = self.base(arguments);
        assert_eq!(run.code, Some(0), "{arguments}\n{}{}", run.stdout, run.stderr);
        run
    }

    /// Runs `base` at a time that is set, in seconds since 1970.
    pub(crate) fn base_at(&self, epoch: &str, arguments: &str) -> Run {
        let mut command = self.command(arguments);
        set_up_engine(self, &mut command);
        Run::new(command.env("SOURCE_DATE_EPOCH", epoch).output().unwrap())
    }

    /// The same, of what has to succeed.
    pub(crate) fn made_at(&self, epoch: &str, arguments: &str) -> Run {
        let run = self.base_at(epoch, arguments);
        assert_eq!(run.code, Some(0), "{arguments}\n{}{}", run.stdout, run.stderr);
        run
    }

    pub(crate) fn digest_of(&self, distro: &str) -> String {
        let layout = self.layout(&format!("target/base/{distro}"));
        layout.digest(&layout.tags()[0]).as_str().unwrap().to_owned()
    }

    /// The base of a distro, as its layout has it.
    fn base_of(&self, distro: &str) -> Made {
        let layout = self.layout(&format!("target/base/{distro}"));
        layout.check_blobs();
        let [tag] = &layout.tags()[..] else { panic!("{:?}", layout.tags()) };
        let manifest = layout.manifest(tag);
        let config = layout.json(&manifest["config"]["digest"]);
        Made { layout, manifest, config }
    }
}

struct Made {
    layout: Layout,
    manifest: Value,
    config: Value,
}

impl Made {
    fn label(&self, name: &str) -> &Value {
        &self.config["config"]["Labels"][name]
    }

    /// The last layer, which is the one that was built.
    fn top(&self) -> BTreeMap<String, Entry> {
        let layer = self.manifest["layers"].as_array().unwrap().last().unwrap();
        let diff_id = self.config["rootfs"]["diff_ids"].as_array().unwrap().last().unwrap();
        let entries = self.layout.entries(layer, diff_id);
        entries.into_iter().map(|entry| (entry.path.clone(), entry)).collect()
    }
}

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

/// A workspace with a distro `tiny-1` whose Containerfile runs nothing.
pub(crate) fn tiny(upstream: &Upstream) -> Workspace {
    let workspace = Workspace::with_standin();
    push(&workspace, "t", upstream);
    workspace.write(
        "base/tiny/1/Containerfile",
        "ARG UPSTREAM\nFROM ${UPSTREAM}\nCOPY base/shared/rootfs/ /\nLABEL bootc-testboot.provides=systemd\n",
    );
    let toml = format!(
        "# Why.\ntitle = \"Tiny\"\nupstream = \"{}:1\" # the tag moves\nstage = \"production\"\n\
         end-of-life = 2999-01-01\nplatforms = [\"linux/amd64\", \"linux/arm64\"]\n",
        upstream.name
    );
    workspace.write("base/tiny/1/distro.toml", &toml);
    workspace
}

/// Makes one of the workspace's stand-ins what the upstream's tag names.
pub(crate) fn push(workspace: &Workspace, tag: &str, upstream: &Upstream) {
    let from = format!("oci:{}:{tag}", workspace.path("../standin").display());
    skopeo_push(&from, &format!("{}:1", upstream.name), if tag == "multi" { "--all" } else { "" });
}

#[test]
fn a_base_is_made_again_when_what_it_is_made_of_changes() {
    let upstream = Upstream::empty();
    let workspace = tiny(&upstream);
    let first = workspace.made("base tiny-1");
    let unpinned = format!("{}:1 is not pinned: run 'cargo xtask base tiny-1 --update-pin'", upstream.name);
    assert!(first.stderr.contains(&unpinned), "{}", first.stderr);
    let made = || fingerprint(&workspace.path("target/base"));
    let before = made();
    let again = workspace.made("base tiny-1");
    assert_eq!(again.stdout, first.stdout);
    assert_eq!(made(), before);
    // Nobody takes it for one that has today's packages.
    let kept = "\ntiny-1 is as it was made; '--force' makes it again, with the packages of today\n";
    assert!(again.stderr.contains(kept) && !first.stderr.contains(kept), "{}", again.stderr);

    // A file that every distro has.
    workspace.write("base/shared/rootfs/usr/lib/motd.d/x", "hello\n");
    let second = workspace.made("base tiny-1");
    assert_ne!(second.stdout, first.stdout);
    assert_eq!(workspace.base_of("tiny-1").top()["usr/lib/motd.d/x"].content, b"hello\n");
    // What only people read.
    let toml = fs::read_to_string(workspace.path("base/tiny/1/distro.toml")).unwrap();
    workspace.write("base/tiny/1/distro.toml", &toml.replace("2999", "2998"));
    let before = made();
    assert_eq!(workspace.made("base tiny-1").stdout, second.stdout);
    assert_eq!(made(), before);
    // The upstream, whose tag moves.
    let upstream_digest = |workspace: &Workspace| {
        workspace.base_of("tiny-1").label("org.opencontainers.image.base.digest").clone()
    };
    let old = upstream_digest(&workspace);
    push(&workspace, "multi", &upstream);
    workspace.made("base tiny-1");
    let new = upstream_digest(&workspace);
    assert_ne!(new, old);

    // Pinned, it stays; only the digest is edited.
    let pinned = workspace.made("base tiny-1 --update-pin").stdout;
    assert_eq!(pinned, format!("{}:1: not pinned -> {}\n", upstream.name, new.as_str().unwrap()));
    let edited = fs::read_to_string(workspace.path("base/tiny/1/distro.toml")).unwrap();
    let with_pin = format!(":1@{}\" # the tag moves", new.as_str().unwrap());
    assert_eq!(edited, toml.replace("2999", "2998").replace(":1\" # the tag moves", &with_pin));
    push(&workspace, "t", &upstream);
    let before = made();
    let run = workspace.made("base tiny-1");
    assert!(!run.stderr.contains("not pinned"), "{}", run.stderr);
    assert_eq!(made(), before);

    // Whoever builds on it hears of what it lacks, and of what it was made from.
    let build = "build --base oci:target/base/tiny-1 --to oci:../out:t";
    let lacks = "warning: the base says that it has no nginx, which apps with routes need";
    let warned = |run: &Run| run.stderr.lines().filter(|line| line.starts_with("warning")).count();
    let run = workspace.run(build);
    assert!(run.code == Some(0) && run.stderr.contains(lacks) && warned(&run) == 1, "{}", run.stderr);
    let moved = workspace.made("base tiny-1 --update-pin").stdout;
    assert_eq!(
        moved,
        format!("{}:1: {} -> {}\n", upstream.name, new.as_str().unwrap(), old.as_str().unwrap())
    );
    let run = workspace.run(build);
    assert!(run.stderr.contains("; run 'cargo xtask base tiny-1'") && warned(&run) == 2, "{}", run.stderr);
    let still = workspace.made("base tiny-1 --update-pin").stdout;
    assert_eq!(still, format!("{}:1: still {}\n", upstream.name, old.as_str().unwrap()));
    // A base that is named with both a tag and a digest: what became of the tag.
    let both = format!("build --base {}:1@{} --to oci:../out:u", upstream.name, new.as_str().unwrap());
    let run = workspace.run(&both);
    assert!(run.code == Some(0) && run.stderr.contains("by now; name the base with"), "{}", run.stderr);
}

#[test]
fn a_base_is_pushed_under_its_day_and_its_name() {
    let upstream = Upstream::empty();
    let workspace = tiny(&upstream);
    let image = format!("{}/me/os", upstream.registry.address());
    let push = format!("base tiny-1 --push --image {image} --json");
    let run = || -> Value { serde_json::from_str(&workspace.made_at(EPOCH, &push).stdout).unwrap() };
    let report = run();
    // Within the upstream's registry, its layers are mounted: ours and the config are sent.
    let (first, then) = (&report["pushed"][0], &report["pushed"][1]);
    assert_eq!((&first["mounted"], &first["uploaded"]), (&json!(3), &json!(2)), "{report}");
    assert_eq!(then["uploaded"], 0);
    for (pushed, tag) in
        report["pushed"].as_array().unwrap().iter().zip(["base-tiny-1-20231114", "base-tiny-1"])
    {
        assert_eq!(pushed["reference"], format!("{image}:{tag}"));
        assert_eq!(judge("crane", &format!("digest {image}:{tag}")).trim_end(), report["digest"]);
        judge("crane", &format!("validate --remote {image}:{tag}"));
    }
    assert_eq!(workspace.base_of("tiny-1").config["created"], "2023-11-14T22:13:20Z");
    let again = run();
    assert_eq!(again["digest"], report["digest"]);
    assert!(again["pushed"].as_array().unwrap().iter().all(|pushed| pushed["unchanged"] == true), "{again}");

    // It is the base of the distro from here on.
    let build = format!("build --distro tiny-1 --image {image} --to oci:../out:t");
    assert_eq!(workspace.json(&build)["base"]["digest"], report["digest"]);

    // The same inputs make the same bytes, in another folder and in another store.
    let other = tiny(&upstream);
    let made = other.made_at(EPOCH, "base tiny-1 --force");
    assert_eq!(made.stdout.trim_end(), report["digest"].as_str().unwrap(), "{}", made.stderr);

    // Apps go on top of the layout too: whole, and into another registry, layers that are not in it
    // come from the upstream's.
    other.ok("build --base oci:target/base/tiny-1 --to oci:../full:t --full");
    let elsewhere = Registry::docker();
    let there = format!("{}/me/os:t", elsewhere.address());
    other.ok(&format!("build --base oci:target/base/tiny-1 --to {there}"));
    judge("crane", &format!("validate --remote {there}"));
    other.layout("../full").check_blobs();
    for layer in upstream.layers("1") {
        other.layout("../full").blob(&layer["digest"]);
    }
}

#[test]
fn what_goes_wrong_leaves_the_base_that_is_there() {
    let upstream = Upstream::empty();
    let workspace = tiny(&upstream);
    workspace.made("base tiny-1");
    let before = fingerprint(&workspace.path("target/base"));
    let fails = |arguments: &str| {
        let error = workspace.base(arguments).failure();
        assert_eq!(fingerprint(&workspace.path("target/base")), before, "{arguments}");
        error
    };
    let toml = fs::read_to_string(workspace.path("base/tiny/1/distro.toml")).unwrap();
    let gone = format!(":1@sha256:{}\"", "0".repeat(64));
    workspace.write("base/tiny/1/distro.toml", &toml.replace(":1\"", &gone));
    insta::assert_snapshot!(fails("base tiny-1"), @"
    error: 127.0.0.1:PORT/bootc/standin@sha256:HEX is gone from its registry
    hint: run 'cargo xtask base tiny-1 --update-pin' to take today's
    ");
    workspace.write("base/tiny/1/distro.toml", &toml);
    insta::assert_snapshot!(fails("base tiny-1 --from 127.0.0.1:1/no/such:t"), @"
    error: asking for 127.0.0.1:PORT/no/such:t: http://127.0.0.1:PORT/v2/no/such/manifests/t cannot be reached: Connection refused (os error 111)
    hint: is the registry at 127.0.0.1:PORT running?
    ");
    let unknown = fails("base tiny-2");
    assert!(unknown.contains("\nhint: did you mean tiny-1? 'cargo xtask list' shows"), "{unknown}");
    insta::assert_snapshot!(fails("base debian-13 --from quay.io/x/y:z"), @"
    error: debian-13 is made from packages: no image can stand in for them
    hint: leave out '--from', or name a distro that has an upstream: see 'cargo xtask list'
    ");
    let with_push = fails("base debian-13 --from quay.io/x/y:z --push --image 127.0.0.1:1/me/os");
    assert!(with_push.contains("no image can stand in for them"), "no registry is asked: {with_push}");
    insta::assert_snapshot!(workspace.run("build --base target/base/tiny-1").failure(), @"
    error: target/base/tiny-1 is a folder here, and docker.io/target/base/tiny-1:latest an image in a registry
    hint: write 'oci:target/base/tiny-1'
    ");
    insta::assert_snapshot!(fails("base debian-13 --update-pin"), @"
    error: debian-13 is made from packages: it has no upstream to pin
    hint: 'cargo xtask base debian-13 --force' takes today's packages
    ");

    // A machine that the distro does not exist for.
    workspace.write(
        "base/tiny/1/distro.toml",
        &toml.replace("\"linux/amd64\", \"linux/arm64\"", "\"linux/s390x\""),
    );
    let error = fails("base tiny-1 --force");
    assert!(error.starts_with("error: tiny-1 does not exist for linux/"), "{error}");
    workspace.write("base/tiny/1/distro.toml", &toml);
    // No engine at all.
    let mut command = workspace.command("base tiny-1 --force");
    let error = Run::new(command.env("PATH", "/nonexistent").output().unwrap()).failure();
    insta::assert_snapshot!(error, @"
    error: podman is missing: it builds bases from Containerfiles
    hint: run 'sudo apt-get install podman'; as root, '--yes' does it
    ");
    // A step that fails.
    workspace.write("base/tiny/1/Containerfile", "ARG UPSTREAM\nFROM ${UPSTREAM}\nCOPY no-such-file /\n");
    let error = fails("base tiny-1");
    assert!(
        error.contains("no-such-file") && error.contains("hint: a build sees base/shared and"),
        "{error}"
    );
    // Something that no host boots.
    let scratch = "ARG UPSTREAM\nFROM ${UPSTREAM} AS unused\nFROM scratch\nCOPY base/shared/rootfs/ /\n";
    workspace.write("base/tiny/1/Containerfile", scratch);
    insta::assert_snapshot!(fails("base tiny-1"), @"
    error: the image has neither the label `containers.bootc` nor `ostree.bootable`: no host boots it
    hint: the Containerfile has to start from a bootc image, as 'FROM ${UPSTREAM}' does
    ");
}

#[test]
fn a_base_that_lacks_its_own_layer_is_not_built_on() {
    let upstream = Upstream::empty();
    let workspace = tiny(&upstream);
    workspace.made("base tiny-1");
    let build = "build --base oci:target/base/tiny-1 --to oci:../out:t";
    let other = if host_architecture() == "amd64" { "arm64" } else { "amd64" };
    let error = workspace.run(&format!("{build} --platform linux/{other}")).failure();
    assert!(error.ends_with("hint: choose another with '--platform', or name one for it\n"), "{error}");

    let base = workspace.base_of("tiny-1");
    let ours = base.manifest["layers"].as_array().unwrap().last().unwrap()["digest"].as_str().unwrap();
    let path = base.layout.blob_path(ours);
    fs::File::options().write(true).open(&path).unwrap().set_len(10).unwrap();
    for is_there in [true, false] {
        if !is_there {
            fs::remove_file(&path).unwrap();
        }
        let error = workspace.run(build).failure();
        let (damage, hint) = ("it is damaged: ", "\nhint: make it again: 'cargo xtask base DISTRO --force'");
        assert!(error.contains(damage) && error.contains(hint), "{error}");
        assert!(!workspace.path("../out").exists());
    }
    workspace.made("base tiny-1 --force");
    workspace.ok(build);
}

#[test]
fn buildah_does_as_well() {
    let upstream = Upstream::empty();
    let workspace = tiny(&upstream);
    // A PATH on which buildah is the only engine.
    let bin = workspace.path("../bin");
    fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(program("buildah"), bin.join("buildah")).unwrap();
    let mut command: Command = workspace.command("base tiny-1");
    set_up_engine(&workspace, &mut command);
    command.env("PATH", &bin);
    let run = Run::new(command.output().unwrap());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(workspace.base_of("tiny-1").manifest["layers"].as_array().unwrap().len(), 4);
    assert_eq!(run.stdout.trim_end(), workspace.digest_of("tiny-1"));
}
