//! Units to the links that enable them, below /usr.
//!
//! `systemctl enable` puts its links into /etc, which a host merges with its own, and presets act
//! at the first boot only. A link in /usr is part of the image: it comes and goes with an
//! upgrade, and an administrator can still turn the unit off with `systemctl mask`.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use crate::workspace::unit::{InstallError, Unit, UnitName};

/// Where the image's units are. Source: systemd.unit(5), "Unit File Load Path".
pub(crate) const UNITS: &str = "usr/lib/systemd/system";

/// A symbolic link that enables a unit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EnableLink {
    /// The unit whose file asks for it.
    pub(crate) unit: UnitName,
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

impl EnableError {
    pub(crate) fn hint(&self) -> String {
        match self {
            EnableError::Install { unit, .. } => format!("mend the [Install] section of {unit}"),
            EnableError::Also { also, .. } => format!("add systemd/{also}, or remove it from Also="),
            EnableError::TwoTargets { second, .. } => format!("remove the alias from {second}"),
            EnableError::AliasIsUnit { alias, .. } => format!("remove Alias={alias}"),
        }
    }
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
        let link = |(path, (target, unit)): (String, (String, &UnitName))| EnableLink {
            unit: unit.clone(),
            path: format!("{UNITS}/{path}"),
            target,
        };
        self.0.into_iter().map(link).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::workspace::files::SourceFile;
    use crate::workspace::oracle;

    fn units(files: &[(&str, &str)]) -> Vec<Unit> {
        let parse = |(name, install): &(&str, &str)| {
            let bytes = unit_text(install).into_bytes();
            Unit::parse(SourceFile { path: format!("systemd/{name}").into(), bytes }).unwrap()
        };
        files.iter().map(parse).collect()
    }

    fn unit_text(install: &str) -> String {
        format!("[Service]\nExecStart=/usr/bin/true\n[Install]\n{install}")
    }

    /// The links of `enable`, as `<link> -> <unit>`.
    fn ours(files: &[(&str, &str)]) -> Vec<String> {
        let shown = |EnableLink { path, target, .. }: EnableLink| {
            let path = path.strip_prefix(UNITS).unwrap().trim_start_matches('/');
            format!("{path} -> {}", target.trim_start_matches("../"))
        };
        let mut links: Vec<String> = enable(&units(files)).unwrap().into_iter().map(shown).collect();
        links.sort();
        links
    }

    /// The links that systemctl makes, in the same form.
    fn systemctls(verb: &str, files: &[(&str, &str)]) -> Vec<String> {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(UNITS);
        fs::create_dir_all(&folder).unwrap();
        for (name, install) in files {
            fs::write(folder.join(name), unit_text(install)).unwrap();
        }
        let mut command = oracle::program("systemctl");
        command.arg("--root").arg(root.path()).arg("--quiet").arg(verb);
        oracle::succeed(command.args(files.iter().map(|(name, _)| name)));
        let mut links = Vec::new();
        let etc = root.path().join("etc/systemd/system");
        if etc.exists() {
            list_links(&etc, "", &mut links);
        }
        links.sort();
        links
    }

