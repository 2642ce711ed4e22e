//! The paths of the older hub, whose modules and clients work here unchanged.

mod catalog;
mod modules;
pub(super) mod tokens;
mod well_known;

use axum::Router;
use axum::routing::{get, post};

use super::site::Site;

/// Its calls.
pub(super) fn router(site: &Site) -> Router<Site> {
    Router::new()
        .route("/.well-known/jwks.json", get(tokens::jwks))
        .route("/.well-known/parachute-revocation.json", get(tokens::revocations))
        .route("/api/auth/mint-token", post(tokens::mint))
        .route("/api/auth/revoke-token", post(tokens::revoke))
        .route("/api/auth/tokens", get(tokens::list))
        .route("/.well-known/parachute.json", get(well_known::parachute))
        .merge(modules::router(site))
}
