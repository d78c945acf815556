//! What tests share: programs, real registries on this machine, and a proxy before them.

mod fault_proxy;
mod keeping;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub(crate) use fault_proxy::{Fault, FaultProxy, Seen, answer};
pub(crate) use keeping::{Keeping, Keeps, Manner};

/// How long a program may take to come up on a busy machine.
const STARTUP: Duration = Duration::from_secs(30);

/// The path of a program that a test needs. A test that lacks it fails, and says how to get it.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    [tools().join("bin"), tools().join("python/bin")]
        .into_iter()
        .chain(std::env::split_paths(&path))
        // Administrators' programs, which a user's PATH lacks.
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("`{name}` is missing: 'cargo xtask test --yes' installs it"))
}

/// Where tools that no distribution packages are installed.
fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools")
}

/// Runs one test of this program, an ignored one, in a process with other environment variables.
pub(crate) fn in_environment(test: &str, variables: &[(&str, &str)]) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture"])
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && text.contains("1 passed"), "{test}: {text}");
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

    /// docker-registry behind TLS, on 0.0.0.0, which is no loopback name, and with a certificate
    /// that only `Registry::certificate` vouches for.
    pub(crate) fn docker_with_tls() -> Registry {
        let dir = TempDir::new().unwrap();
        let output = Command::new(program("openssl"))
            .current_dir(dir.path())
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=test"])
            .args(["-addext", "subjectAltName=IP:0.0.0.0", "-addext", "basicConstraints=critical,CA:FALSE"])
            .args(["-keyout", "key.pem", "-out", "certificate.pem"])
            .output()
            .expect("openssl starts");
        assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
        let path = dir.path().display();
        let tls = format!("  tls: {{certificate: {path}/certificate.pem, key: {path}/key.pem}}\n");
        let mut registry = Registry::start_docker(dir, &tls);
        registry.address = registry.address.replace("127.0.0.1", "0.0.0.0");
        registry
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.dir.path().join("certificate.pem")
    }

    /// Distribution 3, which keeps what came of a body that broke off, and says how much that is.
    pub(crate) fn distribution() -> Registry {
        Registry::start_configured("registry", TempDir::new().unwrap(), "")
    }

    /// crane's registry, which holds everything in memory, keeps blobs for all repositories
    /// together, and takes manifests without looking.
    pub(crate) fn crane() -> Registry {
        let (dir, port) = (TempDir::new().unwrap(), free_port());
        let mut command = Command::new(program("crane"));
        command.args(["registry", "serve", "--address"]).arg(format!("127.0.0.1:{port}"));
        Registry::start(command, dir, port)
    }

    /// Like crane's registry, with the API for referrers.
    pub(crate) fn with_referrers() -> Registry {
        let (dir, port) = (TempDir::new().unwrap(), free_port());
        let binary = dir.path().join("registry");
        let output = Command::new(program("go"))
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/referrers-registry"))
            .args(["build", "-o"])
            .arg(&binary)
            .output()
            .expect("go starts");
        assert!(output.status.success(), "go build: {}", String::from_utf8_lossy(&output.stderr));
        let mut command = Command::new(binary);
        command.arg(port.to_string());
        Registry::start(command, dir, port)
    }

    fn start_docker(dir: TempDir, more: &str) -> Registry {
        Registry::start_configured("docker-registry", dir, more)
    }

    /// docker's registry, or Distribution, as it is called since its third version.
    fn start_configured(name: &str, dir: TempDir, more: &str) -> Registry {
        let port = free_port();
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http:\n  addr: '127.0.0.1:{port}'\n  secret: test\n{more}",
            dir.path().join("storage").display()
        );
        let path = dir.path().join("config.yml");
        fs::write(&path, config).unwrap();
        let mut command = Command::new(program(name));
        // Distribution would send traces to a port that nothing listens on here.
        command.arg("serve").arg(&path).env("OTEL_TRACES_EXPORTER", "none");
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

    /// Where docker's registry and Distribution keep a blob.
    pub(crate) fn blob_path(&self, hex: &str) -> PathBuf {
        self.blobs().join("sha256").join(&hex[..2]).join(hex).join("data")
    }

    /// Takes all blobs and manifests from docker's registry or Distribution. Uploads stay.
    pub(crate) fn forget_blobs(&self) {
        if self.blobs().exists() {
            fs::remove_dir_all(self.blobs()).unwrap();
        }
    }

    fn blobs(&self) -> PathBuf {
        self.dir.path().join("storage/docker/registry/v2/blobs")
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
        // Any answer will do: one behind TLS answers that it speaks TLS, by HTTP/1.0.
        let mut start = [0; 7];
        stream.read_exact(&mut start)?;
        Ok(start == *b"HTTP/1.")
    };
    ask().unwrap_or(false)
}
