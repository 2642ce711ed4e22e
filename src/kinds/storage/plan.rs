//! What is to be done about the Storage: where blobs go, and how far they have come. Pure.

use std::collections::BTreeMap;

use super::spec::StorageSpec;
use crate::kinds::intent::{self, Trouble};
use crate::kinds::standing::Standing;
use crate::model::condition::Reason;
use crate::model::event::Cause;
use crate::model::id::{KindName, Name, ResourceId};
use crate::model::problem::Code;
use crate::model::time::Timestamp;
use crate::model::wording::{count, size, span};
use crate::ports::storage::{Motion, Progress, Status};

/// What the index learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Settings that move nothing.
    Accept,
    /// The first backend becomes the active one.
    Activate { to: Name },
    /// Blobs go to another backend from now on, and all others follow.
    Migrate { from: Name, to: Name },
    /// There is no storage any more, and no blob.
    Release,
}

impl Action {
    /// Its name in plans, journals and output.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Activate { .. } => "activate",
            Self::Migrate { .. } => "migrate",
            Self::Release => "release",
        }
    }
}

/// A step to be.
pub type Wanted = intent::Wanted<Action>;

/// What the policy says.
pub type Intent = intent::Intent<Action>;

/// Everything that is known of it.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// `None` when its stored document cannot be read any more.
    pub spec: Option<&'a StorageSpec>,
    /// No document declares it.
    pub leaves: bool,
    pub owned: bool,
    /// Its document is another one than the ledger's.
    pub changed: bool,
    /// The fields of its spec that differ from the ledger's.
    pub fields: &'a [String],
    pub status: &'a Result<Status, String>,
    /// Whether each backend can be used, as far as is known.
    pub standings: &'a BTreeMap<ResourceId, Standing>,
    /// Everything is to be left as it is.
    pub down: bool,
    pub now: Timestamp,
}

/// Decides.
pub fn plan(view: &View<'_>) -> Intent {
    let status = match view.status {
        Ok(status) => status,
        Err(why) => return Intent::rest(Standing::down(Reason::Unknown, why)),
    };
    if view.down {
        return Intent::rest(Standing::down(Reason::Down, "everything is stopped; reads and writes go on"));
    }
    let Some(spec) = view.spec.filter(|_| !view.leaves) else { return leave(status) };
    let to = &spec.active_backend;
    let mut intent = match status.standing.place() {
        None => {
            let standing = Standing::down(Reason::Absent, format!("{} becomes the active backend", backend(to)));
            let detail = format!("activeBackend {to}");
            Intent::act(standing, step(Action::Activate { to: to.clone() }, Reason::Absent, detail))
        }
        Some(place) if place != to => {
            let standing = Standing::down(Reason::Migrating, format!("blobs are to be moved to {}", backend(to)));
            let detail = format!("{}{}", way(status, to), load(status, to));
            let action = Action::Migrate { from: place.clone(), to: to.clone() };
            Intent::act(standing, step(action, Reason::Changed, detail))
        }
        Some(_) => {
            let mut intent = Intent::rest(standing(view, spec, status));
            if view.changed {
                let reason = if view.owned { Reason::Changed } else { Reason::Absent };
                intent.steps.push(step(Action::Accept, reason, settings(view.fields, spec, status)));
            }
            intent
        }
    };
    let moves = intent.steps.iter().any(|step| step.action != Action::Accept);
    if moves {
        intent.gate = gate(view, spec);
        if intent.gate.is_some() && spec.suspend.holds(view.now) {
            intent.standing = suspended(spec);
        } else if let Some(gate) = &intent.gate {
            // Without a standing its document has a mistake and no version to go on with.
            let doomed = view.standings.get(&backend(to)).is_none_or(|standing| standing.doomed);
            intent.standing = Standing { doomed, ..Standing::down(Reason::DependencyNotReady, gate.clone()) };
        }
    }
    if intent.standing.reason == Reason::Quarantined && !status.busy {
        intent.problem = Some(quarantine(status));
    }
    intent
}

fn backend(name: &Name) -> ResourceId {
    ResourceId::new(KindName::StorageBackend, name.clone())
}

fn step(action: Action, reason: Reason, detail: String) -> Wanted {
    let pointer = match action {
        Action::Activate { .. } | Action::Migrate { .. } => "/spec/activeBackend".to_owned(),
        Action::Accept | Action::Release => String::new(),
    };
    Wanted { action, reason, cause: Cause::Intent, detail, pointer }
}

/// `activeBackend local → bucket`.
fn way(status: &Status, to: &Name) -> String {
    let from = status.standing.active.as_ref().map(ToString::to_string).unwrap_or_default();
    match &status.standing.target {
        Some(other) if from == to.as_str() => format!("activeBackend back to {to} (on the way to {other})"),
        Some(other) => format!("activeBackend {from} → {to} (instead of {other})"),
        None => format!("activeBackend {from} → {to}"),
    }
}

/// What there is to move.
fn load(status: &Status, to: &Name) -> String {
    match status.standing.elsewhere(to) {
        (0, _) => ", nothing to copy".to_owned(),
        (objects, bytes) => format!(", {} to copy ({})", count(objects, "object"), size(bytes)),
    }
}

/// Why blobs cannot go there yet.
fn gate(view: &View<'_>, spec: &StorageSpec) -> Option<String> {
    if spec.suspend.holds(view.now) {
        return Some("it is suspended".to_owned());
    }
    let id = backend(&spec.active_backend);
    match view.standings.get(&id) {
        Some(standing) if standing.ready => None,
        Some(standing) => Some(format!("{id} cannot be used yet: {}", standing.message)),
        None => Some(format!("{id} cannot be used yet")),
    }
}

