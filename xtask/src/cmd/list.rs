//! `list`: what is in this repository.

use anyhow::Result;
use serde_json::json;

use super::Session;
use crate::disk::DiskFormat;
use crate::workspace::{Distro, DistroKind, DistroName};

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
    let today = session.today();
    let distros: Vec<_> = workspace
        .distros
        .iter()
        .map(|distro| {
            let platforms: Vec<String> = distro.platforms.iter().map(ToString::to_string).collect();
            json!({
                "name": distro.name.to_string(),
                "title": distro.title,
                "default": is_default(&distro.name),
                "stage": distro.stage.name(),
                "ended": distro.is_ended(today),
                "end_of_life": distro.end_of_life.to_string(),
                "successor": distro.successor.as_ref().map(ToString::to_string),
                "made": made(&distro.kind),
                "upstream": distro.upstream().map(ToString::to_string),
                "pinned": distro.upstream().map(|upstream| upstream.pin.is_some()),
                "platforms": platforms,
            })
        })
        .collect();
    let formats: Vec<&str> = workspace.settings.formats.iter().map(|format| format.name()).collect();
    let image = workspace.settings.image.to_string();
    let value = json!({
        "image": image, "apps": apps, "distros": distros, "formats": formats,
        "all_formats": DiskFormat::ALL.map(DiskFormat::name),
    });
    session.print(&value, || {
        let mut text = format!("image {image}\n");
        for app in &workspace.apps {
            let routes = app.route.as_ref().map(|route| {
                let prefixes: Vec<&str> = route.prefixes.iter().map(|prefix| prefix.as_str()).collect();
                format!("  {} on port {}", prefixes.join(" "), route.port)
            });
            text += &format!("app {}{}\n", app.name, routes.unwrap_or_default());
        }
        for distro in &workspace.distros {
            let default = if is_default(&distro.name) { " (default)" } else { "" };
            let life = match (distro.is_ended(today), &distro.successor) {
                (false, _) => format!("{}, until {}", distro.stage.name(), distro.end_of_life),
                (true, None) => format!("ended on {}", distro.end_of_life),
                (true, Some(successor)) => format!("ended on {}, go to {successor}", distro.end_of_life),
            };
            let Distro { name, title, kind, .. } = distro;
            let from = distro.upstream().map_or(String::new(), |upstream| format!(": {upstream}"));
            text += &format!("distro {name}{default}  {title}, {life}, {}{from}\n", made(kind));
        }
        for format in &formats {
            text += &format!("format {format}\n");
        }
        text
    })
}

fn made(kind: &DistroKind) -> &'static str {
    match kind {
        DistroKind::Packages { .. } => "from packages",
        DistroKind::Image { .. } => "from an image",
    }
}
