//! The storage behind the engine: nothing is opened, and no thread runs, before a tree has one.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::sync::Arc;

use super::build::Access;
use crate::adapters::blobs::index::SqliteIndex;
use crate::model::id::Name;
use crate::model::time::Timestamp;
use crate::ports::PortError;
use crate::ports::blobs::{Index, IndexError};
use crate::ports::storage::{Intent, Motion, Status, Storage, Told};

/// Opened at first use.
pub(super) struct LazyStorage {
    folder: PathBuf,
    access: Access,
    index: OnceCell<Arc<dyn Index>>,
}

impl LazyStorage {
    /// `state` is the state folder.
    pub(super) fn new(state: &std::path::Path, access: Access) -> Self {
        Self { folder: state.join("blobs"), access, index: OnceCell::new() }
    }

    /// The index; `None` when there is none and this process only looks.
    fn index(&self) -> Result<Option<Arc<dyn Index>>, PortError> {
        if let Some(index) = self.index.get() {
            return Ok(Some(index.clone()));
        }
        let path = self.folder.join("index.db");
        if self.access == Access::Look && !path.exists() {
            return Ok(None);
        }
        let index: Arc<dyn Index> = Arc::new(SqliteIndex::open(&path).map_err(failed)?);
        Ok(Some(self.index.get_or_init(|| index).clone()))
    }
}

fn failed(error: IndexError) -> PortError {
    PortError::Retry(error.to_string())
}

impl Storage for LazyStorage {
    fn status(&self) -> Result<Status, PortError> {
        let standing = match self.index()? {
            Some(index) => index.standing().map_err(failed)?,
            None => Default::default(),
        };
        Ok(Status {
            standing,
            health: Default::default(),
            motion: Motion::Asleep,
            progress: None,
            troubled: Vec::new(),
        })
    }
    fn tell(&self, _intent: &Intent) {}
    fn activate(&self, place: &Name) -> Result<(), PortError> {
        match self.index()? {
            Some(index) => index.activate(place, Timestamp(0)).map_err(failed),
            None => Ok(()),
        }
    }
    fn migrate(&self, target: &Name) -> Result<(), PortError> {
        match self.index()? {
            Some(index) => index.begin(target, Timestamp(0)).map_err(failed),
            None => Ok(()),
        }
    }
    fn told(&self) -> Result<Vec<Told>, PortError> {
        Ok(Vec::new())
    }
}
