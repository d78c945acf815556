//! `cargo xtask`: Go source to a bootable, upgradable OS image. docs/architecture.md is the map.

// What is pure says so here or where its parent names it, and clippy holds it to that: clippy.toml has
// what it does not do. An archive and a disk are of files that somebody has opened.
#[cfg_attr(not(test), deny(clippy::disallowed_methods))]
mod archive;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
mod attest;
mod base;
mod build;
mod builder;
mod cmd;
mod compose;
mod deliver;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
mod diff;
#[cfg_attr(not(test), deny(clippy::disallowed_methods))]
mod disk;
mod exec;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
mod flags;
mod git;
mod hint;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
mod layer;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
mod oci;
mod pack;
mod password;
mod preflight;
mod progress;
mod read_at;
mod registry;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
mod release;
#[cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
mod report;
mod sign;
mod source;
mod store;
mod subids;
#[cfg(test)]
mod testing;
mod unfinished;
mod vm;
mod words;
mod workspace;

use std::process::ExitCode;

use progress::{Progress, Verbosity};

fn main() -> ExitCode {
    let flags = flags::Flags::read();
    match exec::interrupt::end_on_interrupt().and_then(|()| cmd::run(flags)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if exec::interrupt::interrupted() => exec::interrupt::exit_interrupted(),
        Err(error) => {
            Progress::new(Verbosity::Quiet).error(&error);
            ExitCode::FAILURE
        }
    }
}
