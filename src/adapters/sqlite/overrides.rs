//! What people wish against their files, for a while.

use rusqlite::{Connection, params};

use super::{parsed, rows, run};
use crate::model::id::ResourceId;
use crate::model::overriding::{Against, Override};
use crate::model::time::Timestamp;
use crate::ports::store::StoreError;

pub(super) fn all(on: &Connection) -> Result<Vec<Override>, StoreError> {
    rows(on, "SELECT resource, wish, reason, since, until FROM override ORDER BY resource", [], |row| {
        let wish: String = row.get(1)?;
        Ok(Override {
            resource: parsed(row, 0)?,
            wish: if wish == Against::Start.as_str() { Against::Start } else { Against::Stop },
            reason: row.get(2)?,
            since: Timestamp(row.get(3)?),
            until: Timestamp(row.get(4)?),
        })
    })
}

pub(super) fn put(on: &Connection, over: &Override) -> Result<(), StoreError> {
    let sql = "INSERT INTO override (resource, wish, reason, since, until) VALUES (?1, ?2, ?3, ?4, ?5)
        ON CONFLICT (resource) DO UPDATE SET wish = excluded.wish, reason = excluded.reason,
            since = excluded.since, until = excluded.until";
    let Override { resource, wish, reason, since, until } = over;
    run(on, sql, params![resource.to_string(), wish.as_str(), reason, since.0, until.0]).map(drop)
}

pub(super) fn remove(on: &Connection, id: &ResourceId) -> Result<(), StoreError> {
    run(on, "DELETE FROM override WHERE resource = ?1", [id.to_string()]).map(drop)
}
