//! What the commands for deliveries say, and the API with them.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::id::Name;
use super::time::Timestamp;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum DeliveryOutput {
    Delivery(DeliveryLine),
    DeliveryDetail(DeliveryDetail),
    Replayed(ChangedLine),
    Discarded(ChangedLine),
}

/// An event of a durable connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryLine {
    #[schema(examples("e000001a"))]
    pub id: String,
    #[schema(value_type = String)]
    pub connection: Name,
    /// `waiting`, `dead`, `delivered` or `discarded`.
    #[schema(examples("waiting"))]
    pub state: String,
    /// Such as `note.created`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub event: Option<String>,
    /// The id of the note that it is about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub note: Option<String>,
    /// What the sink is told as `Idempotency-Key`.
    pub key: String,
    /// Of its body.
    pub bytes: u64,
    pub accepted_at: Timestamp,
    /// Requests that reached the sink.
    pub attempts: u32,
    /// When it is tried next, while it waits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_attempt_at: Option<Timestamp>,
    /// When it was delivered, given up or discarded.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub settled_at: Option<Timestamp>,
    /// The status of the last answer of the sink.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<u16>,
    /// What went wrong last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trouble: Option<String>,
}

/// All that is known of an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryDetail {
    #[serde(flatten)]
    pub line: DeliveryLine,
    pub content_type: String,
    /// What the vault sent. It is kept while the event waits or is dead.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<Object>)]
    pub body: Option<Value>,
}

/// An event that a person changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangedLine {
    #[schema(examples("e000001a"))]
    pub id: String,
}
