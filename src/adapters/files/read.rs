//! The manifest tree, read once per look. It promises to miss nothing silently: whatever could not be read is a problem in
//! the answer, so that a mistake never looks like a deletion.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;

use super::fingerprint::Fingerprints;
use super::program::find_program;
use super::walk::Walk;
use crate::model::digest::Digest;
use crate::model::problem::{Code, Problem};
use crate::model::span::Span;
use crate::ports::files::{FileError, Files, Program, Scan};

/// The largest file: a thousand times a usual manifest, and what a parser may be asked to hold in memory.
pub(super) const MAX_FILE_BYTES: u64 = 1 << 20;
/// How often a file that changes under our hands is read.
const READ_ATTEMPTS: u32 = 3;

/// The manifest folder on the disk.
#[derive(Clone, Debug)]
pub struct TreeFiles {
    /// Absolute, as the user named it; links in it are followed anew at every look.
    root: PathBuf,
    /// Paths below this folder are shown relative to it.
    shown_base: PathBuf,
    fingerprints: Fingerprints,
}

impl TreeFiles {
    /// `root` is absolute. `shown_base` is the folder the command was run in.
    pub fn new(root: PathBuf, shown_base: PathBuf) -> Self {
        Self { root, shown_base, fingerprints: Fingerprints::default() }
    }

    /// A path as people know it.
    fn shown(&self, path: &Path) -> Arc<str> {
        let short = path.strip_prefix(&self.shown_base).unwrap_or(path);
        if short.as_os_str().is_empty() { ".".into() } else { short.to_string_lossy().into() }
    }
}

impl Files for TreeFiles {
    fn scan(&self) -> Scan {
        Walk::new(&self.root, &|path| self.shown(path)).run()
    }

    fn read(&self, path: &Path) -> Result<Arc<str>, FileError> {
        let bytes = read_stable(path).map_err(|failure| match failure {
            ReadFailure::Missing => FileError::Missing,
            other => FileError::Unreadable(other.to_string()),
        })?;
        match String::from_utf8(bytes) {
            Ok(text) => Ok(text.into()),
            Err(_) => Err(FileError::Unreadable("is not UTF-8 text".into())),
        }
    }

    fn fingerprint(&self, path: &Path) -> Result<Digest, FileError> {
        self.fingerprints.of(path).map_err(|failure| match failure {
            ReadFailure::Missing => FileError::Missing,
            other => FileError::Unreadable(other.to_string()),
        })
    }

    fn is_public(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|about| about.is_file() && about.mode() & 0o004 != 0)
    }

    fn is_dir(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn program(&self, word: &str, dir: &Path, search: &str) -> Program {
        find_program(word, dir, search)
    }
}

/// Why a file could not be had whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadFailure {
    #[error("is not there")]
    Missing,
    #[error("is larger than {} KiB", MAX_FILE_BYTES >> 10)]
    TooLarge,
    #[error("is being written")]
    Changing,
    #[error("is not a regular file")]
    NotAFile,
    #[error("cannot be read: {0}")]
    Io(io::Error),
}

impl From<io::Error> for ReadFailure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Missing,
            _ => Self::Io(error),
        }
    }
}

/// Reads a file whose size and times are the same before and after, so that it was not caught in the middle of a write.
pub(super) fn read_stable(path: &Path) -> Result<Vec<u8>, ReadFailure> {
    read_stable_with(path, &mut |_| {})
}

/// As [`read_stable`]; `meanwhile` runs between the two looks of each attempt (tests change the file in it).
fn read_stable_with(path: &Path, meanwhile: &mut dyn FnMut(u32)) -> Result<Vec<u8>, ReadFailure> {
    // Without blocking: a named pipe with a manifest's name must not stop the engine.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    for attempt in 0..READ_ATTEMPTS {
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let before = file.metadata()?;
        if !before.is_file() {
            return Err(ReadFailure::NotAFile);
        }
        if before.len() > MAX_FILE_BYTES {
            return Err(ReadFailure::TooLarge);
        }
        let bytes = read_once(&file, &before)?;
        meanwhile(attempt);
        let after = file.metadata()?;
        if stamp(&before) == stamp(&after) && bytes.len() as u64 == after.len() {
            return Ok(bytes);
        }
    }
    Err(ReadFailure::Changing)
}

/// Reads a file in one call, with room for one byte more than it had: what fills that has grown meanwhile, and what is shorter
/// has shrunk (or the call was interrupted). Either shows in the length.
fn read_once(mut file: &File, before: &Metadata) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(before.len()).unwrap_or(0) + 1];
    let length = file.read(&mut bytes)?;
    bytes.truncate(length);
    Ok(bytes)
}

/// What differs when a file was written meanwhile.
fn stamp(of: &Metadata) -> (u64, i64, i64, i64, i64) {
    (of.len(), of.mtime(), of.mtime_nsec(), of.ctime(), of.ctime_nsec())
}

/// Makes text of a manifest's bytes, or says where they are not.
pub(super) fn decode(shown: &Arc<str>, bytes: Vec<u8>) -> Result<Arc<str>, Problem> {
    let error = match String::from_utf8(bytes) {
        Ok(text) => return Ok(text.into()),
        Err(error) => error,
    };
    let start = error.utf8_error().valid_up_to();
    let length = error.utf8_error().error_len().unwrap_or(1);
    let bytes = error.as_bytes();
    let before = String::from_utf8_lossy(&bytes[..start]);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let at = Span {
        file: shown.clone(),
        line: small(line),
        column: small(column),
        start: small(start),
        end: small(start + length),
    };
    let problem = Problem::error(Code::NotUtf8, at, format!("{shown} is not UTF-8 text (byte {:#04x})", bytes[start]));
    Err(if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        problem.hint("it looks like UTF-16; save it as UTF-8")
    } else {
        problem.hint("save the file as UTF-8")
    })
}

/// Anyone who can write the tree can run programs as us.
pub(super) fn unsafe_permissions(root: &Metadata, shown: &Arc<str>) -> Option<Problem> {
    let mode = root.mode();
    let who = if mode & 0o002 != 0 {
        "everyone".to_owned()
    } else if mode & 0o020 != 0 && root.gid() != rustix::process::getegid().as_raw() {
        format!("group {}", root.gid())
    } else {
        return None;
    };
    let span = Span::file_start(shown.clone());
    let text = format!("{shown} can be written by {who}, who can so run programs as you");
    let hint = format!("chmod {} {shown}", if mode & 0o002 != 0 { "o-w" } else { "g-w" });
    Some(Problem::error(Code::UnsafePermissions, span, text).warning().hint(hint))
}

/// The root with its links followed, or why there is no tree.
pub(super) fn resolve_root(root: &Path, shown: &Arc<str>) -> Result<(PathBuf, Metadata), Problem> {
    let at = || Span::file_start(shown.clone());
    let not_a_tree = |text: String| Problem::error(Code::NotATree, at(), text);
    let found = fs::canonicalize(root).and_then(|real| Ok((fs::metadata(&real)?, real)));
    match found {
        Ok((metadata, real)) if metadata.is_dir() => Ok((real, metadata)),
        Ok(_) => Err(not_a_tree(format!("{shown} is not a folder"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(not_a_tree(format!("{shown} does not exist"))
            .hint("name the manifest folder with --manifests, or make one with 'trueup init'")),
        Err(error) => Err(Problem::error(Code::Unreadable, at(), format!("{shown} cannot be read: {error}"))),
    }
}

#[cfg(test)]
mod tests;
