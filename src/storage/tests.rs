//! Single blobs on real backends, a real index and real locks; a backend that lies stands before a real one.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::depot::{BlobError, Depot, Unwatched, Watch};
use super::put::{Outcome, Source, put};
use super::read::{Verdict, fetch, fetch_to, give_out, verify};
use super::remove::{Leftover, remove};
use super::spool::Kept;
use crate::adapters::blobs::fs::Fs;
use crate::adapters::blobs::index::SqliteIndex;
use crate::adapters::blobs::latches::FileLatches;
use crate::adapters::blobs::sqlite::Sqlite;
use crate::model::blob::{Integrity, Sha256};
use crate::model::id::Name;
use crate::model::time::Timestamp;
use crate::ports::blobs::{Backend, BackendError, Fault, Index, Latches, Object, Placed, Put, SpareOf, Trouble};

/// What a backend before another one does instead of what it should.
#[derive(Default)]
struct Faults {
    /// So many whole reads give other bytes.
    lies: AtomicU32,
    /// So many calls fail.
    failures: AtomicU32,
    /// So many reads find that the disk has lost the bytes.
    losses: AtomicU32,
}

impl Faults {
    fn happens(counter: &AtomicU32) -> bool {
        counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    fn fails(&self) -> Result<(), BackendError> {
        match Self::happens(&self.failures) {
            true => Err(BackendError::Transient("the connection was cut".into())),
            false => Ok(()),
        }
    }
}

/// What a bad sector reads like.
struct Lost;

impl Read for Lost {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(BackendError::Body("the disk cannot read it".into()).into_io())
    }
}

struct Faulty {
    inner: Box<dyn Backend>,
    faults: Arc<Faults>,
}

impl Backend for Faulty {
    fn put(&self, object: &Object, body: &mut dyn Read, how: Put) -> Result<Placed, BackendError> {
        self.faults.fails()?;
        self.inner.put(object, body, how)
    }
    fn settle(&self, names: &[Sha256]) -> Result<(), BackendError> {
        self.inner.settle(names)
    }
    fn open(&self, name: &Sha256, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send>, BackendError> {
        self.faults.fails()?;
        let reader = self.inner.open(name, range)?;
        if Faults::happens(&self.faults.losses) {
            return Ok(Box::new(Lost));
        }
        if Faults::happens(&self.faults.lies) { Ok(Box::new(reader.chain(&b"?"[..]))) } else { Ok(reader) }
    }
    fn size(&self, name: &Sha256) -> Result<Option<u64>, BackendError> {
        self.faults.fails()?;
        self.inner.size(name)
    }
    fn delete(&self, name: &Sha256) -> Result<(), BackendError> {
        self.inner.delete(name)
    }
    fn list(&self, after: Option<&Sha256>, limit: usize) -> Result<Vec<Object>, BackendError> {
        self.inner.list(after, limit)
    }
    fn tidy(&self) -> Result<(), BackendError> {
        self.inner.tidy()
    }
    fn owner(&self) -> Result<Option<String>, BackendError> {
        self.inner.owner()
    }
    fn claim(&self, owner: &str) -> Result<(), BackendError> {
        self.inner.claim(owner)
    }
}

/// A folder `a` and a database `b`; `a` is the active backend.
struct House {
    dir: tempfile::TempDir,
    index: SqliteIndex,
    latches: FileLatches,
    backends: BTreeMap<Name, Arc<dyn Backend>>,
    faults: BTreeMap<&'static str, Arc<Faults>>,
}

fn name(text: &str) -> Name {
    Name::new(text).expect(text)
}

fn now() -> Timestamp {
    Timestamp(1_000)
}

impl House {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir(dir.path().join("state")).expect("the state");
        let index = SqliteIndex::open(&dir.path().join("state/index.db")).expect("an index");
        index.activate(&name("a"), now()).expect("activates");
        let folder: Box<dyn Backend> = Box::new(Fs::open(&dir.path().join("a")).expect("a folder"));
        let database: Box<dyn Backend> = Box::new(Sqlite::open(&dir.path().join("b.db")).expect("a database"));
        let (mut backends, mut faults) = (BTreeMap::new(), BTreeMap::new());
        let owner = index.standing().expect("stands").owner;
        for (place, inner) in [("a", folder), ("b", database)] {
            inner.claim(&owner).expect("is marked as ours");
            let own = Arc::new(Faults::default());
            let backend: Arc<dyn Backend> = Arc::new(Faulty { inner, faults: own.clone() });
            backends.insert(name(place), backend);
            faults.insert(place, own);
        }
        Self { latches: FileLatches::new(&dir.path().join("state")), dir, index, backends, faults }
    }

