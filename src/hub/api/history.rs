//! What happened, and what services wrote.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::sse;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::answers::{Always, ByName};
use super::asked::Asked;
use super::flow::{self, Flow, Gone};
use crate::hub::leave::Leave;
use crate::hub::office::Trouble;
use crate::hub::refusal::Refusal;
use crate::hub::site::Site;
use crate::model::event::Event;
use crate::model::id::{Name, ResourceId};
use crate::model::output::LogLine;
use crate::model::time::Timestamp;
use crate::ports::store::EventQuery;

/// So many events or lines at once.
const MOST: usize = 1_000;
const USUAL: usize = 100;
/// Lines of output at once.
const MOST_LINES: usize = 10_000;
/// New events are looked for after every tick, and at least so often.
const LOOK: Duration = Duration::from_secs(2);

/// Which events.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct WhichEvents {
    /// Only those about this resource.
    #[param(inline)]
    resource: Option<ResourceId>,
    /// Only those after this sequence number.
    #[param(maximum = 9_007_199_254_740_991_u64)]
    after: Option<u64>,
    /// Only those at this time or later.
    #[param(inline)]
    since: Option<Timestamp>,
    /// At most so many, the newest; 100 unless told.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Go on with new ones, as server-sent events.
    follow: Option<bool>,
}

/// Events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventList {
    /// Oldest first.
    pub events: Vec<Event>,
    /// For `after`, to go on from here.
    pub next: u64,
}

/// What happened.
///
/// With `follow=true`, server-sent events: each `event` has its sequence number as id, from which `Last-Event-ID` goes on.
#[utoipa::path(
    get, path = "/events", operation_id = "listEvents", tag = "history",
    params(WhichEvents, ("Last-Event-ID" = Option<String>, Header, description = "With `follow`: the last event that the client has")),
    responses(
        (status = 200, description = "The events, or a stream of them", content(
            (EventList = "application/json"), (String = "text/event-stream")
        )),
        Always
    )
)]
pub(super) async fn events(
    State(site): State<Site>,
    Extension(leave): Extension<Arc<Leave>>,
    headers: HeaderMap,
    Asked(which): Asked<WhichEvents>,
) -> Result<Response, Refusal> {
    let after = which.after.unwrap_or(0);
    if after > (1 << 53) - 1 {
        return Err(Refusal::bad_request("invalid_parameter", "'after' is larger than any sequence number"));
    }
    let limit = super::limit(which.limit, USUAL, MOST)?;
    let query = EventQuery { after, resource: which.resource, since: which.since, limit };
    if which.follow != Some(true) {
        let events = site.office.events(query).await?;
        let next = events.iter().map(|event| event.seq).max().unwrap_or(after);
        return Ok(Json(EventList { events, next }).into_response());
    }
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let last = last.filter(|seq| *seq < 1 << 53);
    let query = match last {
        // Whoever comes again gets all that was missed, within the bound.
        Some(seq) => EventQuery { after: after.max(seq), limit: MOST, ..query },
        None => query,
    };
    let own = site.clone();
    flow::events(&site, &leave, move |flow| tell(own, flow, query))
}

async fn tell(site: Site, flow: Flow<sse::Event>, mut query: EventQuery) -> Result<(), Gone> {
    let mut boards = site.board.clone();
    loop {
        boards.mark_unchanged();
        match site.office.events(query.clone()).await {
            Ok(events) => {
                for event in events {
                    query.after = query.after.max(event.seq);
                    flow.event("event", Some(event.seq.to_string()), &event).await?;
                }
                query.limit = MOST;
            }
            Err(Trouble::Busy(_)) => {}
            Err(_) => return Err(Gone),
        }
        // Both arms lose nothing: the next look asks for all that came since.
        tokio::select! {
            changed = boards.changed() => changed.map_err(|_| Gone)?,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Which lines.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct WhichLines {
    /// So many of the last lines; 100 unless told.
    #[param(minimum = 1, maximum = 10_000)]
    tail: Option<usize>,
    /// Go on with new ones: plain text, or server-sent events for a client that accepts them.
    follow: Option<bool>,
}

/// What a service wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LogList {
    /// Oldest first.
    pub lines: Vec<LogLine>,
}

/// What a service wrote.
///
/// JSON, or plain text for a client that accepts only that. With `follow=true` it goes on: as plain text, or as server-sent events
/// (`line`) for a client that accepts them.
#[utoipa::path(
    get, path = "/services/{name}/logs", operation_id = "serviceLogs", tag = "history",
    params(("name" = String, Path, description = "The name of the Service", example = "vault"), WhichLines),
    responses(
        (status = 200, description = "The lines, or a stream of them", content(
            (LogList = "application/json"), (String = "text/plain"), (String = "text/event-stream")
        )),
        Always, ByName
    )
)]
pub(super) async fn logs(
    State(site): State<Site>,
    Path(name): Path<String>,
    Extension(leave): Extension<Arc<Leave>>,
    headers: HeaderMap,
    Asked(which): Asked<WhichLines>,
) -> Result<Response, Refusal> {
    let tail = super::bounded("tail", which.tail, USUAL, MOST_LINES)?;
    let unit = Name::new(&name).map_err(|bad| Refusal::not_found(format!("there is no such service: {bad}")))?;
    let accepts =
        |media: &str| headers.get_all(ACCEPT).iter().any(|value| value.to_str().is_ok_and(|text| text.contains(media)));
    if which.follow != Some(true) {
        let lines = site.office.logs(unit, tail).await?;
        if accepts("text/plain") && !accepts("application/json") && !accepts("*/*") {
            let text: String = lines.iter().flat_map(|line| [line.text.as_str(), "\n"]).collect();
            return Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response());
        }
        return Ok(Json(LogList { lines }).into_response());
    }
    let mut lines = site.office.follow_logs(unit, tail).await?;
    if accepts("text/event-stream") {
        return flow::events(&site, &leave, move |flow| async move {
            while let Some(line) = lines.recv().await {
                flow.event("line", None, &line).await?;
            }
            Ok(())
        });
    }
    text(&site, &leave, lines)
}

/// Lines as plain text, as they come.
///
/// # Errors
/// When too many streams are under way.
pub(in crate::hub) fn text(
    site: &Site,
    leave: &Arc<Leave>,
    mut lines: tokio::sync::mpsc::Receiver<LogLine>,
) -> Result<Response, Refusal> {
    flow::text(site, leave, move |flow| async move {
        while let Some(line) = lines.recv().await {
            flow.give(Bytes::from(line.text + "\n")).await?;
        }
        Ok(())
    })
}
