//! The pretend deliveries: a queue that outlives us, and a worker that does not. It delivers whatever the hub knows where to bring.

use std::collections::{BTreeMap, BTreeSet};

use super::fate::Lot;
use super::world::Pretend;
use crate::model::id::Name;
use crate::model::time::Timestamp;
use crate::ports::PortError;
use crate::ports::deliveries::{Deliveries, Found, Tally};
use crate::ports::hub::Wish;

/// What is true of the pretend queue.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    /// How the events of each connection stand.
    pub tallies: BTreeMap<Name, Tally>,
    /// What was taken in, by connection: the same again is no news.
    pub taken: BTreeMap<Name, BTreeSet<String>>,
    /// Connections whose sink takes nothing.
    pub stuck: BTreeSet<Name>,
    /// Connections that were retired, as often as they were.
    pub retired: Vec<Name>,
}

impl Queue {
    /// An event comes in.
    pub fn accept(&mut self, connection: &Name, id: &str, at: Timestamp) {
        if self.taken.entry(connection.clone()).or_default().insert(id.to_owned()) {
            let tally = self.tallies.entry(connection.clone()).or_default();
            tally.waiting += 1;
            tally.oldest.get_or_insert(at);
        }
    }

    /// What waits and what is dead is the heir's from now on, but for what it has already. Delivered ones stay.
    fn bequeath(&mut self, connection: &Name, heir: &Name) -> u64 {
        let Some(tally) = self.tallies.get_mut(connection) else { return 0 };
        let (waiting, dead) = (std::mem::take(&mut tally.waiting), std::mem::take(&mut tally.dead));
        let oldest = tally.oldest.take();
        let heirs = self.tallies.entry(heir.clone()).or_default();
        heirs.waiting += waiting;
        heirs.dead += dead;
        heirs.oldest = [heirs.oldest, oldest].into_iter().flatten().min();
        waiting
    }

    /// What the hub knows where to bring is brought there.
    pub(super) fn step(&mut self, wish: Option<&Wish>) {
        let Some(wish) = wish else { return };
        for (name, tally) in &mut self.tallies {
            let open = wish.connections.get(name).is_some_and(|wiring| !wiring.suspended);
            if tally.waiting > 0 && open && !self.stuck.contains(name) {
                tally.delivered += std::mem::take(&mut tally.waiting);
            }
            if tally.waiting == 0 {
                tally.oldest = None;
            }
        }
    }
}

impl Deliveries for Pretend {
    fn tallies(&self) -> Result<BTreeMap<Name, Tally>, PortError> {
        if self.fate.deal("deliveries.tallies") != Lot::Go {
            return Err(PortError::Retry("fate: the database of events could not be read".to_owned()));
        }
        let earth = &mut *self.earth.borrow_mut();
        earth.queue.step(earth.town.wish.as_ref());
        Ok(earth.queue.tallies.clone())
    }
    fn take_in(&self, connection: &Name, found: &Found) -> Result<bool, PortError> {
        let at = self.earth.borrow().wall();
        self.fate.effect("deliveries.takeIn", || {
            let queue = &mut self.earth.borrow_mut().queue;
            let body = found.body.reveal().to_owned();
            let news = queue.taken.entry(connection.clone()).or_default().insert(body);
            if news {
                let tally = queue.tallies.entry(connection.clone()).or_default();
                tally.waiting += 1;
                tally.oldest.get_or_insert(at);
            }
            Ok(news)
        })
    }
    fn retire(&self, connection: &Name, heir: Option<&Name>) -> Result<u64, PortError> {
        self.fate.effect("deliveries.retire", || {
            let queue = &mut self.earth.borrow_mut().queue;
            queue.retired.push(connection.clone());
            if let Some(heir) = heir.filter(|heir| *heir != connection) {
                return Ok(queue.bequeath(connection, heir));
            }
            let Some(tally) = queue.tallies.get_mut(connection) else { return Ok(0) };
            let waiting = std::mem::take(&mut tally.waiting);
            tally.dead += waiting;
            tally.oldest = None;
            Ok(waiting)
        })
    }
}
