//! TOML read by hand, so that all that is wrong is told at once, each with its line.

use std::error::Error;
use std::fmt;
use std::ops::Range;

use toml_edit::{Document, Item, TableLike, Value};

/// What a file may hold: a kickstart can be long, and what is longer is something else.
pub(super) const MOST_BYTES: usize = 1 << 20;

/// One thing to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// As the user is to see it.
    file: String,
    line: usize,
    message: String,
    /// A command or an edit.
    hint: String,
}

/// Everything that has to be mended before a disk is made.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Problems(Vec<Problem>);

impl Problems {
    /// One problem, of a file as a whole.
    pub(super) fn of_file(file: &str, message: impl fmt::Display, hint: &str) -> Problems {
        let (file, hint) = (file.to_owned(), hint.to_owned());
        Problems(vec![Problem { file, line: 1, message: message.to_string(), hint }])
    }

    pub(super) fn extend(&mut self, other: Problems) {
        self.0.extend(other.0);
    }

    pub(super) fn or<T>(mut self, value: T) -> Result<T, Problems> {
        self.0.sort_by_key(|problem| (problem.file.clone(), problem.line));
        self.0.dedup();
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => write!(f, "what disks are told has a problem")?,
            count => write!(f, "what disks are told has {count} problems")?,
        }
        for Problem { file, line, message, hint } in &self.0 {
            write!(f, "\n  {file}:{line}: {message}\n    hint: {hint}")?;
        }
        Ok(())
    }
}

impl Error for Problems {}

/// A string of the file, and where it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'t> {
    pub(super) value: &'t str,
    pub(super) line: usize,
}

/// What was noted of a file.
pub(super) struct Notes<'t> {
    file: &'t str,
    text: &'t str,
    problems: Problems,
}

impl Notes<'_> {
    pub(super) fn add(&mut self, line: usize, message: impl fmt::Display, hint: impl Into<String>) {
        let file = self.file.to_owned();
        self.problems.0.push(Problem { file, line, message: message.to_string(), hint: hint.into() });
    }

    /// The value, or a note of what is wrong with it.
    pub(super) fn check<T, E: fmt::Display>(
        &mut self,
        line: usize,
        result: Result<T, E>,
        hint: impl FnOnce(&E) -> String,
    ) -> Option<T> {
        result.map_err(|error| self.add(line, &error, hint(&error))).ok()
    }

    fn line(&self, span: Option<Range<usize>>, otherwise: usize) -> usize {
        span.map_or(otherwise, |span| line_of(self.text, span.start))
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// Reads a file as TOML, and hands its top to `read`.
pub(super) fn read<T>(
    file: &str,
    bytes: &[u8],
    read: impl FnOnce(Section<'_>, &mut Notes<'_>) -> T,
) -> Result<T, Problems> {
    if bytes.len() > MOST_BYTES {
        return Err(Problems::of_file(
            file,
            "it is larger than 1 MiB",
            "it holds settings: put the rest elsewhere",
        ));
    }
    let mut notes = Notes { file, text: "", problems: Problems::default() };
    let text = match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let line = bytes.iter().take(error.valid_up_to()).filter(|byte| **byte == b'\n').count() + 1;
            notes.add(line, "it is not UTF-8 text", format!("save {file} as UTF-8"));
            return Err(notes.problems);
        }
    };
    notes.text = text;
    let document = match Document::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let line = notes.line(error.span(), 1);
            notes.add(
                line,
                format!("it is not TOML: {}", error.message().replace('\n', ", ")),
                "mend this line",
            );
            return Err(notes.problems);
        }
    };
    let top = Section { name: String::new(), line: 1, table: document.as_table(), known: Vec::new() };
    let value = read(top, &mut notes);
    notes.problems.or(value)
}

/// A table of the file. Each key that is asked for is known; the others are noted at the end.
pub(super) struct Section<'t> {
    name: String,
    pub(super) line: usize,
    table: &'t dyn TableLike,
    known: Vec<&'static str>,
}

impl<'t> Section<'t> {
    /// Notes the keys that nobody asked for; `advice` knows about some of them.
    pub(super) fn finish(self, notes: &mut Notes<'_>, advice: impl Fn(&str) -> Option<&'static str>) {
        for (key, item) in self.table.iter() {
            if self.known.contains(&key) {
                continue;
            }
            let line = self.line_of(key, item, notes);
            let hint = match (advice(key), self.closest(key)) {
                (Some(advice), _) => advice.to_owned(),
                (None, Some(closest)) => format!("did you mean '{closest}'?"),
                (None, None) if self.known.is_empty() => "remove it".to_owned(),
                (None, None) => format!("remove it; there are {}", self.known.join(", ")),
            };
            notes.add(line, format!("'{}' is not a key that is read here", self.full(key)), hint);
        }
    }

