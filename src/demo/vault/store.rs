//! One vault: its notes and its triggers, in a SQLite database of its own.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::note::Note;
use super::triggers::Trigger;

/// So many notes a vault takes in its life, those that were removed as well; a demonstration needs no more.
const MOST_NOTES: u64 = 200_000;
/// As many triggers a vault takes.
const MOST_TRIGGERS: usize = 1_000;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS notes (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, body TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS triggers (name TEXT PRIMARY KEY, events TEXT NOT NULL, \"when\" TEXT NOT NULL,
        action TEXT NOT NULL, created_at TEXT NOT NULL, updated_at TEXT NOT NULL);
";

/// Why something is not stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("the vault's database: {0}")]
    Database(#[from] rusqlite::Error),
    #[error("a demo vault holds no more")]
    Full,
    #[error("there is a note with this id already")]
    Taken,
}

/// A new note.
#[derive(Clone, Debug, Default)]
pub(super) struct NewNote {
    pub(super) id: Option<String>,
    pub(super) content: String,
    pub(super) path: Option<String>,
    pub(super) tags: Vec<String>,
    pub(super) metadata: Map<String, Value>,
    pub(super) created_at: Option<String>,
}

/// An open vault.
pub(super) struct Vault {
    pub(super) name: String,
    database: Mutex<Connection>,
    /// As stored; read for every change of a note.
    triggers: Mutex<Arc<Vec<Trigger>>>,
}

impl Vault {
    /// Opens the database in this file, or one in memory.
    pub(super) fn open(name: &str, file: Option<&Path>) -> Result<Self, StoreError> {
        let database = match file {
            Some(file) => Connection::open(file)?,
            None => Connection::open_in_memory()?,
        };
        database.busy_timeout(Duration::from_secs(5))?;
        database.pragma_update(None, "journal_mode", "WAL")?;
        // What is committed survives the end of the process; after a power cut the last moments may be gone.
        database.pragma_update(None, "synchronous", "NORMAL")?;
        database.execute_batch(TABLES)?;
        let vault = Self { name: name.to_owned(), database: Mutex::new(database), triggers: Mutex::default() };
        vault.load_triggers()?;
        Ok(vault)
    }

    fn database(&self) -> MutexGuard<'_, Connection> {
        // Whoever panicked in the middle left a transaction that SQLite takes back.
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self) -> Result<u64, StoreError> {
        Ok(self.database().query_row("SELECT count(*) FROM notes", [], |row| row.get(0))?)
    }

    pub(super) fn note(&self, id: &str) -> Result<Option<Note>, StoreError> {
        read(&self.database(), id)
    }

    /// The first notes that this wants, in the order in which they came or the other way round.
    pub(super) fn notes(
        &self,
        newest_first: bool,
        most: usize,
        mut want: impl FnMut(&Note) -> bool,
    ) -> Result<Vec<Note>, StoreError> {
        let database = self.database();
        let order = if newest_first { "DESC" } else { "ASC" };
        let mut query = database.prepare_cached(&format!("SELECT body FROM notes ORDER BY number {order}"))?;
        let all = query.query_map([], |row| parsed::<Note>(row, 0))?;
        let mut wanted = Vec::new();
        for note in all {
            if wanted.len() >= most {
                break;
            }
            let note = note?;
            if want(&note) {
                wanted.push(note);
            }
        }
        Ok(wanted)
    }

    pub(super) fn add(&self, new: NewNote) -> Result<Note, StoreError> {
        let mut database = self.database();
        let transaction = database.transaction()?;
        let last = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'notes'), 0)";
        let last: u64 = transaction.query_row(last, [], |row| row.get(0))?;
        if last >= MOST_NOTES {
            return Err(StoreError::Full);
        }
        let id = match new.id {
            Some(id) if read(&transaction, &id)?.is_some() => return Err(StoreError::Taken),
            Some(id) => id,
            None => free_id(&transaction, last + 1)?,
        };
        let created_at = new.created_at.unwrap_or_else(now);
        let note = Note {
            id,
            content: new.content,
            path: new.path,
            tags: new.tags,
            metadata: new.metadata,
            updated_at: created_at.clone(),
            created_at,
            attachments: Vec::new(),
        };
        transaction.execute("INSERT INTO notes (id, body) VALUES (?, ?)", params![note.id, json!(note).to_string()])?;
        transaction.commit()?;
        Ok(note)
    }

    /// Changes a note as it is now. `None` when it is gone, or when `change` says no.
    pub(super) fn change(&self, id: &str, change: impl FnOnce(&mut Note) -> bool) -> Result<Option<Note>, StoreError> {
        let mut database = self.database();
        let transaction = database.transaction()?;
        let Some(mut note) = read(&transaction, id)? else { return Ok(None) };
        if !change(&mut note) {
            return Ok(None);
        }
        transaction.execute("UPDATE notes SET body = ? WHERE id = ?", params![json!(note).to_string(), id])?;
        transaction.commit()?;
        Ok(Some(note))
    }

    pub(super) fn remove(&self, id: &str) -> Result<bool, StoreError> {
        Ok(self.database().execute("DELETE FROM notes WHERE id = ?", [id])? > 0)
    }

    /// The triggers, by name.
    pub(super) fn triggers(&self) -> Arc<Vec<Trigger>> {
        self.triggers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stores a trigger under its name; the time of the first one by that name stays.
    pub(super) fn put_trigger(&self, mut trigger: Trigger) -> Result<Trigger, StoreError> {
        let known = self.triggers();
        let before = known.iter().find(|known| known.name == trigger.name);
        if before.is_none() && known.len() >= MOST_TRIGGERS {
            return Err(StoreError::Full);
        }
        trigger.updated_at = after(before.map(|before| before.updated_at.as_str()));
        trigger.created_at = before.map_or_else(|| trigger.updated_at.clone(), |before| before.created_at.clone());
        self.database().execute(
            "INSERT OR REPLACE INTO triggers (name, events, \"when\", action, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?)",
            params![
                trigger.name,
                json!(trigger.events).to_string(),
                json!(trigger.when).to_string(),
                json!(trigger.action).to_string(),
                trigger.created_at,
                trigger.updated_at
            ],
        )?;
        self.load_triggers()?;
        Ok(trigger)
    }

    pub(super) fn remove_trigger(&self, name: &str) -> Result<bool, StoreError> {
        let removed = self.database().execute("DELETE FROM triggers WHERE name = ?", [name])? > 0;
        self.load_triggers()?;
        Ok(removed)
    }

    fn load_triggers(&self) -> Result<(), StoreError> {
        let database = self.database();
        let mut query = database.prepare_cached(
            "SELECT name, events, \"when\", action, created_at, updated_at FROM triggers ORDER BY name",
        )?;
        let all = query.query_map([], |row| {
            Ok(Trigger {
                name: row.get(0)?,
                events: parsed(row, 1)?,
                when: parsed(row, 2)?,
                action: parsed(row, 3)?,
                created_at: row.get(4)?,
                updated_at: row.get(5)?,
            })
        })?;
        let all = all.collect::<Result<Vec<_>, _>>()?;
        *self.triggers.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(all);
        Ok(())
    }
}

