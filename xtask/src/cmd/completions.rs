//! `completions`: what a shell reads to complete `cargo-xtask`.

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::flags::Flags;

pub(crate) fn run(shell: Shell) -> Result<()> {
    clap_complete::generate(shell, &mut Flags::command(), "cargo-xtask", &mut std::io::stdout());
    Ok(())
}
