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
    /// What is wrong with the database.
    database: Mutex<Option<String>>,
    moved: Notify,
}

impl State {
    /// As the listener said last.
    pub(super) fn standing(&self) -> Standing {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// As the engine is told: without its database, or where somebody else answers at its address, it does not serve as it should.
    pub(super) fn seen(&self) -> Standing {
        let database = self.database.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match (self.standing(), self.self_probe()) {
            (Standing::Serving(_), _) if database.is_some() => {
                Standing::Refused { trouble: Trouble::Database, message: database.unwrap_or_default() }
            }
            (Standing::Serving(_), Some(SelfProbe { status: ProbeStatus::Hijacked, detail, .. })) => {
                Standing::Refused { trouble: Trouble::Taken, message: detail.unwrap_or_default() }
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

    /// What is wrong with the database, if anything is. Says whether it is news.
    pub(super) fn database(&self, now: Option<String>) -> bool {
        let mut wrong = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let news = *wrong != now;
        *wrong = now;
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
