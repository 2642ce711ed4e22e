//! How much may be removed at once. The same rule in every mode.

use std::collections::BTreeSet;

use super::Input;
use crate::kinds::hub::spec::PruneBudget;
use crate::model::id::{KindName, ResourceId};

/// Why nothing is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub wanted: BTreeSet<ResourceId>,
    pub owned: usize,
    pub allowed: usize,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<String> = self.wanted.iter().map(ToString::to_string).collect();
        write!(
            f,
            "{} of {} owned services are no longer declared ({}), and at most {} may be removed at once; nothing was removed",
            self.wanted.len(),
            self.owned,
            names.join(", "),
            self.allowed
        )
    }
}

impl Refusal {
    /// The exact flag that this plan needs.
    pub fn hint(&self) -> String {
        format!("if that is meant, say so with --allow-prune {}", self.wanted.len())
    }
}

/// The removals that may be done now. An incomplete tree removes nothing: a mistake must never look like a deletion.
pub(super) fn admit(input: &Input<'_>, candidates: &BTreeSet<&ResourceId>) -> Result<BTreeSet<ResourceId>, Refusal> {
    if !input.desired.complete {
        return Ok(BTreeSet::new());
    }
    let services = |id: &&&ResourceId| id.kind == KindName::Service;
    let wanted: BTreeSet<ResourceId> = candidates.iter().filter(services).map(|id| (*id).clone()).collect();
    let fresh = wanted.difference(input.admitted).count();
    let owned = input.owned.keys().filter(|id| id.kind == KindName::Service).count();
    let allowed = allowance(hub_budget(input), owned);
    if fresh > allowed && input.allow_prune != Some(wanted.len()) {
        return Err(Refusal { wanted, owned, allowed });
    }
    Ok(candidates.iter().map(|id| (*id).clone()).collect())
}

fn hub_budget(input: &Input<'_>) -> PruneBudget {
    input.desired.hub.as_ref().map(|hub| hub.prune).unwrap_or_default()
}

/// The larger of the count and the share.
fn allowance(budget: PruneBudget, owned: usize) -> usize {
    let share = owned * usize::from(budget.max_share.0) / 100;
    share.max(usize::try_from(budget.max_count).unwrap_or(usize::MAX))
}
