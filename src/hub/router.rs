//! Which handler answers which path. What is not the hub's own belongs to the services.

use axum::Router;
use axum::routing::get;

use super::site::Site;
use super::{api, health};

/// The composition root of every listener.
pub(super) fn router(site: Site) -> Router {
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/health", get(health::healthz))
        .merge(api::router(&site))
        .with_state(site)
}
