//! Chooses ports for services that want one chosen: once, and then it stays. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::desired::Desired;
use crate::kinds::Spec;
use crate::kinds::hub::check::listen_port;
use crate::kinds::hub::spec::PortRange;
use crate::kinds::service::inputs;
use crate::model::id::{Name, ResourceId};
use crate::plan::record_of;
use crate::ports::store::Owned;

/// The port of every service that has one. `busy` are ports on which anybody listens now; a port that a service was given
/// before stays its own even then (who sits on it is found and named when the service starts).
pub fn assign(
    desired: &Desired,
    owned: &BTreeMap<ResourceId, Owned>,
    busy: &BTreeSet<u16>,
    range: PortRange,
) -> BTreeMap<Name, u16> {
    let services = || {
        desired.order.iter().filter_map(|id| match desired.resources.get(id).map(|r| (r, &r.spec)) {
            Some((resource, Spec::Service(spec))) => Some((id, resource, spec)),
            _ => None,
        })
    };
    let mut given: BTreeMap<Name, u16> = BTreeMap::new();
    for (id, resource, spec) in services() {
        if let Some(port) = inputs::fixed_port(spec, resource.module.as_deref()) {
            given.insert(id.name.clone(), port);
        }
    }
    let hub_port = desired.hub.as_ref().and_then(|hub| listen_port(hub));
    let mut taken: BTreeSet<u16> = given.values().copied().chain(hub_port).collect();
    let auto = || services().filter(|(_, _, spec)| inputs::wants_auto_port(spec));
    for (id, _, _) in auto() {
        let before = record_of(owned.get(id)).and_then(|r| r.port);
        if let Some(port) = before.filter(|p| taken.insert(*p)) {
            given.insert(id.name.clone(), port);
        }
    }
    for (id, _, _) in auto() {
        if given.contains_key(&id.name) {
            continue;
        }
        let free = (range.from..=range.to).find(|p| !taken.contains(p) && !busy.contains(p));
        if let Some(port) = free {
            taken.insert(port);
            given.insert(id.name.clone(), port);
        }
    }
    given
}
