//! Events on their way from a vault to a sink: what the engine and the hub see of them, and what the delivery room asks of its database
//! and of its connections to sinks.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::PortError;
use super::hub::{Wiring, Wish};
use crate::model::id::Name;
use crate::model::secret::Secret;
use crate::model::time::Timestamp;
use crate::model::unit::Millis;

/// The largest body of an event.
pub const MOST_BODY_BYTES: usize = 8 << 20;

/// How the events of one connection stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Accepted, and neither delivered nor given up.
    pub waiting: u64,
    /// Given up after their last attempt; a person replays or discards them.
    pub dead: u64,
    /// Delivered, as far as that is still remembered.
    pub delivered: u64,
    /// When the oldest of those that wait was accepted.
    pub oldest: Option<Timestamp>,
    /// What the sink said last, while it does not take events.
    pub trouble: Option<String>,
    /// So many wait that no more are accepted.
    pub full: bool,
}

/// An event that was found at its vault and never arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The JSON that the vault would have sent.
    pub body: Secret,
}

/// The verbs of the delivery room that the engine needs. All are quick.
pub trait Deliveries {
    /// By connection; whoever has no events is not in it.
    ///
    /// # Errors
    /// When the database of events cannot be read.
    fn tallies(&self) -> Result<BTreeMap<Name, Tally>, PortError>;
    /// Takes an event in as the inbox does. The same again does nothing; says whether it is new.
    ///
    /// # Errors
    /// When it is not stored.
    fn take_in(&self, connection: &Name, found: &Found) -> Result<bool, PortError>;
    /// The connection goes: whatever waits of it becomes a dead letter. With an heir, what waits and what is dead is the heir's from now on,
    /// under the same keys; what the heir has already is dropped. Again does nothing. How many of those that waited there were.
    ///
    /// # Errors
    /// When the database of events cannot be written.
    fn retire(&self, connection: &Name, heir: Option<&Name>) -> Result<u64, PortError>;
}

/// An event as it is taken in.
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    pub connection: Name,
    /// The same event has the same key; unique in a connection.
    pub key: String,
    /// The note that it is about. Events of one note are delivered one after another.
    pub note: Option<String>,
    /// Such as `note.created`.
    pub what: Option<String>,
    pub content_type: String,
    pub body: Bytes,
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("connection", &self.connection).field("key", &self.key).finish_non_exhaustive()
    }
}

/// How far an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    Waiting,
    /// Given up; its body is kept for whoever replays it.
    Dead,
    Delivered,
    /// Thrown away by a person.
    Discarded,
}

impl Stage {
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Dead, Self::Delivered, Self::Discarded];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Dead => "dead",
            Self::Delivered => "delivered",
            Self::Discarded => "discarded",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.as_str() == text)
    }
}

/// What the worker must know of an event that waits. Small: all of them are in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// In the order of acceptance, unique for ever.
    pub seq: u64,
    pub connection: Name,
    /// Events of one lane are delivered one after another.
    pub lane: u64,
    /// Since when its age counts: when it was accepted, or replayed.
    pub since: Timestamp,
    pub due: Timestamp,
    /// Answers of the sink that were no success.
    pub attempts: u32,
}

/// What is sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Parcel {
    pub key: String,
    pub content_type: String,
    pub body: Bytes,
    pub accepted: Timestamp,
}

/// All that is known of an event, but for its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    pub seq: u64,
    pub connection: Name,
    pub key: String,
    pub note: Option<String>,
    pub what: Option<String>,
    pub content_type: String,
    /// Of its body.
    pub bytes: u64,
    pub stage: Stage,
    pub accepted: Timestamp,
    pub attempts: u32,
    /// When it is tried next, while it waits.
    pub due: Timestamp,
    /// Of the last answer of the sink.
    pub status: Option<u16>,
    /// What went wrong last.
    pub trouble: Option<String>,
    /// When it was delivered, given up or thrown away.
    pub settled: Option<Timestamp>,
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Delivered { status: u16 },
    Again { due: Timestamp, attempts: u32, status: Option<u16>, trouble: String },
    Dead { attempts: u32, status: Option<u16>, trouble: String },
}

/// Which events a person means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pick {
    Seqs(Vec<u64>),
    /// All dead letters of a connection.
    AllDead(Name),
}

