//! Opening, the connections (one that writes, and as many that read as are needed at once), and whether the file is still there.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, UNIX_EPOCH};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::schema::MIGRATIONS;
use super::{HubDb, Open, fault, other};
use crate::adapters::sqlite::migrations::{migrate, version};
use crate::adapters::sqlite::open::{cannot_open, create_private, keep_a_wal};
use crate::ports::tokens::{FaultClass, Lost, StoreFault, Unwell};

/// `PRAGMA application_id`: "truh". Tells it from other people's databases, and from our ledger and index.
const APPLICATION_ID: i32 = 0x7472_7568;
/// How long a call waits for a writer in another process. Each holds the lock for one row.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The journal file is cut back to this size after a burst.
const JOURNAL_SIZE_LIMIT: i64 = 4 << 20;
/// Connections for reading that are kept open; more are opened when more threads read at once, and closed after.
const READERS_KEPT: usize = 8;
/// More than there are different statements.
const STATEMENTS: usize = 64;

impl HubDb {
    /// Opens the database. With `make` it is made (mode 0600) when it is not there; without, a file that is not there, or is empty, is
    /// [`Lost::Gone`]. One that is old is brought up to date.
    ///
    /// # Errors
    /// Says in words what is wrong: gone, newer than this binary, not ours, damaged, folder not writable, disk full.
    pub fn open(path: &Path, make: bool) -> Result<Self, Unwell> {
        let mode_was = private(path, make)?;
        let open = Open::new(path, make)?;
        Ok(Self {
            path: path.to_owned(),
            open: RwLock::new(Arc::new(open)),
            suspect: AtomicBool::new(false),
            mending: Mutex::new(()),
            mode_was,
        })
    }

    /// Looks as [`crate::ports::tokens::TokenStore::check`] does, and reads every page: damage in the middle shows here.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn check_whole(&self) -> Result<(), Unwell> {
        self.suspect.store(true, Ordering::Relaxed);
        self.look()
    }

    /// The mode that the file had when it was opened, if group or others could do anything with it. It is put right already.
    pub fn mode_was(&self) -> Option<u32> {
        self.mode_was
    }

    fn now_open(&self) -> Arc<Open> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs a change in one transaction. When it fails, or the process dies in it, nothing was written. After a fatal fault the file is
    /// opened anew for the next call; this one is not repeated, because it may have been done.
    pub(super) fn write<T>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, StoreFault>,
    ) -> Result<T, StoreFault> {
        let open = self.now_open();
        let done = open.write(change);
        if done.as_ref().is_err_and(|fault| fault.class == FaultClass::Fatal) {
            self.suspect.store(true, Ordering::Relaxed);
            let _ = self.mend(&open);
        }
        done
    }

    /// Looks at one state of the database. Does not wait for whoever writes. A fatal fault is answered by opening the file anew, once.
    pub(super) fn read<T>(&self, look: impl Fn(&Connection) -> Result<T, StoreFault>) -> Result<T, StoreFault> {
        let open = self.now_open();
        match open.read(&self.path, &look) {
            Err(fault) if fault.class == FaultClass::Fatal => {
                self.suspect.store(true, Ordering::Relaxed);
                if self.mend(&open).is_err() {
                    return Err(fault);
                }
                self.now_open().read(&self.path, look)
            }
            done => done,
        }
    }

    /// Opens the file anew, unless another thread did since.
    fn mend(&self, broken: &Arc<Open>) -> Result<(), Unwell> {
        let _one = self.mending.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&self.now_open(), broken) {
            return Ok(());
        }
        let open = Open::new(&self.path, false)?;
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(open);
        Ok(())
    }

    pub(super) fn open_anew(&self) -> Result<(), Unwell> {
        if self.look() == Err(Lost::Replaced.into()) {
            self.forget_journal();
        }
        self.mend(&self.now_open())
    }

    /// The journal beside a file that was replaced, or went away, belongs to that one, and SQLite would take it for one of the file that
    /// comes in its place. One that was replaced along with it is not ours, and stays.
    fn forget_journal(&self) {
        let identity = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
        let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        let ours: Vec<_> = entries.filter_map(|entry| identity(&entry.path())).collect();
        set_aside(&self.path, |journal| identity(journal).is_some_and(|there| ours.contains(&there)));
    }

    /// Whoever only moved the file away, and moves it back, is to lose nothing by it.
    fn bring_together(&self) {
        let open = self.now_open();
        let writer = open.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // What cannot be brought into the file is kept beside it.
        let _ = writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    }

    pub(super) fn look(&self) -> Result<(), Unwell> {
        let open = self.now_open();
        match fs::metadata(&self.path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                self.bring_together();
                self.forget_journal();
                return Err(Lost::Gone.into());
            }
            // It cannot be asked now. Whether the file can be read shows below.
            Err(_) => {}
            Ok(found) => {
                if open.inode.is_some_and(|inode| inode != (found.dev(), found.ino())) {
                    return Err(Lost::Replaced.into());
                }
            }
        }
        // By a connection of its own: what the others have in memory would hide a damaged file.
        let fresh = connect_reader(&self.path)?;
        let read = fresh.query_row("SELECT 1 FROM sqlite_schema LIMIT 1", [], |row| row.get::<_, i64>(0));
        match read.and_then(|_| fresh.query_row("SELECT tokens FROM book", [], |row| row.get::<_, i64>(0))) {
            Ok(_) if self.suspect.load(Ordering::Relaxed) => {
                read_whole(&fresh)?;
                // Until then every look reads all of it.
                self.suspect.store(false, Ordering::Relaxed);
                Ok(())
            }
            Ok(_) => Ok(()),
            // Cut to nothing: it can be read, and nothing is in it.
            Err(rusqlite::Error::QueryReturnedNoRows) => Err(empty().into()),
            Err(error) => Err(fault(error).into()),
        }
    }
}

