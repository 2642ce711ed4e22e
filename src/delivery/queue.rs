//! Which event is to be sent when. It holds a few words on every event that waits, and no body. Pure: it is told what happens and what time it
//! is, and says what to do.
//!
//! An event goes through four states here: *idle*, *sent*, *writing* (its outcome is on its way to the disk) and gone. Of a lane only the
//! first event is ever sent, and the next one not before the outcome of the first is on the disk: whatever dies in between, a sink never
//! hears of a note's later event before its earlier one was done with.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::breaker::{Breaker, Heard};
use super::judge::{self, Tried, judge};
use crate::model::id::Name;
use crate::model::time::{Tick, Timestamp};
use crate::model::unit::Millis;
use crate::ports::deliveries::{Arrival, Change, Row};
use crate::ports::hub::{State, Wiring, Wish};

/// Events that one service has at once, at most.
pub const AT_ONE_SERVICE: usize = 8;
/// A service that has some under way takes one more only while it has less than this part of the places that are free: slow ones leave
/// places to others, fewer and fewer to each the more of them there are.
const SHARE: usize = 4;
/// Events under way at all services.
pub const IN_ALL: usize = 64;
/// A sink is waited for no longer than this.
const LONGEST_WAIT: Millis = Millis(300_000);
/// However old events are, they are tried for so long after a start, or after their connection was taken up again.
const GRACE: Millis = Millis(600_000);
/// The database says when an event is due, by a clock that may have been set: it is not waited for longer than this.
const LONGEST_DUE: Millis = super::backoff::MOST_ASKED;

/// The time, and a roll of the dice.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub tick: Tick,
    pub wall: Timestamp,
    pub roll: u64,
}

/// An event that is to be sent.
#[derive(Clone, Debug)]
pub struct Sending {
    pub seq: u64,
    pub connection: Name,
    pub wiring: Arc<Wiring>,
    pub port: u16,
    /// The first is 1.
    pub attempt: u32,
}

impl Sending {
    /// How long its answer is waited for: whatever was asked for, it holds its place no longer than that.
    pub fn timeout(&self) -> Millis {
        self.wiring.retry.timeout.clamp(Millis(1), LONGEST_WAIT)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Idle,
    Sent,
    Writing,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    lane: u64,
    due: Tick,
    /// Since when its age counts, on the clock of ticks; it may have begun before that.
    born: i64,
    attempts: u32,
    at: At,
    /// When it is tried again, if that is what is written.
    next: Option<(Tick, u32)>,
}

/// The events of one note.
#[derive(Debug, Default)]
struct Lane {
    seqs: BTreeSet<u64>,
    /// So many of them are not idle.
    busy: usize,
}

/// The events of one connection.
#[derive(Debug, Default)]
struct Line {
    items: BTreeMap<u64, Item>,
    lanes: HashMap<u64, Lane>,
    /// The first events of their lanes that are idle, by when they are due.
    ready: BTreeSet<(Tick, u64)>,
    ages: BTreeSet<(i64, u64)>,
    /// Since when it may be delivered.
    open: Option<Tick>,
    trouble: Option<String>,
}

impl Line {
    fn add(&mut self, seq: u64, item: Item) {
        let lane = self.lanes.entry(item.lane).or_default();
        // A replayed event may be older than those that wait.
        let first = lane.seqs.first().filter(|first| seq < **first);
        if let Some((first, held)) = first.and_then(|first| Some((*first, self.items.get(first)?))) {
            self.ready.remove(&(held.due, first));
        }
        lane.seqs.insert(seq);
        self.ages.insert((item.born, seq));
        self.items.insert(seq, item);
        self.first_is_ready(item.lane);
    }

    /// Its state, with what hangs on it.
    fn set(&mut self, seq: u64, at: At) {
        let Some(item) = self.items.get_mut(&seq) else { return };
        let was = std::mem::replace(&mut item.at, at);
        let item = *item;
        if let Some(lane) = self.lanes.get_mut(&item.lane) {
            lane.busy = lane.busy + usize::from(at != At::Idle) - usize::from(was != At::Idle);
        }
        if at == At::Idle {
            self.first_is_ready(item.lane);
        } else {
            self.ready.remove(&(item.due, seq));
        }
    }

