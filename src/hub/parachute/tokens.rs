//! Keys and tokens: what modules verify tokens by, and minting, listing and revoking. Paths, shapes and words are the older hub's.

use std::net::SocketAddr;

use axum::extract::{Query, Request, State};
use axum::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::authority::{Caller, ListRequest, MintError, MintRequest, Unrevoked};
use crate::hub::api::{asked, rights};
use crate::hub::refusal::Refusal;
use crate::hub::site::Site;
use crate::model::time::Timestamp;
use crate::ports::hub::Wish;
use crate::ports::tokens::{StoreFault, TokenFilter, TokenRow, Via};

/// Longer ids than any that is made.
const LONGEST_JTI: usize = 256;
/// The ways that a list can be asked for.
const LISTED: [Via; 4] = [Via::OauthRefresh, Via::OperatorMint, Via::CliMint, Via::ConnectionProvision];
/// Who lists tokens.
const LISTS: &str = "parachute:host:auth";

type Peer = Option<Extension<SocketAddr>>;

/// `GET /.well-known/jwks.json`
pub(super) async fn jwks(State(site): State<Site>) -> Response {
    let keys = work(&site, |site| site.authority.jwks(site.now()).map_err(unmade)).await;
    public(keys.map(|keys| Json(keys).into_response()), "max-age=60")
}

/// `GET /.well-known/parachute-revocation.json`
pub(super) async fn revocations(State(site): State<Site>) -> Response {
    let list = work(&site, |site| {
        let now = site.now();
        let jtis = site.authority.revocation_list(now).map_err(fault)?;
        Ok(json!({ "generated_at": now, "jtis": jtis }))
    });
    public(list.await.map(|list| Json(list).into_response()), "max-age=60")
}

#[derive(Deserialize)]
struct Mint {
    scope: String,
    audience: Option<String>,
    expires_in: Option<i64>,
    subject: Option<String>,
    permissions: Option<Map<String, Value>>,
}

#[derive(Serialize)]
struct Minted {
    jti: String,
    token: String,
    expires_at: Timestamp,
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    permissions: Option<Value>,
}

/// `POST /api/auth/mint-token`
pub(super) async fn mint(State(site): State<Site>, peer: Peer, request: Request) -> Response {
    let (by, mint) = match told::<Mint>(&site, peer, request).await {
        Ok(told) => told,
        Err(refusal) => return refusal.into_response(),
    };
    let minted = work(&site, move |site| {
        let Mint { scope, audience, expires_in, subject, permissions } = mint;
        let request = MintRequest { scope, audience, expires_in, subject, permissions };
        let wish = site.wish();
        let minted = site.authority.mint(request, &by, &|vault| has_vault(&wish, vault), site.now()).map_err(unmade)?;
        let row = minted.row();
        Ok(Minted {
            jti: row.jti.clone(),
            token: minted.token().reveal().to_owned(),
            expires_at: row.expires,
            scope: row.scopes.join(" "),
            permissions: row.permissions.as_deref().and_then(|text| serde_json::from_str(text).ok()),
        })
    });
    answer(minted.await)
}

#[derive(Deserialize)]
struct Revoke {
    jti: String,
}

/// `POST /api/auth/revoke-token`
pub(super) async fn revoke(State(site): State<Site>, peer: Peer, request: Request) -> Response {
    let (by, Revoke { jti }) = match told::<Revoke>(&site, peer, request).await {
        Ok(told) => told,
        Err(refusal) => return refusal.into_response(),
    };
    site.replace_first(&jti, &by).await;
    let revoked = work(&site, move |site| {
        if jti.is_empty() || jti.len() > LONGEST_JTI {
            return Err(Refusal::bad_request("invalid_request", format!("jti has 1 to {LONGEST_JTI} characters")));
        }
        let revoked = site.authority.revoke(&jti, Some(&by), site.now()).map_err(|why| match why {
            Unrevoked::NotFound => Refusal::not_found(why.to_string()),
            Unrevoked::Forbidden => Refusal::new(StatusCode::FORBIDDEN, "insufficient_scope", why.to_string()),
            Unrevoked::Store(why) => fault(why),
        })?;
        Ok(json!({ "jti": revoked.jti, "revoked_at": revoked.at }))
    });
    answer(revoked.await)
}

#[derive(Deserialize)]
pub(super) struct Asked {
    revoked: Option<String>,
    subject: Option<String>,
    created_via: Option<String>,
    cursor: Option<String>,
}

