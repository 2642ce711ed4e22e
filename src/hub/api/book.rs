//! The operations that requests have begun.

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::answers::{Always, ByName};
use super::asked::{Asked, Nothing};
use crate::hub::operations::Operation;
use crate::hub::refusal::Refusal;
use crate::hub::site::Site;

/// How many.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct HowMany {
    /// At most so many, 100 unless told.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// The newest operations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OperationList {
    /// The newest first, without what was said.
    pub operations: Vec<Operation>,
}

/// List the operations.
///
/// They are kept in memory: the newest thousand since the daemon was started.
#[utoipa::path(
    get, path = "/operations", operation_id = "listOperations", tag = "operations", params(HowMany),
    responses((status = 200, body = OperationList), Always)
)]
pub(super) async fn list(
    State(site): State<Site>,
    Asked(asked): Asked<HowMany>,
) -> Result<Json<OperationList>, Refusal> {
    let limit = super::limit(asked.limit, 100, 1_000)?;
    Ok(Json(OperationList { operations: site.operations.list(limit, site.now()) }))
}

/// One operation, with what was said.
#[utoipa::path(
    get, path = "/operations/{id}", operation_id = "getOperation", tag = "operations",
    params(("id" = String, Path, description = "As it was answered when it was begun")),
    responses((status = 200, body = Operation), Always, ByName)
)]
pub(super) async fn show(
    State(site): State<Site>,
    Path(id): Path<String>,
    _: Nothing,
) -> Result<Json<Operation>, Refusal> {
    let found = site.operations.get(&id, site.now()).map(Json);
    found.ok_or_else(|| {
        Refusal::not_found("there is no such operation; only the newest since the daemon was started are kept")
    })
}
