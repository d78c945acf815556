//! One request to a registry: tried again where that helps, redirected with care, logged in when
//! the registry asks for it. The answer is the registry's last word.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Once, OnceLock};

use futures_util::{Stream, StreamExt};
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode, Url};
use tokio::time::timeout;

use super::auth::{Auth, Scopes};
use super::error::{RegistryError, Result, Shown, is_transient};
use super::repository::{Repository, is_loopback};
use super::response::Response;
use super::retry::{Retry, Timing};

/// As many redirects as reqwest and curl's users are used to.
const MAX_REDIRECTS: usize = 10;
const USER_AGENT: &str = concat!("bootc-testboot/", env!("CARGO_PKG_VERSION"));

/// Sends requests. Clones share connections and logins.
#[derive(Clone)]
pub(super) struct Transport {
    shared: Arc<Shared>,
    traffic: Arc<Traffic>,
}

struct Shared {
    clients: [OnceLock<reqwest::Client>; 3],
    auth: Auth,
    timing: Timing,
}

/// What went over the wire.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    requests: AtomicU64,
    sent_bytes: AtomicU64,
}

/// How a host is reached. Each way has a client of its own that is made when it is first needed:
/// reading the system's CA certificates takes longer than a push to a local registry.
#[derive(Clone, Copy)]
enum Way {
    Loopback,
    Plain,
    Tls,
}

pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) repository: &'a Repository,
    pub(super) scopes: Scopes,
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) payload: Payload<'a>,
}

pub(super) enum Payload<'a> {
    Empty,
    Bytes(&'a [u8]),
    /// `size` bytes that are opened anew for each try.
    Stream {
        size: u64,
        open: &'a Opener<'a>,
    },
}

pub(super) type Opener<'a> =
    dyn Fn() -> Pin<Box<dyn Future<Output = Result<BodyStream>> + Send + 'a>> + Sync + 'a;
pub(super) type BodyStream = Pin<Box<dyn Stream<Item = io::Result<Vec<u8>>> + Send>>;

impl Traffic {
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }
}

impl Transport {
    pub(super) fn new(auth: Auth, timing: Timing) -> Transport {
        let clients = [OnceLock::new(), OnceLock::new(), OnceLock::new()];
        Transport { shared: Arc::new(Shared { clients, auth, timing }), traffic: Arc::default() }
    }

    /// The same transport with a count of its own.
    pub(super) fn counted(&self) -> Transport {
        Transport { shared: self.shared.clone(), traffic: Arc::default() }
    }

    pub(super) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    pub(super) fn retry(&self) -> Retry {
        Retry::new(self.shared.timing)
    }

    /// Sends a request until it is answered, or until there is no hope. An answer may still be a
    /// refusal that is not transient.
    pub(super) async fn send(&self, request: &Request<'_>) -> Result<Response> {
        let mut retry = self.retry();
        loop {
            let (error, after) = match self.once(request).await {
                Ok(response) if !is_transient(response.status()) => return Ok(response),
                Ok(response) => {
                    let after = response.retry_after();
                    (response.refused().await, after)
                }
                Err(error) => (error, None),
            };
            if !error.is_transient() || !retry.wait(after).await {
                return Err(error);
            }
        }
    }

    /// Sends a request once, or twice where the registry asks for a login.
    pub(super) async fn once(&self, request: &Request<'_>) -> Result<Response> {
        let auth = &self.shared.auth;
        let mut authorization = auth.authorization(self, request.repository, &request.scopes).await?;
        let mut answered = false;
        loop {
            let response = self.follow(request, authorization.as_ref()).await?;
            // Storage that a registry redirects to has no say in the registry's logins.
            if response.url.origin() != request.repository.base().origin() {
                return Ok(response);
            }
            match response.status() {
                StatusCode::UNAUTHORIZED if !answered => {
                    let challenges = response.headers(&WWW_AUTHENTICATE);
                    let used = authorization.as_ref();
                    let (repository, scopes) = (request.repository, &request.scopes);
                    authorization = Some(auth.answer(self, repository, scopes, &challenges, used).await?);
                    answered = true;
                }
                StatusCode::UNAUTHORIZED => return Err(auth.refused(request.repository).await?),
                // Where nobody is logged in, that is what is wrong.
                StatusCode::FORBIDDEN if auth.is_anonymous(request.repository).await => {
                    let registry = request.repository.registry().to_owned();
                    return Err(RegistryError::NoCredentials { registry });
                }
                _ => return Ok(response),
            }
        }
    }

