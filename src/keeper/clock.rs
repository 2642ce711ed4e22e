//! The keeper's time and chance, gathered in one place.

use std::hash::{BuildHasher, Hasher};

use crate::keeper::table::Now;
use crate::model::time::{Tick, Timestamp};

/// The monotonic clock, the wall clock and one roll of the dice.
pub(super) fn now() -> Now {
    // A fresh `RandomState` differs from the last one: good enough to spread restarts, and no crate is needed.
    let dice = std::collections::hash_map::RandomState::new().build_hasher().finish();
    Now { tick: tick(), wall: Timestamp(wall().as_millisecond()), dice }
}

/// The monotonic clock.
pub(super) fn tick() -> Tick {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let millis = time.tv_sec.saturating_mul(1_000).saturating_add(time.tv_nsec / 1_000_000);
    Tick(u64::try_from(millis).unwrap_or(0))
}

/// The wall clock, for stamps.
pub(super) fn wall() -> jiff::Timestamp {
    jiff::Timestamp::now()
}
