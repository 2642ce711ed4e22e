//! Bytes at rest, read again before anybody misses them; and objects with a finding, repaired from whatever good copy there is.

use super::batch::{Job, Seen, Verdict};
use super::shared::Reading;
use super::turn::{Core, Next};
use super::work::PAGE;
use crate::model::id::Name;
use crate::model::time::Timestamp;
use crate::model::unit::Millis;
use crate::ports::blobs::{BackendError, IndexError, Lease, Row, Standing};
use crate::ports::storage::Intent;

/// Objects that are read between two looks at what is wished.
const GROUP: usize = 64;
/// So many objects that cannot be read, and none that can, are enough for now.
const PATIENCE: u32 = 4;
/// A place that could not be read is tried again after this.
const AGAIN_AFTER: Millis = Millis(600_000);

impl Core {
    /// Reads what was not read for long, a group at a time.
    pub(super) fn scrub(&mut self, intent: &Intent, standing: &Standing) -> Result<Next, IndexError> {
        let Some(every) = intent.settings.scrub else { return Ok(Next::Told) };
        match self.scrub_due {
            None => return Ok(Next::Told),
            Some(due) if due > self.now() => return Ok(Next::At(due)),
            Some(_) => {}
        }
        let wall = self.parts.clock.wall();
        let every = i64::try_from(every.0).unwrap_or(i64::MAX);
        let before = Timestamp(wall.0.saturating_sub(every).saturating_add(1));
        let mut next = Next::Told;
        for (name, tally) in &standing.tallies {
            if tally.objects == 0 || self.proven(name).is_none() {
                continue;
            }
            // Those with a finding are looked at elsewhere, and would come first for ever.
            let healthy = |rows: Vec<Row>| rows.into_iter().filter(|row| row.trouble.is_none()).collect::<Vec<Row>>();
            let mut rows = healthy(self.parts.index.stale(name, before, PAGE)?);
            rows.truncate(GROUP);
            if rows.is_empty() {
                let oldest = healthy(self.parts.index.stale(name, Timestamp(i64::MAX), PAGE)?);
                let verified = oldest.first().and_then(|row| row.verified);
                if let Some(at) = verified {
                    next = next.or(Next::At(self.tick_at(Timestamp(at.0.saturating_add(every)))));
                }
                continue;
            }
            let Some(lease) = self.lease()? else { return Ok(self.elsewhere()) };
            if self.read_again(lease, name, &rows)? {
                return Ok(Next::Again);
            }
            next = next.or(Next::At(self.now() + AGAIN_AFTER));
        }
        self.scrub_due = if let Next::At(due) = next { Some(due) } else { None };
        Ok(next)
    }

    /// Whether any of them could be read.
    fn read_again(&mut self, lease: Lease, name: &Name, rows: &[Row]) -> Result<bool, IndexError> {
        let Some(backend) = self.proven(name) else { return Ok(false) };
        let (backends, parts) = (self.readable(), self.parts.clone());
        let job = Job {
            index: parts.index.as_ref(),
            clock: parts.clock.as_ref(),
            shared: &self.shared,
            lease,
            target: name,
            backends: &backends,
            what: Reading::Copying,
        };
        let mut right = Vec::new();
        let (mut mended, mut unread) = (false, 0);
        let round = self.shared.round();
        for row in rows {
            match job.read(backend.as_ref(), &row.object, Reading::Scrubbing, &mut self.buffer) {
                Ok(Seen::Right) => right.push((row.object.name, row.place.clone())),
                Ok(Seen::Wrong(..)) => {
                    let verdict = job.mend(row, &mut self.buffer)?;
                    mended |= verdict.arrived() || matches!(verdict, Verdict::Troubled(..));
                }
                // One that cannot be read says nothing of the others, and would come first for ever; several say that the place cannot
                // be reached.
                Err(BackendError::Transient(_)) if right.is_empty() => {
                    unread += 1;
                    if unread == PATIENCE {
                        break;
                    }
                }
                Err(_) => {}
            }
            if self.shared.round() != round {
                break;
            }
        }
        if !right.is_empty() {
            parts.index.verified(lease, &right, parts.clock.wall())?;
        }
        Ok(mended || !right.is_empty() || self.shared.round() != round)
    }

    /// Tries every object with a finding again. How many have a good copy in their place now.
    pub(super) fn cure(&mut self, standing: &Standing, lease: Lease) -> Result<u64, IndexError> {
        let (backends, parts) = (self.readable(), self.parts.clone());
        let mut after = None;
        let mut cured = 0;
        loop {
            let rows = parts.index.troubled(after.as_ref(), PAGE)?;
            for row in &rows {
                if self.shared.halted() {
                    return Ok(cured);
                }
                // What is to be moved is moved by the way; what is where it belongs is put right there.
                let moving = standing.target.as_ref().filter(|target| **target != row.place);
                let job = Job {
                    index: parts.index.as_ref(),
                    clock: parts.clock.as_ref(),
                    shared: &self.shared,
                    lease,
                    target: moving.unwrap_or(&row.place),
                    backends: &backends,
                    what: Reading::Copying,
                };
                let arrived = match moving {
                    Some(_) => job.group(std::slice::from_ref(row), &mut self.buffer)?.iter().all(Verdict::arrived),
                    None => job.mend(row, &mut self.buffer)?.arrived(),
                };
                cured += u64::from(arrived);
            }
            match rows.last() {
                Some(last) if rows.len() == PAGE => after = Some(last.object.name),
                _ => return Ok(cured),
            }
        }
    }
}
