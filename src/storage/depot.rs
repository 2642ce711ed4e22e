//! What the verbs for single blobs stand on, and how they fail.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::model::blob::{Integrity, Sha256};
use crate::model::id::Name;
use crate::model::time::Timestamp;
use crate::ports::blobs::{Backend, BackendError, Index, IndexError, Latches};

/// So often a verb begins anew because what it had looked at was changed by somebody else.
pub(super) const ROUNDS: usize = 5;
/// Bytes are passed on in pieces of this size.
pub(super) const PIECE: usize = 256 << 10;

/// Opens a backend; a name that is not declared is refused.
pub type OpenByName<'a> = dyn Fn(&Name) -> Result<Arc<dyn Backend>, BackendError> + 'a;

/// The index, the locks and the backends of one state folder. Only the backends that are needed are opened.
pub struct Depot<'a> {
    pub index: &'a dyn Index,
    pub latches: &'a dyn Latches,
    /// The backends that are declared, in the order in which they are tried when the recorded one fails.
    pub places: Vec<Name>,
    pub open: &'a OpenByName<'a>,
    /// A folder for bytes that are not at hand as a whole. What is written there has no name, so nothing is left behind.
    pub spool: PathBuf,
    pub now: &'a dyn Fn() -> Timestamp,
}

/// Is told how far a verb is, and asked whether it shall go on.
pub trait Watch {
    /// So many bytes passed since the last call, of so many in all if that is known. `false` ends the verb, with nothing half done.
    fn passed(&self, bytes: u64, total: Option<u64>) -> bool;
}

/// Nobody watches.
pub struct Unwatched;

impl Watch for Unwatched {
    fn passed(&self, _: u64, _: Option<u64>) -> bool {
        true
    }
}

/// Why a verb for blobs did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error("there is no blob {0}")]
    Unknown(Integrity),
    #[error("no storage is set up yet")]
    NoPlace,
    #[error("{key} is there already with other bytes: {kept} is kept, and {given} was not stored")]
    OtherBytes { key: Integrity, kept: Sha256, given: Sha256 },
    #[error("no good copy of {key} could be read")]
    Unreadable { key: Integrity, tried: Vec<(Name, String)> },
    #[error("backend {place}: {error}")]
    Backend { place: Name, error: BackendError },
    #[error("backend {place} gave back other bytes than were put there, twice")]
    ReadBack { place: Name },
    #[error("the bytes begin at 0 and end at {size}: there are none from {start}")]
    Range { start: u64, size: u64 },
    #[error("the storage was moved again and again meanwhile")]
    Restless,
    #[error("what was to be put cannot be read: {0}")]
    Source(io::Error),
    #[error("{path}: {error}")]
    Local { path: PathBuf, error: io::Error },
    #[error("cancelled")]
    Cancelled,
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl Depot<'_> {
    pub(super) fn backend(&self, place: &Name) -> Result<Arc<dyn Backend>, BlobError> {
        (self.open)(place).map_err(|error| BlobError::Backend { place: place.clone(), error })
    }
}
