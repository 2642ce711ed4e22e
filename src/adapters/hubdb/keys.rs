//! Signing keys. At most one is active, which an index holds; only that one has a private half.

use rusqlite::{Connection, Row, params};

use super::tokens::{COLUMNS, token};
use super::{one, rows, run};
use crate::model::secret::Secret;
use crate::model::time::Timestamp;
use crate::ports::tokens::{KeyRow, Rotated, StoreFault};

/// The only algorithm.
const ALGORITHM: &str = "RS256";

pub(super) fn all(on: &Connection) -> Result<Vec<KeyRow>, StoreFault> {
    let sql = "SELECT kid, public_key_pem, private_key_pem, created_at, retired_at, keep_until FROM signing_keys
        ORDER BY created_at DESC, kid";
    rows(on, sql, [], |row| {
        Ok(KeyRow {
            kid: row.get(0)?,
            public_pem: row.get(1)?,
            private_pem: row.get::<_, Option<String>>(2)?.map(Secret::new),
            created: Timestamp(row.get(3)?),
            retired: time(row, 4)?,
            keep_until: time(row, 5)?,
        })
    })
}

pub(super) fn time(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(at)?.map(Timestamp))
}

pub(super) fn add_if_none(tx: &Connection, key: &KeyRow) -> Result<(), StoreFault> {
    let active = one(tx, "SELECT 1 FROM signing_keys WHERE retired_at IS NULL", [], |_| Ok(()))?;
    match active {
        Some(()) => Ok(()),
        None => add(tx, key),
    }?;
    // From its first key on the database knows what time it was.
    run(tx, "UPDATE book SET clock = ?1 WHERE clock IS NULL", [key.created.0]).map(drop)
}

fn add(tx: &Connection, key: &KeyRow) -> Result<(), StoreFault> {
    let sql = "INSERT INTO signing_keys (kid, algorithm, public_key_pem, private_key_pem, created_at)
        VALUES (?1, ?2, ?3, ?4, ?5)";
    let private = key.private_pem.as_ref().map(Secret::reveal);
    run(tx, sql, params![key.kid, ALGORITHM, key.public_pem, private, key.created.0]).map(drop)
}

pub(super) fn rotate(
    tx: &Connection,
    new: &KeyRow,
    drop_old: bool,
    least: Timestamp,
    now: Timestamp,
) -> Result<Rotated, StoreFault> {
    let which = if drop_old { "" } else { "WHERE retired_at IS NULL" };
    let retired = rows(tx, &format!("SELECT kid FROM signing_keys {which} ORDER BY kid"), [], |row| row.get(0))?;
    let sql = format!(
        "SELECT {COLUMNS} FROM tokens WHERE kid IN (SELECT kid FROM signing_keys {which})
            AND revoked_at IS NULL AND expires_at > ?1 ORDER BY created_at DESC, jti DESC"
    );
    let tokens = rows(tx, &sql, [now.0], token)?;
    if drop_old {
        // Whoever keeps a copy of the keys learns from the list of revocations that they are not to be relied on.
        run(tx, "UPDATE tokens SET revoked_at = ?1 WHERE revoked_at IS NULL AND expires_at > ?1", [now.0])?;
        run(tx, "DELETE FROM signing_keys", [])?;
    } else {
        let sql = "UPDATE signing_keys SET retired_at = ?1, private_key_pem = NULL, keep_until = max(?2,
            coalesce((SELECT max(expires_at) FROM tokens WHERE tokens.kid = signing_keys.kid), 0))
            WHERE retired_at IS NULL";
        run(tx, sql, [now.0, least.0])?;
    }
    add(tx, new)?;
    Ok(Rotated { retired, tokens })
}
