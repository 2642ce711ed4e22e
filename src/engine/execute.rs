//! Does the steps of a checked plan: begin (journal and claim), effect, finish (record and event). No decisions here.

use std::collections::BTreeSet;
use std::task::Poll;

use tracing::field::Empty;
use tracing::{Instrument, Span};

use super::look::{self, Looked};
use super::memory::Attempt;
use super::{Engine, EngineError, Sink};
use crate::desired::Resource;
use crate::kinds::backend::plan::Action as BackendAction;
use crate::kinds::connection::plan::Action as ConnectionAction;
use crate::kinds::service::apply::{self, Outcome};
use crate::kinds::service::inputs::Inputs;
use crate::kinds::service::observe::{Record, RowState, State};
use crate::kinds::service::plan::Action as ServiceAction;
use crate::kinds::service::scheduled;
use crate::kinds::service::trial::{Proven, Refused};
use crate::kinds::storage::plan::Action as StorageAction;
use crate::kinds::vault::plan::Action as VaultAction;
use crate::kinds::{Action, connection, storage, vault};
use crate::model::digest::Digest;
use crate::model::event::{Cause, Event};
use crate::model::id::{KindName, ResourceId, StepId};
use crate::model::observed::Observed;
use crate::model::output::{OutcomeWord, StepLine};
use crate::model::time::Tick;
use crate::model::unit::Millis;
use crate::plan::{self, CheckedPlan, Claim, Step, record_of, wave};
use crate::ports::Hand;
use crate::ports::keeper::{Phase, Unit};
use crate::ports::store::{Begin, Finish, Owned, Then};

/// So many steps are journalled and done at once; the rest follows in the next tick. It bounds what a crash leaves open.
const STEPS_PER_TICK: usize = 1_000;

/// So many effects are under way at once. Enough that the keeper never waits for us; more would only wait in its socket.
const IN_FLIGHT: usize = 64;

/// What came of a plan.
#[derive(Default)]
pub(super) struct Executed {
    pub done: Vec<StepLine>,
    /// Not done: they wait for a dependency or for the end of a pause.
    pub later: Vec<StepLine>,
    /// The shortest pause that something waits for.
    pub pause: Option<Millis>,
    pub released: BTreeSet<ResourceId>,
}

impl Engine {
    pub(super) async fn execute(
        &mut self,
        plan: &CheckedPlan,
        looked: &Looked,
        sink: Sink<'_>,
    ) -> Result<Executed, EngineError> {
        let mut executed = Executed::default();
        let now = self.world.clock.now();
        let mut todo: Vec<(&Step, StepId)> = Vec::new();
        let run = self.world.dice.roll();
        let mut behind = BTreeSet::new();
        for step in &plan.plan().steps {
            let pause = self.memory.pause(&step.resource, step.action.word(), &key(step), now);
            // What a connection notes at the end of a step counts on the steps before it.
            let waits = step.resource.kind == KindName::Connection && behind.contains(&step.resource);
            if step.gate.is_some() || pause.is_some() || waits || todo.len() >= STEPS_PER_TICK {
                behind.insert(step.resource.clone());
                let mut line = step.line(OutcomeWord::Planned);
                if let Some(pause) = pause {
                    line.message = format!("tried again in {}", Millis(pause.0.div_ceil(100) * 100));
                    executed.pause = Some(executed.pause.map_or(pause, |p| p.min(pause)));
                }
                executed.later.push(line);
                continue;
            }
            let id = StepId(format!("{run:016x}-{}", todo.len()));
            todo.push((step, id));
        }
        if todo.is_empty() {
            return Ok(executed);
        }
        let wall = self.world.clock.wall();
        let begins: Vec<Begin> = todo.iter().map(|(step, id)| begin(step, id, looked, wall)).collect();
        self.world.store.begin(&begins)?;
        let mut finishes = Vec::new();
        let mut failed: BTreeSet<ResourceId> = BTreeSet::new();
        let mut rest = todo.iter().zip(&begins).collect::<Vec<_>>();
        while !rest.is_empty() {
            let now: Vec<_> = rest.drain(..together(&rest)).collect();
            let started = self.world.clock.now();
            let outcomes = self.act_together(now.iter().map(|((step, id), _)| (*step, id)), &failed).await;
            // They were sent off together, so what one took is counted from the end of the one before it.
            let mut last = started;
            for (((step, id), begun), (outcome, ended)) in now.into_iter().zip(outcomes) {
                let took = ended - last;
                last = last.max(ended);
                let (word, message) = describe(&outcome);
                if !matches!(word, OutcomeWord::Changed | OutcomeWord::Already) {
                    failed.insert(step.resource.clone());
                } else if let Action::Service(
                    ServiceAction::Restart { .. } | ServiceAction::Run { .. } | ServiceAction::Spawn(_),
                ) = step.action
                {
                    self.memory.requested.remove(&step.resource.name);
                    if wave::replaces(step) {
                        self.memory.replace(&step.resource.name, started);
                    }
                }
                if let (
                    Action::Connection(ConnectionAction::Wire(_) | ConnectionAction::Lend(_)),
                    Outcome::Recorded(_),
                ) = (&step.action, &outcome)
                {
                    self.memory.renew.remove(&step.resource.name);
                }
                if let Action::Connection(ConnectionAction::Rearm(rearming)) = &step.action {
                    self.rounds.again(&rearming.place.at);
                }
                let failure = failed.contains(&step.resource).then(|| message.clone());
                let dice = self.world.dice.roll();
                let attempt = Attempt {
                    id: &step.resource,
                    action: step.action.word(),
                    key: &key(step),
                    against_drift: step.cause == Cause::Drift,
                };
                self.memory.tried(attempt, failure, started, dice);
                let mut line = step.line(word);
                line.message.clone_from(&message);
                line.duration_ms = took.0;
                sink(&line);
                executed.done.push(line);
                let then = then(step, &outcome, begun.claim.as_ref(), looked);
                if matches!(then, Then::Release(_)) {
                    executed.released.insert(step.resource.clone());
                }
                finishes.push(self.finish(step, id, word, message, then));
            }
        }
        self.world.store.finish(&finishes)?;
        Ok(executed)
    }

