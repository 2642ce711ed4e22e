//! The units: feeds events to the restart table and does what it says.

mod adopting;
mod hearing;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::process::{Pid, Signal};

use super::cgroup::{self, Rooms};
use super::diary::Diary;
use super::door::Door;
use super::group::Group;
use super::handover::LOCK_FILE as LOCK;
use super::hold::Hold;
use super::left::Whose;
use super::logs::{Output, Shared, Trouble};
use super::marks::{self, Mark};
use super::notify::Notices;
use super::spawn::{self, Limits, LowNumbers, Spawned, Start};
use super::strays::Found;
use super::table::{Effect, Event, KILL_AGAIN, Place, State};
use super::wire::{Refusal, WireLaunch};
use super::{clock, find};
use crate::model::id::Name;
use crate::model::time::{Tick, Timestamp};
use crate::model::unit::Millis;
use crate::ports::keeper::{Exit, Launch, Policy, Unit};

/// While a group is being cleared of what its leader left, it is looked at after this pause, then after twice that, and so on ...
const CLEAR_FIRST: Millis = Millis(1);
/// ... from this pause on with a look at all processes, which costs some milliseconds ...
const CLEAR_CLOSELY: Millis = Millis(16);
/// ... but at least this often. Only groups whose members are not our children need it; for those that are, the kernel calls.
const CLEAR_LAST: Millis = Millis(500);

/// What the loop waits on, on behalf of units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Stream {
        slot: u32,
        stream: u8,
    },
    Leader {
        slot: u32,
    },
    Stray {
        pid: u32,
    },
    /// The unit said something of itself.
    Notice {
        slot: u32,
    },
    /// A process on its way to become its program.
    Way {
        slot: u32,
    },
}

/// The folders of a state folder.
pub(super) struct Folders {
    pub state: PathBuf,
    pub run: PathBuf,
    pub logs: PathBuf,
}

/// One unit.
struct Slot {
    name: Name,
    state: State,
    launch: Option<Launch>,
    group: Option<Group>,
    output: Option<Output>,
    notices: Option<Notices>,
    /// What it last said of itself.
    status: Option<String>,
    /// Names the start of its process (see [`Mark::birth`]).
    birth: Option<String>,
    timer: Option<Tick>,
    hold: Hold,
    /// The listening socket that its processes are given.
    door: Option<Door>,
    /// As last written and last shown, to write and tell only what changed.
    mark: Option<Mark>,
    shown: Option<Unit>,
}

impl Slot {
    /// As clients see it.
    fn unit(&self, strays: Vec<u32>) -> Unit {
        let held_by = self.door.as_ref().map(|_| std::process::id());
        Unit { status: self.status.clone(), held_by, ..marks::unit(&self.name, &self.state, strays) }
    }
}

struct Stray {
    found: Found,
    /// Held for the loop to wait on.
    _pidfd: OwnedFd,
    kill_at: Option<Tick>,
}

/// All units and what they need.
pub(super) struct Units {
    folders: Folders,
    state_id: String,
    boot_id: String,
    limits: Limits,
    low: LowNumbers,
    /// Or why there are none.
    rooms: Result<Rooms, String>,
    shared: Shared,
    pub(super) diary: Diary,
    epoll: OwnedFd,
    token: fn(Source) -> u64,
    slots: BTreeMap<u32, Slot>,
    names: BTreeMap<Name, u32>,
    next_slot: u32,
    /// Our children that lead a unit's group.
    children: HashMap<u32, u32>,
    timers: BTreeSet<(Tick, u32)>,
    clearing: BTreeSet<u32>,
    /// Units whose adopted process could not be held on to yet.
    unwatched: BTreeSet<u32>,
    /// When that is tried again.
    watch_at: Tick,
    /// When to look at those that are being cleared, and the pause after that.
    clear_at: Option<(Tick, Millis)>,
    strays: Vec<Stray>,
    changed: BTreeSet<Name>,
    /// All processes, as of this turn of the loop.
    census: find::Census,
    /// Device and inode of the lock that makes this the folder's keeper.
    lock: (u64, u64),
    lost: bool,
}

