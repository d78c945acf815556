//! Lines of sysusers.d: what a host would refuse, and ids that are somebody else's already.
//! Source: sysusers.d(5) of systemd 252, which is the oldest that a host has (CentOS Stream 9).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::distro::{BASE, SHARED};
use super::files::{EntryKind, SourceFile, Tree};
use super::problem::{Problems, Wrong};
use super::unit::words;

/// Where a rootfs of the bases has such files.
const IN_ROOTFS: &str = "rootfs/usr/lib/sysusers.d";
/// The longest name. Source: sysusers.d(5), utmp(5), `UT_NAMESIZE` without the final zero.
const NAME_MAX: usize = 31;

/// A user or a group, and the id that it was given.
#[derive(Debug, PartialEq, Eq)]
struct Claim {
    kind: Kind,
    name: String,
    /// None where the host may choose.
    id: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    User,
    Group,
}

/// Where something was claimed first.
struct Holder {
    name: String,
    id: Option<u32>,
    place: String,
}

/// Who has which id, and which name.
#[derive(Default)]
pub(super) struct Accounts {
    by_id: BTreeMap<(Kind, u32), Holder>,
    by_name: BTreeMap<(Kind, String), Holder>,
}

impl Accounts {
    /// The accounts of the bases. Different distros may use an id differently: an image is for any
    /// of them, so each is taken.
    pub(super) fn of_bases(tree: &Tree, problems: &mut Problems) -> Accounts {
        let mut folders: Vec<PathBuf> = vec![Path::new(BASE).join(SHARED)];
        for family in tree.entries(BASE, problems) {
            if family.kind == EntryKind::Folder {
                let inner = tree.entries(&family.path, problems).into_iter();
                folders.extend(inner.filter(|inner| inner.kind == EntryKind::Folder).map(|inner| inner.path));
            }
        }
        let mut accounts = Accounts::default();
        for folder in folders {
            for file in tree.files(folder.join(IN_ROOTFS), problems) {
                for (line, text) in file.statements(problems) {
                    // A base may have a newer systemd, which takes more: its build tells.
                    for claim in parse(text).unwrap_or_default() {
                        accounts.add(claim, format!("{}, line {line}", file.path.display()));
                    }
                }
            }
        }
        accounts
    }

    /// Checks a file of ours, and takes what it claims.
    pub(super) fn check(&mut self, file: &SourceFile, problems: &mut Problems) {
        for (line, text) in file.statements(problems) {
            let claims = match parse(text) {
                Ok(claims) => claims,
                Err(wrong) => {
                    problems.add_line(&file.path, line, wrong);
                    continue;
                }
            };
            // A user brings a group of its name: one problem is enough.
            if let Some(wrong) = claims.iter().find_map(|claim| self.conflict(claim)) {
                problems.add_line(&file.path, line, wrong);
                continue;
            }
            for claim in claims {
                self.add(claim, format!("{}, line {line}", file.path.display()));
            }
        }
    }

    fn conflict(&self, claim: &Claim) -> Option<Wrong> {
        let what = claim.kind.name();
        if let Some(holder) = self.by_name.get(&(claim.kind, claim.name.clone()))
            && let (Some(id), Some(theirs)) = (claim.id, holder.id)
            && id != theirs
        {
            let message = format!("{what} `{}` has the id {theirs} already ({})", claim.name, holder.place);
            return Some(Wrong::new(message, format!("write {theirs}, or rename it")));
        }
        let holder = self.by_id.get(&(claim.kind, claim.id?)).filter(|holder| holder.name != claim.name)?;
        let message = format!("the {what} id {} is `{}`'s ({})", claim.id?, holder.name, holder.place);
        Some(Wrong::new(message, "choose another id below 1000, or write - for any"))
    }

    fn add(&mut self, claim: Claim, place: String) {
        let Claim { kind, name, id } = claim;
        let holder = |place: String| Holder { name: name.clone(), id, place };
        if let Some(id) = id {
            self.by_id.entry((kind, id)).or_insert_with(|| holder(place.clone()));
        }
        self.by_name.entry((kind, name.clone())).or_insert_with(|| holder(place));
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::User => "user",
            Kind::Group => "group",
        }
    }
}

