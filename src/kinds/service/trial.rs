//! A changed version on trial: proven when it was ready once, refused when it was not ready in time. Pure.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::plan::{Action, Intent, Wanted};
use crate::model::condition::Reason;
use crate::model::digest::Digest;
use crate::model::event::Cause;
use crate::model::time::Timestamp;
use crate::model::unit::Millis;
use crate::ports::keeper::Unit;

/// A version that was ready once, as the ledger keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proven {
    pub digest: Digest,
    pub document: String,
    pub base: String,
    pub source: String,
    /// The module.json it ran with: path and text.
    #[serde(default)]
    pub module: Option<(PathBuf, String)>,
}

/// A version that was not ready in time. It is not tried again by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    pub digest: Digest,
    pub why: String,
    pub at: Timestamp,
}

/// The version that was applied last is not proven yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// How long it may take.
    pub window: Millis,
    /// How long it has taken.
    pub spent: Millis,
    /// There is a proven version to go back to.
    pub fallback: bool,
}

/// Ends the trial if it can be ended now.
pub fn judge(trial: &Trial, unit: Option<&Unit>, intent: &mut Intent) {
    let standing = &mut intent.standing;
    if standing.ready || standing.completed {
        if intent.steps.is_empty() {
            let detail = "ready: this version can be gone back to".to_owned();
            intent.steps.push(wanted(Action::Prove, Reason::Proven, detail));
        }
        return;
    }
    // What waits for something else has not had its chance yet.
    if !trial.fallback || intent.gate.is_some() || intent.problem.is_some() {
        return;
    }
    // Nor has what is only to be started.
    if intent.steps.iter().any(|step| matches!(step.action, Action::Spawn(_))) {
        return;
    }
    let looping = standing.reason == Reason::CrashLoop;
    if looping || trial.spent >= trial.window {
        let why = match unit.filter(|_| looping) {
            Some(unit) => {
                let last = unit.last_exit.as_ref().map_or_else(|| "unknown".to_owned(), ToString::to_string);
                format!("crashed {} times in a row, last: {last}", unit.crashes)
            }
            None => format!("not ready within {}: {}", trial.window, standing.message),
        };
        let action = Action::Refuse { why: why.clone() };
        intent.steps = vec![wanted(action, Reason::RolledBack, why)];
        standing.reason = Reason::RolledBack;
    }
    // It does not stay like this.
    standing.doomed = false;
}

fn wanted(action: Action, reason: Reason, detail: String) -> Wanted {
    Wanted { action, reason, cause: Cause::Intent, detail, pointer: "/spec/rollback".to_owned() }
}
