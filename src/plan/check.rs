//! A second pair of eyes on a finished plan. Only a checked plan can be executed.

use std::collections::BTreeSet;

use super::{Input, Plan};
use crate::kinds::Action;
use crate::kinds::backend::plan::Action as BackendAction;
use crate::kinds::connection::plan::Action as ConnectionAction;
use crate::kinds::service::plan::Action as ServiceAction;
use crate::kinds::storage::plan::Action as StorageAction;
use crate::kinds::vault::plan::Action as VaultAction;
use crate::model::observed::Observed;

/// A plan that broke no rule.
#[derive(Clone, Debug)]
pub struct CheckedPlan(Plan);

impl CheckedPlan {
    pub fn plan(&self) -> &Plan {
        &self.0
    }
}

/// Reads the plan as a stranger would.
///
/// # Errors
/// Every rule it breaks. That is a defect of ours, never of the user: the tick ends, and nothing is done.
pub fn check(plan: Plan, input: &Input<'_>) -> Result<CheckedPlan, Vec<String>> {
    let mut broken = Vec::new();
    let mut started = BTreeSet::new();
    for step in &plan.steps {
        let id = &step.resource;
        let owned = input.owned.contains_key(id);
        let declared = input.desired.resources.contains_key(id);
        let unknown = matches!(input.seen.get(&id.name), Some(Observed::Unknown(_)));
        match &step.action {
            Action::Service(action) => {
                if unknown {
                    broken.push(format!("{id}: a step on something that could not be looked at"));
                }
                if matches!(action, ServiceAction::Spawn(_) | ServiceAction::Restart { .. } | ServiceAction::Run { .. })
                    && !started.insert(id.clone())
                {
                    broken.push(format!("{id}: started twice in one plan"));
                }
                if matches!(action, ServiceAction::Release { .. }) && (declared || !owned) {
                    broken.push(format!("{id}: released although it is declared, or not ours"));
                }
                if matches!(action, ServiceAction::Stop) && !owned && !declared {
                    broken.push(format!("{id}: stopped although it is not ours"));
                }
            }
            Action::ReleaseHub if declared || !owned => {
                broken.push(format!("{id}: released although it is declared, or not ours"));
            }
            Action::Backend(BackendAction::Release) | Action::Storage(StorageAction::Release) if declared || !owned => {
                broken.push(format!("{id}: released although it is declared, or not ours"));
            }
            Action::Connection(ConnectionAction::Release { .. })
            | Action::Vault(VaultAction::Release | VaultAction::Remove { .. })
                if declared || !owned =>
            {
                broken.push(format!("{id}: released although it is declared, or not ours"));
            }
            Action::ReleaseHub
            | Action::AcceptHub
            | Action::Backend(_)
            | Action::Storage(_)
            | Action::Vault(_)
            | Action::Connection(_) => {}
        }
        if !declared && !input.desired.complete && !input.down {
            broken.push(format!("{id}: a removal while the tree could not be read completely"));
        }
    }
    if broken.is_empty() { Ok(CheckedPlan(plan)) } else { Err(broken) }
}
