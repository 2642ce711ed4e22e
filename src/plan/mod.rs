//! Desired, ledger and observed to a plan: ordered steps, each with a reason and a source position, and how every resource
//! stands. Pure: no clock, no files, no waiting; the same input gives the same plan whatever the order of files.

mod budget;
mod check;
pub(crate) mod connections;
pub mod hours;
pub mod status;
mod step;
mod storage;
pub(crate) mod wave;
mod way;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

pub use budget::{Refusal, counts};
pub use check::{CheckedPlan, check};
pub use hours::Hours;
pub use step::{Claim, Step};

use crate::desired::{Desired, Held, Resource};
use crate::document::Document;
use crate::kinds::connection::observe::Seen as Ties;
use crate::kinds::hub::plan as hub_kind;
use crate::kinds::intent::{Intent, Trouble};
use crate::kinds::service::inputs;
use crate::kinds::service::observe::{Record, State};
use crate::kinds::service::plan::{self as service, Unmet, View, Wish};
use crate::kinds::service::scheduled::{self, Turn};
use crate::kinds::service::spec::{Dependency, DependencyCondition, ServiceSpec};
use crate::kinds::service::trial::Trial;
use crate::kinds::standing::Standing;
use crate::kinds::storage::observe::Seen;
use crate::kinds::{Action, Spec};
use crate::model::condition::Reason;
use crate::model::event::Cause;
use crate::model::id::{KindName, Name, ResourceId};
use crate::model::observed::Observed;
use crate::model::output::NoteLine;
use crate::model::overriding::Override;
use crate::model::problem::{Code, Problem};
use crate::model::span::Span;
use crate::model::time::Timestamp;
use crate::ports::{self, store::Owned};

/// Everything that planning looks at.
pub struct Input<'a> {
    pub desired: &'a Desired,
    pub owned: &'a BTreeMap<ResourceId, Owned>,
    /// What we own and no document declares, as last applied.
    pub leaving: &'a BTreeMap<ResourceId, Leaving>,
    pub seen: &'a BTreeMap<Name, Observed<State>>,
    /// The ports given to services, chosen ones included.
    pub ports: &'a BTreeMap<Name, u16>,
    /// Services that a person asked to restart.
    pub requested: &'a BTreeSet<Name>,
    /// Resources with a step that was begun and never finished.
    pub reopened: &'a BTreeSet<ResourceId>,
    /// Removals that were within the budget in an earlier tick and go on.
    pub admitted: &'a BTreeSet<ResourceId>,
    /// Removals within the budget a short while ago.
    pub recent: &'a BTreeSet<ResourceId>,
    /// Everything is to be stopped and kept.
    pub down: bool,
    /// What crashed too often is tried at once.
    pub kick: bool,
    /// `--allow-prune N`.
    pub allow_prune: Option<usize>,
    pub home: &'a Path,
    /// Versions on trial.
    pub trials: &'a BTreeMap<Name, Trial>,
    /// Services that were replaced a moment ago.
    pub replacing: &'a BTreeSet<Name>,
    /// The hour, for what depends on it.
    pub now: Timestamp,
    /// The overrides in force.
    pub overrides: &'a BTreeMap<ResourceId, Override>,
    /// What was seen of the storage; `None` when the tree has nothing to do with one.
    pub storage: Option<&'a Seen>,
    pub hub: &'a ports::hub::Standing,
    /// What was seen of connections and vaults; `None` when the tree has nothing to do with any.
    pub ties: Option<&'a Ties>,
}

/// Something owned that no document declares.
#[derive(Clone, Debug)]
pub struct Leaving {
    /// Where its document stood.
    pub origin: Span,
    /// `None` when what is stored cannot be read any more.
    pub document: Option<Arc<Document>>,
    /// `None` when the stored document cannot be read any more; it can still be stopped.
    pub spec: Option<Spec>,
}

/// What is to be done, and how everything stands.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub standings: BTreeMap<ResourceId, Standing>,
    /// Problems found while looking (inputs, ports), beside those of the documents.
    pub problems: Vec<Problem>,
    /// Set when more would be removed than the budget allows; nothing is removed then.
    pub refusal: Option<Refusal>,
    /// Owned, not declared, and kept because the tree could not be read completely.
    pub frozen: BTreeSet<ResourceId>,
    /// Removals of this plan.
    pub pruned: BTreeSet<ResourceId>,
    /// They are beyond the budget, and allowed by `--allow-prune`.
    pub by_number: bool,
    /// What depends on the hour, by declared service.
    pub hours: BTreeMap<ResourceId, Hours>,
    /// Services that were asked to restart and are to stay stopped: the request is over.
    pub unheard: BTreeSet<Name>,
}

