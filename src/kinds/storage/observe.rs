//! What is seen of the storage as a whole, once a tick.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::id::Name;
use crate::model::problem::Problem;
use crate::ports::storage::{Place, Status};

/// The storage and all its backends.
#[derive(Clone, Debug)]
pub struct Seen {
    /// From the index and the mover, or why nothing is known.
    pub status: Result<Status, String>,
    /// Where each backend is, those that leave included.
    pub places: BTreeMap<Name, Result<Place, Box<Problem>>>,
    /// Backends whose secrets were not asked for.
    pub assumed: BTreeSet<Name>,
}