/// `GET /api/auth/tokens`
pub(super) async fn list(
    State(site): State<Site>,
    peer: Peer,
    headers: HeaderMap,
    asked: Result<Query<Asked>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let page = work(&site, move |site| {
        let by = caller(site, &headers, peer)?;
        if !by.is_for_hub() || !by.holds(LISTS) {
            let text = format!("listing tokens needs the scope {LISTS}");
            return Err(Refusal::new(StatusCode::FORBIDDEN, "insufficient_scope", text));
        }
        let Query(asked) = asked.map_err(|why| Refusal::bad_request("invalid_request", why.body_text()))?;
        let revoked = match asked.revoked.as_deref() {
            None | Some("all") => None,
            Some("true") => Some(true),
            Some("false") => Some(false),
            Some(_) => return Err(Refusal::bad_request("invalid_request", "revoked is true, false or all")),
        };
        let via = match asked.created_via.as_deref() {
            None => None,
            Some(text) => Some(Via::parse(text).filter(|via| LISTED.contains(via)).ok_or_else(|| {
                let all = LISTED.map(Via::as_str).join(", ");
                Refusal::bad_request("invalid_request", format!("created_via is one of {all}"))
            })?),
        };
        let filter = TokenFilter { revoked, subject: asked.subject, client: None, via };
        let page = site.authority.list(&ListRequest { filter, cursor: asked.cursor }).map_err(fault)?;
        Ok(json!({ "tokens": page.tokens.iter().map(shown).collect::<Vec<_>>(), "next_cursor": page.next_cursor }))
    });
    answer(page.await)
}

fn shown(row: &TokenRow) -> Value {
    json!({
        "jti": row.jti,
        "user_id": null,
        "subject": row.subject,
        "client_id": row.client,
        "scopes": row.scopes,
        "expires_at": row.expires,
        "revoked_at": row.revoked,
        "created_at": row.created,
        "created_via": row.via.as_str(),
        "permissions": row.permissions.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok()),
    })
}

/// Whether a service serves a vault of this name.
pub(in crate::hub) fn has_vault(wish: &Wish, vault: &str) -> bool {
    let mut mounts = wish.upstreams.values().flat_map(|upstream| &upstream.routes);
    mounts.any(|mount| mount.path == "/vault" || mount.path.strip_prefix("/vault/") == Some(vault))
}

/// Whoever asks, by a token for the hub or for one vault: what it is good for is asked afterwards. Any other was made for a module, which
/// may have kept it.
fn caller(site: &Site, headers: &HeaderMap, peer: Peer) -> Result<Caller, Refusal> {
    let (peer, code) = (peer.map(|Extension(peer)| peer), "unauthenticated");
    let caller = rights::verify(site, headers, peer, code)?;
    let for_vault = caller.audience.strip_prefix("vault.").is_some_and(|vault| !vault.is_empty());
    if !caller.is_for_hub() && !for_vault {
        return Err(rights::elsewhere(site, peer, code));
    }
    Ok(caller)
}

/// Who asks, and for what. Nothing of the body is waited for before it is known who sends it.
async fn told<T: for<'de> Deserialize<'de>>(site: &Site, peer: Peer, request: Request) -> Result<(Caller, T), Refusal> {
    let headers = request.headers().clone();
    let by = work(site, move |site| caller(site, &headers, peer)).await?;
    let body = asked::body(request, asked::BODY_LIMIT).await?;
    Ok((by, read(&body)?))
}

fn read<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::bad_request("invalid_request", format!("the body: {error}")))
}

pub(in crate::hub) fn unmade(why: MintError) -> Refusal {
    let status = match why {
        MintError::InvalidRequest(_) | MintError::InvalidScope(_) => StatusCode::BAD_REQUEST,
        MintError::InsufficientScope(_) => StatusCode::FORBIDDEN,
        MintError::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
        MintError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let refusal = Refusal::new(status, why.code(), why.to_string());
    if status == StatusCode::SERVICE_UNAVAILABLE { refusal.after(5) } else { refusal }
}

pub(in crate::hub) fn fault(fault: StoreFault) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "db_unavailable", fault.message).after(5)
}

/// On a thread that may wait for the disk.
pub(in crate::hub) async fn work<T: Send + 'static>(
    site: &Site,
    work: impl FnOnce(&Site) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let site = site.clone();
    let done = tokio::task::spawn_blocking(move || work(&site)).await;
    done.unwrap_or_else(|_| Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", "this should not happen")))
}

fn answer(done: Result<impl Serialize, Refusal>) -> Response {
    match done {
        Ok(body) => ([(CACHE_CONTROL, "no-store")], Json(body)).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

/// For everybody, from wherever their page came.
fn public(done: Result<Response, Refusal>, cache: &'static str) -> Response {
    match done {
        Ok(response) => ([(CACHE_CONTROL, cache), (ACCESS_CONTROL_ALLOW_ORIGIN, "*")], response).into_response(),
        Err(refusal) => ([(ACCESS_CONTROL_ALLOW_ORIGIN, "*")], refusal).into_response(),
    }
}
