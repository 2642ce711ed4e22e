//! One mistake as people read it: code, message, the lines with carets, and what to do.

use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use crate::model::problem::{Label, Problem, Severity};
use crate::model::source::Sources;
use crate::model::span::Span;

/// A longer line is shown only around the place that is meant: the terminal shows no more, and drawing it takes long.
const LONGEST_LINE: usize = 16_000;

/// So much of an overlong line is kept before and after the place.
const AROUND: usize = 100;

/// Renders a problem. Nothing that stands in a file can reach the terminal as a control sequence.
pub fn render(problem: &Problem, sources: &Sources, color: bool) -> String {
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(level.primary_title(visible(&problem.message)).id(problem.code.as_str()));
    for (index, part) in parts(problem).into_iter().enumerate() {
        let span = &part[0].span;
        let text = sources.get(&span.file).filter(|text| part.iter().all(|label| shows(&label.span, text)));
        group = match text {
            Some(text) => match window(text, &part) {
                (lines, true) => group.element(origin(span)).element(snippet(text, lines, &part, index == 0)),
                (lines, false) => group.element(snippet(text, lines, &part, index == 0).path(visible(&span.file))),
            },
            None => {
                let origin = origin(span);
                let said = part.iter().filter(|label| !label.text.is_empty());
                said.fold(group.element(origin), |group, label| {
                    group.element(Level::NOTE.message(visible(&label.text)))
                })
            }
        };
    }
    if let Some(hint) = &problem.hint {
        group = group.element(Level::HELP.message(visible(hint)));
    }
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let mut text = renderer.render(&[group]);
    text.push('\n');
    text
}

/// Labels by file, the first label's file first. A label without a text of its own to show stands alone.
fn parts(problem: &Problem) -> Vec<Vec<&Label>> {
    let mut parts: Vec<Vec<&Label>> = Vec::new();
    for label in &problem.labels {
        let same = parts
            .iter_mut()
            .find(|part| part[0].span.file == label.span.file && !bare(&label.span) && !bare(&part[0].span));
        match same {
            Some(part) => part.push(label),
            None => parts.push(vec![label]),
        }
    }
    parts
}

/// A span of a file as a whole, or of a document that the ledger kept: its offsets say nothing.
fn bare(span: &Span) -> bool {
    span.start == 0 && span.end == 0
}

fn shows(span: &Span, text: &str) -> bool {
    !bare(span) && text.get(span.start as usize..span.end as usize).is_some()
}

fn origin<'a>(span: &Span) -> Origin<'a> {
    if bare(span) && span.line == 1 && span.column == 1 {
        // A file or folder as a whole: it has no line.
        return Origin::path(visible(&span.file));
    }
    Origin::path(visible(&span.file)).line(span.line as usize).char_column(span.column as usize)
}

/// The lines from the first label to the last; with `true`, an overlong line is cut to what is around the labels, and the
/// renderer can no longer count its columns.
fn window(text: &str, labels: &[&Label]) -> (Range<usize>, bool) {
    let first = labels.iter().map(|label| label.span.start as usize).min().unwrap_or(0);
    let last = labels.iter().map(|label| label.span.end as usize).max().unwrap_or(first);
    let from = text[..first].rfind('\n').map_or(0, |at| at + 1);
    let from = if text[from..first].starts_with('\u{feff}') { from + '\u{feff}'.len_utf8() } else { from };
    let to = text[last..].find('\n').map_or(text.len(), |at| last + at);
    if text[from..to].split('\n').all(|line| line.len() <= LONGEST_LINE) {
        return (from..to, false);
    }
    let (mut start, mut end) = (first.saturating_sub(AROUND).max(from), (last.min(first + AROUND) + AROUND).min(to));
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    (start..end, true)
}

