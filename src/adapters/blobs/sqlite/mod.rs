//! An SQLite database as a backend: objects by name, their bytes in chunks, so that no size is too large and none needs memory.
//!
//! The journal is a WAL. Objects become visible with a commit that waits for the disk (`synchronous = FULL`: every such commit is an
//! `fsync` of the journal); chunks of a body that is still on its way need not wait, because that commit takes along what is before it.

mod database;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::{OptionalExtension as _, Transaction, params};

use self::database::{Database, Sync};
use super::body::Body;
use super::staging::Staging;
use crate::adapters::clock::SystemClock;
use crate::model::blob::Sha256;
use crate::ports::blobs::{Backend, BackendError, Object, Placed, Put};
use crate::ports::clock::Clock as _;

/// An object of this size or less is one row.
const CHUNK: usize = 1 << 20;
/// A body has this many chunks at most, which is 1 TiB; its number is above these bits in the number of each chunk.
const CHUNK_BITS: u32 = 20;
/// What is staged in memory altogether; the rest is staged in the file.
const HELD_LIMIT: usize = 16 << 20;
/// What one transaction of clearing up takes, so that others are not kept waiting (64 MiB).
const REAPED_AT_ONCE: i64 = 64;
/// What is younger may still be written.
const LEFTOVER_AFTER: i64 = 3_600_000;

/// Objects in a database. Other processes may use it at the same time.
pub struct Sqlite {
    database: Arc<Database>,
    staging: Staging<Staged>,
    /// Bytes in [`Staged::Held`].
    held: AtomicUsize,
}

enum Staged {
    Held(Vec<u8>),
    Written { body: i64, size: u64 },
}

impl Sqlite {
    /// Opens the database, and makes it (mode 0600, in a folder of mode 0700) when it is not there.
    ///
    /// # Errors
    /// When it cannot be made, read or written, or is not one of ours.
    pub fn open(path: &Path) -> Result<Self, BackendError> {
        let database = Arc::new(Database::open(path)?);
        Ok(Self { database, staging: Staging::default(), held: AtomicUsize::new(0) })
    }

