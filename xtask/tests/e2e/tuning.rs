//! What the base sets is in force: the programs that read it say so, on the base's merged root.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Workspace, judge, skopeo_push};
use crate::root::root;
use crate::testing::{Registry, program};
use crate::values::{
    DATASOURCES, JOURNALD, LIMITS, SSHD, SSHD_PLANTED, SYSCTL_OF_A_NETWORK, SYSCTL_OF_THE_MACHINE,
    check_chrony, check_sshd, check_sysctl, check_systemd,
};

/// sshd takes the first value: what cloud-init, an installer or a distro plants must lose.
#[test]
fn sshd() {
    for name in ["01-permitrootlogin", "40-redhat", "50-cloud-init", "50-redhat"] {
        root().write(&format!("/etc/ssh/sshd_config.d/{name}.conf"), "0600", SSHD_PLANTED);
    }
    let (shown, _) = root().ok("ssh-keygen -q -t ed25519 -N '' -f /tmp/host_key
        sshd -t -h /tmp/host_key
        sshd -T -h /tmp/host_key");
    check_sshd(&shown);
    // Without ours, every one of the planted lines would have won.
    let (planted, _) = root().ok("mkdir /tmp/planted; cp -r /etc/ssh/. /tmp/planted
        rm /tmp/planted/sshd_config.d/00-testboot.conf
        sed -i 's,/etc/ssh/,/tmp/planted/,' /tmp/planted/sshd_config
        sshd -T -h /tmp/host_key -f /tmp/planted/sshd_config");
    for lost in SSHD {
        assert!(!planted.lines().any(|line| line == *lost), "{lost} does not come from our file");
    }
}

/// chronyd reads our file where Debian has it read such files.
#[test]
fn chronyd() {
    check_chrony(&root().ok("chronyd -p -f /etc/chrony/chrony.conf").0);
}

/// cloud-init takes the list of the last file; Debian's package may write one of its own.
#[test]
fn cloud_init() {
    root().write("/etc/cloud/cloud.cfg.d/90_dpkg.cfg", "0644", "datasource_list: [Azure, None]\n");
    let (list, _) = root().ok("python3 -c '
from cloudinit.util import read_conf_with_confd
print(*read_conf_with_confd(\"/etc/cloud/cloud.cfg\")[\"datasource_list\"])'");
    assert_eq!(list.trim_end(), DATASOURCES);
}

/// Of all sysctl.d files, the last one that sets a key decides: one of a distro's, and an
/// administrator's that sorts before ours, must lose, and one that sorts after ours must win.
#[test]
fn sysctl() {
    root().write("/usr/lib/sysctl.d/60-planted.conf", "0644", "vm.swappiness = 60\nnet/core/somaxconn=1\n");
    root().write("/etc/sysctl.d/50-planted.conf", "0644", "fs.file-max = 1\n");
    root().write("/etc/sysctl.d/99-planted.conf", "0644", "kernel.panic = 10\n");
    // systemd itself says which files it reads, and in which order.
    let (shown, _) = root().ok("/usr/lib/systemd/systemd-sysctl --cat-config");
    check_sysctl(&shown, &[SYSCTL_OF_A_NETWORK, SYSCTL_OF_THE_MACHINE, &[("kernel.panic", "10")]].concat());
    for (key, _) in SYSCTL_OF_THE_MACHINE {
        let file = Path::new("/proc/sys").join(key.replace('.', "/"));
        assert!(file.exists(), "the kernel knows no {key}");
    }
}

/// What each network has of its own is set in a new one, by the program that does so at boot, and
/// read back from the kernel.
#[test]
fn sysctl_in_force() {
    root().write("/usr/lib/sysctl.d/60-planted-network.conf", "0644", "net.ipv4.tcp_fin_timeout = 60\n");
    let keys: String =
        SYSCTL_OF_A_NETWORK.iter().map(|(key, _)| format!(" {}", key.replace('.', "/"))).collect();
    let (shown, complaints) = root().ok(&format!(
        "unshare --net sh -euc '
        show() {{ for key in {keys}; do echo $key=$(cat /proc/sys/$key); done; }}
        show
        /usr/lib/systemd/systemd-sysctl --prefix=net
        show'"
    ));
    // The one key that a new network has not got is the machine's.
    let backlog = |line: &&str| !line.contains("net/core/netdev_max_backlog");
    assert_eq!(complaints.lines().filter(backlog).collect::<Vec<_>>(), [""; 0]);
    let values: Vec<&str> = shown.lines().map(|line| line.split_once('=').unwrap().1).collect();
    let (before, after) = values.split_at(SYSCTL_OF_A_NETWORK.len());
    for (number, (key, expected)) in SYSCTL_OF_A_NETWORK.iter().enumerate() {
        let seen: Vec<&str> = after[number].split_whitespace().collect();
        assert_eq!(seen.join(" "), *expected, "{key}");
        assert_ne!(before[number], after[number], "{key} is the kernel's own default: nothing is shown");
    }
}

fn check_systemd_config(name: &str, expected: &[(&str, &str)]) {
    let (shipped, _) = root().ok(&format!("cat /etc/systemd/{name}"));
    let (shown, _) = root().ok(&format!("systemd-analyze cat-config systemd/{name}"));
    check_systemd(&shown, &shipped, expected);
}

#[test]
fn systemd_limits() {
    check_systemd_config("system.conf", LIMITS);
}

#[test]
fn journald() {
    check_systemd_config("journald.conf", JOURNALD);
}

/// The ruleset is loaded into a network of its own, where it lets in what it should.
#[test]
fn firewall() {
    root().write(
        "/etc/testboot/firewall.d/planted.nft",
        "0644",
        "add element inet testboot open_tcp { 8443 }\n",
    );
    let (rules, _) = root().ok("unshare --net sh -euc '
        nft --check --file /usr/lib/testboot/firewall.nft
        nft --file /usr/lib/testboot/firewall.nft
        # Again, as when it is reloaded.
        nft --file /usr/lib/testboot/firewall.nft
        nft --json list ruleset'");
    let rules: Value = serde_json::from_str(&rules).unwrap();
    let objects = |kind: &str| -> Vec<Value> {
        let all = rules["nftables"].as_array().unwrap().iter();
        all.filter_map(|object| object.get(kind).cloned()).collect()
    };
    let chain = |hook: &str| objects("chain").into_iter().find(|chain| chain["hook"] == hook).unwrap();
    assert_eq!(chain("input")["policy"], "drop");
    assert_eq!(chain("forward")["policy"], "drop");
    let open =
        |name: &str| objects("set").into_iter().find(|set| set["name"] == name).unwrap()["elem"].clone();
    assert_eq!(open("open_tcp"), json!([22, 80, 443, 8443]));
    assert_eq!(open("open_udp"), Value::Null);
    let unit = root().ok("systemd-analyze cat-config systemd/system/nftables.service").0;
    assert!(unit.contains("\nExecStart=/usr/sbin/nft -f /usr/lib/testboot/firewall.nft\n"), "{unit}");
}

/// The base's nginx, with its modules and its users, reads the repository's configuration. It
/// binds the ports too, in a network of its own.
#[test]
fn nginx() {
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/os/nginx.conf");
    root().write("/tmp/nginx.conf", "0644", &fs::read_to_string(conf).unwrap());
    let (_, said) =
        root().ok("mkdir -p /var/lib/nginx /var/log/nginx; unshare --net nginx -t -c /tmp/nginx.conf");
    assert!(said.contains("test is successful") && !said.contains("[warn]"), "{said}");
}

/// Every unit that the base adds or changes, and the targets that pull them in: systemd loads
/// them, finds their programs, and can put them into an order.
#[test]
fn units() {
    // It is in no Debian package.
    root().write("/usr/bin/bootc", "0755", "#!/bin/sh\n");
    let (units, _) = root().ok("cd /usr/lib/systemd/system
        ls -d testboot-* | cat
        ls -d */*testboot*.conf | sed 's,.d/.*,,'");
    let units: Vec<&str> = units.lines().filter(|unit| *unit != "bootc-fetch-apply-updates.timer").collect();
    assert!(units.contains(&"testboot-health.service") && units.contains(&"nftables.service"), "{units:?}");
    let (said, complaints) = root().ok(&format!(
        "systemd-analyze verify --man=no --recursive-errors=yes {} multi-user.target boot-complete.target",
        units.join(" ")
    ));
    assert_eq!(format!("{said}{complaints}"), "");
}

#[test]
fn scripts() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let base = repository.join("base").canonicalize().unwrap();
    let libexec = base.join("shared/rootfs/usr/libexec/testboot");
    let mut command = Command::new(program("shellcheck"));
    command.arg(base.join("debian/13/customize.sh"));
    command.args(fs::read_dir(libexec).unwrap().map(|entry| entry.unwrap().path()));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Stand-ins for the programs that a script calls: each notes how it was called.
fn stand_ins(test: &str, programs: &[(&str, &str)]) -> String {
    let dir = format!("/tmp/{test}");
    for (name, does) in programs {
        let script = format!("#!/bin/sh\necho {name} \"$@\" >>{dir}/calls\n{does}\n");
        root().write(&format!("{dir}/{name}"), "0755", &script);
    }
    dir
}

#[test]
fn upgrades_follow_the_policy() {
    let bootc = "case $1:$2 in
        status:*) cat /tmp/update/status ;;
        *:--help) cat /tmp/update/options ;;
        esac";
    let systemctl = "test ! -e /tmp/update/incomplete";
    let date = "case $* in *yesterday*) echo Sat ;; +%a) echo Sun ;; +%H%M) cat /tmp/update/now ;; esac";
    let dir = stand_ins("update", &[("bootc", bootc), ("date", date), ("systemctl", systemctl)]);
    root().write(&format!("{dir}/options"), "0644", "--download-only --from-downloaded\n");
    // As the units have it: the one that downloads is through before the other decides, however it
    // ended. Both are asked what they would do.
    let check = |policy: &str, window: &str, now: &str, staged: &str, expected: &[&str]| {
        let script = format!(
            "rm -rf {dir}/run; mkdir {dir}/run
            echo {now} >{dir}/now; echo '{{\"status\": {{\"staged\": {staged}}}}}' >{dir}/status
            export PATH={dir}:$PATH RUNTIME_DIRECTORY={dir}/run UPDATE_POLICY='{policy}' UPDATE_WINDOW='{window}'
            for does in download apply; do
                code=0
                /usr/libexec/testboot/update $does >{dir}/said 2>&1 || code=$?
                cat {dir}/said
                case $code in 0) echo $does ;; 1) ;; *) echo \"$does failed: $code\" ;; esac
            done"
        );
        let (said, _) = root().ok(&script);
        let said: Vec<&str> = said.lines().collect();
        assert_eq!(said, expected, "{policy}, {window} at {now}, {staged}");
    };
    let (download, apply) = ("download", "apply");
    let (waits, none) = (r#"{"downloadOnly": true}"#, "null");
    let reboots = |window: &str| format!("rebooting into the upgrade: it is within {window}");

    check("off", "", "0300", waits, &[]);
    check("download", "", "0300", none, &[download]);
    check("download", "02:00-04:00", "0300", waits, &[download]);
    // Someone has said that it is to be applied at the next reboot: it stays so.
    let said = "an upgrade is to be applied at the next reboot already";
    check("download", "", "0300", r#"{"downloadOnly": false}"#, &[said]);

    let within =
        |window: &str, now: &str| check("window", window, now, waits, &[download, &reboots(window), apply]);
    let outside = |window: &str, now: &str| check("window", window, now, waits, &[download]);
    check("window", "02:00-04:00", "0300", none, &[download]);
    within("02:00-04:00", "0200");
    within("02:00-04:00", "0359");
    outside("02:00-04:00", "0400");
    outside("02:00-04:00", "0159");
    within("Fri,Sun 08:00-09:30", "0809");
    outside("Fri,Sat 08:00-09:30", "0809");
    // Past midnight, the day is that on which it began: it is Sunday now.
    within("22:00-02:00", "2300");
    within("22:00-02:00", "0100");
    outside("22:00-02:00", "0200");
    within("Sat 22:00-02:00", "0100");
    outside("Sun 22:00-02:00", "0100");
    outside("Sat 22:00-02:00", "2300");

    let wrong = |window: &str| {
        let told =
            format!("testboot-update: UPDATE_WINDOW is '{window}': write it like 'Sat,Sun 02:00-04:00'");
        check("window", window, "0300", waits, &[&told, "download failed: 255", &told, "apply failed: 255"]);
    };
    for window in ["", "2:00-4:00", "02:00", "24:00-25:00", "Sundays 02:00-04:00", "02:00-04:00 Sun"] {
        wrong(window);
    }
    let rolled_back = "a rollback waits for the next reboot: nothing is upgraded before";
    check("window", "02:00-04:00", "0300", r#"null, "rollbackQueued": true"#, &[rolled_back, rolled_back]);
    // From a boot that is not good, nobody goes on.
    root().write(&format!("{dir}/incomplete"), "0644", "");
    let incomplete = "this boot is not complete: see 'journalctl --unit testboot-health.service'";
    check("window", "02:00-04:00", "0300", waits, &[download, incomplete]);
    root().ok(&format!("rm {dir}/incomplete"));
    // A bootc that can do one of the two only, or neither: told once.
    for (options, lacks) in
        [("--from-downloaded", "--download-only"), ("--download-only", "--from-downloaded")]
    {
        root().write(&format!("{dir}/options"), "0644", options);
        let told = format!(
            "this bootc has no {lacks}, so this host does not upgrade by itself: run 'bootc upgrade' and reboot"
        );
        check("window", "02:00-04:00", "0300", waits, &[&told]);
    }
    root().write(&format!("{dir}/options"), "0644", "--download-only --from-downloaded\n");
    let told = "testboot-update: UPDATE_POLICY is 'never': write off, download or window";
    check("never", "", "0300", waits, &[told, "download failed: 255", told, "apply failed: 255"]);

    // The registry is not asked each hour, but what was downloaded and is gone is asked for.
    let (asked, _) = root().ok(&format!(
        "rm -rf {dir}/run; mkdir {dir}/run
        export PATH={dir}:$PATH RUNTIME_DIRECTORY={dir}/run
        ask() {{ if /usr/libexec/testboot/update download; then /usr/libexec/testboot/update downloaded; echo $1; fi; }}
        staged() {{ echo '{{\"status\": {{\"staged\": '\"$1\"'}}}}' >{dir}/status; }}
        staged null; ask 1; ask 2; ask 3
        touch -d '6 hours ago' {dir}/run/downloaded; ask 4
        staged '{{\"downloadOnly\": true, \"image\": {{\"imageDigest\": \"sha256:a\"}}}}'
        /usr/libexec/testboot/update downloaded; ask 5
        staged null; ask 6; ask 7"
    ));
    assert_eq!(asked, "1\n4\n6\n");
    // The note is where a reboot takes it away, as it does what was downloaded.
    let (unit, _) = root().ok("cat /usr/lib/systemd/system/testboot-update.service");
    for line in [
        "RuntimeDirectory=testboot",
        "RuntimeDirectoryPreserve=yes",
        "ExecCondition=/usr/libexec/testboot/update download",
        "ExecStart=/usr/bin/bootc upgrade --download-only",
    ] {
        assert!(unit.lines().any(|found| found == line), "{line}");
    }
}

#[test]
fn a_boot_gets_a_verdict() {
    // The address is the last argument.
    let curl = "for url; do :; done
        case $url in */slow) printf 503 ;; */broken) printf 000 ;; *) printf 404 ;; esac";
    let systemctl = "cat /tmp/health/failed";
    let dir = stand_ins("health", &[("curl", curl), ("systemctl", systemctl), ("sleep", "")]);
    let verdict = |locations: &str, failed: &str, check: &str| -> String {
        root().write("/usr/share/nginx/apps/planted.location.conf", "0644", locations);
        root().write(&format!("{dir}/failed"), "0644", failed);
        root().write("/etc/testboot/health.d/planted", "0755", &format!("#!/bin/sh\n{check}\n"));
        let script = format!("PATH={dir}:$PATH /usr/libexec/testboot/health 2>&1 || echo failed");
        root().ok(&script).0
    };
    let two_ways = "location = /shop {\n}\nlocation /shop/ {\n}\nlocation ~ \\.php$ {\n}\n";
    insta::assert_snapshot!(verdict(two_ways, "", "true"), @"
    good: /shop is answered: 404
    good: /shop/ is answered: 404
    good: /etc/testboot/health.d/planted
    good: no unit has failed
    ");
    insta::assert_snapshot!(verdict("", "", "true"), @"
    good: / is answered: 404
    good: /etc/testboot/health.d/planted
    good: no unit has failed
    ");
    let silent = "location = /slow {\n}\nlocation = /broken {\n}\n";
    insta::assert_snapshot!(verdict(silent, "a.service loaded failed failed A\ntestboot-update.service loaded failed failed B\n", "false"), @"
    bad: no answer for /slow: 503
    bad: no answer for /broken: 000
    bad: /etc/testboot/health.d/planted
    bad: a.service has failed
    failed
    ");
}

/// An image is accepted with a signature only once there is a key, and all others as before.
#[test]
fn signatures_are_asked_for() {
    let registry = Registry::docker();
    let workspace = Workspace::with_standin();
    let standin = format!("oci:{}:t", workspace.path("../standin").display());
    let (ours, other) =
        (format!("{}/team/os", registry.address()), format!("{}/team/other", registry.address()));
    for image in [&ours, &other] {
        skopeo_push(&standin, &format!("{image}:v1"), "");
    }

    let keys = |name: &str| workspace.path(&format!("../{name}")).display().to_string();
    let make_key = |name: &str| {
        let curve = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256";
        judge("openssl", &format!("genpkey {curve} -out {}", keys(name)));
        judge("openssl", &format!("ec -pubout -in {0} -out {0}.pub", keys(name)));
    };
    make_key("key");
    make_key("foreign-key");

    let distro = json!({
        "default": [{"type": "insecureAcceptAnything"}],
        "transports": {"docker": {"registry.example": [{"type": "reject"}]}},
    });
    root().write("/etc/containers/policy.json", "0644", &distro.to_string());
    root().write("/etc/testboot/signing-key.pub", "0644", &fs::read_to_string(keys("key.pub")).unwrap());
    let status = json!({"spec": {"image": {"image": format!("{ours}:v1"), "transport": "registry"}}});
    let dir = stand_ins("trust", &[("bootc", &format!("echo '{status}'"))]);
    let trust = |verb: &str| -> Value {
        let script = format!(
            "PATH={dir}:$PATH /usr/libexec/testboot/trust {verb} >/dev/null
            cat /etc/containers/policy.json"
        );
        serde_json::from_str(&root().ok(&script).0).unwrap()
    };
    let policy = trust("on");
    assert_eq!(trust("on"), policy, "once more changes nothing");
    let mut expected = distro.clone();
    expected["transports"]["docker"][&ours] = json!([{
        "type": "sigstoreSigned",
        "keyPath": "/etc/testboot/signing-key.pub",
        "signedIdentity": {"type": "matchRepository"},
    }]);
    assert_eq!(policy, expected);

    // skopeo reads here what a host has there.
    let policy = policy.to_string().replace("/etc/testboot/signing-key.pub", &keys("key.pub"));
    workspace.write("../policy.json", &policy);
    let (registries, _) = root().ok("cat /etc/containers/registries.d/testboot.yaml");
    workspace.write("../registries.d/testboot.yaml", &registries);
    let pull = |image: &str| {
        let output = Command::new(program("skopeo"))
            .args(["--policy", &keys("policy.json"), "--registries.d", &keys("registries.d")])
            .args(["copy", "--quiet", "--src-tls-verify=false"])
            .args([format!("docker://{image}:v1"), format!("dir:{}", keys("pulled"))])
            .output()
            .unwrap();
        if output.status.success() {
            "accepted".to_owned()
        } else {
            String::from_utf8(output.stderr).unwrap()
        }
    };
    assert_eq!(pull(&other), "accepted");
    let refused = pull(&ours);
    assert!(refused.contains("A signature was required, but no signature exists"), "{refused}");

    let sign = |key: &str| workspace.ok(&format!("sign {ours}:v1 --key {}", keys(key)));
    sign("foreign-key");
    let refused = pull(&ours);
    assert!(refused.contains("Source image rejected"), "{refused}");
    sign("key");
    let pulled = pull(&ours);
    assert!(pulled == "accepted" || pulled.contains(NO_SIGSTORE), "{pulled}");

    assert_eq!(trust("off"), distro);
    root().ok("test ! -e /etc/containers/registries.d/testboot.yaml");
    // A copy of what the distro has below /usr goes away again.
    root().ok("mkdir -p /usr/share/containers
        echo '{\"default\": [{\"type\": \"reject\"}]}' >/usr/share/containers/policy.json
        rm /etc/containers/policy.json");
    assert_eq!(trust("on")["default"][0]["type"], "reject");
    root().ok(&format!(
        "PATH={dir}:$PATH /usr/libexec/testboot/trust off; test ! -e /etc/containers/policy.json"
    ));
}

/// What Debian 12's skopeo says of every signature that it has found: sigstore is patched out of it.
const NO_SIGSTORE: &str = "Debian-local change: sigstore disabled";
