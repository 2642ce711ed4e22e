//! What is read.

use std::collections::BTreeMap;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Params, Row as SqlRow, params, params_from_iter};
use sha2::{Digest as _, Sha256};

use super::{broken, code, signed, stage};
use crate::model::id::Name;
use crate::model::time::Timestamp;
use crate::ports::deliveries::{Bounds, Letter, LetterQuery, Parcel, Row, Stage, Tally};

const LETTER: &str = "SELECT seq, connection, key, note, what, content_type, bytes, stage, accepted, attempts, due, status, \
                      trouble, settled FROM event";

fn unsigned(row: &SqlRow<'_>, at: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(at)?).unwrap_or(0))
}

/// Nobody but us writes names.
fn name(row: &SqlRow<'_>, at: usize) -> rusqlite::Result<Name> {
    let text: String = row.get(at)?;
    Name::new(&text)
        .map_err(|bad| rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, Box::new(bad)))
}

/// The lane of a note; two notes in one lane only wait for each other. An event without a note has a lane of its own.
pub(super) fn lane(note: Option<&str>, seq: u64) -> u64 {
    match note {
        None => seq << 1,
        Some(note) => {
            let hash = Sha256::digest(note.as_bytes());
            let bytes: [u8; 8] = std::array::from_fn(|at| hash.get(at).copied().unwrap_or_default());
            u64::from_be_bytes(bytes) | 1
        }
    }
}

/// What [`read_row`] reads.
const ROW: &str = "SELECT seq, connection, note, since, due, attempts FROM event";

fn read_row(row: &SqlRow<'_>) -> rusqlite::Result<Row> {
    let seq = unsigned(row, 0)?;
    let note: Option<String> = row.get(2)?;
    Ok(Row {
        seq,
        connection: name(row, 1)?,
        lane: lane(note.as_deref(), seq),
        since: Timestamp(row.get(3)?),
        due: Timestamp(row.get(4)?),
        attempts: row.get(5)?,
    })
}

fn rows(on: &Connection, sql: &str, values: impl Params) -> Result<Vec<Row>, String> {
    let mut statement = on.prepare_cached(sql).map_err(broken)?;
    let rows = statement.query_map(values, read_row).map_err(broken)?;
    rows.collect::<rusqlite::Result<_>>().map_err(broken)
}

pub(super) fn waiting(on: &Connection, after: u64, limit: usize) -> Result<Vec<Row>, String> {
    let sql = format!("{ROW} WHERE stage = 0 AND settled IS NULL AND seq > ?1 ORDER BY seq LIMIT ?2");
    rows(on, &sql, params![signed(after), signed(limit as u64)])
}

pub(super) fn waiting_of(on: &Connection, connection: &Name) -> Result<Vec<Row>, String> {
    rows(on, &format!("{ROW} WHERE connection = ?1 AND stage = 0 ORDER BY seq"), [connection.as_str()])
}

pub(super) fn row(on: &Connection, seq: u64) -> Result<Option<Row>, String> {
    rows(on, &format!("{ROW} WHERE seq = ?1"), [signed(seq)]).map(|mut rows| rows.pop())
}

pub(super) fn parcel(on: &Connection, seq: u64) -> Result<Option<Parcel>, String> {
    let sql = "SELECT key, content_type, body, accepted FROM event JOIN body USING (seq) WHERE seq = ?1 AND stage = 0";
    let read = |row: &SqlRow<'_>| {
        Ok(Parcel {
            key: row.get(0)?,
            content_type: row.get(1)?,
            body: Bytes::from(row.get::<_, Vec<u8>>(2)?),
            accepted: Timestamp(row.get(3)?),
        })
    };
    let mut statement = on.prepare_cached(sql).map_err(broken)?;
    statement.query_row([signed(seq)], read).optional().map_err(broken)
}

pub(super) fn dead(on: &Connection, connection: &Name) -> Result<Vec<u64>, String> {
    let sql = "SELECT seq FROM event WHERE connection = ?1 AND stage = 1 ORDER BY seq";
    let mut statement = on.prepare_cached(sql).map_err(broken)?;
    let rows = statement.query_map([connection.as_str()], |row| unsigned(row, 0)).map_err(broken)?;
    rows.collect::<rusqlite::Result<_>>().map_err(broken)
}

