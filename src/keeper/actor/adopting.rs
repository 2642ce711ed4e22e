//! Taking over what another keeper started: one that was killed, or this very process before it became another program.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::event::epoll::{self, EventData, EventFlags};

use super::{Source, Stray, Units, watch_way};
use crate::keeper::cgroup::{Leaf, Rooms};
use crate::keeper::door::Door;
use crate::keeper::find::{self, Life};
use crate::keeper::group::Group;
use crate::keeper::handover::{Files, WrittenGroup, WrittenUnit};
use crate::keeper::hold::Hold;
use crate::keeper::logs::Output;
use crate::keeper::notify::{self, Address, Notices};
use crate::keeper::strays::{self, Found};
use crate::keeper::table::{Place, State};
use crate::keeper::wire::WireLaunch;
use crate::keeper::{clock, marks};
use crate::model::time::Timestamp;
use crate::ports::keeper::{Exit, Launch, Process};

use super::Slot;

impl Units {
    /// Takes over what an earlier keeper left: first what it wrote down, then what it had no time to write down.
    pub(in crate::keeper) fn adopt(&mut self) -> io::Result<()> {
        if let Ok(Err(cause)) = self.rooms.as_ref().map(Rooms::leave_units) {
            self.diary.note(&format!("the keeper stays in the cgroup that it was started in: {cause}"));
        }
        let (marks, bad) = marks::read(&self.folders.state)?;
        for path in bad {
            self.diary.note(&format!("{} is no mark and is left alone", path.display()));
        }
        for mark in marks {
            let (state, effects) = mark.state(&self.boot_id, clock::now());
            let id = self.insert(&mark.unit, state);
            let leaf = mark.cgroup.as_deref().and_then(Leaf::at);
            if let Some(slot) = self.slots.get_mut(&id) {
                slot.mark = Some(mark.clone());
                slot.birth.clone_from(&mark.birth);
                if let Some(leaf) = leaf.as_ref().filter(|_| !slot.state.alive()) {
                    // Its leader was gone already when the earlier keeper ended.
                    leaf.kill();
                }
                slot.hold = Hold::again(leaf);
                let living = mark.living(&self.boot_id).zip(mark.listen);
                slot.door = living.and_then(|(process, address)| Door::from_process(process.pid, address));
            }
            match (&mark.process, mark.living(&self.boot_id)) {
                (_, Some(process)) => self.take_over(id, process, mark.session),
                (Some(Process { pid, .. }), None) => self.take_rest(id, *pid, mark.session),
                (None, None) => self.take_rest(id, mark.clearing.unwrap_or(0), mark.session),
            }
            self.perform(id, effects);
            self.settle(id);
        }
        self.find_strays();
        Ok(())
    }

    /// Looks for processes with our mark that are nobody's.
    fn find_strays(&mut self) {
        let known = self.slots.values().filter_map(|s| Some(s.state.process()?.pid)).collect();
        // What a dead leader left may be anywhere; what a living one has around it is its own business.
        let closely = self.slots.values().any(|slot| slot.birth.is_some() && slot.state.process().is_none());
        strays::find(&self.state_id, &known, closely).into_iter().for_each(|found| self.adopt_found(found));
    }

    /// The start that a unit's process comes from: as written down, or as it says itself.
    fn birth(&self, slot: &Slot) -> Option<String> {
        let said = || {
            let mark = find::mark(slot.state.process()?.pid)?;
            Some(mark.splitn(4, '/').nth(3).unwrap_or_default().to_owned())
        };
        slot.birth.clone().or_else(said)
    }

