//! Putting a blob: its bytes are hashed, put, made sure of and read back before the index says that they are there.

use std::fs::File;
use std::io::{self, Read, Write};

use super::body::{Checked, Hasher};
use super::depot::{BlobError, Depot, ROUNDS, Watch};
use super::probe::whose;
use super::spool::{Cut, Kept, Spool, pass};
use crate::model::blob::Integrity;
use crate::model::id::Name;
use crate::ports::blobs::{Added, Backend, BackendError, Entry, Object, Put};

/// Where the bytes come from.
pub enum Source<'a> {
    /// A file that can be read again from its beginning. Changed while it is read, it is refused.
    File(File),
    /// Anything else.
    Stream(&'a mut dyn Read),
}

/// What a put came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Stored(Entry),
    /// The same bytes were there already.
    Known(Entry),
    /// The blob was known, but its bytes were missing or wrong. Now they are right.
    Repaired(Entry),
}

impl Outcome {
    pub fn entry(&self) -> &Entry {
        match self {
            Self::Stored(entry) | Self::Known(entry) | Self::Repaired(entry) => entry,
        }
    }
}

/// Puts a blob. `key` names the origin of its content; without one it is named by its bytes.
///
/// # Errors
/// [`BlobError`]; then the index says nothing of it that it did not say before.
pub fn put(
    depot: &Depot<'_>,
    source: Source<'_>,
    key: Option<&Integrity>,
    watch: &dyn Watch,
) -> Result<Outcome, BlobError> {
    let (bytes, object) = take(depot, source, watch)?;
    let key = key.cloned().unwrap_or_else(|| Integrity::of(&object.name));
    let _latch = depot.latches.putting()?;
    for _ in 0..ROUNDS {
        let place = depot.index.standing()?.place().cloned().ok_or(BlobError::NoPlace)?;
        let mut troubled = false;
        if let Some(entry) = depot.index.find(&key)? {
            if entry.row.object != object {
                return Err(BlobError::OtherBytes { key, kept: entry.row.object.name, given: object.name });
            }
            troubled = entry.row.trouble.is_some();
            if !troubled {
                return known(depot, entry, &bytes, watch);
            }
        }
        store(depot, &place, &bytes, &object, watch)?;
        match depot.index.add(&key, &object, &place, true, (depot.now)())? {
            Added::PlaceMoved(_) => {}
            Added::Known(entry) if entry.row.object != object => {
                return Err(BlobError::OtherBytes { key, kept: entry.row.object.name, given: object.name });
            }
            Added::Known(entry) if troubled => return Ok(Outcome::Repaired(entry)),
            Added::Known(entry) => return Ok(Outcome::Known(entry)),
            Added::Added => {
                let entry = depot.index.find(&key)?;
                return entry.map(Outcome::Stored).ok_or(BlobError::Unknown(key));
            }
        }
    }
    Err(BlobError::Restless)
}

/// The bytes at hand, and what they are.
fn take(depot: &Depot<'_>, source: Source<'_>, watch: &dyn Watch) -> Result<(Kept, Object), BlobError> {
    let mut hasher = Hashing { hasher: Hasher::default(), to: None };
    let (kept, cut) = match source {
        Source::File(file) => {
            let total = file.metadata().map_err(BlobError::Source)?.len();
            let kept = Kept::File(file);
            let cut = pass(&mut kept.reader(), &mut hasher, Some(total), watch);
            (kept, cut)
        }
        Source::Stream(stream) => {
            hasher.to = Some(Spool::new(&depot.spool));
            let cut = pass(stream, &mut hasher, None, watch);
            (hasher.to.take().map_or(Kept::Memory(Vec::new()), Spool::kept), cut)
        }
    };
    cut.map_err(|cut| match cut {
        // A reader that may wait for ever ends its waiting with an error.
        Cut::Read(_) if !watch.passed(0, None) => BlobError::Cancelled,
        Cut::Read(error) => BlobError::Source(error),
        Cut::Write(error) => BlobError::Local { path: depot.spool.clone(), error },
        Cut::Cancelled => BlobError::Cancelled,
    })?;
    Ok((kept, hasher.hasher.object()))
}

/// Hashes what passes, and keeps it if there is something to keep it in.
struct Hashing<'a> {
    hasher: Hasher,
    to: Option<Spool<'a>>,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(spool) = &mut self.to {
            spool.write_all(bytes)?;
        }
        self.hasher.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A blob that the index knows: it is there, or it is put again where the index says that it is.
fn known(depot: &Depot<'_>, entry: Entry, bytes: &Kept, watch: &dyn Watch) -> Result<Outcome, BlobError> {
    let (place, object) = (&entry.row.place, entry.row.object);
    // Their size alone would leave rotten bytes as they are, and whoever puts them again means to have them.
    match is_right(&*depot.backend(place)?, &object, watch) {
        Ok(true) => return Ok(Outcome::Known(entry)),
        Ok(false) => {}
        Err(BackendError::Body(_)) => return Err(BlobError::Cancelled),
        Err(error) => return Err(BlobError::Backend { place: place.clone(), error }),
    }
    store(depot, place, bytes, &object, watch)?;
    Ok(Outcome::Repaired(entry))
}

/// Puts an object, and reads it back. What lay there and was wrong is replaced.
fn store(depot: &Depot<'_>, place: &Name, bytes: &Kept, object: &Object, watch: &dyn Watch) -> Result<(), BlobError> {
    let backend = depot.backend(place)?;
    let failed = |error| match error {
        BackendError::Body(_) if !watch.passed(0, None) => BlobError::Cancelled,
        BackendError::Body(why) => BlobError::Source(io::Error::other(why)),
        error => BlobError::Backend { place: place.clone(), error },
    };
    // A disk that is not mounted looks like an empty folder: what is put there is gone when it is mounted again.
    whose(&*backend, &depot.index.standing()?.owner, 1).map_err(failed)?;
    for how in [Put::IfAbsent, Put::Replace] {
        let mut body = Checked::new(Watched { from: bytes.reader(), total: object.size, watch }, *object);
        backend.put(object, &mut body, how).map_err(failed)?;
        backend.settle(&[object.name]).map_err(failed)?;
        if is_right(&*backend, object, watch).map_err(failed)? {
            return Ok(());
        }
    }
    Err(BlobError::ReadBack { place: place.clone() })
}

/// Whether a backend gives back the right bytes. When nobody waits for the answer any more it is [`BackendError::Body`].
pub(super) fn is_right(backend: &dyn Backend, object: &Object, watch: &dyn Watch) -> Result<bool, BackendError> {
    let mut reader = match backend.open(&object.name, None) {
        Err(BackendError::Missing) => return Ok(false),
        other => other?,
    };
    let mut hasher = Hashing { hasher: Hasher::default(), to: None };
    match pass(&mut *reader, &mut hasher, Some(object.size), watch) {
        Ok(_) => Ok(hasher.hasher.object() == *object),
        Err(Cut::Read(error)) => match BackendError::from_io(&error) {
            // What cannot be read to its end, now or later, is not right.
            BackendError::Body(_) => Ok(false),
            error => Err(error),
        },
        Err(Cut::Write(_) | Cut::Cancelled) => Err(BackendError::Body("cancelled".into())),
    }
}

/// A reader that fails as soon as nobody wants it any more.
struct Watched<'a, R> {
    from: R,
    total: u64,
    watch: &'a dyn Watch,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        if self.watch.passed(count as u64, Some(self.total)) {
            return Ok(count);
        }
        Err(BackendError::Body("cancelled".into()).into_io())
    }
}
