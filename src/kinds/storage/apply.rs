//! Doing what was decided about the Storage. Nothing here waits for bytes.

use super::plan::Action;
use crate::kinds::service::apply::Outcome;
use crate::ports::{Hand, PortError};

/// Does one step.
pub fn apply(hand: &Hand<'_>, action: &Action) -> Outcome {
    let done = match action {
        Action::Accept | Action::Release => Ok(()),
        Action::Activate { to } => hand.storage().activate(to),
        Action::Migrate { to, .. } => hand.storage().migrate(to),
    };
    match done {
        Ok(()) => Outcome::Changed(None),
        Err(PortError::Retry(why)) => Outcome::Retry(why),
        Err(PortError::Never(why)) => Outcome::Never(why),
        Err(PortError::Unsure(why)) => Outcome::Unsure(why),
    }
}
