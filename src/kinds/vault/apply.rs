//! Doing what was decided about a Vault. Every action is idempotent: the program of the service finds its work done.

use super::plan::Action;
use crate::kinds::service::apply::Outcome;
use crate::model::unit::Millis;
use crate::ports::Hand;
use crate::ports::probes::Ask;

/// A command that takes longer holds everything else up; what it did is seen by the next look.
const COMMAND_LIMIT: Millis = Millis::secs(20);

/// Does one step.
pub async fn apply(hand: &Hand<'_>, action: &Action) -> Outcome {
    match action {
        Action::Accept | Action::Release => Outcome::Changed(None),
        Action::Create { command } | Action::Remove { command } => run(hand, command).await,
        Action::Strip { vault, then } => match hand.bearers().strip_vault(vault) {
            Ok(_) => Outcome::Recorded(then.write()),
            Err(error) => error.into(),
        },
    }
}

async fn run(hand: &Hand<'_>, command: &Ask) -> Outcome {
    match hand.probes().run(command, COMMAND_LIMIT).await {
        Ok(()) => Outcome::Changed(None),
        Err(why) => Outcome::Retry(why),
    }
}
