//! Bytes that lie somewhere and that nobody relies on.

use rusqlite::types::Type;
use rusqlite::{Connection, Row as Line, params};

use super::{Book, look, number, place_id, place_id_or_new, rows, run};
use crate::model::blob::Sha256;
use crate::model::id::Name;
use crate::model::time::Timestamp;
use crate::ports::blobs::{IndexError, Lease, Object, Spare, SpareOf};

pub(super) const SINCE_BEFORE: &str =
    "SELECT name, size, why, since FROM spare WHERE place = ?1 AND why = ?2 AND since < ?3 ORDER BY since LIMIT ?4";
/// Unless a row relies on it, or it is a spare already: then its time stays.
const FOUND: &str = "INSERT INTO spare (place, name, size, why, since)
    SELECT ?1, ?2, ?3, 'orphan', ?4 WHERE NOT EXISTS (SELECT 1 FROM object WHERE name = ?2 AND place = ?1)
    ON CONFLICT (place, name) DO NOTHING";

fn word(why: SpareOf) -> &'static str {
    match why {
        SpareOf::Moved => "moved",
        SpareOf::Removed => "removed",
        SpareOf::Orphan => "orphan",
    }
}

/// Bytes at a place that nobody relies on from now on.
pub(super) fn put(tx: &Connection, place: i64, object: &Object, why: SpareOf, at: Timestamp) -> Result<(), IndexError> {
    let sql = "INSERT INTO spare (place, name, size, why, since) VALUES (?1, ?2, ?3, ?4, ?5)
        ON CONFLICT (place, name) DO UPDATE SET size = excluded.size, why = excluded.why, since = excluded.since";
    run(tx, sql, params![place, &object.name.0[..], object.size, word(why), at.0]).map(drop)
}

pub(super) fn since_before(
    on: &Connection,
    place: &Name,
    why: SpareOf,
    before: Timestamp,
    limit: usize,
) -> Result<Vec<Spare>, IndexError> {
    let Some(place) = place_id(on, place)? else { return Ok(Vec::new()) };
    let read = |line: &Line<'_>| {
        let why = match line.get::<_, String>(2)?.as_str() {
            "moved" => SpareOf::Moved,
            "removed" => SpareOf::Removed,
            "orphan" => SpareOf::Orphan,
            _ => return Err(look::wrong(2, Type::Text, "is no reason that this trueup knows")),
        };
        Ok(Spare { name: look::sha256(line, 0)?, size: line.get(1)?, why, since: Timestamp(line.get(3)?) })
    };
    rows(on, SINCE_BEFORE, params![place, word(why), before.0, number(limit)], read)
}

pub(super) fn listed(
    tx: &Connection,
    lease: Lease,
    place: &Name,
    found: &[Object],
    at: Timestamp,
) -> Result<usize, IndexError> {
    Book::fenced(tx, lease)?;
    let place = place_id_or_new(tx, place)?;
    let mut new = 0;
    for object in found {
        new += run(tx, FOUND, params![place, &object.name.0[..], object.size, at.0])?;
    }
    Ok(new)
}

pub(super) fn forget(tx: &Connection, lease: Lease, place: &Name, names: &[Sha256]) -> Result<(), IndexError> {
    Book::fenced(tx, lease)?;
    let Some(place) = place_id(tx, place)? else { return Ok(()) };
    let sql = "DELETE FROM spare WHERE place = ?1 AND name = ?2";
    names.iter().try_for_each(|name| run(tx, sql, params![place, &name.0[..]]).map(drop))
}
