//! Lines of tmpfiles.d: what a host would refuse at each boot, or could not do.
//! Source: tmpfiles.d(5) of systemd 252, which is the oldest that a host has (CentOS Stream 9).

use super::files::SourceFile;
use super::problem::{Problems, Wrong};

/// The types of lines. Those that need an argument come second.
const TYPES: &str = "fwdDevqQpLcbCxXrRzZtThHaAF";
const WITH_ARGUMENT: &str = "wcbtThHaA";
const MODIFIERS: &str = "+!-=~^";
/// Of these a line only says that they are left alone, or what is removed from them.
const KEEPS: &str = "xXrR";
/// What a host can write to, directly or, as with /home, through a link into /var.
const WRITABLE: [&str; 14] = [
    "var",
    "run",
    "etc",
    "tmp",
    "dev",
    "sys",
    "proc",
    "home",
    "root",
    "srv",
    "opt",
    "mnt",
    "media",
    "usr/local",
];
/// Folders that are links, which systemd warns of at each boot.
const LEGACY: [(&str, &str); 2] = [("/var/run", "/run"), ("/var/lock", "/run/lock")];

pub(super) fn check(file: &SourceFile, problems: &mut Problems) {
    for (number, line) in file.statements(problems) {
        if let Err(wrong) = check_line(line) {
            problems.add_line(&file.path, number, wrong);
        }
    }
}

fn check_line(line: &str) -> Result<(), Wrong> {
    let (fields, argument) = split(line).ok_or_else(|| Wrong::new("a quote is left open", "close it"))?;
    let mut fields = fields.iter().map(String::as_str);
    let field = |text: Option<&str>| text.filter(|text| *text != "-").map(str::to_owned);
    let kind = fields.next().unwrap_or_default();
    check_type(kind)?;
    let path = fields
        .next()
        .ok_or_else(|| Wrong::new("names no path", "write TYPE PATH MODE USER GROUP AGE ARGUMENT"))?;
    check_path(kind, path)?;
    if let Some(mode) = field(fields.next())
        && !is_mode(&mode)
    {
        return Err(Wrong::new(format!("`{mode}` is not a mode"), "write it like 0755, or -"));
    }
    for owner in [fields.next(), fields.next()].into_iter().filter_map(field) {
        let name = owner.trim_start_matches(':');
        if !name.starts_with('%') && !super::sysusers::is_name(name) && !is_number(name) {
            let edit = "name a user or a group of the base, or one of configs/sysusers.d";
            let message = format!("`{owner}` is neither a user's or a group's name nor an id");
            return Err(Wrong::new(message, edit));
        }
    }
    let needs_argument = kind.starts_with(|c| WITH_ARGUMENT.contains(c));
    if needs_argument && matches!(argument, "" | "-") {
        return Err(Wrong::new(format!("type `{kind}` needs an argument"), "write it in the seventh field"));
    }
    Ok(())
}

fn check_type(kind: &str) -> Result<(), Wrong> {
    let mut letters = kind.chars();
    let is_known = letters.next().is_some_and(|letter| TYPES.contains(letter))
        && letters.all(|modifier| MODIFIERS.contains(modifier));
    let edit = "use d for a folder, f for a file, L for a link: tmpfiles.d(5) has them all";
    if is_known { Ok(()) } else { Err(Wrong::new(format!("`{kind}` is not a type"), edit)) }
}

fn check_path(kind: &str, path: &str) -> Result<(), Wrong> {
    // A specifier stands for a folder that systemd knows.
    if path.starts_with('%') {
        return Ok(());
    }
    let edit = "use a path below /var or /run";
    let Some(below) = path.strip_prefix('/') else {
        return Err(Wrong::new(format!("`{path}` is not an absolute path"), edit));
    };
    if path.split('/').any(|part| part == "..") {
        return Err(Wrong::new(format!("{path} has `..` in it"), "write the path without it"));
    }
    for (legacy, new) in LEGACY {
        if is_within(path, legacy) {
            let edit = format!("write {new}{}", &path[legacy.len()..]);
            return Err(Wrong::new(format!("{legacy} is only a link to {new}"), edit));
        }
    }
    if kind.starts_with(|c| KEEPS.contains(c)) || WRITABLE.iter().any(|top| is_within(below, top)) {
        Ok(())
    } else if is_within(below, "usr") {
        Err(Wrong::new(format!("{path} cannot be changed, /usr is read-only"), edit))
    } else {
        Err(Wrong::new(format!("{path} cannot be made, the root of a host is read-only"), edit))
    }
}

