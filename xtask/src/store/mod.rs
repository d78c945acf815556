//! An OCI layout directory: what is in it is whole and verified, or is not in it.
//!
//! Blobs go in first, `index.json` last, each under a temporary name until it is complete and on
//! disk. One process writes at a time. Source: OCI image specification, image-layout.md.

mod index;

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use ocidir::{BlobWriter, OciDir};

pub(crate) use self::index::Completeness;
use crate::hint::{WithHint, hinted};
use crate::oci::digest::DigestWriter;
use crate::oci::document::{self, Document};
use crate::oci::verified::VerifyError;
use crate::oci::{Config, Descriptor, Digest, Verified, config};
use crate::words::foreign;

/// What makes a folder a layout, what says which images are in it, and where their parts are.
/// Source: OCI image specification, image-layout.md.
pub(crate) const LAYOUT: &str = "oci-layout";
pub(crate) const INDEX: &str = "index.json";
const BLOBS: &str = "blobs/sha256";
/// What is copied at a time, in bytes.
const BUFFER: usize = 256 << 10;
/// Where a layout can be written.
const ANOTHER_FOLDER: &str = "name a folder that is empty or not there yet";

/// A layout that is read; from [`Store::create`], one that is written as well.
pub(crate) struct Store {
    path: PathBuf,
    layout: OciDir,
    /// Held by the one process that writes.
    _lock: Option<File>,
}

/// Whether something had to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Written,
    Unchanged,
}

impl Store {
    /// Opens the layout at `path` for writing, and makes it when it is not there.
    pub(crate) fn create(path: &Path) -> Result<Store> {
        Store::locked(path, || {
            Err(anyhow!("another run is writing {}", path.display()))
                .hint("wait until it has ended, and run the command again")
        })
    }

    /// The same, once no other run writes it; `on_wait` is told that there is one.
    pub(crate) fn create_when_free(path: &Path, on_wait: impl FnOnce()) -> Result<Store> {
        Store::locked(path, || {
            on_wait();
            Ok(())
        })
    }

    fn locked(path: &Path, on_wait: impl FnOnce() -> Result<()>) -> Result<Store> {
        let writing = || format!("writing the OCI layout {}", path.display());
        if path.is_file() {
            return Err(anyhow!("{} is a file, and no OCI layout", path.display())).hint(ANOTHER_FOLDER);
        }
        fs::create_dir_all(path).with_context(writing)?;
        let is_empty = fs::read_dir(path).with_context(writing)?.next().is_none();
        if !is_empty && !path.join(LAYOUT).is_file() {
            return Err(anyhow!("{} holds other files, and is no OCI layout", path.display()))
                .hint(ANOTHER_FOLDER);
        }
        let dir = Dir::open_ambient_dir(path, ambient_authority()).with_context(writing)?;
        let layout = OciDir::ensure(dir).with_context(writing)?;
        let lock = Store::lock(path, on_wait)?;
        Ok(Store { path: path.to_owned(), layout, _lock: Some(lock) })
    }

    /// Keeps other runs from writing the layout at `path`, however damaged it is, once none does;
    /// `on_wait` is told that there is one.
    pub(crate) fn lock_when_free(path: &Path, on_wait: impl FnOnce()) -> Result<File> {
        Store::lock(path, || {
            on_wait();
            Ok(())
        })
    }

