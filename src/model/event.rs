//! What happened, for people who ask later: typed reason and cause, text written when it happened.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::condition::Reason;
use super::id::ResourceId;
use super::time::Timestamp;

/// Why something was done: a wish of a person, or the world moving by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// The files ask for something they did not ask for before.
    Intent,
    /// The world moved while the files did not.
    Drift,
    /// An earlier attempt did not get through.
    Retry,
}

/// One line of history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Grows by one; zero until the ledger has stored it.
    pub seq: u64,
    pub at: Timestamp,
    pub resource: ResourceId,
    pub reason: Reason,
    pub cause: Cause,
    pub message: String,
}
