//! What a token says. Pure.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::scope::{self, Scope};
use crate::model::time::Timestamp;
use crate::ports::tokens::TokenRow;

/// A token that lives longer, in seconds, has a row.
pub const BRIEF_SECONDS: i64 = 600;
/// The audiences of tokens that are meant for the hub itself.
pub const HUB_AUDIENCES: [&str; 2] = ["hub", "operator"];
/// How far the clock may have been set back since a token was made, in seconds.
pub(super) const SKEW_SECONDS: i64 = 60;

/// The claims of a token, in the order in which they are written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Claims {
    pub sub: String,
    pub iss: String,
    pub aud: String,
    /// Seconds since 1970.
    pub iat: i64,
    pub exp: i64,
    pub jti: String,
    /// With one space between.
    pub scope: String,
    pub client_id: String,
    pub vault_scope: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub permissions: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pa_scope_set: Option<String>,
}

impl Claims {
    pub(super) fn expires(&self) -> Timestamp {
        Timestamp(self.exp.saturating_mul(1_000))
    }

    /// Whether it may do without a row, now.
    pub(super) fn is_brief(&self, now: Timestamp) -> bool {
        let now = now.0.div_euclid(1_000);
        let span = self.exp.saturating_sub(self.iat);
        // Of the time left as well: a thief of the key writes into `iat` what they like.
        span <= BRIEF_SECONDS && self.exp.saturating_sub(now) <= BRIEF_SECONDS + SKEW_SECONDS
    }

    /// Whether this is what was registered under its id, and nothing more. A thief of the key knows ids too.
    pub(super) fn is_of(&self, row: &TokenRow, kid: &str) -> bool {
        let permissions = row.permissions.as_deref().map(serde_json::from_str::<Map<String, Value>>);
        let same_permissions = match (permissions, &self.permissions) {
            (None, None) => true,
            (Some(Ok(registered)), Some(claimed)) => registered == *claimed,
            _ => false,
        };
        same_permissions
            && self.sub == row.subject
            && self.aud == row.audience
            && self.client_id == row.client
            && self.scope.split(' ').eq(row.scopes.iter().map(String::as_str))
            && self.vault_scope == row.vault_scope
            && self.expires() == row.expires
            && kid == row.kid
    }
}

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
    /// Further restrictions, such as `scoped_tags`.
    pub permissions: Option<Map<String, Value>>,
    /// The named set of scopes of an operator token.
    pub scope_set: Option<String>,
    pub expires: Timestamp,
}

impl Caller {
    pub(super) fn of(claims: Claims) -> Self {
        Self {
            expires: claims.expires(),
            scopes: claims.scope.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect(),
            subject: claims.sub,
            client: claims.client_id,
            jti: claims.jti,
            audience: claims.aud,
            vault_scope: claims.vault_scope,
            permissions: claims.permissions,
            scope_set: claims.pa_scope_set,
        }
    }

    /// Whether they may do what this scope allows.
    pub fn may(&self, wanted: &Scope) -> bool {
        scope::allows(&self.scopes, &self.vault_scope, wanted)
    }

    /// Whether they hold exactly this scope; for those that are no vault's.
    pub fn holds(&self, scope: &str) -> bool {
        self.scopes.contains(scope)
    }

    /// Whether the token is meant for the hub itself. A token that was made for a module may be in that module's hands.
    pub fn is_for_hub(&self) -> bool {
        HUB_AUDIENCES.contains(&self.audience.as_str())
    }

    /// Whether they govern the machine, by `parachute:host:auth` or `parachute:host:admin`.
    pub fn is_operator(&self) -> bool {
        self.is_for_hub() && (self.holds(scope::HOST_AUTH) || self.holds(scope::HOST_ADMIN))
    }
}
