//! `bench`: a push measured side by side with crane.

use anyhow::{Result, bail};

use super::Session;
use crate::flags::Bench;

pub(crate) fn run(_flags: &Bench, _session: &Session) -> Result<()> {
    bail!("not here yet")
}
