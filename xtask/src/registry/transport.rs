//! One request to a registry: tried again where that helps, redirected with care, logged in when
//! the registry asks for it. The answer is the registry's last word.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode, Url};

use super::auth::{Auth, Scopes};
use super::error::{Distrust, RegistryError, Result, Shown, is_transient};
use super::http::{Http, Pulse, Traffic};
use super::repository::Repository;
use super::response::Response;
use super::retry::{Retry, Timing};
use crate::progress::Progress;

/// As many redirects as reqwest and curl's users are used to.
const MAX_REDIRECTS: usize = 10;

/// Sends requests. Clones share connections and logins.
#[derive(Clone)]
pub(super) struct Transport {
    http: Http,
    auth: Arc<Auth>,
    progress: Progress,
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

impl Transport {
    pub(super) fn new(auth: Auth, timing: Timing, progress: Progress) -> Transport {
        Transport { http: Http::new(timing), auth: Arc::new(auth), progress }
    }

    /// The same transport with a count of its own.
    pub(super) fn counted(&self) -> Transport {
        Transport { http: self.http.counted(), auth: self.auth.clone(), progress: self.progress.clone() }
    }

    pub(super) fn traffic(&self) -> &Traffic {
        self.http.traffic()
    }

    pub(super) fn timing(&self) -> Timing {
        self.http.timing()
    }

    pub(super) fn retry(&self) -> Retry {
        Retry::new(self.timing(), self.progress.clone())
    }

    /// Sends a request until it is answered, or until there is no hope. An answer may still be a
    /// refusal that is not transient.
    pub(super) async fn send(&self, request: &Request<'_>) -> Result<Response> {
        let mut retry = self.retry();
        loop {
            let error = match self.once(request).await {
                Ok(response) if !is_transient(response.status()) => return Ok(response),
                Ok(response) => response.refused().await,
                Err(error) => error,
            };
            if !error.is_transient() || !retry.wait(&error).await {
                return Err(error);
            }
        }
    }

    /// Sends a request once, or twice where the registry asks for a login.
    pub(super) async fn once(&self, request: &Request<'_>) -> Result<Response> {
        let (auth, http) = (&self.auth, &self.http);
        let mut authorization = auth.authorization(http, request.repository, &request.scopes).await?;
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
                    authorization = Some(auth.answer(http, repository, scopes, &challenges, used).await?);
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
        let mut builder = self.http.client(url)?.request(request.method.clone(), url.clone());
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
                self.traffic().sent(bytes.len() as u64);
                builder.body(bytes.to_vec())
            }
            Payload::Stream { size, open } => {
                let (pulse, traffic) = (pulse.clone(), self.http.traffic().clone());
                let mut left = *size;
                let stream = open().await?.inspect(move |chunk| {
                    let count = chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
                    left = left.saturating_sub(count);
                    traffic.sent(count);
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
        self.http.dispatch(builder, request.method.clone(), url, &pulse).await
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("traffic", self.traffic()).finish_non_exhaustive()
    }
}

/// Redirects that have a target to go to.
/// Source: RFC 9110, 15.4.
pub(super) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Refuses redirects that lose what is sent: only two kinds keep method and body, and after the
/// others clients ask a question instead.
fn check_redirect(method: &Method, status: StatusCode) -> Result<(), Distrust> {
    let keeps_method = matches!(status.as_u16(), 307 | 308);
    match keeps_method || matches!(*method, Method::GET | Method::HEAD) {
        true => Ok(()),
        false => Err(Distrust::OtherMethod),
    }
}
