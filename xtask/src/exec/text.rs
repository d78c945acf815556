//! What a program says, made fit to be shown: a terminal obeys what it is sent.

/// A line without escape sequences (ECMA-48) and other control characters, and with a mark where it
/// is not UTF-8. Of a line that overwrites itself, as bars do, the last state is left.
pub(crate) fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches('\r');
    let last = text.rsplit('\r').next().unwrap_or_default();
    let mut shown = String::with_capacity(last.len());
    let mut rest = last.chars();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => skip_escape(&mut rest),
            '\u{9b}' => skip_control_sequence(&mut rest),
            '\t' => shown.push('\t'),
            c if c.is_control() => {}
            c => shown.push(c),
        }
    }
    shown
}

/// What follows an ESC.
fn skip_escape(rest: &mut std::str::Chars<'_>) {
    match rest.next() {
        Some('[') => skip_control_sequence(rest),
        // A string, such as a window's title, ends with BEL or ESC \.
        Some(']' | 'P' | 'X' | '^' | '_') => {
            while let Some(c) = rest.next() {
                if c == '\u{7}' || c == '\u{9c}' {
                    break;
                }
                if c == '\u{1b}' {
                    rest.next();
                    break;
                }
            }
        }
        // One that chooses a character set has a third character.
        Some(' '..='/') => drop(rest.next()),
        Some(_) | None => {}
    }
}

/// Parameters, up to the final character.
fn skip_control_sequence(rest: &mut std::str::Chars<'_>) {
    for c in rest.by_ref() {
        if ('@'..='~').contains(&c) {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        let check = |line: &[u8], expected: &str| assert_eq!(printable(line), expected, "{line:?}");
        check("plain, \u{e9}, \ta tab".as_bytes(), "plain, \u{e9}, \ta tab");
        check(b"\x1b[1;31mred\x1b[0m and \x1b[2Jcleared", "red and cleared");
        check(b"\x1b]0;a title\x07shown \x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "shown link");
        check(b"\x1b(Bset \x1bcreset", "set reset");
        check(b"10%\r50%\r100%\r", "100%");
        check(b"bad \xff\xfe bytes\x00\x08", "bad \u{fffd}\u{fffd} bytes");
        check("\u{9b}31mC1 \u{85}next".as_bytes(), "C1 next");
        check(b"cut \x1b[12", "cut ");
        check(b"cut \x1b", "cut ");
        check(b"", "");
    }
}
