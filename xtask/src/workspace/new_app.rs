//! A new app: its name and route -> the files that make it one, or what stands in their way. Nothing
//! here writes anything.

use std::fmt;
use std::path::PathBuf;

use super::Workspace;
use super::app::{APP_TOML, APPS, AppName, GO_MOD};
use super::nginx;
use super::os::{SYSUSERS, TMPFILES, UNITS};
use super::problem::{Problem, Problems};
use super::route::{LOCATION_CONF, Port, Route, UrlPrefix};

const MAIN_GO: &str = include_str!("new_app/main.go.in");
const MAIN_TEST_GO: &str = include_str!("new_app/main_test.go.in");
const SERVICE: &str = include_str!("new_app/app.service.in");
const ROUTE: &str = include_str!("new_app/app.toml.in");
const CACHE: &str = include_str!("new_app/tmpfiles.conf.in");
/// The oldest Go that builds it, as README says.
const MODULE: &str = "module apps/@NAME@\n\ngo 1.22\n";
/// The longest name of a user. Source: systemd, docs/USER_NAMES.md.
const USER_MAX: usize = 31;

/// What to make. What is not named is chosen: a port that is free, and the app's name as its path.
#[derive(Clone, Debug)]
pub(crate) struct NewApp {
    pub(crate) name: AppName,
    pub(crate) port: Option<Port>,
    pub(crate) prefix: Option<UrlPrefix>,
    pub(crate) cache: Cache,
}

/// Whether the app gets a folder for what it can make anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cache {
    None,
    Aged,
}

/// A file that is not there yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewFile {
    /// Relative to the workspace's root.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// What has to be changed before the app can be added: all of it.
#[derive(Debug, thiserror::Error)]
pub(crate) struct Refused {
    name: AppName,
    problems: Vec<Problem>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the app {} cannot be added", self.name)?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n{problem}"))
    }
}

/// The new app's files and where it is reached. `is_there` says whether a path, relative to the
/// workspace's root, is taken by anything.
pub(crate) fn plan(
    app: &NewApp,
    workspace: &Workspace,
    is_there: impl Fn(&str) -> bool,
) -> Result<(Route, Vec<NewFile>), Refused> {
    let mut problems = Problems::default();
    let name = &app.name;
    // A file that is there already would become the app's: that may not be what anybody wants.
    let taken = [
        format!("{APPS}/{name}"),
        format!("{UNITS}/{name}.service"),
        format!("{TMPFILES}/{name}.conf"),
        format!("{SYSUSERS}/{name}.conf"),
    ];
    for path in taken.into_iter().filter(|path| is_there(path)) {
        problems.add(path, "is there already", "give the app another name");
    }
    let port = match app.port {
        Some(port) => {
            if let Some(owner) = owner_of(workspace, |route| route.port == port) {
                let hint = "leave '--port' out, and one that is free is taken";
                problems.add(route_file(owner), format!("port {port} is already {owner}'s"), hint);
            }
            Some(port)
        }
        None => Port::for_apps().find(|port| owner_of(workspace, |route| route.port == *port).is_none()),
    };
    let prefix = app.prefix.clone().unwrap_or_else(|| UrlPrefix::of(name));
    if let Some(owner) = owner_of(workspace, |route| route.prefixes.contains(&prefix)) {
        let message = format!("route `{prefix}` is already {owner}'s");
        problems.add(route_file(owner), message, "name another path with '--route /PATH'");
    }
    let Some(port) = port else {
        problems.add(APPS, "every port for apps is taken", "name one with '--port'");
        return Err(Refused { name: name.clone(), problems: problems.0 });
    };
    let route = Route { port, prefixes: vec![prefix] };
    check_pieces(name, &route, workspace, &mut problems);
    match problems.0 {
        problems if problems.is_empty() => Ok((route.clone(), files(app, &route))),
        problems => Err(Refused { name: name.clone(), problems }),
    }
}

/// Which app has such a route.
fn owner_of(workspace: &Workspace, has: impl Fn(&Route) -> bool) -> Option<&AppName> {
    workspace.apps.iter().find(|app| app.route.as_ref().is_some_and(&has)).map(|app| &app.name)
}

