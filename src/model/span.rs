//! Where something stands in a file.

use std::fmt;
use std::sync::Arc;

/// A stretch of one file. Lines and columns count from 1; columns count characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The path as shown to people (relative to where the command was run, when it can be).
    pub file: Arc<str>,
    pub line: u32,
    pub column: u32,
    /// Byte offsets into the file's text, `start <= end`.
    pub start: u32,
    pub end: u32,
}

impl Span {
    /// The very beginning of a file: for problems of the file as a whole.
    pub fn file_start(file: Arc<str>) -> Self {
        Self { file, line: 1, column: 1, start: 0, end: 0 }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}:{}:{}", self.file, self.line, self.column))
    }
}
