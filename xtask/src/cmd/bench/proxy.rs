//! What stands between a client and a registry: counts requests and the bytes of their bodies,
//! makes each wait, as a network far away does, and breaks uploads off, as a bad line does.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// A proxy that runs until it is dropped.
pub(super) struct Proxy {
    address: SocketAddr,
    counters: Arc<Counters>,
}

/// What passed since the counters were set back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) requests: u64,
    /// Bytes of the requests' bodies.
    pub(super) sent: u64,
}

#[derive(Default)]
struct Counters {
    requests: AtomicU64,
    sent: AtomicU64,
    delay_ms: AtomicU64,
    ended: AtomicBool,
    cut: Mutex<Cut>,
}

/// At how many bytes of an upload its line breaks, and how often it still does.
#[derive(Default)]
struct Cut {
    place: u64,
    times: usize,
}

impl Proxy {
    /// Before the registry at `upstream`.
    pub(super) fn before(upstream: SocketAddr) -> Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0").context("opening a port for the proxy")?;
        let address = listener.local_addr().context("asking for the proxy's port")?;
        let counters: Arc<Counters> = Arc::default();
        let shared = counters.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.ended.load(Ordering::SeqCst) {
                    break;
                }
                let counters = shared.clone();
                // A connection that breaks fails the client, which says so.
                thread::spawn(move || serve(client, upstream, &counters).ok());
            }
        });
        Ok(Proxy { address, counters })
    }

    /// Host and port.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes each request from now on wait for so long.
    pub(super) fn delay_by(&self, delay: Duration) {
        let delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.counters.delay_ms.store(delay, Ordering::SeqCst);
    }

    /// Breaks uploads off from now on, so many times, when so much of one has passed.
    pub(super) fn cut_at(&self, place: u64, times: usize) {
        *self.counters.cut.lock().unwrap_or_else(PoisonError::into_inner) = Cut { place, times };
    }

    /// How many of these breaks are still to come.
    pub(super) fn cuts_left(&self) -> usize {
        self.counters.cut.lock().unwrap_or_else(PoisonError::into_inner).times
    }

    /// What passed since the last call.
    pub(super) fn take(&self) -> Traffic {
        Traffic {
            requests: self.counters.requests.swap(0, Ordering::SeqCst),
            sent: self.counters.sent.swap(0, Ordering::SeqCst),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.counters.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts; where that fails, it ends with this process.
        TcpStream::connect(self.address).ok();
    }
}

impl Counters {
    /// How much of a request's body passes, where its line breaks.
    fn cut(&self, request: &Head) -> Option<u64> {
        let Body::Length(length) = request.request_body() else { return None };
        let range = request.header("content-range").and_then(|range| range.split_once('-'));
        let start: u64 = range.and_then(|(start, _)| start.parse().ok()).unwrap_or(0);
        let mut cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there = cut.times > 0 && start <= cut.place && cut.place < start + length;
        cut.times -= usize::from(is_there);
        is_there.then(|| cut.place - start)
    }
}

/// Passes on the requests of one connection, over one connection to the registry.
fn serve(client: TcpStream, upstream: SocketAddr, counters: &Counters) -> io::Result<()> {
    let server = TcpStream::connect(upstream)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut to_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    let (mut from_client, mut from_server) = (BufReader::new(client), BufReader::new(server));
    while let Some(request) = Head::read(&mut from_client)? {
        counters.requests.fetch_add(1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(counters.delay_ms.load(Ordering::SeqCst)));
        to_server.write_all(&request.bytes)?;
        if let Some(passes) = counters.cut(&request) {
            let sent = io::copy(&mut from_client.by_ref().take(passes), &mut to_server)?;
            counters.sent.fetch_add(sent, Ordering::SeqCst);
            to_server.shutdown(Shutdown::Both)?;
            return to_client.shutdown(Shutdown::Both);
        }
        let sent = copy_body(request.request_body(), &mut from_client, &mut to_server)?;
        counters.sent.fetch_add(sent, Ordering::SeqCst);

        let answer = loop {
            let Some(answer) = Head::read(&mut from_server)? else { return Ok(()) };
            to_client.write_all(&answer.bytes)?;
            // Answers of the kind 1xx announce the real one.
            if !answer.status().starts_with('1') {
                break answer;
            }
        };
        copy_body(answer.answer_body(request.method()), &mut from_server, &mut to_client)?;
        if answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            break;
        }
    }
    Ok(())
}

