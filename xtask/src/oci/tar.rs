//! What the tars that are written here have in common: headers, and the attributes of what they hold.

use std::io::{self, Read};

use ::tar::{Entry, EntryType, Header};

/// The key under which star, GNU tar and libarchive keep an extended attribute in a PAX header.
const ATTRIBUTE: &str = "SCHILY.xattr.";
/// Files are labelled by the host's policy, not by what built the layer.
const SELINUX: &str = "SCHILY.xattr.security.selinux";

/// The header of an entry without a name: root's, and without a time (ostree keeps none). It is in
/// GNU's form, since a name may have more than 100 bytes, and a file more than 8 GiB.
pub(crate) fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// The extended attributes of an entry, such as file capabilities: PAX keys and values.
pub(crate) fn attributes(entry: &mut Entry<'_, impl Read>) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut attributes = Vec::new();
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        let key = extension.key().map_err(io::Error::other)?;
        if key.starts_with(ATTRIBUTE) && key != SELINUX {
            attributes.push((key.to_owned(), extension.value_bytes().to_owned()));
        }
    }
    Ok(attributes)
}
