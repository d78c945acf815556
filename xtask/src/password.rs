//! Asks for a password: on the terminal, whatever standard input is, and without showing it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};

use anyhow::{Context, Result};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::exec::interrupt::CleanUp;
use crate::hint::WithHint;

/// No password is longer than this, in bytes: it is what a terminal takes for a line.
/// Source: termios(3), "Canonical and noncanonical mode".
const MAX: usize = 4096;

/// Asks `question`; `hint` says what to do where there is no terminal. However the answer ends, the
/// terminal then shows again what is typed.
pub(crate) fn ask(question: &str, hint: &str) -> Result<Zeroizing<Vec<u8>>> {
    let mut terminal = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .context("asking for a password on the terminal")
        .hint(hint)?;
    let answer = silently(&mut terminal, question).context("asking for a password on the terminal")?;
    writeln!(terminal).context("writing to the terminal")?;
    Ok(answer)
}

fn silently(terminal: &mut File, question: &str) -> Result<Zeroizing<Vec<u8>>> {
    let before = tcgetattr(&*terminal)?;
    let mut silent = before.clone();
    silent.local_modes -= LocalModes::ECHO | LocalModes::ECHONL;
    let same = terminal.try_clone()?;
    let _shown_again = CleanUp::afterwards(move || {
        // A terminal that is gone shows nothing.
        tcsetattr(&same, OptionalActions::Drain, &before).ok();
    });
    // Answers that were typed before the question are thrown away.
    tcsetattr(&*terminal, OptionalActions::Flush, &silent)?;
    write!(terminal, "{question}: ")?;
    // A terminal gives a line at a time.
    let mut line = Zeroizing::new(vec![0; MAX]);
    let length = terminal.read(&mut line)?;
    line.truncate(length);
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(line)
}
