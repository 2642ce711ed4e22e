//! How a Hub stands. Pure. There are no steps to plan: the hub is told what to serve in every tick, and telling it the same again does
//! nothing.

use crate::kinds::standing::Standing;
use crate::model::condition::Reason;
use crate::ports::hub::{self, Trouble};

/// From what the hub says of itself.
pub fn standing(seen: &hub::Standing) -> Standing {
    let (ready, reason, message) = match seen {
        hub::Standing::Idle => {
            let message = "its settings are in force; `trueup reconcile` serves it while it runs";
            (true, Reason::Accepted, message.to_owned())
        }
        hub::Standing::Starting => (false, Reason::NotReady, "about to listen".to_owned()),
        hub::Standing::Serving(address) => (true, Reason::Serving, format!("listens on {address}")),
        hub::Standing::Refused { trouble, message } => {
            let reason = match trouble {
                Trouble::Taken => Reason::PortTaken,
                Trouble::Address => Reason::BadAddress,
                Trouble::Certificate => Reason::BadInput,
                Trouble::Database => Reason::DatabaseLost,
            };
            (false, reason, message.clone())
        }
    };
    let doomed = matches!(seen, hub::Standing::Refused { .. });
    Standing { started: true, ready, completed: false, reason, message, doomed, drifted: None }
}
