//! The blobs of a state folder behind the commands: the index, the locks, and the backends that are accepted in the ledger. No engine
//! and no runtime is needed, so a blob is put and read in milliseconds, whether a daemon runs or not.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::build::read_ledger;
use super::storage::{INDEX, folder};
use crate::adapters::blobs;
use crate::adapters::blobs::index::SqliteIndex;
use crate::adapters::blobs::latches::FileLatches;
use crate::adapters::clock::SystemClock;
use crate::adapters::environment::Environment;
use crate::adapters::secrets::ProcessSecrets;
use crate::cli::blob::REMEDY;
use crate::cli::engine::{Blobs, GetTo, Passed, Place, PutFrom};
use crate::cli::exit::Failure;
use crate::document::Document;
use crate::kinds::backend::inputs;
use crate::kinds::backend::spec::StorageBackendSpec;
use crate::kinds::path::tidy;
use crate::kinds::secret::SecretRef;
use crate::kinds::storage::spec::StorageSpec;
use crate::model::blob::Integrity;
use crate::model::blob_output::{
    BackendLine, BlobLine, FetchedLine, FindingLine, LeftoverWord, MigrationLine, MovedLine, RemovedLine, StorageLine,
    StoredLine, StoredOutcome, SuspendedLine, TroubledLine, VerdictLine, VerdictWord,
};
use crate::model::exit::Exit;
use crate::model::id::{KindName, Name};
use crate::model::secret::Secret;
use crate::model::time::Timestamp;
use crate::model::unit::Millis;
use crate::ports::blobs::{Backend, BackendError, Entry, Fault, Index, IndexError, Migration, Standing};
use crate::ports::clock::Clock;
use crate::ports::secrets::Secrets;
use crate::storage::depot::{BlobError, Depot, Watch};
use crate::storage::put::{Outcome, Source, put};
use crate::storage::read::{Verdict, fetch, fetch_to, give_out, verify};
use crate::storage::remove::{Leftover, remove};

/// So many blobs are read from the index at once.
const PAGE: usize = 1_000;

/// When nothing was moved for so long, in milliseconds, no rate is known.
const STALLED: i64 = 10_000;

/// The blobs of one state folder.
pub(super) struct Local {
    folder: PathBuf,
    /// `None` before anything was ever stored.
    index: Option<SqliteIndex>,
    latches: FileLatches,
    declared: BTreeMap<Name, Declared>,
    /// While everything is held.
    suspended: Option<SuspendedLine>,
    opened: RefCell<BTreeMap<Name, Arc<dyn Backend>>>,
}

/// A backend as the ledger has it.
struct Declared {
    spec: StorageBackendSpec,
    folder: PathBuf,
}

impl Local {
    /// Looks at what there is; makes nothing.
    pub(super) fn open(place: &Place) -> Result<Self, Failure> {
        let folder = folder(&place.state);
        let path = folder.join(INDEX);
        let index = match path.try_exists() {
            Ok(false) => None,
            Ok(true) => Some(SqliteIndex::open(&path).map_err(broken)?),
            Err(error) => return Err(anyhow::Error::new(error).context(path.display().to_string()).into()),
        };
        let latches = FileLatches::new(&folder);
        let (declared, suspended) = accepted(&place.state)?;
        Ok(Self { latches, folder, index, declared, suspended, opened: RefCell::default() })
    }

    fn index(&self) -> Result<&SqliteIndex, BlobError> {
        self.index.as_ref().ok_or(BlobError::NoPlace)
    }

    /// The index, to look for this blob.
    fn index_of(&self, key: &Integrity) -> Result<&SqliteIndex, BlobError> {
        self.index.as_ref().ok_or_else(|| BlobError::Unknown(key.clone()))
    }

