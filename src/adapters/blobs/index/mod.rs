//! The blob index in SQLite: [`SqliteIndex`] makes [`crate::ports::blobs::Index`] real.

/// What changes blobs: add, remove, give up.
mod blobs;
/// Packed keys.
mod key;
/// What only looks.
mod look;
/// The migration: begin, flip, finish, findings.
mod moves;
/// Opening, and the connections.
mod open;
/// The tables.
mod schema;
/// What lies somewhere and nobody relies on.
mod spares;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;

use rusqlite::{Connection, OptionalExtension, Params, Row as Line};

use crate::adapters::sqlite::open::explain;
use crate::model::blob::{Integrity, Sha256};
use crate::model::id::Name;
use crate::model::time::Timestamp;
use crate::ports::blobs::{
    Added, Entry, Finish, Index, IndexError, Lease, Migration, Object, Row, Spare, SpareOf, Standing, Trouble,
};

/// An open index. Any number of processes may have it open.
#[derive(Debug)]
pub struct SqliteIndex {
    path: PathBuf,
    writer: Mutex<Connection>,
    /// Those that nobody uses right now.
    readers: Mutex<Vec<Connection>>,
}

impl Index for SqliteIndex {
    fn standing(&self) -> Result<Standing, IndexError> {
        self.read(look::standing)
    }
    fn find(&self, key: &Integrity) -> Result<Option<Entry>, IndexError> {
        self.read(|on| look::find(on, key))
    }
    fn entries(&self, after: Option<&Integrity>, limit: usize) -> Result<Vec<Entry>, IndexError> {
        self.read(|on| look::entries(on, after, limit))
    }
    fn row(&self, name: &Sha256) -> Result<Option<Row>, IndexError> {
        self.read(|on| look::row(on, name))
    }
    fn keys_of(&self, name: &Sha256) -> Result<Vec<Integrity>, IndexError> {
        self.read(|on| look::keys_of(on, name))
    }
    fn add(
        &self,
        key: &Integrity,
        object: &Object,
        place: &Name,
        verified: bool,
        at: Timestamp,
    ) -> Result<Added, IndexError> {
        self.write(|tx| blobs::add(tx, key, object, place, verified, at))
    }
    fn remove(&self, key: &Integrity, at: Timestamp) -> Result<Option<Entry>, IndexError> {
        self.write(|tx| blobs::remove(tx, key, at))
    }
    fn fell_back(&self) -> Result<(), IndexError> {
        self.write(|tx| run(tx, "UPDATE book SET fallbacks = fallbacks + 1", []).map(drop))
    }
    fn activate(&self, place: &Name, at: Timestamp) -> Result<(), IndexError> {
        self.write(|tx| moves::activate(tx, place, at))
    }
    fn begin(&self, target: &Name, at: Timestamp) -> Result<(), IndexError> {
        self.write(|tx| moves::begin(tx, target, at))
    }
    fn lease(&self) -> Result<Lease, IndexError> {
        self.write(|tx| {
            run(tx, "UPDATE book SET lease = lease + 1", [])?;
            Ok(Lease(Book::of(tx)?.lease))
        })
    }
    fn elsewhere(&self, place: &Name, after: Option<&Sha256>, limit: usize) -> Result<Vec<Row>, IndexError> {
        self.read(|on| look::elsewhere(on, place, after, limit))
    }
    fn flip(&self, lease: Lease, target: &Name, moved: &[(Sha256, Name)], at: Timestamp) -> Result<usize, IndexError> {
        self.write(|tx| moves::flip(tx, lease, target, moved, at))
    }
    fn finish(&self, lease: Lease, target: &Name, at: Timestamp) -> Result<Finish, IndexError> {
        self.write(|tx| moves::finish(tx, lease, target, at))
    }
    fn abandon(&self, lease: Lease, keys: &BTreeSet<Integrity>, at: Timestamp) -> Result<Vec<Entry>, IndexError> {
        self.write(|tx| blobs::abandon(tx, lease, keys, at))
    }
    fn trouble(&self, lease: Lease, name: &Sha256, place: &Name, trouble: &Trouble) -> Result<bool, IndexError> {
        self.write(|tx| moves::trouble(tx, lease, name, place, trouble))
    }
    fn verified(&self, lease: Lease, names: &[(Sha256, Name)], at: Timestamp) -> Result<(), IndexError> {
        self.write(|tx| moves::verified(tx, lease, names, at))
    }
    fn troubled(&self, after: Option<&Sha256>, limit: usize) -> Result<Vec<Row>, IndexError> {
        self.read(|on| look::troubled(on, after, limit))
    }
    fn stale(&self, place: &Name, before: Timestamp, limit: usize) -> Result<Vec<Row>, IndexError> {
        self.read(|on| look::stale(on, place, before, limit))
    }
    fn spares(&self, place: &Name, why: SpareOf, before: Timestamp, limit: usize) -> Result<Vec<Spare>, IndexError> {
        self.read(|on| spares::since_before(on, place, why, before, limit))
    }
    fn listed(&self, lease: Lease, place: &Name, found: &[Object], at: Timestamp) -> Result<usize, IndexError> {
        self.write(|tx| spares::listed(tx, lease, place, found, at))
    }
    fn relies_on(&self, name: &Sha256, place: &Name) -> Result<bool, IndexError> {
        self.read(|on| Ok(look::row(on, name)?.is_some_and(|row| row.place == *place)))
    }
    fn forget_spares(&self, lease: Lease, place: &Name, names: &[Sha256]) -> Result<(), IndexError> {
        self.write(|tx| spares::forget(tx, lease, place, names))
    }
    fn migrations(&self, limit: usize) -> Result<Vec<Migration>, IndexError> {
        self.read(|on| look::migrations(on, limit))
    }
    fn note(&self, name: &str) -> Result<Option<String>, IndexError> {
        self.read(|on| one(on, "SELECT value FROM note WHERE name = ?1", [name], |line| line.get(0)))
    }
    fn notes(&self, beginning: &str) -> Result<Vec<(String, String)>, IndexError> {
        let sql =
            "SELECT substr(name, length(?1) + 1), value FROM note WHERE substr(name, 1, length(?1)) = ?1 ORDER BY name";
        self.read(|on| rows(on, sql, [beginning], |line| Ok((line.get(0)?, line.get(1)?))))
    }
    fn set_note(&self, name: &str, value: &str) -> Result<(), IndexError> {
        let sql =
            "INSERT INTO note (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        self.write(|tx| run(tx, sql, [name, value]).map(drop))
    }
}

