//! Writing an archive: each blob goes through once, and none is kept.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::{BLOBS, INDEX, LAYOUT, LAYOUT_CONTENT};
use crate::oci::annotation::REF_NAME;
use crate::oci::tar::header;
use crate::oci::{Descriptor, MediaType};

/// A tar's unit, in bytes. Source: POSIX.1-2017, pax, "ustar Interchange Format".
const BLOCK: usize = 512;
/// Whoever unpacks it can read and replace what comes out.
const MODE: u32 = 0o644;

pub(crate) struct Writer<W> {
    out: W,
}

/// Refuses more than an entry has room for.
struct Bounded<'a, W> {
    out: &'a mut W,
    left: u64,
}

impl<W: Write> Writer<W> {
    /// Begins an archive of the images in `named`, each with its tag.
    pub(crate) fn new(out: W, named: &[(String, Descriptor)]) -> io::Result<Writer<W>> {
        let entry = |(tag, descriptor): &(String, Descriptor)| {
            let mut entry = json!(descriptor);
            entry["annotations"] = json!({REF_NAME: tag});
            entry
        };
        let manifests: Vec<Value> = named.iter().map(entry).collect();
        let index = json!({"schemaVersion": 2, "mediaType": MediaType::ImageIndex, "manifests": manifests});
        let mut writer = Writer { out };
        writer.entry(LAYOUT, LAYOUT_CONTENT.len() as u64, |out| out.write_all(LAYOUT_CONTENT))?;
        let index = index.to_string();
        writer.entry(INDEX, index.len() as u64, |out| out.write_all(index.as_bytes()))?;
        Ok(writer)
    }

    /// Appends a blob, which `fill` writes: all of it, and nothing else.
    pub(crate) fn blob<E: From<io::Error>>(
        &mut self,
        blob: &Descriptor,
        fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<(), E> {
        self.entry(&format!("{BLOBS}{}", blob.digest.hex()), blob.size, fill)
    }

    /// Ends it: with two empty blocks.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry<E: From<io::Error>>(
        &mut self,
        path: &str,
        size: u64,
        fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut header = header(tar::EntryType::Regular, MODE, size);
        header.set_path(path)?;
        header.set_cksum();
        self.out.write_all(header.as_bytes())?;
        let mut bounded = Bounded { out: &mut self.out, left: size };
        fill(&mut bounded)?;
        if bounded.left > 0 {
            return Err(io::Error::other(format!("{path} is {} bytes too short", bounded.left)).into());
        }
        let rest = (size % BLOCK as u64) as usize;
        if rest > 0 {
            self.out.write_all(&[0; BLOCK][rest..])?;
        }
        Ok(())
    }
}

impl<W: Write> Write for Bounded<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or_else(|| io::Error::other("it is longer than it should be"))?;
        self.out.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
