//! What changes something: every change becomes an operation, which can be waited for or asked for later.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::answers::{Always, ByEngine, ByName, WithBody};
use super::asked::{Asked, Nothing, Told};
use super::resources::known;
use crate::hub::office::{Act, Planned};
use crate::hub::operations::{Operation, Status};
use crate::hub::refusal::Refusal;
use crate::hub::site::Site;
use crate::model::id::{KindName, Name};
use crate::model::overriding::{Against, OverrideRequest};
use crate::model::unit::Millis;

/// A request waits no longer than this.
const LONGEST_WAIT: Millis = Millis::secs(600);
/// An operation takes no longer than this.
const LONGEST_TIMEOUT: Millis = Millis::secs(3_600);
const USUAL_TIMEOUT: Millis = Millis::secs(300);
/// An override is for a while: what is meant for longer belongs into the file, where others see it.
const LONGEST: Millis = Millis(7 * 86_400_000);
/// Less than this would be over before it is done.
const SHORTEST: Millis = Millis(1_000);
const USUAL: Millis = Millis::secs(3_600);
/// Characters of a reason.
const REASON: usize = 500;

/// How long to wait for a change.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Patience {
    /// How long to wait for the end of the operation, at most 10m. Without it, the answer comes at once.
    #[param(inline)]
    wait: Option<Millis>,
    /// When the operation gives up, 5m unless told, at most 1h. What was begun by then stays.
    #[param(inline)]
    timeout: Option<Millis>,
}

impl Patience {
    fn timeout(&self) -> Result<Millis, Refusal> {
        let timeout = self.timeout.unwrap_or(USUAL_TIMEOUT);
        if (Millis(1)..=LONGEST_TIMEOUT).contains(&timeout) {
            return Ok(timeout);
        }
        Err(out_of_range("timeout", timeout, Millis(1), LONGEST_TIMEOUT))
    }

    fn wait(&self) -> Result<Millis, Refusal> {
        let wait = self.wait.unwrap_or_default();
        if wait <= LONGEST_WAIT { Ok(wait) } else { Err(out_of_range("wait", wait, Millis(0), LONGEST_WAIT)) }
    }
}

fn out_of_range(name: &str, given: Millis, from: Millis, to: Millis) -> Refusal {
    Refusal::bad_request("invalid_parameter", format!("'{name}' cannot be {given}: it is from {from} to {to}"))
}

/// What a plan or a pass may be told.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PassRequest {
    /// Exactly so many removals may pass the budget.
    allow_prune: Option<u32>,
}

/// How long a file is overridden, and why.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct OverrideBody {
    /// From 1s to 7d; 1h unless told.
    #[serde(rename = "for")]
    #[schema(inline)]
    span: Option<Millis>,
    /// Why, for whoever looks at it; at most 500 characters.
    #[schema(max_length = 500)]
    reason: Option<String>,
}

/// Plan.
///
/// Looks at the manifests and the machine, and says what would be done and why. Changes nothing.
#[utoipa::path(
    post, path = "/plan", operation_id = "plan", tag = "changes", request_body = inline(PassRequest),
    responses((status = 200, body = Planned), Always, WithBody, ByEngine)
)]
pub(super) async fn plan(
    State(site): State<Site>,
    _: Nothing,
    Told(request): Told<PassRequest>,
) -> Result<Json<Planned>, Refusal> {
    Ok(Json(site.office.plan(request.allow_prune).await?))
}

/// Reconcile now.
///
/// Looks again, and works until everything is settled. The daemon does that by itself when something changes.
#[utoipa::path(
    post, path = "/reconcile", operation_id = "reconcile", tag = "changes", params(Patience), request_body = inline(PassRequest),
    responses(
        (status = 200, description = "It is over, with success or without", body = Operation),
        (status = 202, description = "It is under way; `Location` says where to ask", body = Operation),
        Always, WithBody, ByEngine
    )
)]
pub(super) async fn reconcile(
    State(site): State<Site>,
    Asked(patience): Asked<Patience>,
    Told(request): Told<PassRequest>,
) -> Result<Done, Refusal> {
    act(&site, Act::Reconcile { allow_prune: request.allow_prune }, &patience).await
}