    /// Sends a request, and follows redirects by the rules that keep credentials in.
    async fn follow(&self, request: &Request<'_>, authorization: Option<&HeaderValue>) -> Result<Response> {
        let home = request.repository.base().origin();
        let mut url = request.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let authorization = authorization.filter(|_| url.origin() == home);
            let response = self.exchange(request, &url, authorization).await?;
            if !is_redirect(response.status()) {
                return Ok(response);
            }
            let next = response.location()?;
            let refuse = |why| RegistryError::Redirect { from: Shown::new(&url), to: Shown::new(&next), why };
            check_redirect(&request.method, response.status()).map_err(refuse)?;
            url = next;
        }
        Err(RegistryError::Redirects { url: Shown::new(&request.url), limit: MAX_REDIRECTS })
    }

    /// One request and the head of its answer.
    async fn exchange(
        &self,
        request: &Request<'_>,
        url: &Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response> {
        let mut builder = self.client(url)?.request(request.method.clone(), url.clone());
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        if let Some(authorization) = authorization {
            builder = builder.header(AUTHORIZATION, authorization);
        }
        let pulse = Arc::new(Pulse::default());
        builder = match &request.payload {
            Payload::Empty if matches!(request.method, Method::GET | Method::HEAD) => builder,
            Payload::Empty => builder.header(CONTENT_LENGTH, 0),
            Payload::Bytes(bytes) => {
                self.traffic.sent_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                builder.body(bytes.to_vec())
            }
            Payload::Stream { size, open } => {
                let (pulse, traffic) = (pulse.clone(), self.traffic.clone());
                let mut left = *size;
                let stream = open().await?.inspect(move |chunk| {
                    let count = chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
                    left = left.saturating_sub(count);
                    traffic.sent_bytes.fetch_add(count, Ordering::Relaxed);
                    pulse.beat(left == 0);
                });
                builder.header(CONTENT_LENGTH, *size).body(reqwest::Body::wrap_stream(stream))
            }
        };
        if !matches!(request.payload, Payload::Stream { .. })
            && !matches!(request.method, Method::GET | Method::HEAD)
        {
            pulse.beat(true);
        }
        self.dispatch(builder, request.method.clone(), url, &pulse).await
    }

    /// Sends what was built; `pulse` tells whether its body moves.
    pub(super) async fn dispatch(
        &self,
        builder: reqwest::RequestBuilder,
        method: Method,
        url: &Url,
        pulse: &Pulse,
    ) -> Result<Response> {
        let timing = self.shared.timing;
        self.traffic.requests.fetch_add(1, Ordering::Relaxed);
        let mut sending = std::pin::pin!(builder.send());
        loop {
            let (beats, ended) = pulse.read();
            let limit = if ended { timing.commit } else { timing.idle };
            match timeout(limit, &mut sending).await {
                Ok(Ok(inner)) => return Ok(Response { inner, method, url: url.clone(), idle: timing.idle }),
                Ok(Err(error)) => {
                    let (url, error) = (Shown::new(url), error.without_url());
                    return Err(match error.is_connect() {
                        true => RegistryError::Unreachable { url, error },
                        false => RegistryError::Broken { url, error },
                    });
                }
                Err(_) if pulse.read() != (beats, ended) => {}
                Err(_) => return Err(RegistryError::Stalled { url: Shown::new(url), after: limit }),
            }
        }
    }

    pub(super) fn client(&self, url: &Url) -> Result<&reqwest::Client> {
        let way = match url.scheme() {
            "https" => Way::Tls,
            _ if is_loopback(url) => Way::Loopback,
            _ => Way::Plain,
        };
        let cell = &self.shared.clients[way as usize];
        if let Some(client) = cell.get() {
            return Ok(client);
        }
        let client = build(way, &self.shared.timing)?;
        Ok(cell.get_or_init(|| client))
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("traffic", &self.traffic).finish_non_exhaustive()
    }
}

/// Whether a body moves, and whether all of it has gone.
#[derive(Default)]
pub(super) struct Pulse {
    beats: AtomicU64,
    ended: AtomicBool,
}

impl Pulse {
    fn beat(&self, ended: bool) {
        self.beats.fetch_add(1, Ordering::Relaxed);
        self.ended.store(ended, Ordering::Relaxed);
    }

    fn read(&self) -> (u64, bool) {
        (self.beats.load(Ordering::Relaxed), self.ended.load(Ordering::Relaxed))
    }
}

/// Redirects that have a target to go to.
/// Source: RFC 9110, 15.4.
pub(super) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Refuses redirects that lose what is sent: only two kinds keep method and body, and after the
/// others clients ask a question instead.
fn check_redirect(method: &Method, status: StatusCode) -> Result<(), &'static str> {
    let keeps_method = matches!(status.as_u16(), 307 | 308);
    match keeps_method || matches!(*method, Method::GET | Method::HEAD) {
        true => Ok(()),
        false => Err("which would turn what is sent into a question"),
    }
}

fn build(way: Way, timing: &Timing) -> Result<reqwest::Client> {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Fails only where another provider was installed before, which then serves as well.
        rustls::crypto::ring::default_provider().install_default().ok();
    });
    let builder = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(timing.connect);
    let no_roots = || {
        rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth()
    };
    match way {
        Way::Loopback => builder.no_proxy().tls_backend_preconfigured(no_roots()),
        Way::Plain => builder.tls_backend_preconfigured(no_roots()),
        Way::Tls => builder,
    }
    .build()
    .map_err(RegistryError::Setup)
}
