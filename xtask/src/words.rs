//! What others say, made fit to be shown: a terminal obeys what it is sent, and so does whoever reads
//! a line that only looks like one of ours.
//!
//! All that is shown goes through [`lines`] or [`json`] in the end. Where a sentence of ours has a
//! stranger's words in it, [`foreign`] keeps them to themselves.

use std::borrow::Cow;

/// What a sentence repeats of a stranger's words, in characters.
const LONGEST: usize = 300;

/// Text of several lines without anything that a terminal obeys.
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| matches!(c, '\n' | '\t') || !is_unfit(c);
    match text.chars().all(is_plain) {
        true => Cow::Borrowed(text),
        false => {
            let lines: Vec<String> = text.split('\n').map(|line| printable(line.as_bytes())).collect();
            Cow::Owned(lines.join("\n"))
        }
    }
}

/// JSON that says the same, and has nothing in it that a terminal obeys. serde_json leaves what JSON
/// itself allows. Source: RFC 8259, 7.
pub(crate) fn json(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => shown.push(c),
            c if is_unfit(c) => shown += &format!("\\u{:04x}", u32::from(c)),
            c => shown.push(c),
        }
    }
    shown
}

/// A stranger's words within a sentence of ours: on its line, and not for a whole screen.
pub(crate) fn foreign(text: &str) -> String {
    // More than enough is left when escape sequences are gone.
    let some = text.chars().take(4 * LONGEST).map(|c| if c.is_whitespace() { ' ' } else { c });
    let line = printable(some.collect::<String>().as_bytes());
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

/// Whether a character moves the cursor, or changes how those around it are read: controls, line and
/// paragraph separators, and what is invisible or turns the direction of writing.
/// Source: ECMA-48, 5; Unicode 16.0, UAX #9, 2, and table 23-2.
fn is_unfit(c: char) -> bool {
    let is_invisible = matches!(
        c,
        '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    );
    c.is_control() || is_invisible
}

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
            c if is_unfit(c) => {}
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
        check("abc\u{202e}txt\u{2069}\u{200b}.exe".as_bytes(), "abctxt.exe");
    }

    #[test]
    fn lines_stay_lines() {
        assert_eq!(lines("one\n\ttwo\n"), "one\n\ttwo\n");
        assert!(matches!(lines("one\ntwo"), Cow::Borrowed(_)));
        assert_eq!(lines("\u{1b}[2Jone\ntwo\r\n\u{9b}3mthree\u{2028}"), "one\ntwo\nthree");
    }

    #[test]
    fn json_says_the_same() {
        let value = serde_json::json!({"key\u{7f}": "\u{1b}[2J\u{9b}2J\u{202e}\n\u{e9}"});
        let text = json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(text.chars().all(|c| c == '\n' || !is_unfit(c)), "{text:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    #[test]
    fn a_strangers_words_are_on_one_line_and_few() {
        assert_eq!(foreign("not found\nhint: run 'x'\u{1b}[31m\r!\u{2028}"), "not found hint: run 'x' ! ");
        assert_eq!(foreign(&"a".repeat(LONGEST)), "a".repeat(LONGEST));
        assert_eq!(foreign(&"\u{e9}".repeat(100_000)), "\u{e9}".repeat(LONGEST) + "...");
    }
}
