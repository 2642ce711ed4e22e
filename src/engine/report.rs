//! What a tick saw and did, for whoever asked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::document::Document;
use crate::kinds::Spec;
use crate::model::condition::Reason;
use crate::model::event::Event;
use crate::model::id::{Name, ResourceId};
use crate::model::output::{NoteLine, ProgressLine, ResourceLine, StepLine, Summary, WaitLine};
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
    /// Set while blobs are moved.
    pub progress: Option<ProgressLine>,
    pub resources: Vec<ResourceLine>,
    /// What is declared with mistakes and has no version to go on with, for lists.
    pub invalid: Vec<ResourceLine>,
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

    /// How it stands with these services and everything they need, for whoever asked about them alone.
    pub fn of(&self, names: &[Name]) -> Self {
        let mut scope: BTreeSet<ResourceId> = BTreeSet::new();
        let mut next: Vec<ResourceId> = names.iter().map(ResourceId::service).collect();
        while let Some(id) = next.pop() {
            let spec = self.documents.get(&id).and_then(|document| Spec::read(document, &mut Vec::new()));
            let needs = spec.as_ref().and_then(Spec::as_service).map(|spec| spec.depends_on.as_slice());
            next.extend(needs.unwrap_or_default().iter().map(|needed| ResourceId::service(&needed.service)));
            if !scope.insert(id) {
                next.retain(|id| !scope.contains(id));
            }
        }
        let mut own = self.clone();
        own.steps.retain(|step| scope.contains(&step.resource));
        own.later.retain(|step| scope.contains(&step.resource));
        own.waits.retain(|wait| scope.contains(&wait.resource));
        own.resources.retain(|line| scope.contains(&ResourceId::new(line.kind, line.name.clone())));
        for set in [&mut own.held, &mut own.drifted, &mut own.pruned] {
            set.retain(|id| scope.contains(id));
        }
        own.documents.retain(|id, _| scope.contains(id));
        own.declared = own.documents.len();
        own.rolled_back = own.resources.iter().filter(|line| line.phase.ends_with("RolledBack")).count();
        let all = &self.documents;
        own.problems.retain(|problem| owner(all, problem).is_some_and(|id| scope.contains(id)));
        own.refusal = None;
        let idle = self.busy.is_none() && own.steps.is_empty() && own.later.is_empty();
        own.settled = self.settled || idle && own.waits.is_empty();
        own.doomed = self.doomed || idle && !own.waits.is_empty() && own.waits.iter().all(|wait| wait.doomed);
        own
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

/// The resource in whose document a problem stands.
fn owner<'a>(all: &'a BTreeMap<ResourceId, Arc<Document>>, problem: &Problem) -> Option<&'a ResourceId> {
    let at = problem.span();
    let before = all.iter().filter(|(_, document)| document.origin.file == at.file && document.origin.line <= at.line);
    before.max_by_key(|(_, document)| document.origin.line).map(|(id, _)| id)
}

/// Codes from E03 on are about the machine, not about the documents.
pub fn is_manifest_problem(problem: &Problem) -> bool {
    !problem.code.as_str().starts_with("E03")
}

/// The line for something that is not ready and about which nothing is done.
pub fn wait_line(id: &ResourceId, reason: Reason, message: &str, source: &str, doomed: bool) -> WaitLine {
    WaitLine { resource: id.clone(), reason, message: message.to_owned(), source: source.to_owned(), doomed }
}