/// A stretch of a file, with all labels in it.
fn snippet<'a>(text: &str, window: Range<usize>, labels: &[&Label], primary: bool) -> Snippet<'a, Annotation<'a>> {
    let line = labels.iter().map(|label| label.span.line).min().unwrap_or(1) as usize;
    let mut snippet = Snippet::source(same_width(&text[window.clone()])).line_start(line);
    for (index, label) in labels.iter().enumerate() {
        let kind = if primary && index == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
        let within = |offset: u32| (offset as usize).clamp(window.start, window.end) - window.start;
        let mut annotation = kind.span(within(label.span.start)..within(label.span.end));
        if !label.text.is_empty() {
            annotation = annotation.label(visible(&label.text));
        }
        snippet = snippet.annotation(annotation);
    }
    snippet
}

/// Source text in which every character that could steer a terminal is replaced by a harmless one of the same length, so
/// that offsets hold. ASCII control characters are left: the renderer draws pictures of them.
fn same_width(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match (steers(character), character.len_utf8()) {
            (true, 2) => out.push('\u{b7}'),
            (true, 3) => out.push('\u{fffd}'),
            // Half of a line break.
            _ if character == '\r' => out.push(' '),
            _ => out.push(character),
        }
    }
    out
}

/// Text of messages, in which control characters are written out.
fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii_control() || steers(character) {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    out
}

/// C1 controls, invisible characters and those that turn the direction of writing.
fn steers(character: char) -> bool {
    matches!(character, '\u{80}'..='\u{9f}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::problem::Code;

    fn at(file: &str, text: &str, word: &str) -> Span {
        let start = text.find(word).expect("the word is in the text");
        let line = text[..start].matches('\n').count() + 1;
        let column = text[..start].rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
        let narrow = |n: usize| u32::try_from(n).expect("small");
        Span {
            file: file.into(),
            line: narrow(line),
            column: narrow(column),
            start: narrow(start),
            end: narrow(start + word.len()),
        }
    }

    #[test]
    fn a_problem_shows_every_place_and_the_hint() {
        let a = "first: 1\nport: 1940\n";
        let b = "x: 日本\nport: 1940 # ä\n";
        let sources: Sources = [("a.yaml".into(), a.into()), ("b.yaml".into(), b.into())].into();
        let problem = Problem::error(Code::PortClash, at("a.yaml", a, "1940"), "both want port 1940")
            .label("one wants it")
            .also(at("b.yaml", b, "1940"), "the other wants it")
            .hint("choose another port");
        let expected = "\
error[E0204]: both want port 1940
 --> a.yaml:2:7
  |
2 | port: 1940
  |       ^^^^ one wants it
  |
 ::: b.yaml:2:7
  |
2 | port: 1940 # ä
  |       ---- the other wants it
  |
  = help: choose another port
";
        assert_eq!(render(&problem, &sources, false), expected);
    }

    #[test]
    fn nothing_in_a_file_can_steer_the_terminal() {
        let text = "name: \u{1b}[31mred\u{9b}2J\u{202e}\u{200b}x\u{7}\n";
        let sources: Sources = [("\u{1b}]0;a.yaml".into(), text.into())].into();
        let problem = Problem::error(Code::OutOfRange, at("\u{1b}]0;a.yaml", text, "red"), "bad \u{1b}[2J name")
            .label("here \u{9b}1m")
            .hint("not \u{7} so");
        let shown = render(&problem, &sources, false);
        assert!(shown.chars().all(|c| c == '\n' || !c.is_control() && !steers(c)), "{shown:?}");
        assert!(shown.contains(":1:12"), "{shown}");
    }

    #[test]
    fn an_overlong_line_is_cut_around_the_place() {
        let text = format!("a: {}word{}", "x".repeat(500_000), "y".repeat(500_000));
        let sources: Sources = [("a.yaml".into(), text.as_str().into())].into();
        let shown = render(&Problem::error(Code::Syntax, at("a.yaml", &text, "word"), "here"), &sources, false);
        assert!(shown.len() < 2_000 && shown.contains("^^^^") && shown.contains("a.yaml:1:500004"), "{shown}");
    }
}
