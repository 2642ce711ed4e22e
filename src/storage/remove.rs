//! Removing a blob: out of the index first, so that at no time something is in the index and not there.

use super::depot::{BlobError, Depot};
use super::probe::whose;
use crate::model::blob::Integrity;
use crate::ports::blobs::{Entry, Lease};

/// A blob that is gone from the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    pub entry: Entry,
    pub bytes: Leftover,
}

/// What became of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// They are gone.
    Deleted,
    /// Another blob has the same bytes.
    Shared,
    /// They could not be deleted at once; the sweep does it later.
    Later,
}

/// Removes a blob.
///
/// # Errors
/// [`BlobError::Unknown`], or when the index cannot be written.
pub fn remove(depot: &Depot<'_>, key: &Integrity) -> Result<Removed, BlobError> {
    let entry = depot.index.remove(key, (depot.now)())?.ok_or_else(|| BlobError::Unknown(key.clone()))?;
    let bytes = match depot.index.row(&entry.row.object.name)? {
        Some(_) => Leftover::Shared,
        // The blob is gone, whatever comes of its bytes.
        None => delete(depot, &entry).unwrap_or(Leftover::Later),
    };
    Ok(Removed { entry, bytes })
}

/// Deletes the bytes if nobody is putting right now, who might be about to rely on them.
fn delete(depot: &Depot<'_>, entry: &Entry) -> Result<Leftover, BlobError> {
    let Some(_latch) = depot.latches.deleting()? else { return Ok(Leftover::Later) };
    let (name, place) = (entry.row.object.name, &entry.row.place);
    if depot.index.relies_on(&name, place)? {
        return Ok(Leftover::Shared);
    }
    let (backend, standing) = (depot.backend(place)?, depot.index.standing()?);
    // From a disk that is not mounted nothing goes by being deleted.
    let gone = whose(&*backend, &standing.owner, 1).and_then(|_| backend.delete(&name));
    gone.map_err(|error| BlobError::Backend { place: place.clone(), error })?;
    // With the lease of whoever moves: what is deleted under the latch is gone whoever that is, and nobody is fenced off by it.
    let lease = Lease(standing.lease);
    depot.index.forget_spares(lease, place, &[name])?;
    Ok(Leftover::Deleted)
}
