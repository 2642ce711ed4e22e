//! A clerk who counts the notes in the vault. Without the vault it has nothing to say, which is what `dependsOn` is for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::server::problem;
use super::{Identity, registration, vault};
use crate::adapters::web;

pub(super) const IDENTITY: Identity = Identity {
    short: "clerk",
    row: "clerk",
    port: 1942,
    mount: "/clerk",
    health: "/clerk/health",
    display_name: "Demo clerk",
    tagline: "Counts the notes in the vault",
};

/// The vault is on this machine and counts in memory.
const PATIENCE: Duration = Duration::from_secs(1);

struct Clerk {
    home: Option<PathBuf>,
    vault_row: String,
}

pub(super) fn routes(home: Option<&Path>, vault_row: &str) -> Router {
    let clerk = Clerk { home: home.map(Path::to_owned), vault_row: vault_row.to_owned() };
    Router::new().route("/clerk/count", get(count)).with_state(Arc::new(clerk))
}

async fn count(State(clerk): State<Arc<Clerk>>) -> Response {
    match clerk.ask().await {
        Ok(notes) => Json(json!({ "vault": clerk.vault_row, "notes": notes })).into_response(),
        Err(why) => problem(StatusCode::SERVICE_UNAVAILABLE, "vault_unavailable", &why),
    }
}

impl Clerk {
    /// Looks the vault up at every question: it may have moved.
    async fn ask(&self) -> Result<u64, String> {
        let port = registration::port_of(self.home.as_deref(), &self.vault_row);
        let port = port.ok_or_else(|| format!("services.json has no row '{}' with a port", self.vault_row))?;
        let answer = web::get(port, vault::COUNT_PATH, [], PATIENCE).await.map_err(|why| why.to_string())?;
        let count = serde_json::from_slice::<Value>(&answer.body).ok().and_then(|body| body.get("notes")?.as_u64());
        count.ok_or_else(|| format!("the vault at port {port} answered {} without a number", answer.status))
    }
}
