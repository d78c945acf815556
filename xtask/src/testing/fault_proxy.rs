//! A mock: a proxy that breaks what passes through it, since no real registry breaks on command.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::Registry;

/// A registry that takes longer to end a request that was cut is none that these tests are about.
const REGISTRY_ENDS: Duration = Duration::from_secs(20);

/// An HTTP proxy before a registry, or a server without one, that counts requests and does
/// to each what `rule` says.
pub(crate) struct FaultProxy {
    address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    passed: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// How many like it (same method and path) came before.
    pub(crate) earlier: usize,
}

/// What becomes of a request.
pub(crate) enum Fault {
    /// It passes unharmed.
    Pass,
    /// It passes after a while, in which nothing of its body is taken.
    Delay(Duration),
    /// Its body stops after so many bytes, and the connection breaks on both sides, once the registry has taken
    /// what came.
    CutRequest(usize),
    /// Its body stops after so many bytes, and the registry waits until whoever sends it is gone.
    Stall(usize),
    /// It passes, and the answer's bytes (head and body) are changed.
    Change(fn(Vec<u8>) -> Vec<u8>),
    /// It passes with another request line.
    Retarget(String),
    /// It never reaches a registry: these bytes are the answer.
    Answer(Vec<u8>),
    /// It never reaches a registry: at most so many bytes of its body are taken, and this makes
    /// the answer of them; without one, the connection breaks.
    Take(usize, Box<dyn FnOnce(Vec<u8>) -> Option<Vec<u8>> + Send>),
    /// It never reaches a registry, and is never answered.
    Silence,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

impl FaultProxy {
    /// Before a registry.
    pub(crate) fn before(
        registry: &Registry,
        rule: impl Fn(&Seen) -> Fault + Send + Sync + 'static,
    ) -> FaultProxy {
        FaultProxy::start(Some(registry.address().to_owned()), rule)
    }

    /// Without anything behind it: a scripted server.
    pub(crate) fn alone(rule: impl Fn(&Seen) -> Fault + Send + Sync + 'static) -> FaultProxy {
        FaultProxy::start(None, rule)
    }

    fn start(upstream: Option<String>, rule: impl Fn(&Seen) -> Fault + Send + Sync + 'static) -> FaultProxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (seen, passed, stop): (Arc<Mutex<Vec<Seen>>>, Arc<AtomicU64>, Arc<AtomicBool>) =
            Default::default();
        let (rule, log, bytes, stopped) = (Arc::new(rule), seen.clone(), passed.clone(), stop.clone());
        let accepting = thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let (rule, log, bytes, upstream) =
                    (rule.clone(), log.clone(), bytes.clone(), upstream.clone());
                // A connection that breaks is what these tests are about.
                thread::spawn(move || serve(stream, upstream.as_deref(), &*rule, (&log, &bytes)).ok());
            }
        });
        FaultProxy { address, seen, passed, stop, accepting: Some(accepting) }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// `METHOD /path` of all requests so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen().iter().map(|seen| format!("{} {}", seen.method, seen.path())).collect()
    }

    pub(crate) fn count(&self, method: &str, path_part: &str) -> usize {
        let matches = |seen: &&Seen| seen.method == method && seen.path().contains(path_part);
        self.seen().iter().filter(matches).count()
    }

    /// How many bytes of bodies went on to the registry.
    pub(crate) fn passed(&self) -> usize {
        self.passed.load(Ordering::SeqCst) as usize
    }

    pub(crate) fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        TcpStream::connect(&self.address).ok();
        if let Some(accepting) = self.accepting.take() {
            accepting.join().ok();
        }
    }
}

/// An answer with a body of that size.
pub(crate) fn answer(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        answer += &format!("{name}: {value}\r\n");
    }
    let mut answer = (answer + "\r\n").into_bytes();
    answer.extend_from_slice(body);
    answer
}

