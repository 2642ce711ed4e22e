//! From what happened to an exit code, and to the words that say why.

use super::engine::{Ended, Outcome};
use super::render::human::count;
use crate::model::exit::Exit;
use crate::model::output::ErrorLine;

/// A command could not do its work at all.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    pub error: anyhow::Error,
    pub hint: Option<String>,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, error: anyhow::Error::msg(message.into()), hint: None }
    }

    /// Another instance holds the lock; `holder` says who and since when.
    pub fn locked(holder: &str) -> Self {
        Self::new(Exit::Locked, format!("another instance holds the lock: {holder}"))
            .hint("wait for it with --lock-timeout 1m, or stop it")
    }

    pub fn cancelled() -> Self {
        Self::new(Exit::Cancelled, "cancelled")
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        self.hint = Some(text.into());
        self
    }

    /// As a line of output.
    pub fn line(&self) -> ErrorLine {
        let causes = self.error.chain().skip(1).map(ToString::to_string).collect();
        ErrorLine {
            code: self.exit.as_str().to_owned(),
            message: self.error.to_string(),
            causes,
            hint: self.hint.clone(),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { exit: Exit::Error, error, hint: None }
    }
}

/// The exit code of an outcome, and why it is not 0. What a person did comes first, then what a person must mend (manifests,
/// then the guard), then what time or the world did.
pub fn of(outcome: &Outcome, detailed: bool) -> (Exit, Option<ErrorLine>) {
    let summary = &outcome.summary;
    let (exit, message, hint) = if outcome.ended == Ended::Cancelled {
        let hint = "what was begun is finished; the next run goes on from here";
        (Exit::Cancelled, "cancelled".to_owned(), Some(hint.to_owned()))
    } else if outcome.invalid > 0 {
        let held = match summary.held {
            0 => String::new(),
            held => format!("; {} held at the last good version", count(held, "resource")),
        };
        (Exit::Invalid, format!("the manifests are invalid: {}{held}", count(outcome.invalid, "mistake")), None)
    } else if let Some(refusal) = &outcome.refused {
        (Exit::Refused, refusal.message.clone(), refusal.hint.clone())
    } else if outcome.ended == Ended::TimedOut {
        let hint = "stopping goes on; the daemon ends when everything has stopped";
        let hint = outcome.goes_on.then(|| hint.to_owned());
        (Exit::TimedOut, format!("timed out before convergence{}", left(outcome)), hint)
    } else if summary.failed > 0 {
        let message = format!("{} of {} failed", summary.failed, count(summary.resources, "resource"));
        (Exit::Partial, message, Some("'trueup describe NAME' shows the last events and output".to_owned()))
    } else if detailed && summary.planned + summary.changed + summary.waiting > 0 {
        // What is under way, such as blobs that are being moved, is not as it should be yet.
        return (Exit::Changes, None);
    } else {
        return (Exit::Done, None);
    };
    let line = ErrorLine { code: exit.as_str().to_owned(), message, causes: Vec::new(), hint };
    (exit, Some(line))
}

fn left(outcome: &Outcome) -> String {
    let summary = &outcome.summary;
    let mut parts = Vec::new();
    if summary.waiting > 0 {
        parts.push(format!("{} still waiting", summary.waiting));
    }
    if summary.failed > 0 {
        parts.push(format!("{} failed", summary.failed));
    }
    if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) }
}
