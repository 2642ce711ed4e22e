//! The whole policy of Services: what is wished, what is seen, hence what is done, and how it stands. Pure.

use std::path::{Path, PathBuf};

use super::health::Way;
use super::inputs::{Inputs, Reload, WantedRow};
use super::observe::{PortHolder, Record, RowState, State};
use super::scheduled::{self, Turn};
use super::trial::{self, Trial};
use crate::kinds::intent::{self, Trouble};
use crate::kinds::standing::Standing;
use crate::model::condition::Reason;
use crate::model::event::Cause;
use crate::model::observed::Observed;
use crate::model::problem::{Code, Problem};
use crate::model::time::Timestamp;
use crate::model::unit::Millis;
use crate::ports::keeper::{Exit, Phase, Unit};
use crate::ports::probes::{Ask, Probe, Verdict};

/// How long a process may run without its port before listening on others only counts as drift: programs open ports in any order.
pub const PORT_GRACE: Millis = Millis(2_000);

/// A program without a port and a probe counts as ready when it has run this long: most of what cannot run ends sooner
/// (supervisord's `startsecs` is the same).
pub const STEADY: Millis = Millis(1_000);

/// The smallest things worth a journal line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Spawn(Box<Inputs>),
    /// Stop, then start; with `again` even if nothing changed.
    Restart {
        inputs: Box<Inputs>,
        again: bool,
    },
    /// Tells the keeper what needs no restart.
    Update(Box<Inputs>),
    /// Tells this process that its files changed.
    Reload {
        pid: u32,
        reload: Box<Reload>,
    },
    /// The ledger learns that the version that runs was ready.
    Prove,
    /// The ledger learns that the applied version is not to be used.
    Refuse {
        why: String,
    },
    /// Has this process replaced because it is not well. The keeper decides when, as after a crash.
    Heal {
        pid: u32,
        why: String,
    },
    /// Runs it by its schedule, or because a person asked: a new run whatever ran before. `slot` is the time it stands for.
    Run {
        inputs: Box<Inputs>,
        slot: Option<Timestamp>,
    },
    /// A time of its schedule passes without a run.
    PassOver {
        slot: Timestamp,
    },
    Stop,
    StopStrays,
    PutRow {
        home: PathBuf,
        row: WantedRow,
    },
    /// A row of ours under a name that the service does not have any more.
    RemoveRow {
        home: PathBuf,
        row: String,
    },
    /// Only the ledger learns of the new document.
    Accept,
    /// Forgets the unit, removes its row, and lets go of it in the ledger.
    Release {
        home: Option<PathBuf>,
        row: Option<String>,
    },
}

impl Action {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Spawn(_) => "spawn",
            Self::Restart { .. } | Self::Heal { .. } => "restart",
            Self::Update(_) => "update",
            Self::Reload { .. } => "reload",
            Self::Prove => "prove",
            Self::Refuse { .. } => "refuse",
            Self::Run { .. } => "run",
            Self::PassOver { .. } => "passOver",
            Self::Stop => "stop",
            Self::StopStrays => "stopStrays",
            Self::PutRow { .. } => "putRow",
            Self::RemoveRow { .. } => "removeRow",
            Self::Accept => "accept",
            Self::Release { .. } => "release",
        }
    }

    /// Whether the module notices.
    pub fn disrupts(&self) -> bool {
        matches!(self, Self::Spawn(_) | Self::Restart { .. } | Self::Run { .. } | Self::Heal { .. } | Self::Stop)
    }
}

/// What is wished of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Run,
    /// Stopped and kept: by its document, or by `trueup down`.
    Stay(Reason),
    /// Not declared any more.
    Leave,
}

/// Everything that the policy looks at.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub wish: Wish,
    pub seen: &'a Observed<State>,
    pub record: Option<&'a Record>,
    /// The document differs from the one last applied (or none was).
    pub changed: bool,
    /// A person asked for a restart.
    pub requested: bool,
    /// A step on it was begun and never finished.
    pub reopened: bool,
    /// What it still waits for before it may start, and whether waiting is hopeless.
    pub unmet: Option<&'a Unmet>,
    pub home: &'a Path,
    /// A person asked just now: a crash loop does not wait for its next attempt.
    pub kick: bool,
    /// A dependency whose restarts it follows was started after it.
    pub outlived: Option<&'a str>,
    /// The port that its process was given belongs to another service by now.
    pub makes_way: bool,
    /// The applied version is on trial.
    pub trial: Option<Trial>,
    /// The version in the file failed its trial; what is wished is the one before.
    pub rolled_back: bool,
    /// Whether a module.json or a command supplies the program (for the position of messages).
    pub by_command: bool,
    /// Its schedule, if it runs by one, and the hour.
    pub schedule: Option<Turn<'a>>,
}

