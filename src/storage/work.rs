//! A pass over everything that is not where it belongs: groups of rows from the index, and as many threads as the pace allows.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::batch::{Job, Verdict};
use super::pace::{Event, Pace};
use super::shared::locked;
use crate::model::blob::Sha256;
use crate::ports::blobs::{BackendError, IndexError, Row};

/// Rows that are asked of the index at once.
pub(super) const PAGE: usize = 1_024;
/// A group is made durable, and written to the index, at once. So many objects share that cost ...
const GROUP_OBJECTS: usize = 256;
/// ... or so many bytes, which also is what a kill may cost. What is larger goes alone.
const GROUP_BYTES: u64 = 8 << 20;
/// What the backends may hold of bodies under way, all workers together. A body counts with its size up to [`GROUP_BYTES`]: larger ones
/// are sent in parts.
const IN_FLIGHT: u64 = 24 << 20;
/// The least that a worker counts.
const WORKER_BYTES: u64 = 1 << 20;

/// What came of a pass.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub moved: u64,
    /// Findings that are new.
    pub troubled: u64,
    /// What could not be read now.
    pub later: u64,
    pub later_why: Option<BackendError>,
    /// What the target did not do.
    pub stuck: Option<BackendError>,
    /// The wish changed, or it is to end.
    pub interrupted: bool,
    broken: Option<IndexError>,
}

impl Outcome {
    fn goes_on(&self) -> bool {
        let hopeless = self.stuck.as_ref().is_some_and(|error| !matches!(error, BackendError::Transient(_)));
        !hopeless && !self.interrupted && self.broken.is_none()
    }
}

/// Groups of what is not at the target.
struct Pager {
    after: Option<Sha256>,
    page: VecDeque<Row>,
    ended: bool,
}

impl Pager {
    fn next(&mut self, job: &Job) -> Result<Option<Vec<Row>>, IndexError> {
        if self.page.len() < GROUP_OBJECTS && !self.ended {
            let rows = job.index.elsewhere(job.target, self.after.as_ref(), PAGE)?;
            self.ended = rows.len() < PAGE;
            self.after = rows.last().map(|row| row.object.name).or(self.after);
            self.page.extend(rows);
        }
        // On a line that was made slow, a group is what goes through it in a second: progress shows, and a kill costs little.
        let most = job.shared.copying_rate().map_or(GROUP_BYTES, |rate| rate.0.min(GROUP_BYTES));
        let mut bytes = 0;
        let fits = |row: &&Row| {
            let first = bytes == 0;
            bytes += row.object.size.max(1);
            first || bytes <= most
        };
        let count = self.page.iter().take(GROUP_OBJECTS).take_while(fits).count();
        Ok((count > 0).then(|| self.page.drain(..count).collect()))
    }
}

/// Where the coordinator lays groups down and the workers take them.
#[derive(Default)]
struct Desk {
    groups: VecDeque<Vec<Row>>,
    closed: bool,
    working: u32,
    in_flight: u64,
    allowed: u32,
    outcome: Outcome,
}

fn weight(group: &[Row]) -> u64 {
    let largest = group.iter().map(|row| row.object.size).max().unwrap_or(0);
    largest.clamp(WORKER_BYTES, GROUP_BYTES)
}

/// Moves what can be moved, once through.
///
/// # Errors
/// [`IndexError`]; then everybody has stopped.
pub(super) fn pass(job: &Job, pace: &mut Pace, round: u64, buffer: &mut Vec<u8>) -> Result<Outcome, IndexError> {
    let mut pager = Pager { after: None, page: VecDeque::new(), ended: false };
    job.shared.meter.begin(job.clock.now());
    let Some(first) = pager.next(job)? else { return Ok(Outcome::default()) };
    // One at a time needs no threads, and a single group neither.
    if *pace == Pace::new(Some(1)) || pager.ended && pager.page.is_empty() {
        return alone(job, pager, first, round, buffer);
    }
    let desk = Mutex::new(Desk { groups: [first].into(), ..Desk::default() });
    let turn = Condvar::new();
    let shared_pace = Mutex::new(*pace);
    std::thread::scope(|scope| {
        let mut hired = 0;
        let mut ended = false;
        loop {
            let mut desk_now = locked(&desk);
            desk_now.allowed = locked(&shared_pace).workers();
            let missing = (desk_now.allowed as usize + 1).saturating_sub(desk_now.groups.len());
            desk_now.outcome.interrupted |= job.shared.halted() || job.shared.round() != round;
            if !desk_now.outcome.goes_on() {
                desk_now.groups.clear();
                break;
            }
            if !ended && missing > 0 {
                // The index is asked without holding up the workers.
                drop(desk_now);
                match pager.next(job) {
                    Ok(Some(group)) => locked(&desk).groups.push_back(group),
                    Ok(None) => ended = true,
                    Err(error) => locked(&desk).outcome.broken = Some(error),
                }
                turn.notify_all();
                continue;
            }
            if hired < desk_now.allowed && desk_now.groups.len() > (hired - desk_now.working) as usize {
                hired += 1;
                drop(desk_now);
                let (desk, turn, pace) = (&desk, &turn, &shared_pace);
                let worker = std::thread::Builder::new().name("storage-worker".to_owned());
                if let Err(error) = worker.spawn_scoped(scope, move || work(job, desk, turn, pace)) {
                    locked(desk).outcome.broken = Some(IndexError::Broken(format!("no thread could be made: {error}")));
                }
                continue;
            }
            if ended && desk_now.groups.is_empty() && desk_now.working == 0 {
                break;
            }
            drop(turn.wait(desk_now));
        }
        locked(&desk).closed = true;
        turn.notify_all();
    });
    *pace = *locked(&shared_pace);
    let outcome = std::mem::take(&mut locked(&desk).outcome);
    outcome.broken.clone().map_or(Ok(outcome), Err)
}

