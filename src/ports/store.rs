//! The ledger: what we own, how to find it again, what we are about to do, what happened. Plain synchronous calls: the
//! engine's thread owns the writing connection.

use std::collections::BTreeMap;

use crate::model::condition::Condition;
use crate::model::digest::Digest;
use crate::model::event::Event;
use crate::model::id::{ResourceId, StepId};
use crate::model::overriding::Override;
use crate::model::time::Timestamp;

/// A ledger call failed. Nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger: {0}")]
pub struct StoreError(pub String);

/// Something we own. Only owned things are changed or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    pub id: ResourceId,
    /// Grows by one whenever the document's content changes.
    pub generation: u64,
    /// Digest of `document`.
    pub digest: Digest,
    /// The last applied document, as JSON with its apiVersion, so that old rows take the same upgrade path as old files.
    pub document: String,
    /// Where it stood, as shown to people (`manifests/a.yaml:1:1`).
    pub source: String,
    /// The folder that relative paths in the document start from.
    pub base: String,
    /// The kind's own record, as JSON: how to find the thing again.
    pub record: String,
}

/// A step about to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begin {
    pub step: StepId,
    pub resource: ResourceId,
    pub action: String,
    pub reason: String,
    pub source: String,
    pub at: Timestamp,
    /// Ownership is claimed before the effect: what a crash leaves behind is found through this.
    pub claim: Option<Owned>,
    /// What it does, or claims for the first time, is still there after a loss of power. A process is not.
    pub lasting: bool,
}

/// A step that was done, or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finish {
    pub step: StepId,
    pub outcome: String,
    pub message: String,
    pub at: Timestamp,
    /// What the ledger holds for the resource from now on.
    pub then: Then,
    pub event: Event,
}

/// What a finished step does to ownership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Then {
    /// Leaves it as begun.
    Keep,
    /// Replaces it.
    Own(Owned),
    /// Lets go of it: absence was observed.
    Release(ResourceId),
}

/// A line of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalLine {
    pub step: StepId,
    pub resource: ResourceId,
    pub action: String,
    pub reason: String,
    pub source: String,
    pub begun: Timestamp,
    pub finished: Option<Timestamp>,
    pub outcome: Option<String>,
    pub message: Option<String>,
}

/// Which events to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventQuery {
    /// Only later ones than this sequence number.
    pub after: u64,
    pub resource: Option<ResourceId>,
    pub since: Option<Timestamp>,
    /// At most this many, the newest.
    pub limit: usize,
}

/// The ledger's verbs. Each call is one transaction, and what it wrote survives the end of this process. A loss of power is survived
/// by overrides, settings and lasting steps, and by all that was written before them; the rest follows within seconds, and what is lost
/// of it is found by looking: a step is open again, an event of the last seconds is not told.
pub trait Store {
    /// Everything we own, by identity.
    fn owned(&self) -> Result<BTreeMap<ResourceId, Owned>, StoreError>;
    /// Steps that were begun and never finished (a crash in between).
    fn open_steps(&self) -> Result<Vec<JournalLine>, StoreError>;
    /// Writes the steps and claims what they are about, in one transaction (group commit).
    fn begin(&self, steps: &[Begin]) -> Result<(), StoreError>;
    /// Finishes steps with their records and events, in one transaction. Finishing twice changes nothing.
    fn finish(&self, steps: &[Finish]) -> Result<(), StoreError>;
    /// Closes open steps that a look has resolved.
    fn close_open(&self, steps: &[StepId], at: Timestamp) -> Result<(), StoreError>;
    /// Stores events that belong to no step.
    fn record(&self, events: &[Event]) -> Result<(), StoreError>;
    /// Events, oldest first.
    fn events(&self, query: &EventQuery) -> Result<Vec<Event>, StoreError>;
    /// The conditions as last stored.
    fn conditions(&self) -> Result<BTreeMap<ResourceId, Vec<Condition>>, StoreError>;
    /// Replaces the conditions of these resources and stores what is to be told of that, in one transaction; an empty list removes
    /// the resource's row.
    fn set_conditions(&self, all: &[(ResourceId, Vec<Condition>)], events: &[Event]) -> Result<(), StoreError>;
    /// The overrides that people took, in force or over.
    fn overrides(&self) -> Result<Vec<Override>, StoreError>;
    /// Takes an override; a resource has one at a time. One that is released from the ledger loses its own in the same transaction.
    fn put_override(&self, over: &Override) -> Result<(), StoreError>;
    /// Removes the overrides of these resources.
    fn drop_overrides(&self, of: &[ResourceId]) -> Result<(), StoreError>;
    /// The last journal lines of a resource, newest first.
    fn history(&self, id: &ResourceId, limit: usize) -> Result<Vec<JournalLine>, StoreError>;
    /// The key for keyed digests; made once per state folder.
    fn key(&self) -> Result<[u8; 32], StoreError>;
    /// A named setting of the state folder (last good tree and the like).
    fn get(&self, name: &str) -> Result<Option<String>, StoreError>;
    /// Sets it.
    fn set(&self, name: &str, value: &str) -> Result<(), StoreError>;
    /// Removes the oldest journal lines and events beyond these counts.
    fn trim(&self, journal: usize, events: usize) -> Result<(), StoreError>;
}
