//! The database of keys, tokens and grants in SQLite: [`HubDb`] makes [`crate::ports::tokens::TokenStore`] real. A database that was
//! there once is never made again: whoever lost it has to say so, because an empty one would forget every revocation.

/// The file of the operator token.
pub mod file;
/// What is granted, and what goes with a vault.
mod grants;
/// Signing keys.
mod keys;
/// Opening, the connections, and whether the file is still there.
mod open;
/// Putting a backup in its place.
pub mod restore;
/// The tables.
mod schema;
#[cfg(test)]
mod tests;
/// Tokens.
mod tokens;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, RwLock};

use rusqlite::{Connection, Error, ErrorCode, OptionalExtension, Params, Row, ffi};

use crate::adapters::sqlite::open::explain;
use crate::model::time::Timestamp;
use crate::ports::tokens::{
    After, Bound, FaultClass, GrantRow, KeyRow, Known, Registration, Rotated, StoreFault, Stripped, TokenFilter,
    TokenRow, TokenStore, Unwell, Via,
};

/// An open database. Any number of processes may have it open.
#[derive(Debug)]
pub struct HubDb {
    path: PathBuf,
    open: RwLock<Arc<Open>>,
    /// A call found it broken: the next look reads all of it.
    suspect: AtomicBool,
    /// One repair at a time.
    mending: Mutex<()>,
    /// The mode that the file had, if others could have read it.
    mode_was: Option<u32>,
}

/// The connections to one file.
#[derive(Debug)]
struct Open {
    writer: Mutex<Connection>,
    /// Those that nobody uses right now.
    readers: Mutex<Vec<Connection>>,
    /// Device and number of the file, taken after it was opened.
    inode: Option<(u64, u64)>,
}

impl TokenStore for HubDb {
    fn check(&self) -> Result<(), Unwell> {
        self.look()
    }
    fn reopen(&self) -> Result<(), Unwell> {
        self.open_anew()
    }
    fn keys(&self) -> Result<Vec<KeyRow>, StoreFault> {
        self.read(keys::all)
    }
    fn add_key(&self, key: &KeyRow) -> Result<(), StoreFault> {
        self.write(|tx| keys::add_if_none(tx, key))
    }
    fn rotate(&self, new: &KeyRow, drop_old: bool, least: Timestamp, now: Timestamp) -> Result<Rotated, StoreFault> {
        self.write(|tx| keys::rotate(tx, new, drop_old, least, now))
    }
    fn register(&self, row: &TokenRow) -> Result<Registration, StoreFault> {
        self.write(|tx| tokens::register(tx, row))
    }
    fn are_more(&self, subject: &str, client: &str, via: Via, now: Timestamp, than: Bound) -> Result<bool, StoreFault> {
        self.read(|on| tokens::are_more(on, subject, client, via, now, than))
    }
    fn known(&self, kid: &str, jti: &str, now: Timestamp) -> Result<Known, StoreFault> {
        self.read(|on| tokens::known(on, kid, jti, now))
    }
    fn find(&self, jti: &str) -> Result<Option<TokenRow>, StoreFault> {
        self.read(|on| tokens::find(on, jti))
    }
    fn list(&self, filter: &TokenFilter, after: Option<&After>, limit: usize) -> Result<Vec<TokenRow>, StoreFault> {
        self.read(|on| tokens::list(on, filter, after, limit))
    }
    fn revoke(&self, jti: &str, at: Timestamp) -> Result<Option<Timestamp>, StoreFault> {
        self.write(|tx| tokens::revoke(tx, jti, at))
    }
    fn revoke_others(
        &self,
        subject: &str,
        client: &str,
        via: Via,
        but: &str,
        at: Timestamp,
    ) -> Result<Vec<String>, StoreFault> {
        self.write(|tx| tokens::revoke_others(tx, subject, client, via, but, at))
    }
    fn revoked(&self, now: Timestamp) -> Result<Vec<String>, StoreFault> {
        self.read(|on| tokens::revoked(on, now))
    }
    fn counts(&self, now: Timestamp) -> Result<Vec<(Via, bool, u64)>, StoreFault> {
        self.read(|on| tokens::counts(on, now))
    }
    fn sweep(&self, expired_before: Timestamp, now: Timestamp) -> Result<u64, StoreFault> {
        self.write(|tx| tokens::sweep(tx, expired_before, now))
    }
    fn grants(&self) -> Result<Vec<GrantRow>, StoreFault> {
        self.read(grants::all)
    }
    fn grant(&self, subject: &str, client: &str) -> Result<Option<GrantRow>, StoreFault> {
        self.read(|on| grants::find(on, subject, client))
    }
    fn add_grant(&self, row: &GrantRow) -> Result<GrantRow, StoreFault> {
        self.write(|tx| grants::add(tx, row))
    }
    fn remove_grant(&self, subject: &str, client: &str) -> Result<bool, StoreFault> {
        self.write(|tx| grants::remove(tx, subject, client))
    }
    fn strip_vault(&self, vault: &str, names: &dyn Fn(&str) -> bool, at: Timestamp) -> Result<Stripped, StoreFault> {
        self.write(|tx| grants::strip_vault(tx, vault, names, at))
    }
}

/// Runs one statement; the answer is how many rows it changed.
fn run(on: &Connection, sql: &str, values: impl Params) -> Result<usize, StoreFault> {
    on.prepare_cached(sql).and_then(|mut statement| statement.execute(values)).map_err(fault)
}

/// Reads the only row, if there is one.
fn one<T>(
    on: &Connection,
    sql: &str,
    values: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>, StoreFault> {
    on.prepare_cached(sql).and_then(|mut statement| statement.query_row(values, read).optional()).map_err(fault)
}

/// Reads rows.
fn rows<T>(
    on: &Connection,
    sql: &str,
    values: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, StoreFault> {
    let mut statement = on.prepare_cached(sql).map_err(fault)?;
    let rows = statement.query_map(values, read).map_err(fault)?;
    rows.collect::<rusqlite::Result<_>>().map_err(fault)
}

/// A list with one space between, as the claims have it.
fn words(text: &str) -> Vec<String> {
    text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn fault(error: Error) -> StoreFault {
    let class = class(&error);
    StoreFault { class, message: format!("the database of tokens: {}", explain(error).0) }
}

fn other(message: impl Into<String>) -> StoreFault {
    StoreFault { class: FaultClass::Other, message: message.into() }
}

/// Transient comes first: a lock that cannot be had is an I/O error too, by its number.
fn class(error: &Error) -> FaultClass {
    let Error::SqliteFailure(ffi::Error { code, extended_code }, _) = error else {
        return FaultClass::Other;
    };
    match code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => FaultClass::Transient,
        ErrorCode::SystemIoFailure => match *extended_code {
            ffi::SQLITE_IOERR_BLOCKED | ffi::SQLITE_IOERR_LOCK => FaultClass::Transient,
            _ => FaultClass::Fatal,
        },
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => FaultClass::Fatal,
        _ => FaultClass::Other,
    }
}
