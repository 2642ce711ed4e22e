//! The storage as the engine sees it: what it is told to be, and how it stands. The work is done by threads of the storage room.

use std::collections::{BTreeMap, BTreeSet};

use super::PortError;
use super::blobs::{Location, Standing};
use crate::model::blob::Integrity;
use crate::model::digest::Digest;
use crate::model::id::Name;
use crate::model::time::Timestamp;
use crate::model::unit::{Bytes, Millis};

/// A backend, and a keyed digest of everything about it, secrets included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub location: Location,
    pub digest: Digest,
    /// It is about to be let go of, with everything on it that no blob relies on: that is removed at once.
    pub discard: bool,
}

/// What the storage is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intent {
    pub places: BTreeMap<Name, Place>,
    pub settings: Settings,
}

/// How blobs are moved and looked after.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Nothing is moved, swept or scrubbed. Reads and writes go on.
    pub suspended: bool,
    /// So many at once; `None` finds out by itself.
    pub concurrency: Option<u32>,
    /// Bytes copied per second at most.
    pub bandwidth: Option<Bytes>,
    /// Old copies of what was moved are removed so long after the migration; `None` keeps them.
    pub gc_source: Option<Millis>,
    /// What nobody refers to is removed so long after it was last referred to; `None` keeps it.
    pub orphans: Option<Millis>,
    /// Every object is read and checked this often; `None` never.
    pub scrub: Option<Millis>,
    /// Bytes read per second at most by scrubbing.
    pub scrub_bandwidth: Option<Bytes>,
    /// Blobs that are given up if no good copy of them is found.
    pub abandon: BTreeSet<Integrity>,
}

/// Whether a backend can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nobody has tried yet, or it is being tried now.
    Unproven,
    /// With the place of this digest, something was written, read back and deleted.
    Proven(Digest),
    /// It cannot be used until a person changes something.
    Refused(String),
    /// It did not answer as it should; it is tried again at this time.
    Failing { why: String, retry_at: Timestamp },
}

/// What the mover is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Motion {
    /// Nobody has told it anything in this process.
    Asleep,
    Idle,
    Moving,
    /// It could not go on, and tries again at this time.
    Waiting {
        why: String,
        retry_at: Timestamp,
    },
    Suspended,
    /// Another process has the lock.
    Elsewhere,
}

/// How far the migration is, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Objects at the target, and how many there are in all.
    pub done: u64,
    pub total: u64,
    pub done_bytes: u64,
    pub total_bytes: u64,
    /// Over the last seconds; zero when nothing is known.
    pub bytes_per_second: u64,
    pub objects_per_second: u64,
    pub eta: Option<Millis>,
}

/// A finding that people should hear of: once each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub at: Timestamp,
    pub what: Finding,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A migration ended: from, to, objects, bytes, and how long it took.
    Migrated { from: Name, to: Name, objects: u64, bytes: u64, took: Millis },
    /// An object has no good copy anywhere; its blobs.
    Quarantined { keys: Vec<Integrity>, place: Name, detail: String },
    /// A bad or missing copy was replaced from a good one.
    Repaired { keys: Vec<Integrity>, place: Name, from: Name },
    /// Given up because the manifest says so.
    Abandoned { key: Integrity },
    /// Copies that nobody needs were removed.
    Swept { place: Name, objects: u64, bytes: u64 },
    /// Objects that nobody refers to were found.
    Orphans { place: Name, objects: u64 },
}

/// How the storage stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub standing: Standing,
    pub health: BTreeMap<Name, Health>,
    pub motion: Motion,
    /// Findings are being looked at by the newest wish; what is known of them may be over in a moment.
    pub busy: bool,
    pub progress: Option<Progress>,
    /// The first few blobs with a finding, and why.
    pub troubled: Vec<(Integrity, Name, String)>,
}

/// The verbs of the storage. Each is idempotent; none waits for bytes.
pub trait Storage {
    /// How it stands, from the index and the mover's own word. Cheap: constant in the number of blobs.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn status(&self) -> Result<Status, PortError>;
    /// Tells the mover what is wished, and says whether that is news to it; then it is waited a moment for its first look at the backends.
    /// Telling it the same again does nothing.
    fn tell(&self, intent: &Intent) -> bool;
    /// Makes a first backend the active one.
    ///
    /// # Errors
    /// When the index cannot be written.
    fn activate(&self, place: &Name) -> Result<(), PortError>;
    /// Begins a migration, or turns the one under way.
    ///
    /// # Errors
    /// When the index cannot be written.
    fn migrate(&self, target: &Name) -> Result<(), PortError>;
    /// What happened since the last time, to be told once; nothing is told twice but after a crash.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn told(&self) -> Result<Vec<Told>, PortError>;
}