fn alone(
    job: &Job,
    mut pager: Pager,
    first: Vec<Row>,
    round: u64,
    buffer: &mut Vec<u8>,
) -> Result<Outcome, IndexError> {
    let mut outcome = Outcome::default();
    let mut next = Some(first);
    while let Some(group) = next {
        let verdicts = job.group(&group, buffer)?;
        count(job, &group, &verdicts, &mut outcome);
        outcome.interrupted |= job.shared.halted() || job.shared.round() != round;
        if !outcome.goes_on() {
            break;
        }
        next = pager.next(job)?;
    }
    Ok(outcome)
}

fn work(job: &Job, desk: &Mutex<Desk>, turn: &Condvar, pace: &Mutex<Pace>) {
    let mut buffer = Vec::new();
    while let Some((group, weight)) = take(desk, turn) {
        // Whatever happens in the group, the desk must hear of its end.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job.group(&group, &mut buffer)));
        let done = done.unwrap_or_else(|_| Err(IndexError::Broken("a worker of the storage panicked".to_owned())));
        let mut desk = locked(desk);
        desk.working -= 1;
        desk.in_flight -= weight;
        match done {
            Ok(verdicts) => {
                let (objects, bytes) = count(job, &group, &verdicts, &mut desk.outcome);
                let failed = verdicts.iter().any(|v| matches!(v, Verdict::Later(_) | Verdict::Stuck(_)));
                let event = if failed { Event::Failed } else { Event::Done { objects, bytes } };
                let mut pace = locked(pace);
                *pace = pace.after(job.clock.now(), event);
            }
            Err(error) => desk.outcome.broken = Some(error),
        }
        drop(desk);
        turn.notify_all();
    }
}

/// The next group, when it is this worker's turn; `None` when there is nothing more to do.
fn take(desk: &Mutex<Desk>, turn: &Condvar) -> Option<(Vec<Row>, u64)> {
    let mut now: MutexGuard<Desk> = locked(desk);
    loop {
        if let Some(weight) = now.groups.front().map(|group| weight(group)) {
            let fits = now.working == 0 || now.working < now.allowed && now.in_flight + weight <= IN_FLIGHT;
            if fits {
                now.working += 1;
                now.in_flight += weight;
                let group = now.groups.pop_front();
                turn.notify_all();
                return group.map(|group| (group, weight));
            }
        } else if now.closed {
            return None;
        }
        now = turn.wait(now).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Adds up what came of a group. Objects and bytes that arrived.
fn count(job: &Job, group: &[Row], verdicts: &[Verdict], outcome: &mut Outcome) -> (u64, u64) {
    let (mut objects, mut bytes) = (0, 0);
    for (row, verdict) in group.iter().zip(verdicts) {
        match verdict {
            Verdict::Moved | Verdict::Found | Verdict::Repaired(_) => {
                objects += 1;
                bytes += row.object.size;
            }
            Verdict::Troubled(..) => outcome.troubled += 1,
            Verdict::Later(error) => {
                outcome.later += 1;
                outcome.later_why.get_or_insert_with(|| error.clone());
            }
            Verdict::Stuck(error) => outcome.stuck = Some(error.clone()),
            Verdict::Halted => outcome.interrupted = true,
        }
    }
    outcome.moved += objects;
    job.shared.meter.passed(job.clock.now(), objects, bytes);
    (objects, bytes)
}
