//! What a unit's `[Install]` section asks for.
//!
//! The rules are those of `systemctl enable`. Source: systemd, src/shared/install.c, and
//! systemd.unit(5), "[Install] Section Options". Where systemd warns and goes on, this is an
//! error: a unit that is enabled by half is noticed too late on a host.

use super::file::{UnitFile, words};
use super::name::{UnitKind, UnitName, UnitNameError, is_name_char};

/// How a unit is needed by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Dependency {
    Requires,
    Upholds,
    Wants,
}

/// An `[Install]` section as it is written: `%` still stands for parts of the unit's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Install {
    wanted_by: Vec<String>,
    required_by: Vec<String>,
    upheld_by: Vec<String>,
    alias: Vec<String>,
    also: Vec<String>,
    default_instance: Option<String>,
}

/// What enabling one unit asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Enablement {
    /// Units that pull this one in. Without any, the unit starts when something asks for it.
    pub(crate) needed_by: Vec<NeededBy>,
    /// Other names of the same unit.
    pub(crate) aliases: Vec<UnitName>,
    /// Units that are enabled with it.
    pub(crate) also: Vec<UnitName>,
}

/// The link `<unit>.<dependency>/<name>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NeededBy {
    pub(crate) unit: UnitName,
    pub(crate) dependency: Dependency,
    /// What is started: the unit itself, or its default instance.
    pub(crate) name: UnitName,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InstallError {
    #[error("`{key}={value}` leaves a quote open")]
    Quote { key: &'static str, value: String },
    #[error("`{key}={value}`: {source}")]
    Name { key: &'static str, value: String, source: UnitNameError },
    #[error("`{key}={value}` has the specifier `%{specifier}`, which differs from host to host")]
    Specifier { key: &'static str, value: String, specifier: String },
    #[error("`Alias={alias}` is the unit's own name")]
    AliasOfItself { alias: String },
    #[error("`Alias={alias}` is not another name for {name}: {reason}")]
    Alias { alias: String, name: UnitName, reason: &'static str },
    #[error("`DefaultInstance={instance}` in {name}, which is no template")]
    NotATemplate { instance: String, name: UnitName },
    #[error("`DefaultInstance={instance}` cannot be a part of a unit's name")]
    Instance { instance: String },
}

const ALIAS: &str = "Alias";
const ALSO: &str = "Also";
const DEFAULT_INSTANCE: &str = "DefaultInstance";

impl Dependency {
    /// The end of the name of the folder that links of this kind are in.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Dependency::Requires => ".requires",
            Dependency::Upholds => ".upholds",
            Dependency::Wants => ".wants",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Dependency::Requires => "RequiredBy",
            Dependency::Upholds => "UpheldBy",
            Dependency::Wants => "WantedBy",
        }
    }
}

impl InstallError {
    pub(super) fn hint(&self) -> String {
        match self {
            InstallError::Quote { .. } => "close the quote, or remove it".to_owned(),
            InstallError::Name { key, .. } => format!("write it like {key}=multi-user.target"),
            InstallError::Specifier { specifier, .. } => {
                format!("write it out, or use %n, %N, %p, %i, %j or %% instead of %{specifier}")
            }
            InstallError::AliasOfItself { alias } => format!("remove Alias={alias}"),
            InstallError::Alias { alias, .. } => format!("remove Alias={alias}, or choose another name"),
            InstallError::NotATemplate { .. } => "rename the file to NAME@.service, or remove it".to_owned(),
            InstallError::Instance { .. } => "use letters, digits, `:`, `-`, `_` and `.`".to_owned(),
        }
    }
}

impl Install {
    pub(super) fn read(file: &UnitFile) -> Result<Install, InstallError> {
        let list = |key| list(file, key);
        Ok(Install {
            wanted_by: list(Dependency::Wants.key())?,
            required_by: list(Dependency::Requires.key())?,
            upheld_by: list(Dependency::Upholds.key())?,
            alias: list(ALIAS)?,
            also: list(ALSO)?,
            default_instance: file
                .values("Install", DEFAULT_INSTANCE)
                .last()
                .filter(|value| !value.is_empty())
                .map(str::to_owned),
        })
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Install::default()
    }

    /// What enabling `name` asks for: the unit of this section, or an instance of it.
    pub(crate) fn of(&self, name: &UnitName) -> Result<Enablement, InstallError> {
        let started = self.started(name)?;
        let lists = [
            (Dependency::Wants, &self.wanted_by),
            (Dependency::Requires, &self.required_by),
            (Dependency::Upholds, &self.upheld_by),
        ];
        let mut needed_by = Vec::new();
        for (dependency, list) in lists {
            for word in list {
                let unit = parse_name(dependency.key(), word, &started)?;
                // A template without an instance cannot be started. Only templates, whose own
                // instance it then takes, and instances can need it.
                if started.is_template() && unit.instance().is_none() {
                    continue;
                }
                needed_by.push(NeededBy { unit, dependency, name: started.clone() });
            }
        }
        let aliases = self.alias.iter().map(|word| alias(word, name, &started)).collect::<Result<_, _>>()?;
        let also = self.also.iter().map(|word| parse_name(ALSO, word, &started)).collect::<Result<_, _>>()?;
        Ok(Enablement { needed_by, aliases, also })
    }

    /// The name itself or, for a template that says so, its default instance.
    fn started(&self, name: &UnitName) -> Result<UnitName, InstallError> {
        let Some(instance) = &self.default_instance else { return Ok(name.clone()) };
        match name.instance() {
            None => Err(InstallError::NotATemplate { instance: instance.clone(), name: name.clone() }),
            Some("") => {
                let instance = expand(DEFAULT_INSTANCE, instance, name)?;
                if instance.is_empty() || !instance.chars().all(|c| c == '@' || is_name_char(c)) {
                    return Err(InstallError::Instance { instance });
                }
                Ok(name.with_instance(&instance))
            }
            Some(_) => Ok(name.clone()),
        }
    }
}

/// All words of a key's values; an empty value drops those before it.
fn list(file: &UnitFile, key: &'static str) -> Result<Vec<String>, InstallError> {
    let mut list = Vec::new();
    for value in file.values("Install", key) {
        // systemd has no way to empty Also=, and takes no quotes there.
        if value.is_empty() && key != ALSO {
            list.clear();
        } else if key == ALSO {
            list.extend(value.split_ascii_whitespace().map(str::to_owned));
        } else {
            list.extend(words(value).ok_or_else(|| InstallError::Quote { key, value: value.to_owned() })?);
        }
    }
    Ok(list)
}

fn parse_name(key: &'static str, word: &str, of: &UnitName) -> Result<UnitName, InstallError> {
    expand(key, word, of)?.parse().map_err(|source| InstallError::Name {
        key,
        value: word.to_owned(),
        source,
    })
}

/// Another name of `name`, whose specifiers are those of `started`.
/// Source: systemd, src/shared/install.c, unit_file_verify_alias(), and src/basic/unit-name.c,
/// unit_validate_alias_symlink_or_warn().
fn alias(word: &str, name: &UnitName, started: &UnitName) -> Result<UnitName, InstallError> {
    let mut alias = parse_name(ALIAS, word, started)?;
    // An instance's alias that is a template becomes the same instance of it.
    if let (Some(instance), true) = (name.instance(), alias.is_template()) {
        alias = alias.with_instance(instance);
    }
    let refused = |reason| Err(InstallError::Alias { alias: alias.to_string(), name: name.clone(), reason });
    if alias == *name {
        return Err(InstallError::AliasOfItself { alias: alias.to_string() });
    }
    let no_aliases = [UnitKind::Automount, UnitKind::Mount, UnitKind::Slice, UnitKind::Swap];
    if no_aliases.contains(&name.kind()) {
        return refused("units of this kind have no other names");
    }
    if alias.kind() != name.kind() {
        return refused("it is a unit of another kind");
    }
    match (name.instance(), alias.instance()) {
        (None, None) | (Some(""), Some(_)) => Ok(alias),
        (Some(own), Some(other)) if own == other => Ok(alias),
        _ => refused("one is a template or an instance, and the other is not the same"),
    }
}

/// Replaces the specifiers that a unit's name alone decides.
/// Source: systemd, src/shared/install-printf.c, install_name_printf().
fn expand(key: &'static str, word: &str, name: &UnitName) -> Result<String, InstallError> {
    let mut text = String::new();
    let mut chars = word.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => text.push_str(name.as_str()),
            Some('N') => text.push_str(name.stem()),
            Some('p') => text.push_str(name.prefix()),
            Some('i') => text.push_str(name.instance().unwrap_or_default()),
            Some('j') => text.push_str(name.prefix().rsplit('-').next().unwrap_or_default()),
            Some('%') => text.push('%'),
            other => {
                let (value, specifier) = (word.to_owned(), other.map(String::from).unwrap_or_default());
                return Err(InstallError::Specifier { key, value, specifier });
            }
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use crate::workspace::files::SourceFile;
    use crate::workspace::unit::Unit;

    #[test]
    fn broken_sections() {
        let check = |name: &str, install: &str, expected: &str| {
            let bytes = format!("[Install]\n{install}\n").into_bytes();
            let unit = Unit::parse(SourceFile { path: name.into(), bytes });
            let error = unit.expect_err(install);
            assert_eq!(
                format!("{error}; {}", error.hint()),
                format!("[Install]: {expected}"),
                "for {install}"
            );
        };
        check(
            "a.service",
            "WantedBy=\"x.target",
            "`WantedBy=\"x.target` leaves a quote open; close the quote, or remove it",
        );
        check(
            "a.service",
            "WantedBy=multi-user",
            "`WantedBy=multi-user`: `multi-user` is not the name of a unit; \
             write it like WantedBy=multi-user.target",
        );
        check(
            "a.service",
            "RequiredBy=x.target,y.target",
            "`RequiredBy=x.target,y.target`: `x.target,y.target` is not the name of a unit; \
             write it like RequiredBy=multi-user.target",
        );
        check(
            "a.service",
            "Also=\"b.service\"",
            "`Also=\"b.service\"`: `\"b.service\"` is not the name of a unit; \
             write it like Also=multi-user.target",
        );
        check(
            "a.service",
            "WantedBy=x-%H.target",
            "`WantedBy=x-%H.target` has the specifier `%H`, which differs from host to host; \
             write it out, or use %n, %N, %p, %i, %j or %% instead of %H",
        );
        check("a.service", "Alias=%n", "`Alias=a.service` is the unit's own name; remove Alias=a.service");
        check(
            "a.service",
            "Alias=b.socket",
            "`Alias=b.socket` is not another name for a.service: it is a unit of another kind; \
             remove Alias=b.socket, or choose another name",
        );
        check(
            "a.service",
            "Alias=b@.service",
            "`Alias=b@.service` is not another name for a.service: one is a template or an instance, \
             and the other is not the same; remove Alias=b@.service, or choose another name",
        );
        check(
            "a.mount",
            "Alias=b.mount",
            "`Alias=b.mount` is not another name for a.mount: units of this kind have no other names; \
             remove Alias=b.mount, or choose another name",
        );
        check(
            "a.service",
            "DefaultInstance=one",
            "`DefaultInstance=one` in a.service, which is no template; \
             rename the file to NAME@.service, or remove it",
        );
        check(
            "a@.service",
            "DefaultInstance=a/b",
            "`DefaultInstance=a/b` cannot be a part of a unit's name; \
             use letters, digits, `:`, `-`, `_` and `.`",
        );
    }
}
