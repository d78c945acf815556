//! The keys of annotations, and of the labels that mean the same.

/// Source of those with this beginning: OCI image specification, annotations.md, "Pre-Defined
/// Annotation Keys".
pub(crate) const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";
pub(crate) const BASE_NAME: &str = "org.opencontainers.image.base.name";
pub(crate) const CREATED: &str = "org.opencontainers.image.created";
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
pub(crate) const REVISION: &str = "org.opencontainers.image.revision";
pub(crate) const SOURCE: &str = "org.opencontainers.image.source";
pub(crate) const TITLE: &str = "org.opencontainers.image.title";
pub(crate) const VERSION: &str = "org.opencontainers.image.version";

/// Which builder makes a disk of an image, where the image installs itself.
pub(crate) const BUILDER: &str = "bootc-testboot.builder";
/// What no predefined key says: of a disk, its format and the distro that is on it.
pub(crate) const DISK_FORMAT: &str = "bootc-testboot.disk.format";
pub(crate) const DISTRO: &str = "bootc-testboot.distro";
/// The system that is on a disk. `base.digest` would be another thing: an image whose layers come
/// first, and a packed disk has none of its system's.
pub(crate) const IMAGE_DIGEST: &str = "bootc-testboot.image.digest";
pub(crate) const IMAGE_NAME: &str = "bootc-testboot.image.name";
