//! What the base sets, as the programs that read it say it. The same for every distro.

use std::collections::{BTreeMap, BTreeSet};

/// Of `sshd -T`.
pub(crate) const SSHD: &[&str] = &[
    "permitrootlogin no",
    "passwordauthentication no",
    "kbdinteractiveauthentication no",
    "permitemptypasswords no",
    "maxauthtries 3",
    "clientaliveinterval 300",
    "clientalivecountmax 2",
    "x11forwarding no",
    "allowtcpforwarding no",
];

/// What others plant beside ours: each line would undo one of `SSHD`.
pub(crate) const SSHD_PLANTED: &str = "PermitRootLogin yes\nPasswordAuthentication yes\n\
    KbdInteractiveAuthentication yes\nPermitEmptyPasswords yes\nMaxAuthTries 60\nClientAliveInterval 0\n\
    ClientAliveCountMax 9\nX11Forwarding yes\nAllowTcpForwarding yes\n";

/// Of `chronyd -p`: directives of which these are all there are.
pub(crate) const CHRONY: &[(&str, &[&str])] =
    &[("pool", &["pool 2.pool.ntp.org iburst maxsources 4"]), ("server", &[]), ("peer", &[])];

/// Of `chronyd -p`: directives of which the last one counts.
pub(crate) const CHRONY_LAST: &[&str] = &["makestep 1.0 3", "rtcsync"];

/// Keys that each network has of its own.
pub(crate) const SYSCTL_OF_A_NETWORK: &[(&str, &str)] = &[
    ("net.core.somaxconn", "65535"),
    ("net.ipv4.tcp_max_syn_backlog", "65535"),
    ("net.ipv4.tcp_tw_reuse", "1"),
    ("net.ipv4.tcp_fin_timeout", "15"),
    ("net.ipv4.ip_local_port_range", "1024 65535"),
    ("net.ipv4.ip_local_reserved_ports", "8000-9999"),
    ("net.ipv4.tcp_keepalive_time", "300"),
    ("net.ipv4.tcp_keepalive_intvl", "30"),
    ("net.ipv4.tcp_keepalive_probes", "5"),
];

/// Keys of the whole machine, which no test may change.
pub(crate) const SYSCTL_OF_THE_MACHINE: &[(&str, &str)] = &[
    ("net.core.netdev_max_backlog", "65535"),
    ("vm.swappiness", "10"),
    ("vm.dirty_ratio", "40"),
    ("vm.dirty_background_ratio", "10"),
    ("fs.file-max", "2097152"),
    ("fs.inotify.max_user_watches", "524288"),
    ("fs.inotify.max_user_instances", "8192"),
];

/// Of systemd's system.conf.
pub(crate) const LIMITS: &[(&str, &str)] =
    &[("DefaultLimitNOFILE", "65535"), ("DefaultLimitNPROC", "65535"), ("DefaultTasksMax", "65535")];

/// Of systemd's journald.conf.
pub(crate) const JOURNALD: &[(&str, &str)] = &[
    ("Storage", "persistent"),
    ("Compress", "yes"),
    ("SystemMaxUse", "500M"),
    ("SystemMaxFileSize", "50M"),
    ("MaxRetentionSec", "30day"),
    ("RateLimitIntervalSec", "30s"),
    ("RateLimitBurst", "10000"),
    ("ForwardToSyslog", "no"),
];

/// Of cloud-init.
pub(crate) const DATASOURCES: &str = "NoCloud ConfigDrive OVF VMware Ec2 GCE None";

/// Checks what `sshd -T` said.
pub(crate) fn check_sshd(shown: &str) {
    for expected in SSHD {
        assert!(shown.lines().any(|line| line == *expected), "{expected} is not in\n{shown}");
    }
}

/// Checks what `chronyd -p` said. It takes the last value, but adds up the sources.
pub(crate) fn check_chrony(shown: &str) {
    let of = |name: &str| -> Vec<&str> {
        shown.lines().filter(|line| line.split(' ').next() == Some(name)).collect()
    };
    for (name, expected) in CHRONY {
        assert_eq!(of(name), *expected, "{shown}");
    }
    for expected in CHRONY_LAST {
        let name = expected.split(' ').next().unwrap();
        assert_eq!(of(name).last(), Some(expected), "{shown}");
    }
}

/// Checks what `systemd-sysctl --cat-config` said: of all files, the last one that sets a key
/// decides.
pub(crate) fn check_sysctl(shown: &str, expected: &[(&str, &str)]) {
    let settings = shown.lines().filter(|line| !line.starts_with(['#', ';'])).filter_map(|line| {
        let (key, value) = line.trim_start_matches('-').split_once('=')?;
        let words: Vec<&str> = value.split_whitespace().collect();
        Some((key.trim().replace('/', "."), words.join(" ")))
    });
    let in_force: BTreeMap<String, String> = settings.collect();
    for (key, expected) in expected {
        assert_eq!(in_force.get(*key).map(String::as_str), Some(*expected), "{key}\n{shown}");
    }
}

/// Checks what `systemd-analyze cat-config` said of one of systemd's files. Nothing refuses a
/// misspelt key, but the file that systemd ships, `shipped`, names every one there is, in comments.
pub(crate) fn check_systemd(shown: &str, shipped: &str, expected: &[(&str, &str)]) {
    let known: BTreeSet<&str> = shipped
        .lines()
        .filter_map(|line| line.trim_start_matches('#').split_once('=').map(|(key, _)| key))
        .collect();
    let in_force: BTreeMap<&str, &str> =
        shown.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('=')).collect();
    for (key, value) in expected {
        assert_eq!(in_force.get(key), Some(value), "{key}\n{shown}");
    }
    for key in in_force.keys() {
        assert!(known.contains(key), "systemd knows no {key}: {known:?}");
    }
}