    fn set_due(&mut self, seq: u64, due: Tick) {
        let Some(item) = self.items.get_mut(&seq) else { return };
        let was = std::mem::replace(&mut item.due, due);
        if self.ready.remove(&(was, seq)) {
            self.ready.insert((due, seq));
        }
    }

    fn remove(&mut self, seq: u64) {
        let Some(item) = self.items.remove(&seq) else { return };
        self.ready.remove(&(item.due, seq));
        self.ages.remove(&(item.born, seq));
        if let Some(lane) = self.lanes.get_mut(&item.lane) {
            lane.seqs.remove(&seq);
            lane.busy -= usize::from(item.at != At::Idle);
            if lane.seqs.is_empty() {
                self.lanes.remove(&item.lane);
            }
        }
        self.first_is_ready(item.lane);
    }

    /// The first of a lane may be sent, unless one of the lane is under way.
    fn first_is_ready(&mut self, lane: u64) {
        let Some(lane) = self.lanes.get(&lane).filter(|lane| lane.busy == 0) else { return };
        if let Some(first) = lane.seqs.first()
            && let Some(item) = self.items.get(first)
        {
            self.ready.insert((item.due, *first));
        }
    }

    fn all_due(&mut self, now: Tick) {
        for item in self.items.values_mut() {
            item.due = item.due.min(now);
            if let Some((due, _)) = &mut item.next {
                *due = (*due).min(now);
            }
        }
        self.ready = self.ready.iter().map(|(due, seq)| ((*due).min(now), *seq)).collect();
    }

    /// When this event is too old.
    fn expires(&self, born: i64, max_age: Millis) -> Tick {
        let aged = born.saturating_add(signed(max_age));
        let aged = Tick(u64::try_from(aged).unwrap_or(0));
        let open = self.open.map_or(aged, |open| open + GRACE.min(max_age));
        aged.max(open)
    }
}

fn signed(span: Millis) -> i64 {
    i64::try_from(span.0).unwrap_or(i64::MAX)
}

#[derive(Debug, Default)]
struct Sink {
    breaker: Breaker,
    flying: usize,
    /// Port and process when it was ready last.
    ready: Option<(u16, Option<u32>)>,
}

/// A sink: a service and a path.
type SinkId = (Name, String);

/// All that waits.
#[derive(Debug, Default)]
pub struct Queue {
    lines: BTreeMap<Name, Line>,
    sinks: BTreeMap<SinkId, Sink>,
    wish: Arc<Wish>,
    flying: usize,
    /// By service; who has none under way is not in it.
    flying_at: BTreeMap<Name, usize>,
    /// Whose turn it is.
    turn: usize,
}

fn id(wiring: &Wiring) -> SinkId {
    (wiring.sink.clone(), wiring.path.clone())
}

impl Queue {
    /// The database says that these wait. What is known already is not changed by it, but for what a person wants tried at once.
    pub fn load(&mut self, rows: &[Row], now: Now) {
        for row in rows {
            let wait = Millis(u64::try_from(row.due.0.saturating_sub(now.wall.0)).unwrap_or(0)).min(LONGEST_DUE);
            let line = self.lines.entry(row.connection.clone()).or_default();
            if let Some(item) = line.items.get_mut(&row.seq) {
                let due = item.due.min(now.tick + wait);
                if item.at == At::Idle {
                    item.attempts = row.attempts;
                    line.set_due(row.seq, due);
                }
                continue;
            }
            let age = now.wall.0.saturating_sub(row.since.0).max(0);
            let item = Item {
                lane: row.lane,
                due: now.tick + wait,
                born: i64::try_from(now.tick.0).unwrap_or(i64::MAX).saturating_sub(age),
                attempts: row.attempts,
                at: At::Idle,
                next: None,
            };
            line.add(row.seq, item);
        }
        self.reopen(now.tick);
    }

    /// All that waits, by the database. What is idle here and not among them is gone.
    pub fn reload(&mut self, rows: &[Row], now: Now) {
        let there: BTreeSet<u64> = rows.iter().map(|row| row.seq).collect();
        for line in self.lines.values_mut() {
            let idle = line.items.iter().filter(|(_, item)| item.at == At::Idle).map(|(seq, _)| *seq);
            for seq in idle.filter(|seq| !there.contains(seq)).collect::<Vec<_>>() {
                line.remove(seq);
            }
        }
        self.load(rows, now);
    }