/// The one row of the book.
struct Book {
    active: Option<i64>,
    target: Option<i64>,
    migration: Option<i64>,
    lease: u64,
}

impl Book {
    fn of(on: &Connection) -> Result<Self, IndexError> {
        let read = |line: &Line<'_>| {
            let (active, target, migration) = (line.get(0)?, line.get(1)?, line.get(2)?);
            Ok(Self { active, target, migration, lease: line.get(3)? })
        };
        let found = one(on, "SELECT active, target, migration, lease FROM book", [], read)?;
        found.ok_or_else(|| IndexError::Broken("its first page is missing; it is damaged".into()))
    }

    /// The book, if this lease is still the last one.
    fn fenced(on: &Connection, lease: Lease) -> Result<Self, IndexError> {
        let book = Self::of(on)?;
        if book.lease == lease.0 { Ok(book) } else { Err(IndexError::Fenced) }
    }

    /// The book, if this lease is still the last one and the migration goes there: its number and the target's.
    fn migrating(on: &Connection, lease: Lease, target: &Name) -> Result<(i64, i64), IndexError> {
        let book = Self::fenced(on, lease)?;
        let wanted = place_id(on, target)?;
        match (book.target, book.migration) {
            (Some(target), Some(migration)) if wanted == Some(target) => Ok((target, migration)),
            _ => Err(IndexError::Fenced),
        }
    }
}

/// The number of a place, if it ever had one.
fn place_id(on: &Connection, place: &Name) -> Result<Option<i64>, IndexError> {
    one(on, "SELECT id FROM place WHERE name = ?1", [place.as_str()], |line| line.get(0))
}

/// The number of a place. It keeps it for ever; there are as many as there ever were backends.
fn place_id_or_new(on: &Connection, place: &Name) -> Result<i64, IndexError> {
    if let Some(id) = place_id(on, place)? {
        return Ok(id);
    }
    run(on, "INSERT INTO place (name) VALUES (?1)", [place.as_str()])?;
    Ok(on.last_insert_rowid())
}

/// Runs one statement; the answer is how many rows it changed.
fn run(on: &Connection, sql: &str, values: impl Params) -> Result<usize, IndexError> {
    on.prepare_cached(sql).and_then(|mut statement| statement.execute(values)).map_err(broken)
}

/// Reads the only row, if there is one.
fn one<T>(
    on: &Connection,
    sql: &str,
    values: impl Params,
    read: impl FnOnce(&Line<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>, IndexError> {
    on.prepare_cached(sql).and_then(|mut statement| statement.query_row(values, read).optional()).map_err(broken)
}

/// Reads rows.
fn rows<T>(
    on: &Connection,
    sql: &str,
    values: impl Params,
    read: impl FnMut(&Line<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, IndexError> {
    let mut statement = on.prepare_cached(sql).map_err(broken)?;
    let rows = statement.query_map(values, read).map_err(broken)?;
    rows.collect::<rusqlite::Result<_>>().map_err(broken)
}

/// A number that SQLite can hold; what is larger than any count of ours becomes the largest.
fn number(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn broken(error: rusqlite::Error) -> IndexError {
    IndexError::Broken(explain(error).0)
}

#[cfg(test)]
mod tests;
