//! The restart table, checked exhaustively: every sequence of events up to a bounded length, in a world that keeps to the rules of
//! processes and timers. `TABLE_DEPTH=N` goes deeper.

use std::collections::BTreeSet;

use super::*;
use crate::keeper::marks::stopgap_policy;
use crate::ports::keeper::Notify;

/// So many events in a row; about a minute's worth of states lies two further.
const DEPTH: usize = 6;
/// How time passes before an event: not at all, less than any pause, and beyond every pause, window and limit.
const STEPS: [Millis; 3] = [Millis(0), Millis(40), Millis(6_000)];

/// A unit and what is true around it.
#[derive(Clone, Debug)]
struct World {
    state: State,
    now: Tick,
    /// Its main process lives.
    leader: bool,
    /// Others of its group live.
    others: bool,
    timer: Option<Tick>,
    /// The last wish was that it runs (or, with `false`, that it does not).
    wanted: bool,
    pid: u32,
    /// How it came to this, for whoever reads a failure.
    history: Vec<(Tick, Event)>,
}

fn policy(when: RestartWhen, notify: bool) -> Policy {
    let restart = Restart {
        when,
        initial: Millis(100),
        max: Millis(400),
        factor: 2,
        limit: 2,
        window: Millis(5_000),
        reset_after: Millis(5_000),
        ..stopgap_policy().restart
    };
    let notify = notify.then_some(Notify { start: Some(Millis(1_000)), watchdog: Some(Millis(500)) });
    Policy { restart, stop_grace: Millis(1_000), notify, ..stopgap_policy() }
}

impl World {
    fn new() -> Self {
        let state = State::new(Digest::of(b"a"), policy(RestartWhen::Always, false));
        Self {
            state,
            now: Tick(1_000_000),
            leader: false,
            others: false,
            timer: None,
            wanted: false,
            pid: 0,
            history: Vec::new(),
        }
    }

    /// What may happen now.
    fn possible(&self) -> Vec<Event> {
        let ensure = |text: &[u8], when, notify, again| Event::Ensure {
            digest: Digest::of(text),
            policy: policy(when, notify),
            again,
        };
        let mut events = vec![
            ensure(b"a", RestartWhen::Always, false, false),
            ensure(b"a", RestartWhen::Always, false, true),
            ensure(b"b", RestartWhen::OnFailure, true, false),
            ensure(b"a", RestartWhen::Never, false, false),
            Event::Stop,
        ];
        if self.leader {
            for left in [false, true] {
                events.push(Event::Exited { exit: Exit::Code(0), left });
                events.push(Event::Exited { exit: Exit::Signal(9), left });
            }
            events.push(Event::Ready { pid: self.pid });
            events.push(Event::Unwell { pid: Some(self.pid), why: "asked".to_owned() });
            events.push(Event::Notified);
            events.push(Event::Alive);
            events.push(Event::Extend(Millis(800)));
        }
        if self.others && !self.leader {
            events.push(Event::GroupGone);
        }
        if self.timer.is_some_and(|at| at <= self.now) {
            events.push(Event::TimerDue);
        }
        events
    }

    /// Lets it happen, and checks what must hold at every step.
    fn happen(&mut self, event: Event, spawns: bool) {
        match &event {
            Event::Ensure { .. } => self.wanted = true,
            Event::Stop => self.wanted = false,
            Event::Exited { left, .. } => (self.leader, self.others) = (false, *left),
            Event::GroupGone => self.others = false,
            Event::TimerDue => self.timer = None,
            _ => {}
        }
        self.history.push((self.now, event.clone()));
        let mut queue = VecDeque::from([event]);
        while let Some(event) = queue.pop_front() {
            let now = Now { tick: self.now, wall: Timestamp(0), dice: 100 };
            for effect in self.state.on(event, now) {
                match effect {
                    Effect::Spawn => {
                        assert!(!self.leader && !self.others, "started beside what still lives: {self:?}");
                        assert!(self.wanted, "started although it is to be stopped: {self:?}");
                        assert_eq!(self.state.place, Place::Starting);
                        self.pid += 1;
                        self.leader = spawns;
                        let process = Process { pid: self.pid, start_ticks: 0, started: Timestamp(0) };
                        queue.push_back(match spawns {
                            true => Event::Spawned(process),
                            false => Event::SpawnFailed("no".to_owned()),
                        });
                    }
                    Effect::Signal(_) => assert!(self.leader || self.others, "nobody to signal: {self:?}"),
                    Effect::KillGroup => assert!(self.leader || self.others, "nobody to kill: {self:?}"),
                    Effect::SetTimer(at) => self.timer = Some(at),
                    Effect::CancelTimer => self.timer = None,
                }
            }
        }
        self.check();
    }

