//! Events and conditions: what happened, and how things stand.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{number, parsed, rows, run};
use crate::model::condition::{Condition, Reason};
use crate::model::event::{Cause, Event};
use crate::model::id::ResourceId;
use crate::model::time::Timestamp;
use crate::ports::store::{EventQuery, StoreError};

pub(super) fn record(on: &Connection, event: &Event) -> Result<(), StoreError> {
    let sql = "INSERT INTO event (at, resource, reason, cause, message) VALUES (?1, ?2, ?3, ?4, ?5)";
    let Event { at, resource, reason, cause, message, .. } = event;
    run(on, sql, params![at.0, resource.to_string(), word(reason), word(cause), message]).map(drop)
}

pub(super) fn events(on: &Connection, query: &EventQuery) -> Result<Vec<Event>, StoreError> {
    let sql = "SELECT seq, at, resource, reason, cause, message FROM event
        WHERE seq > ?1 AND (?2 IS NULL OR resource = ?2) AND (?3 IS NULL OR at >= ?3) ORDER BY seq DESC LIMIT ?4";
    let after = i64::try_from(query.after).unwrap_or(i64::MAX);
    let resource = query.resource.as_ref().map(ToString::to_string);
    let values = params![after, resource, query.since.map(|at| at.0), number(query.limit)];
    let mut newest_first = rows(on, sql, values, |row| {
        Ok(Event {
            seq: row.get::<_, i64>(0)?.unsigned_abs(),
            at: Timestamp(row.get(1)?),
            resource: parsed(row, 2)?,
            // Words of a newer trueup are history that we cannot name, and no reason to fail.
            reason: unword(row.get(3)?).unwrap_or(Reason::Unknown),
            cause: unword(row.get(4)?).unwrap_or(Cause::Intent),
            message: row.get(5)?,
        })
    })?;
    newest_first.reverse();
    Ok(newest_first)
}

pub(super) fn conditions(on: &Connection) -> Result<BTreeMap<ResourceId, Vec<Condition>>, StoreError> {
    let list = rows(on, "SELECT resource, conditions FROM condition", [], |row| {
        let text: String = row.get(1)?;
        // Conditions are worked out anew at every tick; ones that cannot be read are as good as none.
        Ok((parsed(row, 0)?, serde_json::from_str(&text).unwrap_or_default()))
    })?;
    Ok(list.into_iter().collect())
}

/// Writes only what differs: a tick that changes nothing writes nothing.
pub(super) fn set_conditions(on: &Connection, id: &ResourceId, conditions: &[Condition]) -> Result<(), StoreError> {
    if conditions.is_empty() {
        return run(on, "DELETE FROM condition WHERE resource = ?1", [id.to_string()]).map(drop);
    }
    let sql = "INSERT INTO condition (resource, conditions) VALUES (?1, ?2) ON CONFLICT (resource)
        DO UPDATE SET conditions = excluded.conditions WHERE conditions <> excluded.conditions";
    let text = serde_json::to_string(conditions).map_err(|error| StoreError(error.to_string()))?;
    run(on, sql, params![id.to_string(), text]).map(drop)
}

/// Removes the oldest events beyond this count.
pub(super) fn trim(on: &Connection, keep: usize) -> Result<(), StoreError> {
    let sql = "DELETE FROM event WHERE seq <= (SELECT seq FROM event ORDER BY seq DESC LIMIT 1 OFFSET ?1)";
    run(on, sql, [number(keep)]).map(drop)
}

/// The word that an enum without data is stored as.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        _ => String::new(),
    }
}

fn unword<T: DeserializeOwned>(word: String) -> Option<T> {
    serde_json::from_value(Value::String(word)).ok()
}
