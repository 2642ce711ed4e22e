//! Blobs and the storage as text.

use super::human::{self, count, size, span};
use super::printable;
use super::style::{self, paint};
use super::table::grid;
use crate::model::blob_output::{
    BlobLine, BlobOutput, FetchedLine, LeftoverWord, MigrationLine, MovedLine, RemovedLine, StorageLine, StoredLine,
    StoredOutcome, SuspendedLine, TroubledLine, VerdictLine, VerdictWord, VerifiedLine,
};
use crate::model::time::Timestamp;

/// So many blobs with a finding are shown by name.
const FINDINGS: usize = 20;

/// One line of output, or a few.
pub fn text(line: &BlobOutput, now: Timestamp) -> String {
    match line {
        BlobOutput::Blob(blob) => stat(blob, now),
        BlobOutput::Stored(stored) => format!("{}\n", stored.blob.key),
        BlobOutput::Fetched(fetched) => format!("{} {}\n", fetched.key, size(fetched.size)),
        BlobOutput::Verdict(verdict) => verdict_line(verdict),
        BlobOutput::Verified(all) => verified(all),
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

/// So many rows are brought in line with one another, and held until they are.
const ALIGNED: usize = 1_000;

/// The rows of `blob ls -l`: of very many, each group is in line, and columns only grow from one to the next.
#[derive(Default)]
pub struct Rows {
    begun: bool,
    held: Vec<[String; 5]>,
    widths: [usize; 5],
}

impl Rows {
    /// Takes a row; gives back text when there is enough.
    pub fn add(&mut self, blob: &BlobLine, now: Timestamp) -> Option<String> {
        if !self.begun {
            self.begun = true;
            self.hold(["KEY", "SIZE", "BACKEND", "AGE", "FINDING"].map(str::to_owned));
        }
        let age = human::age(u64::try_from(now.0.saturating_sub(blob.created.0)).unwrap_or_default());
        let finding = blob.finding.as_ref().map_or_else(String::new, |finding| finding.fault.clone());
        self.hold([blob.key.to_string(), size(blob.size), blob.backend.to_string(), age, finding]);
        (self.held.len() >= ALIGNED).then(|| self.rest())
    }

    fn hold(&mut self, row: [String; 5]) {
        for (width, cell) in self.widths.iter_mut().zip(&row) {
            *width = cell.len().max(*width);
        }
        self.held.push(row);
    }

    /// What is held.
    pub fn rest(&mut self) -> String {
        let [keys, sizes, backends, ages, _] = self.widths;
        let rows = self.held.drain(..).map(|[key, size, backend, age, finding]| {
            let finding = match finding.as_str() {
                "" | "FINDING" => finding,
                fault => paint(style::BAD, fault),
            };
            let row = format!("{key:<keys$}  {size:>sizes$}  {backend:<backends$}  {age:>ages$}  {finding}");
            format!("{}\n", row.trim_end())
        });
        rows.collect()
    }
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

fn verified(all: &VerifiedLine) -> String {
    let how = match all.bad {
        0 => "all good".to_owned(),
        bad => format!("{} good, {bad} not", all.good),
    };
    format!("verified {}: {how}\n", count(all.blobs, "blob"))
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
    let blobs = count(status.blobs, "blob");
    let mut text = match &status.target {
        None => format!("active backend {active}, {blobs}\n"),
        Some(target) if target == active => format!("moving back to {active}, {blobs}\n"),
        Some(target) => format!("moving from {active} to {target}, {blobs}\n"),
    };
    if let Some(progress) = &status.progress {
        text.push_str(&moved(progress));
    }
    if let Some(suspended) = &status.suspended {
        text.push_str(&held(suspended, now));
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
    text.push_str(&lines(grid(Some(&header), rows)));
    text.push_str("\nfindings: objects without a good copy; spares: old copies and leftovers that no blob relies on\n");
    text + &findings(status)
}

fn moved(progress: &MovedLine) -> String {
    let share = (progress.done_bytes.saturating_mul(100)).checked_div(progress.total_bytes).unwrap_or(100);
    let rate = match (progress.bytes_per_second, progress.objects_per_second) {
        (0, 0) => String::new(),
        (bytes, objects) => format!(", {}/s ({}/s)", size(bytes), count(objects, "object")),
    };
    let left = progress.eta_ms.map_or_else(String::new, |ms| format!(", {} left", span(ms)));
    let (done, total) = (size(progress.done_bytes), size(progress.total_bytes));
    format!("{share}%: {} of {} objects, {done} of {total}{rate}{left}\n", progress.done, progress.total)
}

fn held(suspended: &SuspendedLine, now: Timestamp) -> String {
    let reason = suspended.reason.as_deref().map(printable::line);
    let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
    let until =
        suspended.until.map_or_else(String::new, |until| format!(", until {until} ({})", human::moment(until, now)));
    format!("{}{reason}{until}; reads and writes go on\n", paint(style::CHANGE, "suspended"))
}

/// The first blobs with a finding by name.
fn findings(status: &StorageLine) -> String {
    if status.findings.is_empty() {
        return String::new();
    }
    let row = |TroubledLine { key, backend, fault, detail }: &TroubledLine| {
        format!("{} {key} on {backend}: {}\n", paint(style::BAD, fault), printable::line(detail))
    };
    let mut text = String::from("\n");
    text.extend(status.findings.iter().take(FINDINGS).map(row));
    match status.findings.len().saturating_sub(FINDINGS) as u64 + status.more_findings {
        0 => {}
        more => text.push_str(&format!("and {more} more; 'trueup blob ls -l' lists them all\n")),
    }
    text
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::blob::{Integrity, Sha256};
    use crate::model::id::Name;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    fn troubled(number: u64) -> TroubledLine {
        let key = Integrity::of(&Sha256::of(&number.to_le_bytes()));
        TroubledLine { key, backend: name("disk"), fault: "missing".into(), detail: "gone".into() }
    }

    #[test]
    fn what_goes_back_is_said_to_go_back_and_a_rate_that_is_not_known_is_not_shown() {
        let progress = MovedLine {
            done: 1,
            total: 4,
            done_bytes: 10,
            total_bytes: 40,
            objects_per_second: 0,
            bytes_per_second: 0,
            eta_ms: None,
        };
        let here = Some(name("disk"));
        let status =
            StorageLine { active: here.clone(), target: here, progress: Some(progress), ..StorageLine::default() };
        let text = storage(&status, Timestamp(0));
        assert!(text.starts_with("moving back to disk, 0 blobs\n25%: 1 of 4 objects, 10B of 40B\n"), "{text}");
    }

    #[test]
    fn of_many_findings_the_first_are_named_and_the_others_counted() {
        let findings = (0..23).map(troubled).collect();
        let status = StorageLine { active: Some(name("disk")), findings, more_findings: 4, ..StorageLine::default() };
        let text = storage(&status, Timestamp(0));
        assert_eq!(text.matches("on disk: gone").count(), 20);
        assert!(text.ends_with("and 7 more; 'trueup blob ls -l' lists them all\n"), "{text}");
    }
}
