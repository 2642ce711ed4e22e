//! Putting a backup in the place of the database. A journal that stays beside it would be taken for one of the backup, and damage it: so
//! the journals go first, and the backup comes in one move.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::open::{beside, connect};
use super::{HubDb, fault, other};
use crate::adapters::sqlite::open::{cannot_open, create_private};
use crate::model::time::Timestamp;
use crate::ports::tokens::{Lost, Unwell};

/// Puts a backup at `path`, once a copy of it has been read whole. What was there before is kept under another name, with its journals;
/// the answer is where. A process that has the old one open notices that it was replaced.
///
/// # Errors
/// In words: what is wrong with the backup, or with the folder. Then the database is as it was.
pub fn restore(backup: &Path, path: &Path, at: Timestamp) -> Result<Option<PathBuf>, Unwell> {
    let cannot = |of: &Path| {
        let of = of.to_owned();
        move |error: io::Error| Unwell::Fault(other(cannot_open(&of, &error)))
    };
    let from = fs::metadata(backup).map_err(cannot(backup))?;
    if fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (from.dev(), from.ino())) {
        return Err(other(format!("{} is the database itself", path.display())).into());
    }
    if fs::metadata(beside(backup, "-wal")).is_ok_and(|journal| journal.len() > 0) {
        let shown = backup.display();
        let text = format!(
            "{shown} has a journal beside it, so it is not whole: sqlite3 {shown} 'PRAGMA wal_checkpoint(TRUNCATE)' brings both together"
        );
        return Err(other(text).into());
    }
    let new = beside(path, ".new");
    let clear = || ["", "-wal", "-shm"].into_iter().try_for_each(|suffix| remove(&beside(&new, suffix)));
    clear().map_err(cannot(&new))?;
    let placed = copy(backup, &new)
        .map_err(cannot(backup))
        .and_then(|()| HubDb::open(&new, false)?.check_whole())
        .and_then(|()| place(&new, path, at).map_err(cannot(path)));
    if placed.is_err() {
        // It is in nobody's way.
        let _ = clear();
    }
    placed.map_err(|unwell| match unwell {
        Unwell::Lost(Lost::Gone | Lost::Replaced) => unwell,
        Unwell::Fault(fault) => {
            other(fault.message.replace(&new.display().to_string(), &backup.display().to_string())).into()
        }
    })
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    create_private(to)?;
    let mut to = File::options().write(true).open(to)?;
    io::copy(&mut File::open(from)?, &mut to)?;
    to.sync_all()
}

fn place(new: &Path, path: &Path, at: Timestamp) -> io::Result<Option<PathBuf>> {
    // Closed, it has no journal; with one it would not be whole.
    if fs::metadata(beside(new, "-wal")).is_ok_and(|journal| journal.len() > 0) {
        return Err(io::Error::other("its copy is still in use"));
    }
    // If this process dies below, the old one has lost nothing.
    if path.exists() {
        let _ = connect(path)
            .and_then(|old| old.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(fault));
    }
    let aside = beside(path, &format!(".replaced-{}", at.0));
    let kept = match fs::hard_link(path, &aside) {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    for suffix in ["-wal", "-shm"] {
        match fs::rename(beside(path, suffix), beside(&aside, suffix)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(new, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(kept.then_some(aside))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
