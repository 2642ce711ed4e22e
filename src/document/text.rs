//! The text of one file with its lines, so that a place (two byte offsets) becomes a [`Span`] only when somebody asks.

use std::sync::Arc;

use crate::model::source::SourceFile;
use crate::model::span::Span;

/// The bytes of U+FEFF, which some editors put before the text; it is no part of the first line.
pub(super) const BOM: &str = "\u{feff}";

/// A stretch of a file as byte offsets, `start <= end`. Eight bytes, because every node has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub start: u32,
    pub end: u32,
}

impl Place {
    pub fn new(start: usize, end: usize) -> Self {
        let narrow = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
        Self { start: narrow(start), end: narrow(end.max(start)) }
    }

    /// From the beginning of this to the end of the other.
    #[must_use]
    pub fn to(self, other: Self) -> Self {
        Self { start: self.start, end: other.end.max(self.start) }
    }
}

/// A file's text, and where its lines begin. A line ends at `\n`; columns count characters from 1.
#[derive(Debug)]
pub struct Text {
    shown: Arc<str>,
    text: Arc<str>,
    /// Byte offsets at which lines begin; the first is 0, or 3 behind a byte-order mark.
    lines: Vec<u32>,
}

impl Text {
    pub fn new(file: &SourceFile) -> Self {
        let first = if file.text.starts_with(BOM) { BOM.len() } else { 0 };
        let mut lines = Vec::with_capacity(file.text.len() / 32 + 1);
        lines.push(Place::new(first, first).start);
        let breaks = file.text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        lines.extend(breaks.map(|(at, _)| Place::new(at + 1, at + 1).start));
        Self { shown: Arc::clone(&file.shown), text: Arc::clone(&file.text), lines }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn shown(&self) -> &Arc<str> {
        &self.shown
    }

    /// Where the text begins, behind a byte-order mark.
    pub(super) fn first(&self) -> usize {
        self.lines[0] as usize
    }

    /// The span of a place, cut at the end of its first line: a caret under a whole mapping says less than one under its
    /// first line. Offsets that are no character boundary of this text are moved back to one.
    pub fn span(&self, place: Place) -> Span {
        let start = self.boundary((place.start as usize).max(self.first()));
        let rest = &self.text[start..];
        let line_end = start + rest.find('\n').unwrap_or(rest.len());
        let line_end = if self.text[start..line_end].ends_with('\r') { line_end - 1 } else { line_end };
        let end = self.boundary((place.end as usize).clamp(start, line_end));
        let place = Place::new(start, end);
        let line = self.lines.partition_point(|begin| *begin <= place.start).max(1);
        let begin = self.lines[line - 1] as usize;
        let column = self.text[begin.min(start)..start].chars().count() + 1;
        Span {
            file: Arc::clone(&self.shown),
            line: Place::new(line, line).start,
            column: Place::new(column, column).start,
            start: place.start,
            end: place.end,
        }
    }

    /// The nearest character boundary at or before the offset.
    fn boundary(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}
