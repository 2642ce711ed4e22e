//! A folder as a backend: `<2 hex>/<62 hex>` for an object, `tmp/` for what is on its way there.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::OFlags;

use super::body::{Body, PIECE};
use super::staging::Staging;
use crate::adapters::clock::SystemClock;
use crate::model::blob::Sha256;
use crate::ports::blobs::{Backend, BackendError, Object, Placed, Put};
use crate::ports::clock::Clock as _;

/// Where bytes lie until they are settled.
const TEMPORARY: &str = "tmp";
/// Says whose objects these are.
const OWNER: &str = "trueup-owner";
/// More than a mark of ours ever has; what is longer is not from us.
const OWNER_LIMIT: u64 = 4 << 10;
/// From so many files on, one `syncfs` costs less than an `fsync` of each (measured on ext4).
const WHOLE_FROM: usize = 3;
/// What is younger may still be written.
const LEFTOVER_AFTER: Duration = Duration::from_secs(3600);
/// A process with the number of one that died would keep its leftovers for ever.
const LEFTOVER_AT_LAST: Duration = Duration::from_secs(24 * 3600);
/// Magic numbers of the file systems whose `syncfs` is known to wait for data and folders: ext2 to ext4, XFS, Btrfs, F2FS, bcachefs,
/// ZFS, overlayfs and tmpfs. Others (FUSE does not pass it on) get an `fsync` for each file.
const SYNCS_AS_A_WHOLE: [u64; 8] =
    [0xEF53, 0x5846_5342, 0x9123_683E, 0xF2F5_2010, 0xCA45_1A4E, 0x2FC1_2FC1, 0x794C_7630, 0x0102_1994];

/// Objects in a folder. What was put and not settled is known to this value only.
pub struct Fs {
    root: PathBuf,
    /// Opened before anything is written: a failed write-back is reported to who had the file system open then.
    folder: File,
    syncs_as_a_whole: bool,
    counter: AtomicU64,
    staging: Staging<Temporary>,
    /// How often `syncfs` failed. The kernel says so once; what was begun before it was said cannot be relied on.
    failures: AtomicU64,
    /// Held by the one who waits for the disk. Whoever only writes does not wait for him.
    syncing: Mutex<()>,
}

/// A complete file in [`TEMPORARY`].
struct Temporary {
    path: PathBuf,
    /// [`Fs::failures`] when it was begun.
    failures: u64,
}

impl Drop for Fs {
    fn drop(&mut self) {
        discard(self.staging.take_all());
    }
}

impl Fs {
    /// Opens the folder, and makes it (mode 0700) when it is not there.
    ///
    /// # Errors
    /// When it cannot be made, read or written.
    pub fn open(root: &Path) -> Result<Self, BackendError> {
        let root = std::path::absolute(root).map_err(|error| explain(root, &error))?;
        make_durably(&root.join(TEMPORARY))?;
        let folder = File::open(&root).map_err(|error| explain(&root, &error))?;
        let kind = rustix::fs::fstatfs(&folder).map_err(|error| explain(&root, &error.into()))?;
        let magic = u64::try_from(kind.f_type).unwrap_or_default();
        Ok(Self {
            root,
            folder,
            syncs_as_a_whole: SYNCS_AS_A_WHOLE.contains(&magic),
            counter: AtomicU64::new(0),
            staging: Staging::default(),
            failures: AtomicU64::new(0),
            syncing: Mutex::new(()),
        })
    }

    fn fan_out(&self, name: &Sha256) -> PathBuf {
        self.root.join(&name.to_string()[..2])
    }

    fn place(&self, name: &Sha256) -> PathBuf {
        let text = name.to_string();
        self.root.join(&text[..2]).join(&text[2..])
    }

    fn temporary(&self, of: &str) -> PathBuf {
        let count = self.counter.fetch_add(1, Ordering::Relaxed);
        self.root.join(TEMPORARY).join(format!("{of}.{}.{count}", std::process::id()))
    }

    /// An absence counts only while the folder itself is there: a disk that is not mounted has lost nothing.
    fn absent(&self) -> Result<(), BackendError> {
        let inner = self.root.join(TEMPORARY);
        match fs::symlink_metadata(&inner) {
            Ok(found) if found.is_dir() => Ok(()),
            _ => Err(BackendError::Refused(format!(
                "{} is gone; mount its disk again, or see what removed it",
                inner.display()
            ))),
        }
    }

