//! How far a migration is: totals from the index, which survive a restart, and a rate from what passed lately.

use std::sync::Mutex;

use super::shared::locked;
use crate::model::time::Tick;
use crate::model::unit::Millis;
use crate::ports::blobs::Standing;
use crate::ports::storage::Progress;

/// What passed this long ago counts by half or less.
const HALF_LIFE: u64 = 5_000;
/// When nothing passed for this long, no rate is known.
const SILENCE: Millis = Millis(60_000);

/// Counts what is moved, as an average that forgets.
#[derive(Default)]
pub(super) struct Meter(Mutex<Option<Rate>>);

#[derive(Clone, Copy)]
struct Rate {
    at: Tick,
    /// Weighted sums, and the weighted time in which they came, in milliseconds.
    objects: f64,
    bytes: f64,
    span: f64,
}

impl Meter {
    /// Begins to measure: a first group must not seem to have come in no time.
    pub(super) fn begin(&self, now: Tick) {
        let mut rate = locked(&self.0);
        if rate.is_none_or(|rate| now - rate.at > SILENCE) {
            *rate = Some(Rate { at: now, objects: 0.0, bytes: 0.0, span: 0.0 });
        }
    }

    pub(super) fn passed(&self, now: Tick, objects: u64, bytes: u64) {
        let mut slot = locked(&self.0);
        let rate = slot.get_or_insert(Rate { at: now, objects: 0.0, bytes: 0.0, span: 0.0 });
        let span = (now - rate.at).0 as f64;
        let keep = 0.5_f64.powf(span / HALF_LIFE as f64);
        rate.objects = rate.objects * keep + objects as f64;
        rate.bytes = rate.bytes * keep + bytes as f64;
        rate.span = rate.span * keep + span;
        rate.at = now;
    }

    /// Objects and bytes a second; zero when nothing is known.
    fn per_second(&self, now: Tick) -> (f64, f64) {
        match *locked(&self.0) {
            Some(rate) if now - rate.at <= SILENCE && rate.span > 0.0 => {
                // Time since the last group counts too, or a stalled copy would look fast.
                let span = rate.span + (now - rate.at).0 as f64;
                (rate.objects * 1_000.0 / span, rate.bytes * 1_000.0 / span)
            }
            _ => (0.0, 0.0),
        }
    }

    /// `None` when no migration is under way.
    pub(super) fn progress(&self, standing: &Standing, now: Tick) -> Option<Progress> {
        let target = standing.target.as_ref()?;
        let (left, left_bytes) = standing.elsewhere(target);
        let there = standing.tallies.get(target).copied().unwrap_or_default();
        let (objects, bytes) = self.per_second(now);
        // Whichever of the two is slower decides: small objects are counted, large ones weighed.
        let needs = |left: u64, rate: f64| if left == 0 { Some(0.0) } else { (rate > 0.0).then(|| left as f64 / rate) };
        let eta = needs(left, objects).zip(needs(left_bytes, bytes)).map(|(by_count, by_bytes)| by_count.max(by_bytes));
        Some(Progress {
            done: there.objects,
            total: there.objects + left,
            done_bytes: there.bytes,
            total_bytes: there.bytes + left_bytes,
            bytes_per_second: bytes as u64,
            objects_per_second: objects.round() as u64,
            eta: eta.map(|seconds| Millis((seconds * 1_000.0) as u64)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::Name;
    use crate::ports::blobs::Tally;

    fn standing(here: u64, there: u64) -> Standing {
        let tally = |objects| Tally { objects, bytes: objects * 1_000, ..Tally::default() };
        let name = |text: &str| Name::new(text).expect("a name");
        let tallies = [(name("a"), tally(here)), (name("b"), tally(there))].into();
        Standing { target: Some(name("b")), tallies, ..Standing::default() }
    }

    #[test]
    fn the_rate_follows_what_passes_and_is_forgotten_in_silence() {
        let meter = Meter::default();
        meter.begin(Tick(0));
        (1..=20).for_each(|second| meter.passed(Tick(second * 1_000), 10, 10_000));
        let progress = meter.progress(&standing(50, 200), Tick(20_000)).expect("a migration");
        assert_eq!((progress.done, progress.total, progress.total_bytes), (200, 250, 250_000));
        assert_eq!((progress.objects_per_second, progress.bytes_per_second), (10, 10_000));
        assert_eq!(progress.eta, Some(Millis(5_000)));
        let silent = meter.progress(&standing(50, 200), Tick(100_000)).expect("a migration");
        assert_eq!((silent.bytes_per_second, silent.eta), (0, None));
    }

    #[test]
    fn without_a_migration_there_is_no_progress_to_show() {
        assert_eq!(Meter::default().progress(&Standing::default(), Tick(0)), None);
        let done = Meter::default().progress(&standing(0, 7), Tick(0)).expect("a migration");
        assert_eq!((done.done, done.total, done.eta), (7, 7, Some(Millis(0))));
    }
}
