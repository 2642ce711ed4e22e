//! Which handler answers which path. What is not the hub's own belongs to the services.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Request};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{get, post};

use super::proxy::body::RequestBody;
use super::proxy::{Peer, Proxy};
use super::site::Site;
use super::{api, health, inbox, metrics, parachute, request_id};

/// The composition root of every listener.
pub(super) fn router(site: Site, proxy: Arc<Proxy>) -> Router {
    let instance = site.instance.clone();
    let to_services = move |Extension(peer): Extension<Peer>, request: Request| pass_on(proxy.clone(), peer, request);
    Router::new()
        .route("/healthz", get(health::healthz))
        .merge(api::router(&site))
        .merge(parachute::router(&site))
        .route("/health", get(health::health))
        .route("/readyz", get(health::readyz))
        .route("/api/ready", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/inbox/{connection}", post(inbox::accept).fallback(inbox::no_method))
        .fallback(to_services)
        .with_state(site)
        // The outermost, after the last route and the fallback.
        .layer(from_fn_with_state(instance, request_id::attend))
}

async fn pass_on(proxy: Arc<Proxy>, peer: Peer, request: Request) -> Response {
    let pause = proxy.body_pause();
    let answer = proxy.forward(request.map(|body| RequestBody::axum(body, pause)), peer).await;
    answer.map(axum::body::Body::new)
}
