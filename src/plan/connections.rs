//! Connections and vaults in a plan. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{Claim, Input, Leaving, Plan, Step, base, take};
use crate::desired::Resource;
use crate::kinds::connection::inputs::{Inputs, Unusable, connection_of};
use crate::kinds::connection::observe::Seen;
use crate::kinds::connection::plan::{self as connection_kind, Action, AtSink, Unwiring};
use crate::kinds::connection::record::{Place, Record};
use crate::kinds::connection::spec::ConnectionSpec;
use crate::kinds::trigger::{self, Address, Vault};
use crate::kinds::vault::plan::{self as vault_kind, Action as VaultAction};
use crate::kinds::vault::record::Record as VaultRecord;
use crate::kinds::vault::spec::{DeletionPolicy, VaultSpec};
use crate::kinds::{self, Spec};
use crate::model::condition::Reason;
use crate::model::event::Cause;
use crate::model::id::{KindName, Name, ResourceId};
use crate::model::problem::{Code, Problem};
use crate::model::span::Span;
use crate::model::wording::count;

/// Of a hub's triggers that are not ours so many are named.
const MOST_NAMED: usize = 5;

pub(super) fn connection(input: &Input<'_>, resource: &Resource, spec: &ConnectionSpec, plan: &mut Plan) {
    let Some(seen) = input.ties else { return };
    let suspended = spec.suspend.holds(input.now).then(|| {
        let reason = spec.suspend.reason().map(|reason| format!(": {reason}")).unwrap_or_default();
        format!("suspended{reason}")
    });
    let stored = record_of(input, &resource.id);
    let ties = Ties::new(input, seen, &resource.id.name);
    let view = connection_kind::View {
        inputs: seen.inputs.get(&resource.id.name),
        changed: changed(input, resource),
        suspended: suspended.as_deref(),
        stays_away: stays_away(plan, spec),
        ..ties.view(&stored)
    };
    let intent = connection_kind::plan(&view);
    take(intent, &resource.id, &|pointer| place(resource, pointer), &of_connection, plan);
}

pub(super) fn vault(input: &Input<'_>, resource: &Resource, spec: &VaultSpec, plan: &mut Plan) {
    let Some(seen) = input.ties else { return };
    let stored = vault_record(input, &resource.id);
    let at = address(spec, &resource.id.name);
    let foreign = foreign(input, seen, &at);
    let facts = VaultFacts { input, seen, id: &resource.id, spec: Some(spec), at: Some(&at), record: &stored };
    let view = vault_kind::View { changed: changed(input, resource), foreign: &foreign, ..facts.view(&[], false) };
    take(vault_kind::plan(&view), &resource.id, &|pointer| place(resource, pointer), &of_vault, plan);
}

/// What no document declares any more.
pub(super) fn leaving(input: &Input<'_>, id: &ResourceId, leaving: &Leaving, plan: &mut Plan) {
    let Some(seen) = input.ties else { return };
    let origin = |_: &str| leaving.origin.clone();
    if id.kind == KindName::Connection {
        let stored = record_of(input, id);
        let ties = Ties::new(input, seen, &id.name);
        take(connection_kind::plan(&ties.view(&stored)), id, &origin, &of_connection, plan);
        return;
    }
    let stored = vault_record(input, id);
    let spec = match &leaving.spec {
        Some(Spec::Vault(spec)) => Some(&**spec),
        _ => None,
    };
    let at = spec.map(|spec| address(spec, &id.name));
    let used_by = at.as_ref().map(|at| users(input, at)).unwrap_or_default();
    let facts = VaultFacts { input, seen, id, spec, at: at.as_ref(), record: &stored };
    let last = at.as_ref().is_some_and(|at| is_last(input, at));
    let heir = at.as_ref().and_then(|at| heir_of_vault(input, at));
    let view = vault_kind::View { leaves: true, heir: heir.as_ref(), ..facts.view(&used_by, last) };
    take(vault_kind::plan(&view), id, &origin, &of_vault, plan);
}