    /// Begins these steps in their order, and waits for all of them: the keeper has the next one at hand when it is done with one.
    async fn act_together<'a>(
        &self,
        steps: impl Iterator<Item = (&'a Step, &'a StepId)>,
        failed: &BTreeSet<ResourceId>,
    ) -> Vec<(Outcome, Tick)> {
        let hand = Hand::new(&self.world);
        let act = async |step: &Step| {
            let begun = self.world.clock.now();
            let outcome = if failed.contains(&step.resource) {
                Outcome::Retry("an earlier step on it failed".to_owned())
            } else {
                act(&hand, step).await
            };
            let ended = self.world.clock.now();
            tell(&outcome, ended - begun);
            (outcome, ended)
        };
        all(steps.map(|(step, id)| act(step).instrument(span(step, id)))).await
    }

    fn finish(&self, step: &Step, id: &StepId, word: OutcomeWord, message: String, then: Then) -> Finish {
        let at = self.world.clock.wall();
        let text = [step.action.word(), &step.detail, &message].into_iter().filter(|t| !t.is_empty());
        let event = Event {
            seq: 0,
            at,
            resource: step.resource.clone(),
            reason: step.reason,
            cause: step.cause,
            message: text.collect::<Vec<_>>().join(": "),
        };
        let outcome = word.as_str().to_owned();
        Finish { step: id.clone(), outcome, message, at, then, event }
    }
}

/// What is said while a step is done names it and its resource.
fn span(step: &Step, id: &StepId) -> Span {
    tracing::debug_span!(
        "step",
        resource = %step.resource,
        step = %id.0,
        action = step.action.word(),
        reason = %step.reason,
        outcome = Empty,
    )
}

fn tell(outcome: &Outcome, took: Millis) {
    let span = Span::current();
    if !span.is_disabled() {
        let (outcome, message) = describe(outcome);
        tracing::debug!(outcome = outcome.as_str(), detail = message, ms = took.0, "done");
        span.record("outcome", outcome.as_str());
    }
}

/// How many of the first steps may be under way together: none of them on the resource of another.
fn together(steps: &[(&(&Step, StepId), &Begin)]) -> usize {
    let mut resources = BTreeSet::new();
    let fresh = steps.iter().take(IN_FLIGHT).take_while(|((step, _), _)| resources.insert(&step.resource));
    fresh.count()
}

/// Polls in order until every one has answered; the answers are in the same order.
pub(super) async fn all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut going: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, answer) in going.iter_mut().filter(|(_, answer)| answer.is_none()) {
            if let Poll::Ready(value) = future.as_mut().poll(context) {
                *answer = Some(value);
            }
        }
        if going.iter().all(|(_, answer)| answer.is_some()) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    going.into_iter().filter_map(|(_, answer)| answer).collect()
}

async fn act(hand: &Hand<'_>, step: &Step) -> Outcome {
    match &step.action {
        Action::AcceptHub | Action::ReleaseHub | Action::Backend(_) => Outcome::Changed(None),
        Action::Storage(action) => storage::apply::apply(hand, action),
        Action::Vault(action) => vault::apply::apply(hand, action).await,
        Action::Connection(action) => connection::apply::apply(hand, &step.resource.name, action).await,
        Action::Service(action) => apply::apply(hand, &step.resource.name, action).await,
    }
}

