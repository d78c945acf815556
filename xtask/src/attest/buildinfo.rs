//! What a Go program says about itself: the Go that built it, and the modules that are in it.
//! Source: Go's debug/buildinfo, `read`, and runtime/debug, `ParseBuildInfo`; the form that
//! programs have since Go 1.18.

use object::read::elf::ElfFile64;
use object::{Endian, Object, ObjectSection};

/// Where an ELF file says which end its numbers begin with, and what it says for the big one.
/// Source: elf(5), `e_ident`.
const EI_DATA: usize = 5;
const BIG_ENDIAN: u8 = 2;

const SECTION: &str = ".go.buildinfo";
/// Begins what is in the section.
const MAGIC: &[u8] = b"\xff Go buildinf:";
/// Where the flags are, and the one that says that two strings follow the header.
const FLAGS: usize = 15;
const INLINE: u8 = 2;
/// Of the header, in bytes.
const HEADER: usize = 32;
/// What is before and behind the list of modules, in bytes.
const SENTINEL: usize = 16;

/// What is in a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BuildInfo {
    /// Such as `go1.26.8`.
    pub(crate) go: String,
    /// The module that the program belongs to.
    pub(crate) main: String,
    /// The others, in Go's order.
    pub(crate) modules: Vec<Module>,
}

/// A module of others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Module {
    pub(crate) path: String,
    /// None where a folder has taken its place.
    pub(crate) version: Option<String>,
    /// `h1:` and the hash that go.sum has.
    pub(crate) sum: Option<String>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BuildInfoError {
    #[error("it is no ELF program: {0}")]
    Elf(String),
    #[error("it has no section {SECTION}: Go has not built it")]
    Section,
    #[error("its section {SECTION} is not what Go writes: {0}")]
    Form(&'static str),
}

impl BuildInfo {
    /// Reads it from a 64-bit ELF program.
    pub(crate) fn read(program: &[u8]) -> Result<BuildInfo, BuildInfoError> {
        let data = match program.get(EI_DATA) {
            Some(&BIG_ENDIAN) => section::<object::BigEndian>(program)?,
            _ => section::<object::LittleEndian>(program)?,
        };
        let start = data.windows(MAGIC.len()).position(|window| window == MAGIC);
        let data = &data[start.ok_or(BuildInfoError::Form("its first words are missing"))?..];
        if data.get(FLAGS).is_none_or(|flags| flags & INLINE == 0) {
            return Err(BuildInfoError::Form("it is older than Go 1.18"));
        }
        let rest = data.get(HEADER..).ok_or(BuildInfoError::Form("it is cut off"))?;
        let (go, rest) = string(rest)?;
        let (modules, _) = string(rest)?;
        let end = modules.len().checked_sub(SENTINEL).filter(|&end| end > SENTINEL);
        let end = end.ok_or(BuildInfoError::Form("it has no modules"))?;
        BuildInfo::parse(text(go)?, text(&modules[SENTINEL..end])?)
    }

    fn parse(go: &str, lines: &str) -> Result<BuildInfo, BuildInfoError> {
        let mut main = None;
        let mut modules: Vec<Module> = Vec::new();
        for line in lines.lines() {
            let words: Vec<&str> = line.split('\t').collect();
            match words[..] {
                ["mod", path, ..] => main = Some(path.to_owned()),
                ["dep", path, ref rest @ ..] => modules.push(module(path, rest)),
                ["=>", path, ref rest @ ..] => {
                    let replaced = modules.last_mut().ok_or(BuildInfoError::Form("it replaces no module"))?;
                    // A folder's name is nobody's business.
                    *replaced = match module(path, rest) {
                        module if module.version.is_some() => module,
                        _ => Module { version: None, sum: None, path: replaced.path.clone() },
                    };
                }
                // The program's package, and settings, which are ours.
                _ => {}
            }
        }
        let main = main.ok_or(BuildInfoError::Form("it names no module"))?;
        Ok(BuildInfo { go: go.to_owned(), main, modules })
    }
}

fn section<E: Endian>(program: &[u8]) -> Result<&[u8], BuildInfoError> {
    let invalid = |error: object::Error| BuildInfoError::Elf(error.to_string());
    let elf = ElfFile64::<E>::parse(program).map_err(invalid)?;
    elf.section_by_name(SECTION).ok_or(BuildInfoError::Section)?.data().map_err(invalid)
}

fn module(path: &str, rest: &[&str]) -> Module {
    let word = |at: usize| rest.get(at).filter(|word| !word.is_empty()).map(|&word| word.to_owned());
    let version = word(0).filter(|version| version != "(devel)");
    Module { path: path.to_owned(), version, sum: word(1) }
}

/// A string behind its length, which is a varint, and what follows.
fn string(bytes: &[u8]) -> Result<(&[u8], &[u8]), BuildInfoError> {
    let cut = BuildInfoError::Form("a string in it is cut off");
    let mut length = 0u64;
    for (position, &byte) in bytes.iter().enumerate().take(9) {
        length |= u64::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            let rest = &bytes[position + 1..];
            return match usize::try_from(length) {
                Ok(length) if length <= rest.len() => Ok(rest.split_at(length)),
                Ok(_) | Err(_) => Err(cut),
            };
        }
    }
    Err(cut)
}

