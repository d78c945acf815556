//! Which commit the source is, for an image's annotations.

use std::path::Path;

use anyhow::Result;
use xshell::{Shell, cmd};

use crate::exec;

/// The commit that is checked out at `root`, with `-dirty` behind it where files differ; nothing
/// outside of a git checkout.
pub(crate) fn revision(root: &Path) -> Result<Option<String>> {
    if !root.join(".git").exists() {
        return Ok(None);
    }
    let sh = Shell::new()?;
    // No tag matches the empty pattern, so the whole commit id is shown.
    let command = cmd!(sh, "git -C {root} describe --always --dirty --abbrev=40 --match=");
    Ok(Some(exec::read(command)?.trim().to_owned()))
}
