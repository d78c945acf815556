//! `diff`: what a host downloads to go from one image to another.

use anyhow::{Context, Result};
use serde_json::json;

use super::Session;
use crate::diff::{NamedLayer, delta, total};
use crate::flags::Diff;
use crate::oci::Platform;
use crate::progress::{counted, human_bytes};
use crate::source::Source;
use crate::words::foreign;

pub(crate) fn run(flags: &Diff, session: &Session) -> Result<()> {
    let registry = session.registry()?;
    let platform = flags.platform.unwrap_or_else(Platform::host);
    let layers = |name| -> Result<Vec<NamedLayer>> {
        let source = Source::open(name, &registry).with_context(|| format!("reading {name}"))?;
        source.layers(platform, &registry).with_context(|| format!("reading {name}"))
    };
    let delta = delta(&layers(&flags.old)?, &layers(&flags.new)?);

    let list = |layers: &[NamedLayer]| -> Vec<_> {
        let shown = |layer: &NamedLayer| json!({"name": name(layer), "digest": layer.descriptor.digest, "size": layer.descriptor.size});
        layers.iter().map(shown).collect()
    };
    let value = json!({
        "download": delta.download(),
        "added": list(&delta.added),
        "kept": list(&delta.kept),
        "dropped": list(&delta.dropped),
    });
    session.print(&value, || {
        let line = |mark: char, layer: &NamedLayer| {
            let size = human_bytes(layer.descriptor.size);
            format!("{mark} {:<12} {size:>9} {}\n", foreign(name(layer)), layer.descriptor.digest.short())
        };
        let dropped: String = delta.dropped.iter().map(|layer| line('-', layer)).collect();
        let added: String = delta.added.iter().map(|layer| line('+', layer)).collect();
        format!(
            "{dropped}{added}a host downloads {} in {}, and keeps {} in {}",
            human_bytes(delta.download()),
            counted(delta.added.len(), "layer"),
            human_bytes(total(&delta.kept)),
            delta.kept.len()
        )
    })
}

fn name(layer: &NamedLayer) -> &str {
    layer.name.as_deref().unwrap_or("base")
}