impl Units {
    pub(super) fn new(
        folders: Folders,
        epoll: OwnedFd,
        token: fn(Source) -> u64,
        limits: Limits,
        low: LowNumbers,
        lock: (u64, u64),
        diary: Diary,
    ) -> io::Result<Self> {
        let state_id = marks::state_id(&folders.state);
        let rooms = cgroup::find(std::process::id()).map(|base| Rooms::new(base, &state_id));
        Ok(Self {
            state_id,
            rooms,
            boot_id: find::boot_id(),
            folders,
            limits,
            low,
            shared: Shared::new()?,
            diary,
            epoll,
            token,
            slots: BTreeMap::new(),
            names: BTreeMap::new(),
            next_slot: 0,
            children: HashMap::new(),
            timers: BTreeSet::new(),
            clearing: BTreeSet::new(),
            unwatched: BTreeSet::new(),
            watch_at: Tick(0),
            clear_at: None,
            strays: Vec::new(),
            changed: BTreeSet::new(),
            census: find::Census::default(),
            lock,
            lost: false,
        })
    }

    fn insert(&mut self, name: &Name, state: State) -> u32 {
        self.next_slot += 1;
        let slot = Slot {
            name: name.clone(),
            state,
            launch: None,
            group: None,
            output: None,
            notices: None,
            status: None,
            birth: None,
            timer: None,
            hold: Hold::default(),
            door: None,
            mark: None,
            shown: None,
        };
        self.slots.insert(self.next_slot, slot);
        self.names.insert(name.clone(), self.next_slot);
        self.next_slot
    }

