//! What an import says of what it found.

use serde::Serialize;

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Level {
    /// Something could not be taken over.
    LeftOut,
    /// It was taken over, and somebody should look at it.
    Warning,
    /// How it was taken over.
    Note,
}

/// One sentence about one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub level: Level,
    /// `file:line:column`, or only a file.
    pub at: String,
    pub message: String,
}

impl Note {
    pub fn new(level: Level, at: impl Into<String>, message: impl Into<String>) -> Self {
        Self { level, at: at.into(), message: message.into() }
    }

    /// For sorting: the file, then its lines as numbers.
    pub fn place(&self) -> (&str, u32, u32) {
        let mut parts = self.at.rsplitn(3, ':');
        let (column, line) = (parts.next().and_then(|c| c.parse().ok()), parts.next().and_then(|l| l.parse().ok()));
        match (parts.next(), line, column) {
            (Some(file), Some(line), Some(column)) => (file, line, column),
            _ => (&self.at, 0, 0),
        }
    }
}
