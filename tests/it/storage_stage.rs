//! A stage for the storage: real folders and databases, the real index and locks, and the real mover.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use trueup::adapters::blobs::fs::Fs;
use trueup::adapters::blobs::index::SqliteIndex;
use trueup::adapters::blobs::latches::FileLatches;
use trueup::adapters::blobs::sqlite::Sqlite;
use trueup::adapters::clock::{SystemClock, SystemDice};
use trueup::model::blob::{Integrity, Sha256};
use trueup::model::digest::Digest;
use trueup::model::id::Name;
use trueup::model::time::{Tick, Timestamp};
use trueup::ports::blobs::{Backend, BackendError, Index, Latches, Location, Object, Put};
use trueup::ports::clock::Clock;
use trueup::ports::storage::{Intent, Place, Settings, Status, Storage};
use trueup::storage::mover::{Mover, Parts};

pub fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// The system's clocks, moved ahead by hand.
#[derive(Default)]
pub struct Ahead(pub AtomicI64);

impl Clock for Ahead {
    fn now(&self) -> Tick {
        Tick(SystemClock.now().0 + self.0.load(Ordering::SeqCst).unsigned_abs())
    }
    fn wall(&self) -> Timestamp {
        Timestamp(SystemClock.wall().0 + self.0.load(Ordering::SeqCst))
    }
}

/// Backend `a`, `b` ... are folders, `q...` are databases; any other word in a location is a mistake of the test.
pub fn open(location: &Location) -> Result<Arc<dyn Backend>, BackendError> {
    match location {
        Location::Fs { path } => Ok(Arc::new(Fs::open(path)?)),
        Location::Sqlite { path } => Ok(Arc::new(Sqlite::open(path)?)),
        Location::S3(_) => Err(BackendError::Refused("no bucket in these tests".to_owned())),
    }
}

pub struct Stage {
    pub dir: tempfile::TempDir,
    pub index: Arc<dyn Index>,
    pub latches: Arc<dyn Latches>,
    pub clock: Arc<Ahead>,
}

impl Stage {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let index = Arc::new(SqliteIndex::open(&dir.path().join("blobs.db")).expect("the index opens"));
        let latches = Arc::new(FileLatches::new(dir.path()));
        Self { dir, index, latches, clock: Arc::default() }
    }

    pub fn path(&self, place: &str) -> PathBuf {
        self.dir.path().join(place)
    }

    pub fn mover(&self) -> Mover {
        self.mover_with(Arc::new(open))
    }

    pub fn mover_with(&self, open: Arc<trueup::storage::mover::Open>) -> Mover {
        Mover::start(Parts {
            index: self.index.clone(),
            latches: self.latches.clone(),
            open,
            clock: self.clock.clone(),
            dice: Arc::new(Mutex::new(SystemDice::new())),
            bell: Arc::new(|| {}),
        })
    }

    pub fn place(&self, place: &str) -> Place {
        let path = self.path(place);
        let location = if place.starts_with('q') { Location::Sqlite { path } } else { Location::Fs { path } };
        Place { location, digest: Digest::of(place.as_bytes()), discard: false }
    }

    pub fn intent(&self, places: &[&str], settings: Settings) -> Intent {
        let places = places.iter().map(|place| (name(place), self.place(place)));
        Intent { places: places.collect::<BTreeMap<_, _>>(), settings }
    }

    pub fn backend(&self, place: &str) -> Arc<dyn Backend> {
        open(&self.place(place).location).expect("opens")
    }

    /// Puts a blob as a writer does, and says what it is.
    pub fn put(&self, bytes: &[u8]) -> (Integrity, Object) {
        let _latch = self.latches.putting().expect("nobody deletes");
        let standing = self.index.standing().expect("stands");
        let place = standing.place().cloned().expect("a place");
        let object = Object { name: Sha256::of(bytes), size: bytes.len() as u64 };
        let backend = self.backend(place.as_str());
        // Nothing is put where the mover has not been before.
        backend.claim(&standing.owner).expect("is ours");
        backend.put(&object, &mut &bytes[..], Put::IfAbsent).expect("puts");
        backend.settle(&[object.name]).expect("settles");
        let key = Integrity::of(&object.name);
        self.index.add(&key, &object, &place, false, self.clock.wall()).expect("adds");
        (key, object)
    }

    /// The file of an object at a place that is a folder.
    pub fn file(&self, place: &str, object: &Object) -> PathBuf {
        let text = object.name.to_string();
        self.path(place).join(&text[..2]).join(&text[2..])
    }

    pub fn later(&self, millis: i64) {
        self.clock.0.fetch_add(millis, Ordering::SeqCst);
    }
}

pub fn has(backend: &dyn Backend, object: &Object) -> bool {
    let mut out = Vec::new();
    match backend.open(&object.name, None) {
        Ok(mut reader) => reader.read_to_end(&mut out).is_ok() && Sha256::of(&out) == object.name,
        Err(_) => false,
    }
}

/// Overwrites a file in place, as a failing disk does.
pub fn spoil(path: &Path) {
    let mut bytes = std::fs::read(path).expect("a file");
    match bytes.first_mut() {
        Some(first) => *first ^= 1,
        None => bytes.push(1),
    }
    std::fs::write(path, bytes).expect("writes");
}

/// Waits until the storage stands so.
pub fn until(mover: &Mover, what: &str, mut holds: impl FnMut(&Status) -> bool) -> Status {
    let deadline = SystemClock.now().0 + 20_000;
    loop {
        let status = mover.status().expect("a status");
        if holds(&status) {
            return status;
        }
        assert!(SystemClock.now().0 < deadline, "{what} did not come about: {status:#?}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}
