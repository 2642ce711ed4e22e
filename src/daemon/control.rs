//! The verbs of the command line on the real engine: in this process when the state folder is free, through the daemon's socket
//! when a daemon holds it.

use std::sync::Arc;
use std::time::Duration;

use super::bell::Ringer;
use super::build::{self, Access, Built};
use super::emit::{self, Emitter};
use super::office::Desk;
use super::serve::{self, EndedBy, Serving};
use super::socket;
use super::tree;
use super::verbs::{Reply, Verb};
use crate::adapters::clock::SystemClock;
use crate::adapters::files::watch::Watcher;
use crate::adapters::lock::{Held, LockError, StateLock};
use crate::cli::engine::{
    Answer, Catalog, Control, Ended, EventRequest, Listing, Outcome, Place, PlanOptions, ReconcileOptions, Sink,
};
use crate::cli::exit::Failure;
use crate::cli::interrupt::Cancel;
use crate::engine::report::{Report, is_manifest_problem};
use crate::engine::run::Watcher as _;
use crate::engine::{Mode, Until, Verdict};
use crate::kinds::Spec;
use crate::model::condition::{ConditionStatus, ConditionType, Reason};
use crate::model::exit::Exit;
use crate::model::id::{KindName, Name, ResourceId};
use crate::model::output::{DependencyLine, Description, Line, ResourceLine};
use crate::model::overriding::OverrideRequest;
use crate::model::unit::Millis;
use crate::ports::clock::Clock;
use crate::ports::store::EventQuery;

/// How often a waiting command tries the lock again, and a following one looks for new events.
const AGAIN: Duration = Duration::from_millis(100);
/// A look that asks nothing that takes long.
const GLANCE: Mode = Mode { dry: true, down: false, allow_prune: None, kick: false, glance: true };
/// Events shown by describe.
const EVENTS_SHOWN: usize = 10;

/// The engine of this place.
pub(super) struct Local {
    place: Place,
}

/// Who may act.
enum Turn {
    /// We: the lock is ours.
    Ours(StateLock),
    /// A daemon: it is asked.
    Daemon(tokio::net::UnixStream, Held),
}

impl Local {
    pub(super) fn new(place: Place) -> Self {
        Self { place }
    }

