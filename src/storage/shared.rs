//! What the engine's side and the mover's threads share: the wish, whether to go on, how fast, and what was found.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::pace::Bucket;
use super::progress::Meter;
use crate::model::id::Name;
use crate::model::time::{Tick, Timestamp};
use crate::model::unit::{Bytes, Millis};
use crate::ports::blobs::{Backend, BackendError, Index, Latches, Location};
use crate::ports::clock::{Clock, Dice};
use crate::ports::storage::{Finding, Health, Intent, Motion, Told};

/// How a backend is made of what a manifest says of it. It does not reach out yet.
pub type Open = dyn Fn(&Location) -> Result<Arc<dyn Backend>, BackendError> + Send + Sync;

/// What the mover stands on.
#[derive(Clone)]
pub struct Parts {
    pub index: Arc<dyn Index>,
    pub latches: Arc<dyn Latches>,
    pub open: Arc<Open>,
    pub clock: Arc<dyn Clock + Send + Sync>,
    pub dice: Arc<Mutex<dyn Dice + Send>>,
    /// Rung when the engine should look again: another health, another motion, a finding.
    pub bell: Arc<dyn Fn() + Send + Sync>,
}

impl Parts {
    pub(super) fn roll(&self) -> u64 {
        locked(&self.dice).roll()
    }
}

/// Findings that nobody asked for yet. The oldest go first: what they say is in the index as well.
const MAX_FINDINGS: usize = 512;
/// So long at most one wait for bandwidth lasts before it is looked at again.
const NAP: Millis = Millis(250);

/// The one place where the two sides meet.
pub(super) struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    /// The mover is to end.
    ended: AtomicBool,
    suspended: AtomicBool,
    /// Counts wishes; whoever works on an older one looks again.
    round: AtomicU64,
    copying: Limit,
    scrubbing: Limit,
    pub(super) meter: Meter,
    bell: Arc<dyn Fn() + Send + Sync>,
}

/// A limit that may change at any time; zero is none.
#[derive(Default)]
struct Limit {
    rate: AtomicU64,
    bucket: Mutex<Bucket>,
}

/// What a limit is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    Copying,
    Scrubbing,
    /// Reading back what was just written, which no limit is for.
    Proving,
}

struct State {
    intent: Option<Arc<Intent>>,
    health: BTreeMap<Name, Health>,
    motion: Motion,
    findings: VecDeque<Told>,
    /// The newest round in which every backend was looked at, and the newest in which every finding was.
    proved: u64,
    treated: u64,
}

