//! What lies somewhere and nobody relies on: found by listings, kept for its grace, and removed only while a good copy is known to be
//! elsewhere or no blob needs one.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::batch::{Job, Seen};
use super::probe::are_apart;
use super::shared::Reading;
use super::turn::{Core, Next};
use crate::model::blob::Sha256;
use crate::model::id::Name;
use crate::model::time::{Tick, Timestamp};
use crate::model::unit::Millis;
use crate::ports::blobs::{Backend, BackendError, IndexError, Lease, Object, Spare, SpareOf, Standing};
use crate::ports::storage::{Finding, Health, Intent};

/// Objects of one page of a listing, and old copies of one page of the index.
const PAGE: usize = 1_024;
/// So many are removed under one latch: whoever puts a blob waits for no more than these.
const GROUP: usize = 32;
/// Removing stops for now when so many in a row fail.
const PATIENCE: u32 = 4;
/// Every place is listed this often, and up to a tenth later so that places do not meet.
const LIST_EVERY: Millis = Millis(24 * 3_600_000);
/// What could not be listed or removed is tried again after this.
const AGAIN_AFTER: Millis = Millis(600_000);

const KINDS: [SpareOf; 3] = [SpareOf::Removed, SpareOf::Orphan, SpareOf::Moved];

#[derive(Default)]
struct Reaped {
    objects: u64,
    bytes: u64,
    kept: bool,
}

impl Core {
    /// Lists and removes what is due, at every place that works.
    pub(super) fn sweep(&mut self, intent: &Intent, standing: &Standing) -> Result<Next, IndexError> {
        match self.sweep_due {
            None => return Ok(Next::Told),
            Some(due) if due > self.now() => return Ok(Next::At(due)),
            Some(_) => {}
        }
        let mut next = Next::Told;
        for name in intent.places.keys() {
            let Some(backend) = self.proven(name) else { continue };
            next = next.or(self.list(intent, name, &backend)?).or(self.reap(intent, standing, name, &backend)?);
            if next == Next::Again {
                return Ok(Next::Again);
            }
        }
        self.sweep_due = if let Next::At(due) = next { Some(due) } else { None };
        Ok(next)
    }

    pub(super) fn proven(&self, name: &Name) -> Option<Arc<dyn Backend>> {
        let known = self.places.get(name)?;
        known.backend.clone().filter(|_| matches!(known.health, Health::Proven(_)))
    }

    /// The tick at which the wall clock will show this time.
    pub(super) fn tick_at(&self, at: Timestamp) -> Tick {
        let ahead = at.0.saturating_sub(self.parts.clock.wall().0).max(0);
        self.now() + Millis(u64::try_from(ahead).unwrap_or(0))
    }

    /// Compares what lies at a place with what the index relies on there, when that is due. When it is due next.
    fn list(&mut self, intent: &Intent, name: &Name, backend: &Arc<dyn Backend>) -> Result<Next, IndexError> {
        let note = format!("list:{name}");
        let wall = self.parts.clock.wall();
        // A clock that went back must not keep us from listing.
        let farthest = after(wall, Millis(LIST_EVERY.0 + LIST_EVERY.0 / 10));
        let due = self.parts.index.note(&note)?.and_then(|text| text.parse().ok()).map(Timestamp);
        let discard = intent.places.get(name).is_some_and(|place| place.discard);
        if let Some(due) = due.filter(|due| *due > wall && *due <= farthest && !discard) {
            return Ok(Next::At(self.tick_at(due)));
        }
        let Some(lease) = self.lease()? else { return Ok(self.elsewhere()) };
        match self.listed(lease, name, backend)? {
            Err(_) if self.shared.halted() => Ok(Next::Again),
            Err(error) => {
                if matches!(error, BackendError::Transient(_)) {
                    return Ok(Next::At(self.now() + AGAIN_AFTER));
                }
                self.unwell(name, &error);
                Ok(Next::Told)
            }
            Ok(new) => {
                if new > 0 {
                    self.shared.find(wall, Finding::Orphans { place: name.clone(), objects: new });
                }
                let due = after(wall, Millis(LIST_EVERY.0 + self.parts.roll() % (LIST_EVERY.0 / 10)));
                self.parts.index.set_note(&note, &due.0.to_string())?;
                Ok(Next::At(self.tick_at(due)))
            }
        }
    }