    async fn turn(&self, patience: Millis, cancel: &Cancel) -> Result<Turn, Failure> {
        let begun = tokio::time::Instant::now();
        loop {
            let held = match StateLock::acquire(&self.place.state, "trueup", SystemClock.wall()) {
                Ok(lock) => return Ok(Turn::Ours(lock)),
                Err(LockError::Held(held)) => held,
                Err(error) => return Err(anyhow::Error::from(error).into()),
            };
            if let Some(stream) = socket::connect(&self.place.state).await {
                return Ok(Turn::Daemon(stream, held));
            }
            if begun.elapsed() >= Duration::from(patience) {
                return Err(Failure::locked(&held.to_string()));
            }
            // Both arms lose nothing.
            tokio::select! {
                _ = cancel.wait() => return Err(Failure::cancelled()),
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    /// The lock, for a daemon of our own: one that runs is waited for, not asked.
    async fn alone(&self, patience: Millis, cancel: &Cancel) -> Result<StateLock, Failure> {
        let begun = tokio::time::Instant::now();
        loop {
            let left = Duration::from(patience).saturating_sub(begun.elapsed());
            let left = Millis(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
            let held = match self.turn(left, cancel).await? {
                Turn::Ours(lock) => return Ok(lock),
                Turn::Daemon(_, held) => held,
            };
            if left == Millis(0) {
                return Err(Failure::locked(&format!("a daemon, {held}"))
                    .hint("it keeps the machine true already; to take its place, end it and use --lock-timeout 1m"));
            }
            // Both arms lose nothing.
            tokio::select! {
                _ = cancel.wait() => return Err(Failure::cancelled()),
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    /// Looks before anything is written: the state must be this tree's (or be given to it), and the tree must be there.
    fn admit(&self, adopt: bool, sink: &mut Sink<'_>) -> Result<Option<Outcome>, Failure> {
        let store = build::read_ledger(&self.place.state)?;
        if let Some(foreign) = tree::foreign(&self.place, &*store)?.filter(|_| !adopt) {
            return Err(foreign.refuse());
        }
        // The tree's own words say what is wrong with it.
        if tree::never_was(&self.place, &*store)? { self.check(sink).map(Some) } else { Ok(None) }
    }

    /// The real world for a run that acts. The lock is held, so what is found now stays true.
    fn build(&self, adopt: bool, ringer: &Ringer) -> Result<Built, Failure> {
        let built = build::build(&self.place, Access::Act, ringer)?;
        let store = &*built.engine.world().store;
        match tree::foreign(&self.place, store)?.filter(|_| !adopt) {
            Some(foreign) => Err(foreign.refuse()),
            None => tree::bind(&self.place, store).map(|()| built),
        }
    }

    /// A daemon that runs keeps the tree that it was started for.
    fn same_tree(&self) -> Result<(), Failure> {
        let store = build::read_ledger(&self.place.state)?;
        match tree::foreign(&self.place, &*store)? {
            Some(foreign) => {
                Err(foreign.refuse().hint("a daemon is running for that tree: stop it first, then try again"))
            }
            None => Ok(()),
        }
    }

    fn check(&self, sink: &mut Sink<'_>) -> Result<Outcome, Failure> {
        let mut built = build::build(&self.place, Access::Look, &Ringer::new())?;
        let report = built.engine.validate().map_err(anyhow::Error::from)?;
        Emitter::new(sink).report(&report);
        Ok(emit::outcome(Verdict::Settled, &report, report.summary()))
    }

    /// Acts here, or has the daemon act.
    async fn act(
        &self,
        verb: Verb,
        patience: Millis,
        cancel: &Cancel,
        sink: &mut Sink<'_>,
    ) -> Result<Outcome, Failure> {
        let adopt = matches!(&verb, Verb::Reconcile { options } if options.adopt_state);
        if !matches!(verb, Verb::Down { .. })
            && let Some(outcome) = self.admit(adopt, sink)?
        {
            return Ok(outcome);
        }
        let lock = match self.turn(patience, cancel).await? {
            Turn::Daemon(stream, _) => {
                if adopt {
                    self.same_tree()?;
                }
                return socket::ask(stream, &verb, cancel, sink).await;
            }
            Turn::Ours(lock) => lock,
        };
        let ringer = Ringer::new();
        let mut built = self.build(adopt, &ringer)?;
        if matches!(verb, Verb::Reconcile { .. }) {
            // Nobody listens at the other end: a request that changes something is told that we end.
            let (to, _) = tokio::sync::mpsc::unbounded_channel();
            let office = Arc::new(Desk::open(&self.place, to, ringer.clone())?);
            built.hub.stand_by(&ringer, office, built.engine.world().store.clone());
        }
        let mut mode = Mode::default();
        match &verb {
            Verb::Reconcile { options } => mode.allow_prune = options.allow_prune.map(|n| n as usize),
            Verb::Restart { names, .. } => built.engine.request_restart(names.iter().cloned()),
            Verb::Renew { connections, .. } => built.engine.renew(connections.iter().cloned()),
            Verb::Override { request, .. } => {
                built.engine.override_services(request).map_err(anyhow::Error::from)?;
            }
            Verb::Down { .. } => mode.down = true,
        }
        let bell = ringer.bell(Some(cancel.clone()));
        let until = Until { timeout: verb.timeout(), only: verb.only() };
        let mut emitter = Emitter::new(sink);
        let run = built.engine.converge(&bell, mode, until, &mut emitter).await;
        built.hub.end();
        let (verdict, report, summary) = run.map_err(anyhow::Error::from)?;
        if mode.down && verdict == Verdict::Settled {
            built.keeper.shutdown(false).await.map_err(anyhow::Error::from)?;
        }
        if summary.changed > 0 {
            built.engine.trim().map_err(anyhow::Error::from)?;
        }
        drop(lock);
        Ok(emit::outcome(verdict, &report, summary).of(mode))
    }

    /// One look, and what would be done.
    async fn look(&self, mode: Mode, adopt: bool) -> Result<(Built, Report), Failure> {
        let ringer = Ringer::new();
        let mut built = build::build(&self.place, Access::Look, &ringer)?;
        if let Some(foreign) = tree::foreign(&self.place, &*built.engine.world().store)?.filter(|_| !adopt) {
            return Err(foreign.refuse());
        }
        let mode = Mode { dry: true, ..mode };
        let report = built.engine.tick(mode, &mut |_| {}).await.map_err(anyhow::Error::from)?;
        Ok((built, report))
    }

    async fn run(&self, options: &ReconcileOptions, cancel: &Cancel, sink: &mut Sink<'_>) -> Result<Outcome, Failure> {
        if let Some(outcome) = self.admit(options.adopt_state, sink)? {
            return Ok(outcome);
        }
        let lock = self.alone(options.lock_timeout, cancel).await?;
        let ringer = Ringer::new();
        let mut built = self.build(options.adopt_state, &ringer)?;
        let waker = ringer.clone();
        let watcher = Watcher::start(&build::manifests(&self.place)?, move || waker.ring());
        if let Some(reason) = watcher.polling() {
            tracing::warn!(%reason, "file events are not available; the tree is looked at regularly instead");
        }
        let (to, clients) = tokio::sync::mpsc::unbounded_channel();
        let office = Arc::new(Desk::open(&self.place, to.clone(), ringer.clone())?);
        let listening = socket::listen(&self.place.state, to, ringer.clone()).map_err(anyhow::Error::from)?;
        let bell = ringer.bell(Some(cancel.clone()));
        let mut also = std::collections::BTreeSet::new();
        let store = built.engine.world().store.clone();
        built.hub.serve(&ringer, office, &*store)?;
        let hub = built.hub.clone();
        let mut watched = |report: &Report, took| {
            hub.publish(report, took, &*store);
            if report.also != also {
                also.clone_from(&report.also);
                watcher.also(&also.iter().cloned().collect::<Vec<_>>());
            }
        };
        let lost = || hub.lost();
        let serving = Serving {
            engine: &mut built.engine,
            tree: self.place.manifests.display().to_string(),
            bell: &bell,
            ringer: ringer.clone(),
            clients,
            allow_prune: options.allow_prune.map(|n| n as usize),
            sink,
            lost: &lost,
            watched: &mut watched,
        };
        let ended = serve::serve(serving).await;
        built.hub.end();
        let outcome = match ended {
            EndedBy::Cancel(outcome) => Outcome { ended: Ended::Cancelled, ..outcome },
            EndedBy::Lost(why) => {
                return Err(Failure::new(Exit::Error, why)
                    .hint("its modules run on; a service manager starts trueup again, and then it looks anew"));
            }
            EndedBy::Down(outcome, reply) => {
                let stopped = built.keeper.shutdown(false).await;
                let last = match stopped {
                    Ok(()) => Reply::Done { outcome: outcome.clone() },
                    Err(error) => Reply::Failed { message: error.to_string() },
                };
                if let Some(reply) = reply {
                    let _ = reply.send(last);
                    // The client hears the answer before its socket goes.
                    reply.closed().await;
                }
                outcome
            }
        };
        drop(listening);
        drop(lock);
        Ok(outcome)
    }

    async fn follow(&self, request: &EventRequest, cancel: &Cancel, sink: &mut Sink<'_>) -> Result<(), Failure> {
        let store = build::read_ledger(&self.place.state)?;
        let mut query =
            EventQuery { after: 0, resource: request.resource.clone(), since: request.since, limit: request.limit };
        loop {
            let events = store.events(&query).map_err(anyhow::Error::from)?;
            for event in events {
                query.after = query.after.max(event.seq);
                sink(Line::Event(event));
            }
            if !request.follow {
                return Ok(());
            }
            query.limit = usize::MAX >> 1;
            // Both arms lose nothing.
            tokio::select! {
                _ = cancel.wait() => return Ok(()),
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }
}

impl Control for Local {
    fn validate<'a>(&'a self, sink: &'a mut Sink<'a>) -> Answer<'a, Outcome> {
        Box::pin(async move { self.check(sink) })
    }

    fn plan<'a>(&'a self, options: &'a PlanOptions, sink: &'a mut Sink<'a>) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let allow_prune = options.allow_prune.map(|n| n as usize);
            let mode = Mode { allow_prune, kick: true, ..Mode::default() };
            let (_, report) = self.look(mode, options.adopt_state).await?;
            let mut emitter = Emitter::new(sink);
            report.steps.iter().for_each(|step| emitter.step(step));
            emitter.report(&report);
            Ok(emit::outcome(Verdict::Settled, &report, report.summary()))
        })
    }

    fn reconcile_once<'a>(
        &'a self,
        options: &'a ReconcileOptions,
        cancel: &'a Cancel,
        sink: &'a mut Sink<'a>,
    ) -> Answer<'a, Outcome> {
        Box::pin(self.act(Verb::Reconcile { options: options.clone() }, options.lock_timeout, cancel, sink))
    }

    fn run_daemon<'a>(
        &'a self,
        options: &'a ReconcileOptions,
        cancel: &'a Cancel,
        sink: &'a mut Sink<'a>,
    ) -> Answer<'a, Outcome> {
        Box::pin(self.run(options, cancel, sink))
    }

