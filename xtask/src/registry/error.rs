//! What can go wrong with a registry, in the registry's own words, and what mends it.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use oci_client::errors::{OciEnvelope, OciErrorCode};
use reqwest::{Method, StatusCode, Url};
use serde_json::Value;

use crate::hint::hinted;
use crate::oci::document::DocumentError;
use crate::oci::verified::VerifyError;
use crate::oci::{Digest, Reference};
use crate::words::foreign;

pub(super) type Result<T, E = RegistryError> = std::result::Result<T, E>;

/// GitHub's registry, which takes the token that every GitHub workflow has.
/// Source: docs.github.com, "Working with the Container registry".
pub(super) const GHCR: &str = "ghcr.io";

/// What the resolver says of a name that does not exist, or has no address.
/// Source: `gai_strerror` of glibc (EAI_NONAME, EAI_NODATA) and of musl (EAI_NONAME, EAI_NODATA).
const UNKNOWN_NAME: [&str; 4] = [
    "Name or service not known",
    "No address associated with hostname",
    "Name does not resolve",
    "Name has no usable address",
];

/// Why an address is refused that a registry names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Distrust {
    #[error("which is not encrypted")]
    NotEncrypted,
    #[error("which is not its own")]
    NotItsOwn,
    #[error("which is no web address")]
    NoWebAddress,
    #[error("which a token service must not do")]
    TokenService,
    #[error("which would turn what is sent into a question")]
    OtherMethod,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    #[error("starting the network runtime")]
    Runtime(#[source] io::Error),
    #[error("setting up HTTP")]
    Setup(#[source] reqwest::Error),
    #[error("`{0}` is not the name of a registry")]
    Name(String),
    #[error("{url} cannot be reached: {}", root(error))]
    Unreachable { url: Shown, error: reqwest::Error },
    /// On this machine: there is no network in between that could mend itself.
    #[error("{url} cannot be reached: {}", root(error))]
    NothingListens { url: Shown, error: reqwest::Error },
    #[error("{url} broke off: {}", root(error))]
    Broken { url: Shown, error: reqwest::Error },
    #[error("{url} did not move for {after:?}")]
    Stalled { url: Shown, after: Duration },
    #[error("{method} {url}: {status}{said}")]
    Refused { method: Method, url: Shown, status: StatusCode, after: Option<Duration>, said: Box<Said> },
    #[error("{url} answers with something that no registry says")]
    NotARegistry { url: Shown },
    #[error("{url}: the answer has no valid `{header}`")]
    Header { url: Shown, header: &'static str },
    #[error("{reference} does not exist")]
    Missing { reference: String },

    #[error("no credentials for {registry}")]
    NoCredentials { registry: String },
    #[error("{registry} does not accept the credentials from {origin}")]
    Rejected { registry: String, origin: String },
    #[error("the credentials for {registry} in {origin} cannot be read: {message}")]
    Credentials { registry: String, origin: String, message: String },
    #[error("{registry} asks for a login that this program does not know: {message}")]
    Challenge { registry: String, message: String },
    #[error("{registry} sends logins to {realm}, {why}; no credentials were sent")]
    Realm { registry: String, realm: Shown, why: Distrust },

    #[error("{url} redirects more than {limit} times")]
    Redirects { url: Shown, limit: usize },
    #[error("{from} redirects to {to}, {why}")]
    Redirect { from: Shown, to: Shown, why: Distrust },

    #[error("{url} has more than the {limit} bytes that it may have")]
    TooLarge { url: Shown, limit: u64 },
    #[error("{url} is not what it should be")]
    Verify { url: Shown, source: VerifyError },
    #[error("{url} says that its digest is {said}, but it is {found}")]
    DigestHeader { url: Shown, said: String, found: Digest },
    #[error("reading {url}")]
    Document { url: Shown, source: DocumentError },
    #[error("writing {digest}")]
    Write { digest: Digest, source: io::Error },
    #[error("reading {digest} to send it")]
    Read { digest: Digest, source: io::Error },

    #[error("what was to be sent has changed: {0}")]
    Changed(VerifyError),

    #[error("nothing to push to {0}")]
    NothingToPush(Shown),
    #[error("the manifest {manifest} names {blob}, which is not among what is pushed")]
    Unlisted { manifest: Digest, blob: Digest },
    #[error("{target} asks for another digest than {found}, which is to be pushed")]
    OtherDigest { target: Shown, found: Digest },
    #[error("{url} is no list of referrers")]
    NoList { url: Shown },
    #[error("{url} lists more than {limit} {what}")]
    TooMany { url: Shown, limit: usize, what: &'static str },
    #[error("{url} was written to by others each time that it was added to")]
    Contended { url: Shown },
    #[error("{url} says that it has {blob}, and that it does not")]
    Contradiction { url: Shown, blob: Digest },
}

/// A URL without what may be secret (user, query and fragment: signatures are in queries).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown(Box<str>);

/// What a registry said in an error's body.
/// Source: OCI distribution specification, "Error Codes".
#[derive(Debug, Default)]
pub(crate) struct Said {
    errors: Vec<oci_client::errors::OciError>,
    text: String,
}

impl RegistryError {
    /// Whether trying again may help.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            RegistryError::Unreachable { error, .. } => tls_error(error).is_none() && !is_unknown_name(error),
            RegistryError::Refused { status, .. } => is_transient(*status),
            RegistryError::Broken { .. } | RegistryError::Stalled { .. } => true,
            RegistryError::Runtime(_)
            | RegistryError::Setup(_)
            | RegistryError::Name(_)
            | RegistryError::NothingListens { .. }
            | RegistryError::NotARegistry { .. }
            | RegistryError::Header { .. }
            | RegistryError::Missing { .. }
            | RegistryError::NoCredentials { .. }
            | RegistryError::Rejected { .. }
            | RegistryError::Credentials { .. }
            | RegistryError::Challenge { .. }
            | RegistryError::Realm { .. }
            | RegistryError::Redirects { .. }
            | RegistryError::Redirect { .. }
            | RegistryError::TooLarge { .. }
            | RegistryError::Verify { .. }
            | RegistryError::DigestHeader { .. }
            | RegistryError::Document { .. }
            | RegistryError::Write { .. }
            | RegistryError::Read { .. }
            | RegistryError::Changed(_)
            | RegistryError::NothingToPush(_)
            | RegistryError::Unlisted { .. }
            | RegistryError::OtherDigest { .. }
            | RegistryError::NoList { .. }
            | RegistryError::TooMany { .. }
            | RegistryError::Contended { .. }
            | RegistryError::Contradiction { .. } => false,
        }
    }

    /// When the registry wants to be asked again.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            RegistryError::Refused { after, .. } => *after,
            _ => None,
        }
    }

    /// Whether the registry has said that this may not be done.
    pub(super) fn is_denied(&self) -> bool {
        matches!(self, RegistryError::Refused { status, .. } if *status == StatusCode::FORBIDDEN)
    }

    /// What the user can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            RegistryError::Unreachable { error, url } => Some(unreachable_hint(error, url)),
            RegistryError::NothingListens { url, .. } => Some(not_running_hint(url)),
            RegistryError::Stalled { .. } | RegistryError::Broken { .. } => {
                Some("check the network, and run the command again".to_owned())
            }
            RegistryError::Refused { method, url, status, said, .. } => {
                refused_hint(method, url, *status, said)
            }
            RegistryError::NotARegistry { .. } => Some("check the registry's name and port".to_owned()),
            RegistryError::Missing { .. } => Some("check the name and the tag".to_owned()),
            RegistryError::NoCredentials { registry } if registry == GHCR => {
                Some(format!("run 'podman login {registry}', or set GITHUB_TOKEN"))
            }
            RegistryError::NoCredentials { registry } | RegistryError::Rejected { registry, .. } => {
                Some(format!("run 'podman login {registry}'"))
            }
            RegistryError::Credentials { registry, .. } => {
                Some(format!("run 'podman login {registry}' to write them anew"))
            }
            RegistryError::Realm { registry, realm, why: Distrust::NotItsOwn } => Some(format!(
                "if {} is to be trusted, use 'skopeo copy' between {registry} and an OCI layout: it sends them there",
                realm.host()
            )),
            RegistryError::Redirect { why: Distrust::NotEncrypted, .. }
            | RegistryError::Realm { why: Distrust::NotEncrypted, .. } => {
                Some("the registry's administrator has to set its external URL to https".to_owned())
            }
            RegistryError::Verify { .. } | RegistryError::DigestHeader { .. } => {
                Some("the registry, or a proxy before it, is damaged or hostile: nothing was used".to_owned())
            }
            RegistryError::Contended { .. } => Some("run the command again, alone".to_owned()),
            RegistryError::NoList { .. } => Some(
                "the registry, or who else writes to the repository, is damaged or hostile: remove the tag"
                    .to_owned(),
            ),
            RegistryError::TooMany { .. } => {
                Some("the registry, or who else writes to the repository, is damaged or hostile".to_owned())
            }
            RegistryError::TooLarge { .. } => Some("check that the name is an image's".to_owned()),
            RegistryError::Document { url, source } => Some(document_hint(source, url)),
            RegistryError::Runtime(_)
            | RegistryError::Setup(_)
            | RegistryError::Name(_)
            | RegistryError::Header { .. }
            | RegistryError::Challenge { .. }
            | RegistryError::Realm { .. }
            | RegistryError::Redirects { .. }
            | RegistryError::Redirect { .. }
            | RegistryError::Write { .. }
            | RegistryError::Read { .. }
            | RegistryError::Changed(_)
            | RegistryError::NothingToPush(_)
            | RegistryError::Unlisted { .. }
            | RegistryError::OtherDigest { .. }
            | RegistryError::Contradiction { .. } => None,
        }
    }

    /// The error for the commands: with its hint.
    pub(crate) fn into_hinted(self) -> anyhow::Error {
        match self.hint() {
            Some(hint) => hinted(self, hint),
            None => self.into(),
        }
    }
}

