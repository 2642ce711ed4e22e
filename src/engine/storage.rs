//! The storage in a tick: what is seen of it, what its mover is told, and what it has to tell.

use std::collections::BTreeMap;

use super::look::Looked;
use super::{Engine, EngineError, Mode};
use crate::desired::Desired;
use crate::kinds::Spec;
use crate::kinds::backend::observe::place;
use crate::kinds::backend::spec::{DeletionPolicy, StorageBackendSpec};
use crate::kinds::storage::inputs::intent;
use crate::kinds::storage::observe::Seen;
use crate::kinds::storage::plan::progress as progress_of;
use crate::kinds::storage::spec::StorageSpec;
use crate::model::condition::Reason;
use crate::model::event::{Cause, Event};
use crate::model::id::{KindName, Name, ResourceId};
use crate::model::output::ProgressLine;
use crate::model::wording::{count, size, span};
use crate::plan::Leaving;
use crate::ports::Look;
use crate::ports::storage::Finding;
use crate::ports::world::Facts;

/// Events name so many blobs at most.
const NAMED: usize = 3;

impl Engine {
    /// What is seen of the storage; `None` when the tree has nothing to do with one.
    pub(super) fn look_at_storage(
        &self,
        desired: &Desired,
        leaving: &BTreeMap<ResourceId, Leaving>,
        facts: &Facts,
    ) -> Option<Seen> {
        let is_ours = |id: &ResourceId| matches!(id.kind, KindName::Storage | KindName::StorageBackend);
        if !desired.resources.keys().chain(leaving.keys()).any(is_ours) {
            return None;
        }
        let look = Look::new(&self.world, facts);
        let mut seen = Seen {
            status: self.world.storage.status().map_err(|error| error.to_string()),
            places: BTreeMap::new(),
            assumed: Default::default(),
        };
        let declared = desired
            .resources
            .iter()
            .filter_map(|(id, resource)| Some((id, resource.spec.as_backend()?, &*resource.document)));
        for (id, spec, document) in declared {
            self.see_place(&look, &mut seen, &id.name, spec, document);
        }
        for (id, leaving) in leaving {
            let (Some(Spec::StorageBackend(spec)), Some(document)) = (&leaving.spec, &leaving.document) else {
                continue;
            };
            self.see_place(&look, &mut seen, &id.name, spec, document);
        }
        Some(seen)
    }

    fn see_place(
        &self,
        look: &Look<'_>,
        seen: &mut Seen,
        name: &Name,
        spec: &StorageBackendSpec,
        document: &crate::document::Document,
    ) {
        if look.facts.remembered.is_some() && spec.secrets().iter().any(|(_, from)| from.command.is_some()) {
            seen.assumed.insert(name.clone());
        }
        seen.places.insert(name.clone(), place(look, document, spec, seen.assumed.contains(name)));
    }

    /// Tells the mover what is wished now, and says whether that is news. No step: it changes nothing by itself, and telling the same
    /// again does nothing.
    pub(super) fn tell_storage(&self, looked: &Looked, mode: Mode) -> bool {
        let Some(seen) = &looked.storage else { return false };
        let spec = looked.desired.resources.values().find_map(|resource| resource.spec.as_storage());
        let discarded = |name: &Name| {
            let id = ResourceId::new(KindName::StorageBackend, name.clone());
            matches!(looked.leaving.get(&id).and_then(|leaving| leaving.spec.as_ref()),
                Some(Spec::StorageBackend(spec)) if spec.deletion_policy == DeletionPolicy::Delete)
        };
        let usable = seen.places.iter().filter_map(|(name, place)| Some((name.clone(), place.as_ref().ok()?.clone())));
        let places = usable.map(|(name, mut place)| {
            place.discard = discarded(&name);
            (name, place)
        });
        // Where blobs go and what the file says must be the same before anything is done by it.
        let agrees = |spec: &&StorageSpec| {
            let place = seen.status.as_ref().ok().and_then(|status| status.standing.place().cloned());
            place.is_none_or(|place| place == spec.active_backend)
        };
        let still = mode.down || spec.filter(agrees).is_none();
        self.world.storage.tell(&intent(spec, places.collect(), still, looked.wall))
    }

