//! Overrides: taking them, taking them back, and letting them end. They are in the ledger, so they outlive whoever took them.

use std::collections::BTreeMap;

use super::{Engine, EngineError};
use crate::model::condition::Reason;
use crate::model::event::{Cause, Event};
use crate::model::id::ResourceId;
use crate::model::output::NoteLine;
use crate::model::overriding::{Against, Override, OverrideRequest};
use crate::model::time::Timestamp;
use crate::ports::store::Owned;

impl Engine {
    /// Takes a person's wish for a while, or takes an earlier one back. What came of it without a step is told in the next report.
    ///
    /// # Errors
    /// When the ledger fails.
    pub fn override_services(&mut self, request: &OverrideRequest) -> Result<(), EngineError> {
        let now = self.world.clock.wall();
        let there = self.world.store.overrides()?;
        let owned = self.world.store.owned()?;
        let (desired, _) = self.desire(&owned);
        for name in &request.names {
            let resource = ResourceId::service(name);
            let before = there.iter().find(|over| over.resource == resource && over.in_force(now));
            let spec = desired.resources.get(&resource).and_then(|r| r.spec.as_service());
            let suspended = spec.is_some_and(|spec| spec.suspend.holds(now));
            let stopped = before.is_some_and(|over| over.wish == Against::Stop);
            if request.wish == Against::Start && !suspended {
                if stopped {
                    self.world.store.drop_overrides(std::slice::from_ref(&resource))?;
                    self.tell(&resource, "`trueup stop` was taken back".to_owned(), now)?;
                } else {
                    let message = "nothing to take back: its file says run, and nobody stopped it";
                    self.memory.notes.push(note(&resource, message));
                }
                continue;
            }
            let until = Timestamp(now.0.saturating_add_unsigned(request.span.0));
            let reason = request.reason.clone();
            let over = Override { resource: resource.clone(), wish: request.wish, reason, since: now, until };
            self.world.store.put_override(&over)?;
            self.memory.ends.remove(&resource);
            self.tell(&resource, format!("{} until {until}", over.by()), now)?;
        }
        Ok(())
    }

    fn tell(&self, resource: &ResourceId, message: String, at: Timestamp) -> Result<(), EngineError> {
        let (reason, cause) = (Reason::Overridden, Cause::Intent);
        Ok(self.world.store.record(&[Event { seq: 0, at, resource: resource.clone(), reason, cause, message }])?)
    }

    /// The overrides in force. In a run that acts, those that are over are removed, and so are those of services that are neither
    /// declared nor owned any more.
    pub(super) fn overrides(
        &mut self,
        known: impl Fn(&ResourceId) -> bool,
        owned: &BTreeMap<ResourceId, Owned>,
        dry: bool,
    ) -> Result<BTreeMap<ResourceId, Override>, EngineError> {
        let (wall, tick) = (self.world.clock.wall(), self.world.clock.now());
        let mut in_force = BTreeMap::new();
        let mut over = Vec::new();
        for one in self.world.store.overrides()? {
            // The clock that never jumps bounds it too, for as long as we live.
            let end = tick + one.left(wall);
            let ends = self.memory.ends.entry(one.resource.clone()).or_insert((one.since, end));
            if ends.0 != one.since {
                *ends = (one.since, end);
            }
            let (wanted, id) = (known(&one.resource) || owned.contains_key(&one.resource), one.resource.clone());
            if wanted && one.in_force(wall) && tick < ends.1 {
                in_force.insert(id, one);
            } else {
                over.push((id, wanted, one.wish));
            }
        }
        if !dry && !over.is_empty() {
            let ids: Vec<ResourceId> = over.iter().map(|(id, _, _)| id.clone()).collect();
            self.world.store.drop_overrides(&ids)?;
            for (id, wanted, wish) in over {
                self.memory.ends.remove(&id);
                if wanted {
                    self.tell(&id, format!("the time of `trueup {}` is over", wish.as_str()), wall)?;
                }
            }
        }
        Ok(in_force)
    }
}

pub(super) fn note(resource: &ResourceId, message: &str) -> NoteLine {
    NoteLine { resource: resource.clone(), reason: Reason::Overridden, message: message.to_owned() }
}
