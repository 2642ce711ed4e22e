//! What only looks: each query is answered from an index, in pages.

use rusqlite::types::Type;
use rusqlite::{Connection, Row as Line, params};

use super::key::{pack, unpack};
use super::{number, one, place_id, rows};
use crate::model::blob::{Integrity, Sha256};
use crate::model::id::Name;
use crate::model::time::Timestamp;
use crate::ports::blobs::{Entry, Fault, IndexError, Migration, Object, Row, Standing, Tally, Trouble};

/// The columns of a row, in the order in which [`read_row`] takes them. The place's name is looked up row by row, so that the planner
/// has no choice of how to join.
macro_rules! columns {
    () => {
        "o.name, o.size, (SELECT p.name FROM place p WHERE p.id = o.place), o.created, o.verified, o.fault, o.detail, o.since"
    };
}

pub(super) const FIND: &str = concat!(
    "SELECT ",
    columns!(),
    ", b.key, b.created FROM blob b CROSS JOIN object o ON o.id = b.object WHERE b.key = ?1"
);
pub(super) const ENTRIES: &str = concat!(
    "SELECT ",
    columns!(),
    ", b.key, b.created FROM blob b CROSS JOIN object o ON o.id = b.object WHERE b.key > ?1 ORDER BY b.key LIMIT ?2"
);
pub(super) const ROW: &str = concat!("SELECT ", columns!(), " FROM object o WHERE o.name = ?1");
pub(super) const KEYS_OF: &str =
    "SELECT b.key FROM object o CROSS JOIN blob b ON b.object = o.id WHERE o.name = ?1 ORDER BY b.key";
pub(super) const AT: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM object o WHERE o.fault IS NULL AND o.place = ?1 AND o.name > ?2 ORDER BY o.name LIMIT ?3"
);
pub(super) const TROUBLED: &str =
    concat!("SELECT ", columns!(), " FROM object o WHERE o.fault IS NOT NULL AND o.name > ?1 ORDER BY o.name LIMIT ?2");
pub(super) const NEVER_VERIFIED: &str =
    concat!("SELECT ", columns!(), " FROM object o WHERE o.place = ?1 AND o.verified IS NULL LIMIT ?2");
pub(super) const STALE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM object o WHERE o.place = ?1 AND o.verified < ?2 ORDER BY o.verified LIMIT ?3"
);

pub(super) fn standing(on: &Connection) -> Result<Standing, IndexError> {
    let sql = "SELECT owner, (SELECT name FROM place WHERE id = active), (SELECT name FROM place WHERE id = target),
        lease, blobs, settled, fallbacks FROM book";
    let read = |line: &Line<'_>| {
        Ok(Standing {
            owner: line.get(0)?,
            active: optional_name(line, 1)?,
            target: optional_name(line, 2)?,
            lease: line.get(3)?,
            blobs: line.get(4)?,
            settled: line.get::<_, Option<i64>>(5)?.map(Timestamp),
            fallbacks: line.get(6)?,
            ..Standing::default()
        })
    };
    let mut standing = one(on, sql, [], read)?.unwrap_or_default();
    let sql = "SELECT name, objects, bytes, troubled, spares FROM place WHERE objects > 0 OR spares > 0";
    let tally = |line: &Line<'_>| {
        let tally = Tally { objects: line.get(1)?, bytes: line.get(2)?, troubled: line.get(3)?, spares: line.get(4)? };
        Ok((name(line, 0)?, tally))
    };
    standing.tallies = rows(on, sql, [], tally)?.into_iter().collect();
    let under_way = "WHERE m.id = (SELECT migration FROM book)";
    standing.migration = one(on, &format!("{MIGRATIONS} {under_way}"), [], read_migration)?;
    Ok(standing)
}

pub(super) fn find(on: &Connection, key: &Integrity) -> Result<Option<Entry>, IndexError> {
    one(on, FIND, [pack(key)], read_entry)
}

pub(super) fn entries(on: &Connection, after: Option<&Integrity>, limit: usize) -> Result<Vec<Entry>, IndexError> {
    let after = after.map(pack).unwrap_or_default();
    rows(on, ENTRIES, params![after, number(limit)], read_entry)
}

pub(super) fn row(on: &Connection, name: &Sha256) -> Result<Option<Row>, IndexError> {
    one(on, ROW, [&name.0[..]], read_row)
}

pub(super) fn keys_of(on: &Connection, name: &Sha256) -> Result<Vec<Integrity>, IndexError> {
    rows(on, KEYS_OF, [&name.0[..]], |line| key(line, 0))
}

