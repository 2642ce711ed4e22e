//! The manifest tree and the files that manifests name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::digest::Digest;
use crate::model::problem::Problem;
use crate::model::source::SourceFile;

/// The whole tree as one look gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// The manifest folder as shown to people.
    pub root: Arc<str>,
    /// Sorted by path.
    pub files: Vec<SourceFile>,
    /// What could not be read. While this is not empty nothing is removed.
    pub problems: Vec<Problem>,
    /// Files that are no manifests by their name (shown by `validate -v`).
    pub skipped: Vec<String>,
    /// Set while the tree is being rewritten by somebody (git merge, rebase, checkout): the text says by what.
    pub busy: Option<String>,
}

/// Why a single file could not be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileError {
    Missing,
    Unreadable(String),
}

/// What the file system says of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// An absolute path that can be executed.
    At(PathBuf),
    NotFound,
    NotExecutable(PathBuf),
}

/// Reading only: trueup never writes into the watched tree.
pub trait Files {
    /// Reads every manifest below the root once. A missing root is a problem in the answer, not an empty tree.
    fn scan(&self) -> Scan;
    /// Reads a file that a manifest names (envFile, secret, module.json). At most 1 MiB.
    fn read(&self, path: &Path) -> Result<Arc<str>, FileError>;
    /// The digest of a file of any size and content, such as a program. A file that did not change since it was last asked for is
    /// not read again.
    fn fingerprint(&self, path: &Path) -> Result<Digest, FileError>;
    /// Whether everyone on this machine may read this file; a file that is not there is no such file.
    fn is_public(&self, _path: &Path) -> bool {
        false
    }
    /// Whether a directory is there.
    fn is_dir(&self, path: &Path) -> bool;
    /// Finds a command: a path is taken relative to `dir`, a bare word is looked up in `search` (a PATH).
    /// The word `trueup` is this very binary.
    fn program(&self, word: &str, dir: &Path, search: &str) -> Program;
}