fn read(database: &Connection, id: &str) -> Result<Option<Note>, StoreError> {
    let mut query = database.prepare_cached("SELECT body FROM notes WHERE id = ?")?;
    Ok(query.query_row([id], |row| parsed(row, 0)).optional()?)
}

/// The first `note-N` from here on that nobody gave to a note.
fn free_id(database: &Connection, mut number: u64) -> Result<String, StoreError> {
    loop {
        let id = format!("note-{number}");
        if read(database, &id)?.is_none() {
            return Ok(id);
        }
        number += 1;
    }
}

fn parsed<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    let unreadable = |error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error));
    serde_json::from_str(text).map_err(unreadable)
}

/// The time, to the millisecond.
pub(super) fn now() -> String {
    format!("{:.3}", Timestamp::now())
}

/// The time, and in any case later than this.
pub(super) fn after(before: Option<&str>) -> String {
    let before = before.and_then(|before| before.parse::<Timestamp>().ok());
    let next = before.and_then(|before| before.checked_add(SignedDuration::from_millis(1)).ok());
    let time = Timestamp::now();
    format!("{:.3}", next.map_or(time, |next| next.max(time)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(content: &str) -> NewNote {
        NewNote { content: content.to_owned(), ..NewNote::default() }
    }

    #[test]
    fn notes_survive_a_restart_and_ids_are_not_given_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("vault.db");
        let vault = Vault::open("default", Some(&file)).expect("opened");
        for content in ["a", "b", "c"] {
            vault.add(note(content)).expect("a note");
        }
        assert!(vault.remove("note-3").expect("removed") && !vault.remove("note-3").expect("gone"));
        drop(vault);
        let again = Vault::open("default", Some(&file)).expect("opened");
        let contents: Vec<_> =
            again.notes(true, 9, |_| true).expect("notes").into_iter().map(|note| note.content).collect();
        assert_eq!(contents, ["b", "a"]);
        assert_eq!(again.add(note("d")).expect("a note").id, "note-4");
        let taken = again.add(NewNote { id: Some("note-1".to_owned()), ..note("e") });
        assert!(matches!(taken, Err(StoreError::Taken)));
        again.add(NewNote { id: Some("note-6".to_owned()), ..note("f") }).expect("a note");
        assert_eq!(again.add(note("g")).expect("a note").id, "note-7");
    }

    #[test]
    fn a_trigger_keeps_its_first_time_and_gets_a_new_one_with_every_change() {
        let vault = Vault::open("default", None).expect("opened");
        let sent = json!({ "name": "t", "when": {}, "action": { "webhook": "http://127.0.0.1:1/" } });
        let put = || vault.put_trigger(Trigger::of(&sent).expect("a trigger")).expect("stored");
        let (first, second, third) = (put(), put(), put());
        assert_eq!((&first.created_at, &first.created_at), (&second.created_at, &third.created_at));
        assert!(first.updated_at < second.updated_at && second.updated_at < third.updated_at);
        assert_eq!(vault.triggers().len(), 1);
        assert!(vault.remove_trigger("t").expect("removed") && !vault.remove_trigger("t").expect("gone"));
        assert!(vault.triggers().is_empty());
    }
}
