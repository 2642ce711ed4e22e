//! Whether a file that is open is still the one under its name. An open file that was removed goes on working, and whatever is written
//! to it is lost: nobody would notice before the next start.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The file as it was when it was opened.
#[derive(Clone, Debug)]
pub(super) struct Witness {
    path: PathBuf,
    /// Device and inode; `None` when it could not be looked at.
    was: Option<(u64, u64)>,
}

impl Witness {
    /// Call it after opening.
    pub(super) fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), was: identity(path).ok() }
    }

    /// # Errors
    /// Says in words what became of it. What cannot be looked at for another reason is not called lost.
    pub(super) fn look(&self) -> Result<(), String> {
        let shown = self.path.display();
        match identity(&self.path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Err(format!("{shown} is gone"))
            }
            Ok(now) if self.was.is_some_and(|was| was != now) => Err(format!("{shown} was replaced by another file")),
            _ => Ok(()),
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_went_or_was_replaced_is_noticed() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("ledger.db");
        fs::write(&path, "a").expect("writes");
        let witness = Witness::of(&path);
        fs::write(&path, "written in place").expect("writes");
        assert_eq!(witness.look(), Ok(()));
        fs::write(dir.path().join("other"), "b").expect("writes");
        fs::rename(dir.path().join("other"), &path).expect("moves");
        assert!(witness.look().expect_err("noticed").ends_with("was replaced by another file"));
        fs::remove_file(&path).expect("removes");
        assert!(witness.look().expect_err("noticed").ends_with("is gone"));
    }
}
