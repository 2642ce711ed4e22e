//! A mailbox: takes messages in and shows them. Anybody on this machine may post one; what a hub delivers comes with a token of the hub
//! and is kept. It has channels and takes credentials as an agent's daemon does.

mod keep;
mod messages;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path as PathParameter, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Map, Value, json};

use self::keep::Keep;
use self::messages::{Delivery, Message, Messages, Taken};
use super::args::{Args, FailFirst};
use super::cut::Cut;
use super::guard::Guard;
use super::server::problem;
use super::{Identity, own_folder, say};

pub(super) const IDENTITY: Identity = Identity {
    short: "mailbox",
    row: "mailbox",
    port: 1941,
    mount: "/mailbox",
    health: "/mailbox/health",
    display_name: "Demo mailbox",
    tagline: "Takes messages in",
};

/// For whom tokens must be made.
const AUDIENCE: &str = "mailbox";
const SEND: &str = "mailbox:send";
const ADMIN: &str = "mailbox:admin";

struct Mailbox {
    messages: Mutex<Messages>,
    channels: Mutex<Keep>,
    credentials: Mutex<Keep>,
    guard: Guard,
    delay: Option<Duration>,
    fail: Option<(StatusCode, AtomicU64)>,
    lose_answers: AtomicU64,
    answer: Value,
}

type Shared = State<Arc<Mailbox>>;

pub(super) fn routes(args: &Args, identity: &Identity) -> Result<Router, String> {
    let folder = args.home.as_deref().map(|home| own_folder(home, &IDENTITY, identity.row));
    let file = |name: &str| folder.as_deref().map(|folder: &Path| folder.join(name));
    let unread = |error: io::Error| format!("the mailbox cannot read what it kept: {error}");
    let faults = &args.mailbox_faults;
    let fail = |FailFirst { status, times }| match StatusCode::from_u16(status) {
        Ok(status) => Ok((status, AtomicU64::new(times))),
        Err(_) => Err("--fail-deliver takes a status code".to_owned()),
    };
    let mailbox = Mailbox {
        messages: Mutex::new(Messages::load(file("messages.jsonl").as_deref()).map_err(unread)?),
        channels: Mutex::new(Keep::load(file("channels.json")).map_err(unread)?),
        credentials: Mutex::new(Keep::load(file("credentials.json")).map_err(unread)?),
        guard: Guard::new(&args.hub),
        delay: faults.deliver_delay.map(Duration::from_millis),
        fail: faults.fail_deliver.map(fail).transpose()?,
        lose_answers: AtomicU64::new(faults.lose_deliver_answers),
        answer: faults.deliver_answer.clone().unwrap_or_else(|| json!({ "ok": true })),
    };
    let routes = Router::new()
        .route("/mailbox/api/messages", get(list).post(create))
        .route("/mailbox/api/deliver", post(deliver))
        .route("/mailbox/api/channels", get(channels).post(put_channel))
        .route("/mailbox/api/channels/{name}", axum::routing::delete(remove_channel))
        .route("/mailbox/api/credential", post(take_credential))
        // As its module.json says: a credential is delivered at the own port, without a mount.
        .route("/api/credential", post(take_credential))
        .route("/mailbox/api/credentials", get(credentials))
        .with_state(Arc::new(mailbox));
    Ok(routes)
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // They change after the file did, so a panic leaves them whole.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One less; whether there was one.
fn take_one(left: &AtomicU64) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

async fn list(State(mailbox): Shared) -> Response {
    Json(lock(&mailbox.messages).all()).into_response()
}

async fn create(State(mailbox): Shared, Json(message): Json<Message>) -> Response {
    (StatusCode::CREATED, Json(lock(&mailbox.messages).post(message))).into_response()
}

/// Lets in whoever bears this scope. Whoever does not learns nothing about the reason.
async fn admit(mailbox: &Mailbox, headers: &HeaderMap, scope: &str) -> Result<(), Box<Response>> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token =
        bearer.and_then(|bearer| bearer.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let refused = match token {
        None => "there is none".to_owned(),
        Some((_, token)) => match mailbox.guard.check(token.trim(), AUDIENCE).await {
            Ok(claims) if claims.scopes.iter().any(|own| own == scope) => return Ok(()),
            Ok(_) => format!("it lacks the scope {scope}"),
            Err(refusal) => format!("{:?}: {}", refusal.code, refusal.message),
        },
    };
    say(&format!("a token is refused: {refused}"));
    Err(Box::new(problem(StatusCode::UNAUTHORIZED, "unauthorized", "a token of the hub is needed")))
}

/// What a vault or a hub delivers: `{trigger, event, note, params?}`.
async fn deliver(
    State(mailbox): Shared,
    Query(query): Query<Vec<(String, String)>>,
    ConnectInfo(cut): ConnectInfo<Cut>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(refused) = admit(&mailbox, &headers, SEND).await {
        return *refused;
    }
    if let Some((status, times)) = &mailbox.fail
        && take_one(times)
    {
        return problem(*status, "failing", "failing on request");
    }
    if let Some(delay) = mailbox.delay {
        tokio::time::sleep(delay).await;
    }
    let Ok(Value::Object(body)) = serde_json::from_slice::<Value>(&body) else {
        return problem(StatusCode::BAD_REQUEST, "invalid_request", "the body is no JSON object");
    };
    let note = body.get("note").and_then(Value::as_object);
    let Some((note, note_id)) = note.and_then(|note| Some((note, note.get("id")?.as_str()?.to_owned()))) else {
        return problem(StatusCode::BAD_REQUEST, "invalid_request", "there is no note with an id in the body");
    };
    let text = |of: &Map<String, Value>, name: &str| of.get(name).and_then(Value::as_str).map(str::to_owned);
    let key = headers.get("idempotency-key").map(|key| String::from_utf8_lossy(key.as_bytes()).into_owned());
    let delivery = Delivery {
        note_id,
        idempotency_key: key,
        trigger: text(&body, "trigger"),
        event: text(&body, "event"),
        arrival: 0,
        times: 0,
    };
    let content = text(note, "content").unwrap_or_default();
    let taken = lock(&mailbox.messages).deliver(channel(&query, &body, note), content, delivery);
    if take_one(&mailbox.lose_answers) {
        cut.cut();
    }
    match taken {
        Ok(Taken::New) => Json(&mailbox.answer).into_response(),
        Ok(Taken::Duplicate) => Json(json!({ "ok": true, "duplicate": true })).into_response(),
        Ok(Taken::Full) => problem(StatusCode::INSUFFICIENT_STORAGE, "full", "a demo mailbox holds no more"),
        Err(error) => not_kept(&error),
    }
}

/// From whoever knows it best: the connection, the address, or the note itself.
fn channel(query: &[(String, String)], body: &Map<String, Value>, note: &Map<String, Value>) -> Option<String> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let metadata = note.get("metadata");
    text(body.get("params").and_then(|params| params.get("channel")))
        .or_else(|| query.iter().find(|(name, _)| name == "channel").map(|(_, value)| value.clone()))
        .or_else(|| text(metadata.and_then(|metadata| metadata.get("channel"))))
        .or_else(|| text(metadata.and_then(|metadata| metadata.get("agent"))))
}

