//! Time and chance.

use crate::model::time::{Tick, Timestamp};

/// The two clocks.
pub trait Clock {
    /// Never jumps; for every decision.
    fn now(&self) -> Tick;
    /// May jump; for records and people.
    fn wall(&self) -> Timestamp;
}

/// Chance: jitter and fresh ids.
pub trait Dice {
    fn roll(&self) -> u64;
}