    /// Only what the file has is known by this name.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    pub(super) fn string(&mut self, key: &'static str, notes: &mut Notes<'_>) -> Option<Text<'t>> {
        let text = self.lines(key, notes)?;
        self.one_line(key, text, notes)
    }

    /// A string that may have several lines.
    pub(super) fn lines(&mut self, key: &'static str, notes: &mut Notes<'_>) -> Option<Text<'t>> {
        let (item, line) = self.item(key, notes)?;
        let Some(value) = item.as_str() else {
            self.wrong(key, line, "a string", notes);
            return None;
        };
        if value.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t' | '\r')) {
            notes.add(line, format!("'{}' has a control character", self.full(key)), "remove it");
            return None;
        }
        Some(Text { value, line })
    }

    pub(super) fn integer(&mut self, key: &'static str, notes: &mut Notes<'_>) -> Option<(i64, usize)> {
        let (item, line) = self.item(key, notes)?;
        let value = item.as_integer();
        if value.is_none() {
            self.wrong(key, line, "a whole number", notes);
        }
        value.map(|value| (value, line))
    }

    pub(super) fn boolean(&mut self, key: &'static str, notes: &mut Notes<'_>) -> Option<bool> {
        let (item, line) = self.item(key, notes)?;
        if item.as_bool().is_none() {
            self.wrong(key, line, "true or false", notes);
        }
        item.as_bool()
    }

    /// A string, or a whole number as one.
    pub(super) fn size(&mut self, key: &'static str, notes: &mut Notes<'_>) -> Option<(String, usize)> {
        let (item, line) = self.item(key, notes)?;
        let value =
            item.as_str().map(str::to_owned).or_else(|| item.as_integer().map(|number| number.to_string()));
        if value.is_none() {
            self.wrong(key, line, "a size, such as \"20 GiB\"", notes);
        }
        value.map(|value| (value, line))
    }

    pub(super) fn strings(&mut self, key: &'static str, notes: &mut Notes<'_>) -> Vec<Text<'t>> {
        let Some((item, line)) = self.item(key, notes) else { return Vec::new() };
        let Some(array) = item.as_array() else {
            self.wrong(key, line, "a list of strings", notes);
            return Vec::new();
        };
        let mut texts = Vec::new();
        for value in array {
            let line = notes.line(value.span(), line);
            match value.as_str() {
                Some(value) => texts.extend(self.one_line(key, Text { value, line }, notes)),
                None => self.wrong(key, line, "a list of strings", notes),
            }
        }
        texts
    }

    pub(super) fn section(&mut self, key: &'static str, notes: &mut Notes<'_>) -> Option<Section<'t>> {
        let (item, line) = self.item(key, notes)?;
        let name = self.full(key);
        let Some(table) = item.as_table_like() else {
            notes.add(line, format!("'{name}' is not a table"), format!("write it as [{name}]"));
            return None;
        };
        Some(Section { name, line, table, known: Vec::new() })
    }

    pub(super) fn sections(&mut self, key: &'static str, notes: &mut Notes<'_>) -> Vec<Section<'t>> {
        let Some((item, line)) = self.item(key, notes) else { return Vec::new() };
        let name = self.full(key);
        let section =
            |table: &'t dyn TableLike, line| Section { name: name.clone(), line, table, known: Vec::new() };
        let mut sections = Vec::new();
        let mut only_tables = true;
        match item {
            Item::ArrayOfTables(tables) => {
                sections.extend(tables.iter().map(|table| section(table, notes.line(table.span(), line))));
            }
            Item::Value(Value::Array(values)) => {
                for value in values {
                    match value.as_inline_table() {
                        Some(table) => sections.push(section(table, notes.line(value.span(), line))),
                        None => only_tables = false,
                    }
                }
            }
            Item::None | Item::Value(_) | Item::Table(_) => only_tables = false,
        }
        if !only_tables {
            notes.add(line, format!("'{name}' is not a list of tables"), format!("write each as [[{name}]]"));
        }
        sections
    }

    fn item(&mut self, key: &'static str, notes: &Notes<'_>) -> Option<(&'t Item, usize)> {
        self.known.push(key);
        let item = self.table.get(key)?;
        Some((item, self.line_of(key, item, notes)))
    }

    fn one_line(&self, key: &str, text: Text<'t>, notes: &mut Notes<'_>) -> Option<Text<'t>> {
        if text.value.contains(['\n', '\r', '\t']) {
            notes.add(
                text.line,
                format!("'{}' has a line break or a tab", self.full(key)),
                "write it on one line",
            );
            return None;
        }
        Some(text)
    }

    fn wrong(&self, key: &str, line: usize, expected: &str, notes: &mut Notes<'_>) {
        notes.add(line, format!("'{}' is not {expected}", self.full(key)), format!("make it {expected}"));
    }

    fn line_of(&self, key: &str, item: &Item, notes: &Notes<'_>) -> usize {
        let of_key = self.table.key(key).and_then(|key| key.span());
        // A table that only headers below it name has no place of its own.
        notes.line(of_key.or_else(|| item.span()), self.line)
    }

    fn full(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    fn closest(&self, key: &str) -> Option<&'static str> {
        let distance = |known: &&&str| strsim::damerau_levenshtein(known, key);
        self.known.iter().filter(|known| distance(known) <= 2).min_by_key(distance).copied()
    }
}
