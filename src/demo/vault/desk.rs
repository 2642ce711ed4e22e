//! Where requests to a vault arrive: which vault, who asks, and what happens to the answer.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path, Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::super::cut::Cut;
use super::super::guard::Guard;
use super::super::server::{info, is_well};
use super::super::{Identity, say};
use super::door::{self, Caller, Refused, Rules, Verb};
use super::hooks::Hooks;
use super::notes;
use super::store::{StoreError, Vault};
use super::triggers::Trigger;
use super::vaults::{VaultError, Vaults};

/// How the vault misbehaves.
#[derive(Default)]
pub(super) struct Faults {
    /// Every call of the triggers API is answered so.
    pub(super) triggers_fail: Option<StatusCode>,
    /// So many answers to changes of triggers are still to be lost.
    pub(super) lose_answers: AtomicU64,
    pub(super) slow_api: Option<Duration>,
    pub(super) sick_while: Option<PathBuf>,
}

/// All that the routes share.
pub(super) struct Desk {
    pub(super) vaults: Vaults,
    pub(super) guard: Guard,
    pub(super) rules: Rules,
    pub(super) hooks: Arc<Hooks>,
    pub(super) faults: Faults,
}

type Shared = State<Arc<Desk>>;
type Pairs = Query<Vec<(String, String)>>;

/// A request that was let in.
pub(super) struct Asked {
    pub(super) desk: Arc<Desk>,
    pub(super) vault: Arc<Vault>,
    pub(super) caller: Caller,
    pub(super) query: Vec<(String, String)>,
}