    fn with<T>(&self, work: impl FnOnce(&Depot<'_>) -> T) -> T {
        let open = |place: &Name| {
            let found = self.backends.get(place).cloned();
            found.ok_or_else(|| BackendError::Refused("it is not declared".into()))
        };
        let places = self.backends.keys().cloned().collect();
        let spool = self.dir.path().join("state");
        work(&Depot { index: &self.index, latches: &self.latches, places, open: &open, spool, now: &now })
    }

    fn put(&self, mut bytes: &[u8], key: Option<&Integrity>) -> Result<Outcome, BlobError> {
        self.with(|depot| put(depot, Source::Stream(&mut bytes), key, &Unwatched))
    }

    fn get(&self, key: &Integrity) -> Result<(Vec<u8>, Name), BlobError> {
        let (fetched, kept) = self.with(|depot| fetch(depot, key, None, &Unwatched))?;
        let mut out = Vec::new();
        give_out(&kept, &mut out).expect("memory");
        Ok((out, fetched.served_by))
    }

    fn copy(&self, bytes: &[u8], place: &str) {
        let object = Object { name: Sha256::of(bytes), size: bytes.len() as u64 };
        self.backends[&name(place)].put(&object, &mut &bytes[..], Put::Replace).expect("put");
        self.backends[&name(place)].settle(&[object.name]).expect("settled");
    }

    /// The state folder holds only what it should.
    fn is_clean(&self) -> bool {
        let known = |name: &str| name.starts_with("index.db") || name.ends_with(".lock");
        let mut left = fs::read_dir(self.dir.path().join("state")).expect("the state").flatten();
        left.all(|entry| known(&entry.file_name().to_string_lossy()))
    }
}

fn key_of(bytes: &[u8]) -> Integrity {
    Integrity::of(&Sha256::of(bytes))
}

/// Larger than what is kept in memory.
fn large() -> Vec<u8> {
    (0..3_000_001u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect()
}

#[test]
fn what_was_put_from_a_stream_or_a_file_is_read_back_whole_and_in_parts() {
    for bytes in [Vec::new(), b"abc".to_vec(), large()] {
        let house = House::new();
        let Ok(Outcome::Stored(entry)) = house.put(&bytes, None) else { panic!("is new") };
        assert_eq!((&entry.key, entry.row.place, entry.row.verified), (&key_of(&bytes), name("a"), Some(now())));
        let path = house.dir.path().join("source");
        fs::write(&path, &bytes).expect("a file");
        let file = File::open(&path).expect("opens");
        let again = house.with(|depot| put(depot, Source::File(file), None, &Unwatched));
        assert!(matches!(again, Ok(Outcome::Known(_))), "{again:?}");
        assert_eq!(house.get(&entry.key).expect("reads"), (bytes.clone(), name("a")));
        let to = house.dir.path().join("target");
        fs::write(&to, "something else").expect("a file");
        house.with(|depot| fetch_to(depot, &entry.key, None, &to, &Unwatched)).expect("reads");
        assert!(fs::read(&to).expect("is there") == bytes);
        if bytes.len() > 2 {
            let part = house.with(|depot| fetch(depot, &entry.key, Some(1..u64::MAX), &Unwatched));
            let (fetched, kept) = part.expect("reads");
            let mut out = Vec::new();
            give_out(&kept, &mut out).expect("memory");
            assert!(out == bytes[1..] && fetched.size == out.len() as u64);
        }
        let beyond = house.with(|depot| fetch(depot, &entry.key, Some(9_000_000..9_000_001), &Unwatched));
        assert!(matches!(beyond, Err(BlobError::Range { .. })), "{beyond:?}");
        assert!(house.is_clean());
    }
}

#[test]
fn a_blob_may_be_named_by_the_origin_of_its_content() {
    let house = House::new();
    let origin = key_of(b"an archive elsewhere");
    house.put(b"abc", Some(&origin)).expect("is stored");
    assert_eq!(house.get(&origin).expect("reads").0, b"abc");
    assert!(matches!(house.get(&key_of(b"abc")), Err(BlobError::Unknown(_))));
    let error = house.put(b"abcd", Some(&origin)).expect_err("other bytes");
    let text = error.to_string();
    assert!(
        text.contains(&Sha256::of(b"abc").to_string()) && text.contains(&Sha256::of(b"abcd").to_string()),
        "{text}"
    );
    assert_eq!(house.get(&origin).expect("reads").0, b"abc", "the first put wins");
}

#[test]
fn a_known_blob_whose_bytes_are_gone_or_bad_is_repaired_by_putting_it_again() {
    let house = House::new();
    let key = house.put(b"abc", None).expect("is stored").entry().key.clone();
    house.backends[&name("a")].delete(&Sha256::of(b"abc")).expect("deleted behind our back");
    assert!(matches!(house.put(b"abc", None), Ok(Outcome::Repaired(_))));
    assert_eq!(house.get(&key).expect("reads").1, name("a"));
    let trouble = Trouble { fault: Fault::Corrupt, detail: "bad".into(), since: now() };
    house.index.begin(&name("b"), now()).expect("begins");
    let lease = house.index.lease().expect("a lease");
    house.index.trouble(lease, &Sha256::of(b"abc"), &name("a"), &trouble).expect("written");
    let Ok(Outcome::Repaired(entry)) = house.put(b"abc", None) else { panic!("there was a finding on it") };
    assert_eq!((entry.row.place, entry.row.trouble), (name("b"), None));
    assert_eq!(house.get(&key).expect("reads").1, name("b"));
}

#[test]
fn a_put_is_read_back_before_it_counts() {
    let house = House::new();
    house.faults["a"].lies.store(1, Ordering::Relaxed);
    assert!(matches!(house.put(b"abc", None), Ok(Outcome::Stored(_))), "wrong once, it is put once more");
    house.faults["a"].lies.store(2, Ordering::Relaxed);
    assert!(matches!(house.put(b"abcd", None), Err(BlobError::ReadBack { .. })));
    house.faults["a"].failures.store(1, Ordering::Relaxed);
    assert!(matches!(house.put(b"abcd", None), Err(BlobError::Backend { .. })));
    assert_eq!(house.index.find(&key_of(b"abcd")), Ok(None));
    assert!(house.put(b"abcd", None).is_ok());
}

#[test]
fn bytes_that_lie_wrong_under_the_name_are_replaced_by_a_put() {
    let house = House::new();
    house.copy(b"abc", "a");
    let text = Sha256::of(b"abc").to_string();
    fs::write(house.dir.path().join("a").join(&text[..2]).join(&text[2..]), "rot").expect("rots");
    assert!(matches!(house.put(b"abc", None), Ok(Outcome::Stored(_))));
    assert_eq!(house.get(&key_of(b"abc")).expect("reads").0, b"abc");
}

#[test]
fn what_is_wrong_missing_or_not_to_be_reached_is_served_by_another_place_and_counted() {
    let house = House::new();
    let bytes = large();
    let key = house.put(&bytes, None).expect("is stored").entry().key.clone();
    house.copy(&bytes, "b");
    let served = || house.get(&key).map(|(read, by)| (read == bytes, by.to_string()));
    house.faults["a"].lies.store(1, Ordering::Relaxed);
    assert_eq!(served().expect("b has it"), (true, "b".into()));
    house.faults["a"].failures.store(1, Ordering::Relaxed);
    assert_eq!(served().expect("b has it"), (true, "b".into()));
    assert_eq!(served().expect("a has it"), (true, "a".into()));
    house.backends[&name("a")].delete(&Sha256::of(&bytes)).expect("gone");
    let to = house.dir.path().join("target");
    let fetched = house.with(|depot| fetch_to(depot, &key, Some(5..10), &to, &Unwatched)).expect("b has it");
    assert_eq!((fetched.served_by, fs::read(&to).expect("is there")), (name("b"), bytes[5..10].to_vec()));
    assert_eq!(house.index.standing().expect("stands").fallbacks, 3);
    house.backends[&name("b")].delete(&Sha256::of(&bytes)).expect("gone");
    fs::write(&to, "as it was").expect("a file");
    let error = house.with(|depot| fetch_to(depot, &key, None, &to, &Unwatched)).expect_err("nobody has it");
    let BlobError::Unreadable { tried, .. } = error else { panic!("{error}") };
    let missing = |place| (name(place), BackendError::Missing.to_string());
    assert_eq!(tried, [missing("a"), missing("b")]);
    assert_eq!(fs::read(&to).expect("is there"), b"as it was");
    assert_eq!(fs::read_dir(house.dir.path()).expect("a folder").count(), 6, "no partial file is left");
    assert!(house.is_clean());
}

#[test]
fn a_blob_that_was_moved_while_it_was_looked_for_is_found() {
    let house = House::new();
    let key = house.put(b"abc", None).expect("is stored").entry().key.clone();
    house.index.begin(&name("b"), now()).expect("begins");
    let lease = house.index.lease().expect("a lease");
    let moved = Cell::new(false);
    // Nothing is declared but what the index names when the first look has failed: then it is moved.
    let open = |place: &Name| {
        if !moved.replace(true) {
            house.copy(b"abc", "b");
            house.backends[&name("a")].delete(&Sha256::of(b"abc")).expect("gone");
            house.faults["b"].failures.store(1, Ordering::Relaxed);
            house.index.flip(lease, &name("b"), &[(Sha256::of(b"abc"), name("a"))], now()).expect("flips");
        }
        Ok(house.backends[place].clone())
    };
    let spool = house.dir.path().join("state");
    let (index, latches) = (&house.index, &house.latches);
    let depot = Depot { index, latches, places: Vec::new(), open: &open, spool, now: &now };
    let (fetched, _) = fetch(&depot, &key, None, &Unwatched).expect("b has it by now");
    assert_eq!(fetched.served_by, name("b"));
}

/// Ends a verb after some bytes.
struct Impatient(Cell<u64>);

impl Watch for Impatient {
    fn passed(&self, bytes: u64, _: Option<u64>) -> bool {
        self.0.set(self.0.get().saturating_sub(bytes));
        self.0.get() > 0
    }
}

#[test]
fn who_cancels_leaves_nothing_half_done() {
    let house = House::new();
    let bytes = large();
    let size = bytes.len() as u64;
    // While it is hashed, while it is put, while it is read back.
    for after in [1_000_000, size + 1_000_000, 2 * size + 1_000_000] {
        let impatient = Impatient(Cell::new(after));
        let done = house.with(|depot| put(depot, Source::Stream(&mut &bytes[..]), None, &impatient));
        assert!(matches!(done, Err(BlobError::Cancelled)), "{after}: {done:?}");
        assert_eq!(house.index.find(&key_of(&bytes)), Ok(None));
        assert!(house.is_clean());
    }
    let key = house.put(&bytes, None).expect("is stored").entry().key.clone();
    let to = house.dir.path().join("target");
    let done = house.with(|depot| fetch_to(depot, &key, None, &to, &Impatient(Cell::new(1_000_000))));
    assert!(matches!(done, Err(BlobError::Cancelled)), "{done:?}");
    assert!(!to.exists() && fs::read_dir(house.dir.path()).expect("a folder").count() < 7);
    assert!(house.latches.deleting().expect("opens").is_some(), "no latch is left");
}

#[test]
fn a_source_that_fails_or_changes_is_not_stored() {
    struct Cut(u32);
    impl Read for Cut {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 -= 1;
            if self.0 > 0 { Ok(buffer.len()) } else { Err(io::ErrorKind::ConnectionReset.into()) }
        }
    }
    let house = House::new();
    let done = house.with(|depot| put(depot, Source::Stream(&mut Cut(9)), None, &Unwatched));
    assert!(matches!(done, Err(BlobError::Source(_))), "{done:?}");
    /// Changes the file as soon as it was hashed.
    struct Meddler<'a>(&'a Path, Cell<bool>);
    impl Watch for Meddler<'_> {
        fn passed(&self, _: u64, _: Option<u64>) -> bool {
            if !self.1.replace(true) {
                fs::write(self.0, "xyz").expect("changes");
            }
            true
        }
    }
    let path = house.dir.path().join("source");
    fs::write(&path, "abc").expect("a file");
    let source = Source::File(File::open(&path).expect("opens"));
    let done = house.with(|depot| put(depot, source, None, &Meddler(&path, Cell::new(false))));
    let Err(BlobError::Source(error)) = done else { panic!("{done:?}") };
    assert!(error.to_string().contains("not what they were"), "{error}");
    assert_eq!(house.index.standing().expect("stands").blobs, 0);
    assert!(house.is_clean());
}

