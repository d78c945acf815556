//! `append`: a base and our layers become an image. This is what composing is.

use serde_json::{Map, Value, json};

use super::MediaType;
use super::annotation::{BASE_DIGEST, BASE_NAME, REVISION, SOURCE, VERSION};
use super::base::Base;
use super::config::Config;
use super::digest::{DiffId, Digest};
use super::document::oci_media_type;
use super::layer::Layer;
use super::merge;
use super::platform::Platform;
use super::timestamp::Timestamp;
use super::verified::{Descriptor, Verified};

/// How the history entry of one of our layers begins; the layer's name follows.
const CREATED_BY: &str = "bootc-testboot layer ";

/// An image: a manifest, its config, and what its layers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) platform: Platform,
    pub(crate) manifest: Verified,
    pub(crate) config: Verified,
    /// In the manifest's order: the base's, then ours.
    pub(crate) layers: Vec<ImageLayer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageLayer {
    pub(crate) origin: Origin,
    pub(crate) descriptor: Descriptor,
    pub(crate) diff_id: DiffId,
}

/// Who made a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Base,
    /// Ours, under the name of what it holds.
    Ours(String),
}

impl Origin {
    /// What one of ours holds.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Origin::Base => None,
            Origin::Ours(name) => Some(name),
        }
    }
}

/// What is said of an image beside its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Provenance {
    /// The base's reference in a registry, tag included; a folder's name is nobody's business.
    pub(crate) base_name: Option<String>,
    pub(crate) version: Option<String>,
    /// The commit that our layers were made from.
    pub(crate) revision: Option<String>,
    /// The URL of the repository that they were made from.
    pub(crate) source: Option<String>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AppendError {
    #[error("layer `{name}` has the same content as the base's layer {diff_id}, where its ostree layers end")]
    RepeatsFinalLayer { name: String, diff_id: DiffId },
    #[error("the base's `{key}` is not {shape}")]
    Shape { key: &'static str, shape: &'static str },
}

impl Image {
    pub(crate) fn descriptor(&self) -> Descriptor {
        self.manifest.descriptor(MediaType::ImageManifest)
    }

    pub(crate) fn config_descriptor(&self) -> Descriptor {
        self.config.descriptor(MediaType::ImageConfig)
    }
}

/// Puts `layers` on top of `base`.
///
/// The base's manifest and config keep every key they had, in their order. Two images with the
/// same config digest are one and the same to a bootc host, so provenance goes into manifest
/// annotations, and the config changes with the system and its version only. `created` replaces
/// the base's own time.
pub(crate) fn append(
    base: &Base,
    layers: &[Layer],
    created: Option<Timestamp>,
    provenance: &Provenance,
) -> Result<Image, AppendError> {
    if let Some(repeated) = layers.iter().find(|layer| Some(layer.diff_id()) == base.final_diff_id) {
        let (name, diff_id) = (repeated.name().to_owned(), repeated.diff_id());
        return Err(AppendError::RepeatsFinalLayer { name, diff_id });
    }
    let config = Verified::own(json_bytes(config(base, layers, created, provenance)?));
    let manifest = Verified::own(json_bytes(manifest(base, layers, &config, provenance)?));

    let base_layers = base.layers().iter().zip(&base.diff_ids).map(|(descriptor, &diff_id)| ImageLayer {
        origin: Origin::Base,
        descriptor: Descriptor { media_type: oci_media_type(&descriptor.media_type), ..descriptor.clone() },
        diff_id,
    });
    let our_layers = layers.iter().map(|layer| ImageLayer {
        origin: Origin::Ours(layer.name().to_owned()),
        descriptor: layer.descriptor().clone(),
        diff_id: layer.diff_id(),
    });
    Ok(Image { platform: base.platform, manifest, config, layers: base_layers.chain(our_layers).collect() })
}

/// An image index over `images`, which are the same system for different platforms.
pub(crate) fn index(images: &[Image], base_digest: Digest, provenance: &Provenance) -> Verified {
    let manifests: Vec<Value> =
        images.iter().map(|image| merge::entry(image.platform, &image.descriptor())).collect();
    let mut annotations = Map::new();
    annotate(&mut annotations, base_digest, provenance);
    let index = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageIndex,
        "manifests": manifests,
        "annotations": annotations,
    });
    Verified::own(index.to_string().into_bytes())
}

impl Config {
    /// What an image's layers hold, read from the history that [`append`] writes; `None` for those of
    /// the base.
    pub(crate) fn layer_names(&self, layers: usize) -> Vec<Option<String>> {
        let entries = self.json.get("history").and_then(Value::as_array).into_iter().flatten();
        let name =
            |entry: &Value| Some(entry.get("created_by")?.as_str()?.strip_prefix(CREATED_BY)?.to_owned());
        let names: Vec<Option<String>> = entries.filter(|entry| is_layer(entry)).map(name).collect();
        if names.len() == layers { names } else { vec![None; layers] }
    }
}