/// Makes the plan.
pub fn make(input: &Input<'_>) -> Plan {
    let mut plan = Plan::default();
    let candidates: BTreeSet<&ResourceId> = input.leaving.keys().collect();
    let admitted = if input.down { Ok(budget::Admitted::default()) } else { budget::admit(input, &candidates) };
    match admitted {
        Ok(admitted) => (plan.pruned, plan.by_number) = (admitted.ids, admitted.by_number),
        Err(refusal) => plan.refusal = Some(refusal),
    }
    plan_leaving(input, &mut plan);
    for id in &input.desired.order {
        let Some(resource) = input.desired.resources.get(id) else { continue };
        match &resource.spec {
            Spec::Hub(_) => plan_hub(input, resource, &mut plan),
            Spec::Service(spec) => plan_service(input, resource, spec, &mut plan),
            Spec::Vault(spec) => connections::vault(input, resource, spec, &mut plan),
            Spec::Connection(spec) => connections::connection(input, resource, spec, &mut plan),
            Spec::StorageBackend(spec) => storage::backend(input, resource, spec, &mut plan),
            Spec::Storage(spec) => storage::storage(input, resource, spec, &mut plan),
        }
    }
    connections::orphans(input, &mut plan);
    // Removal before addition: what replaces a thing is started after it.
    plan.steps.sort_by_key(|s| s.rank());
    wave::limit(input, &mut plan);
    plan
}

fn plan_hub(input: &Input<'_>, resource: &Resource, plan: &mut Plan) {
    let owned = input.owned.get(&resource.id);
    let changed = owned.is_none_or(|o| o.digest != resource.digest || o.base != base(resource));
    if changed && resource.held.is_none() && !input.down {
        let reason = if owned.is_some() { Reason::Changed } else { Reason::Absent };
        plan.steps.push(Step {
            resource: resource.id.clone(),
            action: Action::AcceptHub,
            reason,
            cause: Cause::Intent,
            detail: "settings".to_owned(),
            source: resource.document.origin.clone(),
            gate: None,
            claim: Claim::Document,
        });
    }
    plan.standings.insert(resource.id.clone(), hub_kind::standing(input.hub));
}

fn plan_service(input: &Input<'_>, resource: &Resource, spec: &ServiceSpec, plan: &mut Plan) {
    let name = &resource.id.name;
    let owned = input.owned.get(&resource.id);
    let record = record_of(owned);
    let (wish, mut hours) = hours::wish(input, &resource.id, spec);
    // What is to be stopped waits for its dependants, never for what it needs.
    let unmet = match wish {
        Wish::Run => unmet(plan, spec),
        Wish::Stay(_) | Wish::Leave => live_dependents(input, name),
    };
    let unknown = Observed::Unknown("not looked at".to_owned());
    let outlived = outlived(input, name, spec);
    let view = View {
        wish,
        seen: input.seen.get(name).unwrap_or(&unknown),
        record: record.as_ref(),
        changed: resource.held.is_none()
            && owned.is_none_or(|o| o.digest != resource.digest || o.base != base(resource)),
        requested: input.requested.contains(name),
        reopened: input.reopened.contains(&resource.id),
        unmet: unmet.as_ref(),
        home: input.home,
        kick: input.kick,
        outlived: outlived.as_deref(),
        trial: input.trials.get(name).copied(),
        rolled_back: resource.held.as_ref().is_some_and(|held| held.failed),
        makes_way: way::makes_way(input, name, record.as_ref()),
        by_command: spec.command.is_some(),
        schedule: spec.schedule.as_ref().map(|spec| Turn { spec, now: input.now }),
    };
    let mut intent = service::plan(&view);
    hours::explain(&mut hours, &resource.id, view.requested, &mut intent);
    if let Some(message) = scheduled::note(record.as_ref(), input.now).filter(|_| wish == Wish::Run) {
        let note = NoteLine { resource: resource.id.clone(), reason: Reason::Scheduled, message };
        hours.note.get_or_insert(note);
    }
    plan.unheard.extend((view.requested && wish != Wish::Run).then(|| name.clone()));
    // Most services have nothing to do with the hour, and there may be thousands.
    plan.hours.extend(hours.says_something().then(|| (resource.id.clone(), hours)));
    if let Some(held) = resource.held.as_ref().filter(|held| held.failed) {
        plan.problems.push(rolled_back(resource, held));
    }
    let place = |pointer: &str| match pointer {
        "" => resource.document.origin.clone(),
        pointer => resource.document.value_at(pointer),
    };
    take(intent, &resource.id, &place, &of_service, plan);
}

