//! The pretend deliveries: a queue that outlives us, and a worker that does not. Every look delivers one event of each connection that is let.

use std::collections::{BTreeMap, BTreeSet};

use super::fate::Lot;
use super::world::Pretend;
use crate::model::id::Name;
use crate::ports::PortError;
use crate::ports::deliveries::{Deliveries, Found, Tally};

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
    fn step(&mut self) {
        for (name, tally) in &mut self.tallies {
            if tally.waiting > 0 && !self.stuck.contains(name) {
                tally.waiting -= 1;
                tally.delivered += 1;
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
        let queue = &mut self.earth.borrow_mut().queue;
        queue.step();
        Ok(queue.tallies.clone())
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
    fn retire(&self, connection: &Name) -> Result<u64, PortError> {
        self.fate.effect("deliveries.retire", || {
            let queue = &mut self.earth.borrow_mut().queue;
            queue.retired.push(connection.clone());
            let Some(tally) = queue.tallies.get_mut(connection) else { return Ok(0) };
            let waiting = std::mem::take(&mut tally.waiting);
            tally.dead += waiting;
            tally.oldest = None;
            Ok(waiting)
        })
    }
}