    /// What is served. A sink that has become ready gets at once what waits for it.
    pub fn tell(&mut self, wish: Arc<Wish>, now: Tick) {
        self.wish = wish;
        let ids: BTreeSet<SinkId> = self.wish.connections.values().map(|wiring| id(wiring)).collect();
        self.sinks.retain(|id, sink| ids.contains(id) || sink.flying > 0);
        for id in ids {
            let ready = self.port(&id.0);
            // At the start what waits for its time goes on waiting.
            let sink = self.sinks.entry(id.clone()).or_insert_with(|| Sink { ready, ..Sink::default() });
            let news = ready.is_some() && sink.ready != ready;
            sink.ready = ready;
            if news {
                sink.breaker = Breaker::default();
                let here = self.wish.connections.iter().filter(|(_, wiring)| self::id(wiring) == id);
                for (name, _) in here {
                    if let Some(line) = self.lines.get_mut(name) {
                        line.all_due(now);
                    }
                }
            }
        }
        self.reopen(now);
    }

    fn reopen(&mut self, now: Tick) {
        for (name, line) in &mut self.lines {
            let open = self.wish.connections.get(name).is_some_and(|wiring| !wiring.suspended);
            line.open = if open { line.open.or(Some(now)) } else { None };
        }
        self.lines.retain(|name, line| !line.items.is_empty() || self.wish.connections.contains_key(name));
    }

    /// Where a service takes requests, if it does, and by which process.
    fn port(&self, service: &Name) -> Option<(u16, Option<u32>)> {
        let upstream = self.wish.upstreams.get(service).filter(|upstream| upstream.state == State::Ready)?;
        Some((upstream.port?, upstream.pid))
    }

    /// What is to be sent now. Each of them is to be answered by [`Queue::arrived`].
    pub fn next(&mut self, now: Tick) -> Vec<Sending> {
        let wish = self.wish.clone();
        let mut out = Vec::new();
        let names: Vec<&Name> = wish.connections.keys().collect();
        let mut idle = 0;
        while !names.is_empty() && idle < names.len() && self.flying < IN_ALL {
            let name = names[self.turn % names.len()];
            self.turn = self.turn.wrapping_add(1);
            match wish.connections.get(name).and_then(|wiring| self.one(name, wiring, now)) {
                Some(sending) => {
                    idle = 0;
                    out.push(sending);
                }
                None => idle += 1,
            }
        }
        out
    }

    fn one(&mut self, name: &Name, wiring: &Arc<Wiring>, now: Tick) -> Option<Sending> {
        if wiring.suspended {
            return None;
        }
        let (port, _) = self.port(&wiring.sink)?;
        if !self.has_room(&wiring.sink) {
            return None;
        }
        let line = self.lines.get_mut(name)?;
        let &(_, seq) = line.ready.first().filter(|(due, _)| *due <= now)?;
        let sink = self.sinks.entry(id(wiring)).or_default();
        if !sink.breaker.lets(now) {
            return None;
        }
        let attempt = line.items.get(&seq)?.attempts.saturating_add(1);
        line.set(seq, At::Sent);
        sink.breaker.sent();
        sink.flying += 1;
        self.flying += 1;
        *self.flying_at.entry(wiring.sink.clone()).or_default() += 1;
        Some(Sending { seq, connection: name.clone(), wiring: wiring.clone(), port, attempt })
    }

    /// Whether a service may have one more under way.
    fn has_room(&self, service: &Name) -> bool {
        let has = self.flying_at.get(service).copied().unwrap_or_default();
        let free = IN_ALL.saturating_sub(self.flying);
        has < AT_ONE_SERVICE.min(free.div_ceil(SHARE))
    }

    /// One is not under way any more.
    fn landed(&mut self, wiring: &Wiring) -> &mut Sink {
        self.flying = self.flying.saturating_sub(1);
        if let Some(has) = self.flying_at.get_mut(&wiring.sink) {
            *has = has.saturating_sub(1);
            if *has == 0 {
                self.flying_at.remove(&wiring.sink);
            }
        }
        let sink = self.sinks.entry(id(wiring)).or_default();
        sink.flying = sink.flying.saturating_sub(1);
        sink
    }

