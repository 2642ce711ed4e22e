//! One group of objects from where they lie to where they belong: put, make durable, read back, and only then say so in the index.
//! Nothing is believed: neither the source, nor what lies at the target already, nor what the target says it stored.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use super::body::{Checked, Hasher};
use super::shared::{Reading, Shared};
use crate::model::blob::Sha256;
use crate::model::id::Name;
use crate::ports::blobs::{Backend, BackendError, Fault, Index, IndexError, Lease, Object, Placed, Put, Row, Trouble};
use crate::ports::clock::Clock;
use crate::ports::storage::Finding;

/// A target that gives other bytes than it was given so many times does not store: that is no finding on an object.
const ROUNDS: u32 = 3;
/// So many objects of a group may fail before the rest is left for later.
const PATIENCE: usize = 4;
/// One of these a worker, whatever the objects' sizes.
pub(super) const PIECE: usize = 256 << 10;

/// What is at hand for moving.
pub(super) struct Job<'a> {
    pub index: &'a dyn Index,
    pub clock: &'a (dyn Clock + Send + Sync),
    pub shared: &'a Shared,
    pub lease: Lease,
    pub target: &'a Name,
    pub backends: &'a BTreeMap<Name, Arc<dyn Backend>>,
    pub what: Reading,
}

/// What came of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Moved,
    /// It was there and right.
    Found,
    /// Its own copy was bad; it was taken from this place.
    Repaired(Name),
    /// No good copy is known.
    Troubled(Fault, String),
    /// The source could not be read now.
    Later(BackendError),
    /// The target did not do it; this says more of the target than of the object.
    Stuck(BackendError),
    /// There was no time left for it.
    Halted,
}

impl Verdict {
    pub(super) fn arrived(&self) -> bool {
        matches!(self, Self::Moved | Self::Found | Self::Repaired(_))
    }
}

/// Why a copy did not come about.
enum Failed {
    /// The copy that was to be read is bad.
    Bad(Fault, String),
    /// It could not be read now.
    Unread(BackendError),
    Target(BackendError),
    Halted,
}

/// What lies under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Right,
    Wrong(Fault, String),
}

