//! One tick: look, plan, check, do, record. On a converged machine it does nothing and writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use tracing::Instrument;
use tracing::field::Empty;

use super::frozen;
use super::look::Looked;
use super::memory::{HOPELESS_AFTER, STALLED_AFTER};
use super::report::{Report, wait_line};
use super::storage;
use super::stuck::{GOING_ON, pace};
use super::{Engine, EngineError, Mode, Sink};
use crate::desired::Held;
use crate::kinds::Spec;
use crate::kinds::path::tidy;
use crate::kinds::service::observe::State;
use crate::kinds::service::plan::{PORT_GRACE, STEADY};
use crate::kinds::service::trial::Trial;
use crate::kinds::standing::Standing;
use crate::model::condition::{Condition, ConditionStatus, ConditionType, Reason};
use crate::model::event::{Cause, Event};
use crate::model::id::{KindName, Name, ResourceId};
use crate::model::observed::Observed;
use crate::model::output::{OutcomeWord, ResourceLine, StepLine};
use crate::model::time::Timestamp;
use crate::model::unit::Millis;
use crate::plan::status::{self, Circumstance};
use crate::plan::{self, CheckedPlan, Hours, Input, Plan, hours, record_of, wave};
use crate::ports::keeper::Phase;

/// Looking again while something is unsettled: dense at first, then sparse. Wake-ups come earlier; this is the safety net.
const FIRST_RELOOK: Millis = Millis(250);
const LAST_RELOOK: Millis = Millis(15_000);
/// How often vaults are asked for their triggers.
const TIES_INTERVAL: Millis = Millis(30_000);

impl Engine {
    /// One look-plan-act round. Finished steps go to the sink as they finish.
    ///
    /// # Errors
    /// When the ledger fails, or the plan breaks its own rules. Nothing is half-recorded then.
    pub async fn tick(&mut self, mode: Mode, sink: Sink<'_>) -> Result<Report, EngineError> {
        let span = tracing::debug_span!("tick", steps = Empty, settled = Empty);
        let report = Box::pin(self.round(mode, sink)).instrument(span.clone()).await?;
        // Signed: spans know no other numbers.
        let steps = i64::try_from(report.steps.len()).unwrap_or(i64::MAX);
        span.record("steps", steps).record("settled", report.settled);
        Ok(report)
    }

    async fn round(&mut self, mode: Mode, sink: Sink<'_>) -> Result<Report, EngineError> {
        let mut looked = self.look(mode).await?;
        if let (Some(busy), false) = (&looked.busy, mode.dry || mode.down) {
            let report = Report {
                busy: Some(busy.clone()),
                next: Some(Millis(500)),
                sources: looked.desired.sources.clone(),
                ..Report::default()
            };
            return Ok(report);
        }
        self.hear_storage(&mut looked, mode);
        self.memory.reopened.extend(looked.open.iter().map(|line| line.resource.clone()));
        let trials = self.trials(&looked);
        let replacing = self.memory.replacing(self.world.clock.now());
        let requested = std::mem::take(&mut self.memory.requested);
        let now = self.world.clock.now();
        let recent = self.memory.removed_recently(now);
        let mut plan = plan::make(&self.input(&looked, &requested, &recent, &trials, &replacing, mode));
        if !looked.unanswered.is_empty() && needs_answers(&plan, &looked, mode) {
            self.hear(&mut looked, mode).await;
            plan = plan::make(&self.input(&looked, &requested, &recent, &trials, &replacing, mode));
        }
        let input = self.input(&looked, &requested, &recent, &trials, &replacing, mode);
        let checked = plan::check(plan, &input).map_err(|broken| EngineError::Plan(broken.join("; ")))?;
        self.memory.requested = requested;
        self.memory.still_replacing(&wave::replacing(checked.plan(), &replacing));
        if !checked.plan().by_number {
            // What a person's number allowed was never the budget's; what goes on is counted already.
            let fresh: Vec<_> = checked.plan().pruned.difference(&self.memory.admitted).cloned().collect();
            self.memory.removing(fresh.into_iter().filter(|id| plan::counts(id.kind)), now);
        }
        self.memory.admitted.clone_from(&checked.plan().pruned);
        let unheard = &checked.plan().unheard;
        self.memory.requested.retain(|name| !unheard.contains(name));
        if mode.dry {
            return self.report(&looked, &checked, super::execute::Executed::default(), &trials, mode);
        }
        // Best effort: if it fails, the keeper thinks less of the process, and the next tick says it again.
        let _ = self.tell_ready(&looked).await;
        self.tell_hub(&looked, checked.plan(), mode);
        self.settle_requests(checked.plan(), mode).await;
        let executed = self.execute(&checked, &looked, sink).await?;
        self.tell_storage(&looked, mode);
        self.close_open(&looked)?;
        self.report(&looked, &checked, executed, &trials, mode)
    }

