//! The system's clocks and its source of chance. Every other room gets both through [`crate::ports::clock`].

use std::cell::Cell;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::model::time::{Tick, Timestamp};
use crate::ports::clock::{Clock, Dice};

/// The clocks of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    /// Milliseconds since boot, time in suspend included: a machine that slept for an hour is an hour late with
    /// everything, and must notice.
    fn now(&self) -> Tick {
        Tick(u64::try_from(since_boot().as_millis()).unwrap_or(u64::MAX))
    }

    fn wall(&self) -> Timestamp {
        Timestamp(wall_millis(wall_now()))
    }
}

/// Time since boot (`CLOCK_BOOTTIME`), suspend included.
pub(crate) fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[expect(clippy::disallowed_methods, reason = "this is the wall clock behind the port")]
fn wall_now() -> SystemTime {
    SystemTime::now()
}

/// Milliseconds since 1970, negative before.
fn wall_millis(at: SystemTime) -> i64 {
    let millis = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    match at.duration_since(UNIX_EPOCH) {
        Ok(after) => millis(after),
        Err(before) => -millis(before.duration()),
    }
}

/// Chance from the standard library's hasher keys, which the kernel seeds: SipHash of a counter under a 128-bit key. Good
/// for jitter and for ids that must not meet; keys come from [`random_bytes`].
#[derive(Debug, Default)]
pub struct SystemDice {
    seed: RandomState,
    rolls: Cell<u64>,
}

impl SystemDice {
    pub fn new() -> Self {
        Self::default()
    }
}

impl Dice for SystemDice {
    fn roll(&self) -> u64 {
        let count = self.rolls.get();
        self.rolls.set(count.wrapping_add(1));
        self.seed.hash_one(count)
    }
}

/// Bytes fit for keys, from the kernel.
///
/// # Errors
/// When `/dev/urandom` cannot be read.
pub(crate) fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tick_does_not_go_back_and_the_wall_clock_is_in_this_century() {
        let first = SystemClock.now();
        assert!(SystemClock.now() >= first);
        assert!(SystemClock.wall() > Timestamp(1_600_000_000_000));
        assert_eq!(wall_millis(UNIX_EPOCH - Duration::from_millis(5)), -5);
    }

    #[test]
    fn two_dice_differ_and_one_does_not_repeat_itself() {
        let (one, other) = (SystemDice::new(), SystemDice::new());
        let rolls: std::collections::BTreeSet<u64> = (0..1_000).map(|_| one.roll()).collect();
        assert_eq!(rolls.len(), 1_000);
        assert!(!rolls.contains(&other.roll()));
        assert_ne!(random_bytes::<32>().expect("urandom"), random_bytes::<32>().expect("urandom"));
    }
}
