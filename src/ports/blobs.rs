//! Blobs: the places where bytes lie ([`Backend`]), the book that says what lies where ([`Index`]), and the kernel's locks on both
//! ([`Latches`]). Blocking calls, made from threads of the storage room and never from the engine's.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::ops::Range;
use std::path::PathBuf;

use crate::model::blob::{Integrity, Sha256};
use crate::model::id::Name;
use crate::model::secret::Secret;
use crate::model::time::Timestamp;

/// Where a backend is, with everything that is needed to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A folder.
    Fs { path: PathBuf },
    /// An SQLite database of its own.
    Sqlite { path: PathBuf },
    /// A bucket of any S3 endpoint.
    S3(Box<Bucket>),
}

/// A bucket, or a part of one, and who we are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// `http://` or `https://`, host and port, no path.
    pub endpoint: String,
    pub bucket: String,
    pub region: String,
    /// The bucket's name in the path, not in the host name.
    pub path_style: bool,
    /// Before every object's name; empty, or it ends with `/`.
    pub prefix: String,
    pub access_key_id: Secret,
    pub secret_access_key: Secret,
    pub session_token: Option<Secret>,
}

/// What a backend could not do, by what can be done about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// There is no such object.
    #[error("there is no such object")]
    Missing,
    /// Later it may work: a cut connection, a busy server, a time-out.
    #[error("{0}")]
    Transient(String),
    /// Refused until a person changes something: credentials, a bucket that is not there, rights of a folder.
    #[error("{0}")]
    Refused(String),
    /// No room left.
    #[error("{0}")]
    Full(String),
    /// The body that was to be put could not be read to its end, or was not what it claimed to be. Nothing was stored.
    #[error("{0}")]
    Body(String),
}

impl BackendError {
    /// For a reader of an object, which can only fail with an [`std::io::Error`].
    pub fn into_io(self) -> std::io::Error {
        std::io::Error::other(self)
    }

    /// What [`BackendError::into_io`] has wrapped; anything else is taken as transient.
    pub fn from_io(error: &std::io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Self>());
        inner.cloned().unwrap_or_else(|| Self::Transient(error.to_string()))
    }
}

/// Bytes under their name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    pub name: Sha256,
    /// In bytes.
    pub size: u64,
}

/// What to do when something lies under the name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// Leave it. The body is not read, unless asking before would cost more than sending it.
    IfAbsent,
    /// Replace it in one move.
    Replace,
}

/// What a put came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    Stored,
    /// Something lay there and was left; whether it is right nobody has looked.
    Present,
}

