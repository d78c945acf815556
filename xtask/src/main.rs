//! `cargo xtask`: Go source to a bootable, upgradable OS image. docs/architecture.md is the map.

mod exec;
mod hint;
mod layer;
mod oci;
mod progress;
mod workspace;

fn main() {}
