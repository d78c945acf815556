//! The apps: folders below `apps/` that hold a Go program.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub(crate) use super::name::AppName;

use super::files::{Entry, EntryKind, SourceFile, Tree};
use super::problem::Problems;
use super::route::{Route, RouteError, UrlPrefix};
use super::unit::{Unit, UnitKind, UnitName};

pub(super) const APPS: &str = "apps";
pub(super) const APP_TOML: &str = "app.toml";
pub(super) const GO_MOD: &str = "go.mod";

/// A Go program and what the system needs to run it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct App {
    pub(crate) name: AppName,
    /// As found under the workspace's root.
    pub(crate) dir: PathBuf,
    /// Sorted by name.
    pub(crate) units: Vec<Unit>,
    pub(crate) tmpfiles: Option<SourceFile>,
    pub(crate) sysusers: Option<SourceFile>,
    /// `None` for an app that nginx has nothing to do with.
    pub(crate) route: Option<Route>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppToml {
    port: Option<u16>,
    #[serde(default)]
    routes: Vec<String>,
}

/// All apps, sorted by name, without their units.
pub(super) fn read(tree: &Tree, problems: &mut Problems) -> Vec<App> {
    let mut apps: Vec<App> = Vec::new();
    for entry in tree.entries(APPS, problems) {
        if entry.kind == EntryKind::File {
            continue;
        }
        let files = tree.entries(&entry.path, problems);
        if !files.iter().any(|file| file.kind == EntryKind::File && file.name == GO_MOD) {
            let is_sign = |file: &Entry| file.name.ends_with(".go") || file.name == APP_TOML;
            if files.iter().any(|file| file.kind == EntryKind::File && is_sign(file)) {
                let hint = format!("run '(cd {} && go mod init {})'", entry.path.display(), entry.name);
                problems.add(entry.path, "is an app by its files, but has no go.mod", hint);
            }
            continue;
        }
        let name: AppName = match entry.name.parse() {
            Ok(name) => name,
            Err(error) => {
                problems.add(entry.path, error, "rename the folder, and the units of the app");
                continue;
            }
        };
        let route = read_route(tree, &entry.path.join(APP_TOML), problems);
        let dir = tree.root.join(entry.path);
        apps.push(App { name, dir, units: Vec::new(), tmpfiles: None, sysusers: None, route });
    }
    check_routes(&apps, problems);
    apps
}

/// Which app a unit belongs to: of those that could own it, the one with the longest name.
pub(super) fn owner<'a>(apps: &'a mut [App], unit: &UnitName) -> Option<&'a mut App> {
    apps.iter_mut().filter(|app| app.name.owns(unit)).max_by_key(|app| app.name.as_str().len())
}

/// Looks for what keeps an app from starting.
pub(super) fn check_units(app: &App, problems: &mut Problems) {
    let (name, program) = (&app.name, app.name.program());
    let expected = format!("systemd/{name}.service");
    let services = || app.units.iter().filter(|unit| unit.name.kind() == UnitKind::Service);
    let mut own = services().filter(|unit| unit.name.prefix() == name.as_str()).peekable();
    if own.peek().is_none() {
        let hint = format!("write {expected} with ExecStart={program}");
        problems.add(format!("{APPS}/{name}"), format!("has no unit: {expected} is missing"), hint);
        return;
    }
    let hint = || format!("write ExecStart={program}");
    for unit in own {
        if !unit.programs().contains(&program) {
            let message = match unit.programs().first() {
                Some(other) => format!("ExecStart= starts {other}, but the app is {program}"),
                None => format!("has no ExecStart=, but the app is {program}"),
            };
            problems.add(&unit.source.path, message, hint());
        }
    }
    // Further services may start other programs, but not one that looks like the app.
    for unit in services().filter(|unit| unit.name.prefix() != name.as_str()) {
        for other in unit.programs() {
            if other != program && other.rsplit('/').next() == Some(name.as_str()) {
                let message = format!("ExecStart= starts {other}, but the app is {program}");
                problems.add(&unit.source.path, message, hint());
            }
        }
    }
    if app.units.iter().all(|unit| unit.install.is_empty()) {
        let path = format!("systemd/{name}.service");
        let hint = "add [Install] and WantedBy=multi-user.target".to_owned();
        problems.add(path, "is not enabled by anything: no unit of the app has an [Install] section", hint);
    }
}

fn read_route(tree: &Tree, path: &Path, problems: &mut Problems) -> Option<Route> {
    let file = tree.read(path, problems)?;
    let AppToml { port, routes } = file.toml(problems)?;
    let port = match (port, routes.is_empty()) {
        (None, true) => return None,
        (None, false) => {
            problems.add(path, "has routes, but no port", "add the port that the app listens on");
            return None;
        }
        (Some(_), true) => {
            problems.add(path, "has a port, but no routes", "add routes = [\"/\"], or remove the port");
            return None;
        }
        (Some(port), false) => port,
    };
    let mut refused = false;
    let mut refuse = |error: RouteError| {
        problems.add(path, &error, error.hint());
        refused = true;
    };
    let port = port.try_into().map_err(&mut refuse).ok();
    let prefixes: Vec<UrlPrefix> =
        routes.iter().filter_map(|route| route.parse().map_err(&mut refuse).ok()).collect();
    if refused { None } else { Some(Route { port: port?, prefixes }) }
}

/// Looks for a port or a path that is claimed twice.
fn check_routes(apps: &[App], problems: &mut Problems) {
    let mut ports = BTreeMap::new();
    let mut prefixes = BTreeMap::new();
    for app in apps {
        let Some(route) = &app.route else { continue };
        let path = format!("{APPS}/{}/{APP_TOML}", app.name);
        if let Some(other) = ports.insert(route.port, &app.name) {
            let message = format!("port {} is already {other}'s", route.port);
            problems.add(&path, message, "choose another from 8000 to 9999");
        }
        for prefix in &route.prefixes {
            if let Some(other) = prefixes.insert(prefix, &app.name) {
                let message = format!("route `{prefix}` is already {other}'s");
                problems.add(&path, message, "remove it from one of the two");
            }
        }
    }
}
