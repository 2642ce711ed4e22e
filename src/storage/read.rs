//! Reading a blob: from where the index says, else from wherever else a good copy lies. A whole read is checked before a byte of it is
//! given out; of a part of a blob only the length can be.

use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

use super::body::Checked;
use super::depot::{BlobError, Depot, ROUNDS, Watch};
use super::put::is_right;
use super::spool::{Cut, Kept, Spool, Target, pass};
use crate::model::blob::Integrity;
use crate::model::id::Name;
use crate::ports::blobs::{Backend, BackendError, Entry, Fault};

/// A blob that was read.
#[derive(Debug)]
pub struct Fetched {
    pub entry: Entry,
    /// The backend that served it.
    pub served_by: Name,
    /// In bytes.
    pub size: u64,
}

/// Reads a blob, or bytes of it from `start` to before `end`. What is returned is right as a whole.
///
/// # Errors
/// [`BlobError`].
pub fn fetch(
    depot: &Depot<'_>,
    key: &Integrity,
    range: Option<Range<u64>>,
    watch: &dyn Watch,
) -> Result<(Fetched, Kept), BlobError> {
    let mut kept = None;
    let fetched = from_anywhere(depot, key, range, &mut |backend, entry, range| {
        let mut spool = Spool::new(&depot.spool);
        copy(backend, entry, range, &mut spool, &depot.spool, watch)?;
        kept = Some(spool.kept());
        Ok(())
    })?;
    Ok((fetched, kept.unwrap_or(Kept::Memory(Vec::new()))))
}

/// Reads a blob into a file, which is replaced in one move when all bytes are there and right; else it stays as it was. Links are
/// followed and kept. What is no file (a device, a pipe) is given the bytes when they are right.
///
/// # Errors
/// [`BlobError`].
pub fn fetch_to(
    depot: &Depot<'_>,
    key: &Integrity,
    range: Option<Range<u64>>,
    to: &Path,
    watch: &dyn Watch,
) -> Result<Fetched, BlobError> {
    let local = |error| BlobError::Local { path: to.to_owned(), error };
    let mut partial = match Target::open(to)? {
        Target::File(partial) => partial,
        Target::Stream(mut out) => {
            let (fetched, kept) = fetch(depot, key, range, watch)?;
            give_out(&kept, &mut out).map_err(local)?;
            return Ok(fetched);
        }
    };
    let fetched = from_anywhere(depot, key, range, &mut |backend, entry, range| {
        partial.clear().map_err(|error| Miss::Ours(local(error)))?;
        copy(backend, entry, range, &mut partial.file, to, watch)
    })?;
    partial.commit()?;
    Ok(fetched)
}

/// Why one place did not serve a blob.
enum Miss {
    /// Another place may.
    Theirs(String),
    /// No other place would help.
    Ours(BlobError),
}

type Attempt<'a> = dyn FnMut(&dyn Backend, &Entry, Option<&Range<u64>>) -> Result<(), Miss> + 'a;

/// Tries one place after the other. When all fail the blob may just have been moved, so the index is asked again.
fn from_anywhere(
    depot: &Depot<'_>,
    key: &Integrity,
    range: Option<Range<u64>>,
    attempt: &mut Attempt<'_>,
) -> Result<Fetched, BlobError> {
    let unknown = || BlobError::Unknown(key.clone());
    let mut entry = depot.index.find(key)?.ok_or_else(unknown)?;
    let mut tried = Vec::new();
    for _ in 0..ROUNDS {
        let size = entry.row.object.size;
        if let Some(Range { start, .. }) = range
            && start >= size
        {
            return Err(BlobError::Range { start, size });
        }
        let cut = range.as_ref().map(|range| range.start..range.end.min(size));
        tried.clear();
        for place in candidates(depot, &entry)? {
            let served = match (depot.open)(&place) {
                Ok(backend) => attempt(&*backend, &entry, cut.as_ref()),
                Err(error) => Err(Miss::Theirs(error.to_string())),
            };
            match served {
                Ok(()) => {
                    if place != entry.row.place {
                        // A count that fails is no reason not to give the bytes out.
                        let _ = depot.index.fell_back();
                    }
                    let size = cut.map_or(size, |cut| cut.end - cut.start);
                    return Ok(Fetched { entry, served_by: place, size });
                }
                Err(Miss::Theirs(why)) => tried.push((place, why)),
                Err(Miss::Ours(error)) => return Err(error),
            }
        }
        let now = depot.index.find(key)?.ok_or_else(unknown)?;
        if now.row.place == entry.row.place && now.row.object == entry.row.object {
            break;
        }
        entry = now;
    }
    Err(BlobError::Unreadable { key: key.clone(), tried })
}

