//! When to look after changes: a pause after the last one, but not for ever while they go on. A pure value, told the time.

use crate::model::time::Tick;
use crate::model::unit::Millis;

/// After the last change: longer than an editor takes to save (rename and write), shorter than a person notices.
pub(super) const QUIET: Millis = Millis(50);
/// After the first change, however many follow.
pub(super) const LIMIT: Millis = Millis::secs(2);

/// Changes that nobody has looked at yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Quiet {
    since: Option<(Tick, Tick)>,
}

impl Quiet {
    /// Something changed.
    pub(super) fn stir(&mut self, now: Tick) {
        let first = self.since.map_or(now, |(first, _)| first);
        self.since = Some((first, now));
    }

    /// When to look, if anything changed.
    pub(super) fn due(&self) -> Option<Tick> {
        self.since.map(|(first, last)| (last + QUIET).min(first + LIMIT))
    }

    /// Says whether it is time to look, and if so starts anew.
    pub(super) fn take(&mut self, now: Tick) -> bool {
        let is_due = self.due().is_some_and(|due| due <= now);
        if is_due {
            self.since = None;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stirs at these times, asks every millisecond, and tells when it was time to look.
    fn looks(stirs: &[u64]) -> Vec<u64> {
        let mut quiet = Quiet::default();
        let mut looks = Vec::new();
        for now in 0..6_000 {
            if stirs.contains(&now) {
                quiet.stir(Tick(now));
            }
            if quiet.take(Tick(now)) {
                looks.push(now);
            }
        }
        assert_eq!(quiet.due(), None);
        looks
    }

    #[test]
    fn one_look_after_a_burst_and_one_every_limit_under_constant_change() {
        assert_eq!(looks(&[]), [0_u64; 0]);
        assert_eq!(looks(&[10]), [60]);
        assert_eq!(looks(&[10, 30, 59]), [109]);
        assert_eq!(looks(&[10, 60, 61]), [111], "a change at the very moment joins");
        assert_eq!(looks(&[10, 61]), [60, 111]);
        let constant: Vec<u64> = (0..5_000).step_by(10).collect();
        assert_eq!(looks(&constant), [2_000, 4_010, 5_040]);
    }
}
