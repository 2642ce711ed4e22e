//! Makes text from outside harmless on a terminal: no escape sequence, control character or hidden direction change gets through.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Characters that turn the direction of text around them; they can make a line read differently from what it is.
fn turns_text(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

fn harmful(c: char) -> bool {
    c.is_control() || turns_text(c) || matches!(c, '\u{2028}' | '\u{2029}')
}

/// One line of text: control characters are written out (`\n`, `\u{1b}`), everything else stays.
pub fn line(text: &str) -> Cow<'_, str> {
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if harmful(c) { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    Cow::Owned(safe)
}

/// A block that we rendered ourselves with text from outside in it: newlines, tabs and our own colours stay.
pub fn block(text: &str) -> Cow<'_, str> {
    if !text.contains(|c| harmful(c) && c != '\n' && c != '\t') {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let colour = colour_length(rest);
        if colour > 0 {
            safe.push_str(&rest[..colour]);
            rest = &rest[colour..];
            continue;
        }
        if harmful(c) && c != '\n' && c != '\t' {
            safe.extend(c.escape_default())
        } else {
            safe.push(c)
        }
        rest = &rest[c.len_utf8()..];
    }
    Cow::Owned(safe)
}

/// The length of the colour sequence (`ESC [ digits m`) that the text begins with, or 0.
fn colour_length(text: &str) -> usize {
    let Some(parameters) = text.strip_prefix("\u{1b}[") else { return 0 };
    match parameters.find(|c: char| !c.is_ascii_digit() && c != ';') {
        Some(end) if parameters[end..].starts_with('m') => 2 + end + 1,
        _ => 0,
    }
}

/// Bytes as text: what is no UTF-8 is written as `\xNN`.
pub fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// A line of a module's output: its colours, cursor movements and titles are taken out; other controls are written out, so
/// that binary output stays visible. Tabs stay.
pub fn output(raw: &str) -> Cow<'_, str> {
    let harmful = |c: char| harmful(c) && c != '\t';
    if !raw.contains(harmful) {
        return Cow::Borrowed(raw);
    }
    let mut safe = String::with_capacity(raw.len() + 16);
    let mut rest = raw;
    while let Some(c) = rest.chars().next() {
        let skipped = sequence_length(rest);
        if skipped == 0 {
            if harmful(c) { safe.extend(c.escape_default()) } else { safe.push(c) }
        }
        rest = &rest[skipped.max(c.len_utf8())..];
    }
    Cow::Owned(safe)
}

/// The length of the escape sequence that the text begins with (ECMA-48: CSI, or OSC up to its end), or 0.
fn sequence_length(text: &str) -> usize {
    if let Some(body) = text.strip_prefix("\u{1b}[") {
        let last = body.find(|c: char| !matches!(c, ' '..='?'));
        return last.filter(|at| matches!(body.as_bytes()[*at], b'@'..=b'~')).map_or(0, |at| 2 + at + 1);
    }
    let Some(body) = text.strip_prefix("\u{1b}]") else { return 0 };
    let bell = body.find('\u{7}').map(|at| at + 1);
    let terminator = body.find("\u{1b}\\").map(|at| at + 2);
    bell.into_iter().chain(terminator).min().map_or(0, |end| 2 + end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_lose_their_power() {
        assert_eq!(line("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb\\nc");
        assert_eq!(line("plain ünïcode 漢字"), "plain ünïcode 漢字");
        assert_eq!(line("evil\u{202e}txt"), "evil\\u{202e}txt");
        assert_eq!(output("\u{1b}[31mred\u{1b}[0m\tx\u{7}"), "red\tx\\u{7}");
        assert_eq!(output("\u{1b}]8;;http://x\u{1b}\\link\u{1b}]0;t\u{7}!"), "link!");
        assert_eq!(output("\u{1b}[31\u{1b}]never ends\u{1b}"), "\\u{1b}[31\\u{1b}]never ends\\u{1b}");
    }

    proptest::proptest! {
        #[test]
        fn nothing_harmful_gets_through(text in "[\u{1b}\\[\\]0-9;mA漢\u{7}\u{9b}\\\\ ]{0,40}") {
            let controls = |text: &str| text.contains(char::is_control);
            proptest::prop_assert!(!controls(&line(&text)));
            proptest::prop_assert!(!controls(&output(&text)));
            let plain = anstream::adapter::strip_str(&block(&text)).to_string();
            proptest::prop_assert!(!controls(&plain));
        }
    }

    #[test]
    fn a_block_keeps_its_colours_only() {
        assert_eq!(block("\u{1b}[1;31merror\u{1b}[0m\n x"), "\u{1b}[1;31merror\u{1b}[0m\n x");
        assert_eq!(block("\u{1b}]0;title\u{7}\u{1b}[2J"), "\\u{1b}]0;title\\u{7}\\u{1b}[2J");
        assert_eq!(block("\u{1b}[31"), "\\u{1b}[31");
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_numbers() {
        assert_eq!(text(b"ok \xff\xfe end"), "ok \\xff\\xfe end");
        assert_eq!(text("漢".as_bytes()), "漢");
    }
}
