//! What an ordinary user needs so that files of several owners can be in an image: ranges of ids of
//! their own. Source: subuid(5), subgid(5).

use std::fs;

use anyhow::{Result, anyhow};
use xshell::{Shell, cmd};

use crate::exec;
use crate::hint::WithHint;
use crate::preflight::{Need, Source};

/// How many ids a user gets, and from where on. Source: SUB_UID_COUNT and SUB_UID_MIN in
/// login.defs(5).
const COUNT: u64 = 65536;
const FIRST: u64 = 100_000;

const FILES: [&str; 2] = ["/etc/subuid", "/etc/subgid"];

const NEWUIDMAP: Need = Need {
    program: "newuidmap",
    purpose: "lets an ordinary user make images",
    from: Source::Debian("uidmap"),
};

/// What helps a user who has ranges, but no namespaces to use them in.
pub(crate) const NAMESPACES_HINT: &str = "run this as root, or have user namespaces allowed: user_namespaces(7) has \
     their limits, and Ubuntu 'sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0'";

/// What `program` needs on this machine, itself included.
pub(crate) fn needs(program: Need) -> Vec<Need> {
    if rustix::process::geteuid().is_root() { vec![program] } else { vec![program, NEWUIDMAP] }
}

/// Makes sure that this user has ranges, unless it is root. `afterwards` is a command without which
/// new ranges would not be seen.
pub(crate) fn check(afterwards: Option<&str>) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let sh = Shell::new()?;
    let User { name, id } = User::this()?;
    let tables = tables();
    let lacking: Vec<&str> = FILES
        .into_iter()
        .zip(&tables)
        .zip([None, Some("-g")])
        .filter(|((_, table), option)| {
            // Where a directory service has them instead, only this knows.
            let told = || exec::read(cmd!(sh, "getsubids").args(*option).arg(&name)).is_ok();
            !has_range(table, &name, &id) && !told()
        })
        .map(|((path, _), _)| path)
        .collect();
    if lacking.is_empty() {
        return Ok(());
    }
    Err(anyhow!("{name} has no range of ids in {}: no image can be made without root", lacking.join(" and ")))
        .hint(hint_for(&name, &tables, afterwards))
}

/// The commands that give this user a range which nobody else has.
pub(crate) fn hint(afterwards: Option<&str>) -> Result<String> {
    Ok(hint_for(&User::this()?.name, &tables(), afterwards))
}

fn hint_for(name: &str, tables: &[String], afterwards: Option<&str>) -> String {
    let (first, last) = free(tables);
    let then = afterwards.map_or(String::new(), |command| format!(" and then '{command}'"));
    format!(
        "run 'sudo usermod --add-subuids {first}-{last} --add-subgids {first}-{last} {name}'{then}, or run this \
         as root"
    )
}

struct User {
    name: String,
    id: String,
}

impl User {
    fn this() -> Result<User> {
        let sh = Shell::new()?;
        let id = rustix::process::geteuid().as_raw().to_string();
        // A user without a name has only the number.
        let name = exec::read(cmd!(sh, "id -un")).map_or(id.clone(), |name| name.trim().to_owned());
        Ok(User { name, id })
    }
}

/// The ranges of all users, of user ids and of group ids. Where a file is not there, nobody has any.
fn tables() -> [String; 2] {
    FILES.map(|path| fs::read_to_string(path).unwrap_or_default())
}

fn has_range(table: &str, name: &str, id: &str) -> bool {
    ranges(table).any(|(user, _, count)| (user == name || user == id) && count > 1)
}

/// A range that nobody has.
fn free(tables: &[String]) -> (u64, u64) {
    let ends = tables.iter().flat_map(|table| ranges(table)).map(|(_, first, count)| first + count);
    let first = ends.max().unwrap_or(FIRST).max(FIRST);
    (first, first + COUNT - 1)
}

/// Users, and the first id and the number of each of their ranges.
fn ranges(table: &str) -> impl Iterator<Item = (&str, u64, u64)> {
    table.lines().filter_map(|line| {
        let [user, first, count] = line.trim().split(':').collect::<Vec<_>>()[..] else { return None };
        Some((user, first.parse().ok()?, count.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let table = "other:100000:65536\nme:165536:65536\n# no\nbad:x:1\n1001:300000:65536\none:500000:1\n";
        let check = |name, id, expected| assert_eq!(has_range(table, name, id), expected, "{name}");
        check("me", "1000", true);
        check("you", "1001", true);
        check("one", "1", false);
        check("none", "2", false);
        assert_eq!(free(&[table.to_owned(), String::new()]), (500_001, 565_536));
        assert_eq!(free(&[String::new(), String::new()]), (100_000, 165_535));
        assert_eq!(
            hint_for("me", &[table.to_owned(), String::new()], None),
            "run 'sudo usermod --add-subuids 500001-565536 --add-subgids 500001-565536 me', or run this as root"
        );
    }
}
