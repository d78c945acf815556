//! The release manifest: one index that names an image and its disks, so that they are found, copied
//! and kept together.
//!
//! An index, since whoever copies one copies what it names, and a registry keeps that. Its subject is
//! the image: a registry lists it among the image's referrers.
//! Source: OCI image specification, image-index.md.

use serde_json::{Map, Value, json};

use crate::disk::DiskFormat;
use crate::oci::annotation::{DISK_FORMAT, DISTRO, REF_NAME, VERSION};
use crate::oci::{Descriptor, MediaType, Platform, Verified, merge};

/// What says that an index is a release.
const ARTIFACT_TYPE: &str = "application/vnd.bootc-testboot.release.v1";

/// A disk of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReleasedDisk {
    pub(crate) tag: String,
    pub(crate) format: DiskFormat,
    pub(crate) platform: Platform,
    /// Its image's manifest.
    pub(crate) manifest: Descriptor,
}

/// A release that is to be written down.
#[derive(Clone, Debug)]
pub(crate) struct Release<'a> {
    pub(crate) distro: String,
    pub(crate) version: &'a str,
    /// The image's tag.
    pub(crate) tag: &'a str,
    pub(crate) image: Descriptor,
    pub(crate) disks: Vec<ReleasedDisk>,
}

impl Release<'_> {
    /// The index. What `before` has of the same image, such as the disks of another platform, stays
    /// in it; the same release always makes the same bytes.
    pub(crate) fn index(&self, before: Option<&Verified>) -> Verified {
        let subject = json!(self.image);
        let mut disks: Vec<Value> = self.disks.iter().map(entry).collect();
        disks.extend(before.into_iter().flat_map(|before| self.kept(before)));
        disks.sort_by_cached_key(key);
        let mut image = subject.clone();
        image["annotations"] = json!({REF_NAME: self.tag});
        let manifests: Vec<Value> = std::iter::once(image).chain(disks).collect();
        let index = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageIndex,
            "artifactType": ARTIFACT_TYPE,
            "manifests": manifests,
            "subject": subject,
            "annotations": {DISTRO: self.distro, VERSION: self.version},
        });
        Verified::own(index.to_string().into_bytes())
    }

    /// The disks of the same image that this release does not replace.
    fn kept(&self, before: &Verified) -> Vec<Value> {
        let Ok(before) = serde_json::from_slice::<Map<String, Value>>(before.bytes()) else {
            return Vec::new();
        };
        if before.get("subject") != Some(&json!(self.image)) {
            return Vec::new();
        }
        let ours: Vec<(String, String)> = self.disks.iter().map(|disk| key(&entry(disk))).collect();
        let entries = before.get("manifests").and_then(Value::as_array).into_iter().flatten();
        let disks = entries.filter(|entry| entry["annotations"].get(DISK_FORMAT).is_some());
        disks.filter(|entry| !ours.contains(&key(entry))).cloned().collect()
    }
}

fn entry(disk: &ReleasedDisk) -> Value {
    let mut entry = merge::entry(disk.platform, &disk.manifest);
    entry["annotations"] = json!({REF_NAME: disk.tag, DISK_FORMAT: disk.format.name()});
    entry
}

/// What tells disks: the tag, and the platform.
fn key(entry: &Value) -> (String, String) {
    (entry["annotations"][REF_NAME].to_string(), entry["platform"].to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(content: &str) -> Descriptor {
        Verified::own(content.as_bytes().to_vec()).descriptor(MediaType::ImageManifest)
    }

    fn release(disks: &[(DiskFormat, &str)], image: &str) -> Release<'static> {
        let disk = |(format, platform): &(DiskFormat, &str)| ReleasedDisk {
            tag: format!("debian-13-{format}-v1"),
            format: *format,
            platform: platform.parse().unwrap(),
            manifest: descriptor(&format!("{format} {platform}")),
        };
        let disks = disks.iter().map(disk).collect();
        Release {
            distro: "debian-13".to_owned(),
            version: "v1",
            tag: "debian-13-v1",
            image: descriptor(image),
            disks,
        }
    }

    #[test]
    fn a_release_names_its_image_and_its_disks() {
        let index = release(&[(DiskFormat::Qcow2, "linux/amd64")], "image").index(None);
        let text =
            serde_json::to_string_pretty(&serde_json::from_slice::<Value>(index.bytes()).unwrap()).unwrap();
        insta::assert_snapshot!(text, @r#"
        {
          "schemaVersion": 2,
          "mediaType": "application/vnd.oci.image.index.v1+json",
          "artifactType": "application/vnd.bootc-testboot.release.v1",
          "manifests": [
            {
              "mediaType": "application/vnd.oci.image.manifest.v1+json",
              "digest": "sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d",
              "size": 5,
              "annotations": {
                "org.opencontainers.image.ref.name": "debian-13-v1"
              }
            },
            {
              "mediaType": "application/vnd.oci.image.manifest.v1+json",
              "digest": "sha256:109498b287d5d53ab619beabe298e141b1d6e531f9624e6183d3f908f0de48a2",
              "size": 17,
              "platform": {
                "architecture": "amd64",
                "os": "linux"
              },
              "annotations": {
                "org.opencontainers.image.ref.name": "debian-13-qcow2-v1",
                "bootc-testboot.disk.format": "qcow2"
              }
            }
          ],
          "subject": {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": "sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d",
            "size": 5
          },
          "annotations": {
            "bootc-testboot.distro": "debian-13",
            "org.opencontainers.image.version": "v1"
          }
        }
        "#);
    }

    #[test]
    fn machines_of_several_platforms_make_one_release() {
        let (amd, arm) = ((DiskFormat::Raw, "linux/amd64"), (DiskFormat::Raw, "linux/arm64"));
        let both = release(&[amd, arm], "image").index(None);
        for [first, second] in [[amd, arm], [arm, amd]] {
            let first = release(&[first], "image").index(None);
            assert_eq!(release(&[second], "image").index(Some(&first)), both);
            assert_eq!(release(&[second], "image").index(Some(&both)), both);
        }
        // Another image's disks are another release's.
        let other = release(&[amd], "another image");
        assert_eq!(other.index(Some(&both)), other.index(None));
    }
}
