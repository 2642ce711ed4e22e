//! The restart table, cell by cell, and its invariants in a small world of chance.

use proptest::prelude::*;

use super::*;
use crate::keeper::marks::stopgap_policy;
use crate::ports::keeper::Notify;

/// Dice that leave a pause as it is.
const NO_JITTER: u64 = 100;

fn now(tick: u64) -> Now {
    Now { tick: Tick(tick), wall: Timestamp(1_000_000 + tick.cast_signed()), dice: NO_JITTER }
}

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn policy(when: RestartWhen) -> Policy {
    let restart = Restart {
        when,
        initial: Millis(100),
        max: Millis(1_000),
        factor: 2,
        limit: 4,
        window: Millis(10_000),
        reset_after: Millis(5_000),
        ..stopgap_policy().restart
    };
    Policy { restart, stop_grace: Millis(3_000), ..stopgap_policy() }
}

fn process(pid: u32) -> Process {
    Process { pid, start_ticks: 1, started: Timestamp(0) }
}

fn ensure(text: &str, when: RestartWhen) -> Event {
    Event::Ensure { digest: digest(text), policy: policy(when), again: false }
}

fn again(text: &str) -> Event {
    Event::Ensure { digest: digest(text), policy: policy(RestartWhen::Always), again: true }
}

fn exited(code: i32) -> Event {
    Event::Exited { exit: Exit::Code(code), left: false }
}

/// A unit that was started at tick 0 with pid 1.
fn running(when: RestartWhen) -> State {
    let mut state = State::new(digest("a"), policy(when));
    assert_eq!(state.on(ensure("a", when), now(0)), [Effect::Spawn]);
    assert_eq!(state.on(Event::Spawned(process(1)), now(0)), []);
    assert_eq!(state.phase(), Phase::Running);
    state
}

/// A unit that crashed before it was ready, at tick 10.
fn backing_off() -> State {
    let mut state = running(RestartWhen::Always);
    assert_eq!(state.on(exited(1), now(10)), [Effect::SetTimer(Tick(110))]);
    assert_eq!(state.phase(), Phase::Backoff { retry_at: Timestamp(1_000_110) });
    state
}

#[test]
fn the_same_again_changes_nothing() {
    let mut state = running(RestartWhen::Always);
    assert_eq!(state.on(ensure("a", RestartWhen::Never), now(5)), []);
    assert_eq!(state.policy.restart.when, RestartWhen::Never);
    assert_eq!(state.phase(), Phase::Running);
}

#[test]
fn a_ready_unit_restarts_at_once() {
    let mut state = running(RestartWhen::Always);
    assert_eq!(state.on(Event::Ready { pid: 2 }, now(1)), []);
    assert!(!state.ready(), "another process was told to be ready");
    state.on(Event::Ready { pid: 1 }, now(1));
    assert!(state.ready());
    assert_eq!(state.on(exited(1), now(2)), [Effect::Spawn]);
    assert_eq!((state.crashes, state.restarts), (1, 1));
}

#[test]
fn a_unit_that_lived_long_restarts_at_once() {
    let mut state = running(RestartWhen::Always);
    assert_eq!(state.on(exited(1), now(5_000)), [Effect::Spawn]);
}

#[test]
fn pauses_grow_and_then_it_loops_for_ever() {
    let mut state = running(RestartWhen::Always);
    let mut tick = 0;
    let mut pauses = Vec::new();
    for _ in 0..7 {
        let effects = state.on(exited(1), now(tick));
        let [Effect::SetTimer(at)] = effects[..] else { panic!("{effects:?}") };
        pauses.push(at.0 - tick);
        tick = at.0;
        assert_eq!(state.on(Event::TimerDue, now(tick)), [Effect::Spawn]);
        state.on(Event::Spawned(process(2)), now(tick));
    }
    assert_eq!(pauses, [100, 200, 400, 1_000, 1_000, 1_000, 1_000]);
    state.on(exited(1), now(tick));
    assert!(matches!(state.phase(), Phase::Looping { .. }));
    state.on(Event::TimerDue, now(tick + 1_000));
    state.on(Event::Spawned(process(3)), now(tick + 1_000));
    // Health ends the loop: the next crash is the first one.
    state.on(Event::Ready { pid: 3 }, now(tick + 1_001));
    assert_eq!(state.crashes, 0);
    assert_eq!(state.on(exited(1), now(tick + 1_002)), [Effect::Spawn]);
    state.on(Event::Spawned(process(4)), now(tick + 1_002));
    assert_eq!(state.on(exited(1), now(tick + 1_003)), [Effect::SetTimer(Tick(tick + 1_103))]);
}