    /// As if the disk had no more room than this.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: u32) {
        let limit = |transaction: &Transaction<'_>| {
            transaction.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
        };
        self.database.write(Sync::Normal, limit).expect("a limit");
    }

    /// A body of one chunk at most.
    fn stage_small(&self, body: &mut Body<'_>) -> Result<Staged, BackendError> {
        let mut bytes = body.buffer(CHUNK);
        body.fill(&mut bytes)?;
        let size = bytes.len();
        if self.held.fetch_add(size, Ordering::Relaxed) + size <= HELD_LIMIT {
            return Ok(Staged::Held(bytes));
        }
        self.held.fetch_sub(size, Ordering::Relaxed);
        let body = self.database.write(Sync::Normal, |transaction| {
            let body = new_loose(transaction)?;
            put_chunk(transaction, body, 0, &bytes)?;
            Ok(body)
        })?;
        Ok(Staged::Written { body, size: size as u64 })
    }

    /// A body of many chunks: a short transaction for each, and none while the body is waited for.
    fn stage_large(&self, body: &mut Body<'_>, size: u64) -> Result<Staged, BackendError> {
        let mut buffer = vec![0; CHUNK];
        let mut number = None;
        let staged = (|| {
            for place in 0.. {
                let count = body.fill(&mut buffer)?;
                if count == 0 {
                    break;
                }
                number = self.database.write(Sync::Normal, |transaction| {
                    let body = match number {
                        Some(body) if !is_still_loose(transaction, body)? => return Ok(None),
                        Some(body) => body,
                        None => new_loose(transaction)?,
                    };
                    put_chunk(transaction, body, place, &buffer[..count])?;
                    Ok(Some(body))
                })?;
                if number.is_none() {
                    return Err(given_up());
                }
            }
            Ok(())
        })();
        match (staged, number) {
            (Ok(()), Some(body)) => Ok(Staged::Written { body, size }),
            (Ok(()), None) => Ok(Staged::Held(Vec::new())),
            (Err(error), number) => {
                if let Some(body) = number {
                    self.discard([Staged::Written { body, size }]);
                }
                Err(error)
            }
        }
    }

    /// Clears up what will not become an object. What cannot be cleared up now is what `tidy` finds later.
    fn discard(&self, staged: impl IntoIterator<Item = Staged>) {
        for staged in staged {
            match staged {
                Staged::Held(bytes) => {
                    self.held.fetch_sub(bytes.len(), Ordering::Relaxed);
                }
                Staged::Written { body, .. } => {
                    let _ = self.reap(body);
                }
            }
        }
    }

    /// Removes a body that no object has, a bounded number of chunks at a time.
    fn reap(&self, body: i64) -> Result<(), BackendError> {
        while self.database.write(Sync::Normal, |transaction| reap_some(transaction, body))? {}
        Ok(())
    }

    fn settle_staged(
        &self,
        names: &BTreeSet<Sha256>,
        staged: &BTreeMap<Sha256, Staged>,
    ) -> Result<Vec<i64>, BackendError> {
        let missing = names.iter().filter(|name| !staged.contains_key(*name));
        for name in missing {
            if self.size(name)?.is_none() {
                return Err(BackendError::Transient(format!("{name} was not put, or its put was given up")));
            }
        }
        if staged.is_empty() {
            // What is visible was committed, and that waited for the disk.
            return Ok(Vec::new());
        }
        let done = self.database.write(Sync::Full, |transaction| {
            let mut fresh = new_bodies(transaction, staged.len())?;
            let mut replaced = Vec::new();
            for (name, staged) in staged {
                let (body, size) = match staged {
                    Staged::Held(bytes) => {
                        put_chunk(transaction, fresh, 0, bytes)?;
                        fresh += 1;
                        (fresh - 1, bytes.len() as u64)
                    }
                    Staged::Written { body, size } => {
                        if !is_still_loose(transaction, *body)? {
                            return Ok(None);
                        }
                        transaction.prepare_cached("DELETE FROM loose WHERE body = ?1")?.execute([body])?;
                        (*body, *size)
                    }
                };
                replaced.extend(let_go(transaction, name)?);
                let mut insert = transaction.prepare_cached("INSERT INTO objects VALUES (?1, ?2, ?3)")?;
                insert.execute(params![name.0, body, signed(size)])?;
            }
            Ok(Some(replaced))
        })?;
        done.ok_or_else(given_up)
    }

    fn find(&self, name: &Sha256) -> Result<Option<u64>, BackendError> {
        self.database.read(|reader| {
            let mut query = reader.prepare_cached("SELECT size FROM objects WHERE name = ?1")?;
            query.query_row([name.0], |row| row.get(0).map(unsigned)).optional()
        })
    }
}

impl Backend for Sqlite {
    fn put(&self, object: &Object, body: &mut dyn Read, how: Put) -> Result<Placed, BackendError> {
        if object.size >= (CHUNK as u64) << CHUNK_BITS {
            return Err(BackendError::Refused(format!(
                "{} takes no object of 1 TiB or more",
                self.database.path.display()
            )));
        }
        if how == Put::IfAbsent && (self.staging.has(&object.name) || self.find(&object.name)?.is_some()) {
            return Ok(Placed::Present);
        }
        let mut body = Body::new(body, object);
        let staged = if object.size <= CHUNK as u64 {
            self.stage_small(&mut body)?
        } else {
            self.stage_large(&mut body, object.size)?
        };
        self.staging.add(object.name, staged);
        Ok(Placed::Stored)
    }

    fn settle(&self, names: &[Sha256]) -> Result<(), BackendError> {
        let names: BTreeSet<Sha256> = names.iter().copied().collect();
        if names.is_empty() {
            return Ok(());
        }
        let (_turn, staged) = self.staging.take(&names);
        let mut newest = BTreeMap::new();
        for (name, mut bodies) in staged {
            newest.extend(bodies.pop().map(|last| (name, last)));
            self.discard(bodies);
        }
        match self.settle_staged(&names, &newest) {
            Ok(replaced) => {
                self.discard(newest.into_values().filter(|staged| matches!(staged, Staged::Held(_))));
                for body in replaced {
                    // The group is settled in any case; `tidy` does what this could not.
                    let _ = self.reap(body);
                }
                Ok(())
            }
            Err(error) => {
                self.discard(newest.into_values());
                Err(error)
            }
        }
    }