/// Statuses that pass: timeouts, limits, and servers in trouble.
/// Source: RFC 9110, 15.5.9, 15.6; RFC 6585, 4.
pub(super) fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

fn unreachable_hint(error: &reqwest::Error, url: &Shown) -> String {
    if let Some(tls) = tls_error(error) {
        return match tls {
            rustls::Error::InvalidCertificate(_) => {
                "set SSL_CERT_FILE to the registry's CA certificates".to_owned()
            }
            _ => format!("if the registry speaks plain HTTP, add '--plain-http {}'", url.host()),
        };
    }
    match is_refused(error) {
        true => not_running_hint(url),
        false => format!("check the name {}", url.host()),
    }
}

fn not_running_hint(url: &Shown) -> String {
    format!("is the registry at {} running?", url.host())
}

fn refused_hint(method: &Method, url: &Shown, status: StatusCode, said: &Said) -> Option<String> {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let https = said.text.contains("HTTP request to an HTTPS server");
    match status.as_u16() {
        400 if https => Some(format!("the registry speaks HTTPS: leave out '--plain-http {}'", url.host())),
        401 | 403 => Some("the account has no right to do this: ask the repository's owner".to_owned()),
        404 if reads => Some("check the name".to_owned()),
        404 => Some("check the name: some registries want a repository to be made first".to_owned()),
        413 => Some("the registry, or a proxy before it, limits the size of a request".to_owned()),
        429 => Some("wait a while: the registry limits how often it is asked".to_owned()),
        500..=599 => Some("the registry is in trouble: try again later".to_owned()),
        _ => None,
    }
}

