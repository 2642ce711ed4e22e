//! By whose leave something goes on: an answer or a tunnel may outlive the token with which it was asked for.

use std::sync::Arc;
use std::time::Duration;

use crate::authority::{Authority, Caller, Denied};
use crate::model::secret::Secret;
use crate::model::time::Timestamp;
use crate::ports::clock::Clock;

/// A token, looked at again and again. What it is good for never changes, so only whether it still counts is asked.
pub struct Leave {
    pub authority: Arc<Authority>,
    pub clock: Arc<dyn Clock + Send + Sync>,
    pub token: Secret,
    pub expires: Timestamp,
    /// Between two looks.
    pub every: Duration,
}

impl Leave {
    pub fn new(
        authority: &Arc<Authority>,
        clock: &Arc<dyn Clock + Send + Sync>,
        (token, caller): (&str, &Caller),
        every: Duration,
    ) -> Arc<Self> {
        let (authority, clock, token) = (authority.clone(), clock.clone(), Secret::new(token.to_owned()));
        Arc::new(Self { authority, clock, token, expires: caller.expires, every })
    }

    /// Ends when the token does not count any more. Cancel-safe.
    pub async fn over(&self) {
        loop {
            tokio::time::sleep(self.every).await;
            let now = self.clock.wall();
            let counts = match self.authority.verify(self.token.reveal(), now) {
                Ok(_) => true,
                // While nobody can say, it is what it was.
                Err(Denied::Unavailable(_)) => now < self.expires,
                Err(_) => false,
            };
            if !counts {
                return;
            }
        }
    }
}
