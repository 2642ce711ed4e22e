//! Keys, tokens and grants: who may do what. Rows are kept behind [`crate::ports::tokens`]. Every call may wait for the disk for a moment;
//! [`Authority::verify`] only reads.

mod claims;
/// What a subject allowed a client.
pub mod grants;
/// The only two ways to a token.
mod issue;
mod keys;
/// Tokens and grants as clients see them.
pub mod lines;
/// Lists, revocation, key rotation.
mod manage;
mod mint;
/// The token of whoever owns the machine.
pub mod operator;
pub mod scope;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

pub use claims::{BRIEF_SECONDS, Caller};
pub use issue::{Brief, Registered};
pub use keys::{Jwk, JwkSet, KeyError};
pub use manage::{ListRequest, PAGE, Page, Revoked, Rotation, Unrevoked};
pub use mint::{CLIENT, LONGEST_SECONDS, MintError, MintRequest, OwnRequest, USUAL_SECONDS};

use self::claims::SKEW_SECONDS;
use self::keys::{SigningKey, Unopened, VerifyingKey, kid_of};
use crate::model::time::Timestamp;
use crate::ports::tokens::{FaultClass, KeyRow, StoreFault, TokenStore};

/// Longer than any token that is made here, with all its scopes.
const MOST_TOKEN_BYTES: usize = 16 << 10;
/// Keys that are kept ready. There are as many as there were rotations in the life of the longest token.
const MOST_KEYS_READY: usize = 64;

/// Why a token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("it is no token of this hub: {0}")]
    Malformed(String),
    /// Signed by a key that does not count (any more).
    #[error("it is signed by a key that this hub does not have")]
    UnknownKey,
    #[error("its signature is wrong")]
    Signature,
    #[error("its issuer is none of the origins of this hub")]
    Issuer,
    #[error("it expired at {0}")]
    Expired(Timestamp),
    #[error("it was revoked")]
    Revoked,
    /// It lives longer than ten minutes and has no row, or another than it says.
    #[error("it is not registered here")]
    Unregistered,
    #[error("it is meant for '{0}'")]
    Audience(String),
    /// Nobody can say at the moment.
    #[error("{0}")]
    Unavailable(String),
}

impl Denied {
    /// One word for each, such as `expired`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "shape",
            Self::UnknownKey => "kid",
            Self::Signature => "signature",
            Self::Issuer => "issuer",
            Self::Expired(_) => "expired",
            Self::Revoked => "revoked",
            Self::Unregistered => "unregistered",
            Self::Audience(_) => "audience",
            Self::Unavailable(_) => "unavailable",
        }
    }
}

impl From<StoreFault> for Denied {
    fn from(fault: StoreFault) -> Self {
        Self::Unavailable(fault.message)
    }
}

/// The origins of the hub; the first set of them is that of nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Origins {
    issuer: String,
    /// The issuer included.
    all: Vec<String>,
}

/// The one who says who may do what. Shared by all threads.
#[derive(Default)]
pub struct Authority {
    /// `None` while there is no database.
    store: RwLock<Option<Arc<dyn TokenStore>>>,
    origins: RwLock<Arc<Origins>>,
    /// By id. An id stands for one key for ever; whether it counts is asked of the store each time.
    verifying: RwLock<HashMap<String, Arc<VerifyingKey>>>,
    /// The last one that signed.
    signing: Mutex<Option<Arc<SigningKey>>>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("store", &self.store().is_some()).finish_non_exhaustive()
    }
}

impl Authority {
    /// Nothing is accepted before it is told its origins. [`Authority::default`] has no store, and accepts nothing at all.
    pub fn new(store: Arc<dyn TokenStore>) -> Self {
        let authority = Self::default();
        authority.attach(store);
        authority
    }

    /// Gives it a store.
    pub fn attach(&self, store: Arc<dyn TokenStore>) {
        *self.store.write().unwrap_or_else(PoisonError::into_inner) = Some(store);
    }

