//! Which handler answers which path. What is not the hub's own belongs to the services.

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;

use super::site::Site;
use super::{api, health, metrics, parachute, request_id};

/// The composition root of every listener.
pub(super) fn router(site: Site) -> Router {
    let instance = site.instance.clone();
    Router::new()
        .route("/healthz", get(health::healthz))
        .merge(api::router(&site))
        .merge(parachute::router())
        .route("/health", get(health::health))
        .route("/readyz", get(health::readyz))
        .route("/api/ready", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .with_state(site)
        // The outermost, after the last route and the fallback.
        .layer(from_fn_with_state(instance, request_id::attend))
}
