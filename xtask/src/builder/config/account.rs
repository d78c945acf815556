//! Users and groups.

use super::key::{self, BadKey, PublicKey};
use super::read::{Notes, Section};

/// Whoever a key is for when nobody is named: an administrator.
const OPERATOR: &str = "devops";
/// The group of administrators on RPM distros; a builder knows what it is called elsewhere.
pub(crate) const ADMINISTRATORS: &str = "wheel";

/// A user that a disk is made with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    /// In the form of crypt(5).
    pub(crate) password: Option<String>,
    pub(crate) keys: Vec<PublicKey>,
    pub(crate) home: Option<String>,
    pub(crate) shell: Option<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) gid: Option<u32>,
}

impl User {
    /// The owner of `keys`, where no user is named.
    pub(super) fn operator(keys: &[PublicKey]) -> User {
        User {
            name: OPERATOR.to_owned(),
            keys: keys.to_vec(),
            groups: vec![ADMINISTRATORS.to_owned()],
            ..User::default()
        }
    }

    /// How it can log in, if it can.
    pub(super) fn login(&self) -> Option<String> {
        let ways = [("ssh key", !self.keys.is_empty()), ("password", self.password.is_some())];
        let ways: Vec<&str> = ways.into_iter().filter(|(_, is)| *is).map(|(way, _)| way).collect();
        (!ways.is_empty()).then(|| format!("{} ({})", self.name, ways.join(", ")))
    }
}

/// Users; each gets `keys` as well, which stand instead of a placeholder.
pub(super) fn users(sections: Vec<Section<'_>>, keys: &[PublicKey], notes: &mut Notes<'_>) -> Vec<User> {
    let mut users: Vec<User> = Vec::new();
    for mut section in sections {
        let line = section.line;
        let user = user(&mut section, keys, notes);
        section.finish(notes, |key| match key {
            "expiredate" | "force_password_reset" => {
                Some("remove it: no disk is made with it; 'chage' does it on the host")
            }
            "keys" | "ssh_keys" => Some("'key' may have several lines, one a key"),
            _ => None,
        });
        if !user.name.is_empty() && users.iter().any(|other| other.name == user.name) {
            notes.add(line, format!("there are two users `{}`", user.name), "put what they have into one");
        }
        if user.uid.is_some() && users.iter().any(|other| other.uid == user.uid) {
            notes.add(line, format!("`{}` has the uid of another user", user.name), "give it one of its own");
        }
        users.push(user);
    }
    users
}

fn user(section: &mut Section<'_>, keys: &[PublicKey], notes: &mut Notes<'_>) -> User {
    let mut user = User { name: name(section, "user", notes), keys: keys.to_vec(), ..User::default() };
    if let Some(text) = section.string("description", notes) {
        if text.value.contains(':') {
            notes.add(
                text.line,
                "a description has no ':': it separates the fields of /etc/passwd",
                "remove it",
            );
        } else {
            user.description = Some(text.value.to_owned());
        }
    }
    if let Some(text) = section.string("password", notes) {
        let hint = "run 'openssl passwd -6', and write what it prints";
        user.password = notes.check(text.line, password(text.value), |_| hint.to_owned());
    }
    if let Some(text) = section.lines("key", notes) {
        match key::keys(text.value) {
            Ok(own) => {
                user.keys.splice(0..0, own.into_iter().filter(|key| !keys.contains(key))).for_each(drop)
            }
            Err(BadKey::Placeholder) if !keys.is_empty() => (),
            Err(error) => notes.add(text.line, &error, error.hint()),
        }
        if user.name == "root" {
            notes.add(
                text.line,
                "a key of root's is of no use: sshd does not let root in",
                "give it to a user in group 'wheel'",
            );
        }
    }
    if user.name == "root" {
        user.keys.clear();
    }
    if let Some(text) = section.string("home", notes) {
        let home = text.value.trim_end_matches('/');
        let is_writable = ["/home/", "/var/"].iter().any(|top| home.starts_with(top));
        if is_path(home) && is_writable {
            user.home = Some(home.to_owned());
        } else {
            notes.add(
                text.line,
                format!("a home at `{}` could not be written to: /usr is read-only, and the rest of the top is the image's", text.value),
                "choose one below /home or /var",
            );
        }
    }
    if let Some(text) = section.string("shell", notes) {
        if is_path(text.value) {
            user.shell = Some(text.value.to_owned());
        } else {
            notes.add(
                text.line,
                format!("`{}` is no path of a shell", text.value),
                "write it as \"/bin/bash\"",
            );
        }
    }
    user.groups = section
        .strings("groups", notes)
        .into_iter()
        .filter_map(|text| {
            let hint = |_: &BadName| NAME_HINT.to_owned();
            notes.check(text.line, valid_name(text.value, "group"), hint)
        })
        .collect();
    user.uid = id(section, "uid", 1000, notes);
    user.gid = id(section, "gid", 1, notes);
    user
}