/// The recorded place, then where new blobs go, then the active backend, then every other one; each once.
fn candidates(depot: &Depot<'_>, entry: &Entry) -> Result<Vec<Name>, BlobError> {
    let standing = depot.index.standing()?;
    let first = [Some(entry.row.place.clone()), standing.target, standing.active];
    let mut all: Vec<Name> = Vec::new();
    for place in first.into_iter().flatten().chain(depot.places.iter().cloned()) {
        if !all.contains(&place) {
            all.push(place);
        }
    }
    Ok(all)
}

/// Copies from one place. Nobody has seen a byte of it when it fails.
fn copy(
    backend: &dyn Backend,
    entry: &Entry,
    range: Option<&Range<u64>>,
    to: &mut dyn Write,
    path: &Path,
    watch: &dyn Watch,
) -> Result<(), Miss> {
    let object = entry.row.object;
    let theirs = |error: BackendError| Miss::Theirs(error.to_string());
    let mut reader = backend.open(&object.name, range.cloned()).map_err(theirs)?;
    let passed = match range {
        None => pass(&mut Checked::new(reader, object), to, Some(object.size), watch),
        Some(range) => pass(&mut reader, to, Some(range.end - range.start), watch),
    };
    let passed = passed.map_err(|cut| match cut {
        Cut::Read(error) => theirs(BackendError::from_io(&error)),
        Cut::Write(error) => Miss::Ours(BlobError::Local { path: path.to_owned(), error }),
        Cut::Cancelled => Miss::Ours(BlobError::Cancelled),
    })?;
    match range.map(|range| range.end - range.start) {
        Some(wanted) if wanted != passed => Err(Miss::Theirs(format!("it gave {passed} bytes instead of {wanted}"))),
        _ => Ok(()),
    }
}

/// Gives bytes out that were read.
///
/// # Errors
/// When they cannot be written.
pub fn give_out(kept: &Kept, to: &mut dyn Write) -> io::Result<()> {
    io::copy(&mut kept.reader(), to)?;
    to.flush()
}

/// How the bytes of a blob are at the place where the index says they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    Bad(Fault),
    /// The place could not be asked.
    Unasked(String),
}

/// Reads the bytes of a blob where the index says they are, and checks them. Changes nothing: findings are the mover's to write down.
///
/// # Errors
/// [`BlobError::Cancelled`].
pub fn verify(depot: &Depot<'_>, entry: &Entry, watch: &dyn Watch) -> Result<Verdict, BlobError> {
    let object = &entry.row.object;
    let looked = (depot.open)(&entry.row.place).and_then(|backend| match backend.size(&object.name)? {
        None => Ok(Verdict::Bad(Fault::Missing)),
        Some(_) if is_right(&*backend, object, watch)? => Ok(Verdict::Good),
        Some(_) => Ok(Verdict::Bad(Fault::Corrupt)),
    });
    match looked {
        Ok(verdict) => Ok(verdict),
        Err(BackendError::Body(_)) => Err(BlobError::Cancelled),
        Err(error) => Ok(Verdict::Unasked(error.to_string())),
    }
}