#[test]
fn crashes_that_are_far_apart_are_no_loop() {
    let mut state = running(RestartWhen::Always);
    let mut tick = 0;
    for _ in 0..10 {
        // Each lives for 4 s: not healthy yet, but four of them do not fit into the window.
        tick += 4_000;
        let effects = state.on(exited(1), now(tick));
        let [Effect::SetTimer(at)] = effects[..] else { panic!("{effects:?}") };
        assert!(matches!(state.phase(), Phase::Backoff { .. }));
        tick = at.0;
        state.on(Event::TimerDue, now(tick));
        state.on(Event::Spawned(process(2)), now(tick));
    }
}

#[test]
fn ready_units_that_crash_without_end_are_slowed_down() {
    let mut state = running(RestartWhen::Always);
    for n in 1..READY_CRASHES as u64 {
        state.on(Event::Ready { pid: 1 }, now(n));
        assert_eq!(state.on(exited(1), now(n)), [Effect::Spawn]);
        state.on(Event::Spawned(process(1)), now(n));
    }
    state.on(Event::Ready { pid: 1 }, now(500));
    assert_eq!(state.on(exited(1), now(500)), [Effect::SetTimer(Tick(600))]);
}

#[test]
fn policies_are_kept() {
    for (when, exit, phase) in [
        (RestartWhen::Never, Exit::Code(1), Phase::Ended),
        (RestartWhen::Never, Exit::Unknown, Phase::Ended),
        (RestartWhen::OnFailure, Exit::Code(0), Phase::Ended),
    ] {
        let mut state = running(when);
        assert_eq!(state.on(Event::Exited { exit, left: false }, now(1)), []);
        assert_eq!(state.phase(), phase);
        assert_eq!(state.on(ensure("a", when), now(2)), [], "what has ended stays ended");
        assert_eq!(state.on(ensure("b", when), now(2)), [Effect::Spawn]);
    }
    for exit in [Exit::Code(1), Exit::Signal(9), Exit::Unknown] {
        let mut state = running(RestartWhen::OnFailure);
        state.on(Event::Exited { exit, left: false }, now(1));
        assert!(matches!(state.phase(), Phase::Backoff { .. }));
    }
    let mut state = running(RestartWhen::Never);
    state.on(exited(0), now(1));
    assert_eq!(state.on(ensure("a", RestartWhen::Always), now(2)), [Effect::Spawn], "it should always run now");
}

#[test]
fn a_change_stops_the_old_one_first() {
    let mut state = running(RestartWhen::Always);
    let effects = state.on(ensure("b", RestartWhen::Always), now(10));
    assert_eq!(effects, [Effect::Signal(15), Effect::SetTimer(Tick(3_010))]);
    assert_eq!((state.phase(), &state.digest), (Phase::Stopping, &digest("a")));
    assert_eq!(state.on(ensure("b", RestartWhen::Always), now(11)), []);
    assert_eq!(state.on(exited(0), now(20)), [Effect::CancelTimer, Effect::Spawn]);
    assert_eq!((state.crashes, state.restarts, &state.digest), (0, 0, &digest("b")));
}

#[test]
fn again_replaces_the_same() {
    let mut state = running(RestartWhen::Always);
    assert_eq!(state.on(again("a"), now(10)).len(), 2);
    assert_eq!(state.on(exited(0), now(20)), [Effect::CancelTimer, Effect::Spawn]);
    let mut state = backing_off();
    assert_eq!(state.on(again("a"), now(20)), [Effect::CancelTimer, Effect::Spawn]);
    assert_eq!(state.crashes, 0);
}

#[test]
fn what_does_not_stop_is_killed_again_and_again_and_never_replaced() {
    let mut state = running(RestartWhen::Always);
    state.on(ensure("b", RestartWhen::Always), now(10));
    for tick in [3_010, 4_010, 5_010] {
        assert_eq!(state.on(Event::TimerDue, now(tick)), [Effect::KillGroup, Effect::SetTimer(Tick(tick + 1_000))]);
        assert_eq!(state.phase(), Phase::Stopping);
    }
    assert_eq!(state.on(Event::Exited { exit: Exit::Signal(9), left: true }, now(5_020)), []);
    assert_eq!(state.on(Event::TimerDue, now(6_010)), [Effect::KillGroup, Effect::SetTimer(Tick(7_010))]);
    assert_eq!(state.on(Event::GroupGone, now(6_020)), [Effect::CancelTimer, Effect::Spawn]);
}

