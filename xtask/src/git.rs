//! Where the source came from, for an image's annotations.

use std::path::Path;

use anyhow::Result;
use xshell::{Shell, cmd};

use crate::exec;

/// The commit that is checked out at `root`, with `-dirty` behind it where files differ; nothing
/// outside of a git checkout.
pub(crate) fn revision(root: &Path) -> Result<Option<String>> {
    // No tag matches the empty pattern, so the whole commit id is shown.
    read(root, &["describe", "--always", "--dirty", "--abbrev=40", "--match="])
}

/// The URL of the repository at `root`, as anyone may see it.
pub(crate) fn source(root: &Path) -> Result<Option<String>> {
    Ok(read(root, &["config", "--default", "", "--get", "remote.origin.url"])?
        .and_then(|url| public_url(&url)))
}

fn read(root: &Path, args: &[&str]) -> Result<Option<String>> {
    if !root.join(".git").exists() {
        return Ok(None);
    }
    let sh = Shell::new()?;
    Ok(Some(exec::read(cmd!(sh, "git -C {root}").args(args))?.trim().to_owned()))
}

/// `remote` as a web address without a login; a folder of this machine is nobody's business.
fn public_url(remote: &str) -> Option<String> {
    let without_scheme = remote.strip_prefix("https://").or_else(|| remote.strip_prefix("ssh://"));
    let location = match without_scheme {
        Some(location) => location.to_owned(),
        // `git@host:owner/name`, scp's way of writing it.
        None => {
            let (login_and_host, path) = remote.split_once(':')?;
            let (_, host) = login_and_host.split_once('@')?;
            format!("{host}/{path}")
        }
    };
    let (host, path) = location.split_once('/')?;
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    Some(format!("https://{host}/{}", path.strip_suffix(".git").unwrap_or(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_hold_no_login_and_no_local_path() {
        let check = |remote: &str, expected: Option<&str>| {
            assert_eq!(public_url(remote).as_deref(), expected, "{remote}");
        };
        check("https://github.com/o/r.git", Some("https://github.com/o/r"));
        check("https://user:token@github.com/o/r", Some("https://github.com/o/r"));
        check("git@github.com:o/r.git", Some("https://github.com/o/r"));
        check("ssh://git@example.com/o/r.git", Some("https://example.com/o/r"));
        for private in ["/srv/git/r.git", "../r", "file:///srv/r", ""] {
            check(private, None);
        }
    }
}