    /// One listing from the first name to the last. How many orphans are new.
    fn listed(
        &self,
        lease: Lease,
        name: &Name,
        backend: &Arc<dyn Backend>,
    ) -> Result<Result<u64, BackendError>, IndexError> {
        let mut last: Option<Sha256> = None;
        let mut new = 0;
        loop {
            if self.shared.halted() {
                return Ok(Err(BackendError::Transient("it was stopped".to_owned())));
            }
            let page = match backend.list(last.as_ref(), PAGE) {
                Ok(page) => page,
                Err(error) => return Ok(Err(error)),
            };
            let ended = page.len() < PAGE;
            let mut found: Vec<Object> = Vec::with_capacity(page.len());
            for object in page {
                // A name that is listed twice, or out of order, must not be taken for the end of what lies between.
                if last.is_none_or(|last| object.name > last) {
                    last = Some(object.name);
                    found.push(object);
                }
            }
            if !found.is_empty() {
                new += self.parts.index.listed(lease, name, &found, self.parts.clock.wall())? as u64;
            } else if !ended {
                return Ok(Err(BackendError::Transient("its listing does not go on".to_owned())));
            }
            if ended {
                // A put may take longer than what is cut off is left alone.
                let nobody_puts = self.parts.latches.deleting()?.is_some();
                return Ok(if nobody_puts { backend.tidy().map(|()| new) } else { Ok(new) });
            }
        }
    }

    /// Removes what is past its grace at a place. When the next will be.
    fn reap(
        &mut self,
        intent: &Intent,
        standing: &Standing,
        name: &Name,
        backend: &Arc<dyn Backend>,
    ) -> Result<Next, IndexError> {
        let discard = intent.places.get(name).is_some_and(|place| place.discard);
        let mut next = Next::Told;
        for why in KINDS {
            let grace = match why {
                _ if discard => Some(Millis(0)),
                SpareOf::Removed => Some(Millis(0)),
                SpareOf::Orphan => intent.settings.orphans,
                SpareOf::Moved => intent.settings.gc_source,
            };
            let Some(grace) = grace else { continue };
            // Old copies are counted from the end of the migration: until then it may turn back.
            let settled = standing.settled.filter(|_| why == SpareOf::Moved && !discard);
            let wall = self.parts.clock.wall();
            if let Some(due) = settled.map(|settled| after(settled, grace)).filter(|due| *due > wall) {
                if !self.parts.index.spares(name, why, Timestamp(i64::MAX), 1)?.is_empty() {
                    next = next.or(Next::At(self.tick_at(due)));
                }
                continue;
            }
            let before = Timestamp(wall.0.saturating_sub(millis(grace)).saturating_add(1));
            let due = self.parts.index.spares(name, why, before, PAGE)?;
            if !due.is_empty() {
                let Some(lease) = self.lease()? else { return Ok(self.elsewhere()) };
                let reaped = self.remove(lease, name, backend, &due)?;
                if reaped.objects > 0 {
                    let (objects, bytes) = (reaped.objects, reaped.bytes);
                    self.shared.find(wall, Finding::Swept { place: name.clone(), objects, bytes });
                    return Ok(Next::Again);
                }
                if reaped.kept {
                    next = next.or(Next::At(self.now() + AGAIN_AFTER));
                }
                continue;
            }
            if let Some(first) = self.parts.index.spares(name, why, Timestamp(i64::MAX), 1)?.first() {
                next = next.or(Next::At(self.tick_at(after(first.since, grace))));
            }
        }
        Ok(next)
    }

