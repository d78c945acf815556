//! Numbers for what wants one of its own, made from what it is: nothing here is random.

use std::fmt;

use super::digest::Digest;

/// A UUID of version 8, whose other bits are the maker's. Source: RFC 9562, 5.8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Uuid([u8; 16]);

impl Uuid {
    /// In the order in which it is written down.
    pub(crate) fn bytes(self) -> [u8; 16] {
        self.0
    }
}

impl From<Digest> for Uuid {
    fn from(digest: Digest) -> Uuid {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest.bytes()[..16]);
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Uuid(bytes)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if [4, 6, 8, 10].contains(&at) { "-" } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_gives_a_uuid_of_version_8() {
        // SHA-256 of nothing begins with e3b0c44298fc1c149afbf4c8996fb924.
        assert_eq!(Uuid::from(Digest::of(b"")).to_string(), "e3b0c442-98fc-8c14-9afb-f4c8996fb924");
    }
}
