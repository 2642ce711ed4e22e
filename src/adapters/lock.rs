//! The kernel lock on a state folder: one owner of the engine at a time. The kernel frees it when the owner dies, however.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::digest::Digest;
use crate::model::time::Timestamp;

/// The file's name in the state folder.
const LOCK_FILE: &str = "lock";
/// More than a holder ever writes; what is longer is not from us.
const MAX_HOLDER_BYTES: u64 = 64 << 10;

/// The lock, held for as long as this value lives.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
    /// The second lock, on file systems that have none of their own.
    _socket: Option<UnixListener>,
}

/// Who holds the lock, as far as it said so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Held {
    pub pid: Option<u32>,
    pub command: Option<String>,
    pub since: Option<Timestamp>,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "pid {pid}")?,
            None => f.write_str("another process")?,
        }
        if let Some(command) = &self.command {
            write!(f, " ({command})")?;
        }
        match self.since {
            Some(since) => write!(f, " since {since}"),
            None => Ok(()),
        }
    }
}

/// Why the lock could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else owns the engine of this state folder.
    #[error("the state folder is in use by {0}")]
    Held(Held),
    /// The folder cannot be made or written.
    #[error("the state folder {} {what}", .folder.display())]
    Folder { folder: PathBuf, what: &'static str, source: io::Error },
}

impl StateLock {
    /// Makes the state folder if it is not there, takes its lock and writes down who holds it. Never waits.
    ///
    /// # Errors
    /// [`LockError::Held`] when another process (or another value in this one) has it; [`LockError::Folder`] when the
    /// folder cannot be used.
    pub fn acquire(state: &Path, command: &str, now: Timestamp) -> Result<Self, LockError> {
        make_state_dir(state)?;
        let path = state.join(LOCK_FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|source| folder_error(state, "cannot be written", source))?;
        let socket = match file.try_lock() {
            Ok(()) => None,
            Err(TryLockError::WouldBlock) => return Err(LockError::Held(holder(&mut file))),
            Err(TryLockError::Error(error)) if has_no_locks(&error) => match lock_by_name(state) {
                Ok(socket) => Some(socket),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    return Err(LockError::Held(holder(&mut file)));
                }
                Err(source) => return Err(folder_error(state, "cannot be locked", source)),
            },
            Err(TryLockError::Error(source)) => return Err(folder_error(state, "cannot be locked", source)),
        };
        let me = Held { pid: Some(std::process::id()), command: Some(command.to_owned()), since: Some(now) };
        write_holder(&mut file, &me).map_err(|source| folder_error(state, "cannot be written", source))?;
        Ok(Self { _file: file, _socket: socket })
    }
}

/// Makes the state folder for the user alone (0700), with a `.gitignore` so that it is never committed by accident. A folder
/// that already holds something is left as it is: it may be somebody's home, named by mistake.
///
/// # Errors
/// When it cannot be made or written, or something else is in its place.
pub fn make_state_dir(state: &Path) -> Result<(), LockError> {
    if !state.is_dir() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(state);
        made.map_err(|source| folder_error(state, "cannot be made", source))?;
    }
    let mut entries = fs::read_dir(state).map_err(|source| folder_error(state, "cannot be read", source))?;
    if entries.next().is_some() {
        return Ok(());
    }
    match OpenOptions::new().write(true).create_new(true).open(state.join(".gitignore")) {
        Ok(mut file) => file.write_all(b"*\n").map_err(|source| folder_error(state, "cannot be written", source)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(folder_error(state, "cannot be written", source)),
    }
}

/// Puts the common causes into words; the system's own words follow as the source.
fn folder_error(folder: &Path, what: &'static str, source: io::Error) -> LockError {
    let what = match source.kind() {
        io::ErrorKind::ReadOnlyFilesystem => "is on a read-only file system; choose another one with --state",
        io::ErrorKind::PermissionDenied => {
            "may not be written by this user; choose another one with --state, or change its owner"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "is on a full disk",
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => "is not a folder",
        _ => what,
    };
    LockError::Folder { folder: folder.to_owned(), what, source }
}

/// Some network and user-space file systems know no locks.
fn has_no_locks(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
    matches!(code, Some(rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP | rustix::io::Errno::NOLCK))
}

/// A lock without a file system: a socket name of this machine, which the kernel also frees at death.
fn lock_by_name(state: &Path) -> io::Result<UnixListener> {
    let name = format!("trueup-lock-{}", Digest::of(fs::canonicalize(state)?.as_os_str().as_encoded_bytes()));
    UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)
}

/// What the holder wrote; empty while it has not written yet.
fn holder(file: &mut File) -> Held {
    let mut text = String::new();
    let read = file.take(MAX_HOLDER_BYTES).read_to_string(&mut text);
    read.ok().and_then(|_| serde_json::from_str(&text).ok()).unwrap_or_default()
}

fn write_holder(file: &mut File, me: &Held) -> io::Result<()> {
    let text = serde_json::to_string(me)?;
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{text}")
}

#[cfg(test)]
mod tests;
