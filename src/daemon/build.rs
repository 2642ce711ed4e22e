//! Builds the real world for a state folder.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::bearers::LazyBearers;
use super::bell::Ringer;
use super::deliveries::LazyDeliveries;
use super::hub::LazyHub;
use super::storage::LazyStorage;
use crate::adapters::clock::{SystemClock, SystemDice};
use crate::adapters::environment::{self, Environment};
use crate::adapters::files::TreeFiles;
use crate::adapters::keeper::KeeperClient;
use crate::adapters::lock;
use crate::adapters::machine::ThisMachine;
use crate::adapters::peers::LocalPeers;
use crate::adapters::probes::TokioProbes;
use crate::adapters::registry::FileRegistry;
use crate::adapters::secrets::ProcessSecrets;
use crate::adapters::sockets::ProcSockets;
use crate::adapters::sqlite::Ledger;
use crate::cli::engine::Place;
use crate::cli::exit::Failure;
use crate::engine::Engine;
use crate::model::unit::Millis;
use crate::ports::World;
use crate::ports::store::Store;

/// The ledger in a state folder.
pub(super) const LEDGER: &str = "ledger.db";
/// How long the answer of a secret command is remembered by a process that goes on.
const SECRET_TTL: Millis = Millis::secs(600);

/// What the built world may do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Look only: nothing is created, no keeper is started, the ledger is read-only.
    Look,
    /// Everything. The caller holds the lock.
    Act,
}

/// An engine on the real world.
pub(super) struct Built {
    pub engine: Engine,
    pub keeper: Rc<KeeperClient>,
    pub hub: Rc<LazyHub>,
    /// Tells of the keeper's events; ends with the run.
    _watch: Option<Abort>,
}

struct Abort(tokio::task::JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Builds it.
pub(super) fn build(place: &Place, access: Access, ringer: &Ringer) -> Result<Built, Failure> {
    let environment = Rc::new(Environment::of_process());
    let here = environment::working_dir().map_err(anyhow::Error::from)?;
    let store: Rc<dyn Store> = match access {
        Access::Act => {
            lock::make_state_dir(&place.state).map_err(anyhow::Error::from)?;
            Rc::new(Ledger::open(&place.state.join(LEDGER)).map_err(anyhow::Error::from)?)
        }
        Access::Look => read_ledger(&place.state)?,
    };
    let keeper = Rc::new(KeeperClient::new(&place.state, access == Access::Act));
    let wake = ringer.clone();
    let watch = (access == Access::Act).then(|| {
        let (keeper, wake) = (keeper.clone(), ringer.clone());
        Abort(tokio::task::spawn_local(async move { keeper.watch(move || wake.ring()).await }))
    });
    let clock = Rc::new(SystemClock);
    let manifests = manifests(place)?;
    let deliveries = Rc::new(LazyDeliveries::new(&place.state, access));
    let hub = Rc::new(LazyHub::new(&place.state, deliveries.room()));
    let store_again = store.clone();
    let world = World {
        place: environment.place(place.state.clone()),
        clock: clock.clone(),
        dice: Rc::new(SystemDice::new()),
        files: Rc::new(TreeFiles::new(manifests, here)),
        keeper: keeper.clone(),
        machine: Rc::new(ThisMachine::new(&place.state)),
        sockets: Rc::new(ProcSockets::new()),
        registry: Rc::new(FileRegistry),
        secrets: Rc::new(ProcessSecrets::new(environment, clock, SECRET_TTL)),
        probes: Rc::new(TokioProbes::new(Rc::new(move || wake.ring()))),
        store,
        storage: Rc::new(LazyStorage::new(&place.state, access, ringer.clone())),
        hub: hub.clone(),
        peers: Rc::new(LocalPeers),
        bearers: Rc::new(LazyBearers::new(&place.state, access, store_again)),
        deliveries,
    };
    Ok(Built { engine: Engine::new(world), keeper, hub, _watch: watch })
}

/// The ledger for reading; a state folder that is not there yet has an empty one.
pub(super) fn read_ledger(state: &Path) -> Result<Rc<dyn Store>, Failure> {
    Ok(Rc::new(Ledger::open_read_only(&state.join(LEDGER)).map_err(anyhow::Error::from)?))
}

/// The manifest folder as an absolute path; links in it are left as they are.
pub(super) fn manifests(place: &Place) -> Result<PathBuf, Failure> {
    let here = environment::working_dir().map_err(anyhow::Error::from)?;
    Ok(here.join(&place.manifests))
}