/// What a crash left and nobody owns: tokens of connections that are in no ledger, triggers with our mark that no connection has. And a
/// word on connections that look like others with a new name.
pub(super) fn orphans(input: &Input<'_>, plan: &mut Plan) {
    let (Some(seen), false) = (input.ties, input.down) else { return };
    renamed(input, plan);
    let Some(hub) = input.desired.resources.values().find(|resource| resource.spec.as_hub().is_some()) else { return };
    // Files with mistakes may be the ones that declare whose it is.
    if !input.desired.complete {
        return;
    }
    let nobodys = |name: &Name| {
        let id = ResourceId::new(KindName::Connection, name.clone());
        !input.owned.contains_key(&id) && !input.desired.resources.contains_key(&id)
    };
    let step = |action: Action, detail: String| Step {
        resource: hub.id.clone(),
        action: kinds::Action::Connection(action),
        reason: Reason::Orphan,
        cause: Cause::Drift,
        detail,
        source: hub.document.origin.clone(),
        gate: None,
        claim: Claim::None,
    };
    if let Ok(holdings) = &seen.holdings {
        let is_orphan = |client: &str| connection_of(client).is_none_or(|name| nobodys(&name));
        let jtis: Vec<String> =
            holdings.live.values().filter(|row| is_orphan(&row.client)).map(|row| row.jti.clone()).collect();
        if !jtis.is_empty() {
            let detail = format!("{} of no connection", count(jtis.len() as u64, "token"));
            plan.steps.push(step(Action::Revoke { jtis }, detail));
        }
    }
    for (at, vault) in &seen.vaults {
        let Vault::Present(all) = vault else { continue };
        for name in all.keys() {
            let Some(owner) = trigger::owner(&hub.id.name, &at.vault, name) else { continue };
            let place = Place { at: at.clone(), trigger: name.clone() };
            let id = ResourceId::new(KindName::Connection, owner.clone());
            // What a vault did late may be a trigger that its connection does not want for now.
            if seen.wished.contains_key(&place) {
                continue;
            }
            let is_noted = |id: &ResourceId| record_of(input, id).triggers.contains(&place);
            let noted = input.owned.keys().filter(|id| id.kind == KindName::Connection).any(is_noted);
            // While it is not known what a connection comes to, nothing of it is an orphan.
            let unclear = matches!(seen.inputs.get(&owner), Some(Err(_))) || input.leaving.contains_key(&id);
            if noted || unclear {
                continue;
            }
            let port = input.ports.get(&at.service).copied();
            let detail = format!("{name} at {at}, which no connection has");
            let unwiring = Unwiring { place, port, then: None };
            plan.steps.push(step(Action::Unwire(Box::new(unwiring)), detail));
        }
    }
}

/// A connection that goes and one that comes and say the same: a vault would forget which notes it has sent.
fn renamed(input: &Input<'_>, plan: &mut Plan) {
    let going: Vec<(&ResourceId, &ConnectionSpec)> = input
        .leaving
        .iter()
        .filter_map(|(id, leaving)| match &leaving.spec {
            Some(Spec::Connection(spec)) => Some((id, &**spec)),
            _ => None,
        })
        .collect();
    if going.is_empty() {
        return;
    }
    let coming = input.desired.resources.values().filter(|resource| !input.owned.contains_key(&resource.id));
    for (resource, spec) in coming.filter_map(|resource| Some((resource, resource.spec.as_connection()?))) {
        let same = |(_, old): &&(&ResourceId, &ConnectionSpec)| {
            old.source.is_some() && old.source == spec.source && old.sink == spec.sink && spec.trigger_name.is_none()
        };
        let Some((old, _)) = going.iter().find(same) else { continue };
        let Some(place) = record_of(input, old).triggers.into_iter().next() else { continue };
        let message = format!(
            "{} says what {old} said: as a new connection its vault forgets which notes it has sent, and sends them again when they change",
            resource.id
        );
        let at = resource.document.value_at("/metadata/name");
        let hint = format!("if it is the same under a new name, add `triggerName: {}` to its spec", place.trigger);
        plan.problems.push(Problem::error(Code::Renamed, at, message).warning().hint(hint));
    }
}

/// Whether nobody can hope that the vault of a connection answers soon: a person keeps its service stopped, or it is broken.
fn stays_away(plan: &Plan, spec: &ConnectionSpec) -> bool {
    let source = spec.source.as_ref().map(|source| &source.service);
    let Some(service) = source.or(spec.credential.as_ref().map(|wish| &wish.vault_service)) else { return false };
    plan.standings.get(&ResourceId::service(service)).is_none_or(|standing| {
        let kept = matches!(standing.reason, Reason::Suspended | Reason::Overridden | Reason::Down | Reason::Scheduled);
        standing.doomed || kept
    })
}