fn text(bytes: &[u8]) -> Result<&str, BuildInfoError> {
    std::str::from_utf8(bytes).map_err(|_| BuildInfoError::Form("a string in it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(path: &str, version: Option<&str>, sum: Option<&str>) -> Module {
        Module { path: path.to_owned(), version: version.map(str::to_owned), sum: sum.map(str::to_owned) }
    }

    #[test]
    fn modules_are_read_with_what_replaces_them() {
        let lines = "path\texample.com/shop\nmod\texample.com/shop\t(devel)\t\n\
             dep\texample.com/a\tv1.2.3\th1:aaaa=\n\
             dep\texample.com/b\tv1.0.0\n=>\texample.com/fork\tv1.0.1\th1:bbbb=\n\
             dep\texample.com/c\tv0.0.0\n=>\t/home/me/c\t(devel)\t\n\
             build\t-compiler=gc\n";
        let info = BuildInfo::parse("go1.26.8", lines).unwrap();
        assert_eq!((info.go.as_str(), info.main.as_str()), ("go1.26.8", "example.com/shop"));
        let expected = [
            module("example.com/a", Some("v1.2.3"), Some("h1:aaaa=")),
            module("example.com/fork", Some("v1.0.1"), Some("h1:bbbb=")),
            module("example.com/c", None, None),
        ];
        assert_eq!(info.modules, expected);
        let nothing = BuildInfo::parse("go1.26.8", "path\tx\n");
        assert_eq!(nothing, Err(BuildInfoError::Form("it names no module")));
        let first = BuildInfo::parse("go1.26.8", "=>\tx\tv1\n");
        assert_eq!(first, Err(BuildInfoError::Form("it replaces no module")));
    }

    #[test]
    fn what_go_has_not_built_is_told() {
        let told = |program: &[u8]| BuildInfo::read(program).unwrap_err().to_string();
        assert!(told(b"#!/bin/sh\n").starts_with("it is no ELF program: "));
        // Of this test, 64-bit ELF that rustc has written.
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(told(&own), "it has no section .go.buildinfo: Go has not built it");
        for end in [64, 4096, own.len() / 2] {
            assert!(BuildInfo::read(&own[..end]).is_err());
        }
    }

    #[test]
    fn strings_end_where_they_say() {
        assert_eq!(string(b"\x03abcd"), Ok((&b"abc"[..], &b"d"[..])));
        for bad in [&b""[..], b"\x04abc", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01a"] {
            assert_eq!(string(bad), Err(BuildInfoError::Form("a string in it is cut off")));
        }
    }
}
