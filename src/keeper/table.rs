//! The restart table: a pure function from (state, event) to (state, effects). No clock, no chance, no I/O: time and dice are
//! passed in, so that the simulation runs this very code.
//!
//! The shape is that of s6 and dinit: what crashed after it was healthy is restarted at once; what crashes before it is healthy
//! waits longer each time; what does so again and again is shown as looping and retried for ever, slowly.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::model::digest::Digest;
use crate::model::time::{Tick, Timestamp};
use crate::model::unit::Millis;
use crate::ports::keeper::{Exit, Phase, Policy, Process, Restart, RestartWhen};

/// What is left of a group after its leader crashed gets this long between SIGTERM and SIGKILL, or the unit's own grace if that
/// is shorter: nobody asked it to stop, so it only delays the restart.
pub const LEFTOVER_GRACE: Millis = Millis(2_000);
/// SIGKILL is repeated this often while something of the group still lives: a process that forked at the wrong moment, or sat
/// in the kernel. Nothing else is started meanwhile.
pub const KILL_AGAIN: Millis = Millis(1_000);
/// A unit that is ready again each time and crashes this often within its window is not healthy after all. Far above what a
/// person or a benchmark does by hand, far below what would keep a core busy.
pub const READY_CRASHES: usize = 100;
/// No pause after an unhealthy crash is shorter, whatever the policy says: a program that cannot even be started would keep the
/// keeper busy.
pub const SHORTEST_PAUSE: Millis = Millis(10);
/// No unit may ask for more time than this at once.
pub const LONGEST_EXTENSION: Millis = Millis::secs(3_600);
/// SIGTERM, for what a crashed leader left behind (signal(7)).
const SIGTERM: i32 = 15;

/// The moment of an event, and one roll of the dice for its jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    pub tick: Tick,
    pub wall: Timestamp,
    pub dice: u64,
}

/// One unit, as far as restarting it is concerned. Written down only for the same boot: its ticks mean nothing in another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Digest of what runs, or ran last.
    pub digest: Digest,
    /// Digest of what should run next.
    pub wanted: Digest,
    pub policy: Policy,
    pub place: Place,
    /// Restarts since it was last healthy, or changed.
    pub crashes: u32,
    /// Restarts in all.
    pub restarts: u32,
    pub last_exit: Option<(Exit, Timestamp)>,
    /// Whether the launch of `wanted` is at hand. Without it nothing is spawned.
    pub known: bool,
    /// Crashes in a row that were not healthy ones: decides the pause.
    streak: u32,
    /// Once looping, always looping, until it was healthy or is changed.
    looping: bool,
    /// When the unhealthy crashes in a row were; at most `limit` of them.
    unhealthy: VecDeque<Tick>,
    /// When the crashes of a unit that had been ready were; at most [`READY_CRASHES`].
    ready_crashes: VecDeque<Tick>,
    /// Why it is being stopped as unwell.
    #[serde(default)]
    ailment: Option<String>,
}

/// Where the unit is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    Stopped,
    Ended,
    /// `Spawn` was asked for; `Spawned` or `SpawnFailed` follows before anything else.
    Starting,
    Running {
        process: Process,
        since: Tick,
        ready: bool,
        /// It said so itself.
        notified: bool,
        /// By when it must give its next sign of life.
        due: Option<Tick>,
    },
    /// Told to stop, its main process still lives.
    Stopping {
        process: Process,
        next: Next,
    },
    /// Its main process is gone, others of its group still live. Nothing is started before they are gone too.
    Clearing {
        next: Next,
    },
    /// Crashed, to be started at `at` (unless its launch is not known).
    Waiting {
        at: Tick,
        retry_at: Timestamp,
        looping: bool,
    },
}

