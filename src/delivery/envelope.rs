//! Reading an event: its note, and the key by which the same event is known again. Pure.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::model::id::Name;
use crate::ports::deliveries::Event;

/// Longer ones are cut: they are for people.
const MOST_WHAT_BYTES: usize = 128;
/// A note with a longer id has none.
const MOST_NOTE_BYTES: usize = 1_024;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    #[serde(default)]
    event: Option<String>,
    #[serde(default)]
    note: Option<Note>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Note {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    updated_at: Option<String>,
    #[serde(default)]
    created_at: Option<String>,
}

/// Reads an event that came with this body.
///
/// # Errors
/// Says why it is no JSON object.
pub fn read(connection: &Name, content_type: &str, body: Bytes) -> Result<Event, String> {
    let envelope = match serde_json::from_slice::<Envelope>(&body) {
        // A list would do for a struct.
        Ok(envelope) if begins_as_object(&body) => envelope,
        Ok(_) => return Err("it is no JSON object".to_owned()),
        // Other types under the same names are not for us to judge.
        Err(_) => loosely(&body)?,
    };
    let note = envelope.note.unwrap_or_default();
    let id = note.id.filter(|id| !id.is_empty() && id.len() <= MOST_NOTE_BYTES);
    // A note is created once, whatever becomes of it before its event is sent a second time.
    let moment = match envelope.event.as_deref() {
        Some("created" | "note.created") => note.created_at.or(note.updated_at),
        _ => note.updated_at.or(note.created_at),
    };
    let key = key(connection, envelope.event.as_deref(), id.as_deref().zip(moment.as_deref()), &body);
    let what = envelope.event.map(|what| cut(what, MOST_WHAT_BYTES));
    Ok(Event { connection: connection.clone(), key, note: id, what, content_type: content_type.to_owned(), body })
}

fn begins_as_object(body: &[u8]) -> bool {
    body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
}

fn loosely(body: &[u8]) -> Result<Envelope, String> {
    let whole: Map<String, Value> = serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => "it is no JSON object".to_owned(),
        _ => format!("it is no JSON: {error}"),
    })?;
    let text = |map: &Map<String, Value>, name: &str| map.get(name).and_then(Value::as_str).map(str::to_owned);
    let note = whole.get("note").and_then(Value::as_object).map(|note| Note {
        id: text(note, "id"),
        updated_at: text(note, "updatedAt"),
        created_at: text(note, "createdAt"),
    });
    Ok(Envelope { event: text(&whole, "event"), note })
}

/// The same note in the same state is the same event. Without a note, or its time, the same bytes are.
fn key(connection: &Name, what: Option<&str>, note: Option<(&str, &str)>, body: &[u8]) -> String {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(connection.as_str().as_bytes());
    match note {
        Some((id, moment)) => {
            part(b"note");
            part(what.unwrap_or_default().as_bytes());
            part(id.as_bytes());
            part(moment.as_bytes());
        }
        None => {
            part(b"body");
            part(body);
        }
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

fn cut(mut text: String, most: usize) -> String {
    while text.len() > most {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(connection: &str, body: &str) -> Result<Event, String> {
        let connection = Name::new(connection).expect("a name");
        read(&connection, "application/json", Bytes::copy_from_slice(body.as_bytes()))
    }

    fn key(connection: &str, body: &str) -> String {
        event(connection, body).expect("an event").key
    }

    #[test]
    fn the_same_note_in_the_same_state_is_the_same_event() {
        let body = |id: &str, when: &str, more: &str| {
            format!(r#"{{"event":"note.updated","note":{{"id":"{id}","updatedAt":"{when}"}},"more":"{more}"}}"#)
        };
        let one = key("a", &body("n1", "2026-01-01", "x"));
        assert_eq!(one, key("a", &body("n1", "2026-01-01", "y")), "the rest does not count");
        assert_ne!(one, key("b", &body("n1", "2026-01-01", "x")));
        assert_ne!(one, key("a", &body("n2", "2026-01-01", "x")));
        assert_ne!(one, key("a", &body("n1", "2026-01-02", "x")));
        assert_ne!(one, key("a", &body("n1", "2026-01-01", "x").replace("updated\"", "created\"")));
        let created = r#"{"event":"e","note":{"id":"n","createdAt":"1"}}"#;
        assert_eq!(key("a", created), key("a", &created.replace('}', " }")));
        assert_eq!(one.len(), 32);
    }

    #[test]
    fn without_a_note_or_its_time_the_bytes_count() {
        for body in [r#"{"event":"x"}"#, r#"{"note":{"id":"n"}}"#, r#"{"note":7,"event":["x"]}"#, "{}"] {
            assert_eq!(key("a", body), key("a", body));
            assert_ne!(key("a", body), key("a", &format!("{body} ")), "{body}");
        }
    }

    #[test]
    fn only_an_object_is_an_event() {
        for wrong in ["", "[]", "[null,null]", "7", "null", "{", "{} {}", "\"x\"", "{\"a\":1,}"] {
            assert!(event("a", wrong).is_err(), "{wrong}");
        }
        let read =
            event("a", r#" {"event":"note.created","note":{"id":"n1","tags":[1]},"trigger":4}"#).expect("an event");
        assert_eq!((read.note.as_deref(), read.what.as_deref()), (Some("n1"), Some("note.created")));
        assert_eq!(event("a", r#"{"note":{"id":4}}"#).expect("an event").note, None);
        assert!(!format!("{read:?}").contains("trigger"), "no body in what is printed");
    }
}
