//! systemd's unit files, read by systemd's own rules.

use std::fmt;
use std::str::FromStr;

use super::files::SourceFile;
use super::install::{Install, InstallError};

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

/// A unit of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) name: UnitName,
    pub(crate) source: SourceFile,
    pub(crate) file: UnitFile,
    pub(crate) install: Install,
}

/// A unit file's assignments, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct UnitFile {
    assignments: Vec<Assignment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Assignment {
    section: String,
    key: String,
    value: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnitError {
    #[error(transparent)]
    Name(#[from] UnitNameError),
    #[error("is not UTF-8 text")]
    Encoding,
    #[error("line {line}: `{text}` is neither a section, nor an assignment, nor a comment")]
    Syntax { line: usize, text: String },
    #[error("line {line}: `{key}=` comes before the first section")]
    NoSection { line: usize, key: String },
    #[error("[Install]: {0}")]
    Install(#[from] InstallError),
}

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

impl UnitError {
    pub(super) fn hint(&self) -> String {
        match self {
            UnitError::Name(_) => "name it like hello.service, hello.timer or hello@.service".to_owned(),
            UnitError::Encoding => "save it as UTF-8".to_owned(),
            UnitError::Syntax { .. } => "write [Section], Key=value, or # and a comment".to_owned(),
            UnitError::NoSection { key, .. } => format!("write [Unit] or [Service] above {key}="),
            UnitError::Install(error) => error.hint(),
        }
    }
}

impl Unit {
    /// Reads a unit file; what its `[Install]` asks for is known to make sense.
    pub(crate) fn parse(source: SourceFile) -> Result<Unit, UnitError> {
        let name: UnitName = source.name().parse()?;
        let text = str::from_utf8(&source.bytes).map_err(|_| UnitError::Encoding)?;
        let file = UnitFile::parse(text)?;
        let install = Install::read(&file)?;
        install.of(&name)?;
        Ok(Unit { name, source, file, install })
    }

    /// The programs that `ExecStart=` names, without systemd's prefixes and the arguments.
    pub(crate) fn programs(&self) -> Vec<String> {
        let mut programs = Vec::new();
        for command in self.file.values("Service", "ExecStart") {
            if command.is_empty() {
                programs.clear();
                continue;
            }
            // Source: systemd.service(5), "Special executable prefixes".
            let command = command.trim_start_matches(['@', '-', ':', '+', '!', '|']);
            let words = words(command).unwrap_or_default();
            programs.push(words.into_iter().next().unwrap_or_default());
        }
        programs
    }
}

impl UnitFile {
    /// Source: systemd, src/shared/conf-parser.c, config_parse() and parse_line().
    pub(crate) fn parse(text: &str) -> Result<UnitFile, UnitError> {
        let mut file = UnitFile::default();
        let mut section: Option<String> = None;
        for (line, text) in logical_lines(text.strip_prefix('\u{feff}').unwrap_or(text)) {
            let text = text.trim();
            if text.is_empty() {
                continue;
            }
            let syntax = || UnitError::Syntax { line, text: text.to_owned() };
            if let Some(rest) = text.strip_prefix('[') {
                section = Some(rest.strip_suffix(']').ok_or_else(syntax)?.to_owned());
                continue;
            }
            let (key, value) = text.split_once('=').ok_or_else(syntax)?;
            let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
            if key.is_empty() {
                return Err(syntax());
            }
            let section = section.clone().ok_or(UnitError::NoSection { line, key: key.clone() })?;
            file.assignments.push(Assignment { section, key, value });
        }
        Ok(file)
    }

    /// The values assigned to a key, in the order of the file; an empty one undoes those before.
    pub(crate) fn values(&self, section: &str, key: &str) -> impl Iterator<Item = &str> {
        self.assignments
            .iter()
            .filter(move |assignment| assignment.section == section && assignment.key == key)
            .map(|assignment| assignment.value.as_str())
    }
}

/// Lines with their continuations, and the number of the first. A `\` at the end continues a
/// line, as a space; comments in between do not end it.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut continued: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.starts_with(['#', ';']) {
            continue;
        }
        let (number, mut whole) = continued.take().unwrap_or((index + 1, String::new()));
        whole.push_str(line);
        // A backslash that another one escapes continues nothing.
        let backslashes = whole.len() - whole.trim_end_matches('\\').len();
        if backslashes % 2 == 1 {
            whole.pop();
            whole.push(' ');
            continued = Some((number, whole));
        } else {
            lines.push((number, whole));
        }
    }
    lines.extend(continued);
    lines
}

/// Splits a value into words: blanks separate, quotes of both kinds hold together, a backslash
/// is kept as it is. `None` if a quote is left open.
/// Source: systemd, src/basic/extract-word.c, EXTRACT_UNQUOTE | EXTRACT_RETAIN_ESCAPE.
pub(super) fn words(value: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in value.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if c.is_ascii_whitespace() => words.extend(word.take()),
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
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

    #[test]
    fn files() {
        let text = "\u{feff}# comment\n; comment\n[Unit]\nA = one \\\n# inside\n  two\nA=\n\
                    [Service]\nA=a=b\\\\\nB=\\";
        let file = UnitFile::parse(text).unwrap();
        let values = |section, key| file.values(section, key).collect::<Vec<_>>();
        assert_eq!(values("Unit", "A"), ["one  two", ""]);
        assert_eq!(values("Service", "A"), [r"a=b\\"]);
        assert_eq!(values("Service", "B"), [""]);
        assert_eq!(values("Service", "C"), [""; 0]);

        let error = |text| UnitFile::parse(text).unwrap_err().to_string();
        assert_eq!(
            error("[Unit]\n\n[Service"),
            "line 3: `[Service` is neither a section, nor an assignment, nor a comment"
        );
        assert_eq!(
            error("[Unit]\nword"),
            "line 2: `word` is neither a section, nor an assignment, nor a comment"
        );
        assert_eq!(error("A=b"), "line 1: `A=` comes before the first section");
    }

    #[test]
    fn words_are_split_as_systemd_does() {
        assert_eq!(words(r#" a  "b c"'d' \x2d "" "#).unwrap(), ["a", "b cd", r"\x2d", ""]);
        assert_eq!(words("a \"b"), None);
    }

    #[test]
    fn programs_of_a_service() {
        let programs = |text: &str| {
            let path = "systemd/a.service".into();
            let bytes = format!("[Service]\n{text}").into_bytes();
            Unit::parse(SourceFile { path, bytes }).unwrap().programs()
        };
        assert_eq!(programs("ExecStart=/usr/bin/a -x"), ["/usr/bin/a"]);
        assert_eq!(programs("ExecStart=@-/usr/bin/a argv0"), ["/usr/bin/a"]);
        assert_eq!(programs("ExecStart=:!!\"/usr/bin/a\" x"), ["/usr/bin/a"]);
        assert_eq!(programs("ExecStart=\\\n  /usr/bin/a \\\n  -x"), ["/usr/bin/a"]);
        assert_eq!(programs("ExecStart=/a\nExecStart=\nExecStart=/b\nExecStart=/c"), ["/b", "/c"]);
        assert_eq!(programs(""), [""; 0]);
    }
}