impl Open {
    fn new(path: &Path, make: bool) -> Result<Self, Unwell> {
        let writer = connect(path).map_err(|fault| gone_or(path, fault))?;
        check(&writer, path, make)?;
        let mode: String = keep_a_wal(&writer).map_err(fault)?;
        if mode != "wal" {
            let text = format!("{} is on a file system that has no shared memory files", path.display());
            return Err(other(text).into());
        }
        let set = |pragma| writer.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0));
        set(format!("journal_size_limit = {JOURNAL_SIZE_LIMIT}")).map_err(fault)?;
        if application_id(&writer).map_err(fault)? != APPLICATION_ID {
            writer.pragma_update(None, "application_id", APPLICATION_ID).map_err(fault)?;
        }
        migrate(&writer, MIGRATIONS).map_err(fault)?;
        // After the file was opened: before, it could have been another one.
        let inode = fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
        Ok(Self { writer: Mutex::new(writer), readers: Mutex::default(), inode })
    }

    fn write<T>(&self, change: impl FnOnce(&Transaction<'_>) -> Result<T, StoreFault>) -> Result<T, StoreFault> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = Transaction::new_unchecked(&writer, TransactionBehavior::Immediate).map_err(fault)?;
        let answer = change(&transaction)?;
        transaction.commit().map_err(fault)?;
        Ok(answer)
    }

    fn read<T>(&self, path: &Path, look: impl Fn(&Connection) -> Result<T, StoreFault>) -> Result<T, StoreFault> {
        let kept = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let reader = kept.map_or_else(|| connect_reader(path), Ok)?;
        // Each look is one statement, so it sees one state.
        let answer = look(&reader)?;
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < READERS_KEPT {
            readers.push(reader);
        }
        Ok(answer)
    }
}

