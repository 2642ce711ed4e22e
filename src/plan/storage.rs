//! The Storage and its backends in a plan. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Claim, Input, Leaving, Plan, base, take};
use crate::desired::Resource;
use crate::kinds::backend::plan::{self as backend_kind, Action as BackendAction};
use crate::kinds::backend::spec::StorageBackendSpec;
use crate::kinds::storage::plan::{self as storage_kind, Action as StorageAction};
use crate::kinds::storage::spec::StorageSpec;
use crate::kinds::{Action, Spec};
use crate::model::condition::Reason;
use crate::model::id::{KindName, Name, ResourceId};
use crate::model::span::Span;

pub(super) fn backend(input: &Input<'_>, resource: &Resource, spec: &StorageBackendSpec, plan: &mut Plan) {
    let view =
        backend_kind::View { changed: changed(input, resource), ..backend_view(input, &resource.id, Some(spec)) };
    take(backend_kind::plan(&view), &resource.id, &|pointer| place(resource, pointer), &of_backend, plan);
}

pub(super) fn storage(input: &Input<'_>, resource: &Resource, spec: &StorageSpec, plan: &mut Plan) {
    let fields = changed(input, resource).then(|| fields(input, resource));
    storage_step(input, &resource.id, Some(spec), false, fields.as_deref(), &|pointer| place(resource, pointer), plan);
}

/// What no document declares any more.
pub(super) fn leaving(input: &Input<'_>, id: &ResourceId, leaving: &Leaving, plan: &mut Plan) {
    let origin = |_: &str| leaving.origin.clone();
    match (id.kind, &leaving.spec) {
        (KindName::StorageBackend, spec) => {
            let spec = match spec {
                Some(Spec::StorageBackend(spec)) => Some(&**spec),
                _ => None,
            };
            let view = backend_kind::View { leaves: !input.down, ..backend_view(input, id, spec) };
            take(backend_kind::plan(&view), id, &origin, &of_backend, plan);
        }
        (_, Some(Spec::Storage(spec))) => storage_step(input, id, Some(spec), true, None, &origin, plan),
        _ => storage_step(input, id, None, true, None, &origin, plan),
    }
}

fn changed(input: &Input<'_>, resource: &Resource) -> bool {
    let owned = input.owned.get(&resource.id);
    resource.held.is_none()
        && !input.down
        && owned.is_none_or(|owned| owned.digest != resource.digest || owned.base != base(resource))
}

/// The backend that the file names as the active one.
fn wanted<'a>(input: &Input<'a>) -> Option<&'a Name> {
    let specs = input.desired.resources.values().filter_map(|resource| resource.spec.as_storage());
    specs.map(|spec| &spec.active_backend).next()
}

/// The fields of the spec that differ from what was applied; none when nothing was.
fn fields(input: &Input<'_>, resource: &Resource) -> Vec<String> {
    let spec = |document: &str| match serde_json::from_str::<Value>(document).ok()?.get_mut("spec")?.take() {
        Value::Object(fields) => Some(fields),
        _ => None,
    };
    let before = input.owned.get(&resource.id).and_then(|owned| spec(&owned.document));
    let (Some(before), Some(after)) = (before, spec(&resource.document.json)) else { return Vec::new() };
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names.into_iter().filter(|name| before.get(*name) != after.get(*name)).cloned().collect()
}

fn place(resource: &Resource, pointer: &str) -> Span {
    match pointer {
        "" => resource.document.origin.clone(),
        pointer => resource.document.value_at(pointer),
    }
}

fn backend_view<'a>(
    input: &Input<'a>,
    id: &ResourceId,
    spec: Option<&'a StorageBackendSpec>,
) -> backend_kind::View<'a> {
    let status = input.storage.and_then(|seen| seen.status.as_ref().ok());
    let standing = status.map(|status| &status.standing);
    let uses = |standing: &&crate::ports::blobs::Standing| {
        [&standing.active, &standing.target].into_iter().flatten().any(|name| *name == id.name)
    };
    backend_kind::View {
        spec,
        leaves: false,
        owned: input.owned.contains_key(id),
        changed: false,
        place: input.storage.and_then(|seen| seen.places.get(&id.name)),
        assumed: input.storage.is_some_and(|seen| seen.assumed.contains(&id.name)),
        health: status.and_then(|status| status.health.get(&id.name)),
        tally: standing.and_then(|standing| standing.tallies.get(&id.name)).copied().unwrap_or_default(),
        in_use: standing.filter(uses).is_some(),
        drains: standing.and_then(|standing| standing.target.as_ref()).is_some_and(|target| *target != id.name)
            || wanted(input).is_some_and(|active| *active != id.name),
    }
}

fn storage_step(
    input: &Input<'_>,
    id: &ResourceId,
    spec: Option<&StorageSpec>,
    leaves: bool,
    changed: Option<&[String]>,
    place: &dyn Fn(&str) -> Span,
    plan: &mut Plan,
) {
    let unseen = Err("not looked at".to_owned());
    let view = storage_kind::View {
        spec,
        leaves,
        owned: input.owned.contains_key(id),
        changed: changed.is_some(),
        fields: changed.unwrap_or_default(),
        status: input.storage.map_or(&unseen, |seen| &seen.status),
        standings: &plan.standings,
        down: input.down,
        now: input.now,
    };
    let intent = storage_kind::plan(&view);
    take(intent, id, place, &of_storage, plan);
}

fn of_backend(action: BackendAction, _: Reason) -> (Claim, Action) {
    let claim = if action == BackendAction::Accept { Claim::Document } else { Claim::None };
    (claim, Action::Backend(action))
}

fn of_storage(action: StorageAction, _: Reason) -> (Claim, Action) {
    let claim = if action == StorageAction::Release { Claim::None } else { Claim::Document };
    (claim, Action::Storage(action))
}
