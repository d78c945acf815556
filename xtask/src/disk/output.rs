//! One output of a pass: which writer takes its chunks, and how it is finished.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::blocks::CHUNK;
use super::encode::{Done, Encoded, Encoding};
use super::ova::Frame;
use super::pipeline::Buffer;
use super::qcow2::Cluster;
use super::view::View;
use super::{Disk, DiskError, DiskFormat, Medium, Options, gce, iso, plain, qcow2, vhd, vmdk};
use crate::oci::Digest;
use crate::oci::digest::DigestWriter;

/// What an output takes of a pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) format: DiskFormat,
    pub(super) virtual_size: u64,
    pub(super) view: usize,
    /// Where it needs one.
    pub(super) job: Option<usize>,
}

/// An output that is being written.
pub(super) struct Output<F: Write> {
    setting: Setting,
    writer: Writer<F>,
}

enum Writer<F: Write> {
    Plain(plain::Writer<F>),
    Qcow2(qcow2::Writer<BufWriter<F>>),
    /// As a file, or within an OVA.
    Vmdk(vmdk::Writer<BufWriter<F>>),
    Gce(gce::Writer<F>),
    Iso(iso::Writer<F>),
}

/// Hashes a view's content, for the outputs that are it.
pub(super) struct ContentHasher {
    view: usize,
    hasher: plain::Hasher<DigestWriter<io::Sink>>,
}

/// The hashers of the views' contents, at their ends.
pub(super) type Contents = BTreeMap<usize, DigestWriter<io::Sink>>;

/// What goes on for each chunk.
pub(super) type OnChunk<'a> = Box<dyn FnMut(&Done<Buffer>) -> io::Result<()> + Send + 'a>;

/// How chunks are encoded for a format, if they are.
pub(super) fn encoding(format: DiskFormat, options: &Options) -> Option<Encoding> {
    match format {
        DiskFormat::Raw | DiskFormat::Ami | DiskFormat::Vhd => None,
        DiskFormat::Qcow2 => Some(Encoding::Qcow2(options.qcow2_compression)),
        DiskFormat::Vmdk | DiskFormat::Ova | DiskFormat::Gce => Some(Encoding::Deflate),
        DiskFormat::Iso => Some(Encoding::Frame),
    }
}

impl<F: Read + Write + Seek + Send> Output<F> {
    pub(super) fn new(file: F, setting: Setting, options: &Options) -> io::Result<Output<F>> {
        let size = setting.virtual_size;
        let buffered = |file| BufWriter::with_capacity(CHUNK, file);
        let writer = match setting.format {
            DiskFormat::Raw | DiskFormat::Ami | DiskFormat::Vhd => Writer::Plain(plain::Writer::new(file)),
            DiskFormat::Qcow2 => {
                Writer::Qcow2(qcow2::Writer::new(buffered(file), size, options.qcow2_compression))
            }
            DiskFormat::Vmdk => Writer::Vmdk(vmdk::Writer::new(buffered(file), 0, size)?),
            DiskFormat::Ova => {
                let start = Frame::new(options, size)?.vmdk_at();
                Writer::Vmdk(vmdk::Writer::new(buffered(file), start, size)?)
            }
            DiskFormat::Gce => Writer::Gce(gce::Writer::new(file, size)?),
            DiskFormat::Iso => Writer::Iso(iso::Writer::new(file, medium(options)?)?),
        };
        Ok(Output { setting, writer })
    }

