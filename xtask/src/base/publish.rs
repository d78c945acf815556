//! Under which tags a base is published: one that moves, `base-<distro>`, and one that stays, with
//! the day on which the base was made.
//!
//! What a dated tag names for a platform never changes. A second base of the same day gets the
//! tag with `.1` behind it, the next one `.2`; a platform that a tag does not have yet is added.

use chrono::NaiveDate;

use crate::oci::merge::PlatformImages;
use crate::oci::{Descriptor, Platform};
use crate::release::base_tag;
use crate::workspace::DistroName;

/// More bases of one distro in one day are somebody's mistake, and each is a request.
pub(crate) const MAX_A_DAY: usize = 100;

/// What a tag is to an image that is to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It names this very image for the platform.
    There,
    /// It names nothing for the platform.
    Free,
    /// It names another image for the platform.
    Taken,
}

/// The tags of a day, in the order in which they are used up.
pub(crate) fn dated(distro: &DistroName, day: NaiveDate) -> impl Iterator<Item = String> {
    let first = format!("{}-{}", base_tag(distro), day.format("%Y%m%d"));
    (0..MAX_A_DAY).map(move |number| match number {
        0 => first.clone(),
        number => format!("{first}.{number}"),
    })
}

/// What a tag that names `images` is to the image of `platform`.
pub(crate) fn place(images: &PlatformImages, (platform, image): (Platform, &Descriptor)) -> Place {
    match images.get(&platform) {
        None => Place::Free,
        Some(there) if there.digest == image.digest => Place::There,
        Some(_) => Place::Taken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{MediaType, Verified};

    #[test]
    fn a_day_has_more_than_one_tag() {
        let day = NaiveDate::from_ymd_opt(2026, 1, 4).unwrap();
        let tags: Vec<String> = dated(&"debian-13".parse().unwrap(), day).collect();
        let expected = ["base-debian-13-20260104", "base-debian-13-20260104.1", "base-debian-13-20260104.2"];
        assert_eq!(tags[..3], expected);
        assert!(tags.iter().all(|tag| crate::oci::reference::is_tag(tag)) && tags.len() == MAX_A_DAY);
    }

    #[test]
    fn a_platform_is_taken_free_or_there() {
        let [amd64, arm64]: [Platform; 2] = ["linux/amd64", "linux/arm64"].map(|name| name.parse().unwrap());
        let image =
            |content: &str| Verified::own(content.as_bytes().to_vec()).descriptor(MediaType::ImageManifest);
        let images = PlatformImages::from([(amd64, image("old"))]);
        assert_eq!(place(&images, (amd64, &image("old"))), Place::There);
        assert_eq!(place(&images, (amd64, &image("new"))), Place::Taken);
        assert_eq!(place(&images, (arm64, &image("new"))), Place::Free);
    }
}
