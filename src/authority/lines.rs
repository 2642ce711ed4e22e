//! Tokens and grants as clients see them.

use serde_json::{Map, Value};

use super::Registered;
use crate::model::token_output::{GrantLine, MintedLine, TokenLine};
use crate::ports::tokens::{GrantRow, TokenRow};

/// A token that was made, with the token.
pub fn minted_line(minted: &Registered) -> MintedLine {
    let row = minted.row();
    MintedLine {
        jti: row.jti.clone(),
        token: minted.token().reveal().to_owned(),
        expires_at: row.expires,
        scope: row.scopes.join(" "),
        permissions: permissions(row),
    }
}

/// A token as it is listed.
pub fn token_line(row: &TokenRow) -> TokenLine {
    TokenLine {
        jti: row.jti.clone(),
        user_id: None,
        subject: row.subject.clone(),
        client_id: row.client.clone(),
        audience: row.audience.clone(),
        scopes: row.scopes.clone(),
        vault_scope: row.vault_scope.clone(),
        expires_at: row.expires,
        revoked_at: row.revoked,
        created_at: row.created,
        created_via: row.via.as_str().to_owned(),
        kid: row.kid.clone(),
        permissions: permissions(row),
    }
}

fn permissions(row: &TokenRow) -> Option<Map<String, Value>> {
    serde_json::from_str(row.permissions.as_deref()?).ok()
}

/// What a subject allowed a client, as it is listed.
pub fn grant_line(row: GrantRow) -> GrantLine {
    GrantLine {
        subject: row.subject,
        client_id: row.client,
        scopes: row.scopes.into_iter().collect(),
        granted_at: row.granted,
    }
}
