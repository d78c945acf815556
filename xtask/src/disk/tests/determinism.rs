//! The same disk is the same bytes.

use super::*;
use crate::oci::Digest;

fn digests(raw: &Raw, how: How) -> Vec<Digest> {
    Made::new(raw, &DiskFormat::ALL, how).disks.iter().map(|disk| disk.digest).collect()
}

#[test]
fn threads_and_holes_make_no_difference() {
    use Fill::{Noise, Text, Zeros};
    let parts = [(0, Text, 9 * MIB), (20 * MIB + 7, Noise, 3 * MIB), (60 * MIB, Text, 5 * MIB)];
    let raw = Raw::new(100 * MIB, &parts);
    let one = digests(&raw, How { threads: 1, ..USUAL });
    assert_eq!(one, digests(&raw, How { threads: 4, ..USUAL }));
    // The same, with zeros where there was a hole.
    let mut filled = raw.clone();
    filled.parts.insert(0, (0, Zeros, 50 * MIB));
    assert_eq!(one, digests(&filled, USUAL));
    // And with another content, all are others: no format leaves it out.
    let mut other = raw.clone();
    other.parts.push((30 * MIB, Text, 1));
    let others = digests(&other, USUAL);
    assert!(one.iter().zip(&others).all(|(one, other)| one != other));
}

/// The ids in a VMDK and a VHD are the content's.
#[test]
fn ids_follow_the_content() {
    let ids = |raw: &Raw| {
        let made = Made::new(raw, &[DiskFormat::Vmdk, DiskFormat::Vhd], USUAL);
        let vmdk = fs::read(made.file(DiskFormat::Vmdk)).unwrap();
        let text = String::from_utf8_lossy(&vmdk[512..2048]).into_owned();
        let vhd = fs::read(made.file(DiskFormat::Vhd)).unwrap();
        let uuid = vhd[vhd.len() - 512 + 68..][..16].to_vec();
        (text.lines().find(|line| line.starts_with("CID=")).unwrap().to_owned(), uuid)
    };
    let one = ids(&Raw::new(MIB, &[(0, Fill::Text, 100)]));
    let other = ids(&Raw::new(MIB, &[(0, Fill::Text, 101)]));
    assert!(one.0 != other.0 && one.1 != other.1);
}