    fn adopt_found(&mut self, found: Found) {
        let id = self.names.get(&found.unit).copied();
        if let Some(slot) = id.and_then(|id| self.slots.get(&id)) {
            let same = self.birth(slot).is_none_or(|birth| birth == found.birth);
            match (slot.state.process().is_some(), same) {
                // A helper in a group of its own; it belongs to the process that lives.
                (true, true) => return,
                (true, false) => return self.add_stray(found),
                // Left by a leader that is gone. Members of its group are cleared with the group.
                (false, true) if slot.birth.is_some() => {
                    let cleared = slot.group.as_ref().is_some_and(|group| group.pid == found.stat.group);
                    if !cleared {
                        self.add_stray(found);
                    }
                    return;
                }
                (false, _) => {}
            }
        }
        if !found.leads() {
            return;
        }
        let now = clock::now();
        let process = Process { pid: found.pid, start_ticks: found.stat.start_ticks, started: found.started() };
        let policy = id.and_then(|id| self.slots.get(&id)).map(|s| s.state.policy.clone());
        let policy = policy.unwrap_or_else(marks::stopgap_policy);
        let adopted = State::adopted(found.digest.clone(), policy, process.clone(), now.tick);
        let id = match id.and_then(|id| Some((id, self.slots.get_mut(&id)?))) {
            Some((id, slot)) => {
                let (restarts, last_exit) = (slot.state.restarts, slot.state.last_exit.clone());
                slot.state = adopted;
                slot.state.restarts = restarts;
                slot.state.last_exit = last_exit;
                id
            }
            None => self.insert(&found.unit, adopted),
        };
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.hold = Hold::again(Leaf::of(found.pid, &self.state_id, &found.unit));
            slot.birth = Some(found.birth.clone());
        }
        self.set_timer(id, None);
        self.diary.note(&format!("{}: found process {} by its mark and adopted it", found.unit, found.pid));
        self.take_over(id, &process, found.stat.session);
        self.settle(id);
    }

    /// Watches a process that is not our child, and its output.
    fn take_over(&mut self, id: u32, process: &Process, session: u32) {
        self.open_output(id);
        self.open_notices(id);
        let (pid, start_ticks) = (process.pid, process.start_ticks);
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.group = Some(Group { pid, start_ticks, session, pidfd: None, leader_gone: false, child: false });
        }
        self.watch_leader(id);
    }

    /// Holds on to a leader that is not our child. Where that cannot be done now, it is tried again: that we cannot look at it is not
    /// its end.
    pub(super) fn watch_leader(&mut self, id: u32) {
        self.unwatched.remove(&id);
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let Some(group) = slot.group.as_mut().filter(|g| !g.leader_gone && g.pidfd.is_none()) else { return };
        if let Some(fd) = find::pidfd(group.pid, group.start_ticks) {
            let data = EventData::new_u64((self.token)(Source::Leader { slot: id }));
            if epoll::add(&self.epoll, &fd, data, EventFlags::IN).is_ok() {
                group.pidfd = Some(fd);
                return;
            }
        }
        if find::life(group.pid, group.start_ticks) == Life::Gone {
            return self.leader_ended(id, Exit::Unknown);
        }
        self.unwatched.insert(id);
    }

    /// What is left of a group whose leader is gone. A group that is not being cleared is nobody's any more: its number may be
    /// somebody else's by now.
    fn take_rest(&mut self, id: u32, pid: u32, session: u32) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        if matches!(slot.state.place, Place::Clearing { .. }) {
            slot.group = Some(Group { pid, start_ticks: 0, session, pidfd: None, leader_gone: true, child: false });
            self.open_output(id);
        }
    }

    fn add_stray(&mut self, found: Found) {
        let Some(fd) = find::pidfd(found.pid, found.stat.start_ticks) else { return };
        let data = EventData::new_u64((self.token)(Source::Stray { pid: found.pid }));
        if epoll::add(&self.epoll, &fd, data, EventFlags::IN).is_err() {
            return;
        }
        self.diary.note(&format!("{}: process {} has its mark and is not its own", found.unit, found.pid));
        self.changed.insert(found.unit.clone());
        self.strays.push(Stray { found, _pidfd: fd, kill_at: None });
    }

    /// Everything that the next program of this keeper must know, and the files it goes on with.
    pub(in crate::keeper) fn hand_over(&mut self) -> (Vec<WrittenUnit>, Vec<(String, BorrowedFd<'_>)>) {
        let mut written = Vec::new();
        let mut files = Vec::new();
        for slot in self.slots.values() {
            let group = slot.group.as_ref().map(|group| group.written(self.children.contains_key(&group.pid)));
            written.push(WrittenUnit {
                name: slot.name.clone(),
                state: slot.state.clone(),
                launch: slot.launch.as_ref().map(WireLaunch::from),
                group,
                status: slot.status.clone(),
                birth: slot.birth.clone(),
                timer: slot.timer,
                unfinished: slot.output.as_ref().map(Output::unfinished).unwrap_or_default(),
                hold: slot.hold.written(),
            });
            files.extend(slot.door.as_ref().map(|door| (format!("{}/door", slot.name), door.fd())));
            files.extend(slot.hold.way().map(|way| (format!("{}/way", slot.name), way)));
            if let Some(output) = &slot.output {
                let [out, err] = output.fds();
                files.extend([(format!("{}/out", slot.name), out), (format!("{}/err", slot.name), err)]);
            }
            if let Some(notices) = &slot.notices {
                files.push((format!("{}/notify", slot.name), notices.fd()));
            }
        }
        (written, files)
    }

    /// Goes on where the program before this one stopped.
    pub(in crate::keeper) fn take_over_all(&mut self, written: Vec<WrittenUnit>, files: &mut Files) {
        for unit in written {
            let id = self.insert(&unit.name, unit.state);
            let (run, logs) = (self.folders.run.clone(), self.folders.logs.clone());
            let mut file = |what: &str| files.remove(&format!("{}/{what}", unit.name));
            let (fifos, socket, way) = (file("out").zip(file("err")), file("notify"), file("way"));
            let door = file("door");
            let Some(slot) = self.slots.get_mut(&id) else { continue };
            slot.launch = unit.launch.map(Launch::from);
            slot.status = unit.status;
            slot.birth = unit.birth;
            slot.hold = Hold::taken_over(unit.hold, way);
            slot.door = door.and_then(Door::taken_over);
            watch_way(&self.epoll, slot, (self.token)(Source::Way { slot: id }));
            let user = notify::user(slot.launch.as_ref(), slot.state.process());
            if let Some((out, err)) = fifos {
                let policy = &slot.state.policy;
                slot.output = Some(Output::taken_over(&run, &logs, &unit.name, policy, [out, err], unit.unfinished));
                self.watch_output(id);
            }
            if let Some(socket) = socket {
                self.watch_notices(
                    id,
                    Notices::taken_over(socket, Address::of(&run, &self.state_id, &unit.name, user)),
                );
            }
            self.set_timer(id, unit.timer);
            if let Some(group) = unit.group {
                self.take_group(id, &group);
            }
            self.settle(id);
        }
        self.find_strays();
    }

    /// A group whose leader is our child as before, or one that was adopted before.
    fn take_group(&mut self, id: u32, group: &WrittenGroup) {
        let &WrittenGroup { pid, start_ticks, session, leader_gone, child } = group;
        if !child && !leader_gone {
            let process = Process { pid, start_ticks, started: Timestamp(0) };
            return self.take_over(id, &process, session);
        }
        if child {
            self.children.insert(pid, id);
        }
        // Handed over already, or else its process would wait for a reader for ever.
        self.open_output(id);
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.group = Some(Group { pid, start_ticks, session, pidfd: None, leader_gone, child });
        }
    }
}