    /// Takes the chunks.
    pub(super) fn writer(&mut self) -> OnChunk<'_> {
        Box::new(|chunk| self.add(chunk))
    }

    fn add(&mut self, chunk: &Done<Buffer>) -> io::Result<()> {
        let view = self.setting.view;
        let encoded = self.setting.job.map(|job| &chunk.encoded[job]);
        match (&mut self.writer, encoded) {
            (Writer::Plain(writer), None) => writer.add(&chunk.picture(view)),
            (Writer::Qcow2(writer), Some(Encoded::Clusters(clusters))) => {
                clusters.iter().try_for_each(|(number, compressed)| {
                    let cluster = match compressed {
                        Some(bytes) => Cluster::Compressed(bytes),
                        None => Cluster::Plain(chunk.block(view, *number)),
                    };
                    writer.add(*number, cluster)
                })
            }
            (Writer::Vmdk(writer), Some(Encoded::Deflated(blocks))) => {
                blocks.iter().try_for_each(|(number, part)| writer.add(*number, part))
            }
            (Writer::Gce(writer), Some(Encoded::Deflated(blocks))) => {
                blocks.iter().try_for_each(|(number, part)| writer.add(*number, part))
            }
            (Writer::Iso(writer), Some(Encoded::Frame(frame))) => match frame {
                Some(frame) => writer.add(&chunk.picture(view), frame),
                None => Ok(()),
            },
            (Writer::Plain(_) | Writer::Qcow2(_) | Writer::Vmdk(_) | Writer::Gce(_) | Writer::Iso(_), _) => {
                Err(io::Error::other("chunks were encoded for another format"))
            }
        }
    }

    /// Writes what is left of a format, and hashes what its end did not.
    fn finish(self, contents: &Contents, options: &Options, vmdk: &SharedDigest) -> io::Result<Disk> {
        let Setting { format, virtual_size, view, job: _ } = self.setting;
        let disk = |digest, size| Disk { format, size, virtual_size, digest };
        match self.writer {
            Writer::Plain(writer) => {
                let mut content = contents.get(&view).cloned().ok_or_else(|| io::Error::other("no hash"))?;
                let trailer = match format {
                    DiskFormat::Vhd => vhd::footer(virtual_size, content.clone().finish().1).to_vec(),
                    DiskFormat::Raw
                    | DiskFormat::Ami
                    | DiskFormat::Qcow2
                    | DiskFormat::Vmdk
                    | DiskFormat::Gce
                    | DiskFormat::Ova
                    | DiskFormat::Iso => Vec::new(),
                };
                writer.finish(virtual_size, &trailer)?;
                content.write_all(&trailer)?;
                let (_, digest, size) = content.finish();
                Ok(disk(digest, size))
            }
            Writer::Qcow2(writer) => {
                let mut file = unbuffered(writer.finish()?)?;
                let (digest, size) = hash(&mut file, 0)?;
                Ok(disk(digest, size))
            }
            Writer::Vmdk(writer) => {
                let (out, vmdk_size) = writer.finish()?;
                let mut file = unbuffered(out)?;
                if format != DiskFormat::Ova {
                    let (digest, size) = hash_once(vmdk, &mut file, 0)?;
                    return Ok(disk(digest, size));
                }
                let frame = Frame::new(options, virtual_size)?;
                let (inner, _) = hash_once(vmdk, &mut file, frame.vmdk_at())?;
                frame.finish(&mut file, vmdk_size, inner)?;
                let (digest, size) = hash(&mut file, 0)?;
                Ok(disk(digest, size))
            }
            Writer::Gce(writer) => {
                let (digest, size) = hash(&mut writer.finish()?, 0)?;
                Ok(disk(digest, size))
            }
            Writer::Iso(writer) => {
                let (digest, size) = hash(&mut writer.finish(medium(options)?)?, 0)?;
                Ok(disk(digest, size))
            }
        }
    }
}

fn medium(options: &Options) -> io::Result<&Medium> {
    options.medium.as_ref().ok_or_else(|| io::Error::other("there is nothing to boot a medium with"))
}

impl ContentHasher {
    /// Takes the chunks.
    pub(super) fn writer(&mut self) -> OnChunk<'_> {
        Box::new(|chunk| self.hasher.add(&chunk.picture(self.view)))
    }
}

/// Hashers of the contents that are an output as they are.
pub(super) fn hashers<F: Write>(outputs: &[Output<F>]) -> Vec<ContentHasher> {
    let plain = outputs.iter().filter(|output| matches!(output.writer, Writer::Plain(_)));
    let views: BTreeSet<usize> = plain.map(|output| output.setting.view).collect();
    let hasher = || plain::Hasher::new(DigestWriter::new(io::sink()));
    views.into_iter().map(|view| ContentHasher { view, hasher: hasher() }).collect()
}

pub(super) fn contents(hashers: Vec<ContentHasher>, views: &[View]) -> io::Result<Contents> {
    let ends = hashers.into_iter();
    ends.map(|ContentHasher { view, hasher }| Ok((view, hasher.finish(views[view].size)?))).collect()
}

/// The digest of the VMDK that a VMDK file is and an OVA holds, once one of them has it.
type SharedDigest = Mutex<Option<(Digest, u64)>>;

/// Finishes all outputs at a time: what is left of each is one thread's work.
pub(super) fn finish_all<F: Read + Write + Seek + Send>(
    outputs: Vec<Output<F>>,
    contents: &Contents,
    options: &Options,
) -> Result<Vec<Disk>, DiskError> {
    let vmdk = SharedDigest::default();
    thread::scope(|scope| {
        let finish = |output: Output<F>| {
            let format = output.setting.format;
            output.finish(contents, options, &vmdk).map_err(|source| DiskError::Write { format, source })
        };
        let threads: Vec<_> = outputs.into_iter().map(|output| scope.spawn(move || finish(output))).collect();
        let disks = threads.into_iter();
        disks.map(|disk| disk.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

fn unbuffered<F: Write>(out: BufWriter<F>) -> io::Result<F> {
    out.into_inner().map_err(io::IntoInnerError::into_error)
}

/// Hashes a VMDK, which goes on to the end of the file, unless that is known.
fn hash_once(known: &SharedDigest, file: &mut (impl Read + Seek), start: u64) -> io::Result<(Digest, u64)> {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    match *known {
        Some(known) => Ok(known),
        None => Ok(*known.insert(hash(file, start)?)),
    }
}

/// The digest and the length of what a file holds from `start` on. Its first bytes were written
/// last, so it could not be hashed as it was written; it is still in the page cache.
fn hash(file: &mut (impl Read + Seek), start: u64) -> io::Result<(Digest, u64)> {
    let mut hashed = DigestWriter::new(io::sink());
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = vec![0; CHUNK];
    loop {
        match file.read(&mut bytes)? {
            0 => break,
            count => hashed.write_all(&bytes[..count])?,
        }
    }
    let (_, digest, size) = hashed.finish();
    Ok((digest, size))
}
