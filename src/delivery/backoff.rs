//! How long to wait before the next attempt. Pure.

use crate::model::unit::Millis;

/// After the first attempt.
pub const FIRST: Millis = Millis(1_000);
/// However many there were.
pub const LONGEST: Millis = Millis(300_000);
/// However long a sink asks for.
pub const MOST_ASKED: Millis = Millis(3_600_000);

/// The pause after so many attempts in vain: twice as long each time, of which a half is by chance, so that what failed together does not
/// come back together.
pub fn pause(attempts: u32, roll: u64) -> Millis {
    doubled(FIRST, attempts.saturating_sub(1), LONGEST, roll)
}

/// A pause that was doubled so often.
pub fn doubled(first: Millis, times: u32, longest: Millis, roll: u64) -> Millis {
    let whole = first.0.saturating_mul(1_u64 << times.min(32)).clamp(1, longest.0.max(1));
    Millis(whole - whole / 2 + roll % (whole / 2 + 1))
}

/// As a sink asks, within reason.
pub fn asked(by_sink: Option<Millis>, own: Millis) -> Millis {
    by_sink.map_or(own, |asked| asked.min(MOST_ASKED).max(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_vary_by_a_half() {
        for attempts in 1..100 {
            let whole = 1_000_u64.saturating_mul(1 << (attempts - 1).min(30)).min(300_000);
            for roll in [0, 1, 7, u64::MAX] {
                let pause = pause(attempts, roll).0;
                assert!((whole / 2..=whole).contains(&pause), "{attempts} {roll}: {pause}");
            }
        }
    }

    #[test]
    fn a_sink_may_ask_for_longer_but_not_for_ever() {
        assert_eq!(asked(None, Millis(5)), Millis(5));
        assert_eq!(asked(Some(Millis(2_000)), Millis(500)), Millis(2_000));
        assert_eq!(asked(Some(Millis(10)), Millis(500)), Millis(500));
        assert_eq!(asked(Some(Millis(u64::MAX)), Millis(500)), MOST_ASKED);
    }
}
