//! An answer: its head, and a body that is read no further than it may be long.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderName, LOCATION, RETRY_AFTER};
use reqwest::{Method, StatusCode, Url};
use tokio::time::timeout;

use super::error::{Distrust, RegistryError, Result, Said, Shown};
use super::retry::retry_after;

/// What an error's body may have: enough to name every layer of a large image.
const MAX_ERROR_BODY: u64 = 1024 * 1024;

/// An answer, whose body is still to be read.
pub(super) struct Response {
    pub(super) inner: reqwest::Response,
    pub(super) method: Method,
    /// Where it came from, redirects followed.
    pub(super) url: Url,
    /// How long the next part of the body may take.
    pub(super) idle: Duration,
}

impl Response {
    pub(super) fn status(&self) -> StatusCode {
        self.inner.status()
    }

    pub(super) fn shown(&self) -> Shown {
        Shown::new(&self.url)
    }

    pub(super) fn header(&self, name: impl reqwest::header::AsHeaderName) -> Option<&str> {
        self.inner.headers().get(name)?.to_str().ok()
    }

    pub(super) fn headers(&self, name: &HeaderName) -> Vec<String> {
        let values = self.inner.headers().get_all(name).iter();
        values.filter_map(|value| value.to_str().ok().map(str::to_owned)).collect()
    }

    /// The body's size, where it is known beforehand.
    pub(super) fn content_length(&self) -> Option<u64> {
        self.inner.content_length()
    }

    /// Where to go on, as a whole URL: after a redirect, or with an upload.
    pub(super) fn location(&self) -> Result<Url> {
        let invalid = || RegistryError::Header { url: self.shown(), header: "Location" };
        let to = self.url.join(self.header(LOCATION).ok_or_else(invalid)?).map_err(|_| invalid())?;
        let refuse = |why| RegistryError::Redirect { from: self.shown(), to: Shown::new(&to), why };
        check_scheme(&self.url, &to).map_err(refuse)?;
        Ok(to)
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        retry_after(self.header(RETRY_AFTER)?, SystemTime::now())
    }

    /// The next part of the body.
    pub(super) async fn chunk(&mut self) -> Result<Option<Vec<u8>>> {
        match timeout(self.idle, self.inner.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk.map(Vec::from)),
            Ok(Err(error)) => Err(RegistryError::Broken { url: self.shown(), error: error.without_url() }),
            Err(_) => Err(RegistryError::Stalled { url: self.shown(), after: self.idle }),
        }
    }

    /// The whole body, of which `limit` bytes are the most that is ever read.
    pub(super) async fn read(&mut self, limit: u64) -> Result<Vec<u8>> {
        let too_large = || RegistryError::TooLarge { url: self.shown(), limit };
        if self.content_length().is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if (body.len() + chunk.len()) as u64 > limit {
                return Err(RegistryError::TooLarge { url: self.shown(), limit });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// The error that this answer is.
    pub(super) async fn refused(mut self) -> RegistryError {
        let said = self.said().await;
        self.refused_with(said)
    }

    /// What the body says; a body that cannot be read says nothing, and the status stays.
    pub(super) async fn said(&mut self) -> Said {
        self.read(MAX_ERROR_BODY).await.map(|body| Said::parse(&body)).unwrap_or_default()
    }

    pub(super) fn refused_with(&self, said: Said) -> RegistryError {
        let (method, status, after) = (self.method.clone(), self.status(), self.retry_after());
        RegistryError::Refused { method, url: self.shown(), status, after, said: Box::new(said) }
    }
}

/// Refuses to go on without encryption where there was some.
fn check_scheme(from: &Url, to: &Url) -> Result<(), Distrust> {
    match to.scheme() {
        "https" => Ok(()),
        "http" if from.scheme() == "http" => Ok(()),
        "http" => Err(Distrust::NotEncrypted),
        _ => Err(Distrust::NoWebAddress),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encryption_is_kept() {
        let cases = [
            ("https://a.example/x", "https://b.example/y", Ok(())),
            ("http://localhost/x", "http://b.example/y", Ok(())),
            ("http://localhost/x", "https://b.example/y", Ok(())),
            ("https://a.example/x", "http://a.example/x", Err(Distrust::NotEncrypted)),
            ("https://a.example/x", "http://localhost/x", Err(Distrust::NotEncrypted)),
            ("https://a.example/x", "file:///etc/passwd", Err(Distrust::NoWebAddress)),
        ];
        for (from, to, expected) in cases {
            let (from, to) = (Url::parse(from).unwrap(), Url::parse(to).unwrap());
            assert_eq!(check_scheme(&from, &to), expected, "{from} to {to}");
        }
    }
}
