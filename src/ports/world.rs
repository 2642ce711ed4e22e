//! [`World`], the bundle of all ports, and its two faces: [`Look`] cannot change anything, [`Hand`] can.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use super::PortError;
use super::bearers::Bearers;
use super::clock::{Clock, Dice};
use super::deliveries::Deliveries;
use super::files::Files;
use super::hub::Hub;
use super::keeper::{Keeper, Unit};
use super::machine::Machine;
use super::peers::Peers;
use super::probes::Probes;
use super::registry::{Registry, Row};
use super::secrets::Secrets;
use super::sockets::{Listeners, Sockets};
use super::storage::Storage;
use super::store::Store;
use crate::model::digest::Digest;
use crate::model::id::Name;
use crate::model::secret::Secret;

/// Facts about where we run; they do not change while we do.
#[derive(Clone, Debug)]
pub struct Place {
    /// The state folder.
    pub state: PathBuf,
    /// The PATH in which commands are looked up and which modules get.
    pub path: String,
    /// Other variables of our own environment that modules get (HOME, LANG, ...).
    pub inherited: Vec<(String, String)>,
}

/// Everything outside.
#[derive(Clone)]
pub struct World {
    pub place: Place,
    pub clock: Rc<dyn Clock>,
    pub dice: Rc<dyn Dice>,
    pub files: Rc<dyn Files>,
    pub keeper: Rc<dyn Keeper>,
    pub machine: Rc<dyn Machine>,
    pub sockets: Rc<dyn Sockets>,
    pub registry: Rc<dyn Registry>,
    pub secrets: Rc<dyn Secrets>,
    pub probes: Rc<dyn Probes>,
    pub store: Rc<dyn Store>,
    pub storage: Rc<dyn Storage>,
    pub hub: Rc<dyn Hub>,
    pub peers: Rc<dyn Peers>,
    pub bearers: Rc<dyn Bearers>,
    pub deliveries: Rc<dyn Deliveries>,
}

/// The answers of secret commands, by the folder they run in and their argument vector.
pub type Commands = BTreeMap<(PathBuf, Vec<String>), Result<Secret, String>>;

/// One look at what is shared by all resources, taken at the start of a tick.
#[derive(Clone, Debug)]
pub struct Facts {
    pub units: Result<Vec<Unit>, PortError>,
    pub listeners: Result<Listeners, PortError>,
    pub rows: Result<Vec<Row>, PortError>,
    /// The port that each row of ours is to say, by row name.
    pub wanted_rows: BTreeMap<String, u16>,
    /// The row that each service has in this home as far as we know, by service.
    pub kept_rows: BTreeMap<Name, String>,
    /// The port that each service was started with last, by service.
    pub kept_ports: BTreeMap<Name, u16>,
    /// What the secret commands of the tree answered.
    pub commands: Commands,
    /// In a glance the commands were not asked: the keyed parts that each service was started with stand for their answers.
    pub remembered: Option<BTreeMap<Name, BTreeMap<String, Digest>>>,
    /// The folder that holds services.json; modules get it as `PARACHUTE_HOME`.
    pub home: PathBuf,
    pub key: [u8; 32],
}

/// What an observer gets: it can look, and cannot act by accident.
pub struct Look<'a> {
    pub facts: &'a Facts,
    world: &'a World,
}

impl<'a> Look<'a> {
    pub fn new(world: &'a World, facts: &'a Facts) -> Self {
        Self { facts, world }
    }
    pub fn place(&self) -> &'a Place {
        &self.world.place
    }
    pub fn files(&self) -> &'a dyn Files {
        &*self.world.files
    }
    pub fn machine(&self) -> &'a dyn Machine {
        &*self.world.machine
    }
    pub fn secrets(&self) -> &'a dyn Secrets {
        &*self.world.secrets
    }
    pub fn probes(&self) -> &'a dyn Probes {
        &*self.world.probes
    }
}

/// What an action gets.
pub struct Hand<'a> {
    world: &'a World,
}

impl<'a> Hand<'a> {
    pub fn storage(&self) -> &'a dyn Storage {
        &*self.world.storage
    }
    pub fn new(world: &'a World) -> Self {
        Self { world }
    }
    pub fn clock(&self) -> &'a dyn Clock {
        &*self.world.clock
    }
    pub fn peers(&self) -> &'a dyn Peers {
        &*self.world.peers
    }
    pub fn bearers(&self) -> &'a dyn Bearers {
        &*self.world.bearers
    }
    pub fn deliveries(&self) -> &'a dyn Deliveries {
        &*self.world.deliveries
    }
    pub fn keeper(&self) -> &'a dyn Keeper {
        &*self.world.keeper
    }
    pub fn registry(&self) -> &'a dyn Registry {
        &*self.world.registry
    }
    pub fn probes(&self) -> &'a dyn Probes {
        &*self.world.probes
    }
}