fn not_kept(error: &io::Error) -> Response {
    problem(StatusCode::INSUFFICIENT_STORAGE, "not_kept", &error.to_string())
}

fn is_slug(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    (1..=64).contains(&name.len()) && name.bytes().all(known)
}

async fn channels(State(mailbox): Shared, headers: HeaderMap) -> Response {
    if let Err(refused) = admit(&mailbox, &headers, ADMIN).await {
        return *refused;
    }
    let keep = lock(&mailbox.channels);
    let shown = keep.all().map(|(name, channel)| {
        let mut shown = json!({ "name": name, "transport": channel["transport"] });
        if let Some(vault) = channel["config"]["vault"].as_str() {
            shown["vault"] = json!(vault);
        }
        shown
    });
    Json(json!({ "channels": shown.collect::<Vec<_>>() })).into_response()
}

async fn put_channel(State(mailbox): Shared, headers: HeaderMap, body: Bytes) -> Response {
    if let Err(refused) = admit(&mailbox, &headers, ADMIN).await {
        return *refused;
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let Some(name) = body["name"].as_str().filter(|name| is_slug(name)) else {
        return problem(StatusCode::BAD_REQUEST, "invalid_request", "a channel has a name of a-z, 0-9, '-' and '_'");
    };
    let transport = body["transport"].as_str().unwrap_or("vault").to_owned();
    let kept = lock(&mailbox.channels).put(name, json!({ "transport": transport, "config": body["config"] }));
    match kept {
        Ok(true) => Json(json!({ "ok": true, "name": name, "transport": transport, "live": true })).into_response(),
        Ok(false) => problem(StatusCode::INSUFFICIENT_STORAGE, "full", "a demo mailbox has no more channels"),
        Err(error) => not_kept(&error),
    }
}

async fn remove_channel(
    State(mailbox): Shared,
    PathParameter(name): PathParameter<String>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = admit(&mailbox, &headers, ADMIN).await {
        return *refused;
    }
    match lock(&mailbox.channels).remove(&name) {
        Ok(true) => Json(json!({ "ok": true, "name": name, "removed": true })).into_response(),
        Ok(false) => problem(StatusCode::NOT_FOUND, "not_found", "there is no such channel"),
        Err(error) => not_kept(&error),
    }
}

/// A credential for somebody else's data: kept under its connection, and shown to nobody.
async fn take_credential(State(mailbox): Shared, headers: HeaderMap, body: Bytes) -> Response {
    if let Err(refused) = admit(&mailbox, &headers, ADMIN).await {
        return *refused;
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (connection, op) = (body["connection_id"].as_str(), body["op"].as_str());
    let has_token = body["token"].as_str().is_some_and(|token| !token.is_empty());
    let (Some(connection), Some("credential")) = (connection, body["kind"].as_str()) else {
        return problem(StatusCode::BAD_REQUEST, "invalid_request", "this is no credential of a connection");
    };
    let mut keep = lock(&mailbox.credentials);
    let kept = match op {
        Some("provisioned" | "renewed") if has_token => keep.put(connection, body.clone()),
        Some("removed") => keep.remove(connection).map(|_| true),
        _ => {
            return problem(
                StatusCode::BAD_REQUEST,
                "invalid_request",
                "op is provisioned or renewed, with a token, or removed",
            );
        }
    };
    match kept {
        Ok(true) => Json(json!({ "ok": true })).into_response(),
        Ok(false) => problem(StatusCode::INSUFFICIENT_STORAGE, "full", "a demo mailbox keeps no more credentials"),
        Err(error) => not_kept(&error),
    }
}

/// Which credentials there are; not the tokens.
async fn credentials(State(mailbox): Shared, headers: HeaderMap) -> Response {
    if let Err(refused) = admit(&mailbox, &headers, ADMIN).await {
        return *refused;
    }
    let keep = lock(&mailbox.credentials);
    let shown = keep.all().map(|(_, credential)| {
        let mut shown = credential.clone();
        shown.as_object_mut().and_then(|shown| shown.remove("token"));
        shown
    });
    Json(json!({ "credentials": shown.collect::<Vec<_>>() })).into_response()
}
