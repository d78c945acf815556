//! `cargo xtask`: Go source to a bootable, upgradable OS image. docs/architecture.md is the map.

mod exec;
mod hint;
mod oci;
mod progress;
mod registry;
#[cfg(test)]
mod testing;

fn main() {}
