//! What is changed, each in the transaction of its caller.

use rusqlite::{Connection, OptionalExtension, Params, params};

use super::{broken, code, look, signed};
use crate::model::id::Name;
use crate::model::time::Timestamp;
use crate::ports::deliveries::{Act, Bounds, Change, Done, Event, Pick, Row, Stage};

/// Rows that one sweep forgets: others wait for the lock meanwhile.
const SWEPT_AT_ONCE: u64 = 1_000;

pub(super) fn act(on: &Connection, act: &Act, bounds: &Bounds) -> Result<Done, String> {
    match act {
        Act::Accept { event, at } => accept(on, event, *at, bounds),
        Act::Settle { seq, change, at } => settle(on, *seq, change, *at).map(|count| Done::Count(count as u64)),
        Act::Retire { connection, heir: Some(heir), at, .. } if heir != connection => {
            bequeath(on, connection, heir, *at).map(Done::Changed)
        }
        Act::Retire { connection, trouble, at, .. } => {
            let sql = "UPDATE event SET stage = 1, settled = ?2, trouble = ?3 WHERE connection = ?1 AND stage = 0";
            let rows = look::waiting_of(on, connection)?;
            run(on, sql, params![connection.as_str(), at.0, trouble])?;
            Ok(Done::Changed(rows))
        }
        Act::Replay { pick, at } => {
            let sql = "UPDATE event SET stage = 0, settled = NULL, attempts = 0, since = ?2, due = ?2
                WHERE seq = ?1 AND stage <= 1";
            each(on, pick, |seq| run(on, sql, params![signed(seq), at.0]))
        }
        Act::Discard { pick, at } => {
            let sql = "UPDATE event SET stage = 3, settled = ?2 WHERE seq = ?1 AND stage <= 1";
            each(on, pick, |seq| run(on, sql, params![signed(seq), at.0]))
        }
        Act::Sweep { before } => sweep(on, *before, bounds).map(Done::Count),
        Act::Probe => run(on, "UPDATE pulse SET beats = beats + 1", []).map(|count| Done::Count(count as u64)),
    }
}

fn run(on: &Connection, sql: &str, values: impl Params) -> Result<usize, String> {
    on.prepare_cached(sql).and_then(|mut statement| statement.execute(values)).map_err(broken)
}

fn number(on: &Connection, sql: &str, values: impl Params) -> Result<u64, String> {
    let read = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
    let found = on.prepare_cached(sql).and_then(|mut statement| statement.query_row(values, read)).map_err(broken)?;
    Ok(u64::try_from(found).unwrap_or(0))
}

fn accept(on: &Connection, event: &Event, at: Timestamp, bounds: &Bounds) -> Result<Done, String> {
    let connection = event.connection.as_str();
    let mut known = on.prepare_cached("SELECT seq FROM event WHERE connection = ?1 AND key = ?2").map_err(broken)?;
    let found = known.query_row(params![connection, event.key], |row| row.get::<_, i64>(0)).optional();
    if let Some(seq) = found.map_err(broken)? {
        return Ok(Done::Known(u64::try_from(seq).unwrap_or(0)));
    }
    if let Some(why) = full(on, &event.connection, event.body.len() as u64, bounds)? {
        return Ok(Done::Full(why));
    }
    let sql = "INSERT INTO event (connection, key, note, what, content_type, bytes, accepted, since, due)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?7)";
    let bytes = signed(event.body.len() as u64);
    run(on, sql, params![connection, event.key, event.note, event.what, event.content_type, bytes, at.0])?;
    let seq = on.last_insert_rowid();
    run(on, "INSERT INTO body (seq, body) VALUES (?1, ?2)", params![seq, &event.body[..]])?;
    let seq = u64::try_from(seq).unwrap_or(0);
    let lane = look::lane(event.note.as_deref(), seq);
    Ok(Done::Accepted(Row { seq, connection: event.connection.clone(), lane, since: at, due: at, attempts: 0 }))
}

/// Why no more is accepted, if it is not.
fn full(on: &Connection, connection: &Name, more: u64, bounds: &Bounds) -> Result<Option<String>, String> {
    let of_one = "SELECT coalesce(sum(events), 0) FROM tally WHERE connection = ?1 AND stage = ?2";
    let name = connection.as_str();
    let waiting = number(on, of_one, params![name, code(Stage::Waiting)])?;
    if waiting >= bounds.waiting {
        return Ok(Some(format!("{waiting} events of connection '{connection}' wait already")));
    }
    let dead = number(on, of_one, params![name, code(Stage::Dead)])?;
    if dead >= bounds.waiting {
        return Ok(Some(format!(
            "connection '{connection}' has {dead} dead letters; replay or discard some ('trueup deliveries')"
        )));
    }
    let bytes = "SELECT coalesce(sum(bytes), 0) FROM tally WHERE stage <= 1";
    let of_one = number(on, &format!("{bytes} AND connection = ?1"), params![name])?;
    let in_all = number(on, bytes, [])?;
    if of_one + more > bounds.bytes_of_one || in_all + more > bounds.bytes {
        return Ok(Some("the events that are kept are too large together".to_owned()));
    }
    let all = number(on, "SELECT coalesce(sum(events), 0) FROM tally WHERE stage = 0", [])?;
    Ok((all >= bounds.waiting_in_all).then(|| format!("{all} events wait already")))
}

