//! What the engine remembers between ticks and may forget with the process: attempts and their pauses, missing documents that
//! still need a second look. Everything that must survive is in the ledger.

use std::collections::{BTreeMap, BTreeSet};

use crate::kinds::connection::plan::Stuck;
use crate::model::digest::Digest;
use crate::model::id::{Name, ResourceId};
use crate::model::output::NoteLine;
use crate::model::time::{Tick, Timestamp};
use crate::model::unit::Millis;

/// First and longest pause between attempts at the same step.
pub const FIRST_PAUSE: Millis = Millis(1_000);
pub const LONGEST_PAUSE: Millis = Millis(300_000);
/// After so many attempts in a row without success a resource counts as stalled.
pub const STALLED_AFTER: u32 = 10;
/// After so many, a run that must end stops waiting for it.
pub const HOPELESS_AFTER: u32 = 3;
/// A document that vanished counts as removed only if it is still missing after this: editors save by renaming.
pub const SECOND_LOOK: Millis = Millis(100);

/// A service that was replaced and is not ready after this is not waited for by others that are to be replaced.
pub const REPLACED: Millis = Millis(60_000);

/// Attempts at one step.
#[derive(Clone, Debug)]
struct Tries {
    /// What makes it the same step: action, reason, what is to run. Another key starts anew.
    key: String,
    count: u32,
    not_before: Tick,
    /// Until when an attempt that seemed to work is remembered: what comes back sooner is the same trouble.
    until: Tick,
    failure: Option<String>,
}

/// So many versions in a row are applied at once: people save often.
const VERSIONS_AT_ONCE: u32 = 3;
/// And another one whenever so much time has passed, three in a minute: people do not save that often for long, and something
/// that changes its own files does.
const ANOTHER_VERSION: Millis = Millis(20_000);

/// The same action for the same reason, again and again with another version of what is to run.
#[derive(Clone, Debug)]
struct Changes {
    /// The key without the version.
    what: String,
    version: String,
    /// How often in a row there was another version. It shrinks with time.
    count: u32,
    /// Since when the count stands.
    since: Tick,
    not_before: Tick,
}

impl Changes {
    /// How many there are now that count.
    fn count(&self, now: Tick) -> u32 {
        let since = self.since.max(self.not_before);
        if now <= since {
            return self.count;
        }
        self.count.saturating_sub(u32::try_from((now - since).0 / ANOTHER_VERSION.0).unwrap_or(u32::MAX))
    }
}

/// What is tried, and the version of it: the last word of a key.
fn split(key: &str) -> (&str, &str) {
    key.rsplit_once(' ').unwrap_or((key, ""))
}

/// An attempt at a step.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    pub id: &'a ResourceId,
    pub action: &'static str,
    pub key: &'a str,
    /// It puts right what moved by itself, and may move again: somebody may be working against us.
    pub against_drift: bool,
}

/// So long a removal counts against the budget of later ones.
pub const PRUNE_WINDOW: Millis = Millis(600_000);

/// The engine's memory.
#[derive(Debug, Default)]
pub struct Memory {
    tries: BTreeMap<(ResourceId, &'static str), Tries>,
    changes: BTreeMap<(ResourceId, &'static str), Changes>,
    missing: BTreeMap<ResourceId, Tick>,
    /// Removals that were admitted by the budget and are under way.
    pub admitted: BTreeSet<ResourceId>,
    /// When removals within the budget were admitted.
    removals: BTreeMap<ResourceId, Tick>,
    /// When a death of a unit was last told.
    deaths: BTreeMap<Name, Tick>,
    /// Services that a person asked to restart.
    pub requested: BTreeSet<Name>,
    /// Connections that a person asked to get another token.
    pub renew: BTreeSet<Name>,
    /// Notes at their vaults whose event never arrived, as last counted.
    pub stuck: BTreeMap<Name, Stuck>,
    /// How often in a row nothing could be done while something was unsettled.
    pub relooks: u32,
    /// Services that were replaced, and when; until they are ready again.
    replaced: BTreeMap<Name, Tick>,
    /// When the version of a service that is on trial now was first seen.
    trials: BTreeMap<Name, (Digest, Tick)>,
    /// Resources with open steps, until a look has resolved them.
    pub reopened: BTreeSet<ResourceId>,
    /// When each override ends by the clock that never jumps, and which one is meant: a wall clock that is set back must not
    /// make it longer.
    pub ends: BTreeMap<ResourceId, (Timestamp, Tick)>,
    /// What a person is told with the next report.
    pub notes: Vec<NoteLine>,
}

/// What is noted of one resource, whatever the action.
fn of<'a, 'b, T>(
    all: &'a BTreeMap<(ResourceId, &'static str), T>,
    id: &'b ResourceId,
) -> impl Iterator<Item = (&'a (ResourceId, &'static str), &'a T)> + use<'a, 'b, T> {
    all.range((id.clone(), "")..).take_while(move |((other, _), _)| other == id)
}

