//! A mailbox: takes messages in and shows them. In memory only, so a restart empties it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::Identity;

pub(super) const IDENTITY: Identity = Identity {
    short: "mailbox",
    row: "mailbox",
    port: 1941,
    mount: "/mailbox",
    health: "/mailbox/health",
    display_name: "Demo mailbox",
    tagline: "Takes messages in",
};

/// The oldest message goes when one more comes: nobody empties a demonstration.
const MOST_MESSAGES: usize = 1_000;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Message {
    /// Given by the mailbox.
    #[serde(default)]
    id: u64,
    #[serde(default)]
    channel: Option<String>,
    content: String,
}

#[derive(Default)]
struct Mailbox {
    messages: VecDeque<Message>,
    last: u64,
}

type Shared = Arc<Mutex<Mailbox>>;

pub(super) fn routes() -> Router {
    Router::new().route("/mailbox/api/messages", get(list).post(create)).with_state(Shared::default())
}

fn lock(mailbox: &Shared) -> MutexGuard<'_, Mailbox> {
    mailbox.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn list(State(mailbox): State<Shared>) -> Json<VecDeque<Message>> {
    Json(lock(&mailbox).messages.clone())
}

async fn create(State(mailbox): State<Shared>, Json(mut message): Json<Message>) -> Response {
    let mut mailbox = lock(&mailbox);
    mailbox.last += 1;
    message.id = mailbox.last;
    if mailbox.messages.len() >= MOST_MESSAGES {
        mailbox.messages.pop_front();
    }
    mailbox.messages.push_back(message.clone());
    (StatusCode::CREATED, Json(message)).into_response()
}