/// Serves one request; each has a connection of its own, which keeps bodies' ends simple.
fn serve(
    client: TcpStream,
    upstream: Option<&str>,
    rule: &(dyn Fn(&Seen) -> Fault + Send + Sync),
    (log, passed): (&Mutex<Vec<Seen>>, &Arc<AtomicU64>),
) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut client = client;
    let Some((mut seen, mut head)) = read_head(&mut reader)? else { return Ok(()) };
    {
        let mut log = log.lock().unwrap();
        let same = |other: &&Seen| other.method == seen.method && other.path() == seen.path();
        seen.earlier = log.iter().filter(same).count();
        log.push(seen.clone());
    }
    let length: u64 = seen.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let change = match rule(&seen) {
        Fault::Answer(bytes) => {
            // The client may only read once it has written.
            io::copy(&mut reader.take(length), &mut io::sink())?;
            client.write_all(&bytes)?;
            return client.shutdown(Shutdown::Write);
        }
        Fault::Take(count, answer) => {
            let mut body = Vec::new();
            reader.take(length.min(count as u64)).read_to_end(&mut body)?;
            if let Some(answer) = answer(body) {
                client.write_all(&answer)?;
            }
            return client.shutdown(Shutdown::Both);
        }
        Fault::Retarget(line) => {
            let rest = head.iter().position(|&byte| byte == b'\n').unwrap_or_default();
            head = [line.as_bytes(), b" HTTP/1.1\r", &head[rest..]].concat();
            None
        }
        Fault::Silence => {
            io::copy(&mut reader, &mut io::sink())?;
            return Ok(());
        }
        Fault::CutRequest(count) => {
            let server = connect(upstream, &head)?;
            let mut body = Counted { out: server, count: passed.clone() };
            io::copy(&mut reader.take(count as u64), &mut body)?;
            body.out.shutdown(Shutdown::Write)?;
            // It ends its side when it has read all, whatever it says then.
            body.out.set_read_timeout(Some(REGISTRY_ENDS))?;
            io::copy(&mut body.out, &mut io::sink()).ok();
            return client.shutdown(Shutdown::Both);
        }
        Fault::Stall(count) => {
            let mut body = Counted { out: connect(upstream, &head)?, count: passed.clone() };
            io::copy(&mut reader.by_ref().take(count as u64), &mut body)?;
            io::copy(&mut reader, &mut io::sink())?;
            return Ok(());
        }
        Fault::Delay(time) => {
            thread::sleep(time);
            None
        }
        Fault::Change(change) => Some(change),
        Fault::Pass => None,
    };
    let mut server = connect(upstream, &head)?;
    let sender = {
        let mut body = Counted { out: server.try_clone()?, count: passed.clone() };
        thread::spawn(move || io::copy(&mut reader.take(length), &mut body).ok())
    };
    match change {
        Some(change) => {
            let mut answer = Vec::new();
            server.read_to_end(&mut answer)?;
            client.write_all(&change(answer))?;
        }
        None => {
            io::copy(&mut server, &mut client)?;
        }
    }
    client.shutdown(Shutdown::Both)?;
    sender.join().ok();
    Ok(())
}

/// Counts what goes out.
struct Counted {
    out: TcpStream,
    count: Arc<AtomicU64>,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.count.fetch_add(written as u64, Ordering::SeqCst);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Connects to what is behind, and sends a request's head there.
fn connect(upstream: Option<&str>, head: &[u8]) -> io::Result<TcpStream> {
    let mut server = TcpStream::connect(upstream.expect("nothing is behind this server"))?;
    server.write_all(head)?;
    Ok(server)
}

/// A request's head, parsed and as it is sent on.
fn read_head(reader: &mut impl BufRead) -> io::Result<Option<(Seen, Vec<u8>)>> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    let (method, target) = (method.to_owned(), target.to_owned());
    let mut head = line.clone().into_bytes();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        head.extend_from_slice(line.as_bytes());
    }
    head.extend_from_slice(b"Connection: close\r\n\r\n");
    Ok(Some((Seen { method, target, headers, earlier: 0 }, head)))
}
