//! Ticks until everything is settled, or nothing more can be hoped for, or the time is over.

use std::collections::BTreeSet;

use super::report::Report;
use super::{Engine, EngineError, Mode};
use crate::model::event::Cause;
use crate::model::id::{Name, ResourceId};
use crate::model::output::{OutcomeWord, StepLine, Summary};
use crate::model::time::Tick;
use crate::model::unit::Millis;
use crate::ports::Answer;

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rang {
    /// Something happened; it does not say what.
    Woken,
    /// The time is over.
    Time,
    /// A person or the service manager wants us to end.
    Cancelled,
}

/// What the engine waits on between ticks. Rings that come while nobody waits are not lost.
pub trait Bell {
    /// Waits for a ring, at most so long.
    fn wait(&self, at_most: Millis) -> Answer<'_, Rang>;
}

/// How long to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Until<'a> {
    pub timeout: Millis,
    /// Only these services, and what they need, decide when it is over; all do when there are none.
    pub only: &'a [Name],
}

/// How often the progress of blobs is looked at while somebody watches: looking is to cost a twentieth of the time at most.
pub fn glance_every(took: Millis) -> Millis {
    Millis(took.0.saturating_mul(20)).max(Millis(500))
}

/// How long somebody still waits. While blobs are moved, time does not run: it is counted from the last one.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    since: Tick,
    done: u64,
}

impl Patience {
    pub fn new(begun: Tick) -> Self {
        Self { since: begun, done: 0 }
    }

    pub fn saw(&mut self, report: &Report, now: Tick) {
        let done = report.progress.as_ref().map_or(0, |progress| progress.done);
        if done > self.done {
            self.since = now;
        }
        self.done = done;
    }

    pub fn left(&self, timeout: Millis, now: Tick) -> Millis {
        Millis(timeout.0.saturating_sub((now - self.since).0))
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Settled,
    /// What is left will not come right by waiting.
    Doomed,
    TimedOut,
    Cancelled,
}

/// Follows a run: steps as they finish, reports as they are made.
pub trait Watcher {
    fn step(&mut self, line: &StepLine);
    fn report(&mut self, report: &Report);
}

/// Counts over several ticks. A step that is done several times (because it failed, or drifted again) counts once.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    begun: Tick,
    planned: BTreeSet<(ResourceId, String)>,
    changed: BTreeSet<(ResourceId, String)>,
    drift: BTreeSet<ResourceId>,
    pruned: BTreeSet<ResourceId>,
}

impl Totals {
    pub fn from(begun: Tick) -> Self {
        Self { begun, ..Self::default() }
    }

    /// Nothing was planned yet.
    pub fn is_empty(&self) -> bool {
        self.planned.is_empty()
    }

    /// Adds a tick.
    pub fn add(&mut self, report: &Report) {
        for step in report.steps.iter().chain(&report.later) {
            self.planned.insert((step.resource.clone(), step.action.clone()));
            if step.cause == Cause::Drift {
                self.drift.insert(step.resource.clone());
            }
        }
        let changed = report.steps.iter().filter(|s| s.outcome == OutcomeWord::Changed);
        self.changed.extend(changed.map(|s| (s.resource.clone(), s.action.clone())));
        self.drift.extend(report.drifted.iter().cloned());
        self.pruned.extend(report.pruned.iter().cloned());
    }

    /// The summary of everything so far, standing as the last report says.
    pub fn summary(&self, last: &Report, now: Tick) -> Summary {
        Summary {
            planned: self.planned.len(),
            changed: self.changed.len(),
            drift: self.drift.len(),
            pruned: self.pruned.len(),
            in_sync: last.settled && !last.invalid() && last.refusal.is_none() && last.held.is_empty(),
            duration_ms: (now - self.begun).0,
            ..last.summary()
        }
    }
}

impl Engine {
    /// Ticks until settled, doomed, cancelled, or out of time.
    ///
    /// # Errors
    /// As [`Engine::tick`].
    pub async fn converge(
        &mut self,
        bell: &dyn Bell,
        mode: Mode,
        until: Until<'_>,
        watcher: &mut dyn Watcher,
    ) -> Result<(Verdict, Report, Summary), EngineError> {
        let clock = self.world().clock.clone();
        let begun = clock.now();
        let mut totals = Totals::from(begun);
        let mut patience = Patience::new(begun);
        let mut kick = true;
        loop {
            let looked = clock.now();
            let report = self.tick(Mode { kick, ..mode }, &mut |line| watcher.step(line)).await?;
            // A tree that is being rewritten was not looked at.
            kick &= report.busy.is_some();
            totals.add(&report);
            let (steps, ms) = (report.steps.len(), (clock.now() - looked).0);
            tracing::info!(steps, ms, settled = report.settled, "looked");
            patience.saw(&report, clock.now());
            let left = patience.left(until.timeout, clock.now()).0;
            let seen = if until.only.is_empty() { &report } else { &report.of(until.only) };
            watcher.report(seen);
            let verdict = match seen {
                r if r.settled => Some(Verdict::Settled),
                r if r.doomed => Some(Verdict::Doomed),
                _ if left == 0 => Some(Verdict::TimedOut),
                _ => None,
            };
            if let Some(verdict) = verdict {
                let summary = totals.summary(seen, clock.now());
                return Ok((verdict, seen.clone(), summary));
            }
            let relook = if report.progress.is_some() { glance_every(clock.now() - looked) } else { Millis(u64::MAX) };
            let pause = report.next.unwrap_or(Millis(250)).min(relook).0.min(left);
            if pause > 0 && bell.wait(Millis(pause)).await == Rang::Cancelled {
                let summary = totals.summary(&report, clock.now());
                return Ok((Verdict::Cancelled, report, summary));
            }
        }
    }
}