/// A page of each other place, merged: pages are small and places few.
pub(super) fn elsewhere(
    on: &Connection,
    place: &Name,
    after: Option<&Sha256>,
    limit: usize,
) -> Result<Vec<Row>, IndexError> {
    let after = after.map_or(&[][..], |name| &name.0);
    let sql = "SELECT id FROM place WHERE name <> ?1 AND objects > 0";
    let mut out = Vec::new();
    for other in rows(on, sql, [place.as_str()], |line| line.get::<_, i64>(0))? {
        out.extend(rows(on, AT, params![other, after, number(limit)], read_row)?);
    }
    out.sort_by_key(|row| row.object.name);
    out.truncate(limit);
    Ok(out)
}

pub(super) fn troubled(on: &Connection, after: Option<&Sha256>, limit: usize) -> Result<Vec<Row>, IndexError> {
    let after = after.map_or(&[][..], |name| &name.0);
    rows(on, TROUBLED, params![after, number(limit)], read_row)
}

pub(super) fn stale(on: &Connection, place: &Name, before: Timestamp, limit: usize) -> Result<Vec<Row>, IndexError> {
    let Some(place) = place_id(on, place)? else { return Ok(Vec::new()) };
    let mut out = rows(on, NEVER_VERIFIED, params![place, number(limit)], read_row)?;
    let left = limit.saturating_sub(out.len());
    if left > 0 {
        out.extend(rows(on, STALE, params![place, before.0, number(left)], read_row)?);
    }
    Ok(out)
}

const MIGRATIONS: &str =
    "SELECT m.id, (SELECT name FROM place WHERE id = m.source), (SELECT name FROM place WHERE id = m.target),
    m.begun, m.ended, m.outcome, m.moved, m.moved_bytes, m.written, m.abandoned, m.last_flip FROM migration m";

pub(super) fn migrations(on: &Connection, limit: usize) -> Result<Vec<Migration>, IndexError> {
    rows(on, &format!("{MIGRATIONS} ORDER BY m.id DESC LIMIT ?1"), [number(limit)], read_migration)
}

fn read_migration(line: &Line<'_>) -> rusqlite::Result<Migration> {
    Ok(Migration {
        id: line.get(0)?,
        from: name(line, 1)?,
        to: name(line, 2)?,
        begun: Timestamp(line.get(3)?),
        ended: line.get::<_, Option<i64>>(4)?.map(Timestamp),
        outcome: line.get(5)?,
        moved: line.get(6)?,
        moved_bytes: line.get(7)?,
        written: line.get(8)?,
        abandoned: line.get(9)?,
        last_flip: line.get::<_, Option<i64>>(10)?.map(Timestamp),
    })
}

fn read_row(line: &Line<'_>) -> rusqlite::Result<Row> {
    let trouble = match line.get::<_, Option<String>>(5)? {
        None => None,
        Some(fault) => Some(Trouble {
            fault: if fault == Fault::Missing.as_str() { Fault::Missing } else { Fault::Corrupt },
            detail: line.get::<_, Option<String>>(6)?.unwrap_or_default(),
            since: Timestamp(line.get::<_, Option<i64>>(7)?.unwrap_or_default()),
        }),
    };
    Ok(Row {
        object: Object { name: sha256(line, 0)?, size: line.get(1)? },
        place: name(line, 2)?,
        created: Timestamp(line.get(3)?),
        verified: line.get::<_, Option<i64>>(4)?.map(Timestamp),
        trouble,
    })
}

fn read_entry(line: &Line<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry { row: read_row(line)?, key: key(line, 8)?, created: Timestamp(line.get(9)?) })
}

fn key(line: &Line<'_>, column: usize) -> rusqlite::Result<Integrity> {
    let packed: Vec<u8> = line.get(column)?;
    unpack(&packed).ok_or_else(|| wrong(column, Type::Blob, "is no key"))
}

pub(super) fn sha256(line: &Line<'_>, column: usize) -> rusqlite::Result<Sha256> {
    let bytes: Vec<u8> = line.get(column)?;
    bytes.try_into().map(Sha256).map_err(|_| wrong(column, Type::Blob, "is no hash"))
}

fn name(line: &Line<'_>, column: usize) -> rusqlite::Result<Name> {
    Name::new(&line.get::<_, String>(column)?).map_err(|error| wrong(column, Type::Text, &error.to_string()))
}

fn optional_name(line: &Line<'_>, column: usize) -> rusqlite::Result<Option<Name>> {
    let text: Option<String> = line.get(column)?;
    let parse = |text: String| Name::new(&text).map_err(|error| wrong(column, Type::Text, &error.to_string()));
    text.map(parse).transpose()
}

pub(super) fn wrong(column: usize, kind: Type, what: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, kind, what.into())
}
