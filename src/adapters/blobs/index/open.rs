//! Opening an index, and its connections: one that writes, and as many that read as are needed at once.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use super::schema::MIGRATIONS;
use super::{SqliteIndex, broken};
use crate::adapters::sqlite::migrations::{migrate, version};
use crate::adapters::sqlite::open::{cannot_open, create_private, keep_a_wal};
use crate::ports::blobs::IndexError;

/// `PRAGMA application_id`: "trub". Tells an index from other people's databases, and from our ledger.
const APPLICATION_ID: i32 = 0x7472_7562;
/// How long a call waits for a writer in another process. Each holds the lock for one batch.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// So often a transaction is begun when the lock was not to be had in that time.
const BEGIN_ATTEMPTS: usize = 3;
/// The journal file is cut back to this size after a burst.
const JOURNAL_SIZE_LIMIT: i64 = 16 << 20;
/// Pages in the journal before they go into the file, which waits for the disk twice: as many as the journal may keep. A batch of a
/// migration changes some hundreds.
const JOURNAL_PAGES: i64 = 4_000;
/// Connections for reading that are kept open; more are opened when more threads read at once, and closed after.
const READERS_KEPT: usize = 4;
/// More than there are different statements.
const STATEMENTS: usize = 96;

impl SqliteIndex {
    /// Opens the index. It is made (mode 0600) when it is not there, and brought up to date when it is old.
    ///
    /// # Errors
    /// Says in words what is wrong: newer than this binary, not an index, damaged, folder not writable, disk full.
    pub fn open(path: &Path) -> Result<Self, IndexError> {
        create_private(path).map_err(|error| IndexError::Broken(cannot_open(path, &error)))?;
        let writer = connect(path)?;
        check(&writer, path)?;
        let mode: String = keep_a_wal(&writer).map_err(broken)?;
        if mode != "wal" {
            let text = format!("{} is on a file system that has no shared memory files", path.display());
            return Err(IndexError::Broken(text));
        }
        let set = |pragma| writer.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0));
        set(format!("journal_size_limit = {JOURNAL_SIZE_LIMIT}")).map_err(broken)?;
        set(format!("wal_autocheckpoint = {JOURNAL_PAGES}")).map_err(broken)?;
        if application_id(&writer).map_err(broken)? != APPLICATION_ID {
            writer.pragma_update(None, "application_id", APPLICATION_ID).map_err(broken)?;
        }
        migrate(&writer, MIGRATIONS).map_err(broken)?;
        Ok(Self { path: path.to_owned(), writer: Mutex::new(writer), readers: Mutex::default() })
    }

    /// Runs a change in one transaction. When it fails, or the process dies in it, nothing was written.
    pub(super) fn write<T>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, IndexError>,
    ) -> Result<T, IndexError> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = begin(&writer).map_err(broken)?;
        let answer = change(&transaction)?;
        transaction.commit().map_err(broken)?;
        Ok(answer)
    }

    /// Looks at one state of the index. Does not wait for whoever writes.
    pub(super) fn read<T>(&self, look: impl FnOnce(&Connection) -> Result<T, IndexError>) -> Result<T, IndexError> {
        let kept = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let reader = kept.map_or_else(|| connect_reader(&self.path), Ok)?;
        let transaction = reader.unchecked_transaction().map_err(broken)?;
        let answer = look(&transaction);
        drop(transaction);
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < READERS_KEPT {
            readers.push(reader);
        }
        answer
    }
}

/// Takes the lock before anything is read, so that nothing of what is read can change until the commit.
fn begin(writer: &Connection) -> rusqlite::Result<Transaction<'_>> {
    let mut attempt = 1;
    loop {
        match Transaction::new_unchecked(writer, TransactionBehavior::Immediate) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && attempt < BEGIN_ATTEMPTS => {
                attempt += 1;
            }
            other => return other,
        }
    }
}

fn connect(path: &Path) -> Result<Connection, IndexError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(broken)?;
    let set_up = || {
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", "ON")?;
        connection.pragma_update(None, "trusted_schema", "OFF")
    };
    set_up().map_err(broken)?;
    Ok(connection)
}

fn connect_reader(path: &Path) -> Result<Connection, IndexError> {
    let connection = connect(path)?;
    connection.pragma_update(None, "query_only", "ON").map_err(broken)?;
    Ok(connection)
}

/// Refuses what is not an index, and what is newer than we are.
fn check(connection: &Connection, path: &Path) -> Result<(), IndexError> {
    // One state of the file: while another process makes it, its number and its tables come one after the other.
    let look = connection.unchecked_transaction().map_err(broken)?;
    let seen = version(&look).map_err(broken)?;
    let id = application_id(&look).map_err(broken)?;
    let tables: i64 = look.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(broken)?;
    drop(look);
    let shown = path.display();
    if id != APPLICATION_ID && (tables > 0 || id != 0) {
        return Err(IndexError::Broken(format!("{shown} is a database, but not an index of blobs")));
    }
    if seen > MIGRATIONS.len() {
        let (knows, how) = (MIGRATIONS.len(), "use that one, or another --state");
        let text = format!("{shown} was written by a newer trueup (schema {seen}; this one knows {knows}); {how}");
        return Err(IndexError::Broken(text));
    }
    Ok(())
}

fn application_id(connection: &Connection) -> rusqlite::Result<i32> {
    connection.query_row("PRAGMA application_id", [], |row| row.get(0))
}
