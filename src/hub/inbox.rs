//! `POST /inbox/<connection>`: events of durable connections. The answer is 202 when the event is on the disk, and not before.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::HttpBody;
use axum::extract::{Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::uri::Authority as Host;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::json;

use super::api::asked::body;
use super::api::rights::verify_for;
use super::metrics::Metrics;
use super::proxy::trust::{Layer, layer};
use super::refusal::Refusal;
use super::site::Site;
use crate::authority::{Authority, OwnRequest};
use crate::model::id::Name;
use crate::model::own_scope::is_own;
use crate::model::wording::nearest;
use crate::ports::clock::Clock;
use crate::ports::deliveries::{HubSide, MOST_BODY_BYTES, NotAccepted, event_id};
use crate::ports::hub::Wiring;

/// The audience of the bearers of triggers.
const AUDIENCE: &str = "inbox";
/// Bodies that are being read at once, all together.
pub(super) const ROOM_KIB: usize = 64 << 10;
/// The token of a delivery lives so long.
const TOKEN_SECONDS: i64 = 60;
/// Who may retry an event that was not taken in, after so many seconds.
const RETRY_FULL: u32 = 10;
const RETRY_BUSY: u32 = 1;

/// What the delivery room gets of the hub.
pub(super) fn side(authority: &Arc<Authority>, metrics: &Metrics, clock: &Arc<dyn Clock + Send + Sync>) -> HubSide {
    let (authority, clock, metrics) = (authority.clone(), clock.clone(), metrics.clone());
    HubSide {
        mint: Arc::new(move |wiring: &Wiring| {
            if !is_own(&wiring.audience, &wiring.scope) {
                return Err(format!("`{}` is no scope of the sink's own", wiring.scope));
            }
            let request = OwnRequest {
                scopes: vec![wiring.scope.clone()],
                audience: Some(wiring.audience.clone()),
                subject: "connection".to_owned(),
                seconds: TOKEN_SECONDS,
                ..OwnRequest::default()
            };
            let minted = authority.mint_brief(request, clock.wall()).map_err(|why| why.to_string())?;
            Ok(minted.token().clone())
        }),
        seen: Arc::new(move |connection, seen| metrics.delivery(connection, seen)),
    }
}

/// Other methods than POST. Nobody but a program of this machine is told that there is something.
pub(super) async fn no_method(peer: Option<Extension<SocketAddr>>, request: Request) -> Response {
    if !is_near(peer.map(|Extension(peer)| peer), &request) {
        return nothing().into_response();
    }
    let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "events come by POST");
    refusal.header(axum::http::header::ALLOW, "POST".to_owned()).into_response()
}

fn nothing() -> Refusal {
    Refusal::not_found("there is nothing here")
}

fn is_near(peer: Option<SocketAddr>, request: &Request) -> bool {
    let host = request.uri().authority().map(Host::as_str);
    peer.is_some_and(|peer| layer(peer.ip(), host, request.headers()) == Layer::Loopback)
}

/// Takes an event in.
pub(super) async fn accept(
    State(site): State<Site>,
    peer: Option<Extension<SocketAddr>>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    let peer = peer.map(|Extension(peer)| peer);
    let connection = Name::new(&name).ok();
    match take(&site, peer, &name, connection.as_ref(), request).await {
        Ok(response) => response,
        Err((reason, refusal)) => {
            // A name that is none of ours would be a label of whoever thinks it up.
            let known = connection.filter(|name| site.wish().connections.contains_key(name));
            site.metrics.refused(known.as_ref(), reason);
            let (status, why) = (refusal.status.as_u16(), refusal.description.as_str());
            if known.is_some() && is_of_the_bearer(reason) && site.may_ring() {
                // Its trigger sends a token that does not count any more: whoever keeps it true should know.
                (site.bell)();
            }
            let connection = known.as_ref().map(Name::as_str);
            tracing::info!(connection, reason, status, why, "an event was not taken in");
            refusal.into_response()
        }
    }
}

/// Whether an event was refused for its token alone.
fn is_of_the_bearer(reason: &str) -> bool {
    !matches!(reason, "elsewhere" | "unknown" | "busy" | "body" | "full" | "broken" | "unavailable" | "limited")
}

type Refused = (&'static str, Refusal);

async fn take(
    site: &Site,
    peer: Option<SocketAddr>,
    name: &str,
    connection: Option<&Name>,
    request: Request,
) -> Result<Response, Refused> {
    if !is_near(peer, &request) {
        return Err(("elsewhere", nothing()));
    }
    allowed(site, peer, name, request.headers())?;
    let wish = site.wish();
    let Some(connection) = connection.filter(|name| wish.connections.contains_key(name)) else {
        let known: Vec<&str> = wish.connections.keys().map(Name::as_str).collect();
        let hint = match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean '{near}'?"),
            None => "'trueup get' lists those that there are".to_owned(),
        };
        return Err(("unknown", Refusal::not_found(format!("there is no durable connection '{name}'; {hint}"))));
    };
    let declared = usize::try_from(request.body().size_hint().exact().unwrap_or(MOST_BODY_BYTES as u64));
    let room = declared.unwrap_or(MOST_BODY_BYTES).min(MOST_BODY_BYTES).div_ceil(1 << 10).max(1);
    let Ok(_room) = site.inbox.try_acquire_many(u32::try_from(room).unwrap_or(u32::MAX)) else {
        return Err(("busy", Refusal::busy(RETRY_BUSY)));
    };
    let usual = HeaderValue::from_static("application/json");
    let content_type = request.headers().get(CONTENT_TYPE).unwrap_or(&usual);
    let content_type = content_type.to_str().unwrap_or("application/json").to_owned();
    let bytes = body(request, MOST_BODY_BYTES).await.map_err(|refusal| ("body", refusal))?;
    match site.post.accept(connection.clone(), content_type, bytes).await {
        Ok(accepted) => {
            site.metrics.accepted(connection);
            let body = json!({ "accepted": true, "id": event_id(accepted.seq), "duplicate": accepted.known });
            Ok((StatusCode::ACCEPTED, Json(body)).into_response())
        }
        Err(NotAccepted::Unreadable(why)) => {
            Err(("body", Refusal::bad_request("invalid_body", format!("the body is no event: {why}"))))
        }
        Err(NotAccepted::Full(why)) => {
            let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "queue_full", why);
            Err(("full", refusal.after(RETRY_FULL)))
        }
        Err(NotAccepted::Busy) => Err(("busy", Refusal::busy(RETRY_BUSY))),
        Err(NotAccepted::Broken(why)) => {
            let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "deliveries_unavailable", why);
            Err(("broken", refusal.after(RETRY_FULL)))
        }
    }
}

/// The bearer is that of this very connection.
fn allowed(site: &Site, peer: Option<SocketAddr>, name: &str, headers: &HeaderMap) -> Result<(), Refused> {
    let caller = verify_for(site, headers, peer, &[AUDIENCE])?;
    let needed = format!("inbox:{name}");
    if caller.scopes.len() == 1 && caller.scopes.contains(&needed) {
        return Ok(());
    }
    site.metrics.denied("scope");
    let what = format!("this needs a token with exactly the scope {needed}");
    let refusal = Refusal::new(StatusCode::FORBIDDEN, "insufficient_scope", what);
    let scope = Name::new(name).map(|name| format!(", scope=\"inbox:{name}\"")).unwrap_or_default();
    Err(("scope", refusal.challenge(format!("realm=\"trueup\", error=\"insufficient_scope\"{scope}"))))
}
