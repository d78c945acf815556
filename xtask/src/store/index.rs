//! What a layout's `index.json` says: which images are there under which tags, where the layers are
//! that are not there, and what no image needs any more.

use std::collections::BTreeSet;
use std::path::Path;
use std::{fs, io};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Map, Value, json};

use super::{BLOBS, Change, INDEX, Store};
use crate::hint::WithHint;
use crate::oci::annotation::REF_NAME;
use crate::oci::document::MAX_SIZE;
use crate::oci::{Descriptor, Digest, Document, Manifest, Reference};
use crate::unfinished::replace_file;
use crate::words::foreign;

/// Says that the base's layers are not in the layout, and which image in which registry has them.
const LAYERS_IN: &str = "bootc-testboot.base-layers-in";

/// Whether the layers of an image's base are in the layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Completeness {
    Whole,
    /// The base's layers stay in the registry, under this reference.
    LayersIn(String),
}

impl Store {
    /// The image that `tag` names, or the only one there is.
    pub(crate) fn document(&self, tag: Option<&str>) -> Result<Document> {
        let index = self.index()?;
        let entries = entries(&index);
        let named = |entry: &&Map<String, Value>| tag.is_none() || ref_name(entry) == tag;
        let found: Vec<_> = entries.iter().copied().filter(named).collect();
        let tags =
            || foreign(&entries.iter().filter_map(|entry| ref_name(entry)).collect::<Vec<_>>().join(", "));
        let path = self.path.display();
        let entry = match found[..] {
            [entry] => entry,
            [] if entries.is_empty() => bail!("the OCI layout {path} holds no image"),
            [] => {
                return Err(anyhow!("the OCI layout {path} has no image `{}`", tag.unwrap_or_default()))
                    .hint(format!("name one of: {}", tags()));
            }
            [..] => {
                return Err(anyhow!("the OCI layout {path} has {} images", found.len()))
                    .hint(format!("name one, as in 'oci:{path}:TAG': {}", tags()));
            }
        };
        self.document_at(&self.descriptor(entry)?)
    }

    /// Makes `tag` name `document`, which is in the layout. This is the last thing that an image
    /// needs: before it, the layout is as it was.
    pub(crate) fn tag(&self, tag: &str, document: &Document, completeness: &Completeness) -> Result<Change> {
        let mut index = self.index()?;
        let mut annotations = Map::from_iter([(REF_NAME.to_owned(), json!(tag))]);
        if let Completeness::LayersIn(reference) = completeness {
            annotations.insert(LAYERS_IN.to_owned(), json!(reference));
        }
        let mut entry = json!(document.descriptor());
        entry["annotations"] = Value::Object(annotations);

        let Some(manifests) = index.entry("manifests").or_insert_with(|| json!([])).as_array_mut() else {
            bail!("{}/index.json has no list `manifests`", self.path.display());
        };
        if manifests.contains(&entry) {
            return Ok(Change::Unchanged);
        }
        manifests.retain(|other| other.as_object().and_then(ref_name) != Some(tag));
        manifests.push(entry);
        self.write_index(&index)?;
        Ok(Change::Written)
    }

    /// The names of the images in it.
    pub(crate) fn tags(&self) -> Result<Vec<String>> {
        let index = self.index()?;
        Ok(entries(&index).into_iter().filter_map(ref_name).map(str::to_owned).collect())
    }

    /// Forgets every image but the one that `tag` names.
    pub(crate) fn keep_only(&self, tag: &str) -> Result<()> {
        let mut index = self.index()?;
        if let Some(Value::Array(manifests)) = index.get_mut("manifests") {
            manifests.retain(|entry| entry.as_object().and_then(ref_name) == Some(tag));
        }
        self.write_index(&index)
    }

