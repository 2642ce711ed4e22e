//! The notes API of a vault.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::desk::{Asked, error_body, method_not_allowed, store_failed};
use super::door::Caller;
use super::hooks::Event;
use super::note::{Note, View};
use super::query::{self, Query};
use super::store::{NewNote, StoreError, Vault, after};

/// The most notes that are taken at once.
const MOST_AT_ONCE: usize = 500;

#[derive(Debug, Deserialize)]
struct Sent {
    id: Option<String>,
    content: String,
    path: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    metadata: Map<String, Value>,
    #[serde(rename = "createdAt", alias = "created_at")]
    created_at: Option<String>,
}

/// `/notes`
pub(super) fn collection(asked: &Asked, method: &Method, body: &Bytes) -> Response {
    match *method {
        Method::GET => match asked.pair("id") {
            Some(id) => one(asked, id, json!({ "error": "Note not found", "id": id })),
            None => list(asked),
        },
        Method::POST => create(asked, body),
        _ => method_not_allowed(),
    }
}

/// `/notes/{id}`
pub(super) fn item(asked: &Asked, method: &Method, id: &str, body: &Bytes) -> Response {
    match *method {
        Method::GET => one(asked, id, json!({ "error": "Not found" })),
        Method::PATCH => patch(asked, id, body),
        Method::DELETE => remove(asked, id),
        _ => method_not_allowed(),
    }
}

/// `/notes/{id}/attachments`
pub(super) fn attachments(asked: &Asked, method: &Method, id: &str) -> Response {
    match find(&asked.vault, &asked.caller, id) {
        _ if *method != Method::GET => method_not_allowed(),
        Ok(Some(note)) => Json(note.attachments).into_response(),
        Ok(None) => missing(),
        Err(error) => store_failed(&error),
    }
}

fn missing() -> Response {
    (StatusCode::NOT_FOUND, Json(json!({ "error": "Not found" }))).into_response()
}

/// By id, or else by path.
fn find(vault: &Vault, caller: &Caller, id: &str) -> Result<Option<Note>, StoreError> {
    let found = match vault.note(id)? {
        Some(note) => Some(note),
        None => vault.notes(false, 1, |note| note.path.as_deref() == Some(id))?.pop(),
    };
    Ok(found.filter(|note| note.is_within(caller.tags.as_deref())))
}

fn one(asked: &Asked, id: &str, otherwise: Value) -> Response {
    match find(&asked.vault, &asked.caller, id) {
        Ok(Some(note)) => Json(note.shown(&query::view(&asked.query, true))).into_response(),
        Ok(None) => (StatusCode::NOT_FOUND, Json(otherwise)).into_response(),
        Err(error) => store_failed(&error),
    }
}

fn list(asked: &Asked) -> Response {
    let query = match Query::read(&asked.query) {
        Ok(query) => query,
        Err((error, code)) => {
            return (StatusCode::BAD_REQUEST, Json(json!({ "error": error, "code": code }))).into_response();
        }
    };
    let tags = asked.caller.tags.as_deref();
    match asked.vault.notes(query.newest_first, query.most(), |note| note.is_within(tags) && query.wants(note)) {
        Ok(found) => Json(query.page(found)).into_response(),
        Err(error) => store_failed(&error),
    }
}

fn create(asked: &Asked, body: &Bytes) -> Response {
    let body: Value = match serde_json::from_slice(body) {
        Ok(body) => body,
        Err(error) => return error_body(StatusCode::BAD_REQUEST, &format!("the body is no JSON: {error}")),
    };
    let many = body.get("notes").cloned();
    let is_one = many.is_none();
    let sent: Result<Vec<Sent>, _> = match many {
        Some(many) => serde_json::from_value(many),
        None => serde_json::from_value(body).map(|one| vec![one]),
    };
    let sent = match sent {
        Ok(sent) if sent.len() > MOST_AT_ONCE => {
            let message = format!("at most {MOST_AT_ONCE} notes at once");
            let body = json!({ "error": "BatchTooLarge", "error_type": "batch_too_large", "message": message, "limit": MOST_AT_ONCE });
            return (StatusCode::PAYLOAD_TOO_LARGE, Json(body)).into_response();
        }
        Ok(sent) => sent,
        Err(error) => return error_body(StatusCode::UNPROCESSABLE_ENTITY, &format!("this is no note: {error}")),
    };
    let mut made = Vec::new();
    for Sent { id, content, path, tags, metadata, created_at } in sent {
        let new = NewNote { id, content, path, tags, metadata, created_at };
        let bound = asked.caller.tags.as_deref();
        let probe = Note { tags: new.tags.clone(), ..blank() };
        if !probe.is_within(bound) {
            return outside(asked);
        }
        match asked.vault.add(new) {
            Ok(note) => {
                asked.desk.hooks.dispatch(&asked.vault, Event::Created, &note);
                made.push(note.shown(&View::WHOLE));
            }
            Err(error) => return store_failed(&error),
        }
    }
    let body = if is_one { made.pop().unwrap_or_default() } else { Value::Array(made) };
    (StatusCode::CREATED, Json(body)).into_response()
}

fn blank() -> Note {
    Note {
        id: String::new(),
        content: String::new(),
        path: None,
        tags: Vec::new(),
        metadata: Map::new(),
        created_at: String::new(),
        updated_at: String::new(),
        attachments: Vec::new(),
    }
}

fn outside(asked: &Asked) -> Response {
    let body = json!({ "error": "Forbidden", "error_type": "tag_scope_violation", "message": "the note bears none of the token's tags", "scoped_tags": asked.caller.tags });
    (StatusCode::FORBIDDEN, Json(body)).into_response()
}

