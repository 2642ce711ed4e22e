//! The only two ways to a token. [`Registered`] writes its row and exists only after the commit; [`Brief`] needs no row, and lives ten
//! minutes at most. Nothing else in this crate signs.

use super::claims::{BRIEF_SECONDS, Claims};
use super::keys::{KeyError, SigningKey};
use crate::model::secret::Secret;
use crate::model::time::Timestamp;
use crate::ports::tokens::{Registration, StoreFault, TokenRow, TokenStore, Via};

/// A token whose row is written: it can be listed and revoked. There is no other way to make one.
#[derive(Clone, Debug)]
pub struct Registered {
    row: TokenRow,
    token: Secret,
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unissued {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Store(#[from] StoreFault),
    /// The key is not the active one any more.
    #[error("the signing key was replaced at the same moment")]
    KeyRetired,
    #[error("there are too many live tokens; revoke some, or wait until some expire")]
    Full,
    #[error("a token of more than {BRIEF_SECONDS} s must be registered")]
    TooLong,
}

impl Registered {
    /// Signs, writes the row, and only then gives the token out.
    pub(super) fn register(
        store: &dyn TokenStore,
        key: &SigningKey,
        claims: &Claims,
        via: Via,
        now: Timestamp,
    ) -> Result<Self, Unissued> {
        let token = key.sign(claims)?;
        let permissions = claims.permissions.as_ref().map(serde_json::to_string).transpose();
        let row = TokenRow {
            jti: claims.jti.clone(),
            subject: claims.sub.clone(),
            client: claims.client_id.clone(),
            audience: claims.aud.clone(),
            scopes: claims.scope.split(' ').map(str::to_owned).collect(),
            vault_scope: claims.vault_scope.clone(),
            permissions: permissions.map_err(|_| KeyError::Unsigned)?,
            via,
            kid: key.kid().to_owned(),
            created: now,
            expires: claims.expires(),
            revoked: None,
        };
        match store.register(&row)? {
            Registration::Written => Ok(Self { row, token }),
            Registration::KeyRetired => Err(Unissued::KeyRetired),
            Registration::Full => Err(Unissued::Full),
        }
    }

    /// Signs once more what was registered: RS256 gives the same token for the same claims, to the letter. `None` when the row does not
    /// count any more, or was signed by another key.
    pub(super) fn again(
        row: TokenRow,
        key: &SigningKey,
        issuer: &str,
        now: Timestamp,
    ) -> Result<Option<Self>, Unissued> {
        if row.revoked.is_some() || row.expires <= now || row.kid != key.kid() {
            return Ok(None);
        }
        let permissions = row.permissions.as_deref().map(serde_json::from_str).transpose();
        let claims = Claims {
            sub: row.subject.clone(),
            iss: issuer.to_owned(),
            aud: row.audience.clone(),
            iat: row.created.0.div_euclid(1_000),
            exp: row.expires.0.div_euclid(1_000),
            jti: row.jti.clone(),
            scope: row.scopes.join(" "),
            client_id: row.client.clone(),
            vault_scope: row.vault_scope.clone(),
            permissions: permissions.map_err(|_| KeyError::Unsigned)?,
            pa_scope_set: None,
        };
        Ok(Some(Self { token: key.sign(&claims)?, row }))
    }

    pub fn row(&self) -> &TokenRow {
        &self.row
    }

    pub fn jti(&self) -> &str {
        &self.row.jti
    }

    pub fn expires(&self) -> Timestamp {
        self.row.expires
    }

    /// The token itself, to be handed out.
    pub fn token(&self) -> &Secret {
        &self.token
    }
}

/// A token of ten minutes at most, for a call that is made right now.
#[derive(Clone, Debug)]
pub struct Brief {
    token: Secret,
    expires: Timestamp,
}

impl Brief {
    pub(super) fn sign(key: &SigningKey, claims: &Claims) -> Result<Self, Unissued> {
        if claims.exp.saturating_sub(claims.iat) > BRIEF_SECONDS {
            return Err(Unissued::TooLong);
        }
        Ok(Self { token: key.sign(claims)?, expires: claims.expires() })
    }

    /// The token itself, to be handed out.
    pub fn token(&self) -> &Secret {
        &self.token
    }

    pub fn expires(&self) -> Timestamp {
        self.expires
    }
}
