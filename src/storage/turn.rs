//! What the mover does next. A turn looks at everything anew, does one bounded piece of work, and says when it wants another; nothing is
//! kept between turns that could not be found again.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::batch::Job;
use super::pace::{Pace, backoff};
use super::probe::{Owner, probe, whose};
use super::shared::{Parts, Reading, Shared, wall_at};
use super::work::{Outcome, pass};
use crate::model::digest::Digest;
use crate::model::id::Name;
use crate::model::time::Tick;
use crate::model::unit::Millis;
use crate::ports::blobs::{Backend, BackendError, Fault, Finish, IndexError, Latch, Lease, Standing, Trouble};
use crate::ports::storage::{Finding, Health, Intent, Motion, Place};

/// The notes of backends that were tried: what each is called, and the digest of the place.
pub(super) const PROVEN: &str = "proven:";
/// The notes of backends that could not be used last: a word, and why. An empty one says that it is over.
pub(super) const UNWELL: &str = "unwell:";
pub(super) const REFUSED: &str = "refused ";
pub(super) const FAILING: &str = "failing ";
/// How often objects without a good copy are looked at again: a backend may have come back, or the blob may have been put anew.
const TROUBLE_EVERY: Millis = Millis(600_000);
/// So often in a row another process may take the lease before we wait as after a failure.
const FENCES: u32 = 3;

/// When the next turn is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Again,
    At(Tick),
    /// When something else is wished.
    Told,
}

impl Next {
    /// The earlier of two.
    #[must_use]
    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Again, _) | (_, Self::Again) => Self::Again,
            (Self::At(one), Self::At(two)) => Self::At(one.min(two)),
            (Self::At(at), Self::Told) | (Self::Told, Self::At(at)) => Self::At(at),
            (Self::Told, Self::Told) => Self::Told,
        }
    }
}

/// A backend as the mover knows it.
pub(super) struct Known {
    /// Of everything that is said about it.
    digest: Digest,
    pub backend: Option<Arc<dyn Backend>>,
    pub health: Health,
    /// Whether it is worth asking for a copy. What is full or may not be written can still be read.
    readable: bool,
    failures: u32,
    due: Option<Tick>,
}

/// The mover without its thread: whoever calls [`Core::turn`] is it.
pub struct Core {
    pub(super) parts: Parts,
    pub(super) shared: Arc<Shared>,
    round: Option<u64>,
    pub(super) places: BTreeMap<Name, Known>,
    pace: Pace,
    holding: Option<(Box<dyn Latch>, Lease)>,
    failures: u32,
    /// So often in a row another process had the lock.
    blocked: u32,
    fences: u32,
    /// When objects with a finding are looked at again, and old copies, and listings, and old verifications.
    trouble_due: Tick,
    pub(super) sweep_due: Option<Tick>,
    pub(super) scrub_due: Option<Tick>,
    pub(super) buffer: Vec<u8>,
}

impl Core {
    pub(super) fn new(parts: Parts, shared: Arc<Shared>) -> Self {
        Self {
            parts,
            shared,
            round: None,
            places: BTreeMap::new(),
            pace: Pace::new(None),
            holding: None,
            failures: 0,
            blocked: 0,
            fences: 0,
            trouble_due: Tick(0),
            sweep_due: None,
            scrub_due: None,
            buffer: Vec::new(),
        }
    }

    pub(super) fn now(&self) -> Tick {
        self.parts.clock.now()
    }

    /// Does one piece of work, as long as a pass over what is to be moved.
    pub fn turn(&mut self) -> Next {
        let round = self.shared.round();
        let Some(intent) = self.shared.intent() else { return Next::Told };
        if self.shared.ended() {
            self.holding = None;
            return Next::Told;
        }
        let now = self.now();
        if self.round != Some(round) {
            self.round = Some(round);
            (self.failures, self.fences, self.trouble_due) = (0, 0, now);
            (self.sweep_due, self.scrub_due) = (Some(now), Some(now));
            self.pace = self.pace.with(intent.settings.concurrency);
        }
        let next = match self.step(&intent) {
            Ok(next) => {
                self.fences = 0;
                next
            }
            Err(IndexError::Fenced) => {
                self.holding = None;
                self.fences += 1;
                if self.fences <= FENCES { Next::Again } else { self.wait(IndexError::Fenced.to_string()) }
            }
            Err(IndexError::Broken(why)) => self.wait(IndexError::Broken(why).to_string()),
        };
        // After a turn that ended, there is nothing that this wish has not looked at; a finding that is due is not looked at yet.
        if next != Next::Again || self.trouble_due > now {
            self.shared.treated(round);
        }
        // Who waits leaves the way free for others.
        if next != Next::Again {
            self.holding = None;
        }
        next
    }

