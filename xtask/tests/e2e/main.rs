//! The real binary in temporary workspaces, with real programs as judges of what it makes.

#![allow(clippy::unwrap_used, reason = "all of it is tests")]

mod archive;
mod base;
mod base_failures;
mod bases;
mod boot;
mod breaks;
mod builders;
mod config;
mod containerfiles;
mod disk;
mod docs;
mod engine;
mod failures;
mod first_boot;
mod harness;
mod host;
mod hostile;
mod image;
mod installed;
mod interrupts;
mod iso;
mod jobs;
mod kills;
mod manners;
mod new_app;
mod osbuild_installer;
mod pack;
mod published;
mod referrers;
mod refused_disks;
mod release;
mod root;
mod root_of_disk;
mod self_installing;
mod sign;
mod standin;
mod sudo;
#[allow(dead_code, unused_imports, reason = "the unit tests use the rest")]
#[path = "../../src/testing/mod.rs"]
mod testing;
mod tuning;
mod values;
mod workflows;
