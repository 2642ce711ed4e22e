//! Wake, look, plan, do, record. The only owner of change: one engine, one thread, one writing connection to the ledger.
//! Wake-ups carry no data; start-up is recovery; there is no second code path.

mod connections;
mod deaths;
mod execute;
mod frozen;
mod hub;
mod look;
mod memory;
mod overrides;
mod ports;
pub mod report;
pub mod run;
mod secrets;
mod storage;
mod stuck;
mod tick;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

pub use report::Report;
pub use run::{Bell, Rang, Until, Verdict};

use crate::desired::{Desired, Manifest};
use crate::kinds::service::module::Modules;
use crate::model::output::StepLine;
use crate::ports::World;
use crate::ports::store::StoreError;
use memory::Memory;

/// How a tick is to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mode {
    /// Only look and plan.
    pub dry: bool,
    /// Stop everything, and keep it.
    pub down: bool,
    /// `--allow-prune N`.
    pub allow_prune: Option<usize>,
    /// A person asked just now: what crashed too often is tried at once, not when its long pause is over.
    pub kick: bool,
    /// Only a glance: secret commands are not asked, and what they answered at the last start is taken to be so still.
    pub glance: bool,
}

/// A defect or a failure that concerns the tick as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A plan broke its own rules; nothing was done.
    #[error("the plan was refused by its own checker (please report this): {0}")]
    Plan(String),
}

/// The engine.
pub struct Engine {
    world: World,
    memory: Memory,
    /// Files as read and checked, by path.
    manifests: BTreeMap<PathBuf, Arc<Manifest>>,
    /// The same for each module.json: what it declares is made ready only once.
    modules: Modules,
    /// How long the tree has been busy (a git merge and the like).
    busy_since: Option<crate::model::time::Tick>,
    recovered: bool,
    /// When connections were first looked at.
    born: Option<crate::model::time::Tick>,
    /// Vaults that take too long to answer.
    slow: connections::Slow,
    /// When the notes of vaults were last looked through.
    rounds: stuck::Rounds,
    history: crate::kinds::hub::spec::History,
}

/// Receives each finished step at once.
pub type Sink<'a> = &'a mut dyn FnMut(&StepLine);

impl Engine {
    pub fn new(world: World) -> Self {
        Self {
            world,
            memory: Memory::default(),
            manifests: BTreeMap::new(),
            modules: Modules::new(),
            busy_since: None,
            recovered: false,
            born: None,
            slow: Default::default(),
            rounds: Default::default(),
            history: Default::default(),
        }
    }

    /// Asks for a restart of these services in the next tick.
    pub fn request_restart(&mut self, names: impl IntoIterator<Item = crate::model::id::Name>) {
        self.memory.requested.extend(names);
    }

    /// These connections get other tokens in the next tick.
    pub fn renew(&mut self, names: impl IntoIterator<Item = crate::model::id::Name>) {
        self.memory.renew.extend(names);
    }

    /// Whether a connection is still to get another token.
    pub fn renews(&self, name: &crate::model::id::Name) -> bool {
        self.memory.renew.contains(name)
    }

    /// Whoever asked for the restart of these does not wait for it any more.
    pub fn withdraw_restart(&mut self, names: impl IntoIterator<Item = crate::model::id::Name>) {
        for name in names {
            self.memory.requested.remove(&name);
        }
    }

    pub fn world(&self) -> &World {
        &self.world
    }

    /// Reads and links the tree; looks at nothing else.
    ///
    /// # Errors
    /// When the ledger (which holds the last good versions) cannot be read.
    pub fn validate(&mut self) -> Result<Report, EngineError> {
        let owned = self.world.store.owned()?;
        let (desired, busy) = self.desire(&owned);
        Ok(Report {
            problems: desired.problems.clone(),
            sources: desired.sources.clone(),
            held: desired.resources.values().filter(|r| r.held.is_some()).map(|r| r.id.clone()).collect(),
            declared: desired.resources.len(),
            settled: true,
            busy,
            ..Report::default()
        })
    }

    /// The tree alone, read and linked.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn desired(&mut self) -> Result<Desired, EngineError> {
        let owned = self.world.store.owned()?;
        Ok(self.desire(&owned).0)
    }

    /// Forgets the oldest history beyond what the Hub keeps.
    ///
    /// # Errors
    /// When the ledger fails.
    pub fn trim(&self) -> Result<(), EngineError> {
        Ok(self.world.store.trim(self.history.journal as usize, self.history.events as usize)?)
    }
}
