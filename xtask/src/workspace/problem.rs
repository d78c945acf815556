//! What is wrong with a workspace: all of it at once, so that it is mended in one go.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

/// One thing to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Relative to the workspace's root.
    pub(crate) path: PathBuf,
    pub(crate) message: String,
    /// A command or an edit.
    pub(crate) hint: String,
}

/// What is wrong with one line of a file, and the edit that mends it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) hint: String,
}

/// Everything that has to be mended first, in the order in which it was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Problems(pub(crate) Vec<Problem>);

impl Wrong {
    pub(super) fn new(message: impl Into<String>, hint: impl Into<String>) -> Wrong {
        Wrong { message: message.into(), hint: hint.into() }
    }
}

impl Problems {
    /// Notes one more; one that is known already is not told twice.
    pub(super) fn add(
        &mut self,
        path: impl Into<PathBuf>,
        message: impl fmt::Display,
        hint: impl Into<String>,
    ) {
        let problem = Problem { path: path.into(), message: message.to_string(), hint: hint.into() };
        if !self.0.contains(&problem) {
            self.0.push(problem);
        }
    }

    /// Notes what is wrong with the line `number`.
    pub(super) fn add_line(&mut self, path: &Path, number: usize, wrong: Wrong) {
        let Wrong { message, hint } = wrong;
        self.add(path, format!("line {number}: {message}"), hint);
    }

    /// `value`, if nothing was noted.
    pub(super) fn or<T>(self, value: T) -> Result<T, Problems> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for Problem {
    /// Two lines of a list.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { path, message, hint } = self;
        write!(f, "  {}: {message}\n    hint: {hint}", path.display())
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => write!(f, "the workspace has a problem")?,
            count => write!(f, "the workspace has {count} problems")?,
        }
        self.0.iter().try_for_each(|problem| write!(f, "\n{problem}"))
    }
}

impl Error for Problems {}