/// Whether a path is `folder` or something in it.
fn is_within(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Octal, perhaps behind `~` (masked) or `:` (for new files only).
fn is_mode(mode: &str) -> bool {
    let digits = mode.trim_start_matches(['~', ':']);
    (3..=5).contains(&digits.len()) && u32::from_str_radix(digits, 8).is_ok_and(|mode| mode <= 0o7777)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The first six fields, without their quotes, and the argument, which is the rest of the line as
/// it is. `None` if a quote is left open.
fn split(line: &str) -> Option<(Vec<String>, &str)> {
    let mut fields = Vec::new();
    let mut rest = line.trim_start();
    while fields.len() < 6 && !rest.is_empty() {
        let mut field = String::new();
        let mut quote = None;
        let mut end = rest.len();
        for (at, c) in rest.char_indices() {
            match quote {
                Some(open) if c == open => quote = None,
                Some(_) => field.push(c),
                None if c.is_ascii_whitespace() => {
                    end = at;
                    break;
                }
                None if c == '"' || c == '\'' => quote = Some(c),
                None => field.push(c),
            }
        }
        if quote.is_some() {
            return None;
        }
        fields.push(field);
        rest = rest[end..].trim_start();
    }
    Some((fields, rest.trim_end()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::oracle::program;
    use super::*;

    const GOOD: [&str; 11] = [
        "d /var/lib/x",
        "d /var/lib/x 0750 x x 10d -",
        "D! \"/run/with blank\" 1777 root root",
        "f+ /etc/motd 0644 - - - it's \"free\"",
        "L+ /run/x - - - - ../y",
        "C /etc/x - - - - /usr/share/x",
        "w /sys/module/x - - - - 1",
        "x /usr/x",
        "d %S/x ~0755 :x 110",
        "d /usr/local/lib/x",
        "d /srv/x -",
    ];
    /// What systemd itself refuses.
    const BAD: [&str; 9] = [
        "k /var/x",
        "dx /var/x",
        "d",
        "d var/x",
        "d /var/x rwx",
        "d /var/x 0999",
        "d /var/x - a.b",
        "d \"/var/x",
        "w /sys/x - - - -",
    ];

    #[test]
    fn systemd_is_of_the_same_opinion() {
        let root = tempfile::tempdir().unwrap();
        let etc = root.path().join("etc");
        fs::create_dir(&etc).unwrap();
        fs::write(etc.join("passwd"), "root:x:0:0::/:/bin/sh\nx:x:5:5::/:/bin/sh\n").unwrap();
        fs::write(etc.join("group"), "root:x:0:\nx:x:5:\n").unwrap();
        let file = root.path().join("a.conf");
        for (line, is_good) in GOOD.map(|line| (line, true)).into_iter().chain(BAD.map(|line| (line, false)))
        {
            fs::write(&file, format!("{line}\n")).unwrap();
            // It reads everything, and has nothing to remove.
            let mut command = program("systemd-tmpfiles");
            let output = command.arg("--clean").arg("--root").arg(root.path()).arg(&file).output().unwrap();
            assert_eq!(output.status.success(), is_good, "{line}: {output:?}");
            assert_eq!(check_line(line).is_ok(), is_good, "{line}");
        }
    }

    #[test]
    fn lines_that_a_host_refuses() {
        let check = |line: &str, expected: &str| {
            let Wrong { message, hint } = check_line(line).unwrap_err();
            assert_eq!(format!("{message}; {hint}"), expected, "{line}");
        };
        let types = "use d for a folder, f for a file, L for a link: tmpfiles.d(5) has them all";
        check("k /var/x", &format!("`k` is not a type; {types}"));
        check("dx /var/x", &format!("`dx` is not a type; {types}"));
        check("d", "names no path; write TYPE PATH MODE USER GROUP AGE ARGUMENT");
        check("d var/x", "`var/x` is not an absolute path; use a path below /var or /run");
        check("d /var/../usr/x", "/var/../usr/x has `..` in it; write the path without it");
        check("d /var/run/x", "/var/run is only a link to /run; write /run/x");
        check(
            "d /usr/share/x",
            "/usr/share/x cannot be changed, /usr is read-only; use a path below /var or /run",
        );
        check(
            "d /data",
            "/data cannot be made, the root of a host is read-only; use a path below /var or /run",
        );
        check("d /var/x rwx", "`rwx` is not a mode; write it like 0755, or -");
        check("d /var/x 0999", "`0999` is not a mode; write it like 0755, or -");
        let owner = "name a user or a group of the base, or one of configs/sysusers.d";
        check("d /var/x - a.b", &format!("`a.b` is neither a user's or a group's name nor an id; {owner}"));
        check("d \"/var/x", "a quote is left open; close it");
        check("w /sys/x - - - -", "type `w` needs an argument; write it in the seventh field");
    }
}
