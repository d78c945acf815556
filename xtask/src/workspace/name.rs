//! What apps are called.

use std::fmt;
use std::str::FromStr;

use super::unit::UnitName;

/// The longest name: with what is put around it, it still fits into a unit's or a file's name.
const NAME_MAX: usize = 64;
/// Programs without which no host works, or nobody gets into it: an app of such a name would
/// take its place in /usr/bin, which on newer distros is /usr/sbin as well. What else a base has is
/// not known here, since its layers stay in their registry.
const SYSTEM: [&str; 74] = [
    "awk",
    "bash",
    "bootc",
    "bootctl",
    "busctl",
    "cat",
    "chcon",
    "chmod",
    "chown",
    "chronyc",
    "chronyd",
    "cloud-init",
    "cp",
    "curl",
    "dash",
    "date",
    "dbus-broker",
    "dbus-daemon",
    "dd",
    "dnf",
    "dracut",
    "echo",
    "env",
    "findmnt",
    "firewall-cmd",
    "firewalld",
    "fsck",
    "getent",
    "grep",
    "grub2-mkconfig",
    "gzip",
    "hostname",
    "id",
    "init",
    "install",
    "ip",
    "journalctl",
    "kmod",
    "ln",
    "login",
    "ls",
    "mkdir",
    "modprobe",
    "mount",
    "mv",
    "nft",
    "ostree",
    "passwd",
    "podman",
    "ps",
    "python3",
    "reboot",
    "restorecon",
    "rm",
    "rpm",
    "rpm-ostree",
    "sed",
    "setpriv",
    "sh",
    "skopeo",
    "sleep",
    "ssh",
    "sshd",
    "stat",
    "su",
    "sudo",
    "sysctl",
    "systemctl",
    "tar",
    "test",
    "true",
    "umount",
    "useradd",
    "vi",
];
/// Units of the bases, without their kinds: an app's own unit of such a name would take its place, and a host would be
/// without its firewall, its bus or a way in.
const SYSTEM_UNITS: [&str; 89] = [
    "apt-daily",
    "apt-daily-upgrade",
    "auditd",
    "autovt@",
    "avahi-daemon",
    "bootc-fetch-apply-updates",
    "chrony",
    "chrony-dnssrv@",
    "chrony-wait",
    "chronyd",
    "chronyd-restricted",
    "cloud-config",
    "cloud-final",
    "cloud-init",
    "cloud-init-hotplugd",
    "cloud-init-local",
    "cloud-init-main",
    "cloud-init-network",
    "console-getty",
    "container-getty@",
    "cron",
    "crond",
    "cryptdisks",
    "cryptdisks-early",
    "dbus",
    "dbus-broker",
    "debug-shell",
    "dnf-makecache",
    "dpkg-db-backup",
    "dracut-shutdown",
    "emergency",
    "firewalld",
    "fstrim",
    "getty-static",
    "getty@",
    "grub-common",
    "gssproxy",
    "hwclock",
    "import-state",
    "irqbalance",
    "kdump",
    "kmod",
    "kmod-static-nodes",
    "ldconfig",
    "lvm2-monitor",
    "mdmonitor",
    "modprobe@",
    "multipathd",
    "networking",
    "nftables",
    "nis-domainname",
    "ostree-boot-complete",
    "ostree-finalize-staged",
    "ostree-finalize-staged-hold",
    "ostree-prepare-root",
    "ostree-remount",
    "ostree-state-overlay@",
    "polkit",
    "procps",
    "quotaon-root",
    "quotaon@",
    "rc-local",
    "rescue",
    "rpcbind",
    "rpm-ostree-countme",
    "rpm-ostreed",
    "rsyslog",
    "selinux-autorelabel",
    "selinux-autorelabel-mark",
    "serial-getty@",
    "ssh",
    "sshd",
    "sshd-keygen",
    "sshd-keygen@",
    "sshd@",
    "sssd",
    "sudo",
    "syslog",
    "sysstat",
    "sysstat-collect",
    "sysstat-rotate",
    "sysstat-summary",
    "system-update-cleanup",
    "systemd",
    "tuned",
    "udev",
    "user-runtime-dir@",
    "user@",
    "x11-common",
];
/// Names that mean something else already.
const RESERVED: [(&str, &str); 3] = [
    ("base", "what the layers of the base are called"),
    ("os", "the layer of what belongs to no app"),
    ("nginx", "the web server"),
];

