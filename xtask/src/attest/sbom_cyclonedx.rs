//! An SBOM in CycloneDX's JSON. Source: CycloneDX 1.6 (ECMA-424).

use serde_json::{Value, json};

use super::inventory::{Inventory, Link, Part, PartKind};
use super::{TOOL, TOOL_VERSION, says};
use crate::oci::{Attachment, Digest, Uuid};

/// Source: IANA's list of media types.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.cyclonedx+json";
/// go.sum's hash is one of a list of files, so it is none of the component's `hashes`.
const GO_SUM: &str = "bootc-testboot:go.sum";

/// The inventory as a document. The same inventory is the same bytes.
pub(super) fn attachment(inventory: &Inventory) -> Attachment {
    Attachment {
        artifact_type: MEDIA_TYPE,
        file_name: "sbom.cdx.json",
        annotation: None,
        created: inventory.created,
        content: document(inventory).to_string().into_bytes(),
    }
}

fn document(inventory: &Inventory) -> Value {
    let Inventory { created, subject, parts, relations } = inventory;
    // Each part depends on what it is made of; what descends or was made from another is, too.
    let dependencies = std::iter::once(subject).chain(parts).map(|part| {
        let of_part = relations.iter().filter(|relation| relation.from == part.id);
        let on: Vec<&str> = of_part
            .filter(|relation| match relation.link {
                Link::Contains | Link::DescendsFrom | Link::DependsOn | Link::MadeFrom => true,
                Link::BuiltInto => false,
            })
            .map(|relation| relation.to.as_str())
            .collect();
        json!({"ref": part.id.as_str(), "dependsOn": on})
    });
    let mut document = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": created.to_string(),
            "tools": {"components": [{"type": "application", "name": TOOL, "version": TOOL_VERSION}]},
            "component": component(subject),
        },
        "components": parts.iter().map(component).collect::<Vec<_>>(),
        "dependencies": dependencies.collect::<Vec<_>>(),
    });
    if let Some(digest) = subject.digest {
        document["serialNumber"] = json!(format!("urn:uuid:{}", Uuid::from(digest)));
    }
    document
}

fn component(part: &Part) -> Value {
    let Part { id, kind, name, version, digest, purl, go_sum } = part;
    let kind_name = match kind {
        PartKind::Image | PartKind::Base => "container",
        PartKind::Layer | PartKind::File => "file",
        PartKind::Program => "application",
        PartKind::Module => "library",
    };
    let mut component = json!({"type": kind_name, "bom-ref": id.as_str(), "name": name});
    if let Some(version) = version {
        component["version"] = json!(version);
    }
    if let Some(digest) = digest {
        component["hashes"] = json!([{"alg": "SHA-256", "content": digest.hex()}]);
    }
    if let Some(purl) = purl {
        component["purl"] = json!(purl);
    }
    if let Some(sum) = go_sum {
        component["properties"] = json!([{"name": GO_SUM, "value": sum}]);
    }
    // The SBOM of another image is known by that image's digest.
    if let (PartKind::Image, Some(digest)) = (kind, digest)
        && id.as_str() != "image"
    {
        component["externalReferences"] =
            json!([{"type": "bom", "url": format!("urn:cdx:{}/1", Uuid::from(*digest))}]);
    }
    component
}

/// Whether a document is the SBOM of the image with this digest.
pub(super) fn is_about(document: &Value, digest: Digest) -> bool {
    let component = &document["metadata"]["component"];
    document["bomFormat"] == "CycloneDX" && says(&component["hashes"], ("alg", "SHA-256"), "content", digest)
}
