//! Digests of files of any size, read once for each version of them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::read::ReadFailure;
use crate::model::digest::Digest;

/// More files than this are not remembered: the oldest names by path go, and are read again.
const REMEMBERED: usize = 10_000;

/// What tells two versions of a file apart without reading them (make and git do the same).
type Version = (u64, u64, u64, i64, i64, i64, i64);

/// Digests by path, with the version that they belong to.
#[derive(Clone, Debug, Default)]
pub(super) struct Fingerprints(RefCell<BTreeMap<PathBuf, (Version, Digest)>>);

fn version(meta: &Metadata) -> Version {
    (meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec())
}

impl Fingerprints {
    pub(super) fn of(&self, path: &Path) -> Result<Digest, ReadFailure> {
        let meta = std::fs::metadata(path)?;
        if !meta.is_file() {
            return Err(ReadFailure::NotAFile);
        }
        let before = version(&meta);
        let known = self.0.borrow().get(path).filter(|(known, _)| *known == before).map(|(_, digest)| digest.clone());
        if let Some(digest) = known {
            return Ok(digest);
        }
        let file = File::open(path)?;
        let digest = Digest::of_stream(&file)?;
        if version(&file.metadata()?) != before {
            return Err(ReadFailure::Changing);
        }
        let mut all = self.0.borrow_mut();
        all.insert(path.to_owned(), (before, digest.clone()));
        while all.len() > REMEMBERED {
            all.pop_first();
        }
        Ok(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_has_another_digest_and_any_bytes_will_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("program");
        let all = Fingerprints::default();
        assert!(matches!(all.of(&path), Err(ReadFailure::Missing)));
        assert!(matches!(all.of(folder.path()), Err(ReadFailure::NotAFile)));
        std::fs::write(&path, vec![0xff; 3 << 20]).expect("written");
        let one = all.of(&path).expect("read");
        assert_eq!(all.of(&path).expect("remembered"), one);
        let new = folder.path().join("new");
        std::fs::write(&new, vec![0xfe; 3 << 20]).expect("written");
        std::fs::rename(new, &path).expect("renamed");
        assert_ne!(all.of(&path).expect("read anew"), one);
    }
}
