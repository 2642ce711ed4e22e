//! One line of output as text.

use super::human::{self, count, size, span};
use super::printable;
use super::style::{self, paint};
use crate::model::event::{Cause, Event};
use crate::model::output::{
    ErrorLine, NoteLine, NoticeLine, OutcomeWord, ProblemLine, ProgressLine, ResourceLine, StepLine, Summary, WaitLine,
    Waiting,
};
use crate::model::problem::Severity;

/// Columns are padded to these widths: lines are printed as they come, so the widest is not known.
const RESOURCE: usize = 20;
const ACTION: usize = 9;
const REASON: usize = 24;
/// So many waits are named in one line; the rest are counted.
const WAITS_NAMED: usize = 3;

/// What an action does to the machine, as a sign and a colour.
fn sign(action: &str) -> (char, anstyle::Style) {
    let adds = ["spawn", "start", "run", "create", "adopt", "register", "add", "choose"];
    let takes = ["stop", "release", "remove", "forget", "prune", "drop", "delete"];
    let begins = |words: &[&str]| words.iter().any(|word| action.starts_with(word));
    if begins(&adds) {
        ('+', style::GOOD)
    } else if begins(&takes) {
        ('-', style::BAD)
    } else {
        ('~', style::CHANGE)
    }
}

/// `+ Service/vault  spawn  Absent  manifests/vault.yaml:3:1  changed in 12ms`; what failed says why on a line of its own.
pub fn step(line: &StepLine) -> String {
    let (sign, colour) = sign(&line.action);
    let plain = match line.cause {
        Cause::Drift => format!("drift: {}", line.reason),
        Cause::Intent => line.reason.to_string(),
        Cause::Retry => format!("{}, again", line.reason),
    };
    let detail = if line.detail.is_empty() { String::new() } else { format!(" ({})", printable::line(&line.detail)) };
    let reason = format!("{:<REASON$}", format!("{plain}{detail}"));
    let reason = if line.cause == Cause::Drift { paint(style::DRIFT, reason) } else { reason };
    let done = |word: &str, colour| format!("  {} in {}", paint(colour, word), human::span(line.duration_ms));
    let outcome = match line.outcome {
        OutcomeWord::Planned => String::new(),
        OutcomeWord::Changed => done("changed", style::GOOD),
        OutcomeWord::Already => done("already", style::QUIET),
        OutcomeWord::Retry => done("to be retried", style::WARNING),
        OutcomeWord::Failed => done("failed", style::ERROR),
        OutcomeWord::Unsure => done("unsure", style::WARNING),
    };
    let message = match line.message.as_str() {
        "" => String::new(),
        message => format!("    {}\n", printable::line(message)),
    };
    let head = paint(colour, format!("{sign} {:<RESOURCE$}  {:<ACTION$}", line.resource, line.action));
    let source = paint(style::QUIET, printable::line(&line.source));
    format!("{head}  {reason}  {source}{outcome}\n{message}")
}

/// `… Service/clerk waits: Service/vault is not ready`.
pub fn wait(line: &WaitLine) -> String {
    let (word, colour) = if line.doomed { ("is stuck", style::BAD) } else { ("waits", style::WAIT) };
    format!("{} {word}: {}\n", paint(colour, format!("… {}", line.resource)), why(line))
}

/// `note: Service/clerk is kept stopped ...`.
pub fn note(line: &NoteLine) -> String {
    format!("{} {}: {}\n", paint(style::WARNING, "note:"), line.resource, printable::line(&line.message))
}

/// `watching manifests: 3 resources, in sync`.
pub fn notice(line: &NoticeLine) -> String {
    format!("{}\n", printable::line(&line.message))
}

/// `3 resources, no mistakes (4ms)`.
pub fn no_mistakes(summary: &Summary) -> String {
    let head = count(summary.resources, "resource");
    format!("{head}, {} ({})\n", paint(style::GOOD, "no mistakes"), human::span(summary.duration_ms))
}

fn why(line: &WaitLine) -> String {
    if line.message.is_empty() { line.reason.to_string() } else { printable::line(&line.message).into_owned() }
}

/// The same beside a bar, where there is less room: `12345/20000 on bucket, 410MiB/698MiB, 41MiB/s, 7.0s left`.
pub fn progress_short(line: &ProgressLine) -> String {
    let rate = if line.bytes_per_second > 0 { format!(", {}/s", size(line.bytes_per_second)) } else { String::new() };
    let eta = line.eta_ms.map(|eta| format!(", {} left", span(eta))).unwrap_or_default();
    let (done, total) = (size(line.done_bytes), size(line.total_bytes));
    format!("{}/{} on {}, {done}/{total}{rate}{eta}", line.done, line.total, line.to)
}

/// How far blobs are: `Storage/default: 12345 of 20000 objects on bucket, 410MiB of 698MiB, 41MiB/s, 7.0s left`.
pub fn progress(line: &ProgressLine) -> String {
    let rate = match line.bytes_per_second {
        0 => String::new(),
        rate => format!(", {}/s", size(rate)),
    };
    let eta = line.eta_ms.map(|eta| format!(", {} left", span(eta))).unwrap_or_default();
    let (done, total) = (size(line.done_bytes), size(line.total_bytes));
    let objects = count(line.total, "object");
    format!("{}: {} of {objects} on {}, {done} of {total}{rate}{eta}", line.resource, line.done, line.to)
}

