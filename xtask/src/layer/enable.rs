//! Units to the links that enable them, below /usr.
//!
//! `systemctl enable` puts its links into /etc, which a host merges with its own, and presets act
//! at the first boot only. A link in /usr is part of the image: it comes and goes with an
//! upgrade, and an administrator can still turn the unit off with `systemctl mask`.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use crate::workspace::install::InstallError;
use crate::workspace::unit::{Unit, UnitName};

/// Where the image's units are. Source: systemd.unit(5), "Unit File Load Path".
pub(crate) const UNITS: &str = "usr/lib/systemd/system";

/// A symbolic link that enables a unit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EnableLink {
    /// Relative to the image's root.
    pub(crate) path: String,
    /// Relative to the folder that the link is in.
    pub(crate) target: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnableError {
    #[error("{unit}: [Install]: {source}")]
    Install { unit: UnitName, source: InstallError },
    #[error("{unit}: `Also={also}` is not a unit of this workspace")]
    Also { unit: UnitName, also: UnitName },
    #[error("{first} and {second} both ask for the link {path}")]
    TwoTargets { first: UnitName, second: UnitName, path: String },
    #[error("{unit} has the alias {alias}, which is a unit of its own")]
    AliasIsUnit { unit: UnitName, alias: UnitName },
}

/// The links that enable `units`, sorted: what `systemctl enable` makes, but in the image's
/// folder of units instead of the administrator's.
///
/// A template without `DefaultInstance=` is enabled by what `Also=` names an instance of.
pub(crate) fn enable(units: &[Unit]) -> Result<Vec<EnableLink>, EnableError> {
    let by_name: BTreeMap<&UnitName, &Unit> = units.iter().map(|unit| (&unit.name, unit)).collect();
    let mut links = Links::default();
    let mut waiting: Vec<UnitName> = by_name.keys().rev().map(|&name| name.clone()).collect();
    let mut seen: BTreeSet<UnitName> = waiting.iter().cloned().collect();
    while let Some(name) = waiting.pop() {
        // An instance is enabled by its template's file, unless it has one of its own.
        let template = name.template();
        let Some((&file, unit)) = by_name.get_key_value(&name).or_else(|| by_name.get_key_value(&template))
        else {
            continue;
        };
        let asked =
            unit.install.of(&name).map_err(|source| EnableError::Install { unit: name.clone(), source })?;
        for needed in &asked.needed_by {
            let folder = format!("{}{}", needed.unit, needed.dependency.suffix());
            links.add(format!("{folder}/{}", needed.name), format!("../{file}"), file)?;
        }
        for alias in &asked.aliases {
            if by_name.contains_key(alias) {
                return Err(EnableError::AliasIsUnit { unit: name, alias: alias.clone() });
            }
            links.add(alias.to_string(), file.to_string(), file)?;
        }
        for also in asked.also {
            if !by_name.contains_key(&also) && !by_name.contains_key(&also.template()) {
                return Err(EnableError::Also { unit: name, also });
            }
            if seen.insert(also.clone()) {
                waiting.push(also);
            }
        }
    }
    Ok(links.into_list())
}

/// The preset file that goes with the links: `systemctl preset-all` then leaves them as they are.
/// A unit without an `[Install]` section cannot be enabled and is not named.
pub(crate) fn preset(units: &[Unit]) -> String {
    let mut names: Vec<&UnitName> =
        units.iter().filter(|unit| !unit.install.is_empty()).map(|unit| &unit.name).collect();
    names.sort();
    names.into_iter().map(|name| format!("enable {name}\n")).collect()
}

#[derive(Default)]
struct Links<'a>(BTreeMap<String, (String, &'a UnitName)>);

impl<'a> Links<'a> {
    fn add(&mut self, path: String, target: String, unit: &'a UnitName) -> Result<(), EnableError> {
        match self.0.entry(path) {
            Entry::Vacant(entry) => {
                entry.insert((target, unit));
            }
            Entry::Occupied(entry) => {
                let (other_target, other) = entry.get();
                if *other_target != target {
                    let (first, second) = ((*other).clone(), unit.clone());
                    let path = format!("{UNITS}/{}", entry.key());
                    return Err(EnableError::TwoTargets { first, second, path });
                }
            }
        }
        Ok(())
    }

    fn into_list(self) -> Vec<EnableLink> {
        let link = |(path, (target, _))| EnableLink { path: format!("{UNITS}/{path}"), target };
        self.0.into_iter().map(link).collect()
    }
}
