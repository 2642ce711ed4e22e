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
    /// Removed a short while ago; they count too, or a slow deletion would slip through in small pieces.
    pub recent: usize,
    pub allowed: usize,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<String> = self.wanted.iter().map(ToString::to_string).collect();
        let recent = match self.recent {
            0 => String::new(),
            recent => format!("; {recent} were removed in the last minutes"),
        };
        write!(
            f,
            "{} of {} owned resources are no longer declared ({}){recent}, and at most {} may be removed at once; nothing was removed",
            self.wanted.len(),
            self.owned,
            names.join(", "),
            self.allowed
        )
    }
}

impl Refusal {
    /// Why one of them is kept, and what to do.
    pub fn kept(&self) -> String {
        let (wanted, allowed) = (self.wanted.len(), self.allowed);
        format!(
            "no longer declared, and kept: to remove {wanted} at once is more than the budget allows ({allowed}); {}",
            self.hint()
        )
    }

    /// The exact flag that this plan needs.
    pub fn hint(&self) -> String {
        format!("if that is meant, say so with --allow-prune {}", self.wanted.len())
    }
}

/// What may be removed now.
#[derive(Default)]
pub(super) struct Admitted {
    pub ids: BTreeSet<ResourceId>,
    /// Beyond the budget, by the number that a person gave.
    pub by_number: bool,
}

/// The removals that may be done now. An incomplete tree removes nothing: a mistake must never look like a deletion.
pub(super) fn admit(input: &Input<'_>, candidates: &BTreeSet<&ResourceId>) -> Result<Admitted, Refusal> {
    if !input.desired.complete {
        return Ok(Admitted::default());
    }
    let wanted: BTreeSet<ResourceId> = candidates.iter().filter(|id| counts(id.kind)).map(|id| (*id).clone()).collect();
    let fresh: BTreeSet<&ResourceId> = wanted.difference(input.admitted).collect();
    let owned = input.owned.keys().filter(|id| counts(id.kind)).count();
    // What was declared again is not lost.
    let lost = |id: &&ResourceId| !fresh.contains(*id) && !input.desired.resources.contains_key(*id);
    let recent = input.recent.iter().filter(lost).count();
    let gone = input.recent.iter().filter(lost).filter(|id| !input.owned.contains_key(*id)).count();
    let allowed = allowance(hub_budget(input), owned + gone);
    let beyond = !fresh.is_empty() && fresh.len() + recent > allowed;
    if beyond && input.allow_prune != Some(wanted.len()) {
        return Err(Refusal { wanted, owned, recent, allowed });
    }
    Ok(Admitted { ids: candidates.iter().map(|id| (*id).clone()).collect(), by_number: beyond })
}

/// Whether losing one by mistake would be felt. Storage is let go of only when it is empty.
pub fn counts(kind: KindName) -> bool {
    matches!(kind, KindName::Service | KindName::Vault | KindName::Connection)
}

fn hub_budget(input: &Input<'_>) -> PruneBudget {
    input.desired.hub.as_ref().map(|hub| hub.prune).unwrap_or_default()
}

/// The larger of the count and the share.
fn allowance(budget: PruneBudget, owned: usize) -> usize {
    let share = owned * usize::from(budget.max_share.0) / 100;
    share.max(usize::try_from(budget.max_count).unwrap_or(usize::MAX))
}
