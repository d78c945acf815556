//! What units are called.

use std::fmt;
use std::str::FromStr;

/// The longest unit name. Source: systemd, src/basic/unit-def.h, UNIT_NAME_MAX.
const NAME_MAX: usize = 255;

/// What a unit is, as the end of its name says. Source: systemd.unit(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum UnitKind {
    Automount,
    Device,
    Mount,
    Path,
    Scope,
    Service,
    Slice,
    Socket,
    Swap,
    Target,
    Timer,
}

/// The name of a unit: `hello.service`, the template `hello@.service`, or its instance
/// `hello@one.service`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct UnitName {
    text: String,
    kind: UnitKind,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of a unit")]
pub(crate) struct UnitNameError(pub(crate) String);

impl UnitKind {
    const ALL: [UnitKind; 11] = [
        UnitKind::Automount,
        UnitKind::Device,
        UnitKind::Mount,
        UnitKind::Path,
        UnitKind::Scope,
        UnitKind::Service,
        UnitKind::Slice,
        UnitKind::Socket,
        UnitKind::Swap,
        UnitKind::Target,
        UnitKind::Timer,
    ];

    /// The end of the name, without the dot.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            UnitKind::Automount => "automount",
            UnitKind::Device => "device",
            UnitKind::Mount => "mount",
            UnitKind::Path => "path",
            UnitKind::Scope => "scope",
            UnitKind::Service => "service",
            UnitKind::Slice => "slice",
            UnitKind::Socket => "socket",
            UnitKind::Swap => "swap",
            UnitKind::Target => "target",
            UnitKind::Timer => "timer",
        }
    }

    fn of(name: &str) -> Option<UnitKind> {
        let (_, suffix) = name.rsplit_once('.')?;
        UnitKind::ALL.into_iter().find(|kind| kind.suffix() == suffix)
    }
}

impl UnitName {
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn kind(&self) -> UnitKind {
        self.kind
    }

    /// The name without its kind: `hello`, `hello@`, `hello@one`.
    pub(crate) fn stem(&self) -> &str {
        self.text.rsplit_once('.').map_or("", |(stem, _)| stem)
    }

    /// The stem as far as a `@`: `hello`.
    pub(crate) fn prefix(&self) -> &str {
        self.stem().split_once('@').map_or(self.stem(), |(prefix, _)| prefix)
    }

    /// What follows the `@`; empty for a template, `None` for a plain unit.
    pub(crate) fn instance(&self) -> Option<&str> {
        self.stem().split_once('@').map(|(_, instance)| instance)
    }

    pub(crate) fn is_template(&self) -> bool {
        self.instance() == Some("")
    }

    /// The template that an instance comes from; any other unit comes from itself.
    pub(crate) fn template(&self) -> UnitName {
        if self.instance().is_some() { self.with_instance("") } else { self.clone() }
    }

    /// The same template with another instance.
    pub(super) fn with_instance(&self, instance: &str) -> UnitName {
        UnitName { text: format!("{}@{instance}.{}", self.prefix(), self.kind.suffix()), kind: self.kind }
    }
}

impl FromStr for UnitName {
    type Err = UnitNameError;

    /// Source: systemd, src/basic/unit-name.c, unit_name_is_valid().
    fn from_str(text: &str) -> Result<UnitName, UnitNameError> {
        let stem = text.rsplit_once('.').map_or("", |(stem, _)| stem);
        let is_valid = text.len() <= NAME_MAX
            && !stem.is_empty()
            && !stem.starts_with('@')
            && stem.chars().all(|c| c == '@' || is_name_char(c));
        match UnitKind::of(text) {
            Some(kind) if is_valid => Ok(UnitName { text: text.to_owned(), kind }),
            _ => Err(UnitNameError(text.to_owned())),
        }
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether a character may be in a unit's name, `@` aside. `\` starts an escape such as `\x2d`.
pub(super) fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.' | '\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let parts = |text: &str| {
            let name: UnitName = text.parse().unwrap();
            (name.prefix().to_owned(), name.instance().map(str::to_owned), name.kind())
        };
        assert_eq!(parts("a.b.service"), ("a.b".to_owned(), None, UnitKind::Service));
        assert_eq!(parts("a-b@.timer"), ("a-b".to_owned(), Some(String::new()), UnitKind::Timer));
        assert_eq!(parts("a@b@c.path"), ("a".to_owned(), Some("b@c".to_owned()), UnitKind::Path));
        assert_eq!(parts(r"dev-a\x2db.swap"), (r"dev-a\x2db".to_owned(), None, UnitKind::Swap));
        let long = format!("{}.service", "a".repeat(248));
        for bad in
            ["", "a", ".service", "@.service", "@a.service", "a.conf", "a/b.service", "ä.service", &long]
        {
            assert_eq!(bad.parse::<UnitName>(), Err(UnitNameError(bad.to_owned())));
        }
    }
}
