//! How large a disk is.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// There is no use for a smaller disk.
const LEAST: u64 = GIB;
/// The largest that a format with a directory of grains describes.
const MOST: u64 = 2040 * GIB;

/// A disk's size: whole MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct DiskSize(u64);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadSize {
    #[error("`{0}` is not a size: write it as `10 GiB` or `2048 MiB`")]
    Form(String),
    #[error("{0} is not between 1 GiB and 2040 GiB")]
    Range(String),
}

impl DiskSize {
    pub(crate) fn bytes(self) -> u64 {
        self.0
    }
}

impl Default for DiskSize {
    fn default() -> DiskSize {
        DiskSize(4 * GIB)
    }
}

impl FromStr for DiskSize {
    type Err = BadSize;

    fn from_str(text: &str) -> Result<DiskSize, BadSize> {
        let form = || BadSize::Form(text.to_owned());
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit = match unit.trim() {
            "GiB" | "G" => GIB,
            "MiB" | "M" => MIB,
            _ => return Err(form()),
        };
        let number: u64 = number.parse().map_err(|_| form())?;
        let bytes = number.checked_mul(unit).filter(|bytes| (LEAST..=MOST).contains(bytes));
        bytes.map(DiskSize).ok_or_else(|| BadSize::Range(text.to_owned()))
    }
}

impl TryFrom<String> for DiskSize {
    type Error = BadSize;

    fn try_from(text: String) -> Result<DiskSize, BadSize> {
        text.parse()
    }
}

impl fmt::Display for DiskSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % GIB {
            0 => write!(f, "{} GiB", self.0 / GIB),
            _ => write!(f, "{} MiB", self.0 / MIB),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let check = |text: &str, expected: &str| {
            let shown = match text.parse::<DiskSize>() {
                Ok(size) => size.to_string(),
                Err(error) => error.to_string(),
            };
            assert_eq!(shown, expected, "for {text}");
        };
        check("10 GiB", "10 GiB");
        check("10G", "10 GiB");
        check("2048MiB", "2 GiB");
        check("1500 M", "1500 MiB");
        check("10", "`10` is not a size: write it as `10 GiB` or `2048 MiB`");
        check("10 GB", "`10 GB` is not a size: write it as `10 GiB` or `2048 MiB`");
        check("GiB", "`GiB` is not a size: write it as `10 GiB` or `2048 MiB`");
        check("512 MiB", "512 MiB is not between 1 GiB and 2040 GiB");
        check("99999999999999999 GiB", "99999999999999999 GiB is not between 1 GiB and 2040 GiB");
    }
}
