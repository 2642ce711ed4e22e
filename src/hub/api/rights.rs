//! Who may call what: one table, and the door that every call of the API goes through.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::authority::{Caller, Denied};
use crate::hub::leave::Leave;
use crate::hub::refusal::Refusal;
use crate::hub::site::Site;

/// May look.
pub const READS: &str = "parachute:host:auth";
/// May look and change.
pub const CHANGES: &str = "parachute:host:admin";

/// What a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// [`READS`] or [`CHANGES`].
    Read,
    /// [`CHANGES`].
    Change,
}

/// Every call of `/api/v1`, below that path. `HEAD` needs what `GET` needs.
pub const TABLE: &[(&str, &str, Right)] = &[
    ("GET", "/resources", Right::Read),
    ("GET", "/resources/{kind}/{name}", Right::Read),
    ("GET", "/watch", Right::Read),
    ("POST", "/plan", Right::Read),
    ("POST", "/reconcile", Right::Change),
    ("POST", "/services/{name}/restart", Right::Change),
    ("POST", "/services/{name}/stop", Right::Change),
    ("POST", "/services/{name}/start", Right::Change),
    ("GET", "/events", Right::Read),
    ("GET", "/services/{name}/logs", Right::Read),
    ("GET", "/blobs", Right::Read),
    ("GET", "/blobs/{key}", Right::Read),
    ("PUT", "/blobs/{key}", Right::Change),
    ("DELETE", "/blobs/{key}", Right::Change),
    ("GET", "/operations", Right::Read),
    ("GET", "/operations/{id}", Right::Read),
    ("GET", "/tokens", Right::Read),
    ("POST", "/tokens", Right::Change),
    ("GET", "/tokens/{jti}", Right::Read),
    ("DELETE", "/tokens/{jti}", Right::Change),
    ("GET", "/deliveries", Right::Read),
    ("GET", "/deliveries/{id}", Right::Change),
    ("POST", "/deliveries/{id}/replay", Right::Change),
    ("DELETE", "/deliveries/{id}", Right::Change),
    ("GET", "/openapi.json", Right::Read),
];

/// What a call needs. Where there is nothing, who may look may know that.
fn needed(method: &Method, path: Option<&str>) -> Right {
    let method = if *method == Method::HEAD { "GET" } else { method.as_str() };
    let below = path.and_then(|path| path.strip_prefix(super::BASE));
    let row = TABLE.iter().find(|(verb, path, _)| *verb == method && Some(*path) == below);
    row.map_or(Right::Read, |(_, _, right)| *right)
}

impl Right {
    fn is_given(self, caller: &Caller) -> bool {
        let has = |scope: &str| caller.scopes.contains(scope);
        has(CHANGES) || (self == Self::Read && has(READS))
    }

    fn scope(self) -> &'static str {
        match self {
            Self::Read => READS,
            Self::Change => CHANGES,
        }
    }
}

/// The caller of a request that needs this right. `code` is the word of the answer without a good token.
///
/// # Errors
/// 401 without a good token, 403 without the scope, 429 after too many of the former, 503 while nobody can say.
pub fn admit(
    site: &Site,
    headers: &HeaderMap,
    peer: Option<SocketAddr>,
    right: Right,
    code: &'static str,
) -> Result<Caller, Refusal> {
    let caller = verify(site, headers, peer, code)?;
    if !caller.is_for_hub() {
        return Err(elsewhere(site, peer, code));
    }
    if !right.is_given(&caller) {
        let scope = right.scope();
        site.metrics.denied("scope");
        let refusal = Refusal::new(
            StatusCode::FORBIDDEN,
            "insufficient_scope",
            format!("this needs a token with the scope {scope}"),
        );
        return Err(refusal.challenge(format!("realm=\"trueup\", error=\"insufficient_scope\", scope=\"{scope}\"")));
    }
    Ok(caller)
}

/// For a token that is good, and meant for somebody else.
pub(in crate::hub) fn elsewhere(site: &Site, peer: Option<SocketAddr>, code: &'static str) -> Refusal {
    site.metrics.denied("audience");
    let what = "the token is for another audience; 'hub' or 'operator' is accepted here";
    unauthorized(site, peer, code, what, INVALID)
}

/// What a client whose token is not accepted is told to do.
const INVALID: &str = "realm=\"trueup\", error=\"invalid_token\"";

