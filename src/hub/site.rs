//! What every request may look at.

use std::sync::Arc;

use tokio::sync::watch;

use super::metrics::Metrics;
use super::vital::Vital;
use crate::authority::Authority;
use crate::model::output::{ProgressLine, ResourceLine, StepLine, WaitLine};
use crate::model::unit::Millis;
use crate::ports::clock::Clock;
use crate::ports::hub::Wish;

/// What was last reported of the machine.
#[derive(Clone, Debug, Default)]
pub struct Board {
    /// Sorted by identity.
    pub resources: Vec<ResourceLine>,
    /// What this tick did.
    pub steps: Vec<StepLine>,
    /// How many steps wait for something.
    pub later: usize,
    /// What is waited for.
    pub waits: Vec<WaitLine>,
    /// Set while blobs are moved.
    pub progress: Option<ProgressLine>,
    /// Nothing is left to do or to wait for.
    pub settled: bool,
    /// How long the tick took, and how long until the next one if nothing happens.
    pub took: Millis,
    pub pause: Millis,
}

/// Shared by all requests. Cheap to clone.
#[derive(Clone)]
pub struct Site {
    pub wish: watch::Receiver<Arc<Wish>>,
    pub board: watch::Receiver<Arc<Board>>,
    pub authority: Arc<Authority>,
    pub metrics: Metrics,
    pub clock: Arc<dyn Clock + Send + Sync>,
    pub(super) vital: Vital,
    /// Tells this process from any other that answers on our port.
    pub instance: Arc<str>,
}

impl Site {
    /// What is served now.
    pub fn wish(&self) -> Arc<Wish> {
        self.wish.borrow().clone()
    }

    pub fn board(&self) -> Arc<Board> {
        self.board.borrow().clone()
    }
}
