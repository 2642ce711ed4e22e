//! One step of a plan.

use crate::kinds::Action;
use crate::kinds::backend::plan::Action as BackendAction;
use crate::kinds::connection::plan::Action as ConnectionAction;
use crate::kinds::service::plan::Action as ServiceAction;
use crate::model::condition::Reason;
use crate::model::event::Cause;
use crate::model::id::ResourceId;
use crate::model::output::{OutcomeWord, StepLine};
use crate::model::span::Span;

/// The smallest thing worth a journal line.
#[derive(Clone, Debug)]
pub struct Step {
    pub resource: ResourceId,
    pub action: Action,
    pub reason: Reason,
    pub cause: Cause,
    pub detail: String,
    /// What in the files asks for it.
    pub source: Span,
    /// Shown, and not done before this is over.
    pub gate: Option<String>,
    pub claim: Claim,
}

/// What the ledger holds of the resource from the beginning of the step on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nothing changes.
    None,
    /// The document as it is now; the record of what runs stays.
    Document,
    /// The document, and what is started with.
    Launch,
    /// The document that is applied was ready.
    Proven,
    /// The document that is applied is not to be used again.
    Refused,
}

impl Claim {
    pub(super) fn of(action: &ServiceAction, reason: Reason) -> Self {
        match action {
            ServiceAction::Spawn(_) | ServiceAction::Restart { .. } | ServiceAction::Run { .. } => Self::Launch,
            ServiceAction::Update(_)
            | ServiceAction::Reload { .. }
            | ServiceAction::PutRow { .. }
            | ServiceAction::PassOver { .. }
            | ServiceAction::Accept => Self::Document,
            ServiceAction::Prove => Self::Proven,
            ServiceAction::Refuse { .. } => Self::Refused,
            // Stopped because its document says so: with that the document is applied.
            ServiceAction::Stop if matches!(reason, Reason::Suspended | Reason::Overridden) => Self::Document,
            ServiceAction::Heal { .. }
            | ServiceAction::Stop
            | ServiceAction::StopStrays
            | ServiceAction::RemoveRow { .. }
            | ServiceAction::Release { .. } => Self::None,
        }
    }
}

impl Step {
    /// Whether a module notices.
    pub fn disrupts(&self) -> bool {
        match &self.action {
            Action::Service(action) => action.disrupts(),
            _ => false,
        }
    }

    /// Removals first, then what puts files right, then the rest; the sort is stable, so dependencies stay in order.
    pub(super) fn rank(&self) -> u8 {
        match &self.action {
            Action::Service(ServiceAction::StopStrays) => 0,
            Action::Service(ServiceAction::Stop | ServiceAction::Release { .. }) => 1,
            Action::AcceptHub | Action::ReleaseHub | Action::Backend(BackendAction::Accept) => 2,
            Action::Backend(BackendAction::Release) => 5,
            Action::Service(ServiceAction::PutRow { .. } | ServiceAction::RemoveRow { .. }) => 3,
            Action::Connection(
                ConnectionAction::Unwire(_)
                | ConnectionAction::Unprepare(_)
                | ConnectionAction::Withdraw(_)
                | ConnectionAction::Revoke { .. }
                | ConnectionAction::Release { .. },
            ) => 1,
            Action::Connection(ConnectionAction::Rearm(_)) => 5,
            Action::Service(_) | Action::Storage(_) | Action::Vault(_) | Action::Connection(_) => 4,
        }
    }

    /// What it does to a service.
    pub fn service(&self) -> Option<&ServiceAction> {
        match &self.action {
            Action::Service(action) => Some(action),
            _ => None,
        }
    }

    /// The step as a line of output.
    pub fn line(&self, outcome: OutcomeWord) -> StepLine {
        StepLine {
            resource: self.resource.clone(),
            action: self.action.word().to_owned(),
            reason: self.reason,
            cause: self.cause,
            detail: self.detail.clone(),
            source: self.source.to_string(),
            outcome,
            message: self.gate.as_ref().map(|g| format!("waits: {g}")).unwrap_or_default(),
            duration_ms: 0,
        }
    }
}