    fn step(&mut self, intent: &Intent) -> Result<Next, IndexError> {
        let probes = self.prove_places(intent)?;
        self.shared.proved(self.round.unwrap_or_default());
        if intent.settings.suspended {
            self.shared.set_motion(Motion::Suspended);
            return Ok(probes);
        }
        let standing = self.parts.index.standing()?;
        let work = match standing.target.clone() {
            Some(target) => self.migrate(intent, &standing, &target)?,
            None => self.look_after(intent, &standing)?,
        };
        Ok(work.or(probes))
    }

    /// The right to move, taken when there is work. `None` when another process has it.
    pub(super) fn lease(&mut self) -> Result<Option<Lease>, IndexError> {
        if let Some((_, lease)) = &self.holding {
            return Ok(Some(*lease));
        }
        let Some(latch) = self.parts.latches.moving()? else { return Ok(None) };
        let lease = self.parts.index.lease()?;
        self.blocked = 0;
        self.holding = Some((latch, lease));
        Ok(Some(lease))
    }

    pub(super) fn elsewhere(&mut self) -> Next {
        self.shared.set_motion(Motion::Elsewhere);
        self.blocked += 1;
        Next::At(self.now() + backoff(self.blocked, self.parts.roll()))
    }

    fn wait(&mut self, why: String) -> Next {
        self.failures += 1;
        let next = Next::At(self.now() + backoff(self.failures, self.parts.roll()));
        self.waits(why, next)
    }

    fn waits(&self, why: String, next: Next) -> Next {
        let at = if let Next::At(at) = next { at } else { self.now() + TROUBLE_EVERY };
        self.shared.set_motion(Motion::Waiting { why, retry_at: wall_at(self.parts.clock.as_ref(), at) });
        Next::At(at)
    }

    /// Opens and tries what is new, changed, or due for another try. When the next try is due.
    fn prove_places(&mut self, intent: &Intent) -> Result<Next, IndexError> {
        self.places.retain(|name, known| intent.places.get(name).is_some_and(|place| place.digest == known.digest));
        let mut next = Next::Told;
        for (name, place) in &intent.places {
            let now = self.now();
            let due = self.places.get(name).is_none_or(|known| known.due.is_some_and(|due| due <= now));
            if due && !self.shared.ended() {
                self.prove(name, place)?;
            }
            if let Some(due) = self.places.get(name).and_then(|known| known.due) {
                next = next.or(Next::At(due));
            }
        }
        Ok(next)
    }

    fn prove(&mut self, name: &Name, place: &Place) -> Result<(), IndexError> {
        let before = self.places.remove(name);
        let failures = before.as_ref().map_or(0, |known| known.failures);
        let opened = match before.and_then(|known| known.backend) {
            Some(backend) => Ok(backend),
            None => (self.parts.open)(&place.location),
        };
        let note = format!("{PROVEN}{name}");
        // What was proven before a restart is not written to again; what failed since is.
        let proven = failures == 0 && self.parts.index.note(&note)?.as_deref() == Some(place.digest.as_str());
        let standing = self.parts.index.standing()?;
        let objects = standing.tallies.get(name).map_or(0, |tally| tally.objects);
        // Whose it is, is asked in each life: a disk that is not there looks like an empty folder, and nothing is missing from that.
        let ours = opened.clone().and_then(|backend| whose(backend.as_ref(), &standing.owner, objects));
        let tried = match (&opened, &ours) {
            (Ok(_), Ok(Owner::Us)) if proven => Ok(()),
            (Ok(backend), Ok(_)) => probe(backend.as_ref(), &standing.owner, || self.parts.roll()),
            (Err(error), _) | (_, Err(error)) => Err(error.clone()),
        };
        if tried.is_ok() && !proven {
            self.parts.index.set_note(&note, place.digest.as_str())?;
        }
        let readable = ours.is_ok() && !matches!(tried, Err(BackendError::Transient(_)));
        let known = Known {
            digest: place.digest.clone(),
            backend: opened.ok(),
            health: Health::Proven(place.digest.clone()),
            readable,
            failures,
            due: None,
        };
        self.places.insert(name.clone(), known);
        match tried {
            Ok(()) => self.well(name),
            Err(error) => self.unwell(name, &error),
        }
        Ok(())
    }

