//! What is granted, and what goes with a vault.

use std::collections::BTreeSet;

use rusqlite::{Connection, Row, params};

use super::{one, other, rows, run, words};
use crate::model::time::Timestamp;
use crate::ports::tokens::{GrantRow, StoreFault, Stripped};

/// More pairs of subject and client than any machine has.
const MOST_GRANTS: i64 = 10_000;

fn read(row: &Row<'_>) -> rusqlite::Result<GrantRow> {
    let scopes: String = row.get(2)?;
    Ok(GrantRow {
        subject: row.get(0)?,
        client: row.get(1)?,
        scopes: words(&scopes).into_iter().collect(),
        granted: Timestamp(row.get(3)?),
    })
}

pub(super) fn all(on: &Connection) -> Result<Vec<GrantRow>, StoreFault> {
    let sql = "SELECT subject, client_id, scopes, granted_at FROM grants ORDER BY subject, client_id";
    rows(on, sql, [], read)
}

pub(super) fn find(on: &Connection, subject: &str, client: &str) -> Result<Option<GrantRow>, StoreFault> {
    let sql = "SELECT subject, client_id, scopes, granted_at FROM grants WHERE subject = ?1 AND client_id = ?2";
    one(on, sql, [subject, client], read)
}

fn put(tx: &Connection, row: &GrantRow) -> Result<(), StoreFault> {
    let sql = "INSERT INTO grants (subject, client_id, scopes, granted_at) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT DO UPDATE SET scopes = excluded.scopes, granted_at = excluded.granted_at";
    run(tx, sql, params![row.subject, row.client, text(&row.scopes), row.granted.0]).map(drop)
}

fn text(scopes: &BTreeSet<String>) -> String {
    scopes.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}

pub(super) fn add(tx: &Connection, row: &GrantRow) -> Result<GrantRow, StoreFault> {
    let mut whole = row.clone();
    match find(tx, &row.subject, &row.client)? {
        Some(before) if before.scopes.is_superset(&row.scopes) => return Ok(before),
        Some(before) => whole.scopes.extend(before.scopes),
        None => {
            let count = one(tx, "SELECT count(*) FROM grants", [], |row| row.get::<_, i64>(0))?;
            if count.is_some_and(|count| count >= MOST_GRANTS) {
                return Err(other(format!("there are {MOST_GRANTS} grants, the most there may be")));
            }
        }
    }
    put(tx, &whole)?;
    Ok(whole)
}

pub(super) fn remove(tx: &Connection, subject: &str, client: &str) -> Result<bool, StoreFault> {
    Ok(run(tx, "DELETE FROM grants WHERE subject = ?1 AND client_id = ?2", [subject, client])? > 0)
}

pub(super) fn strip_vault(
    tx: &Connection,
    vault: &str,
    names: &dyn Fn(&str) -> bool,
    at: Timestamp,
) -> Result<Stripped, StoreFault> {
    let mut done = Stripped::default();
    let sql = "SELECT jti, scopes, vault_scope FROM tokens WHERE revoked_at IS NULL AND expires_at > ?1";
    let live = rows(tx, sql, [at.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    for (jti, scopes, pins) in live {
        let (jti, scopes, pins): (String, String, String) = (jti, scopes, pins);
        if scopes.split(' ').any(names) || pins.split(' ').any(|pin| pin == vault) {
            super::tokens::revoke(tx, &jti, at)?;
            done.tokens_revoked += 1;
        }
    }
    for mut grant in all(tx)? {
        let before = grant.scopes.len();
        grant.scopes.retain(|scope| !names(scope));
        if grant.scopes.is_empty() && before > 0 {
            remove(tx, &grant.subject, &grant.client)?;
            done.grants_dropped += 1;
        } else if grant.scopes.len() < before {
            put(tx, &grant)?;
            done.grants_rewritten += 1;
        }
    }
    Ok(done)
}
