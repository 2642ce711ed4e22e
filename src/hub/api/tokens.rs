//! Tokens: made, listed and revoked. A token is told once, when it is made.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::answers::{Always, ByName, WithBody};
use super::asked::{Asked, Nothing, Told};
use crate::authority::lines::{minted_line, token_line};
use crate::authority::{Caller, ListRequest, MintRequest, Unrevoked};
use crate::hub::parachute::tokens::{fault, has_vault, unmade, work};
use crate::hub::refusal::Refusal;
use crate::hub::site::Site;
use crate::model::token_output::{MintedLine, RevokedLine, TokenLine};
use crate::ports::tokens::{TokenFilter, Via};

/// Longer than any id that is made, and than any word of a filter.
const LONGEST: usize = 256;

/// Which tokens.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct WhichTokens {
    /// Only revoked ones, or only others.
    revoked: Option<bool>,
    /// Only those for this subject.
    #[param(max_length = 256)]
    subject: Option<String>,
    /// Only those for this client.
    #[param(max_length = 256)]
    client: Option<String>,
    /// Only those that were made so, such as cli_mint.
    created_via: Option<String>,
    /// As the page before gave it.
    #[param(max_length = 1024)]
    cursor: Option<String>,
}

/// One page of tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TokenList {
    /// The newest first, without the tokens themselves.
    pub tokens: Vec<TokenLine>,
    /// For the next page; nothing on the last.
    pub next_cursor: Option<String>,
}

/// A token that is asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MintBody {
    /// With spaces between.
    #[schema(examples("vault:default:read"))]
    scope: String,
    /// By the scopes unless told.
    #[serde(default)]
    audience: Option<String>,
    /// In seconds; 90 days unless told, at most 365.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 31_536_000)]
    expires_in: Option<i64>,
    /// Whoever asks unless told.
    #[serde(default)]
    subject: Option<String>,
    /// Further restrictions.
    #[serde(default)]
    permissions: Option<Map<String, Value>>,
}

fn bounded(name: &str, text: Option<&String>, most: usize) -> Result<(), Refusal> {
    match text {
        Some(text) if text.len() > most => {
            Err(Refusal::bad_request("invalid_parameter", format!("'{name}' is longer than {most} bytes")))
        }
        _ => Ok(()),
    }
}

/// List the tokens.
#[utoipa::path(
    get, path = "/tokens", operation_id = "listTokens", tag = "tokens", params(WhichTokens),
    responses((status = 200, body = TokenList), Always)
)]
pub(super) async fn list(
    State(site): State<Site>,
    Asked(which): Asked<WhichTokens>,
) -> Result<Json<TokenList>, Refusal> {
    bounded("subject", which.subject.as_ref(), LONGEST)?;
    bounded("client", which.client.as_ref(), LONGEST)?;
    bounded("cursor", which.cursor.as_ref(), 1_024)?;
    let via = match which.created_via.as_deref() {
        None => None,
        Some(text) => Some(Via::parse(text).ok_or_else(|| {
            Refusal::bad_request("invalid_parameter", "'created_via' is none of the ways in which tokens are made")
        })?),
    };
    let filter = TokenFilter { revoked: which.revoked, subject: which.subject, client: which.client, via };
    let request = ListRequest { filter, cursor: which.cursor };
    let page = work(&site, move |site| site.authority.list(&request).map_err(fault)).await?;
    Ok(Json(TokenList { tokens: page.tokens.iter().map(token_line).collect(), next_cursor: page.next_cursor }))
}

/// Make a token.
///
/// Within what the caller may pass on; what governs the machine is never given by request.
#[utoipa::path(
    post, path = "/tokens", operation_id = "mintToken", tag = "tokens", request_body = inline(MintBody),
    responses((status = 201, description = "The only answer that holds the token", body = MintedLine), Always, WithBody)
)]
pub(super) async fn mint(
    State(site): State<Site>,
    Extension(by): Extension<Caller>,
    _: Nothing,
    Told(body): Told<MintBody>,
) -> Result<(StatusCode, Json<MintedLine>), Refusal> {
    let MintBody { scope, audience, expires_in, subject, permissions } = body;
    let request = MintRequest { scope, audience, expires_in, subject, permissions };
    let minted = work(&site, move |site| {
        let wish = site.wish();
        let exists = |vault: &str| has_vault(&wish, vault);
        site.authority.mint(request, &by, &exists, site.now()).map_err(unmade)
    });
    Ok((StatusCode::CREATED, Json(minted_line(&minted.await?))))
}

/// One token, without the token itself.
#[utoipa::path(
    get, path = "/tokens/{jti}", operation_id = "getToken", tag = "tokens",
    params(("jti" = String, Path, description = "Its id")),
    responses((status = 200, body = TokenLine), Always, ByName)
)]
pub(super) async fn show(
    State(site): State<Site>,
    Path(jti): Path<String>,
    _: Nothing,
) -> Result<Json<TokenLine>, Refusal> {
    let jti = id(jti)?;
    let found = work(&site, move |site| site.authority.find(&jti).map_err(fault)).await?;
    found.map(|row| Json(token_line(&row))).ok_or_else(none)
}

/// Revoke a token.
///
/// Only what the caller could have made. The same again changes nothing.
#[utoipa::path(
    delete, path = "/tokens/{jti}", operation_id = "revokeToken", tag = "tokens",
    params(("jti" = String, Path, description = "Its id")),
    responses((status = 200, body = RevokedLine), Always, ByName)
)]
pub(super) async fn revoke(
    State(site): State<Site>,
    Extension(by): Extension<Caller>,
    Path(jti): Path<String>,
    _: Nothing,
) -> Result<Json<RevokedLine>, Refusal> {
    let jti = id(jti)?;
    site.replace_first(&jti, &by).await;
    let revoked = work(&site, move |site| {
        site.authority.revoke(&jti, Some(&by), site.now()).map_err(|why| match why {
            Unrevoked::NotFound => none(),
            Unrevoked::Forbidden => Refusal::new(StatusCode::FORBIDDEN, "insufficient_scope", why.to_string()),
            Unrevoked::Store(why) => fault(why),
        })
    });
    let revoked = revoked.await?;
    Ok(Json(RevokedLine { jti: revoked.jti, revoked_at: revoked.at }))
}

fn none() -> Refusal {
    Refusal::not_found("there is no token of this id")
}

fn id(jti: String) -> Result<String, Refusal> {
    if jti.is_empty() || jti.len() > LONGEST { Err(none()) } else { Ok(jti) }
}
