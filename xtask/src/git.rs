//! Which commit the source is, for an image's annotations.

use std::path::Path;

use anyhow::Result;
use xshell::{Cmd, Shell, cmd};

use crate::exec;

/// The commit that is checked out at `root`, with `-dirty` behind it where files differ; nothing
/// outside of a git checkout.
pub(crate) fn revision(root: &Path) -> Result<Option<String>> {
    if !root.join(".git").exists() {
        return Ok(None);
    }
    let sh = Shell::new()?;
    // A hook or an alias may have another repository in the environment.
    let git = |command: Cmd<'_>| exec::read(command.env_remove("GIT_DIR").env_remove("GIT_WORK_TREE"));
    let commit = git(cmd!(sh, "git -C {root} rev-parse --verify HEAD"))?;
    // Files that were never added count: they are in the image.
    let is_dirty = !git(cmd!(sh, "git -C {root} status --porcelain"))?.is_empty();
    Ok(Some(format!("{}{}", commit.trim(), if is_dirty { "-dirty" } else { "" })))
}