    fn input<'a>(
        &'a self,
        looked: &'a Looked,
        requested: &'a BTreeSet<Name>,
        recent: &'a BTreeSet<ResourceId>,
        trials: &'a BTreeMap<Name, Trial>,
        replacing: &'a BTreeSet<Name>,
        mode: Mode,
    ) -> Input<'a> {
        Input {
            desired: &looked.desired,
            owned: &looked.owned,
            leaving: &looked.leaving,
            seen: &looked.seen,
            ports: &looked.ports,
            requested,
            reopened: &self.memory.reopened,
            admitted: &self.memory.admitted,
            recent,
            down: mode.down,
            kick: mode.kick,
            allow_prune: mode.allow_prune,
            home: &looked.home,
            trials,
            replacing,
            now: looked.wall,
            overrides: &looked.overrides,
            storage: looked.storage.as_ref(),
            hub: &looked.standing,
            ties: looked.ties.as_ref(),
        }
    }

    /// The versions that are applied and not proven yet, of services that can go back.
    fn trials(&mut self, looked: &Looked) -> BTreeMap<Name, Trial> {
        let now = self.world.clock.now();
        let mut trials = BTreeMap::new();
        for (id, resource) in &looked.desired.resources {
            let rollback = resource.spec.as_service().and_then(|spec| spec.rollback);
            let on_trial = rollback.filter(|_| resource.held.is_none()).and_then(|rollback| {
                let owned = looked.owned.get(id).filter(|owned| owned.digest == resource.digest)?;
                let proven = record_of(Some(owned)).and_then(|record| record.proven);
                let unproven = proven.as_ref().is_none_or(|proven| proven.digest != owned.digest);
                unproven.then_some((rollback.after, proven.is_some()))
            });
            match on_trial {
                Some((window, fallback)) => {
                    let spent = self.memory.trial(&id.name, &resource.digest, tried(looked, id), now);
                    trials.insert(id.name.clone(), Trial { window, spent, fallback });
                }
                None => self.memory.no_trial(&id.name),
            }
        }
        trials
    }

    /// Steps that a crash left open are resolved by having looked: what they did or did not do was part of this look.
    fn close_open(&mut self, looked: &Looked) -> Result<(), EngineError> {
        if self.recovered {
            return Ok(());
        }
        let unknown = |id: &ResourceId| matches!(looked.seen.get(&id.name), Some(Observed::Unknown(_)));
        let resolved: Vec<_> = looked.open.iter().filter(|l| !unknown(&l.resource)).map(|l| l.step.clone()).collect();
        self.recovered = resolved.len() == looked.open.len();
        if !resolved.is_empty() {
            self.world.store.close_open(&resolved, self.world.clock.wall())?;
        }
        if self.recovered {
            self.memory.reopened.clear();
        }
        Ok(())
    }

    fn report(
        &mut self,
        looked: &Looked,
        checked: &CheckedPlan,
        executed: super::execute::Executed,
        trials: &BTreeMap<Name, Trial>,
        mode: Mode,
    ) -> Result<Report, EngineError> {
        let plan = checked.plan();
        let mut report = Report {
            problems: looked.desired.problems.iter().chain(&plan.problems).cloned().collect(),
            sources: looked.desired.sources.clone(),
            refusal: plan.refusal.clone(),
            by_number: plan.by_number,
            pruned: executed.released,
            interval: Some(match &looked.ties {
                // Nobody tells us what happens to a trigger.
                Some(_) => {
                    let specs = looked.desired.resources.values().filter_map(|resource| resource.spec.as_connection());
                    let going_on = self.rounds.is_going_on().then_some(GOING_ON);
                    specs.map(pace).chain(going_on).fold(looked.hub.interval.min(TIES_INTERVAL), Millis::min)
                }
                None => looked.hub.interval,
            }),
            ..Report::default()
        };
        if mode.dry {
            report.steps = plan.steps.iter().map(|s| s.line(OutcomeWord::Planned)).collect();
        } else {
            report.steps = executed.done;
            report.later = executed.later;
        }
        let before = self.world.store.conditions()?;
        let mut changed: Vec<(ResourceId, Vec<Condition>)> = Vec::new();
        let mut events = Vec::new();
        let mut unsettled = false;
        let mut hope = false;
        for (id, standing) in &plan.standings {
            let fails = fails(&report, id);
            let circumstance = self.circumstance(id, standing, fails, looked, checked);
            let old = before.get(id).map_or(&[][..], Vec::as_slice);
            let unheard = looked.unanswered.contains(&id.name) && id.kind == KindName::Service;
            if unheard || is_early(looked, id, standing, old) {
                // Nothing new is known of it. What was done is looked at again at once, and by then it has answered.
                (unsettled, hope) = (true, true);
                let standing = Standing { ready: true, ..standing.clone() };
                report.resources.push(self.line(looked, id, &standing, &circumstance, old.to_vec(), &plan.hours));
                continue;
            }
            let conditions = status::conditions(standing, &circumstance, old, self.world.clock.wall());
            let acted = report.steps.iter().chain(&report.later).any(|s| s.resource == *id);
            // What has a step of its own under way is told by that step.
            let moving = report.steps.iter().any(|s| s.resource == *id && moves(s));
            if standing.settled() && !acted {
                self.memory.settled(id, self.world.clock.now());
            } else if !standing.settled() || fails && self.memory.attempts(id, fails).0 >= HOPELESS_AFTER {
                unsettled = true;
                let hopeless = standing.doomed || self.memory.attempts(id, fails).0 >= HOPELESS_AFTER;
                hope |= !hopeless;
                if !moving {
                    let (source, text) = (source_of(looked, id), wait_text(standing, &circumstance));
                    // It is well, and what is still to be done on it does not succeed.
                    let failing = standing.settled() && circumstance.failure.is_some();
                    let reason = if failing { Reason::StepFailed } else { standing.reason };
                    report.waits.push(wait_line(id, reason, &text, &source, hopeless));
                }
            }
            if standing.completed {
                report.completed.insert(id.clone());
            }
            if standing.drifted.is_some() {
                report.drifted.insert(id.clone());
            }
            if circumstance.held.is_some() || circumstance.frozen.is_some() {
                report.held.insert(id.clone());
            }
            if conditions != old {
                events.extend(transitions(id, old, &conditions, self.world.clock.wall()));
                changed.push((id.clone(), conditions.clone()));
            }
            report.resources.push(self.line(looked, id, standing, &circumstance, conditions, &plan.hours));
        }
        clock_hand(&mut report, plan, looked.wall);
        report.notes.append(&mut self.memory.notes);
        self.memory.forget_others(|id| plan.standings.contains_key(id));
        for id in &plan.frozen {
            report.held.insert(id.clone());
            let old = before.get(id).map_or(&[][..], Vec::as_slice);
            let standing = frozen::standing(looked, id, old);
            let circumstance = self.circumstance(id, &standing, false, looked, checked);
            let conditions = status::conditions(&standing, &circumstance, old, self.world.clock.wall());
            if conditions != old {
                events.extend(transitions(id, old, &conditions, self.world.clock.wall()));
                changed.push((id.clone(), conditions.clone()));
            }
            report.resources.push(self.line(looked, id, &standing, &circumstance, conditions, &plan.hours));
        }
        report.resources.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        report.invalid = invalid(looked);
        report.documents = looked.desired.resources.iter().map(|(id, r)| (id.clone(), r.document.clone())).collect();
        report.declared = looked.desired.resources.len();
        report.also = also(looked);
        self.history = looked.hub.history;
        for gone in before.keys().filter(|id| !plan.standings.contains_key(*id) && !looked.owned.contains_key(*id)) {
            changed.push((gone.clone(), Vec::new()));
        }
        let mut untold = None;
        if !mode.dry {
            (report.deaths, untold) = self.tell_deaths(looked)?;
            report.deaths.extend(self.told_by_storage(looked)?);
            if !changed.is_empty() || !events.is_empty() {
                self.world.store.set_conditions(&changed, &events)?;
            }
        }
        report.progress = looked.storage.as_ref().and_then(|seen| storage::progress(looked, seen));
        let busy_now = !report.steps.is_empty() || looked.unconfirmed;
        report.settled = !unsettled && !busy_now && report.later.is_empty();
        report.doomed = unsettled && !hope && !busy_now;
        report.rolled_back = looked.desired.held().filter(|(_, held)| held.failed).count();
        let verdicts =
            trials.values().filter(|t| t.fallback && t.spent < t.window).map(|t| Millis(t.window.0 - t.spent.0));
        let pause = executed.pause.into_iter().chain(verdicts).min();
        report.next = self.next(looked, &report, pause).into_iter().chain(untold).min();
        Ok(report)
    }

    fn circumstance(
        &self,
        id: &ResourceId,
        standing: &Standing,
        fails: bool,
        looked: &Looked,
        checked: &CheckedPlan,
    ) -> Circumstance {
        let (attempts, failure) = self.memory.attempts(id, fails);
        let held = looked.desired.resources.get(id).and_then(|r| r.held.as_ref());
        let frozen = checked.plan().frozen.contains(id).then(|| self.frozen(checked));
        Circumstance {
            held: held.map(|h| h.message.clone()),
            rolled_back: held.is_some_and(|h| h.failed),
            frozen,
            no_progress: (attempts >= STALLED_AFTER && (!standing.settled() || standing.drifted.is_some() || fails))
                .then(|| no_progress(attempts, failure)),
            failure: failure.map(str::to_owned),
            generation: looked.owned.get(id).map_or(0, |o| o.generation),
        }
    }

    fn frozen(&self, checked: &CheckedPlan) -> (Reason, String) {
        match &checked.plan().refusal {
            Some(refusal) => (Reason::PruneBudget, refusal.kept()),
            None => (
                Reason::TreeIncomplete,
                "no longer declared, and kept until the tree can be read completely".to_owned(),
            ),
        }
    }

    fn line(
        &self,
        looked: &Looked,
        id: &ResourceId,
        standing: &Standing,
        circumstance: &Circumstance,
        conditions: Vec<Condition>,
        hours: &BTreeMap<ResourceId, Hours>,
    ) -> ResourceLine {
        let state = match looked.seen.get(&id.name) {
            Some(Observed::Present(state)) if id.kind == KindName::Service => Some(state),
            _ => None,
        };
        let unit = state.and_then(|s| s.unit.as_ref());
        let process = unit.and_then(|u| u.process.as_ref());
        let port = looked.ports.get(&id.name).copied().filter(|_| id.kind == KindName::Service);
        let hours = hours.get(id).cloned().unwrap_or_default();
        ResourceLine {
            kind: id.kind,
            name: id.name.clone(),
            source: source_of(looked, id),
            generation: circumstance.generation,
            conditions,
            phase: status::phase(standing, circumstance),
            pid: process.map(|p| p.pid),
            port,
            restarts: unit.map(|u| u.restarts),
            uptime_ms: process.and(state).map(|s| s.uptime.0),
            last_exit: unit.and_then(|u| u.last_exit.as_ref()).map(ToString::to_string),
            says: process.and(unit).and_then(|u| u.status.clone()),
            pause: hours.pause,
            next_run: hours.next_run,
        }
    }

    fn next(&mut self, looked: &Looked, report: &Report, pause: Option<Millis>) -> Option<Millis> {
        if report.settled {
            self.memory.relooks = 0;
            return None;
        }
        if !report.steps.is_empty() {
            self.memory.relooks = 0;
            // What was just done is looked at again at once.
            return Some(Millis(0));
        }
        if looked.unconfirmed {
            return Some(super::memory::SECOND_LOOK);
        }
        let grown = Millis(FIRST_RELOOK.0.saturating_mul(1 << self.memory.relooks.min(10))).min(LAST_RELOOK);
        self.memory.relooks = self.memory.relooks.saturating_add(1);
        let young = looked.seen.values().filter_map(|seen| match seen {
            Observed::Present(s) if s.unit.as_ref().is_some_and(|u| u.process.is_some()) => {
                [STEADY, PORT_GRACE].into_iter().find(|limit| s.uptime < *limit).map(|l| Millis(l.0 - s.uptime.0))
            }
            _ => None,
        });
        let wake = report.wake.map(|at| Millis(at.0.saturating_sub(looked.wall.0).unsigned_abs()));
        young.chain(pause).chain(wake).chain([grown]).min()
    }
}

