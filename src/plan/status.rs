//! Conditions, computed in one place from how a resource stands. Never set in passing.

use crate::kinds::standing::Standing;
use crate::model::condition::{Condition, ConditionStatus, ConditionType, Reason};
use crate::model::time::Timestamp;

/// What conditions are computed from, beside the standing.
#[derive(Clone, Debug, Default)]
pub struct Circumstance {
    /// Why its new version is not used.
    pub held: Option<String>,
    /// Its new version was tried and failed.
    pub rolled_back: bool,
    /// It is no longer declared, and kept because of this.
    pub frozen: Option<(Reason, String)>,
    /// The same steps were tried again and again.
    pub no_progress: Option<String>,
    /// The last step on it failed.
    pub failure: Option<String>,
    pub generation: u64,
}

impl Circumstance {
    fn holds(&self) -> Reason {
        if self.rolled_back { Reason::RolledBack } else { Reason::Held }
    }
}

/// The conditions of one resource. `before` keeps the time of what did not change.
pub fn conditions(
    standing: &Standing,
    circumstance: &Circumstance,
    before: &[Condition],
    now: Timestamp,
) -> Vec<Condition> {
    let build = |kind: ConditionType, status: ConditionStatus, reason: Reason, message: String| {
        let same = before.iter().find(|c| c.kind == kind && c.status == status);
        Condition {
            kind,
            status,
            reason,
            message,
            last_transition_time: same.map_or(now, |c| c.last_transition_time),
            observed_generation: circumstance.generation,
        }
    };
    let truth = |yes: bool| if yes { ConditionStatus::True } else { ConditionStatus::False };
    let settled = standing.settled();
    let ready = if standing.reason == Reason::Unknown {
        ConditionStatus::Unknown
    } else {
        truth(match standing.reason {
            // What waits for its time is as its file asks, unless its last run failed.
            Reason::Scheduled => true,
            Reason::LastRunFailed => false,
            _ => standing.ready || standing.completed,
        })
    };
    let (reason, message) = match standing {
        s if s.ready && s.doomed => (Reason::Running, "runs on as it was started".to_owned()),
        s => (s.reason, s.message.clone()),
    };
    let mut out = vec![build(ConditionType::Ready, ready, reason, message)];

    let (stalled, why) = stalled(standing, circumstance);
    if !settled && !stalled {
        let message = circumstance.failure.clone().unwrap_or_else(|| standing.message.clone());
        let reason = if circumstance.failure.is_some() { Reason::StepFailed } else { standing.reason };
        out.push(build(ConditionType::Reconciling, ConditionStatus::True, reason, message));
    }
    if stalled {
        out.push(build(ConditionType::Stalled, ConditionStatus::True, why.0, why.1));
    }
    if let Some((reason, message)) = &standing.drifted {
        out.push(build(ConditionType::Drifted, ConditionStatus::True, *reason, message.clone()));
    }
    out
}

/// The conditions of what is declared with a mistake and was never in force.
pub fn invalid(message: &str, now: Timestamp) -> Vec<Condition> {
    let condition = |kind, status| Condition {
        kind,
        status,
        reason: Reason::Invalid,
        message: message.to_owned(),
        last_transition_time: now,
        observed_generation: 0,
    };
    vec![
        condition(ConditionType::Ready, ConditionStatus::False),
        condition(ConditionType::Stalled, ConditionStatus::True),
    ]
}

fn stalled(standing: &Standing, circumstance: &Circumstance) -> (bool, (Reason, String)) {
    if let Some(why) = &circumstance.held {
        return (true, (circumstance.holds(), why.clone()));
    }
    if let Some((reason, message)) = &circumstance.frozen {
        return (true, (*reason, message.clone()));
    }
    if let Some(why) = &circumstance.no_progress {
        return (true, (Reason::NoProgress, why.clone()));
    }
    (standing.doomed, (standing.reason, standing.message.clone()))
}

/// One word for a table: what a person wants to know first.
pub fn phase(standing: &Standing, circumstance: &Circumstance) -> String {
    let word = match standing.reason {
        reason if standing.ready && standing.doomed => format!("Ready,{reason}"),
        _ if standing.ready => "Ready".to_owned(),
        Reason::Overridden => "Stopped".to_owned(),
        reason => reason.to_string(),
    };
    if circumstance.held.is_some() {
        return format!("{word},{}", circumstance.holds());
    }
    match &circumstance.frozen {
        Some((reason, _)) => format!("{word},{reason}"),
        None => word,
    }
}
