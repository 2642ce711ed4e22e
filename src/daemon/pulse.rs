//! Tells a service manager that asked for it that the loop goes round (sd_notify(3), `WATCHDOG=1`).

use crate::engine::run::{Bell, Rang};
use crate::model::time::Tick;
use crate::model::unit::Millis;
use crate::ports::clock::Clock;

/// Sends nothing, and wakes nobody, when no watchdog was asked for.
pub(super) struct Pulse {
    every: Option<Millis>,
    next: Tick,
}

impl Pulse {
    /// As the environment says. Half the interval, as sd_watchdog_enabled(3) advises.
    pub(super) fn asked(now: Tick) -> Self {
        let every = sd_notify::watchdog_enabled()
            .map(|limit| Millis(u64::try_from(limit.as_millis() / 2).unwrap_or(u64::MAX)))
            .filter(|every| every.0 > 0);
        Self { every, next: now }
    }

    /// Waits as the bell does. Only the loop itself comes here, between two ticks: one that hangs in a tick sends nothing more.
    pub(super) async fn wait(&mut self, bell: &dyn Bell, clock: &dyn Clock, at_most: Millis) -> Rang {
        let Some(every) = self.every else { return bell.wait(at_most).await };
        let end = clock.now() + at_most;
        loop {
            let now = clock.now();
            if self.next <= now {
                // A manager that cannot be reached will do what it must.
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
                self.next = now + every;
            }
            let rang = bell.wait((end - now).min(self.next - now)).await;
            if rang != Rang::Time || clock.now() >= end {
                return rang;
            }
        }
    }
}
