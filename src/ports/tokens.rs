//! Where keys, tokens and grants are kept. Every verb is one transaction: when it fails, nothing was written. Blocking; any number of
//! threads and processes may ask at once.

use std::collections::BTreeSet;
use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

use crate::model::secret::Secret;
use crate::model::time::Timestamp;

/// How a failure of the store is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultClass {
    /// Somebody else holds it for a moment: try again.
    Transient,
    /// The disk or the file is broken. The store has opened the file anew already, once.
    Fatal,
    /// Anything else, such as a full disk or a folder that may not be written.
    Other,
}

impl FaultClass {
    /// As it stands in answers about health.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Fatal => "fatal",
            Self::Other => "other",
        }
    }
}

/// The store did not do what was asked. The message holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StoreFault {
    pub class: FaultClass,
    pub message: String,
}

/// The file is not the one that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// Nothing is at its path: it was deleted, or its folder was.
    #[error("the database of tokens is gone")]
    Gone,
    /// Another file is at its path.
    #[error("the database of tokens was replaced by another file")]
    Replaced,
}

/// What is wrong with the store as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwell {
    #[error(transparent)]
    Lost(#[from] Lost),
    #[error(transparent)]
    Fault(#[from] StoreFault),
}

/// How a token came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    OauthRefresh,
    CliMint,
    OperatorMint,
    ConnectionProvision,
    ConnectionCredential,
    AgentGrant,
    SurfaceToken,
}

impl Via {
    pub const ALL: [Self; 7] = [
        Self::OauthRefresh,
        Self::CliMint,
        Self::OperatorMint,
        Self::ConnectionProvision,
        Self::ConnectionCredential,
        Self::AgentGrant,
        Self::SurfaceToken,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::OauthRefresh => "oauth_refresh",
            Self::CliMint => "cli_mint",
            Self::OperatorMint => "operator_mint",
            Self::ConnectionProvision => "connection_provision",
            Self::ConnectionCredential => "connection_credential",
            Self::AgentGrant => "agent_grant",
            Self::SurfaceToken => "surface_token",
        }
    }

    /// Reads [`Via::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|via| via.as_str() == text)
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A token, without the token itself: that is never kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    pub jti: String,
    pub subject: String,
    pub client: String,
    pub audience: String,
    /// In the order of the claim.
    pub scopes: Vec<String>,
    /// The vaults that it is pinned to; empty when it is not.
    pub vault_scope: Vec<String>,
    /// The claim `permissions`, a JSON object as text.
    pub permissions: Option<String>,
    pub via: Via,
    /// The key that signed it.
    pub kid: String,
    pub created: Timestamp,
    pub expires: Timestamp,
    pub revoked: Option<Timestamp>,
}

/// A signing key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    pub kid: String,
    /// SPKI, PEM.
    pub public_pem: String,
    /// PKCS#8, PEM. Only the active key has one: what is retired cannot sign any more.
    pub private_pem: Option<Secret>,
    pub created: Timestamp,
    pub retired: Option<Timestamp>,
    /// Set when it is retired: the end of the last token that it signed.
    pub keep_until: Option<Timestamp>,
}

/// What a subject allowed a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantRow {
    pub subject: String,
    pub client: String,
    /// Sorted, each once.
    pub scopes: BTreeSet<String>,
    pub granted: Timestamp,
}

/// What came of writing a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// It is written, and will be there after a loss of power.
    Written,
    /// The key that signed the token is not the active one any more.
    KeyRetired,
    /// There are too many live tokens.
    Full,
}

/// Which tokens to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenFilter {
    /// `Some(true)` only revoked ones, `Some(false)` only others.
    pub revoked: Option<bool>,
    pub subject: Option<String>,
    pub client: Option<String>,
    pub via: Option<Via>,
}

/// The last token of a page: the next page begins after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct After {
    pub created: Timestamp,
    pub jti: String,
}

/// How many tokens somebody may have that have not expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Not revoked.
    pub live: u32,
    pub with_revoked: u32,
}

/// What is known of a token that is to be verified, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its key is kept and still counts.
    pub key: bool,
    pub row: Option<TokenRow>,
}

/// What a rotation did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rotated {
    /// The keys that do not count any more, or only until their last token ends.
    pub retired: Vec<String>,
    /// Live tokens that the retired keys signed. They stay valid unless the keys were dropped.
    pub tokens: Vec<TokenRow>,
}

/// What became of everything that names a vault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stripped {
    pub tokens_revoked: u64,
    pub grants_rewritten: u64,
    pub grants_dropped: u64,
}