    /// What a process learnt of its backends in an earlier life is looked at again before anything is decided by it.
    pub(super) fn hear_storage(&self, looked: &mut Looked, mode: Mode) {
        if mode.dry || !self.tell_storage(looked, mode) {
            return;
        }
        if let Some(seen) = &mut looked.storage {
            seen.status = self.world.storage.status().map_err(|error| error.to_string());
        }
    }

    /// What happened there since the last look, as events.
    pub(super) fn told_by_storage(&self, looked: &Looked) -> Result<Vec<Event>, EngineError> {
        if looked.storage.is_none() {
            return Ok(Vec::new());
        }
        let storage =
            looked.desired.resources.keys().chain(looked.leaving.keys()).find(|id| id.kind == KindName::Storage);
        let told = self.world.storage.told().unwrap_or_default();
        let events: Vec<Event> = told
            .iter()
            .map(|told| {
                let (reason, place, message) = sentence(&told.what);
                let backend = place.map(|place| ResourceId::new(KindName::StorageBackend, place.clone()));
                let resource = backend.as_ref().or(storage).cloned();
                (told.at, reason, resource, message)
            })
            .filter_map(|(at, reason, resource, message)| {
                Some(Event { seq: 0, at, resource: resource?, reason, cause: Cause::Intent, message })
            })
            .collect();
        if !events.is_empty() {
            self.world.store.record(&events)?;
        }
        Ok(events)
    }
}

/// A finding in words, and the backend that it is about, if it is about one.
fn sentence(finding: &Finding) -> (Reason, Option<&Name>, String) {
    let named = |keys: &[crate::model::blob::Integrity]| {
        let mut text: Vec<String> = keys.iter().take(NAMED).map(ToString::to_string).collect();
        if keys.len() > NAMED {
            text.push(format!("{} more", keys.len() - NAMED));
        }
        text.join(", ")
    };
    match finding {
        Finding::Migrated { from, to, objects, bytes, took } => {
            let what = format!("{} ({}) in {}", count(*objects, "object"), size(*bytes), span(took.0));
            (Reason::Migrated, None, format!("moved from {from} to {to}: {what}; {to} is the active backend"))
        }
        Finding::Quarantined { keys, place, detail } => {
            (Reason::Quarantined, Some(place), format!("no good copy of {} anywhere: {detail}", named(keys)))
        }
        Finding::Repaired { keys, place, from } => {
            (Reason::Repaired, Some(place), format!("{} replaced by the good copy on {from}", named(keys)))
        }
        Finding::Abandoned { key } => (Reason::Abandoned, None, format!("{key} was given up, as its file says")),
        Finding::Swept { place, objects, bytes } => (
            Reason::Swept,
            Some(place),
            format!("removed {} that nobody needed ({})", count(*objects, "object"), size(*bytes)),
        ),
        Finding::Orphans { place, objects } => {
            (Reason::Orphans, Some(place), format!("found {} that belong to no blob", count(*objects, "object")))
        }
    }
}

/// How far a migration is, if one is under way.
pub(super) fn progress(looked: &Looked, seen: &Seen) -> Option<ProgressLine> {
    let status = seen.status.as_ref().ok()?;
    let to = status.standing.target.clone()?;
    let resource = looked.desired.resources.keys().find(|id| id.kind == KindName::Storage)?.clone();
    let so_far = progress_of(status, &to);
    Some(ProgressLine {
        resource,
        to,
        done: so_far.done,
        total: so_far.total,
        done_bytes: so_far.done_bytes,
        total_bytes: so_far.total_bytes,
        objects_per_second: so_far.objects_per_second,
        bytes_per_second: so_far.bytes_per_second,
        eta_ms: so_far.eta.map(|eta| eta.0),
    })
}