/// What is waited for, on one line without an end: `waiting for Service/vault (connection refused) and 2 more; stuck: ...`.
pub fn waiting(waiting: &Waiting) -> String {
    let (stuck, hopeful): (Vec<_>, Vec<_>) = waiting.waits.iter().partition(|wait| wait.doomed);
    let parts = [("waiting for", hopeful), ("stuck:", stuck)].into_iter().filter(|(_, waits)| !waits.is_empty());
    parts.map(|(word, waits)| format!("{word} {}", listed(&waits))).collect::<Vec<_>>().join("; ")
}

fn listed(waits: &[&WaitLine]) -> String {
    let named = waits.iter().take(WAITS_NAMED).map(|wait| format!("{} ({})", wait.resource, why(wait)));
    let mut text = named.collect::<Vec<_>>().join(", ");
    if let Some(more @ 1..) = waits.len().checked_sub(WAITS_NAMED) {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

/// `3 resources: planned 0, changed 0, in sync (4ms)`.
pub fn summary(summary: &Summary) -> String {
    let mut parts = vec![format!("planned {}", summary.planned), format!("changed {}", summary.changed)];
    let notable = [
        ("drift", summary.drift, style::DRIFT),
        ("failed", summary.failed, style::ERROR),
        ("waiting", summary.waiting, style::WAIT),
        ("held", summary.held, style::WARNING),
        ("overridden", summary.overridden, style::WARNING),
        ("pruned", summary.pruned, style::BAD),
    ];
    let notable = notable.into_iter().filter(|(_, number, _)| *number > 0);
    parts.extend(notable.map(|(word, number, colour)| paint(colour, format!("{word} {number}"))));
    parts.push(if summary.in_sync { paint(style::GOOD, "in sync") } else { paint(style::CHANGE, "out of sync") });
    let head = count(summary.resources, "resource");
    format!("{head}: {} ({})\n", parts.join(", "), human::span(summary.duration_ms))
}

/// A problem as its writer drew it, or else in the same form without the source line.
pub fn problem(line: &ProblemLine) -> String {
    if !line.rendered.is_empty() {
        let drawn = printable::block(&line.rendered);
        return format!("{}\n", drawn.trim_end_matches('\n'));
    }
    let (word, colour) = match line.severity {
        Severity::Error => ("error", style::ERROR),
        Severity::Warning => ("warning", style::WARNING),
    };
    let mut text = format!(
        "{}: {}\n  --> {}:{}:{}\n",
        paint(colour, format!("{word}[{}]", printable::line(&line.code))),
        printable::line(&line.message),
        printable::line(&line.file),
        line.line,
        line.column,
    );
    for also in &line.related {
        let message = printable::line(&also.message);
        text.push_str(&format!("  ::: {}:{}:{} {message}\n", printable::line(&also.file), also.line, also.column));
    }
    if let Some(hint) = &line.hint {
        text.push_str(&format!("  = help: {}\n", printable::line(hint)));
    }
    text
}

/// `error[E0102]: manifests/a.yaml:3:5: unknown field`: a problem on one line.
pub fn brief(line: &ProblemLine) -> String {
    let code = paint(style::ERROR, format!("error[{}]", printable::line(&line.code)));
    let at = match (line.line, line.column) {
        (1, 1) => printable::line(&line.file).into_owned(),
        (row, column) => format!("{}:{row}:{column}", printable::line(&line.file)),
    };
    format!("{code}: {at}: {}\n", printable::line(&line.message))
}

/// `error: what`, then what led to it, then what to do.
pub fn error(line: &ErrorLine) -> String {
    let mut text = format!("{}: {}\n", paint(style::ERROR, "error"), printable::line(&line.message));
    for cause in &line.causes {
        text.push_str(&format!("  caused by: {}\n", printable::line(cause)));
    }
    if let Some(hint) = &line.hint {
        text.push_str(&format!("  {}: {}\n", paint(style::WAIT, "help"), printable::line(hint)));
    }
    text
}

/// One event on one line.
pub fn event(event: &Event) -> String {
    let cause = match event.cause {
        Cause::Intent => "intent".to_owned(),
        Cause::Drift => paint(style::DRIFT, "drift "),
        Cause::Retry => paint(style::WARNING, "retry "),
    };
    let at = paint(style::QUIET, event.at);
    // As far away as it was then.
    let message = human::moments(&event.message, event.at);
    let message = printable::line(&message);
    format!("{at}  {:<RESOURCE$}  {cause}  {:<18}  {message}\n", event.resource, event.reason).trim_end().to_owned()
        + "\n"
}

/// A resource on one line: for streams, where there is no table.
pub fn resource(line: &ResourceLine) -> String {
    let id = format!("{}/{}", line.kind, line.name);
    format!("{id:<RESOURCE$}  {}  {}\n", printable::line(&line.phase), printable::line(&line.source))
}