    fn get(&self) -> Answer<'_, Listing> {
        Box::pin(async move {
            let (_, report) = self.look(GLANCE, false).await?;
            let problems = report.problems.iter().filter(|problem| is_manifest_problem(problem));
            let problems = problems.map(|problem| emit::problem_line(problem, &report.sources)).collect();
            let resources = known(&report);
            let unreadable = std::fs::read_dir(build::manifests(&self.place)?).is_err();
            Ok(Listing { resources, problems, unreadable })
        })
    }

    fn catalog(&self) -> Answer<'_, Catalog> {
        Box::pin(async move {
            let mut built = build::build(&self.place, Access::Look, &Ringer::new())?;
            let desired = built.engine.desired().map_err(anyhow::Error::from)?;
            let services = desired.resources.keys().filter(|id| id.kind == KindName::Service);
            Ok(Catalog {
                services: services.map(|id| id.name.clone()).collect(),
                declared: desired.catalog(),
                problems: desired.problems.iter().map(|one| emit::problem_line(one, &desired.sources)).collect(),
            })
        })
    }

    fn describe<'a>(&'a self, id: &'a ResourceId) -> Answer<'a, Description> {
        Box::pin(async move {
            let (built, report) = self.look(GLANCE, false).await?;
            let resource = known(&report).into_iter().find(|r| r.kind == id.kind && r.name == id.name);
            let resource = resource.ok_or_else(|| {
                Failure::new(Exit::Error, format!("{id} is neither declared nor owned"))
                    .hint("'trueup get' lists what there is")
            })?;
            let query = EventQuery { resource: Some(id.clone()), limit: EVENTS_SHOWN, ..EventQuery::default() };
            let events = built.engine.world().store.events(&query).map_err(anyhow::Error::from)?;
            let spec = report.documents.get(id).map(|d| d.spec()).unwrap_or_default();
            Ok(Description {
                resource,
                spec,
                depends_on: depends_on(&report, id),
                required_by: required_by(&report, id),
                events,
                log: Vec::new(),
            })
        })
    }

    fn events<'a>(&'a self, request: &'a EventRequest, cancel: &'a Cancel, sink: &'a mut Sink<'a>) -> Answer<'a, ()> {
        Box::pin(self.follow(request, cancel, sink))
    }

    fn restart<'a>(
        &'a self,
        names: &'a [Name],
        timeout: Millis,
        cancel: &'a Cancel,
        sink: &'a mut Sink<'a>,
    ) -> Answer<'a, Outcome> {
        Box::pin(self.act(Verb::Restart { names: names.to_vec(), timeout }, Millis(0), cancel, sink))
    }

    fn override_services<'a>(
        &'a self,
        request: &'a OverrideRequest,
        timeout: Millis,
        cancel: &'a Cancel,
        sink: &'a mut Sink<'a>,
    ) -> Answer<'a, Outcome> {
        Box::pin(self.act(Verb::Override { request: request.clone(), timeout }, Millis(0), cancel, sink))
    }

    fn down<'a>(&'a self, timeout: Millis, cancel: &'a Cancel, sink: &'a mut Sink<'a>) -> Answer<'a, Outcome> {
        Box::pin(async move {
            // What is stopped is what the state holds, whatever tree was named.
            let store = build::read_ledger(&self.place.state)?;
            let manifests = tree::recorded(&*store)?.unwrap_or_else(|| self.place.manifests.clone());
            let place = Place { manifests, ..self.place.clone() };
            Self { place }.act(Verb::Down { timeout }, Millis(0), cancel, sink).await
        })
    }
}

