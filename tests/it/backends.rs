//! One contract for every backend: whatever holds for a folder holds for a database and for a bucket.

use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};

use trueup::adapters::blobs::fs::Fs;
use trueup::adapters::blobs::s3::S3;
use trueup::adapters::blobs::sqlite::Sqlite;
use trueup::model::blob::Sha256;
use trueup::ports::blobs::{Backend, BackendError, Object, Placed, Put};
use trueup::storage::body::Checked;

use crate::s3 as server;

/// Bytes that compress badly and differ by seed.
pub fn bytes(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut out = Vec::with_capacity(size + 8);
    while out.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(size);
    out
}

pub fn object(bytes: &[u8]) -> Object {
    Object { name: Sha256::of(bytes), size: bytes.len() as u64 }
}

pub fn put(backend: &dyn Backend, bytes: &[u8], how: Put) -> Result<Placed, BackendError> {
    let object = object(bytes);
    backend.put(&object, &mut Checked::new(bytes, object), how)
}

/// Puts and settles.
pub fn store(backend: &dyn Backend, bytes: &[u8]) -> Object {
    assert_eq!(put(backend, bytes, Put::Replace), Ok(Placed::Stored));
    backend.settle(&[object(bytes).name]).expect("settled");
    object(bytes)
}

pub fn read(
    backend: &dyn Backend,
    name: &Sha256,
    range: Option<std::ops::Range<u64>>,
) -> Result<Vec<u8>, BackendError> {
    let mut out = Vec::new();
    backend.open(name, range)?.read_to_end(&mut out).map_err(|error| BackendError::from_io(&error))?;
    Ok(out)
}

fn all(backend: &dyn Backend, page: usize) -> Vec<Object> {
    let mut out: Vec<Object> = Vec::new();
    loop {
        let more = backend.list(out.last().map(|last| &last.name), page).expect("a page");
        let count = more.len();
        assert!(count <= page, "a page of at most {page}");
        out.extend(more);
        if count < page {
            return out;
        }
    }
}

/// Gives some bytes and then fails.
struct Broken<'a>(&'a [u8]);

impl Read for Broken<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(BackendError::Transient("the cable was pulled".into()).into_io());
        }
        self.0.read(buffer)
    }
}

/// Counts how often it is asked.
struct Counting<'a>(&'a [u8], &'a AtomicUsize);

impl Read for Counting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.read(buffer)
    }
}

/// All of it, on a backend that is empty.
pub fn contract(backend: &dyn Backend, hides_what_is_not_settled: bool) {
    what_is_put_comes_back_whole_and_in_parts(backend);
    what_is_not_there_is_said_so(backend);
    a_put_if_absent_leaves_what_is_there(backend, hides_what_is_not_settled);
    a_body_that_is_wrong_leaves_what_was_there(backend);
    a_list_is_in_order_and_comes_in_pages(backend);
    threads_do_not_disturb_each_other(backend);
    if hides_what_is_not_settled {
        what_is_not_settled_is_not_seen(backend);
    }
    a_delete_is_for_good_and_may_be_repeated(backend);
    the_owner_is_who_claimed_last(backend);
    backend.tidy().expect("tidied");
}

fn what_is_put_comes_back_whole_and_in_parts(backend: &dyn Backend) {
    for size in [0, 1, 64 << 10, (1 << 20) + 1, 20 << 20] {
        let bytes = bytes(1, size);
        let stored = store(backend, &bytes);
        assert_eq!(backend.size(&stored.name), Ok(Some(size as u64)), "size of {size}");
        assert!(read(backend, &stored.name, None) == Ok(bytes.clone()), "all of {size}");
        let middle = size as u64 / 2;
        for range in [0..middle, middle..size as u64, middle..u64::MAX, 1..2, size as u64..size as u64 + 5, 7..7] {
            let start = usize::try_from(range.start).expect("small").min(size);
            let end = usize::try_from(range.end).unwrap_or(size).min(size).max(start);
            let part = read(backend, &stored.name, Some(range.clone()));
            assert!(part.as_deref() == Ok(&bytes[start..end]), "{range:?} of {size}: {:?}", part.map(|p| p.len()));
        }
        assert_eq!(put(backend, &bytes, Put::Replace), Ok(Placed::Stored), "a second time");
        backend.settle(&[stored.name, stored.name]).expect("settled");
        backend.settle(&[stored.name]).expect("settling what is settled does nothing");
        assert!(read(backend, &stored.name, None) == Ok(bytes), "{size} after a second put");
    }
    backend.settle(&[]).expect("nothing to settle");
}

