//! Keys, tokens and grants: who may do what. The rules are pure; rows are kept behind [`crate::ports`].

use std::collections::BTreeSet;

use crate::model::time::Timestamp;

/// Who asks, as a verified token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub subject: String,
    pub client: String,
    pub jti: String,
    pub audience: String,
    pub scopes: BTreeSet<String>,
    /// The vaults that it is pinned to; empty when it is not.
    pub vault_scope: Vec<String>,
    pub expires: Timestamp,
}

/// Why a token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("it is no token of this hub: {0}")]
    Malformed(String),
    #[error("it expired at {0}")]
    Expired(Timestamp),
    #[error("it was revoked")]
    Revoked,
    /// Nobody can say at the moment.
    #[error("{0}")]
    Unavailable(String),
}

/// The one who says so.
#[derive(Default)]
pub struct Authority {}

impl Authority {
    /// Reads a bearer token.
    ///
    /// # Errors
    /// Says why it is not accepted; never with a part of the token.
    pub fn verify(&self, _token: &str, _now: Timestamp) -> Result<Caller, Denied> {
        Err(Denied::Unavailable("there are no keys yet".to_owned()))
    }
}