/// Everything there is a row for, the broken ones included.
pub(super) fn known(report: &Report) -> Vec<ResourceLine> {
    let mut all = report.resources.clone();
    all.extend(report.invalid.iter().cloned());
    all.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
    all
}

fn service(report: &Report, id: &ResourceId) -> Option<std::sync::Arc<crate::kinds::service::spec::ServiceSpec>> {
    match Spec::read(report.documents.get(id)?, &mut Vec::new())? {
        Spec::Service(spec) => Some(spec),
        _ => None,
    }
}

fn depends_on(report: &Report, id: &ResourceId) -> Vec<DependencyLine> {
    let Some(spec) = service(report, id) else { return Vec::new() };
    let lines = spec.depends_on.iter().map(|dependency| {
        let resource = ResourceId::service(&dependency.service);
        let line = report.resources.iter().find(|r| r.kind == resource.kind && r.name == resource.name);
        let ready = line.and_then(|l| l.conditions.iter().find(|c| c.kind == ConditionType::Ready));
        let started = line.is_some_and(|l| l.pid.is_some());
        let met = match dependency.condition {
            crate::kinds::service::spec::DependencyCondition::Started => started,
            crate::kinds::service::spec::DependencyCondition::Completed => report.completed.contains(&resource),
            // What runs by the clock is as it should be between its runs, and nobody can use it then.
            crate::kinds::service::spec::DependencyCondition::Ready => {
                ready.is_some_and(|c| c.status == ConditionStatus::True && c.reason != Reason::Scheduled)
            }
        };
        let message = ready.filter(|_| !met).map(|c| c.message.clone()).unwrap_or_default();
        DependencyLine { resource, condition: dependency.condition.as_str().to_owned(), met, message }
    });
    lines.collect()
}

fn required_by(report: &Report, id: &ResourceId) -> Vec<ResourceId> {
    let needs =
        |other: &ResourceId| service(report, other).is_some_and(|s| s.depends_on.iter().any(|d| d.service == id.name));
    report.documents.keys().filter(|other| *other != id && needs(other)).cloned().collect()
}
