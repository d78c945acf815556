use std::os::unix::fs::symlink;

use super::distro_toml::KEYS;
use super::files::SourceFile;
use super::*;

const CARGO_TOML: (&str, &str) =
    ("Cargo.toml", "[workspace.metadata.testboot]\nimage = \"ghcr.io/o/n\"\ndistro = \"debian-13\"\n");

const CENTOS: &str = "title = \"CentOS\"\nupstream = \"quay.io/c/c:stream9\"\nend-of-life = 2027-05-31\n\
                      stage = \"production\"\nplatforms = [\"linux/amd64\", \"linux/arm64\"]\n";

fn workspace(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files.iter().chain([&CARGO_TOML]) {
        let path = root.path().join(path);
        // The first of two files of one name is meant.
        if !path.exists() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }
    root
}

fn discover(files: &[(&str, &str)]) -> Workspace {
    Workspace::discover(workspace(files).path()).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The problems of an otherwise sound workspace, and of nothing else.
fn check(files: &[(&str, &str)], expected: &[&str]) {
    let root = workspace(files);
    let problems = match Workspace::discover(root.path()) {
        Ok(_) => Vec::new(),
        Err(Problems(problems)) => problems,
    };
    let shown: Vec<String> = problems
        .iter()
        .map(|problem| format!("{}: {}; {}", problem.path.display(), problem.message, problem.hint))
        .collect();
    assert_eq!(shown, expected, "for {files:#?}");
}

fn service(program: &str) -> String {
    format!("[Service]\nExecStart={program}\n[Install]\nWantedBy=multi-user.target\n")
}

#[test]
fn everything_finds_its_place() {
    let (web, admin) = (service("/usr/bin/web"), service("-/usr/bin/web-admin --port 1"));
    let oneshot = "[Service]\nExecStart=/usr/bin/true\n";
    let found = discover(&[
        ("apps/README.md", "notes"),
        ("apps/notes/README.md", "no app"),
        ("apps/web/go.mod", "module web"),
        ("apps/web/app.toml", "port = 8081\nroutes = [\"/\"]"),
        ("apps/web-admin/go.mod", "module admin"),
        ("systemd/web.service", &web),
        ("systemd/web-admin.service", &admin),
        ("systemd/web-admin-cleanup.timer", "[Timer]\nOnBootSec=5m\n"),
        ("systemd/web-admin-cleanup.service", oneshot),
        ("systemd/web-administration.service", oneshot),
        ("systemd/web@.service", &web),
        ("systemd/webhook.service", oneshot),
        ("systemd/.hidden", "passed over"),
        ("systemd/web.service~", "passed over"),
        ("configs/tmpfiles.d/web.conf", "d /var/lib/web\n"),
        ("configs/tmpfiles.d/nginx.conf", "d /var/lib/nginx\nx /usr/x\n# f /usr/y\n"),
        ("configs/sysusers.d/web-admin.conf", "u web-admin 300"),
        ("configs/sysusers.d/other.conf", "u other"),
        ("configs/os/nginx.conf", "http { }"),
        ("configs/os/nginx/files.location.conf", "location /files/ { alias /srv/files/; }"),
        ("base/shared/rootfs/usr/lib/sysusers.d/x.conf", "u nginx 110"),
        ("base/debian/13/packages.list", ""),
        (
            "base/debian/13/distro.toml",
            "title = \"Debian 13\"\nsuite = \"trixie\"\nreleased = 2025-08-09\nend-of-life = 2030-06-30\n\
             stage = \"preview\"\nplatforms = [\"linux/amd64\"]",
        ),
        ("base/centos/stream9/Containerfile", ""),
        ("base/centos/stream9/distro.toml", CENTOS),
    ]);
    let mut lines = Vec::new();
    let mut list = |owner: &str, files: Vec<&SourceFile>| {
        let names: Vec<&str> = files.into_iter().map(SourceFile::name).collect();
        lines.push(format!("{owner}: {}", names.join(" ")));
    };
    for app in &found.apps {
        list(app.name.as_str(), app.units.iter().map(|unit| &unit.source).collect());
        list("  tmpfiles", app.tmpfiles.iter().collect());
        list("  sysusers", app.sysusers.iter().collect());
    }
    list("os", found.os.units.iter().map(|unit| &unit.source).collect());
    list("  tmpfiles", found.os.tmpfiles.iter().collect());
    list("  sysusers", found.os.sysusers.iter().collect());
    list("  nginx", found.os.nginx_conf.iter().chain(&found.os.nginx_pieces).collect());
    for distro in &found.distros {
        let upstream = distro.upstream().map(ToString::to_string);
        lines.push(format!("{}: {} from {upstream:?}", distro.name, distro.title));
    }
    insta::assert_snapshot!(lines.join("\n"), @r#"
    web: web-administration.service web.service web@.service
      tmpfiles: web.conf
      sysusers: 
    web-admin: web-admin-cleanup.service web-admin-cleanup.timer web-admin.service
      tmpfiles: 
      sysusers: web-admin.conf
    os: webhook.service
      tmpfiles: nginx.conf
      sysusers: other.conf
      nginx: nginx.conf files.location.conf
    centos-stream9: CentOS from Some("quay.io/c/c:stream9")
    debian-13: Debian 13 from None
    "#);
    assert_eq!(found.apps[0].route.as_ref().unwrap().port.number(), 8081);
    assert_eq!(found.apps[1].route, None);
    assert_eq!(found.settings.image.tagged("v1").to_string(), "ghcr.io/o/n:v1");
    let default = &found.settings.distro;
    assert_eq!(found.distro(&DistroQuery::from(default)).unwrap().name, *default);
    let unknown = |query: &str| found.distro(&query.parse().unwrap()).unwrap_err();
    let there = "there are centos-stream9, debian-13";
    assert_eq!(unknown("debian-14").to_string(), format!("no folder base/debian/14: {there}"));
    assert!(unknown("Debian").to_string().ends_with(&format!(" digits and dots: {there}")));
    assert!(unknown("Debian").hint().starts_with("did you mean debian-13? "));
}

#[test]
fn a_workspace_may_be_empty() {
    let found = discover(&[]);
    assert_eq!((found.apps, found.os, found.distros), (Vec::new(), OsFiles::default(), Vec::new()));
}

#[test]
fn all_problems_are_told_at_once() {
    let root = workspace(&[
        ("Cargo.toml", "[workspace.metadata.testboot]\nimage = \"ghcr.io/o/n:t\"\ndistro = \"debian\"\n"),
        ("apps/hello/go.mod", "module hello"),
        ("apps/hello/app.toml", "port = 80\nroutes = [\"x\", \"/y;\"]\n"),
        ("apps/my_app/go.mod", "module x"),
        ("apps/loose/main.go", "package main"),
        ("systemd/other.service", "[Service\n"),
        ("configs/tmpfiles.d/x.conf", "d /var/x\nd /usr/share/x\n"),
    ]);
    let problems = Workspace::discover(root.path()).unwrap_err();
    insta::assert_snapshot!(problems, @r#"
    the workspace has 9 problems
      Cargo.toml: line 3: `debian` is not a distro: write <family>-<release>, such as debian-13, in lower-case letters, digits and dots
        hint: mend line 3 of Cargo.toml
      apps/hello/app.toml: port 80 is not one that an app can listen on: those below 1024 are the system's
        hint: choose one from 8000 to 9999
      apps/hello/app.toml: route `x` does not start with `/`
        hint: write "/x"
      apps/hello/app.toml: route `/y;` has the character ';'
        hint: use letters, digits, `-`, `.`, `_` and `~`
      apps/loose: is an app by its files, but has no go.mod
        hint: run '(cd apps/loose && go mod init loose)'
      apps/my_app: `my_app` is not the name of an app: lower-case letters, digits and dashes, at most 64, first a letter, last no dash
        hint: rename the folder, and the units of the app
      configs/tmpfiles.d/x.conf: line 2: /usr/share/x cannot be changed, /usr is read-only
        hint: use a path below /var or /run
      systemd/other.service: line 1: `[Service` is neither a section, nor an assignment, nor a comment
        hint: write [Section], Key=value, or # and a comment
      apps/hello: has no unit: systemd/hello.service is missing
        hint: write systemd/hello.service with ExecStart=/usr/bin/hello
    "#);
}

#[test]
fn problems_of_apps() {
    let hello = service("/usr/bin/hello");
    let app = |service: &str, expected: &[&str]| {
        check(&[("apps/hello/go.mod", ""), ("systemd/hello.service", service)], expected);
    };
    app(&hello, &[]);
    check(
        &[
            ("apps/cloud/go.mod", ""),
            ("systemd/cloud.service", &service("/usr/bin/cloud")),
            ("systemd/cloud-init.service", "[Service]\nExecStart=/usr/bin/cloud\n"),
        ],
        &["systemd/cloud-init.service: would replace a unit of the base; give it another name"],
    );
    app(&service("@-/usr/bin/hello hello -x"), &[]);
    app(&service("\"/usr/bin/hello\" -x"), &[]);
    app(
        &service("/usr/bin/env \\\n /usr/bin/hello"),
        &["systemd/hello.service: ExecStart= starts /usr/bin/env, but the app is /usr/bin/hello; \
         write ExecStart=/usr/bin/hello"],
    );
    app(
        "[Service]\nType=oneshot\n[Install]\nWantedBy=x.target\n",
        &["systemd/hello.service: has no ExecStart=, but the app is /usr/bin/hello; \
         write ExecStart=/usr/bin/hello"],
    );
    app(
        "[Service]\nExecStart=/usr/bin/hello\n",
        &["systemd/hello.service: is not enabled by anything: no unit of the app has an [Install] section; \
         add [Install] and WantedBy=multi-user.target"],
    );
    app(
        "[Service]\nExecStart=/usr/bin/hello\n[Install]\nWantedBy=multi-user\n",
        &[
            "systemd/hello.service: [Install]: `WantedBy=multi-user`: `multi-user` is not the name of a unit; \
         write it like WantedBy=multi-user.target",
        ],
    );
    check(
        &[("apps/hello/go.mod", "")],
        &["apps/hello: has no unit: systemd/hello.service is missing; \
         write systemd/hello.service with ExecStart=/usr/bin/hello"],
    );
    let files = [
        ("apps/hello/go.mod", ""),
        ("systemd/hello.service", "[Service]\nExecStart=/usr/bin/hello\n"),
        ("systemd/hello.socket", "[Socket]\nListenStream=1\n[Install]\nWantedBy=sockets.target\n"),
        ("systemd/hello-clean.service", "[Service]\nExecStart=/usr/local/bin/hello clean\n"),
        ("systemd/hello-other.service", "[Service]\nExecStart=/usr/bin/true\n"),
    ];
    check(
        &files,
        &[
            "systemd/hello-clean.service: ExecStart= starts /usr/local/bin/hello, but the app is /usr/bin/hello; \
         write ExecStart=/usr/bin/hello",
        ],
    );
    let rename = "rename the folder, and the units of the app";
    let rule = "is not the name of an app: lower-case letters, digits and dashes, at most 64, first a letter, \
                last no dash";
    let long = "a".repeat(65);
    for bad in ["Hello", "my_app", "1st", "app-", "-app", "a.b", &long] {
        let path = format!("apps/{bad}/go.mod");
        check(&[(path.as_str(), "")], &[&format!("apps/{bad}: `{bad}` {rule}; {rename}")]);
    }
    check(
        &[("apps/os/go.mod", "")],
        &[&format!(
            "apps/os: `os` cannot be the name of an app: it is the layer of what belongs to no app; {rename}"
        )],
    );
    check(
        &[("apps/x/main.go", "")],
        &["apps/x: is an app by its files, but has no go.mod; run '(cd apps/x && go mod init x)'"],
    );
}

#[test]
fn problems_of_routes() {
    let (a, b) = (service("/usr/bin/a"), service("/usr/bin/b"));
    let apps = |toml_a: &str, toml_b: &str, expected: &[&str]| {
        let files = [
            ("apps/a/go.mod", ""),
            ("apps/b/go.mod", ""),
            ("systemd/a.service", a.as_str()),
            ("systemd/b.service", b.as_str()),
            ("apps/a/app.toml", toml_a),
            ("apps/b/app.toml", toml_b),
        ];
        check(&files, expected);
    };
    apps("port = 8080\nroutes = [\"/\"]", "port = 8081\nroutes = [\"/b\"]", &[]);
    apps("", "# nothing", &[]);
    apps(
        "port = 8080\nroutes = [\"/\"]",
        "port = 8080\nroutes = [\"/\", \"/b\"]",
        &[
            "apps/b/app.toml: port 8080 is already a's; choose another from 8000 to 9999",
            "apps/b/app.toml: route `/` is already a's; remove it from one of the two",
        ],
    );
    apps(
        "port = 8080\nroutes = [\"/a\", \"/a\"]",
        "",
        &["apps/a/app.toml: route `/a` is already a's; remove it from one of the two"],
    );
    apps(
        "port = 8080",
        "routes = [\"/\"]",
        &[
            "apps/a/app.toml: has a port, but no routes; add routes = [\"/\"], or remove the port",
            "apps/b/app.toml: has routes, but no port; add the port that the app listens on",
        ],
    );
    apps(
        "port = 8080\nrotues = [\"/\"]",
        "port = 70000",
        &[
            "apps/a/app.toml: line 2: unknown field `rotues`, expected `port` or `routes`; mend line 2 of apps/a/app.toml",
            "apps/b/app.toml: line 1: invalid value: integer `70000`, expected u16; mend line 1 of apps/b/app.toml",
        ],
    );
    let low =
        |port| format!("port {port} is not one that an app can listen on: those below 1024 are the system's");
    let hint = "choose one from 8000 to 9999";
    apps(
        "port = 0\nroutes = [\"/a\"]",
        "port = 22\nroutes = [\"/b\"]",
        &[&format!("apps/a/app.toml: {}; {hint}", low(0)), &format!("apps/b/app.toml: {}; {hint}", low(22))],
    );
}

#[test]
fn problems_of_files() {
    check(
        &[("systemd/hello.conf", ""), ("systemd/a.service.d/x.conf", "")],
        &[
            "systemd/a.service.d: is a folder that nothing reads; move its files to systemd",
            "systemd/hello.conf: `hello.conf` is not the name of a unit; \
         name it like hello.service, hello.timer or hello@.service",
        ],
    );
    check(
        &[("configs/tmpfiles.d/README.md", ""), ("configs/sysusers.d/a.txt", "")],
        &[
            "configs/tmpfiles.d/README.md: is not read by systemd; give it a name that ends with .conf",
            "configs/sysusers.d/a.txt: is not read by systemd; give it a name that ends with .conf",
        ],
    );
    check(
        &[
            ("base/shared/rootfs/usr/lib/sysusers.d/x.conf", "# nginx.\nu nginx 110\n"),
            ("configs/sysusers.d/a.conf", "u a 110\nu b 111:"),
            ("configs/tmpfiles.d/a.conf", "d /run/a\nd /usr/a\n"),
        ],
        &[
            "configs/tmpfiles.d/a.conf: line 2: /usr/a cannot be changed, /usr is read-only; \
             use a path below /var or /run",
            "configs/sysusers.d/a.conf: line 1: the user id 110 is `nginx`'s \
             (base/shared/rootfs/usr/lib/sysusers.d/x.conf, line 2); \
             choose another id below 1000, or write - for any",
            "configs/sysusers.d/a.conf: line 2: `` is not a group; write UID:GID, or UID:GROUP",
        ],
    );
    check(
        &[("configs/os/other.conf", ""), ("configs/os/nginx/x.conf", "a;")],
        &[
            "configs/os/other.conf: is not read by anything; remove it: configs/os holds nginx.conf and nginx/",
            "configs/os/nginx/x.conf: is not read by nginx; name it NAME.upstream.conf or NAME.location.conf",
        ],
    );
    check(
        &[
            ("configs/os/nginx.conf", "http {"),
            ("configs/os/nginx/a.location.conf", "location /f {\nalias /f/; }"),
        ],
        &[
            "configs/os/nginx.conf: line 1: `{` is left open; write the missing `}`",
            "configs/os/nginx/a.location.conf: line 2: `alias /f/` in `location /f` gives away its parent folder, \
         as /f../; write 'location /f/'",
        ],
    );
    let a = service("/usr/bin/a");
    let clash = [
        ("apps/a/go.mod", ""),
        ("apps/a/app.toml", "port = 8080\nroutes = [\"/a\"]"),
        ("systemd/a.service", a.as_str()),
        ("configs/os/nginx/a.location.conf", "location = /a { }\nlocation /b/ { }\nlocation ^~ /a/ { }"),
    ];
    check(
        &clash,
        &[
            "configs/os/nginx/a.location.conf: has the name of the file that is made from a's app.toml; rename it",
            "configs/os/nginx/a.location.conf: line 1: the location is already a's, by its app.toml; \
         remove it from one of the two",
            "configs/os/nginx/a.location.conf: line 3: the location is already a's, by its app.toml; \
         remove it from one of the two",
        ],
    );
    check(
        &[("base/Debian/13/x", "")],
        &["base/Debian/13: `Debian-13` is not a distro: write <family>-<release>, such as debian-13, \
         in lower-case letters, digits and dots; rename the folder"],
    );
}

#[test]
fn problems_of_distros() {
    let distro = |toml: &str, expected: &[&str]| {
        check(&[("base/f/1/Containerfile", ""), ("base/f/1/distro.toml", toml)], expected);
    };
    let mend = |line: usize| format!("mend line {line} of base/f/1/distro.toml:");
    let at = |line: usize, message: &str, edit: &str| {
        format!("base/f/1/distro.toml: line {line}: {message}; {} {edit}", mend(line))
    };
    let check_one = |toml: &str, line: usize, message: &str, edit: &str| {
        distro(toml, &[&at(line, message, edit)]);
    };
    distro(CENTOS, &[]);
    distro(&format!("\u{feff}{}", CENTOS.replace('\n', "\r\n")), &[]);
    check_one(
        &CENTOS.replace("quay.io/c/c:stream9", "Not valid"),
        2,
        "upstream `Not valid`: invalid reference format",
        "write it like quay.io/owner/name:tag, or with @sha256:... behind it",
    );
    distro(
        &CENTOS.replace("upstream", "suite"),
        &[
            &at(2, "a distro with a Containerfile is made from its upstream", "leave out suite"),
            "base/f/1/distro.toml: has no `upstream`; \
             add to base/f/1/distro.toml: upstream = \"REGISTRY/NAME:TAG\"",
        ],
    );
    let successor = "name a distro that 'cargo xtask list' shows, or leave it out";
    let with = |successor: &str| format!("{CENTOS}successor = \"{successor}\"");
    check_one(&with("f-2"), 6, "successor `f-2` has no folder base/f/2", successor);
    check_one(&with("f-1"), 6, "it is its own successor", successor);
    let title = "write title = \"NAME RELEASE\"";
    check_one(&CENTOS.replace("\"CentOS\"", "' '"), 1, "title is empty", title);
    let broken = CENTOS.replace("CentOS", "Cent\\nOS");
    check_one(&broken, 1, "title has a line break or another control character", title);
    // All at once.
    let amd64 = "[\"linux/amd64\", \"linux/amd64\",\n  \"arm64\"]";
    distro(
        &format!(
            "stage = \"beta\"\nend-of-life = '2027-05-31'\nplatforms = {amd64}\ncolour = 1\nupstream = 1\n"
        ),
        &[
            &at(5, "there is no key `colour`", &format!("the keys are {}", KEYS.join(", "))),
            "base/f/1/distro.toml: has no `title`; add to base/f/1/distro.toml: title = \"NAME RELEASE\"",
            &at(1, "stage is `beta`", "write stage = \"production\" or stage = \"preview\""),
            &at(2, "end-of-life is not a day", "write end-of-life = YYYY-MM-DD, without quotes"),
            &at(3, "linux/amd64 is there twice", "leave out one of the two"),
            &at(
                4,
                "platform `arm64` is not one of linux/amd64, linux/arm64, linux/ppc64le, linux/s390x",
                "take it out of platforms",
            ),
            &at(6, "upstream is no string", "write upstream = \"...\""),
        ],
    );
    check_one(
        &CENTOS.replace("2027-05-31", "2027-05-31T01:02:03"),
        3,
        "end-of-life is not a day",
        "write end-of-life = YYYY-MM-DD, without quotes",
    );
    distro(
        "title = \n",
        &["base/f/1/distro.toml: line 1: string values must be quoted, expected literal string; \
           mend line 1 of base/f/1/distro.toml"],
    );
    let toml = ("base/f/1/distro.toml", CENTOS);
    check(
        &[toml, ("base/f/1/Containerfile", ""), ("base/f/1/packages.list", "")],
        &["base/f/1: has a Containerfile and a packages.list: its base could be made in two ways; \
         remove the one that does not make it"],
    );
    check(
        &[toml, ("base/g/rootfs/etc/x", "")],
        &[
            "base/f/1: has neither a Containerfile nor a packages.list; \
         add one of them; what several distros share belongs into base/shared",
            "base/g/rootfs: has neither a Containerfile nor a packages.list; \
         add one of them; what several distros share belongs into base/shared",
        ],
    );
    check(
        &[("base/f/1/Containerfile", "")],
        &["base/f/1: has no distro.toml, which says what the distro is; \
         write base/f/1/distro.toml, as in the folders beside it"],
    );
    check(
        &[toml, ("base/f/1/Containerfile/x", "")],
        &["base/f/1/Containerfile: is a folder, not a file; rename base/f/1/Containerfile"],
    );

    // What lies beside it.
    let stray = |containerfile: &str, expected: &[&str]| {
        check(&[toml, ("base/f/1/Containerfile", containerfile), ("base/f/1/rootfs/etc/x", "")], expected);
    };
    stray("COPY base/f/1/rootfs/ /\n", &[]);
    stray("COPY base/f/1/ /x/\n", &[]);
    stray("RUN --mount=type=bind,source=base/f/1,target=/x sh /x/y\n", &[]);
    let message = "base/f/1/rootfs: is not read by anything; \
                   remove it, or name base/f/1/rootfs in the Containerfile";
    stray("COPY base/shared/rootfs/ /\n", &[message]);
    stray("COPY base/f/10 base/f/1/setup.sh /\n", &[message]);
    let debian = "title = \"D\"\nsuite = \"t\"\nreleased = 2025-08-09\nend-of-life = 2030-06-30\n\
                  stage = \"preview\"\nplatforms = [\"linux/amd64\"]";
    check(
        &[("base/d/1/packages.list", ""), ("base/d/1/distro.toml", debian), ("base/d/1/x.sh", "")],
        &["base/d/1/x.sh: is not read by anything; remove it: beside distro.toml there are \
           packages.list, customize.sh, dpkg.cfg, rootfs"],
    );
}

#[test]
fn a_link_in_a_distro_is_one_problem() {
    for path in ["base/f", "base/f/1", "base/f/1/Containerfile", "base/f/1/distro.toml"] {
        let after_f = format!("{CENTOS}successor = \"f-1\"");
        let root = workspace(&[
            ("base/f/1/Containerfile", ""),
            ("base/f/1/distro.toml", CENTOS),
            ("base/g/1/Containerfile", ""),
            ("base/g/1/distro.toml", &after_f),
        ]);
        let real = root.path().join("real");
        fs::rename(root.path().join(path), &real).unwrap();
        symlink(&real, root.path().join(path)).unwrap();
        let Problems(problems) = Workspace::discover(root.path()).unwrap_err();
        let shown: Vec<_> =
            problems.iter().map(|problem| (problem.path.to_str().unwrap(), &*problem.message)).collect();
        assert_eq!(shown, [(path, "is a symbolic link")]);
    }
}

#[test]
fn links_and_unreadable_text_are_problems() {
    let root = workspace(&[("configs/tmpfiles.d/a.conf", ""), ("systemd/x.service", "")]);
    fs::write(root.path().join("configs/tmpfiles.d/b.conf"), b"d /var/\xff\n").unwrap();
    symlink("/etc/passwd", root.path().join("configs/tmpfiles.d/c.conf")).unwrap();
    symlink("tmpfiles.d", root.path().join("configs/sysusers.d")).unwrap();
    let Problems(problems) = Workspace::discover(root.path()).unwrap_err();
    let shown: Vec<String> =
        problems.iter().map(|problem| format!("{}: {}", problem.path.display(), problem.message)).collect();
    assert_eq!(
        shown,
        [
            "configs/sysusers.d: is a symbolic link",
            "configs/tmpfiles.d/c.conf: is a symbolic link",
            "configs/tmpfiles.d/b.conf: is not UTF-8 text",
        ]
    );
}

#[test]
fn the_root_is_found_from_below() {
    let root = workspace(&[("apps/a/Cargo.toml", "[package]\n"), ("apps/a/b/c", "")]);
    assert_eq!(Workspace::find_root(&root.path().join("apps/a/b")).unwrap(), root.path());
    assert_eq!(Workspace::find_root(root.path()).unwrap(), root.path());
    let elsewhere = tempfile::tempdir().unwrap();
    let error = Workspace::find_root(elsewhere.path()).unwrap_err();
    assert!(error.to_string().starts_with("neither "), "{error}");
    assert_eq!(crate::hint::hints(&error).count(), 1);
}
