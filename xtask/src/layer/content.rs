//! What the layers hold: one for each app, and one for what belongs to the OS.

use std::collections::BTreeMap;

use anyhow::Result;

use super::enable::{self, EnableError, EnableLink, UNITS};
use super::tree::{FileMode, Tree};
use crate::hint::WithHint;
use crate::workspace::route::{self, LOCATION_CONF, NGINX_APPS, UPSTREAM_CONF};
use crate::workspace::unit::{Unit, UnitName};
use crate::workspace::{App, OsFiles, Workspace};

const NGINX_CONF: &str = "etc/nginx/nginx.conf";
const PRESETS: &str = "usr/lib/systemd/system-preset";
const TMPFILES: &str = "usr/lib/tmpfiles.d";
const SYSUSERS: &str = "usr/lib/sysusers.d";
/// Adds to the ports that the base keeps free for apps.
const RESERVED_PORTS: &str = "usr/lib/sysctl.d/98-testboot-apps.conf";

/// The layer of everything that belongs to no app.
pub(crate) const OS: &str = "os";

/// A layer's name and its files: the OS's first, which changes least, then each app's by name.
/// `binary` gives an app's program.
pub(crate) fn trees<'a>(
    workspace: &'a Workspace,
    binary: impl Fn(&App) -> Result<&'a [u8]>,
) -> Result<Vec<(&'a str, Tree)>> {
    let mut links = enable_links(workspace)?;
    let mut trees = vec![(OS, os(&workspace.os, workspace, &mut links)?)];
    for app in &workspace.apps {
        trees.push((app.name.as_str(), self::app(app, binary(app)?, &mut links)?));
    }
    trees.retain(|(_, tree)| !tree.is_empty());
    Ok(trees)
}

fn app(app: &App, binary: &[u8], links: &mut Links) -> Result<Tree> {
    let mut tree = Tree::default();
    tree.file(app.name.program().trim_start_matches('/'), FileMode::Executable, binary.to_vec())?;
    units(&mut tree, &app.units, app.name.as_str(), links)?;
    for (folder, file) in [(TMPFILES, &app.tmpfiles), (SYSUSERS, &app.sysusers)] {
        if let Some(file) = file {
            tree.file(format!("{folder}/{}", file.name()), FileMode::Plain, file.bytes.clone())?;
        }
    }
    if let Some(route) = &app.route {
        let mut nginx = |end: &str, text: String| {
            tree.file(format!("{NGINX_APPS}/{}{end}", app.name), FileMode::Plain, text.into_bytes())
        };
        nginx(UPSTREAM_CONF, route.upstream_conf(&app.name))?;
        nginx(LOCATION_CONF, route.location_conf(&app.name))?;
    }
    Ok(tree)
}

fn os(os: &OsFiles, workspace: &Workspace, links: &mut Links) -> Result<Tree> {
    let mut tree = Tree::default();
    if let Some(file) = &os.nginx_conf {
        tree.file(NGINX_CONF, FileMode::Plain, file.bytes.clone())?;
    }
    for (folder, files) in
        [(NGINX_APPS, &os.nginx_pieces), (TMPFILES, &os.tmpfiles), (SYSUSERS, &os.sysusers)]
    {
        for file in files {
            tree.file(format!("{folder}/{}", file.name()), FileMode::Plain, file.bytes.clone())?;
        }
    }
    let ports = workspace.apps.iter().filter_map(|app| app.route.as_ref()).map(|route| route.port);
    if let Some(text) = route::reserved_ports_conf(ports) {
        tree.file(RESERVED_PORTS, FileMode::Plain, text.into_bytes())?;
    }
    units(&mut tree, &os.units, OS, links)?;
    Ok(tree)
}

/// The links that enable units, by the unit that asks for them.
type Links = BTreeMap<UnitName, Vec<EnableLink>>;

/// Enables all units of the image together, since they may name each other.
fn enable_links(workspace: &Workspace) -> Result<Links> {
    let units = workspace.apps.iter().flat_map(|app| &app.units).chain(&workspace.os.units);
    let units: Vec<Unit> = units.cloned().collect();
    let links = enable::enable(&units).own_hint(EnableError::hint)?;
    let mut by_unit = Links::new();
    for link in links {
        by_unit.entry(link.unit.clone()).or_default().push(link);
    }
    Ok(by_unit)
}

fn units(tree: &mut Tree, units: &[Unit], owner: &str, links: &mut Links) -> Result<()> {
    for unit in units {
        tree.file(format!("{UNITS}/{}", unit.name), FileMode::Plain, unit.source.bytes.clone())?;
        for link in links.remove(&unit.name).unwrap_or_default() {
            tree.symlink(link.path, link.target)?;
        }
    }
    let preset = enable::preset(units);
    if !preset.is_empty() {
        tree.file(format!("{PRESETS}/50-{owner}.preset"), FileMode::Plain, preset.into_bytes())?;
    }
    Ok(())
}