impl Memory {
    /// How long this step still has to wait.
    pub fn pause(&self, id: &ResourceId, action: &'static str, key: &str, now: Tick) -> Option<Millis> {
        let of = (id.clone(), action);
        let tries = self.tries.get(&of).filter(|t| t.key == key).map(|t| t.not_before);
        let changes = self.changes.get(&of).filter(|c| c.what == split(key).0).map(|c| c.not_before);
        let left = tries.max(changes)? - now;
        (left.0 > 0).then_some(left)
    }

    /// Notes the version that is applied. What has another one every time (it writes one of its own files as it starts) gets
    /// pauses too: the attempts at each version alone would never be more than one.
    fn changed(&mut self, of: (ResourceId, &'static str), key: &str, now: Tick, dice: u64) {
        let (what, version) = split(key);
        let fresh = || Changes { what: what.into(), version: version.into(), count: 0, since: now, not_before: now };
        let changes = self.changes.entry(of).or_insert_with(fresh);
        if changes.what != what {
            *changes = fresh();
        }
        if changes.version == version {
            return;
        }
        let count = changes.count(now).saturating_add(1);
        let pauses = count.saturating_sub(VERSIONS_AT_ONCE);
        let not_before = if pauses > 0 { now + pause_after(pauses, dice) } else { now };
        *changes = Changes { count, not_before, ..fresh() };
    }

    /// Notes an attempt. `dice` spreads the pauses, so that what failed together is not tried together.
    pub fn tried(&mut self, attempt: Attempt<'_>, failure: Option<String>, now: Tick, dice: u64) {
        let Attempt { id, action, key, against_drift } = attempt;
        self.changed((id.clone(), action), key, now, dice);
        let fresh = || Tries { key: key.to_owned(), count: 0, not_before: now, until: now, failure: None };
        let tries = self.tries.entry((id.clone(), action)).or_insert_with(fresh);
        if tries.key != key {
            *tries = fresh();
        }
        tries.count = tries.count.saturating_add(1);
        let pause = pause_after(tries.count, dice);
        tries.not_before = now + pause;
        tries.until = if against_drift { now + pause + pause } else { now };
        tries.failure = failure;
    }

    /// All is well with it: earlier attempts do not count any more, but for those against drift, which have to last a while.
    pub fn settled(&mut self, id: &ResourceId, now: Tick) {
        let over = |(_, tries): &(&(ResourceId, &'static str), &Tries)| now >= tries.until;
        let tries: Vec<_> = of(&self.tries, id).filter(over).map(|(key, _)| key.clone()).collect();
        tries.iter().for_each(|key| drop(self.tries.remove(key)));
        let over = |(_, changes): &(&(ResourceId, &'static str), &Changes)| {
            changes.count(now) == 0 && (now - changes.since) >= ANOTHER_VERSION
        };
        let changes: Vec<_> = of(&self.changes, id).filter(over).map(|(key, _)| key.clone()).collect();
        changes.iter().for_each(|key| drop(self.changes.remove(key)));
    }

    /// A service is replaced.
    pub fn replace(&mut self, name: &Name, now: Tick) {
        self.replaced.insert(name.clone(), now);
    }

    /// The services that were replaced and may not be ready yet. One that takes too long holds nobody up.
    pub fn replacing(&mut self, now: Tick) -> BTreeSet<Name> {
        self.replaced.retain(|_, since| (now - *since) < REPLACED);
        self.replaced.keys().cloned().collect()
    }

    /// These alone are still on their way.
    pub fn still_replacing(&mut self, names: &BTreeSet<&Name>) {
        self.replaced.retain(|name, _| names.contains(name));
    }

    /// For how long this version has been on trial. The clock begins when it `runs`; while that is unknown (the process that is
    /// stopped may be that of the version before) it only goes on, and what does not run begins anew.
    pub fn trial(&mut self, name: &Name, digest: &Digest, runs: Option<bool>, now: Tick) -> Millis {
        match (self.trials.get(name), runs) {
            (_, Some(false)) => {
                self.trials.remove(name);
                Millis(0)
            }
            (Some((known, since)), _) if known == digest => now - *since,
            (_, Some(true)) => {
                self.trials.insert(name.clone(), (digest.clone(), now));
                Millis(0)
            }
            (_, None) => Millis(0),
        }
    }

    /// Its version is not on trial.
    pub fn no_trial(&mut self, name: &Name) {
        self.trials.remove(name);
    }

    /// What is neither declared nor owned any more has no attempts.
    pub fn forget_others(&mut self, known: impl Fn(&ResourceId) -> bool) {
        self.tries.retain(|(id, _), _| known(id));
        self.changes.retain(|(id, _), _| known(id));
    }

    /// How often the most tried step of a resource was tried in a row, and what it last failed with. While a step `waits`, the
    /// versions that came and went count too.
    pub fn attempts(&self, id: &ResourceId, waits: bool) -> (u32, Option<&str>) {
        let of_it = of(&self.tries, id).map(|(_, tries)| tries);
        let (count, failure) =
            of_it.fold((0, None), |(count, failure), t| (count.max(t.count), t.failure.as_deref().or(failure)));
        let changes = of(&self.changes, id).filter(|_| waits);
        let changed = changes.map(|(_, changes)| changes.count.saturating_sub(VERSIONS_AT_ONCE)).max();
        (count.max(changed.unwrap_or(0)), failure)
    }

    /// Notes removals that the budget admitted.
    pub fn removing(&mut self, ids: impl Iterator<Item = ResourceId>, now: Tick) {
        self.removals.extend(ids.map(|id| (id, now)));
    }

    /// What was removed within the window and still counts.
    pub fn removed_recently(&mut self, now: Tick) -> BTreeSet<ResourceId> {
        self.removals.retain(|_, at| (now - *at) < PRUNE_WINDOW);
        self.removals.keys().cloned().collect()
    }

    /// Notes that a death is told now; or says how long that has to wait, because the last one was told only just.
    pub fn told_death(&mut self, unit: &Name, now: Tick, quiet: Millis) -> Option<Millis> {
        let next = self.deaths.get(unit).map(|last| *last + quiet);
        if let Some(next) = next.filter(|next| now < *next) {
            return Some(next - now);
        }
        self.deaths.insert(unit.clone(), now);
        None
    }

    /// Splits missing documents into those missed long enough and those that need a second look.
    pub fn confirm_missing(&mut self, missing: BTreeSet<ResourceId>, now: Tick) -> (BTreeSet<ResourceId>, bool) {
        self.missing.retain(|id, _| missing.contains(id));
        let mut waiting = false;
        let mut confirmed = BTreeSet::new();
        for id in missing {
            let since = *self.missing.entry(id.clone()).or_insert(now);
            if (now - since) >= SECOND_LOOK {
                confirmed.insert(id);
            } else {
                waiting = true;
            }
        }
        // A deletion that is still going on is judged as a whole, when it has come to rest.
        if waiting { (BTreeSet::new(), true) } else { (confirmed, false) }
    }
}

/// Exponential from [`FIRST_PAUSE`] to [`LONGEST_PAUSE`], with 10 % jitter either way.
fn pause_after(count: u32, dice: u64) -> Millis {
    let doubled = FIRST_PAUSE.0.saturating_mul(1 << count.saturating_sub(1).min(20));
    let base = doubled.min(LONGEST_PAUSE.0);
    let tenth = base / 10;
    Millis(base - tenth + dice % (2 * tenth + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::{KindName, Name};

    fn id() -> ResourceId {
        ResourceId::new(KindName::Service, Name::new("a").expect("a name"))
    }

    fn attempt(id: &ResourceId, against_drift: bool) -> Attempt<'_> {
        Attempt { id, action: "spawn", key: "k", against_drift }
    }

    #[test]
    fn pauses_grow_to_the_longest_and_start_anew_for_another_step() {
        let mut memory = Memory::default();
        let mut last = Millis(0);
        for _ in 0..20 {
            memory.tried(attempt(&id(), false), None, Tick(0), 0);
            let pause = memory.pause(&id(), "spawn", "k", Tick(0)).expect("waits");
            assert!(pause >= last, "{pause} after {last}");
            last = pause;
        }
        assert!(last <= Millis(LONGEST_PAUSE.0 * 11 / 10));
        assert_eq!(memory.pause(&id(), "spawn", "other", Tick(0)), None);
        memory.settled(&id(), Tick(0));
        assert_eq!(memory.pause(&id(), "spawn", "k", Tick(0)), None);
    }

    #[test]
    fn one_good_look_does_not_end_a_fight() {
        let (mut memory, id) = (Memory::default(), id());
        let mut now = Tick(0);
        let mut tried = 0;
        // Put right, found right, found wrong again, ten times a second for a minute.
        while now < Tick(60_000) {
            if memory.pause(&id, "spawn", "k", now).is_none() {
                memory.tried(attempt(&id, true), None, now, 0);
                tried += 1;
            }
            memory.settled(&id, now);
            now = now + Millis(100);
        }
        assert!((5..8).contains(&tried), "tried {tried} times");
        memory.settled(&id, now + Millis(200_000));
        assert_eq!(memory.attempts(&id, false), (0, None), "after a long peace it begins anew");
    }

    #[test]
    fn what_is_another_version_every_time_gets_pauses_and_saving_often_does_not() {
        let id = id();
        let live = |every: Millis, until: Tick| {
            let (mut memory, mut now, mut tried) = (Memory::default(), Tick(0), Vec::new());
            while now < until {
                let key = format!("InputChanged 0 {}", now.0);
                if memory.pause(&id, "restart", &key, now).is_none() {
                    memory.tried(Attempt { id: &id, action: "restart", key: &key, against_drift: false }, None, now, 0);
                    tried.push(now.0);
                }
                now = now + every;
                memory.settled(&id, now);
            }
            (tried, memory.attempts(&id, true).0)
        };
        let (tried, attempts) = live(Millis(20), Tick(60_000));
        assert_eq!(tried[..4], [0, 20, 40, 60], "the first few at once");
        assert!((7..14).contains(&tried.len()), "tried {tried:?}");
        assert!(attempts >= HOPELESS_AFTER);
        let (tried, attempts) = live(Millis(20_000), Tick(600_000));
        assert_eq!((tried.len(), attempts), (30, 0), "somebody works on it: {tried:?}");
    }

    #[test]
    fn a_document_that_comes_back_was_never_missing() {
        let mut memory = Memory::default();
        let all = BTreeSet::from([id()]);
        assert_eq!(memory.confirm_missing(all.clone(), Tick(0)), (BTreeSet::new(), true));
        assert_eq!(memory.confirm_missing(BTreeSet::new(), Tick(50)), (BTreeSet::new(), false));
        assert_eq!(memory.confirm_missing(all.clone(), Tick(120)), (BTreeSet::new(), true));
        assert_eq!(memory.confirm_missing(all.clone(), Tick(220)), (all, false));
    }
}
