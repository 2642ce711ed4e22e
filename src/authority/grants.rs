//! What a subject allowed a client, and what becomes of it when a vault goes.

use std::collections::BTreeSet;

use super::Authority;
use super::scope::{self, Scope};
use crate::model::time::Timestamp;
use crate::ports::tokens::{GrantRow, StoreFault, Stripped};

/// More scopes than a client can use.
const MOST_SCOPES: usize = 256;
/// Of a subject or client.
const MOST_NAME_BYTES: usize = 256;

/// Why nothing was granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ungranted {
    #[error("{0}")]
    InvalidRequest(String),
    #[error("{0}")]
    InvalidScope(String),
    #[error(transparent)]
    Store(#[from] StoreFault),
}

impl Authority {
    /// Every grant, sorted by subject and client.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn grants(&self) -> Result<Vec<GrantRow>, StoreFault> {
        self.rows()?.grants()
    }

    /// What this subject allowed this client.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn granted(&self, subject: &str, client: &str) -> Result<Option<GrantRow>, StoreFault> {
        self.rows()?.grant(subject, client)
    }

    /// Adds to what a subject allowed a client; answers with the whole.
    ///
    /// # Errors
    /// When a scope is none, can never be given away, or it cannot be written.
    pub fn grant(&self, subject: &str, client: &str, scopes: &[String], now: Timestamp) -> Result<GrantRow, Ungranted> {
        for name in [subject, client] {
            if name.is_empty() || name.len() > MOST_NAME_BYTES || name.chars().any(char::is_control) {
                let text = "a subject or client has 1 to 256 bytes and no control characters";
                return Err(Ungranted::InvalidRequest(text.to_owned()));
            }
        }
        if scopes.is_empty() || scopes.len() > MOST_SCOPES {
            return Err(Ungranted::InvalidRequest(format!("a grant has 1 to {MOST_SCOPES} scopes")));
        }
        let mut all = BTreeSet::new();
        for text in scopes {
            let scope = Scope::parse(text).map_err(|bad| Ungranted::InvalidScope(bad.to_string()))?;
            if scope::is_never_requestable(text) {
                return Err(Ungranted::InvalidScope(format!("'{text}' can be granted to nobody")));
            }
            all.insert(scope.to_string());
        }
        let row = GrantRow { subject: subject.to_owned(), client: client.to_owned(), scopes: all, granted: now };
        Ok(self.rows()?.add_grant(&row)?)
    }

    /// Takes back what a subject allowed a client; answers whether there was anything.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn revoke_grant(&self, subject: &str, client: &str) -> Result<bool, StoreFault> {
        self.rows()?.remove_grant(subject, client)
    }

    /// Takes a vault out of everything: its scopes out of every grant, grants that are empty then, and the tokens that name it or are
    /// pinned to it. All in one transaction. Tokens of ten minutes at most are left to expire.
    ///
    /// # Errors
    /// When it cannot be written; then nothing was.
    pub fn strip_vault(&self, vault: &str, now: Timestamp) -> Result<Stripped, StoreFault> {
        self.rows()?.strip_vault(vault, &|scope| scope::names_vault(scope, vault), now)
    }
}