    fn lock(path: &Path, on_wait: impl FnOnce() -> Result<()>) -> Result<File> {
        let writing = || format!("writing the OCI layout {}", path.display());
        let lock = File::open(path.join(LAYOUT)).with_context(writing)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                on_wait()?;
                lock.lock().with_context(writing)?;
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(writing),
        }
        Ok(lock)
    }

    /// Opens the layout at `path` for reading.
    pub(crate) fn open(path: &Path) -> Result<Store> {
        let dir = Dir::open_ambient_dir(path, ambient_authority())
            .with_context(|| format!("opening the OCI layout {}", path.display()))?;
        if !path.join(LAYOUT).is_file() {
            bail!("{} is not an OCI layout: it has no file `oci-layout`", path.display());
        }
        let layout =
            OciDir::open(dir).with_context(|| format!("opening the OCI layout {}", path.display()))?;
        Ok(Store { path: path.to_owned(), layout, _lock: None })
    }

    /// The manifest or index that `descriptor` names.
    pub(crate) fn document_at(&self, descriptor: &Descriptor) -> Result<Document> {
        let blob = self.read(descriptor, document::MAX_SIZE)?;
        Document::parse(blob, Some(descriptor.media_type.as_ref()))
            .with_context(|| format!("reading the OCI layout {}", self.path.display()))
    }

    /// The config that `descriptor` names.
    pub(crate) fn config(&self, descriptor: &Descriptor) -> Result<Config> {
        Config::parse(self.read(descriptor, config::MAX_SIZE)?)
            .with_context(|| format!("reading the OCI layout {}", self.path.display()))
    }

    /// A blob of at most `cap` bytes, whole.
    pub(crate) fn read(&self, descriptor: &Descriptor, cap: u64) -> Result<Verified> {
        let reading = || format!("reading {} in {}", descriptor.digest, self.path.display());
        if descriptor.size > cap {
            return Err(anyhow!("it claims {} bytes; at most {cap} make sense", descriptor.size))
                .with_context(reading);
        }
        let mut bytes = Vec::new();
        self.open_blob(descriptor)?.read_to_end(&mut bytes).with_context(reading)?;
        Verified::check(bytes, descriptor)
            .hint(format!("remove {} and make it again", self.path.display()))
            .with_context(reading)
    }

    /// A blob's bytes, of the right size but not hashed.
    pub(crate) fn open_blob(&self, descriptor: &Descriptor) -> Result<File> {
        let path = self.blob_path(descriptor.digest);
        let opening = || format!("opening {}", path.display());
        if !self.has(descriptor)? {
            let error = anyhow!("{} is not in {}", descriptor.digest, self.path.display());
            return Err(match self.layers_in(descriptor)? {
                Some(reference) => hinted(
                    error,
                    format!(
                        "its base's layers stay in {}: build with '--full' to fetch them",
                        foreign(&reference)
                    ),
                ),
                None => error,
            });
        }
        File::open(&path).with_context(opening)
    }

    /// Copies a blob to `out`, which has it only if this returns Ok. `on_read` hears of its bytes.
    pub(crate) fn copy(&self, blob: &Descriptor, out: &mut dyn Write, on_read: &dyn Fn(u64)) -> Result<()> {
        let reading = || format!("reading {} in {}", blob.digest, self.path.display());
        let mut file = self.open_blob(blob)?;
        let mut hashed = DigestWriter::new(out);
        let mut buffer = vec![0; BUFFER];
        loop {
            let count = file.read(&mut buffer).with_context(reading)?;
            if count == 0 {
                break;
            }
            hashed.write_all(&buffer[..count])?;
            on_read(count as u64);
        }
        let (_, found, size) = hashed.finish();
        if size != blob.size {
            let (digest, expected) = (blob.digest, blob.size);
            return Err(VerifyError::Size { digest, expected, found: size }).with_context(reading);
        }
        if found != blob.digest {
            return Err(VerifyError::Digest { expected: blob.digest, found })
                .hint(format!("remove {} and make it again", self.path.display()))
                .with_context(reading);
        }
        Ok(())
    }

    /// Whether the blob is there, with the right size. A link is refused: what it points to may
    /// be anything.
    pub(crate) fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        let path = self.blob_path(descriptor.digest);
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error).with_context(|| format!("looking at {}", path.display())),
        };
        if !metadata.is_file() {
            bail!("{} is not a regular file", path.display());
        }
        Ok(metadata.len() == descriptor.size)
    }

    /// Whether something is in the blob's place that has another size.
    pub(crate) fn has_part(&self, descriptor: &Descriptor) -> Result<bool> {
        Ok(!self.has(descriptor)? && self.blob_path(descriptor.digest).is_file())
    }

    /// Whether the blob is there and undamaged: all of it is read.
    pub(crate) fn holds(&self, descriptor: &Descriptor) -> Result<bool> {
        if !self.has(descriptor)? {
            return Ok(false);
        }
        let path = self.blob_path(descriptor.digest);
        let hash = || -> io::Result<Digest> {
            let mut hashed = DigestWriter::new(io::sink());
            io::copy(&mut File::open(&path)?, &mut hashed)?;
            Ok(hashed.finish().1)
        };
        Ok(hash().with_context(|| format!("reading {}", path.display()))? == descriptor.digest)
    }

    /// Writes a blob that is not there yet, or no longer as it was.
    pub(crate) fn put(&self, descriptor: &Descriptor, blob: &Verified) -> Result<Change> {
        self.put_with(descriptor, |out| Ok(out.write_all(blob.bytes())?))
    }

    /// Writes a blob that is not there yet, or no longer as it was, from what `fill` writes; its
    /// digest and size must be the descriptor's.
    pub(crate) fn put_with(
        &self,
        descriptor: &Descriptor,
        fill: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<Change> {
        if self.holds(descriptor)? {
            return Ok(Change::Unchanged);
        }
        let writing = || format!("writing {} to {}", descriptor.digest, self.path.display());
        let mut writer = self.layout.create_blob().with_context(writing)?;
        fill(&mut writer).with_context(writing)?;
        self.complete(writer, descriptor).with_context(writing)?;
        Ok(Change::Written)
    }

    /// Writes a blob whose digest is known only at its end; `fill` gives the descriptor.
    pub(crate) fn put_new<T>(
        &self,
        fill: impl FnOnce(&mut dyn Write) -> Result<(Descriptor, T)>,
    ) -> Result<T> {
        let writing = || format!("writing to {}", self.path.display());
        let mut writer = self.layout.create_blob().with_context(writing)?;
        let (descriptor, value) = fill(&mut writer)?;
        self.complete(writer, &descriptor).with_context(writing)?;
        Ok(value)
    }

    /// Gives a blob its name, once it is what the descriptor says.
    fn complete(&self, writer: BlobWriter<'_>, descriptor: &Descriptor) -> Result<()> {
        writer.complete_verified_as(&typed(descriptor)?)?;
        // A rename is not on disk before its file is: `index.json` must not be there first.
        File::open(self.blob_path(descriptor.digest))?.sync_all()?;
        Ok(())
    }

    /// Takes a blob over from another layout, without a second copy where the file system can
    /// share it.
    pub(crate) fn adopt(&self, from: &Store, descriptor: &Descriptor) -> Result<Change> {
        if self.holds(descriptor)? {
            return Ok(Change::Unchanged);
        }
        let source = from.blob_path(descriptor.digest);
        let mut file = from.open_blob(descriptor)?;
        if !from.holds(descriptor)? {
            return Err(anyhow!("{} is damaged: it is not what its name says", source.display()))
                .hint(format!("remove {} and make it again", from.path.display()));
        }
        // What is damaged makes room.
        let target = self.blob_path(descriptor.digest);
        if target.exists() {
            fs::remove_file(&target).with_context(|| format!("removing {}", target.display()))?;
        }
        match fs::hard_link(&source, &target) {
            Ok(()) => Ok(Change::Written),
            // Another file system, or one without links.
            Err(_) => self.put_with(descriptor, |out| Ok(io::copy(&mut file, out).map(drop)?)),
        }
    }

    fn blob_path(&self, digest: Digest) -> PathBuf {
        self.path.join(BLOBS).join(digest.hex())
    }
}