impl Job<'_> {
    fn backend(&self) -> Result<&dyn Backend, BackendError> {
        self.backends.get(self.target).map(AsRef::as_ref).ok_or_else(|| unknown(self.target))
    }

    /// Brings objects to the target and flips those that arrived. One verdict for each row.
    ///
    /// # Errors
    /// [`IndexError`]; what was copied is found again as being there.
    pub(super) fn group(&self, rows: &[Row], buffer: &mut Vec<u8>) -> Result<Vec<Verdict>, IndexError> {
        let verdicts = self.copied(rows, buffer);
        let arrived = rows.iter().zip(&verdicts).filter(|(_, verdict)| verdict.arrived());
        let moved: Vec<(Sha256, Name)> = arrived.map(|(row, _)| (row.object.name, row.place.clone())).collect();
        if !moved.is_empty() {
            self.index.flip(self.lease, self.target, &moved, self.clock.wall())?;
        }
        for (row, verdict) in rows.iter().zip(&verdicts) {
            match verdict {
                Verdict::Troubled(fault, detail) => self.trouble(row, *fault, detail)?,
                Verdict::Repaired(from) => self.repaired(row, from)?,
                _ => {}
            }
        }
        Ok(verdicts)
    }

    /// Tells people that a bad copy was replaced.
    pub(super) fn repaired(&self, row: &Row, from: &Name) -> Result<(), IndexError> {
        let keys = self.index.keys_of(&row.object.name)?;
        let finding = Finding::Repaired { keys, place: self.target.clone(), from: from.clone() };
        self.shared.find(self.clock.wall(), finding);
        Ok(())
    }

    /// Writes down that no good copy is known, if that is so still: an object that was removed or moved meanwhile is no finding. People
    /// are told once.
    pub(super) fn trouble(&self, row: &Row, fault: Fault, detail: &str) -> Result<(), IndexError> {
        let at = self.clock.wall();
        let since = row.trouble.as_ref().map_or(at, |trouble| trouble.since);
        let trouble = Trouble { fault, detail: detail.to_owned(), since };
        let written = self.index.trouble(self.lease, &row.object.name, &row.place, &trouble)?;
        if written && row.trouble.is_none() {
            let keys = self.index.keys_of(&row.object.name)?;
            let finding = Finding::Quarantined { keys, place: row.place.clone(), detail: detail.to_owned() };
            self.shared.find(at, finding);
        }
        Ok(())
    }

    /// Looks at an object where it lies (the target is its place), and replaces what is wrong there from any good copy.
    ///
    /// # Errors
    /// [`IndexError`].
    pub(super) fn mend(&self, row: &Row, buffer: &mut Vec<u8>) -> Result<Verdict, IndexError> {
        let verified = || self.index.verified(self.lease, &[(row.object.name, row.place.clone())], self.clock.wall());
        let (fault, detail) =
            match self.backend().and_then(|backend| self.read(backend, &row.object, Reading::Scrubbing, buffer)) {
                Ok(Seen::Right) => return verified().map(|()| Verdict::Found),
                Ok(Seen::Wrong(fault, detail)) => (fault, detail),
                Err(error) => return Ok(self.stuck(error)),
            };
        let mut verdict = self.bring(row, Put::Replace);
        if verdict.arrived() {
            match self.backend().and_then(|backend| backend.settle(&[row.object.name])) {
                Ok(()) => self.prove(row, &mut verdict, buffer),
                Err(error) => verdict = Verdict::Stuck(error),
            }
        }
        match &verdict {
            Verdict::Repaired(from) => {
                verified()?;
                self.repaired(row, from)?;
            }
            // Not that there is no other copy is the finding, but what is wrong with this one.
            Verdict::Troubled(..) => self.trouble(row, fault, &detail)?,
            _ => {}
        }
        Ok(verdict)
    }

    /// Copies, makes durable and reads back.
    fn copied(&self, rows: &[Row], buffer: &mut Vec<u8>) -> Vec<Verdict> {
        let mut verdicts = Vec::with_capacity(rows.len());
        // What failed last, and how often: at the target, and at each place that is read.
        let mut stuck: (usize, Option<BackendError>) = (0, None);
        let mut unread: BTreeMap<&Name, (usize, BackendError)> = BTreeMap::new();
        for row in rows {
            let verdict = match (&stuck, unread.get(&row.place)) {
                _ if self.shared.halted() => Verdict::Halted,
                ((count, Some(error)), _) if *count >= PATIENCE || !matches!(error, BackendError::Transient(_)) => {
                    Verdict::Stuck(error.clone())
                }
                (_, Some((count, error))) if *count >= PATIENCE => Verdict::Later(error.clone()),
                _ => self.bring(row, Put::IfAbsent),
            };
            match &verdict {
                Verdict::Stuck(error) => stuck = (stuck.0 + 1, Some(error.clone())),
                Verdict::Later(error) => unread.entry(&row.place).or_insert_with(|| (0, error.clone())).0 += 1,
                _ => {}
            }
            verdicts.push(verdict);
        }
        let names: Vec<Sha256> = chosen(rows, &verdicts).map(|row| row.object.name).collect();
        if names.is_empty() {
            return verdicts;
        }
        if let Err(error) = self.backend().and_then(|backend| backend.settle(&names)) {
            verdicts.iter_mut().filter(|verdict| verdict.arrived()).for_each(|v| *v = Verdict::Stuck(error.clone()));
            return verdicts;
        }
        for (row, verdict) in rows.iter().zip(&mut verdicts).filter(|(_, verdict)| verdict.arrived()) {
            self.prove(row, verdict, buffer);
        }
        verdicts
    }

    /// Reads an object back; what is wrong there is replaced, a few times.
    fn prove(&self, row: &Row, verdict: &mut Verdict, buffer: &mut Vec<u8>) {
        for _ in 0..ROUNDS {
            let seen = self.backend().and_then(|backend| self.read(backend, &row.object, Reading::Proving, buffer));
            match seen {
                Ok(Seen::Right) => return,
                Err(error) => return *verdict = self.stuck(error),
                Ok(Seen::Wrong(..)) => *verdict = self.bring(row, Put::Replace),
            }
            if !verdict.arrived() {
                return;
            }
            if let Err(error) = self.backend().and_then(|backend| backend.settle(&[row.object.name])) {
                return *verdict = Verdict::Stuck(error);
            }
        }
        match self.backend().and_then(|backend| self.read(backend, &row.object, Reading::Proving, buffer)) {
            Ok(Seen::Right) => {}
            Ok(Seen::Wrong(_, how)) => {
                let text = format!("{} was written {ROUNDS} times, and read back each time {how}", row.object.name);
                *verdict = Verdict::Stuck(BackendError::Refused(text));
            }
            Err(error) => *verdict = self.stuck(error),
        }
    }

    fn stuck(&self, error: BackendError) -> Verdict {
        if self.shared.halted() { Verdict::Halted } else { Verdict::Stuck(error) }
    }

    /// Puts an object at the target: from its own place, or from any other where a good copy is.
    pub(super) fn bring(&self, row: &Row, how: Put) -> Verdict {
        let mut bad = None;
        let mut unread = None;
        let own = (row.place != *self.target).then_some(&row.place);
        // One bad read may be the memory's or the wire's, so the own place has a second chance.
        let others = self.backends.keys().filter(|name| *name != self.target && Some(*name) != own);
        for name in own.into_iter().chain(own).chain(others) {
            let ours = *name == row.place;
            // What could not be reached is not asked again at once.
            if ours && unread.is_some() {
                continue;
            }
            match self.copy(name, &row.object, how) {
                Ok(Placed::Present) => return Verdict::Found,
                Ok(Placed::Stored) if ours => return Verdict::Moved,
                Ok(Placed::Stored) => return Verdict::Repaired(name.clone()),
                Err(Failed::Halted) => return Verdict::Halted,
                Err(Failed::Target(error)) => return Verdict::Stuck(error),
                Err(Failed::Bad(fault, detail)) if ours => bad = Some((fault, detail)),
                Err(Failed::Unread(error)) if ours => unread = Some(error),
                // That another place has no good copy is what is to be expected, and no finding.
                Err(Failed::Bad(..) | Failed::Unread(_)) => {}
            }
        }
        match (bad, unread) {
            (_, Some(error)) => Verdict::Later(error),
            (Some((fault, detail)), None) => Verdict::Troubled(fault, detail),
            (None, None) => Verdict::Troubled(Fault::Missing, "no other backend has a good copy".to_owned()),
        }
    }

    fn copy(&self, from: &Name, object: &Object, how: Put) -> Result<Placed, Failed> {
        let source = self.backends.get(from).ok_or_else(|| Failed::Unread(unknown(from)))?;
        let target = self.backend().map_err(Failed::Target)?;
        let mut body = Body { job: self, from: source.as_ref(), object, reader: None, flaw: None };
        let put = target.put(object, &mut body, how);
        if self.shared.halted() && put.is_err() {
            return Err(Failed::Halted);
        }
        match (put, body.flaw) {
            (_, Some(BackendError::Missing)) => Err(Failed::Bad(Fault::Missing, BackendError::Missing.to_string())),
            (_, Some(BackendError::Body(why))) => Err(Failed::Bad(Fault::Corrupt, why)),
            (_, Some(error)) => Err(Failed::Unread(error)),
            (Ok(placed), None) => Ok(placed),
            // The body was whole and right, so whatever this is about, it is about the target.
            (Err(error @ (BackendError::Missing | BackendError::Body(_))), None) => {
                Err(Failed::Target(BackendError::Transient(error.to_string())))
            }
            (Err(error), None) => Err(Failed::Target(error)),
        }
    }

    /// Reads an object to its end and says whether it is what its name says.
    ///
    /// # Errors
    /// When it could not be read, which says nothing of the bytes.
    pub(super) fn read(
        &self,
        backend: &dyn Backend,
        object: &Object,
        what: Reading,
        buffer: &mut Vec<u8>,
    ) -> Result<Seen, BackendError> {
        let missing = |error: BackendError| match error {
            BackendError::Missing => Ok(Seen::Wrong(Fault::Missing, error.to_string())),
            BackendError::Body(why) => Ok(Seen::Wrong(Fault::Corrupt, why)),
            other => Err(other),
        };
        let reader = match backend.open(&object.name, None) {
            Ok(reader) => reader,
            Err(error) => return missing(error),
        };
        buffer.resize(PIECE, 0);
        let mut reader = Checked::new(reader, *object);
        loop {
            if self.shared.halted() {
                return Err(BackendError::Transient("it was stopped".to_owned()));
            }
            match reader.read(buffer) {
                Ok(0) => return Ok(Seen::Right),
                Ok(count) => self.shared.pay(self.clock, what, count as u64),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return missing(BackendError::from_io(&error)),
            }
        }
    }
}

