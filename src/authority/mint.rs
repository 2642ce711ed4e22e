//! Making tokens: for somebody who asks, within what they may pass on, and for the machine itself.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use serde_json::{Map, Value};

use super::claims::{BRIEF_SECONDS, Caller, Claims};
use super::issue::{Brief, Registered, Unissued};
use super::keys::{self, KeyError, SigningKey};
use super::scope::{self, Rule, Scope, Verb};
use super::{Authority, Denied};
use crate::model::time::Timestamp;
use crate::ports::tokens::{Bound, StoreFault, Via};

/// The client that tokens are made for when nobody names one.
pub const CLIENT: &str = "parachute-hub";
/// 90 days: how long a token lives when nobody says.
pub const USUAL_SECONDS: i64 = 90 * 86_400;
/// 365 days: the longest that anybody may ask for.
pub const LONGEST_SECONDS: i64 = 31_536_000;
/// More scopes than a token can use.
const MOST_SCOPES: usize = 32;
/// Of a subject, a client, an audience.
const MOST_NAME_BYTES: usize = 256;
const MOST_PERMISSIONS_BYTES: usize = 4 << 10;
/// Tokens of one subject and client, of who does not govern the machine: they cannot use up the room of all others. A few more when
/// several are made at the same moment.
const MOST_OF_ONE: Bound = Bound { live: 1_000, with_revoked: 10_000 };
/// So often a token is made anew when its key was replaced meanwhile.
const ATTEMPTS: usize = 3;

/// A token that somebody asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MintRequest {
    /// With spaces between.
    pub scope: String,
    /// Default: by the scopes.
    pub audience: Option<String>,
    /// In seconds; default 90 days.
    pub expires_in: Option<i64>,
    /// Default: whoever asks.
    pub subject: Option<String>,
    pub permissions: Option<Map<String, Value>>,
}

/// A token that the machine makes for itself or for whoever owns it. No rule limits its scopes.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnRequest {
    pub scopes: Vec<String>,
    /// Default: by the scopes.
    pub audience: Option<String>,
    pub subject: String,
    pub client: String,
    pub seconds: i64,
    pub via: Via,
    /// The vaults that it is pinned to.
    pub vault_scope: Vec<String>,
    pub permissions: Option<Map<String, Value>>,
    pub scope_set: Option<String>,
}

impl Default for OwnRequest {
    fn default() -> Self {
        Self {
            scopes: Vec::new(),
            audience: None,
            subject: String::new(),
            client: CLIENT.to_owned(),
            seconds: USUAL_SECONDS,
            via: Via::CliMint,
            vault_scope: Vec::new(),
            permissions: None,
            scope_set: None,
        }
    }
}

/// Why a token was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    #[error("{0}")]
    InvalidRequest(String),
    #[error("{0}")]
    InvalidScope(String),
    #[error("{0}")]
    InsufficientScope(String),
    #[error(
        "'{0}' has {live} live tokens already, or {all} with those that are revoked and have not expired; revoke some, or wait until some expire",
        live = MOST_OF_ONE.live,
        all = MOST_OF_ONE.with_revoked
    )]
    TooMany(String),
    /// It cannot be made now.
    #[error("{0}")]
    Unavailable(String),
}

impl MintError {
    /// The word in the body of an answer.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidRequest(_) => "invalid_request",
            Self::InvalidScope(_) => "invalid_scope",
            Self::InsufficientScope(_) => "insufficient_scope",
            Self::TooMany(_) => "too_many_tokens",
            Self::Unavailable(_) => "db_unavailable",
        }
    }
}