    fn list_links(folder: &Path, prefix: &str, links: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().into_string().unwrap());
            if entry.file_type().unwrap().is_dir() {
                list_links(&entry.path(), &format!("{name}/"), links);
            } else {
                let target = fs::read_link(entry.path()).unwrap();
                links.push(format!("{name} -> {}", target.file_name().unwrap().to_str().unwrap()));
            }
        }
    }

    /// `enable` and `systemctl enable` agree, and make so many links.
    fn check(count: usize, files: &[(&str, &str)]) {
        let expected = systemctls("enable", files);
        assert_eq!(ours(files), expected, "for {files:?}");
        assert_eq!(expected.len(), count, "for {files:?}: {expected:?}");
    }

    #[test]
    fn agrees_with_systemctl() {
        check(1, &[("a.service", "WantedBy=multi-user.target\n")]);
        check(3, &[("a.service", "WantedBy=x.target y.target\nRequiredBy=z.service\n")]);
        check(2, &[("a.service", "WantedBy=x.target\nWantedBy=y.target x.target\n")]);
        check(1, &[("a.service", "WantedBy=x.target\nWantedBy=\nWantedBy=y.target\n")]);
        check(2, &[("a.service", "WantedBy=\"x.target\"  'y'.target\n")]);
        check(2, &[("a.service", "WantedBy=x.target \\\n# inside\n; of it\n  y.target\n")]);
        check(
            1,
            &[("a.service", "# WantedBy=no.target\nWantedBy = x.target\n[X-Other]\nWantedBy=no.target\n")],
        );
        check(2, &[("a.service", "WantedBy=x.target\n[Unit]\n[Install]\nWantedBy=y.target\n")]);
        check(2, &[(r"a\x2db.service", r"WantedBy=c\x2dd.target x.target")]);
        check(1, &[("a.service", "WantedBy=x@one.target\n")]);
        check(1, &[("a.service", "WantedBy=x@.target\n")]);
    }

    #[test]
    fn agrees_with_systemctl_about_other_names() {
        check(2, &[("a.service", "Alias=b.service c.service\n")]);
        check(2, &[("a.service", "Alias=b.service\nWantedBy=x.target\n")]);
        check(1, &[("a.service", "Alias=b.service\nAlias=\nAlias=c.service\n")]);
        check(2, &[("a@.service", "Alias=b@.service c@one.service\n")]);
        check(2, &[("a.socket", "WantedBy=sockets.target\nAlias=b.socket\n")]);
    }

    #[test]
    fn agrees_with_systemctl_about_templates() {
        check(1, &[("a@.service", "WantedBy=x.target\nDefaultInstance=one\n")]);
        check(2, &[("a@.service", "WantedBy=x@%i.target y.target\nDefaultInstance=one\n")]);
        check(1, &[("a@.service", "WantedBy=x.target\nDefaultInstance=no\nDefaultInstance=%p\n")]);
        check(2, &[("a@.service", "WantedBy=x.target\nDefaultInstance=one\nAlias=b@.service\n")]);
        check(1, &[("a@.service", "WantedBy=x@.target\n")]);
        check(2, &[("a@one.service", "WantedBy=x.target x-%i.target\n")]);
    }

    #[test]
    fn agrees_with_systemctl_about_also() {
        check(
            2,
            &[
                ("a.service", "Also=a.socket\nWantedBy=x.target\n"),
                ("a.socket", "Also=a.service\nWantedBy=sockets.target\n"),
            ],
        );
        let instances = [
            ("a.service", "WantedBy=x.target\nAlso=t@one.service\nAlso=\nAlso=t@%N.service\n"),
            ("t@.service", "WantedBy=x.target y@%i.target\n"),
        ];
        // A template that has no default instance cannot be enabled by its own name; a preset
        // passes over it, and so does `enable`.
        assert_eq!(ours(&instances), systemctls("preset", &instances));
        assert_eq!(ours(&instances).len(), 6);
    }

    #[test]
    fn agrees_with_systemctl_about_specifiers() {
        check(5, &[("a-b.service", "WantedBy=%n.wants.target %N.target %p-x.target %j.target p%i.target\n")]);
        check(
            6,
            &[(
                "a-b@.service",
                "DefaultInstance=one\nWantedBy=%n.target %N.target %p-x.target %j.target p%i.target i@%i.target\n",
            )],
        );
        check(1, &[("a.service", "Alias=%p-other.service\n")]);
    }

    /// systemctl knows UpheldBy since version 254, which not every machine has.
    #[test]
    fn links_and_preset() {
        let units = units(&[
            ("b.service", "WantedBy=multi-user.target\nUpheldBy=c.service\nAlias=d.service\n"),
            ("a.service", "Also=b.service\n"),
            ("static.service", ""),
        ]);
        let links = enable(&units).unwrap();
        let shown: String = links.iter().map(|link| format!("{} -> {}\n", link.path, link.target)).collect();
        insta::assert_snapshot!(shown, @r#"
        usr/lib/systemd/system/c.service.upholds/b.service -> ../b.service
        usr/lib/systemd/system/d.service -> b.service
        usr/lib/systemd/system/multi-user.target.wants/b.service -> ../b.service
        "#);
        assert_eq!(preset(&units), "enable a.service\nenable b.service\n");
    }

    #[test]
    fn errors() {
        let error = |files| {
            let error = enable(&units(files)).unwrap_err();
            format!("{error}; {}", error.hint())
        };
        assert_eq!(
            error(&[("a.service", "Also=b.service")]),
            "a.service: `Also=b.service` is not a unit of this workspace; \
             add systemd/b.service, or remove it from Also="
        );
        assert_eq!(
            error(&[("a.service", "Alias=c.service"), ("b.service", "Alias=c.service")]),
            "a.service and b.service both ask for the link usr/lib/systemd/system/c.service; \
             remove the alias from b.service"
        );
        assert_eq!(
            error(&[("a.service", "Alias=b.service"), ("b.service", "")]),
            "a.service has the alias b.service, which is a unit of its own; remove Alias=b.service"
        );
    }
}
