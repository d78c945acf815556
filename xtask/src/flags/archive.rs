//! Of releases that go where no network is.

use std::path::PathBuf;

use clap::Args;

use crate::oci::ImageName;
use crate::workspace::settings::Repository;

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The release's image, by tag: a registry reference, or oci:DIR:TAG [default: the one that 'dist'
    /// has made last]
    #[arg(value_name = "REF")]
    pub(crate) image: Option<ImageName>,
    /// The archive [default: the tag, with `.tar`, here]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The archive: an OCI layout in a tar
    pub(crate) file: PathBuf,
    /// The repository that it goes to, without a tag
    #[arg(long, value_name = "NAME")]
    pub(crate) to: Repository,
}
