//! The migration: which backend is the active one, which is to be, and what was moved and found on the way.

use rusqlite::{Connection, Row as Line, params};

use super::{Book, number, one, place_id, place_id_or_new, run, spares};
use crate::model::blob::Sha256;
use crate::model::id::Name;
use crate::model::time::Timestamp;
use crate::ports::blobs::{Finish, IndexError, Lease, Object, SpareOf, Trouble};

/// Two ranges of one index, as `<>` would read it all.
pub(super) const ANY_ELSEWHERE: &str = "SELECT EXISTS (SELECT 1 FROM object WHERE place < ?1)
    OR EXISTS (SELECT 1 FROM object WHERE place > ?1)";

pub(super) fn activate(tx: &Connection, place: &Name, at: Timestamp) -> Result<(), IndexError> {
    if Book::of(tx)?.active.is_some() {
        return Ok(());
    }
    let place = place_id_or_new(tx, place)?;
    run(tx, "UPDATE book SET active = ?1, settled = ?2", params![place, at.0]).map(drop)
}

pub(super) fn begin(tx: &Connection, target: &Name, at: Timestamp) -> Result<(), IndexError> {
    let book = Book::of(tx)?;
    let Some(active) = book.active else {
        // Nothing is stored yet, so there is nothing to move.
        return activate(tx, target, at);
    };
    let to = place_id_or_new(tx, target)?;
    if book.target.unwrap_or(active) == to {
        return Ok(());
    }
    // On the way back, what is to be moved is at the place that was the target.
    let from = book.target.filter(|_| to == active).unwrap_or(active);
    if let Some(migration) = book.migration {
        let sql = "UPDATE migration SET ended = ?2, outcome = 'superseded' WHERE id = ?1";
        run(tx, sql, params![migration, at.0])?;
    }
    run(tx, "INSERT INTO migration (source, target, begun) VALUES (?1, ?2, ?3)", params![from, to, at.0])?;
    let migration = tx.last_insert_rowid();
    // Whoever moves is fenced off: by the time that blobs go here again, what it has proved may have been removed.
    run(tx, "UPDATE book SET target = ?1, migration = ?2, lease = lease + 1", params![to, migration]).map(drop)
}

pub(super) fn flip(
    tx: &Connection,
    lease: Lease,
    target: &Name,
    moved: &[(Sha256, Name)],
    at: Timestamp,
) -> Result<usize, IndexError> {
    let (target, migration) = Book::migrating(tx, lease, target)?;
    let (mut flipped, mut bytes) = (0, 0);
    for (name, from) in moved {
        let from = place_id_or_new(tx, from)?;
        let sql = "SELECT place, size FROM object WHERE name = ?1";
        let row: Option<(i64, u64)> = one(tx, sql, [&name.0[..]], |line| Ok((line.get(0)?, line.get(1)?)))?;
        match row {
            Some((place, size)) if place == from && place != target => {
                let sql = "UPDATE object SET place = ?2, verified = ?3, fault = NULL, detail = NULL, since = NULL
                    WHERE name = ?1";
                run(tx, sql, params![&name.0[..], target, at.0])?;
                spares::put(tx, from, &Object { name: *name, size }, SpareOf::Moved, at)?;
                flipped += 1;
                bytes += size;
            }
            Some((place, _)) if place == target => {}
            Some((_, size)) => spares::put(tx, target, &Object { name: *name, size }, SpareOf::Removed, at)?,
            None => {
                let size = spare_size(tx, from, name)?;
                spares::put(tx, target, &Object { name: *name, size }, SpareOf::Removed, at)?;
            }
        }
    }
    let sql = "UPDATE migration SET moved = moved + ?2, moved_bytes = moved_bytes + ?3, last_flip = ?4
        WHERE id = ?1 AND ?2 > 0";
    run(tx, sql, params![migration, number(flipped), bytes, at.0])?;
    Ok(flipped)
}

/// How large an object is that is gone from the index: its old copy still says so, unless that was swept.
fn spare_size(tx: &Connection, place: i64, name: &Sha256) -> Result<u64, IndexError> {
    let sql = "SELECT size FROM spare WHERE place = ?1 AND name = ?2";
    Ok(one(tx, sql, params![place, &name.0[..]], |line| line.get(0))?.unwrap_or_default())
}

pub(super) fn finish(tx: &Connection, lease: Lease, target: &Name, at: Timestamp) -> Result<Finish, IndexError> {
    let (target, migration) = Book::migrating(tx, lease, target)?;
    // The rows themselves decide, and not the tallies.
    let any = one(tx, ANY_ELSEWHERE, [target], |line: &Line<'_>| line.get::<_, bool>(0))?;
    if any != Some(false) {
        let sql = "SELECT coalesce(sum(objects), 0) FROM place WHERE id <> ?1";
        let left: u64 = one(tx, sql, [target], |line| line.get(0))?.unwrap_or_default();
        return Ok(Finish::Left(left.max(1)));
    }
    run(tx, "UPDATE migration SET ended = ?2, outcome = 'done' WHERE id = ?1", params![migration, at.0])?;
    let sql = "UPDATE book SET active = ?1, target = NULL, migration = NULL, settled = ?2";
    run(tx, sql, params![target, at.0])?;
    Ok(Finish::Done)
}

pub(super) fn trouble(
    tx: &Connection,
    lease: Lease,
    name: &Sha256,
    place: &Name,
    trouble: &Trouble,
) -> Result<bool, IndexError> {
    Book::fenced(tx, lease)?;
    let Some(place) = place_id(tx, place)? else { return Ok(false) };
    let Trouble { fault, detail, since } = trouble;
    let sql = "UPDATE object SET fault = ?3, detail = ?4, since = ?5 WHERE name = ?1 AND place = ?2";
    Ok(run(tx, sql, params![&name.0[..], place, fault.as_str(), detail, since.0])? > 0)
}

pub(super) fn verified(
    tx: &Connection,
    lease: Lease,
    names: &[(Sha256, Name)],
    at: Timestamp,
) -> Result<(), IndexError> {
    Book::fenced(tx, lease)?;
    let sql =
        "UPDATE object SET verified = ?3, fault = NULL, detail = NULL, since = NULL WHERE name = ?1 AND place = ?2";
    for (name, place) in names {
        if let Some(place) = place_id(tx, place)? {
            run(tx, sql, params![&name.0[..], place, at.0])?;
        }
    }
    Ok(())
}
