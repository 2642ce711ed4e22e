//! services.json on disk. Modules write it without any lock, by renaming a new file over it, so a writer here has to expect
//! that the file changed since it was read: it swaps files instead of overwriting, looks at what it got in return, and
//! merges again when that was news.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use backoff::{BlockingRetryable, ConstantBuilder};
use rustix::fs::{CWD, Gid, RenameFlags, Uid, fchown, renameat_with};
use rustix::io::Errno;
use serde_json::{Map, Value};

use self::listing::{BadListing, Listing};
use crate::ports::PortError;
use crate::ports::registry::{Registry, Row};

mod listing;
#[cfg(test)]
mod tests;

const FILE: &str = "services.json";
const LOCK: &str = "services.json.lock";
/// One name for all our writes (they hold the lock), so that a crash leaves at most one such file.
const NEW: &str = "services.json.trueup-new";

/// Thousands of modules fit; anything larger is not the file that we mean.
const LARGEST: u64 = 8 << 20;

/// Our own writers hold the lock for a few milliseconds, so this is only reached when one of them hangs.
const LOCK_TRIES: usize = 400;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// A module that truncates the file and writes it in place is seen half done; it is given this long to finish.
const READ_TRIES: usize = 4;
const READ_PAUSE: Duration = Duration::from_millis(2);

/// How often a write is merged anew because somebody else wrote meanwhile. Each try is a moment of a millisecond, so this is
/// only reached by a writer that never pauses.
const MERGE_TRIES: usize = 50;

/// services.json in the file system. Has no state of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileRegistry;

impl Registry for FileRegistry {
    fn rows(&self, home: &Path) -> Result<Vec<Row>, PortError> {
        Ok(read(&place(home))?.listing.rows())
    }

    fn put(
        &self,
        home: &Path,
        name: &str,
        fields: &Map<String, Value>,
        seed: &Map<String, Value>,
    ) -> Result<bool, PortError> {
        change(home, &|listing| listing.put(name, fields, seed))
    }

    fn remove(&self, home: &Path, name: &str) -> Result<bool, PortError> {
        change(home, &|listing| listing.remove(name))
    }
}

/// The file as it was at one moment.
struct Content {
    listing: Listing,
    /// `None` while there is no file.
    bytes: Option<Vec<u8>>,
}

/// How one attempt to write went.
enum Swap {
    Written,
    /// Somebody else wrote since we read; nothing of theirs is lost.
    Outrun,
}

/// The file itself: where a symbolic link is, what it points to.
fn place(home: &Path) -> PathBuf {
    let path = home.join(FILE);
    fs::canonicalize(&path).unwrap_or(path)
}

/// Reads and parses. A file that does not parse is read again a few times, since somebody may be in the middle of writing it.
fn read(path: &Path) -> Result<Content, PortError> {
    let attempt = || {
        let bytes = read_bytes(path).map_err(|error| failed(path, &error))?;
        let listing = bytes.as_deref().map_or_else(|| Ok(Listing::empty()), Listing::parse);
        listing.map(|listing| Content { listing, bytes }).map_err(|error| unusable(path, &error))
    };
    let pauses = ConstantBuilder::default().with_delay(READ_PAUSE).with_max_times(READ_TRIES);
    attempt.retry(pauses).when(|error| matches!(error, PortError::Never(_))).call()
}

/// The bytes of a file, `None` when there is none.
fn read_bytes(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST { Err(ErrorKind::FileTooLarge.into()) } else { Ok(Some(bytes)) }
}

/// Reads, changes and writes, until what was read is what was replaced. Says whether it wrote.
fn change(home: &Path, edit: &dyn Fn(&mut Listing) -> bool) -> Result<bool, PortError> {
    // The usual case, and the only one that touches no other file: it is already so.
    if !edit(&mut read(&place(home))?.listing) {
        return Ok(false);
    }
    let mut folder = DirBuilder::new();
    folder.recursive(true).mode(0o700).create(home).map_err(|error| failed(home, &error))?;
    let _lock = lock(&home.join(LOCK))?;
    let path = place(home);
    for _ in 0..MERGE_TRIES {
        let Content { mut listing, bytes } = read(&path)?;
        if !edit(&mut listing) {
            return Ok(false);
        }
        match swap(&path, bytes.as_deref(), &listing, edit).map_err(|error| failed(&path, &error))? {
            Swap::Written => return Ok(true),
            Swap::Outrun => {}
        }
    }
    Err(PortError::Retry(format!("{} is written without pause by somebody else", path.display())))
}