fn route_file(app: &AppName) -> String {
    format!("{APPS}/{app}/{APP_TOML}")
}

/// What nginx is told by the system's own files comes first.
fn check_pieces(name: &AppName, route: &Route, workspace: &Workspace, problems: &mut Problems) {
    for piece in &workspace.os.nginx_pieces {
        if piece.name().split_once('.').is_some_and(|(stem, _)| stem == name.as_str()) {
            problems.add(&piece.path, "has the name of a file of the app's", "give the app another name");
        }
        if !piece.name().ends_with(LOCATION_CONF) {
            continue;
        }
        let directives = nginx::check(piece, problems);
        let taken = route.locations();
        if let Some((line, path)) = nginx::locations(&directives).find(|(_, path)| taken.contains(path)) {
            let message = format!("line {line}: has the location `{path}` already");
            problems.add(&piece.path, message, "name another path with '--route /PATH'");
        }
    }
}

fn files(app: &NewApp, route: &Route) -> Vec<NewFile> {
    let name = app.name.as_str();
    let port = route.port.to_string();
    let home = route.prefixes.iter().map(UrlPrefix::as_str).collect::<String>();
    let health = format!("{}/health", home.trim_end_matches('/'));
    // For Go's multiplexer, `/` stands for all paths; for hosts, /x is one path.
    let exact = if home == "/" { r#"+"{$}""# } else { "" };
    let cache = match app.cache {
        Cache::None => String::new(),
        Cache::Aged => format!("\nCacheDirectory={name}"),
    };
    // One whose name is not the app's own: the system has users and groups called `mail` or `users`, and
    // systemd would take those. Longer names than its own limit are no user's, and it makes one up.
    let user = format!("app-{name}");
    let user = if user.len() <= USER_MAX { format!("\nUser={user}") } else { String::new() };
    let fill = |template: &str| {
        [
            ("@CACHE@", cache.as_str()),
            ("@EXACT@", exact),
            ("@HEALTH@", &health),
            ("@HOME@", &home),
            ("@NAME@", name),
            ("@PORT@", &port),
            ("@USER@", &user),
        ]
        .iter()
        .fold(template.to_owned(), |text, (key, value)| text.replace(key, value))
    };
    let file = |path: String, template| NewFile { path: path.into(), text: fill(template) };
    let mut files = vec![
        file(format!("{APPS}/{name}/{APP_TOML}"), ROUTE),
        file(format!("{APPS}/{name}/{GO_MOD}"), MODULE),
        file(format!("{APPS}/{name}/main.go"), MAIN_GO),
        file(format!("{APPS}/{name}/main_test.go"), MAIN_TEST_GO),
        file(format!("{UNITS}/{name}.service"), SERVICE),
    ];
    if app.cache == Cache::Aged {
        files.push(file(format!("{TMPFILES}/{name}.conf"), CACHE));
    }
    files
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// This repository, which has hello on port 8080 with `/` and `/health`.
    fn workspace() -> Workspace {
        let root = Workspace::find_root(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
        Workspace::discover(&root).unwrap_or_else(|problems| panic!("{problems}"))
    }

    fn app(name: &str) -> NewApp {
        NewApp { name: name.parse().unwrap(), port: None, prefix: None, cache: Cache::None }
    }

    fn text_of<'a>(files: &'a [NewFile], path: &str) -> &'a str {
        let file = files.iter().find(|file| file.path == Path::new(path));
        &file.unwrap_or_else(|| panic!("no {path}")).text
    }

    #[test]
    fn what_is_not_said_is_chosen() {
        let workspace = workspace();
        let (route, files) =
            plan(&NewApp { cache: Cache::Aged, ..app("shop") }, &workspace, |_| false).unwrap();
        // hello has 8080.
        assert_eq!((route.port.number(), route.prefixes[0].as_str()), (8081, "/shop"));
        let paths: Vec<_> = files.iter().map(|file| file.path.to_str().unwrap()).collect();
        insta::assert_snapshot!(paths.join("\n"), @"
        apps/shop/app.toml
        apps/shop/go.mod
        apps/shop/main.go
        apps/shop/main_test.go
        systemd/shop.service
        configs/tmpfiles.d/shop.conf
        ");
        let keys = ["@CACHE@", "@EXACT@", "@HEALTH@", "@HOME@", "@NAME@", "@PORT@"];
        for file in &files {
            assert!(!keys.iter().any(|key| file.text.contains(key)), "{}", file.path.display());
        }
        insta::assert_snapshot!(text_of(&files, "apps/shop/app.toml"), @r#"
        # Where the app listens on 127.0.0.1, and which paths nginx passes on to it.
        port = 8081
        routes = ["/shop"]
        "#);
        let main = text_of(&files, "apps/shop/main.go");
        assert!(main.contains("homePath   = \"/shop\"\n\thealthPath = \"/shop/health\"\n"), "{main}");
    }

    #[test]
    fn a_unit_is_hardened_as_hellos_is() {
        let mut workspace = workspace();
        let hello = fs::read_to_string(workspace.root.join("systemd/hello.service")).unwrap();
        workspace.apps.clear();
        let (_, files) = plan(&app("hello"), &workspace, |_| false).unwrap();
        let described = "Description=hello, a greeting over HTTP\n";
        assert_eq!(
            text_of(&files, "systemd/hello.service"),
            hello.replacen(described, "Description=hello\n", 1)
        );
    }

    #[test]
    fn an_app_runs_as_no_user_of_the_systems() {
        let user_of = |name: &str| {
            let (_, files) = plan(&app(name), &workspace(), |_| false).unwrap();
            let unit = text_of(&files, &format!("systemd/{name}.service")).to_owned();
            unit.lines().find_map(|line| line.strip_prefix("User=").map(str::to_owned))
        };
        assert_eq!(user_of("mail").as_deref(), Some("app-mail"));
        let longest = "a".repeat(27);
        assert_eq!(user_of(&longest), Some(format!("app-{longest}")));
        assert_eq!(user_of(&"a".repeat(28)), None);
    }

    #[test]
    fn all_that_is_in_the_way_is_told_at_once() {
        let mut workspace = workspace();
        let is_there = |path: &str| path == "apps/shop" || path == "configs/tmpfiles.d/shop.conf";
        let shop = NewApp {
            port: Some("8080".parse().unwrap()),
            prefix: Some("/health".parse().unwrap()),
            ..app("shop")
        };
        insta::assert_snapshot!(plan(&shop, &workspace, is_there).unwrap_err(), @"
        the app shop cannot be added
          apps/shop: is there already
            hint: give the app another name
          configs/tmpfiles.d/shop.conf: is there already
            hint: give the app another name
          apps/hello/app.toml: port 8080 is already hello's
            hint: leave '--port' out, and one that is free is taken
          apps/hello/app.toml: route `/health` is already hello's
            hint: name another path with '--route /PATH'
        ");
        workspace.os.nginx_pieces = vec![crate::workspace::files::SourceFile {
            path: "configs/os/nginx/shop.location.conf".into(),
            bytes: b"# static\nlocation /shop/ { return 404; }\n".to_vec(),
        }];
        insta::assert_snapshot!(plan(&app("shop"), &workspace, |_| false).unwrap_err(), @"
        the app shop cannot be added
          configs/os/nginx/shop.location.conf: has the name of a file of the app's
            hint: give the app another name
          configs/os/nginx/shop.location.conf: line 2: has the location `/shop/` already
            hint: name another path with '--route /PATH'
        ");
    }

    #[test]
    fn ports_run_out_in_the_end() {
        let mut workspace = workspace();
        let hello = workspace.apps.remove(0);
        let with_port = |port| {
            let route = Route { port, prefixes: vec![UrlPrefix::of(&hello.name)] };
            super::super::App { route: Some(route), ..hello.clone() }
        };
        workspace.apps = Port::for_apps().filter(|port| port.number() != 8005).map(with_port).collect();
        assert_eq!(plan(&app("shop"), &workspace, |_| false).unwrap().0.port.number(), 8005);
        workspace.apps.push(with_port("8005".parse().unwrap()));
        insta::assert_snapshot!(plan(&app("shop"), &workspace, |_| false).unwrap_err(), @"
        the app shop cannot be added
          apps: every port for apps is taken
            hint: name one with '--port'
        ");
    }
}