#[test]
fn what_a_crash_leaves_is_cleared_before_the_restart() {
    let mut state = running(RestartWhen::Always);
    state.on(Event::Ready { pid: 1 }, now(1));
    let effects = state.on(Event::Exited { exit: Exit::Code(1), left: true }, now(2));
    assert_eq!(effects, [Effect::Signal(15), Effect::SetTimer(Tick(2_002))]);
    assert_eq!((state.phase(), state.process()), (Phase::Stopping, None));
    assert_eq!(state.on(ensure("a", RestartWhen::Always), now(3)), []);
    assert_eq!(state.on(Event::TimerDue, now(2_002)), [Effect::KillGroup, Effect::SetTimer(Tick(3_002))]);
    assert_eq!(state.on(Event::GroupGone, now(2_010)), [Effect::CancelTimer, Effect::Spawn]);
    assert_eq!(state.restarts, 1);
}

#[test]
fn stop_wins_wherever_it_comes() {
    let mut state = running(RestartWhen::Always);
    assert_eq!(state.on(Event::Stop, now(1)), [Effect::Signal(15), Effect::SetTimer(Tick(3_001))]);
    assert_eq!(state.on(Event::Stop, now(2)), [], "told once");
    assert_eq!(state.on(exited(0), now(3)), [Effect::CancelTimer]);
    assert_eq!(state.phase(), Phase::Stopped);
    assert_eq!(state.on(Event::Stop, now(4)), []);
    assert_eq!(state.on(ensure("a", RestartWhen::Always), now(5)), [Effect::Spawn]);

    let mut state = backing_off();
    assert_eq!(state.on(Event::Stop, now(20)), [Effect::CancelTimer]);
    assert_eq!(state.phase(), Phase::Stopped);
    assert_eq!(state.on(Event::TimerDue, now(110)), [], "a late timer");

    let mut state = running(RestartWhen::Always);
    state.on(ensure("b", RestartWhen::Always), now(1));
    state.on(Event::Stop, now(2));
    state.on(exited(0), now(3));
    assert_eq!(state.phase(), Phase::Stopped, "the wanted successor is not wanted any more");

    let mut state = running(RestartWhen::Always);
    state.on(Event::Stop, now(1));
    state.on(ensure("a", RestartWhen::Always), now(2));
    assert_eq!(state.on(exited(0), now(3)), [Effect::CancelTimer, Effect::Spawn], "wanted again meanwhile");
}

#[test]
fn a_pause_goes_on_unless_something_new_is_wanted() {
    let mut state = backing_off();
    assert_eq!(state.on(ensure("a", RestartWhen::Always), now(20)), [Effect::SetTimer(Tick(110))]);
    assert_eq!(state.on(ensure("b", RestartWhen::Always), now(21)), [Effect::CancelTimer, Effect::Spawn]);
    assert_eq!(state.crashes, 0);

    let mut state = backing_off();
    assert_eq!(state.on(ensure("a", RestartWhen::Never), now(20)), [Effect::CancelTimer]);
    assert_eq!(state.phase(), Phase::Ended);

    let mut state = backing_off();
    let shorter =
        Policy { restart: Restart { max: Millis(20), ..state.policy.restart.clone() }, ..state.policy.clone() };
    let event = Event::Ensure { digest: digest("a"), policy: shorter, again: false };
    assert_eq!(state.on(event, now(20)), [Effect::SetTimer(Tick(40))]);
}

#[test]
fn a_timer_that_is_early_is_set_again() {
    let mut state = backing_off();
    assert_eq!(state.on(Event::TimerDue, now(109)), [Effect::SetTimer(Tick(110))]);
    assert_eq!(state.on(Event::TimerDue, now(110)), [Effect::Spawn]);
}

