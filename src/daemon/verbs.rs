//! What a client may ask of the daemon, and what it hears back: one JSON object a line.

use serde::{Deserialize, Serialize};

use crate::cli::engine::{Outcome, ReconcileOptions};
use crate::model::id::Name;
use crate::model::output::Line;
use crate::model::overriding::OverrideRequest;
use crate::model::unit::Millis;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "camelCase")]
pub(super) enum Verb {
    Reconcile {
        options: ReconcileOptions,
    },
    Restart {
        names: Vec<Name>,
        timeout: Millis,
    },
    Override {
        request: OverrideRequest,
        timeout: Millis,
    },
    /// Other tokens for these connections, before those that they use are revoked.
    Renew {
        connections: Vec<Name>,
        timeout: Millis,
    },
    Down {
        timeout: Millis,
    },
}

impl Verb {
    /// The services that it is about; none when it is about everything.
    pub(super) fn only(&self) -> &[Name] {
        match self {
            Self::Restart { names, .. } => names,
            Self::Override { request, .. } => &request.names,
            Self::Reconcile { .. } | Self::Renew { .. } | Self::Down { .. } => &[],
        }
    }

    pub(super) fn timeout(&self) -> Millis {
        match self {
            Self::Reconcile { options } => options.timeout,
            Self::Restart { timeout, .. }
            | Self::Override { timeout, .. }
            | Self::Renew { timeout, .. }
            | Self::Down { timeout } => *timeout,
        }
    }
}

/// An answer. Lines come as they come to be; `Done` or `Failed` is the last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "camelCase")]
pub(super) enum Reply {
    Line { line: Line },
    Done { outcome: Outcome },
    Failed { message: String },
}
