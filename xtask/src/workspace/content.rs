//! What the repository ships, held against the programs that will read it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Workspace;
use super::app::AppName;
use super::files::SourceFile;
use super::oracle::{program, succeed};
use super::route::{LOCATION_CONF, Route, UPSTREAM_CONF};
use super::unit::Unit;

/// What `systemd-analyze security` may say of an app's service, in tenths of its scale of 0 to
/// 10. hello has 9; a service that may talk to the network has 2 more.
const EXPOSURE: &str = "15";

fn workspace() -> Workspace {
    let root = Workspace::find_root(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
    Workspace::discover(&root).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn units_are_valid_and_hardened() {
    let workspace = workspace();
    let root = tempfile::tempdir().unwrap();
    let units = root.path().join("usr/lib/systemd/system");
    fs::create_dir_all(&units).unwrap();
    // The base's units that ours, and systemd's defaults for them, refer to.
    for target in ["basic", "multi-user", "network-online", "shutdown", "sockets", "sysinit", "timers"] {
        fs::write(units.join(format!("{target}.target")), format!("[Unit]\nDescription={target}\n")).unwrap();
    }
    let bin = root.path().join("usr/bin");
    fs::create_dir_all(&bin).unwrap();
    for app in &workspace.apps {
        let path = bin.join(app.name.as_str());
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let ours: Vec<&Unit> =
        workspace.apps.iter().flat_map(|app| &app.units).chain(&workspace.os.units).collect();
    for unit in &ours {
        fs::write(units.join(unit.name.as_str()), &unit.source.bytes).unwrap();
    }
    let analyze = |arguments: &[&str], unit: &Unit| {
        let mut command = program("systemd-analyze");
        command.args(arguments).arg("--root").arg(root.path()).arg(unit.name.as_str());
        succeed(&mut command)
    };
    for unit in &ours {
        // A key that systemd does not know is a warning, which costs no exit status by itself.
        let output = analyze(&["verify", "--recursive-errors=yes", "--man=no"], unit);
        assert_eq!(output, "", "for {}", unit.name);
    }
    for unit in workspace.apps.iter().flat_map(|app| &app.units) {
        if unit.file.values("Service", "ExecStart").next().is_some() {
            analyze(&["security", "--offline=true", "--threshold", EXPOSURE], unit);
        }
    }
}

#[test]
fn tmpfiles_and_sysusers_are_valid() {
    let workspace = workspace();
    let root = tempfile::tempdir().unwrap();
    let etc = root.path().join("etc");
    fs::create_dir_all(&etc).unwrap();
    // The base's users, as far as ours need them.
    fs::write(etc.join("passwd"), "root:x:0:0::/:/bin/sh\nnginx:x:0:0::/:/bin/sh\n").unwrap();
    fs::write(etc.join("group"), "root:x:0:\nnginx:x:0:\n").unwrap();

    let install = |folder: &str, files: Vec<&SourceFile>| {
        let folder = root.path().join("usr/lib").join(folder);
        fs::create_dir_all(&folder).unwrap();
        for file in &files {
            fs::write(folder.join(file.name()), &file.bytes).unwrap();
        }
        files.len()
    };
    let (apps, os) = (&workspace.apps, &workspace.os);
    let users = apps.iter().filter_map(|app| app.sysusers.as_ref()).chain(&os.sysusers).collect();
    if install("sysusers.d", users) > 0 {
        succeed(as_root("systemd-sysusers").arg("--root").arg(root.path()));
        own_everything(&etc);
    }
    let tmpfiles = apps.iter().filter_map(|app| app.tmpfiles.as_ref()).chain(&os.tmpfiles).collect();
    install("tmpfiles.d", tmpfiles);
    let mut command = as_root("systemd-tmpfiles");
    let output = succeed(command.arg("--create").arg("--root").arg(root.path()));
    assert_eq!(output, "");

    let mode = |path: &str| fs::metadata(root.path().join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode("var/lib/nginx"), 0o770);
    assert_eq!(mode("var/lib/nginx/tmp"), 0o770);
    assert_eq!(mode("var/log/nginx"), 0o755);
    assert_eq!(mode("var/lib/cloud"), 0o755);
}

/// A program that gives files to other users: as root, or as the root of a namespace that has no
/// other user.
fn as_root(name: &str) -> Command {
    let command = program(name);
    if rustix::process::geteuid().is_root() {
        return command;
    }
    let mut unshare = program("unshare");
    unshare.arg("--map-root-user").arg(name);
    unshare
}

/// Gives all users and groups the id 0, the only one that can own files everywhere.
fn own_everything(etc: &Path) {
    for name in ["passwd", "group"] {
        let path = etc.join(name);
        let zero = |line: &str| {
            let mut fields: Vec<&str> = line.split(':').collect();
            fields[2] = "0";
            fields.join(":") + "\n"
        };
        let text: String = fs::read_to_string(&path).unwrap().lines().map(zero).collect();
        fs::write(&path, text).unwrap();
    }
}

#[test]
fn the_base_keeps_the_apps_ports_free() {
    let path = workspace().root.join("base/shared/rootfs/usr/lib/sysctl.d/97-testboot.conf");
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains("\nnet.ipv4.ip_local_reserved_ports = 8000-9999\n"), "{text}");
}

#[test]
fn nginx_accepts_its_configuration() {
    let workspace = workspace();
    let routes: Vec<(&AppName, &Route)> =
        workspace.apps.iter().filter_map(|app| Some((&app.name, app.route.as_ref()?))).collect();
    let nginx = NginxFiles::new(&workspace, &routes);
    let output = succeed(nginx.command().arg("-t"));
    assert!(!output.contains("[warn]"), "{output}");
}

/// nginx itself, with the repository's nginx.conf and two apps that say who they are.
#[test]
fn nginx_passes_requests_on() {
    let (web, api) = (Backend::start("web"), Backend::start("api"));
    let (web_name, api_name): (AppName, AppName) = ("web".parse().unwrap(), "a-p-i".parse().unwrap());
    let (web, api) = (web.route(&["/"]), api.route(&["/x", "/deep/er"]));
    let nginx = NginxFiles::new(&workspace(), &[(&web_name, &web), (&api_name, &api)]).start();

    let check = |path: &str, who: &str| {
        let answer = nginx.get(path);
        let expected = format!("{who} GET {path} HTTP/1.1");
        assert!(answer.contains(&expected), "for {path}: {answer}");
    };
    check("/", "web");
    check("/xy", "web");
    check("/deep", "web");
    check("/deep/error", "web");
    check("/x", "api");
    check("/x?q=1", "api");
    check("/x/", "api");
    check("/x/y%20z/../w", "api");
    check("/deep/er/x", "api");

    let answer = nginx.get("/");
    for header in ["Host: example.test", "X-Real-IP: ", "X-Forwarded-For: ", "X-Forwarded-Proto: http"] {
        assert!(answer.contains(&format!("\n{header}")), "no {header} in {answer}");
    }
    let (head, request) = answer.split_once("\r\n\r\n").unwrap();
    assert!(!request.contains("\nConnection:"), "the connection to the app is not kept: {answer}");
    assert!(head.contains("\nServer: nginx\r\n"), "the version is told: {answer}");
}

#[test]
fn paths_of_no_app_are_not_found() {
    let api = Backend::start("api");
    let name: AppName = "api".parse().unwrap();
    let nginx = NginxFiles::new(&workspace(), &[(&name, &api.route(&["/api"]))]).start();
    for path in ["/", "/index.html", "/apis", "/api.upstream.conf", "/../etc/passwd"] {
        let answer = nginx.get(path);
        let is_refused = ["HTTP/1.1 404 ", "HTTP/1.1 400 "].iter().any(|status| answer.starts_with(status));
        assert!(is_refused, "for {path}: {answer}");
    }
}

/// The repository's nginx configuration, with its places moved into a folder of the test: there
/// it needs neither root nor port 80. Everything else is as it is shipped.
struct NginxFiles {
    folder: tempfile::TempDir,
}

impl NginxFiles {
    fn new(workspace: &Workspace, routes: &[(&AppName, &Route)]) -> NginxFiles {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let conf = workspace.os.nginx_conf.as_ref().unwrap();
        let mut text = String::from_utf8(conf.bytes.clone()).unwrap();
        let moved = [
            ("user nginx;", String::new()),
            ("pid /run/nginx.pid;", format!("pid {};", path("nginx.pid"))),
            (
                "include /usr/share/nginx/apps/*.upstream.conf;",
                format!("include {};", path("apps/*.upstream.conf")),
            ),
            (
                "include /usr/share/nginx/apps/*.location.conf;",
                format!("include {};", path("apps/*.location.conf")),
            ),
            ("include /etc/nginx/conf.d/*.conf;", format!("include {};", path("conf.d/*.conf"))),
            ("listen 80 default_server;", format!("listen unix:{} default_server;", path("nginx.sock"))),
            ("listen [::]:80 default_server;", String::new()),
        ];
        for (from, to) in moved {
            assert_eq!(text.matches(from).count(), 1, "nginx.conf has not exactly one `{from}`");
            text = text.replace(from, &to);
        }
        fs::write(path("nginx.conf"), text).unwrap();

        // An administrator's file moves the rest, which nginx was compiled with.
        fs::create_dir(path("conf.d")).unwrap();
        let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temp = kinds.map(|kind| format!("{kind}_temp_path {};\n", path(kind)));
        fs::write(path("conf.d/temp.conf"), temp.concat()).unwrap();

        fs::create_dir(path("apps")).unwrap();
        for (app, route) in routes {
            fs::write(path(&format!("apps/{app}{UPSTREAM_CONF}")), route.upstream_conf(app)).unwrap();
            fs::write(path(&format!("apps/{app}{LOCATION_CONF}")), route.location_conf(app)).unwrap();
        }
        for piece in &workspace.os.nginx_pieces {
            fs::write(path(&format!("apps/{}", piece.name())), &piece.bytes).unwrap();
        }
        NginxFiles { folder }
    }

    fn command(&self) -> Command {
        // Debian keeps it in /usr/sbin, which is not in every user's PATH.
        let sbin = Path::new("/usr/sbin/nginx");
        let name = if sbin.exists() { "/usr/sbin/nginx" } else { "nginx" };
        let mut command = program(name);
        command.arg("-e").arg(self.path("error.log")).arg("-c").arg(self.path("nginx.conf"));
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(self) -> Nginx {
        let mut command = self.command();
        command.args(["-g", "daemon off; master_process off;"]).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().unwrap();
        let mut nginx = Nginx { files: self, process };
        let deadline = Instant::now() + Duration::from_secs(20);
        while UnixStream::connect(nginx.files.path("nginx.sock")).is_err() {
            let ended = nginx.process.try_wait().unwrap();
            let log = || fs::read_to_string(nginx.files.path("error.log")).unwrap_or_default();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "nginx did not start: {ended:?}\n{}",
                log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        nginx
    }
}

struct Nginx {
    files: NginxFiles,
    process: Child,
}

impl Nginx {
    /// The whole answer to a request.
    fn get(&self, path: &str) -> String {
        let mut stream = UnixStream::connect(self.files.path("nginx.sock")).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: example.test\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// An app that answers with its name and the request that it got.
struct Backend {
    port: u16,
}

impl Backend {
    fn start(name: &'static str) -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // It ends with the test's process; nothing waits for it.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(name, stream);
            }
        });
        Backend { port }
    }

    fn route(&self, prefixes: &[&str]) -> Route {
        let prefixes = prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect();
        Route { port: self.port.try_into().unwrap(), prefixes }
    }
}

fn answer(name: &str, mut stream: TcpStream) {
    let mut head = String::new();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
    let body = format!("{name} {head}");
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    // nginx may be gone by now.
    stream.write_all((head + &body).as_bytes()).ok();
}
