//! What tests share: real registries on this machine, and one proxy that breaks what passes
//! through it, since no real registry breaks on command.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a program may take to come up on a busy machine.
const STARTUP: Duration = Duration::from_secs(30);

/// The path of a program that a test needs. A test that lacks it fails, and says how to get it.
pub(crate) fn program(name: &str) -> PathBuf {
    let install = match name {
        "docker-registry" | "htpasswd" => "apt-get install docker-registry apache2-utils".to_owned(),
        "registry" | "crane" => {
            let module = "github.com/google/go-containerregistry/cmd";
            format!("GOBIN={} go install {module}/{name}@latest", tools().display())
        }
        _ => format!("apt-get install {name}"),
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(tools())
        .chain(std::env::split_paths(&path))
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("this test needs `{name}`: run '{install}'"))
}

/// Where tools that no distribution packages are installed.
fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/bin")
}

/// A registry that runs until it is dropped.
pub(crate) struct Registry {
    address: String,
    child: Child,
    /// Its storage and configuration.
    dir: TempDir,
}

/// A name and password that a registry asks for.
pub(crate) struct Login {
    pub(crate) user: &'static str,
    pub(crate) password: &'static str,
}

impl Registry {
    /// docker-registry, which keeps blobs per repository and checks what manifests name.
    pub(crate) fn docker() -> Registry {
        Registry::start_docker(TempDir::new().unwrap(), "")
    }

    /// docker-registry, which wants a name and password by Basic authentication.
    pub(crate) fn docker_with_login(login: &Login) -> Registry {
        let output = Command::new(program("htpasswd"))
            .args(["-nbB", "-C", "4", login.user, login.password])
            .output()
            .expect("htpasswd starts");
        assert!(output.status.success(), "htpasswd: {}", String::from_utf8_lossy(&output.stderr));
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("htpasswd");
        fs::write(&file, output.stdout).unwrap();
        let auth = format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", file.display());
        Registry::start_docker(dir, &auth)
    }

    /// crane's registry, which holds everything in memory, keeps blobs for all repositories
    /// together, and takes manifests without looking.
    pub(crate) fn crane() -> Registry {
        let (dir, port) = (TempDir::new().unwrap(), free_port());
        let mut command = Command::new(program("registry"));
        command.arg("-port").arg(port.to_string());
        Registry::start(command, dir, port)
    }

    fn start_docker(dir: TempDir, auth: &str) -> Registry {
        let port = free_port();
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: '127.0.0.1:{port}', secret: test}}\n{auth}",
            dir.path().join("storage").display()
        );
        let path = dir.path().join("config.yml");
        fs::write(&path, config).unwrap();
        let mut command = Command::new(program("docker-registry"));
        command.arg("serve").arg(&path);
        Registry::start(command, dir, port)
    }

    fn start(mut command: Command, dir: TempDir, port: u16) -> Registry {
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let address = format!("127.0.0.1:{port}");
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut registry = Registry { address, child, dir };
        let end = Instant::now() + STARTUP;
        while !answers(&registry.address) {
            let ended = registry.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < end, "{command:?}: {}", registry.log());
            thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    /// Host and port.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Where docker-registry keeps a blob.
    pub(crate) fn blob_path(&self, hex: &str) -> PathBuf {
        let blobs = self.dir.path().join("storage/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn answers(address: &str) -> bool {
    let ask = || -> io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(
            format!("GET /v2/ HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes(),
        )?;
        let mut start = [0; 8];
        stream.read_exact(&mut start)?;
        Ok(start == *b"HTTP/1.1")
    };
    ask().unwrap_or(false)
}

/// A mock: an HTTP proxy before a registry, or a server without one, that counts requests and does
/// to each what `rule` says.
pub(crate) struct FaultProxy {
    address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
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
    /// It passes after a while.
    Delay(Duration),
    /// Its body stops after so many bytes, and the connection breaks on both sides.
    CutRequest(usize),
    /// It passes, and the answer's bytes (head and body) are changed.
    Change(fn(Vec<u8>) -> Vec<u8>),
    /// It never reaches a registry: these bytes are the answer.
    Answer(Vec<u8>),
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
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (rule, log, stopped) = (Arc::new(rule), seen.clone(), stop.clone());
        let accepting = thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let (rule, log, upstream) = (rule.clone(), log.clone(), upstream.clone());
                // A connection that breaks is what these tests are about.
                thread::spawn(move || serve(stream, upstream.as_deref(), &*rule, &log).ok());
            }
        });
        FaultProxy { address, seen, stop, accepting: Some(accepting) }
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
    log: &Mutex<Vec<Seen>>,
) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut client = client;
    let Some((mut seen, head)) = read_head(&mut reader)? else { return Ok(()) };
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
        Fault::Silence => {
            io::copy(&mut reader, &mut io::sink())?;
            return Ok(());
        }
        Fault::CutRequest(count) => {
            let mut server = connect(upstream, &head)?;
            io::copy(&mut reader.take(count as u64), &mut server)?;
            server.shutdown(Shutdown::Both)?;
            return client.shutdown(Shutdown::Both);
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
        let mut server = server.try_clone()?;
        thread::spawn(move || io::copy(&mut reader.take(length), &mut server).ok())
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
