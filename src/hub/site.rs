//! What every request may look at.

use std::sync::Arc;

use tokio::sync::watch;

use crate::authority::Authority;
use crate::model::output::ResourceLine;
use crate::ports::hub::Wish;

/// What was last reported of the machine.
#[derive(Clone, Debug, Default)]
pub struct Board {
    /// Sorted by identity.
    pub resources: Vec<ResourceLine>,
    /// Nothing is left to do or to wait for.
    pub settled: bool,
}

/// Shared by all requests. Cheap to clone.
#[derive(Clone)]
pub struct Site {
    pub wish: watch::Receiver<Arc<Wish>>,
    pub board: watch::Receiver<Arc<Board>>,
    pub authority: Arc<Authority>,
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