/// An unmet dependency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    pub message: String,
    pub doomed: bool,
}

/// A step to be.
pub type Wanted = intent::Wanted<Action>;

/// What the policy says.
pub type Intent = intent::Intent<Action>;

/// Decides.
pub fn plan(view: &View<'_>) -> Intent {
    let state = match view.seen {
        Observed::Unknown(why) => return Intent::rest(Standing::down(Reason::Unknown, why)),
        Observed::Absent => None,
        Observed::Present(state) => Some(state),
    };
    let unit = state.and_then(|s| s.unit.as_ref());
    if let Some(unit) = unit.filter(|u| !u.strays.is_empty()) {
        let pids: Vec<String> = unit.strays.iter().map(u32::to_string).collect();
        let detail = format!("pid {}", pids.join(", "));
        let standing =
            Standing::down(Reason::Stray, format!("a second process with our mark is stopped first ({detail})"));
        return Intent::act(standing, step(Action::StopStrays, Reason::Stray, Cause::Drift, detail, ""));
    }
    match view.wish {
        Wish::Leave => leave(view, unit),
        Wish::Stay(reason) => stay(view, unit, reason),
        Wish::Run => match state {
            Some(state) => run(view, state),
            None => Intent::rest(Standing::down(Reason::Unknown, "not looked at yet")),
        },
    }
}

pub(super) fn step(
    action: Action,
    reason: Reason,
    cause: Cause,
    detail: impl Into<String>,
    pointer: impl Into<String>,
) -> Wanted {
    Wanted { action, reason, cause, detail: detail.into(), pointer: pointer.into() }
}

/// Something of the unit still runs, or will run again by itself.
pub(super) fn is_live(unit: &Unit) -> bool {
    unit.process.is_some() || matches!(unit.phase, Phase::Backoff { .. } | Phase::Looping { .. })
}

fn leave(view: &View<'_>, unit: Option<&Unit>) -> Intent {
    match unit {
        Some(unit) if unit.phase == Phase::Stopping => Intent::rest(Standing::down(Reason::Stopping, "being stopped")),
        Some(unit) if is_live(unit) => {
            let standing = Standing::down(Reason::NotDeclared, "no longer declared, to be stopped");
            let mut intent =
                Intent::act(standing, step(Action::Stop, Reason::NotDeclared, Cause::Intent, describe(unit), ""));
            intent.gate = view.unmet.map(|u| u.message.clone());
            intent
        }
        _ => {
            let (home, row) = match view.record {
                Some(record) => (record.home.clone().map(PathBuf::from), record.row.clone()),
                None => (None, None),
            };
            let action = Action::Release { home, row };
            let standing = Standing::down(Reason::Gone, "gone");
            Intent::act(standing, step(action, Reason::Gone, Cause::Intent, "", ""))
        }
    }
}

fn stay(view: &View<'_>, unit: Option<&Unit>, reason: Reason) -> Intent {
    let pointer = if reason == Reason::Suspended { "/spec/suspend" } else { "" };
    let mut intent = match unit {
        Some(unit) if unit.phase == Phase::Stopping => {
            return Intent::rest(Standing::down(Reason::Stopping, "being stopped"));
        }
        Some(unit) if is_live(unit) => {
            let standing = Standing::down(reason, "to be stopped");
            let mut intent = Intent::act(
                Standing { reason: Reason::Stopping, ..standing },
                step(Action::Stop, reason, Cause::Intent, describe(unit), pointer),
            );
            intent.gate = view.unmet.map(|u| u.message.clone());
            intent
        }
        _ => Intent::rest(Standing::down(reason, "stopped")),
    };
    if intent.steps.is_empty() && view.changed && matches!(reason, Reason::Suspended | Reason::Overridden) {
        intent.steps.push(step(Action::Accept, Reason::Changed, Cause::Intent, "", ""));
    }
    intent
}