    /// Opens a backend, and asks for its secrets only then.
    fn backend(&self, name: &Name) -> Result<Arc<dyn Backend>, BackendError> {
        if let Some(backend) = self.opened.borrow().get(name) {
            return Ok(backend.clone());
        }
        let declared = self.declared.get(name);
        let declared = declared.ok_or_else(|| BackendError::Refused("it is not declared any more".into()))?;
        let mut values = Vec::new();
        for (pointer, from) in declared.spec.secrets() {
            let field = pointer.rsplit('/').next().unwrap_or_default();
            let value = secret(from, &declared.folder);
            values.push(value.map_err(|why| BackendError::Refused(format!("its secret {field}: {why}")))?);
        }
        // The digest of the place is of no use here, so nothing needs to key it.
        let place = inputs::place(&declared.spec, &declared.folder, values, &[0; 32]);
        let backend = blobs::open(&place.location)?;
        self.opened.borrow_mut().insert(name.clone(), backend.clone());
        Ok(backend)
    }

    fn with<T>(
        &self,
        index: &SqliteIndex,
        work: impl FnOnce(&Depot<'_>) -> Result<T, BlobError>,
    ) -> Result<T, Failure> {
        let open = |name: &Name| self.backend(name);
        let (places, spool) = (self.declared.keys().cloned().collect(), self.folder.clone());
        work(&Depot { index, latches: &self.latches, places, open: &open, spool, now: &now }).map_err(failure)
    }
}

/// The backends that the ledger holds as accepted, and whether its storage is suspended. What this trueup cannot read is as if it were
/// not declared: the others serve what they can.
fn accepted(state: &Path) -> Result<(BTreeMap<Name, Declared>, Option<SuspendedLine>), Failure> {
    let mut declared = BTreeMap::new();
    let mut suspended = None;
    for owned in read_ledger(state)?.owned().map_err(anyhow::Error::from)?.into_values() {
        let document = Document::from_stored(&owned.document, PathBuf::from(&owned.base), &owned.source);
        let Ok(document) = document else { continue };
        match owned.id.kind {
            KindName::StorageBackend => {
                let Ok(spec) = serde_json::from_str(document.spec_json()) else { continue };
                declared.insert(owned.id.name, Declared { spec, folder: document.folder });
            }
            KindName::Storage => {
                let Ok(spec) = serde_json::from_str::<StorageSpec>(document.spec_json()) else { continue };
                suspended = spec.suspend.holds(now()).then(|| SuspendedLine {
                    reason: spec.suspend.reason().map(str::to_owned),
                    until: spec.suspend.until(),
                });
            }
            _ => {}
        }
    }
    Ok((declared, suspended))
}

/// The value of a secret; what went wrong never holds it.
fn secret(from: &SecretRef, folder: &Path) -> Result<Secret, String> {
    if let Some(file) = &from.file {
        let path = tidy(&folder.join(file));
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        return Ok(Secret::new(text.strip_suffix('\r').unwrap_or(text).to_owned()));
    }
    let secrets = ProcessSecrets::new(Rc::new(Environment::of_process()), Rc::new(SystemClock), Millis(0));
    if let Some(name) = &from.env {
        return secrets.variable(name).ok_or_else(|| format!("the variable {name} is not set"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(secrets.command(from.command.as_deref().unwrap_or_default(), folder))
}

fn now() -> Timestamp {
    SystemClock.wall()
}

/// Hands what passes on to the command.
struct Watched<'a>(&'a Passed<'a>);

impl Watch for Watched<'_> {
    fn passed(&self, bytes: u64, total: Option<u64>) -> bool {
        (self.0)(bytes, total)
    }
}

impl Blobs for Local {
    fn put(&self, from: PutFrom<'_>, key: Option<&Integrity>, passed: &Passed<'_>) -> Result<StoredLine, Failure> {
        let source = match from {
            PutFrom::File(path) => {
                let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
                let (there, file) = opened.map_err(|error| unopened(path, &error))?;
                if there.is_dir() {
                    let failure = Failure::new(Exit::Error, format!("{} is a folder", path.display()));
                    return Err(failure.hint("a blob is one file; 'tar c FOLDER | trueup blob put' stores it as one"));
                }
                if !there.is_file() {
                    return self.put(PutFrom::Stream(&mut &file), key, passed);
                }
                Source::File(file)
            }
            PutFrom::Stream(stream) => Source::Stream(stream),
        };
        let index = self.index().map_err(failure)?;
        let outcome = self.with(index, |depot| put(depot, source, key, &Watched(passed)))?;
        let word = match outcome {
            Outcome::Stored(_) => StoredOutcome::Stored,
            Outcome::Known(_) => StoredOutcome::Known,
            Outcome::Repaired(_) => StoredOutcome::Repaired,
        };
        Ok(StoredLine { outcome: word, blob: blob_line(outcome.entry()) })
    }

    fn get(
        &self,
        key: &Integrity,
        range: Option<Range<u64>>,
        to: GetTo<'_>,
        passed: &Passed<'_>,
    ) -> Result<FetchedLine, Failure> {
        let index = self.index_of(key).map_err(failure)?;
        let watch = Watched(passed);
        let fetched = match to {
            GetTo::File(path) => self.with(index, |depot| fetch_to(depot, key, range, path, &watch))?,
            GetTo::Stream(out) => {
                let (fetched, kept) = self.with(index, |depot| fetch(depot, key, range, &watch))?;
                give_out(&kept, out).map_err(|error| local(Path::new("standard output"), &error))?;
                fetched
            }
        };
        let (backend, served_by) = (fetched.entry.row.place, fetched.served_by);
        Ok(FetchedLine { key: key.clone(), size: fetched.size, backend, served_by })
    }

    fn list(&self, after: Option<&Integrity>, each: &mut dyn FnMut(BlobLine) -> bool) -> Result<(), Failure> {
        let Some(index) = &self.index else { return Ok(()) };
        let mut last: Option<Integrity> = after.cloned();
        loop {
            let page = index.entries(last.as_ref(), PAGE).map_err(broken)?;
            last = page.last().map(|entry| entry.key.clone());
            let full = page.len() == PAGE;
            if !page.iter().all(|entry| each(blob_line(entry))) || !full {
                return Ok(());
            }
        }
    }

    fn stat(&self, key: &Integrity) -> Result<BlobLine, Failure> {
        let (index, entry) = self.entry(key)?;
        let mut shared_with = index.keys_of(&entry.row.object.name).map_err(broken)?;
        shared_with.retain(|other| other != key);
        Ok(BlobLine { shared_with, ..blob_line(&entry) })
    }

    fn verify(&self, key: &Integrity, passed: &Passed<'_>) -> Result<VerdictLine, Failure> {
        let (index, entry) = self.entry(key)?;
        let verdict = self.with(index, |depot| verify(depot, &entry, &Watched(passed)))?;
        let (verdict, detail) = match verdict {
            Verdict::Good => (VerdictWord::Ok, None),
            Verdict::Bad(Fault::Missing) => (VerdictWord::Missing, None),
            Verdict::Bad(Fault::Corrupt) => (VerdictWord::Corrupt, None),
            Verdict::Unasked(why) => (VerdictWord::Unreachable, Some(why)),
        };
        Ok(VerdictLine { key: key.clone(), size: entry.row.object.size, backend: entry.row.place, verdict, detail })
    }

    fn remove(&self, key: &Integrity) -> Result<RemovedLine, Failure> {
        let index = self.index_of(key).map_err(failure)?;
        let removed = self.with(index, |depot| remove(depot, key))?;
        let bytes = match removed.bytes {
            Leftover::Deleted => LeftoverWord::Deleted,
            Leftover::Shared => LeftoverWord::Shared,
            Leftover::Later => LeftoverWord::Later,
        };
        Ok(RemovedLine { key: key.clone(), size: removed.entry.row.object.size, bytes })
    }

    fn status(&self) -> Result<StorageLine, Failure> {
        let standing = match &self.index {
            Some(index) => index.standing().map_err(broken)?,
            None => Standing::default(),
        };
        let (findings, more_findings) = match &self.index {
            Some(index) if standing.troubled() > 0 => troubled(index, standing.troubled()).map_err(broken)?,
            _ => (Vec::new(), 0),
        };
        let mut names: Vec<&Name> = standing.tallies.keys().chain(self.declared.keys()).collect();
        names.extend(standing.active.iter().chain(&standing.target));
        names.sort();
        names.dedup();
        let backend = |name: &Name| {
            let tally = standing.tallies.get(name).copied().unwrap_or_default();
            BackendLine {
                name: name.clone(),
                objects: tally.objects,
                bytes: tally.bytes,
                findings: tally.troubled,
                spares: tally.spares,
                declared: self.declared.contains_key(name),
            }
        };
        Ok(StorageLine {
            backends: names.into_iter().map(backend).collect(),
            progress: standing.migration.as_ref().map(|migration| moved(&standing, migration, now())),
            migration: standing.migration.clone().map(migration_line),
            blobs: standing.blobs,
            fallbacks: standing.fallbacks,
            suspended: self.suspended.clone(),
            findings,
            more_findings,
            active: standing.active,
            target: standing.target,
        })
    }

    fn migrations(&self, limit: usize) -> Result<Vec<MigrationLine>, Failure> {
        let Some(index) = &self.index else { return Ok(Vec::new()) };
        Ok(index.migrations(limit).map_err(broken)?.into_iter().map(migration_line).collect())
    }
}

impl Local {
    fn entry(&self, key: &Integrity) -> Result<(&SqliteIndex, Entry), Failure> {
        let index = self.index_of(key).map_err(failure)?;
        let entry = index.find(key).map_err(broken)?;
        Ok((index, entry.ok_or_else(|| failure(BlobError::Unknown(key.clone())))?))
    }
}

/// The blobs of the first objects with a finding, and how many such objects there are beyond them.
fn troubled(index: &dyn Index, all: u64) -> Result<(Vec<TroubledLine>, u64), IndexError> {
    let mut lines = Vec::new();
    let rows = index.troubled(None, PAGE)?;
    for row in &rows {
        let Some(trouble) = &row.trouble else { continue };
        lines.extend(index.keys_of(&row.object.name)?.into_iter().map(|key| TroubledLine {
            key,
            backend: row.place.clone(),
            fault: trouble.fault.as_str().to_owned(),
            detail: trouble.detail.clone(),
        }));
    }
    Ok((lines, all.saturating_sub(rows.len() as u64)))
}

/// How far a migration is, at its mean rate until the last flip: what the index knows, whoever moves. When nothing flipped for a while
/// the rate of before says nothing.
fn moved(standing: &Standing, migration: &Migration, now: Timestamp) -> MovedLine {
    let (left, left_bytes) = standing.elsewhere(&migration.to);
    let all = standing.tallies.values().fold((0, 0), |(n, bytes), tally| (n + tally.objects, bytes + tally.bytes));
    let fresh = migration.last_flip.filter(|flip| now.0.saturating_sub(flip.0) < STALLED);
    let took = fresh.map_or(0, |flip| flip.0.saturating_sub(migration.begun.0));
    let took = u64::try_from(took).unwrap_or_default();
    let per_second = |number: u64| number.saturating_mul(1_000).checked_div(took).unwrap_or_default();
    let eta_ms = left_bytes.saturating_mul(took).checked_div(migration.moved_bytes).filter(|_| took > 0);
    MovedLine {
        done: all.0 - left,
        total: all.0,
        done_bytes: all.1 - left_bytes,
        total_bytes: all.1,
        objects_per_second: per_second(migration.moved),
        bytes_per_second: per_second(migration.moved_bytes),
        eta_ms,
    }
}

fn blob_line(entry: &Entry) -> BlobLine {
    let row = &entry.row;
    let finding = row.trouble.as_ref().map(|trouble| FindingLine {
        fault: trouble.fault.as_str().to_owned(),
        detail: trouble.detail.clone(),
        since: trouble.since,
    });
    BlobLine {
        key: entry.key.clone(),
        sha256: row.object.name.to_string(),
        size: row.object.size,
        backend: row.place.clone(),
        created: entry.created,
        verified: row.verified,
        finding,
        shared_with: Vec::new(),
    }
}

fn migration_line(of: Migration) -> MigrationLine {
    let Migration { id, from, to, begun, ended, outcome, moved, moved_bytes, written, abandoned, .. } = of;
    MigrationLine { id, from, to, begun, ended, outcome, moved, moved_bytes, written, abandoned }
}

fn broken(error: IndexError) -> Failure {
    anyhow::Error::from(error).into()
}

fn unopened(path: &Path, error: &std::io::Error) -> Failure {
    advised(format!("cannot open {}: {error}", path.display()), error.kind())
}

fn local(path: &Path, error: &std::io::Error) -> Failure {
    advised(format!("{}: {error}", path.display()), error.kind())
}

fn advised(message: String, kind: ErrorKind) -> Failure {
    let failure = Failure::new(Exit::Error, message);
    match kind {
        ErrorKind::NotFound => failure.hint("see how it is spelt"),
        ErrorKind::StorageFull => failure.hint("make room, then try again"),
        _ => failure,
    }
}

/// What went wrong, with what it was.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Said {
    message: String,
    pub(super) kind: Kind,
}

/// What a failure with blobs is to whoever asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// There is no such blob.
    Unknown,
    /// No storage is set up yet.
    NoPlace,
    /// The key has other bytes already.
    OtherBytes,
    /// There are no such bytes of it.
    Range,
    /// What was to be put cannot be read.
    Source,
    /// It may work later.
    Passing,
    Other,
}

/// What went wrong, and what to do about it.
fn failure(error: BlobError) -> Failure {
    let message = error.to_string();
    let tell = |exit, message: String, kind| Failure { exit, error: Said { message, kind }.into(), hint: None };
    let fails = |kind, hint: String| tell(Exit::Error, message.clone(), kind).hint(hint);
    match error {
        BlobError::Cancelled => Failure::cancelled(),
        BlobError::Unknown(_) => fails(Kind::Unknown, "'trueup blob ls' lists what there is".into()),
        BlobError::NoPlace => fails(
            Kind::NoPlace,
            "declare a StorageBackend and a Storage that names it, then 'trueup reconcile --once'".into(),
        ),
        BlobError::OtherBytes { key, .. } => fails(
            Kind::OtherBytes,
            format!("'trueup blob rm {key}' removes what is there; or give --integrity another key"),
        ),
        BlobError::Unreadable { tried, .. } => {
            let tried: Vec<String> = tried.iter().map(|(place, why)| format!("{place}: {why}")).collect();
            tell(Exit::Error, format!("{message} ({})", tried.join("; ")), Kind::Other).hint(REMEDY)
        }
        BlobError::Range { .. } => {
            tell(Exit::Usage, message, Kind::Range).hint("'trueup blob stat KEY' says how large it is")
        }
        BlobError::Backend { ref place, error: BackendError::Transient(_) } => {
            fails(Kind::Passing, format!("try again; 'trueup describe StorageBackend/{place}' shows how it is"))
        }
        BlobError::Backend { ref place, .. } => {
            fails(Kind::Other, format!("'trueup describe StorageBackend/{place}' shows how it is"))
        }
        BlobError::ReadBack { .. } => {
            fails(Kind::Other, "check that disk or server before you trust it with more".into())
        }
        BlobError::Restless => fails(Kind::Passing, "try again".into()),
        BlobError::Source(_) => fails(Kind::Source, "try again".into()),
        BlobError::Local { path, error } => local(&path, &error),
        BlobError::Index(error) => broken(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::blobs::Tally;

    #[test]
    fn when_nothing_was_moved_for_a_while_no_rate_is_known() {
        let name = |text: &str| Name::new(text).expect("a name");
        let migration = Migration {
            id: 1,
            from: name("a"),
            to: name("b"),
            begun: Timestamp(0),
            ended: None,
            outcome: "running".into(),
            moved: 10,
            moved_bytes: 1_000,
            written: 0,
            abandoned: 0,
            last_flip: Some(Timestamp(2_000)),
        };
        let tally = Tally { objects: 10, bytes: 1_000, ..Tally::default() };
        let tallies = [(name("a"), tally), (name("b"), tally)].into();
        let standing = Standing { tallies, ..Standing::default() };
        let rate = |now| {
            let line = moved(&standing, &migration, Timestamp(now));
            (line.done, line.objects_per_second, line.bytes_per_second, line.eta_ms)
        };
        assert_eq!(rate(11_999), (10, 5, 500, Some(2_000)));
        assert_eq!(rate(12_000), (10, 0, 0, None));
    }
}
