//! The resources, as they change.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::answers::Always;
use super::asked::Asked;
use super::flow::{self, Flow, Gone};
use super::resources::{Resources, version};
use crate::hub::leave::Leave;
use crate::hub::refusal::Refusal;
use crate::hub::site::{Board, Site, same};
use crate::model::id::{KindName, Name};
use crate::model::output::ResourceLine;

/// Which resources.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Watched {
    /// Only those of this kind.
    #[param(inline)]
    kind: Option<KindName>,
}

/// A resource that is neither declared nor owned any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Removed {
    pub kind: KindName,
    pub name: Name,
}

/// Watch the resources.
///
/// Server-sent events: `snapshot` (as `GET /resources` answers), then `changed` (a resource) and `removed` (kind and name) as they
/// come. The id of an event is the version of what was told so far; with it in `Last-Event-ID`, a client that missed nothing gets no
/// second snapshot. `end` says why the stream ends. How long a process has run is no change.
#[utoipa::path(
    get, path = "/watch", operation_id = "watchResources", tag = "resources",
    params(Watched, ("Last-Event-ID" = Option<String>, Header, description = "The version that the client has")),
    responses((status = 200, description = "Goes on until the client leaves", content_type = "text/event-stream", body = String), Always)
)]
pub(super) async fn watch(
    State(site): State<Site>,
    Extension(leave): Extension<Arc<Leave>>,
    headers: HeaderMap,
    Asked(watched): Asked<Watched>,
) -> Result<Response, Refusal> {
    let known = headers.get("last-event-id").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let own = site.clone();
    flow::events(&site, &leave, move |flow| tell(own, flow, watched.kind, known))
}

async fn tell(
    site: Site,
    flow: Flow<axum::response::sse::Event>,
    kind: Option<KindName>,
    known: Option<String>,
) -> Result<(), Gone> {
    let wanted = |line: &ResourceLine| kind.is_none_or(|kind| line.kind == kind);
    let mut boards = site.board.clone();
    let mut told: Arc<Board> = boards.borrow_and_update().clone();
    let now = version(&site, &told);
    if known.as_ref() != Some(&now) {
        flow.event("snapshot", Some(now), &Resources::of(&site, &told, wanted)).await?;
    }
    loop {
        // Whoever is slow hears of what lies between two looks only how it ended.
        boards.changed().await.map_err(|_| Gone)?;
        let board = boards.borrow_and_update().clone();
        if board.version == told.version {
            continue;
        }
        let mut news = news(&told, &board, wanted).into_iter().peekable();
        while let Some(one) = news.next() {
            // A client that leaves in between has not all of this version yet.
            let id = news.peek().is_none().then(|| version(&site, &board));
            match one {
                News::Changed(line) => flow.event("changed", id, line).await?,
                News::Removed(line) => {
                    flow.event("removed", id, &Removed { kind: line.kind, name: line.name.clone() }).await?
                }
            }
        }
        told = board;
    }
}

enum News<'a> {
    Changed(&'a ResourceLine),
    Removed(&'a ResourceLine),
}

/// What is to be told after one board and before the next. Both are sorted by identity.
fn news<'a>(before: &'a Board, now: &'a Board, wanted: impl Fn(&ResourceLine) -> bool) -> Vec<News<'a>> {
    let mut old = before.resources.iter().filter(|line| wanted(line)).peekable();
    let mut news = Vec::new();
    for line in now.resources.iter().filter(|line| wanted(line)) {
        let key = (line.kind, &line.name);
        while let Some(gone) = old.next_if(|old| (old.kind, &old.name) < key) {
            news.push(News::Removed(gone));
        }
        match old.next_if(|old| (old.kind, &old.name) == key) {
            Some(old) if same(old, line) => {}
            _ => news.push(News::Changed(line)),
        }
    }
    news.extend(old.map(News::Removed));
    news
}
