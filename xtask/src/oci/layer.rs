//! A finished layer, and the only thing that can make one.

use std::io::{self, Write};

use super::MediaType;
use super::digest::{DiffId, DigestWriter};
use super::verified::Descriptor;

/// How a layer's tar is compressed.
///
/// A bootc host reads one gzip member, or one zstd frame, and silently drops what follows, so
/// neither is ever written in parts. Recompressing the same tar differently would be a new
/// digest and a new download for every host: compressor, version and level are frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Read by every host; the default.
    Gzip,
    /// Smaller and faster; hosts of 2024 and older fail on it.
    Zstd,
}

/// libdeflate's level: 6 is where its ratio meets gzip -6 at four times the speed.
const GZIP_LEVEL: i32 = 6;
/// zstd's own default level.
const ZSTD_LEVEL: i32 = 3;
/// With one worker or more, zstd's output does not depend on how many there are; with none it
/// differs. So there is always at least this one.
const ZSTD_WORKERS: u32 = 2;

/// A layer that was written: its tar and its compressed bytes are known, and so are their digests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layer {
    /// What it holds: an app's name, or `os`.
    name: String,
    descriptor: Descriptor,
    diff_id: DiffId,
}

impl Layer {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    pub(crate) fn diff_id(&self) -> DiffId {
        self.diff_id
    }
}

/// Takes a layer's tar as a stream, and writes the compressed layer to `W`.
pub(crate) struct LayerWriter<W: Write> {
    tar: DigestWriter<Encoder<W>>,
}

enum Encoder<W: Write> {
    /// libdeflate compresses whole buffers only: a layer is in memory while it is made, and the
    /// largest, a base made here, has some 350 MB.
    Gzip {
        tar: Vec<u8>,
        out: DigestWriter<W>,
    },
    Zstd(zstd::Encoder<'static, DigestWriter<W>>),
}

impl<W: Write> LayerWriter<W> {
    pub(crate) fn new(compression: Compression, out: W) -> io::Result<LayerWriter<W>> {
        let out = DigestWriter::new(out);
        let encoder = match compression {
            Compression::Gzip => Encoder::Gzip { tar: Vec::new(), out },
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(out, ZSTD_LEVEL)?;
                encoder.multithread(ZSTD_WORKERS)?;
                Encoder::Zstd(encoder)
            }
        };
        Ok(LayerWriter { tar: DigestWriter::new(encoder) })
    }

    /// Ends the tar: the layer, and the writer that now holds its bytes.
    pub(crate) fn finish(self, name: &str) -> io::Result<(Layer, W)> {
        let (encoder, diff_id, _) = self.tar.finish();
        let (media_type, out) = match encoder {
            Encoder::Gzip { tar, mut out } => {
                out.write_all(&gzip_member(&tar)?)?;
                (MediaType::ImageLayerGzip, out)
            }
            Encoder::Zstd(encoder) => (MediaType::ImageLayerZstd, encoder.finish()?),
        };
        let (out, digest, size) = out.finish();
        let descriptor = Descriptor { media_type, digest, size };
        Ok((Layer { name: name.to_owned(), descriptor, diff_id: DiffId(diff_id) }, out))
    }
}

impl<W: Write> Write for LayerWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tar.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tar.flush()
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Encoder::Gzip { tar, .. } => tar.write(bytes),
            Encoder::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Encoder::Gzip { .. } => Ok(()),
            Encoder::Zstd(encoder) => encoder.flush(),
        }
    }
}

/// Exactly one gzip member, whose header holds no time and no name.
fn gzip_member(tar: &[u8]) -> io::Result<Vec<u8>> {
    let level = libdeflater::CompressionLvl::new(GZIP_LEVEL)
        .map_err(|error| io::Error::other(format!("{error:?}")))?;
    let mut compressor = libdeflater::Compressor::new(level);
    let mut member = vec![0; compressor.gzip_compress_bound(tar.len())];
    let size = compressor.gzip_compress(tar, &mut member).map_err(io::Error::other)?;
    member.truncate(size);
    Ok(member)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::super::digest::Digest;
    use super::*;

    fn write(compression: Compression, tar: &[u8]) -> (Layer, Vec<u8>) {
        let mut writer = LayerWriter::new(compression, Vec::new()).unwrap();
        tar.chunks(1000).for_each(|chunk| writer.write_all(chunk).unwrap());
        writer.finish("app").unwrap()
    }

    /// Bytes that do not shrink to nothing, and that are the same in each run.
    fn tar() -> Vec<u8> {
        (0..300_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
    }

    #[test]
    fn gzip_is_one_member_and_knows_both_digests() {
        let (layer, blob) = write(Compression::Gzip, &tar());
        assert_eq!(layer.diff_id(), DiffId(Digest::of(&tar())));
        assert_eq!(layer.descriptor().digest, Digest::of(&blob));
        assert_eq!(layer.descriptor().size, blob.len() as u64);
        // The reader that a bootc host uses: it stops after the first member.
        let mut decoder = flate2::bufread::GzDecoder::new(&blob[..]);
        let mut read = Vec::new();
        decoder.read_to_end(&mut read).unwrap();
        assert_eq!(read, tar());
        assert_eq!(decoder.into_inner(), b"", "nothing may follow the first member");
        assert_eq!(blob[4..8], [0; 4], "the header holds no time");
    }

    #[test]
    fn zstd_is_one_frame() {
        let (layer, blob) = write(Compression::Zstd, &tar());
        assert_eq!(layer.diff_id(), DiffId(Digest::of(&tar())));
        let mut read = Vec::new();
        let mut decoder = zstd::Decoder::new(&blob[..]).unwrap().single_frame();
        decoder.read_to_end(&mut read).unwrap();
        assert_eq!(read, tar());
        assert_eq!(decoder.finish().buffer(), b"", "nothing may follow the first frame");
    }

    /// The compressors are frozen: a change here would make every host download every layer anew.
    #[test]
    fn bytes_are_frozen() {
        let digest = |compression| write(compression, &tar()).0.descriptor().digest.to_string();
        insta::assert_snapshot!(digest(Compression::Gzip), @"sha256:32903eae1a6471c18a3745c189f598ab7d83cb0be52da3c3641e8cf9f0240d00");
        insta::assert_snapshot!(digest(Compression::Zstd), @"sha256:eb0d8e58880208ced58f8686da837ea1fdb03efc3cf489f3deb3fde0467d34a1");
    }
}