fn what_is_not_there_is_said_so(backend: &dyn Backend) {
    let name = Sha256::of(b"never put");
    assert_eq!(backend.size(&name), Ok(None));
    assert_eq!(read(backend, &name, None), Err(BackendError::Missing));
    assert_eq!(read(backend, &name, Some(1..2)), Err(BackendError::Missing));
    assert!(backend.settle(&[name]).is_err() || backend.size(&name) == Ok(None));
}

/// What is far away is asked with the body at once; what is near is asked before.
fn a_put_if_absent_leaves_what_is_there(backend: &dyn Backend, is_near: bool) {
    // Wrong bytes under a name: nobody checks them but whoever hashes them, and a replacing put mends them.
    let right = bytes(2, 5_000);
    let named = object(&right);
    let wrong = Object { name: named.name, size: 3 };
    assert_eq!(backend.put(&wrong, &mut &b"bad"[..], Put::IfAbsent), Ok(Placed::Stored));
    backend.settle(&[named.name]).expect("settled");
    let asked = AtomicUsize::new(0);
    assert_eq!(backend.put(&named, &mut Counting(&right, &asked), Put::IfAbsent), Ok(Placed::Present));
    assert!(!is_near || asked.load(Ordering::Relaxed) == 0, "the body was read for nothing");
    backend.settle(&[named.name]).expect("what is present can be settled");
    assert_eq!(read(backend, &named.name, None).as_deref(), Ok(&b"bad"[..]));
    assert_eq!(put(backend, &right, Put::Replace), Ok(Placed::Stored));
    backend.settle(&[named.name]).expect("settled");
    assert_eq!(read(backend, &named.name, None), Ok(right));
    assert_eq!(backend.size(&named.name), Ok(Some(5_000)));
}

fn a_body_that_is_wrong_leaves_what_was_there(backend: &dyn Backend) {
    for size in [2_000, 3 << 20, 18 << 20] {
        let kept = bytes(3, size);
        let stored = store(backend, &kept);
        let fresh = object(&bytes(4, size));
        let longer = bytes(4, size + 1);
        let mut changed = bytes(4, size);
        changed[size / 2] ^= 1;
        for object in [stored, fresh] {
            let bodies: [(&str, Box<dyn Read>); 4] = [
                ("broken", Box::new(Broken(&changed[..size / 2]))),
                ("short", Box::new(&changed[..size - 1])),
                ("long", Box::new(&longer[..])),
                ("changed", Box::new(Checked::new(&changed[..], object))),
            ];
            for (what, mut body) in bodies {
                let put = backend.put(&object, &mut *body, Put::Replace);
                assert!(matches!(put, Err(BackendError::Body(_))), "{what} body of {size}: {put:?}");
                let _ = backend.settle(&[object.name]);
            }
        }
        assert_eq!(backend.size(&fresh.name), Ok(None), "nothing was stored of {size}");
        assert!(read(backend, &stored.name, None) == Ok(kept), "what was there is as it was, {size}");
    }
}

fn a_list_is_in_order_and_comes_in_pages(backend: &dyn Backend) {
    let mut expected: Vec<Object> = all(backend, 1_000);
    let fresh: Vec<Vec<u8>> =
        (0..40).map(|seed| bytes(100 + seed, 100 + usize::try_from(seed).expect("small"))).collect();
    for bytes in &fresh {
        assert_eq!(put(backend, bytes, Put::IfAbsent), Ok(Placed::Stored));
    }
    let names: Vec<Sha256> = fresh.iter().map(|bytes| object(bytes).name).collect();
    backend.settle(&names).expect("a group");
    expected.extend(fresh.iter().map(|bytes| object(bytes)));
    expected.sort();
    for page in [1, 7, 1_000] {
        assert_eq!(all(backend, page), expected, "pages of {page}");
    }
    let between = Sha256([0x7f; 32]);
    let behind: Vec<Object> = expected.iter().copied().filter(|object| object.name > between).collect();
    assert_eq!(backend.list(Some(&between), 1_000), Ok(behind), "from behind a name that is not there");
    assert_eq!(backend.list(Some(&Sha256([0xff; 32])), 10), Ok(vec![]));
    assert_eq!(backend.list(None, 0), Ok(vec![]));
}