/// Makes the file if it may, and takes it from group and others. The mode it had, if it was open to them.
fn private(path: &Path, make: bool) -> Result<Option<u32>, Unwell> {
    let cannot = |error| Unwell::Fault(other(cannot_open(path, &error)));
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) && !make => {
            set_aside(path, |_| true);
            return Err(Lost::Gone.into());
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return create_private(path).map(|()| None).map_err(cannot);
        }
        Err(error) => return Err(cannot(error)),
    };
    let open_to_others = |mode: u32| mode & 0o077 != 0;
    // SQLite gives its files beside the database the mode that the database has when it makes them.
    for suffix in ["-wal", "-shm"] {
        let name = beside(path, suffix);
        if fs::metadata(&name).is_ok_and(|found| open_to_others(found.mode())) {
            fs::set_permissions(&name, Permissions::from_mode(0o600)).map_err(cannot)?;
        }
    }
    let mode = found.mode() & 0o7777;
    if !found.is_file() || !open_to_others(mode) {
        return Ok(None);
    }
    // By its path: a descriptor of ours that is closed would take SQLite's locks along.
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(cannot)?;
    Ok(Some(mode))
}

/// The file of this name and ending.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Takes the journals of a database that is not there any more out of the way: `hub.db-wal` becomes `hub.db.lost-1800000000000-wal`, by
/// the time when it was written last.
fn set_aside(path: &Path, which: impl Fn(&Path) -> bool) {
    let journals = ["-wal", "-shm"].map(|suffix| (beside(path, suffix), suffix));
    for (journal, suffix) in journals.iter().filter(|(journal, _)| which(journal)) {
        let Ok(found) = fs::metadata(journal) else { continue };
        let changed = found.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        // If it stays, the file that is opened next is checked all the same.
        let _ = match *suffix == "-wal" && found.len() > 0 {
            true => fs::rename(journal, beside(path, &format!(".lost-{}{suffix}", changed.as_millis()))),
            // Nothing is in it that cannot be made again.
            false => fs::remove_file(journal),
        };
    }
}

pub(super) fn connect(path: &Path) -> Result<Connection, StoreFault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(fault)?;
    let set_up = || {
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        // A token that was handed out, or revoked, is so after a loss of power too.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", "ON")?;
        connection.pragma_update(None, "trusted_schema", "OFF")?;
        // Private keys that were deleted are to be gone.
        connection.query_row("PRAGMA secure_delete = ON", [], |row| row.get::<_, i64>(0)).map(drop)
    };
    set_up().map_err(fault)?;
    Ok(connection)
}

fn connect_reader(path: &Path) -> Result<Connection, StoreFault> {
    let connection = connect(path)?;
    connection.pragma_update(None, "query_only", "ON").map_err(fault)?;
    Ok(connection)
}

/// SQLite only says that it cannot open the file.
fn gone_or(path: &Path, fault: StoreFault) -> Unwell {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Lost::Gone.into(),
        _ => fault.into(),
    }
}

/// Refuses what is not ours, what is newer than we are, and what should hold something and is empty.
fn check(connection: &Connection, path: &Path, make: bool) -> Result<(), Unwell> {
    // One state of the file: while another process makes it, its number and its tables come one after the other.
    let look = connection.unchecked_transaction().map_err(fault)?;
    let seen = version(&look).map_err(fault)?;
    let id = application_id(&look).map_err(fault)?;
    let tables: i64 = look.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(fault)?;
    drop(look);
    let shown = path.display();
    if id != APPLICATION_ID && (tables > 0 || id != 0) {
        return Err(other(format!("{shown} is a database, but not the one of tokens")).into());
    }
    if seen > MIGRATIONS.len() {
        let (knows, how) = (MIGRATIONS.len(), "use that one, or another --state");
        let text = format!("{shown} was written by a newer trueup (schema {seen}; this one knows {knows}); {how}");
        return Err(other(text).into());
    }
    if tables == 0 && !make {
        return Err(empty().into());
    }
    Ok(())
}

/// Reads every page.
fn read_whole(connection: &Connection) -> Result<(), StoreFault> {
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(fault)?;
    match verdict.as_str() {
        "ok" => Ok(()),
        found => {
            let message = format!("the database of tokens is damaged: {}", found.lines().next().unwrap_or_default());
            Err(StoreFault { class: FaultClass::Fatal, message })
        }
    }
}

fn empty() -> StoreFault {
    StoreFault { class: FaultClass::Fatal, message: "the database of tokens is empty, and it was not".to_owned() }
}

fn application_id(connection: &Connection) -> rusqlite::Result<i32> {
    connection.query_row("PRAGMA application_id", [], |row| row.get(0))
}