#[test]
fn what_cannot_be_started_counts_as_a_crash() {
    let mut state = State::new(digest("a"), policy(RestartWhen::Always));
    state.on(ensure("a", RestartWhen::Always), now(0));
    assert_eq!(state.on(Event::SpawnFailed("no such file".into()), now(0)), [Effect::SetTimer(Tick(100))]);
    assert!(matches!(&state.last_exit, Some((Exit::NotSpawned(why), _)) if why == "no such file"));
    assert_eq!(state.process(), None);
    let mut state = State::new(digest("a"), policy(RestartWhen::Never));
    state.on(ensure("a", RestartWhen::Never), now(0));
    assert_eq!(state.on(Event::SpawnFailed("no such file".into()), now(0)), []);
    assert_eq!(state.phase(), Phase::Ended);
}

#[test]
fn an_adopted_unit_is_not_restarted_before_its_launch_is_known() {
    let adopted = || State::adopted(digest("a"), policy(RestartWhen::Always), process(1), Tick(0));
    let mut state = adopted();
    state.on(Event::Ready { pid: 1 }, now(1));
    assert_eq!(state.on(Event::Exited { exit: Exit::Unknown, left: false }, now(2)), []);
    assert!(matches!(state.phase(), Phase::Backoff { .. }));
    assert_eq!(state.on(Event::TimerDue, now(9_999)), []);
    assert_eq!(state.on(ensure("a", RestartWhen::Always), now(10_000)), [Effect::CancelTimer, Effect::Spawn]);

    let mut state = adopted();
    assert_eq!(state.on(ensure("a", RestartWhen::Always), now(1)), [], "only the launch was missing");
    assert!(state.known);
    let mut state = adopted();
    assert_eq!(state.on(ensure("b", RestartWhen::Always), now(1)).len(), 2, "it is replaced");
    let mut state = adopted();
    assert_eq!(state.on(Event::Stop, now(1)).len(), 2, "it can be stopped all the same");
}

#[test]
fn jitter_is_a_tenth_at_most() {
    for dice in [0, 1, 100, 200, 201, u64::MAX] {
        let pause = jittered(Millis(1_000), dice).0;
        assert!((900..=1_100).contains(&pause), "{pause}");
    }
    assert_eq!(jittered(Millis(u64::MAX), 200).0, u64::MAX);
    let steep = Restart { factor: u32::MAX, ..policy(RestartWhen::Always).restart };
    assert_eq!(pause(&steep, u32::MAX), Millis(1_000));
}

/// What may happen to a unit.
#[derive(Clone, Debug)]
enum Deed {
    Ensure {
        launch: u8,
        when: u8,
        again: bool,
    },
    Stop,
    /// The main process ends by itself; perhaps its group does not.
    Crash {
        code: i32,
        left: bool,
    },
    /// What is left of the group ends.
    Clear,
    Ready,
    /// Time passes.
    Wait(u64),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        (0..3_u8, 0..3_u8, prop::bool::weighted(0.1)).prop_map(|(launch, when, again)| Deed::Ensure {
            launch,
            when,
            again
        }),
        Just(Deed::Stop),
        (0..2, prop::bool::weighted(0.3)).prop_map(|(code, left)| Deed::Crash { code, left }),
        Just(Deed::Clear),
        Just(Deed::Ready),
        (0..5_000_u64).prop_map(Deed::Wait),
    ]
}

/// A machine with one unit: does what the table says, and holds it to its promises.
struct Machine {
    state: State,
    now: u64,
    dice: u64,
    timer: Option<Tick>,
    /// The main process, and whether others of its group live.
    leader: Option<u32>,
    others: bool,
    /// Whether processes end when they are told to.
    obedient: bool,
    /// Whether programs can be started.
    startable: bool,
    spawned: u32,
}

impl Machine {
    fn new(obedient: bool, startable: bool) -> Self {
        let state = State::new(digest("0"), policy(RestartWhen::Always));
        Self { state, now: 0, dice: 7, timer: None, leader: None, others: false, obedient, startable, spawned: 0 }
    }