    /// The file of an object, if there is one; links, folders and whatever else bears its name are none.
    fn find(&self, name: &Sha256) -> Result<Option<(File, u64)>, BackendError> {
        let path = self.place(name);
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let flags = i32::try_from(flags.bits()).unwrap_or_default();
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(&path);
        match opened.and_then(|file| Ok((file.metadata()?, file))) {
            Ok((found, file)) if found.is_file() => Ok(Some((file, found.len()))),
            Ok(_) => Ok(None),
            Err(error) if is_absent(&error) => self.absent().map(|()| None),
            Err(error) => Err(explain(&path, &error)),
        }
    }

    fn write(&self, path: &Path, object: &Object, body: &mut dyn Read) -> Result<(), BackendError> {
        let failed = |error: io::Error| explain(path, &error);
        let mut body = Body::new(body, object);
        let mut buffer = body.buffer(PIECE);
        let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.absent()?;
                return Err(failed(error));
            }
            opened => opened.map_err(failed)?,
        };
        loop {
            match body.fill(&mut buffer)? {
                0 => return Ok(()),
                count => file.write_all(&buffer[..count]).map_err(failed)?,
            }
        }
    }

    /// Data first, then names: a name never leads to bytes that a loss of power could take.
    fn settle_staged(
        &self,
        names: &BTreeSet<Sha256>,
        staged: &BTreeMap<Sha256, Temporary>,
    ) -> Result<(), BackendError> {
        let as_a_whole = self.syncs_as_a_whole && names.len() >= WHOLE_FROM;
        let staged_before = staged.values().map(|temporary| temporary.failures).min();
        let mut folders = BTreeSet::new();
        for name in names {
            folders.insert(self.fan_out(name));
            match staged.get(name) {
                Some(temporary) if !as_a_whole => {
                    sync(&temporary.path).map_err(|error| explain(&temporary.path, &error))?;
                }
                Some(_) => {}
                // Whoever put it there may have been cut off before it was durable.
                None => match self.find(name)? {
                    Some((file, _)) if !as_a_whole => {
                        file.sync_all().map_err(|error| explain(&self.place(name), &error))?;
                    }
                    Some(_) => {}
                    None => {
                        return Err(BackendError::Transient(format!("{name} was not put, or its put was given up")));
                    }
                },
            }
        }
        if as_a_whole && !staged.is_empty() {
            self.sync_as_a_whole(staged_before)?;
        }
        for (name, temporary) in staged {
            let place = self.place(name);
            let failed = |error: io::Error| explain(&place, &error);
            match fs::rename(&temporary.path, &place) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    if make_folder(&self.fan_out(name)).map_err(failed)? {
                        folders.insert(self.root.clone());
                    }
                    fs::rename(&temporary.path, &place).map_err(failed)?;
                }
                renamed => renamed.map_err(failed)?,
            }
        }
        if as_a_whole {
            return self.sync_as_a_whole(None);
        }
        folders.iter().try_for_each(|folder| sync(folder).map_err(|error| explain(folder, &error)))
    }

    /// One at a time: two would share the kernel's only answer that something could not be written.
    fn sync_as_a_whole(&self, staged_before: Option<u64>) -> Result<(), BackendError> {
        let _turn = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = rustix::fs::syncfs(&self.folder) {
            self.failures.fetch_add(1, Ordering::SeqCst);
            return Err(explain(&self.root, &error.into()));
        }
        match staged_before {
            Some(before) if before != self.failures.load(Ordering::SeqCst) => {
                Err(BackendError::Transient(format!("{} could not be written; put it again", self.root.display())))
            }
            _ => Ok(()),
        }
    }

    /// The first names behind `after` in a fan-out folder, at most `limit`. Memory is bounded by the limit, not by the folder.
    fn names(&self, first: u8, after: Option<&Sha256>, limit: usize) -> Result<Vec<Sha256>, BackendError> {
        let fan_out = self.root.join(format!("{first:02x}"));
        let failed = |error: io::Error| explain(&fan_out, &error);
        let entries = match fs::read_dir(&fan_out) {
            Err(error) if is_absent(&error) => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut lowest = BinaryHeap::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_str().and_then(|rest| format!("{first:02x}{rest}").parse().ok());
            let Some(name) = name.filter(|name| after.is_none_or(|after| name > after)) else { continue };
            lowest.push(name);
            if lowest.len() > limit {
                lowest.pop();
            }
        }
        Ok(lowest.into_sorted_vec())
    }
}

