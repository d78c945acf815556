//! The bytes of a layer -> the disk file, checked as they come.
//!
//! What comes may be anything: a stream that unpacks to a million times its size, a tar of links. It
//! is taken in pieces of bounded size, and the first that does not belong ends it. What was written
//! is the disk only once [`Unpacker::finish`] says so.

use std::fs::File;
use std::io::{self, Write};

use zstd::stream::raw::{Decoder as ZstdDecoder, InBuffer, Operation, OutBuffer};
use zstd::zstd_safe::DParameter;

use super::image::PackedDisk;
use super::layer::Packing;
use super::sparse;
use super::tar::{self, Piece, TarError};
use crate::hint::{self, hinted};
use crate::oci::digest::DigestWriter;
use crate::oci::{DiffId, Digest};

/// The largest window, as a power of two, that every zstd reader should take: 8 MiB. It is also what
/// a hostile frame can make us hold. Source: RFC 8878, 3.1.1.1.2.
const ZSTD_WINDOW: u32 = 23;
/// What is decompressed at a time: deflate makes at most 1032 bytes of one.
const GZIP_INPUT: usize = 4 << 10;
const ZSTD_OUTPUT: usize = 128 << 10;

/// Why a layer is not the disk that it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    #[error("the layer is not what it should be: {0}")]
    Tar(#[from] TarError),
    #[error("the layer is no whole {0}")]
    Cut(&'static str),
    #[error("the layer goes on behind its {0}")]
    Trailing(&'static str),
    #[error("the layer cannot be decompressed: {0}")]
    Decompress(io::Error),
    #[error("the layer's content is {found}, and {expected} was promised as its diff id")]
    DiffId { expected: DiffId, found: Digest },
    #[error("the disk is {found}, and {expected} was promised")]
    Disk { expected: Digest, found: Digest },
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl UnpackError {
    /// The error for the commands: with its hint.
    pub(crate) fn into_hinted(self) -> anyhow::Error {
        match self {
            UnpackError::Io(error) => error.into(),
            UnpackError::Tar(_)
            | UnpackError::Cut(_)
            | UnpackError::Trailing(_)
            | UnpackError::Decompress(_)
            | UnpackError::DiffId { .. }
            | UnpackError::Disk { .. } => hinted(
                self,
                "the image is damaged or hostile, and nothing of it was kept: pack the disk again",
            ),
        }
    }
}

/// Takes the layer's bytes, and writes the disk.
pub(crate) struct Unpacker<'a> {
    decoder: Decoder,
    sink: Sink<'a>,
    expected: &'a PackedDisk,
}

enum Decoder {
    None,
    Gzip(Box<flate2::write::GzDecoder<Vec<u8>>>),
    Zstd { decoder: Box<ZstdDecoder<'static>>, out: Vec<u8>, is_over: bool },
}

/// What becomes of the tar.
struct Sink<'a> {
    reader: tar::Reader,
    whole: DigestWriter<io::Sink>,
    disk: DigestWriter<io::Sink>,
    file: sparse::Writer<'a>,
}

impl<'a> Unpacker<'a> {
    /// Into `file`, which is empty.
    pub(crate) fn new(expected: &'a PackedDisk, file: &'a File) -> io::Result<Unpacker<'a>> {
        let decoder = match expected.packing {
            Packing::Tar => Decoder::None,
            Packing::Gzip => Decoder::Gzip(Box::new(flate2::write::GzDecoder::new(Vec::new()))),
            Packing::Zstd => {
                let mut decoder = Box::new(ZstdDecoder::new()?);
                decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW))?;
                Decoder::Zstd { decoder, out: vec![0; ZSTD_OUTPUT], is_over: false }
            }
        };
        let hasher = || DigestWriter::new(io::sink());
        let reader = tar::Reader::new(&expected.facts.name, expected.facts.size);
        let sink = Sink { reader, whole: hasher(), disk: hasher(), file: sparse::Writer::new(file) };
        Ok(Unpacker { decoder, sink, expected })
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), UnpackError> {
        match &mut self.decoder {
            Decoder::None => self.sink.take(bytes),
            Decoder::Gzip(decoder) => {
                while !bytes.is_empty() {
                    let some = &bytes[..bytes.len().min(GZIP_INPUT)];
                    let count = decoder.write(some).map_err(UnpackError::Decompress)?;
                    // It takes nothing behind its one member.
                    if count == 0 {
                        return Err(UnpackError::Trailing("gzip member"));
                    }
                    bytes = &bytes[count..];
                    self.sink.take(decoder.get_ref())?;
                    decoder.get_mut().clear();
                }
                Ok(())
            }
            Decoder::Zstd { decoder, out, is_over } => {
                let mut input = InBuffer::around(bytes);
                loop {
                    if *is_over {
                        return match input.pos() == bytes.len() {
                            true => Ok(()),
                            false => Err(UnpackError::Trailing("zstd frame")),
                        };
                    }
                    let mut output = OutBuffer::around(out.as_mut_slice());
                    let left = decoder.run(&mut input, &mut output).map_err(UnpackError::Decompress)?;
                    let count = output.pos();
                    self.sink.take(&out[..count])?;
                    *is_over = left == 0;
                    // A full buffer may have left something behind.
                    if !*is_over && input.pos() == bytes.len() && count < out.len() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Ends the layer: the file is the disk that was announced, or this fails.
    pub(crate) fn finish(self) -> Result<(), UnpackError> {
        let Unpacker { decoder, mut sink, expected } = self;
        match decoder {
            Decoder::None => {}
            Decoder::Gzip(decoder) => {
                let rest = decoder.finish().map_err(|_| UnpackError::Cut("gzip member"))?;
                sink.take(&rest)?;
            }
            Decoder::Zstd { is_over: true, .. } => {}
            Decoder::Zstd { .. } => return Err(UnpackError::Cut("zstd frame")),
        }
        sink.reader.finish()?;
        let (_, found, _) = sink.whole.finish();
        if found != expected.diff_id.0 {
            return Err(UnpackError::DiffId { expected: expected.diff_id, found });
        }
        let (_, found, _) = sink.disk.finish();
        if found != expected.facts.sha256 {
            return Err(UnpackError::Disk { expected: expected.facts.sha256, found });
        }
        Ok(sink.file.finish()?)
    }
}

impl Sink<'_> {
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), UnpackError> {
        self.whole.write_all(bytes)?;
        while !bytes.is_empty() {
            let count = match self.reader.take(bytes)? {
                Piece::Frame(count) => count,
                Piece::Content(content) => {
                    self.disk.write_all(content)?;
                    self.file.add(content)?;
                    content.len()
                }
            };
            bytes = &bytes[count..];
        }
        Ok(())
    }
}

impl Write for Unpacker<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.take(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(UnpackError::Io(error)) => Err(error),
            Err(error) => Err(hint::into_io(error.into_hinted())),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
