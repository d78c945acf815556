//! The root file system of a raw disk, read by e2fsprogs.

use std::path::Path;
use std::process::Command;

use crate::harness::judge;
use crate::testing::program;

/// Where it begins.
const OFFSET: u64 = 135_168 * 512;

pub(crate) struct RootOfDisk {
    /// As e2fsprogs name it.
    file: String,
    /// The path of the one deployment.
    pub(crate) deployment: String,
}

impl RootOfDisk {
    pub(crate) fn new(raw: &Path) -> RootOfDisk {
        let file = format!("{}?offset={OFFSET}", raw.display());
        judge("e2fsck", &format!("-f -n {file}"));
        let mut root = RootOfDisk { file, deployment: String::new() };
        let listing = root.debugfs("ls -p /ostree/deploy/default/deploy");
        let mut names = listing.lines().filter_map(|line| line.split('/').nth(5));
        let name = names.find(|name| name.ends_with(".0")).unwrap_or_else(|| panic!("{listing}"));
        root.deployment = format!("/ostree/deploy/default/deploy/{name}");
        root
    }

    pub(crate) fn debugfs(&self, request: &str) -> String {
        let output = Command::new(program("debugfs")).args(["-R", request, &self.file]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn etc(&self, name: &str) -> String {
        self.debugfs(&format!("cat {}/etc/{name}", self.deployment))
    }

    /// What is in /var on the host.
    pub(crate) fn var(&self, path: &str) -> String {
        self.debugfs(&format!("cat /ostree/deploy/default/var/{path}"))
    }

    /// Owner, group and mode.
    pub(crate) fn stat(&self, path: &str) -> (String, String, String) {
        let text = self.debugfs(&format!("stat {path}"));
        let words: Vec<&str> = text.split_whitespace().collect();
        let after = |name: &str| {
            let at = words.iter().position(|word| *word == name).unwrap_or_else(|| panic!("{path}: {text}"));
            words[at + 1].to_owned()
        };
        (after("User:"), after("Group:"), after("Mode:"))
    }

    pub(crate) fn kernel_arguments(&self) -> String {
        let entry = self.debugfs("cat /boot/loader/syslinux.cfg");
        entry.lines().find(|line| line.contains("APPEND")).unwrap_or_else(|| panic!("{entry}")).to_owned()
    }
}
