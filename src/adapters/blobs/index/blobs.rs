//! What changes blobs: add, remove, give up.

use std::collections::BTreeSet;

use rusqlite::{Connection, Row as Line, params};

use super::key::pack;
use super::{Book, look, one, place_id, place_id_or_new, run, spares};
use crate::model::blob::Integrity;
use crate::model::id::Name;
use crate::model::time::Timestamp;
use crate::ports::blobs::{Added, Entry, IndexError, Lease, Object, SpareOf, Trouble};

pub(super) fn add(
    tx: &Connection,
    key: &Integrity,
    object: &Object,
    place: &Name,
    verified: bool,
    at: Timestamp,
) -> Result<Added, IndexError> {
    let book = Book::of(tx)?;
    let current = book.target.or(book.active);
    let current = current.ok_or_else(|| IndexError::Broken("no backend is the active one yet".into()))?;
    let known = look::find(tx, key)?;
    if let Some(entry) = &known
        && (entry.row.object != *object || entry.row.trouble.is_none())
    {
        return Ok(Added::Known(entry.clone()));
    }
    if place_id(tx, place)? != Some(current) {
        let name = one(tx, "SELECT name FROM place WHERE id = ?1", [current], |line| line.get::<_, String>(0))?;
        let name = name.and_then(|name| Name::new(&name).ok());
        return name.map(Added::PlaceMoved).ok_or_else(|| IndexError::Broken("a backend has no name".into()));
    }
    let id = hold(tx, object, current, verified, at)?;
    if known.is_none() {
        let sql = "INSERT INTO blob (key, object, created) VALUES (?1, ?2, ?3)";
        run(tx, sql, params![pack(key), id, at.0])?;
        if let Some(migration) = book.migration {
            run(tx, "UPDATE migration SET written = written + 1 WHERE id = ?1", [migration])?;
        }
        return Ok(Added::Added);
    }
    let healed = look::find(tx, key)?;
    Ok(healed.map_or(Added::Added, Added::Known))
}

/// Makes sure that there is a row for an object whose bytes were put at `place`; the row's number.
fn hold(tx: &Connection, object: &Object, place: i64, verified: bool, at: Timestamp) -> Result<i64, IndexError> {
    let seen = verified.then_some(at.0);
    let read = |line: &Line<'_>| Ok((line.get(0)?, line.get(1)?, line.get::<_, u64>(2)?, line.get(3)?));
    let sql = "SELECT id, place, size, fault IS NOT NULL FROM object WHERE name = ?1";
    let Some((id, lies, size, troubled)) = one::<(i64, i64, u64, bool)>(tx, sql, [&object.name.0[..]], read)? else {
        let size = i64::try_from(object.size);
        let size = size.map_err(|_| IndexError::Broken("an object is larger than anything can be".into()))?;
        let sql = "INSERT INTO object (name, size, place, created, verified) VALUES (?1, ?2, ?3, ?4, ?5)";
        run(tx, sql, params![&object.name.0[..], size, place, at.0, seen])?;
        return Ok(tx.last_insert_rowid());
    };
    if size != object.size {
        let text = format!("object {} has {size} bytes, and not {}", object.name, object.size);
        return Err(IndexError::Broken(text));
    }
    if troubled {
        let sql =
            "UPDATE object SET place = ?2, verified = ?3, fault = NULL, detail = NULL, since = NULL WHERE id = ?1";
        run(tx, sql, params![id, place, seen])?;
        if lies != place {
            spares::put(tx, lies, object, SpareOf::Moved, at)?;
        }
    } else if lies == place && verified {
        run(tx, "UPDATE object SET verified = ?2 WHERE id = ?1", params![id, at.0])?;
    }
    // A copy of what is still to be moved here is of use to the move.
    run(tx, "DELETE FROM spare WHERE place = ?1 AND name = ?2", params![place, &object.name.0[..]])?;
    Ok(id)
}

pub(super) fn remove(tx: &Connection, key: &Integrity, at: Timestamp) -> Result<Option<Entry>, IndexError> {
    let Some(entry) = look::find(tx, key)? else { return Ok(None) };
    drop_blob(tx, &entry, SpareOf::Removed, at)?;
    Ok(Some(entry))
}

/// Takes a blob out of the index, and its object if it was the last one.
fn drop_blob(tx: &Connection, entry: &Entry, why: SpareOf, at: Timestamp) -> Result<(), IndexError> {
    run(tx, "DELETE FROM blob WHERE key = ?1", [pack(&entry.key)])?;
    let object = &entry.row.object;
    let sql = "DELETE FROM object WHERE name = ?1 AND NOT EXISTS (SELECT 1 FROM blob WHERE object = object.id)";
    if run(tx, sql, [&object.name.0[..]])? > 0 {
        spares::put(tx, place_id_or_new(tx, &entry.row.place)?, object, why, at)?;
    }
    Ok(())
}

pub(super) fn abandon(
    tx: &Connection,
    lease: Lease,
    keys: &BTreeSet<Integrity>,
    at: Timestamp,
) -> Result<Vec<Entry>, IndexError> {
    let book = Book::fenced(tx, lease)?;
    let mut given_up = Vec::new();
    for key in keys {
        let Some(entry) = look::find(tx, key)? else { continue };
        let Some(Trouble { fault, detail, .. }) = &entry.row.trouble else { continue };
        let sql = "INSERT INTO abandoned (at, key, name, size, place, created, fault, detail)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let Object { name, size } = entry.row.object;
        let (key, name, place) = (key.as_str(), name.to_string(), entry.row.place.as_str());
        run(tx, sql, params![at.0, key, name, size, place, entry.created.0, fault.as_str(), detail])?;
        // What is left of it may be worth more to a person than nothing, so it is not removed as what was removed by name.
        drop_blob(tx, &entry, SpareOf::Orphan, at)?;
        given_up.push(entry);
    }
    if let Some(migration) = book.migration {
        let sql = "UPDATE migration SET abandoned = abandoned + ?2 WHERE id = ?1";
        run(tx, sql, params![migration, super::number(given_up.len())])?;
    }
    Ok(given_up)
}