fn describe(outcome: &Outcome) -> (OutcomeWord, String) {
    match outcome {
        Outcome::Changed(unit) => (OutcomeWord::Changed, unit.as_deref().map(pid_text).unwrap_or_default()),
        Outcome::Recorded(_) => (OutcomeWord::Changed, String::new()),
        Outcome::Already => (OutcomeWord::Already, String::new()),
        Outcome::Retry(why) => (OutcomeWord::Retry, why.clone()),
        Outcome::Never(why) => (OutcomeWord::Failed, why.clone()),
        Outcome::Unsure(why) => (OutcomeWord::Unsure, why.clone()),
    }
}

fn pid_text(unit: &Unit) -> String {
    let Some(process) = &unit.process else { return String::new() };
    // A restart is begun by stopping what runs; its successor gets its pid when that is gone.
    let verb = if unit.phase == Phase::Stopping { "stopping " } else { "" };
    format!("{verb}pid {}", process.pid)
}

/// What makes two attempts attempts at the same thing.
fn key(step: &Step) -> String {
    let launch = match &step.action {
        Action::Connection(ConnectionAction::Wire(wiring)) => wiring.wire.trigger.digest().to_string(),
        _ => inputs_of(step).map(|i| i.launch.digest.to_string()).unwrap_or_default(),
    };
    // Each time of a schedule is another thing to do.
    let slot = match step.service() {
        Some(ServiceAction::Run { slot: Some(slot), .. } | ServiceAction::PassOver { slot }) => slot.0,
        _ => 0,
    };
    // The version is the last word: see `Memory::tried`.
    format!("{} {slot} {launch}", step.reason)
}

fn inputs_of(step: &Step) -> Option<&Inputs> {
    match &step.action {
        Action::Service(
            ServiceAction::Spawn(inputs)
            | ServiceAction::Restart { inputs, .. }
            | ServiceAction::Run { inputs, .. }
            | ServiceAction::Update(inputs),
        ) => Some(inputs),
        _ => None,
    }
}

fn begin(step: &Step, id: &StepId, looked: &Looked, at: crate::model::time::Timestamp) -> Begin {
    Begin {
        step: id.clone(),
        resource: step.resource.clone(),
        action: step.action.word().to_owned(),
        reason: step.reason.to_string(),
        source: step.source.to_string(),
        at,
        claim: claim(step, looked),
        lasting: !looked.owned.contains_key(&step.resource) || !concerns_processes_alone(step),
    }
}

/// Whether nothing but processes is changed by it, none of which outlives a loss of power.
fn concerns_processes_alone(step: &Step) -> bool {
    matches!(
        step.service(),
        Some(
            ServiceAction::Spawn(_)
                | ServiceAction::Restart { .. }
                | ServiceAction::Update(_)
                | ServiceAction::Heal { .. }
                | ServiceAction::Run { slot: None, .. }
                | ServiceAction::Stop
                | ServiceAction::StopStrays
        )
    )
}

/// What the ledger holds from the beginning of the step on.
fn claim(step: &Step, looked: &Looked) -> Option<Owned> {
    if step.claim == Claim::None {
        return None;
    }
    let resource = look::resource(looked, &step.resource)?;
    let before = looked.owned.get(&step.resource);
    if let Some(record) = plain_claim(step, before) {
        return Some(owned(step, resource, before, record));
    }
    let mut record = record_of(before).unwrap_or_default();
    if let (Claim::Launch, Some(inputs)) = (step.claim, inputs_of(step)) {
        record.port = inputs.port;
        record.module = resource.module.as_ref().map(|m| (m.source.path.clone(), m.source.text.to_string()));
        record.parts.clone_from(&inputs.parts);
        record.reloaded = inputs.reload.as_ref().map(|r| r.files.clone());
        // Tried again, because somebody asked for it.
        record.refused.take_if(|refused| refused.digest == resource.digest);
    }
    if let Some(Observed::Present(State { inputs: Some(Ok(inputs)), old_row: None, row, .. })) =
        looked.seen.get(&step.resource.name)
        && step.resource.kind == KindName::Service
        && !matches!(row, RowState::Unknown(_))
    {
        // While a row under an earlier name is there, the record goes on naming that one: a crash must not lose it.
        record.row = inputs.row.as_ref().map(|r| r.name.clone());
        record.home = record.row.as_ref().map(|_| looked.home.to_string_lossy().into_owned());
    }
    match (step.claim, &step.action) {
        (Claim::Proven, _) => {
            record.refused = None;
            record.proven = Some(Box::new(Proven {
                digest: resource.digest.clone(),
                document: resource.document.json.clone(),
                base: plan::base(resource),
                source: resource.document.origin.to_string(),
                module: record.module.clone(),
            }));
        }
        (Claim::Refused, Action::Service(ServiceAction::Refuse { why })) => {
            let at = looked.wall;
            record.refused = Some(Refused { digest: resource.digest.clone(), why: why.clone(), at });
        }
        _ => {}
    }
    let unit = looked.unit(&step.resource);
    scheduled::claim(&mut record, &resource.spec, step.service(), unit, looked.wall);
    Some(owned(step, resource, before, encode(&record)))
}

