//! What a disk is called.

use std::fmt;
use std::str::FromStr;

use super::DiskFormat;

/// The longest name: with an ending, it has to fit into a tar header's 100 bytes.
const LONGEST: usize = 80;

/// The name of a disk: its files' name without an ending, and its virtual machine's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DiskName(String);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no name for a disk: it has letters, digits, `_`, `.` and `-`, starts with a letter or digit, and is at most 80 long"
)]
pub(crate) struct BadName(String);

impl DiskName {
    /// The file of a format.
    pub(crate) fn file(&self, format: DiskFormat) -> String {
        format!("{self}.{}", format.extension())
    }
}

impl FromStr for DiskName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<DiskName, BadName> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if starts_well && text.len() <= LONGEST && text.chars().all(is_part) {
            Ok(DiskName(text.to_owned()))
        } else {
            Err(BadName(text.to_owned()))
        }
    }
}

impl fmt::Display for DiskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_of_a_file() {
        for good in ["disk", "debian-13-v1", "a.b_c", "7"] {
            assert_eq!(good.parse::<DiskName>().unwrap().to_string(), good);
        }
        let long = "x".repeat(81);
        for bad in ["", ".hidden", "-x", "a/b", "..", "a b", "ä", "a&b", &long] {
            assert_eq!(bad.parse::<DiskName>(), Err(BadName(bad.to_owned())));
        }
        assert_eq!("os".parse::<DiskName>().unwrap().file(DiskFormat::Gce), "os.tar.gz");
    }
}