/// How a body ends. Source: RFC 9112, section 6.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// The first line and the headers of a request or an answer.
struct Head {
    bytes: Vec<u8>,
    first_line: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
}

impl Head {
    /// None where the connection ended instead.
    fn read(from: &mut impl BufRead) -> io::Result<Option<Head>> {
        let mut bytes = Vec::new();
        let mut lines = Vec::new();
        loop {
            let start = bytes.len();
            if from.read_until(b'\n', &mut bytes)? == 0 {
                return Ok(None);
            }
            let line = String::from_utf8_lossy(&bytes[start..]).trim_end().to_owned();
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        let mut lines = lines.into_iter();
        let first_line = lines.next().unwrap_or_default();
        let headers = lines
            .filter_map(|line| {
                line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            })
            .collect();
        Ok(Some(Head { bytes, first_line, headers }))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn method(&self) -> &str {
        self.first_line.split(' ').next().unwrap_or_default()
    }

    fn status(&self) -> &str {
        self.first_line.split(' ').nth(1).unwrap_or_default()
    }

    fn request_body(&self) -> Body {
        self.framing().unwrap_or(Body::None)
    }

    fn answer_body(&self, method: &str) -> Body {
        match self.status() {
            _ if method == "HEAD" => Body::None,
            "204" | "304" => Body::None,
            _ => self.framing().unwrap_or(Body::UntilClose),
        }
    }

    fn framing(&self) -> Option<Body> {
        if self.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return Some(Body::Chunked);
        }
        self.header("content-length")?.parse().ok().map(Body::Length)
    }
}

/// Passes a body on; its length without the framing.
fn copy_body(body: Body, from: &mut impl BufRead, to: &mut impl Write) -> io::Result<u64> {
    match body {
        Body::None => Ok(0),
        Body::UntilClose => io::copy(from, to),
        Body::Length(length) => copy_exactly(length, from, to),
        Body::Chunked => {
            let mut total = 0;
            loop {
                let line = copy_line(from, to)?;
                let size = line.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(size, 16)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                if size == 0 {
                    break;
                }
                total += copy_exactly(size, from, to)?;
                copy_line(from, to)?;
            }
            // Trailers, and the empty line that ends them.
            while !copy_line(from, to)?.trim_end().is_empty() {}
            Ok(total)
        }
    }
}

fn copy_exactly(length: u64, from: &mut impl BufRead, to: &mut impl Write) -> io::Result<u64> {
    let copied = io::copy(&mut from.take(length), to)?;
    if copied == length { Ok(copied) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn copy_line(from: &mut impl BufRead, to: &mut impl Write) -> io::Result<String> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    to.write_all(line.as_bytes())?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(head: &str, body: &str, expected: (Body, u64)) {
        let text = format!("{head}\r\n\r\n{body}");
        let two = text.clone() + "GET / HTTP/1.1\r\n\r\n";
        let mut from = two.as_bytes();
        let head = Head::read(&mut from).unwrap().unwrap();
        let mut out = head.bytes.clone();
        let framing = head.request_body();
        let copied = copy_body(framing, &mut from, &mut out).unwrap();
        assert_eq!((framing, copied), expected, "{text}");
        assert_eq!(String::from_utf8(out).unwrap(), text);
        // What follows is the next request.
        assert_eq!(Head::read(&mut from).unwrap().unwrap().method(), "GET");
    }

    #[test]
    fn bodies_end_where_they_should() {
        check("GET /v2/ HTTP/1.1\r\nHost: a", "", (Body::None, 0));
        check("PUT /v2/ HTTP/1.1\r\nContent-Length: 5", "a\r\n\r\n", (Body::Length(5), 5));
        check(
            "PATCH /v2/ HTTP/1.1\r\ntransfer-encoding: Chunked",
            "3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n",
            (Body::Chunked, 13),
        );
        let head = Head::read(&mut &b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"[..]).unwrap().unwrap();
        assert_eq!(head.answer_body("HEAD"), Body::None);
        assert_eq!(head.answer_body("GET"), Body::Length(9));
    }
}