/// Whether a vault that has not answered yet says nothing of what was well before: this process has only begun to look.
fn is_early(looked: &Looked, id: &ResourceId, standing: &Standing, old: &[Condition]) -> bool {
    let was_ready = |c: &Condition| c.kind == ConditionType::Ready && c.status == ConditionStatus::True;
    matches!(id.kind, KindName::Vault | KindName::Connection)
        && standing.reason == Reason::DependencyNotReady
        && !standing.doomed
        && looked.ties.as_ref().is_some_and(|ties| ties.young)
        && old.iter().any(was_ready)
}

/// Whether the first answers of probes must be there before anything is done or said: for a run that only looks or has nothing to do,
/// and for a step on, or behind, what has not answered.
fn needs_answers(plan: &Plan, looked: &Looked, mode: Mode) -> bool {
    let waits = |step: &plan::Step| step.gate.is_some() || looked.unanswered.contains(&step.resource.name);
    mode.dry || plan.steps.is_empty() || plan.steps.iter().any(waits)
}

/// A row for each resource of which only the mistake is known.
fn invalid(looked: &Looked) -> Vec<ResourceLine> {
    let row = |(id, held): (&ResourceId, &Held)| ResourceLine {
        kind: id.kind,
        name: id.name.clone(),
        source: held.span.as_ref().map(ToString::to_string).unwrap_or_default(),
        generation: 0,
        conditions: status::invalid(&held.message, looked.wall),
        phase: Reason::Invalid.to_string(),
        pid: None,
        port: None,
        restarts: None,
        uptime_ms: None,
        last_exit: None,
        says: None,
        pause: None,
        next_run: None,
    };
    looked.desired.invalid.iter().filter(|(id, _)| !looked.owned.contains_key(*id)).map(row).collect()
}

