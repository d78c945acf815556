//! What systemd makes of the Debian base when a host boots it for the first time: users, folders and
//! what is on. Its own programs do it here, in copies of the base's root.

use std::collections::BTreeSet;

use crate::root::root;

/// A host without accounts gets those of the image, id for id; one that has them keeps its files.
#[test]
fn users() {
    let (made, _) = root().ok("mkdir -p /tmp/users/usr/lib /tmp/users/etc
        cp -a /usr/lib/sysusers.d /tmp/users/usr/lib
        systemd-sysusers --root=/tmp/users
        cd /tmp/users/etc; for file in passwd group; do sed \"s/^/$file /\" $file; done");
    let (files, _) = root().ok("cd /etc; for file in passwd group; do sed \"s/^/$file /\" $file; done");
    let (declared, _) =
        root().ok("sed -n 's/^\\([ug]\\) \\([^ ]*\\) .*/\\1 \\2/p' /usr/lib/sysusers.d/10-testboot*.conf");
    let in_image: BTreeSet<&str> = files.lines().collect();
    let of = |file: &str, name: &str| -> Vec<&str> {
        let start = format!("{file} {name}:");
        made.lines().filter(|line| line.starts_with(&start)).collect()
    };
    let declared: Vec<(&str, &str)> = declared.lines().map(|line| line.split_once(' ').unwrap()).collect();
    assert!(declared.len() > 10, "{declared:?}");
    for (kind, name) in declared {
        let lines = [of("group", name), if kind == "u" { of("passwd", name) } else { vec![] }].concat();
        assert!(!lines.is_empty() && (kind == "g" || !of("passwd", name).is_empty()), "{name} in\n{made}");
        for line in lines {
            assert!(in_image.contains(line), "{line} is not what the image has:\n{files}");
        }
    }
    assert_eq!(of("passwd", "nginx"), ["passwd nginx:x:110:110:nginx:/var/lib/nginx:/usr/sbin/nologin"]);
    assert_eq!(of("group", "nginx"), ["group nginx:x:110:"]);

    // Once more changes nothing, neither there nor where the image's own accounts are.
    let (changed, _) = root().ok("mkdir -p /tmp/host/usr/lib /tmp/host/etc
        cp -a /usr/lib/sysusers.d /tmp/host/usr/lib
        cp -a /etc/passwd /etc/group /etc/shadow /etc/gshadow /tmp/host/etc
        state() { find /tmp/users/etc /tmp/host/etc -type f ! -name '.*' -exec sh -c 'echo $0 $(stat -c \"%i %Z %a %u\" $0) $(cksum <$0)' {} \\; | sort; }
        state >/tmp/users.before
        for root in users host; do systemd-sysusers --root=/tmp/$root; done
        state | diff /tmp/users.before - || true");
    assert_eq!(changed, "");
}

/// Every line that the base adds makes what it says, where nothing is, and nothing more the second
/// time.
#[test]
fn folders() {
    let (shown, _) = root().ok("mkdir -p /tmp/folders/usr/lib /tmp/folders/usr/share /tmp/folders/etc
        cp -a /usr/lib/tmpfiles.d /tmp/folders/usr/lib; cp -a /usr/share/factory /tmp/folders/usr/share
        cp -a /etc/passwd /etc/group /tmp/folders/etc
        files=$(cd /usr/lib/tmpfiles.d; ls *testboot*)
        make() { systemd-tmpfiles --root=/tmp/folders --create provision.conf $files; }
        state() { find /tmp/folders/var /tmp/folders/run -printf '%p %y %m %u %g %l %i %C@\\n' | sort; }
        make; state >/tmp/folders.before
        make; state | diff /tmp/folders.before -
        cat $(for file in $files; do echo /usr/lib/tmpfiles.d/$file; done) | grep -v '^#' | grep . | while read -r line; do
            set -- $line
            echo \"$line | $(stat -c '%F 0%a %U %G' /tmp/folders$2) | $(readlink /tmp/folders$2)\"
            [ $1 != C ] || cmp /tmp/folders$2 /usr/share/factory$2
        done");
    let mut kinds = BTreeSet::new();
    for line in shown.lines() {
        let [config, seen, link] = line.split(" | ").collect::<Vec<_>>()[..] else { panic!("{line}") };
        let config: Vec<&str> = config.split_whitespace().collect();
        let owner = |kind: &str| format!("{kind} {} {} {}", config[2], config[3], config[4]);
        kinds.insert(config[0]);
        match config[0] {
            "d" => assert_eq!(seen, owner("directory"), "{line}"),
            "C" => assert!(
                [owner("regular file"), owner("regular empty file")].contains(&seen.to_owned()),
                "{line}"
            ),
            "L" => assert_eq!(link, config[6], "{line}"),
            other => panic!("{other} in {line}"),
        }
    }
    assert_eq!(kinds, BTreeSet::from(["C", "L", "d"]));
    let journal = "d /var/log/journal 02755 root systemd-journal - | directory 02755 root systemd-journal | ";
    assert!(shown.lines().any(|line| line == journal), "{shown}");
    let (home, _) = root().ok("stat -c '%a %U' /tmp/folders/var/roothome");
    assert_eq!(home, "700 root\n");
}

/// A first boot may go by presets, and an operator may call `preset-all`: what is on stays on, and
/// nothing else gets on, for the system and for its users.
#[test]
fn presets() {
    let (shown, complaints) = root().ok("mkdir -p /tmp/presets/usr/lib /tmp/presets/etc
        cp -a /usr/lib/systemd /tmp/presets/usr/lib; cp -a /etc/systemd /tmp/presets/etc
        cd /tmp/presets
        state() {
            for scope in system user; do
                find usr/lib/systemd/$scope etc/systemd/$scope -type l -printf \"$scope %P %l\\n\"
            done | sed 's, [^ ]*/\\([^/ ]*\\)$, \\1,' | sort -u
        }
        state >/tmp/presets.before
        systemctl --root=/tmp/presets preset-all
        systemctl --root=/tmp/presets --global preset-all
        find etc -type l | sed 's/^/made /'
        state | diff /tmp/presets.before - || true");
    let (made, changed): (Vec<&str>, Vec<&str>) = shown.lines().partition(|line| line.starts_with("made "));
    assert_eq!(changed, [""; 0], "{complaints}");
    // Presets know of all that we want.
    for link in [
        "system/boot-complete.target.requires/testboot-health.service",
        "system/multi-user.target.wants/testboot-health.service",
        "system/multi-user.target.wants/testboot-trust.service",
        "system/timers.target.wants/testboot-update.timer",
        "system/multi-user.target.wants/nginx.service",
        "system/multi-user.target.wants/ssh.service",
        "system/multi-user.target.wants/chrony.service",
        "system/sysinit.target.wants/nftables.service",
        "system/multi-user.target.wants/systemd-networkd.service",
        "system/cloud-init.target.wants/cloud-init-main.service",
        "user/sockets.target.wants/gpg-agent.socket",
    ] {
        assert!(made.contains(&&*format!("made etc/systemd/{link}")), "{link} in {made:#?}");
    }
}
