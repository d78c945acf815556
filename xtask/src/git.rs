//! Which commit the source is, for an image's annotations, and which tag it has.

use std::path::Path;

use anyhow::{Result, anyhow};
use xshell::{Cmd, Shell, cmd};

use crate::exec;
use crate::hint::WithHint;
use crate::release;

/// The commit that is checked out at `root`, with `-dirty` behind it where files differ; nothing
/// outside of a git checkout.
pub(crate) fn revision(root: &Path) -> Result<Option<String>> {
    if !root.join(".git").exists() {
        return Ok(None);
    }
    let sh = Shell::new()?;
    let commit = git(cmd!(sh, "git -C {root} rev-parse --verify HEAD"))?;
    let is_dirty = is_dirty(&sh, root)?;
    Ok(Some(format!("{}{}", commit.trim(), if is_dirty { "-dirty" } else { "" })))
}

/// The tag of the commit that is checked out at `root`; of several, the highest. Where files differ,
/// there is none: what is made of them is not what was tagged.
pub(crate) fn tag(root: &Path) -> Result<String> {
    if !root.join(".git").exists() {
        return Err(anyhow!("{} is no git checkout, so it has no tag", root.display()))
            .hint("name the version: '--app-version v1'");
    }
    let sh = Shell::new()?;
    let tags = git(cmd!(sh, "git -C {root} tag --points-at HEAD"))?;
    let highest = tags.lines().max_by(|a, b| release::compare(a, b));
    let tag = highest
        .ok_or_else(|| anyhow!("the commit that is checked out has no tag"))
        .hint("give it one, 'git tag v1', or name the version: '--app-version v1'")?;
    if is_dirty(&sh, root)? {
        return Err(anyhow!("files differ from the commit that has the tag {tag}"))
            .hint("'git status' lists them; or name another version: '--app-version v1'");
    }
    Ok(tag.to_owned())
}

/// Files that were never added count, since they are in the image; only beside Cargo.toml there is none that
/// anything reads, but what commands leave there. Source: git-status(1), "Short Format".
fn is_dirty(sh: &Shell, root: &Path) -> Result<bool> {
    let status = git(cmd!(sh, "git -C {root} status --porcelain"))?;
    let counts = |line: &str| line.strip_prefix("?? ").is_none_or(|path| path.contains('/'));
    Ok(status.lines().any(counts))
}

/// A hook or an alias may have another repository in the environment.
fn git(command: Cmd<'_>) -> Result<String> {
    Ok(exec::read(command.env_remove("GIT_DIR").env_remove("GIT_WORK_TREE"))?)
}