/// Every trigger that declared connections want, and whose it is.
fn wished(seen: &Seen) -> BTreeMap<Place, &Name> {
    let place = |inputs: &Result<Inputs, Unusable>| {
        let inputs = inputs.as_ref().ok()?;
        Some(Place { at: inputs.at.clone(), trigger: inputs.wire.as_ref()?.trigger.name.clone() })
    };
    seen.inputs.iter().filter_map(|(name, inputs)| Some((place(inputs)?, name))).collect()
}

/// Whether a leaving service is still needed to take something back.
pub(super) fn needs(input: &Input<'_>, service: &Name) -> Option<ResourceId> {
    let seen = input.ties?;
    let going = |id: &&ResourceId| matches!(id.kind, KindName::Connection | KindName::Vault);
    let uses = |id: &ResourceId| match id.kind {
        KindName::Connection => record_of(input, id).triggers.iter().any(|place| {
            place.at.service == *service
                && matches!(seen.vaults.get(&place.at), Some(Vault::Present(_) | Vault::Absent))
        }),
        _ => match input.leaving.get(id).and_then(|leaving| leaving.spec.as_ref()) {
            Some(Spec::Vault(spec)) => {
                spec.service == *service
                    && spec.deletion_policy == DeletionPolicy::Delete
                    && !matches!(seen.vaults.get(&address(spec, &id.name)), Some(Vault::Unknown(_)) | None)
            }
            _ => false,
        },
    };
    input.leaving.keys().filter(going).find(|id| uses(id)).cloned()
}

/// Where a Vault is.
pub fn address(spec: &VaultSpec, name: &Name) -> Address {
    Address { service: spec.service.clone(), vault: spec.vault(name).to_owned() }
}

/// The record of a connection in the ledger.
pub fn record_of(input: &Input<'_>, id: &ResourceId) -> Record {
    input.owned.get(id).map(|owned| Record::read(&owned.record)).unwrap_or_default()
}

fn vault_record(input: &Input<'_>, id: &ResourceId) -> VaultRecord {
    input.owned.get(id).map(|owned| VaultRecord::read(&owned.record)).unwrap_or_default()
}

fn changed(input: &Input<'_>, resource: &Resource) -> bool {
    let owned = input.owned.get(&resource.id);
    resource.held.is_none()
        && !input.down
        && owned.is_none_or(|owned| owned.digest != resource.digest || owned.base != base(resource))
}

fn place(resource: &Resource, pointer: &str) -> Span {
    match pointer {
        "" => resource.document.origin.clone(),
        pointer => resource.document.value_at(pointer),
    }
}

/// What a view of one connection borrows.
struct Ties<'a> {
    input: &'a Input<'a>,
    seen: &'a Seen,
    name: &'a Name,
}

impl<'a> Ties<'a> {
    fn new(input: &'a Input<'a>, seen: &'a Seen, name: &'a Name) -> Self {
        Self { input, seen, name }
    }

    fn view<'b>(&'b self, record: &'b Record) -> connection_kind::View<'b> {
        let (input, seen) = (self.input, self.seen);
        connection_kind::View {
            name: self.name,
            inputs: None,
            record,
            owned: input.owned.contains_key(&ResourceId::new(KindName::Connection, self.name.clone())),
            changed: false,
            down: input.down,
            suspended: None,
            vaults: &seen.vaults,
            ports: input.ports,
            services: &seen.services,
            wished: &seen.wished,
            at_sink: seen.at_sink.get(self.name).unwrap_or(&AtSink::Unknown),
            holdings: seen.holdings.as_deref().map_err(String::as_str),
            own: seen.own.get(self.name).map(Vec::as_slice).unwrap_or_default(),
            tally: seen.tallies.get(self.name),
            stuck: seen.stuck.get(self.name),
            hub: input.hub,
            stays_away: false,
            renew: seen.renew.contains(self.name),
            now: input.now,
        }
    }
}

/// What a view of one vault borrows.
struct VaultFacts<'a> {
    input: &'a Input<'a>,
    seen: &'a Seen,
    id: &'a ResourceId,
    spec: Option<&'a VaultSpec>,
    at: Option<&'a Address>,
    record: &'a VaultRecord,
}