    fn open(&self, name: &Sha256, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send>, BackendError> {
        let range = range.unwrap_or(0..u64::MAX);
        let place = range.start / CHUNK as u64;
        // One statement, so that an object and its first chunk belong together.
        let found = self.database.read(|reader| {
            let mut query = reader.prepare_cached(
                "SELECT body, size, bytes FROM objects LEFT JOIN chunks ON number = (body << ?2) + ?3 WHERE name = ?1",
            )?;
            let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1).map(unsigned)?, row.get(2)?));
            query.query_row(params![name.0, CHUNK_BITS, signed(place)], row).optional()
        })?;
        let (body, size, bytes): (i64, u64, Option<Vec<u8>>) = found.ok_or(BackendError::Missing)?;
        let reader = Reader {
            database: Arc::clone(&self.database),
            name: *name,
            body,
            at: range.start,
            end: range.end.min(size),
            chunk: bytes.unwrap_or_default(),
            place,
        };
        if reader.at < reader.end {
            reader.check()?;
        }
        Ok(Box::new(reader))
    }

    fn size(&self, name: &Sha256) -> Result<Option<u64>, BackendError> {
        self.find(name)
    }

    fn delete(&self, name: &Sha256) -> Result<(), BackendError> {
        match self.database.write(Sync::Full, |transaction| let_go(transaction, name))? {
            Some(body) => self.reap(body),
            None => Ok(()),
        }
    }

    fn list(&self, after: Option<&Sha256>, limit: usize) -> Result<Vec<Object>, BackendError> {
        let after: &[u8] = after.map_or(&[], |after| &after.0);
        self.database.read(|reader| {
            let mut query =
                reader.prepare_cached("SELECT name, size FROM objects WHERE name > ?1 ORDER BY name LIMIT ?2")?;
            let rows = query.query_map(params![after, signed(limit as u64)], |row| {
                Ok(Object { name: Sha256(row.get(0)?), size: unsigned(row.get(1)?) })
            })?;
            rows.collect()
        })
    }

    fn tidy(&self) -> Result<(), BackendError> {
        let before = SystemClock.wall().0 - LEFTOVER_AFTER;
        loop {
            let body = self.database.read(|reader| {
                let mut query = reader.prepare_cached("SELECT body FROM loose WHERE since < ?1 LIMIT 1")?;
                query.query_row([before], |row| row.get(0)).optional()
            })?;
            match body {
                Some(body) => self.reap(body)?,
                None => break,
            }
        }
        self.database.give_back()
    }

    fn owner(&self) -> Result<Option<String>, BackendError> {
        self.database.read(|reader| {
            reader.query_row("SELECT value FROM notes WHERE name = 'owner'", [], |row| row.get(0)).optional()
        })
    }

    fn claim(&self, owner: &str) -> Result<(), BackendError> {
        self.database.write(Sync::Full, |transaction| {
            transaction.execute("INSERT OR REPLACE INTO notes VALUES ('owner', ?1)", [owner]).map(|_| ())
        })
    }
}

/// Reads an object chunk by chunk, without a transaction that would hold up the journal.
struct Reader {
    database: Arc<Database>,
    name: Sha256,
    body: i64,
    at: u64,
    end: u64,
    chunk: Vec<u8>,
    /// Of the chunk at hand.
    place: u64,
}

impl Reader {
    fn turn_to(&mut self, place: u64) -> Result<(), BackendError> {
        let number = (self.body << CHUNK_BITS) + signed(place);
        let chunk = self.database.read(|reader| {
            let mut query = reader.prepare_cached("SELECT bytes FROM chunks WHERE number = ?1")?;
            query.query_row([number], |row| row.get(0)).optional()
        })?;
        self.chunk = chunk.unwrap_or_default();
        self.place = place;
        self.check()
    }

