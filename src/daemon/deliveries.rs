//! The deliveries behind the engine and the hub: nothing is opened before a tree has a durable connection.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::build::Access;
use crate::adapters::clock::{SystemClock, SystemDice};
use crate::adapters::deliveries::Delivered;
use crate::adapters::deliveries::carrier::HttpCarrier;
use crate::delivery::{Parts, Room};
use crate::model::id::Name;
use crate::ports::PortError;
use crate::ports::deliveries::{Bounds, Deliveries, DeliveryStore, Found, OpenStore, Post, Tally};

/// In the state folder.
pub(super) const DATABASE: &str = "deliveries.db";

/// Opened at first use.
pub(super) struct LazyDeliveries {
    access: Access,
    room: Arc<Room>,
}

impl LazyDeliveries {
    /// `state` is the state folder.
    pub(super) fn new(state: &Path, access: Access) -> Self {
        let parts = Parts {
            open: opener(state, access),
            carrier: Arc::new(HttpCarrier::default()),
            clock: Arc::new(SystemClock),
            dice: Arc::new(Mutex::new(SystemDice::new())),
        };
        Self { access, room: Arc::new(Room::new(parts)) }
    }

    /// The room, for the hub.
    pub(super) fn room(&self) -> Arc<dyn Post> {
        self.room.clone()
    }

    fn may_act(&self) -> Result<(), PortError> {
        match self.access {
            Access::Act => Ok(()),
            Access::Look => Err(PortError::Never("this process only looks".to_owned())),
        }
    }
}

/// Opens the database of a state folder.
pub(super) fn opener(state: &Path, access: Access) -> OpenStore {
    let path = state.join(DATABASE);
    Arc::new(move |make| {
        let store = match access {
            Access::Look => Delivered::look(&path, Bounds::default())?,
            Access::Act if !make && !path.exists() => None,
            Access::Act => Some(Delivered::open(&path, Bounds::default())?),
        };
        Ok(store.map(|store| Arc::new(store) as Arc<dyn DeliveryStore>))
    })
}

impl Deliveries for LazyDeliveries {
    fn tallies(&self) -> Result<BTreeMap<Name, Tally>, PortError> {
        self.room.tallies().map_err(PortError::Retry)
    }
    fn take_in(&self, connection: &Name, found: &Found) -> Result<bool, PortError> {
        self.may_act()?;
        self.room.take_in(connection, found).map_err(PortError::Retry)
    }
    fn retire(&self, connection: &Name, heir: Option<&Name>) -> Result<u64, PortError> {
        self.may_act()?;
        self.room.retire(connection, heir).map_err(PortError::Retry)
    }
}