/// A place for objects. No verb changes an object that is there but by replacing it as a whole; a reader sees the old bytes, the new
/// ones, or none. Every verb may be called from several threads at once.
pub trait Backend: Send + Sync {
    /// Takes `object.size` bytes from the body. When the body fails, or is shorter or longer, nothing is stored and what lay there stays
    /// ([`BackendError::Body`]). The object may become visible only with [`Backend::settle`]. A second put of the same is harmless.
    ///
    /// # Errors
    /// [`BackendError`]; after `Transient` it may or may not be stored.
    fn put(&self, object: &Object, body: &mut dyn Read, how: Put) -> Result<Placed, BackendError>;
    /// Makes what was put visible, and sure to outlive a loss of power. Groups of many cost little more than one. Settling what is
    /// settled does nothing.
    ///
    /// # Errors
    /// [`BackendError`]; then none of them may be relied on.
    fn settle(&self, names: &[Sha256]) -> Result<(), BackendError>;
    /// The bytes of an object, or of a part of it (bytes from `start` to before `end`, cut at the object's end). The reader fails with
    /// [`BackendError::into_io`]. Memory does not depend on the size of the object.
    ///
    /// # Errors
    /// [`BackendError`].
    fn open(&self, name: &Sha256, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send>, BackendError>;
    /// Its size, or `None` when it is not there.
    ///
    /// # Errors
    /// [`BackendError`], never `Missing`.
    fn size(&self, name: &Sha256) -> Result<Option<u64>, BackendError>;
    /// Removes it, durably. Removing what is not there does nothing.
    ///
    /// # Errors
    /// [`BackendError`], never `Missing`.
    fn delete(&self, name: &Sha256) -> Result<(), BackendError>;
    /// Objects in ascending order of their names, from behind `after`; at most `limit`, and fewer only at the end. Whatever else lies
    /// there is passed over.
    ///
    /// # Errors
    /// [`BackendError`]. A listing that is not complete is an error.
    fn list(&self, after: Option<&Sha256>, limit: usize) -> Result<Vec<Object>, BackendError>;
    /// Removes what puts that were cut off left behind (temporary files, parts of uploads) longer than an hour ago.
    ///
    /// # Errors
    /// [`BackendError`].
    fn tidy(&self) -> Result<(), BackendError>;
    /// Whose objects these are: the text that [`Backend::claim`] left, if any.
    ///
    /// # Errors
    /// [`BackendError`].
    fn owner(&self) -> Result<Option<String>, BackendError>;
    /// Leaves a mark of ours, durably, in place of any other.
    ///
    /// # Errors
    /// [`BackendError`].
    fn claim(&self, owner: &str) -> Result<(), BackendError>;
}

/// A call on the index failed. Nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Somebody took the lease since, or the target is another one by now: what was known is old. Look again.
    #[error("another process has taken over the storage, or its target has changed")]
    Fenced,
    #[error("the blob index: {0}")]
    Broken(String),
}

/// The right to move things. Taking a new one makes all earlier ones worthless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lease(pub u64);

/// What is wrong with the bytes of an object where they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Missing,
    Corrupt,
}

impl Fault {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Corrupt => "corrupt",
        }
    }
}

/// A finding on an object: no good copy of it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub fault: Fault,
    pub detail: String,
    pub since: Timestamp,
}

/// An object as the index has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub object: Object,
    /// The backend that it lies on.
    pub place: Name,
    pub created: Timestamp,
    /// When its bytes were last read at that place and found right.
    pub verified: Option<Timestamp>,
    pub trouble: Option<Trouble>,
}

/// A blob: a key, and the object that holds its bytes. Several keys may share one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: Integrity,
    pub created: Timestamp,
    pub row: Row,
}

/// What adding a blob came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Added {
    Added,
    /// The key is there already, with the bytes that its entry names, which may be others: the first put wins. Nothing was changed, but
    /// that a finding on these very bytes is over.
    Known(Entry),
    /// New blobs go to another place by now; nothing was written. Put the bytes there and add again.
    PlaceMoved(Name),
}

/// Why bytes lie on a backend while the index names another place for them, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpareOf {
    /// The object was moved away.
    Moved,
    /// Its last blob was removed, or the move came too late.
    Removed,
    /// Found by a listing, and nobody knows why; or what is left of a blob that was given up.
    Orphan,
}

/// Bytes that the index does not rely on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spare {
    pub name: Sha256,
    pub size: u64,
    pub why: SpareOf,
    /// Since when: the last moment at which it was referenced, as far as is known. Grace is counted from here.
    pub since: Timestamp,
}

/// How much lies on one backend by the index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub objects: u64,
    pub bytes: u64,
    /// Of these, with a finding.
    pub troubled: u64,
    /// Bytes that the index does not rely on.
    pub spares: u64,
}

/// One migration, under way or over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    pub id: u64,
    pub from: Name,
    pub to: Name,
    pub begun: Timestamp,
    pub ended: Option<Timestamp>,
    /// `running`, `done`, or `superseded` (the target was changed on the way).
    pub outcome: String,
    /// Flipped so far, by this migration.
    pub moved: u64,
    pub moved_bytes: u64,
    /// Blobs written by others while it went on.
    pub written: u64,
    /// Given up by name.
    pub abandoned: u64,
    pub last_flip: Option<Timestamp>,
}

