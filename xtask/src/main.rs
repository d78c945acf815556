//! `cargo xtask`: Go source to a bootable, upgradable OS image. docs/architecture.md is the map.

mod exec;
mod flags;
mod hint;
mod layer;
mod oci;
mod preflight;
mod progress;
mod store;

fn main() {}
