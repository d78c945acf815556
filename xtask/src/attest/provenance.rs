//! How an image came about: an in-toto statement with SLSA's provenance.
//! Source: in-toto attestation framework, "Statement v1"; SLSA 1.0, "Provenance".

use serde_json::{Map, Value, json};

use super::inventory::{Inventory, PartKind};
use super::{REPOSITORY, TOOL, TOOL_VERSION};
use crate::oci::{Attachment, Digest};

/// Source: in-toto attestation framework, "Envelope".
pub(crate) const MEDIA_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";
/// Where lists of referrers say what a statement is about, as buildkit does it.
const PREDICATE_KEY: &str = "in-toto.io/predicate-type";

/// What was done, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Build<'a> {
    pub(crate) kind: BuildKind,
    /// The URL of the repository, and the commit in it, that the image was made from.
    pub(crate) source: Option<&'a str>,
    pub(crate) revision: Option<&'a str>,
    pub(crate) platform: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BuildKind {
    /// Layers of apps, over a base.
    Compose,
    /// A disk, into an image.
    Pack,
}

/// What is known of how the inventory's image was made. It says nothing of the machine or the time.
pub(super) fn attachment(inventory: &Inventory, build: &Build<'_>) -> Attachment {
    Attachment {
        artifact_type: MEDIA_TYPE,
        file_name: "provenance.intoto.json",
        annotation: Some((PREDICATE_KEY, PREDICATE_TYPE)),
        created: inventory.created,
        content: statement(inventory, build).to_string().into_bytes(),
    }
}

fn statement(inventory: &Inventory, build: &Build<'_>) -> Value {
    let Build { kind, source, revision, platform } = build;
    let subject = &inventory.subject;
    let kind = match kind {
        BuildKind::Compose => "compose",
        BuildKind::Pack => "pack",
    };
    let mut parameters = json!({"platform": platform});
    for (key, value) in
        [("source", *source), ("revision", *revision), ("version", subject.version.as_deref())]
    {
        if let Some(value) = value {
            parameters[key] = json!(value);
        }
    }
    let made_of = inventory.parts.iter().filter_map(|part| {
        let mut material = match part.kind {
            PartKind::Base | PartKind::Image | PartKind::Module => json!({"name": part.name}),
            PartKind::Layer | PartKind::File | PartKind::Program => return None,
        };
        if let Some(purl) = &part.purl {
            material["uri"] = json!(purl);
        }
        if let Some(digest) = part.digest {
            material["digest"] = digest_set(digest);
        }
        if let Some(sum) = &part.go_sum {
            material["annotations"] = json!({"go.sum": sum});
        }
        Some(material)
    });
    let materials: Vec<Value> =
        revision.map(|revision| commit(*source, revision)).into_iter().chain(made_of).collect();
    json!({
        "_type": STATEMENT,
        "subject": [{"name": subject.name, "digest": subject.digest.map(digest_set).unwrap_or_default()}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": format!("{REPOSITORY}/blob/main/README.md#{kind}"),
                "externalParameters": parameters,
                "resolvedDependencies": materials,
            },
            "runDetails": {"builder": {"id": REPOSITORY, "version": {TOOL: TOOL_VERSION}}},
        },
    })
}

/// A commit, which is not all of the source where files differ from it.
fn commit(source: Option<&str>, revision: &str) -> Value {
    let (id, is_dirty) = match revision.strip_suffix("-dirty") {
        Some(id) => (id, true),
        None => (revision, false),
    };
    let mut material = Map::from_iter([("digest".to_owned(), json!({"gitCommit": id}))]);
    if let Some(source) = source {
        material.insert("uri".to_owned(), json!(format!("git+{source}")));
    }
    if is_dirty {
        material.insert("annotations".to_owned(), json!({"dirty": true}));
    }
    Value::Object(material)
}

fn digest_set(digest: Digest) -> Value {
    json!({"sha256": digest.hex()})
}

/// Whether a document is a statement about the image with this digest.
pub(super) fn is_about(document: &Value, digest: Digest) -> bool {
    let subjects = document["subject"].as_array();
    document["_type"] == STATEMENT
        && subjects.is_some_and(|subjects| {
            subjects.iter().any(|subject| subject["digest"]["sha256"] == digest.hex())
        })
}