    /// Removes what no image in the index needs any more; gives the bytes that were freed.
    pub(crate) fn collect_garbage(&self) -> Result<u64> {
        let mut needed = BTreeSet::new();
        for entry in entries(&self.index()?) {
            self.mark(&self.descriptor(entry)?, &mut needed)?;
        }
        let blobs = self.path.join(BLOBS);
        let mut freed = 0;
        for blob in fs::read_dir(&blobs).with_context(|| format!("listing {}", blobs.display()))? {
            let blob = blob.with_context(|| format!("listing {}", blobs.display()))?;
            let digest: Option<Digest> =
                blob.file_name().to_str().and_then(|hex| format!("sha256:{hex}").parse().ok());
            if digest.is_some_and(|digest| !needed.contains(&digest)) {
                let path = blob.path();
                let removing = || format!("removing {}", path.display());
                freed += blob.metadata().with_context(removing)?.len();
                fs::remove_file(&path).with_context(removing)?;
            }
        }
        Ok(freed)
    }

    fn mark(&self, image: &Descriptor, needed: &mut BTreeSet<Digest>) -> Result<()> {
        let (mut waiting, mut seen) = (vec![image.clone()], BTreeSet::new());
        while let Some(descriptor) = waiting.pop() {
            needed.insert(descriptor.digest);
            // Indexes may name each other in more ways than can be gone. What is not here needs nothing;
            // it is missed by whoever asks for that image.
            if !seen.insert(descriptor.digest) || !self.has(&descriptor)? {
                continue;
            }
            match self.document_at(&descriptor)? {
                Document::Manifest(Manifest { config, layers, .. }) => {
                    needed.insert(config.digest);
                    needed.extend(layers.iter().map(|layer| layer.digest));
                }
                Document::Index(index) => {
                    waiting.extend(index.manifests.into_iter().map(|(_, image)| image));
                }
            }
        }
        Ok(())
    }

    /// What an entry of the index names.
    fn descriptor(&self, entry: &Map<String, Value>) -> Result<Descriptor> {
        serde_json::from_value(Value::Object(entry.clone()))
            .with_context(|| format!("reading {}", self.path.join(INDEX).display()))
    }

    fn index(&self) -> Result<Map<String, Value>> {
        let path = self.path.join(INDEX);
        match read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .hint(format!("remove {} and make it again", self.path.display()))
                .with_context(|| format!("reading {}", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Map::from_iter([("schemaVersion".to_owned(), json!(2))]))
            }
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    fn write_index(&self, index: &Map<String, Value>) -> Result<()> {
        replace_file(&self.path.join(INDEX), &serde_json::to_vec(index)?)
    }

    /// The registry that has what is not here of the images with this layer, if one of them says so.
    pub(crate) fn layers_in(&self, layer: &Descriptor) -> Result<Option<String>> {
        let index = self.index()?;
        for entry in entries(&index) {
            let place = entry.get("annotations").and_then(|annotations| annotations.get(LAYERS_IN)?.as_str());
            let Some(place) = place else { continue };
            let mut needed = BTreeSet::new();
            self.mark(&self.descriptor(entry)?, &mut needed)?;
            if needed.contains(&layer.digest) {
                return Ok(Some(place.to_owned()));
            }
        }
        Ok(None)
    }

    /// Where the layer is that is not here, as a reference that it can be asked for by.
    pub(crate) fn layers_reference(&self, layer: &Descriptor) -> Result<Option<Reference>> {
        // Behind a tag, the digest of what it named stands in brackets.
        let place = self.layers_in(layer)?.filter(|place| place.contains('/'));
        Ok(place.and_then(|place| place.split(' ').next().and_then(|name| name.parse().ok())))
    }
}

/// Reads an `index.json`. Whoever made the layout may have put anything there.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if metadata.len() > MAX_SIZE {
        return Err(io::Error::other(format!("it has {} bytes", metadata.len())));
    }
    fs::read(path)
}

fn entries(index: &Map<String, Value>) -> Vec<&Map<String, Value>> {
    index
        .get("manifests")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object)
        .collect()
}

fn ref_name(entry: &Map<String, Value>) -> Option<&str> {
    entry.get("annotations")?.get(REF_NAME)?.as_str()
}