fn document_hint(error: &DocumentError, url: &Shown) -> String {
    match error {
        DocumentError::WebPage(_) => {
            "check the registry's name: a login page or a proxy answers there".to_owned()
        }
        DocumentError::Schema1(_) => "push the image again, with a tool of today".to_owned(),
        DocumentError::NoPlatform { .. } => "choose others with '--platform'".to_owned(),
        DocumentError::Json(..)
        | DocumentError::Ambiguous(_)
        | DocumentError::ContentType { .. }
        | DocumentError::MediaType { .. }
        | DocumentError::Invalid { .. } => {
            format!("check that the name is an image's; 'curl --location {url}' shows what is there")
        }
    }
}

fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    causes(error).find_map(|cause| cause.downcast_ref::<rustls::Error>())
}

/// Whether a resolver has said that there is no such host, rather than nothing. The standard library gives
/// its number in words only.
fn is_unknown_name(error: &reqwest::Error) -> bool {
    let text = root(error).to_string();
    UNKNOWN_NAME.iter().any(|words| text.ends_with(words))
}

/// Whether a connection was refused: the host is there, and nothing listens.
pub(super) fn is_refused(error: &reqwest::Error) -> bool {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::ConnectionRefused)
}

/// What it comes down to, without the layers of libraries above.
fn root(error: &reqwest::Error) -> &dyn Error {
    causes(error).last().unwrap_or(error)
}