/// Whether an entry of the history stands for a layer. Source: OCI image specification, config.md.
fn is_layer(entry: &Value) -> bool {
    entry.get("empty_layer") != Some(&Value::Bool(true))
}

fn config(
    base: &Base,
    layers: &[Layer],
    created: Option<Timestamp>,
    provenance: &Provenance,
) -> Result<Map<String, Value>, AppendError> {
    let mut config = base.config.json.clone();
    if let Some(created) = created {
        config.insert("created".to_owned(), json!(created.to_string()));
    }
    match &provenance.version {
        Some(version) => {
            let labels = object(object(&mut config, "config")?, "Labels")?;
            labels.insert(VERSION.to_owned(), json!(version));
        }
        // The base's version is not ours.
        None => {
            let labels = config.get_mut("config").and_then(|config| config.get_mut("Labels"));
            if let Some(Value::Object(labels)) = labels {
                labels.shift_remove(VERSION);
            }
        }
    }
    let diff_ids = array(object(&mut config, "rootfs")?, "diff_ids")?;
    diff_ids.extend(layers.iter().map(|layer| json!(layer.diff_id())));

    // Readers pair history entries with layers by position: entries are added only where the
    // base has one for each of its own layers.
    let time = config.get("created").cloned();
    if let Some(Value::Array(history)) = config.get_mut("history")
        && history.iter().filter(|entry| is_layer(entry)).count() == base.layers().len()
    {
        history.extend(layers.iter().map(|layer| {
            let mut entry = json!({"created_by": format!("{CREATED_BY}{}", layer.name())});
            if let Some(time) = &time {
                entry["created"] = time.clone();
            }
            entry
        }));
    }
    Ok(config)
}

fn manifest(
    base: &Base,
    layers: &[Layer],
    config: &Verified,
    provenance: &Provenance,
) -> Result<Map<String, Value>, AppendError> {
    let mut manifest = base.manifest.json.clone();
    manifest.insert("mediaType".to_owned(), json!(MediaType::ImageManifest));

    let descriptor = object(&mut manifest, "config")?;
    translate_media_type(descriptor);
    descriptor.insert("digest".to_owned(), json!(config.digest()));
    descriptor.insert("size".to_owned(), json!(config.bytes().len()));
    // An inlined copy of the base's config would contradict the digest beside it.
    descriptor.shift_remove("data");

    let list = array(&mut manifest, "layers")?;
    list.iter_mut().filter_map(Value::as_object_mut).for_each(translate_media_type);
    list.extend(layers.iter().map(|layer| json!(layer.descriptor())));

    annotate(object(&mut manifest, "annotations")?, base.digest(), provenance);
    Ok(manifest)
}

fn annotate(annotations: &mut Map<String, Value>, base_digest: Digest, provenance: &Provenance) {
    let Provenance { base_name, version, revision, source } = provenance;
    annotations.insert(BASE_DIGEST.to_owned(), json!(base_digest));
    // The base may be built on another base, and its version and commit are not ours.
    for (key, ours) in [(BASE_NAME, None), (VERSION, version.as_ref()), (REVISION, None), (SOURCE, None)] {
        if ours.is_none() {
            annotations.shift_remove(key);
        }
    }
    for (key, value) in [(BASE_NAME, base_name), (VERSION, version), (REVISION, revision), (SOURCE, source)] {
        if let Some(value) = value {
            annotations.insert(key.to_owned(), json!(value));
        }
    }
}

/// The object under `key`, made when it is absent or null.
fn object<'a>(
    parent: &'a mut Map<String, Value>,
    key: &'static str,
) -> Result<&'a mut Map<String, Value>, AppendError> {
    match child(parent, key, || json!({})) {
        Value::Object(object) => Ok(object),
        _ => Err(AppendError::Shape { key, shape: "an object" }),
    }
}

/// The array under `key`, made when it is absent or null.
fn array<'a>(
    parent: &'a mut Map<String, Value>,
    key: &'static str,
) -> Result<&'a mut Vec<Value>, AppendError> {
    match child(parent, key, || json!([])) {
        Value::Array(array) => Ok(array),
        _ => Err(AppendError::Shape { key, shape: "an array" }),
    }
}

fn child<'a>(parent: &'a mut Map<String, Value>, key: &str, empty: fn() -> Value) -> &'a mut Value {
    let value = parent.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = empty();
    }
    value
}

fn translate_media_type(descriptor: &mut Map<String, Value>) {
    if let Some(Value::String(media_type)) = descriptor.get_mut("mediaType") {
        *media_type = oci_media_type(&MediaType::from(media_type.as_str())).to_string();
    }
}

