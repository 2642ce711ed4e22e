//! What goes wrong on a machine, and what is said of it. The contract of the backends is tested from outside, in `tests/it`.

use std::fs;
use std::io;
use std::path::Path;

use rustix::io::Errno;

use super::sqlite::Sqlite;
use super::{fs as folder, open};
use crate::adapters::testing::{again_unprivileged, hand_over, role};
use crate::model::blob::Sha256;
use crate::ports::blobs::{Backend, BackendError, Location, Object, Put};

const FOLDER: &str = "TRUEUP_TEST_BLOBS_OF_OTHERS";

fn object(bytes: &[u8]) -> Object {
    Object { name: Sha256::of(bytes), size: bytes.len() as u64 }
}

#[test]
fn the_words_of_the_system_become_what_can_be_done_about_them() {
    let said = |errno: Errno| folder::explain(Path::new("/blobs"), &io::Error::from(errno));
    for full in [Errno::NOSPC, Errno::DQUOT] {
        assert!(matches!(said(full), BackendError::Full(why) if why.contains("/blobs")), "{full}");
    }
    for refused in [Errno::ACCESS, Errno::PERM, Errno::ROFS, Errno::NOTDIR, Errno::ISDIR, Errno::FBIG] {
        assert!(matches!(said(refused), BackendError::Refused(why) if why.contains("/blobs")), "{refused}");
    }
    for transient in [Errno::IO, Errno::MFILE, Errno::NOMEM, Errno::STALE, Errno::TIMEDOUT] {
        assert!(matches!(said(transient), BackendError::Transient(why) if why.contains("/blobs")), "{transient}");
    }
}

#[test]
fn what_may_not_be_used_is_refused_with_its_name() {
    let test = "adapters::blobs::tests::what_may_not_be_used_is_refused_with_its_name";
    let Some(path) = role(FOLDER) else {
        let dir = tempfile::tempdir().expect("a folder");
        hand_over(dir.path(), 0o700);
        again_unprivileged(test, FOLDER, dir.path());
        return;
    };
    let dir = Path::new(&path);
    let refused = |result: Result<(), BackendError>, what: &str| {
        assert!(matches!(&result, Err(BackendError::Refused(why)) if why.contains(&path)), "{what}: {result:?}");
    };
    let locations =
        [Location::Fs { path: dir.join("fs") }, Location::Sqlite { path: dir.join("database").join("blobs.db") }];
    for location in &locations {
        let backend = open(location).expect("opened");
        backend.put(&object(b"x"), &mut &b"x"[..], Put::Replace).expect("put");
        backend.settle(&[object(b"x").name]).expect("settled");
    }
    for closed in ["fs/tmp", "database/blobs.db", "database", ""] {
        hand_over(&dir.join(closed), 0o000);
    }
    for location in &locations {
        refused(open(location).map(|_| ()), "opened");
    }
    hand_over(dir, 0o500);
    let new = Location::Fs { path: dir.join("new") };
    refused(open(&new).map(|_| ()), "made");
    let backend = open(&locations[0]);
    refused(backend.and_then(|backend| backend.put(&object(b"y"), &mut &b"y"[..], Put::Replace)).map(|_| ()), "put");
    hand_over(&dir.join("fs/tmp"), 0o700);
    let backend = open(&locations[0]).expect("opened");
    hand_over(&dir.join("fs"), 0o500);
    backend.put(&object(b"z"), &mut &b"z"[..], Put::Replace).expect("put");
    refused(backend.settle(&[object(b"z").name]), "a new fan-out folder");
    assert_eq!(fs::read_dir(dir.join("fs/tmp")).expect("tmp").count(), 0, "what could not be settled is gone");
    assert_eq!(backend.size(&object(b"z").name), Ok(None));
    hand_over(&dir.join("fs"), 0o700);
    hand_over(&dir.join("database"), 0o700);
}

#[test]
fn a_full_disk_leaves_what_was_there() {
    let dir = tempfile::tempdir().expect("a folder");
    let backend = Sqlite::open(&dir.path().join("blobs.db")).expect("opened");
    backend.put(&object(b"kept"), &mut &b"kept"[..], Put::Replace).expect("put");
    backend.settle(&[object(b"kept").name]).expect("settled");
    backend.limit_pages(64);
    for size in [900_000, 3_000_000] {
        let large = vec![7; size];
        let put = backend.put(&object(&large), &mut &large[..], Put::Replace).map(|_| ());
        let settled = put.and_then(|()| backend.settle(&[object(&large).name]));
        let second = settled.and_then(|()| {
            let other = vec![8; size];
            backend.put(&object(&other), &mut &other[..], Put::Replace)?;
            backend.settle(&[object(&other).name])
        });
        assert!(matches!(&second, Err(BackendError::Full(why)) if why.contains("blobs.db")), "{second:?}");
    }
    backend.limit_pages(1_000_000);
    let mut found = String::new();
    let mut reader = backend.open(&object(b"kept").name, None).expect("opened");
    io::Read::read_to_string(&mut reader, &mut found).expect("read");
    assert_eq!(found, "kept");
    backend.tidy().expect("tidied");
}
