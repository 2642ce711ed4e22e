//! The database file: opening it, its one writer and its readers, and what can be wrong with it, in words.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use backoff::{BlockingRetryable as _, ConstantBuilder};
use rusqlite::{Connection, Error, ErrorCode, OpenFlags, Transaction, TransactionBehavior, ffi};

use crate::adapters::blobs::fs::{explain as explain_file, make_durably};
use crate::adapters::sqlite::open::keep_a_wal;
use crate::ports::blobs::BackendError;

/// `PRAGMA application_id`: "trub". Tells our files from other people's databases.
const APPLICATION_ID: i32 = 0x7472_7562;
/// `PRAGMA user_version`.
const VERSION: i32 = 1;
/// Few pages for a chunk, and little waste for a small object.
const PAGE_SIZE: u32 = 16 << 10;
/// How long a call waits for another process. None holds the file longer than one group takes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Two that make the same file are in each other's way for a moment, and SQLite does not wait then.
const SET_UP_PAUSE: Duration = Duration::from_millis(20);
const SET_UP_TRIES: usize = 100;
/// The journal file is cut back to this size.
const JOURNAL_SIZE_LIMIT: u64 = 32 << 20;
/// From here on a commit waits for readers, so that the journal can begin anew.
const JOURNAL_TOO_LARGE: u64 = 128 << 20;
/// Connections that wait for the next reader.
const IDLE_READERS: usize = 4;
/// What one transaction gives back, so that others are not kept waiting (16 MiB).
const VACUUMED_AT_ONCE: u32 = 1_024;
/// Free pages below this stay for what comes next.
const FREE_PAGES: i64 = 256;

const SCHEMA: &str = "
    CREATE TABLE objects (name BLOB PRIMARY KEY, body INTEGER NOT NULL, size INTEGER NOT NULL) WITHOUT ROWID;
    -- The number of a chunk is that of its body, shifted, and its place in it.
    CREATE TABLE chunks (number INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
    -- Bodies that no object has: on their way since then (milliseconds since 1970), or given up (0).
    CREATE TABLE loose (body INTEGER PRIMARY KEY, since INTEGER NOT NULL);
    CREATE TABLE notes (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
    -- A body's number is never used again, so a reader cannot be given the bytes of another one.
    INSERT INTO notes VALUES ('bodies', 0);
";

/// Whether a commit waits for the disk. One that waits takes along all that was committed before it.
#[derive(Clone, Copy)]
pub(super) enum Sync {
    Full,
    Normal,
}

pub(super) struct Database {
    pub(super) path: PathBuf,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
}

impl Database {
    pub(super) fn open(path: &Path) -> Result<Self, BackendError> {
        let path = std::path::absolute(path).map_err(|error| explain_file(path, &error))?;
        if let Some(folder) = path.parent() {
            make_durably(folder)?;
        }
        create_private(&path)?;
        let mut writer = connect(&path).map_err(|error| explain(&path, &error))?;
        check(&writer, &path)?;
        let set_up = (|| set_up(&mut writer))
            .retry(ConstantBuilder::default().with_delay(SET_UP_PAUSE).with_max_times(SET_UP_TRIES))
            .when(|error: &Error| error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy))
            .call();
        let mode = set_up.map_err(|error| explain(&path, &error))?;
        if mode != "wal" {
            return Err(BackendError::Refused(format!(
                "{} is on a file system that has no shared memory files; name a path on a local one",
                path.display()
            )));
        }
        Ok(Self { path, writer: Mutex::new(writer), readers: Mutex::default() })
    }

    fn explain(&self, error: &Error) -> BackendError {
        explain(&self.path, error)
    }

    /// Runs a write transaction. Nothing slow may happen in it: other processes wait.
    pub(super) fn write<T>(
        &self,
        sync: Sync,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, BackendError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mode = match sync {
            Sync::Full => "FULL",
            Sync::Normal => "NORMAL",
        };
        let done = (|| {
            writer.pragma_update(None, "synchronous", mode)?;
            let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let out = work(&transaction)?;
            transaction.commit()?;
            Ok(out)
        })();
        let out = done.map_err(|error| self.explain(&error))?;
        self.cut_journal(&writer);
        Ok(out)
    }

    /// Commits check the journal in by themselves, as far as readers allow. With readers all the time it would never begin anew.
    fn cut_journal(&self, writer: &Connection) {
        let mut journal = self.path.clone().into_os_string();
        journal.push("-wal");
        if fs::metadata(journal).is_ok_and(|found| found.len() > JOURNAL_TOO_LARGE) {
            // When readers do not let go in time, the next commit tries again.
            let _ = writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        }
    }

    /// Reads on a connection of its own: it sees what is committed and waits for no writer.
    pub(super) fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, BackendError> {
        let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let out = (|| {
            let reader = match idle {
                Some(reader) => reader,
                None => {
                    let reader = connect(&self.path)?;
                    reader.pragma_update(None, "query_only", "ON")?;
                    reader
                }
            };
            Ok((work(&reader)?, reader))
        })();
        let (out, reader) = out.map_err(|error| self.explain(&error))?;
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < IDLE_READERS {
            readers.push(reader);
        }
        Ok(out)
    }

    /// Makes the file smaller by what was deleted, a bounded number of pages at a time.
    pub(super) fn give_back(&self) -> Result<(), BackendError> {
        let mut before = i64::MAX;
        loop {
            let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let left = (|| {
                let free: i64 = writer.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
                if free > FREE_PAGES {
                    // Each step gives back one page.
                    let mut vacuum = writer.prepare(&format!("PRAGMA incremental_vacuum({VACUUMED_AT_ONCE})"))?;
                    let mut steps = vacuum.query([])?;
                    while steps.next()?.is_some() {}
                }
                Ok(free)
            })()
            .map_err(|error| self.explain(&error))?;
            if left <= FREE_PAGES || left >= before {
                return Ok(());
            }
            before = left;
        }
    }
}

/// Makes the file for the user alone; SQLite gives its journal files the same mode. One that is there is not opened: closing it would
/// take away the locks that another value of this process holds on it.
fn create_private(path: &Path) -> Result<(), BackendError> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match fs::metadata(path) {
            Ok(found) if found.is_file() => Ok(()),
            Ok(found) if found.mode() & 0o170_000 == 0o040_000 => {
                Err(BackendError::Refused(format!("{} is a folder; name a file in it", path.display())))
            }
            Ok(_) => Err(BackendError::Refused(format!("{} is not a file; name another path", path.display()))),
            Err(error) => Err(explain_file(path, &error)),
        },
        Err(error) => Err(explain_file(path, &error)),
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "trusted_schema", "OFF")?;
    Ok(connection)
}