pub(super) fn tallies(on: &Connection, bounds: &Bounds) -> Result<BTreeMap<Name, Tally>, String> {
    let sql = "SELECT connection, stage, events, bytes FROM tally WHERE events > 0";
    let mut statement = on.prepare_cached(sql).map_err(broken)?;
    let rows =
        statement.query_map([], |row| Ok((name(row, 0)?, stage(row.get(1)?), unsigned(row, 2)?, unsigned(row, 3)?)));
    let rows: Vec<(Name, Stage, u64, u64)> = rows.and_then(Iterator::collect).map_err(broken)?;
    let mut tallies: BTreeMap<Name, (Tally, u64)> = BTreeMap::new();
    let (mut in_all, mut bytes_in_all) = (0, 0);
    for (connection, stage, events, bytes) in rows {
        let (tally, kept) = tallies.entry(connection).or_default();
        match stage {
            Stage::Waiting => tally.waiting = events,
            Stage::Dead => tally.dead = events,
            Stage::Delivered => tally.delivered = events,
            Stage::Discarded => {}
        }
        if stage == Stage::Waiting {
            in_all += events;
        }
        if matches!(stage, Stage::Waiting | Stage::Dead) {
            *kept += bytes;
            bytes_in_all += bytes;
        }
    }
    let full = in_all >= bounds.waiting_in_all || bytes_in_all >= bounds.bytes;
    let mut out = BTreeMap::new();
    for (connection, (mut tally, kept)) in tallies {
        tally.full =
            full || tally.waiting >= bounds.waiting || tally.dead >= bounds.waiting || kept >= bounds.bytes_of_one;
        if tally.waiting > 0 {
            let sql = "SELECT accepted, trouble FROM event WHERE connection = ?1 AND stage = 0 ORDER BY seq LIMIT 1";
            let mut statement = on.prepare_cached(sql).map_err(broken)?;
            let oldest = statement.query_row([connection.as_str()], |row| Ok((row.get(0)?, row.get(1)?)));
            if let Some((accepted, trouble)) = oldest.optional().map_err(broken)? {
                (tally.oldest, tally.trouble) = (Some(Timestamp(accepted)), trouble);
            }
        }
        out.insert(connection, tally);
    }
    Ok(out)
}

fn letter(row: &SqlRow<'_>) -> rusqlite::Result<Letter> {
    Ok(Letter {
        seq: unsigned(row, 0)?,
        connection: name(row, 1)?,
        key: row.get(2)?,
        note: row.get(3)?,
        what: row.get(4)?,
        content_type: row.get(5)?,
        bytes: unsigned(row, 6)?,
        stage: stage(row.get(7)?),
        accepted: Timestamp(row.get(8)?),
        attempts: row.get(9)?,
        due: Timestamp(row.get(10)?),
        status: row.get(11)?,
        trouble: row.get(12)?,
        settled: row.get::<_, Option<i64>>(13)?.map(Timestamp),
    })
}

pub(super) fn list(on: &Connection, query: &LetterQuery) -> Result<Vec<Letter>, String> {
    let mut sql = format!("{LETTER} WHERE seq < ?");
    let mut values: Vec<rusqlite::types::Value> = vec![signed(query.before.unwrap_or(u64::MAX)).into()];
    if let Some(connection) = &query.connection {
        sql.push_str(" AND connection = ?");
        values.push(connection.as_str().to_owned().into());
    }
    if let Some(stage) = query.stage {
        sql.push_str(" AND stage = ?");
        values.push(code(stage).into());
    }
    sql.push_str(" ORDER BY seq DESC LIMIT ?");
    values.push(signed(query.limit as u64).into());
    let mut statement = on.prepare_cached(&sql).map_err(broken)?;
    let rows = statement.query_map(params_from_iter(values), letter).map_err(broken)?;
    rows.collect::<rusqlite::Result<_>>().map_err(broken)
}

pub(super) fn find(on: &Connection, seq: u64) -> Result<Option<(Letter, Option<Bytes>)>, String> {
    let sql = format!("{LETTER} WHERE seq = ?1");
    let mut statement = on.prepare_cached(&sql).map_err(broken)?;
    let Some(found) = statement.query_row([signed(seq)], letter).optional().map_err(broken)? else { return Ok(None) };
    let mut body = on.prepare_cached("SELECT body FROM body WHERE seq = ?1").map_err(broken)?;
    let body = body.query_row([signed(seq)], |row| row.get::<_, Vec<u8>>(0)).optional().map_err(broken)?;
    Ok(Some((found, body.map(Bytes::from))))
}