/// What happens when everything of the old process is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Next {
    Stop,
    /// Start what is wanted.
    Start,
    End,
    /// It was stopped as unwell; the table decides as after a crash. Says whether it had lived long enough to be healthy.
    Heal {
        healthy: bool,
    },
    /// Restart after a crash, not before `at`.
    Restart {
        at: Tick,
        retry_at: Timestamp,
        looping: bool,
    },
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one lives at a time, and only until it was taken in")]
pub enum Event {
    /// The unit should run this; its launch is at hand.
    Ensure {
        digest: Digest,
        policy: Policy,
        again: bool,
    },
    Stop,
    Spawned(Process),
    SpawnFailed(String),
    /// The main process is gone; `left` says whether others of its group live.
    Exited {
        exit: Exit,
        left: bool,
    },
    /// The last of the group is gone.
    GroupGone,
    /// The timer that was set is due.
    TimerDue,
    /// This process answered its probe.
    Ready {
        pid: u32,
    },
    /// It said `READY=1`.
    Notified,
    /// It said `WATCHDOG=1`.
    Alive,
    /// It asked for more time (`EXTEND_TIMEOUT_USEC=`).
    Extend(Millis),
    /// This process (or whichever runs, with `None`) is not well.
    Unwell {
        pid: Option<u32>,
        why: String,
    },
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start what is wanted.
    Spawn,
    /// Signal the group.
    Signal(i32),
    /// SIGKILL the group.
    KillGroup,
    /// Each unit has one timer; setting it replaces it.
    SetTimer(Tick),
    CancelTimer,
}

impl State {
    /// A unit that nobody has started yet.
    pub fn new(digest: Digest, policy: Policy) -> Self {
        Self {
            wanted: digest.clone(),
            digest,
            policy,
            place: Place::Stopped,
            crashes: 0,
            restarts: 0,
            last_exit: None,
            known: false,
            streak: 0,
            looping: false,
            unhealthy: VecDeque::new(),
            ready_crashes: VecDeque::new(),
            ailment: None,
        }
    }

    /// A unit that was found running. It is not told to be ready: the new keeper does not know.
    pub fn adopted(digest: Digest, policy: Policy, process: Process, now: Tick) -> Self {
        let due = policy.notify.as_ref().and_then(|n| n.start.or(n.watchdog)).map(|span| now + span);
        let place = Place::Running { process, since: now, ready: false, notified: false, due };
        Self { place, ..Self::new(digest, policy) }
    }

    /// Its main process, if it has one.
    pub fn process(&self) -> Option<&Process> {
        match &self.place {
            Place::Running { process, .. } | Place::Stopping { process, .. } => Some(process),
            _ => None,
        }
    }

    /// Whether something of it lives, or may.
    pub fn alive(&self) -> bool {
        matches!(self.place, Place::Starting | Place::Running { .. } | Place::Stopping { .. } | Place::Clearing { .. })
    }

    pub fn phase(&self) -> Phase {
        match &self.place {
            Place::Stopped => Phase::Stopped,
            Place::Ended => Phase::Ended,
            Place::Starting | Place::Running { .. } => Phase::Running,
            Place::Stopping { .. } | Place::Clearing { .. } => Phase::Stopping,
            Place::Waiting { retry_at, looping: true, .. } => Phase::Looping { retry_at: *retry_at },
            Place::Waiting { retry_at, looping: false, .. } => Phase::Backoff { retry_at: *retry_at },
        }
    }

    pub fn ready(&self) -> bool {
        matches!(self.place, Place::Running { ready: true, .. })
    }

    pub fn notified(&self) -> bool {
        matches!(self.place, Place::Running { notified: true, .. })
    }

    /// Applies one event. Events that do not fit the place (a late timer, a second exit) change nothing.
    pub fn on(&mut self, event: Event, now: Now) -> Vec<Effect> {
        match event {
            Event::Ensure { digest, policy, again } => self.ensure(digest, policy, again, now),
            Event::Stop => self.stop(now),
            Event::Spawned(process) if self.place == Place::Starting => {
                let due = self.policy.notify.as_ref().and_then(|n| n.start.or(n.watchdog)).map(|span| now.tick + span);
                self.place = Place::Running { process, since: now.tick, ready: false, notified: false, due };
                due.map(Effect::SetTimer).into_iter().collect()
            }
            Event::SpawnFailed(why) if self.place == Place::Starting => {
                let exit = Exit::NotSpawned(why);
                self.last_exit = Some((exit, now.wall));
                let next = self.after_crash(false, now);
                self.go(next, now)
            }
            Event::Exited { exit, left } => self.exited(exit, left, now),
            Event::GroupGone => match self.place {
                Place::Clearing { next } => {
                    let mut effects = vec![Effect::CancelTimer];
                    effects.extend(self.go(next, now));
                    effects
                }
                _ => Vec::new(),
            },
            Event::TimerDue => self.timer(now),
            Event::Ready { pid } => {
                if let Place::Running { process, ready, .. } = &mut self.place
                    && process.pid == pid
                    && !*ready
                {
                    *ready = true;
                    self.healthy();
                }
                Vec::new()
            }
            Event::Notified => self.notified_now(now),
            Event::Alive => self.alive_now(now),
            Event::Extend(span) => self.extend(span, now),
            Event::Unwell { pid, why } => self.unwell(pid, why, now),
            Event::Spawned(_) | Event::SpawnFailed(_) => Vec::new(),
        }
    }

