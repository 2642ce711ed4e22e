//! Services that were given each other's ports: who lets go first, and when that leads anywhere. Pure.

use std::collections::BTreeSet;

use super::Input;
use crate::kinds::Spec;
use crate::kinds::service::observe::{PortHolder, Record, State};
use crate::kinds::service::plan as service;
use crate::model::id::{Name, ResourceId};
use crate::model::observed::Observed;

/// Whether a service should let go of the port that its process was given: it is another's now, that one will start on it, and
/// what is on our own new port will let go of it too. Otherwise a healthy process would be stopped for nothing.
pub(super) fn makes_way(input: &Input<'_>, name: &Name, record: Option<&Record>) -> bool {
    let Some(given) = record.and_then(|r| r.port) else { return false };
    let taken = input.ports.iter().any(|(other, port)| other != name && *port == given && starts(input, other));
    taken && port_comes_free(input, name, &mut BTreeSet::new())
}

fn state<'a>(input: &'a Input<'_>, name: &Name) -> Option<&'a State> {
    match input.seen.get(name)? {
        Observed::Present(state) => Some(state),
        Observed::Absent | Observed::Unknown(_) => None,
    }
}

/// Whether its document says that it does not run; `None` when it has none.
fn is_suspended(input: &Input<'_>, name: &Name) -> Option<bool> {
    match &input.desired.resources.get(&ResourceId::service(name))?.spec {
        Spec::Service(spec) => {
            Some(super::hours::wish(input, &ResourceId::service(name), spec).0 != service::Wish::Run)
        }
        _ => None,
    }
}

/// It is wished to run, and everything that it is started with is there.
fn starts(input: &Input<'_>, name: &Name) -> bool {
    let good = state(input, name).is_some_and(|state| matches!(state.inputs, Some(Ok(_))));
    good && is_suspended(input, name) == Some(false)
}

/// Whether the port that it is to have is free, or held by somebody who lets go of it. A circle is free: one goes first.
fn port_comes_free(input: &Input<'_>, name: &Name, passed: &mut BTreeSet<Name>) -> bool {
    if !passed.insert(name.clone()) {
        return true;
    }
    let Some(state) = state(input, name) else { return false };
    match &state.holder {
        PortHolder::Fine => true,
        PortHolder::Stranger(_) | PortHolder::Unknown(_) => false,
        PortHolder::Unit(holder) => Name::new(holder.as_str()).is_ok_and(|holder| lets_go(input, &holder, passed)),
    }
}

fn lets_go(input: &Input<'_>, name: &Name, passed: &mut BTreeSet<Name>) -> bool {
    match is_suspended(input, name) {
        Some(true) => true,
        Some(false) => starts(input, name) && port_comes_free(input, name, passed),
        None => input.leaving.contains_key(&ResourceId::service(name)),
    }
}
