//! Health: whether the hub itself is well, and whether what it serves is.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::site::Site;

/// `GET /healthz`, and `/health` for clients of the older hub.
pub(super) async fn healthz(State(site): State<Site>) -> Json<Value> {
    Json(json!({
        "status": "ok",
        "service": "trueup",
        "version": env!("CARGO_PKG_VERSION"),
        "instance": &*site.instance,
    }))
}
