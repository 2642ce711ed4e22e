//! Opening a ledger, and what can be wrong with it, in words.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use backoff::{BlockingRetryable, ConstantBuilder};
use rusqlite::{Connection, Error, ErrorCode, OpenFlags, ffi};

use super::migrations::{MIGRATIONS, migrate, version};
use super::{KEY_SETTING, Ledger};
use crate::adapters::clock::random_bytes;
use crate::adapters::environment::temporary_dir;
use crate::ports::store::{Store, StoreError};

/// Between two attempts at what SQLite does not wait for.
const PAUSE: Duration = Duration::from_millis(10);
/// 10 s of them.
const LOOKS: usize = 1_000;

/// `PRAGMA application_id`: "trup". Tells our files from other people's databases.
const APPLICATION_ID: i32 = 0x7472_7570;
/// How long a call waits for another process: readers hold nothing that long, and a second writer there is not.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The journal file is cut back to this size after a burst.
const JOURNAL_SIZE_LIMIT: i64 = 8 << 20;

impl Ledger {
    /// Opens the ledger for writing. It is made (mode 0600) when it is not there, and brought up to date when it is old.
    ///
    /// # Errors
    /// Says in words what is wrong: newer than this binary, not a ledger, damaged, folder not writable, disk full.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        create_private(path).map_err(|error| StoreError(cannot_open(path, &error)))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(explain)?;
        let ledger = Self { connection };
        ledger.set_up().map_err(explain)?;
        check(&ledger.connection, path)?;
        let mode: String = keep_a_wal(&ledger.connection).map_err(explain)?;
        if mode != "wal" {
            return Err(StoreError(format!("{} is on a file system that has no shared memory files", path.display())));
        }
        ledger.bring_up_to_date()?;
        Ok(ledger)
    }

    /// Opens the ledger for looking. It works beside a writer, on a read-only folder and on a ledger of an older schema, and
    /// changes nothing. A ledger that is not there is an empty one in memory.
    ///
    /// # Errors
    /// As [`Ledger::open`], as far as it applies.
    pub fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        match File::open(path).and_then(|file| file.metadata()) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Self::in_memory();
            }
            Err(error) => return Err(StoreError(cannot_open(path, &error))),
            // Made and not yet filled by a process that is starting right now, or died there.
            Ok(found) if found.is_file() && found.size() == 0 => return Self::in_memory(),
            Ok(_) => {}
        }
        let connection = match look(path, "mode=ro") {
            Err(error) if !is_cannot_open(&error) => return Err(explain(error)),
            // Without a writer the journal files are gone, and in a read-only folder they cannot be made again. With no
            // journal the file is complete and nobody changes it.
            Err(_) if !beside(path, "-wal") => look(path, "immutable=1").map_err(explain)?,
            // What is in the journal counts. An older state would be worse than none.
            Err(_) => {
                let text = "was not closed cleanly, and its journal cannot be read in a read-only folder";
                return Err(StoreError(format!("{} {text}", path.display())));
            }
            Ok(connection) => connection,
        };
        check(&connection, path)?;
        match version(&connection).map_err(explain)? {
            0 => Self::in_memory(),
            seen if seen < MIGRATIONS.len() => Self::updated_copy(&connection),
            _ => Ok(Self { connection }),
        }
    }

    /// An empty ledger that is gone with this value.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn in_memory() -> Result<Self, StoreError> {
        let ledger = Self { connection: Connection::open_in_memory().map_err(explain)? };
        ledger.bring_up_to_date()?;
        Ok(ledger)
    }

    /// A private copy of an older ledger, brought up to date; the file goes with the last handle on it.
    fn updated_copy(old: &Connection) -> Result<Self, StoreError> {
        let name = format!("trueup-{}", hex(&random_bytes::<16>().map_err(no_chance)?));
        let copy = temporary_dir().join(name);
        let made = (|| {
            create_private(&copy).map_err(|error| StoreError(cannot_open(&copy, &error)))?;
            let target =
                copy.to_str().ok_or_else(|| StoreError("the folder for temporary files has no text name".into()))?;
            old.execute("VACUUM INTO ?1", [target]).map_err(explain)?;
            Connection::open_with_flags(&copy, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(explain)
        })();
        let ledger = made.and_then(|connection| {
            connection.pragma_update(None, "journal_mode", "MEMORY").map_err(explain)?;
            let ledger = Self { connection };
            ledger.bring_up_to_date()?;
            Ok(ledger)
        });
        let _ = fs::remove_file(&copy);
        ledger
    }

    fn set_up(&self) -> rusqlite::Result<()> {
        self.connection.busy_timeout(BUSY_TIMEOUT)?;
        self.synchronous("NORMAL")?;
        self.connection.pragma_update(None, "foreign_keys", "ON")?;
        self.connection.pragma_update(None, "trusted_schema", "OFF")?;
        let _: i64 =
            self.connection
                .query_row(&format!("PRAGMA journal_size_limit = {JOURNAL_SIZE_LIMIT}"), [], |r| r.get(0))?;
        Ok(())
    }

    /// How much a commit waits for. In WAL mode a commit is seen by whoever opens the file next as soon as it returns, so the end of
    /// this process loses nothing in either mode, and the file is whole in either mode. FULL waits for the disk too, for a loss of
    /// power. No process lives after that, so a claim on one need not; what is still there then is to be known then, and waits.
    /// A transaction that is synced takes all before it along: they are in the same file, in their order.
    pub(super) fn synchronous(&self, mode: &str) -> rusqlite::Result<()> {
        self.connection.pragma_update(None, "synchronous", mode)
    }

    /// Runs what is missing. One that is up to date is not written to.
    fn bring_up_to_date(&self) -> Result<(), StoreError> {
        if application_id(&self.connection).map_err(explain)? != APPLICATION_ID {
            self.connection.pragma_update(None, "application_id", APPLICATION_ID).map_err(explain)?;
        }
        migrate(&self.connection, MIGRATIONS).map_err(explain)?;
        if self.get(KEY_SETTING)?.is_none() {
            self.set(KEY_SETTING, &hex(&random_bytes::<32>().map_err(no_chance)?))?;
        }
        Ok(())
    }
}