/// Whether the version that is wished is what runs, or what was started and ended by itself; nobody knows while something of it is
/// stopped.
fn tried(looked: &Looked, id: &ResourceId) -> Option<bool> {
    let spec = looked.desired.resources.get(id)?.spec.as_service()?;
    if !hours::is_to_run(spec, looked.overrides.get(id), looked.wall) {
        return Some(false);
    }
    let Some(Observed::Present(State { unit: Some(unit), inputs: Some(Ok(inputs)), .. })) = looked.seen.get(&id.name)
    else {
        return Some(false);
    };
    match unit.phase {
        Phase::Stopping => None,
        Phase::Stopped => Some(false),
        _ => Some(unit.digest == inputs.launch.digest),
    }
}

/// Whether a step on it did not succeed just now, or waits for its next attempt; or something well by itself is put right and goes
/// wrong again.
fn fails(report: &Report, id: &ResourceId) -> bool {
    // Only a pause is told in the message of a step that is not done yet.
    let waits = |s: &StepLine| s.cause == Cause::Drift || !s.message.is_empty();
    report.later.iter().any(|s| s.resource == *id && waits(s))
        || report.steps.iter().any(|s| s.resource == *id && !moves(s))
}

fn no_progress(attempts: u32, failure: Option<&str>) -> String {
    let why = failure.map(|failure| format!(": {failure}")).unwrap_or_default();
    format!("the same step was tried {attempts} times in a row{why}")
}

