//! A change that concerns many services replaces a few of them at a time, so that a mistake in it does not stop all of them at once.
//! Pure.

use std::collections::BTreeSet;

use super::{Input, Plan, Step};
use crate::kinds::Action;
use crate::kinds::service::plan::Action as ServiceAction;
use crate::model::condition::Reason;
use crate::model::id::{Name, ResourceId};

/// Has what is beyond the limit wait.
pub(super) fn limit(input: &Input<'_>, plan: &mut Plan) {
    let limit = input.desired.hub.as_ref().map(|hub| hub.max_unavailable as usize).unwrap_or(usize::MAX);
    let mut under_way = replacing(plan, input.replacing).len();
    for step in plan.steps.iter_mut().filter(|step| step.gate.is_none() && replaces(step)) {
        if under_way >= limit {
            step.gate = Some(format!("{limit} others are replaced first"));
        } else {
            under_way += 1;
        }
    }
}

/// Those of the services that were replaced which are neither ready nor failed yet.
pub(crate) fn replacing<'a>(plan: &Plan, replaced: &'a BTreeSet<Name>) -> BTreeSet<&'a Name> {
    let comes_back = |name: &&Name| {
        let id = ResourceId::service(name);
        let again = plan.steps.iter().any(|step| step.resource == id && replaces(step));
        !again && plan.standings.get(&id).is_some_and(|standing| !standing.settled() && !standing.doomed)
    };
    replaced.iter().filter(comes_back).collect()
}

/// Something that runs is replaced because the files ask for it.
pub(crate) fn replaces(step: &Step) -> bool {
    let restart = matches!(&step.action, Action::Service(ServiceAction::Restart { .. }));
    restart && matches!(step.reason, Reason::Changed | Reason::InputChanged | Reason::DependencyRestarted)
}