    /// Events that have become too old while they waited; each is to be written and then told of by [`Queue::written`].
    pub fn expired(&mut self, now: Tick) -> Vec<(u64, Name, Change)> {
        let mut out = Vec::new();
        for (name, wiring) in &self.wish.connections {
            let Some(line) = self.lines.get_mut(name).filter(|_| !wiring.suspended) else { continue };
            let old: Vec<u64> = line
                .ages
                .iter()
                .take_while(|(born, _)| line.expires(*born, wiring.retry.max_age) <= now)
                .map(|(_, seq)| *seq)
                .collect();
            for seq in old {
                let Some(item) = line.items.get_mut(&seq).filter(|item| item.at == At::Idle) else { continue };
                item.next = None;
                let attempts = item.attempts;
                line.set(seq, At::Writing);
                let trouble = judge::too_old(line.trouble.as_deref().unwrap_or_default(), wiring.retry);
                out.push((seq, name.clone(), Change::Dead { attempts, status: None, trouble }));
            }
        }
        out
    }

    /// What came of an event that was sent; the change is to be written, and then told of by [`Queue::written`].
    pub fn arrived(&mut self, sent: &Sending, arrival: &Arrival, now: Now) -> Option<Change> {
        self.landed(&sent.wiring);
        let line = self.lines.get_mut(&sent.connection)?;
        let item = line.items.get_mut(&sent.seq)?;
        let tick = i64::try_from(now.tick.0).unwrap_or(i64::MAX);
        let age = Millis(u64::try_from(tick.saturating_sub(item.born)).unwrap_or(0));
        // While events are still given a chance, however old they are, their age is no reason.
        let graced = line.open.is_none_or(|open| now.tick < open + GRACE.min(sent.wiring.retry.max_age));
        let age = if graced { Millis(0) } else { age };
        let tried = Tried { attempts: item.attempts, age, now: now.wall, roll: now.roll };
        let verdict = judge(arrival, tried, sent.wiring.retry);
        let sink = self.sinks.entry(id(&sent.wiring)).or_default();
        sink.breaker.heard(verdict.sink, now.tick, now.roll);
        item.at = At::Writing;
        item.next = match (&verdict.change, verdict.pause) {
            (Change::Again { attempts, .. }, Some(pause)) => Some((now.tick + pause, *attempts)),
            _ => None,
        };
        line.trouble = match (&verdict.change, verdict.sink) {
            (
                Change::Again { trouble, .. } | Change::Dead { trouble, .. },
                Heard::Fails | Heard::Unreached | Heard::Asks(_),
            ) => Some(trouble.clone()),
            _ => None,
        };
        Some(verdict.change)
    }

    /// It could not be sent after all, and not because of the sink: it is gone from the database, or that cannot be read. `gone` or again soon.
    pub fn unsent(&mut self, sent: &Sending, gone: bool, now: Tick) {
        self.landed(&sent.wiring).breaker.unsent();
        let Some(line) = self.lines.get_mut(&sent.connection) else { return };
        if gone {
            line.remove(sent.seq);
        } else {
            line.set_due(sent.seq, now + super::backoff::FIRST);
            line.set(sent.seq, At::Idle);
        }
    }

    /// The outcome of an event is on the disk.
    pub fn written(&mut self, connection: &Name, seq: u64) {
        let Some(line) = self.lines.get_mut(connection) else { return };
        let Some(item) = line.items.get_mut(&seq) else { return };
        match item.next.take() {
            Some((due, attempts)) => {
                item.due = due;
                item.attempts = attempts;
                line.set(seq, At::Idle);
            }
            None => line.remove(seq),
        }
    }

    /// How long until something is to be done though nothing happens; `None` when nothing is.
    pub fn wake(&self, now: Tick) -> Option<Millis> {
        let mut first: Option<Tick> = None;
        let mut at = |tick: Tick| first = Some(first.map_or(tick, |first| first.min(tick)));
        for (name, wiring) in &self.wish.connections {
            let Some(line) = self.lines.get(name).filter(|_| !wiring.suspended) else { continue };
            let oldest = line.ages.iter().find(|(_, seq)| line.items.get(seq).is_some_and(|item| item.at == At::Idle));
            if let Some((born, _)) = oldest {
                at(line.expires(*born, wiring.retry.max_age));
            }
            let Some((due, _)) = line.ready.first().filter(|_| self.port(&wiring.sink).is_some()) else { continue };
            let Some(sink) = self.sinks.get(&id(wiring)) else { continue };
            if !self.has_room(&wiring.sink) || sink.breaker.is_probing() {
                // Its end is an event of its own.
                continue;
            }
            at(sink.breaker.opens_at().map_or(*due, |opens| opens.max(*due)));
        }
        first.map(|tick| tick - now)
    }

