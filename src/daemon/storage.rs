//! The storage behind the engine: nothing is opened, and no thread runs, before a tree has one.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::bell::Ringer;
use super::build::Access;
use crate::adapters::blobs;
use crate::adapters::blobs::index::SqliteIndex;
use crate::adapters::blobs::latches::FileLatches;
use crate::adapters::clock::{SystemClock, SystemDice};
use crate::adapters::lock;
use crate::model::id::Name;
use crate::ports::PortError;
use crate::ports::blobs::Standing;
use crate::ports::storage::{Intent, Motion, Status, Storage, Told};
use crate::storage::mover::{Mover, Parts};

/// Opened at first use.
pub(super) struct LazyStorage {
    folder: PathBuf,
    access: Access,
    ringer: Ringer,
    mover: OnceCell<Mover>,
}

impl LazyStorage {
    /// `state` is the state folder.
    pub(super) fn new(state: &Path, access: Access, ringer: Ringer) -> Self {
        Self { folder: folder(state), access, ringer, mover: OnceCell::new() }
    }

    /// The mover; `None` when there is no index and this process only looks.
    fn mover(&self) -> Result<Option<&Mover>, PortError> {
        if let Some(mover) = self.mover.get() {
            return Ok(Some(mover));
        }
        let path = self.folder.join(INDEX);
        if self.access == Access::Look && !path.exists() {
            return Ok(None);
        }
        lock::make_state_dir(&self.folder).map_err(|error| PortError::Retry(error.to_string()))?;
        let index = SqliteIndex::open(&path).map_err(|error| PortError::Retry(error.to_string()))?;
        let ringer = self.ringer.clone();
        let mover = Mover::start(Parts {
            index: Arc::new(index),
            latches: Arc::new(FileLatches::new(&self.folder)),
            open: Arc::new(blobs::open),
            clock: Arc::new(SystemClock),
            dice: Arc::new(Mutex::new(SystemDice::new())),
            bell: Arc::new(move || ringer.ring()),
        });
        Ok(Some(self.mover.get_or_init(|| mover)))
    }

    /// The mover of a process that acts.
    fn acting(&self) -> Result<&Mover, PortError> {
        self.mover()?.ok_or_else(|| PortError::Never("this process only looks".to_owned()))
    }
}

/// Where the index and the locks of a state folder are.
pub(super) fn folder(state: &Path) -> PathBuf {
    state.join("blobs")
}

/// The index in that folder.
pub(super) const INDEX: &str = "index.db";

impl Storage for LazyStorage {
    fn status(&self) -> Result<Status, PortError> {
        match self.mover()? {
            Some(mover) => mover.status(),
            None => Ok(Status {
                standing: Standing::default(),
                health: Default::default(),
                motion: Motion::Asleep,
                busy: false,
                progress: None,
                troubled: Vec::new(),
            }),
        }
    }
    fn tell(&self, intent: &Intent) -> bool {
        self.acting().is_ok_and(|mover| mover.tell(intent))
    }
    fn activate(&self, place: &Name) -> Result<(), PortError> {
        self.acting()?.activate(place)
    }
    fn migrate(&self, target: &Name) -> Result<(), PortError> {
        self.acting()?.migrate(target)
    }
    fn told(&self) -> Result<Vec<Told>, PortError> {
        match self.mover()? {
            Some(mover) if self.access == Access::Act => mover.told(),
            _ => Ok(Vec::new()),
        }
    }
}