/// Puts the listing in the place of a file whose content was `before`. If the file turns out to hold something else at the very
/// moment of the swap, that content is merged and put back at once.
fn swap(
    path: &Path,
    before: Option<&[u8]>,
    listing: &Listing,
    edit: &dyn Fn(&mut Listing) -> bool,
) -> io::Result<Swap> {
    let new = path.with_file_name(NEW);
    let mut ours = listing.to_bytes();
    write_new(&new, path, &ours)?;
    let Some(before) = before else {
        return match renameat_with(CWD, &new, CWD, path, RenameFlags::NOREPLACE) {
            Ok(()) => sync_folder(path).map(|()| Swap::Written),
            Err(Errno::EXIST) => fs::remove_file(&new).map(|()| Swap::Outrun),
            Err(error) => Err(error.into()),
        };
    };
    let mut expected = before.to_vec();
    if read_bytes(path)?.as_ref() != Some(&expected) {
        return fs::remove_file(&new).map(|()| Swap::Outrun);
    }
    for _ in 0..MERGE_TRIES {
        match renameat_with(CWD, &new, CWD, path, RenameFlags::EXCHANGE) {
            Ok(()) => {}
            // A file system that cannot swap (NFS and the like): the check a moment ago has to do.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                fs::rename(&new, path)?;
                return sync_folder(path).map(|()| Swap::Written);
            }
            Err(error) => return Err(error.into()),
        }
        let replaced = read_bytes(&new)?.unwrap_or_default();
        if replaced == expected {
            sync_folder(path)?;
            return fs::remove_file(&new).map(|()| Swap::Written);
        }
        // What stood there was newer than what we knew, and ours has taken its place.
        let Ok(mut theirs) = Listing::parse(&replaced) else {
            // Somebody is writing it in place: back with it.
            renameat_with(CWD, &new, CWD, path, RenameFlags::EXCHANGE)?;
            break;
        };
        edit(&mut theirs);
        expected = std::mem::replace(&mut ours, theirs.to_bytes());
        write_new(&new, path, &ours)?;
    }
    fs::remove_file(&new).map(|()| Swap::Outrun)
}

/// Writes a file beside `path`, on disk before this returns, with the mode and the owner of `path` (0600 when there is none).
fn write_new(new: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Never into a file that is there: after a swap it is the one that stood in the place, and somebody may be reading it.
    match fs::remove_file(new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
    if let Ok(like) = fs::metadata(path) {
        file.set_permissions(Permissions::from_mode(like.mode() & 0o7777))?;
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
            // Only root may give files away; anybody else keeps what the folder's rules made of it.
            let _ = fchown(&file, Some(Uid::from_raw(like.uid())), Some(Gid::from_raw(like.gid())));
        }
    }
    file.write_all(bytes)?;
    file.sync_all()
}

/// A rename is durable once its folder is on disk.
fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Our own writers take turns. The kernel frees the lock with its holder.
fn lock(path: &Path) -> Result<File, PortError> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(path).map_err(|e| failed(path, &e))?;
    let pauses = ConstantBuilder::default().with_delay(LOCK_PAUSE).with_max_times(LOCK_TRIES);
    let locked = (|| file.try_lock()).retry(pauses).when(|error| matches!(error, TryLockError::WouldBlock)).call();
    match locked {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(PortError::Retry(format!("{} is held by somebody else", path.display()))),
        Err(TryLockError::Error(error)) => Err(failed(path, &error)),
    }
}

fn failed(path: &Path, error: &io::Error) -> PortError {
    let text = format!("{}: {error}", path.display());
    if error.kind() == ErrorKind::FileTooLarge { PortError::Never(text) } else { PortError::Retry(text) }
}

fn unusable(path: &Path, error: &BadListing) -> PortError {
    PortError::Never(format!("{} is left alone: {error}", path.display()))
}