/// What a PATCH may hold; more in it is passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Patch {
    content: Option<String>,
    append: Option<String>,
    prepend: Option<String>,
    path: Option<String>,
    metadata: Option<Map<String, Value>>,
    tags: TagPatch,
    if_updated_at: Option<String>,
    force: bool,
    include_content: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TagPatch {
    add: Vec<String>,
    remove: Vec<String>,
}

impl Patch {
    /// Whether it can do no harm to what somebody else wrote meanwhile.
    fn only_adds(&self) -> bool {
        (self.append.is_some() || self.prepend.is_some()) && !self.writes_over()
    }

    fn writes_over(&self) -> bool {
        let tags = !self.tags.add.is_empty() || !self.tags.remove.is_empty();
        self.content.is_some() || self.path.is_some() || self.metadata.is_some() || tags
    }

    /// Whether the row of the note changes; its tags are kept apart.
    fn touches_row(&self) -> bool {
        self.content.is_some()
            || self.append.is_some()
            || self.prepend.is_some()
            || self.path.is_some()
            || self.metadata.is_some()
    }

    fn apply(self, note: &mut Note) {
        if self.touches_row() {
            note.updated_at = after(Some(&note.updated_at));
        }
        if let Some(content) = self.content {
            note.content = content;
        }
        note.content = self.prepend.unwrap_or_default() + &note.content + &self.append.unwrap_or_default();
        note.path = self.path.or(note.path.take());
        for (key, value) in self.metadata.unwrap_or_default() {
            // A JSON merge patch (RFC 7386), of the first level.
            match value {
                Value::Null => drop(note.metadata.shift_remove(&key)),
                value => drop(note.metadata.insert(key, value)),
            }
        }
        let tags: Vec<String> = self.tags.add.into_iter().filter(|tag| !note.has_tag(tag)).collect();
        note.tags.extend(tags);
        note.tags.retain(|tag| !self.tags.remove.contains(tag));
    }
}

fn patch(asked: &Asked, id: &str, body: &Bytes) -> Response {
    let patch: Patch = match serde_json::from_slice(body) {
        Ok(patch) => patch,
        Err(error) => return error_body(StatusCode::BAD_REQUEST, &format!("the body is no change of a note: {error}")),
    };
    let note = match find(&asked.vault, &asked.caller, id) {
        Ok(Some(note)) => note,
        Ok(None) => return error_body(StatusCode::NOT_FOUND, &format!("Note not found: \"{id}\"")),
        Err(error) => return store_failed(&error),
    };
    if patch.content.is_some() && (patch.append.is_some() || patch.prepend.is_some()) {
        let body =
            json!({ "error": "mutually_exclusive", "message": "`content` and `append`/`prepend` exclude each other" });
        return (StatusCode::BAD_REQUEST, Json(body)).into_response();
    }
    if !patch.only_adds() && patch.if_updated_at.is_none() && !patch.force {
        let message = "a change needs `if_updated_at`, the time of the note as it was last seen, or `force: true`";
        let body = json!({ "error": "precondition_required", "error_type": "precondition_required", "message": message,
            "note_id": note.id, "path": note.path });
        return (StatusCode::PRECONDITION_REQUIRED, Json(body)).into_response();
    }
    let bound = asked.caller.tags.clone();
    let (touches, wants_content) = (patch.touches_row(), patch.include_content != Some(false));
    let seen = patch.if_updated_at.clone();
    let mut stale = None;
    let mut left_scope = false;
    let changed = asked.vault.change(&note.id, |note| {
        if seen.as_ref().is_some_and(|seen| *seen != note.updated_at) {
            stale = Some(note.updated_at.clone());
            return false;
        }
        let mut next = note.clone();
        patch.apply(&mut next);
        left_scope = !next.is_within(bound.as_deref());
        if !left_scope {
            *note = next;
        }
        !left_scope
    });
    if let Some(current) = stale {
        let message = "the note has changed since it was last seen";
        let body = json!({ "error": "conflict", "error_type": "conflict", "note_id": note.id, "path": note.path,
            "current_updated_at": current, "your_updated_at": seen, "expected_updated_at": seen, "message": message });
        return (StatusCode::CONFLICT, Json(body)).into_response();
    }
    match changed {
        _ if left_scope => outside(asked),
        Ok(Some(note)) => {
            if touches {
                asked.desk.hooks.dispatch(&asked.vault, Event::Updated, &note);
            }
            let mut shown = note.shown(&View { content: wants_content, ..View::WHOLE });
            shown["created"] = json!(false);
            Json(shown).into_response()
        }
        Ok(None) => error_body(StatusCode::NOT_FOUND, &format!("Note not found: \"{id}\"")),
        Err(error) => store_failed(&error),
    }
}

fn remove(asked: &Asked, id: &str) -> Response {
    let found = find(&asked.vault, &asked.caller, id);
    let removed = found.and_then(|note| match note {
        Some(note) => asked.vault.remove(&note.id).map(|removed| removed.then_some(note.id)),
        None => Ok(None),
    });
    match removed {
        Ok(Some(id)) => Json(json!({ "deleted": true, "id": id })).into_response(),
        Ok(None) => missing(),
        Err(error) => store_failed(&error),
    }
}

/// `/count`, which the real one does not have.
pub(super) fn count(vault: &Arc<Vault>) -> Response {
    vault.count().map_or_else(|error| store_failed(&error), |notes| Json(json!({ "notes": notes })).into_response())
}