#[test]
fn removing_takes_the_bytes_with_the_last_blob_unless_somebody_puts() {
    let house = House::new();
    let (one, two) = (key_of(b"abc"), key_of(b"origin"));
    for _ in 0..2 {
        house.put(b"abc", None).expect("is stored");
        house.put(b"abc", Some(&two)).expect("is stored");
        let rm = |key: &Integrity| house.with(|depot| remove(depot, key)).map(|removed| removed.bytes);
        assert!(matches!(rm(&one), Ok(Leftover::Shared)));
        assert_eq!(house.get(&two).expect("reads").0, b"abc");
        assert!(matches!(rm(&two), Ok(Leftover::Deleted)));
        assert!(matches!(rm(&two), Err(BlobError::Unknown(_))));
        assert_eq!(house.backends[&name("a")].size(&Sha256::of(b"abc")), Ok(None));
        assert_eq!(house.index.spares(&name("a"), SpareOf::Removed, Timestamp(i64::MAX), 9), Ok(vec![]));
    }
    house.put(b"abc", None).expect("is stored");
    let putting = house.latches.putting().expect("free");
    let removed = house.with(|depot| remove(depot, &one)).expect("removed");
    assert_eq!(removed.bytes, Leftover::Later);
    drop(putting);
    let spares = house.index.spares(&name("a"), SpareOf::Removed, Timestamp(i64::MAX), 9).expect("reads");
    assert_eq!((spares[0].name, spares[0].why), (Sha256::of(b"abc"), SpareOf::Removed));
    assert_eq!(house.backends[&name("a")].size(&Sha256::of(b"abc")), Ok(Some(3)));
}

