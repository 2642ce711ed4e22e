//! How fast to go, as functions of a state, the time and what happened: how many at once, how many bytes a second, and when to try again.

use crate::model::time::Tick;
use crate::model::unit::{Bytes, Millis};

/// More at once brings nothing on one machine, and would open too many files and connections.
pub const MAX_WORKERS: u32 = 16;
/// Where finding out begins: one waits for the disk while the other computes.
const FIRST_WORKERS: u32 = 2;
/// A window is judged when it is this long and has seen some groups ...
const WINDOW: Millis = Millis(1_000);
/// ... or, with slow groups, when it is this long whatever it has seen.
const LONG_WINDOW: Millis = Millis(15_000);
/// What an object costs besides its bytes, as bytes. It makes small and large objects comparable.
const OBJECT_WORTH: u64 = 16 << 10;
/// Changes of speed within this many hundredths are noise.
const NOISE: u64 = 5;
/// So many windows a good number is kept before a larger one is tried again.
const PATIENCE: u32 = 8;

/// How many work at once. Unless it is fixed, it climbs while that brings speed, goes back when it does not, and is halved by errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    fixed: Option<u32>,
    workers: u32,
    rising: bool,
    /// Windows left in which nothing is tried.
    resting: u32,
    /// What the last window brought, in worth a second.
    before: Option<u64>,
    window: Option<Window>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    began: Tick,
    groups: u32,
    worth: u64,
    failed: bool,
}

/// What happened to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Done { objects: u64, bytes: u64 },
    Failed,
}

impl Pace {
    pub fn new(fixed: Option<u32>) -> Self {
        let workers = fixed.map_or(FIRST_WORKERS, |fixed| fixed.clamp(1, MAX_WORKERS));
        Self { fixed, workers, rising: true, resting: 0, before: None, window: None }
    }

    /// Another wish for the number; what was found out stays when the wish is the same.
    #[must_use]
    pub fn with(self, fixed: Option<u32>) -> Self {
        if self.fixed == fixed { self } else { Self::new(fixed) }
    }

    pub fn workers(&self) -> u32 {
        self.workers
    }

    #[must_use]
    pub fn after(mut self, now: Tick, event: Event) -> Self {
        if self.fixed.is_some() {
            return self;
        }
        let window = self.window.get_or_insert(Window { began: now, groups: 0, worth: 0, failed: false });
        window.groups += 1;
        match event {
            Event::Done { objects, bytes } => window.worth += bytes + objects * OBJECT_WORTH,
            // Errors of one moment have one cause, so they halve once.
            Event::Failed if !window.failed => {
                window.failed = true;
                self.workers = (self.workers / 2).max(1);
            }
            Event::Failed => {}
        }
        let (window, span) = (*window, now - window.began);
        if span >= LONG_WINDOW || span >= WINDOW && window.groups >= 2 * self.workers {
            self.judge(window, span);
        }
        self
    }

    fn judge(&mut self, window: Window, span: Millis) {
        self.window = None;
        if window.failed {
            (self.before, self.rising, self.resting) = (None, true, PATIENCE);
            return;
        }
        let speed = window.worth.saturating_mul(1_000) / span.0.max(1);
        let Some(before) = self.before.replace(speed) else {
            return self.step();
        };
        if self.resting > 0 {
            self.resting -= 1;
            if self.resting == 0 {
                self.step();
            }
            return;
        }
        let gained = speed.saturating_mul(100) > before.saturating_mul(100 + NOISE);
        let lost = speed.saturating_mul(100) < before.saturating_mul(100 - NOISE);
        match (self.rising, gained, lost) {
            (true, true, _) | (false, _, false) => self.step(),
            // Going up brought nothing, or going down cost something: one back, and rest there.
            _ => {
                self.rising = !self.rising;
                self.step();
                (self.rising, self.resting) = (true, PATIENCE);
            }
        }
    }

    fn step(&mut self) {
        let next = if self.rising { self.workers + 1 } else { self.workers.saturating_sub(1) };
        self.workers = next.clamp(1, MAX_WORKERS);
        if next == 0 || next > MAX_WORKERS {
            (self.rising, self.resting) = (true, PATIENCE);
        }
    }
}

/// A burst is what this span allows: enough to keep a stream smooth.
const BURST: Millis = Millis(250);

/// Bytes spent and not yet earned. Whoever spends waits afterwards until nothing is owed, so that a piece may be larger than a burst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// In thousandths of a byte; negative is what is saved.
    owed: i128,
    at: Tick,
}

impl Bucket {
    #[must_use]
    pub fn spend(self, now: Tick, rate: Option<Bytes>, bytes: u64) -> Self {
        let Some(rate) = rate else { return Self { owed: 0, at: now } };
        let settled = self.earn(now, rate);
        Self { owed: settled.owed + i128::from(bytes) * 1_000, ..settled }
    }