/// Refuses what is not ours, and what is newer than we are.
fn check(connection: &Connection, path: &Path) -> Result<(), BackendError> {
    let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i32>(0));
    let seen = (|| {
        let tables = number("SELECT count(*) FROM sqlite_schema")?;
        Ok((number("PRAGMA application_id")?, number("PRAGMA user_version")?, tables))
    })();
    let (id, version, tables) = seen.map_err(|error| explain(path, &error))?;
    let shown = path.display();
    if id != APPLICATION_ID && (tables > 0 || id != 0) {
        return Err(BackendError::Refused(format!("{shown} is a database, but not one of blobs; name another path")));
    }
    if version > VERSION {
        return Err(BackendError::Refused(format!(
            "{shown} was written by a newer trueup (schema {version}; this one knows {VERSION}); use that one"
        )));
    }
    Ok(())
}

/// The journal's mode. Does nothing to a database that is set up.
fn set_up(connection: &mut Connection) -> rusqlite::Result<String> {
    // Both count only before there is anything in the file.
    connection.pragma_update(None, "page_size", PAGE_SIZE)?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    let mode = keep_a_wal(connection)?;
    let limit = format!("PRAGMA journal_size_limit = {JOURNAL_SIZE_LIMIT}");
    connection.query_row(&limit, [], |_| Ok(()))?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if transaction.query_row("PRAGMA user_version", [], |row| row.get::<_, i32>(0))? == 0 {
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()?;
    Ok(mode)
}

fn explain(path: &Path, error: &Error) -> BackendError {
    let shown = path.display();
    let detail = match error {
        Error::SqliteFailure(ffi::Error { extended_code, .. }, _) => format!(" (SQLite error {extended_code})"),
        other => format!(" ({other})"),
    };
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => BackendError::Full(format!("no room is left on the disk of {shown}")),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => BackendError::Refused(format!(
            "{shown} may not be written by this user, or is on a read-only file system; change its owner or its mode"
        )),
        Some(ErrorCode::CannotOpen) => {
            BackendError::Refused(format!("{shown} cannot be opened{detail}; see that it and its folder are there"))
        }
        Some(ErrorCode::NotADatabase) => BackendError::Refused(format!("{shown} is not a database; name another path")),
        Some(ErrorCode::DatabaseCorrupt) => {
            BackendError::Refused(format!("{shown} is damaged{detail}; restore it from a backup, or name another path"))
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            BackendError::Transient(format!("another process keeps {shown} locked"))
        }
        _ => BackendError::Transient(format!("{shown}: {error}")),
    }
}
