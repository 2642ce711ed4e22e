//! The truth of the pretend world: a clock that moves when told, files, processes with marks, a keeper, services.json. It also
//! watches over what must never happen, after every change.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::deliveries::Queue;
use super::storage::Blobs;
use super::tokens::Tokens;
use super::town::Town;
use crate::keeper::table::{Effect, Event, Now, State};
use crate::model::digest::Digest;
use crate::model::id::Name;
use crate::model::time::{Tick, Timestamp};
use crate::model::unit::Millis;
use crate::ports::keeper::{CLOCK_TICK, Exit, Launch, Policy, Process, Unit};
use crate::ports::probes::Role;
use crate::ports::registry::Row;

/// How a pretend program behaves; the second word of its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Listens after a moment, and goes on.
    Well,
    /// Listens late.
    Slow,
    /// Ends at once with code 1.
    Crash,
    /// Ends after a moment with code 0.
    Once,
    /// Listens on another port than told, until it was told twice.
    Elsewhere,
    /// Does not stop when asked to.
    Stubborn,
    /// Its first process stops answering after a while.
    Hangs,
    /// Writes one of its own files as it starts: `/tree/own.conf`.
    Writes,
}

impl Manner {
    fn of(argv: &[String]) -> Self {
        match argv.get(1).map(String::as_str) {
            Some("slow") => Self::Slow,
            Some("crash") => Self::Crash,
            Some("once") => Self::Once,
            Some("elsewhere") => Self::Elsewhere,
            Some("stubborn") => Self::Stubborn,
            Some("hangs") => Self::Hangs,
            Some("writes") => Self::Writes,
            _ => Self::Well,
        }
    }
}

/// A process.
#[derive(Clone, Debug)]
pub struct Proc {
    /// The unit in its mark; `None` for somebody else's process.
    pub unit: Option<Name>,
    pub digest: Option<Digest>,
    pub manner: Manner,
    pub started: Tick,
    pub port: Option<u16>,
    pub ready_at: Tick,
    /// When it will end, and how.
    pub ends: Option<(Tick, Exit)>,
}

/// A process that hangs does so after this long.
const HANGS_AFTER: Millis = Millis(300);

impl Proc {
    /// It does not answer any more.
    pub fn hangs(&self, now: Tick) -> bool {
        self.manner == Manner::Hangs && now - self.started >= HANGS_AFTER
    }
}

/// A unit of the pretend keeper, around the real restart table.
#[derive(Clone, Debug)]
pub struct Kept {
    pub state: State,
    timer: Option<Tick>,
    launch: Option<Launch>,
}

/// A manifest file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    Text(String),
    Unreadable,
}

/// Everything there is.
#[derive(Clone, Debug, Default)]
pub struct Earth {
    pub now: Tick,
    /// How far somebody has moved the wall clock, in milliseconds.
    pub wall_moved: i64,
    /// `None`: the folder is missing.
    pub tree: Option<BTreeMap<String, Page>>,
    pub other_files: BTreeMap<PathBuf, String>,
    pub git_busy: bool,
    /// Numbers of users, and of their groups, by name.
    pub users: BTreeMap<String, u32>,
    pub procs: BTreeMap<u32, Proc>,
    pub keeper: Option<BTreeMap<Name, Kept>>,
    pub rows: Vec<Row>,
    next_pid: u32,
    dice: u64,
    elsewhere: BTreeMap<Name, u32>,
    /// Every process of ours that was ended because the engine or keeper wanted it, by unit.
    pub stops: BTreeMap<Name, u64>,
    /// How often a unit was told that its files changed.
    pub reloads: BTreeMap<Name, u64>,
    /// Starts by unit.
    pub starts: BTreeMap<Name, u64>,
    pub blobs: Blobs,
    pub queue: Queue,
    pub tokens: Tokens,
    pub town: Town,
    /// What must never happen and did.
    pub broken: Vec<String>,
}

