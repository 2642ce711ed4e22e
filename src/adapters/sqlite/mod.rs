//! The ledger in SQLite: [`Ledger`] makes [`crate::ports::store::Store`] real. Calls that only read never write.

/// Events and conditions.
mod history;
/// Steps, and what they do to ownership.
mod journal;
/// The list of schema changes.
pub(in crate::adapters) mod migrations;
/// Opening a ledger, and what can be wrong with it.
pub(in crate::adapters) mod open;
/// What people wish against their files.
mod overrides;

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use crate::model::condition::Condition;
use crate::model::digest::Digest;
use crate::model::event::Event;
use crate::model::id::{ResourceId, StepId};
use crate::model::overriding::Override;
use crate::model::time::Timestamp;
use crate::ports::store::{Begin, EventQuery, Finish, JournalLine, Owned, Store, StoreError};

/// The setting that holds the key for keyed digests, as hex.
const KEY_SETTING: &str = "trueup.key";

/// An open ledger. One process writes (it holds the state lock); any number may read.
#[derive(Debug)]
pub struct Ledger {
    connection: Connection,
}

impl Ledger {
    /// Runs a change in one transaction, which is on the disk when this returns.
    fn write_through<T>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.synchronous("FULL").map_err(open::explain)?;
        let answer = self.write(change);
        self.synchronous("NORMAL").map_err(open::explain)?;
        answer
    }

    /// Runs a change in one transaction. When it fails, or the process dies in it, nothing was written.
    fn write<T>(&self, change: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let behavior = TransactionBehavior::Immediate;
        let transaction = Transaction::new_unchecked(&self.connection, behavior).map_err(open::explain)?;
        let answer = change(&transaction)?;
        transaction.commit().map_err(open::explain)?;
        Ok(answer)
    }
}

impl Store for Ledger {
    fn owned(&self) -> Result<BTreeMap<ResourceId, Owned>, StoreError> {
        journal::owned(&self.connection)
    }
    fn open_steps(&self) -> Result<Vec<JournalLine>, StoreError> {
        journal::open_steps(&self.connection)
    }
    fn begin(&self, steps: &[Begin]) -> Result<(), StoreError> {
        if steps.is_empty() {
            return Ok(());
        }
        let change = |tx: &Transaction<'_>| steps.iter().try_for_each(|step| journal::begin(tx, step));
        if steps.iter().any(|step| step.lasting) { self.write_through(change) } else { self.write(change) }
    }
    fn finish(&self, steps: &[Finish]) -> Result<(), StoreError> {
        if steps.is_empty() {
            return Ok(());
        }
        self.write(|tx| steps.iter().try_for_each(|step| journal::finish(tx, step)))
    }
    fn close_open(&self, steps: &[StepId], at: Timestamp) -> Result<(), StoreError> {
        if steps.is_empty() {
            return Ok(());
        }
        self.write(|tx| steps.iter().try_for_each(|step| journal::close(tx, step, at)))
    }
    fn record(&self, events: &[Event]) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        self.write(|tx| events.iter().try_for_each(|event| history::record(tx, event)))
    }
    fn events(&self, query: &EventQuery) -> Result<Vec<Event>, StoreError> {
        history::events(&self.connection, query)
    }
    fn conditions(&self) -> Result<BTreeMap<ResourceId, Vec<Condition>>, StoreError> {
        history::conditions(&self.connection)
    }
    fn set_conditions(&self, all: &[(ResourceId, Vec<Condition>)], events: &[Event]) -> Result<(), StoreError> {
        if all.is_empty() && events.is_empty() {
            return Ok(());
        }
        self.write(|tx| {
            all.iter().try_for_each(|(id, conditions)| history::set_conditions(tx, id, conditions))?;
            events.iter().try_for_each(|event| history::record(tx, event))
        })
    }
    fn overrides(&self) -> Result<Vec<Override>, StoreError> {
        overrides::all(&self.connection)
    }
    fn put_override(&self, over: &Override) -> Result<(), StoreError> {
        self.write_through(|tx| overrides::put(tx, over))
    }
    fn drop_overrides(&self, of: &[ResourceId]) -> Result<(), StoreError> {
        if of.is_empty() {
            return Ok(());
        }
        self.write_through(|tx| of.iter().try_for_each(|id| overrides::remove(tx, id)))
    }
    fn history(&self, id: &ResourceId, limit: usize) -> Result<Vec<JournalLine>, StoreError> {
        journal::history(&self.connection, id, limit)
    }
    fn key(&self) -> Result<[u8; 32], StoreError> {
        let text = self.get(KEY_SETTING)?.ok_or_else(|| StoreError("its key is missing; it is damaged".into()))?;
        open::parse_key(&text).ok_or_else(|| StoreError("its key is not a key; it is damaged".into()))
    }
    fn get(&self, name: &str) -> Result<Option<String>, StoreError> {
        let sql = "SELECT value FROM setting WHERE name = ?1";
        let mut statement = self.connection.prepare_cached(sql).map_err(open::explain)?;
        statement.query_row([name], |row| row.get(0)).optional().map_err(open::explain)
    }
    fn set(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let sql = "INSERT INTO setting (name, value) VALUES (?1, ?2)
            ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE value <> excluded.value";
        self.write_through(|tx| run(tx, sql, params![name, value]).map(drop))
    }
    fn trim(&self, journal: usize, events: usize) -> Result<(), StoreError> {
        self.write(|tx| {
            journal::trim(tx, journal)?;
            history::trim(tx, events)
        })
    }
}

/// Runs one statement; the answer is how many rows it changed.
fn run(on: &Connection, sql: &str, values: impl rusqlite::Params) -> Result<usize, StoreError> {
    let mut statement = on.prepare_cached(sql).map_err(open::explain)?;
    statement.execute(values).map_err(open::explain)
}

/// Reads rows.
fn rows<T>(
    on: &Connection,
    sql: &str,
    values: impl rusqlite::Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = on.prepare_cached(sql).map_err(open::explain)?;
    let rows = statement.query_map(values, read).map_err(open::explain)?;
    rows.collect::<rusqlite::Result<_>>().map_err(open::explain)
}

/// A column that holds a text with rules of its own.
fn parsed<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.get(column)?;
    let wrong = |error| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error));
    text.parse().map_err(wrong)
}

/// A number that SQLite can hold; what is larger than any count of ours becomes the largest.
fn number(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A digest as it was stored: digests read as plain text.
fn digest(text: String) -> Result<Digest, serde_json::Error> {
    serde_json::from_value(serde_json::Value::String(text))
}

#[cfg(test)]
mod tests;
