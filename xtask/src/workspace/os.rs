//! What belongs to the system rather than to one app: `configs/`, and the units of no app.

use super::app::{self, App};
use super::files::{EntryKind, SourceFile, Tree};
use super::name::is_systems_unit;
use super::nginx;
use super::problem::Problems;
use super::route::{LOCATION_CONF, UPSTREAM_CONF};
use super::sysusers::Accounts;
use super::tmpfiles;
use super::unit::Unit;

pub(super) const UNITS: &str = "systemd";
const CONFIGS: &str = "configs";
const KNOWN_CONFIGS: [&str; 4] = ["builder", "os", "sysusers.d", "tmpfiles.d"];
const OS: &str = "configs/os";
const NGINX_CONF: &str = "nginx.conf";
const NGINX_PIECES: &str = "nginx";
pub(super) const TMPFILES: &str = "configs/tmpfiles.d";
pub(super) const SYSUSERS: &str = "configs/sysusers.d";

/// The files of the system's own layer; each list is sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OsFiles {
    pub(crate) nginx_conf: Option<SourceFile>,
    /// Shipped beside those that are made from the apps' routes.
    pub(crate) nginx_pieces: Vec<SourceFile>,
    pub(crate) tmpfiles: Vec<SourceFile>,
    pub(crate) sysusers: Vec<SourceFile>,
    pub(crate) units: Vec<Unit>,
}

/// Reads the system's files, and gives the apps those that are theirs.
pub(super) fn read(tree: &Tree, apps: &mut [App], problems: &mut Problems) -> OsFiles {
    let mut os = OsFiles::default();
    for entry in tree.entries(CONFIGS, problems) {
        if !KNOWN_CONFIGS.contains(&entry.name.as_str()) {
            let hint = format!("rename or remove it: {CONFIGS} holds {}", KNOWN_CONFIGS.join(", "));
            problems.add(entry.path, "is not read by anything", hint);
        }
    }
    read_nginx(tree, apps, &mut os, problems);
    for file in conf_files(tree, TMPFILES, problems) {
        tmpfiles::check(&file, problems);
        match app_of(apps, &file) {
            Some(app) => app.tmpfiles = Some(file),
            None => os.tmpfiles.push(file),
        }
    }
    let users = conf_files(tree, SYSUSERS, problems);
    let mut accounts =
        if users.is_empty() { Accounts::default() } else { Accounts::of_bases(tree, problems) };
    for file in users {
        accounts.check(&file, problems);
        match app_of(apps, &file) {
            Some(app) => app.sysusers = Some(file),
            None => os.sysusers.push(file),
        }
    }
    let mut broken = Vec::new();
    for source in tree.files(UNITS, problems) {
        let path = source.path.clone();
        match Unit::parse(source) {
            Ok(unit) => match app::owner(apps, &unit.name) {
                Some(_) if is_systems_unit(unit.name.stem()) => {
                    problems.add(&path, "would replace a unit of the base", "give it another name");
                }
                Some(app) => app.units.push(unit),
                None => os.units.push(unit),
            },
            Err(error) => {
                problems.add(&path, &error, error.hint());
                broken.push(path);
            }
        }
    }
    for unit in &os.units {
        // Nobody would notice before the host does.
        let program = format!("/usr/bin/{}", unit.name.prefix());
        if unit.programs().contains(&program) {
            let message = format!("starts {program}, but no app is called `{}`", unit.name.prefix());
            let hint = format!("add apps/{}/go.mod, or remove the unit", unit.name.prefix());
            problems.add(&unit.source.path, message, hint);
        }
    }
    for app in apps.iter() {
        // A unit that could not be read is not missing.
        let is_broken = broken.iter().any(|path| {
            path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| stem == app.name.as_str())
        });
        if !is_broken {
            app::check_units(app, problems);
        }
    }
    os
}

fn read_nginx(tree: &Tree, apps: &[App], os: &mut OsFiles, problems: &mut Problems) {
    for entry in tree.entries(OS, problems) {
        match (entry.name.as_str(), entry.kind) {
            (NGINX_CONF, EntryKind::File) => os.nginx_conf = tree.read(&entry.path, problems),
            (NGINX_PIECES, EntryKind::Folder) => os.nginx_pieces = tree.files(&entry.path, problems),
            _ => {
                let hint = format!("remove it: {OS} holds {NGINX_CONF} and {NGINX_PIECES}/");
                problems.add(entry.path, "is not read by anything", hint);
            }
        }
    }
    if let Some(file) = &os.nginx_conf {
        nginx::check(file, problems);
    }
    for piece in &os.nginx_pieces {
        let directives = nginx::check(piece, problems);
        let suffix = [UPSTREAM_CONF, LOCATION_CONF].into_iter().find(|suffix| piece.name().ends_with(suffix));
        let Some(suffix) = suffix else {
            let hint = format!("name it NAME{UPSTREAM_CONF} or NAME{LOCATION_CONF}");
            problems.add(&piece.path, "is not read by nginx", hint);
            continue;
        };
        for app in apps {
            let Some(route) = &app.route else { continue };
            if piece.name().strip_suffix(suffix) == Some(app.name.as_str()) {
                let message = format!("has the name of the file that is made from {}'s app.toml", app.name);
                problems.add(&piece.path, message, "rename it");
            }
            if suffix == LOCATION_CONF {
                let taken = route.locations();
                for (line, _) in nginx::locations(&directives).filter(|(_, path)| taken.contains(path)) {
                    let message =
                        format!("line {line}: the location is already {}'s, by its app.toml", app.name);
                    problems.add(&piece.path, message, "remove it from one of the two");
                }
            }
        }
    }
}

/// The files of a folder in which systemd reads `*.conf` only.
fn conf_files(tree: &Tree, folder: &str, problems: &mut Problems) -> Vec<SourceFile> {
    let mut files = tree.files(folder, problems);
    files.retain(|file| {
        let is_conf = file.name().ends_with(".conf");
        if !is_conf {
            problems.add(&file.path, "is not read by systemd", "give it a name that ends with .conf");
        }
        is_conf
    });
    files
}

fn app_of<'a>(apps: &'a mut [App], file: &SourceFile) -> Option<&'a mut App> {
    let stem = file.name().strip_suffix(".conf")?;
    apps.iter_mut().find(|app| app.name.as_str() == stem)
}