/// The record of a kind that notes nothing of processes.
fn plain_claim(step: &Step, before: Option<&Owned>) -> Option<String> {
    let kept = || before.map(|owned| owned.record.clone()).unwrap_or_else(|| "{}".to_owned());
    match &step.action {
        Action::Connection(action) => Some(action.claim().map_or_else(kept, |record| record.write())),
        // It is to stay: nothing of it has been taken away.
        Action::Vault(_) => Some(vault::record::Record::default().write()),
        _ => None,
    }
}

fn owned(step: &Step, resource: &Resource, before: Option<&Owned>, record: String) -> Owned {
    let generation = match before {
        Some(owned) if owned.digest == resource.digest => owned.generation,
        Some(owned) => owned.generation + 1,
        None => 1,
    };
    Owned {
        id: step.resource.clone(),
        generation,
        digest: resource.digest.clone(),
        document: resource.document.json.clone(),
        source: resource.document.origin.to_string(),
        base: plan::base(resource),
        record,
    }
}

/// What the ledger holds after the step.
fn then(step: &Step, outcome: &Outcome, claim: Option<&Owned>, looked: &Looked) -> Then {
    let base = claim.or_else(|| looked.owned.get(&step.resource));
    match (&step.action, outcome) {
        (Action::ReleaseHub | Action::Backend(BackendAction::Release) | Action::Storage(StorageAction::Release), _) => {
            Then::Release(step.resource.clone())
        }
        (Action::Service(ServiceAction::Release { .. }), Outcome::Changed(_) | Outcome::Already) => {
            Then::Release(step.resource.clone())
        }
        (
            Action::Connection(ConnectionAction::Release { .. }) | Action::Vault(VaultAction::Release),
            Outcome::Changed(_) | Outcome::Already,
        ) => Then::Release(step.resource.clone()),
        (_, Outcome::Recorded(record)) => match base {
            Some(base) => Then::Own(Owned { record: record.clone(), ..base.clone() }),
            None => Then::Keep,
        },
        (Action::Service(ServiceAction::Stop), Outcome::Changed(_)) => with_process(base, None),
        (Action::Service(ServiceAction::Reload { reload, .. }), Outcome::Changed(_)) => {
            with_reload(base, &reload.files)
        }
        // Certainly not done: its time is given back, and tried again.
        (Action::Service(ServiceAction::Run { slot: Some(_), .. }), Outcome::Retry(_) | Outcome::Never(_)) => {
            give_back(base, looked.owned.get(&step.resource))
        }
        (Action::Service(_), Outcome::Changed(Some(unit))) => {
            with_process(base, unit.process.as_ref().map(|p| (p.pid, p.start_ticks)))
        }
        _ => Then::Keep,
    }
}

fn with_process(owned: Option<&Owned>, process: Option<(u32, u64)>) -> Then {
    match (owned, record_of(owned)) {
        (Some(owned), Some(record)) => {
            Then::Own(Owned { record: encode(&Record { process, ..record }), ..owned.clone() })
        }
        _ => Then::Keep,
    }
}

fn with_reload(owned: Option<&Owned>, files: &Digest) -> Then {
    match (owned, record_of(owned)) {
        (Some(owned), Some(record)) => {
            let record = Record { reloaded: Some(files.clone()), ..record };
            Then::Own(Owned { record: encode(&record), ..owned.clone() })
        }
        _ => Then::Keep,
    }
}

fn give_back(owned: Option<&Owned>, before: Option<&Owned>) -> Then {
    match (owned, record_of(owned)) {
        (Some(owned), Some(mut record)) => {
            scheduled::give_back(&mut record, record_of(before).and_then(|record| record.past));
            Then::Own(Owned { record: encode(&record), ..owned.clone() })
        }
        _ => Then::Keep,
    }
}

fn encode(record: &Record) -> String {
    serde_json::to_string(record).expect("a record is plain data with string keys")
}