fn settle(on: &Connection, seq: u64, change: &Change, at: Timestamp) -> Result<usize, String> {
    let seq = signed(seq);
    match change {
        Change::Delivered { status } => {
            // It may have been given up while it was under way.
            let sql = "UPDATE event SET stage = 2, settled = ?2, status = ?3, trouble = NULL, attempts = attempts + 1
                WHERE seq = ?1 AND stage <= 1";
            run(on, sql, params![seq, at.0, status])
        }
        Change::Again { due, attempts, status, trouble } => {
            let sql =
                "UPDATE event SET due = ?2, attempts = ?3, status = ?4, trouble = ?5 WHERE seq = ?1 AND stage = 0";
            run(on, sql, params![seq, due.0, attempts, status, trouble])
        }
        Change::Dead { attempts, status, trouble } => {
            let sql = "UPDATE event SET stage = 1, settled = ?2, attempts = ?3, status = ?4, trouble = ?5
                WHERE seq = ?1 AND stage = 0";
            run(on, sql, params![seq, at.0, attempts, status, trouble])
        }
    }
}

/// What waits and what is dead goes to the heir; those that waited, as they were.
fn bequeath(on: &Connection, connection: &Name, heir: &Name, at: Timestamp) -> Result<Vec<Row>, String> {
    let rows = look::waiting_of(on, connection)?;
    let (of, to) = (connection.as_str(), heir.as_str());
    let known = "UPDATE event SET stage = 3, settled = ?3, trouble = 'its new connection has it already'
        WHERE connection = ?1 AND stage <= 1 AND key IN (SELECT key FROM event WHERE connection = ?2)";
    run(on, known, params![of, to, at.0])?;
    if run(on, "UPDATE event SET connection = ?2 WHERE connection = ?1 AND stage <= 1", params![of, to])? > 0 {
        // Its triggers see changes of stages only.
        run(on, "DELETE FROM tally WHERE connection IN (?1, ?2)", params![of, to])?;
        let count = "INSERT INTO tally SELECT connection, stage, count(*), sum(bytes) FROM event
            WHERE connection IN (?1, ?2) GROUP BY connection, stage";
        run(on, count, params![of, to])?;
    }
    Ok(rows)
}

fn each(on: &Connection, pick: &Pick, mut change: impl FnMut(u64) -> Result<usize, String>) -> Result<Done, String> {
    let seqs = match pick {
        Pick::Seqs(seqs) => seqs.clone(),
        Pick::AllDead(connection) => look::dead(on, connection)?,
    };
    let mut changed = Vec::new();
    for seq in seqs {
        if change(seq)? > 0 {
            changed.extend(look::row(on, seq)?);
        }
    }
    Ok(Done::Changed(changed))
}

/// The oldest go first.
fn sweep(on: &Connection, before: Timestamp, bounds: &Bounds) -> Result<u64, String> {
    let by_age = "DELETE FROM event WHERE seq IN
        (SELECT seq FROM event WHERE stage = ?1 AND settled < ?2 ORDER BY settled, seq LIMIT ?3)";
    let mut swept = 0;
    for stage in [Stage::Delivered, Stage::Discarded] {
        swept += run(on, by_age, params![code(stage), before.0, signed(SWEPT_AT_ONCE)])? as u64;
        let beyond = "SELECT connection, events - ?2 FROM tally WHERE stage = ?1 AND events > ?2";
        let beyond: Vec<(String, i64)> = {
            let mut statement = on.prepare_cached(beyond).map_err(broken)?;
            let rows = statement
                .query_map(params![code(stage), signed(bounds.remembered)], |row| Ok((row.get(0)?, row.get(1)?)));
            rows.and_then(Iterator::collect).map_err(broken)?
        };
        for (connection, many) in beyond {
            let by_number = "DELETE FROM event WHERE seq IN
                (SELECT seq FROM event WHERE connection = ?1 AND stage = ?2 ORDER BY seq LIMIT ?3)";
            let many = many.min(signed(SWEPT_AT_ONCE));
            swept += run(on, by_number, params![connection, code(stage), many])? as u64;
        }
    }
    Ok(swept)
}
