//! A file that holds one secret, for its owner alone, and is replaced in one move.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use backoff::{BlockingRetryable, ConstantBuilder};

use crate::model::secret::Secret;
use crate::ports::tokens::{SecretFile, Turn};

/// The longest that is read.
const MOST_BYTES: u64 = 64 << 10;
/// A turn is looked for so often, with this pause: 5 s in all. One takes some tenths of a second at most.
const LOOKS: usize = 100;
const PAUSE: Duration = Duration::from_millis(50);

/// A file at a path. Its folder has to be there.
#[derive(Debug)]
pub struct OwnFile {
    path: PathBuf,
}

impl OwnFile {
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }
}

/// The lock on the file's folder: the file itself is replaced meanwhile.
struct Locked {
    _folder: File,
}

impl Turn for Locked {}

impl SecretFile for OwnFile {
    fn turn(&self) -> io::Result<Box<dyn Turn>> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Made when it is the only one that is missing: what it stands in may have been removed with everything else.
        let made = DirBuilder::new().mode(0o700).create(folder);
        match made {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let folder = File::open(folder)?;
        let pauses = ConstantBuilder::default().with_delay(PAUSE).with_max_times(LOOKS);
        let held = |error: &TryLockError| matches!(error, TryLockError::WouldBlock);
        let locked = (|| folder.try_lock()).retry(pauses).when(held).call();
        match locked {
            Ok(()) => Ok(Box::new(Locked { _folder: folder })),
            // A file system without locks: the turn is only for the rare case of two at once.
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {
                Ok(Box::new(Locked { _folder: folder }))
            }
            Err(TryLockError::Error(error)) => Err(error),
            Err(TryLockError::WouldBlock) => {
                Err(io::Error::new(ErrorKind::WouldBlock, "another process is replacing it"))
            }
        }
    }

    fn read(&self) -> io::Result<Option<Secret>> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut text = String::new();
        file.take(MOST_BYTES).read_to_string(&mut text)?;
        Ok(Some(Secret::new(text.trim_end().to_owned())))
    }

    fn write(&self, secret: &Secret) -> io::Result<()> {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".new");
        let new = PathBuf::from(name);
        // Of a writer that was killed.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(secret.reveal().as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        match self.path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }

    fn close_to_others(&self) -> io::Result<Option<u32>> {
        let mode = match fs::metadata(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            found => found?.mode() & 0o7777,
        };
        if mode & 0o077 == 0 {
            return Ok(None);
        }
        fs::set_permissions(&self.path, Permissions::from_mode(0o600))?;
        Ok(Some(mode))
    }
}
