//! How something stands that is no longer declared and may not be removed: it is left exactly as it is.

use super::look::Looked;
use crate::kinds::service::observe::State;
use crate::kinds::standing::Standing;
use crate::model::condition::{Condition, ConditionStatus, ConditionType, Reason};
use crate::model::id::{KindName, ResourceId};
use crate::model::observed::Observed;
use crate::ports::keeper::Phase;

/// From what is seen of it; whether it works is what was last known of the process that runs.
pub(super) fn standing(looked: &Looked, id: &ResourceId, before: &[Condition]) -> Standing {
    let was_ready = before.iter().any(|c| c.kind == ConditionType::Ready && c.status == ConditionStatus::True);
    let unit = match looked.seen.get(&id.name) {
        Some(Observed::Present(State { unit: Some(unit), .. })) if id.kind == KindName::Service => Some(unit),
        _ => None,
    };
    let unknown = match looked.seen.get(&id.name) {
        Some(Observed::Unknown(why)) if id.kind == KindName::Service => Some(why.as_str()),
        _ => None,
    };
    let running = unit.is_some_and(|unit| unit.phase == Phase::Running);
    let ready = id.kind != KindName::Service || running && (was_ready || unit.is_some_and(|unit| unit.ready));
    let (reason, message) = match (id.kind, running) {
        (KindName::Hub, _) => (Reason::Accepted, "its settings were in force"),
        (KindName::Vault, _) => (Reason::Present, "left as it was"),
        (KindName::Connection, _) => (Reason::Wired, "left as it was"),
        (KindName::Storage | KindName::StorageBackend, _) => (Reason::Settled, "left as it was"),
        (KindName::Service, true) if ready => (Reason::Running, "runs on as it was"),
        (KindName::Service, true) => (Reason::NotReady, "runs on as it was"),
        (KindName::Service, false) if let Some(why) = unknown => (Reason::Unknown, why),
        (KindName::Service, false) => (Reason::NotDeclared, "does not run"),
    };
    Standing {
        started: running || id.kind != KindName::Service,
        ready,
        completed: false,
        reason,
        message: message.to_owned(),
        doomed: false,
        drifted: None,
    }
}