impl Backend for Fs {
    fn put(&self, object: &Object, body: &mut dyn Read, how: Put) -> Result<Placed, BackendError> {
        if how == Put::IfAbsent && (self.staging.has(&object.name) || self.find(&object.name)?.is_some()) {
            return Ok(Placed::Present);
        }
        let failures = self.failures.load(Ordering::SeqCst);
        let temporary = Temporary { path: self.temporary(&object.name.to_string()), failures };
        if let Err(error) = self.write(&temporary.path, object, body) {
            discard([temporary]);
            return Err(error);
        }
        self.staging.add(object.name, temporary);
        Ok(Placed::Stored)
    }

    fn settle(&self, names: &[Sha256]) -> Result<(), BackendError> {
        let names: BTreeSet<Sha256> = names.iter().copied().collect();
        if names.is_empty() {
            return Ok(());
        }
        let (_turn, staged) = self.staging.take(&names);
        let mut newest = BTreeMap::new();
        for (name, mut temporaries) in staged {
            newest.extend(temporaries.pop().map(|last| (name, last)));
            discard(temporaries);
        }
        let settled = self.settle_staged(&names, &newest);
        if settled.is_err() {
            discard(newest.into_values());
        }
        settled
    }

    fn open(&self, name: &Sha256, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send>, BackendError> {
        let (mut file, size) = self.find(name)?.ok_or(BackendError::Missing)?;
        let path = self.place(name);
        let range = range.unwrap_or(0..size);
        if range.start > 0 {
            file.seek(SeekFrom::Start(range.start)).map_err(|error| explain(&path, &error))?;
        }
        Ok(Box::new(Reader { file: file.take(range.end.saturating_sub(range.start)), path }))
    }

    fn size(&self, name: &Sha256) -> Result<Option<u64>, BackendError> {
        let path = self.place(name);
        match fs::symlink_metadata(&path) {
            Ok(found) => Ok(found.is_file().then_some(found.len())),
            Err(error) if is_absent(&error) => self.absent().map(|()| None),
            Err(error) => Err(explain(&path, &error)),
        }
    }

    fn delete(&self, name: &Sha256) -> Result<(), BackendError> {
        let path = self.place(name);
        match fs::remove_file(&path) {
            Err(error) if is_absent(&error) => self.absent()?,
            removed => removed.map_err(|error| explain(&path, &error))?,
        }
        // Also when it was gone already: whoever removed it may have been cut off here.
        let folder = self.fan_out(name);
        match sync(&folder) {
            Err(error) if is_absent(&error) => Ok(()),
            synced => synced.map_err(|error| explain(&folder, &error)),
        }
    }

    fn list(&self, after: Option<&Sha256>, limit: usize) -> Result<Vec<Object>, BackendError> {
        let mut out = Vec::new();
        let mut after = after.copied();
        let first = after.map_or(0, |after| after.0[0]);
        for first in first..=u8::MAX {
            loop {
                let wanted = limit - out.len();
                if wanted == 0 {
                    return Ok(out);
                }
                let names = self.names(first, after.as_ref(), wanted)?;
                for name in &names {
                    out.extend(self.size(name)?.map(|size| Object { name: *name, size }));
                }
                after = names.last().copied().or(after);
                // What was not taken (it is no file, or was removed since) makes room for what comes behind it.
                if names.len() < wanted {
                    break;
                }
            }
        }
        self.absent()?;
        Ok(out)
    }

    fn tidy(&self) -> Result<(), BackendError> {
        let folder = self.root.join(TEMPORARY);
        let failed = |error: io::Error| explain(&folder, &error);
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(maker) else { continue };
            let age = match entry.metadata() {
                Ok(found) => found.modified().map(age),
                Err(error) => Err(error),
            };
            let leftover = match age {
                Err(error) if is_absent(&error) => continue,
                age => {
                    let age = age.map_err(failed)?;
                    age > LEFTOVER_AT_LAST || age > LEFTOVER_AFTER && !is_alive(pid)
                }
            };
            if leftover && !self.staging.may_have(|temporary| temporary.path == entry.path()) {
                match fs::remove_file(entry.path()) {
                    Err(error) if is_absent(&error) => {}
                    removed => removed.map_err(failed)?,
                }
            }
        }
        Ok(())
    }

