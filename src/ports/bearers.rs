//! The tokens that connections work with, as the engine makes and revokes them.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::{Map, Value};

use super::PortError;
use super::tokens::{Stripped, TokenRow, Via};
use crate::model::secret::Secret;
use crate::model::time::Timestamp;

/// The subject of every token of a connection.
pub const SUBJECT: &str = "connection";
/// How long such a token lives, in seconds: 90 days.
pub const LIFE_SECONDS: i64 = 90 * 86_400;
/// How long a token for one call of our own lives, in seconds.
pub const BRIEF_SECONDS: i64 = 60;

/// The tokens of connections that are neither revoked nor expired.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// The key that signs now; `None` while there is none yet.
    pub kid: Option<String>,
    /// Who tokens that are made now say made them.
    pub issuer: String,
    /// By jti.
    pub live: BTreeMap<String, TokenRow>,
}

/// A token to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `connection/<name>`.
    pub client: String,
    pub via: Via,
    pub scope: String,
    pub audience: String,
    pub vault_scope: Vec<String>,
    pub permissions: Option<Map<String, Value>>,
}

/// A token, and what its row says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Minted {
    pub jti: String,
    pub token: Secret,
    pub kid: String,
    pub expires: Timestamp,
}

/// Who makes and revokes them. Every call is quick: at most a write to the disk.
pub trait Bearers {
    /// Who we are: the issuer of tokens, and all origins whose tokens count. The same again does nothing.
    fn set_origins(&self, issuer: &str, accepted: &[String]);
    /// # Errors
    /// When the database of tokens cannot be read.
    fn holdings(&self) -> Result<Rc<Holdings>, PortError>;
    /// Makes a token; its row is written when this returns.
    ///
    /// # Errors
    /// When it could not be registered; then there is none.
    fn register(&self, wanted: &Wanted) -> Result<Minted, PortError>;
    /// The very token that was registered under this id, made again to the letter; `None` when that cannot be done any more (it is revoked,
    /// or its key signs no more).
    ///
    /// # Errors
    /// When the database of tokens cannot be read.
    fn again(&self, jti: &str) -> Result<Option<Minted>, PortError>;
    /// A token for calls that are made now. It has no row, and lives [`BRIEF_SECONDS`].
    ///
    /// # Errors
    /// When nothing can be signed.
    fn brief(&self, scope: &str, audience: &str, vault_scope: &[String]) -> Result<Secret, PortError>;
    /// Revokes a token. Again does nothing.
    ///
    /// # Errors
    /// When it could not be written.
    fn revoke(&self, jti: &str) -> Result<(), PortError>;
    /// Revokes every token that names the vault, and takes it out of all grants. Again does nothing.
    ///
    /// # Errors
    /// When it could not be written.
    fn strip_vault(&self, vault: &str) -> Result<Stripped, PortError>;
}
