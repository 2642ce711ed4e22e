//! Tokens: their rows, never the tokens themselves.

use rusqlite::types::Type;
use rusqlite::{Connection, Error, Row, params};

use super::keys::time;
use super::{one, rows, run, words};
use crate::model::time::Timestamp;
use crate::ports::tokens::{After, Bound, Known, Registration, StoreFault, TokenFilter, TokenRow, Via};

/// As [`token`] reads them.
pub(super) const COLUMNS: &str = "jti, subject, client_id, audience, scopes, vault_scope, permissions, created_via, kid, created_at, \
                                  expires_at, revoked_at";
/// More than any machine has; a loop that mints ends here, not at the end of the disk.
const MOST_TOKENS: i64 = 100_000;
/// With those that are revoked: they stand in the list of revocations until they end, and so cannot be forgotten before.
const MOST_ROWS: i64 = 200_000;
/// So many rows are forgotten at a time: a writer holds the lock for some milliseconds.
const SWEPT: i64 = 500;
/// A clock that is further ahead of what is believed, in milliseconds, is not believed: one day.
const LEAP: i64 = 86_400_000;

pub(super) fn token(row: &Row<'_>) -> rusqlite::Result<TokenRow> {
    token_from(row, 0)
}

fn token_from(row: &Row<'_>, first: usize) -> rusqlite::Result<TokenRow> {
    let text = |at: usize| row.get::<_, String>(first + at);
    let via = text(7)?;
    let via = Via::parse(&via).ok_or_else(|| {
        Error::FromSqlConversionFailure(first + 7, Type::Text, format!("created_via '{via}' is not known").into())
    })?;
    Ok(TokenRow {
        jti: text(0)?,
        subject: text(1)?,
        client: text(2)?,
        audience: text(3)?,
        scopes: words(&text(4)?),
        vault_scope: words(&text(5)?),
        permissions: row.get(first + 6)?,
        via,
        kid: text(8)?,
        created: Timestamp(row.get(first + 9)?),
        expires: Timestamp(row.get(first + 10)?),
        revoked: time(row, first + 11)?,
    })
}

pub(super) fn counts(on: &Connection, now: Timestamp) -> Result<Vec<(Via, bool, u64)>, StoreFault> {
    let sql = "SELECT created_via, revoked_at IS NOT NULL, count(*) FROM tokens WHERE expires_at > ?1 GROUP BY 1, 2";
    let counts =
        rows(on, sql, [now.0], |row| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?, row.get::<_, u64>(2)?)))?;
    Ok(counts.into_iter().filter_map(|(via, revoked, count)| Some((Via::parse(&via)?, revoked, count))).collect())
}

pub(super) fn register(tx: &Connection, row: &TokenRow) -> Result<Registration, StoreFault> {
    let active = one(tx, "SELECT 1 FROM signing_keys WHERE kid = ?1 AND retired_at IS NULL", [&row.kid], |_| Ok(()))?;
    if active.is_none() {
        return Ok(Registration::KeyRetired);
    }
    // The owner's own is made however many others have made.
    if row.via != Via::OperatorMint && full(tx)? {
        let forgotten = believed(tx, row.created)? && forget(tx, row.created)? > 0;
        if !forgotten {
            return Ok(Registration::Full);
        }
    }
    let sql = format!("INSERT INTO tokens ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, NULL)");
    let values = params![
        row.jti,
        row.subject,
        row.client,
        row.audience,
        row.scopes.join(" "),
        row.vault_scope.join(" "),
        row.permissions,
        row.via.as_str(),
        row.kid,
        row.created.0,
        row.expires.0,
    ];
    run(tx, &sql, values)?;
    Ok(Registration::Written)
}

fn full(tx: &Connection) -> Result<bool, StoreFault> {
    let sql = "SELECT tokens - revoked >= ?1 OR tokens >= ?2 FROM book";
    Ok(one(tx, sql, [MOST_TOKENS, MOST_ROWS], |row| row.get(0))?.unwrap_or(false))
}

pub(super) fn are_more(
    on: &Connection,
    subject: &str,
    client: &str,
    via: Via,
    now: Timestamp,
    than: Bound,
) -> Result<bool, StoreFault> {
    let sql = "SELECT count(*) FILTER (WHERE revoked_at IS NULL) >= ?5 OR count(*) >= ?6 FROM tokens
        WHERE subject = ?1 AND client_id = ?2 AND created_via = ?3 AND expires_at > ?4";
    let values = params![subject, client, via.as_str(), now.0, than.live, than.with_revoked];
    Ok(one(on, sql, values, |row| row.get(0))?.unwrap_or(false))
}