    fn check(&self) {
        let state = &self.state;
        assert_ne!(state.place, Place::Starting, "an answer to Spawn was lost: {self:?}");
        assert_eq!(state.process().is_some(), self.leader, "it knows of its process: {self:?}");
        if let Some(process) = state.process() {
            assert_eq!(process.pid, self.pid);
        }
        match &state.place {
            Place::Stopping { .. } | Place::Clearing { .. } => {
                assert!(self.timer.is_some(), "what is stopped has no end to its grace: {self:?}");
            }
            Place::Waiting { at, .. } if state.known => {
                assert_eq!(self.timer, Some(*at), "nothing wakes it: {self:?}");
                let longest = state.policy.restart.max.0 * 11 / 10;
                assert!((*at - self.now).0 <= longest, "it waits too long: {self:?}");
            }
            Place::Running { due, .. } => assert_eq!(self.timer, *due, "a timer of nothing: {self:?}"),
            _ => {}
        }
        if !self.wanted {
            let may_run = matches!(state.place, Place::Running { .. } | Place::Waiting { .. } | Place::Ended);
            assert!(!may_run || state.digest != state.wanted || self.pid == 0, "it is to be stopped: {self:?}");
        }
        let limit = state.policy.restart.limit as usize;
        assert!(
            state.unhealthy.len() <= limit.max(2) && state.ready_crashes.len() <= READY_CRASHES,
            "it grows: {self:?}"
        );
    }

    /// Left alone, with kind processes, it comes to rest where it was wished to be.
    fn comes_to_rest(mut self) {
        for _ in 0..8 {
            let stopping = matches!(self.state.place, Place::Stopping { .. } | Place::Clearing { .. });
            if stopping && self.leader {
                self.happen(Event::Exited { exit: Exit::Signal(15), left: false }, true);
            } else if stopping {
                self.happen(Event::GroupGone, true);
            } else if let (Place::Waiting { .. }, Some(at)) = (&self.state.place, self.timer) {
                self.now = self.now.max(at);
                self.happen(Event::TimerDue, true);
            } else {
                break;
            }
        }
        let rest = &self.state.place;
        match self.wanted {
            true => assert!(matches!(rest, Place::Running { .. } | Place::Ended), "it does not run again: {self:?}"),
            false => assert!(matches!(rest, Place::Stopped), "it does not stop: {self:?}"),
        }
    }

    /// The same world at another time is the same world.
    fn key(&self) -> String {
        let mut twin = self.clone();
        let base = self.now.0;
        // Far in the past is all the same.
        let shift = |tick: &mut Tick| *tick = Tick((1_000_000 + tick.0).saturating_sub(base).max(1_000_000 - 6_000));
        twin.state.unhealthy.iter_mut().for_each(shift);
        twin.state.ready_crashes.iter_mut().for_each(shift);
        match &mut twin.state.place {
            Place::Running { since, due, .. } => {
                shift(since);
                due.iter_mut().for_each(shift);
            }
            Place::Waiting { at, .. } | Place::Clearing { next: Next::Restart { at, .. } } => shift(at),
            _ => {}
        }
        if let Place::Running { process, .. } | Place::Stopping { process, .. } = &mut twin.state.place {
            process.pid = 1;
        }
        // Counters that only count.
        (twin.state.crashes, twin.state.restarts) = (0, 0);
        twin.timer.iter_mut().for_each(shift);
        let rest = (twin.leader, twin.others, twin.timer, twin.wanted, self.pid == 0);
        format!("{} {rest:?}", serde_json::to_string(&twin.state).expect("plain data"))
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a knob of the test itself")]
fn no_sequence_of_events_breaks_a_rule() {
    let depth = std::env::var("TABLE_DEPTH").ok().and_then(|n| n.parse().ok()).unwrap_or(DEPTH);
    let mut frontier = vec![World::new()];
    let mut seen = BTreeSet::from([World::new().key()]);
    let mut transitions = 0_u64;
    for _ in 0..depth {
        let mut next = Vec::new();
        for world in &frontier {
            for step in STEPS {
                let mut later = world.clone();
                later.now = later.now + step;
                for event in later.possible() {
                    for spawns in [true, false] {
                        let mut after = later.clone();
                        after.happen(event.clone(), spawns);
                        transitions += 1;
                        if seen.insert(after.key()) {
                            after.clone().comes_to_rest();
                            next.push(after);
                        }
                    }
                }
            }
        }
        frontier = next;
    }
    assert!(seen.len() > 1_000 && transitions > 50_000, "{} states, {transitions} transitions", seen.len());
}
