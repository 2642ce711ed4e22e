//! Which handler answers which path. What is not the hub's own belongs to the services.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Request};
use axum::response::Response;
use axum::routing::get;

use super::health;
use super::proxy::body::RequestBody;
use super::proxy::{Peer, Proxy};
use super::site::Site;

/// The first segments of the hub's own paths. Requests elsewhere do not come to the router at all; those that come and find no handler go
/// to the services as well. A module cannot have a mount below one of them.
const OWN: &[&str] = &["healthz", "health"];

/// Whether the router is asked for a path.
pub(super) fn is_own(path: &str) -> bool {
    let first = path.get(1..).unwrap_or_default().split('/').next().unwrap_or_default();
    OWN.contains(&first)
}

/// The composition root of every listener.
pub(super) fn router(site: Site, proxy: Arc<Proxy>) -> Router {
    let to_services = move |Extension(peer): Extension<Peer>, request: Request| pass_on(proxy.clone(), peer, request);
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/health", get(health::healthz))
        .fallback(to_services)
        .with_state(site)
}

async fn pass_on(proxy: Arc<Proxy>, peer: Peer, request: Request) -> Response {
    let pause = proxy.body_pause();
    let answer = proxy.forward(request.map(|body| RequestBody::axum(body, pause)), peer).await;
    answer.map(axum::body::Body::new)
}
