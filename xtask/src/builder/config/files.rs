//! The files of `configs/builder` that say what disks are made with.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result};

use super::read::{MOST_BYTES, Problems};
use super::{Config, KernelArguments, PublicKey, additions, key};
use crate::disk::DiskFormat;
use crate::hint::WithHint;

/// In the workspace.
const FOLDER: &str = "configs/builder";
const COMMON: &str = "config.toml";

/// What disks are made with: all, and those of some formats besides.
#[derive(Default)]
pub(crate) struct Configs {
    common: Config,
    additions: BTreeMap<DiskFormat, KernelArguments>,
}

impl Configs {
    /// Reads the workspace's files, and the public keys in `ssh_key`, if one was given.
    pub(crate) fn read(root: &Path, ssh_key: Option<&Path>) -> Result<Configs> {
        let keys = ssh_key.map(read_keys).transpose()?.unwrap_or_default();
        let folder = root.join(FOLDER);
        let listing = || format!("listing {FOLDER}");
        let (mut configs, mut problems) = (Configs::default(), Problems::default());
        for entry in fs::read_dir(&folder).with_context(listing)? {
            let name = entry.with_context(listing)?.file_name().to_string_lossy().into_owned();
            let Some(format) = name.strip_suffix(".toml") else { continue };
            let file = format!("{FOLDER}/{name}");
            let bytes = || read_bounded(&folder.join(&name)).with_context(|| format!("reading {file}"));
            if name == COMMON {
                match Config::parse(&file, &bytes()?, &keys) {
                    Ok(config) => configs.common = config,
                    Err(more) => problems.extend(more),
                }
                continue;
            }
            let read = match format.parse::<DiskFormat>() {
                Ok(format) => additions(&file, &bytes()?).map(|arguments| (format, arguments)),
                Err(error) => Err(Problems::of_file(&file, error, "rename the file, or remove it")),
            };
            match read {
                Ok((format, arguments)) => drop(configs.additions.insert(format, arguments)),
                Err(more) => problems.extend(more),
            }
        }
        if !folder.join(COMMON).exists() {
            let hint = "write it, if only with a comment: it says what disks are made with";
            problems.extend(Problems::of_file(&format!("{FOLDER}/{COMMON}"), "it is not there", hint));
        }
        Ok(problems.or(configs)?)
    }

    /// What a disk of `format` is made with.
    pub(crate) fn of(&self, format: DiskFormat) -> Config {
        match self.additions.get(&format) {
            Some(additions) => self.common.with(additions),
            None => self.common.clone(),
        }
    }

    /// The file in the workspace that says how disks of `format` differ, if there is one.
    pub(crate) fn file_of(root: &Path, format: DiskFormat) -> Option<String> {
        let file = format!("{FOLDER}/{format}.toml");
        root.join(&file).exists().then_some(file)
    }
}

fn read_keys(path: &Path) -> Result<Vec<PublicKey>> {
    let reading = || format!("reading the ssh key {}", path.display());
    let bytes =
        read_bounded(path).hint("'--ssh-key' names the file of a public key").with_context(reading)?;
    let text = String::from_utf8_lossy(&bytes);
    key::keys(&text).own_hint(key::BadKey::hint).with_context(reading)
}

/// No more than can be right, whatever it is that somebody has named.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
