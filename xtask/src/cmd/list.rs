//! `list`: what is in this repository.

use anyhow::Result;
use serde_json::json;

use super::Session;
use crate::base::debian;
use crate::workspace::DistroName;

pub(crate) fn run(session: &Session) -> Result<()> {
    let workspace = session.workspace()?;
    let apps: Vec<_> = workspace
        .apps
        .iter()
        .map(|app| {
            let units: Vec<&str> = app.units.iter().map(|unit| unit.name.as_str()).collect();
            let route = app.route.as_ref().map(|route| {
                let prefixes: Vec<&str> = route.prefixes.iter().map(|prefix| prefix.as_str()).collect();
                json!({"port": route.port.number(), "routes": prefixes})
            });
            json!({"name": app.name.as_str(), "units": units, "route": route})
        })
        .collect();
    let is_default = |name: &DistroName| *name == workspace.settings.distro;
    let distros: Vec<_> = workspace
        .distros
        .iter()
        .map(|distro| {
            json!({
                "name": distro.name.to_string(),
                "title": distro.title,
                "default": is_default(&distro.name),
                "made": if debian::is_debian(distro) { "from packages" } else { "from an image" },
            })
        })
        .collect();
    let value = json!({"image": workspace.settings.image.to_string(), "apps": apps, "distros": distros});
    session.print(&value, || {
        let mut text = format!("image {}\n", workspace.settings.image);
        for app in &workspace.apps {
            let routes = app.route.as_ref().map(|route| {
                let prefixes: Vec<&str> = route.prefixes.iter().map(|prefix| prefix.as_str()).collect();
                format!("  {} on port {}", prefixes.join(" "), route.port)
            });
            text += &format!("app {}{}\n", app.name, routes.unwrap_or_default());
        }
        for distro in &workspace.distros {
            let default = if is_default(&distro.name) { " (default)" } else { "" };
            text += &format!("distro {}{default}\n", distro.name);
        }
        text
    })
}
