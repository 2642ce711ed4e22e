//! Events as people and programs see them.

use serde_json::Value;

use super::deliveries::{Letter, Stage, event_id};
use crate::model::delivery_output::{DeliveryDetail, DeliveryLine};

/// An event without its body.
pub fn line(letter: &Letter) -> DeliveryLine {
    DeliveryLine {
        id: event_id(letter.seq),
        connection: letter.connection.clone(),
        state: letter.stage.as_str().to_owned(),
        event: letter.what.clone(),
        note: letter.note.clone(),
        key: letter.key.clone(),
        bytes: letter.bytes,
        accepted_at: letter.accepted,
        attempts: letter.attempts,
        next_attempt_at: (letter.stage == Stage::Waiting).then_some(letter.due),
        settled_at: letter.settled,
        status: letter.status,
        trouble: letter.trouble.clone(),
    }
}

/// An event with its body, as long as that is kept.
pub fn detail(letter: &Letter, body: Option<&[u8]>) -> DeliveryDetail {
    let body = body.map(|body| {
        serde_json::from_slice(body).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).into_owned()))
    });
    DeliveryDetail { line: line(letter), content_type: letter.content_type.clone(), body }
}
