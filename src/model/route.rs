//! From where a route under the hub's origin may be reached.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The first segments of paths that the hub answers itself.
pub const OWN: &[&str] = &[".well-known", "api", "health", "healthz", "inbox", "metrics", "readyz"];

/// Whether the hub answers a path itself.
pub fn is_own(path: &str) -> bool {
    let first = path.get(1..).unwrap_or_default().split('/').next().unwrap_or_default();
    OWN.contains(&first)
}

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