    fn owner(&self) -> Result<Option<String>, BackendError> {
        let path = self.root.join(OWNER);
        let mut text = String::new();
        match File::open(&path).and_then(|file| file.take(OWNER_LIMIT).read_to_string(&mut text)) {
            Ok(_) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => self.absent().map(|()| None),
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                Err(BackendError::Refused(format!("{} is not from trueup", path.display())))
            }
            Err(error) => Err(explain(&path, &error)),
        }
    }

    fn claim(&self, owner: &str) -> Result<(), BackendError> {
        let path = self.temporary(OWNER);
        let failed = |error: io::Error| explain(&path, &error);
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
            file.write_all(owner.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
            fs::rename(&path, self.root.join(OWNER)).map_err(failed)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&path);
        }
        written?;
        sync(&self.root).map_err(|error| explain(&self.root, &error))
    }
}

/// Reads a file, and names it when that fails.
struct Reader {
    file: io::Take<File>,
    path: PathBuf,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.file.read(buffer) {
            // The disk lost these bytes. That is a fault of this copy and does not pass, so others may stand in for it.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                Err(BackendError::Body(format!("{} cannot be read: {error}", self.path.display())).into_io())
            }
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(explain(&self.path, &error).into_io()),
            read => read,
        }
    }
}

/// What cannot be removed now is what `tidy` finds later.
fn discard(temporaries: impl IntoIterator<Item = Temporary>) {
    for temporary in temporaries {
        let _ = fs::remove_file(temporary.path);
    }
}

/// Makes a folder for us alone. Whether it was not there before.
fn make_folder(path: &Path) -> io::Result<bool> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
        made => made.map(|()| true),
    }
}

/// Makes a folder and those above it, each for good.
pub(super) fn make_durably(path: &Path) -> Result<(), BackendError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_durably(parent)?;
        make_folder(path).map_err(|error| explain(path, &error))?;
        sync(parent).map_err(|error| explain(parent, &error))?;
    }
    Ok(())
}

/// Waits until a file, or the names in a folder, are on the disk.
fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Nothing is there by this name that could be an object.
fn is_absent(error: &io::Error) -> bool {
    let is_link = error.raw_os_error().is_some_and(|code| code == rustix::io::Errno::LOOP.raw_os_error());
    is_link || matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// The process that made a temporary file, by its name.
fn maker(name: &str) -> Option<u32> {
    let (rest, _) = name.rsplit_once('.')?;
    rest.rsplit_once('.')?.1.parse().ok()
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn age(modified: std::time::SystemTime) -> Duration {
    let now = u64::try_from(SystemClock.wall().0).unwrap_or_default();
    let then = modified.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Duration::from_millis(now).saturating_sub(then)
}

/// What the system's words mean for this path.
pub(super) fn explain(path: &Path, error: &io::Error) -> BackendError {
    let shown = path.display();
    match error.kind() {
        ErrorKind::StorageFull => BackendError::Full(format!("no room is left on the disk of {shown}")),
        ErrorKind::QuotaExceeded => {
            BackendError::Full(format!("the quota of this user is used up on the disk of {shown}"))
        }
        ErrorKind::PermissionDenied => {
            BackendError::Refused(format!("{shown} may not be used by this user; change its owner or its mode"))
        }
        ErrorKind::ReadOnlyFilesystem => BackendError::Refused(format!(
            "{shown} is on a read-only file system; mount it writable, or name another folder"
        )),
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            BackendError::Refused(format!("{shown} is not a folder, or lies below what is none; name another folder"))
        }
        ErrorKind::IsADirectory | ErrorKind::DirectoryNotEmpty => {
            BackendError::Refused(format!("{shown} is a folder where a file belongs; move it away"))
        }
        ErrorKind::FileTooLarge => BackendError::Refused(format!("{shown} is larger than its file system allows")),
        _ => BackendError::Transient(format!("{shown}: {error}")),
    }
}
