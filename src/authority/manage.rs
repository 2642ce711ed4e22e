//! Lists, revocation, and the keys as a whole.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::Authority;
use super::claims::{BRIEF_SECONDS, Caller, SKEW_SECONDS};
use super::keys::{self, JwkSet};
use super::mint::MintError;
use super::scope::{self, Scope};
use crate::model::time::Timestamp;
use crate::ports::tokens::{After, StoreFault, TokenFilter, TokenRow, Via};

/// So many tokens are on a page.
pub const PAGE: usize = 50;
/// What expired so long ago is forgotten: 30 days, in milliseconds.
const MEMORY: i64 = 30 * 86_400_000;

/// Which page of which tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListRequest {
    pub filter: TokenFilter,
    /// As the page before gave it. What cannot be read is the first page.
    pub cursor: Option<String>,
}

/// One page, the newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub tokens: Vec<TokenRow>,
    /// `None` on the last page.
    pub next_cursor: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Cursor {
    created_at: Timestamp,
    jti: String,
}

/// A token that is revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    pub jti: String,
    /// When it was, the first time.
    pub at: Timestamp,
}

/// Why a token was not revoked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unrevoked {
    #[error("there is no token of this id")]
    NotFound,
    /// The caller could not have made it.
    #[error("the caller could not have made this token, and so may not revoke it")]
    Forbidden,
    #[error(transparent)]
    Store(#[from] StoreFault),
}

/// What a rotation did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// The key that signs from now on.
    pub kid: String,
    pub retired: Vec<String>,
    /// Live tokens that the retired keys signed. They stay valid, unless the keys were compromised: then all of them are dead, and whoever
    /// uses them needs new ones.
    pub tokens: Vec<TokenRow>,
}

impl Authority {
    /// One page of tokens.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn list(&self, request: &ListRequest) -> Result<Page, StoreFault> {
        let after = request.cursor.as_deref().and_then(read_cursor);
        let mut tokens = self.rows()?.list(&request.filter, after.as_ref(), PAGE + 1)?;
        let more = tokens.len() > PAGE;
        tokens.truncate(PAGE);
        let next_cursor = tokens.last().filter(|_| more).map(cursor);
        Ok(Page { tokens, next_cursor })
    }

    /// One token.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn find(&self, jti: &str) -> Result<Option<TokenRow>, StoreFault> {
        self.rows()?.find(jti)
    }

    /// Revokes a token. Again changes nothing. With a caller, only what they could have made; without, whatever there is.
    ///
    /// # Errors
    /// When there is no such token, the caller may not, or it cannot be written.
    pub fn revoke(&self, jti: &str, by: Option<&Caller>, now: Timestamp) -> Result<Revoked, Unrevoked> {
        let store = self.rows()?;
        if let Some(by) = by {
            let row = store.find(jti)?.ok_or(Unrevoked::NotFound)?;
            let could = |scope: &String| Scope::parse(scope).is_ok_and(|scope| scope::rule(by, &scope).is_some());
            if row.scopes.is_empty() || !row.scopes.iter().all(could) {
                return Err(Unrevoked::Forbidden);
            }
        }
        let at = store.revoke(jti, now)?.ok_or(Unrevoked::NotFound)?;
        Ok(Revoked { jti: jti.to_owned(), at })
    }

    /// The ids of tokens that are revoked and would be valid otherwise.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn revocation_list(&self, now: Timestamp) -> Result<Vec<String>, StoreFault> {
        self.rows()?.revoked(now)
    }

    /// The public keys: the active one, which is made when there is none yet, and those whose tokens still live.
    ///
    /// # Errors
    /// When the database cannot be read, or no key can be made.
    pub fn jwks(&self, now: Timestamp) -> Result<JwkSet, MintError> {
        self.signing(now)?;
        let mut keys = Vec::new();
        for row in self.rows()?.keys()? {
            if row.keep_until.is_none_or(|until| until > now) {
                keys.push(self.ready(&row)?.jwk().clone());
            }
        }
        Ok(JwkSet { keys })
    }

    /// Makes a new key the one that signs. What the old one signed stays valid until it ends, and is found in [`Authority::jwks`] so long.
    /// With `compromised` the old keys are dropped at once and everything they signed is revoked.
    ///
    /// # Errors
    /// When no key can be made, or it cannot be written; then the old one stays.
    pub fn rotate(&self, compromised: bool, now: Timestamp) -> Result<Rotation, MintError> {
        let new = keys::make(now)?;
        // What has no row lives at most so long.
        let least = Timestamp(now.0 + (BRIEF_SECONDS + SKEW_SECONDS) * 1_000);
        let done = self.rows()?.rotate(&new, compromised, least, now)?;
        Ok(Rotation { kid: new.kid, retired: done.retired, tokens: done.tokens })
    }

    /// How many tokens have not expired, by how they came to be and whether they are revoked.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn counts(&self, now: Timestamp) -> Result<Vec<(Via, bool, u64)>, StoreFault> {
        self.rows()?.counts(now)
    }

    /// Forgets what ended long ago, some hundreds at a time; answers how many. To be asked once an hour: a clock that leaps is believed
    /// after as many calls as it is days ahead.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn sweep(&self, now: Timestamp) -> Result<u64, StoreFault> {
        self.rows()?.sweep(Timestamp(now.0 - MEMORY), now)
    }
}

fn cursor(row: &TokenRow) -> String {
    let cursor = Cursor { created_at: row.created, jti: row.jti.clone() };
    // Two texts cannot fail to be JSON.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).unwrap_or_default())
}

fn read_cursor(text: &str) -> Option<After> {
    let bytes = URL_SAFE_NO_PAD.decode(text).or_else(|_| STANDARD.decode(text)).ok()?;
    let cursor: Cursor = serde_json::from_slice(&bytes).ok()?;
    Some(After { created: cursor.created_at, jti: cursor.jti })
}