/// Refuses what is not ours, and what is newer than we are.
fn check(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    // One state of the file: while another process makes it, its number and its tables come one after the other.
    let look = connection.unchecked_transaction().map_err(explain)?;
    let seen = version(&look).map_err(|error| match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => StoreError(format!("{} is not a database", path.display())),
        _ => explain(error),
    })?;
    let id = application_id(&look).map_err(explain)?;
    let tables: i64 = look.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(explain)?;
    drop(look);
    if id != APPLICATION_ID && (tables > 0 || id != 0) {
        return Err(StoreError(format!("{} is a database, but not one of trueup", path.display())));
    }
    if seen > MIGRATIONS.len() {
        return Err(StoreError(format!(
            "{} was written by a newer trueup (schema {seen}; this one knows {}); use that one, or another --state",
            path.display(),
            MIGRATIONS.len()
        )));
    }
    Ok(())
}

fn application_id(connection: &Connection) -> rusqlite::Result<i32> {
    connection.query_row("PRAGMA application_id", [], |row| row.get(0))
}

/// Opens for reading, beside a writer or on a read-only folder; changes nothing.
pub(in crate::adapters) fn look_read_only(path: &Path) -> Result<Connection, StoreError> {
    match look(path, "mode=ro") {
        Err(error) if is_cannot_open(&error) && !beside(path, "-wal") => look(path, "immutable=1").map_err(explain),
        other => other.map_err(explain),
    }
}

/// Opens for reading and looks whether anything can be read.
fn look(path: &Path, how: &str) -> rusqlite::Result<Connection> {
    let escape = |byte: &u8| match byte {
        b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => char::from(*byte).to_string(),
        other => format!("%{other:02X}"),
    };
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let text: String = absolute.as_os_str().as_bytes().iter().map(escape).collect();
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(format!("file:{text}?{how}"), flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))?;
    Ok(connection)
}

fn is_cannot_open(error: &Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly))
}

/// Whether one of SQLite's files beside a database is there.
fn beside(path: &Path, suffix: &str) -> bool {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    Path::new(&name).exists()
}

/// Makes the file for the user alone; SQLite gives its journal files the same mode.
pub(in crate::adapters) fn create_private(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    if metadata.mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

pub(in crate::adapters) fn cannot_open(path: &Path, error: &io::Error) -> String {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::PermissionDenied => format!("{shown} may not be opened by this user"),
        io::ErrorKind::ReadOnlyFilesystem => format!("{shown} is on a read-only file system; choose another --state"),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => format!("{shown} is on a full disk"),
        io::ErrorKind::IsADirectory | io::ErrorKind::InvalidInput => format!("{shown} is not a file"),
        _ => format!("{shown} cannot be opened: {error}"),
    }
}

fn no_chance(error: io::Error) -> StoreError {
    StoreError(format!("no random bytes for its key: {error}"))
}

/// Puts SQLite's errors into words.
pub(in crate::adapters) fn explain(error: Error) -> StoreError {
    let words = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "the disk is full; nothing was written",
        Some(ErrorCode::ReadOnly) => "it may not be written (read-only folder or file); nothing was written",
        Some(ErrorCode::NotADatabase) => "the file is not a database",
        Some(ErrorCode::DatabaseCorrupt) => {
            "the file is damaged; restore it from a backup, or move it away and look again"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "another process keeps it locked",
        Some(ErrorCode::CannotOpen) => "it cannot be opened",
        Some(ErrorCode::SystemIoFailure) => "the disk failed",
        _ => return StoreError(error.to_string()),
    };
    let detail = match &error {
        Error::SqliteFailure(ffi::Error { extended_code, .. }, _) => format!(" (SQLite error {extended_code})"),
        _ => String::new(),
    };
    StoreError(format!("{words}{detail}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads what [`hex`] wrote.
pub(super) fn parse_key(text: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (index, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(key)
}

/// Has a database keep its journal as a WAL, and says what it keeps. Whoever changes that needs the file for himself for a moment, and SQLite
/// does not wait for it: of several that make a database at once all but one are told that it is busy.
pub(crate) fn keep_a_wal(connection: &Connection) -> rusqlite::Result<String> {
    let ask = || connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0));
    let busy = |error: &Error| error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy);
    ask.retry(ConstantBuilder::default().with_delay(PAUSE).with_max_times(LOOKS)).when(busy).call()
}
