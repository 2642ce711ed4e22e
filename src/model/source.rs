//! The text of manifest files, kept for the length of a tick so that every message can show the line it speaks of.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// One manifest file, read once per tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// As shown to people: relative to the working directory where possible.
    pub shown: Arc<str>,
    /// Absolute; relative paths inside the file start from its folder.
    pub path: PathBuf,
    pub text: Arc<str>,
}

/// Texts by shown path.
pub type Sources = BTreeMap<Arc<str>, Arc<str>>;
