//! Lives of the delivery queue, by seed: a pretend database, sink and clock. It dies before and after every effect, answers are lost, clocks
//! jump, the sink fails. Whatever happens, every event that was accepted is delivered at least once or is a dead letter, and a sink never
//! gets an event of a note before an earlier one of that note is done with.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use trueup::delivery::queue::{AT_ONE_SERVICE, IN_ALL, Now, Queue, Sending};
use trueup::model::time::{Tick, Timestamp};
use trueup::model::unit::Millis;
use trueup::ports::deliveries::{Arrival, Change, Row, Stage};
use trueup::ports::hub::{Retry, State, Wish};

use crate::delivery_stage::{name, wiring};
use crate::proxy_stage::upstream;

struct Kept {
    row: Row,
    stage: Stage,
}

struct Life {
    dice: u64,
    now: u64,
    wall: i64,
    store: Vec<Kept>,
    /// How often the sink worked on each event.
    worked: BTreeMap<u64, u64>,
    queue: Queue,
    wish: Arc<Wish>,
    flying: Vec<Sending>,
    writing: VecDeque<(Sending, Change)>,
    expiring: VecDeque<(u64, trueup::model::id::Name, Change)>,
    calm: bool,
    deaths: u64,
}

const LINES: [&str; 3] = ["one", "two", "three"];

fn wish() -> Wish {
    let mut wish = Wish::default();
    for (service, port) in [("agent", 1), ("clerk", 2)] {
        wish.upstreams.insert(name(service), Arc::new(upstream(service, port, State::Ready)));
    }
    for (line, service) in LINES.into_iter().zip(["agent", "agent", "clerk"]) {
        let retry = Retry { max_attempts: 6, max_age: Millis::secs(7_200), timeout: Millis::secs(10) };
        wish.connections.insert(name(line), Arc::new(trueup::ports::hub::Wiring { retry, ..wiring(service) }));
    }
    wish
}

impl Life {
    fn new(seed: u64) -> Self {
        Self {
            dice: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            now: 1_000_000,
            wall: 1_800_000_000_000,
            store: Vec::new(),
            worked: BTreeMap::new(),
            queue: Queue::default(),
            wish: Arc::new(wish()),
            flying: Vec::new(),
            writing: VecDeque::new(),
            expiring: VecDeque::new(),
            calm: false,
            deaths: 0,
        }
    }