    /// How long to wait now, at this rate.
    pub fn wait(self, now: Tick, rate: Option<Bytes>) -> Millis {
        let Some(rate) = rate else { return Millis(0) };
        let owed = self.earn(now, rate).owed.max(0);
        Millis(u64::try_from(owed / i128::from(rate.0.max(1))).unwrap_or(u64::MAX))
    }

    fn earn(self, now: Tick, rate: Bytes) -> Self {
        let earned = i128::from((now - self.at).0) * i128::from(rate.0);
        let saved = i128::from(BURST.0) * i128::from(rate.0);
        Self { owed: (self.owed - earned).max(-saved), at: now }
    }
}

const FIRST_WAIT: Millis = Millis(1_000);
/// A person who put something right should not wait longer than this.
const LONGEST_WAIT: Millis = Millis(300_000);

/// How long to wait after so many failures in a row (1 is the first): double each time, the upper half of it by chance, so that those
/// who failed together do not come back together.
pub fn backoff(failures: u32, roll: u64) -> Millis {
    let doubled = FIRST_WAIT.0.saturating_mul(1 << failures.saturating_sub(1).min(20));
    let whole = doubled.min(LONGEST_WAIT.0);
    Millis(whole / 2 + roll % (whole / 2 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs windows of one second in which each worker up to `useful` brings the same.
    fn run(mut pace: Pace, from: u64, windows: u64, useful: u32) -> Pace {
        for second in from..from + windows {
            let groups = 2 * MAX_WORKERS as u64;
            for group in 0..=groups {
                let bytes = u64::from(pace.workers().min(useful)) * 1_000_000 / groups;
                let now = Tick(second * 1_100 + group * 1_000 / groups);
                pace = pace.after(now, Event::Done { objects: 0, bytes });
            }
        }
        pace
    }

    #[test]
    fn it_climbs_while_that_brings_speed_and_stays_near_the_best() {
        for useful in [1, 2, 4, 8] {
            let pace = run(Pace::new(None), 0, 60, useful);
            assert!(pace.workers().abs_diff(useful) <= 2, "{useful}: {pace:?}");
        }
        assert!(run(Pace::new(None), 0, 200, 100).workers() >= MAX_WORKERS - 1);
    }

    #[test]
    fn errors_halve_it_once_a_window() {
        let pace = run(Pace::new(None), 0, 100, 100);
        let high = pace.workers();
        let now = Tick(1_000_000);
        let failed = pace.after(now, Event::Failed).after(now, Event::Failed);
        assert_eq!(failed.workers(), high / 2);
        let later = (0..10).fold(failed, |pace, n| pace.after(now + Millis(n * 20_000), Event::Failed));
        assert_eq!(later.workers(), 1);
    }

    #[test]
    fn a_fixed_number_stays_within_the_bounds() {
        assert_eq!(Pace::new(Some(0)).workers(), 1);
        assert_eq!(Pace::new(Some(99)).workers(), MAX_WORKERS);
        let fixed = Pace::new(Some(3));
        assert_eq!(fixed.after(Tick(1), Event::Failed), fixed);
        assert_eq!(fixed.with(Some(3)), fixed);
        assert_eq!(fixed.with(Some(5)).workers(), 5);
    }

    #[test]
    fn bytes_are_paid_for_in_time_and_a_new_rate_counts_at_once() {
        let rate = Some(Bytes(1_000));
        let spent = Bucket { owed: 0, at: Tick(0) }.spend(Tick(0), rate, 2_000);
        assert_eq!(spent.wait(Tick(0), rate), Millis(2_000));
        assert_eq!(spent.wait(Tick(1_500), rate), Millis(500));
        assert_eq!(spent.wait(Tick(0), Some(Bytes(4_000))), Millis(500));
        assert_eq!(spent.wait(Tick(0), None), Millis(0));
        // Only a short burst can be saved.
        let rested = spent.spend(Tick(100_000), rate, 0).spend(Tick(100_000), rate, 1_250);
        assert_eq!(rested.wait(Tick(100_000), rate), Millis(1_000));
        // Without a limit nothing is owed later.
        assert_eq!(spent.spend(Tick(1), None, 1 << 40).wait(Tick(1), rate), Millis(0));
    }

    #[test]
    fn waits_double_up_to_five_minutes_and_differ() {
        for (failures, whole) in [(1, 1_000), (2, 2_000), (5, 16_000), (9, 256_000), (10, 300_000), (60, 300_000)] {
            for roll in [0, 1, 499, u64::MAX] {
                let wait = backoff(failures, roll).0;
                assert!((whole / 2..=whole).contains(&wait), "{failures}: {wait}");
            }
        }
        assert_ne!(backoff(3, 5), backoff(3, 6));
    }
}
