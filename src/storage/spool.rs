//! Bytes that are kept until it is known whether they are right: in memory while they are few, else in a file without a name.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::depot::{BlobError, PIECE, Watch};

/// Up to this many bytes stay in memory.
const IN_MEMORY: usize = 1 << 20;

/// Bytes at hand, to be read as often as needed.
#[derive(Debug)]
pub enum Kept {
    Memory(Vec<u8>),
    File(File),
}

impl Kept {
    /// Reads from the beginning. Readers do not disturb one another.
    pub fn reader(&self) -> Box<dyn Read + Send + '_> {
        match self {
            Self::Memory(bytes) => Box::new(&bytes[..]),
            Self::File(file) => Box::new(At { file, at: 0 }),
        }
    }
}

/// A reader with a position of its own.
struct At<'a> {
    file: &'a File,
    at: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Takes bytes of unknown number.
pub(super) struct Spool<'a> {
    folder: &'a Path,
    kept: Kept,
}

impl<'a> Spool<'a> {
    pub(super) fn new(folder: &'a Path) -> Self {
        Self { folder, kept: Kept::Memory(Vec::new()) }
    }

    pub(super) fn kept(self) -> Kept {
        self.kept
    }
}

impl Write for Spool<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Kept::Memory(some) = &mut self.kept {
            if some.len() + bytes.len() <= IN_MEMORY {
                some.extend_from_slice(bytes);
                return Ok(bytes.len());
            }
            let mut file = nameless(self.folder)?;
            file.write_all(some)?;
            self.kept = Kept::File(file);
        }
        match &mut self.kept {
            Kept::File(file) => file.write(bytes),
            Kept::Memory(_) => Ok(0),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file for the user alone that is gone with its last handle, however this process ends.
fn nameless(folder: &Path) -> io::Result<File> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = folder.join(format!("spool.{}.{count}", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// Links are followed this far, as the kernel does.
const LINKS: usize = 40;

/// What lies where bytes are to go.
pub(super) enum Target {
    /// A file, or nothing yet: it is replaced in one move.
    File(Partial),
    /// A device, a pipe: what is there takes the bytes.
    Stream(File),
}

impl Target {
    /// Looks where links lead, and opens what is there. Errors name the path as it was given.
    pub(super) fn open(to: &Path) -> Result<Self, BlobError> {
        let opened = match std::fs::metadata(to) {
            Ok(there) if there.is_dir() => Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder")),
            Ok(there) if there.is_file() => {
                std::fs::canonicalize(to).and_then(|real| Partial::new(to, real)).map(Self::File)
            }
            Ok(_) => OpenOptions::new().write(true).open(to).map(Self::Stream),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                dangling(to).and_then(|real| Partial::new(to, real)).map(Self::File)
            }
            Err(error) => Err(error),
        };
        opened.map_err(|error| BlobError::Local { path: to.to_owned(), error })
    }
}

/// Where a file would be made under this path: at the end of its links, in a folder that is there.
fn dangling(to: &Path) -> io::Result<PathBuf> {
    let mut at = to.to_owned();
    let mut links = 0;
    while let Ok(next) = std::fs::read_link(&at) {
        links += 1;
        if links > LINKS {
            return Err(io::Error::other("its links lead nowhere"));
        }
        at.pop();
        at.push(next);
    }
    let folder = match at.parent() {
        // What ends so can only be a folder.
        _ if at.as_os_str().as_encoded_bytes().ends_with(b"/") => at.as_path(),
        Some(folder) if folder != Path::new("") => folder,
        _ => return Ok(at),
    };
    if folder.try_exists()? {
        return Ok(at);
    }
    let text = format!("the folder {} does not exist", folder.display());
    Err(io::Error::new(io::ErrorKind::NotFound, text))
}

/// A file that takes its name only when all of its bytes are there and right.
pub(super) struct Partial {
    path: PathBuf,
    /// As it was given, for people.
    named: PathBuf,
    to: PathBuf,
    pub(super) file: File,
}

impl Partial {
    /// Beside the file that it is to become.
    fn new(named: &Path, to: PathBuf) -> io::Result<Self> {
        let mut name = to.as_os_str().to_owned();
        name.push(format!(".partial-{}", std::process::id()));
        let path = PathBuf::from(name);
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
        Ok(Self { path, named: named.to_owned(), to, file })
    }

    /// Begins anew.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.file = OpenOptions::new().write(true).create(true).truncate(true).open(&self.path)?;
        Ok(())
    }

    /// Gives it its name, in place of what had it.
    pub(super) fn commit(self) -> Result<(), BlobError> {
        let named = self.file.sync_all().and_then(|()| std::fs::rename(&self.path, &self.to));
        named.map_err(|error| BlobError::Local { path: self.named.clone(), error })
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Gone already when it was given its name.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Why passing bytes on ended early.
#[derive(Debug)]
pub(super) enum Cut {
    Read(io::Error),
    Write(io::Error),
    Cancelled,
}

/// Passes bytes on until they end.
pub(super) fn pass(from: &mut dyn Read, to: &mut dyn Write, total: Option<u64>, watch: &dyn Watch) -> Result<u64, Cut> {
    let small = total.and_then(|total| usize::try_from(total).ok()).map_or(PIECE, |total| total.clamp(1, PIECE));
    let mut buffer = vec![0; small];
    let mut passed = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(passed),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Cut::Read(error)),
        };
        to.write_all(&buffer[..count]).map_err(Cut::Write)?;
        passed += count as u64;
        if !watch.passed(count as u64, total) {
            return Err(Cut::Cancelled);
        }
    }
}
