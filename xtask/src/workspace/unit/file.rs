//! The syntax of unit files.

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
pub(crate) enum UnitFileError {
    #[error("line {line}: `{text}` is neither a section, nor an assignment, nor a comment")]
    Syntax { line: usize, text: String },
    #[error("line {line}: `{key}=` comes before the first section")]
    NoSection { line: usize, key: String },
}

impl UnitFileError {
    pub(super) fn hint(&self) -> String {
        match self {
            UnitFileError::Syntax { .. } => "write [Section], Key=value, or # and a comment".to_owned(),
            UnitFileError::NoSection { key, .. } => format!("write [Unit] or [Service] above {key}="),
        }
    }
}

impl UnitFile {
    /// Source: systemd, src/shared/conf-parser.c, config_parse() and parse_line().
    pub(crate) fn parse(text: &str) -> Result<UnitFile, UnitFileError> {
        let mut file = UnitFile::default();
        let mut section: Option<String> = None;
        for (line, text) in logical_lines(text.strip_prefix('\u{feff}').unwrap_or(text)) {
            let text = text.trim();
            if text.is_empty() {
                continue;
            }
            let syntax = || UnitFileError::Syntax { line, text: text.to_owned() };
            if let Some(rest) = text.strip_prefix('[') {
                section = Some(rest.strip_suffix(']').ok_or_else(syntax)?.to_owned());
                continue;
            }
            let (key, value) = text.split_once('=').ok_or_else(syntax)?;
            let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
            if key.is_empty() {
                return Err(syntax());
            }
            let section = section.clone().ok_or(UnitFileError::NoSection { line, key: key.clone() })?;
            file.assignments.push(Assignment { section, key, value });
        }
        Ok(file)
    }

    /// The values assigned to a key, in the order of the file. Where the key is a list, an empty
    /// value undoes those before it; they are given all the same.
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
pub(in crate::workspace) fn words(value: &str) -> Option<Vec<String>> {
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
}