/// Whose good token the request brings, whatever it is good for. `code` is the word of the answer when it brings none.
///
/// # Errors
/// As [`admit`], but for the scope.
pub fn verify(
    site: &Site,
    headers: &HeaderMap,
    peer: Option<SocketAddr>,
    code: &'static str,
) -> Result<Caller, Refusal> {
    let Some(token) = bearer(headers) else {
        site.metrics.denied("missing");
        return Err(unauthorized(
            site,
            peer,
            code,
            "a token is needed: 'Authorization: Bearer TOKEN'",
            "realm=\"trueup\"",
        ));
    };
    match site.authority.verify(token, site.now()) {
        Ok(caller) => Ok(caller),
        Err(Denied::Unavailable(why)) => {
            let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "authority_unavailable", why);
            Err(refusal.after(5))
        }
        Err(denied) => {
            site.metrics.denied(denied.code());
            Err(unauthorized(site, peer, code, &format!("the token is not accepted: {denied}"), INVALID))
        }
    }
}

/// As [`verify`], for a token that is meant for one of these audiences. With one word for why not.
///
/// # Errors
/// As [`verify`].
pub(in crate::hub) fn verify_for(
    site: &Site,
    headers: &HeaderMap,
    peer: Option<SocketAddr>,
    audiences: &[&str],
) -> Result<Caller, (&'static str, Refusal)> {
    let code = "unauthorized";
    let Some(token) = bearer(headers) else {
        return verify(site, headers, peer, code).map_err(|refusal| ("missing", refusal));
    };
    match site.authority.verify_for(token, audiences, site.now()) {
        Ok(caller) => Ok(caller),
        Err(Denied::Unavailable(why)) => {
            let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "authority_unavailable", why);
            Err(("unavailable", refusal.after(5)))
        }
        Err(denied) => {
            site.metrics.denied(denied.code());
            let what = format!("the token is not accepted: {denied}");
            Err((denied.code(), unauthorized(site, peer, code, &what, INVALID)))
        }
    }
}

/// 401, or 429 for whoever tried too often.
fn unauthorized(
    site: &Site,
    peer: Option<SocketAddr>,
    code: &'static str,
    description: &str,
    challenge: &str,
) -> Refusal {
    let wait = peer.and_then(|peer| site.failures.failed(peer.ip(), site.clock.now()));
    match wait {
        Some(seconds) => {
            let what = "too many requests without a good token; wait";
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too_many_failures", what).after(seconds)
        }
        None => Refusal::new(StatusCode::UNAUTHORIZED, code, description).challenge(challenge.to_owned()),
    }
}

pub(in crate::hub) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// By whose leave an answer to this request goes on.
pub(in crate::hub) fn leave(site: &Site, headers: &HeaderMap, caller: &Caller) -> Arc<Leave> {
    Leave::new(&site.authority, &site.clock, (bearer(headers).unwrap_or_default(), caller), site.recheck)
}

/// In front of every handler of the API.
pub(super) async fn door(
    State(site): State<Site>,
    peer: Option<Extension<SocketAddr>>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let right = needed(request.method(), path);
    let mut response = match admit(&site, request.headers(), peer.map(|Extension(peer)| peer), right, "unauthorized") {
        Ok(caller) => {
            let leave = leave(&site, request.headers(), &caller);
            request.extensions_mut().insert(leave);
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::time::Timestamp;

    fn caller(scopes: &[&str]) -> Caller {
        Caller {
            subject: "somebody".to_owned(),
            client: "test".to_owned(),
            jti: "1".to_owned(),
            audience: "hub".to_owned(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect::<BTreeSet<_>>(),
            vault_scope: Vec::new(),
            permissions: None,
            scope_set: None,
            expires: Timestamp(0),
        }
    }

    #[test]
    fn who_may_look_may_not_change_and_who_may_change_may_look() {
        let (looks, changes, other) = (caller(&[READS]), caller(&[CHANGES]), caller(&["vault:lab:admin"]));
        let may = |caller| (Right::Read.is_given(caller), Right::Change.is_given(caller));
        assert_eq!((may(&looks), may(&changes), may(&other)), ((true, false), (true, true), (false, false)));
    }

    #[test]
    fn what_is_asked_needs_what_the_table_says() {
        let needs = |method: &Method, path: &str| needed(method, Some(path));
        assert_eq!(needs(&Method::GET, "/api/v1/blobs/{key}"), Right::Read);
        assert_eq!(needs(&Method::HEAD, "/api/v1/blobs/{key}"), Right::Read);
        assert_eq!(needs(&Method::PUT, "/api/v1/blobs/{key}"), Right::Change);
        for (method, path, right) in TABLE {
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            let path = format!("/api/v1{path}");
            assert_eq!(needs(&method, &path), *right);
            assert!(
                *right == Right::Change || method == Method::GET || path.ends_with("/plan"),
                "{method} {path} only looks?"
            );
        }
    }
}