fn describe(unit: &Unit) -> String {
    unit.process.as_ref().map_or_else(|| "does not run; not started again".to_owned(), |p| format!("pid {}", p.pid))
}

fn run(view: &View<'_>, state: &State) -> Intent {
    let inputs = match &state.inputs {
        Some(Ok(inputs)) => inputs,
        Some(Err(problem)) => return bad_input(state, problem),
        None => return Intent::rest(Standing::down(Reason::Unknown, "not looked at yet")),
    };
    if let Some(turn) = &view.schedule {
        return scheduled::run(view, state, inputs, turn);
    }
    let mut intent = match &state.unit {
        Some(unit) if is_live(unit) => running(view, state, inputs, unit),
        Some(unit) if unit.phase == Phase::Stopping => {
            Intent::rest(Standing::down(Reason::Stopping, "its earlier process is being stopped"))
        }
        Some(unit) if unit.phase == Phase::Ended && unit.digest == inputs.launch.digest && !view.requested => {
            ended(view, state, inputs, unit)
        }
        unit => start(view, state, inputs, unit.as_ref()),
    };
    row(view, state, &mut intent);
    if let Some(trial) = &view.trial {
        trial::judge(trial, state.unit.as_ref(), &mut intent);
    }
    let silent = intent.steps.iter().all(|s| matches!(s.action, Action::PutRow { .. }));
    let stands = intent.standing.started || intent.standing.settled();
    let wanted_row = inputs.row.as_ref().map(|row| row.name.as_str());
    let renamed = view.record.is_some_and(|r| r.row.as_deref() != wanted_row) && is_known(&state.row);
    if (view.changed || renamed) && silent && stands && intent.gate.is_none() && intent.problem.is_none() {
        intent.steps.push(step(Action::Accept, Reason::Changed, Cause::Intent, "nothing that runs is touched", ""));
    }
    intent
}

/// An input is missing: what runs keeps running, nothing new is started.
fn bad_input(state: &State, problem: &Problem) -> Intent {
    let mut standing = Standing::down(Reason::BadInput, problem.message.clone()).doomed();
    let running = state.unit.as_ref().is_some_and(|u| u.phase == Phase::Running);
    standing.started = running;
    // It was started with inputs that were good, and its own word is still what counts.
    let told = state.unit.as_ref().is_some_and(|u| u.ready) || state.uptime >= STEADY;
    standing.ready = running && told && state.health.verdict == Verdict::Good;
    if running {
        standing.message = format!("{}; what runs is left as it is", problem.message);
    }
    let mut intent = Intent::rest(standing);
    intent.problem = Some(Trouble::Placed(Box::new(problem.clone())));
    intent
}

/// Nothing of it runs.
fn start(view: &View<'_>, state: &State, inputs: &Inputs, unit: Option<&Unit>) -> Intent {
    let first = view.record.is_none_or(|r| r.process.is_none());
    let cause = if view.changed || first || view.requested {
        Cause::Intent
    } else if view.reopened {
        Cause::Retry
    } else {
        Cause::Drift
    };
    let reason = match unit {
        Some(unit) if view.requested && unit.digest == inputs.launch.digest => Reason::Requested,
        Some(unit) if unit.phase == Phase::Ended => Reason::Changed,
        _ => Reason::Absent,
    };
    let detail = inputs.port.map(|p| format!("port {p}")).unwrap_or_default();
    let action = match reason {
        // What ran to its end begins anew only when that is said.
        Reason::Requested => Action::Restart { inputs: Box::new(inputs.clone()), again: true },
        _ => Action::Spawn(Box::new(inputs.clone())),
    };
    let wanted = step(action, reason, cause, detail, "");
    if let Some(unmet) = view.unmet {
        let mut standing = Standing::down(Reason::DependencyNotReady, unmet.message.clone());
        standing.doomed = unmet.doomed;
        let mut intent = Intent::act(standing, wanted);
        intent.gate = Some(unmet.message.clone());
        return intent;
    }
    if let Some(blocked) = port_taken(state) {
        return blocked;
    }
    let mut intent = Intent::act(Standing::down(Reason::Absent, "to be started"), wanted);
    if cause == Cause::Drift {
        intent.standing.drifted = Some((Reason::Absent, "its process is gone".to_owned()));
    }
    intent
}

