//! What apps are called.

use std::fmt;
use std::str::FromStr;

use super::unit::UnitName;

/// The longest name: with what is put around it, it still fits into a unit's or a file's name.
const NAME_MAX: usize = 64;
/// Names that mean something else already.
const RESERVED: [(&str, &str); 3] = [
    ("base", "what the layers of the base are called"),
    ("os", "the layer of what belongs to no app"),
    ("nginx", "the web server"),
];

/// An app's name: of its folder, program, unit, layer and upstream.
///
/// Lower-case letters, digits and dashes; it starts with a letter and does not end with a dash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AppName(String);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AppNameError {
    #[error(
        "`{0}` is not the name of an app: lower-case letters, digits and dashes, at most 64, first a letter, \
         last no dash"
    )]
    Malformed(String),
    #[error("`{name}` cannot be the name of an app: it is {meaning}")]
    Reserved { name: String, meaning: &'static str },
}

impl AppName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The app's program in the image, as units call it.
    pub(crate) fn program(&self) -> String {
        format!("/usr/bin/{self}")
    }

    /// Whether a unit of this name belongs to the app: `hello.service`, `hello@.service`,
    /// `hello-cleanup.timer`. `hello-world.service` belongs to `hello-world` where there is such
    /// an app (see `app::owner`); `hellos.service` is not of the family.
    pub(super) fn owns(&self, unit: &UnitName) -> bool {
        let rest = unit.prefix().strip_prefix(self.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }
}

impl FromStr for AppName {
    type Err = AppNameError;

    fn from_str(text: &str) -> Result<AppName, AppNameError> {
        let is_valid = text.len() <= NAME_MAX
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !text.ends_with('-');
        if !is_valid {
            return Err(AppNameError::Malformed(text.to_owned()));
        }
        match RESERVED.into_iter().find(|(name, _)| *name == text) {
            Some((_, meaning)) => Err(AppNameError::Reserved { name: text.to_owned(), meaning }),
            None => Ok(AppName(text.to_owned())),
        }
    }
}

impl fmt::Display for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
