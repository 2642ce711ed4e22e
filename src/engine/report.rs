//! What a tick saw and did, for whoever asked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::document::Document;
use crate::model::condition::Reason;
use crate::model::event::Event;
use crate::model::id::ResourceId;
use crate::model::output::{NoteLine, ResourceLine, StepLine, Summary, WaitLine};
use crate::model::problem::{Problem, Severity};
use crate::model::source::Sources;
use crate::model::time::Timestamp;
use crate::model::unit::Millis;
use crate::plan::Refusal;

/// One tick's result.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub problems: Vec<Problem>,
    pub sources: Sources,
    /// Done steps with their outcome; in a dry tick the planned ones.
    pub steps: Vec<StepLine>,
    /// What died by itself since the last look.
    pub deaths: Vec<Event>,
    /// Steps that were planned and not done, because they wait for something.
    pub later: Vec<StepLine>,
    pub waits: Vec<WaitLine>,
    pub resources: Vec<ResourceLine>,
    /// The documents in force, held ones included.
    pub documents: BTreeMap<ResourceId, Arc<Document>>,
    /// How many resources the tree declares.
    pub declared: usize,
    /// Files outside the tree that matter: envFiles, secret files, module.json, services.json.
    pub also: BTreeSet<PathBuf>,
    pub refusal: Option<Refusal>,
    /// `--allow-prune` was needed, and used.
    pub by_number: bool,
    pub held: BTreeSet<ResourceId>,
    /// How many of them failed their trial.
    pub rolled_back: usize,
    pub pruned: BTreeSet<ResourceId>,
    pub drifted: BTreeSet<ResourceId>,
    /// The tree is being rewritten by somebody (git merge, checkout); nothing was planned.
    pub busy: Option<String>,
    /// Nothing is left to do or to wait for.
    pub settled: bool,
    /// What is left will not come right by waiting.
    pub doomed: bool,
    /// When to look again at the latest.
    pub next: Option<Millis>,
    /// The safety resync of the hub.
    pub interval: Option<Millis>,
    /// When the hour changes something by itself: a schedule's next time, the end of an override. Not a reason to be unsettled.
    pub wake: Option<Timestamp>,
    pub notes: Vec<NoteLine>,
    /// Services that ran to their end with success, as their dependants with `condition: completed` see it.
    pub completed: BTreeSet<ResourceId>,
    /// Services that a person keeps from being what their files say.
    pub overridden: usize,
}

impl Report {
    /// Whether the documents themselves are in order.
    pub fn invalid(&self) -> bool {
        self.problems.iter().any(|p| p.severity == Severity::Error && is_manifest_problem(p))
    }

    /// Resources that failed for good or keep failing.
    pub fn failing(&self) -> usize {
        self.waits.iter().filter(|w| w.doomed).count() + self.rolled_back
    }

    /// The summary of this tick alone.
    pub fn summary(&self) -> Summary {
        let planned = self.steps.len() + self.later.len();
        Summary {
            resources: self.resources.len().max(self.declared),
            planned,
            changed: 0,
            drift: self.drifted.len(),
            failed: self.failing(),
            waiting: self.waits.iter().filter(|w| !w.doomed).count(),
            held: self.held.len(),
            pruned: 0,
            overridden: self.overridden,
            in_sync: self.settled && planned == 0 && !self.invalid() && self.refusal.is_none(),
            duration_ms: 0,
        }
    }
}

/// Codes from E03 on are about the machine, not about the documents.
fn is_manifest_problem(problem: &Problem) -> bool {
    !problem.code.as_str().starts_with("E03")
}

/// The line for something that is not ready and about which nothing is done.
pub fn wait_line(id: &ResourceId, reason: Reason, message: &str, source: &str, doomed: bool) -> WaitLine {
    WaitLine { resource: id.clone(), reason, message: message.to_owned(), source: source.to_owned(), doomed }
}