/// One thing that is written. All of a list are written together, or none of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    Accept {
        event: Event,
        at: Timestamp,
    },
    Settle {
        seq: u64,
        change: Change,
        at: Timestamp,
    },
    /// Everything of a connection that waits becomes a dead letter, or its heir's.
    Retire {
        connection: Name,
        heir: Option<Name>,
        trouble: String,
        at: Timestamp,
    },
    /// Dead letters wait again, with all their attempts before them; what waits is tried at once.
    Replay {
        pick: Pick,
        at: Timestamp,
    },
    /// Dead and waiting events are thrown away.
    Discard {
        pick: Pick,
        at: Timestamp,
    },
    /// Some of what was settled before this, or is beyond the bounds, is forgotten.
    Sweep {
        before: Timestamp,
    },
    /// Nothing; shows whether anything can be written.
    Probe,
}

/// What came of an [`Act`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    Accepted(Row),
    /// It is there already.
    Known(u64),
    Full(String),
    /// The events that were changed, by [`Act::Retire`], [`Act::Replay`] or [`Act::Discard`]; those that went to an heir, as they were.
    Changed(Vec<Row>),
    /// How many there were.
    Count(u64),
}

/// Bounds of what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Events of one connection that wait, and again as many dead letters.
    pub waiting: u64,
    /// Events of all connections that wait.
    pub waiting_in_all: u64,
    /// Bodies that are kept.
    pub bytes: u64,
    /// Bodies of one connection: no connection uses up the room of all others.
    pub bytes_of_one: u64,
    /// Delivered and discarded events of one connection that are remembered.
    pub remembered: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { waiting: 10_000, waiting_in_all: 100_000, bytes: 256 << 20, bytes_of_one: 128 << 20, remembered: 10_000 }
    }
}

/// Which letters are listed, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterQuery {
    pub connection: Option<Name>,
    pub stage: Option<Stage>,
    /// Only older ones than this.
    pub before: Option<u64>,
    pub limit: usize,
}

/// The database of events. Shared by threads and processes.
pub trait DeliveryStore: Send + Sync {
    /// Writes all of a list in one transaction; it is on the disk when this returns. One answer for each.
    ///
    /// # Errors
    /// In words; nothing was written.
    fn write(&self, acts: &[Act]) -> Result<Vec<Done>, String>;
    /// Events that wait, after this one, by their order.
    ///
    /// # Errors
    /// In words.
    fn waiting(&self, after: u64, limit: usize) -> Result<Vec<Row>, String>;
    /// `None` when it does not wait any more.
    ///
    /// # Errors
    /// In words.
    fn parcel(&self, seq: u64) -> Result<Option<Parcel>, String>;
    /// By connection; `trouble` is that of the oldest event that waits.
    ///
    /// # Errors
    /// In words.
    fn tallies(&self) -> Result<BTreeMap<Name, Tally>, String>;
    /// # Errors
    /// In words.
    fn list(&self, query: &LetterQuery) -> Result<Vec<Letter>, String>;
    /// With its body, as long as that is kept.
    ///
    /// # Errors
    /// In words.
    fn find(&self, seq: u64) -> Result<Option<(Letter, Option<Bytes>)>, String>;
    /// Another number after somebody else has written.
    ///
    /// # Errors
    /// In words.
    fn version(&self) -> Result<i64, String>;
}

/// The digits of ids (Crockford's base 32).
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Enough for 34 thousand million events before ids get longer.
const LEAST_DIGITS: usize = 7;

/// The id of an event, for people: `e` and its number in base 32, so that ids sort as the events came. Such as `e000001a`.
pub fn event_id(seq: u64) -> String {
    let mut left = seq;
    let mut digits = Vec::with_capacity(LEAST_DIGITS);
    while left > 0 || digits.len() < LEAST_DIGITS {
        digits.push(char::from(DIGITS[(left % 32) as usize]));
        left /= 32;
    }
    std::iter::once('e').chain(digits.into_iter().rev()).collect()
}

/// Reads what [`event_id`] wrote, in either case.
pub fn parse_event_id(text: &str) -> Option<u64> {
    let digits = text.strip_prefix(['e', 'E'])?;
    if digits.is_empty() || digits.len() > 12 {
        return None;
    }
    digits.bytes().try_fold(0_u64, |number, digit| {
        let value = DIGITS.iter().position(|known| *known == digit.to_ascii_lowercase())?;
        Some(number * 32 + value as u64)
    })
}