/// Its port is held by somebody: named, and never stopped.
pub(super) fn port_taken(state: &State) -> Option<Intent> {
    match &state.holder {
        PortHolder::Fine => None,
        PortHolder::Unit(name) => {
            let message = format!("its port is still held by Service/{name}");
            Some(Intent::rest(Standing::down(Reason::PortTaken, message)))
        }
        PortHolder::Unknown(why) => {
            Some(Intent::rest(Standing::down(Reason::Unknown, format!("the socket tables cannot be read: {why}"))))
        }
        PortHolder::Stranger(holder) => {
            let port = wanted_port(state).map(|p| p.to_string()).unwrap_or_default();
            let message = format!("port {port} is held by {holder}");
            let mut intent = Intent::rest(Standing::down(Reason::PortTaken, message.clone()).doomed());
            let hint = match holder.pid {
                Some(pid) => format!(
                    "stop it yourself (kill {pid}), or give this service another port; trueup never stops what is not its own"
                ),
                None => "find it with `ss -ltnp` as root, or give this service another port".to_owned(),
            };
            intent.problem = Some(Trouble::At { pointer: "/spec/port", code: Code::PortTaken, message, hint });
            Some(intent)
        }
    }
}

fn wanted_port(state: &State) -> Option<u16> {
    match &state.inputs {
        Some(Ok(inputs)) => inputs.port,
        _ => None,
    }
}

/// It ran to its end, and the policy that the keeper has says that this was it.
fn ended(view: &View<'_>, state: &State, inputs: &Inputs, unit: &Unit) -> Intent {
    if unit.policy == inputs.policy {
        return has_ended(unit);
    }
    let runs_again = inputs.policy.restart.restarts(unit.last_exit.as_ref());
    let mut update = policy_step(view, inputs, unit);
    if !runs_again {
        let mut intent = has_ended(unit);
        intent.steps.push(update);
        return intent;
    }
    update.detail = "it runs again".to_owned();
    if let Some(unmet) = view.unmet {
        let standing = Standing::down(Reason::DependencyNotReady, unmet.message.clone());
        let mut intent = Intent::act(Standing { doomed: unmet.doomed, ..standing }, update);
        intent.gate = Some(unmet.message.clone());
        return intent;
    }
    let standing = Standing::down(Reason::PolicyChanged, "to be run again: its restart policy changed");
    port_taken(state).unwrap_or_else(|| Intent::act(standing, update))
}

fn has_ended(unit: &Unit) -> Intent {
    if let Some(exit) = unit.last_exit.as_ref().filter(|exit| unit.policy.restart.succeeded(exit)) {
        let mut standing = Standing::down(Reason::Completed, format!("ran to its end with {exit}"));
        standing.completed = true;
        return Intent::rest(standing);
    }
    let how = match &unit.last_exit {
        Some(exit @ (Exit::NotSpawned(_) | Exit::OutOfMemory { .. })) => exit.to_string(),
        Some(exit) => format!("ended with {exit}"),
        None => "ended".to_owned(),
    };
    let final_code = unit.last_exit.as_ref().is_some_and(|exit| unit.policy.restart.gave_up(exit));
    let why =
        if final_code { "it calls that final (fatalCodes)" } else { "its restart policy says not to run it again" };
    let message = format!("{how}, and {why}");
    Intent::rest(Standing::down(Reason::Failed, message).doomed())
}

