//! A vault of notes: kept in memory, and as one JSON line each in `<home>/vault/notes.jsonl`.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::{Path as PathParameter, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::server::problem;
use super::{Identity, say};

pub(super) const IDENTITY: Identity = Identity {
    short: "vault",
    row: "parachute-vault",
    port: 1940,
    mount: "/vault/default",
    health: "/vault/default/health",
    display_name: "Demo vault",
    tagline: "Keeps notes in a file",
};

/// The path under which the number of notes is told.
pub(super) const COUNT_PATH: &str = "/vault/default/api/count";

/// A demonstration needs no more, and all notes are in memory.
const MOST_NOTES: usize = 10_000;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Note {
    id: String,
    content: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    metadata: Map<String, Value>,
    created_at: String,
}

#[derive(Debug, Deserialize)]
struct NewNote {
    content: String,
    path: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    metadata: Map<String, Value>,
}

struct Notes {
    /// `None` keeps them in memory only.
    file: Option<PathBuf>,
    /// By number, which is the order in which they came.
    all: BTreeMap<u64, Note>,
    last: u64,
}

type Shared = Arc<Mutex<Notes>>;

pub(super) fn routes(home: Option<&Path>) -> Router {
    let notes = Notes::load(home.map(|home| home.join(IDENTITY.short).join("notes.jsonl")));
    Router::new()
        .route("/vault/default/api/notes", get(list).post(create))
        .route("/vault/default/api/notes/{id}", get(one).delete(remove))
        .route(COUNT_PATH, get(count))
        .with_state(Arc::new(Mutex::new(notes)))
}

impl Notes {
    /// Lines that are no notes are passed over; there is no other copy to hold against them.
    fn load(file: Option<PathBuf>) -> Self {
        let text = file.as_ref().and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        let mut all = BTreeMap::new();
        for line in text.lines() {
            match serde_json::from_str::<Note>(line).ok().and_then(|note| Some((number(&note.id)?, note))) {
                Some((number, note)) => drop(all.insert(number, note)),
                None => say("vault passes over a line that is no note"),
            }
        }
        let last = all.keys().next_back().copied().unwrap_or(0);
        Self { file, all, last }
    }

    fn add(&mut self, new: NewNote) -> io::Result<Note> {
        let number = self.last + 1;
        let NewNote { content, path, tags, metadata } = new;
        let created_at = format!("{:.3}", jiff::Timestamp::now());
        let note = Note { id: format!("note-{number}"), content, path, tags, metadata, created_at };
        if let Some(file) = &self.file {
            fs::create_dir_all(file.parent().unwrap_or(Path::new(".")))?;
            let line = serde_json::to_string(&note)? + "\n";
            OpenOptions::new().create(true).append(true).open(file)?.write_all(line.as_bytes())?;
        }
        self.last = number;
        self.all.insert(number, note.clone());
        Ok(note)
    }

    /// Writes all notes but this one anew.
    fn remove(&mut self, number: u64) -> io::Result<bool> {
        if !self.all.contains_key(&number) {
            return Ok(false);
        }
        if let Some(file) = &self.file {
            let mut text = String::new();
            for (_, note) in self.all.iter().filter(|(other, _)| **other != number) {
                text += &(serde_json::to_string(note)? + "\n");
            }
            let new = file.with_extension("jsonl.new");
            fs::write(&new, text)?;
            fs::rename(&new, file)?;
        }
        Ok(self.all.remove(&number).is_some())
    }
}

fn number(id: &str) -> Option<u64> {
    id.strip_prefix("note-")?.parse().ok()
}

fn lock(notes: &Shared) -> MutexGuard<'_, Notes> {
    // A panic while it was held leaves notes that are whole: they change after the file did.
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

fn no_such_note() -> Response {
    problem(StatusCode::NOT_FOUND, "not_found", "there is no such note")
}

fn disk(error: &io::Error) -> Response {
    problem(StatusCode::INSUFFICIENT_STORAGE, "not_kept", &error.to_string())
}

async fn list(State(notes): State<Shared>, Query(query): Query<BTreeMap<String, String>>) -> Json<Vec<Note>> {
    let tag = query.get("tag");
    let wanted = |note: &&Note| tag.is_none_or(|tag| note.tags.contains(tag));
    Json(lock(&notes).all.values().filter(wanted).cloned().collect())
}

async fn count(State(notes): State<Shared>) -> Json<Value> {
    Json(json!({ "notes": lock(&notes).all.len() }))
}

async fn create(State(notes): State<Shared>, Json(new): Json<NewNote>) -> Response {
    let mut notes = lock(&notes);
    if notes.all.len() >= MOST_NOTES {
        return problem(StatusCode::INSUFFICIENT_STORAGE, "full", "a demo vault holds 10000 notes");
    }
    match notes.add(new) {
        Ok(note) => (StatusCode::CREATED, Json(note)).into_response(),
        Err(error) => disk(&error),
    }
}

async fn one(State(notes): State<Shared>, PathParameter(id): PathParameter<String>) -> Response {
    let notes = lock(&notes);
    number(&id).and_then(|number| notes.all.get(&number)).map_or_else(no_such_note, |note| Json(note).into_response())
}

async fn remove(State(notes): State<Shared>, PathParameter(id): PathParameter<String>) -> Response {
    let mut notes = lock(&notes);
    match number(&id).map_or(Ok(false), |number| notes.remove(number)) {
        Ok(true) => Json(json!({ "deleted": true, "id": id })).into_response(),
        Ok(false) => no_such_note(),
        Err(error) => disk(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(content: &str, tag: &str) -> NewNote {
        NewNote { content: content.to_owned(), path: None, tags: vec![tag.to_owned()], metadata: Map::new() }
    }

    #[test]
    fn notes_survive_a_restart_and_ids_are_not_given_twice() {
        let home = tempfile::tempdir().expect("a folder");
        let file = home.path().join("vault/notes.jsonl");
        let mut notes = Notes::load(Some(file.clone()));
        for content in ["a", "b", "c"] {
            notes.add(note(content, "t")).expect("a note");
        }
        assert!(notes.remove(2).expect("removed") && !notes.remove(2).expect("gone"));
        fs::write(&file, fs::read_to_string(&file).expect("a file") + "not a note\n").expect("a file");
        let mut again = Notes::load(Some(file));
        let contents: Vec<_> = again.all.values().map(|note| note.content.as_str()).collect();
        assert_eq!(contents, ["a", "c"]);
        assert_eq!(again.add(note("d", "t")).expect("a note").id, "note-4");
    }

    #[test]
    fn without_a_home_notes_are_kept_in_memory() {
        let mut notes = Notes::load(None);
        assert_eq!(notes.add(note("a", "t")).expect("a note").id, "note-1");
        assert!(notes.remove(1).expect("removed"));
    }
}