#[test]
fn verifying_tells_good_from_missing_corrupt_and_unreachable() {
    let house = House::new();
    let entry = house.put(b"abc", None).expect("is stored").entry().clone();
    let look = || house.with(|depot| verify(depot, &entry, &Unwatched)).expect("looks");
    assert_eq!(look(), Verdict::Good);
    house.faults["a"].lies.store(1, Ordering::Relaxed);
    assert_eq!(look(), Verdict::Bad(Fault::Corrupt));
    house.faults["a"].failures.store(1, Ordering::Relaxed);
    assert_eq!(look(), Verdict::Unasked("the connection was cut".into()));
    house.backends[&name("a")].delete(&Sha256::of(b"abc")).expect("gone");
    assert_eq!(look(), Verdict::Bad(Fault::Missing));
    assert_eq!(house.index.find(&entry.key), Ok(Some(entry.clone())), "nothing is written down");
}

#[test]
fn before_there_is_a_storage_nothing_can_be_put_and_that_is_said() {
    let house = House::new();
    let index = SqliteIndex::open(&house.dir.path().join("empty.db")).expect("an index");
    let done = house.with(|depot| {
        let Depot { latches, open, now, .. } = *depot;
        let depot = Depot { index: &index, latches, places: Vec::new(), open, spool: depot.spool.clone(), now };
        put(&depot, Source::Stream(&mut &b"abc"[..]), None, &Unwatched)
    });
    assert!(matches!(done, Err(BlobError::NoPlace)), "{done:?}");
    assert!(matches!(Kept::Memory(Vec::new()).reader().read(&mut [0]), Ok(0)));
}

#[test]
fn bytes_that_the_disk_has_lost_are_bad_and_put_anew() {
    let house = House::new();
    let entry = house.put(b"abc", None).expect("is stored").entry().clone();
    house.faults["a"].losses.store(1, Ordering::Relaxed);
    let seen = house.with(|depot| verify(depot, &entry, &Unwatched));
    assert_eq!(seen.expect("nobody cancelled it"), Verdict::Bad(Fault::Corrupt));
    // Lost where it was looked for, and still lost when it was left because something lies there.
    house.faults["a"].losses.store(2, Ordering::Relaxed);
    assert!(matches!(house.put(b"abc", None), Ok(Outcome::Repaired(_))));
}