/// The store of keys, tokens and grants.
pub trait TokenStore: Send + Sync {
    /// Looks whether the file at the path is still the one that is open, and whether it can be read.
    ///
    /// # Errors
    /// Says what is wrong.
    fn check(&self) -> Result<(), Unwell>;
    /// Opens the file at the path anew; never makes one.
    ///
    /// # Errors
    /// Says what is wrong; what was open before stays in use.
    fn reopen(&self) -> Result<(), Unwell>;

    /// Every key that is kept, the newest first.
    fn keys(&self) -> Result<Vec<KeyRow>, StoreFault>;
    /// Makes this the active key unless there is one already.
    fn add_key(&self, key: &KeyRow) -> Result<(), StoreFault>;
    /// Retires every key and makes this one the active one. A retired key counts until `least`, and as long as a token lives that it
    /// signed; with `drop_old` it is deleted instead, at once.
    fn rotate(&self, new: &KeyRow, drop_old: bool, least: Timestamp, now: Timestamp) -> Result<Rotated, StoreFault>;

    /// Whether a subject and client have reached this bound with the tokens that came to be in this way.
    fn are_more(&self, subject: &str, client: &str, via: Via, now: Timestamp, than: Bound) -> Result<bool, StoreFault>;
    /// Writes the row of a token that is about to be handed out. There is always room for an operator token.
    fn register(&self, row: &TokenRow) -> Result<Registration, StoreFault>;
    /// What verification must know, from the newest state of the store.
    fn known(&self, kid: &str, jti: &str, now: Timestamp) -> Result<Known, StoreFault>;
    fn find(&self, jti: &str) -> Result<Option<TokenRow>, StoreFault>;
    /// The newest first; those of one moment by their id, backwards.
    fn list(&self, filter: &TokenFilter, after: Option<&After>, limit: usize) -> Result<Vec<TokenRow>, StoreFault>;
    /// Revokes a token; answers when it was revoked, or `None` when there is no such token. Again changes nothing.
    fn revoke(&self, jti: &str, at: Timestamp) -> Result<Option<Timestamp>, StoreFault>;
    /// Revokes the live tokens of a subject and client that came to be in this way, but for one; answers which.
    fn revoke_others(
        &self,
        subject: &str,
        client: &str,
        via: Via,
        but: &str,
        at: Timestamp,
    ) -> Result<Vec<String>, StoreFault>;
    /// The ids of tokens that are revoked and have not expired, sorted.
    fn revoked(&self, now: Timestamp) -> Result<Vec<String>, StoreFault>;
    /// How many tokens have not expired, by how they came to be and whether they are revoked.
    fn counts(&self, now: Timestamp) -> Result<Vec<(Via, bool, u64)>, StoreFault>;
    /// Forgets tokens that expired before this moment, and keys that counted no more by then; at most some hundreds at a time. Nothing
    /// is forgotten while `now` is more than a day ahead of the newest time that is believed, which every call brings forward by at
    /// most that day.
    fn sweep(&self, expired_before: Timestamp, now: Timestamp) -> Result<u64, StoreFault>;

    /// Sorted by subject and client; at most as many as the store holds of them, which is bounded.
    fn grants(&self) -> Result<Vec<GrantRow>, StoreFault>;
    fn grant(&self, subject: &str, client: &str) -> Result<Option<GrantRow>, StoreFault>;
    /// Adds scopes to what was granted before; answers with the whole.
    fn add_grant(&self, row: &GrantRow) -> Result<GrantRow, StoreFault>;
    /// Whether there was one.
    fn remove_grant(&self, subject: &str, client: &str) -> Result<bool, StoreFault>;
    /// Takes the scopes that name a vault out of every grant, drops the grants that are empty then, and revokes the live tokens that
    /// name it or are pinned to it. `names` says whether a scope does.
    fn strip_vault(&self, vault: &str, names: &dyn Fn(&str) -> bool, at: Timestamp) -> Result<Stripped, StoreFault>;
}

/// Let go, others may have their turn.
pub trait Turn {}

/// A file for one secret, for its owner alone.
pub trait SecretFile {
    /// Nobody else has the turn before the answer is dropped; they wait for it for some seconds.
    ///
    /// # Errors
    /// When others have it for too long, or it cannot be asked for.
    fn turn(&self) -> io::Result<Box<dyn Turn>>;
    /// `None` when it is not there.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&self) -> io::Result<Option<Secret>>;
    /// Replaces it in one move; afterwards it is there even after a loss of power.
    ///
    /// # Errors
    /// When it cannot be written; the old one is still there then.
    fn write(&self, secret: &Secret) -> io::Result<()>;
    /// Takes it from group and others. The mode it had, if it was open to them.
    ///
    /// # Errors
    /// When its mode cannot be changed.
    fn close_to_others(&self) -> io::Result<Option<u32>>;
}