fn suspended(spec: &StorageSpec) -> Standing {
    let reason = spec.suspend.reason().map(|reason| format!(": {reason}")).unwrap_or_default();
    Standing::down(Reason::Suspended, format!("suspended{reason}; reads and writes go on"))
}

/// Blobs go where they should; how far they have come.
fn standing(view: &View<'_>, spec: &StorageSpec, status: &Status) -> Standing {
    let to = &spec.active_backend;
    let (left, _) = status.standing.elsewhere(to);
    let troubled = status.standing.troubled();
    let moving = status.standing.target.is_some() || left > 0;
    if spec.suspend.holds(view.now) {
        let standing = suspended(spec);
        return match moving {
            true => Standing { message: format!("{}, {}", standing.message, so_far(status, to)), ..standing },
            false => standing,
        };
    }
    if troubled > 0 && status.busy {
        let message = format!("{} without a good copy: looked for everywhere", count(troubled, "object"));
        return Standing::down(Reason::Quarantined, message);
    }
    if troubled > 0 && left.saturating_sub(troubled_elsewhere(status, to)) == 0 {
        let message = format!("{} without a good copy anywhere: {}", count(troubled, "object"), first(status));
        // Everything else works: what is there is read and written.
        return Standing { started: true, ready: !moving, ..Standing::down(Reason::Quarantined, message).doomed() };
    }
    if moving {
        return match &status.motion {
            Motion::Waiting { why, retry_at } => Standing::down(
                Reason::Migrating,
                format!("{}; waits: {why}; tried again at {retry_at}", so_far(status, to)),
            ),
            Motion::Elsewhere => {
                Standing::down(Reason::Migrating, format!("another process moves blobs; {}", so_far(status, to)))
            }
            _ => Standing::down(Reason::Migrating, so_far(status, to)),
        };
    }
    let tally = status.standing.tallies.get(to).copied().unwrap_or_default();
    let message = format!("{} on {to} ({})", count(status.standing.blobs, "blob"), size(tally.bytes));
    Standing { started: true, ready: true, ..Standing::down(Reason::Settled, message) }
}

/// Which settings change, and what is lost by that.
fn settings(fields: &[String], spec: &StorageSpec, status: &Status) -> String {
    let lost: Vec<String> = status
        .troubled
        .iter()
        .filter(|(key, ..)| spec.abandon.contains(key))
        .map(|(key, ..)| key.to_string())
        .collect();
    let what = if fields.is_empty() { "settings".to_owned() } else { fields.join(", ") };
    match lost.is_empty() {
        true => what,
        false => format!("{what}; gives up {}", lost.join(", ")),
    }
}

fn troubled_elsewhere(status: &Status, to: &Name) -> u64 {
    let others = status.standing.tallies.iter().filter(|(name, _)| *name != to);
    others.map(|(_, tally)| tally.troubled).sum()
}

/// `12345 of 20000 objects on bucket, 410MiB of 698MiB, 41MiB/s, 7.0s left`.
pub fn so_far(status: &Status, to: &Name) -> String {
    let progress = progress(status, to);
    let rate = match progress.bytes_per_second {
        0 => String::new(),
        rate => format!(", {}/s", size(rate)),
    };
    let eta = progress.eta.map(|eta| format!(", {} left", span(eta.0))).unwrap_or_default();
    let (done, total) = (size(progress.done_bytes), size(progress.total_bytes));
    format!("{} of {} on {to}, {done} of {total}{rate}{eta}", progress.done, count(progress.total, "object"))
}

/// By the mover's word, or, when it says nothing, by the index.
pub fn progress(status: &Status, to: &Name) -> Progress {
    status.progress.unwrap_or_else(|| {
        let (left, left_bytes) = status.standing.elsewhere(to);
        let there = status.standing.tallies.get(to).copied().unwrap_or_default();
        Progress {
            done: there.objects,
            total: there.objects + left,
            done_bytes: there.bytes,
            total_bytes: there.bytes + left_bytes,
            ..Progress::default()
        }
    })
}

/// The first of the findings.
fn first(status: &Status) -> String {
    let more = status.standing.troubled().saturating_sub(1);
    let rest = if more > 0 { format!(", and {more} more") } else { String::new() };
    match status.troubled.first() {
        Some((key, place, why)) => format!("{key} on {place}: {why}{rest}"),
        None => rest,
    }
}

fn quarantine(status: &Status) -> Trouble {
    let names: Vec<String> = status.troubled.iter().map(|(key, ..)| key.to_string()).collect();
    Trouble::At {
        pointer: "/spec",
        code: Code::Quarantined,
        message: format!(
            "{} without a good copy anywhere: {}",
            count(status.standing.troubled(), "object"),
            first(status)
        ),
        hint: format!(
            "put the right bytes again with `trueup blob put`, bring back a backend that has them, or give them up by name: \
             `abandon: [{}]`",
            names.join(", ")
        ),
    }
}

/// There is no storage to be without.
fn leave(status: &Status) -> Intent {
    match status.standing.blobs {
        0 => {
            let standing = Standing::down(Reason::NotDeclared, "no longer declared");
            Intent::act(standing, step(Action::Release, Reason::NotDeclared, String::new()))
        }
        blobs => {
            let message = format!(
                "no longer declared, and kept: it holds {}; declare it again, or remove them first (`trueup blob ls`, `trueup blob rm`)",
                count(blobs, "blob")
            );
            Intent::rest(Standing::down(Reason::StillNeeded, message).doomed())
        }
    }
}