impl<'a> VaultFacts<'a> {
    fn view(&self, used_by: &'a [String], last: bool) -> vault_kind::View<'a> {
        let commands = self.seen.commands.get(&self.id.name);
        let unknown = "its service is not known";
        let service = self.at.map(|at| ResourceId::service(&at.service));
        vault_kind::View {
            spec: self.spec,
            at: self.at,
            leaves: false,
            owned: self.input.owned.contains_key(self.id),
            changed: false,
            down: self.input.down,
            record: self.record,
            seen: self.at.and_then(|at| self.seen.vaults.get(at)),
            create: commands.map_or(Err(unknown), |commands| commands.create.as_ref().map_err(String::as_str)),
            remove: commands.map_or(Err(unknown), |commands| commands.remove.as_ref().map_err(String::as_str)),
            used_by,
            last,
            heir: None,
            foreign: &[],
            known: service
                .is_some_and(|id| self.input.desired.resources.contains_key(&id) || self.input.owned.contains_key(&id)),
        }
    }
}

/// Connections that use a vault: declared ones, and those that still have a trigger there.
fn users(input: &Input<'_>, at: &Address) -> Vec<String> {
    // By what they say: what is wrong with one of them for a moment must not cost it its vault.
    let names = |spec: &ConnectionSpec| {
        let source = spec.source.as_ref().map(|source| (&source.service, &source.vault));
        let credential = spec.credential.as_ref().map(|wish| (&wish.vault_service, &wish.vault));
        source.or(credential) == Some((&at.service, &at.vault))
    };
    let declared = input.desired.resources.values().filter(|r| r.spec.as_connection().is_some_and(names));
    let mut all: BTreeSet<ResourceId> = declared.map(|resource| resource.id.clone()).collect();
    let going = input.leaving.keys().filter(|id| id.kind == KindName::Connection);
    let has_some = |id: &&ResourceId| {
        let record = record_of(input, id);
        record.triggers.iter().any(|place| place.at == *at) || record.lent.is_some_and(|lent| lent.at == *at)
    };
    all.extend(going.filter(has_some).cloned());
    all.iter().map(ToString::to_string).collect()
}

/// The document that declares the vault now.
fn heir_of_vault(input: &Input<'_>, at: &Address) -> Option<ResourceId> {
    let same =
        |resource: &&Resource| matches!(&resource.spec, Spec::Vault(spec) if address(spec, &resource.id.name) == *at);
    input.desired.resources.values().find(same).map(|resource| resource.id.clone())
}

fn is_last(input: &Input<'_>, at: &Address) -> bool {
    let other = |resource: &&Resource| matches!(&resource.spec, Spec::Vault(spec) if spec.service == at.service && address(spec, &resource.id.name) != *at);
    !input.desired.resources.values().any(|resource| other(&resource))
}

/// Triggers of hubs that are no connection's of this tree.
fn foreign(input: &Input<'_>, seen: &Seen, at: &Address) -> Vec<String> {
    let Some(Vault::Present(all)) = seen.vaults.get(at) else { return Vec::new() };
    let hub = input.desired.resources.keys().find(|id| id.kind == KindName::Hub);
    let wished = wished(seen);
    let ours = |name: &str| {
        let place = Place { at: at.clone(), trigger: name.to_owned() };
        let noted = |id: &ResourceId| record_of(input, id).triggers.contains(&place);
        hub.is_some_and(|hub| trigger::owner(&hub.name, &at.vault, name).is_some())
            || wished.contains_key(&place)
            || input.owned.keys().filter(|id| id.kind == KindName::Connection).any(noted)
    };
    let mut names: Vec<String> = all.keys().filter(|name| trigger::is_of_a_hub(name) && !ours(name)).cloned().collect();
    if names.len() > MOST_NAMED {
        let more = names.len() - MOST_NAMED;
        names.truncate(MOST_NAMED);
        names.push(format!("{more} more"));
    }
    names
}

fn of_connection(action: Action, _: Reason) -> (Claim, kinds::Action) {
    let claim = match action {
        Action::Accept | Action::Wire(_) | Action::Prepare(_) | Action::Lend(_) => Claim::Document,
        _ => Claim::None,
    };
    (claim, kinds::Action::Connection(action))
}

fn of_vault(action: VaultAction, _: Reason) -> (Claim, kinds::Action) {
    let claim = match action {
        VaultAction::Accept | VaultAction::Create { .. } => Claim::Document,
        _ => Claim::None,
    };
    (claim, kinds::Action::Vault(action))
}
