//! Health: whether the hub itself is well, and whether what it serves is.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::site::Site;
use crate::ports::hub::{State as Of, Upstream};

/// `GET /healthz`: 200 when the hub and its database are well, 503 when not. Asks the database itself.
pub(super) async fn healthz(State(site): State<Site>) -> Response {
    let (well, body) = look(&site, "trueup").await;
    let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

/// `GET /health`: the same for clients of the older hub, which look at `db` and take every other status for a dead process.
pub(super) async fn health(State(site): State<Site>) -> Response {
    let (_, body) = look(&site, "parachute-hub").await;
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

async fn look(site: &Site, service: &str) -> (bool, Value) {
    let seen = site.vital.looked().await;
    let post = site.post.clone();
    let events = tokio::task::spawn_blocking(move || post.standing()).await.unwrap_or(Ok(()));
    let well = seen.is_ok() && events.is_ok();
    let db = seen.err().unwrap_or_else(|| "ok".to_owned());
    let body = json!({
        "status": if well { "ok" } else { "failing" },
        "service": service,
        "version": env!("CARGO_PKG_VERSION"),
        "db": db,
        "deliveries": events.err().unwrap_or_else(|| "ok".to_owned()),
        "instance": &*site.instance,
    });
    (well, body)
}

/// `GET /readyz`: 200 when everything that is to run is ready. What a person stopped is not waited for.
pub(super) async fn readyz(State(site): State<Site>) -> Response {
    let wish = site.wish();
    let waiting: Vec<Value> = wish
        .upstreams
        .iter()
        .filter(|(_, upstream)| !matches!(upstream.state, Of::Ready | Of::Stopped))
        .map(|(name, upstream)| json!({ "service": name, "reason": upstream.reason, "message": upstream.message }))
        .collect();
    let post = site.post.clone();
    let events = tokio::task::spawn_blocking(move || post.standing()).await.unwrap_or(Ok(()));
    let mut waiting = waiting;
    if let Err(why) = events {
        waiting.push(json!({ "reason": "DeliveriesFailing", "message": why }));
    }
    let ready = waiting.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(json!({ "ready": ready, "waiting": waiting }))).into_response()
}

/// `GET /api/ready`: the older hub's shape. Modules are named by their short names.
pub(super) async fn ready(State(site): State<Site>) -> Response {
    let wish = site.wish();
    let named = |is: fn(Of) -> bool| -> Vec<String> {
        let of = wish.upstreams.values().filter(|upstream: &&std::sync::Arc<Upstream>| is(upstream.state));
        of.map(|upstream| upstream.module.short.clone()).collect()
    };
    let transient = named(|state| state == Of::Starting);
    let persistent = named(|state| matches!(state, Of::Unwell | Of::Failed));
    let body = json!({
        "ready": transient.is_empty() && persistent.is_empty(),
        "ready_modules": named(|state| state == Of::Ready),
        "transient_modules": transient,
        "persistent_modules": persistent,
    });
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}