/// A process runs, or the keeper is about to start it again.
pub(super) fn running(view: &View<'_>, state: &State, inputs: &Inputs, unit: &Unit) -> Intent {
    if unit.phase == Phase::Stopping {
        return Intent::rest(Standing::down(Reason::Stopping, "its earlier process is being stopped"));
    }
    if unit.digest != inputs.launch.digest || view.requested {
        return replace(view, state, inputs, unit);
    }
    if view.kick && matches!(unit.phase, Phase::Looping { .. }) && !matches!(state.holder, PortHolder::Stranger(_)) {
        let detail = format!("crashed {} times in a row", unit.crashes);
        let action = Action::Restart { inputs: Box::new(inputs.clone()), again: true };
        let standing = Standing::down(Reason::Restarting, "tried again at once");
        return Intent::act(standing, step(action, Reason::CrashLoop, Cause::Retry, detail, ""));
    }
    if let (Some(why), Some(process)) = (&state.health.unwell, &unit.process) {
        let standing = Standing { started: true, ..Standing::down(Reason::Unhealthy, format!("is restarted: {why}")) };
        let action = Action::Heal { pid: process.pid, why: why.clone() };
        return Intent::act(standing, step(action, Reason::Unhealthy, Cause::Drift, why.clone(), "/spec/liveness"));
    }
    if let Some(outlived) = view.outlived.filter(|_| unit.phase == Phase::Running) {
        return follow(view, inputs, outlived);
    }
    let mut intent = Intent::rest(standing(state, unit));
    if intent.standing.reason == Reason::NotReady
        && let Some(others) = other_ports(state, inputs)
    {
        intent.standing.message.push_str(&format!("; listens on {others} so far"));
    }
    let elsewhere = listens_elsewhere(state, inputs, unit);
    if let Some(elsewhere) = elsewhere.as_ref().filter(|_| intent.standing.ready && !asks_own_port(inputs)) {
        // Its own word is that it is well there; another start would listen there again.
        intent.standing.drifted = Some((Reason::ListensElsewhere, elsewhere.clone()));
    } else if let Some(elsewhere) = elsewhere {
        let standing = Standing::down(Reason::ListensElsewhere, elsewhere.clone());
        intent.standing =
            Standing { started: true, drifted: Some((Reason::ListensElsewhere, elsewhere.clone())), ..standing };
        let action = Action::Restart { inputs: Box::new(inputs.clone()), again: true };
        intent.steps.push(step(action, Reason::ListensElsewhere, Cause::Drift, elsewhere, "/spec/port"));
        return intent;
    }
    if !unit.known {
        let action = Action::Update(Box::new(inputs.clone()));
        intent.steps.push(step(action, Reason::Readopted, Cause::Drift, "the keeper was restarted", ""));
    } else if unit.policy != inputs.policy {
        intent.steps.push(policy_step(view, inputs, unit));
    } else if let Some(step) = reload(view, inputs, unit) {
        intent.steps.push(step);
    }
    intent
}

/// Its process was told of other files than there are now.
fn reload(view: &View<'_>, inputs: &Inputs, unit: &Unit) -> Option<Wanted> {
    let reload = inputs.reload.as_ref()?;
    let told = view.record.and_then(|r| r.reloaded.as_ref());
    let pid = unit.process.as_ref().filter(|_| unit.phase == Phase::Running)?.pid;
    if told == Some(&reload.files) {
        return None;
    }
    let action = Action::Reload { pid, reload: Box::new(reload.clone()) };
    Some(step(action, Reason::FilesChanged, Cause::Intent, "no restart needed", "/spec/files"))
}

/// What it depends on was started anew, and it is to follow.
fn follow(view: &View<'_>, inputs: &Inputs, dependency: &str) -> Intent {
    let detail = format!("{dependency} was restarted");
    let standing = Standing { started: true, ..Standing::down(Reason::DependencyRestarted, detail.clone()) };
    let action = Action::Restart { inputs: Box::new(inputs.clone()), again: true };
    let mut intent =
        Intent::act(standing, step(action, Reason::DependencyRestarted, Cause::Drift, detail, "/spec/dependsOn"));
    if let Some(unmet) = view.unmet {
        intent.standing.message = unmet.message.clone();
        intent.gate = Some(unmet.message.clone());
    }
    intent
}

fn policy_step(view: &View<'_>, inputs: &Inputs, unit: &Unit) -> Wanted {
    let cause = if view.changed { Cause::Intent } else { Cause::Drift };
    let action = Action::Update(Box::new(inputs.clone()));
    step(action, Reason::PolicyChanged, cause, "no restart needed", policy_pointer(unit, inputs))
}

fn policy_pointer(unit: &Unit, inputs: &Inputs) -> &'static str {
    let (old, new) = (&unit.policy, &inputs.policy);
    if old.restart != new.restart {
        "/spec/restart"
    } else if (old.stop_signal, old.stop_grace) != (new.stop_signal, new.stop_grace) {
        "/spec/stop"
    } else if old.ceilings != new.ceilings {
        "/spec/resources"
    } else {
        "/spec/logs"
    }
}

