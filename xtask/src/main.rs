//! `cargo xtask`: Go source to a bootable, upgradable OS image. docs/architecture.md is the map.

mod archive;
mod attest;
mod base;
mod build;
mod builder;
mod cmd;
mod compose;
mod deliver;
mod diff;
mod disk;
mod exec;
mod flags;
mod git;
mod hint;
mod layer;
mod oci;
mod pack;
mod password;
mod preflight;
mod progress;
mod registry;
mod release;
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
