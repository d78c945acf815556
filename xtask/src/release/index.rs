//! The release manifest: one index that names an image and its disks, so that they are found, copied
//! and kept together.
//!
//! An index, since whoever copies one copies what it names, and a registry keeps that. Its subject is
//! the image: a registry lists it among the image's referrers.
//! Source: OCI image specification, image-index.md.

use serde_json::{Map, Value, json};

use crate::disk::DiskFormat;
use crate::oci::annotation::{DISK_FORMAT, DISTRO, REF_NAME, VERSION};
use crate::oci::{Descriptor, Digest, MediaType, Platform, Verified, merge};

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
    /// The index. The same release always makes the same bytes.
    pub(crate) fn index(&self) -> Verified {
        let subject = json!(self.image);
        let mut disks: Vec<&ReleasedDisk> = self.disks.iter().collect();
        disks.sort_by_key(|disk| (&disk.tag, disk.platform));
        let mut image = subject.clone();
        image["annotations"] = json!({REF_NAME: self.tag});
        let manifests: Vec<Value> = std::iter::once(image).chain(disks.into_iter().map(entry)).collect();
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
}

fn entry(disk: &ReleasedDisk) -> Value {
    let mut entry = merge::entry(disk.platform, &disk.manifest);
    entry["annotations"] = json!({REF_NAME: disk.tag, DISK_FORMAT: disk.format.name()});
    entry
}

/// Which image an index is the release of, and the disks that it has; None where it is no release's.
pub(crate) fn read(index: &Verified) -> Option<(Digest, Vec<ReleasedDisk>)> {
    let index: Map<String, Value> = serde_json::from_slice(index.bytes()).ok()?;
    let image = index.get("subject")?.get("digest")?.as_str()?.parse().ok()?;
    let entries = index.get("manifests")?.as_array()?;
    Some((image, entries.iter().filter_map(disk).collect()))
}

/// The disk that an entry names; the image's own entry names none.
fn disk(entry: &Value) -> Option<ReleasedDisk> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let (annotations, platform) = (&entry["annotations"], &entry["platform"]);
    Some(ReleasedDisk {
        tag: text(&annotations[REF_NAME])?,
        format: annotations[DISK_FORMAT].as_str()?.parse().ok()?,
        platform: Platform::from_oci(platform["os"].as_str()?, platform["architecture"].as_str()?)?,
        manifest: serde_json::from_value(entry.clone()).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(content: &str) -> Descriptor {
        Verified::own(content.as_bytes().to_vec()).descriptor(MediaType::ImageManifest)
    }

    fn release(disks: &[(DiskFormat, &str)]) -> Release<'static> {
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
            image: descriptor("image"),
            disks,
        }
    }

    #[test]
    fn a_release_names_its_image_and_its_disks() {
        let index = release(&[(DiskFormat::Qcow2, "linux/amd64")]).index();
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
    fn a_release_is_read_as_it_was_written() {
        let disks = [
            (DiskFormat::Raw, "linux/arm64"),
            (DiskFormat::Raw, "linux/amd64"),
            (DiskFormat::Qcow2, "linux/amd64"),
        ];
        let mut written = release(&disks);
        let index = written.index();
        written.disks.reverse();
        assert_eq!(written.index(), index, "the order does not matter");
        written.disks.sort_by_key(|disk| (disk.tag.clone(), disk.platform));
        assert_eq!(read(&index), Some((written.image.digest, written.disks)));
        for other in ["[]", r#"{"manifests": []}"#, r#"{"subject": {"digest": "x"}, "manifests": []}"#] {
            assert_eq!(read(&Verified::own(other.as_bytes().to_vec())), None, "for {other}");
        }
    }
}