impl From<Unissued> for MintError {
    fn from(why: Unissued) -> Self {
        match why {
            Unissued::TooLong => Self::InvalidRequest(why.to_string()),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

impl From<StoreFault> for MintError {
    fn from(fault: StoreFault) -> Self {
        Self::Unavailable(fault.message)
    }
}

impl From<KeyError> for MintError {
    fn from(error: KeyError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<MintError> for Denied {
    fn from(error: MintError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl Authority {
    /// Makes a token for somebody, within what they may pass on. `exists` says whether there is a vault of this name.
    ///
    /// # Errors
    /// Says what is wrong with the request, or that the caller may not.
    pub fn mint(
        &self,
        request: MintRequest,
        by: &Caller,
        exists: &dyn Fn(&str) -> bool,
        now: Timestamp,
    ) -> Result<Registered, MintError> {
        let scopes = requested(&request.scope, exists)?;
        let seconds = request.expires_in.unwrap_or(USUAL_SECONDS);
        if !(1..=LONGEST_SECONDS).contains(&seconds) {
            return Err(MintError::InvalidRequest(format!("expires_in is 1 to {LONGEST_SECONDS} seconds")));
        }
        let narrow = attenuate(by, &scopes)? == Rule::Vault;
        let vaults: BTreeSet<&str> = scopes.iter().filter_map(vault_of).collect();
        let audience = scope::audience(&scopes);
        if narrow && request.audience.as_ref().is_some_and(|wished| *wished != audience) {
            let text = format!("a token for a vault is for the audience {audience}");
            return Err(MintError::InsufficientScope(text));
        }
        if request.subject.as_ref().is_some_and(|subject| *subject != by.subject) && !by.is_operator() {
            let text = "only who governs the machine makes tokens for other subjects";
            return Err(MintError::InsufficientScope(text.to_owned()));
        }
        let permissions =
            scope::permissions(by, request.permissions).map_err(|why| MintError::InsufficientScope(why.to_owned()))?;
        if !by.is_operator() && self.rows()?.are_more(&by.subject, CLIENT, Via::CliMint, now, MOST_OF_ONE)? {
            return Err(MintError::TooMany(by.subject.clone()));
        }
        let pins = if narrow { vaults.into_iter().map(str::to_owned).collect() } else { Vec::new() };
        self.mint_own(
            OwnRequest {
                scopes: scopes.iter().map(ToString::to_string).collect(),
                audience: Some(request.audience.unwrap_or(audience)),
                subject: request.subject.unwrap_or_else(|| by.subject.clone()),
                seconds,
                vault_scope: pins,
                permissions,
                ..OwnRequest::default()
            },
            now,
        )
    }

    /// Makes a token for the machine itself, or for who owns it. Its row is written when this returns.
    ///
    /// # Errors
    /// Says what is wrong with the request, or with the database.
    pub fn mint_own(&self, request: OwnRequest, now: Timestamp) -> Result<Registered, MintError> {
        let via = request.via;
        let claims = self.claims(request, now)?;
        for _ in 1..ATTEMPTS {
            match Registered::register(&*self.rows()?, &*self.signing(now)?, &claims, via, now) {
                Err(Unissued::KeyRetired) => {}
                other => return Ok(other?),
            }
        }
        Ok(Registered::register(&*self.rows()?, &*self.signing(now)?, &claims, via, now)?)
    }

    /// Makes the very token again that was registered under this id; it is kept nowhere. `None` when that cannot be done any more: it was
    /// revoked or has expired, or its key signs no more.
    ///
    /// # Errors
    /// When the database cannot be read, or the origin is not known.
    pub fn again(&self, jti: &str, now: Timestamp) -> Result<Option<Registered>, MintError> {
        let issuer = self.origins().issuer.clone();
        if issuer.is_empty() {
            return Err(MintError::Unavailable("the origin of the hub is not known yet".to_owned()));
        }
        let Some(row) = self.rows()?.find(jti)? else { return Ok(None) };
        Ok(Registered::again(row, &*self.signing(now)?, &issuer, now)?)
    }

    /// The key that signs now; `None` before the first one was made.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn active_kid(&self) -> Result<Option<String>, MintError> {
        let rows = self.rows()?.keys()?;
        Ok(rows.into_iter().find(|row| row.retired.is_none()).map(|row| row.kid))
    }

    /// Makes a token for a call that is made right now. It has no row, cannot be revoked, and lives ten minutes at most.
    ///
    /// # Errors
    /// As [`Authority::mint_own`], and when it is to live longer.
    pub fn mint_brief(&self, request: OwnRequest, now: Timestamp) -> Result<Brief, MintError> {
        if request.seconds > BRIEF_SECONDS {
            return Err(Unissued::TooLong.into());
        }
        let claims = self.claims(request, now)?;
        Ok(Brief::sign(&*self.signing(now)?, &claims)?)
    }

    fn claims(&self, request: OwnRequest, now: Timestamp) -> Result<Claims, MintError> {
        let invalid = |text: &str| Err(MintError::InvalidRequest(text.to_owned()));
        let issuer = self.origins().issuer.clone();
        if issuer.is_empty() {
            return Err(MintError::Unavailable("the origin of the hub is not known yet".to_owned()));
        }
        let parsed: Result<Vec<Scope>, _> = request.scopes.iter().map(|scope| parse_own(scope)).collect();
        let scopes = parsed.map_err(|bad| MintError::InvalidScope(bad.to_string()))?;
        if scopes.is_empty() || scopes.len() > MOST_SCOPES {
            return invalid("a token has 1 to 32 scopes");
        }
        if !(1..=LONGEST_SECONDS).contains(&request.seconds) {
            return invalid("a token lives 1 second to 365 days");
        }
        let audience = request.audience.unwrap_or_else(|| scope::audience(&scopes));
        for name in [&request.subject, &request.client, &audience] {
            if name.is_empty() || name.len() > MOST_NAME_BYTES || name.chars().any(char::is_control) {
                return invalid("a subject, client or audience has 1 to 256 bytes and no control characters");
            }
        }
        if !request.vault_scope.iter().all(|pin| scope::is_vault(pin)) {
            return invalid("a pin is the name of a vault");
        }
        let size = request.permissions.as_ref().map_or(0, |map| Value::from(map.clone()).to_string().len());
        if size > MOST_PERMISSIONS_BYTES {
            return invalid("permissions have at most 4 KiB");
        }
        let iat = now.0.div_euclid(1_000);
        Ok(Claims {
            sub: request.subject,
            iss: issuer,
            aud: audience,
            iat,
            exp: iat + request.seconds,
            jti: keys::fresh_jti()?,
            scope: request.scopes.join(" "),
            client_id: request.client,
            vault_scope: request.vault_scope,
            permissions: request.permissions,
            pa_scope_set: request.scope_set,
        })
    }

    /// The active key; the first one is made when it is needed.
    pub(super) fn signing(&self, now: Timestamp) -> Result<Arc<SigningKey>, MintError> {
        let active = |rows: Vec<crate::ports::tokens::KeyRow>| rows.into_iter().find(|row| row.retired.is_none());
        let store = self.rows()?;
        let row = match active(store.keys()?) {
            Some(row) => row,
            None => {
                store.add_key(&keys::make(now)?)?;
                // Of several who make the first key at once one has made it.
                active(store.keys()?).ok_or(KeyError::Unreadable)?
            }
        };
        let mut last = self.signing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = last.as_ref().filter(|key| key.kid() == row.kid) {
            return Ok(key.clone());
        }
        let key = Arc::new(SigningKey::read(&row)?);
        *last = Some(key.clone());
        Ok(key)
    }
}

/// A scope of a token of the machine itself: the operator's has some that nobody may ask for, such as `vault:admin`.
fn parse_own(text: &str) -> Result<Scope, scope::BadScope> {
    match text {
        "vault:admin" => Ok(Scope::Plain(text.to_owned())),
        other => Scope::parse(other),
    }
}

fn vault_of(scope: &Scope) -> Option<&str> {
    match scope {
        Scope::Vault { name, .. } => Some(name),
        Scope::Plain(_) => None,
    }
}

/// The scopes of a request, if each can be requested at all. Each once, in the order of the request.
fn requested(text: &str, exists: &dyn Fn(&str) -> bool) -> Result<Vec<Scope>, MintError> {
    let mut scopes: Vec<Scope> = Vec::new();
    for word in text.split_whitespace() {
        let scope = Scope::parse(word).map_err(|bad| MintError::InvalidScope(bad.to_string()))?;
        if scope::is_never_requestable(word) {
            return Err(MintError::InvalidScope(format!("'{word}' is never given by request")));
        }
        match &scope {
            Scope::Vault { name, verb: Verb::Admin } if !exists(name) => {
                return Err(MintError::InvalidScope(format!("there is no vault '{name}'")));
            }
            _ => {}
        }
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
        if scopes.len() > MOST_SCOPES {
            return Err(MintError::InvalidRequest(format!("a token has at most {MOST_SCOPES} scopes")));
        }
    }
    match scopes.is_empty() {
        true => Err(MintError::InvalidRequest("scope is missing".to_owned())),
        false => Ok(scopes),
    }
}

/// The narrowest rule by which the caller may pass all of these on.
fn attenuate(by: &Caller, scopes: &[Scope]) -> Result<Rule, MintError> {
    let mut narrowest = Rule::Host;
    for scope in scopes {
        match scope::rule(by, scope) {
            Some(rule) => narrowest = narrowest.max(rule),
            None => return Err(MintError::InsufficientScope(format!("the caller may not pass on '{scope}'"))),
        }
    }
    Ok(narrowest)
}