/// An error and all that caused it. An io::Error's `source` skips the error that it holds, in
/// which TLS hides, so that one is looked at as well.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&cause| match cause.downcast_ref::<io::Error>() {
        Some(outer) => outer.get_ref().map(|inner| inner as &(dyn Error + 'static)),
        None => cause.source(),
    })
}

impl Shown {
    pub(super) fn new(url: &Url) -> Shown {
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let host = url.host_str().unwrap_or_default();
        Shown(format!("{}://{host}{port}{}", url.scheme(), url.path()).into())
    }

    /// A reference, for what has no URL yet.
    pub(super) fn of(reference: &Reference) -> Shown {
        Shown(reference.to_string().into())
    }

    fn host(&self) -> &str {
        self.0.split('/').nth(2).unwrap_or(&self.0)
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Said {
    pub(super) fn parse(body: &[u8]) -> Said {
        match serde_json::from_slice::<OciEnvelope>(body) {
            Ok(envelope) => Said { errors: envelope.errors, text: String::new() },
            Err(_) => Said { errors: Vec::new(), text: String::from_utf8_lossy(body).trim().to_owned() },
        }
    }

    pub(super) fn has(&self, codes: &[OciErrorCode]) -> bool {
        self.errors.iter().any(|error| codes.contains(&error.code))
    }

    /// Whether nothing at all was said.
    pub(super) fn is_empty(&self) -> bool {
        self.errors.is_empty() && self.text.is_empty()
    }

    /// Where the errors are about blobs that a manifest names and the registry lacks: the digests
    /// in their details, which not every registry gives.
    pub(super) fn missing_blobs(&self) -> Option<Vec<Digest>> {
        if !self.has(&[OciErrorCode::ManifestBlobUnknown, OciErrorCode::BlobUnknown]) {
            return None;
        }
        let in_detail = |detail: &Value| match detail {
            Value::String(text) => text.parse().ok(),
            detail => detail.get("digest").or(detail.get("Digest"))?.as_str()?.parse().ok(),
        };
        Some(self.errors.iter().filter_map(|error| in_detail(&error.detail)).collect())
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.text.clone();
        if text.starts_with('<') {
            text = "a web page".to_owned();
        }
        for error in &self.errors {
            let code = serde_json::to_value(&error.code).ok();
            let code = code.as_ref().and_then(Value::as_str).unwrap_or("?");
            let separator = if text.is_empty() { "" } else { "; " };
            text = format!("{text}{separator}{code}");
            if !error.message.is_empty() {
                text = format!("{text}: {}", error.message);
            }
        }
        if text.is_empty() {
            return Ok(());
        }
        write!(f, ": {}", foreign(&text))
    }
}