impl Earth {
    pub fn new(seed: u64) -> Self {
        Self {
            tree: Some(BTreeMap::new()),
            users: BTreeMap::from([("ann".to_owned(), 1000)]),
            next_pid: 100,
            dice: seed | 1,
            ..Self::default()
        }
    }

    pub fn roll(&mut self) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice
    }

    pub fn wall(&self) -> Timestamp {
        Timestamp(1_000_000_000_000 + self.wall_moved + i64::try_from(self.now.0).unwrap_or(i64::MAX))
    }

    fn moment(&mut self) -> Now {
        Now { tick: self.now, wall: self.wall(), dice: self.roll() }
    }

    /// A stranger takes a port.
    pub fn squat(&mut self, port: u16) -> u32 {
        let pid = self.pid();
        let proc = Proc {
            unit: None,
            digest: None,
            manner: Manner::Well,
            started: self.now,
            port: Some(port),
            ready_at: self.now,
            ends: None,
        };
        self.procs.insert(pid, proc);
        pid
    }

    fn pid(&mut self) -> u32 {
        self.next_pid += 1;
        self.next_pid
    }

    /// Live processes of a unit.
    pub fn live(&self, name: &Name) -> Vec<u32> {
        self.procs.iter().filter(|(_, p)| p.unit.as_ref() == Some(name)).map(|(pid, _)| *pid).collect()
    }

    /// The keeper, started (and adopting what runs) when it is not there.
    pub fn keeper(&mut self) -> &mut BTreeMap<Name, Kept> {
        if self.keeper.is_none() {
            let mut units = BTreeMap::new();
            for (pid, proc) in &self.procs {
                let (Some(name), Some(digest)) = (&proc.unit, &proc.digest) else { continue };
                let process = Process { pid: *pid, start_ticks: proc.started.0 / CLOCK_TICK.0, started: self.wall() };
                let state = State::adopted(digest.clone(), default_policy(), process, self.now);
                units.insert(name.clone(), Kept { state, timer: None, launch: None });
            }
            self.keeper = Some(units);
        }
        self.keeper.get_or_insert_with(BTreeMap::new)
    }

    /// `kill -9` of the keeper: its children live on.
    pub fn kill_keeper(&mut self) {
        self.keeper = None;
    }

    /// `kill -9` of a module.
    pub fn kill(&mut self, pid: u32) {
        if let Some(proc) = self.procs.get_mut(&pid) {
            proc.ends = Some((self.now, Exit::Signal(9)));
        }
        self.settle();
    }

    pub fn ensure(&mut self, name: &Name, launch: &Launch, policy: &Policy, again: bool) -> Unit {
        let fresh = Kept { state: State::new(launch.digest.clone(), policy.clone()), timer: None, launch: None };
        let kept = self.keeper().entry(name.clone()).or_insert(fresh);
        kept.launch = Some(launch.clone());
        self.event(name, Event::Ensure { digest: launch.digest.clone(), policy: policy.clone(), again });
        self.unit(name).expect("it was just put there")
    }

    pub fn event(&mut self, name: &Name, event: Event) {
        let now = self.moment();
        let Some(kept) = self.keeper().get_mut(name) else { return };
        let effects = kept.state.on(event, now);
        for effect in effects {
            self.effect(name, effect);
        }
        self.watch_over();
    }

    fn effect(&mut self, name: &Name, effect: Effect) {
        match effect {
            Effect::Spawn => self.spawn(name),
            Effect::Signal(_) => self.signal(name, false),
            Effect::KillGroup => self.signal(name, true),
            Effect::SetTimer(at) => {
                if let Some(kept) = self.keeper().get_mut(name) {
                    kept.timer = Some(at);
                }
            }
            Effect::CancelTimer => {
                if let Some(kept) = self.keeper().get_mut(name) {
                    kept.timer = None;
                }
            }
        }
    }

    fn spawn(&mut self, name: &Name) {
        let Some(launch) = self.keeper().get(name).and_then(|k| k.launch.clone()) else {
            self.broken.push(format!("{name}: started without a launch"));
            return;
        };
        let mut manner = Manner::of(&launch.argv);
        let wanted: Option<u16> = launch.env.get("PORT").and_then(|p| p.reveal().parse().ok());
        let told = self.elsewhere.entry(name.clone()).or_default();
        *told += 1;
        let port = match (manner, *told) {
            (Manner::Elsewhere, 1) => wanted.map(|p| p.wrapping_add(10_000)),
            _ => wanted,
        };
        if manner == Manner::Hangs && *told > 1 {
            manner = Manner::Well;
        }
        if manner == Manner::Writes {
            self.other_files.insert(PathBuf::from("/tree/own.conf"), told.to_string());
        }
        let delay = if manner == Manner::Slow { 1_500 } else { 20 };
        let ends = match manner {
            Manner::Crash => Some((self.now + Millis(5), Exit::Code(1))),
            Manner::Once => Some((self.now + Millis(50), Exit::Code(0))),
            _ => None,
        };
        let pid = self.pid();
        // A port that somebody holds cannot be had: the program ends, as programs do.
        let taken = port.is_some_and(|p| self.procs.values().any(|q| q.port == Some(p)));
        let ends = if taken { Some((self.now + Millis(5), Exit::Code(98))) } else { ends };
        let proc = Proc {
            unit: Some(name.clone()),
            digest: Some(launch.digest.clone()),
            manner,
            started: self.now,
            port: port.filter(|_| !taken),
            ready_at: self.now + Millis(delay),
            ends,
        };
        self.procs.insert(pid, proc);
        *self.starts.entry(name.clone()).or_default() += 1;
        let process = Process { pid, start_ticks: self.now.0 / CLOCK_TICK.0, started: self.wall() };
        self.event(name, Event::Spawned(process));
    }

    fn signal(&mut self, name: &Name, hard: bool) {
        let now = self.now;
        *self.stops.entry(name.clone()).or_default() += 1;
        for proc in self.procs.values_mut().filter(|p| p.unit.as_ref() == Some(name)) {
            if hard {
                proc.ends = Some((now, Exit::Signal(9)));
            } else if proc.manner != Manner::Stubborn {
                proc.ends = Some((now + Millis(10), Exit::Signal(15)));
            }
        }
    }

    /// Lets happen what is due now.
    pub fn settle(&mut self) {
        // Each round ends a process or fires a timer; both are finite at one moment.
        for _ in 0..10_000 {
            let due = self.procs.iter().find(|(_, p)| p.ends.as_ref().is_some_and(|(at, _)| *at <= self.now));
            if let Some((pid, unit, exit)) = due.map(|(pid, p)| (*pid, p.unit.clone(), p.ends.clone().map(|(_, e)| e)))
            {
                self.procs.remove(&pid);
                if let (Some(unit), Some(exit)) = (unit, exit)
                    && self.keeper.is_some()
                {
                    self.event(&unit, Event::Exited { exit, left: false });
                }
                continue;
            }
            let now = self.now;
            let timer = self.keeper.as_mut().and_then(|units| {
                units.iter_mut().find(|(_, k)| k.timer.is_some_and(|at| at <= now)).map(|(name, kept)| {
                    kept.timer = None;
                    name.clone()
                })
            });
            match timer {
                Some(name) => self.event(&name, Event::TimerDue),
                None => return,
            }
        }
        self.broken.push("the world does not come to rest".to_owned());
    }

    /// When something happens next by itself.
    fn next_event(&self) -> Option<Tick> {
        let ends = self.procs.values().filter_map(|p| p.ends.as_ref().map(|(at, _)| *at));
        let hang = |p: &Proc| (p.manner == Manner::Hangs).then(|| p.started + HANGS_AFTER);
        let hangs = self.procs.values().filter_map(hang);
        let ready = self.procs.values().map(|p| p.ready_at).chain(hangs).filter(|at| *at > self.now);
        let timers = self.keeper.iter().flat_map(|u| u.values().filter_map(|k| k.timer));
        ends.chain(ready).chain(timers).filter(|at| *at > self.now).min()
    }

    /// Moves the clock: to the next event if one comes within `at_most`, else by `at_most`. Says whether an event came.
    pub fn advance(&mut self, at_most: Millis) -> bool {
        let limit = self.now + at_most;
        let event = self.next_event().filter(|at| *at <= limit);
        self.now = event.unwrap_or(limit);
        self.settle();
        event.is_some()
    }

    /// The units as the keeper lists them.
    pub fn units(&mut self) -> Vec<Unit> {
        let names: Vec<Name> = self.keeper().keys().cloned().collect();
        names.iter().filter_map(|n| self.unit(n)).collect()
    }

    fn unit(&mut self, name: &Name) -> Option<Unit> {
        let kept = self.keeper().get(name)?.clone();
        let own = kept.state.process().map(|p| p.pid);
        let (last_exit, last_exit_at) = kept.state.last_exit.clone().unzip();
        Some(Unit {
            name: name.clone(),
            digest: kept.state.digest.clone(),
            policy: kept.state.policy.clone(),
            phase: kept.state.phase(),
            process: kept.state.process().cloned(),
            strays: self.live(name).into_iter().filter(|pid| Some(*pid) != own).collect(),
            crashes: kept.state.crashes,
            restarts: kept.state.restarts,
            last_exit,
            last_exit_at,
            ready: kept.state.ready(),
            notified: kept.state.notified(),
            held_by: None,
            status: None,
            known: kept.state.known,
        })
    }

    /// Whether a probe of this role has failed often enough: what hangs fails at once.
    pub fn exhausted(&self, name: &Name, role: Role) -> bool {
        let hangs = |p: &Proc| p.unit.as_ref() == Some(name) && p.hangs(self.now);
        role == Role::Liveness && self.procs.values().any(hangs)
    }

    /// Sets a row of services.json, as a module would.
    pub fn set_row(&mut self, name: &str, port: u16) {
        let row = Row { name: name.to_owned(), port: Some(port), rest: Map::new() };
        match self.rows.iter_mut().find(|r| r.name == name) {
            Some(old) => old.port = Some(port),
            None => self.rows.push(row),
        }
    }

    pub fn put_row(&mut self, name: &str, fields: &Map<String, Value>) -> bool {
        let port = fields.get("port").and_then(Value::as_u64).and_then(|p| u16::try_from(p).ok());
        let same = self.rows.iter().any(|r| r.name == name && r.port == port);
        if let (false, Some(port)) = (same, port) {
            self.set_row(name, port);
        }
        !same
    }

    /// Safety, after every change.
    pub fn watch_over(&mut self) {
        let mut counts: BTreeMap<&Name, u32> = BTreeMap::new();
        for proc in self.procs.values() {
            if let Some(unit) = &proc.unit {
                *counts.entry(unit).or_default() += 1;
            }
        }
        for (name, count) in counts {
            if count > 1 {
                self.broken.push(format!("{count} processes of {name} at {}", self.now.0));
            }
        }
    }
}

/// The policy an adopting keeper reads from its marks; here the usual one.
fn default_policy() -> Policy {
    use crate::model::unit::Bytes;
    use crate::ports::keeper::{Restart, RestartWhen};
    Policy {
        restart: Restart {
            when: RestartWhen::Always,
            initial: Millis(100),
            max: Millis(300_000),
            factor: 2,
            limit: 5,
            window: Millis(60_000),
            reset_after: Millis(60_000),
            success: Vec::new(),
            fatal: Vec::new(),
        },
        stop_signal: 15,
        stop_grace: Millis(10_000),
        log_max_size: Bytes(10 << 20),
        log_keep: 5,
        log_max_age: None,
        notify: None,
        ceilings: Default::default(),
    }
}
