//! The bell that ends the engine's waits: rung by probes, the keeper, file events and requests; it says nothing but "look again".

use std::sync::Arc;

use tokio::sync::Notify;

use crate::cli::interrupt::Cancel;
use crate::engine::{Bell, Rang};
use crate::model::unit::Millis;
use crate::ports::Answer;

/// A ring that comes while nobody waits is kept (one is as good as many).
#[derive(Clone)]
pub(super) struct Ringer(Arc<Notify>);

impl Ringer {
    pub(super) fn new() -> Self {
        Self(Arc::new(Notify::new()))
    }

    pub(super) fn ring(&self) {
        self.0.notify_one();
    }

    pub(super) fn bell(&self, cancel: Option<Cancel>) -> RealBell {
        RealBell { notify: self.0.clone(), cancel }
    }
}

pub(super) struct RealBell {
    notify: Arc<Notify>,
    /// `None` for commands that only look and are dropped when they are to end.
    cancel: Option<Cancel>,
}

impl RealBell {
    async fn cancelled(&self) {
        match &self.cancel {
            Some(cancel) => {
                cancel.wait().await;
            }
            None => std::future::pending().await,
        }
    }
}

impl Bell for RealBell {
    fn wait(&self, at_most: Millis) -> Answer<'_, Rang> {
        Box::pin(async move {
            // All arms are cancel-safe: a notification that was not taken stays, the timer and the request to end lose nothing.
            tokio::select! {
                biased;
                () = self.cancelled() => Rang::Cancelled,
                () = self.notify.notified() => Rang::Woken,
                () = tokio::time::sleep(at_most.into()) => Rang::Time,
            }
        })
    }
}