pub(super) fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(bell: Arc<dyn Fn() + Send + Sync>) -> Self {
        let state = State {
            intent: None,
            health: BTreeMap::new(),
            motion: Motion::Asleep,
            findings: VecDeque::new(),
            proved: 0,
            treated: 0,
        };
        Self {
            state: Mutex::new(state),
            wake: Condvar::new(),
            ended: AtomicBool::new(false),
            suspended: AtomicBool::new(false),
            round: AtomicU64::new(0),
            copying: Limit::default(),
            scrubbing: Limit::default(),
            meter: Meter::default(),
            bell,
        }
    }

    /// Whether this is another wish than the last one.
    pub(super) fn tell(&self, intent: &Intent) -> bool {
        let mut state = locked(&self.state);
        if state.intent.as_deref() == Some(intent) {
            return false;
        }
        let rate = |limit: Option<Bytes>| limit.map_or(0, |limit| limit.0.max(1));
        self.copying.rate.store(rate(intent.settings.bandwidth), Ordering::Relaxed);
        self.scrubbing.rate.store(rate(intent.settings.scrub_bandwidth), Ordering::Relaxed);
        self.suspended.store(intent.settings.suspended, Ordering::Relaxed);
        state.health.retain(|name, _| intent.places.contains_key(name));
        state.intent = Some(Arc::new(intent.clone()));
        drop(state);
        self.look_again();
        true
    }

    pub(super) fn look_again(&self) {
        let state = locked(&self.state);
        self.round.fetch_add(1, Ordering::SeqCst);
        drop(state);
        self.wake.notify_all();
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.look_again();
    }

    pub(super) fn ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Whether a copy under way is to stop at its next piece.
    pub(super) fn halted(&self) -> bool {
        self.ended() || self.suspended.load(Ordering::Relaxed)
    }

    pub(super) fn round(&self) -> u64 {
        self.round.load(Ordering::SeqCst)
    }

    pub(super) fn intent(&self) -> Option<Arc<Intent>> {
        locked(&self.state).intent.clone()
    }

    /// Waits for another round than this one, or for a span; `None` waits without one.
    pub(super) fn wait(&self, round: u64, span: Option<Millis>) {
        let state = locked(&self.state);
        let same = |_: &mut State| self.round() == round && !self.ended();
        match span {
            None => drop(self.wake.wait_while(state, same)),
            Some(span) => drop(self.wake.wait_timeout_while(state, Duration::from_millis(span.0), same)),
        }
    }

    pub(super) fn proved(&self, round: u64) {
        locked(&self.state).proved = round;
        self.wake.notify_all();
    }

    pub(super) fn treated(&self, round: u64) {
        let before = std::mem::replace(&mut locked(&self.state).treated, round);
        if before != round {
            (self.bell)();
        }
    }

    /// Whether findings are still to be looked at by the newest wish.
    pub(super) fn busy(&self) -> bool {
        let state = locked(&self.state);
        state.intent.is_some() && state.treated < self.round()
    }

    /// Waits until the backends of the newest wish were looked at, or for a span.
    pub(super) fn wait_for_proofs(&self, span: Millis) {
        let state = locked(&self.state);
        let waits = |state: &mut State| state.proved < self.round() && !self.ended();
        drop(self.wake.wait_timeout_while(state, Duration::from_millis(span.0), waits));
    }

    /// The limit on copying, if there is one.
    pub(super) fn copying_rate(&self) -> Option<Bytes> {
        Some(self.copying.rate.load(Ordering::Relaxed)).filter(|rate| *rate > 0).map(Bytes)
    }

    /// Pays for bytes that were read, by waiting.
    pub(super) fn pay(&self, clock: &dyn Clock, what: Reading, bytes: u64) {
        let limit = match what {
            Reading::Copying => &self.copying,
            Reading::Scrubbing => &self.scrubbing,
            Reading::Proving => return,
        };
        let rate = || Some(limit.rate.load(Ordering::Relaxed)).filter(|rate| *rate > 0).map(Bytes);
        if rate().is_none() {
            return;
        }
        {
            let mut bucket = locked(&limit.bucket);
            *bucket = bucket.spend(clock.now(), rate(), bytes);
        }
        while !self.halted() {
            let wait = locked(&limit.bucket).wait(clock.now(), rate());
            if wait == Millis(0) {
                return;
            }
            self.wait(self.round(), Some(wait.min(NAP)));
        }
    }

    pub(super) fn health(&self) -> BTreeMap<Name, Health> {
        locked(&self.state).health.clone()
    }

    pub(super) fn set_health(&self, place: &Name, health: Health) {
        let before = locked(&self.state).health.insert(place.clone(), health.clone());
        if before != Some(health) {
            (self.bell)();
        }
    }

    pub(super) fn motion(&self) -> Motion {
        locked(&self.state).motion.clone()
    }

    pub(super) fn set_motion(&self, motion: Motion) {
        let before = std::mem::replace(&mut locked(&self.state).motion, motion.clone());
        if before != motion {
            (self.bell)();
        }
    }

    pub(super) fn find(&self, at: Timestamp, what: Finding) {
        let mut state = locked(&self.state);
        if state.findings.len() == MAX_FINDINGS {
            state.findings.pop_front();
        }
        state.findings.push_back(Told { at, what });
        drop(state);
        (self.bell)();
    }

    pub(super) fn findings(&self) -> Vec<Told> {
        locked(&self.state).findings.drain(..).collect()
    }
}

/// The wall clock at a tick to come.
pub(super) fn wall_at(clock: &dyn Clock, tick: Tick) -> Timestamp {
    let ahead = i64::try_from((tick - clock.now()).0).unwrap_or(i64::MAX);
    Timestamp(clock.wall().0.saturating_add(ahead))
}