/// The book as a whole, in constant time whatever it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Random, made with the index; marks backends as ours.
    pub owner: String,
    /// `None` until a first backend was made the active one.
    pub active: Option<Name>,
    /// Set while a migration is under way: new blobs go here.
    pub target: Option<Name>,
    pub lease: u64,
    pub tallies: BTreeMap<Name, Tally>,
    /// How many blobs (keys) there are.
    pub blobs: u64,
    pub migration: Option<Migration>,
    /// When the active backend last changed.
    pub settled: Option<Timestamp>,
    /// Reads that were served by another place than the one in the row.
    pub fallbacks: u64,
}

impl Standing {
    /// Where new blobs go.
    pub fn place(&self) -> Option<&Name> {
        self.target.as_ref().or(self.active.as_ref())
    }

    /// Objects and bytes that are not at this place yet.
    pub fn elsewhere(&self, place: &Name) -> (u64, u64) {
        let others = self.tallies.iter().filter(|(name, _)| *name != place);
        others.fold((0, 0), |(objects, bytes), (_, tally)| (objects + tally.objects, bytes + tally.bytes))
    }

    /// Objects with a finding.
    pub fn troubled(&self) -> u64 {
        self.tallies.values().map(|tally| tally.troubled).sum()
    }
}

/// What finishing a migration came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    Done,
    /// So many objects are not at the target yet.
    Left(u64),
}

/// The book. Each call is one transaction, and what it wrote outlives a loss of power. Several processes may use it at once. Verbs with
/// a [`Lease`] fail with [`IndexError::Fenced`] when a later lease was taken; those on a migration also when its target is another by now.
pub trait Index: Send + Sync {
    /// Constant time.
    fn standing(&self) -> Result<Standing, IndexError>;
    fn find(&self, key: &Integrity) -> Result<Option<Entry>, IndexError>;
    /// Blobs in ascending order of their keys.
    fn entries(&self, after: Option<&Integrity>, limit: usize) -> Result<Vec<Entry>, IndexError>;
    fn row(&self, name: &Sha256) -> Result<Option<Row>, IndexError>;
    /// The blobs that an object holds, ascending.
    fn keys_of(&self, name: &Sha256) -> Result<Vec<Integrity>, IndexError>;

    /// Adds a blob whose bytes were put and settled at `place`, and verified there if `verified`. When the object is known already at
    /// another place, only the key is added, unless there is a finding on it: then its row names this place from now on, and the
    /// finding is over. Bytes at this place are no spare any more. During a migration the blob is counted as written.
    fn add(
        &self,
        key: &Integrity,
        object: &Object,
        place: &Name,
        verified: bool,
        at: Timestamp,
    ) -> Result<Added, IndexError>;
    /// Removes a blob; with the last blob of an object its bytes become a spare ([`SpareOf::Removed`]).
    fn remove(&self, key: &Integrity, at: Timestamp) -> Result<Option<Entry>, IndexError>;
    /// Counts a read that another place had to serve.
    fn fell_back(&self) -> Result<(), IndexError>;

