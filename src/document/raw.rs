//! What is wrong with a text before YAML is even asked: control characters, and the marks of an unfinished merge.

use std::borrow::Cow;

use super::text::{Place, Text};
use crate::model::problem::{Code, Problem};

/// A text fit for the YAML parser, and what had to be taken out of it.
pub(super) struct Raw<'a> {
    /// As long as the file, so that offsets agree.
    pub text: Cow<'a, str>,
    /// Each makes the documents it touches unusable.
    pub problems: Vec<(Place, Problem)>,
}

/// Looks the text over. It goes on being parsed, so that one mistake does not hide the others.
pub(super) fn look(text: &Text) -> Raw<'_> {
    let mut raw = Raw { text: Cow::Borrowed(text.as_str()), problems: Vec::new() };
    control_characters(text, &mut raw);
    merge_marks(text, &mut raw);
    raw
}

/// YAML allows no control characters but tab and line breaks, and NUL would even end the text for the parser.
fn control_characters(text: &Text, raw: &mut Raw<'_>) {
    let control = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}');
    // Nearly no file has any: one pass over the bytes finds out. 0xC2 begins U+0080 to U+009F.
    let suspicious = |b: u8| (b < 0x20 && !matches!(b, b'\t' | b'\n' | b'\r')) || b == 0x7f || b == 0xc2;
    if !text.as_str().bytes().any(suspicious) {
        return;
    }
    let found: Vec<(usize, char)> = text.as_str().char_indices().filter(|(_, c)| control(*c)).collect();
    let Some((at, character)) = found.first().copied() else { return };
    let place = Place::new(at, at + character.len_utf8());
    let what = match character {
        '\0' => "a NUL byte".to_owned(),
        '\u{1b}' => "an escape character (U+001B)".to_owned(),
        other => format!("a control character (U+{:04X})", u32::from(other)),
    };
    let mut problem = Problem::error(Code::Syntax, text.span(place), format!("{what} in the text"));
    problem = match found.len() {
        1 => problem.label("not allowed in YAML"),
        many => problem.label(format!("not allowed in YAML; the first of {many} in this file")),
    };
    problem = match character {
        '\0' => problem.hint("save the file as UTF-8 text; UTF-16 and binary files are full of NUL bytes"),
        _ => problem.hint("remove it, or write it as an escape in double quotes, such as \"\\e\" or \"\\x07\""),
    };
    let places = found.iter().map(|(at, c)| Place::new(*at, *at + c.len_utf8()));
    raw.problems.push((place, problem));
    blank(raw, places.collect());
}

/// `<<<<<<< ours`, `=======`, `>>>>>>> theirs` at the beginning of a line, as git, jj and diff3 write them. What parses on
/// is "ours", so that the rest of the document is looked at as well.
fn merge_marks(text: &Text, raw: &mut Raw<'_>) {
    if !text.as_str().contains("<<<<<<< ") {
        return;
    }
    let mut blanks = Vec::new();
    let mut open: Option<(Place, Option<Place>)> = None;
    let mut at = 0;
    for line in text.as_str().split_inclusive('\n') {
        let place = Place::new(at, at + line.trim_end().len());
        at += line.len();
        let from_base = line.starts_with("||||||| ") || line.trim_end() == "=======";
        match &mut open {
            None if line.starts_with("<<<<<<< ") => {
                blanks.push(place);
                open = Some((place, None));
            }
            Some((_, middle)) if from_base && middle.is_none() => *middle = Some(place),
            Some((first, middle)) if line.starts_with(">>>>>>> ") => {
                blanks.push(middle.unwrap_or(place).to(place));
                let mut problem =
                    Problem::error(Code::Syntax, text.span(*first), "a merge conflict is left in the file");
                problem = problem.label("one side begins here");
                if let Some(middle) = *middle {
                    problem = problem.also(text.span(middle), "the other side begins here");
                }
                problem = problem.also(text.span(place), "and ends here");
                problem = problem.hint("decide for one side, and remove the lines with <<<<<<<, ======= and >>>>>>>");
                raw.problems.push((first.to(place), problem));
                open = None;
            }
            None | Some(_) => {}
        }
    }
    if let Some((first, _)) = open {
        let problem = Problem::error(Code::Syntax, text.span(first), "a merge conflict is left in the file")
            .label("it begins here, and its end is missing")
            .hint("remove the lines with <<<<<<<, ======= and >>>>>>>");
        raw.problems.push((first.to(Place::new(at, at)), problem));
    }
    blank(raw, blanks);
}

/// Puts spaces in the place of these stretches; line breaks stay.
fn blank(raw: &mut Raw<'_>, places: Vec<Place>) {
    let mut bytes = raw.text.as_bytes().to_vec();
    for place in places {
        for byte in &mut bytes[place.start as usize..place.end as usize] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    }
    // The stretches begin and end between characters, so what is left is UTF-8.
    raw.text = Cow::Owned(String::from_utf8(bytes).expect("whole characters were replaced by spaces"));
}
