//! `man`: a page of the manual for each command.

use std::path::Path;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_mangen::Man;

use super::Session;
use crate::flags::Flags;

pub(crate) fn run(dir: &Path, session: &Session) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    // `man cargo-xtask-dist` is what people ask for; `help` has nothing of its own to say.
    let command = Flags::command().name("cargo-xtask").bin_name("cargo xtask").disable_help_subcommand(true);
    let mut command = command.display_name("cargo-xtask");
    command.build();
    let mut pages = Vec::new();
    write(&command, dir, &mut pages)?;
    session.print(&pages, || pages.join("\n"))
}

/// The page of a command, and those of what is below it.
fn write(command: &clap::Command, dir: &Path, pages: &mut Vec<String>) -> Result<()> {
    let page = Man::new(command.clone()).manual("bootc-testboot").source("bootc-testboot");
    let path = page.generate_to(dir).with_context(|| format!("writing pages to {}", dir.display()))?;
    pages.push(path.display().to_string());
    command.get_subcommands().try_for_each(|below| write(below, dir, pages))
}
