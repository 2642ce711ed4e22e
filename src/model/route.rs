//! From where a route under the hub's origin may be reached.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// From where a route may be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Exposure {
    /// From anywhere.
    #[default]
    Allowed,
    /// From this machine only.
    Loopback,
    /// From anywhere, with a token.
    AuthRequired,
}
