//! An SBOM in SPDX's JSON. Source: SPDX 2.3 (ISO/IEC 5962 is 2.2.1).

use serde_json::{Value, json};

use super::inventory::{Inventory, Link, Part, PartKind, Relation};
use super::{REPOSITORY, TOOL, TOOL_VERSION, says};
use crate::oci::{Attachment, Digest};

/// Source: IANA's list of media types.
pub(crate) const MEDIA_TYPE: &str = "application/spdx+json";
const DOCUMENT: &str = "SPDXRef-DOCUMENT";

/// The inventory as a document. The same inventory is the same bytes.
pub(super) fn attachment(inventory: &Inventory) -> Attachment {
    Attachment {
        artifact_type: MEDIA_TYPE,
        file_name: "sbom.spdx.json",
        annotation: None,
        created: inventory.created,
        content: document(inventory).to_string().into_bytes(),
    }
}

fn document(inventory: &Inventory) -> Value {
    let Inventory { created, subject, parts, relations } = inventory;
    let digest = subject.digest.map(|digest| digest.hex()).unwrap_or_default();
    let packages: Vec<Value> = std::iter::once(subject).chain(parts).map(package).collect();
    let describes = json!({
        "spdxElementId": DOCUMENT,
        "relationshipType": "DESCRIBES",
        "relatedSpdxElement": id(subject.id.as_str()),
    });
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": DOCUMENT,
        "name": format!("{}@sha256:{digest}", subject.name),
        "documentNamespace": format!("{REPOSITORY}/spdx/sha256-{digest}"),
        "creationInfo": {
            "created": created.to_string(),
            "creators": [format!("Tool: {TOOL}-{TOOL_VERSION}")],
        },
        "packages": packages,
        "relationships":
            std::iter::once(describes).chain(relations.iter().map(relationship)).collect::<Vec<_>>(),
    })
}

/// Files are packages as well: SPDX wants a SHA-1 of what it calls a file.
fn package(part: &Part) -> Value {
    let Part { id: part_id, kind, name, version, digest, purl, go_sum } = part;
    let purpose = match kind {
        PartKind::Image | PartKind::Base => "CONTAINER",
        PartKind::Layer => "ARCHIVE",
        PartKind::File => "FILE",
        PartKind::Program => "APPLICATION",
        PartKind::Module => "LIBRARY",
    };
    let mut package = json!({
        "SPDXID": id(part_id.as_str()),
        "name": name,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "primaryPackagePurpose": purpose,
    });
    if let Some(version) = version {
        package["versionInfo"] = json!(version);
    }
    if let Some(digest) = digest {
        package["checksums"] = json!([{"algorithm": "SHA256", "checksumValue": digest.hex()}]);
    }
    if let Some(purl) = purl {
        package["externalRefs"] = json!([{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": purl,
        }]);
    }
    // It is the hash of a list of files, so it is no checksum of the package.
    if let Some(sum) = go_sum {
        package["comment"] = json!(format!("go.sum: {sum}"));
    }
    package
}

fn relationship(relation: &Relation) -> Value {
    let Relation { from, link, to } = relation;
    let kind = match link {
        Link::Contains => "CONTAINS",
        Link::DescendsFrom => "DESCENDANT_OF",
        Link::DependsOn => "DEPENDS_ON",
        Link::MadeFrom => "GENERATED_FROM",
        Link::BuiltInto => "GENERATES",
    };
    json!({
        "spdxElementId": id(from.as_str()),
        "relationshipType": kind,
        "relatedSpdxElement": id(to.as_str()),
    })
}

fn id(part: &str) -> String {
    format!("SPDXRef-{part}")
}

/// Whether a document is the SBOM of the image with this digest.
pub(super) fn is_about(document: &Value, digest: Digest) -> bool {
    let described = document["relationships"].as_array().and_then(|relationships| {
        let describes = |relationship: &&Value| {
            relationship["spdxElementId"] == DOCUMENT && relationship["relationshipType"] == "DESCRIBES"
        };
        relationships.iter().find(describes)
    });
    let (Some(described), Some(packages)) = (described, document["packages"].as_array()) else {
        return false;
    };
    packages.iter().any(|package| {
        package["SPDXID"] == described["relatedSpdxElement"]
            && says(&package["checksums"], ("algorithm", "SHA256"), "checksumValue", digest)
    })
}