fn parse(line: &str) -> Result<Vec<Claim>, Wrong> {
    let wrong = |message: String, hint: &str| Err(Wrong::new(message, hint));
    let Some(fields) = words(line) else { return wrong("a quote is left open".to_owned(), "close it") };
    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    let field = |number: usize| fields.get(number).copied().unwrap_or("-");
    let (kind, name) = (field(0), field(1));
    let most = match kind {
        "u" => 6,
        "g" | "m" | "r" => 3,
        _ => {
            return wrong(
                format!("`{kind}` is not a type"),
                "use u for a user, g for a group, m for a member, r for a range: sysusers.d(5)",
            );
        }
    };
    if fields.len() > most {
        let message = format!("has {} fields, and `{kind}` takes {most}", fields.len());
        return wrong(message, "put a description with blanks into quotes");
    }
    if kind != "r" && !is_name(name) {
        return wrong(
            format!("`{name}` is not a name"),
            "use letters, digits, `-` and `_`, at most 31, first no digit",
        );
    }
    let claim = |kind, id| Claim { kind, name: name.to_owned(), id };
    match kind {
        "m" => match is_name(field(2)) {
            true => Ok(Vec::new()),
            false => wrong(format!("`{}` is not a group's name", field(2)), "write m USER GROUP"),
        },
        "r" => match range(field(2)) {
            true => Ok(Vec::new()),
            false => wrong(format!("`{}` is not a range", field(2)), "write r - FIRST-LAST"),
        },
        "g" => match id(field(2)) {
            Some(id) => Ok(vec![claim(Kind::Group, id)]),
            None => wrong(format!("`{}` is not an id", field(2)), "write a number, or -"),
        },
        _ => {
            let (user, group) = match field(2).split_once(':') {
                Some((user, group)) => (user, Some(group)),
                None => (field(2), None),
            };
            let Some(uid) = id(user) else {
                return wrong(format!("`{user}` is not an id"), "write a number, UID:GID, or -");
            };
            match group {
                None => Ok(vec![claim(Kind::User, uid), claim(Kind::Group, uid)]),
                Some(group) if is_name(group) || matches!(id(group), Some(Some(_))) => {
                    Ok(vec![claim(Kind::User, uid)])
                }
                Some(group) => wrong(format!("`{group}` is not a group"), "write UID:GID, or UID:GROUP"),
            }
        }
    }
}

/// An id; `Some(None)` where the host finds one: by itself, or by looking at a file's owner.
fn id(text: &str) -> Option<Option<u32>> {
    match text {
        "-" => Some(None),
        path if path.starts_with('/') => Some(None),
        // 65535 and -1 mean "none" to the kernel. Source: sysusers.d(5), "ID".
        number => number.parse().ok().filter(|id| ![65535, u32::MAX].contains(id)).map(Some),
    }
}

fn range(text: &str) -> bool {
    let mut ends = text.split('-').map(|end| end.parse::<u32>());
    match (ends.next(), ends.next(), ends.next()) {
        (Some(Ok(_)), None, None) => true,
        (Some(Ok(first)), Some(Ok(last)), None) => first <= last,
        (_, _, _) => false,
    }
}

