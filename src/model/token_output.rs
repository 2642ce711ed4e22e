//! What the commands for tokens and grants say, and the HTTP paths with them. The names of the fields are those that clients of the older
//! hub know, so they are written with underscores.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::time::Timestamp;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum TokenOutput {
    Minted(MintedLine),
    Token(TokenLine),
    Revoked(RevokedLine),
    Rotated(RotatedLine),
    Reset(ResetLine),
    Restored(RestoredLine),
    Grant(GrantLine),
    GrantRevoked(GrantRevokedLine),
}

/// A token that was made. The only line that holds one.
#[derive(Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MintedLine {
    pub jti: String,
    pub token: String,
    pub expires_at: Timestamp,
    /// With spaces between.
    pub scope: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub permissions: Option<Map<String, Value>>,
}

impl std::fmt::Debug for MintedLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MintedLine").field("jti", &self.jti).field("scope", &self.scope).finish_non_exhaustive()
    }
}

/// A token, without the token itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TokenLine {
    pub jti: String,
    /// There are no users; clients of the older hub expect the field.
    pub user_id: Option<String>,
    pub subject: String,
    pub client_id: String,
    pub audience: String,
    pub scopes: Vec<String>,
    /// The vaults that it is pinned to; empty when it is not.
    pub vault_scope: Vec<String>,
    pub expires_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub created_via: String,
    pub kid: String,
    pub permissions: Option<Map<String, Value>>,
}

/// A token that is revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevokedLine {
    pub jti: String,
    pub revoked_at: Timestamp,
}

/// What a rotation of keys did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RotatedLine {
    /// The key that signs from now on.
    pub kid: String,
    pub retired: Vec<String>,
    /// Whether the old keys were dropped at once.
    pub compromised: bool,
    /// How many live tokens the old keys signed.
    pub tokens: u64,
    /// Subjects and clients of tokens that were made anew.
    pub reissued: Vec<String>,
    /// Live tokens that died with the old keys and cannot be made anew from here: whoever uses them needs new ones.
    pub orphaned: Vec<TokenLine>,
}

/// A database of keys and tokens that was made anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetLine {
    pub database: PathBuf,
    /// Where what was left of the old one is.
    pub moved_to: Option<PathBuf>,
    /// The key that signs from now on.
    pub kid: String,
    /// What was made anew. All other tokens are dead, and nobody knows which there were.
    pub reissued: Vec<String>,
}

/// A backup that was put in the place of the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredLine {
    pub database: PathBuf,
    pub from: PathBuf,
    /// Where the old database is, if there was one.
    pub moved_to: Option<PathBuf>,
    /// What was made anew because the backup does not know it.
    pub reissued: Vec<String>,
}

/// What a subject allowed a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantLine {
    pub subject: String,
    pub client_id: String,
    pub scopes: Vec<String>,
    pub granted_at: Timestamp,
}

/// A grant that was taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRevokedLine {
    pub subject: String,
    pub client_id: String,
}
