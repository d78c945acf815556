//! One name for images of several platforms: what it names, platform by platform, and the index
//! that says so.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::MediaType;
use super::config::{Config, PlatformError};
use super::document::{Document, Manifest};
use super::platform::Platform;
use super::verified::{Descriptor, Verified};

/// The image that a name stands for on each platform.
pub(crate) type PlatformImages = BTreeMap<Platform, Descriptor>;

/// What `document` names. A single image says its platform in its config, which `config` reads.
pub(crate) fn platform_images<E: From<PlatformError>>(
    document: &Document,
    config: impl FnOnce(&Manifest) -> Result<Config, E>,
) -> Result<PlatformImages, E> {
    match document {
        // Of two for one platform, clients take the first.
        Document::Index(index) => Ok(index.manifests.iter().rev().cloned().collect()),
        Document::Manifest(manifest) => {
            Ok(BTreeMap::from([(config(manifest)?.platform()?, document.descriptor())]))
        }
    }
}

/// An image index over `images`, in the order of their platforms: the same images always make the
/// same index.
pub(crate) fn index(images: &PlatformImages) -> Verified {
    let manifests: Vec<Value> = images.iter().map(|(&platform, image)| entry(platform, image)).collect();
    let index = json!({"schemaVersion": 2, "mediaType": MediaType::ImageIndex, "manifests": manifests});
    Verified::own(index.to_string().into_bytes())
}

/// How an index names the image for a platform. Source: OCI image specification, image-index.md.
pub(crate) fn entry(platform: Platform, image: &Descriptor) -> Value {
    let mut entry = json!(image);
    entry["platform"] = json!({"architecture": platform.arch.name(), "os": "linux"});
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(content: &str) -> Descriptor {
        Verified::own(content.as_bytes().to_vec()).descriptor(MediaType::ImageManifest)
    }

    #[test]
    fn an_index_is_read_as_it_was_written() {
        let [amd64, arm64]: [Platform; 2] = ["linux/amd64", "linux/arm64"].map(|name| name.parse().unwrap());
        let images = PlatformImages::from([(arm64, descriptor("arm")), (amd64, descriptor("amd"))]);
        let document = Document::parse(index(&images), None).unwrap();
        let unasked = |_: &Manifest| -> Result<_, PlatformError> { panic!("an index says it itself") };
        assert_eq!(platform_images(&document, unasked), Ok(images));
    }

    #[test]
    fn a_single_image_is_its_platforms() {
        let manifest = json!({"schemaVersion": 2, "config": descriptor("config"), "layers": []});
        let document = Document::parse(Verified::own(manifest.to_string().into_bytes()), None).unwrap();
        let check = |config: Value, expected: Result<&str, &str>| {
            let config = Config::parse(Verified::own(config.to_string().into_bytes())).unwrap();
            let found: Result<PlatformImages, PlatformError> = platform_images(&document, |_| Ok(config));
            let shown =
                found.map(|images| images.keys().map(ToString::to_string).collect::<Vec<_>>().concat());
            assert_eq!(
                shown.map_err(|error| error.to_string()),
                expected.map(str::to_owned).map_err(str::to_owned)
            );
        };
        check(json!({"os": "linux", "architecture": "arm64"}), Ok("linux/arm64"));
        check(
            json!({"os": "linux", "architecture": "riscv64"}),
            Err("it is for linux/riscv64, which nothing boots on"),
        );
        check(json!({}), Err("it is for ?/?, which nothing boots on"));
    }
}