    /// Feeds one event to the table, does what it says, and writes down and tells what became of it.
    fn feed(&mut self, id: u32, event: Event) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let effects = slot.state.on(event, clock::now());
        self.perform(id, effects);
        self.settle(id);
    }

    /// Does effects, and feeds what follows from them.
    fn perform(&mut self, id: u32, effects: Vec<Effect>) {
        let mut queue = VecDeque::from(effects);
        while let Some(effect) = queue.pop_front() {
            match effect {
                Effect::Spawn => {
                    let event = self.spawn(id);
                    let Some(slot) = self.slots.get_mut(&id) else { return };
                    queue.extend(slot.state.on(event, clock::now()));
                }
                Effect::Signal(number) => {
                    let signal = Signal::from_named_raw(number).unwrap_or(Signal::TERM);
                    self.signal(id, signal);
                    if signal != Signal::KILL {
                        // What is stopped (SIGSTOP) cannot hear the signal before it goes on.
                        self.signal(id, Signal::CONT);
                    }
                }
                Effect::KillGroup => {
                    self.note(id, "still there after its grace: SIGKILL to its group");
                    self.signal(id, Signal::KILL);
                }
                Effect::SetTimer(at) => self.set_timer(id, Some(at)),
                Effect::CancelTimer => self.set_timer(id, None),
            }
        }
    }

    /// Whether it was found so.
    pub(super) fn lost(&self) -> bool {
        self.lost
    }

    /// Whether the state folder was taken away, and another keeper may have a new one in its place: then nothing is started or
    /// written down any more.
    fn is_lost(&mut self) -> bool {
        let own = |meta: fs::Metadata| (meta.dev(), meta.ino()) == self.lock;
        self.lost = self.lost || !fs::metadata(self.folders.state.join(LOCK)).is_ok_and(own);
        self.lost
    }

    fn spawn(&mut self, id: u32) -> Event {
        if self.is_lost() {
            return Event::SpawnFailed("the state folder is gone".to_owned());
        }
        self.open_output(id);
        self.open_notices(id);
        self.turn();
        let Some(slot) = self.slots.get_mut(&id) else { return Event::SpawnFailed(String::new()) };
        let result = (|| {
            let launch = slot.launch.as_ref().ok_or("its launch is not known")?;
            let output = slot.output.as_ref().ok_or("its output cannot be opened; see keeper.log")?;
            let ends = output.ends().map_err(|cause| format!("its output: {cause}"))?;
            let birth = format!("{:x}", clock::now().dice);
            let mark = format!("{}/{}/{}/{birth}", self.state_id, slot.name, launch.digest);
            slot.birth = Some(birth);
            let heard = slot.notices.as_ref().map(|notices| notices.address().variable());
            let notify = heard.zip(slot.state.policy.notify.as_ref());
            slot.door = match (launch.listen, slot.door.take()) {
                (None, _) => None,
                (Some(wanted), Some(door)) if door.address() == wanted => Some(door),
                (Some(wanted), _) => Some(Door::open(wanted).map_err(|cause| format!("its socket {wanted}: {cause}"))?),
            };
            let socket = slot.door.as_ref().map(Door::fd);
            let message = slot.hold.prepare(self.rooms.as_ref(), &slot.name, launch, &slot.state.policy.ceilings)?;
            let wall = Timestamp(clock::wall().as_millisecond());
            let start = Start { launch, mark: &mark, notify, message: message.as_ref(), socket };
            spawn::spawn(&start, ends, self.shared.null(), &self.limits, &mut self.low, wall)
        })();
        match result {
            Ok(Spawned { process, session, way }) => {
                let (pid, start_ticks) = (process.pid, process.start_ticks);
                slot.status = None;
                slot.hold.started(way);
                watch_way(&self.epoll, slot, (self.token)(Source::Way { slot: id }));
                slot.group = Some(Group { pid, start_ticks, session, pidfd: None, leader_gone: false, child: true });
                self.children.insert(pid, id);
                Event::Spawned(process)
            }
            Err(why) => {
                self.note(id, &format!("could not be started: {why}"));
                Event::SpawnFailed(why)
            }
        }
    }

    fn open_output(&mut self, id: u32) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        if slot.output.is_some() {
            return;
        }
        match Output::open(&self.folders.run, &self.folders.logs, &slot.name, &slot.state.policy) {
            Ok(output) => slot.output = Some(output),
            Err(cause) => return self.note(id, &format!("its output cannot be opened: {cause}")),
        }
        self.watch_output(id);
    }

    /// Has the loop wait for output. Without that there is none: a full FIFO would stop the unit.
    fn watch_output(&mut self, id: u32) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let watch = |(stream, fd): (u8, BorrowedFd<'_>)| {
            let data = EventData::new_u64((self.token)(Source::Stream { slot: id, stream }));
            epoll::add(&self.epoll, fd, data, EventFlags::IN)
        };
        let watched = slot.output.as_ref().map_or(Ok(()), |output| (0_u8..).zip(output.fds()).try_for_each(watch));
        if let Err(cause) = watched {
            slot.output = None;
            self.note(id, &format!("its output cannot be watched: {cause}"));
        }
    }

    /// Signals the group and what else belongs to the unit.
    fn signal(&self, id: u32, signal: Signal) {
        let Some(slot) = self.slots.get(&id) else { return };
        if let Some(group) = &slot.group {
            group.signal(signal);
        }
        self.outside(slot).signal(signal);
    }

    /// What belongs to a unit beside its group.
    fn outside<'a>(&'a self, slot: &'a Slot) -> Whose<'a> {
        Whose {
            state_id: &self.state_id,
            unit: &slot.name,
            group: slot.group.as_ref().map(|group| group.pid),
            leaf: slot.hold.leaf(),
            leaders: &self.children,
        }
    }

    fn set_timer(&mut self, id: u32, at: Option<Tick>) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        if let Some(old) = std::mem::replace(&mut slot.timer, at) {
            self.timers.remove(&(old, id));
        }
        if let Some(at) = at {
            self.timers.insert((at, id));
        }
    }

    /// Writes the mark if it changed, tells watchers if something they can see changed, and notes what is being cleared.
    fn settle(&mut self, id: u32) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        if matches!(slot.state.place, Place::Clearing { .. }) {
            if self.clearing.insert(id) {
                self.clear_at = Some((clock::tick() + CLEAR_FIRST, CLEAR_FIRST));
            }
        } else {
            self.clearing.remove(&id);
            if self.clearing.is_empty() {
                self.clear_at = None;
            }
        }
        let over = matches!(slot.state.place, Place::Stopped | Place::Ended);
        if over {
            slot.hold.tidy();
        }
        // Whoever connects to something that is not to run, or not soon, shall hear so at once.
        if over || matches!(slot.state.place, Place::Waiting { looping: true, .. }) {
            slot.door = None;
        }
        let session = slot.group.as_ref().map_or(0, |group| group.session);
        let listen = slot.door.as_ref().map(Door::address);
        let clears = matches!(slot.state.place, Place::Clearing { .. });
        let clearing = slot.group.as_ref().filter(|_| clears).map(|group| group.pid);
        let birth = slot.birth.clone();
        let mark = Mark {
            listen,
            clearing,
            birth,
            ..Mark::of(&slot.name, &slot.state, &self.boot_id, session, slot.hold.leaf())
        };
        let mut trouble = None;
        if slot.mark.as_ref() != Some(&mark) && !self.lost {
            match marks::write(&self.folders.run, &mark) {
                Ok(()) => slot.mark = Some(mark),
                // The process can still be found by the mark in its environment.
                Err(cause) => trouble = Some(format!("{}: its mark cannot be written: {cause}", slot.name)),
            }
        }
        // What it says of itself is for people, and as often as it likes: nothing follows from it.
        let unit = Unit { status: None, ..slot.unit(Vec::new()) };
        if slot.shown.as_ref() != Some(&unit) {
            slot.shown = Some(unit);
            self.changed.insert(slot.name.clone());
        }
        if let Some(text) = trouble {
            self.diary.note(&text);
        }
    }

    fn note(&mut self, id: u32, text: &str) {
        if let Some(slot) = self.slots.get(&id) {
            self.diary.note(&format!("{}: {text}", slot.name));
        }
    }

    fn note_trouble(&mut self, id: u32, trouble: Option<Trouble>) {
        match trouble {
            Some(Trouble::Began(cause)) => self.note(id, &format!("output is dropped: {cause}")),
            Some(Trouble::Over(bytes)) => self.note(id, &format!("output is kept again; {bytes} bytes were dropped")),
            None => {}
        }
    }

    /// A child was waited for. Most are leaders of units; the others were left to us by processes that are gone.
    pub(super) fn reaped(&mut self, pid: u32, exit: Exit) {
        if let Some(id) = self.children.remove(&pid) {
            self.leader_ended(id, exit);
        }
    }

    /// Looks whether groups are empty now; to be called when children were reaped. With `closely` it looks at all processes,
    /// to see that what is left of a group is dead and only nobody waits for it.
    pub(super) fn check_cleared(&mut self, closely: bool) {
        for id in self.clearing.iter().copied().collect::<Vec<_>>() {
            let group = self.slots.get(&id).and_then(|slot| slot.group.as_ref());
            let left =
                |g: &Group| if closely { self.census.group_lives(g.pid, g.session) } else { find::numbered(g.pid) };
            let left = group.is_some_and(left);
            if !left && !self.slots.get(&id).is_some_and(|slot| self.outside(slot).any()) {
                self.drain(id);
                if let Some(slot) = self.slots.get_mut(&id) {
                    slot.group = None;
                }
                self.feed(id, Event::GroupGone);
            }
        }
    }

    fn leader_ended(&mut self, id: u32, exit: Exit) {
        self.drain(id);
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let Some(group) = &mut slot.group else { return };
        if let Some(fd) = group.pidfd.take() {
            let _ = epoll::delete(&self.epoll, &fd);
        }
        group.leader_gone = true;
        let exit = slot.hold.ended(exit, &slot.state.policy.ceilings);
        let Some(slot) = self.slots.get(&id) else { return };
        let Some(group) = &slot.group else { return };
        // The parent of an adopted one may not have waited for it yet. Whether it is that or more is not worth a look at all
        // processes: a moment later it is seen for nothing.
        let unreaped = find::stat(group.pid).is_some_and(|s| s.start_ticks == group.start_ticks);
        let left = unreaped || self.census.group_lives(group.pid, group.session) || self.outside(slot).any();
        if let Some(slot) = self.slots.get_mut(&id).filter(|_| !left) {
            slot.group = None;
        }
        self.feed(id, Event::Exited { exit, left });
    }

    fn drain(&mut self, id: u32) {
        let output = self.slots.get_mut(&id).and_then(|slot| slot.output.as_mut());
        let trouble = output.and_then(|output| output.drain(&mut self.shared));
        self.note_trouble(id, trouble);
    }

    /// What was seen of processes is old: time has passed, or one was born.
    pub(super) fn turn(&mut self) {
        self.census = find::Census::default();
    }

    /// Something that the loop waits on has happened.
    pub(super) fn happened(&mut self, source: Source) {
        match source {
            Source::Stream { slot: id, stream } => {
                let output = self.slots.get_mut(&id).and_then(|slot| slot.output.as_mut());
                let trouble = output.and_then(|output| output.pump(usize::from(stream), &mut self.shared).1);
                self.note_trouble(id, trouble);
            }
            Source::Leader { slot } => {
                let adopted = self.slots.get(&slot).and_then(|s| s.group.as_ref()).is_some_and(|g| g.pidfd.is_some());
                if adopted {
                    self.leader_ended(slot, Exit::Unknown);
                }
            }
            Source::Notice { slot } => self.noticed(slot),
            Source::Way { slot } => {
                if let Some(slot) = self.slots.get_mut(&slot) {
                    slot.hold.heard();
                }
            }
            Source::Stray { pid } => {
                if let Some(at) = self.strays.iter().position(|stray| stray.found.pid == pid) {
                    self.changed.insert(self.strays.remove(at).found.unit);
                }
            }
        }
    }

    /// The next moment at which something is due.
    pub(super) fn deadline(&self) -> Option<Tick> {
        let strays = self.strays.iter().filter_map(|stray| stray.kill_at);
        let watch = (!self.unwatched.is_empty()).then_some(self.watch_at);
        let others = self.timers.first().map(|(at, _)| *at).into_iter().chain(self.clear_at.map(|(at, _)| at));
        others.chain(strays).chain(watch).min()
    }

    /// Does what is due.
    pub(super) fn due(&mut self) {
        let now = clock::tick();
        while let Some((at, id)) = self.timers.first().copied()
            && at <= now
        {
            self.set_timer(id, None);
            self.feed(id, Event::TimerDue);
        }
        if let Some((at, pause)) = self.clear_at
            && at <= now
        {
            let pause = Millis(pause.0 * 2).min(CLEAR_LAST);
            self.clear_at = Some((now + pause, pause));
            self.check_cleared(pause >= CLEAR_CLOSELY);
        }
        if !self.unwatched.is_empty() && self.watch_at <= now {
            self.watch_at = now + CLEAR_LAST;
            self.unwatched.clone().into_iter().for_each(|id| self.watch_leader(id));
        }
        for stray in &mut self.strays {
            if stray.kill_at.is_some_and(|at| at <= now) {
                stray.kill_at = Some(now + KILL_AGAIN);
                stray.found.signal(Signal::KILL);
            }
        }
    }

    /// The names of units that changed since this was last asked.
    pub(super) fn take_changed(&mut self) -> BTreeSet<Name> {
        std::mem::take(&mut self.changed)
    }

    pub(super) fn any_alive(&self) -> bool {
        self.slots.values().any(|slot| slot.state.alive())
    }

    pub(super) fn list(&self) -> Vec<Unit> {
        self.names.values().filter_map(|id| self.unit(*id)).collect()
    }

    fn unit(&self, id: u32) -> Option<Unit> {
        let slot = self.slots.get(&id)?;
        let strays = self.strays.iter().filter(|stray| stray.found.unit == slot.name);
        Some(slot.unit(strays.map(|stray| stray.found.pid).collect()))
    }

    pub(super) fn ensure(
        &mut self,
        name: &Name,
        launch: WireLaunch,
        policy: Policy,
        again: bool,
    ) -> Result<Unit, Refusal> {
        let launch = Launch::from(launch);
        let digest = launch.digest.clone();
        let id = match self.names.get(name) {
            Some(id) => *id,
            None => self.insert(name, State::new(digest.clone(), policy.clone())),
        };
        let Some(slot) = self.slots.get_mut(&id) else { return Err(Refusal::Retry("the unit is gone".to_owned())) };
        if let Some(group) = slot.group.as_ref().filter(|group| !group.leader_gone && slot.state.digest == digest)
            && slot.state.policy.ceilings != policy.ceilings
        {
            let group = (group.pid, group.session);
            let bound = slot.hold.bound(self.rooms.as_ref(), name, group, &policy.ceilings);
            bound.map_err(Refusal::Never)?;
        }
        slot.launch = Some(launch);
        if let Some(output) = &mut slot.output {
            output.set_policy(&policy);
        }
        self.feed(id, Event::Ensure { digest, policy, again });
        self.unit(id).ok_or_else(|| Refusal::Retry("the unit is gone".to_owned()))
    }

    /// What is to be done when the keeper ends.
    pub(super) fn leave(&self) {
        if let Ok(rooms) = &self.rooms {
            rooms.tidy();
        }
    }

    pub(super) fn stop(&mut self, name: &Name) {
        if let Some(id) = self.names.get(name).copied() {
            self.feed(id, Event::Stop);
        }
    }

    pub(super) fn ready(&mut self, name: &Name, pid: u32) {
        if let Some(id) = self.names.get(name).copied() {
            self.feed(id, Event::Ready { pid });
        }
    }

    pub(super) fn unwell(&mut self, name: &Name, pid: u32, why: String) {
        if let Some(id) = self.names.get(name).copied() {
            self.note(id, &format!("not well: {why}"));
            self.feed(id, Event::Unwell { pid: Some(pid), why });
        }
    }

    /// Signals the main process of a unit. It is in the state `Running` only while it was not waited for, so the number is its own.
    pub(super) fn signal_main(&mut self, name: &Name, pid: u32, signal: i32) -> Result<(), Refusal> {
        let process = self.names.get(name).and_then(|id| self.slots.get(id)).and_then(|slot| slot.state.process());
        let lives = process.filter(|p| p.pid == pid && find::lives(p.pid, p.start_ticks));
        let target = lives.and_then(|p| Pid::from_raw(p.pid.cast_signed())).zip(Signal::from_named_raw(signal));
        let Some((target, signal)) = target else {
            return Err(Refusal::Retry(format!("{name} does not run as process {pid}")));
        };
        rustix::process::kill_process(target, signal).map_err(|cause| Refusal::Retry(cause.to_string()))
    }

    pub(super) fn stop_strays(&mut self, name: &Name) {
        let grace = self.names.get(name).and_then(|id| self.slots.get(id)).map(|slot| slot.state.policy.stop_grace);
        let kill_at = clock::tick() + grace.unwrap_or(KILL_AGAIN);
        for stray in self.strays.iter_mut().filter(|stray| stray.found.unit == *name && stray.kill_at.is_none()) {
            stray.kill_at = Some(kill_at);
            stray.found.signal(Signal::TERM);
            stray.found.signal(Signal::CONT);
        }
    }

    pub(super) fn forget(&mut self, name: &Name) -> Result<(), Refusal> {
        let Some(id) = self.names.get(name).copied() else { return Ok(()) };
        if self.slots.get(&id).is_some_and(|slot| slot.state.alive()) {
            return Err(Refusal::Retry(format!("{name} still has a process")));
        }
        marks::remove(&self.folders.run, name).map_err(|cause| Refusal::Retry(cause.to_string()))?;
        self.set_timer(id, None);
        self.names.remove(name);
        if let Some(mut slot) = self.slots.remove(&id) {
            slot.hold.tidy();
            if let Some(output) = slot.output {
                output.remove();
            }
        }
        self.changed.insert(name.clone());
        Ok(())
    }
}

/// Has the loop wait for what becomes of a process. Unwatched, it is still asked when the process is gone.
fn watch_way(epoll: &OwnedFd, slot: &Slot, token: u64) {
    if let Some(way) = slot.hold.way() {
        let _ = epoll::add(epoll, way, EventData::new_u64(token), EventFlags::IN);
    }
}