/// Restart a service.
///
/// Stops it and starts it again; over when it and what it needs are ready.
#[utoipa::path(
    post, path = "/services/{name}/restart", operation_id = "restartService", tag = "changes",
    params(("name" = String, Path, description = "The name of the Service", example = "vault"), Patience),
    responses(
        (status = 200, description = "It is over, with success or without", body = Operation),
        (status = 202, description = "It is under way; `Location` says where to ask", body = Operation),
        Always, ByName, ByEngine
    )
)]
pub(super) async fn restart(
    State(site): State<Site>,
    Path(name): Path<String>,
    Asked(patience): Asked<Patience>,
) -> Result<Done, Refusal> {
    let names = vec![service(&site, &name)?];
    act(&site, Act::Restart { names }, &patience).await
}

/// Stop a service for a while.
///
/// It stays stopped against its file until the time is over or it is started.
#[utoipa::path(
    post, path = "/services/{name}/stop", operation_id = "stopService", tag = "changes",
    params(("name" = String, Path, description = "The name of the Service", example = "vault"), Patience),
    request_body = inline(OverrideBody),
    responses(
        (status = 200, description = "It is over, with success or without", body = Operation),
        (status = 202, description = "It is under way; `Location` says where to ask", body = Operation),
        Always, WithBody, ByName, ByEngine
    )
)]
pub(super) async fn stop(
    State(site): State<Site>,
    Path(name): Path<String>,
    Asked(patience): Asked<Patience>,
    Told(body): Told<OverrideBody>,
) -> Result<Done, Refusal> {
    override_service(&site, &name, Against::Stop, body, &patience).await
}

/// Start a service.
///
/// Takes a stop back; what its file suspends runs for a while.
#[utoipa::path(
    post, path = "/services/{name}/start", operation_id = "startService", tag = "changes",
    params(("name" = String, Path, description = "The name of the Service", example = "vault"), Patience),
    request_body = inline(OverrideBody),
    responses(
        (status = 200, description = "It is over, with success or without", body = Operation),
        (status = 202, description = "It is under way; `Location` says where to ask", body = Operation),
        Always, WithBody, ByName, ByEngine
    )
)]
pub(super) async fn start(
    State(site): State<Site>,
    Path(name): Path<String>,
    Asked(patience): Asked<Patience>,
    Told(body): Told<OverrideBody>,
) -> Result<Done, Refusal> {
    override_service(&site, &name, Against::Start, body, &patience).await
}

async fn override_service(
    site: &Site,
    name: &str,
    wish: Against,
    body: OverrideBody,
    patience: &Patience,
) -> Result<Done, Refusal> {
    let names = vec![service(site, name)?];
    let span = body.span.unwrap_or(USUAL);
    if !(SHORTEST..=LONGEST).contains(&span) {
        let what =
            format!("'for' cannot be {span}: it is from {SHORTEST} to {LONGEST}; for longer, write it into the file");
        return Err(Refusal::unprocessable("invalid_body", what));
    }
    let reason = body.reason.unwrap_or_default();
    if reason.chars().count() > REASON {
        return Err(Refusal::unprocessable("invalid_body", format!("'reason' is longer than {REASON} characters")));
    }
    act(site, Act::Override(OverrideRequest { names, wish, span, reason }), patience).await
}

/// A service that can be stopped and started.
fn service(site: &Site, name: &str) -> Result<Name, Refusal> {
    let id = known(site, KindName::Service, name)?;
    let board = site.board();
    let broken = board.resources.iter().find(|line| line.kind == id.kind && line.name == id.name);
    match broken.filter(|line| line.phase == "Invalid") {
        Some(line) => {
            let what = format!("{id} never ran: its manifest has a mistake ({})", line.source);
            Err(Refusal::new(StatusCode::CONFLICT, "invalid", what))
        }
        None => Ok(id.name),
    }
}

/// 200 with an operation that is over, 202 with one that is not.
pub(super) type Done = (StatusCode, [(&'static str, String); 1], Json<Operation>);

async fn act(site: &Site, act: Act, patience: &Patience) -> Result<Done, Refusal> {
    let (timeout, wait) = (patience.timeout()?, patience.wait()?);
    let id = site.operations.begin(&*site.office, &site.clock, act, timeout)?;
    if wait > Millis(0) {
        // Cancel-safe: the operation goes on by itself.
        tokio::select! {
            () = site.operations.wait(&id, wait) => {}
            () = site.ended() => {}
        }
    }
    let operation = site.operations.get(&id, site.now()).ok_or_else(|| Refusal::busy(1))?;
    let status = if operation.status == Status::Running { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((status, [("location", format!("{}/operations/{id}", super::BASE))], Json(operation)))
}
