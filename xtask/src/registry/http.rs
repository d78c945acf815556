//! HTTP as it is spoken here: one client for each way to a host, one request and the head of its
//! answer, and a count of what went over the wire.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Once, OnceLock};

use reqwest::{Method, Url};
use tokio::time::timeout;

use super::error::{RegistryError, Result, Shown, is_refused};
use super::repository::is_loopback;
use super::response::Response;
use super::retry::Timing;

const USER_AGENT: &str = concat!("bootc-testboot/", env!("CARGO_PKG_VERSION"));

/// Clones share connections, and the count.
#[derive(Clone)]
pub(super) struct Http {
    clients: Arc<[OnceLock<reqwest::Client>; 3]>,
    timing: Timing,
    traffic: Arc<Traffic>,
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

/// Whether a body moves, and whether all of it has gone.
#[derive(Default)]
pub(super) struct Pulse {
    beats: AtomicU64,
    ended: AtomicBool,
}

impl Pulse {
    pub(super) fn beat(&self, ended: bool) {
        self.beats.fetch_add(1, Ordering::Relaxed);
        self.ended.store(ended, Ordering::Relaxed);
    }

    fn read(&self) -> (u64, bool) {
        (self.beats.load(Ordering::Relaxed), self.ended.load(Ordering::Relaxed))
    }
}

impl Traffic {
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn sent(&self, bytes: u64) {
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Http {
    pub(super) fn new(timing: Timing) -> Http {
        Http { clients: Arc::default(), timing, traffic: Arc::default() }
    }

    /// The same connections with a count of their own.
    pub(super) fn counted(&self) -> Http {
        Http { traffic: Arc::default(), ..self.clone() }
    }

    pub(super) fn timing(&self) -> Timing {
        self.timing
    }

    pub(super) fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    /// Sends what was built; `pulse` tells whether its body moves.
    pub(super) async fn dispatch(
        &self,
        builder: reqwest::RequestBuilder,
        method: Method,
        url: &Url,
        pulse: &Pulse,
    ) -> Result<Response> {
        let timing = self.timing;
        self.traffic.requests.fetch_add(1, Ordering::Relaxed);
        let mut sending = std::pin::pin!(builder.send());
        loop {
            let (beats, ended) = pulse.read();
            let limit = if ended { timing.commit } else { timing.idle };
            match timeout(limit, &mut sending).await {
                Ok(Ok(inner)) => return Ok(Response { inner, method, url: url.clone(), idle: timing.idle }),
                Ok(Err(error)) => {
                    let (is_local, url, error) = (is_loopback(url), Shown::new(url), error.without_url());
                    return Err(if !error.is_connect() {
                        RegistryError::Broken { url, error }
                    } else if is_local && is_refused(&error) {
                        RegistryError::NothingListens { url, error }
                    } else {
                        RegistryError::Unreachable { url, error }
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
        let cell = &self.clients[way as usize];
        if let Some(client) = cell.get() {
            return Ok(client);
        }
        let client = build(way, &self.timing)?;
        Ok(cell.get_or_init(|| client))
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
