//! The tar of a packed disk: the folder `disk/`, and one file in it.
//!
//! What is written is fixed to the byte by the file's name and size. What is read may have other
//! owners, modes and times, and nothing else: another entry, a link or a path that leads elsewhere
//! is refused before a byte of it is used.
//! Source: POSIX, pax, "ustar Interchange Format"; GNU tar, "Basic Tar Format".

use std::io;

use tar::{EntryType, Header};

use super::image::FileName;
use crate::disk::ZEROS;
use crate::words::foreign;

/// Where KubeVirt looks for a disk. Source: KubeVirt, docs/container-register-disks.md.
pub(super) const FOLDER: &str = "disk/";
/// QEMU's user and group in KubeVirt's launcher. Source: the same.
const OWNER: u64 = 107;
/// A header, and the unit that contents are padded to.
const BLOCK: usize = 512;
/// Two blocks of zeros end a tar.
const END: usize = 2 * BLOCK;
/// GNU tar fills up to so many blocks; nobody writes more behind the last entry.
const MOST_END: usize = 20;
pub(super) const LONGEST_END: u64 = (MOST_END * BLOCK) as u64;

/// What a tar has before the file's content.
pub(super) fn head(name: &FileName, size: u64) -> io::Result<Vec<u8>> {
    let mut folder = header(EntryType::Directory, 0o755, 0);
    folder.set_path(FOLDER)?;
    // From 8 GiB on, `set_size` writes base-256, which Go's, Python's and Rust's readers take as
    // well as GNU's, BSD's and busybox's.
    let mut file = header(EntryType::Regular, 0o440, size);
    file.set_path(format!("{FOLDER}{name}"))?;
    for header in [&mut folder, &mut file] {
        header.set_cksum();
    }
    Ok([folder.as_bytes().as_slice(), file.as_bytes().as_slice()].concat())
}

/// What it has behind the content.
pub(super) fn tail(size: u64) -> Vec<u8> {
    vec![0; padding(size) + END]
}

/// How long it is.
pub(super) fn length(size: u64) -> u64 {
    2 * BLOCK as u64 + size + (padding(size) + END) as u64
}

fn padding(size: u64) -> usize {
    (size.next_multiple_of(BLOCK as u64) - size) as usize
}

fn header(entry_type: EntryType, mode: u32, size: u64) -> Header {
    let mut header = crate::oci::tar::header(entry_type, mode, size);
    header.set_uid(OWNER);
    header.set_gid(OWNER);
    header
}

/// Why a layer is not the tar that it should be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TarError {
    #[error("it holds something that is no tar")]
    NoTar,
    #[error("it holds `{0}`, and nothing but the disk belongs there")]
    Stranger(String),
    #[error("`{path}` in it is {kind}, not a file")]
    Kind { path: String, kind: &'static str },
    #[error("`{path}` in it has {found} bytes, and {expected} were announced")]
    Size { path: String, expected: u64, found: u64 },
    #[error("it goes on behind its end")]
    Trailing,
    #[error("it ends too early")]
    Short,
}

/// Reads the tar of one file whose name and size are known, in pieces as they come.
pub(super) struct Reader {
    path: String,
    size: u64,
    /// Whether the folder's entry has come, which is there once.
    has_folder: bool,
    state: State,
}

enum State {
    /// Before the file; what of a header has come.
    Headers(Vec<u8>),
    /// So much is still to come.
    Content(u64),
    /// Zeros up to the next block, of which so many are still to come.
    Padding(usize),
    /// Blocks of zeros, so many up to now, and what has come of the next one.
    End { block: Vec<u8>, blocks: usize },
}

/// What a piece begins with.
pub(super) enum Piece<'a> {
    /// A part of the file's content.
    Content(&'a [u8]),
    /// A part of the tar's own.
    Frame(usize),
}

impl Reader {
    pub(super) fn new(name: &FileName, size: u64) -> Reader {
        Reader { path: format!("{FOLDER}{name}"), size, has_folder: false, state: State::Headers(Vec::new()) }
    }

