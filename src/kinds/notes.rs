//! The notes of a vault, as far as events that never arrived are concerned: a vault marks a note before it sends it, and the mark stays when
//! that fails. Pure: the calls are made elsewhere. Facts of the API are those of the vault's own `/vault/<name>/api/notes`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::trigger::{self, Address};
use crate::model::secret::Secret;
use crate::model::time::Timestamp;
use crate::model::unit::Millis;
use crate::ports::peers::{Call, Method, Reply};

/// Notes that are asked for at once. The newest come first: what is stuck is seldom old.
pub const PAGE: usize = 500;
/// So many notes of a connection are brought on their way in one step.
pub const MOST_AT_ONCE: usize = 50;
/// A vault waits a minute for an answer; what is marked for longer is not being sent any more.
pub const PATIENCE: Millis = Millis::secs(90);
const LIMIT: Millis = Millis::secs(3);

/// A note whose event never arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StuckNote {
    pub id: String,
    /// When its vault tried to send it.
    pub since: Timestamp,
}

fn call(method: Method, port: u16, path: String, bearer: &Secret, body: Option<&Value>) -> Call {
    let body = body.map(|body| Secret::new(body.to_string()));
    Call { method, port, path, bearer: Some(bearer.clone()), body, timeout: LIMIT }
}

/// Asks for one page of notes, without their content.
pub fn page(port: u16, at: &Address, bearer: &Secret, number: usize) -> Call {
    let path = format!("{}/api/notes?limit={PAGE}&offset={}&sort=desc", at.path(), number * PAGE);
    call(Method::Get, port, path, bearer, None)
}

/// The notes of a page: id and metadata.
pub fn read_page(reply: &Reply) -> Option<Vec<(String, Map<String, Value>)>> {
    let list: Vec<Value> = serde_json::from_slice(&reply.body).ok().filter(|_| reply.is_success())?;
    let note = |mut note: Value| {
        let id = note.get("id")?.as_str()?.to_owned();
        let metadata = match note.get_mut("metadata").map(Value::take) {
            Some(Value::Object(metadata)) => metadata,
            _ => Map::new(),
        };
        Some((id, metadata))
    };
    Some(list.into_iter().filter_map(note).collect())
}

/// When the vault tried to send this note by this trigger, if that never ended.
pub fn stuck_since(metadata: &Map<String, Value>, trigger: &str) -> Option<Timestamp> {
    let mark = |key: &str| metadata.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    if mark(&trigger::rendered_marker(trigger)).is_some() {
        return None;
    }
    let since = mark(&trigger::pending_marker(trigger))?.parse::<jiff::Timestamp>().ok()?;
    Some(Timestamp(since.as_millisecond()))
}

/// Every trigger by which this note was to be sent and never was, and since when.
pub fn stuck_triggers(metadata: &Map<String, Value>) -> impl Iterator<Item = (&str, Timestamp)> {
    let pending = metadata.keys().filter_map(|key| key.strip_suffix("_pending_at"));
    pending.filter_map(|trigger| Some((trigger, stuck_since(metadata, trigger)?)))
}

/// Asks for a whole note.
pub fn one(port: u16, at: &Address, bearer: &Secret, id: &str) -> Call {
    call(Method::Get, port, format!("{}/api/notes/{}", at.path(), segment(id)), bearer, None)
}

/// The body that the vault would have sent; `None` when the note is not stuck any more.
pub fn event_of(reply: &Reply, trigger: &str, event: &str) -> Option<Value> {
    let mut note: Map<String, Value> = serde_json::from_slice(&reply.body).ok().filter(|_| reply.is_success())?;
    let metadata = note.get_mut("metadata")?.as_object_mut()?;
    stuck_since(metadata, trigger)?;
    metadata.remove(&trigger::pending_marker(trigger));
    let fields = ["id", "content", "path", "tags", "metadata", "attachments", "createdAt", "updatedAt"];
    let note: Map<String, Value> = fields.iter().filter_map(|field| note.remove_entry(*field)).collect();
    Some(json!({ "trigger": trigger, "event": event, "note": note }))
}

/// Marks a note as sent: whoever has its event now answers for it.
pub fn sent(port: u16, at: &Address, bearer: &Secret, id: &str, trigger: &str, now: Timestamp) -> Call {
    let mut metadata = Map::new();
    metadata.insert(trigger::pending_marker(trigger), Value::Null);
    metadata.insert(trigger::rendered_marker(trigger), now.to_string().into());
    patch(port, at, bearer, id, metadata)
}

/// Takes the mark away; a trigger on updates sends the note again by that.
pub fn again(port: u16, at: &Address, bearer: &Secret, id: &str, trigger: &str) -> Call {
    let metadata = Map::from_iter([(trigger::pending_marker(trigger), Value::Null)]);
    patch(port, at, bearer, id, metadata)
}

fn patch(port: u16, at: &Address, bearer: &Secret, id: &str, metadata: Map<String, Value>) -> Call {
    let body = json!({ "metadata": metadata, "force": true, "include_content": false });
    call(Method::Patch, port, format!("{}/api/notes/{}", at.path(), segment(id)), bearer, Some(&body))
}

/// An id as one segment of a path.
fn segment(id: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    id.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_stuck_while_it_is_marked_as_being_sent_and_not_as_sent() {
        let metadata = |json: Value| json.as_object().cloned().expect("an object");
        let pending = metadata(json!({ "t_pending_at": "2026-11-21T10:00:00.000Z" }));
        assert_eq!(stuck_since(&pending, "t").map(|at| at.to_string()).as_deref(), Some("2026-11-21T10:00:00.000Z"));
        assert_eq!(stuck_since(&pending, "other"), None);
        let done = metadata(json!({ "t_pending_at": "2026-11-21T10:00:00Z", "t_rendered_at": "2026-11-21T10:00:01Z" }));
        assert_eq!(stuck_since(&done, "t"), None);
        assert_eq!(stuck_since(&metadata(json!({ "t_pending_at": null })), "t"), None);
    }

    #[test]
    fn the_event_of_a_stuck_note_is_what_its_vault_would_have_sent() {
        let note = json!({ "id": "n 1", "content": "c", "tags": [], "createdAt": "a", "updatedAt": "b", "links": [],
            "metadata": { "x": 1, "t_pending_at": "2026-11-21T10:00:00Z" } });
        let reply = Reply { status: 200, body: note.to_string().into_bytes() };
        let event = event_of(&reply, "t", "created").expect("an event");
        assert_eq!(event["note"]["metadata"], json!({ "x": 1 }));
        assert_eq!((event["event"].as_str(), event["note"].get("links")), (Some("created"), None));
        assert_eq!(segment("n 1/ü"), "n%201%2F%C3%BC");
    }
}