/// What the hour says: when to look again because of it, and what a person should know.
fn clock_hand(report: &mut Report, plan: &Plan, wall: Timestamp) {
    report.wake = plan.hours.values().filter_map(Hours::wake).filter(|at| *at > wall).min();
    report.notes.extend(plan.hours.values().filter_map(|hours| hours.note.clone()));
    report.overridden = plan.hours.values().filter(|hours| hours.overridden()).count();
}

/// Whether a step is done, or would be done at once.
fn moves(step: &StepLine) -> bool {
    match step.outcome {
        OutcomeWord::Planned => step.message.is_empty(),
        OutcomeWord::Changed | OutcomeWord::Already => true,
        OutcomeWord::Retry | OutcomeWord::Failed | OutcomeWord::Unsure => false,
    }
}

fn wait_text(standing: &Standing, circumstance: &Circumstance) -> String {
    match &circumstance.failure {
        Some(failure) if !standing.message.contains(failure.as_str()) => format!("{}: {failure}", standing.message),
        _ => standing.message.clone(),
    }
}

fn source_of(looked: &Looked, id: &ResourceId) -> String {
    let origin = looked.desired.resources.get(id).map(|r| &r.document.origin);
    origin.or_else(|| looked.leaving.get(id).map(|l| &l.origin)).map(ToString::to_string).unwrap_or_default()
}