    /// Takes what `bytes`, of which there are some, begin with.
    pub(super) fn take<'a>(&mut self, bytes: &'a [u8]) -> Result<Piece<'a>, TarError> {
        match &mut self.state {
            State::Headers(header) => {
                let count = (BLOCK - header.len()).min(bytes.len());
                header.extend_from_slice(&bytes[..count]);
                if header.len() == BLOCK {
                    let header = std::mem::take(header);
                    self.state = if self.is_file(&header)? {
                        State::Content(self.size)
                    } else {
                        State::Headers(Vec::new())
                    };
                }
                Ok(Piece::Frame(count))
            }
            State::Content(0) => {
                self.state = State::Padding(padding(self.size));
                Ok(Piece::Frame(0))
            }
            State::Content(left) => {
                let count = (bytes.len() as u64).min(*left);
                *left -= count;
                Ok(Piece::Content(&bytes[..count as usize]))
            }
            State::Padding(0) => {
                self.state = State::End { block: Vec::new(), blocks: 0 };
                Ok(Piece::Frame(0))
            }
            State::Padding(left) => {
                let count = bytes.len().min(*left);
                *left -= count;
                match bytes[..count] == ZEROS[..count] {
                    true => Ok(Piece::Frame(count)),
                    false => Err(TarError::Trailing),
                }
            }
            State::End { block, blocks } => {
                let count = (BLOCK - block.len()).min(bytes.len());
                block.extend_from_slice(&bytes[..count]);
                if block.len() == BLOCK {
                    if block[..] != ZEROS[..BLOCK] {
                        let second = parse(block).map(|header| TarError::Stranger(path(header)));
                        return Err(second.unwrap_or(TarError::Trailing));
                    }
                    block.clear();
                    *blocks += 1;
                }
                match *blocks > MOST_END {
                    true => Err(TarError::Trailing),
                    false => Ok(Piece::Frame(count)),
                }
            }
        }
    }

    /// Whether all of it has come.
    pub(super) fn finish(&self) -> Result<(), TarError> {
        match &self.state {
            State::End { block, .. } if !block.is_empty() => Err(TarError::Trailing),
            State::End { blocks, .. } if *blocks >= END / BLOCK => Ok(()),
            State::Headers(_) | State::Content(_) | State::Padding(_) | State::End { .. } => {
                Err(TarError::Short)
            }
        }
    }

    /// Whether a header is the file's; it may be the folder's as well, and nothing else.
    fn is_file(&mut self, bytes: &[u8]) -> Result<bool, TarError> {
        let header = parse(bytes).ok_or(TarError::NoTar)?;
        let (own, path) = (header.path_bytes(), path(header));
        let plain = own.strip_prefix(b"./").unwrap_or(&own);
        let entry_type = header.entry_type();
        if plain.strip_suffix(b"/").unwrap_or(plain) == FOLDER.trim_end_matches('/').as_bytes()
            && entry_type.is_dir()
            && !self.has_folder
        {
            self.has_folder = true;
            return Ok(false);
        }
        if plain != self.path.as_bytes() {
            return Err(TarError::Stranger(path));
        }
        if let Some(kind) = kind(entry_type) {
            return Err(TarError::Kind { path, kind });
        }
        let found = header.entry_size().map_err(|_| TarError::NoTar)?;
        match found == self.size {
            true => Ok(true),
            false => Err(TarError::Size { path, expected: self.size, found }),
        }
    }
}

/// A block as a header, if its checksum is right.
fn parse(bytes: &[u8]) -> Option<&Header> {
    let block: &[u8; BLOCK] = bytes.try_into().ok()?;
    let header = Header::from_byte_slice(block);
    // The checksum counts its own field, bytes 148 to 155, as blanks.
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    let own: u32 = block[148..156].iter().map(|&byte| u32::from(byte)).sum();
    let expected = sum - own + 8 * u32::from(b' ');
    (header.cksum().ok()? == expected).then_some(header)
}

/// An entry's path, fit to be shown.
fn path(header: &Header) -> String {
    foreign(&String::from_utf8_lossy(&header.path_bytes()))
}

/// What an entry is, where it is no file.
fn kind(entry_type: EntryType) -> Option<&'static str> {
    match entry_type {
        EntryType::Regular | EntryType::Continuous => None,
        EntryType::Symlink => Some("a symbolic link"),
        EntryType::Link => Some("a link"),
        EntryType::Directory => Some("a folder"),
        EntryType::Char | EntryType::Block => Some("a device"),
        EntryType::Fifo => Some("a pipe"),
        EntryType::GNUSparse => Some("a sparse file of GNU tar's"),
        // tar's list is open, and has headers that only come before entries.
        _ => Some("of a kind that this program does not know"),
    }
}