pub(super) fn known(on: &Connection, kid: &str, jti: &str, now: Timestamp) -> Result<Known, StoreFault> {
    // One statement, so that key and row are of one moment.
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM signing_keys WHERE kid = ?1 AND (keep_until IS NULL OR keep_until > ?3)), here.jti IS NOT NULL,
            here.* FROM (SELECT 1) LEFT JOIN (SELECT {COLUMNS} FROM tokens WHERE jti = ?2) AS here"
    );
    let known = one(on, &sql, params![kid, jti, now.0], |row| {
        let there: bool = row.get(1)?;
        Ok(Known { key: row.get(0)?, row: there.then(|| token_from(row, 2)).transpose()? })
    })?;
    Ok(known.unwrap_or(Known { key: false, row: None }))
}

pub(super) fn find(on: &Connection, jti: &str) -> Result<Option<TokenRow>, StoreFault> {
    one(on, &format!("SELECT {COLUMNS} FROM tokens WHERE jti = ?1"), [jti], token)
}

pub(super) fn list(
    on: &Connection,
    filter: &TokenFilter,
    after: Option<&After>,
    limit: usize,
) -> Result<Vec<TokenRow>, StoreFault> {
    // Only what is asked for stands in the statement, so that an index serves it. The numbers are those of the values below.
    let mut wanted = Vec::new();
    wanted.extend(filter.subject.as_ref().map(|_| "subject = ?1"));
    wanted.extend(filter.client.as_ref().map(|_| "client_id = ?2"));
    wanted.extend(filter.via.map(|_| "created_via = ?3"));
    wanted.extend(after.map(|_| "(created_at, jti) < (?4, ?5)"));
    wanted.extend(filter.revoked.map(|revoked| if revoked { "revoked_at IS NOT NULL" } else { "revoked_at IS NULL" }));
    let condition = if wanted.is_empty() { String::new() } else { format!("WHERE {}", wanted.join(" AND ")) };
    let sql = format!("SELECT {COLUMNS} FROM tokens {condition} ORDER BY created_at DESC, jti DESC LIMIT ?6");
    let values = params![
        filter.subject,
        filter.client,
        filter.via.map(Via::as_str),
        after.map(|after| after.created.0),
        after.map(|after| after.jti.as_str()),
        i64::try_from(limit).unwrap_or(i64::MAX),
    ];
    rows(on, &sql, values, token)
}

pub(super) fn revoke(tx: &Connection, jti: &str, at: Timestamp) -> Result<Option<Timestamp>, StoreFault> {
    run(tx, "UPDATE tokens SET revoked_at = ?2 WHERE jti = ?1 AND revoked_at IS NULL", params![jti, at.0])?;
    Ok(one(tx, "SELECT revoked_at FROM tokens WHERE jti = ?1", [jti], |row| time(row, 0))?.flatten())
}

pub(super) fn revoke_others(
    tx: &Connection,
    subject: &str,
    client: &str,
    via: Via,
    but: &str,
    at: Timestamp,
) -> Result<Vec<String>, StoreFault> {
    let sql =
        "UPDATE tokens SET revoked_at = ?5 WHERE subject = ?1 AND client_id = ?2 AND created_via = ?3 AND jti <> ?4
        AND revoked_at IS NULL AND expires_at > ?5 RETURNING jti";
    rows(tx, sql, params![subject, client, via.as_str(), but, at.0], |row| row.get(0))
}

pub(super) fn revoked(on: &Connection, now: Timestamp) -> Result<Vec<String>, StoreFault> {
    let sql = "SELECT jti FROM tokens WHERE revoked_at IS NOT NULL AND expires_at > ?1";
    let mut all: Vec<String> = rows(on, sql, [now.0], |row| row.get(0))?;
    all.sort_unstable();
    Ok(all)
}

pub(super) fn sweep(tx: &Connection, expired_before: Timestamp, now: Timestamp) -> Result<u64, StoreFault> {
    let believed = believed(tx, now)?;
    // A machine that was off for long is believed again after as many looks as it was off days.
    run(
        tx,
        "UPDATE book SET clock = min(?1, coalesce(clock + ?2, ?1)) WHERE clock IS NULL OR clock < ?1",
        [now.0, LEAP],
    )?;
    if !believed {
        return Ok(0);
    }
    run(tx, "DELETE FROM signing_keys WHERE keep_until < ?1", [expired_before.0])?;
    forget(tx, expired_before)
}

/// Whether this may be the time: one start with a wrong clock must not forget what was revoked.
fn believed(tx: &Connection, now: Timestamp) -> Result<bool, StoreFault> {
    let clock = one(tx, "SELECT clock FROM book", [], |row| time(row, 0))?.flatten();
    Ok(clock.is_none_or(|clock| now.0 <= clock.0.saturating_add(LEAP)))
}

fn forget(tx: &Connection, ended_before: Timestamp) -> Result<u64, StoreFault> {
    let sql =
        "DELETE FROM tokens WHERE jti IN (SELECT jti FROM tokens WHERE expires_at < ?1 ORDER BY expires_at LIMIT ?2)";
    Ok(run(tx, sql, [ended_before.0, SWEPT])? as u64)
}