    fn well(&mut self, name: &Name) {
        let now = self.now();
        if let Some(known) = self.places.get_mut(name) {
            known.failures = 0;
            let health = known.health.clone();
            let note = format!("{UNWELL}{name}");
            if self.parts.index.note(&note).is_ok_and(|found| found.is_some_and(|text| !text.is_empty())) {
                let _ = self.parts.index.set_note(&note, "");
            }
            self.shared.set_health(name, health);
            (self.sweep_due, self.scrub_due) = (Some(now), Some(now));
        }
    }

    /// Says that a backend does not do its work, and when it is tried again.
    pub(super) fn unwell(&mut self, name: &Name, error: &BackendError) {
        let (now, roll) = (self.now(), self.parts.roll());
        let Some(known) = self.places.get_mut(name) else { return };
        known.failures += 1;
        let due = now + backoff(known.failures, roll);
        known.due = Some(due);
        known.health = match error {
            BackendError::Refused(why) => Health::Refused(why.clone()),
            other => Health::Failing { why: other.to_string(), retry_at: wall_at(self.parts.clock.as_ref(), due) },
        };
        let health = known.health.clone();
        self.note_unwell(name, &error.to_string(), matches!(health, Health::Refused(_)));
        self.shared.set_health(name, health);
    }

    /// Writes down for other processes why a backend cannot be used. That is for people, so a failure to do so changes nothing.
    fn note_unwell(&self, name: &Name, why: &str, refused: bool) {
        let (note, word) = (format!("{UNWELL}{name}"), if refused { REFUSED } else { FAILING });
        let _ = self.parts.index.set_note(&note, &format!("{word}{why}"));
    }

    /// Backends that can be read, whatever else is wrong with them.
    pub(super) fn readable(&self) -> BTreeMap<Name, Arc<dyn Backend>> {
        let readable = self.places.iter().filter(|(_, known)| known.readable);
        readable.filter_map(|(name, known)| Some((name.clone(), known.backend.clone()?))).collect()
    }

    /// Why nothing can be written to a backend now.
    fn unusable(&self, name: &Name) -> Option<String> {
        match self.places.get(name).map(|known| &known.health) {
            Some(Health::Proven(_)) => None,
            Some(Health::Unproven) => Some(format!("the backend '{name}' has not been tried yet")),
            Some(Health::Refused(why) | Health::Failing { why, .. }) => Some(format!("the backend '{name}': {why}")),
            None => Some(format!("the backend '{name}' is not declared")),
        }
    }

    fn migrate(&mut self, intent: &Intent, standing: &Standing, target: &Name) -> Result<Next, IndexError> {
        if let Some(why) = self.unusable(target) {
            let due = self.places.get(target).and_then(|known| known.due);
            let next = due.map_or(Next::At(self.now() + TROUBLE_EVERY), Next::At);
            return Ok(self.waits(why, next));
        }
        let Some(lease) = self.lease()? else { return Ok(self.elsewhere()) };
        self.shared.set_motion(Motion::Moving);
        let condemned = self.condemn(intent, lease)?;
        if condemned {
            let standing = self.parts.index.standing()?;
            self.treat(intent, &standing, lease)?;
            return Ok(Next::Again);
        }
        let others = standing.tallies.iter().filter(|(place, _)| *place != target);
        let movable: u64 = others.map(|(_, tally)| tally.objects.saturating_sub(tally.troubled)).sum();
        if movable > 0 {
            let outcome = self.pass(lease, target)?;
            if let Some(next) = self.after_pass(target, &outcome) {
                return Ok(next);
            }
        }
        if standing.troubled() > 0 && self.treat(intent, standing, lease)? {
            return Ok(Next::Again);
        }
        match self.parts.index.finish(lease, target, self.parts.clock.wall())? {
            Finish::Done => {
                self.failures = 0;
                (self.sweep_due, self.scrub_due) = (Some(self.now()), Some(self.now()));
                // The engine hears of it from the index.
                (self.parts.bell)();
                Ok(Next::Again)
            }
            Finish::Left(left) => {
                let troubled = self.parts.index.standing()?.troubled();
                if troubled < left {
                    // Somebody added what is elsewhere since; the next pass finds it.
                    return Ok(self.wait(format!("{} objects are not at '{target}' yet", left - troubled)));
                }
                let why = format!(
                    "{left} objects have no good copy, and everything else is at '{target}'; put them again, bring back a backend \
                     that has them, or give them up by naming them in `abandon`"
                );
                Ok(self.waits(why, Next::At(self.trouble_due)))
            }
        }
    }