    fn watchdog(&self) -> Option<Millis> {
        self.policy.notify.as_ref().and_then(|n| n.watchdog)
    }

    fn notified_now(&mut self, now: Now) -> Vec<Effect> {
        let next = self.watchdog().map(|span| now.tick + span);
        let Place::Running { ready, notified, due, .. } = &mut self.place else { return Vec::new() };
        if *notified {
            return Vec::new();
        }
        (*ready, *notified) = (true, true);
        let before = std::mem::replace(due, next);
        self.healthy();
        match (before, next) {
            (_, Some(at)) => vec![Effect::SetTimer(at)],
            (Some(_), None) => vec![Effect::CancelTimer],
            (None, None) => Vec::new(),
        }
    }

    fn alive_now(&mut self, now: Now) -> Vec<Effect> {
        let starts = self.policy.notify.as_ref().is_some_and(|n| n.start.is_some());
        let Some(span) = self.watchdog() else { return Vec::new() };
        let Place::Running { notified, due, .. } = &mut self.place else { return Vec::new() };
        // While it starts, its start limit counts.
        if starts && !*notified {
            return Vec::new();
        }
        *due = Some(now.tick + span);
        vec![Effect::SetTimer(now.tick + span)]
    }

    /// More time, never less. A unit that is being stopped may ask too (sd_notify(3)); while its group is cleared it is gone.
    fn extend(&mut self, span: Millis, now: Now) -> Vec<Effect> {
        let asked = now.tick + span.min(LONGEST_EXTENSION);
        match &mut self.place {
            Place::Running { due: Some(due), .. } if asked > *due => {
                *due = asked;
                vec![Effect::SetTimer(asked)]
            }
            Place::Stopping { .. } if span > self.policy.stop_grace => vec![Effect::SetTimer(asked)],
            _ => Vec::new(),
        }
    }

    fn unwell(&mut self, of: Option<u32>, why: String, now: Now) -> Vec<Effect> {
        let Place::Running { process, since, .. } = &self.place else { return Vec::new() };
        if of.is_some_and(|pid| pid != process.pid) {
            return Vec::new();
        }
        let healthy = now.tick - *since >= self.policy.restart.reset_after;
        self.ailment = Some(why);
        self.place = Place::Stopping { process: process.clone(), next: Next::Heal { healthy } };
        vec![Effect::Signal(self.policy.stop_signal), Effect::SetTimer(now.tick + self.policy.stop_grace)]
    }

    fn ensure(&mut self, digest: Digest, policy: Policy, again: bool, now: Now) -> Vec<Effect> {
        let new = again || digest != self.wanted;
        // What runs is stopped in the way that belongs to it, so the old policy says how.
        let old = std::mem::replace(&mut self.policy, policy);
        self.wanted = digest;
        self.known = true;
        if new {
            self.forget_crashes();
        }
        let restarts = self.wants_restart();
        match &mut self.place {
            Place::Running { .. } if !new => Vec::new(),
            Place::Running { process, .. } => {
                self.place = Place::Stopping { process: process.clone(), next: Next::Start };
                vec![Effect::Signal(old.stop_signal), Effect::SetTimer(now.tick + old.stop_grace)]
            }
            // A pause after a crash goes on, unless what is wanted is new.
            Place::Clearing { next: Next::Restart { .. } } | Place::Stopping { next: Next::Heal { .. }, .. }
                if !new =>
            {
                Vec::new()
            }
            Place::Clearing { next: Next::End } if !new && !restarts => Vec::new(),
            Place::Stopping { next, .. } | Place::Clearing { next } => {
                *next = Next::Start;
                Vec::new()
            }
            Place::Waiting { .. } if new => {
                let mut effects = vec![Effect::CancelTimer];
                effects.extend(self.spawn());
                effects
            }
            Place::Waiting { .. } => self.waits_on(now),
            Place::Ended if !new && !restarts => Vec::new(),
            Place::Ended | Place::Stopped => {
                self.forget_crashes();
                self.spawn()
            }
            Place::Starting => Vec::new(),
        }
    }

