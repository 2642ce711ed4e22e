//! Environment variables and secret commands.

use std::path::Path;

use super::Answer;
use crate::model::secret::Secret;

/// Where secret values come from, apart from files.
pub trait Secrets {
    /// A variable of trueup's own environment.
    fn variable(&self, name: &str) -> Option<Secret>;
    /// What a command prints on standard output, one trailing newline removed. Bounded in time (10 s) and size (64 KiB). The
    /// answer is remembered for a while in the continuous mode, so that a password manager is not asked at every tick.
    /// The error text never holds output of the command, only its exit status and first line of standard error.
    fn command<'a>(&'a self, argv: &'a [String], dir: &'a Path) -> Answer<'a, Result<Secret, String>>;
}