    fn roll(&mut self) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.roll().is_multiple_of(many)
    }

    fn at(&mut self) -> Now {
        let roll = self.roll();
        Now { tick: Tick(self.now), wall: Timestamp(self.wall), roll }
    }

    fn waiting(&self) -> Vec<Row> {
        self.store.iter().filter(|kept| kept.stage == Stage::Waiting).map(|kept| kept.row.clone()).collect()
    }

    /// A vault sends an event; it is on the disk, and the queue hears of it unless everybody dies in between.
    fn accept(&mut self) {
        let (seq, line) = (self.store.len() as u64 + 1, LINES[(self.roll() % 3) as usize]);
        let lane = if self.one_in(5) { seq << 1 } else { (self.roll() % 4) << 1 | 1 };
        let at = Timestamp(self.wall);
        let row = Row { seq, connection: name(line), lane, since: at, due: at, attempts: 0 };
        self.store.push(Kept { row: row.clone(), stage: Stage::Waiting });
        if self.one_in(40) {
            return self.die();
        }
        let now = self.at();
        self.queue.load(&[row], now);
    }

    /// The process is killed and started again. What was under way may have been worked on; what was being written may be on the disk.
    fn die(&mut self) {
        self.deaths += 1;
        for sent in std::mem::take(&mut self.flying) {
            if self.one_in(2) {
                *self.worked.entry(sent.seq).or_default() += 1;
            }
        }
        while let Some((sent, change)) = self.writing.pop_front() {
            if self.one_in(2) {
                self.commit(sent.seq, &change);
            }
        }
        while let Some((seq, _, change)) = self.expiring.pop_front() {
            if self.one_in(2) {
                self.commit(seq, &change);
            }
        }
        self.queue = Queue::default();
        if self.one_in(3) {
            // Somebody sets the clock, by up to two days.
            self.wall += i64::try_from(self.roll() % 345_600_000).expect("small") - 172_800_000;
        }
        let (now, rows) = (self.at(), self.waiting());
        self.queue.reload(&rows, now);
        self.queue.tell(self.wish.clone(), now.tick);
    }

    fn commit(&mut self, seq: u64, change: &Change) {
        let kept = &mut self.store[seq as usize - 1];
        if kept.stage != Stage::Waiting {
            return;
        }
        match change {
            Change::Delivered { .. } => kept.stage = Stage::Delivered,
            Change::Dead { .. } => kept.stage = Stage::Dead,
            Change::Again { due, attempts, .. } => (kept.row.due, kept.row.attempts) = (*due, *attempts),
        }
    }

    fn send(&mut self) {
        let now = self.at();
        self.expiring.extend(self.queue.expired(now.tick));
        for sending in self.queue.next(now.tick) {
            let row = &self.store[sending.seq as usize - 1].row;
            let earlier = self.store[..sending.seq as usize - 1].iter();
            let open = earlier
                .filter(|kept| kept.row.connection == row.connection && kept.row.lane == row.lane)
                .find(|kept| kept.stage == Stage::Waiting);
            assert!(open.is_none(), "{} was sent while {:?} waits", sending.seq, open.map(|kept| kept.row.seq));
            let wiring = &self.wish.connections[&sending.connection];
            assert!(!wiring.suspended && self.wish.upstreams[&wiring.sink].state == State::Ready);
            self.flying.push(sending);
        }
        let mut at_sinks: BTreeMap<_, usize> = BTreeMap::new();
        self.flying.iter().for_each(|sent| *at_sinks.entry(sent.wiring.sink.clone()).or_default() += 1);
        assert!(at_sinks.values().all(|count| *count <= AT_ONE_SERVICE) && self.flying.len() <= IN_ALL);
        let lanes: BTreeSet<_> = self
            .flying
            .iter()
            .map(|sent| (sent.connection.clone(), self.store[sent.seq as usize - 1].row.lane))
            .collect();
        assert_eq!(lanes.len(), self.flying.len(), "one event of a note at a time");
    }

    /// A sink answers, or does not.
    fn arrive(&mut self) {
        if self.flying.is_empty() {
            return;
        }
        let which = (self.roll() % self.flying.len() as u64) as usize;
        let sent = self.flying.swap_remove(which);
        let answered = |status| Arrival::Answered { status, retry_after: None, text: String::new() };
        let (arrival, works) = match if self.calm { 0 } else { self.roll() % 16 } {
            0..=7 => (answered(200), true),
            8 => (answered(500), false),
            9 => (Arrival::Answered { status: 429, retry_after: Some(Millis(3_000)), text: String::new() }, false),
            10 => (answered(422), false),
            11 => (answered(409), false),
            12 => (Arrival::Lost("the answer was lost".to_owned()), true),
            13 => (Arrival::Lost("the connection broke".to_owned()), false),
            _ => (Arrival::Unreached("nobody listens".to_owned()), false),
        };
        if works {
            *self.worked.entry(sent.seq).or_default() += 1;
        }
        if self.one_in(60) && !self.calm {
            return self.die();
        }
        let now = self.at();
        if let Some(change) = self.queue.arrived(&sent, &arrival, now) {
            self.writing.push_back((sent, change));
        }
    }

    fn write(&mut self) {
        if let Some((sent, change)) = self.writing.pop_front() {
            self.commit(sent.seq, &change);
            if self.one_in(60) && !self.calm {
                return self.die();
            }
            self.queue.written(&sent.connection, sent.seq);
        }
        if let Some((seq, connection, change)) = self.expiring.pop_front() {
            self.commit(seq, &change);
            self.queue.written(&connection, seq);
        }
    }

    fn wish_moves(&mut self) {
        let mut wish = (*self.wish).clone();
        let states = [State::Ready, State::Ready, State::Starting, State::Failed];
        let (service, state) = (["agent", "clerk"][(self.roll() % 2) as usize], states[(self.roll() % 4) as usize]);
        Arc::make_mut(wish.upstreams.get_mut(&name(service)).expect("a service")).state = state;
        let line = LINES[(self.roll() % 3) as usize];
        let suspended = self.one_in(4);
        match wish.connections.get_mut(&name(line)) {
            Some(wiring) => Arc::make_mut(wiring).suspended = suspended,
            None => drop(wish.connections.insert(name(line), self::wish().connections[&name(line)].clone())),
        }
        if self.one_in(8) {
            wish.connections.remove(&name(line));
        }
        self.wish = Arc::new(wish);
        self.queue.tell(self.wish.clone(), Tick(self.now));
    }

    fn pass(&mut self, span: u64) {
        self.now += span;
        self.wall += i64::try_from(span).expect("small");
    }

    fn step(&mut self) {
        match self.roll() % 12 {
            0 | 1 => self.accept(),
            2 | 3 => self.send(),
            4 | 5 => self.arrive(),
            6 | 7 => self.write(),
            8 => self.wish_moves(),
            9 => {
                let span = self.roll() % 2_000;
                self.pass(span);
            }
            10 => {
                let (now, rows) = (self.at(), self.waiting());
                self.queue.reload(&rows, now);
            }
            _ if self.one_in(30) => {
                let span = self.roll() % 3_600_000;
                self.pass(span);
            }
            _ => self.send(),
        }
    }

    /// Everything is well from now on: nothing may stay behind, and nothing may be waited for that is not announced.
    fn calm_down(&mut self) {
        self.calm = true;
        self.wish = Arc::new(wish());
        self.queue.tell(self.wish.clone(), Tick(self.now));
        for _ in 0..200_000 {
            self.send();
            while !self.flying.is_empty() {
                self.arrive();
            }
            if self.writing.is_empty() && self.expiring.is_empty() {
                if self.waiting().is_empty() {
                    return;
                }
                let wake = self.queue.wake(Tick(self.now)).expect("something is due some time");
                assert!(wake <= Millis::secs(3_600), "{wake}");
                self.pass(wake.0);
            }
            self.write();
        }
        panic!("{} events are left", self.waiting().len());
    }
}

fn live(seed: u64) -> Life {
    let mut life = Life::new(seed);
    life.queue.tell(life.wish.clone(), Tick(life.now));
    (0..1_500).for_each(|_| life.step());
    life.calm_down();
    life
}

#[test]
fn every_event_is_delivered_or_dead_and_notes_keep_their_order() {
    let (mut deaths, mut twice, mut dead) = (0, 0, 0);
    for seed in 0..150 {
        let life = live(seed);
        for kept in &life.store {
            let worked = life.worked.get(&kept.row.seq).copied().unwrap_or_default();
            match kept.stage {
                Stage::Delivered => assert!(worked >= 1, "seed {seed}: {} was lost", kept.row.seq),
                Stage::Dead => dead += 1,
                other => panic!("seed {seed}: {} is {}", kept.row.seq, other.as_str()),
            }
            twice += u64::from(worked > 1);
        }
        deaths += life.deaths;
        assert!(life.queue.is_empty(), "seed {seed}: {} are left in memory", life.queue.len());
    }
    // The stories tell what they are meant to.
    assert!(deaths > 500 && twice > 50 && dead > 50, "{deaths} {twice} {dead}");
}