/// What runs is not what is wanted.
fn replace(view: &View<'_>, state: &State, inputs: &Inputs, unit: &Unit) -> Intent {
    let before = view.record.map(|r| &r.parts);
    let differs = |name: &&String| before.is_none_or(|b| b.get(*name) != inputs.parts.get(*name));
    let mut names: Vec<&String> =
        inputs.parts.keys().chain(before.into_iter().flat_map(|b| b.keys())).filter(differs).collect();
    names.sort();
    names.dedup();
    let (reason, cause) = if view.requested && unit.digest == inputs.launch.digest {
        (Reason::Requested, Cause::Intent)
    } else if names.is_empty() {
        (Reason::ProcessDrifted, if view.reopened { Cause::Retry } else { Cause::Drift })
    } else if view.rolled_back {
        (Reason::RolledBack, Cause::Retry)
    } else if view.changed {
        (Reason::Changed, Cause::Intent)
    } else {
        (Reason::InputChanged, Cause::Intent)
    };
    let detail = names.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(", ");
    let pointer = names.first().map_or_else(String::new, |name| pointer_of(name, view.by_command));
    let action = Action::Restart { inputs: Box::new(inputs.clone()), again: view.requested };
    let wanted = step(action, reason, cause, detail.clone(), pointer);
    let mut standing = Standing::down(reason, format!("to be restarted: {detail}"));
    standing.started = unit.phase == Phase::Running;
    if cause == Cause::Drift {
        standing.drifted = Some((reason, "runs with settings that were not the last applied".to_owned()));
    }
    // Services that swap their ports would wait for each other, for the port or for being ready: letting go first ends that.
    let waits = view.unmet.is_some() || matches!(state.holder, PortHolder::Unit(_));
    if view.makes_way && waits {
        return Intent::act(standing, step(Action::Stop, reason, cause, detail, "/spec/port"));
    }
    // A new version never starts beside an old version of what it depends on; what runs goes on until then.
    if let Some(unmet) = view.unmet {
        standing.reason = Reason::DependencyNotReady;
        standing.message = unmet.message.clone();
        standing.doomed = unmet.doomed;
        let mut intent = Intent::act(standing, wanted);
        intent.gate = Some(unmet.message.clone());
        return intent;
    }
    // The port moved to one that somebody else holds: the old process is better than none.
    port_taken(state).unwrap_or_else(|| Intent::act(standing, wanted))
}

/// Where in the document a part of the launch comes from.
fn pointer_of(part: &str, by_command: bool) -> String {
    match part.split_once('.') {
        Some(("env", name)) => format!("/spec/env/{name}"),
        Some(("secretEnv", name)) => format!("/spec/secretEnv/{name}"),
        Some((list @ ("envFile" | "files"), _)) => format!("/spec/{list}"),
        Some(("resources", name)) => format!("/spec/resources/{}", name.replace('.', "/")),
        Some(_) => String::new(),
        None if part == "command" && !by_command => "/spec/module".to_owned(),
        None => format!("/spec/{part}"),
    }
}

/// The ports that it listens on, when its own is not among them.
fn other_ports(state: &State, inputs: &Inputs) -> Option<String> {
    let port = inputs.port?;
    let others: Vec<String> = state.listens.iter().map(u16::to_string).collect();
    (!others.is_empty() && !state.listens.contains(&port)).then(|| others.join(", "))
}

/// On which other ports its processes listen, when they should have opened the wanted one by now.
fn listens_elsewhere(state: &State, inputs: &Inputs, unit: &Unit) -> Option<String> {
    let port = inputs.port?;
    let late = state.uptime >= PORT_GRACE;
    let others = other_ports(state, inputs).filter(|_| unit.phase == Phase::Running && late)?;
    // Such a module reads its port from services.json before PORT, and nobody told us which row is its own.
    let hint =
        if inputs.row.is_none() { " (if it finds its port in services.json, name its row: registersAs)" } else { "" };
    Some(format!("listens on {others} instead of {port}{hint}"))
}

/// Whether the readiness probe asks for what listens on the service's port.
fn asks_own_port(inputs: &Inputs) -> bool {
    match &inputs.probing.readiness {
        Some(Way::Ask(Probe { ask: Ask::Http { port, .. } | Ask::Tcp { port }, .. })) => Some(*port) == inputs.port,
        Some(Way::Ask(_) | Way::Notify) => false,
        None => true,
    }
}