fn rolled_back(resource: &Resource, held: &Held) -> Problem {
    let (id, name) = (&resource.id, &resource.id.name);
    let at = held.span.clone().unwrap_or_else(|| resource.document.origin.clone());
    Problem::error(Code::RolledBack, at, format!("{id}: {}", held.message))
        .label("the version before it runs instead")
        .hint(format!("change it; or `trueup restart {name}` tries it once more"))
}

fn plan_leaving(input: &Input<'_>, plan: &mut Plan) {
    for (id, leaving) in input.leaving {
        let admitted = input.down || plan.pruned.contains(id);
        if !admitted {
            plan.frozen.insert(id.clone());
        }
        match id.kind {
            KindName::Service => {}
            KindName::Hub if admitted && !input.down => {
                plan.steps.push(hub_release(id, leaving));
                continue;
            }
            KindName::Storage | KindName::StorageBackend if admitted || input.down => {
                storage::leaving(input, id, leaving, plan);
                continue;
            }
            KindName::Vault | KindName::Connection if admitted || input.down => {
                connections::leaving(input, id, leaving, plan);
                continue;
            }
            _ => continue,
        }
        // A row that another service goes on with is not taken away with this one.
        let record = record_of(input.owned.get(id)).map(|record| {
            let row = record.row.filter(|row| !wants_row(input, row));
            Record { row, ..record }
        });
        let unknown = Observed::Unknown("not looked at".to_owned());
        let unmet = live_dependents(input, &id.name).or_else(|| taken_back_first(input, &id.name));
        let wish = match (input.down, admitted) {
            (true, _) => Wish::Stay(Reason::Down),
            (false, true) => Wish::Leave,
            // What may not be removed is left exactly as it is.
            (false, false) => continue,
        };
        let view = View {
            wish,
            seen: input.seen.get(&id.name).unwrap_or(&unknown),
            record: record.as_ref(),
            changed: false,
            requested: false,
            reopened: input.reopened.contains(id),
            unmet: unmet.as_ref(),
            home: input.home,
            kick: false,
            outlived: None,
            makes_way: false,
            trial: None,
            rolled_back: false,
            by_command: true,
            schedule: None,
        };
        take(service::plan(&view), id, &|_| leaving.origin.clone(), &of_service, plan);
    }
}

fn wants_row(input: &Input<'_>, row: &str) -> bool {
    let name = |resource: &Resource| {
        let spec = resource.spec.as_service()?;
        Some(inputs::row_name(spec, resource.module.as_deref())? == row)
    };
    input.desired.resources.values().any(|resource| name(resource) == Some(true))
}

fn hub_release(id: &ResourceId, leaving: &Leaving) -> Step {
    Step {
        resource: id.clone(),
        action: Action::ReleaseHub,
        reason: Reason::NotDeclared,
        cause: Cause::Intent,
        detail: String::new(),
        source: leaving.origin.clone(),
        gate: None,
        claim: Claim::None,
    }
}

/// The folder that a resource's relative paths start from, as the ledger keeps it.
pub fn base(resource: &Resource) -> String {
    resource.document.folder.to_string_lossy().into_owned()
}

/// The kind's record of something owned; an unreadable record is an empty one, and then everything is looked for anew.
pub fn record_of(owned: Option<&Owned>) -> Option<Record> {
    owned.map(|o| serde_json::from_str(&o.record).unwrap_or_default())
}

fn of_service(action: service::Action, reason: Reason) -> (Claim, Action) {
    (Claim::of(&action, reason), Action::Service(action))
}

