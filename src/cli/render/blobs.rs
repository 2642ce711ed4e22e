//! Blobs and the storage as text.

use super::human::{self, count, size, span};
use super::printable;
use super::style::{self, paint};
use super::table::grid;
use crate::model::blob_output::{
    BlobLine, BlobOutput, FetchedLine, LeftoverWord, MigrationLine, RemovedLine, StorageLine, StoredLine,
    StoredOutcome, VerdictLine, VerdictWord,
};
use crate::model::time::Timestamp;

/// One line of output, or a few.
pub fn text(line: &BlobOutput, now: Timestamp) -> String {
    match line {
        BlobOutput::Blob(blob) => stat(blob, now),
        BlobOutput::Stored(stored) => format!("{}\n", stored.blob.key),
        BlobOutput::Fetched(fetched) => format!("{} {}\n", fetched.key, size(fetched.size)),
        BlobOutput::Verdict(verdict) => verdict_line(verdict),
        BlobOutput::Removed(removed) => removed_line(removed),
        BlobOutput::Storage(status) => storage(status, now),
        BlobOutput::Migration(migration) => history(std::slice::from_ref(migration), now),
    }
}

/// What is to be known of a put beside its key.
pub fn stored_note(stored: &StoredLine) -> Option<String> {
    let backend = &stored.blob.backend;
    match stored.outcome {
        StoredOutcome::Stored => None,
        StoredOutcome::Known => Some(format!("it was there already, on {backend}\n")),
        StoredOutcome::Repaired => {
            Some(format!("its bytes were missing or wrong; they are right again, on {backend}\n"))
        }
    }
}

/// A read that the recorded place could not serve.
pub fn fallback_note(fetched: &FetchedLine) -> String {
    let FetchedLine { backend, served_by, .. } = fetched;
    format!("{} {backend} could not give it; {served_by} did\n", paint(style::CHANGE, "warning:"))
}

/// A row of `blob ls -l`: keys are of few lengths, so the columns stay in line.
pub fn row(blob: &BlobLine, now: Timestamp) -> String {
    let age = human::age(u64::try_from(now.0.saturating_sub(blob.created.0)).unwrap_or_default());
    let finding = blob.finding.as_ref().map_or_else(String::new, |finding| paint(style::BAD, &finding.fault));
    let row = format!("{}  {:>10}  {:<16}  {age:>8}  {finding}", blob.key, size(blob.size), blob.backend);
    format!("{}\n", row.trim_end())
}

fn stat(blob: &BlobLine, now: Timestamp) -> String {
    let when = |at: Timestamp| format!("{at} ({})", human::moment(at, now));
    let mut rows = vec![
        ["Key:".to_owned(), blob.key.to_string()],
        ["SHA-256:".to_owned(), blob.sha256.clone()],
        ["Size:".to_owned(), format!("{} ({} bytes)", size(blob.size), blob.size)],
        ["Backend:".to_owned(), blob.backend.to_string()],
        ["Created:".to_owned(), when(blob.created)],
        ["Verified:".to_owned(), blob.verified.map_or_else(|| "never".to_owned(), when)],
    ];
    if let Some(finding) = &blob.finding {
        let detail = printable::line(&finding.detail);
        rows.push(["Finding:".to_owned(), format!("{}: {detail}, since {}", finding.fault, when(finding.since))]);
    }
    rows.extend(blob.shared_with.iter().map(|key| ["Same bytes:".to_owned(), key.to_string()]));
    lines(grid(None, rows.into_iter()))
}

fn verdict_line(verdict: &VerdictLine) -> String {
    let (colour, word) = match verdict.verdict {
        VerdictWord::Ok => (style::GOOD, "ok"),
        VerdictWord::Missing => (style::BAD, "missing"),
        VerdictWord::Corrupt => (style::BAD, "corrupt"),
        VerdictWord::Unreachable => (style::CHANGE, "unreachable"),
    };
    let why = verdict.detail.as_deref().map_or_else(String::new, |detail| format!(": {}", printable::line(detail)));
    format!("{} {} on {}{why}\n", paint(colour, word), verdict.key, verdict.backend)
}

