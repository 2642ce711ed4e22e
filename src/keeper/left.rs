//! What of a unit lives outside of its process group: programs that went into the background, each in a session of its own.
//!
//! In the unit's cgroup they are all. Without one, whoever loses its parent becomes the keeper's child (it is a subreaper), and
//! still has the unit's mark in its environment. Looked at are only children of the keeper that it did not start itself, and
//! only when a unit stops or its leader has ended.

use std::collections::HashMap;
use std::fs;

use rustix::process::{Pid, Signal};

use super::cgroup::Leaf;
use super::find;
use crate::model::id::Name;

/// Who is asked about.
pub(super) struct Whose<'a> {
    pub state_id: &'a str,
    pub unit: &'a Name,
    /// The process group of its leader, whose members are not meant.
    pub group: Option<u32>,
    pub leaf: Option<&'a Leaf>,
    /// The keeper's children that lead units.
    pub leaders: &'a HashMap<u32, u32>,
}

impl Whose<'_> {
    /// Whether anything lives. Members of the group count too if they are in the cgroup.
    pub(super) fn any(&self) -> bool {
        self.leaf.is_some_and(Leaf::populated) || !self.children().is_empty()
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<u32> {
        let mut all = self.leaf.map(Leaf::pids).unwrap_or_default();
        all.retain(|pid| self.outside(*pid));
        for pid in self.children() {
            if !all.contains(&pid) {
                all.push(pid);
            }
        }
        all
    }

    /// Signals them; everything in the cgroup at once when they are to be killed.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(leaf) = self.leaf.filter(|_| signal == Signal::KILL) {
            leaf.kill();
        }
        for pid in self.all() {
            if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
                let _ = rustix::process::kill_process(pid, signal);
            }
        }
    }

    fn outside(&self, pid: u32) -> bool {
        find::stat(pid).is_some_and(|stat| stat.alive() && Some(stat.group) != self.group)
    }

    /// Children that were left to the keeper and carry the unit's mark.
    fn children(&self) -> Vec<u32> {
        let mine = format!("{}/{}/", self.state_id, self.unit);
        let of_unit = |pid: &u32| {
            !self.leaders.contains_key(pid)
                && self.outside(*pid)
                && find::mark(*pid).is_some_and(|m| m.starts_with(&mine))
        };
        adopted().into_iter().filter(of_unit).collect()
    }
}

/// The children of this process, which has one thread.
fn adopted() -> Vec<u32> {
    let path = format!("/proc/self/task/{}/children", std::process::id());
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect()
}
