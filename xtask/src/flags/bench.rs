//! Of what is tested and measured.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct Test {
    /// Run only the Rust tests whose name contains this
    pub(crate) filter: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// What is measured
    #[arg(value_enum, default_value_t = Benched::Push)]
    pub(crate) what: Benched,
    /// How often each row is measured; the median is shown [default: 5 for push, 1 for others]
    #[arg(long, value_parser = runs)]
    pub(crate) runs: Option<usize>,
    /// Where the table goes as well, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Measure a build of this program from nothing as well, which takes minutes
    #[arg(long)]
    pub(crate) cold_build: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Benched {
    /// A push, beside crane's
    Push,
    /// Disks of all formats, beside qemu-img's and tar's
    Disk,
    /// Packed disks, beside buildah's
    Pack,
}

/// A median is of one run at least.
fn runs(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("there is no median of no runs".to_owned()),
        Ok(runs) => Ok(runs),
        Err(error) => Err(format!("{error}")),
    }
}