fn removed_line(removed: &RemovedLine) -> String {
    let bytes = match removed.bytes {
        LeftoverWord::Deleted => format!("{} freed", size(removed.size)),
        LeftoverWord::Shared => "another blob has the same bytes".to_owned(),
        LeftoverWord::Later => "its bytes are deleted later".to_owned(),
    };
    format!("removed {} ({bytes})\n", removed.key)
}

/// `storage status`.
pub fn storage(status: &StorageLine, now: Timestamp) -> String {
    let Some(active) = &status.active else {
        return "no storage is set up: declare a StorageBackend and a Storage\n".to_owned();
    };
    let mut text = match &status.target {
        None => format!("active backend {active}, {}\n", count(status.blobs, "blob")),
        Some(target) => format!("moving from {active} to {target}, {}\n", count(status.blobs, "blob")),
    };
    if let Some(progress) = &status.progress {
        let share = (progress.done_bytes.saturating_mul(100)).checked_div(progress.total_bytes).unwrap_or(100);
        let left = progress.eta_ms.map_or_else(String::new, |ms| format!(", {} left", span(ms)));
        text.push_str(&format!(
            "{share}%: {} of {} objects, {} of {}, {}/s ({}/s){left}\n",
            progress.done,
            progress.total,
            size(progress.done_bytes),
            size(progress.total_bytes),
            size(progress.bytes_per_second),
            count(progress.objects_per_second, "object"),
        ));
    }
    if let Some(migration) = &status.migration {
        let others = [(migration.written, "written meanwhile"), (migration.abandoned, "given up")];
        let others = others.iter().filter(|(number, _)| *number > 0).map(|(n, what)| format!(", {n} {what}"));
        let begun = human::moment(migration.begun, now);
        text.push_str(&format!("begun {begun}{}\n", others.collect::<String>()));
    }
    if status.fallbacks > 0 {
        text.push_str(&format!("{} served by another backend\n", count(status.fallbacks, "read")));
    }
    text.push('\n');
    let header = ["BACKEND", "ROLE", "OBJECTS", "SIZE", "FINDINGS", "SPARES"];
    let rows = status.backends.iter().map(|backend| {
        let role = match (Some(&backend.name) == status.target.as_ref(), &backend.name == active) {
            (true, true) => "active, target",
            (true, false) => "target",
            (false, true) => "active",
            (false, false) if !backend.declared => "not declared",
            (false, false) => "-",
        };
        [
            backend.name.to_string(),
            role.to_owned(),
            backend.objects.to_string(),
            size(backend.bytes),
            backend.findings.to_string(),
            backend.spares.to_string(),
        ]
    });
    text + &lines(grid(Some(&header), rows))
}

/// Past migrations, the newest first.
pub fn history(all: &[MigrationLine], now: Timestamp) -> String {
    if all.is_empty() {
        return "\nno migration yet\n".to_owned();
    }
    let header = ["FROM", "TO", "OUTCOME", "BEGUN", "TOOK", "MOVED", "SIZE", "WRITTEN", "GIVEN UP"];
    let rows = all.iter().map(|migration| {
        let took = migration.ended.unwrap_or(now).0.saturating_sub(migration.begun.0);
        [
            migration.from.to_string(),
            migration.to.to_string(),
            migration.outcome.clone(),
            human::moment(migration.begun, now),
            span(u64::try_from(took).unwrap_or_default()),
            migration.moved.to_string(),
            size(migration.moved_bytes),
            migration.written.to_string(),
            migration.abandoned.to_string(),
        ]
    });
    format!("\n{}", lines(grid(Some(&header), rows)))
}

fn lines(rows: Vec<String>) -> String {
    rows.into_iter().map(|row| row + "\n").collect()
}
