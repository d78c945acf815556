//! Public keys for ssh, looked at closely: a key that sshd does not read lets nobody in, and that
//! shows only when the machine runs.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The least that the crypto policies of the RPM distros let in.
const LEAST_RSA_BITS: usize = 2048;

/// The type and the key, without the comment: it says who made the key, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicKey(String);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadKey {
    #[error("it is a private key, which must never be in an image or on a disk")]
    Private,
    #[error("the ssh key is a placeholder")]
    Placeholder,
    #[error("it has no key in it")]
    None,
    #[error("it has the key in the form of RFC 4716, which sshd does not read")]
    Rfc4716,
    #[error("an ssh key begins with its type, and not with `{0}`")]
    Type(String),
    #[error("`{0}` is a kind of ssh key that OpenSSH no longer takes")]
    Old(String),
    #[error("the ssh key after `{0}` is not whole base64")]
    Base64(String),
    #[error("the ssh key says that it is `{given}`, and is something else inside")]
    Inside { given: String },
    #[error("the ssh key has {bits} bits, and hosts refuse RSA below {LEAST_RSA_BITS}")]
    Short { bits: usize },
}

impl BadKey {
    pub(crate) fn hint(&self) -> String {
        match self {
            BadKey::Private => "give the file that ends in .pub".to_owned(),
            BadKey::Placeholder => {
                "write your public key there, or give it with '--ssh-key ~/.ssh/id_ed25519.pub'".to_owned()
            }
            BadKey::None => "give a file that 'ssh-keygen -t ed25519' wrote, ending in .pub".to_owned(),
            BadKey::Rfc4716 => "run 'ssh-keygen -i -f FILE', and give what it writes".to_owned(),
            BadKey::Old(_) | BadKey::Short { .. } => "make another with 'ssh-keygen -t ed25519'".to_owned(),
            BadKey::Type(_) | BadKey::Base64(_) | BadKey::Inside { .. } => {
                "copy the whole line of the file that ends in .pub; 'ssh-keygen -l -f FILE' checks it"
                    .to_owned()
            }
        }
    }
}

/// All keys of a text with one a line, as in an authorized_keys file.
pub(super) fn keys(text: &str) -> Result<Vec<PublicKey>, BadKey> {
    // Before anything of it is shown in an error.
    if text.contains("PRIVATE KEY") || text.contains("PuTTY-User-Key-File") {
        return Err(BadKey::Private);
    }
    if text.contains("BEGIN SSH2 PUBLIC KEY") {
        return Err(BadKey::Rfc4716);
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<PublicKey> = lines.map(str::parse).collect::<Result<_, _>>()?;
    if keys.is_empty() { Err(BadKey::None) } else { Ok(keys) }
}

impl FromStr for PublicKey {
    type Err = BadKey;

    fn from_str(line: &str) -> Result<PublicKey, BadKey> {
        let mut words = line.split_whitespace();
        let kind = words.next().unwrap_or_default();
        let body = words.next().unwrap_or_default();
        let comment = words.collect::<Vec<_>>().join(" ");
        let key = check(kind, body);
        // What stands for a key is told as such, and not by what base64 thinks of it.
        if is_marked(&comment) || key.is_err() && looks_like_none(line) {
            return Err(BadKey::Placeholder);
        }
        key.map(|()| PublicKey(format!("{kind} {body}")))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_marked(comment: &str) -> bool {
    let comment = comment.to_lowercase();
    ["replace-me", "replace_me", "replaceme", "changeme", "change-me", "change_me", "placeholder"]
        .iter()
        .any(|mark| comment.contains(mark))
}

fn looks_like_none(line: &str) -> bool {
    let line = line.to_lowercase();
    is_marked(&line)
        || ["...", "…", "<", ">", "replace", "your", "public key", "public_key", "todo", "xxxx"]
            .iter()
            .any(|mark| line.contains(mark))
}

/// Source: RFC 4253, 6.6, RFC 5656, 3.1, and RFC 8709, 4, for what is inside; OpenSSH, PROTOCOL.u2f,
/// for the kinds that begin with `sk-`.
fn check(kind: &str, body: &str) -> Result<(), BadKey> {
    let fields: &[Field] = match kind {
        "ssh-ed25519" => &[Field::Ed25519],
        "ssh-rsa" => &[Field::Number, Field::Modulus],
        "ecdsa-sha2-nistp256" => &[Field::Text("nistp256"), Field::Point(32)],
        "ecdsa-sha2-nistp384" => &[Field::Text("nistp384"), Field::Point(48)],
        "ecdsa-sha2-nistp521" => &[Field::Text("nistp521"), Field::Point(66)],
        "sk-ssh-ed25519@openssh.com" => &[Field::Ed25519, Field::Any],
        "sk-ecdsa-sha2-nistp256@openssh.com" => &[Field::Text("nistp256"), Field::Point(32), Field::Any],
        "ssh-dss" => return Err(BadKey::Old(kind.to_owned())),
        // What is no type may be anything, also something that nobody should see.
        _ => return Err(BadKey::Type(kind.chars().filter(char::is_ascii_graphic).take(20).collect())),
    };
    let blob = STANDARD.decode(body).map_err(|_| BadKey::Base64(kind.to_owned()))?;
    let inside = || BadKey::Inside { given: kind.to_owned() };
    let mut rest = &blob[..];
    let named = take(&mut rest).ok_or_else(inside)?;
    if named != kind.as_bytes() {
        return Err(inside());
    }
    for field in fields {
        let bytes = take(&mut rest).ok_or_else(inside)?;
        let is_it = match field {
            Field::Any => !bytes.is_empty(),
            Field::Text(text) => bytes == text.as_bytes(),
            Field::Point(size) => bytes.len() == 1 + 2 * size && bytes.starts_with(&[4]),
            Field::Ed25519 if bytes.len() == 32 && bytes.iter().all(|byte| *byte == bytes[0]) => {
                return Err(BadKey::Placeholder);
            }
            Field::Ed25519 => bytes.len() == 32,
            // The first bit would make it negative.
            Field::Number => bytes.first().is_some_and(|first| *first < 0x80),
            Field::Modulus => {
                let digits = bytes.iter().skip_while(|byte| **byte == 0).count();
                let top =
                    bytes.iter().find(|byte| **byte != 0).map_or(8, |byte| byte.leading_zeros() as usize);
                let bits = (digits * 8).saturating_sub(top);
                if bits < LEAST_RSA_BITS {
                    return Err(BadKey::Short { bits });
                }
                bytes.first().is_some_and(|first| *first < 0x80)
            }
        };
        if !is_it {
            return Err(inside());
        }
    }
    if rest.is_empty() { Ok(()) } else { Err(inside()) }
}

enum Field {
    Any,
    Text(&'static str),
    /// An uncompressed point whose coordinates have so many bytes.
    Point(usize),
    Ed25519,
    Number,
    Modulus,
}

/// A string of RFC 4251, 5: its length in four bytes comes first.
fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let (bytes, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    *rest = after;
    Some(bytes)
}