    fn pass(&mut self, lease: Lease, target: &Name) -> Result<Outcome, IndexError> {
        let backends = self.readable();
        let parts = self.parts.clone();
        let job = Job {
            index: parts.index.as_ref(),
            clock: parts.clock.as_ref(),
            shared: &self.shared,
            lease,
            target,
            backends: &backends,
            what: Reading::Copying,
        };
        pass(&job, &mut self.pace, self.round.unwrap_or_default(), &mut self.buffer)
    }

    /// What to do after a pass; `None` to go on with what is left to do for this migration.
    fn after_pass(&mut self, target: &Name, outcome: &Outcome) -> Option<Next> {
        if outcome.moved > 0 {
            self.failures = 0;
        }
        if outcome.interrupted {
            return Some(Next::Again);
        }
        if let Some(error) = &outcome.stuck {
            // A word that was lost on the way is no reason to stop while others arrive.
            if outcome.moved > 0 && matches!(error, BackendError::Transient(_)) {
                return Some(Next::Again);
            }
            // What passes every try and fails every object waits longer each time too.
            if let Some(known) = self.places.get_mut(target) {
                known.failures = known.failures.max(self.failures);
            }
            self.failures += 1;
            self.unwell(target, error);
            let due = self.places.get(target).and_then(|known| known.due);
            let next = due.map_or(Next::Again, Next::At);
            return Some(self.waits(format!("the backend '{target}': {error}"), next));
        }
        if outcome.moved > 0 || outcome.troubled > 0 {
            return Some(Next::Again);
        }
        let error = outcome.later_why.as_ref()?;
        Some(self.wait(format!("{} objects cannot be read where they are: {error}", outcome.later)))
    }

    /// What the wish gives up and lies on a backend that refuses everything counts as missing: nobody else can say that it is gone for good.
    fn condemn(&mut self, intent: &Intent, lease: Lease) -> Result<bool, IndexError> {
        let mut condemned = false;
        if self.now() < self.trouble_due {
            return Ok(condemned);
        }
        for key in &intent.settings.abandon {
            let Some(row) = self.parts.index.find(key)?.map(|entry| entry.row).filter(|row| row.trouble.is_none())
            else {
                continue;
            };
            let Some(Health::Refused(why)) = self.places.get(&row.place).map(|known| &known.health) else { continue };
            let detail = format!("its backend cannot be used ({why})");
            let trouble = Trouble { fault: Fault::Missing, detail, since: self.parts.clock.wall() };
            condemned |= self.parts.index.trouble(lease, &row.object.name, &row.place, &trouble)?;
        }
        Ok(condemned)
    }

    /// Objects with a finding: tried again when that is due, and given up where the wish says so. Whether anything changed.
    pub(super) fn treat(&mut self, intent: &Intent, standing: &Standing, lease: Lease) -> Result<bool, IndexError> {
        if self.now() < self.trouble_due {
            return Ok(false);
        }
        let cured = self.cure(standing, lease)?;
        if cured == 0 && !self.shared.halted() {
            self.trouble_due = self.now() + TROUBLE_EVERY;
        }
        if cured > 0 || intent.settings.abandon.is_empty() {
            return Ok(cured > 0);
        }
        let at = self.parts.clock.wall();
        let abandoned = self.parts.index.abandon(lease, &intent.settings.abandon, at)?;
        for entry in &abandoned {
            self.shared.find(at, Finding::Abandoned { key: entry.key.clone() });
        }
        Ok(!abandoned.is_empty())
    }

    /// Nothing is to be moved: findings, old copies, listings, verifications.
    fn look_after(&mut self, intent: &Intent, standing: &Standing) -> Result<Next, IndexError> {
        let trouble = standing.troubled() > 0;
        let mut next = Next::Told;
        if trouble && self.now() >= self.trouble_due {
            let Some(lease) = self.lease()? else { return Ok(self.elsewhere()) };
            if self.treat(intent, standing, lease)? {
                return Ok(Next::Again);
            }
        }
        if trouble {
            next = next.or(Next::At(self.trouble_due));
        }
        for work in [Self::sweep, Self::scrub] {
            next = next.or(work(self, intent, standing)?);
            if next == Next::Again {
                return Ok(next);
            }
        }
        if self.shared.motion() != Motion::Elsewhere || self.holding.is_some() {
            self.shared.set_motion(Motion::Idle);
        }
        Ok(next)
    }
}
