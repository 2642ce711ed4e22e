//! What may happen to a port call: it fails, it is done and reported as failed, or we die before or after it.

use std::cell::{Cell, RefCell};

use crate::ports::PortError;

/// On which side of the effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Before,
    After,
}

/// What is to happen to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lot {
    /// It works.
    Go,
    /// It is not done, and says so.
    FailBefore,
    /// It is done, and its answer is lost.
    FailAfter,
    /// We are dead: nothing is done any more.
    Dead,
}

/// Deals the lots.
#[derive(Debug, Default)]
pub struct Fate {
    calls: Cell<u64>,
    die: Cell<Option<(u64, Side)>>,
    dead: Cell<bool>,
    /// Chance of a failing call, in thousandths.
    fail: Cell<u64>,
    state: Cell<u64>,
    /// Names of the calls, to see that a sweep reached them all.
    pub reached: RefCell<std::collections::BTreeMap<&'static str, u64>>,
}

impl Fate {
    /// So many calls were made.
    pub fn calls(&self) -> u64 {
        self.calls.get()
    }

    /// A new life: no death planned, calls counted from zero.
    pub fn reborn(&self, die: Option<(u64, Side)>, fail_per_mille: u64, seed: u64) {
        self.calls.set(0);
        self.die.set(die);
        self.dead.set(false);
        self.fail.set(fail_per_mille);
        self.state.set(seed | 1);
    }

    pub fn dead(&self) -> bool {
        self.dead.get()
    }

    fn roll(&self) -> u64 {
        let mut x = self.state.get() | 1;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.state.set(x);
        x
    }

    /// The lot of the next call.
    pub fn deal(&self, name: &'static str) -> Lot {
        if self.dead.get() {
            return Lot::Dead;
        }
        *self.reached.borrow_mut().entry(name).or_default() += 1;
        let call = self.calls.get();
        self.calls.set(call + 1);
        match self.die.get() {
            Some((at, Side::Before)) if at == call => {
                self.dead.set(true);
                return Lot::Dead;
            }
            Some((at, Side::After)) if at == call => {
                self.dead.set(true);
                return Lot::FailAfter;
            }
            _ => {}
        }
        if self.fail.get() > 0 && self.roll() % 1000 < self.fail.get() {
            return if self.roll().is_multiple_of(2) { Lot::FailBefore } else { Lot::FailAfter };
        }
        Lot::Go
    }

    /// Runs an effect under fate.
    ///
    /// # Errors
    /// As dealt: certainly not done, or perhaps done.
    pub fn effect<T>(&self, name: &'static str, effect: impl FnOnce() -> Result<T, PortError>) -> Result<T, PortError> {
        match self.deal(name) {
            Lot::Go => effect(),
            Lot::FailBefore | Lot::Dead => Err(PortError::Retry("fate: it was not done".to_owned())),
            Lot::FailAfter => {
                let _ = effect();
                Err(PortError::Unsure("fate: the answer was lost".to_owned()))
            }
        }
    }
}