/// How a unit stands whose process is the wanted one.
pub(super) fn standing(state: &State, unit: &Unit) -> Standing {
    let last = unit.last_exit.as_ref().map_or_else(|| "unknown".to_owned(), ToString::to_string);
    match &unit.phase {
        Phase::Running => {}
        Phase::Backoff { retry_at } => {
            let mut standing = Standing::down(
                Reason::Restarting,
                format!("crashed ({last}), attempt {} at {retry_at}", unit.crashes + 1),
            );
            add_holder(state, &mut standing);
            return standing;
        }
        Phase::Looping { retry_at } => {
            let message = format!("crashed {} times in a row (last: {last}); tried again at {retry_at}", unit.crashes);
            let mut standing = Standing::down(Reason::CrashLoop, message).doomed();
            add_holder(state, &mut standing);
            return standing;
        }
        Phase::Stopping | Phase::Stopped | Phase::Ended => {
            return Standing::down(Reason::Stopping, "its earlier process is being stopped");
        }
    }
    let mut standing = Standing::down(Reason::Running, "runs");
    standing.started = true;
    if let Some(why) = &state.health.starting {
        standing.reason = Reason::NotReady;
        standing.message = why.clone();
        add_holder(state, &mut standing);
        return standing;
    }
    let probed = matches!(&state.inputs, Some(Ok(inputs)) if inputs.probing.readiness.is_some());
    match &state.health.verdict {
        Verdict::Good if probed => {
            standing.ready = true;
            standing.reason = Reason::ProbeSucceeded;
            standing.message = "answers its readiness probe".to_owned();
        }
        Verdict::Good => {
            standing.ready = state.uptime >= STEADY;
            if !standing.ready {
                standing.reason = Reason::NotReady;
                standing.message = format!("has not run for {STEADY} yet");
            }
        }
        Verdict::Pending => {
            standing.reason = Reason::NotReady;
            standing.message = "has not answered its readiness probe yet".to_owned();
        }
        Verdict::Bad(why) => {
            standing.reason = Reason::NotReady;
            standing.message = format!("does not answer its readiness probe: {why}");
            add_holder(state, &mut standing);
        }
    }
    standing
}

/// A stranger on the port explains more than any exit code.
fn add_holder(state: &State, standing: &mut Standing) {
    if let PortHolder::Stranger(holder) = &state.holder {
        standing.reason = Reason::PortTaken;
        standing.message = format!("{}; its port is held by {holder}", standing.message);
        standing.doomed = true;
    }
}

fn is_known(row: &RowState) -> bool {
    !matches!(row, RowState::Unknown(_))
}

/// The row in services.json is put right before anything derives from it.
pub(super) fn row(view: &View<'_>, state: &State, intent: &mut Intent) {
    if let Some(old) = &state.old_row {
        // What holds the port under the old name would be in the way of the new one, which follows at the next look.
        let action = Action::RemoveRow { home: view.home.to_owned(), row: old.clone() };
        let detail = format!("the row '{old}' had its earlier name");
        intent.steps.insert(0, step(action, Reason::Changed, Cause::Intent, detail, "/spec/registersAs"));
        return;
    }
    let (row, reason, detail) = match &state.row {
        RowState::Fine | RowState::Unknown(_) => return,
        RowState::Missing(row) => (row, Reason::Absent, String::new()),
        // The file asks for another port than before: the row was right, and is to follow.
        RowState::Drifted(row, _) if view.changed && view.record.and_then(|r| r.port) != wanted_port(state) => {
            (row, Reason::Changed, String::new())
        }
        RowState::Drifted(row, says) => (row, Reason::RowDrifted, format!("services.json says {says}")),
        RowState::Conflict(other) => {
            let message = format!("in services.json the row '{other}' holds its port");
            intent.standing.drifted = Some((Reason::RowConflict, message));
            return;
        }
    };
    // The new port cannot be had: what runs goes on with the old one, and the row goes on telling so.
    if matches!(intent.standing.reason, Reason::PortTaken | Reason::Unknown) {
        return;
    }
    // A row for something that does not run yet, or runs with its old port until its time comes, would send others astray.
    if reason != Reason::RowDrifted && intent.gate.is_some() {
        return;
    }
    let cause = if reason == Reason::RowDrifted { Cause::Drift } else { Cause::Intent };
    if reason == Reason::RowDrifted && intent.standing.drifted.is_none() {
        intent.standing.drifted = Some((Reason::RowDrifted, detail.clone()));
    }
    let action = Action::PutRow { home: view.home.to_owned(), row: row.clone() };
    intent.steps.insert(0, step(action, reason, cause, detail, "/spec/port"));
}
