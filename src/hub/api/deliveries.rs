//! Events of durable connections: listed, shown, tried again and thrown away.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::answers::{Always, ByName};
use super::asked::{Asked, Nothing};
use crate::hub::parachute::tokens::work;
use crate::hub::refusal::Refusal;
use crate::hub::site::Site;
use crate::model::delivery_output::{ChangedLine, DeliveryDetail, DeliveryLine};
use crate::model::id::Name;
use crate::ports::deliveries::{LetterQuery, Stage, event_id, parse_event_id};
use crate::ports::letters;

const USUAL: usize = 100;
const MOST: usize = 1_000;

/// Which events.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct WhichDeliveries {
    /// Only those of this connection.
    #[param(max_length = 63)]
    connection: Option<String>,
    /// Only those in this state: waiting, dead, delivered or discarded.
    state: Option<String>,
    /// At most so many; 100 unless told.
    #[param(minimum = 1, maximum = 1_000)]
    limit: Option<usize>,
    /// As the page before gave it.
    #[param(max_length = 16)]
    cursor: Option<String>,
}

/// One page of events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryList {
    /// The newest first, without their bodies.
    pub deliveries: Vec<DeliveryLine>,
    /// For the next page; nothing on the last.
    pub next_cursor: Option<String>,
}

fn wrong(name: &str, why: &str) -> Refusal {
    Refusal::bad_request("invalid_parameter", format!("'{name}' {why}"))
}

fn broken(why: String) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "deliveries_unavailable", why).after(5)
}

fn none() -> Refusal {
    Refusal::not_found("there is no event of this id")
}

/// List the events of durable connections.
#[utoipa::path(
    get, path = "/deliveries", operation_id = "listDeliveries", tag = "deliveries", params(WhichDeliveries),
    responses((status = 200, body = DeliveryList), Always)
)]
pub(super) async fn list(
    State(site): State<Site>,
    Asked(which): Asked<WhichDeliveries>,
) -> Result<Json<DeliveryList>, Refusal> {
    let limit = super::limit(which.limit, USUAL, MOST)?;
    let connection = which.connection.as_deref().map(Name::new).transpose();
    let connection = connection.map_err(|bad| wrong("connection", &format!("is no name: {bad}")))?;
    let stage = match which.state.as_deref() {
        None => None,
        Some(text) => {
            let stage = Stage::parse(text);
            Some(stage.ok_or_else(|| wrong("state", "is waiting, dead, delivered or discarded"))?)
        }
    };
    let before = match which.cursor.as_deref() {
        None => None,
        Some(text) => Some(parse_event_id(text).ok_or_else(|| wrong("cursor", "is not one that a page gave"))?),
    };
    let query = LetterQuery { connection, stage, before, limit };
    let found = work(&site, move |site| site.post.list(&query).map_err(broken)).await?;
    let next_cursor = found.last().filter(|_| found.len() == limit).map(|letter| event_id(letter.seq));
    Ok(Json(DeliveryList { deliveries: found.iter().map(letters::line).collect(), next_cursor }))
}

/// One event, with its body while that is kept.
///
/// The body is what a vault sent: who may only look does not see it.
#[utoipa::path(
    get, path = "/deliveries/{id}", operation_id = "getDelivery", tag = "deliveries",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, body = DeliveryDetail), Always, ByName)
)]
pub(super) async fn show(
    State(site): State<Site>,
    Path(id): Path<String>,
    _: Nothing,
) -> Result<Json<DeliveryDetail>, Refusal> {
    let seq = parse_event_id(&id).ok_or_else(none)?;
    let found = work(&site, move |site| site.post.find(seq).map_err(broken)).await?;
    found.map(|(letter, body)| Json(letters::detail(&letter, body.as_deref()))).ok_or_else(none)
}

/// Try an event again.
///
/// One that is dead waits again, with all its attempts before it; one that waits is tried at once.
#[utoipa::path(
    post, path = "/deliveries/{id}/replay", operation_id = "replayDelivery", tag = "deliveries",
    params(("id" = String, Path, description = "Its id")),
    responses(
        (status = 200, body = ChangedLine),
        (status = 409, description = "It was delivered or discarded, or its connection is not there any more", body = crate::hub::refusal::ErrorBody),
        Always, ByName
    )
)]
pub(super) async fn replay(
    State(site): State<Site>,
    Path(id): Path<String>,
    _: Nothing,
) -> Result<Json<ChangedLine>, Refusal> {
    change(site, &id, false).await
}

/// Throw an event away.
///
/// It is not delivered any more, and its body is removed.
#[utoipa::path(
    delete, path = "/deliveries/{id}", operation_id = "discardDelivery", tag = "deliveries",
    params(("id" = String, Path, description = "Its id")),
    responses(
        (status = 200, body = ChangedLine),
        (status = 409, description = "It was delivered or discarded", body = crate::hub::refusal::ErrorBody),
        Always, ByName
    )
)]
pub(super) async fn discard(
    State(site): State<Site>,
    Path(id): Path<String>,
    _: Nothing,
) -> Result<Json<ChangedLine>, Refusal> {
    change(site, &id, true).await
}

async fn change(site: Site, id: &str, discard: bool) -> Result<Json<ChangedLine>, Refusal> {
    let seq = parse_event_id(id).ok_or_else(none)?;
    work(&site, move |site| {
        if !discard
            && let Some((letter, _)) = site.post.find(seq).map_err(broken)?
            && matches!(letter.stage, Stage::Waiting | Stage::Dead)
            && !site.wish().connections.contains_key(&letter.connection)
        {
            let connection = &letter.connection;
            let why = format!("there is no durable connection '{connection}' any more: nobody would deliver the event");
            return Err(Refusal::new(StatusCode::CONFLICT, "no_connection", why));
        }
        if site.post.change(seq, discard).map_err(broken)? {
            return Ok(Json(ChangedLine { id: event_id(seq) }));
        }
        match site.post.find(seq).map_err(broken)? {
            None => Err(none()),
            Some((letter, _)) => {
                let why = format!("the event is {}, and its body is not kept any more", letter.stage.as_str());
                Err(Refusal::new(StatusCode::CONFLICT, "settled", why))
            }
        }
    })
    .await
}
