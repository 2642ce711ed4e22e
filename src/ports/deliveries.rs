//! Events on their way from a vault to a sink, as the engine sees them. The work is done by threads of the delivery room.

use std::collections::BTreeMap;

use super::PortError;
use crate::model::id::Name;
use crate::model::secret::Secret;
use crate::model::time::Timestamp;

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
    /// The connection goes: whatever waits of it becomes a dead letter. Again does nothing. How many there were.
    ///
    /// # Errors
    /// When the database of events cannot be written.
    fn retire(&self, connection: &Name) -> Result<u64, PortError>;
}
