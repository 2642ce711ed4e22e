//! What died by itself since we last looked, as events. The keeper restarts it and tells nobody; we compare its counts with those
//! that the ledger holds, so that a death is told once, whoever looked in between, and however long ago it was.

use std::collections::BTreeMap;

use super::look::Looked;
use super::{Engine, EngineError};
use crate::model::condition::Reason;
use crate::model::event::{Cause, Event};
use crate::model::id::{Name, ResourceId};
use crate::model::observed::Observed;
use crate::model::time::Timestamp;
use crate::model::unit::Millis;
use crate::ports::keeper::{Phase, Unit};

/// The ledger's name for the counts.
const SETTING: &str = "deaths";
/// What dies again and again gets one line in this time; the line says how often.
const QUIET: Millis = Millis(1_000);

/// Deaths by unit, as far as they were told; a unit that never died has no entry.
type Counts = BTreeMap<Name, u32>;

/// How often it died by itself. A crash whose restart is still to come counts already.
fn count(unit: &Unit) -> u32 {
    let waits = matches!(unit.phase, Phase::Backoff { .. } | Phase::Looping { .. });
    unit.restarts.saturating_add(u32::from(waits))
}

/// The event for a unit that died more often than was told.
fn event(unit: &Unit, told: u32, at: Timestamp) -> Option<Event> {
    let times = count(unit).checked_sub(told).filter(|times| *times > 0)?;
    let exit = unit.last_exit.as_ref().map_or_else(|| "exit code unknown".to_owned(), ToString::to_string);
    let how = if times == 1 { format!("died ({exit})") } else { format!("died {times} times (last: {exit})") };
    let (reason, then) = match (&unit.phase, &unit.process) {
        (Phase::Backoff { retry_at }, _) => (Reason::Restarting, format!(", started again at {retry_at}")),
        (Phase::Looping { retry_at }, _) => (Reason::CrashLoop, format!(", tried again at {retry_at}")),
        (Phase::Running, Some(process)) => (Reason::Restarting, format!(", restarted, pid {}", process.pid)),
        _ => (Reason::Restarting, String::new()),
    };
    let resource = ResourceId::service(&unit.name);
    Some(Event { seq: 0, at, resource, reason, cause: Cause::Drift, message: format!("{how}{then}") })
}

impl Engine {
    /// Tells of deaths and writes them down. Also says when to look again for what was not told yet because it was too soon.
    pub(super) fn tell_deaths(&mut self, looked: &Looked) -> Result<(Vec<Event>, Option<Millis>), EngineError> {
        let stored = self.world.store.get(SETTING)?;
        let before: Counts = stored.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let (now, wall) = (self.world.clock.now(), self.world.clock.wall());
        let mut counts = Counts::new();
        let (mut events, mut wait) = (Vec::new(), None);
        for (name, seen) in &looked.seen {
            let told = before.get(name).copied().unwrap_or_default();
            let unit = match seen {
                Observed::Present(state) => state.unit.as_ref(),
                Observed::Absent => None,
                Observed::Unknown(_) => {
                    counts.extend((told > 0).then(|| (name.clone(), told)));
                    continue;
                }
            };
            let Some(unit) = unit else { continue };
            let mut seen = count(unit);
            if let Some(event) = event(unit, told, wall) {
                match self.memory.told_death(name, now, QUIET) {
                    None => events.push(event),
                    Some(left) => {
                        seen = told;
                        wait = wait.min(Some(left)).or(Some(left));
                    }
                }
            }
            counts.extend((seen > 0).then(|| (name.clone(), seen)));
        }
        // Who is not looked at in this tick (a document that is just being moved) has not died anew when it is seen again.
        let unseen = before.iter().filter(|(name, _)| !looked.seen.contains_key(*name));
        let kept = unseen.filter(|(name, _)| looked.owned.contains_key(&ResourceId::service(name)));
        counts.extend(kept.map(|(name, told)| (name.clone(), *told)));
        if !events.is_empty() {
            self.world.store.record(&events)?;
        }
        if counts != before {
            let text = serde_json::to_string(&counts).expect("names and numbers");
            self.world.store.set(SETTING, &text)?;
        }
        Ok((events, wait))
    }
}
