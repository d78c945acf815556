//! `sign`: a signature beside an image, by a key of cosign's; and a new such key.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use super::Session;
use crate::flags::{Sign, Signing};
use crate::hint::WithHint;
use crate::oci::{Digest, ImageName, Reference};
use crate::password;
use crate::registry::Client;
use crate::sign::{self as signing, Beside, Depth, KeyFile, PrivateKey, Randomness};
use crate::source::Source;

/// Where cosign takes the password of its keys from.
const PASSWORD: &str = "COSIGN_PASSWORD";
/// No key has a larger file, in bytes.
pub(super) const MAX_KEY: u64 = 64 * 1024;
/// Whoever owns a private key reads it; everybody reads a public one.
const PRIVATE_MODE: u32 = 0o600;
const PUBLIC_MODE: u32 = 0o644;

/// What was signed. Keys may be added, none renamed.
#[derive(Debug, Serialize)]
struct Report {
    reference: String,
    /// What the reference names.
    digest: Digest,
    /// The images of an index come first.
    signatures: Vec<SignatureReport>,
}

#[derive(Debug, Serialize)]
pub(super) struct SignatureReport {
    digest: Digest,
    /// The tag that the signature is under.
    tag: String,
    /// Whether this key had signed it before.
    unchanged: bool,
}

/// A pair of keys. Keys may be added, none renamed.
#[derive(Debug, Serialize)]
struct KeyReport {
    private_key: PathBuf,
    public_key: PathBuf,
}

pub(crate) fn run(flags: &Sign, session: &Session) -> Result<()> {
    match flags.order() {
        Signing::Image { reference, depth } => sign_image(reference, depth, &flags.key, session),
        Signing::Key(path) => make_key(path, session),
    }
}

fn sign_image(reference: &Reference, depth: Depth, path: &Path, session: &Session) -> Result<()> {
    let key = open_key(path)?;
    let registry = session.registry()?;
    // From here on, the digest counts: the tag may move at any time.
    let source = Source::open(&ImageName::Registry(reference.clone()), &registry)?;
    let digest = source.document.blob().digest();
    let digests = signing::digests(&source.document, depth)?;
    let signatures = sign(reference, &digests, &key, &registry)?;
    let count = signatures.iter().filter(|signature| !signature.unchanged).count();
    session.progress.line(match count {
        0 => format!("{reference} has this key's signature"),
        1 => format!("signed {reference}"),
        count => format!("signed {reference}, {count} images"),
    });
    let report = Report { reference: reference.to_string(), digest, signatures };
    session.print(&report, || digest.to_string())
}

/// Signs images of the repository of `reference`, which need not be there yet.
pub(super) fn sign(
    reference: &Reference,
    digests: &[Digest],
    key: &PrivateKey,
    registry: &Client,
) -> Result<Vec<SignatureReport>> {
    let sign = |&digest: &Digest| -> Result<SignatureReport> {
        let (place, unchanged) = Beside::sign(registry, reference, digest, key)?;
        let tag = place.tag().unwrap_or_default().to_owned();
        Ok(SignatureReport { digest, tag, unchanged })
    };
    digests.iter().map(sign).collect()
}

/// Reads a private key, and opens it where it is encrypted.
pub(super) fn open_key(path: &Path) -> Result<PrivateKey> {
    let explained = |error| signing::explained(error, path);
    match KeyFile::parse(&read_key(path)?).map_err(explained)? {
        KeyFile::Plain(key) => Ok(key),
        KeyFile::Sealed(key) => {
            let password = password_of(&format!("password of {}", path.display()))?;
            key.open(&password).map_err(explained)
        }
    }
}

/// The text of a file with a key.
pub(super) fn read_key(path: &Path) -> Result<Zeroizing<String>> {
    let reading = || format!("reading the key {}", path.display());
    let mut text = Zeroizing::new(String::new());
    let file = File::open(path)
        .with_context(reading)
        .hint("name a key that is there: 'cargo xtask sign --generate-key' makes a pair of them")?;
    file.take(MAX_KEY).read_to_string(&mut text).with_context(reading)?;
    Ok(text)
}

fn password_of(question: &str) -> Result<Zeroizing<Vec<u8>>> {
    match env::var_os(PASSWORD) {
        Some(password) => Ok(Zeroizing::new(password.into_vec())),
        None => {
            password::ask(question, &format!("set {PASSWORD}, which may be empty, to the key's password"))
        }
    }
}

fn make_key(path: &Path, session: &Session) -> Result<()> {
    let public_path = path.with_extension("pub");
    if public_path == path {
        return Err(anyhow!("{} is what the public key is called", path.display()))
            .hint("name the private key otherwise, such as '--key cosign.key'");
    }
    for path in [path, &public_path] {
        if fs::symlink_metadata(path).is_ok() {
            return Err(exists(path));
        }
    }
    let password = new_password(path)?;
    let key = loop {
        if let Some(key) = PrivateKey::from_random(&*random()?) {
            break key;
        }
    };
    let randomness = Randomness { salt: *random()?, nonce: *random()? };
    let private = key.seal(&password, &randomness).map_err(|error| signing::explained(error, path))?;
    let public = key.public().to_pem().map_err(|error| signing::explained(error, path))?;
    // Both are whole before either has its name.
    let private = unnamed(path, &private, PRIVATE_MODE)?;
    let public = unnamed(&public_path, &public, PUBLIC_MODE)?;
    name(public, &public_path)?;
    name(private, path)?;
    session.progress.line(format!(
        "keep {} and its password to yourself; hosts and 'verify' take {}",
        path.display(),
        public_path.display()
    ));
    let report = KeyReport { private_key: path.to_owned(), public_key: public_path };
    session.print(&report, || format!("{}\n{}", report.private_key.display(), report.public_key.display()))
}

/// A password for a new key; one that is typed is typed twice.
fn new_password(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let password = password_of(&format!("password for {}", path.display()))?;
    if env::var_os(PASSWORD).is_none() && *password != *password_of("the same again")? {
        return Err(anyhow!("the second password is another one")).hint("run it again");
    }
    Ok(password)
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    let mut filled = 0;
    while filled < N {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut bytes[filled..], flags).context("getting random bytes")?;
    }
    Ok(bytes)
}

/// A file in the folder of `path`, on disk, and without its name.
fn unnamed(path: &Path, text: &str, mode: u32) -> Result<NamedTempFile> {
    let write = || -> io::Result<NamedTempFile> {
        let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        let mut file = builder.permissions(PermissionsExt::from_mode(mode)).tempfile_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        Ok(file)
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// Gives a file its name, unless another one has it.
fn name(file: NamedTempFile, path: &Path) -> Result<()> {
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Err(exists(path)),
        Err(error) => Err(error.error).with_context(|| format!("writing {}", path.display())),
    }
}

fn exists(path: &Path) -> anyhow::Error {
    let error = anyhow!("{} is there, and no key is overwritten", path.display());
    crate::hint::hinted(error, "name another file with '--key FILE', or move this one away")
}