    fn remove(
        &mut self,
        lease: Lease,
        name: &Name,
        backend: &Arc<dyn Backend>,
        spares: &[Spare],
    ) -> Result<Reaped, IndexError> {
        let mut reaped = Reaped::default();
        let mut failures = 0;
        for group in spares.chunks(GROUP) {
            if self.shared.halted() || failures >= PATIENCE {
                reaped.kept = true;
                break;
            }
            let needless = self.needless(lease, name, group)?;
            reaped.kept |= needless.len() < group.len();
            let Some(_latch) = self.parts.latches.deleting()? else {
                reaped.kept = true;
                break;
            };
            let mut gone = Vec::new();
            for spare in needless {
                // It may have been put again since it was written down.
                if self.parts.index.relies_on(&spare.name, name)? {
                    continue;
                }
                // What is said to be deleted is gone only when it is seen to be.
                match backend.delete(&spare.name).and_then(|()| backend.size(&spare.name)) {
                    Ok(None) => {
                        failures = 0;
                        reaped.objects += 1;
                        reaped.bytes += spare.size;
                        gone.push(spare.name);
                    }
                    Ok(Some(_)) => reaped.kept = true,
                    Err(error) => {
                        tracing::warn!(place = %name, object = %spare.name, %error, "an old copy could not be removed");
                        reaped.kept = true;
                        failures += 1;
                        if failures >= PATIENCE {
                            break;
                        }
                    }
                }
            }
            self.parts.index.forget_spares(lease, name, &gone)?;
        }
        Ok(reaped)
    }

    /// Those that no blob needs, or whose blobs have another copy that was read just now and is right. A copy that turns out bad is
    /// written down, so that it is repaired from what was to be removed here. One place under two names has one copy: that is no spare.
    fn needless<'a>(&mut self, lease: Lease, here: &Name, group: &'a [Spare]) -> Result<Vec<&'a Spare>, IndexError> {
        let backends = self.readable();
        let parts = self.parts.clone();
        let mut out = Vec::new();
        let mut right = Vec::new();
        let mut same = Vec::new();
        let mut apart: BTreeMap<Name, bool> = BTreeMap::new();
        for spare in group {
            let Some(row) = parts.index.row(&spare.name)? else {
                out.push(spare);
                continue;
            };
            let Some(backend) = backends.get(&row.place).filter(|_| row.place != *here) else { continue };
            if !apart.contains_key(&row.place) {
                // Not knowing is as good as one place.
                let Some(Ok(seen)) =
                    backends.get(here).map(|other| are_apart(backend.as_ref(), other.as_ref(), || parts.roll()))
                else {
                    continue;
                };
                apart.insert(row.place.clone(), seen);
            }
            if apart.get(&row.place) == Some(&false) {
                same.push(spare.name);
                continue;
            }
            let job = Job {
                index: parts.index.as_ref(),
                clock: parts.clock.as_ref(),
                shared: &self.shared,
                lease,
                target: &row.place,
                backends: &backends,
                what: Reading::Scrubbing,
            };
            match job.read(backend.as_ref(), &row.object, Reading::Scrubbing, &mut self.buffer) {
                Ok(Seen::Right) => {
                    right.push((spare.name, row.place.clone()));
                    out.push(spare);
                }
                Ok(Seen::Wrong(..)) => drop(job.mend(&row, &mut self.buffer)?),
                Err(_) => {}
            }
        }
        if !right.is_empty() {
            parts.index.verified(lease, &right, parts.clock.wall())?;
        }
        if !same.is_empty() {
            tracing::warn!(place = %here, objects = same.len(), "another backend is the same place: nothing is removed");
            parts.index.forget_spares(lease, here, &same)?;
            (parts.bell)();
        }
        Ok(out)
    }
}

fn millis(span: Millis) -> i64 {
    i64::try_from(span.0).unwrap_or(i64::MAX)
}

fn after(at: Timestamp, span: Millis) -> Timestamp {
    Timestamp(at.0.saturating_add(millis(span)))
}