/// An app's name: of its folder, program, unit, layer and upstream.
///
/// Lower-case letters, digits and dashes; it starts with a letter and does not end with a dash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AppName(String);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AppNameError {
    #[error(
        "`{0}` is not the name of an app: lower-case letters, digits and dashes, at most 64, first a letter, \
         last no dash"
    )]
    Malformed(String),
    #[error("`{name}` cannot be the name of an app: it is {meaning}")]
    Reserved { name: String, meaning: &'static str },
    #[error("`{0}` cannot be the name of an app: its program would replace the system's own /usr/bin/{0}")]
    System(String),
    #[error("`{0}` cannot be the name of an app: its unit would replace the system's own {0}.service")]
    SystemUnit(String),
}

/// Whether a base has a unit of this stem, or may have.
pub(super) fn is_systems_unit(stem: &str) -> bool {
    SYSTEM_UNITS.contains(&stem) || stem.starts_with("systemd-")
}

impl AppName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The app's program in the image, as units call it.
    pub(crate) fn program(&self) -> String {
        format!("/usr/bin/{self}")
    }

    /// Whether a unit of this name belongs to the app: `hello.service`, `hello@.service`,
    /// `hello-cleanup.timer`. `hello-world.service` belongs to `hello-world` where there is such
    /// an app (see `app::owner`); `hellos.service` is not of the family.
    pub(super) fn owns(&self, unit: &UnitName) -> bool {
        let rest = unit.prefix().strip_prefix(self.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }
}

impl FromStr for AppName {
    type Err = AppNameError;

    fn from_str(text: &str) -> Result<AppName, AppNameError> {
        let is_valid = text.len() <= NAME_MAX
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !text.ends_with('-');
        if !is_valid {
            return Err(AppNameError::Malformed(text.to_owned()));
        }
        if SYSTEM.contains(&text) || text.starts_with("systemd-") {
            return Err(AppNameError::System(text.to_owned()));
        }
        if is_systems_unit(text) {
            return Err(AppNameError::SystemUnit(text.to_owned()));
        }
        // Its unit would take the place of testboot-health.service or another one of base/shared.
        if text == "testboot" || text.starts_with("testboot-") {
            let meaning = "what the system's own programs and units are called";
            return Err(AppNameError::Reserved { name: text.to_owned(), meaning });
        }
        match RESERVED.into_iter().find(|(name, _)| *name == text) {
            Some((_, meaning)) => Err(AppNameError::Reserved { name: text.to_owned(), meaning }),
            None => Ok(AppName(text.to_owned())),
        }
    }
}

impl fmt::Display for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_takes_no_programs_place() {
        for name in ["sh", "sshd", "systemctl", "systemd-run", "nginx", "init", "sudo"] {
            assert!(name.parse::<AppName>().is_err(), "{name}");
        }
        let error = "sh".parse::<AppName>().unwrap_err().to_string();
        assert_eq!(
            error,
            "`sh` cannot be the name of an app: its program would replace the system's own /usr/bin/sh"
        );
        let error = "nftables".parse::<AppName>().unwrap_err().to_string();
        assert_eq!(
            error,
            "`nftables` cannot be the name of an app: its unit would replace the system's own nftables.service"
        );
        for name in ["testboot", "testboot-health", "testboot-update"] {
            let error = name.parse::<AppName>().unwrap_err().to_string();
            assert!(error.ends_with("it is what the system's own programs and units are called"), "{error}");
        }
        for name in ["shop", "sshd-stats", "hello", "status", "my-systemd", "testboots", "user", "cloud"] {
            assert!(name.parse::<AppName>().is_ok(), "{name}");
        }
        assert!(SYSTEM.is_sorted() && SYSTEM_UNITS.is_sorted());
    }
}
