//! From what the engine reports to lines of output: each problem once, the waiting set whenever it changes.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::cli::engine::Outcome;
use crate::cli::engine::{Ended, Refusal};
use crate::cli::render::human::count;
use crate::cli::render::problem;
use crate::engine::report::Report;
use crate::engine::run::Watcher;
use crate::engine::{Mode, Verdict, report};
use crate::model::condition::{ConditionType, Reason};
use crate::model::exit::Exit;
use crate::model::id::KindName;
use crate::model::output::{
    About, ErrorLine, Line, NoteLine, NoticeLine, ProblemLine, ProgressLine, StepLine, Summary, WaitLine, Waiting,
};
use crate::model::problem::{Problem, Severity};
use crate::model::source::Sources;
use crate::plan;

/// Sends lines to one receiver.
pub(super) struct Emitter<'s> {
    sink: &'s mut dyn FnMut(Line),
    memory: Shown,
}

/// What was sent already.
#[derive(Default)]
pub(super) struct Shown {
    problems: Vec<Problem>,
    waits: Vec<WaitLine>,
    busy: Option<String>,
    refusal: Option<plan::Refusal>,
    notes: Vec<NoteLine>,
    progress: Option<ProgressLine>,
}

/// Where the hub listens, if it does.
pub(super) fn serving(report: &Report) -> Option<String> {
    let hub = report.resources.iter().find(|line| line.kind == KindName::Hub)?;
    let condition = hub.conditions.iter().find(|c| c.kind == ConditionType::Ready && c.reason == Reason::Serving)?;
    Some(format!("Hub/{} {}", hub.name, condition.message))
}

impl<'s> Emitter<'s> {
    pub(super) fn new(sink: &'s mut dyn FnMut(Line)) -> Self {
        Self { sink, memory: Shown::default() }
    }
}

impl Watcher for Emitter<'_> {
    fn step(&mut self, line: &StepLine) {
        (self.sink)(Line::Step(line.clone()));
    }

    fn report(&mut self, report: &Report) {
        self.memory.report(report, self.sink);
    }
}

impl Shown {
    /// Says once that the guard refuses a part of the plan: the continuous mode has no end at which it could be said.
    pub(super) fn refusal(&mut self, report: &Report, sink: &mut dyn FnMut(Line)) {
        match &report.refusal {
            Some(refusal) if self.refusal.as_ref() != Some(refusal) => {
                sink(Line::Error(ErrorLine {
                    code: Exit::Refused.as_str().to_owned(),
                    message: refusal.to_string(),
                    causes: Vec::new(),
                    hint: Some(refusal.hint()),
                }));
                self.refusal = Some(refusal.clone());
            }
            // While something gets a second look, nothing is known of the rest.
            None if report.settled => self.refusal = None,
            _ => {}
        }
    }

    /// Says which files had mistakes and have none any more.
    fn repaired(&self, report: &Report, sink: &mut dyn FnMut(Line)) {
        let broken = |problems: &[Problem]| -> BTreeSet<Arc<str>> {
            let errors = problems.iter().filter(|p| p.severity == Severity::Error && report::is_manifest_problem(p));
            errors.map(|problem| problem.span().file.clone()).collect()
        };
        let now = broken(&report.problems);
        let whole = |file: &Arc<str>| !now.contains(file) && report.sources.contains_key(file);
        for file in broken(&self.problems).into_iter().filter(whole) {
            let here = format!("{file}:");
            let followed = report.resources.iter().filter(|line| line.source.starts_with(&here)).count();
            let follow = if followed == 1 { "follows" } else { "follow" };
            let message = format!("{file}: repaired, {} {follow} it again", count(followed, "resource"));
            sink(Line::Notice(NoticeLine { about: About::Repaired, message }));
        }
    }

    /// Sends what is new.
    pub(super) fn report(&mut self, report: &Report, sink: &mut dyn FnMut(Line)) {
        if report.busy.is_none() {
            self.repaired(report, sink);
            for problem in &report.problems {
                if !self.problems.contains(problem) {
                    sink(Line::Problem(problem_line(problem, &report.sources)));
                }
            }
            self.problems.clone_from(&report.problems);
        }
        report.deaths.iter().for_each(|death| sink(Line::Event(death.clone())));
        for note in report.notes.iter().filter(|note| !self.notes.contains(note)) {
            sink(Line::Note(note.clone()));
        }
        self.notes.clone_from(&report.notes);
        let mut waits = report.waits.clone();
        if let Some(busy) = report.busy.as_ref().filter(|b| self.busy.as_ref() != Some(b)) {
            tracing::info!(what = %busy, "the tree is being rewritten; waiting for its end");
        }
        self.busy.clone_from(&report.busy);
        if report.settled {
            waits.clear();
        }
        // Times in messages move on; what is waited for is the same.
        let same =
            |a: &WaitLine, b: &WaitLine| a.resource == b.resource && a.reason == b.reason && a.doomed == b.doomed;
        if waits.len() != self.waits.len() || !waits.iter().zip(&self.waits).all(|(a, b)| same(a, b)) {
            sink(Line::Waiting(Waiting { waits: waits.clone() }));
        }
        self.waits = waits;
        if let Some(progress) = report.progress.as_ref().filter(|progress| self.progress.as_ref() != Some(progress)) {
            sink(Line::Progress(progress.clone()));
        }
        self.progress.clone_from(&report.progress);
    }
}

/// How it stands when the first pass is over and watching begins.
pub(super) fn watching(tree: &str, report: &Report) -> NoticeLine {
    let summary = report.summary();
    let mut parts = vec![count(summary.resources, "resource")];
    let notable = [
        (summary.failed, "failed"),
        (summary.waiting, "waiting"),
        (summary.held, "held"),
        (summary.overridden, "overridden"),
    ];
    parts
        .extend(notable.into_iter().filter(|(number, _)| *number > 0).map(|(number, word)| format!("{number} {word}")));
    if summary.in_sync && summary.held == 0 {
        parts.push("in sync".to_owned());
    }
    if report.invalid() {
        parts.push("the manifests have mistakes".to_owned());
    }
    NoticeLine { about: About::Watching, message: format!("watching {tree}: {}", parts.join(", ")) }
}

/// A problem with the text a person sees.
pub(super) fn problem_line(problem: &Problem, sources: &Sources) -> ProblemLine {
    let rendered = problem::render(problem, sources, true);
    ProblemLine { rendered, ..ProblemLine::from(problem) }
}

impl Outcome {
    /// Stopping everything succeeds whatever state the manifests are in.
    pub(super) fn of(self, mode: Mode) -> Self {
        if mode.down { Self { invalid: 0, refused: None, ..self } } else { self }
    }
}

/// What the commands need to know to choose their exit code.
pub(super) fn outcome(verdict: Verdict, report: &report::Report, summary: Summary) -> Outcome {
    let errors = |p: &&Problem| p.severity == Severity::Error && !p.code.as_str().starts_with("E03");
    Outcome {
        summary,
        invalid: report.problems.iter().filter(errors).count(),
        refused: report.refusal.as_ref().map(|r| Refusal { message: r.to_string(), hint: Some(r.hint()) }),
        goes_on: false,
        ended: match verdict {
            Verdict::Settled | Verdict::Doomed => Ended::Settled,
            Verdict::TimedOut => Ended::TimedOut,
            Verdict::Cancelled => Ended::Cancelled,
        },
    }
}