    /// A waiting unit got its launch, or another policy.
    fn waits_on(&mut self, now: Now) -> Vec<Effect> {
        let Place::Waiting { at, retry_at, .. } = &mut self.place else { return Vec::new() };
        if self.policy.restart.when == RestartWhen::Never {
            self.place = Place::Ended;
            return vec![Effect::CancelTimer];
        }
        let latest = now.tick + self.policy.restart.max;
        if *at > latest {
            *at = latest;
            *retry_at = later(now.wall, self.policy.restart.max);
        }
        let at = *at;
        if at <= now.tick {
            let mut effects = vec![Effect::CancelTimer];
            effects.extend(self.restart());
            return effects;
        }
        vec![Effect::SetTimer(at)]
    }

    fn stop(&mut self, now: Now) -> Vec<Effect> {
        match &mut self.place {
            Place::Running { process, .. } => {
                self.place = Place::Stopping { process: process.clone(), next: Next::Stop };
                vec![Effect::Signal(self.policy.stop_signal), Effect::SetTimer(now.tick + self.policy.stop_grace)]
            }
            Place::Stopping { next, .. } | Place::Clearing { next } => {
                *next = Next::Stop;
                Vec::new()
            }
            Place::Waiting { .. } => {
                self.place = Place::Stopped;
                vec![Effect::CancelTimer]
            }
            Place::Ended => {
                self.place = Place::Stopped;
                Vec::new()
            }
            Place::Stopped | Place::Starting => Vec::new(),
        }
    }

    fn exited(&mut self, exit: Exit, left: bool, now: Now) -> Vec<Effect> {
        match &self.place {
            Place::Running { since, ready, due, .. } => {
                let mut effects: Vec<Effect> = due.map(|_| Effect::CancelTimer).into_iter().collect();
                let old_enough = now.tick - *since >= self.policy.restart.reset_after;
                if old_enough {
                    self.ready_crashes.clear();
                }
                let healthy = old_enough || (*ready && self.note_ready_crash(now.tick));
                self.last_exit = Some((exit, now.wall));
                let next = self.after_crash(healthy, now);
                if !left {
                    effects.extend(self.go(next, now));
                    return effects;
                }
                self.place = Place::Clearing { next };
                vec![Effect::Signal(SIGTERM), Effect::SetTimer(now.tick + self.policy.stop_grace.min(LEFTOVER_GRACE))]
            }
            Place::Stopping { next, .. } => {
                let mut next = *next;
                self.last_exit = Some((exit, now.wall));
                if let Next::Heal { healthy } = next {
                    let why = self.ailment.take().unwrap_or_default();
                    self.last_exit = Some((Exit::Unwell(why), now.wall));
                    next = self.after_crash(healthy, now);
                }
                if left {
                    // The group was told to stop together with its leader; its grace goes on.
                    self.place = Place::Clearing { next };
                    return Vec::new();
                }
                let mut effects = vec![Effect::CancelTimer];
                effects.extend(self.go(next, now));
                effects
            }
            _ => Vec::new(),
        }
    }

    fn timer(&mut self, now: Now) -> Vec<Effect> {
        match self.place {
            Place::Stopping { .. } | Place::Clearing { .. } => {
                vec![Effect::KillGroup, Effect::SetTimer(now.tick + KILL_AGAIN)]
            }
            Place::Running { due: Some(due), .. } if due > now.tick => vec![Effect::SetTimer(due)],
            Place::Running { due: Some(_), notified, .. } => self.unwell(None, self.silence(notified), now),
            Place::Waiting { at, .. } if at <= now.tick => self.restart(),
            Place::Waiting { at, .. } if self.known => vec![Effect::SetTimer(at)],
            _ => Vec::new(),
        }
    }

    /// What is said of a unit that did not speak in time.
    fn silence(&self, notified: bool) -> String {
        let notify = self.policy.notify.clone().unwrap_or_default();
        match (notify.start, notify.watchdog) {
            (Some(start), _) if !notified => format!("it did not say READY=1 within {start}"),
            (_, Some(watchdog)) => format!("it did not say WATCHDOG=1 for {watchdog}"),
            _ => "it gave no sign of life".to_owned(),
        }
    }