    /// The chunk at hand must have the byte that is wanted next.
    fn check(&self) -> Result<(), BackendError> {
        if self.at - self.place * (CHUNK as u64) < self.chunk.len() as u64 {
            return Ok(());
        }
        let now = self.database.read(|reader| {
            let mut query = reader.prepare_cached("SELECT body FROM objects WHERE name = ?1")?;
            query.query_row([self.name.0], |row| row.get::<_, i64>(0)).optional()
        })?;
        match now {
            Some(body) if body != self.body => {
                Err(BackendError::Transient(format!("{} was replaced while it was read", self.name)))
            }
            // Removed, or its bytes were taken from the file by somebody else.
            _ => Err(BackendError::Missing),
        }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.end || buffer.is_empty() {
            return Ok(0);
        }
        let place = self.at / CHUNK as u64;
        if place != self.place {
            self.turn_to(place).map_err(BackendError::into_io)?;
        }
        let start = usize::try_from(self.at % CHUNK as u64).unwrap_or_default();
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let bytes = self.chunk.get(start..).unwrap_or_default();
        let count = bytes.len().min(left).min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        self.at += count as u64;
        Ok(count)
    }
}

/// Numbers for so many bodies; the first of them.
fn new_bodies(transaction: &Transaction<'_>, count: usize) -> rusqlite::Result<i64> {
    let count = signed(count as u64);
    let mut query =
        transaction.prepare_cached("UPDATE notes SET value = value + ?1 WHERE name = 'bodies' RETURNING value")?;
    let last: i64 = query.query_row([count], |row| row.get(0))?;
    Ok(last - count + 1)
}

/// A body that is on its way.
fn new_loose(transaction: &Transaction<'_>) -> rusqlite::Result<i64> {
    let body = new_bodies(transaction, 1)?;
    transaction.prepare_cached("INSERT INTO loose VALUES (?1, ?2)")?.execute([body, SystemClock.wall().0])?;
    Ok(body)
}

/// Whether a body on its way was not taken for a leftover meanwhile; it will not be for a while.
fn is_still_loose(transaction: &Transaction<'_>, body: i64) -> rusqlite::Result<bool> {
    let mut update = transaction.prepare_cached("UPDATE loose SET since = ?2 WHERE body = ?1")?;
    Ok(update.execute([body, SystemClock.wall().0])? == 1)
}

fn put_chunk(transaction: &Transaction<'_>, body: i64, place: u64, bytes: &[u8]) -> rusqlite::Result<()> {
    let number = (body << CHUNK_BITS) + signed(place);
    transaction.prepare_cached("INSERT INTO chunks VALUES (?1, ?2)")?.execute(params![number, bytes]).map(|_| ())
}

/// Removes an object; its body, if that has many chunks, is left for [`Sqlite::reap`].
fn let_go(transaction: &Transaction<'_>, name: &Sha256) -> rusqlite::Result<Option<i64>> {
    let mut delete = transaction.prepare_cached("DELETE FROM objects WHERE name = ?1 RETURNING body, size")?;
    let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get(1).map(unsigned)?));
    let Some((body, size)) = delete.query_row([name.0], row).optional()? else { return Ok(None) };
    if size <= CHUNK as u64 {
        transaction.prepare_cached("DELETE FROM chunks WHERE number = ?1")?.execute([body << CHUNK_BITS])?;
        return Ok(None);
    }
    transaction.prepare_cached("INSERT INTO loose VALUES (?1, 0)")?.execute([body])?;
    Ok(Some(body))
}

/// Removes some chunks of a body, if no object has it. Whether there are more.
fn reap_some(transaction: &Transaction<'_>, body: i64) -> rusqlite::Result<bool> {
    let loose = transaction.prepare_cached("SELECT 1 FROM loose WHERE body = ?1")?.exists([body])?;
    if !loose {
        return Ok(false);
    }
    let mut delete = transaction.prepare_cached(
        "DELETE FROM chunks WHERE number IN (SELECT number FROM chunks WHERE number >= ?1 AND number < ?2 LIMIT ?3)",
    )?;
    let removed = delete.execute(params![body << CHUNK_BITS, (body + 1) << CHUNK_BITS, REAPED_AT_ONCE])?;
    if signed(removed as u64) == REAPED_AT_ONCE {
        return Ok(true);
    }
    transaction.prepare_cached("DELETE FROM loose WHERE body = ?1")?.execute([body])?;
    Ok(false)
}

/// Our own `tidy`, or another process's, took it for a leftover: nobody had touched it for an hour.
fn given_up() -> BackendError {
    BackendError::Transient("its bytes lay unsettled for too long and were cleared up; put it again".into())
}

/// SQLite's integers have a sign.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}