    /// Tells it who it is: the issuer of its tokens, and every origin whose tokens it accepts.
    pub fn set_origins(&self, issuer: &str, accepted: &[String]) {
        let plain = |origin: &str| origin.trim_end_matches('/').to_owned();
        let mut all: Vec<String> =
            std::iter::once(issuer).chain(accepted.iter().map(String::as_str)).map(plain).collect();
        all.retain(|origin| !origin.is_empty());
        let origins = Origins { issuer: plain(issuer), all };
        let mut now = self.origins.write().unwrap_or_else(PoisonError::into_inner);
        if **now != origins {
            *now = Arc::new(origins);
        }
    }

    /// The store, for checks of its health.
    pub fn store(&self) -> Option<Arc<dyn TokenStore>> {
        self.store.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn rows(&self) -> Result<Arc<dyn TokenStore>, StoreFault> {
        let none = || StoreFault { class: FaultClass::Other, message: "there is no database of tokens".to_owned() };
        self.store().ok_or_else(none)
    }

    fn origins(&self) -> Arc<Origins> {
        self.origins.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads a bearer token. Takes tens of microseconds, and never waits for a writer; what another process revoked counts at once.
    ///
    /// # Errors
    /// Says why it is not accepted; never with a part of the token.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Caller, Denied> {
        let shape = |why: &str| Denied::Malformed(why.to_owned());
        if token.len() > MOST_TOKEN_BYTES {
            return Err(shape("it is too long"));
        }
        let kid = kid_of(token).ok_or_else(|| shape("it is no JWT signed with RS256"))?;
        let claims = self.verifying(&kid)?.open(token).map_err(|why| match why {
            Unopened::Signature => Denied::Signature,
            Unopened::Shape => shape("its claims are not those of a token of ours"),
        })?;
        // From here on its maker had the key.
        let known = self.rows()?.known(&kid, &claims.jti, now)?;
        if !known.key {
            return Err(Denied::UnknownKey);
        }
        if !self.origins().all.iter().any(|origin| *origin == claims.iss.trim_end_matches('/')) {
            return Err(Denied::Issuer);
        }
        if claims.sub.is_empty() || claims.jti.is_empty() {
            return Err(shape("it names nobody"));
        }
        if claims.iat.saturating_sub(SKEW_SECONDS) > now.0.div_euclid(1_000) {
            return Err(shape("it is not from the past"));
        }
        if claims.expires() <= now {
            return Err(Denied::Expired(claims.expires()));
        }
        match known.row {
            Some(row) if row.revoked.is_some() => Err(Denied::Revoked),
            Some(row) if claims.is_of(&row, &kid) => Ok(Caller::of(claims)),
            None if claims.is_brief(now) => Ok(Caller::of(claims)),
            Some(_) | None => Err(Denied::Unregistered),
        }
    }

    /// As [`Authority::verify`], for whoever is one of these audiences.
    ///
    /// # Errors
    /// As [`Authority::verify`]; [`Denied::Audience`] when it is meant for somebody else.
    pub fn verify_for(&self, token: &str, audiences: &[&str], now: Timestamp) -> Result<Caller, Denied> {
        let caller = self.verify(token, now)?;
        match audiences.contains(&caller.audience.as_str()) {
            true => Ok(caller),
            false => Err(Denied::Audience(caller.audience)),
        }
    }

    fn verifying(&self, kid: &str) -> Result<Arc<VerifyingKey>, Denied> {
        if let Some(key) = self.verifying.read().unwrap_or_else(PoisonError::into_inner).get(kid) {
            return Ok(key.clone());
        }
        let row = self.rows()?.keys()?.into_iter().find(|row| row.kid == kid).ok_or(Denied::UnknownKey)?;
        self.ready(&row).map_err(|why| Denied::Unavailable(why.to_string()))
    }

    /// Reads a key, or finds it read already.
    fn ready(&self, row: &KeyRow) -> Result<Arc<VerifyingKey>, KeyError> {
        if let Some(key) = self.verifying.read().unwrap_or_else(PoisonError::into_inner).get(&row.kid) {
            return Ok(key.clone());
        }
        let key = Arc::new(VerifyingKey::read(row)?);
        let mut ready = self.verifying.write().unwrap_or_else(PoisonError::into_inner);
        if ready.len() >= MOST_KEYS_READY {
            ready.clear();
        }
        ready.insert(row.kid.clone(), key.clone());
        Ok(key)
    }
}