/// Files outside the tree that a change of must wake us.
fn also(looked: &Looked) -> BTreeSet<PathBuf> {
    let mut paths = BTreeSet::from([looked.home.join("services.json")]);
    for resource in looked.desired.resources.values() {
        let folder = &resource.document.folder;
        let secrets = resource.spec.secrets();
        paths.extend(secrets.iter().filter_map(|(_, from)| from.file.as_ref()).map(|name| tidy(&folder.join(name))));
        let Spec::Service(spec) = &resource.spec else { continue };
        paths.extend(spec.env_file.iter().chain(&spec.files).map(|name| tidy(&folder.join(name))));
        paths.extend(spec.module.iter().map(|m| tidy(&folder.join(m)).join(".parachute/module.json")));
    }
    paths
}

/// A line of history for every condition that turned.
fn transitions(id: &ResourceId, old: &[Condition], new: &[Condition], at: Timestamp) -> Vec<Event> {
    let kinds: BTreeSet<ConditionType> = old.iter().chain(new).map(|c| c.kind).collect();
    let find = |all: &[Condition], kind| all.iter().find(|c: &&Condition| c.kind == kind).cloned();
    let mut events = Vec::new();
    for kind in kinds {
        let (was, is) = (find(old, kind), find(new, kind));
        let truth = |c: &Option<Condition>| c.as_ref().map_or(ConditionStatus::False, |c| c.status);
        if truth(&was) == truth(&is) || kind == ConditionType::Reconciling {
            continue;
        }
        let Some(now) = is.or(was) else { continue };
        let turned = truth(&find(new, kind));
        let message = match turned {
            ConditionStatus::True => format!("{kind:?}: {}", now.message),
            ConditionStatus::False if kind == ConditionType::Ready => format!("not Ready: {}", now.message),
            ConditionStatus::False => format!("no longer {kind:?}"),
            ConditionStatus::Unknown => format!("{kind:?} unknown: {}", now.message),
        };
        let cause = if kind == ConditionType::Drifted { Cause::Drift } else { Cause::Intent };
        events.push(Event { seq: 0, at, resource: id.clone(), reason: now.reason, cause, message });
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_ends_now() {
        let condition = |status| Condition {
            kind: ConditionType::Drifted,
            status,
            reason: Reason::RowDrifted,
            message: "moved".to_owned(),
            last_transition_time: Timestamp(1_000),
            observed_generation: 1,
        };
        let id: ResourceId = "Service/a".parse().expect("an id");
        let events = transitions(&id, &[condition(ConditionStatus::True)], &[], Timestamp(9_000));
        assert_eq!((events[0].at, events[0].message.as_str()), (Timestamp(9_000), "no longer Drifted"));
    }
}
