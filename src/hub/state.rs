//! How the hub stands, for whoever asks.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use super::selfprobe::{ProbeStatus, SelfProbe};
use crate::ports::hub::{Standing, Trouble};

/// Shared by the listener and whoever asks.
#[derive(Debug, Default)]
pub(super) struct State {
    standing: Mutex<Standing>,
    self_probe: Mutex<Option<SelfProbe>>,
    moved: Notify,
}

impl State {
    /// As the listener said last.
    pub(super) fn standing(&self) -> Standing {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where somebody else answers at our address, nothing is served.
    pub(super) fn seen(&self) -> Standing {
        match (self.standing(), self.self_probe()) {
            (Standing::Serving(_), Some(SelfProbe { status: ProbeStatus::Hijacked, detail, .. })) => {
                Standing::Refused { trouble: Trouble::Address, message: detail.unwrap_or_default() }
            }
            (standing, _) => standing,
        }
    }

    /// Says whether it is news.
    pub(super) fn say(&self, now: Standing) -> bool {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let news = *standing != now;
        *standing = now;
        drop(standing);
        if news {
            self.moved.notify_one();
        }
        news
    }

    /// Waits for news. Cancel-safe.
    pub(super) async fn moved(&self) {
        self.moved.notified().await;
    }

    pub(super) fn self_probe(&self) -> Option<SelfProbe> {
        self.self_probe.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn probed(&self, found: Option<SelfProbe>) {
        *self.self_probe.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }
}