fn threads_do_not_disturb_each_other(backend: &dyn Backend) {
    let shared = bytes(5, 70_000);
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let shared = &shared;
            scope.spawn(move || {
                for round in 0..6 {
                    let own = bytes(1_000 + thread * 100 + round, 9_000);
                    let how = if (thread + round) % 2 == 0 { Put::Replace } else { Put::IfAbsent };
                    put(backend, shared, how).expect("the shared one");
                    put(backend, &own, how).expect("its own");
                    backend.settle(&[object(shared).name, object(&own).name]).expect("settled");
                    assert!(
                        read(backend, &object(shared).name, None).as_ref() == Ok(shared),
                        "the shared one is whole"
                    );
                    assert!(read(backend, &object(&own).name, None) == Ok(own), "its own is whole");
                }
            });
        }
    });
}

fn what_is_not_settled_is_not_seen(backend: &dyn Backend) {
    let before = all(backend, 1_000);
    let hidden = [bytes(6, 300), bytes(7, 3 << 20)];
    for bytes in &hidden {
        assert_eq!(put(backend, bytes, Put::IfAbsent), Ok(Placed::Stored));
        let name = object(bytes).name;
        assert_eq!(backend.size(&name), Ok(None));
        assert_eq!(read(backend, &name, None), Err(BackendError::Missing));
        assert_eq!(put(backend, bytes, Put::IfAbsent), Ok(Placed::Present), "it is on its way already");
    }
    assert_eq!(all(backend, 1_000), before);
    let kept = store(backend, &bytes(8, 400));
    assert_eq!(backend.put(&Object { size: 3, ..kept }, &mut &b"new"[..], Put::Replace), Ok(Placed::Stored));
    assert_eq!(read(backend, &kept.name, None), Ok(bytes(8, 400)), "the old one until the new one is settled");
    let names: Vec<Sha256> = hidden.iter().map(|bytes| object(bytes).name).chain([kept.name]).collect();
    backend.settle(&names).expect("settled");
    assert_eq!(read(backend, &kept.name, None).as_deref(), Ok(&b"new"[..]));
    for bytes in &hidden {
        assert!(read(backend, &object(bytes).name, None).as_ref() == Ok(bytes));
    }
}

fn a_delete_is_for_good_and_may_be_repeated(backend: &dyn Backend) {
    let every = all(backend, 1_000);
    assert!(every.len() > 40);
    for object in &every {
        backend.delete(&object.name).expect("deleted");
        assert_eq!(backend.size(&object.name), Ok(None));
    }
    assert_eq!(all(backend, 1_000), vec![]);
    backend.delete(&every[0].name).expect("again");
    backend.delete(&Sha256::of(b"never put")).expect("never there");
    let again = store(backend, &bytes(1, 64 << 10));
    assert_eq!(all(backend, 10), vec![again], "and it may come again");
}

fn the_owner_is_who_claimed_last(backend: &dyn Backend) {
    let objects = all(backend, 100);
    assert_eq!(backend.owner(), Ok(None));
    for owner in ["first", "a second one, longer", "x"] {
        backend.claim(owner).expect("claimed");
        assert_eq!(backend.owner().as_ref().map(Option::as_deref), Ok(Some(owner)));
    }
    assert_eq!(all(backend, 100), objects, "the mark is no object");
}

#[test]
fn a_folder_keeps_the_contract() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("deep/er");
    contract(&Fs::open(&path).expect("made"), true);
    let reopened = Fs::open(&path).expect("opened");
    assert_eq!(reopened.owner().as_ref().map(Option::as_deref), Ok(Some("x")));
    assert_eq!(read(&reopened, &Sha256::of(&bytes(1, 64 << 10)), None), Ok(bytes(1, 64 << 10)));
    assert_eq!(std::fs::read_dir(path.join("tmp")).expect("tmp").count(), 0, "nothing temporary is left");
}

#[test]
fn a_database_keeps_the_contract() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("deep/er/blobs.db");
    contract(&Sqlite::open(&path).expect("made"), true);
    let reopened = Sqlite::open(&path).expect("opened");
    assert_eq!(reopened.owner().as_ref().map(Option::as_deref), Ok(Some("x")));
    assert_eq!(read(&reopened, &Sha256::of(&bytes(1, 64 << 10)), None), Ok(bytes(1, 64 << 10)));
}

#[test]
fn a_bucket_keeps_the_contract() {
    let server = server::S3::start();
    server.create_bucket("blobs");
    let bucket = server.bucket("blobs", "some/where/", &server.endpoint);
    let backend = S3::open(&bucket).expect("opened");
    contract(&backend, false);
    let reopened = S3::open(&bucket).expect("opened");
    assert_eq!(reopened.owner().as_ref().map(Option::as_deref), Ok(Some("x")));
    assert_eq!(read(&reopened, &Sha256::of(&bytes(1, 64 << 10)), None), Ok(bytes(1, 64 << 10)));
}