/// The descriptor as ocidir takes it.
fn typed(descriptor: &Descriptor) -> Result<oci_spec::image::Descriptor> {
    let digest: oci_spec::image::Digest = descriptor.digest.to_string().parse()?;
    Ok(oci_spec::image::Descriptor::new(descriptor.media_type.clone(), descriptor.size, digest))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::oci::MediaType;

    /// A layout with one image of one layer, tagged `v1`.
    fn store(dir: &Path) -> (Store, Document, Descriptor) {
        let store = Store::create(dir).unwrap();
        let (layer, config) = (Verified::own(b"layer".to_vec()), Verified::own(b"{}".to_vec()));
        let layer_descriptor = layer.descriptor(MediaType::ImageLayerGzip);
        let config_descriptor = config.descriptor(MediaType::ImageConfig);
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MediaType::ImageManifest,
            "config": config_descriptor, "layers": [layer_descriptor],
        });
        let document = Document::parse(Verified::own(manifest.to_string().into_bytes()), None).unwrap();
        for (descriptor, blob) in [
            (&layer_descriptor, &layer),
            (&config_descriptor, &config),
            (&document.descriptor(), document.blob()),
        ] {
            assert_eq!(store.put(descriptor, blob).unwrap(), Change::Written);
        }
        assert_eq!(store.tag("v1", &document, &Completeness::Whole).unwrap(), Change::Written);
        (store, document, layer_descriptor)
    }

    #[test]
    fn what_was_put_is_read_back_and_nothing_is_written_twice() {
        let dir = tempfile::tempdir().unwrap();
        let (store, document, layer) = store(dir.path());
        assert_eq!(store.document(None).unwrap(), document);
        assert_eq!(store.document(Some("v1")).unwrap(), document);
        assert_eq!(store.put(&layer, &Verified::own(b"layer".to_vec())).unwrap(), Change::Unchanged);
        assert_eq!(store.tag("v1", &document, &Completeness::Whole).unwrap(), Change::Unchanged);
        let error = format!("{:#}", store.document(Some("v2")).unwrap_err());
        assert!(error.ends_with("has no image `v2`"), "{error}");
    }

    #[test]
    fn one_writer_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = Store::create(dir.path()).unwrap();
        let error = Store::create(dir.path()).err().unwrap();
        assert_eq!(error.to_string(), format!("another run is writing {}", dir.path().display()));
        drop(first);
        Store::create(dir.path()).unwrap();
    }

    #[test]
    fn damage_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _, layer) = store(dir.path());
        let path = store.blob_path(layer.digest);
        fs::write(&path, b"lAyer").unwrap();
        let error = format!("{:#}", store.read(&layer, 100).unwrap_err());
        assert!(error.contains("was promised, but what came is"), "{error}");
        // It is put right by whoever has the bytes.
        assert_eq!(store.put(&layer, &Verified::own(b"layer".to_vec())).unwrap(), Change::Written);
        assert_eq!(fs::read(&path).unwrap(), b"layer");
        fs::write(&path, b"cut").unwrap();
        assert!(!store.has(&layer).unwrap());
        assert_eq!(store.put(&layer, &Verified::own(b"layer".to_vec())).unwrap(), Change::Written);
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        let error = store.has(&layer).unwrap_err().to_string();
        assert!(error.ends_with("is not a regular file"), "{error}");
    }

    #[test]
    fn a_blob_that_is_not_what_was_promised_never_gets_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path()).unwrap();
        let descriptor = Verified::own(b"good".to_vec()).descriptor(MediaType::ImageLayer);
        store.put_with(&descriptor, |out| Ok(out.write_all(b"evil")?)).unwrap_err();
        store.put_with(&descriptor, |out| Ok(out.write_all(b"too long")?)).unwrap_err();
        store.put_with(&descriptor, |_| bail!("disk full")).unwrap_err();
        assert!(!store.has(&descriptor).unwrap());
        assert_eq!(fs::read_dir(dir.path().join("blobs/sha256")).unwrap().count(), 0);
    }

    #[test]
    fn each_image_says_where_its_own_layers_are() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _, layer) = store(dir.path());
        let image = |layer: &Descriptor| {
            let config = Verified::own(b"{}".to_vec()).descriptor(MediaType::ImageConfig);
            let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
            Document::parse(Verified::own(manifest.to_string().into_bytes()), None).unwrap()
        };
        let layers = ["one", "two"]
            .map(|content| Verified::own(content.as_bytes().to_vec()).descriptor(MediaType::ImageLayerGzip));
        for (tag, layer) in ["a", "b"].iter().zip(&layers) {
            let document = image(layer);
            store.put(&document.descriptor(), document.blob()).unwrap();
            let place = Completeness::LayersIn(format!("localhost:5000/{tag}:t (sha256:0)"));
            store.tag(tag, &document, &place).unwrap();
        }
        let place = |layer| store.layers_reference(layer).unwrap().map(|place| place.to_string());
        assert_eq!(place(&layers[0]).as_deref(), Some("localhost:5000/a:t"));
        assert_eq!(place(&layers[1]).as_deref(), Some("localhost:5000/b:t"));
        assert_eq!(place(&layer), None);
    }

    #[test]
    fn an_index_that_may_be_anything_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (store, ..) = store(dir.path());
        let path = dir.path().join("index.json");
        let error = || format!("{:#}", store.document(None).unwrap_err());
        File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
        assert!(error().ends_with("it has 1099511627776 bytes"), "{}", error());
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(error().ends_with("it is not a regular file"), "{}", error());
    }

    /// Each of 64 indexes names the next one twice, so that there are 2^64 ways to the image.
    #[test]
    fn indexes_are_gone_through_once() {
        let dir = tempfile::tempdir().unwrap();
        let (store, document, layer) = store(dir.path());
        let mut child = document.descriptor();
        let mut index = document;
        for _ in 0..64 {
            let mut entry = json!(child);
            entry["platform"] = json!({"os": "linux", "architecture": "amd64"});
            let json = json!({"schemaVersion": 2, "manifests": [entry, entry]});
            index = Document::parse(Verified::own(json.to_string().into_bytes()), None).unwrap();
            child = index.descriptor();
            store.put(&child, index.blob()).unwrap();
        }
        store.tag("v1", &index, &Completeness::Whole).unwrap();
        assert_eq!(store.collect_garbage().unwrap(), 0);
        assert!(store.has(&layer).unwrap());
    }

    #[test]
    fn garbage_is_what_no_tag_reaches() {
        let dir = tempfile::tempdir().unwrap();
        let (store, document, _) = store(dir.path());
        let stray = Verified::own(b"stray".to_vec());
        store.put(&stray.descriptor(MediaType::ImageLayer), &stray).unwrap();
        assert_eq!(store.collect_garbage().unwrap(), 5);
        assert_eq!(store.document(None).unwrap(), document);
        assert_eq!(store.collect_garbage().unwrap(), 0);
    }
}