fn json_bytes(object: Map<String, Value>) -> Vec<u8> {
    Value::Object(object).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::base::BaseError;
    use super::super::document::Document;
    use super::super::layer::{Compression, LayerWriter};
    use super::super::{DOCKER_CONFIG, DOCKER_LAYER_GZIP, DOCKER_MANIFEST};
    use super::*;

    const AMD64: &str = "linux/amd64";
    /// A config with keys that typed models drop, in an order that is not theirs.
    const CONFIG: &str = r#"{"rootfs":{"type":"layers","diff_ids":["DIFF"]},"x-unknown":{"b":1,"a":2},"created":"2025-01-01T00:00:00Z","config":{"Healthcheck":{"Test":["NONE"]},"Labels":{"containers.bootc":"1","org.opencontainers.image.version":"10"},"Env":["PATH=/usr/bin"]},"os":"linux","architecture":"amd64","history":[{"created_by":"base"},{"created_by":"label","empty_layer":true}]}"#;

    /// A base with `config`, its manifest written with the given media types.
    fn base(config: &str, types: [&str; 3], manifest_extra: &str) -> Result<Base, BaseError> {
        let config = config.replace("DIFF", &Digest::of(b"tar").to_string());
        let config = Config::parse(Verified::own(config.into_bytes())).unwrap();
        let [manifest_type, config_type, layer_type] = types;
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{manifest_type}","config":{{"mediaType":"{config_type}","digest":"{}","size":{}}},"layers":[{{"mediaType":"{layer_type}","digest":"{}","size":5}}]{manifest_extra}}}"#,
            config.blob.digest(),
            config.blob.bytes().len(),
            Digest::of(b"layer"),
        );
        let Ok(Document::Manifest(manifest)) = Document::parse(Verified::own(manifest.into_bytes()), None)
        else {
            panic!("a manifest");
        };
        Base::new(manifest, config, AMD64.parse().unwrap())
    }

    fn oci_base(config: &str) -> Result<Base, BaseError> {
        let types = [MediaType::ImageManifest, MediaType::ImageConfig, MediaType::ImageLayerGzip];
        let extra = r#","annotations":{"kept":"yes","org.opencontainers.image.version":"10"}"#;
        base(config, types.each_ref().map(MediaType::as_ref), extra)
    }

    fn layer(name: &str, tar: &[u8]) -> Layer {
        let mut writer = LayerWriter::new(Compression::Gzip, Vec::new()).unwrap();
        writer.write_all(tar).unwrap();
        writer.finish(name).unwrap().0
    }

    fn provenance() -> Provenance {
        Provenance {
            base_name: Some("quay.io/centos-bootc/centos-bootc:stream10".to_owned()),
            version: Some("v3".to_owned()),
            revision: Some("0123abc".to_owned()),
            source: None,
        }
    }

    fn pretty(blob: &Verified) -> String {
        serde_json::to_string_pretty(&serde_json::from_slice::<Value>(blob.bytes()).unwrap()).unwrap()
    }

    #[test]
    fn every_key_of_the_base_survives_in_its_place() {
        let image =
            append(&oci_base(CONFIG).unwrap(), &[layer("hello", b"app")], None, &provenance()).unwrap();
        insta::assert_snapshot!(pretty(&image.config), @r#"
        {
          "rootfs": {
            "type": "layers",
            "diff_ids": [
              "sha256:90aebae315675cbf04612de4f7d5874850f48e0b8dd82becbeaa47ca93f5ebfb",
              "sha256:a172cedcae47474b615c54d510a5d84a8dea3032e958587430b413538be3f333"
            ]
          },
          "x-unknown": {
            "b": 1,
            "a": 2
          },
          "created": "2025-01-01T00:00:00Z",
          "config": {
            "Healthcheck": {
              "Test": [
                "NONE"
              ]
            },
            "Labels": {
              "containers.bootc": "1",
              "org.opencontainers.image.version": "v3"
            },
            "Env": [
              "PATH=/usr/bin"
            ]
          },
          "os": "linux",
          "architecture": "amd64",
          "history": [
            {
              "created_by": "base"
            },
            {
              "created_by": "label",
              "empty_layer": true
            },
            {
              "created_by": "bootc-testboot layer hello",
              "created": "2025-01-01T00:00:00Z"
            }
          ]
        }
        "#);
        insta::assert_snapshot!(pretty(&image.manifest), @r#"
        {
          "schemaVersion": 2,
          "mediaType": "application/vnd.oci.image.manifest.v1+json",
          "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": "sha256:642c686536648675e48fe0f532e7c712cef461c9f8738e079b920246965a7db1",
            "size": 578
          },
          "layers": [
            {
              "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
              "digest": "sha256:dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85",
              "size": 5
            },
            {
              "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
              "digest": "sha256:0be51056202095ba048edb18bc874e60eda6ee6968c5622f2b77e18b4c3509b1",
              "size": 26
            }
          ],
          "annotations": {
            "kept": "yes",
            "org.opencontainers.image.version": "v3",
            "org.opencontainers.image.base.digest": "sha256:349f8d8a1db9c4a055e0d662989320bf48f3bc94f76ee8460d274cbc1cb1d8c9",
            "org.opencontainers.image.base.name": "quay.io/centos-bootc/centos-bootc:stream10",
            "org.opencontainers.image.revision": "0123abc"
          }
        }
        "#);
        assert_eq!(image.layers.last().unwrap().origin, Origin::Ours("hello".to_owned()));
        let config = Config::parse(image.config).unwrap();
        assert_eq!(config.layer_names(2), [None, Some("hello".to_owned())]);
        assert_eq!(config.layer_names(3), [None, None, None]);
    }

    #[test]
    fn provenance_never_changes_the_config() {
        let base = oci_base(CONFIG).unwrap();
        let other = Provenance { revision: None, base_name: None, ..provenance() };
        let [one, two] =
            [provenance(), other].map(|p| append(&base, &[layer("hello", b"app")], None, &p).unwrap());
        assert_eq!(one.config, two.config);
        assert_ne!(one.manifest, two.manifest);
    }

    #[test]
    fn docker_bases_become_oci_images_with_the_same_blobs() {
        let base = base(CONFIG, [DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER_GZIP], "").unwrap();
        let image = append(&base, &[], None, &provenance()).unwrap();
        assert!(!pretty(&image.manifest).contains("docker"), "{}", pretty(&image.manifest));
        assert_eq!(image.layers[0].descriptor.digest, base.layers()[0].digest);
    }

    #[test]
    fn source_date_epoch_is_the_only_time() {
        let created = Some("1700000000".parse().unwrap());
        let image =
            append(&oci_base(CONFIG).unwrap(), &[layer("hello", b"app")], created, &provenance()).unwrap();
        let config: Value = serde_json::from_slice(image.config.bytes()).unwrap();
        assert_eq!(config["created"], "2023-11-14T22:13:20Z");
        assert_eq!(config["history"][2]["created"], "2023-11-14T22:13:20Z");
    }

    #[test]
    fn history_that_does_not_match_the_layers_is_left_alone() {
        let odd = CONFIG.replace(r#""empty_layer":true"#, r#""comment":"a second layer?""#);
        let image = append(&oci_base(&odd).unwrap(), &[layer("hello", b"app")], None, &provenance()).unwrap();
        let config: Value = serde_json::from_slice(image.config.bytes()).unwrap();
        assert_eq!(config["history"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_base_that_cannot_boot_or_contradicts_itself_is_refused() {
        let check = |from: &str, to: &str, expected: &str| {
            assert!(CONFIG.contains(from));
            let error = oci_base(&CONFIG.replace(from, to)).unwrap_err().to_string();
            assert!(error.ends_with(expected), "{error}");
        };
        check(
            r#""containers.bootc":"1","#,
            "",
            "the image has neither the label `containers.bootc` nor `ostree.bootable`: no host boots it",
        );
        check("amd64", "arm64", "the config says linux/arm64, but linux/amd64 was asked for");
        check(r#""diff_ids":["DIFF"]"#, r#""diff_ids":[]"#, "is not valid: it has 0 diff ids for 1 layers");
        check(
            r#""containers.bootc":"1""#,
            r#""containers.bootc":"1","ostree.final-diffid":"sha256:0""#,
            "`ostree.final-diffid` names sha256:0, which is none of the image's layers",
        );
        let foreign = base(
            CONFIG,
            [DOCKER_MANIFEST, DOCKER_CONFIG, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"],
            "",
        );
        assert!(matches!(foreign, Err(BaseError::LayerType { .. })), "{foreign:?}");
    }

    #[test]
    fn the_last_layer_of_the_base_is_never_repeated() {
        let diff_id = DiffId(Digest::of(b"tar"));
        let label = format!(r#""containers.bootc":"1","ostree.final-diffid":"{diff_id}""#);
        let base = oci_base(&CONFIG.replace(r#""containers.bootc":"1""#, &label)).unwrap();
        let error = append(&base, &[layer("hello", b"tar")], None, &provenance());
        assert_eq!(error, Err(AppendError::RepeatsFinalLayer { name: "hello".to_owned(), diff_id }));
    }

    #[test]
    fn an_index_names_each_platform() {
        let base = oci_base(CONFIG).unwrap();
        let image = append(&base, &[], None, &provenance()).unwrap();
        let Ok(Document::Index(index)) =
            Document::parse(index(std::slice::from_ref(&image), base.digest(), &provenance()), None)
        else {
            panic!("an index");
        };
        assert_eq!(index.select(AMD64.parse().unwrap()), Ok(&image.descriptor()));
    }
}
