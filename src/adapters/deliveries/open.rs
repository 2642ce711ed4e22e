//! Opening the database of events, and its connections: one that writes, and some that read.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::schema::MIGRATIONS;
use super::{Delivered, broken};
use crate::adapters::sqlite::migrations::{migrate, version};
use crate::adapters::sqlite::open::{cannot_open, create_private, keep_a_wal, look_read_only};
use crate::ports::deliveries::Bounds;

/// `PRAGMA application_id`: "true". Tells it from other people's databases, and from our others ("trup", "trub", "truh").
const APPLICATION_ID: i32 = 0x7472_7565;
/// How long a call waits for a writer in another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// The journal file is cut back to this size after a burst.
const JOURNAL_SIZE_LIMIT: i64 = 16 << 20;
/// Pages in the journal before they go into the file.
const JOURNAL_PAGES: i64 = 4_000;
/// Connections for reading that are kept open.
const READERS_KEPT: usize = 4;
/// More than there are different statements.
const STATEMENTS: usize = 64;

impl Delivered {
    /// Opens the database. It is made (mode 0600) when it is not there, and brought up to date when it is old.
    ///
    /// # Errors
    /// Says in words what is wrong: newer than this binary, not ours, damaged, folder not writable, disk full.
    pub fn open(path: &Path, bounds: Bounds) -> Result<Self, String> {
        create_private(path).map_err(|error| cannot_open(path, &error))?;
        let writer = connect(path)?;
        check(&writer, path)?;
        let mode: String = keep_a_wal(&writer).map_err(broken)?;
        if mode != "wal" {
            return Err(format!("{} is on a file system that has no shared memory files", path.display()));
        }
        let set = |pragma| writer.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0));
        set(format!("journal_size_limit = {JOURNAL_SIZE_LIMIT}")).map_err(broken)?;
        set(format!("wal_autocheckpoint = {JOURNAL_PAGES}")).map_err(broken)?;
        if application_id(&writer).map_err(broken)? != APPLICATION_ID {
            writer.pragma_update(None, "application_id", APPLICATION_ID).map_err(broken)?;
        }
        migrate(&writer, MIGRATIONS).map_err(broken)?;
        let inode = identity(path).ok();
        Ok(Self { path: path.to_owned(), inode, bounds, writer: Mutex::new(Some(writer)), readers: Mutex::default() })
    }

    /// Opens it for looking; nothing is made and nothing changed. `None` when it is not there.
    ///
    /// # Errors
    /// As [`Delivered::open`].
    pub fn look(path: &Path, bounds: Bounds) -> Result<Option<Self>, String> {
        match fs::metadata(path) {
            // Made and not yet filled by a process that is starting right now, or died there.
            Ok(found) if found.len() > 0 => {}
            _ => return Ok(None),
        }
        let reader = look_read_only(path).map_err(|error| format!("{}: {error}", path.display()))?;
        check(&reader, path)?;
        if version(&reader).map_err(broken)? < MIGRATIONS.len() {
            return Ok(None);
        }
        let readers = Mutex::new(vec![reader]);
        Ok(Some(Self { path: path.to_owned(), inode: None, bounds, writer: Mutex::new(None), readers }))
    }

    /// The file is the one that was opened.
    pub(super) fn witness(&self) -> Result<(), String> {
        match (identity(&self.path), self.inode) {
            (Ok(now), Some(was)) if now != was => Err(format!("{} was replaced by another file", self.path.display())),
            (Err(error), _) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(format!("{} is gone; 'trueup reconcile' started anew makes another", self.path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Runs a change in one transaction. When it fails, or the process dies in it, nothing was written.
    pub(super) fn change<T>(&self, change: impl FnOnce(&Transaction<'_>) -> Result<T, String>) -> Result<T, String> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = writer.as_ref().ok_or("this process only looks")?;
        // Takes the lock before anything is read, so that nothing of what is read can change until the commit.
        let transaction = Transaction::new_unchecked(writer, TransactionBehavior::Immediate).map_err(broken)?;
        let answer = change(&transaction)?;
        transaction.commit().map_err(broken)?;
        Ok(answer)
    }

    /// Looks at one state of the database. Does not wait for whoever writes.
    pub(super) fn read<T>(&self, look: impl FnOnce(&Connection) -> Result<T, String>) -> Result<T, String> {
        let kept = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let reader = match kept {
            Some(reader) => reader,
            None if self.inode.is_none() => look_read_only(&self.path).map_err(|error| error.to_string())?,
            None => connect_reader(&self.path)?,
        };
        let transaction = reader.unchecked_transaction().map_err(broken)?;
        let answer = look(&transaction);
        drop(transaction);
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < READERS_KEPT {
            readers.push(reader);
        }
        answer
    }

    /// Another number after another connection has written.
    pub(super) fn seen_version(&self) -> Result<i64, String> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = writer.as_ref().ok_or("this process only looks")?;
        writer.query_row("PRAGMA data_version", [], |row| row.get(0)).map_err(broken)
    }
}

fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    fs::metadata(path).map(|found| (found.dev(), found.ino()))
}

fn connect(path: &Path) -> Result<Connection, String> {
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

fn connect_reader(path: &Path) -> Result<Connection, String> {
    let connection = connect(path)?;
    connection.pragma_update(None, "query_only", "ON").map_err(broken)?;
    Ok(connection)
}

/// Refuses what is not ours, and what is newer than we are.
fn check(connection: &Connection, path: &Path) -> Result<(), String> {
    // One state of the file: while another process makes it, its number and its tables come one after the other.
    let look = connection.unchecked_transaction().map_err(broken)?;
    let seen = version(&look).map_err(broken)?;
    let id = application_id(&look).map_err(broken)?;
    let tables: i64 = look.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(broken)?;
    drop(look);
    let shown = path.display();
    if id != APPLICATION_ID && (tables > 0 || id != 0) {
        return Err(format!("{shown} is a database, but not one of events"));
    }
    if seen > MIGRATIONS.len() {
        let (knows, how) = (MIGRATIONS.len(), "use that one, or another --state");
        return Err(format!("{shown} was written by a newer trueup (schema {seen}; this one knows {knows}); {how}"));
    }
    Ok(())
}

fn application_id(connection: &Connection) -> rusqlite::Result<i32> {
    connection.query_row("PRAGMA application_id", [], |row| row.get(0))
}
