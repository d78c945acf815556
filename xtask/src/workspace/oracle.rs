//! Real programs that tests compare with. A test fails where its program is missing: a check that
//! is skipped is soon one that nobody has.

use std::io;
use std::process::{Command, Output, Stdio};

/// A program, and the Debian package that has it.
pub(crate) fn program(name: &str, package: &str) -> Command {
    let found = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        panic!("{name} is missing: run 'apt-get install {package}'");
    }
    let mut command = Command::new(name);
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