    /// Everything of the old process is gone: what now.
    fn go(&mut self, next: Next, now: Now) -> Vec<Effect> {
        match next {
            Next::Stop => {
                self.place = Place::Stopped;
                Vec::new()
            }
            Next::End => {
                self.place = Place::Ended;
                Vec::new()
            }
            // Decided when its process ended; without that there is nothing to heal.
            Next::Start | Next::Heal { .. } => self.spawn(),
            Next::Restart { at, .. } if at <= now.tick && self.known => self.restart(),
            Next::Restart { at, retry_at, looping } => {
                self.place = Place::Waiting { at, retry_at, looping };
                if self.known { vec![Effect::SetTimer(at)] } else { Vec::new() }
            }
        }
    }

    fn spawn(&mut self) -> Vec<Effect> {
        self.digest = self.wanted.clone();
        self.place = Place::Starting;
        vec![Effect::Spawn]
    }

    fn restart(&mut self) -> Vec<Effect> {
        if !self.known {
            return Vec::new();
        }
        self.restarts = self.restarts.saturating_add(1);
        self.spawn()
    }

    /// Whether the policy starts again what ended like this.
    fn wants_restart(&self) -> bool {
        self.policy.restart.restarts(self.last_exit.as_ref().map(|(exit, _)| exit))
    }

    /// Decides what follows a crash (or an end) that nobody asked for. `last_exit` is set already.
    fn after_crash(&mut self, healthy: bool, now: Now) -> Next {
        if healthy {
            self.healthy();
        }
        if !self.wants_restart() {
            return Next::End;
        }
        self.crashes = self.crashes.saturating_add(1);
        if healthy {
            return Next::Restart { at: now.tick, retry_at: now.wall, looping: false };
        }
        self.streak = self.streak.saturating_add(1);
        let restart = &self.policy.restart;
        let limit = restart.limit.max(1) as usize;
        self.unhealthy.push_back(now.tick);
        while self.unhealthy.len() > limit {
            self.unhealthy.pop_front();
        }
        let within = self.unhealthy.front().is_some_and(|first| now.tick - *first <= restart.window);
        self.looping = self.looping || (self.unhealthy.len() >= limit && within);
        let pause = if self.looping { restart.max } else { pause(restart, self.streak - 1) };
        let pause = jittered(pause, now.dice).max(SHORTEST_PAUSE);
        Next::Restart { at: now.tick + pause, retry_at: later(now.wall, pause), looping: self.looping }
    }

    /// Notes that a ready unit crashed; says whether it still counts as healthy.
    fn note_ready_crash(&mut self, now: Tick) -> bool {
        self.ready_crashes.push_back(now);
        while self.ready_crashes.len() > READY_CRASHES {
            self.ready_crashes.pop_front();
        }
        let window = self.policy.restart.window;
        let within = self.ready_crashes.front().is_some_and(|first| now - *first <= window);
        !(within && self.ready_crashes.len() >= READY_CRASHES)
    }

    fn healthy(&mut self) {
        self.crashes = 0;
        self.streak = 0;
        self.looping = false;
        self.unhealthy.clear();
    }

    fn forget_crashes(&mut self) {
        self.healthy();
        self.ready_crashes.clear();
    }
}

/// The pause before the attempt after `before` unhealthy crashes: initial x factor^before, at most max.
fn pause(restart: &Restart, before: u32) -> Millis {
    let factor = u64::from(restart.factor.max(1)).saturating_pow(before);
    Millis(restart.initial.0.saturating_mul(factor).min(restart.max.0))
}

/// Up to 10 % more or less, so that what crashed together does not come back together.
fn jittered(pause: Millis, dice: u64) -> Millis {
    let per_mille = 900 + dice % 201;
    Millis(u64::try_from(u128::from(pause.0) * u128::from(per_mille) / 1_000).unwrap_or(u64::MAX))
}

fn later(wall: Timestamp, span: Millis) -> Timestamp {
    Timestamp(wall.0.saturating_add(i64::try_from(span.0).unwrap_or(i64::MAX)))
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "table_model.rs"]
mod model;
