//! The database of keys and tokens of a state folder. The ledger remembers that there is one: whoever lost it is told, and gets no empty
//! one, which would know nothing of what was revoked.

use std::path::Path;

use crate::adapters::hubdb::HubDb;
use crate::ports::store::{Store, StoreError};
use crate::ports::tokens::{Lost, Unwell};

/// In the state folder.
pub(super) const DATABASE: &str = "hub.db";
/// The ledger's name for the fact that there is one.
const SETTING: &str = "hub.database";

/// Whether there was one before.
///
/// # Errors
/// When the ledger cannot be read.
pub(super) fn is_known(store: &dyn Store) -> Result<bool, StoreError> {
    Ok(store.get(SETTING)?.is_some())
}

/// Remembers that there is one.
///
/// # Errors
/// When the ledger cannot be written.
pub(super) fn remember(store: &dyn Store) -> Result<(), StoreError> {
    if is_known(store)? { Ok(()) } else { store.set(SETTING, "made") }
}

/// Opens it; makes it when there was none before.
///
/// # Errors
/// In words, with what to do about it.
pub(super) fn open(state: &Path, known: bool) -> Result<HubDb, String> {
    let path = state.join(DATABASE);
    HubDb::open(&path, !known).map_err(|unwell| match unwell {
        Unwell::Lost(Lost::Gone) if known => format!(
            "{} is gone, and every key and token with it: put it back from a backup with `trueup token restore FILE`, or make a new one with `trueup token reset`",
            path.display()
        ),
        unwell => unwell.to_string(),
    })
}