/// Whether systemd takes this as a user's or a group's name.
pub(super) fn is_name(text: &str) -> bool {
    text.len() <= NAME_MAX
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::oracle::program;
    use super::*;

    /// The problems of files that are read one after the other.
    fn problems(files: &[(&str, &str)]) -> Vec<String> {
        let mut accounts = Accounts::default();
        let mut problems = Problems::default();
        for (path, text) in files {
            let file = SourceFile { path: path.into(), bytes: text.as_bytes().to_vec() };
            accounts.check(&file, &mut problems);
        }
        problems.0.into_iter().map(|problem| format!("{}; {}", problem.message, problem.hint)).collect()
    }

    #[test]
    fn lines_that_a_host_takes() {
        let text = "# Users.\nu a 200 \"A user\" /var/lib/a /usr/sbin/nologin\nu b -\nu c 201:65534\n\
                    u d 202:a\nu e /var/lib/e\ng f 203\ng g -\nm a f\nr - 500-900\n\nu a 200\n";
        assert_eq!(problems(&[("a.conf", text)]), [""; 0]);
    }

    #[test]
    fn lines_that_a_host_refuses() {
        let check = |line: &str, expected: &str| {
            assert_eq!(problems(&[("a.conf", &format!("\n{line}\n"))]), [format!("line 2: {expected}")]);
        };
        check(
            "x a 1",
            "`x` is not a type; use u for a user, g for a group, m for a member, r for a range: sysusers.d(5)",
        );
        let name = "use letters, digits, `-` and `_`, at most 31, first no digit";
        check("u 1a 200", &format!("`1a` is not a name; {name}"));
        check("u", &format!("`-` is not a name; {name}"));
        check("u a two", "`two` is not an id; write a number, UID:GID, or -");
        check("u a 65535", "`65535` is not an id; write a number, UID:GID, or -");
        check("u a 200:", "`` is not a group; write UID:GID, or UID:GROUP");
        check(
            "u a 200 A user of ours /x /bin/sh",
            "has 9 fields, and `u` takes 6; put a description with blanks into quotes",
        );
        check("g a b", "`b` is not an id; write a number, or -");
        check("m a", "`-` is not a group's name; write m USER GROUP");
        check("r - 900-500", "`900-500` is not a range; write r - FIRST-LAST");
        check("u a 200 \"A", "a quote is left open; close it");
    }

    #[test]
    fn systemd_is_of_the_same_opinion() {
        let root = tempfile::tempdir().unwrap();
        let etc = root.path().join("etc");
        fs::create_dir(&etc).unwrap();
        for name in ["passwd", "group"] {
            fs::write(etc.join(name), "root:x:0:0::/:/bin/sh\n").unwrap();
        }
        let file = root.path().join("a.conf");
        let good = [
            "u a 200 \"A user\" /var/lib/a /bin/sh",
            "u b -",
            "u c 201:65534",
            "g f 203",
            "m root root",
            "r - 5-9",
        ];
        let bad = [
            "x a 1",
            "u! a -",
            "u 1a 200",
            "u",
            "u a two",
            "u a 65535",
            "u a 200:",
            "u a 200 A user of ours /x /bin/sh",
            "g a b",
            "m a",
            "r - 900-500",
            "u a 200 \"A",
        ];
        for (line, is_good) in good.map(|line| (line, true)).into_iter().chain(bad.map(|line| (line, false)))
        {
            fs::write(&file, format!("{line}\n")).unwrap();
            let mut command = program("systemd-sysusers");
            let output = command.arg("--dry-run").arg("--root").arg(root.path()).arg(&file).output().unwrap();
            assert_eq!(output.status.success(), is_good, "{line}: {output:?}");
            assert_eq!(problems(&[("a.conf", line)]).is_empty(), is_good, "{line}");
        }
    }

    #[test]
    fn an_id_has_one_owner() {
        let a = ("a.conf", "u a 200\ng own 300\n");
        let check = |line: &str, expected: &[&str]| assert_eq!(problems(&[a, ("b.conf", line)]), expected);
        check(
            "u b 200:65534",
            &["line 1: the user id 200 is `a`'s (a.conf, line 1); \
                                  choose another id below 1000, or write - for any"],
        );
        check(
            "g b 200",
            &["line 1: the group id 200 is `a`'s (a.conf, line 1); \
                            choose another id below 1000, or write - for any"],
        );
        check(
            "u a 201:300",
            &["line 1: user `a` has the id 200 already (a.conf, line 1); write 200, or rename it"],
        );
        check("u b 300:65534\nu c -\nu a -\nu a 200", &[]);
    }
}
