//! Processes that carry our mark and that no mark file names: a keeper was killed between starting them and writing them down.

use std::collections::{BTreeMap, BTreeSet};

use rustix::process::{Pid, Signal};

use super::clock;
use super::find::{self, Stat};
use crate::model::digest::Digest;
use crate::model::id::Name;
use crate::model::time::Timestamp;

/// A process found by the mark in its environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub unit: Name,
    pub digest: Digest,
    /// Which start it comes from.
    pub birth: String,
    pub pid: u32,
    pub stat: Stat,
}

impl Found {
    /// Whether it leads a group as what a keeper starts does: its group, and never its session.
    pub(super) fn leads(&self) -> bool {
        self.stat.group == self.pid && self.stat.session != self.pid
    }

    /// Signals it, with its group if it leads one, if it is still there.
    pub(super) fn signal(&self, signal: Signal) {
        let Some(pid) = Pid::from_raw(self.pid.cast_signed()) else { return };
        if find::lives(self.pid, self.stat.start_ticks) {
            let _ = match self.stat.group == self.pid {
                true => rustix::process::kill_process_group(pid, signal),
                false => rustix::process::kill_process(pid, signal),
            };
        }
    }

    /// When it was started, by the wall clock: its age is known in ticks since boot, which Linux shows as 1/100 s (proc(5),
    /// `USER_HZ`).
    pub(super) fn started(&self) -> Timestamp {
        let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let since_boot = boot.tv_sec.saturating_mul(1_000);
        let start = i64::try_from(self.stat.start_ticks).unwrap_or(i64::MAX).saturating_mul(10);
        Timestamp(clock::wall().as_millisecond().saturating_sub(since_boot.saturating_sub(start).max(0)))
    }
}

/// Looks through all processes. `known` are the units' own. With `closely` those that lead no group are looked at too: what a dead
/// leader left behind. Ordered by start, the oldest first, so that who leads comes before what came from it.
pub(super) fn find(state_id: &str, known: &BTreeSet<u32>, closely: bool) -> Vec<Found> {
    let all = find::all();
    let fits = |pid: u32, stat: &Stat| stat.alive() && (closely || candidate(pid, stat));
    let likely = all.iter().filter(|(pid, stat)| fits(**pid, stat) && !known.contains(pid));
    let likely = likely.filter(|(pid, _)| !descends(**pid, known, &all));
    let mut found: Vec<Found> = likely
        .filter_map(|(pid, stat)| {
            let mark = find::mark(*pid)?;
            let (unit, rest) = mark.strip_prefix(state_id)?.strip_prefix('/')?.split_once('/')?;
            let (digest, birth) = rest.split_once('/').unwrap_or((rest, ""));
            Some(Found {
                birth: birth.to_owned(),
                unit: Name::new(unit).ok()?,
                digest: serde_json::from_value::<Digest>(digest.into()).ok()?,
                pid: *pid,
                stat: *stat,
            })
        })
        .collect();
    found.sort_by_key(|f| (f.stat.start_ticks, f.pid));
    found
}

/// What a keeper starts leads its group and never its session.
fn candidate(pid: u32, stat: &Stat) -> bool {
    stat.group == pid && stat.session != pid
}

/// A unit's process may start groups of its own; they are its business.
fn descends(pid: u32, known: &BTreeSet<u32>, all: &BTreeMap<u32, Stat>) -> bool {
    let mut at = pid;
    // Parents are older, so this ends; the bound holds against a table that changed while it was read.
    for _ in 0..all.len() {
        let Some(stat) = all.get(&at) else { return false };
        if known.contains(&stat.parent) {
            return true;
        }
        at = stat.parent;
    }
    false
}