pub(super) fn groups(sections: Vec<Section<'_>>, notes: &mut Notes<'_>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for mut section in sections {
        let line = section.line;
        let group =
            Group { name: name(&mut section, "group", notes), gid: id(&mut section, "gid", 1, notes) };
        section.finish(notes, |_| None);
        let is_twice = !group.name.is_empty() && groups.iter().any(|other| other.name == group.name);
        let has_taken = group.gid.is_some() && groups.iter().any(|other| other.gid == group.gid);
        if is_twice || has_taken {
            let what = if is_twice { "name" } else { "gid" };
            notes.add(
                line,
                format!("the group `{}` has the {what} of another", group.name),
                "give it one of its own",
            );
        }
        groups.push(group);
    }
    groups
}

const NAME_HINT: &str = "use lower-case letters, digits, '_' and '-', a letter or '_' first, at most 31";

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no name of a {kind}")]
pub(super) struct BadName {
    name: String,
    kind: &'static str,
}

/// The name; without one, the empty string and a note.
fn name(section: &mut Section<'_>, kind: &'static str, notes: &mut Notes<'_>) -> String {
    match section.string("name", notes) {
        Some(text) => {
            let name = valid_name(text.value, kind);
            notes.check(text.line, name, |_| NAME_HINT.to_owned()).unwrap_or_default()
        }
        None if section.has("name") => String::new(),
        None => {
            notes.add(section.line, format!("a {kind} has no name"), "add 'name = \"...\"'");
            String::new()
        }
    }
}

/// Source: systemd.io, "User/Group Name Syntax", strict mode, which shadow takes everywhere.
pub(super) fn valid_name(text: &str, kind: &'static str) -> Result<String, BadName> {
    let is_first = |c: char| c.is_ascii_lowercase() || c == '_';
    let is_rest = |c: char| is_first(c) || c.is_ascii_digit() || c == '-';
    if text.starts_with(is_first) && text.chars().all(is_rest) && text.len() <= 31 {
        Ok(text.to_owned())
    } else {
        Err(BadName { name: text.to_owned(), kind })
    }
}

fn id(section: &mut Section<'_>, key: &'static str, least: i64, notes: &mut Notes<'_>) -> Option<u32> {
    /// The largest that login.defs gives to people; dynamic users of systemd's come after it.
    const MOST: i64 = 60_000;
    let (number, line) = section.integer(key, notes)?;
    let valid =
        (least..=MOST).contains(&number).then_some(number).and_then(|number| u32::try_from(number).ok());
    if valid.is_none() {
        let why = format!("the {key} {number} is not between {least} and {MOST}: others are the system's");
        notes.add(line, why, "choose one there, or leave it out");
    }
    valid
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadPassword {
    #[error("a password is written as its hash: whoever has the repository or a disk could read it")]
    Plain,
    #[error("this form of password hash is taken for a plain password by osbuild: $6$, $5$ and $2b$ are not")]
    Form,
    #[error("the password hash is not whole")]
    Cut,
}

/// Source: crypt(5); osbuild takes all but these three for plain passwords.
fn password(text: &str) -> Result<String, BadPassword> {
    let parts: Vec<&str> = text.split('$').collect();
    let is_base64 = |part: &str| part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '/'));
    let is_sha = |rest: &[&str], length: usize| match rest {
        [salt, hash] => {
            (1..=16).contains(&salt.len()) && is_base64(salt) && hash.len() == length && is_base64(hash)
        }
        _ => false,
    };
    let is_rounds =
        |part: &str| part.strip_prefix("rounds=").is_some_and(|count| count.parse::<u32>().is_ok());
    let is_whole = match parts.as_slice() {
        ["", kind @ ("5" | "6"), rest @ ..] => {
            let rest = match rest {
                [first, after @ ..] if is_rounds(first) => after,
                whole => whole,
            };
            is_sha(rest, if *kind == "6" { 86 } else { 43 })
        }
        ["", "2b", cost, hash] => {
            cost.len() == 2
                && cost.parse::<u8>().is_ok_and(|cost| (4..=31).contains(&cost))
                && hash.len() == 53
                && is_base64(hash)
        }
        ["", _, _, ..] => return Err(BadPassword::Form),
        _ => return Err(BadPassword::Plain),
    };
    if is_whole { Ok(text.to_owned()) } else { Err(BadPassword::Cut) }
}

/// An absolute path as /etc/passwd can have it.
fn is_path(text: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && !matches!(part, "." | "..")
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '+'))
    };
    text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_part))
}
