//! The process group of a unit: who leads it, and signals that reach it and nobody else.

use std::os::fd::OwnedFd;

use rustix::process::{Pid, Signal};

use super::find;
use super::handover::WrittenGroup;

/// A process group of a unit.
pub(super) struct Group {
    pub pid: u32,
    pub start_ticks: u64,
    pub session: u32,
    /// Set for a process that is not our child: the only way to learn of its end.
    pub pidfd: Option<OwnedFd>,
    pub leader_gone: bool,
    /// Its leader is our child, so its number is its own until we have waited for it.
    pub child: bool,
}

impl Group {
    /// Signals the group, if it is still ours: a process id may have been given to another one.
    pub(super) fn signal(&self, signal: Signal) {
        let Some(pid) = Pid::from_raw(self.pid.cast_signed()) else { return };
        let own = self.child && !self.leader_gone;
        // So does any other, even as a zombie; and when it is gone for good, the rest of its group holds the number.
        let sure = own
            || find::stat(self.pid).is_some_and(|s| s.start_ticks == self.start_ticks)
            || find::group_lives(self.pid, self.session);
        if sure && rustix::process::kill_process_group(pid, signal).is_err() && !self.leader_gone {
            // It left the group that it was started in.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// What a successor needs to know of it; `child` says whether its leader is our child.
    pub(super) fn written(&self, child: bool) -> WrittenGroup {
        let &Self { pid, start_ticks, session, leader_gone, .. } = self;
        WrittenGroup { pid, start_ticks, session, leader_gone, child }
    }
}