/// Takes what a kind wants into the plan. `of` says what the ledger learns from an action.
fn take<A>(
    intent: Intent<A>,
    id: &ResourceId,
    place: &dyn Fn(&str) -> Span,
    of: &dyn Fn(A, Reason) -> (Claim, Action),
    plan: &mut Plan,
) {
    let Intent { steps, gate, standing, problem } = intent;
    for wanted in steps {
        let source = place(&wanted.pointer);
        let (claim, action) = of(wanted.action, wanted.reason);
        plan.steps.push(Step {
            resource: id.clone(),
            claim,
            action,
            reason: wanted.reason,
            cause: wanted.cause,
            detail: wanted.detail,
            source,
            gate: gate.clone(),
        });
    }
    match problem {
        Some(Trouble::Placed(problem)) => plan.problems.push(*problem),
        Some(Trouble::At { pointer, code, message, hint }) => {
            plan.problems.push(Problem::error(code, place(pointer), message).hint(hint));
        }
        None => {}
    }
    plan.standings.insert(id.clone(), standing);
}

/// The first dependency with `restart` whose process is younger than the service's own.
fn outlived(input: &Input<'_>, name: &Name, spec: &ServiceSpec) -> Option<String> {
    let started = |name: &Name| match input.seen.get(name)? {
        Observed::Present(state) => Some(state.unit.as_ref()?.process.as_ref()?.start_ticks),
        Observed::Absent | Observed::Unknown(_) => None,
    };
    let own = started(name)?;
    let younger = |d: &&Dependency| d.restart && started(&d.service).is_some_and(|other| other > own);
    spec.depends_on.iter().find(younger).map(|d| ResourceId::service(&d.service).to_string())
}

/// The first dependency that has not come far enough. Dependencies are planned first, so their standings are there.
fn unmet(plan: &Plan, spec: &ServiceSpec) -> Option<Unmet> {
    spec.depends_on.iter().find_map(|dependency| {
        let id = ResourceId::service(&dependency.service);
        let Some(standing) = plan.standings.get(&id) else {
            let message = format!("{id} cannot be used yet (its manifest is broken)");
            return Some(Unmet { message, doomed: true });
        };
        // A version that is about to be replaced is not what its dependents wait for.
        let replaced = plan.steps.iter().any(|s| s.resource == id && s.disrupts());
        let met = match dependency.condition {
            DependencyCondition::Started => standing.started,
            DependencyCondition::Ready => standing.ready,
            DependencyCondition::Completed => standing.completed,
        };
        let by_clock = matches!(standing.reason, Reason::Scheduled | Reason::LastRunFailed);
        let over = (standing.completed || by_clock) && dependency.condition != DependencyCondition::Completed;
        let stays = matches!(standing.reason, Reason::Suspended | Reason::Overridden);
        let hopeless = standing.doomed || over || by_clock || stays;
        let hint = if over { "; what runs to its end is waited for with `condition: completed`" } else { "" };
        (!met || replaced).then(|| Unmet {
            message: format!("{id} is not {} yet ({}{hint})", dependency.condition.as_str(), standing.message),
            doomed: hopeless,
        })
    })
}

/// What a leaving connection or vault has at the service is taken away while it still answers.
fn taken_back_first(input: &Input<'_>, name: &Name) -> Option<Unmet> {
    let id = connections::needs(input, name).filter(|_| !input.down)?;
    Some(Unmet { message: format!("{id} is taken away first"), doomed: false })
}

/// Dependants stop before what they need.
fn live_dependents(input: &Input<'_>, name: &Name) -> Option<Unmet> {
    let needs = |spec: &ServiceSpec| spec.depends_on.iter().any(|d| d.service == *name);
    let going = input.leaving.iter().filter_map(|(id, l)| match &l.spec {
        Some(Spec::Service(spec)) => Some((id, &**spec)),
        _ => None,
    });
    let staying = input.desired.resources.iter().filter(|_| input.down).filter_map(|(id, r)| match &r.spec {
        Spec::Service(spec) => Some((id, &**spec)),
        _ => None,
    });
    going.chain(staying).filter(|(_, spec)| needs(spec)).find_map(|(id, _)| {
        let alive = match input.seen.get(&id.name)? {
            Observed::Present(state) => state.unit.as_ref().is_some_and(|u| u.process.is_some()),
            Observed::Absent | Observed::Unknown(_) => false,
        };
        alive.then(|| Unmet { message: format!("{id} stops first"), doomed: false })
    })
}
