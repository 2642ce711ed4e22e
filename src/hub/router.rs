//! Which handler answers which path. What is not the hub's own belongs to the services.

use axum::Router;
use axum::routing::get;

use super::site::Site;
use super::{api, health, metrics};

/// The composition root of every listener.
pub(super) fn router(site: Site) -> Router {
    Router::new()
        .route("/healthz", get(health::healthz))
        .merge(api::router(&site))
        .route("/health", get(health::health))
        .route("/readyz", get(health::readyz))
        .route("/api/ready", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .with_state(site)
}
