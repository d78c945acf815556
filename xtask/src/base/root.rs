//! The tar of a root that was made here -> the tar of a base's only layer.

use std::io::{self, Read, Write};

use tar::EntryType;

use crate::oci::Timestamp;
use crate::oci::tar::{attributes, header};

/// Where `customize.sh` leaves the time of the newest package, in seconds since 1970.
pub(super) const NEWEST: &str = "usr/share/testboot/newest-package";

/// What a root says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The version of its kernel.
    pub(super) kernel: Option<String>,
    /// When the newest of its packages was made.
    pub(super) newest: Option<Timestamp>,
}

/// Passes a root's tar on as a layer: no times, no names of users, no leading `./`, no devices.
pub(super) fn layer(root: &mut dyn Read, out: impl Write) -> io::Result<Found> {
    let mut found = Found::default();
    let mut has_dev = false;
    let mut builder = tar::Builder::new(out);
    let mut archive = tar::Archive::new(root);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = String::from_utf8(entry.path_bytes().into_owned()).map_err(io::Error::other)?;
        let path = path.strip_prefix("./").unwrap_or(&path).to_owned();
        if path.is_empty() {
            continue;
        }
        // systemd mounts devices there before it can make a folder: it has to be in the image.
        if !has_dev && path.as_str() >= "dev" {
            has_dev = true;
            if path != "dev/" {
                let mut header = header(EntryType::Directory, 0o755, 0);
                builder.append_data(&mut header, "dev/", io::empty())?;
            }
        }
        if let Some(version) =
            path.strip_prefix("usr/lib/modules/").and_then(|rest| rest.strip_suffix("/vmlinuz"))
        {
            found.kernel = Some(version.to_owned());
        }
        let mut header = header(entry.header().entry_type(), entry.header().mode()?, entry.size());
        header.set_uid(entry.header().uid()?);
        header.set_gid(entry.header().gid()?);
        let attributes = attributes(&mut entry)?;
        if !attributes.is_empty() {
            builder.append_pax_extensions(
                attributes.iter().map(|(key, value)| (key.as_str(), value.as_slice())),
            )?;
        }
        match entry.header().entry_type() {
            EntryType::Regular if path == NEWEST => {
                let mut text = String::new();
                entry.read_to_string(&mut text)?;
                found.newest = Some(text.trim_end().parse().map_err(io::Error::other)?);
                builder.append_data(&mut header, &path, text.as_bytes())?
            }
            EntryType::Regular | EntryType::Directory => {
                builder.append_data(&mut header, &path, &mut entry)?
            }
            EntryType::Symlink | EntryType::Link => {
                let target = entry.link_name_bytes().map(|name| name.into_owned()).unwrap_or_default();
                let target = String::from_utf8(target).map_err(io::Error::other)?;
                let is_hard = entry.header().entry_type() == EntryType::Link;
                let target = target.strip_prefix("./").filter(|_| is_hard).unwrap_or(&target);
                builder.append_link(&mut header, &path, target)?;
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {}
            other => {
                return Err(io::Error::other(format!("/{path} is a {other:?}, which no layer can hold")));
            }
        }
    }
    // The blocks that fill the last record come after the end: who writes them wants them read.
    io::copy(archive.into_inner(), &mut io::sink())?;
    builder.finish()?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_becomes_a_layer_without_times_and_devices() {
        let mut root = tar::Builder::new(Vec::new());
        let mut add = |kind: EntryType, path: &str, link: &str, content: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(0o755);
            header.set_uid(33);
            header.set_gid(33);
            header.set_mtime(1_700_000_000);
            header.set_size(content.len() as u64);
            header.set_username("www-data").unwrap();
            match kind {
                EntryType::Symlink | EntryType::Link => root.append_link(&mut header, path, link).unwrap(),
                _ => root.append_data(&mut header, path, content).unwrap(),
            }
        };
        add(EntryType::Directory, "./boot/", "", b"");
        add(EntryType::Char, "./null", "", b"");
        add(EntryType::Regular, "./usr/lib/modules/6.12/vmlinuz", "", b"kernel");
        add(EntryType::Link, "./usr/lib/modules/6.12/again", "./usr/lib/modules/6.12/vmlinuz", b"");
        add(EntryType::Regular, "./usr/share/testboot/newest-package", "", b"1700000000\n");
        add(EntryType::Symlink, "./vmlinuz", "./usr/lib/x", b"");
        let root = root.into_inner().unwrap();

        let mut layer = Vec::new();
        let found = super::layer(&mut &root[..], &mut layer).unwrap();
        let newest = Some("1700000000".parse().unwrap());
        assert_eq!(found, Found { kernel: Some("6.12".to_owned()), newest });
        let mut listing = Vec::new();
        for entry in tar::Archive::new(&layer[..]).entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.mtime().unwrap(), header.username_bytes().unwrap_or_default()), (0, &b""[..]));
            let text = |bytes: std::borrow::Cow<'_, [u8]>| String::from_utf8(bytes.into_owned()).unwrap();
            listing.push((text(entry.path_bytes()), entry.link_name_bytes().map(text).unwrap_or_default()));
        }
        let expected = [
            ("boot/", ""),
            ("dev/", ""),
            ("usr/lib/modules/6.12/vmlinuz", ""),
            ("usr/lib/modules/6.12/again", "usr/lib/modules/6.12/vmlinuz"),
            ("usr/share/testboot/newest-package", ""),
            ("vmlinuz", "./usr/lib/x"),
        ];
        assert_eq!(listing, expected.map(|(path, link)| (path.to_owned(), link.to_owned())));
    }
}