    /// Feeds an event, and then what follows from its effects, as the keeper does.
    fn feed(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let effects = self.state.on(event, Now { dice: self.dice >> 33, ..now(self.now) });
            assert!(effects.iter().filter(|e| **e == Effect::Spawn).count() <= 1);
            for effect in effects {
                match effect {
                    Effect::Spawn => events.push_back(self.spawn()),
                    Effect::Signal(_) if !self.obedient => {}
                    Effect::Signal(_) | Effect::KillGroup => {
                        let number = if effect == Effect::KillGroup { 9 } else { 15 };
                        let others = std::mem::take(&mut self.others);
                        if self.leader.take().is_some() {
                            events.push_back(Event::Exited { exit: Exit::Signal(number), left: false });
                        } else if others {
                            events.push_back(Event::GroupGone);
                        }
                    }
                    Effect::SetTimer(at) => self.timer = Some(at),
                    Effect::CancelTimer => self.timer = None,
                }
            }
        }
        self.check();
    }

    fn spawn(&mut self) -> Event {
        assert!(self.leader.is_none() && !self.others, "two of one unit");
        assert!(self.state.known, "started without a launch");
        assert_eq!(self.state.digest, self.state.wanted);
        if !self.startable {
            return Event::SpawnFailed("no".into());
        }
        self.spawned += 1;
        self.leader = Some(self.spawned);
        Event::Spawned(process(self.spawned))
    }

    /// What holds after every event.
    fn check(&self) {
        assert_eq!(self.state.process().map(|p| p.pid), self.leader, "one process, the last that was spawned");
        let alive = self.leader.is_some() || self.others;
        match &self.state.place {
            Place::Stopped | Place::Ended => assert!(!alive && self.timer.is_none()),
            Place::Waiting { at, .. } => assert!(!alive && (self.timer == Some(*at) || !self.state.known)),
            Place::Starting => panic!("left in the middle"),
            Place::Running { .. } => assert!(self.leader.is_some() && self.timer.is_none()),
            Place::Stopping { .. } | Place::Clearing { .. } => {
                assert!(alive && self.timer.is_some(), "nothing would ever end this");
            }
        }
    }

    fn wait(&mut self, span: u64) {
        let end = self.now + span;
        while let Some(at) = self.timer
            && at.0 <= end
        {
            self.now = self.now.max(at.0);
            self.timer = None;
            self.feed(Event::TimerDue);
        }
        self.now = end;
    }

    fn act(&mut self, deed: &Deed) {
        match *deed {
            Deed::Ensure { launch, when, again } => {
                let when = [RestartWhen::Always, RestartWhen::OnFailure, RestartWhen::Never][usize::from(when)];
                let digest = digest(&launch.to_string());
                self.feed(Event::Ensure { digest: digest.clone(), policy: policy(when), again });
                assert_eq!(self.state.wanted, digest);
            }
            Deed::Stop => {
                self.feed(Event::Stop);
                assert!(matches!(self.state.phase(), Phase::Stopped | Phase::Stopping));
            }
            Deed::Crash { code, left } if self.leader.take().is_some() => {
                self.others = left;
                self.feed(Event::Exited { exit: Exit::Code(code), left });
            }
            Deed::Clear if self.leader.is_none() && std::mem::take(&mut self.others) => self.feed(Event::GroupGone),
            Deed::Ready => self.feed(Event::Ready { pid: self.spawned }),
            Deed::Wait(span) => self.wait(span),
            Deed::Crash { .. } | Deed::Clear => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn promises_hold_whatever_happens(
        deeds in prop::collection::vec(deed(), 1..60),
        obedient: bool,
        startable in prop::bool::weighted(0.9),
    ) {
        let mut machine = Machine::new(obedient, startable);
        for deed in &deeds {
            machine.act(deed);
        }
        // Whatever went before: a stop leads to rest, and nothing of it is left to wake up.
        machine.act(&Deed::Stop);
        machine.wait(20_000);
        prop_assert_eq!(machine.state.phase(), Phase::Stopped);
        prop_assert_eq!(machine.timer, None);
        let spawned = machine.spawned;
        machine.wait(1_000_000);
        prop_assert_eq!(machine.spawned, spawned);
        // And what always runs, runs in the end, or is retried for ever.
        machine.act(&Deed::Ensure { launch: 0, when: 0, again: false });
        machine.wait(100_000);
        prop_assert_eq!(machine.leader.is_some(), startable);
        prop_assert!(startable || machine.timer.is_some());
    }
}

/// A unit that must say READY=1 within 2 s and WATCHDOG=1 every second after that, started at tick 0.
fn speaking() -> State {
    let notify = Notify { start: Some(Millis(2_000)), watchdog: Some(Millis(1_000)) };
    let policy = Policy { notify: Some(notify), ..policy(RestartWhen::Always) };
    let mut state = State::new(digest("a"), policy.clone());
    state.on(Event::Ensure { digest: digest("a"), policy, again: false }, now(0));
    assert_eq!(state.on(Event::Spawned(process(1)), now(0)), [Effect::SetTimer(Tick(2_000))]);
    state
}

/// It is told to stop, because it is not well.
const TREATED: [Effect; 2] = [Effect::Signal(15), Effect::SetTimer(Tick(6_000))];

#[test]
fn a_unit_that_does_not_say_that_it_is_ready_is_replaced() {
    let mut state = speaking();
    assert_eq!(state.on(Event::Alive, now(1_900)), [], "its start limit counts");
    assert_eq!(state.on(Event::Extend(Millis(1_000)), now(2_000)), [Effect::SetTimer(Tick(3_000))]);
    assert_eq!(state.on(Event::Extend(Millis(500)), now(2_100)), [], "more time, never less");
    assert_eq!(state.on(Event::TimerDue, now(2_000)), [Effect::SetTimer(Tick(3_000))], "a timer of before");
    assert_eq!(state.on(Event::TimerDue, now(3_000)), TREATED);
    assert_eq!(state.on(exited(0), now(3_100)), [Effect::CancelTimer, Effect::SetTimer(Tick(3_200))]);
    let (exit, _) = state.last_exit.clone().expect("it ended");
    assert_eq!(exit, Exit::Unwell("it did not say READY=1 within 2s".to_owned()));
    assert_eq!((state.crashes, state.phase()), (1, Phase::Backoff { retry_at: Timestamp(1_003_200) }));
}

#[test]
fn a_unit_that_falls_silent_is_replaced_and_one_that_speaks_is_not() {
    let mut state = speaking();
    assert_eq!(state.on(Event::Notified, now(500)), [Effect::SetTimer(Tick(1_500))]);
    assert!(state.ready() && state.notified());
    assert_eq!(state.on(Event::Alive, now(1_400)), [Effect::SetTimer(Tick(2_400))]);
    assert_eq!(state.on(Event::TimerDue, now(1_500)), [Effect::SetTimer(Tick(2_400))]);
    assert_eq!(state.on(Event::Alive, now(2_300)), [Effect::SetTimer(Tick(3_300))]);
    assert_eq!(state.on(Event::Notified, now(2_350)), [], "said once");
    assert_eq!(state.on(Event::TimerDue, now(3_300)).len(), 2);
    assert_eq!(state.phase(), Phase::Stopping);
    // The same wish does not turn a cure into a plain restart.
    assert_eq!(
        state.on(Event::Ensure { digest: digest("a"), policy: state.policy.clone(), again: false }, now(3_310)),
        []
    );
    state.on(exited(0), now(3_320));
    assert!(matches!(state.phase(), Phase::Backoff { .. }), "silence is not health: {:?}", state.phase());
}

#[test]
fn an_unwell_unit_is_restarted_like_one_that_crashed_and_only_the_one_that_was_meant() {
    let mut state = running(RestartWhen::Always);
    let unwell = |pid| Event::Unwell { pid: Some(pid), why: "no answer".to_owned() };
    assert_eq!(state.on(unwell(9), now(10)), [], "another process");
    assert_eq!(state.on(unwell(1), now(10)).first(), Some(&Effect::Signal(15)));
    assert_eq!(state.on(unwell(1), now(11)), [], "once is enough");
    // Stopping it for good wins.
    let mut stopped = state.clone();
    stopped.on(Event::Stop, now(12));
    stopped.on(exited(0), now(13));
    assert_eq!(stopped.phase(), Phase::Stopped);
    state.on(Event::Exited { exit: Exit::Code(0), left: true }, now(20));
    assert!(matches!(state.place, Place::Clearing { next: Next::Restart { .. } }), "{:?}", state.place);
    // One that had lived for long is back at once.
    let mut old = running(RestartWhen::Always);
    old.on(unwell(1), now(5_000));
    assert_eq!(old.on(exited(0), now(5_010)), [Effect::CancelTimer, Effect::Spawn]);
    // A job that is never restarted is not restarted for this either.
    let mut job = running(RestartWhen::Never);
    job.on(unwell(1), now(10));
    job.on(exited(0), now(20));
    assert_eq!(job.phase(), Phase::Ended);
}
