//! Steps, and what they do to ownership. A step owns from `begin` on: what a crash leaves behind is found through that.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row, params};

use super::{digest, history, number, overrides, parsed, rows, run};
use crate::model::id::{ResourceId, StepId};
use crate::model::time::Timestamp;
use crate::ports::store::{Begin, Finish, JournalLine, Owned, StoreError, Then};

const LINE: &str = "step, resource, action, reason, source, begun, finished, outcome, message";

pub(super) fn owned(on: &Connection) -> Result<BTreeMap<ResourceId, Owned>, StoreError> {
    let sql = "SELECT resource, generation, digest, document, source, base, record FROM owned";
    let list = rows(on, sql, [], |row| {
        let wrong = |error| {
            rusqlite::Error::FromSqlConversionFailure(
                2,
                rusqlite::types::Type::Text,
                Box::<serde_json::Error>::new(error),
            )
        };
        Ok(Owned {
            id: parsed(row, 0)?,
            generation: row.get::<_, i64>(1)?.unsigned_abs(),
            digest: digest(row.get(2)?).map_err(wrong)?,
            document: row.get(3)?,
            source: row.get(4)?,
            base: row.get(5)?,
            record: row.get(6)?,
        })
    })?;
    Ok(list.into_iter().map(|owned| (owned.id.clone(), owned)).collect())
}

fn own(on: &Connection, owned: &Owned) -> Result<(), StoreError> {
    let sql = "INSERT INTO owned (resource, generation, digest, document, source, base, record)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
        ON CONFLICT (resource) DO UPDATE SET generation = excluded.generation, digest = excluded.digest,
            document = excluded.document, source = excluded.source, base = excluded.base, record = excluded.record";
    let generation = i64::try_from(owned.generation).unwrap_or(i64::MAX);
    let Owned { id, digest, document, source, base, record, .. } = owned;
    run(on, sql, params![id.to_string(), generation, digest.as_str(), document, source, base, record]).map(drop)
}

pub(super) fn begin(on: &Connection, step: &Begin) -> Result<(), StoreError> {
    let sql = "INSERT INTO journal (step, resource, action, reason, source, begun) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let Begin { step: id, resource, action, reason, source, at, claim, lasting: _ } = step;
    run(on, sql, params![id.0, resource.to_string(), action, reason, source, at.0])?;
    claim.as_ref().map_or(Ok(()), |claim| own(on, claim))
}

/// Finishes a step once; a second time finds it finished and changes nothing.
pub(super) fn finish(on: &Connection, step: &Finish) -> Result<(), StoreError> {
    let sql = "UPDATE journal SET finished = ?2, outcome = ?3, message = ?4 WHERE step = ?1 AND finished IS NULL";
    if run(on, sql, params![step.step.0, step.at.0, step.outcome, step.message])? == 0 {
        let known = rows(on, "SELECT 1 FROM journal WHERE step = ?1", [&step.step.0], |_| Ok(()))?;
        return match known.len() {
            0 => Err(StoreError(format!("step {} was never begun", step.step))),
            _ => Ok(()),
        };
    }
    match &step.then {
        Then::Keep => {}
        Then::Own(owned) => own(on, owned)?,
        Then::Release(id) => {
            run(on, "DELETE FROM owned WHERE resource = ?1", [id.to_string()])?;
            overrides::remove(on, id)?;
        }
    }
    history::record(on, &step.event)
}

/// Closes a step that a crash left open. What came of it is what the look has seen, so no outcome is made up.
pub(super) fn close(on: &Connection, step: &StepId, at: Timestamp) -> Result<(), StoreError> {
    let sql = "UPDATE journal SET finished = ?2, outcome = 'unsure', message = 'interrupted; resolved by looking'
        WHERE step = ?1 AND finished IS NULL";
    run(on, sql, params![step.0, at.0]).map(drop)
}

pub(super) fn open_steps(on: &Connection) -> Result<Vec<JournalLine>, StoreError> {
    rows(on, &format!("SELECT {LINE} FROM journal WHERE finished IS NULL ORDER BY seq"), [], line)
}

pub(super) fn history(on: &Connection, id: &ResourceId, limit: usize) -> Result<Vec<JournalLine>, StoreError> {
    let sql = format!("SELECT {LINE} FROM journal WHERE resource = ?1 ORDER BY seq DESC LIMIT ?2");
    rows(on, &sql, params![id.to_string(), number(limit)], line)
}

/// Removes the oldest finished lines beyond this count; open ones stay, however old.
pub(super) fn trim(on: &Connection, keep: usize) -> Result<(), StoreError> {
    let sql = "DELETE FROM journal WHERE finished IS NOT NULL
        AND seq <= (SELECT seq FROM journal ORDER BY seq DESC LIMIT 1 OFFSET ?1)";
    run(on, sql, [number(keep)]).map(drop)
}

fn line(row: &Row<'_>) -> rusqlite::Result<JournalLine> {
    Ok(JournalLine {
        step: StepId(row.get(0)?),
        resource: parsed(row, 1)?,
        action: row.get(2)?,
        reason: row.get(3)?,
        source: row.get(4)?,
        begun: Timestamp(row.get(5)?),
        finished: row.get::<_, Option<i64>>(6)?.map(Timestamp),
        outcome: row.get(7)?,
        message: row.get(8)?,
    })
}
