//! How a resource of whatever kind stands. Pure.

use crate::model::condition::Reason;

/// How a resource stands: the basis of its conditions, and what its dependents look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub started: bool,
    pub ready: bool,
    pub completed: bool,
    pub reason: Reason,
    pub message: String,
    /// Waiting longer is not expected to help. What is ready and doomed works, and cannot become what is asked for.
    pub doomed: bool,
    pub drifted: Option<(Reason, String)>,
}

impl Standing {
    pub fn down(reason: Reason, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { started: false, ready: false, completed: false, reason, message, doomed: false, drifted: None }
    }

    /// Waiting longer is not expected to help.
    pub fn doomed(mut self) -> Self {
        self.doomed = true;
        self
    }

    /// Nothing is to be done or waited for.
    pub fn settled(&self) -> bool {
        (self.ready && !self.doomed)
            || self.completed
            || matches!(self.reason, Reason::Suspended | Reason::Overridden | Reason::Down | Reason::Gone)
            || matches!(self.reason, Reason::Scheduled | Reason::LastRunFailed)
    }
}