fn unknown(place: &Name) -> BackendError {
    BackendError::Transient(format!("the backend '{place}' is not declared, or cannot be reached"))
}

fn chosen<'a>(rows: &'a [Row], verdicts: &'a [Verdict]) -> impl Iterator<Item = &'a Row> {
    rows.iter().zip(verdicts).filter(|(_, verdict)| verdict.arrived()).map(|(row, _)| row)
}

/// The bytes of a source, opened when they are first asked for, checked, paced, and with what went wrong kept: whoever stores them may
/// say something else of it.
struct Body<'a> {
    job: &'a Job<'a>,
    from: &'a dyn Backend,
    object: &'a Object,
    reader: Option<Checked<Box<dyn Read + Send>>>,
    flaw: Option<BackendError>,
}

impl Body<'_> {
    fn next(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            slot => {
                let opened = self.from.open(&self.object.name, None).map_err(BackendError::into_io)?;
                slot.insert(Checked::new(opened, *self.object))
            }
        };
        reader.read(buffer)
    }
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.job.shared.halted() {
            return Err(BackendError::Transient("it was stopped".to_owned()).into_io());
        }
        match self.next(buffer) {
            Ok(count) => {
                self.job.shared.pay(self.job.clock, self.job.what, count as u64);
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                self.flaw = Some(BackendError::from_io(&error));
                Err(error)
            }
        }
    }
}

/// Of bytes that are at hand.
pub(super) fn object_of(bytes: &[u8]) -> Object {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    hasher.object()
}