impl Asked {
    pub(super) fn pair(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

pub(super) fn routes(desk: Arc<Desk>, identity: &Identity) -> Router {
    let about = info(identity);
    Router::new()
        .route("/vault/{vault}/api/notes", any(all_notes))
        .route("/vault/{vault}/api/notes/{id}", any(one_note))
        .route("/vault/{vault}/api/notes/{id}/attachments", any(attachments))
        .route("/vault/{vault}/api/count", get(count))
        .route("/vault/{vault}/api/triggers", any(all_triggers))
        .route("/vault/{vault}/api/triggers/", any(all_triggers))
        .route("/vault/{vault}/api/triggers/{name}", any(one_trigger))
        .route_layer(from_fn_with_state(desk.clone(), slowly))
        .route("/vault/{vault}/health", get(health))
        .route(
            "/vault/{vault}/.parachute/info",
            get(async move |State(desk): Shared, Path(vault): Path<String>| match desk.vaults.get(&vault) {
                Ok(_) => about.into_response(),
                Err(error) => no_vault(&error),
            }),
        )
        .with_state(desk)
}

async fn slowly(State(desk): Shared, request: Request, next: Next) -> Response {
    if let Some(pause) = desk.faults.slow_api {
        tokio::time::sleep(pause).await;
    }
    next.run(request).await
}

async fn health(State(desk): Shared, Path(vault): Path<String>) -> Response {
    match desk.vaults.get(&vault) {
        Ok(_) => is_well(desk.faults.sick_while.as_deref(), json!({ "status": "ok", "vault": vault })),
        Err(error) => no_vault(&error),
    }
}

/// Finds the vault and lets the caller in.
async fn ask(
    desk: Arc<Desk>,
    vault: &str,
    verb: Verb,
    headers: &HeaderMap,
    query: Vec<(String, String)>,
) -> Result<Asked, Refused> {
    let vault = desk.vaults.get(vault).map_err(|error| Box::new(no_vault(&error)))?;
    let caller = door::admit(&desk.guard, &desk.rules, headers, &query, &vault.name, verb).await?;
    Ok(Asked { desk, vault, caller, query })
}

fn verb_of(method: &Method) -> Verb {
    if [Method::GET, Method::HEAD, Method::OPTIONS].contains(method) { Verb::Read } else { Verb::Write }
}

async fn all_notes(
    State(desk): Shared,
    Path(vault): Path<String>,
    Query(query): Pairs,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match ask(desk, &vault, verb_of(&method), &headers, query).await {
        Ok(asked) => notes::collection(&asked, &method, &body),
        Err(refused) => *refused,
    }
}

async fn one_note(
    State(desk): Shared,
    Path((vault, id)): Path<(String, String)>,
    Query(query): Pairs,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match ask(desk, &vault, verb_of(&method), &headers, query).await {
        Ok(asked) => notes::item(&asked, &method, &id, &body),
        Err(refused) => *refused,
    }
}

async fn attachments(
    State(desk): Shared,
    Path((vault, id)): Path<(String, String)>,
    Query(query): Pairs,
    method: Method,
    headers: HeaderMap,
) -> Response {
    match ask(desk, &vault, verb_of(&method), &headers, query).await {
        Ok(asked) => notes::attachments(&asked, &method, &id),
        Err(refused) => *refused,
    }
}

async fn count(State(desk): Shared, Path(vault): Path<String>, Query(query): Pairs, headers: HeaderMap) -> Response {
    match ask(desk, &vault, Verb::Read, &headers, query).await {
        Ok(asked) => notes::count(&asked.vault),
        Err(refused) => *refused,
    }
}

async fn all_triggers(
    State(desk): Shared,
    Path(vault): Path<String>,
    Query(query): Pairs,
    ConnectInfo(cut): ConnectInfo<Cut>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Some(status) = desk.faults.triggers_fail {
        return error_body(status, "failing on request");
    }
    let asked = match ask(desk, &vault, Verb::Admin, &headers, query).await {
        Ok(asked) => asked,
        Err(refused) => return *refused,
    };
    match method {
        Method::GET => {
            let all = asked.vault.triggers();
            let shown = all.iter().filter(|_| !asked.desk.hooks.forgets()).map(Trigger::shown);
            Json(json!({ "triggers": shown.collect::<Vec<_>>() })).into_response()
        }
        Method::POST => {
            let answer = put(&asked.vault, &body);
            lose(&asked.desk.faults, &cut);
            answer
        }
        _ => method_not_allowed(),
    }
}

fn put(vault: &Vault, body: &[u8]) -> Response {
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return error_body(StatusCode::BAD_REQUEST, "Invalid JSON body");
    };
    let trigger = match Trigger::of(&body) {
        Ok(trigger) => trigger,
        Err(error) => return error_body(StatusCode::BAD_REQUEST, &error),
    };
    match vault.put_trigger(trigger) {
        Ok(trigger) => Json(json!({ "trigger": trigger.shown() })).into_response(),
        Err(error) => store_failed(&error),
    }
}

async fn one_trigger(
    State(desk): Shared,
    Path((vault, name)): Path<(String, String)>,
    Query(query): Pairs,
    ConnectInfo(cut): ConnectInfo<Cut>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    if let Some(status) = desk.faults.triggers_fail {
        return error_body(status, "failing on request");
    }
    let asked = match ask(desk, &vault, Verb::Admin, &headers, query).await {
        Ok(asked) => asked,
        Err(refused) => return *refused,
    };
    let unknown = || (StatusCode::NOT_FOUND, Json(json!({ "error": "Not found", "name": name }))).into_response();
    match method {
        Method::GET => {
            let all = asked.vault.triggers();
            let one = all.iter().find(|one| one.name == name && !asked.desk.hooks.forgets());
            one.map_or_else(unknown, |one| Json(json!({ "trigger": one.shown() })).into_response())
        }
        Method::DELETE => {
            let answer = match asked.vault.remove_trigger(&name) {
                Ok(true) => Json(json!({ "deleted": name })).into_response(),
                Ok(false) => unknown(),
                Err(error) => store_failed(&error),
            };
            lose(&asked.desk.faults, &cut);
            answer
        }
        _ => method_not_allowed(),
    }
}

/// Cuts the connection when this answer is one of those that are to be lost.
fn lose(faults: &Faults, cut: &Cut) {
    let one_less = |left: u64| left.checked_sub(1);
    if faults.lose_answers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
        cut.cut();
    }
}

pub(super) fn error_body(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "error": error }))).into_response()
}

pub(super) fn method_not_allowed() -> Response {
    error_body(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed")
}

pub(super) fn store_failed(error: &StoreError) -> Response {
    let status = match error {
        StoreError::Taken => StatusCode::CONFLICT,
        StoreError::Full => StatusCode::INSUFFICIENT_STORAGE,
        StoreError::Database(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    error_body(status, &error.to_string())
}

fn no_vault(error: &VaultError) -> Response {
    match error {
        VaultError::Unknown(vault) => {
            (StatusCode::NOT_FOUND, Json(json!({ "error": "Vault not found", "vault": vault }))).into_response()
        }
        error => {
            say(&format!("a vault cannot be opened: {error}"));
            error_body(StatusCode::INTERNAL_SERVER_ERROR, "the vault cannot be opened")
        }
    }
}
