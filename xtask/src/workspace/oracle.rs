//! Real programs that tests compare with.

use std::process::{Command, Output, Stdio};

/// A program that judges.
pub(crate) fn program(name: &str) -> Command {
    let mut command = Command::new(crate::testing::program(name));
    command.stdin(Stdio::null());
    command
}

/// Runs a program that has to succeed: what it wrote to standard output, then to standard error.
pub(crate) fn succeed(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = [stdout, stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(status.success(), "{command:?} failed ({status}):\n{text}");
    text.into_owned()
}