    /// What a sink said last, by connection, while it does not take events.
    pub fn troubles(&self) -> BTreeMap<Name, String> {
        let of = self.lines.iter().filter(|(_, line)| !line.items.is_empty());
        of.filter_map(|(name, line)| Some((name.clone(), line.trouble.clone()?))).collect()
    }

    /// Events under way.
    pub fn flying(&self) -> usize {
        self.flying
    }

    /// Events that wait, here.
    pub fn len(&self) -> usize {
        self.lines.values().map(|line| line.items.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::hub::{Module, Retry, Upstream};

    const NOW: Now = Now { tick: Tick(1_000), wall: Timestamp(1_000_000), roll: 0 };

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    fn wiring(service: &str, path: &str, timeout: u64) -> Arc<Wiring> {
        Arc::new(Wiring {
            sink: name(service),
            path: path.to_owned(),
            scope: format!("{service}:send"),
            audience: service.to_owned(),
            params: serde_json::Map::new(),
            suspended: false,
            retry: Retry { max_attempts: 20, max_age: Millis(86_400_000), timeout: Millis(timeout) },
        })
    }

    fn upstream() -> Upstream {
        Upstream {
            port: Some(1),
            routes: Vec::new(),
            state: State::Ready,
            reason: "Testing",
            message: String::new(),
            pid: None,
            restarts: 0,
            last_exit: None,
            keeps_socket: false,
            module: Module::default(),
        }
    }

    /// Connections by name, each to a service and a path.
    fn told(connections: &[(&str, &str, &str)]) -> Queue {
        let mut wish = Wish::default();
        for (connection, service, path) in connections {
            wish.upstreams.insert(name(service), Arc::new(upstream()));
            wish.connections.insert(name(connection), wiring(service, path, 10_000));
        }
        let mut queue = Queue::default();
        queue.tell(Arc::new(wish), NOW.tick);
        queue
    }

    fn row(seq: u64, connection: &str, lane: u64) -> Row {
        Row { seq, connection: name(connection), lane, since: NOW.wall, due: NOW.wall, attempts: 0 }
    }

    #[test]
    fn slow_services_leave_a_place_to_every_other() {
        let names: Vec<String> = (0..16).map(|number| format!("s{number}")).collect();
        let all: Vec<(&str, &str, &str)> = names.iter().map(|name| (name.as_str(), name.as_str(), "/")).collect();
        let mut queue = told(&all);
        // They answer nothing, one after another.
        for (number, name) in names.iter().enumerate() {
            let rows: Vec<Row> = (1..=100).map(|seq| row(number as u64 * 100 + seq, name, seq << 1)).collect();
            queue.load(&rows, NOW);
            let sent = queue.next(NOW.tick);
            assert!(sent.iter().any(|sent| sent.connection.as_str() == name), "{name} is held up by others");
            assert!(queue.flying() <= IN_ALL);
        }
    }

    #[test]
    fn two_paths_of_one_service_share_its_places() {
        let mut queue = told(&[("one", "slow", "/a"), ("two", "slow", "/b"), ("three", "quick", "/")]);
        for connection in ["one", "two"] {
            let first = if connection == "one" { 0 } else { 100 };
            let rows: Vec<Row> = (1..=50).map(|seq| row(first + seq, connection, seq << 1)).collect();
            queue.load(&rows, NOW);
        }
        let sent = queue.next(NOW.tick);
        assert_eq!(sent.len(), AT_ONE_SERVICE);
        let arrival = Arrival::Answered { status: 200, retry_after: None, text: String::new() };
        assert!(queue.arrived(&sent[0], &arrival, NOW).is_some());
        assert_eq!(queue.next(NOW.tick).len(), 1, "a place that is free again is used again");
    }

    #[test]
    fn nobody_is_waited_for_for_hours() {
        let sending = |timeout| Sending {
            seq: 1,
            connection: name("box"),
            wiring: wiring("agent", "/", timeout),
            port: 1,
            attempt: 1,
        };
        assert_eq!(sending(86_400_000).timeout(), Millis(300_000));
        assert_eq!(sending(60_000).timeout(), Millis(60_000));
    }
}
