//! When a sink is left in peace: after some failures in a row only one event at a time is tried, with growing pauses, until one is taken. Pure.

use super::backoff;
use crate::model::time::Tick;
use crate::model::unit::Millis;

/// Failures in a row before it opens.
pub const FAILURES: u32 = 5;
const FIRST: Millis = Millis(1_000);
const LONGEST: Millis = Millis(60_000);
/// A connection that is refused costs nobody anything, and is the first thing that works again.
const LONGEST_UNREACHED: Millis = Millis(2_000);

/// How a request to a sink ended, as far as the sink is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It answers as one that works, whatever it thinks of the event.
    Works,
    Fails,
    /// Nobody listens there.
    Unreached,
    /// It works, and wants to be left in peace for so long.
    Asks(Millis),
}

/// The breaker of one sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    failures: u32,
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Open {
    until: Tick,
    /// How often it was tried in vain.
    tried: u32,
    /// The one event is under way.
    probing: bool,
    /// The sink itself wants to be left in peace.
    asked: bool,
}

impl Breaker {
    /// Whether an event may be sent now.
    pub fn lets(&self, now: Tick) -> bool {
        self.open.is_none_or(|open| !open.probing && open.until <= now)
    }

    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// When it lets an event through by itself; `None` when it does now, or waits for the one that is under way.
    pub fn opens_at(&self) -> Option<Tick> {
        self.open.filter(|open| !open.probing).map(|open| open.until)
    }

    /// One is under way and its end is to be waited for.
    pub fn is_probing(&self) -> bool {
        self.open.is_some_and(|open| open.probing)
    }

    /// An event is sent.
    pub fn sent(&mut self) {
        if let Some(open) = &mut self.open {
            open.probing = true;
        }
    }

    /// Nothing came of it: it was not sent after all.
    pub fn unsent(&mut self) {
        if let Some(open) = &mut self.open {
            open.probing = false;
        }
    }

    pub fn heard(&mut self, what: Heard, now: Tick, roll: u64) {
        match what {
            // What was sent before it asked is no reason to come sooner.
            Heard::Works if self.open.is_some_and(|open| open.asked && !open.probing && now < open.until) => {}
            Heard::Works => *self = Self::default(),
            Heard::Asks(span) => {
                let until = now + span;
                self.open = Some(Open { until, tried: 0, probing: false, asked: true });
            }
            Heard::Fails | Heard::Unreached => {
                self.failures = self.failures.saturating_add(1);
                let tried = match &self.open {
                    // Others were under way when it opened; they are no news.
                    Some(open) if !open.probing => return,
                    Some(open) => open.tried.saturating_add(1),
                    None if self.failures < FAILURES => return,
                    None => 0,
                };
                let longest = if what == Heard::Unreached { LONGEST_UNREACHED } else { LONGEST };
                let until = now + backoff::doubled(FIRST, tried, longest, roll);
                self.open = Some(Open { until, tried, probing: false, asked: false });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(times: u32) -> Breaker {
        let mut breaker = Breaker::default();
        (0..times).for_each(|_| breaker.heard(Heard::Fails, Tick(0), 0));
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_with_the_first_success() {
        assert!(failing(FAILURES - 1).lets(Tick(0)));
        let mut mixed = failing(FAILURES - 1);
        mixed.heard(Heard::Works, Tick(0), 0);
        mixed.heard(Heard::Fails, Tick(0), 0);
        assert!(mixed.lets(Tick(0)));
        let mut open = failing(FAILURES);
        assert!(!open.lets(Tick(0)) && open.lets(Tick(1_000)));
        open.sent();
        assert!(!open.lets(Tick(9_000)), "one at a time");
        open.heard(Heard::Works, Tick(9_000), 0);
        assert!(open.lets(Tick(9_000)) && !open.is_open());
    }

    #[test]
    fn its_pauses_grow_to_a_bound_and_less_so_where_nobody_listens() {
        for (what, bound) in [(Heard::Fails, 60_000), (Heard::Unreached, 2_000)] {
            let (mut open, mut now, mut last) = (failing(FAILURES), Tick(0), 0);
            for _ in 0..12 {
                now = open.opens_at().expect("open");
                open.sent();
                open.heard(what, now, u64::MAX / 3);
                last = open.opens_at().map_or(0, |at| (at - now).0);
                assert!(last <= bound);
            }
            assert!(last >= bound / 2, "{what:?}: {last}");
            assert!(now.0 > 0);
        }
    }

    #[test]
    fn a_sink_that_asks_for_peace_gets_it_at_once() {
        let mut breaker = Breaker::default();
        breaker.heard(Heard::Asks(Millis(3_000)), Tick(10), 0);
        breaker.heard(Heard::Works, Tick(20), 0);
        assert!(!breaker.lets(Tick(3_009)) && breaker.lets(Tick(3_010)));
    }
}
