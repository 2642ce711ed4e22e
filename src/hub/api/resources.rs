//! What there is, and how it stands.

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::answers::{Always, ByEngine, ByName};
use super::asked::{Asked, Nothing};
use crate::hub::refusal::Refusal;
use crate::hub::site::{Board, Site};
use crate::model::condition::{ConditionStatus, ConditionType};
use crate::model::id::{KindName, Name, ResourceId};
use crate::model::output::{Description, ProblemLine, ResourceLine};
use crate::model::time::Timestamp;
use crate::model::wording::nearest;

/// Which resources.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Only those of this kind.
    #[param(inline)]
    kind: Option<KindName>,
    /// Only those that are ready, or only those that are not.
    ready: Option<bool>,
}

/// The resources, as they were last looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Where `watch` goes on from, as `Last-Event-ID`.
    pub version: String,
    /// When it was looked at.
    pub at: Timestamp,
    /// Nothing is left to do or to wait for.
    pub settled: bool,
    /// Every resource that is declared or owned, sorted by identity.
    pub resources: Vec<ResourceLine>,
    /// The mistakes in the manifests.
    pub problems: Vec<ProblemLine>,
}

impl Resources {
    pub(super) fn of(site: &Site, board: &Board, wanted: impl Fn(&ResourceLine) -> bool) -> Self {
        Self {
            version: version(site, board),
            at: board.at,
            settled: board.settled,
            resources: board.resources.iter().filter(|line| wanted(line)).cloned().collect(),
            problems: board.problems.clone(),
        }
    }
}

/// The version of a board, which no other process has.
pub(super) fn version(site: &Site, board: &Board) -> String {
    format!("{}-{}", site.instance.get(..8).unwrap_or(&site.instance), board.version)
}

fn is_ready(line: &ResourceLine) -> bool {
    line.conditions.iter().any(|c| c.kind == ConditionType::Ready && c.status == ConditionStatus::True)
}

/// List the resources.
///
/// As the daemon last looked at them; it waits for nothing.
#[utoipa::path(
    get, path = "/resources", operation_id = "listResources", tag = "resources", params(Which),
    responses((status = 200, body = Resources), Always)
)]
pub(super) async fn list(State(site): State<Site>, Asked(which): Asked<Which>) -> Json<Resources> {
    let wanted = |line: &ResourceLine| {
        which.kind.is_none_or(|kind| line.kind == kind) && which.ready.is_none_or(|ready| is_ready(line) == ready)
    };
    Json(Resources::of(&site, &site.board(), wanted))
}

/// Describe a resource.
///
/// Its manifest in force, what it needs and who needs it, its newest events, and for a Service its last lines of output.
#[utoipa::path(
    get, path = "/resources/{kind}/{name}", operation_id = "describeResource", tag = "resources",
    params(
        ("kind" = String, Path, description = "Hub, Service, Storage or StorageBackend", example = "Service"),
        ("name" = String, Path, description = "The name of the resource", example = "vault")
    ),
    responses((status = 200, body = Description), Always, ByName, ByEngine)
)]
pub(super) async fn describe(
    State(site): State<Site>,
    Path((kind, name)): Path<(String, String)>,
    _: Nothing,
) -> Result<Json<Description>, Refusal> {
    let id = find(&site, &kind, &name)?;
    Ok(Json(site.office.describe(id).await?))
}

fn find(site: &Site, kind: &str, name: &str) -> Result<ResourceId, Refusal> {
    let kind: KindName = kind.parse().map_err(|_| {
        let kinds = KindName::ALL.map(KindName::as_str);
        let hint = match nearest(kind, kinds.into_iter()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("there are {}", kinds.join(", ")),
        };
        Refusal::not_found(format!("there is no kind '{}'; {hint}", short(kind)))
    })?;
    known(site, kind, name)
}

/// The identity of a resource that there is.
///
/// # Errors
/// 404, with the nearest name.
pub(super) fn known(site: &Site, kind: KindName, name: &str) -> Result<ResourceId, Refusal> {
    let board = site.board();
    let mut names = board.resources.iter().filter(|line| line.kind == kind).map(|line| line.name.as_str());
    if let Some(found) = names.clone().find(|found| *found == name).and_then(|found| Name::new(found).ok()) {
        return Ok(ResourceId::new(kind, found));
    }
    let hint = match nearest(name, names.by_ref()) {
        Some(near) => format!("did you mean {kind}/{near}?"),
        None => "GET /api/v1/resources lists what there is".to_owned(),
    };
    Err(Refusal::not_found(format!("there is no resource {kind}/{}; {hint}", short(name))))
}

/// A word of the client that is said back.
fn short(word: &str) -> String {
    word.chars().take(64).collect()
}