    /// Makes a first backend the active one. Does nothing when there is one.
    fn activate(&self, place: &Name, at: Timestamp) -> Result<(), IndexError>;
    /// Begins a migration to this place, or turns the one under way there (which is then `superseded`). Beginning it twice does nothing;
    /// else every earlier lease is worthless from now on.
    /// A target that is the active place takes everything back there.
    fn begin(&self, target: &Name, at: Timestamp) -> Result<(), IndexError>;
    /// Takes over: every earlier lease is worthless from now on.
    fn lease(&self) -> Result<Lease, IndexError>;
    /// Objects that are not at this place and have no finding, ascending by name.
    fn elsewhere(&self, place: &Name, after: Option<&Sha256>, limit: usize) -> Result<Vec<Row>, IndexError>;
    /// Says of objects, with the place each was taken from, that they are at the target now and were verified there. Each flips only
    /// while its row still names that place; its old bytes become a spare ([`SpareOf::Moved`]). Bytes of one that is gone from the
    /// index become a spare of the target. How many flipped. A finding on what flips is over.
    fn flip(&self, lease: Lease, target: &Name, moved: &[(Sha256, Name)], at: Timestamp) -> Result<usize, IndexError>;
    /// Makes the target the active backend if no object is elsewhere.
    fn finish(&self, lease: Lease, target: &Name, at: Timestamp) -> Result<Finish, IndexError>;
    /// Gives up those of these blobs whose object has a finding. They leave the index (an object with its last blob) and are kept in a
    /// list of what was given up.
    fn abandon(&self, lease: Lease, keys: &BTreeSet<Integrity>, at: Timestamp) -> Result<Vec<Entry>, IndexError>;
    /// Writes down a finding on an object, if its row still names this place.
    fn trouble(&self, lease: Lease, name: &Sha256, place: &Name, trouble: &Trouble) -> Result<bool, IndexError>;
    /// Objects were read at these places and found right; findings on them are over.
    fn verified(&self, lease: Lease, names: &[(Sha256, Name)], at: Timestamp) -> Result<(), IndexError>;
    /// Objects with a finding, ascending by name.
    fn troubled(&self, after: Option<&Sha256>, limit: usize) -> Result<Vec<Row>, IndexError>;
    /// Objects at `place` that were last verified before this time (or never), those longest ago first.
    fn stale(&self, place: &Name, before: Timestamp, limit: usize) -> Result<Vec<Row>, IndexError>;

    /// Spares of this kind at a place that are so since before this time, those longest ago first.
    fn spares(&self, place: &Name, why: SpareOf, before: Timestamp, limit: usize) -> Result<Vec<Spare>, IndexError>;
    /// What a listing of a place showed, in ascending order with nothing left out between the first and the last of it: what the index
    /// does not rely on there becomes an orphan as of `at`, unless it is a spare already. How many are new.
    fn listed(&self, lease: Lease, place: &Name, found: &[Object], at: Timestamp) -> Result<usize, IndexError>;
    /// Whether the index relies on these bytes: a row names this place for them.
    fn relies_on(&self, name: &Sha256, place: &Name) -> Result<bool, IndexError>;
    /// Bytes that are gone from a place for good.
    fn forget_spares(&self, lease: Lease, place: &Name, names: &[Sha256]) -> Result<(), IndexError>;

    /// Migrations, newest first.
    fn migrations(&self, limit: usize) -> Result<Vec<Migration>, IndexError>;
    /// A named note of the index (when a backend was listed or proved last, and the like).
    fn note(&self, name: &str) -> Result<Option<String>, IndexError>;
    /// The notes whose names begin so, without that beginning.
    fn notes(&self, beginning: &str) -> Result<Vec<(String, String)>, IndexError>;
    fn set_note(&self, name: &str, value: &str) -> Result<(), IndexError>;
}

/// A lock that lasts until it is dropped, or its process ends in whatever way.
pub trait Latch: Send {}

/// The kernel's locks on the storage of one state folder.
pub trait Latches: Send + Sync {
    /// Whoever moves, sweeps and scrubs. `None` when another process does.
    ///
    /// # Errors
    /// When the lock file cannot be opened.
    fn moving(&self) -> Result<Option<Box<dyn Latch>>, IndexError>;
    /// Held by whoever puts a blob, from before its bytes are written until it is in the index: meanwhile nothing is deleted. Many may
    /// hold it. Waits a while for a sweep that is under way.
    ///
    /// # Errors
    /// When it could not be had in time.
    fn putting(&self) -> Result<Box<dyn Latch>, IndexError>;
    /// Held while bytes are deleted. `None` when somebody is putting.
    ///
    /// # Errors
    /// When the lock file cannot be opened.
    fn deleting(&self) -> Result<Option<Box<dyn Latch>>, IndexError>;
}