/// Opens the database of events; `None` when there is none and none is to be made.
pub type OpenStore = Arc<dyn Fn(bool) -> Result<Option<Arc<dyn DeliveryStore>>, String> + Send + Sync>;

/// A request to a sink.
#[derive(Clone)]
pub struct Errand {
    pub port: u16,
    pub path: String,
    pub token: Secret,
    pub key: String,
    pub connection: Name,
    /// The first is 1.
    pub attempt: u32,
    pub content_type: String,
    pub body: Bytes,
    pub timeout: Millis,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    Answered {
        status: u16,
        retry_after: Option<Millis>,
        /// The beginning of the answer, for people.
        text: String,
    },
    /// Nothing of it left.
    Unreached(String),
    /// It may have arrived.
    Lost(String),
}

/// An answer of another thread.
pub type Soon<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Connections to sinks.
pub trait Carrier: Send + Sync {
    /// Sends a request, and waits for its answer as long as it says.
    fn carry(&self, errand: Errand) -> Soon<Arrival>;
}

/// An event was taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub seq: u64,
    /// It had been before.
    pub known: bool,
}

/// Why an event was not taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAccepted {
    /// It is no JSON object.
    Unreadable(String),
    Full(String),
    /// Too many want it at once.
    Busy,
    Broken(String),
}

/// Makes the token of a delivery, or says why not.
pub type MintFor = Arc<dyn Fn(&Wiring) -> Result<Secret, String> + Send + Sync>;

/// What happens to deliveries, for whoever counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// So long after it was accepted.
    Delivered(Millis),
    /// An attempt failed; it is made again.
    Failed,
    Dead,
}

/// Told what happens to the deliveries of a connection.
pub type Counts = Arc<dyn Fn(&Name, Seen) + Send + Sync>;

/// What the hub has for the delivery room.
#[derive(Clone)]
pub struct HubSide {
    pub mint: MintFor,
    pub seen: Counts,
}

/// The delivery room as the hub sees it.
pub trait Post: Send + Sync {
    /// From now on events are delivered. Called once.
    fn begin(&self, side: HubSide);
    /// What is served. The same again makes it look whether somebody else has written.
    fn tell(&self, wish: &Arc<Wish>);
    /// Takes an event in; it is on the disk when this says so, and it is taken in even when nobody waits for the answer.
    fn accept(&self, connection: Name, content_type: String, body: Bytes) -> Soon<Result<Accepted, NotAccepted>>;
    /// What is wrong with the database, if it is needed and anything is.
    ///
    /// # Errors
    /// In words.
    fn standing(&self) -> Result<(), String>;
    /// # Errors
    /// When the database cannot be read.
    fn tallies(&self) -> Result<BTreeMap<Name, Tally>, String>;
    /// # Errors
    /// When the database cannot be read.
    fn list(&self, query: &LetterQuery) -> Result<Vec<Letter>, String>;
    /// # Errors
    /// When the database cannot be read.
    fn find(&self, seq: u64) -> Result<Option<(Letter, Option<Bytes>)>, String>;
    /// [`Act::Replay`] or [`Act::Discard`] of one event; says whether it was changed. Whether anybody delivers it is not asked here.
    ///
    /// # Errors
    /// When the database cannot be written.
    fn change(&self, seq: u64, discard: bool) -> Result<bool, String>;
    /// Begins nothing any more, gives what is under way so long, and ends.
    fn end(&self, grace: Duration);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_short_sort_as_they_came_and_are_read_back() {
        assert_eq!((event_id(0), event_id(42)), ("e0000000".to_owned(), "e000001a".to_owned()));
        for pair in [1, 31, 32, 33, 1_024, 1 << 34].windows(2) {
            assert!(event_id(pair[0]) < event_id(pair[1]));
        }
        for seq in [0, 1, 42, 1 << 20, 1 << 40] {
            assert_eq!(parse_event_id(&event_id(seq)), Some(seq));
            assert_eq!(parse_event_id(&event_id(seq).to_uppercase()), Some(seq));
        }
        for wrong in ["", "e", "x0000001", "e00u", "e0000000000000", "42"] {
            assert_eq!(parse_event_id(wrong), None, "{wrong}");
        }
    }
}
